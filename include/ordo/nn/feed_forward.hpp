#pragma once
/// \file
/// Feed-forwards: Mlp, SwiGlu, and none.

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

/// y = down(silu(gate(x)) * up(x)).   x, y: [..., model_dim]; 6 model_dim ff_dim flops a token.
///
/// Shazeer 2020 (arXiv 2002.05202); agrees with transformers' LlamaMLP.
template <class T = float>
class SwiGlu {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0, ff_dim = 0;
    bool bias = false;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("ff_dim", c.ff_dim);
      f("bias", c.bias);
    }
  };

  SwiGlu() = default;
  SwiGlu(const Config& config, Random& random)
      : gate_proj_({config.model_dim, config.ff_dim, config.bias, Activation::silu}, random),
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
  Linear<T> gate_proj_, up_proj_, down_proj_;
};

/// The feed-forward of a block that has none.
template <class T = float>
class NoFeedForward {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0;
    template <class Self, class F>
    static void visit(Self&, F&&) {}
  };
  NoFeedForward() = default;
  NoFeedForward(const Config&, Random&) {}
  template <class Self, class F>
  static void visit(Self&, F&&) {}
};

}  // namespace ordo
