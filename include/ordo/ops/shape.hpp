#pragma once
/// \file
/// Ops that move elements: reshape, transpose, permute, flip, slice, pad, split, concat. All can be differentiated any number of times.
///
/// Axes are counted from the front, or from the end if negative: -1 is the last one.

#include <algorithm>
#include <array>
#include <string>
#include <tuple>
#include <utility>

#include "ordo/autograd/apply.hpp"
#include "ordo/core/error.hpp"

namespace ordo {

namespace detail {

/// The shape of an op's argument, also where its type does not tell the rank.
template <class X>
Shape shape_of(const X& x) {
  if constexpr (is_var<X>) {
    return x.shape();
  } else {
    return Shape(view(x).extents());
  }
}

/// An axis of a tensor of that rank, counted from the front.
inline std::size_t resolve_axis(const char* op, Index axis, std::size_t rank) {
  const auto r = static_cast<Index>(rank);
  if (axis < -r || axis >= r) {
    fail<ShapeError>({op, ": axis ", axis, " of a tensor of rank ", rank});
  }
  return static_cast<std::size_t>(axis < 0 ? axis + r : axis);
}
template <class X>
std::size_t axis_of(const char* op, Index axis, const X& x) {
  return resolve_axis(op, axis, shape_of(x).rank());
}

/// y[j, i] = x[i, j], x of shape [rows, cols], in tiles that fit the first cache.
template <class T>
void transpose_matrix(const T* x, T* y, Index rows, Index cols) {
  constexpr Index tile = 16;
  for (Index i0 = 0; i0 < rows; i0 += tile) {
    const Index i1 = std::min(rows, i0 + tile);
    for (Index j0 = 0; j0 < cols; j0 += tile) {
      const Index j1 = std::min(cols, j0 + tile);
      for (Index j = j0; j < j1; ++j) {
        for (Index i = i0; i < i1; ++i) y[j * rows + i] = x[i * cols + j];
      }
    }
  }
}

/// The tensors one after the other along an axis.
template <class T>
AnyTensor<T> concatenated(const AnyTensor<T>* const* parts, std::size_t count, std::size_t axis) {
  Shape shape = parts[0]->shape();
  Index total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    Shape same = parts[i]->shape();
    const bool fits = axis < same.rank() && same.rank() == shape.rank();
    if (fits) total += std::exchange(same[axis], shape[axis]);
    if (!fits || !(same == shape)) {
      fail<ShapeError>({"concat along axis ", axis, ": shapes ", shape, " and ", parts[i]->shape()});
    }
  }
  shape[axis] = total;
  AnyTensor<T> y(shape);
  const Index outer = shape.size(0, axis), inner = shape.size(axis + 1, shape.rank());
  T* out = y.data();
  for (Index o = 0; o < outer; ++o) {
    for (std::size_t i = 0; i < count; ++i) {
      const Index n = parts[i]->extent(axis) * inner;
      out = std::copy_n(parts[i]->data() + o * n, n, out);
    }
  }
  return y;
}

/// ShapeError unless the parts make up the axis.
[[noreturn, gnu::cold]] inline void refuse_parts(const Shape& shape, std::size_t axis, const Index* parts, std::size_t count) {
  std::string list;
  for (std::size_t i = 0; i < count; ++i) list += (i == 0 ? "" : " + ") + std::to_string(parts[i]);
  if (axis + 1 == shape.rank()) fail<ShapeError>({"split: parts ", list, " of the last axis of ", shape});
  fail<ShapeError>({"split: parts ", list, " of axis ", axis, " of ", shape});
}
[[gnu::noinline]] inline void check_parts(const Shape& shape, std::size_t axis, const Index* parts, std::size_t count) {
  Index total = 0;
  bool negative = false;
  for (std::size_t i = 0; i < count; ++i) {
    negative = negative || parts[i] < 0;
    total += parts[i];
  }
  if (axis < shape.rank() && !negative && shape[axis] == total) return;
  refuse_parts(shape, axis, parts, count);
}

/// Elements [begin, begin + count) of an axis.
template <class T>
AnyTensor<T> sliced(const AnyTensor<T>& x, std::size_t axis, Index begin, Index count) {
  Shape shape = x.shape();
  shape[axis] = count;
  AnyTensor<T> y(shape);
  const Index outer = shape.size(0, axis), inner = shape.size(axis + 1, shape.rank()), n = x.extent(axis);
  for (Index o = 0; o < outer; ++o)
    std::copy_n(x.data() + (o * n + begin) * inner, count * inner, y.data() + o * count * inner);
  return y;
}

}  // namespace detail

/// The same elements in the same order under another shape; no copy of a result that owns its block.
struct ReshapeOp {
  static constexpr const char* name = "reshape";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  Shape shape;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    if (shape.size() != x.size()) {
      fail<ShapeError>({"reshape: ", x.shape(), " has ", x.size(), " elements, ", shape, " has ", shape.size()});
    }
    return x.reshaped(shape);
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(ReshapeOp{p.input(0).shape()}, p.grad(0)));
  }
};

