#pragma once
/// \file
/// Softmax, log-softmax and log-sum-exp along one axis (default: the last). All can be differentiated any number of times.
///
/// -inf counts as masked: its probability and gradient are 0. A line of nothing else has probabilities 0 and gradient 0.
/// Another axis than the last is brought there and back: two copies more.

#include "ordo/kernels/softmax.hpp"
#include "ordo/ops/reduce.hpp"

namespace ordo {

namespace detail {

/// f(x) for an f that works on the last axis.
template <class X, class F>
auto along_axis(const char* op, const X& x, Index axis, F&& f) {
  const std::size_t rank = rank_at_run_time(x), at = resolve_axis(op, axis, rank);
  const auto last = static_cast<Index>(rank) - 1;
  if (static_cast<Index>(at) == last) return f(x);
  return transpose(f(transpose(x, axis, last)), axis, last);
}

template <class T>
Index row_count(const AnyTensor<T>& x) {
  return x.shape().size(0, x.rank() - 1);
}

}  // namespace detail

/// From y = softmax(x) and u: y_i (u_i - sum_j y_j u_j).
struct SoftmaxGradientOp {
  static constexpr const char* name = "softmax";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& y, const AnyTensor<T>& u) const {
    AnyTensor<T> dx(y.shape());
    kernels::softmax_backward(y.data(), u.data(), dx.data(), detail::row_count(y), y.shape().back());
    return dx;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> y = p.input(0), u = p.input(1), g = p.grad(0);
    if (p.needs(0)) {  // g u - g sum(y u) - u sum(g y)
      const Var<T> with_u = mul(g, sub(u, sum(mul(y, u), -1, keep_axis)));
      p.add(0, sub(with_u, mul(u, sum(mul(g, y), -1, keep_axis))));
    }
    if (p.needs(1)) p.add(1, apply<dynamic_rank>(*this, y, g));
  }
};

struct SoftmaxOp {
  static constexpr const char* name = "softmax";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 1;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    kernels::softmax(x.data(), y.data(), detail::row_count(x), x.shape().back());
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(SoftmaxGradientOp{}, p.output(0), p.grad(0)));
  }
};

/// From y = log_softmax(x) and u: u_i - exp(y_i) sum_j u_j.
struct LogSoftmaxGradientOp {
  static constexpr const char* name = "log_softmax";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& y, const AnyTensor<T>& u) const {
    AnyTensor<T> dx(y.shape());
    kernels::log_softmax_backward(y.data(), u.data(), dx.data(), detail::row_count(y), y.shape().back());
    return dx;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> y = p.input(0), u = p.input(1), g = p.grad(0), weighted = mul(g, exp(y));
    if (p.needs(0)) p.add(0, neg(mul(weighted, sum(u, -1, keep_axis))));
    if (p.needs(1)) p.add(1, sub(g, sum(weighted, -1, keep_axis)));
  }
};

struct LogSoftmaxOp {
  static constexpr const char* name = "log_softmax";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 1;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    kernels::log_softmax(x.data(), y.data(), detail::row_count(x), x.shape().back());
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(LogSoftmaxGradientOp{}, p.output(0), p.grad(0)));
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
    return apply<rank_of<std::remove_cvref_t<decltype(v)>>>(LogSoftmaxOp{}, v);
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
