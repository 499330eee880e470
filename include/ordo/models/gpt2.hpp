#pragma once
/// \file
/// Gpt2: GPT-2 with the configuration and tensor names of Hugging Face's files.

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "ordo/models/hub.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/stack/causal_lm.hpp"
#include "ordo/stack/configured.hpp"

namespace ordo {

/// The keys of config.json, under their names and aliases.
template <class T>
struct Gpt2Config : HubConfig {
  static constexpr const char *base_class = "GPT2Model", *head_class = "GPT2LMHeadModel", *prefix = "transformer.";

  Index vocab_size = 50257, n_positions = 1024, n_embd = 768, n_layer = 12, n_head = 12;
  Index n_inner = 0;  ///< 0: 4 n_embd
  std::string activation_function = "gelu_new";
  double layer_norm_epsilon = 1e-5;
  bool scale_attn_weights = true, scale_attn_by_inverse_layer_idx = false;
  Gpt2Config() { tie_word_embeddings = true; }

  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    visit_common(c, f);
    f("vocab_size", c.vocab_size);
    f("max_position_embeddings", c.n_positions);
    f("n_positions", c.n_positions);
    f("hidden_size", c.n_embd);
    f("n_embd", c.n_embd);
    f("num_hidden_layers", c.n_layer);
    f("n_layer", c.n_layer);
    f("num_attention_heads", c.n_head);
    f("n_head", c.n_head);
    f("n_inner", c.n_inner);
    f("activation_function", c.activation_function);
    f("layer_norm_epsilon", c.layer_norm_epsilon);
    f("scale_attn_weights", c.scale_attn_weights);
    f("scale_attn_by_inverse_layer_idx", c.scale_attn_by_inverse_layer_idx);
  }

  static NameMap names() {
    return {{"embedding", "wte"}, {"position_embedding", "wpe"}, {"norm", "ln_f"}, {"head", "lm_head"},
            {"layers.*.mixer_norm", "h.*.ln_1"}, {"layers.*.feed_forward_norm", "h.*.ln_2"},
            {"layers.*.mixer.q_proj", "h.*.attn.c_attn", 0, 3, true}, {"layers.*.mixer.k_proj", "h.*.attn.c_attn", 1, 3, true},
            {"layers.*.mixer.v_proj", "h.*.attn.c_attn", 2, 3, true}, {"layers.*.mixer.o_proj", "h.*.attn.c_proj", 0, 1, true},
            {"layers.*.feed_forward.up_proj", "h.*.mlp.c_fc", 0, 1, true}, {"layers.*.feed_forward.down_proj", "h.*.mlp.c_proj", 0, 1, true}};
  }
  /// Causal masks that older files keep.
  static bool ignored(std::string_view name) { return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"); }

  typename CausalLm<SoftmaxAttention<T>>::Config expand() const {
    typename CausalLm<SoftmaxAttention<T>>::Config c;
    c.vocab_size = vocab_size;
    c.model_dim = n_embd;
    c.norm = NormKind::layer_norm;
    c.norm_eps = layer_norm_epsilon;
    c.positions = {.name = PositionKind::learned, .max_length = n_positions};
    c.tie_embeddings = !head_in_file;
    detail::require_at_least("gpt2", "n_layer", n_layer, 0);
    detail::require_at_least("gpt2", "n_head", n_head, 1);
    for (Index i = 0; i < n_layer; ++i) {
      typename Block<SoftmaxAttention<T>>::Config block;
      block.mixer.num_heads = n_head;
      block.mixer.causal = block.mixer.qkv_bias = block.mixer.out_bias = true;
      block.mixer.scale = scale_attn_weights ? 1 / std::sqrt(static_cast<double>(n_embd / n_head)) : 1;
      if (scale_attn_by_inverse_layer_idx) block.mixer.scale /= static_cast<double>(i + 1);
      block.feed_forward = {{.ff_dim = n_inner > 0 ? n_inner : 4 * n_embd, .activation = detail::hub_activation(activation_function)}};
      c.layers.push_back(std::move(block));
    }
    return c;
  }
};

/// Radford et al. 2019; agrees with transformers' GPT2LMHeadModel. `load_pretrained<Gpt2<float>>(folder)` reads a published checkpoint.
template <class T = float>
using Gpt2 = Configured<CausalLm<SoftmaxAttention<T>>, Gpt2Config<T>>;

}  // namespace ordo
