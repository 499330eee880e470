#pragma once
/// \file
/// RmsNorm and LayerNorm.

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
  explicit RmsNorm(const Config& config) : config_(config) {
    detail::require_at_least("rms_norm", "model_dim", config.model_dim, 1);
    if (config.weight) weight_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 1 - config.weight_offset);
  }
  RmsNorm(const Config& config, Random&) : RmsNorm(config) {}

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
  explicit LayerNorm(const Config& config) : config_(config) {
    detail::require_at_least("layer_norm", "model_dim", config.model_dim, 1);
    if (config.bias && !config.weight) fail<ConfigError>("layer_norm: a bias without a weight");
    if (config.weight) weight_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 1);
    if (config.bias) bias_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 0);
  }
  LayerNorm(const Config& config, Random&) : LayerNorm(config) {}

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

}  // namespace ordo
