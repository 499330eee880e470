#pragma once
/// \file
/// The layer list: the one place that names every layer. Property tests, conformance, benchmarks and documentation loop over it, so
/// that a new layer gets all of them from one line here.

#include <algorithm>
#include <array>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "ordo/nn/embedding.hpp"
#include "ordo/nn/feed_forward.hpp"
#include "ordo/nn/linear.hpp"
#include "ordo/nn/norm.hpp"
#include "ordo/nn/one_of.hpp"
#include "ordo/nn/short_conv.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/nn/ssm/mamba.hpp"
#include "ordo/stack/block.hpp"
#include "ordo/stack/causal_lm.hpp"

namespace ordo {

/// The folders that layers come from.
enum class Family { core, ssm, softmax, stack };
inline constexpr std::string_view to_string(Family family) noexcept {
  constexpr std::array<std::string_view, 4> names{"core", "ssm", "softmax", "stack"};
  return names[static_cast<std::size_t>(family)];
}

/// A layer under its name, with some small configurations that reach its options.
template <class L>
struct LayerEntry {
  using Layer = L;
  std::string_view name;  ///< snake_case; conformance cases and documentation use it
  Family family;
  std::vector<typename L::Config> configs;
};

/// Takes tokens (integers) rather than vectors.
template <class L>
concept TokenIdLayer = requires(typename L::Config& c) { c.vocab_size; };
/// Has a stream: state, step.
template <class L>
concept StreamingLayer = requires { typename L::template State<Mode::plain>; };

namespace detail {

/// Whether the families asked for (none: all) have this one.
template <Family family, Family... only>
inline constexpr bool is_listed = sizeof...(only) == 0 || ((family == only) || ...);

template <class L, Family family, Family... only, class F>
void list_layer(F& f, std::string_view name, std::initializer_list<typename L::Config> configs) {
  if constexpr (is_listed<family, only...>) f(LayerEntry<L>{name, family, configs});
}

}  // namespace detail

/// Calls f(LayerEntry<Layer>) for every layer over the scalar type T, of all families or of those given.
template <class T, Family... only, class F>
void for_each_layer(F&& f) {
  using enum Family;
  using detail::list_layer;
  using Attention = SoftmaxAttention<T>;
  using Hybrid = OneOf<Mamba<T>, SoftmaxAttention<T>>;
  // Odd sizes, and sizes beyond one vector: tails and full vectors are both reached.
  list_layer<Linear<T>, core, only...>(f, "linear", {{.in_dim = 5, .out_dim = 7}, {.in_dim = 18, .out_dim = 3, .bias = false, .activation = Activation::gelu}});
  list_layer<Embedding<T>, core, only...>(f, "embedding", {{.vocab_size = 11, .model_dim = 5}, {.vocab_size = 7, .model_dim = 18, .scale = 2}});
  list_layer<LayerNorm<T>, core, only...>(f, "layer_norm", {{.model_dim = 5}, {.model_dim = 18, .norm_eps = 0.1, .bias = false}});
  list_layer<RmsNorm<T>, core, only...>(f, "rms_norm", {{.model_dim = 5}, {.model_dim = 18, .weight = false}, {.model_dim = 7, .weight_offset = 1}});
  list_layer<Mlp<T>, core, only...>(f, "mlp", {{.model_dim = 5, .ff_dim = 7}, {.model_dim = 6, .ff_dim = 18, .bias = false, .activation = Activation::gelu_tanh}});
  list_layer<SwiGlu<T>, core, only...>(f, "swiglu", {{.model_dim = 5, .ff_dim = 7}, {.model_dim = 6, .ff_dim = 18, .bias = true}});
  list_layer<ShortConv<T>, core, only...>(f, "short_conv", {{.inner_dim = 5}, {.inner_dim = 18, .conv_width = 2, .bias = false, .activation = Activation::none}, {.inner_dim = 3, .conv_width = 1}});
  list_layer<Mamba<T>, ssm, only...>(f, "mamba", {{.model_dim = 5, .state_dim = 3},
                                            {.model_dim = 4, .inner_dim = 17, .state_dim = 4, .conv_width = 3, .dt_rank = 3, .conv_bias = false, .proj_bias = true, .dt_b_c_norm = DtBcNorm::rms},
                                            {.model_dim = 3, .inner_dim = 5, .state_dim = 2, .conv_width = 1, .dt_rank = 2, .dt_b_c_norm = DtBcNorm::rms_weightless}});
  list_layer<Block<Mamba<T>>, ssm, only...>(f, "mamba_block", {{.mixer = {.model_dim = 5, .state_dim = 3}}});
  list_layer<CausalLm<Mamba<T>>, stack, only...>(f, "mamba_lm", {{.vocab_size = 11, .model_dim = 6, .num_layers = 2, .mixers = {{.state_dim = 3}}},
                                                           {.vocab_size = 7, .model_dim = 5, .num_layers = 1, .mixers = {{.state_dim = 2}}, .tie_embeddings = false}});
  list_layer<Attention, softmax, only...>(f, "softmax_attention", {{.model_dim = 6, .num_heads = 2},
                                                             {.model_dim = 5, .num_heads = 4, .num_kv_heads = 2, .head_dim = 6, .value_head_dim = 3, .qkv_bias = true, .out_bias = true, .rope_base = 100},
                                                             {.model_dim = 6, .num_heads = 3, .num_kv_heads = 1, .head_dim = 4, .rope_base = 100, .rope_dim = 2, .rope_interleaved = true}});
  list_layer<CausalLm<Attention, Mlp<T>, LayerNorm<T>>, stack, only...>(f, "softmax_lm", {{.vocab_size = 11, .model_dim = 6, .num_layers = 2, .mixers = {{.num_heads = 2}}, .ff = {.ff_dim = 9}, .max_length = 64}});
  list_layer<CausalLm<Hybrid>, stack, only...>(f, "hybrid_lm", {{.vocab_size = 11, .model_dim = 6, .num_layers = 2,
                                                           .mixers = {typename Mamba<T>::Config{.state_dim = 3}, typename Attention::Config{.num_heads = 3, .rope_base = 100}}}});
}

}  // namespace ordo
