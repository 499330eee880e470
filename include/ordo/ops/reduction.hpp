#pragma once
/// \file
/// How the losses of all positions become one number.

#include <cstdint>

#include "ordo/ops/reduce.hpp"

namespace ordo {

enum class Reduction : unsigned char {
  mean,        ///< over all elements, but where a loss says otherwise
  sum,
  batch_mean,  ///< the sum over the extent of the first axis
};

namespace detail {

/// The losses as one number.
template <class Each>
auto reduced(const Each& each, Reduction reduction) {
  const Shape shape = shape_of(each);
  const Index n = reduction == Reduction::sum ? 1 : reduction == Reduction::mean || shape.rank() == 0 ? shape.size() : shape[0];
  return affine(sum(each), 1.0 / static_cast<double>(n));
}

/// A tensor that no gradient goes to, for an op of that rank.
template <std::size_t R, class T>
auto constant(AnyTensor<T> value) {
  if constexpr (R == dynamic_rank) {
    return Var<T>{std::move(value)};
  } else {
    return to_tensor<R>(value);
  }
}

/// f(y, x) if the optional argument x is given, else y.
template <class Y, class X, class F>
auto if_given(const Y& y, const X& x, F&& f) {
  if constexpr (std::is_same_v<X, None>) {
    return y;
  } else if constexpr (is_var<X>) {
    return x.present() ? f(y, x) : y;
  } else {
    return f(y, x);
  }
}

/// ShapeError unless two arguments have one shape.
template <class A, class B>
void require_same_shape(const char* op, const char* first, const A& a, const char* second, const B& b) {
  const Shape sa = shape_of(a), sb = shape_of(b);
  if (!(sa == sb)) fail<ShapeError>({op, ": ", first, " has shape ", sa, ", ", second, " ", sb});
}

}  // namespace detail

}  // namespace ordo
