#pragma once
/// \file
/// Softmaxes with zeros: sparsemax and 1.5-entmax along an axis, and the softmax of masked scores.

#include <cmath>
#include <limits>

#include "ordo/kernels/entmax.hpp"
#include "ordo/ops/select.hpp"
#include "ordo/ops/softmax.hpp"

namespace ordo {

/// From y and u: g_i (u_i - sum g u / sum g), g = 1 (sparsemax) or sqrt(y) on the support. As a function of u symmetric.
struct EntmaxGradientOp {
  static constexpr const char* name = "entmax";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  kernels::Entmax kind;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& y, const AnyTensor<T>& u) const {
    AnyTensor<T> dx(y.shape());
    kernels::entmax_backward(kind, y.data(), u.data(), dx.data(), detail::row_count(y), y.shape().back());
    return dx;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> y = p.input(0), u = p.input(1), v = p.grad(0);
    if (p.needs(1)) p.add(1, apply<dynamic_rank>(*this, y, v));
    if (p.needs(0) && kind == kernels::Entmax::entmax15) p.add(0, along_support(y.value, u.value, v.value));
  }

 private:
  /// d/dy_j of <v, g (u - m(u))>, m(u) = sum g u / sum g: (u_j - m(u)) (v_j - m(v)) / (2 g_j).
  template <class T>
  [[gnu::cold]] static AnyTensor<T> along_support(const AnyTensor<T>& y, const AnyTensor<T>& u, const AnyTensor<T>& v) {
    AnyTensor<T> out(y.shape(), T(0));
    const Index n = y.shape().back();
    for (Index first = 0; first < y.size(); first += n) {
      T total = 0, mu = 0, mv = 0;
      for (Index i = first; i < first + n; ++i) {
        const T g = std::sqrt(y.data()[i]);
        if (g == T(0)) continue;
        total += g;
        mu += g * u.data()[i];
        mv += g * v.data()[i];
      }
      for (Index i = first; i < first + n; ++i) {
        const T g = std::sqrt(y.data()[i]);
        if (g != T(0)) out.data()[i] = (u.data()[i] - mu / total) * (v.data()[i] - mv / total) / (2 * g);
      }
    }
    return out;
  }
};

struct EntmaxOp {
  static constexpr const char* name = "entmax";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 1;
  kernels::Entmax kind;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    kernels::entmax(kind, x.data(), y.data(), detail::row_count(x), x.shape().back());
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(EntmaxGradientOp{kind}, p.output(0), p.grad(0)));
  }
};

/// The Euclidean projection of x on the simplex, along an axis: max(x_i - tau, 0) with sum 1. Exact, O(n + k log k) with k elements
/// within 1 of the largest. -inf is 0; lines of -inf alone give 0. Has two derivatives; they are those of the support.
///
/// Martins and Astudillo 2016 (arXiv 1602.02068); agrees with entmax's sparsemax.
template <TensorLike X>
auto sparsemax(const X& x, Index axis = -1) {
  return detail::along_axis("sparsemax", x, axis, [](const auto& v) {
    return apply<rank_of<std::remove_cvref_t<decltype(v)>>>(EntmaxOp{kernels::Entmax::sparsemax}, v);
  });
}
/// max(x_i / 2 - tau, 0)^2 with sum 1, along an axis; otherwise as sparsemax.
///
/// Peters, Niculae, Martins 2019 (arXiv 1905.05702); agrees with entmax's entmax15.
template <TensorLike X>
auto entmax15(const X& x, Index axis = -1) {
  return detail::along_axis("entmax15", x, axis, [](const auto& v) {
    return apply<rank_of<std::remove_cvref_t<decltype(v)>>>(EntmaxOp{kernels::Entmax::entmax15}, v);
  });
}

/// The softmax over the last axis among the elements where the mask is true; 0 elsewhere, and everywhere in a row without any. The
/// mask (bools or integers) broadcasts to x. What x holds where it is false, NaN too, reaches neither y nor the gradient.
template <TensorLike X, TensorLike M>
auto softmax_masked(const X& x, const M& mask) {
  constexpr double out = -std::numeric_limits<double>::infinity();
  MaskedFillOp op{detail::broadcast_mask("softmax_masked", detail::hold_mask(mask), detail::shape_of(x)), true, out};
  return softmax(apply_in<rank_of<X>>(recorder(x, mask), op, x));
}

}  // namespace ordo
