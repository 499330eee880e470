#pragma once
/// \file
/// Feed-forwards: Mlp, gated ones (SwiGlu, GeGlu, ReGlu).

#include <string>

#include "ordo/nn/linear.hpp"
#include "ordo/ops/elementwise.hpp"

namespace ordo {

/// y = down(f(up(x))).   x, y: [..., model_dim]; 4 model_dim ff_dim flops a token.
template <class T = float>
class Mlp {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0, ff_dim = 0;
    bool bias = true;
    Activation activation = Activation::gelu;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("ff_dim", c.ff_dim);
      f("bias", c.bias);
      f("activation", c.activation);
    }
  };

  Mlp() = default;
  Mlp(const Config& config, Random& random)
      : up_proj_({config.model_dim, config.ff_dim, config.bias, config.activation}, random),
        down_proj_({config.ff_dim, config.model_dim, config.bias}, random) {}

  template <TensorLike X>
  auto operator()(const X& x) const {
    return down_proj_(up_proj_(x));
  }
  /// residual + y.
  template <TensorLike X, TensorLike R>
  auto operator()(const X& x, const R& residual) const {
    return down_proj_(up_proj_(x), residual);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("up_proj", self.up_proj_);
    f("down_proj", self.down_proj_);
  }

 private:
  Linear<T> up_proj_, down_proj_;
};

/// y = down(f(gate(x)) * up(x)).   x, y: [..., model_dim]; 6 model_dim ff_dim flops a token.
///
/// f is one of the activations `first, others...`, by default the first; where there is a choice, it is a field of the configuration.
/// Dauphin et al. 2017 (arXiv 1612.08083), Shazeer 2020 (arXiv 2002.05202); agrees with transformers' LlamaMLP.
template <class T, Activation first, Activation... others>
class GatedFeedForward {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0, ff_dim = 0;
    bool bias = false;
    Activation activation = first;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("ff_dim", c.ff_dim);
      f("bias", c.bias);
      if constexpr (sizeof...(others) > 0) f("activation", c.activation);
    }
  };

  GatedFeedForward() = default;
  GatedFeedForward(const Config& config, Random& random)
      : gate_proj_({config.model_dim, config.ff_dim, config.bias, checked(config.activation)}, random),
        up_proj_({config.model_dim, config.ff_dim, config.bias}, random),
        down_proj_({config.ff_dim, config.model_dim, config.bias}, random) {}

  template <TensorLike X>
  auto operator()(const X& x) const {
    return down_proj_(mul(gate_proj_(x), up_proj_(x)));
  }
  /// residual + y.
  template <TensorLike X, TensorLike R>
  auto operator()(const X& x, const R& residual) const {
    return down_proj_(mul(gate_proj_(x), up_proj_(x)), residual);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("gate_proj", self.gate_proj_);
    f("up_proj", self.up_proj_);
    f("down_proj", self.down_proj_);
  }

 private:
  static Activation checked(Activation f) {
    if (f == first || ((f == others) || ...)) return f;
    std::string known = to_string(first);
    ((known += " or " + to_string(others)), ...);
    fail<ConfigError>("gated feed-forward: activation is " + known + ", given " + to_string(f));
  }

  Linear<T> gate_proj_, up_proj_, down_proj_;
};

/// y = down(silu(gate(x)) * up(x)): Llama's feed-forward.
template <class T = float>
using SwiGlu = GatedFeedForward<T, Activation::silu>;
/// y = down(gelu(gate(x)) * up(x)), or gelu_tanh (Gemma).
template <class T = float>
using GeGlu = GatedFeedForward<T, Activation::gelu, Activation::gelu_tanh>;
/// y = down(relu(gate(x)) * up(x)).
template <class T = float>
using ReGlu = GatedFeedForward<T, Activation::relu>;

}  // namespace ordo
