#pragma once
/// \file
/// Running sums along an axis, from either end, with a state. They can be differentiated any number of times.

#include <array>
#include <tuple>

#include "ordo/kernels/cumulative_sum.hpp"
#include "ordo/ops/reduce.hpp"
#include "ordo/ops/sequences.hpp"

namespace ordo {

/// Arguments: x, start?; outputs: y, total. The adjoint is the running sum from the other end that starts from the gradient of the
/// total; its own total is the gradient of the start.
struct CumulativeSumOp {
  static constexpr const char* name = "cumulative_sum";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  static constexpr std::size_t outputs = 2;
  std::size_t axis = 0;
  bool reverse = false, exclusive = false;

  template <class T>
  std::array<AnyTensor<T>, 2> forward(const AnyTensor<T>& x, const AnyTensor<T>& start) const {
    const Shape rest = detail::without_axis(x.shape(), axis);
    detail::require_shape(name, "the state", start, rest);
    AnyTensor<T> y(x.shape()), total(rest);
    kernels::cumulative_sum(x.data(), start.data(), y.data(), total.data(), x.shape().size(0, axis), x.extent(axis),
                            x.shape().size(axis + 1, x.rank()), reverse, exclusive);
    return {std::move(y), std::move(total)};
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    Var<T> dy = p.grad(0);
    if (!dy.present()) dy = Var<T>{AnyTensor<T>(p.input(0).shape(), T(0))};
    auto [dx, dstart] = apply<dynamic_rank, dynamic_rank>(CumulativeSumOp{axis, !reverse, exclusive}, dy, p.grad(1));
    p.add(0, std::move(dx));
    p.add(1, std::move(dstart));
  }
};

struct CumulativeSumParameters {
  bool reverse = false;    ///< from the end
  bool exclusive = false;  ///< without the element itself
};

/// Running sums along an axis: y_t = sum_{r<=t} x_r; reverse: r >= t; exclusive: r < t (r > t).
template <TensorLike X>
auto cumulative_sum(const X& x, Index axis, const CumulativeSumParameters& parameters = {}) {
  const CumulativeSumOp op{detail::axis_of("cumulative_sum", axis, x), parameters.reverse, parameters.exclusive};
  return std::get<0>(apply<rank_of<X>, detail::rank_without_axis<X>>(op, x, none));
}

/// The same from a state (x without the axis; none: zeros): (y, state), y_t = state + sum_{r<=t} x_r, the new state that with all of x.
/// A sequence that goes on in pieces has the bits of the whole one.
template <TensorLike X, class S>
auto cumulative_sum(const X& x, Index axis, const S& state, const CumulativeSumParameters& parameters) {
  const CumulativeSumOp op{detail::axis_of("cumulative_sum", axis, x), parameters.reverse, parameters.exclusive};
  return apply<rank_of<X>, detail::rank_without_axis<X>>(op, x, state);
}

}  // namespace ordo
