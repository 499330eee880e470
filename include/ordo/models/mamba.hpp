#pragma once
/// \file
/// MambaLm and MambaBlock: Mamba's published models (state-spaces/mamba, transformers).

#include <optional>
#include <string>
#include <string_view>

#include "ordo/models/hub.hpp"
#include "ordo/nn/ssm/mamba.hpp"
#include "ordo/stack/causal_lm.hpp"
#include "ordo/stack/configured.hpp"

namespace ordo {

/// The keys of Mamba, whose norm_eps is that of the block's norm too.
template <class T>
struct MambaBlockConfig {
  typename Mamba<T>::Config mixer{};
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    Mamba<T>::Config::visit(c.mixer, f);
  }
  typename Block<Mamba<T>>::Config expand() const {
    return {.model_dim = mixer.model_dim, .norm = NormKind::rms_norm, .norm_eps = mixer.norm_eps, .mixer = mixer};
  }
  static NameMap names() { return {{"mixer_norm", "norm"}}; }
};

/// y = x + mamba(rms_norm(x)), with the names of published checkpoints: `norm`, `mixer`. Agrees with transformers' MambaBlock.
template <class T = float>
using MambaBlock = Configured<Block<Mamba<T>>, MambaBlockConfig<T>>;

/// The keys of MambaBlock, and those of the model around the blocks.
template <class T>
struct MambaLmConfig {
  Index vocab_size = 0, model_dim = 0, num_layers = 0;
  typename Mamba<T>::Config mixer{};
  bool tie_embeddings = true;
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("vocab_size", c.vocab_size);
    f("num_layers", c.num_layers);
    f("tie_embeddings", c.tie_embeddings);
    Mamba<T>::Config::visit(c.mixer, [&](std::string_view name, auto& field) {
      if (name != "model_dim") f(name, field);
    });
    f("model_dim", c.model_dim);
  }
  typename CausalLm<Mamba<T>>::Config expand() const {
    return {.vocab_size = vocab_size, .model_dim = model_dim, .num_layers = num_layers, .block = {.mixer = mixer},
            .norm = NormKind::rms_norm, .norm_eps = mixer.norm_eps, .tie_embeddings = tie_embeddings};
  }
  static NameMap names() {
    return {{"embedding", "backbone.embeddings"}, {"layers", "backbone.layers"}, {"layers.*.mixer_norm", "backbone.layers.*.norm"},
            {"norm", "backbone.norm_f"}, {"head", "lm_head"}};
  }
};

/// Mamba's language model, with the names of published checkpoints. Agrees with transformers' MambaForCausalLM.
template <class T = float>
using MambaLm = Configured<CausalLm<Mamba<T>>, MambaLmConfig<T>>;

/// The keys of config.json.
template <class T>
struct MambaHubConfig : HubConfig {
  static constexpr const char *base_class = "MambaModel", *head_class = "MambaForCausalLM", *prefix = "backbone.";

  Index vocab_size = 50280, hidden_size = 768, num_hidden_layers = 32, state_size = 16, expand_factor = 2, conv_kernel = 4;
  std::optional<Index> dt_rank{};  ///< `time_step_rank`; not given, or "auto" in files: ceil(hidden_size / 16)
  bool use_bias = false, use_conv_bias = true;
  std::string hidden_act = "silu";
  double layer_norm_epsilon = 1e-5;
  MambaHubConfig() { tie_word_embeddings = true; }

  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    visit_common(c, f);
    f("vocab_size", c.vocab_size);
    f("hidden_size", c.hidden_size);
    f("num_hidden_layers", c.num_hidden_layers);
    f("state_size", c.state_size);
    f("expand", c.expand_factor);
    f("conv_kernel", c.conv_kernel);
    f("time_step_rank", c.dt_rank);
    f("use_bias", c.use_bias);
    f("use_conv_bias", c.use_conv_bias);
    f("hidden_act", c.hidden_act);
    f("layer_norm_epsilon", c.layer_norm_epsilon);
  }

  static NameMap names() {
    return {{"embedding", "embeddings"}, {"layers", "layers"}, {"layers.*.mixer_norm", "layers.*.norm"}, {"norm", "norm_f"}, {"head", "lm_head"}};
  }
  /// Of the authors' own files.
  static NameMap older_names() {
    return {{"embedding", "embedding"}, {"layers", "layers"}, {"layers.*.mixer_norm", "layers.*.norm"}, {"norm", "norm_f"}, {"head", "lm_head"}};
  }
  static bool ignored(std::string_view) { return false; }

  typename CausalLm<Mamba<T>>::Config expand() const {
    if (hidden_act != "silu" && hidden_act != "swish") fail<ConfigError>({"config.json: hidden_act: unknown value \"", hidden_act, "\""});
    typename CausalLm<Mamba<T>>::Config c;
    c.vocab_size = vocab_size;
    c.model_dim = hidden_size;
    c.num_layers = num_hidden_layers;
    c.norm = NormKind::rms_norm;
    c.norm_eps = layer_norm_epsilon;
    c.tie_embeddings = !head_in_file;
    auto& mixer = c.block.mixer;
    mixer.inner_dim = expand_factor * hidden_size;
    mixer.state_dim = state_size;
    mixer.conv_width = conv_kernel;
    mixer.dt_rank = dt_rank.value_or(0);
    mixer.conv_bias = use_conv_bias;
    mixer.proj_bias = use_bias;
    return c;
  }
};

/// Mamba's language model under config.json: `load_pretrained<MambaHub<float>>(folder)` reads a published checkpoint.
template <class T = float>
using MambaHub = Configured<CausalLm<Mamba<T>>, MambaHubConfig<T>>;

}  // namespace ordo
