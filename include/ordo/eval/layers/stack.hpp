#pragma once
/// \file
/// Stacks of the layer list.

#include "ordo/eval/layers/entry.hpp"
#include "ordo/models/mamba.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/stack/causal_lm.hpp"

namespace ordo {

template <>
struct LayersOf<Family::stack> {
  // Odd sizes, and sizes beyond one vector: tails and full vectors are both reached.
  template <class T, class F>
  static void list(F& f) {
    using detail::list_layer;
    using Attention = SoftmaxAttention<T>;
    using Hybrid = OneOf<Mamba<T>, SoftmaxAttention<T>>;
    list_layer<MambaLm<T>>(f, "mamba_lm", Family::stack, {{.vocab_size = 11, .model_dim = 6, .num_layers = 2, .mixer = {.state_dim = 3}},
                                                     {.vocab_size = 7, .model_dim = 5, .num_layers = 1, .mixer = {.state_dim = 2}, .tie_embeddings = false}});
    // One type, so that it is compiled once: attention as GPT-2 and Gemma 2 have it, blocks in parallel, norms behind the branches, a hybrid.
    const typename FeedForward<T>::Config mlp{.ff_dim = 9}, geglu{.name = FeedForwardKind::geglu, .ff_dim = 7, .bias = false};
    const typename Attention::Config plain{.num_heads = 2, .causal = true}, rope{.num_heads = 3, .causal = true, .rope_base = 100};
    list_layer<CausalLm<Hybrid>>(f, "hybrid_lm", Family::stack, {
        {.vocab_size = 11, .model_dim = 6, .num_layers = 2, .layers = {{.mixer = plain, .feed_forward = mlp}}, .norm = NormKind::layer_norm,
         .positions = {.name = PositionKind::learned, .max_length = 64}, .tie_embeddings = true},
        {.vocab_size = 11, .model_dim = 6, .layers = {{.mixer = typename Mamba<T>::Config{.state_dim = 3}}, {.mixer = rope, .feed_forward = geglu}},
         .norm_position = NormPosition::sandwich, .embedding_scale = 2, .logit_softcap = 3},
        {.vocab_size = 7, .model_dim = 6, .layers = {{.norm_position = NormPosition::parallel, .mixer = rope, .feed_forward = mlp},
                                                     {.norm_position = NormPosition::post, .residual_scale = 0.5, .mixer = plain, .feed_forward = geglu}},
         .norm = NormKind::layer_norm, .norm_bias = false, .final_norm = false, .positions = {.name = PositionKind::sinusoidal}, .embedding_norm = true,
         .head_bias = true, .logit_scale = 0.5}});
  }
};

}  // namespace ordo
