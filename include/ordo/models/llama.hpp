#pragma once
/// \file
/// Llama with the configuration and tensor names of Hugging Face's files.

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "ordo/models/hub.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/stack/causal_lm.hpp"
#include "ordo/stack/configured.hpp"

namespace ordo {

/// Rotary positions as config.json writes them, in `rope_parameters` (newer files) or `rope_scaling` and beside it.
struct HubRope {
  std::string rope_type;  ///< also `type`; empty: default
  std::optional<double> rope_theta, partial_rotary_factor;
  double factor = 0, low_freq_factor = 0, high_freq_factor = 0, beta_fast = 32, beta_slow = 1, mscale = 0, mscale_all_dim = 0;
  std::optional<double> attention_factor;
  Index original_max_position_embeddings = 0;
  bool truncate = true;
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("type", c.rope_type);
    f("rope_type", c.rope_type);
    f("rope_theta", c.rope_theta);
    f("partial_rotary_factor", c.partial_rotary_factor);
    f("factor", c.factor);
    f("low_freq_factor", c.low_freq_factor);
    f("high_freq_factor", c.high_freq_factor);
    f("beta_fast", c.beta_fast);
    f("beta_slow", c.beta_slow);
    f("mscale", c.mscale);
    f("mscale_all_dim", c.mscale_all_dim);
    f("attention_factor", c.attention_factor);
    f("original_max_position_embeddings", c.original_max_position_embeddings);
    f("truncate", c.truncate);
  }
};

/// The keys of config.json.
template <class T>
struct LlamaConfig : HubConfig {
  static constexpr const char *base_class = "LlamaModel", *head_class = "LlamaForCausalLM", *prefix = "model.";

  Index vocab_size = 32000, hidden_size = 4096, intermediate_size = 11008, num_hidden_layers = 32, num_attention_heads = 32;
  Index num_key_value_heads = 0;  ///< 0: num_attention_heads
  Index head_dim = 0;             ///< 0: hidden_size / num_attention_heads
  std::string hidden_act = "silu";
  double rms_norm_eps = 1e-6;
  Index max_position_embeddings = 2048;
  std::optional<double> rope_theta, partial_rotary_factor;
  std::optional<HubRope> rope_parameters, rope_scaling;
  bool attention_bias = false, mlp_bias = false;

  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    visit_common(c, f);
    f("vocab_size", c.vocab_size);
    f("hidden_size", c.hidden_size);
    f("intermediate_size", c.intermediate_size);
    f("num_hidden_layers", c.num_hidden_layers);
    f("num_attention_heads", c.num_attention_heads);
    f("num_key_value_heads", c.num_key_value_heads);
    f("head_dim", c.head_dim);
    f("hidden_act", c.hidden_act);
    f("rms_norm_eps", c.rms_norm_eps);
    f("max_position_embeddings", c.max_position_embeddings);
    f("rope_theta", c.rope_theta);
    f("partial_rotary_factor", c.partial_rotary_factor);
    f("rope_parameters", c.rope_parameters);
    f("rope_scaling", c.rope_scaling);
    f("attention_bias", c.attention_bias);
    f("mlp_bias", c.mlp_bias);
  }

  static NameMap names() {
    return {{"embedding", "embed_tokens"}, {"norm", "norm"}, {"head", "lm_head"}, {"layers", "layers"},
            {"layers.*.mixer_norm", "layers.*.input_layernorm"}, {"layers.*.mixer", "layers.*.self_attn"},
            {"layers.*.feed_forward_norm", "layers.*.post_attention_layernorm"}, {"layers.*.feed_forward", "layers.*.mlp"}};
  }
  static bool ignored(std::string_view name) { return name == "rotary_emb.inv_freq" || name.ends_with(".self_attn.rotary_emb.inv_freq"); }

  typename CausalLm<SoftmaxAttention<T>>::Config expand() const {
    typename CausalLm<SoftmaxAttention<T>>::Config c;
    c.vocab_size = vocab_size;
    c.model_dim = hidden_size;
    c.num_layers = num_hidden_layers;
    c.norm = NormKind::rms_norm;
    c.norm_eps = rms_norm_eps;
    c.tie_embeddings = !head_in_file;
    auto& mixer = c.block.mixer;
    mixer.num_heads = num_attention_heads;
    mixer.num_kv_heads = num_key_value_heads;
    mixer.head_dim = head_dim;
    mixer.causal = true;
    mixer.qkv_bias = mixer.out_bias = attention_bias;
    set_rope(mixer);
    const Activation act = detail::hub_activation(hidden_act);
    c.block.feed_forward = {{.name = FeedForwardKind::gated, .ff_dim = intermediate_size, .bias = mlp_bias, .activation = act}};
    return c;
  }

 private:
  template <class Mixer>
  void set_rope(Mixer& mixer) const {
    const HubRope rope = rope_parameters ? *rope_parameters : rope_scaling.value_or(HubRope{});
    mixer.rope_base = rope.rope_theta.value_or(rope_theta.value_or(10000));
    const double part = rope.partial_rotary_factor.value_or(partial_rotary_factor.value_or(1));
    detail::require_at_least("llama", "num_attention_heads", num_attention_heads, 1);
    const Index k = head_dim > 0 ? head_dim : hidden_size / num_attention_heads;
    mixer.rope_dim = static_cast<Index>(static_cast<double>(k) * part);
    if (!rope.rope_type.empty() && rope.rope_type != "default") set_scaling(mixer, rope);
  }
  template <class Mixer>
  void set_scaling(Mixer& mixer, const HubRope& rope) const {
    if constexpr (requires { mixer.rope_scaling; }) {
      auto& s = mixer.rope_scaling;
      if (!from_string(rope.rope_type, s.type) || (rope.rope_type != "linear" && rope.rope_type != "llama3" && rope.rope_type != "yarn")) {
        fail<ConfigError>({"config.json: unknown rope_type \"", rope.rope_type, "\""});
      }
      s.original_max_length = rope.original_max_position_embeddings > 0 ? rope.original_max_position_embeddings : max_position_embeddings;
      s.max_length = max_position_embeddings;
      s.factor = rope.factor;
      if (s.factor == 0 && rope.rope_type == "yarn") s.factor = static_cast<double>(max_position_embeddings) / static_cast<double>(s.original_max_length);
      s.low_freq_factor = rope.low_freq_factor;
      s.high_freq_factor = rope.high_freq_factor;
      s.beta_fast = rope.beta_fast;
      s.beta_slow = rope.beta_slow;
      s.truncate = rope.truncate;
      s.attention_factor = rope.attention_factor;
      s.mscale = rope.mscale;
      s.mscale_all_dim = rope.mscale_all_dim;
    }
  }
};

/// Touvron et al. 2023 (arXiv 2302.13971), Llama 3 (2407.21783); agrees with transformers' LlamaForCausalLM.
/// `load_pretrained<Llama<float>>(folder)` reads a published checkpoint.
template <class T = float>
using Llama = Configured<CausalLm<SoftmaxAttention<T>>, LlamaConfig<T>>;

}  // namespace ordo
