#pragma once
/// \file
/// Softmax, log-softmax and log-sum-exp along one axis (default: the last). All can be differentiated any number of
/// times.
///
/// -inf counts as masked: its probability and gradient are 0. A line of nothing else has probabilities 0 and gradient
/// 0. Another axis than the last is brought there and back: two copies more.

#include "ordo/kernels/softmax.hpp"
#include "ordo/ops/reduce.hpp"

namespace ordo {

namespace detail {

/// f(x) for an f that works on the last axis.
template <class X, class F>
auto along_axis(const char* op, const X& x, Index axis, F&& f) {
  const auto last = static_cast<Index>(shape_of(x).rank()) - 1;
  if (static_cast<Index>(axis_of(op, axis, x)) == last) return f(x);
  return transpose(f(transpose(x, axis, last)), axis, last);
}

template <class T>
Index row_count(const AnyTensor<T>& x) {
  return x.shape().size(0, x.rank() - 1);
}

}  // namespace detail

/// From y = softmax(x) and u: y_i (u_i - sum_j y_j u_j). From y = log_softmax(x) and u: u_i - exp(y_i) sum_j u_j.
struct SoftmaxGradientOp {
  static constexpr const char* name = "softmax";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  bool log = false;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& y, const AnyTensor<T>& u) const {
    AnyTensor<T> dx(y.shape());
    const auto kernel = log ? kernels::log_softmax_backward<T> : kernels::softmax_backward<T>;
    kernel(y.data(), u.data(), dx.data(), detail::row_count(y), y.shape().back());
    return dx;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> y = p.input(0), u = p.input(1), g = p.grad(0);
    const auto line = [](const Var<T>& v) { return sum(v, -1, keep_axis); };
    if (log) {
      const Var<T> weighted = mul(g, ordo::exp(y));
      if (p.needs(0)) p.add(0, neg(mul(weighted, line(u))));
      if (p.needs(1)) p.add(1, sub(g, line(weighted)));
    } else {
      if (p.needs(0)) p.add(0, sub(mul(g, sub(u, line(mul(y, u)))), mul(u, line(mul(g, y)))));
      if (p.needs(1)) p.add(1, apply<dynamic_rank>(*this, y, g));
    }
  }
};

/// Softmax or its logarithm over the last axis.
struct SoftmaxOp {
  static constexpr const char* name = "softmax";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 1;
  bool log = false;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    const auto kernel = log ? kernels::log_softmax<T> : kernels::softmax<T>;
    kernel(x.data(), y.data(), detail::row_count(x), x.shape().back());
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(SoftmaxGradientOp{log}, p.output(0), p.grad(0)));
  }
};

/// log sum_i exp(x_i) over the last axis, which stays with extent 1.
struct LogSumExpOp {
  static constexpr const char* name = "logsumexp";
  static constexpr unsigned keeps_inputs = 1, keeps_outputs = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape().with_back(1));
    kernels::log_sum_exp(x.data(), y.data(), y.size(), x.shape().back());
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, mul(p.grad(0), apply<dynamic_rank>(SoftmaxOp{}, p.input(0))));
  }
};

/// exp(x_i) / sum_j exp(x_j) along an axis.
template <TensorLike X>
auto softmax(const X& x, Index axis = -1) {
  return detail::along_axis("softmax", x, axis, [](const auto& v) {
    return apply<rank_of<std::remove_cvref_t<decltype(v)>>>(SoftmaxOp{}, v);
  });
}
/// x_i - log sum_j exp(x_j) along an axis.
template <TensorLike X>
auto log_softmax(const X& x, Index axis = -1) {
  return detail::along_axis("log_softmax", x, axis, [](const auto& v) {
    return apply<rank_of<std::remove_cvref_t<decltype(v)>>>(SoftmaxOp{true}, v);
  });
}
/// log sum_i exp(x_i) along an axis, which stays with extent 1. -inf for a line of -inf alone, whose gradient is 0.
template <TensorLike X>
auto logsumexp(const X& x, Index axis, KeepAxis) {
  return detail::along_axis("logsumexp", x, axis, [](const auto& v) {
    return apply<rank_of<std::remove_cvref_t<decltype(v)>>>(LogSumExpOp{}, v);
  });
}
/// log sum_i exp(x_i) along an axis.
template <TensorLike X>
auto logsumexp(const X& x, Index axis) {
  const Shape kept = detail::with_axis_one(detail::shape_of(x), detail::axis_of("logsumexp", axis, x));
  return detail::drop_axis<X>(logsumexp(x, axis, keep_axis), kept, detail::axis_of("logsumexp", axis, x));
}

}  // namespace ordo
