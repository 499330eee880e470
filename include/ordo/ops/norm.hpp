#pragma once
/// \file
/// Layer norm and RMS norm over the last axis. Fused, forward and backward; a backward pass that is itself recorded is
/// made of elementary ops instead, so that both can be differentiated any number of times.

#include <utility>

#include "ordo/kernels/normalize.hpp"
#include "ordo/ops/reduce.hpp"
#include "ordo/ops/sequences.hpp"

namespace ordo {

/// Arguments: x, weight?, bias?.
struct NormOp {
  static constexpr const char* name = "norm";
  static constexpr unsigned keeps_inputs = 0x3, keeps_outputs = 0;
  bool centered = false;
  double eps = 1e-5, weight_offset = 0;

  template <class T>
  struct Saved {
    AnyTensor<T> mean, scale;
  };

  template <class T>
  AnyTensor<T> forward(Saved<T>* saved, const AnyTensor<T>& x, const AnyTensor<T>& weight,
                       const AnyTensor<T>& bias) const {
    const char* op = centered ? "layer_norm" : "rms_norm";
    if (x.rank() == 0) fail<ShapeError>({op, ": x is a scalar"});
    detail::require_shape(op, "weight", weight, Shape{x.shape().back()});
    detail::require_shape(op, "bias", bias, Shape{x.shape().back()});
    const auto in = arguments(x, weight, bias);
    AnyTensor<T> y(x.shape());
    if (saved != nullptr) {
      saved->scale = AnyTensor<T>(Shape{in.rows});
      if (centered) saved->mean = AnyTensor<T>(Shape{in.rows});
      kernels::normalize_forward<T>(in, y.data(), saved->mean.data(), saved->scale.data());
    } else {
      kernels::normalize_forward<T>(in, y.data(), nullptr, nullptr);
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p, const Saved<T>& saved) const {
    if (p.output(0).tracked()) return recorded_backward(p);
    AnyTensor<T> dx = detail::gradient_like(p, 0), dw = detail::gradient_like(p, 1), db = detail::gradient_like(p, 2);
    kernels::normalize_backward<T>(arguments(p.input(0).value, p.input(1).value, AnyTensor<T>{}), saved.mean.data(),
                                   saved.scale.data(), p.grad(0).value.data(), dx.data(), dw.data(), db.data());
    if (p.needs(0)) p.add(0, std::move(dx));
    if (p.needs(1)) p.add(1, std::move(dw));
    if (p.needs(2)) p.add(2, std::move(db));
  }

 private:
  /// With h = (x - mean) / r, r = sqrt(mean((x - mean)^2) + eps) and g = dy (weight_offset + weight):
  /// dx = (g - mean(g) [centered] - h mean(g h)) / r.
  template <class T>
  [[gnu::cold]] void recorded_backward(Pullback<T>& p) const {
    const Var<T> x = p.input(0), w = p.input(1), dy = p.grad(0);
    const auto deviation = [this](const Var<T>& v) { return centered ? sub(v, mean(v, -1, keep_axis)) : v; };
    const Var<T> d = deviation(x), r = sqrt(affine(mean(square(d), -1, keep_axis), 1, eps)), h = div(d, r);
    const Var<T> g = w.present() ? mul(dy, affine(w, 1, weight_offset)) : dy;
    if (p.needs(0)) p.add(0, div(sub(deviation(g), mul(h, mean(mul(g, h), -1, keep_axis))), r));
    if (p.needs(1)) p.add(1, detail::unbroadcast(mul(dy, h), w.shape()));
    if (p.needs(2)) p.add(2, detail::unbroadcast(dy, p.input(2).shape()));
  }
  template <class T>
  kernels::Normalization<T> arguments(const AnyTensor<T>& x, const AnyTensor<T>& weight,
                                      const AnyTensor<T>& bias) const {
    const Index n = x.shape().back();
    return {centered,
            n == 0 ? 0 : x.size() / n,
            n,
            x.data(),
            weight.data(),
            bias.data(),
            static_cast<T>(weight_offset),
            static_cast<T>(eps)};
  }
};

/// y = (x - mean) / sqrt(var + eps) * weight + bias over the last axis, with the biased variance; weight, bias: [n] or
/// none.
template <TensorLike X, class W, class B>
auto layer_norm(const X& x, const W& weight, const B& bias, double eps = 1e-5) {
  return apply<rank_of<X>>(NormOp{true, eps, 0}, x, weight, bias);
}
/// y = x / sqrt(mean(x^2) + eps) * (weight_offset + weight) over the last axis; weight: [n] or none (no factor then).
template <TensorLike X, class W>
auto rms_norm(const X& x, const W& weight, double eps = 1e-6, double weight_offset = 0) {
  return apply<rank_of<X>>(NormOp{false, eps, weight_offset}, x, weight, none);
}

}  // namespace ordo
