#pragma once
/// \file
/// Activation functions on tensors of any rank, with first and second derivatives. The formulas stand at `Activation`.
///
/// They keep their argument for the backward pass. The tanh and sigmoid of elementwise.hpp keep their result instead:
/// of the two, `activation` has derivatives that are exact where the function saturates.

#include "ordo/autograd/apply.hpp"
#include "ordo/kernels/activation.hpp"
#include "ordo/ops/elementwise.hpp"

namespace ordo {

/// u f'(x), or u f''(x). A third derivative is not there.
struct ActivationGradientOp {
  static constexpr const char* name = "activation";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  ActivationParameters f;
  int order = 1;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x, const AnyTensor<T>& u) const {
    AnyTensor<T> y(x.shape());
    if (order == 1) {
      kernels::activate_first(f, x.data(), u.data(), y.data(), x.size());
    } else {
      kernels::activate_second(f, x.data(), u.data(), y.data(), x.size());
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> x = p.input(0), g = p.grad(0);
    if (p.needs(0)) {
      if (order == 2) fail<UsageError>({"activation ", to_string(f.kind), ": the third derivative is not implemented"});
      p.add(0, apply<dynamic_rank>(ActivationGradientOp{f, 2}, x, mul(p.input(1), g)));
    }
    if (p.needs(1)) p.add(1, apply<dynamic_rank>(*this, x, g));
  }
};

/// f(x).
struct ActivationOp {
  static constexpr const char* name = "activation";
  static constexpr unsigned keeps_inputs = 1, keeps_outputs = 0;
  ActivationParameters f;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    if (f.kind == Activation::none) return x;
    AnyTensor<T> y(x.shape());
    kernels::activate(f, x.data(), y.data(), x.size());
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0,
          f.kind == Activation::none ? p.grad(0) : apply<dynamic_rank>(ActivationGradientOp{f}, p.input(0), p.grad(0)));
  }
};

/// f(x), element by element. ConfigError if softplus has beta = 0.
template <TensorLike X>
auto activation(const X& x, const ActivationParameters& f) {
  if (f.kind == Activation::softplus && f.beta == 0)
    fail<ConfigError>("activation: softplus needs a beta other than 0");
  return apply<rank_of<X>>(ActivationOp{f}, x);
}
/// f(x) with the usual constants.
template <TensorLike X>
auto activation(const X& x, Activation kind) {
  return activation(x, ActivationParameters{kind});
}

template <TensorLike X>
auto relu(const X& x) {
  return activation(x, Activation::relu);
}
template <TensorLike X>
auto relu_squared(const X& x) {
  return activation(x, Activation::relu_squared);
}
template <TensorLike X>
auto leaky_relu(const X& x, double negative_slope = 0.01) {
  return activation(x, ActivationParameters{.kind = Activation::leaky_relu, .negative_slope = negative_slope});
}
template <TensorLike X>
auto elu(const X& x, double alpha = 1) {
  return activation(x, ActivationParameters{.kind = Activation::elu, .alpha = alpha});
}
template <TensorLike X>
auto gelu(const X& x) {
  return activation(x, Activation::gelu);
}
template <TensorLike X>
auto gelu_tanh(const X& x) {
  return activation(x, Activation::gelu_tanh);
}
template <TensorLike X>
auto quick_gelu(const X& x) {
  return activation(x, Activation::quick_gelu);
}
template <TensorLike X>
auto silu(const X& x) {
  return activation(x, Activation::silu);
}
template <TensorLike X>
auto softplus(const X& x, double beta = 1) {
  return activation(x, ActivationParameters{.kind = Activation::softplus, .beta = beta});
}
template <TensorLike X>
auto mish(const X& x) {
  return activation(x, Activation::mish);
}
template <TensorLike X>
auto hard_swish(const X& x) {
  return activation(x, Activation::hard_swish);
}
template <TensorLike X>
auto hard_sigmoid(const X& x) {
  return activation(x, Activation::hard_sigmoid);
}
template <TensorLike X>
auto log_sigmoid(const X& x) {
  return activation(x, Activation::log_sigmoid);
}

}  // namespace ordo
