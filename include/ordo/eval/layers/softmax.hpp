#pragma once
/// \file
/// Softmax attention of the layer list.

#include "ordo/eval/layers/entry.hpp"
#include "ordo/nn/softmax/differential_attention.hpp"
#include "ordo/nn/softmax/latent_attention.hpp"
#include "ordo/nn/softmax/relative_attention.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"

namespace ordo {

template <>
struct LayersOf<Family::softmax> {
  // Odd sizes, and sizes beyond one vector: tails and full vectors are both reached.
  template <class T, class F>
  static void list(F& f) {
    using detail::list_layer;
    list_layer<SoftmaxAttention<T>>(f, "softmax_attention", Family::softmax, {{.model_dim = 6, .num_heads = 2, .causal = true},
                                                                         {.model_dim = 5, .num_heads = 4, .num_kv_heads = 2, .head_dim = 6, .value_head_dim = 3, .qkv_bias = true, .out_bias = true, .causal = true, .rope_base = 100},
                                                                         {.model_dim = 6, .num_heads = 3, .num_kv_heads = 1, .head_dim = 4, .causal = true, .rope_base = 100, .rope_dim = 2, .rope_interleaved = true},
                                                                         {.model_dim = 6, .num_heads = 2, .head_dim = 4, .causal = true, .window = 5, .num_sink_tokens = 2, .alibi = true, .rope_base = 100},
                                                                         {.model_dim = 6, .num_heads = 2, .causal = true, .window = 3, .logit_softcap = 2, .sinks = true, .relative_bias = true, .relative_bias_buckets = 4, .relative_bias_max_distance = 9},
                                                                         {.model_dim = 6, .num_heads = 2, .causal = true, .softmax_one = true, .qk_norm = QkNorm::rms},
                                                                         {.model_dim = 5, .num_heads = 1, .causal = true, .window = 1, .num_sink_tokens = 3, .qk_norm = QkNorm::l2}});
    list_layer<LatentAttention<T>>(f, "latent_attention", Family::softmax, {{.model_dim = 5, .num_heads = 2, .head_dim = 3, .rope_dim = 4, .value_head_dim = 2, .kv_low_rank_dim = 3},
                                                                       {.model_dim = 6, .num_heads = 2, .head_dim = 9, .rope_dim = 2, .value_head_dim = 17, .kv_low_rank_dim = 3, .query_low_rank_dim = 5, .rope_base = 100, .rope_interleaved = true, .bias = true}});
    list_layer<DifferentialAttention<T>>(f, "differential_attention", Family::softmax, {{.model_dim = 6, .num_heads = 2},
                                                                                   {.model_dim = 5, .num_heads = 4, .num_kv_heads = 2, .head_dim = 6, .qkv_bias = true, .out_bias = true, .rope_base = 100, .lambda_init = 0.5}});
    list_layer<TransformerXlAttention<T>>(f, "relative_attention_transformer_xl", Family::softmax, {{.model_dim = 6, .num_heads = 2, .head_dim = 5}});
    list_layer<ShawRelativeAttention<T>>(f, "shaw_relative_attention", Family::softmax, {{.model_dim = 6, .num_heads = 2, .causal = true, .max_distance = 4},
                                                                                    {.model_dim = 6, .num_heads = 3, .value_head_dim = 5, .causal = true, .max_distance = 3, .clip_mode = ClipMode::zero, .shared = true, .qkv_bias = true, .out_bias = true},
                                                                                    {.model_dim = 6, .num_heads = 2, .causal = true, .max_distance = 3, .relative_values = true}});
  }
};

}  // namespace ordo
