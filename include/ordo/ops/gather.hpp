#pragma once
/// \file
/// Gather and scatter along an axis by a tensor of indices. Both can be differentiated any number of times.

#include <algorithm>
#include <concepts>
#include <type_traits>

#include "ordo/ops/shape.hpp"

namespace ordo {

namespace detail {

/// Integers of any type, tracked or not, as what an op holds.
template <TensorLike Ids>
AnyTensor<Index> hold_indices(const Ids& ids) {
  using I = value_type_of<Ids>;
  static_assert(std::integral<I>, "indices are integers");
  const auto copy = [](const I* from, const Shape& shape) {
    AnyTensor<Index> held(shape);
    std::transform(from, from + held.size(), held.data(), [](I i) { return static_cast<Index>(i); });
    return held;
  };
  if constexpr (is_var<Ids>) {
    return copy(ids.value.data(), ids.shape());
  } else {
    const auto v = view(ids);
    return copy(v.data(), Shape(v.extents()));
  }
}

/// The extents of `indices` fit x but along the axis, and all are numbers of elements there, or -1.
inline void check_indices(const char* op, const AnyTensor<Index>& indices, Shape shape, std::size_t axis) {
  const Index n = shape[axis];
  if (indices.rank() == shape.rank()) shape[axis] = indices.extent(axis);
  if (!(indices.shape() == shape)) {
    fail<ShapeError>({op, ": indices of shape ", indices.shape(), ", expected ", shape, " but for axis ", axis});
  }
  for (Index i = 0; i < indices.size(); ++i) {
    const Index at = indices.data()[i];
    if (at < -1 || at >= n) {
      fail<UsageError>({op, ": index ", at, " at place ", i, ", expected 0 to ", n - 1, " (or -1 for nothing)"});
    }
  }
}

}  // namespace detail

/// y[o, j, i] = x[o, indices[o, j, i], i]; 0 where the index is -1.
struct GatherOp {
  static constexpr const char* name = "gather";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  std::size_t axis;
  AnyTensor<Index> indices;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(indices.shape());
    const Index n = x.extent(axis), m = y.extent(axis), inner = x.shape().size(axis + 1, x.rank());
    const Index line = m * inner;
    for (Index i = 0; i < y.size(); ++i) {
      const Index at = indices.data()[i];
      y.data()[i] = at < 0 ? T(0) : x.data()[(i / line * n + at) * inner + i % inner];
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const;
};

/// y[o, indices[o, j, i], i] += x[o, j, i] into zeros with n elements along the axis: the adjoint of GatherOp.
struct ScatterAddOp {
  static constexpr const char* name = "scatter_add";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  std::size_t axis;
  AnyTensor<Index> indices;
  Index n;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    Shape shape = x.shape();
    const Index m = shape[axis], inner = shape.size(axis + 1, shape.rank()), line = m * inner;
    shape[axis] = n;
    AnyTensor<T> y(shape, T{0});
    for (Index i = 0; i < x.size(); ++i) {
      const Index at = indices.data()[i];
      if (at >= 0) y.data()[(i / line * n + at) * inner + i % inner] += x.data()[i];
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(GatherOp{axis, indices}, p.grad(0)));
  }
};

template <class T>
void GatherOp::backward(Pullback<T>& p) const {
  p.add(0, apply<dynamic_rank>(ScatterAddOp{axis, indices, p.input(0).shape()[axis]}, p.grad(0)));
}

/// Elements of each line along an axis: y[.., j, ..] = x[.., indices[.., j, ..], ..]. `indices` has the shape of x but for the
/// axis; -1 gives 0, with gradient 0. UsageError for one out of range.
template <TensorLike X, TensorLike Ids>
auto gather(const X& x, Index axis, const Ids& indices) {
  GatherOp op{detail::axis_of("gather", axis, x), detail::hold_indices(indices)};
  detail::check_indices("gather", op.indices, detail::shape_of(x), op.axis);
  return apply_in<rank_of<X>>(recorder(x, indices), op, x);
}

/// The adjoint of gather: zeros with n elements along the axis, to which x[.., j, ..] is added at indices[.., j, ..]. Elements with
/// the same index add up in order; -1 goes nowhere.
template <TensorLike X, TensorLike Ids>
auto scatter_add(const X& x, Index axis, const Ids& indices, Index n) {
  ScatterAddOp op{detail::axis_of("scatter_add", axis, x), detail::hold_indices(indices), n};
  Shape shape = detail::shape_of(x);
  if (!(op.indices.shape() == shape)) {
    fail<ShapeError>({"scatter_add: x has shape ", shape, ", the indices ", op.indices.shape()});
  }
  shape[op.axis] = n;
  detail::check_indices("scatter_add", op.indices, shape, op.axis);
  return apply_in<rank_of<X>>(recorder(x, indices), op, x);
}

}  // namespace ordo
