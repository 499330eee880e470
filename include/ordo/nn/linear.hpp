#pragma once
/// \file
/// Linear: y = f(x W^T + b).

#include <cmath>

#include "ordo/nn/layer.hpp"
#include "ordo/ops/activation.hpp"
#include "ordo/ops/matmul.hpp"

namespace ordo {

/// y = f(x W^T + b) on the last axis.   x: [..., in_dim], y: [..., out_dim], weight: [out_dim, in_dim], bias: [out_dim].
///
/// Weights and bias start uniform on +-1/sqrt(in_dim) (PyTorch's default). 2 in_dim out_dim flops a token. Untracked, the weights are
/// packed at the first call and the bias and activation are fused into the product. Agrees with torch.nn.functional.linear.
template <class T = float>
class Linear {
 public:
  using value_type = T;
  struct Config {
    Index in_dim = 0, out_dim = 0;
    bool bias = true;
    Activation activation = Activation::none;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("in_dim", c.in_dim);
      f("out_dim", c.out_dim);
      f("bias", c.bias);
      f("activation", c.activation);
    }
  };

  Linear() = default;
  [[gnu::cold]] Linear(const Config& config, Random& random) : activation_(config.activation) {
    detail::require_at_least("linear", "in_dim", config.in_dim, 1);
    detail::require_at_least("linear", "out_dim", config.out_dim, 1);
    const double bound = 1 / std::sqrt(static_cast<double>(config.in_dim));
    weight_ = uniform_parameter<T>(DynExtents<2>(config.out_dim, config.in_dim), bound, random);
    if (config.bias) bias_ = uniform_parameter<T>(DynExtents<1>(config.out_dim), bound, random);
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    return linear(x, weight_, bias_, activation_);
  }
  /// residual + f(x W^T + b), the addition fused where nothing is recorded.
  template <TensorLike X, TensorLike R>
  auto operator()(const X& x, const R& residual) const {
    return linear(x, weight_, bias_, activation_, residual);
  }

  const DynParameter<T, 2>& weight() const noexcept { return weight_; }
  DynParameter<T, 2>& weight() noexcept { return weight_; }
  const DynParameter<T, 1>& bias() const noexcept { return bias_; }
  DynParameter<T, 1>& bias() noexcept { return bias_; }
  Activation activation() const noexcept { return activation_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("weight", self.weight_);
    if (self.bias_.present()) f("bias", self.bias_);
  }

 private:
  Activation activation_ = Activation::none;
  DynParameter<T, 2> weight_;
  DynParameter<T, 1> bias_;
};

}  // namespace ordo
