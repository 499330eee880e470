#pragma once
/// \file
/// RmsNorm, LayerNorm, GroupNorm, GatedRmsNorm.

#include "ordo/nn/layer.hpp"
#include "ordo/ops/norm.hpp"

namespace ordo {

/// y = x / sqrt(mean(x^2) + norm_eps) * (weight_offset + weight) over the last axis.   x, y: [..., model_dim].
///
/// Zhang and Sennrich 2019 (arXiv 1910.07467); agrees with torch.nn.functional.rms_norm. weight_offset 1: Gemma, Griffin.
template <class T = float>
class RmsNorm {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0;
    double norm_eps = 1e-6;
    bool weight = true;
    double weight_offset = 0;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("norm_eps", c.norm_eps);
      f("weight", c.weight);
      f("weight_offset", c.weight_offset);
    }
  };

  RmsNorm() = default;
  [[gnu::cold]] explicit RmsNorm(const Config& config) : config_(config) {
    detail::require_at_least("rms_norm", "model_dim", config.model_dim, 1);
    if (config.weight) weight_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 1 - config.weight_offset);
  }
  [[gnu::cold]] RmsNorm(const Config& config, Random&) : RmsNorm(config) {}

  template <TensorLike X>
  auto operator()(const X& x) const {
    return rms_norm(x, weight_, config_.norm_eps, config_.weight_offset);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    if (self.weight_.present()) f("weight", self.weight_);
  }

 private:
  Config config_;
  DynParameter<T, 1> weight_;
};

/// y = (x - mean) / sqrt(var + norm_eps) * weight + bias over the last axis, with the biased variance.   x, y: [..., model_dim].
///
/// Ba, Kiros, Hinton 2016 (arXiv 1607.06450); agrees with torch.nn.functional.layer_norm.
template <class T = float>
class LayerNorm {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0;
    double norm_eps = 1e-5;
    bool weight = true, bias = true;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("norm_eps", c.norm_eps);
      f("weight", c.weight);
      f("bias", c.bias);
    }
  };

  LayerNorm() = default;
  [[gnu::cold]] explicit LayerNorm(const Config& config) : config_(config) {
    detail::require_at_least("layer_norm", "model_dim", config.model_dim, 1);
    if (config.bias && !config.weight) fail<ConfigError>("layer_norm: a bias without a weight");
    if (config.weight) weight_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 1);
    if (config.bias) bias_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 0);
  }
  [[gnu::cold]] LayerNorm(const Config& config, Random&) : LayerNorm(config) {}

  template <TensorLike X>
  auto operator()(const X& x) const {
    return layer_norm(x, weight_, bias_, config_.norm_eps);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    if (self.weight_.present()) f("weight", self.weight_);
    if (self.bias_.present()) f("bias", self.bias_);
  }

 private:
  Config config_;
  DynParameter<T, 1> weight_, bias_;
};

/// y = (x - mean) / sqrt(var + norm_eps) * weight + bias, mean and biased variance those of each token's group: the channels are
/// cut in num_groups runs.   x, y: [..., model_dim]; with over_length [B, L, model_dim].
///
/// over_length: those of a batch row's group over all its tokens, which is not causal. Wu and He 2018 (arXiv 1803.08494); agrees with
/// torch.nn.functional.group_norm.
template <class T = float>
class GroupNorm {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0, num_groups = 0;
    double norm_eps = 1e-5;
    bool weight = true, bias = true, over_length = false;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("num_groups", c.num_groups);
      f("norm_eps", c.norm_eps);
      f("weight", c.weight);
      f("bias", c.bias);
      f("over_length", c.over_length);
    }
  };

  GroupNorm() = default;
  explicit GroupNorm(const Config& config) : config_(config) {
    detail::require_at_least("group_norm", "model_dim", config.model_dim, 1);
    detail::require_divisible("group_norm", "model_dim", config.model_dim, config.num_groups);
    if (config.weight) weight_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 1);
    if (config.bias) bias_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 0);
  }
  GroupNorm(const Config& config, Random&) : GroupNorm(config) {}

  template <TensorLike X>
  auto operator()(const X& x) const {
    if (config_.over_length) {
      if constexpr (rank_of<X> == 3 || rank_of<X> == dynamic_rank) {
        return group_norm_over_length(x, weight_, bias_, config_.num_groups, config_.norm_eps);
      } else {
        fail<ShapeError>({"group_norm: x has shape ", detail::shape_of(x), ", expected [B, L, n] for statistics over the length"});
      }
    }
    return group_norm(x, weight_, bias_, config_.num_groups, config_.norm_eps);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    if (self.weight_.present()) f("weight", self.weight_);
    if (self.bias_.present()) f("bias", self.bias_);
  }

 private:
  Config config_;
  DynParameter<T, 1> weight_, bias_;
};

/// y = R(x) f(gate), or R(x f(gate)) with norm_before_gate = false; R(u) = u / sqrt(mean(u^2) + norm_eps) * weight + bias over each of
/// num_groups runs of channels, f silu or sigmoid.   x, gate, y: [..., model_dim].
///
/// Dao and Gu 2024 (arXiv 2405.21060); agrees with mamba_ssm's rms_norm_ref (layernorm_gated) and transformers' KimiLinearRMSNormGated.
template <class T = float>
class GatedRmsNorm {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0, num_groups = 1;
    double norm_eps = 1e-5;
    bool norm_before_gate = true;
    Activation gate_activation = Activation::silu;
    bool bias = false;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("num_groups", c.num_groups);
      f("norm_eps", c.norm_eps);
      f("norm_before_gate", c.norm_before_gate);
      f("gate_activation", c.gate_activation);
      f("bias", c.bias);
    }
  };

  GatedRmsNorm() = default;
  explicit GatedRmsNorm(const Config& config) : config_(config) {
    detail::require_at_least("gated_rms_norm", "model_dim", config.model_dim, 1);
    detail::require_divisible("gated_rms_norm", "model_dim", config.model_dim, config.num_groups);
    if (config.gate_activation != Activation::silu && config.gate_activation != Activation::sigmoid) {
      fail<ConfigError>("gated_rms_norm: gate_activation is silu or sigmoid, given " + to_string(config.gate_activation));
    }
    weight_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 1);
    if (config.bias) bias_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 0);
  }
  GatedRmsNorm(const Config& config, Random&) : GatedRmsNorm(config) {}

  template <TensorLike X, TensorLike G>
  auto operator()(const X& x, const G& gate) const {
    return gated_rms_norm(x, gate, weight_, bias_, config_.gate_activation, config_.norm_before_gate, config_.num_groups,
                          config_.norm_eps);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("weight", self.weight_);
    if (self.bias_.present()) f("bias", self.bias_);
  }

 private:
  Config config_;
  DynParameter<T, 1> weight_, bias_;
};

}  // namespace ordo