/// x under the shape [e...].
template <TensorLike X, std::integral... I>
auto reshape(const X& x, I... e) {
  return apply<sizeof...(I)>(ReshapeOp{Shape{static_cast<Index>(e)...}}, x);
}

/// Swaps axes a and b.
struct TransposeOp {
  static constexpr const char* name = "transpose";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  std::size_t a = 0, b = 1;  // a <= b
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    if (a == b) return x;
    Shape shape = x.shape();
    std::swap(shape[a], shape[b]);
    AnyTensor<T> y(shape);
    const Index outer = x.shape().size(0, a), na = x.extent(a), middle = x.shape().size(a + 1, b), nb = x.extent(b),
                inner = x.shape().size(b + 1, x.rank());
    for (Index o = 0; o < outer; ++o) {
      const T* in = x.data() + o * na * middle * nb * inner;
      T* out = y.data() + o * na * middle * nb * inner;
      if (middle == 1 && inner == 1) {
        detail::transpose_matrix(in, out, na, nb);
        continue;
      }
      for (Index j = 0; j < nb; ++j) {
        for (Index m = 0; m < middle; ++m) {
          for (Index i = 0; i < na; ++i) {
            std::copy_n(in + ((i * middle + m) * nb + j) * inner, inner, out + ((j * middle + m) * na + i) * inner);
          }
        }
      }
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(*this, p.grad(0)));
  }
};

/// x with axes a and b swapped.
template <TensorLike X>
auto transpose(const X& x, Index a, Index b) {
  const std::size_t first = detail::axis_of("transpose", a, x), second = detail::axis_of("transpose", b, x);
  return apply<rank_of<X>>(TransposeOp{std::min(first, second), std::max(first, second)}, x);
}

/// Elements [begin, begin + count) of an axis.
struct SliceOp {
  static constexpr const char* name = "slice";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  std::size_t axis = 0;
  Index begin = 0, count = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    if (begin < 0 || count < 0 || begin > x.extent(axis) || count > x.extent(axis) - begin) {
      fail<ShapeError>({"slice: ", count, " elements from ", begin, " of axis ", axis, " of shape ", x.shape()});
    }
    return detail::sliced(x, axis, begin, count);
  }
  template <class T>
  void backward(Pullback<T>& p) const;
};

/// x with zeros around it along an axis, of extent `total`: the adjoint of SliceOp.
struct PadOp {
  static constexpr const char* name = "pad";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  std::size_t axis = 0;
  Index begin = 0, total = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    Shape shape = x.shape();
    shape[axis] = total;
    AnyTensor<T> y(shape, T{0});
    const Index outer = shape.size(0, axis), inner = shape.size(axis + 1, shape.rank()), n = x.extent(axis) * inner;
    for (Index o = 0; o < outer; ++o) std::copy_n(x.data() + o * n, n, y.data() + (o * total + begin) * inner);
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(SliceOp{axis, begin, p.input(0).shape()[axis]}, p.grad(0)));
  }
};

template <class T>
void SliceOp::backward(Pullback<T>& p) const {
  p.add(0, apply<dynamic_rank>(PadOp{axis, begin, p.input(0).shape()[axis]}, p.grad(0)));
}

/// Elements [begin, begin + count) of an axis.
template <TensorLike X>
auto slice(const X& x, Index axis, Index begin, Index count) {
  return apply<rank_of<X>>(SliceOp{detail::axis_of("slice", axis, x), begin, count}, x);
}

/// x with `before` zeros in front of an axis and `after` behind it.
template <TensorLike X>
auto pad(const X& x, Index axis, Index before, Index after) {
  if (before < 0 || after < 0) fail<ShapeError>({"pad: ", before, " zeros before and ", after, " behind axis ", axis});
  const std::size_t at = detail::axis_of("pad", axis, x);
  return apply<rank_of<X>>(PadOp{at, before, before + detail::shape_of(x)[at] + after}, x);
}

/// The elements of an axis in reverse order: its own adjoint.
struct FlipOp {
  static constexpr const char* name = "flip";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  std::size_t axis = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    const Index n = x.extent(axis), inner = x.shape().size(axis + 1, x.rank()), rows = x.shape().size(0, axis + 1);
    for (Index r = 0; r < rows; ++r) std::copy_n(x.data() + r * inner, inner, y.data() + (r / n * n + n - 1 - r % n) * inner);
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(*this, p.grad(0)));
  }
};

/// x with an axis in reverse order.
template <TensorLike X>
auto flip(const X& x, Index axis) {
  return apply<rank_of<X>>(FlipOp{detail::axis_of("flip", axis, x)}, x);
}

