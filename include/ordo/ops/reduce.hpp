#pragma once
/// \file
/// Sums, means and maxima, over all elements or along one axis. All can be differentiated any number of times.
///
/// Along an axis, the axis disappears from the result: [B, L, D] summed along 1 is [B, D]. With `keep_axis` it stays
/// with extent 1, so that the result broadcasts against the argument.

#include <algorithm>
#include <utility>

#include "ordo/kernels/reduce.hpp"
#include "ordo/ops/elementwise.hpp"
#include "ordo/ops/gather.hpp"
#include "ordo/ops/shape.hpp"

namespace ordo {

struct KeepAxis {};
/// Asks a reduction to leave an axis of extent 1.
inline constexpr KeepAxis keep_axis{};

namespace detail {

template <class X>
inline constexpr std::size_t rank_without_axis = rank_of<X> == dynamic_rank ? dynamic_rank : rank_of<X> - 1;

inline Shape without_axis(const Shape& shape, std::size_t axis) {
  Shape s;
  for (std::size_t i = 0; i < shape.rank(); ++i) {
    if (i != axis) s.push_back(shape[i]);
  }
  return s;
}
inline Shape with_axis_one(Shape shape, std::size_t axis) {
  shape[axis] = 1;
  return shape;
}

/// y without the axis, which has extent 1.
template <class X, class Y>
auto drop_axis(const Y& y, const Shape& shape, std::size_t axis) {
  return apply<rank_without_axis<X>>(ReshapeOp{without_axis(shape, axis)}, y);
}

}  // namespace detail

/// The sum of all elements, a scalar (rank 0).
template <TensorLike X>
auto sum(const X& x) {
  return apply < rank_of<X> == dynamic_rank ? dynamic_rank : 0 > (ReduceToOp{Shape{}}, x);
}
/// The mean of all elements, a scalar (rank 0).
template <TensorLike X>
auto mean(const X& x) {
  return affine(sum(x), 1.0 / static_cast<double>(detail::shape_of(x).size()));
}

/// The sum along an axis, which stays with extent 1.
template <TensorLike X>
auto sum(const X& x, Index axis, KeepAxis) {
  return apply<rank_of<X>>(ReduceToOp{detail::with_axis_one(detail::shape_of(x), detail::axis_of("sum", axis, x))}, x);
}
/// The sum along an axis.
template <TensorLike X>
auto sum(const X& x, Index axis) {
  return detail::drop_axis<X>(sum(x, axis, keep_axis), detail::shape_of(x), detail::axis_of("sum", axis, x));
}

/// The mean along an axis, which stays with extent 1.
template <TensorLike X>
auto mean(const X& x, Index axis, KeepAxis) {
  const Index n = detail::shape_of(x)[detail::axis_of("mean", axis, x)];
  return affine(sum(x, axis, keep_axis), 1.0 / static_cast<double>(n));
}
/// The mean along an axis.
template <TensorLike X>
auto mean(const X& x, Index axis) {
  return detail::drop_axis<X>(mean(x, axis, keep_axis), detail::shape_of(x), detail::axis_of("mean", axis, x));
}

/// The largest element of each line along an axis.
struct MaxOp {
  static constexpr const char* name = "max";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  template <class T>
  struct Saved {
    AnyTensor<Index> places;
  };
  std::size_t axis;

  template <class T>
  AnyTensor<T> forward(Saved<T>* saved, const AnyTensor<T>& x) const {
    const Index n = x.extent(axis);
    if (n == 0) fail<ShapeError>({"max: axis ", axis, " of shape ", x.shape(), " is empty"});
    const Shape shape = detail::with_axis_one(x.shape(), axis);
    AnyTensor<T> y(shape);
    AnyTensor<Index> places(shape);
    kernels::max(x.data(), y.data(), places.data(), shape.size(0, axis), n, shape.size(axis + 1, shape.rank()));
    if (saved != nullptr) saved->places = std::move(places);
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p, const Saved<T>& saved) const {
    p.add(0, apply<dynamic_rank>(ScatterAddOp{axis, saved.places, p.input(0).shape()[axis]}, p.grad(0)));
  }
};

/// The largest element along an axis, which stays with extent 1. Of equal ones the first has the gradient; NaN is the
/// largest.
template <TensorLike X>
auto max(const X& x, Index axis, KeepAxis) {
  return apply<rank_of<X>>(MaxOp{detail::axis_of("max", axis, x)}, x);
}
/// The largest element along an axis.
template <TensorLike X>
auto max(const X& x, Index axis) {
  return detail::drop_axis<X>(max(x, axis, keep_axis), detail::shape_of(x), detail::axis_of("max", axis, x));
}

}  // namespace ordo
