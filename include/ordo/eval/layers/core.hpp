#pragma once
/// \file
/// Core layers of the layer list.

#include "ordo/eval/layers/entry.hpp"
#include "ordo/nn/conv1d.hpp"
#include "ordo/nn/embedding.hpp"
#include "ordo/nn/feed_forward.hpp"
#include "ordo/nn/linear.hpp"
#include "ordo/nn/norm.hpp"
#include "ordo/nn/short_conv.hpp"

namespace ordo {

template <>
struct LayersOf<Family::core> {
  // Odd sizes, and sizes beyond one vector: tails and full vectors are both reached.
  template <class T, class F>
  static void list(F& f) {
    using detail::list_layer;
    list_layer<Linear<T>>(f, "linear", Family::core, {{.in_dim = 5, .out_dim = 7}, {.in_dim = 18, .out_dim = 3, .bias = false, .activation = Activation::gelu}});
    list_layer<Embedding<T>>(f, "embedding", Family::core, {{.vocab_size = 11, .model_dim = 5}, {.vocab_size = 7, .model_dim = 18, .scale = 2}});
    list_layer<LayerNorm<T>>(f, "layer_norm", Family::core, {{.model_dim = 5}, {.model_dim = 18, .norm_eps = 0.1, .bias = false}});
    list_layer<RmsNorm<T>>(f, "rms_norm", Family::core, {{.model_dim = 5}, {.model_dim = 18, .weight = false}, {.model_dim = 7, .weight_offset = 1}});
    list_layer<GroupNorm<T>>(f, "group_norm", Family::core, {{.model_dim = 6, .num_groups = 2}, {.model_dim = 18, .num_groups = 6, .norm_eps = 0.1, .weight = false, .bias = false}, {.model_dim = 5, .num_groups = 1}});
    list_layer<Mlp<T>>(f, "mlp", Family::core, {{.model_dim = 5, .ff_dim = 7}, {.model_dim = 6, .ff_dim = 18, .bias = false, .activation = Activation::gelu_tanh}});
    list_layer<SwiGlu<T>>(f, "swiglu", Family::core, {{.model_dim = 5, .ff_dim = 7}, {.model_dim = 6, .ff_dim = 18, .bias = true}});
    list_layer<GeGlu<T>>(f, "geglu", Family::core, {{.model_dim = 5, .ff_dim = 7}, {.model_dim = 6, .ff_dim = 18, .bias = true, .activation = Activation::gelu_tanh}});
    list_layer<ReGlu<T>>(f, "reglu", Family::core, {{.model_dim = 5, .ff_dim = 7}, {.model_dim = 6, .ff_dim = 18, .bias = true}});
    list_layer<ShortConv<T>>(f, "short_conv", Family::core, {{.inner_dim = 5}, {.inner_dim = 18, .conv_width = 2, .bias = false, .activation = Activation::none}, {.inner_dim = 3, .conv_width = 1}});
    // Of Conv1d the property tests want causal ones, of the others all are.
    list_layer<Conv1d<T>>(f, "conv1d", Family::core, {{.in_dim = 5, .out_dim = 7, .conv_width = 3, .padding_left = 2},
                                                      {.in_dim = 18, .out_dim = 9, .conv_width = 2, .dilation = 3, .padding_left = 3, .num_groups = 3, .bias = false},
                                                      {.in_dim = 18, .out_dim = 18, .conv_width = 4, .padding_left = 3, .num_groups = 18}});
    list_layer<ConvTranspose1d<T>>(f, "conv_transpose1d", Family::core, {{.in_dim = 5, .out_dim = 7, .conv_width = 3, .stride = 2, .padding = 1, .output_padding = 1},
                                                                         {.in_dim = 18, .out_dim = 9, .conv_width = 2, .dilation = 2, .num_groups = 3, .bias = false}});
    list_layer<CausalConv1d<T>>(f, "causal_conv1d", Family::core, {{.in_dim = 5, .out_dim = 7, .conv_width = 3},
                                                                   {.in_dim = 6, .out_dim = 18, .conv_width = 2, .dilation = 5, .num_groups = 2, .bias = false},
                                                                   {.in_dim = 5, .out_dim = 3, .conv_width = 1}});
  }
};

}  // namespace ordo