/// Axis i of the result is axis order[i] of x.
struct PermuteOp {
  static constexpr const char* name = "permute";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  std::array<std::size_t, max_rank> order{};
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    const std::size_t rank = x.rank();
    std::array<Index, max_rank> from{}, step{}, at{};
    Index stride = 1;
    for (std::size_t axis = rank; axis-- > 0; stride *= x.extent(axis)) from[axis] = stride;
    Shape shape;
    for (std::size_t axis = 0; axis < rank; ++axis) {
      shape.push_back(x.extent(order[axis]));
      step[axis] = from[order[axis]];
    }
    AnyTensor<T> y(shape);
    Index place = 0;
    for (Index i = 0; i < y.size(); ++i) {
      y.data()[i] = x.data()[place];
      for (std::size_t axis = rank; axis-- > 0;) {
        place += step[axis];
        if (++at[axis] < shape[axis]) break;
        place -= step[axis] * shape[axis];
        at[axis] = 0;
      }
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    PermuteOp inverse;
    for (std::size_t axis = 0; axis < p.grad(0).shape().rank(); ++axis) inverse.order[order[axis]] = axis;
    p.add(0, apply<dynamic_rank>(inverse, p.grad(0)));
  }
};

/// x with its axes in another order: axis i of the result is axis order... [i] of x. transpose() is faster where two axes change places.
template <TensorLike X, std::integral... I>
auto permute(const X& x, I... order) {
  static_assert(rank_of<X> == dynamic_rank || rank_of<X> == sizeof...(I), "permute: one number for each axis");
  PermuteOp op;
  std::size_t i = 0;
  unsigned seen = 0;
  ((op.order[i] = detail::axis_of("permute", static_cast<Index>(order), x), seen |= 1U << op.order[i], ++i), ...);
  if (i != detail::shape_of(x).rank() || seen != (1U << i) - 1U) {
    fail<ShapeError>({"permute: ", i, " axes that are not those of ", detail::shape_of(x), " each once"});
  }
  return apply<rank_of<X>>(op, x);
}

/// N tensors one after the other along an axis.
template <std::size_t N>
struct ConcatOp {
  static constexpr const char* name = "concat";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  std::size_t axis = 0;
  template <class T, class... X>
  AnyTensor<T> forward(const X&... x) const {
    const std::array<const AnyTensor<T>*, N> parts{&x...};
    return detail::concatenated(parts.data(), N, axis);
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    Index begin = 0;
    for (std::size_t i = 0; i < N; ++i) {
      const Index count = p.input(i).shape()[axis];
      if (p.needs(i)) p.add(i, apply<dynamic_rank>(SliceOp{axis, begin, count}, p.grad(0)));
      begin += count;
    }
  }
};

/// The tensors one after the other along an axis.
template <TensorLike X, TensorLike... More>
auto concat(Index axis, const X& x, const More&... more) {
  static_assert(((rank_of<More> == rank_of<X>)&&...), "concat: all tensors have the same rank");
  return apply<rank_of<X>>(ConcatOp<1 + sizeof...(More)>{detail::axis_of("concat", axis, x)}, x, more...);
}

/// Cuts an axis into N parts of the given extents.
template <std::size_t N>
struct SplitOp {
  static constexpr const char* name = "split";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  static constexpr std::size_t outputs = N;
  std::size_t axis = 0;
  std::array<Index, N> parts{};
  template <class T>
  std::array<AnyTensor<T>, N> forward(const AnyTensor<T>& x) const {
    detail::check_parts(x.shape(), axis, parts.data(), N);
    std::array<AnyTensor<T>, N> y;
    Index begin = 0;
    for (std::size_t i = 0; i < N; ++i) {
      y[i] = detail::sliced(x, axis, begin, parts[i]);
      begin += parts[i];
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    if (!p.needs(0)) return;
    const Shape whole = p.input(0).shape();
    std::array<Var<T>, N> g;
    for (std::size_t i = 0; i < N; ++i) {  // nothing may have arrived for some parts
      Shape part = whole;
      part[axis] = parts[i];
      g[i] = p.grad(i).present() ? p.grad(i) : Var<T>{AnyTensor<T>(part, T{0})};
    }
    p.add(0, [&]<std::size_t... I>(std::index_sequence<I...>) {
      return apply<dynamic_rank>(ConcatOp<N>{axis}, g[I]...);
    }(std::make_index_sequence<N>{}));
  }
};

/// An axis in parts: `auto [a, b] = split_axis(x, 1, n, m)`.
template <TensorLike X, std::integral... I>
  requires(sizeof...(I) > 1)
auto split_axis(const X& x, Index axis, I... parts) {
  const std::size_t at = detail::axis_of("split", axis, x);
  return [&]<std::size_t... R>(std::index_sequence<R...>) {
    return apply<(static_cast<void>(R), rank_of<X>)...>(SplitOp<sizeof...(I)>{at, {static_cast<Index>(parts)...}}, x);
  }(std::index_sequence_for<I...>{});
}
/// The last axis in parts: `auto [a, b] = split(x, n, m)`.
template <TensorLike X, std::integral... I>
  requires(sizeof...(I) > 1)
auto split(const X& x, I... parts) {
  return split_axis(x, -1, parts...);
}

/// x as a constant: no gradient passes through.
template <TensorLike X>
auto stop_gradient(const X& x) {
  if constexpr (detail::is_tracked<X>) {
    return X(Var<typename X::value_type>{x.var().value, &x.tape(), -1});
  } else if constexpr (detail::is_var<X>) {
    return X{x.value, x.tape, -1};
  } else {
    return x;
  }
}

}  // namespace ordo
