#pragma once
/// \file
/// Elementwise arithmetic with broadcasting, and elementary functions. All can be differentiated any number of times.
///
/// Broadcasting is NumPy's: shapes are aligned at their last axes, an axis of extent 1 (or missing) repeats.

#include <algorithm>
#include <array>

#include "ordo/autograd/apply.hpp"
#include "ordo/core/error.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/reduce.hpp"
#include "ordo/simd/math.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo {

namespace detail {

template <class A, class B>
inline constexpr std::size_t broadcast_rank = std::max(rank_of<A>, rank_of<B>);  // dynamic_rank is the largest number

/// The common shape of a and b; ShapeError if there is none.
inline Shape broadcast_shape(const char* op, const Shape& a, const Shape& b) {
  Shape y = a.rank() >= b.rank() ? a : b;
  const Shape& low = a.rank() >= b.rank() ? b : a;
  const std::size_t skip = y.rank() - low.rank();
  for (std::size_t axis = 0; axis < low.rank(); ++axis) {
    Index& e = y[axis + skip];
    if (e == 1) {
      e = low[axis];
    } else if (low[axis] != 1 && low[axis] != e) {
      fail<ShapeError>({op, ": shapes ", a, " and ", b, " do not broadcast"});
    }
  }
  return y;
}

/// Element strides of x when it is read as `shape`: 0 where it repeats.
inline std::array<Index, max_rank> broadcast_strides(const Shape& x, const Shape& shape) noexcept {
  std::array<Index, max_rank> strides{};
  Index step = 1;
  for (std::size_t i = 0; i < x.rank(); ++i) {
    const std::size_t from = x.rank() - 1 - i, to = shape.rank() - 1 - i;
    strides[to] = x[from] == 1 && shape[to] != 1 ? 0 : step;
    step *= x[from];
  }
  return strides;
}

/// Two operands read as one shape, with as few axes as their strides allow: rows become as long as possible.
struct BroadcastPlan {
  Shape shape{};  // at least one axis
  std::array<Index, max_rank> a{}, b{};

  BroadcastPlan(const Shape& full, const Shape& shape_a, const Shape& shape_b) {
    const auto sa = broadcast_strides(shape_a, full), sb = broadcast_strides(shape_b, full);
    for (std::size_t axis = 0; axis < full.rank(); ++axis) {
      const Index e = full[axis];
      if (e == 1) continue;
      const std::size_t last = shape.rank() - 1;
      if (shape.rank() != 0 && a[last] == sa[axis] * e && b[last] == sb[axis] * e) {
        shape[last] *= e;  // the axis before goes on in this one
      } else {
        shape.push_back(e);
      }
      a[shape.rank() - 1] = sa[axis];
      b[shape.rank() - 1] = sb[axis];
    }
    if (shape.rank() == 0) shape.push_back(1);
  }

  Index rows() const noexcept { return shape.size(0, shape.rank() - 1); }

  /// Calls row(a_offset, b_offset, y_offset) for the runs [first, last) along the last axis.
  template <class Row>
  void for_each_row(Index first, Index last, Row&& row) const {
    const std::size_t outer = shape.rank() - 1;
    std::array<Index, max_rank> at{};
    Index ia = 0, ib = 0, rest = first;
    for (std::size_t axis = outer; axis-- > 0;) {
      at[axis] = rest % shape[axis];
      rest /= shape[axis];
      ia += at[axis] * a[axis];
      ib += at[axis] * b[axis];
    }
    for (Index r = first; r < last; ++r) {
      row(ia, ib, r * shape.back());
      for (std::size_t axis = outer; axis-- > 0;) {
        ia += a[axis];
        ib += b[axis];
        if (++at[axis] < shape[axis]) break;
        ia -= a[axis] * shape[axis];
        ib -= b[axis] * shape[axis];
        at[axis] = 0;
      }
    }
  }
};

/// How many elements a thread takes at a time.
inline constexpr Index elementwise_grain = 1 << 16;

/// y[i] = f(x[i]), f on vectors, over threads if there are many.
template <class T, class F>
void map(const T* x, T* y, Index n, F f) {
  parallel_for(n, elementwise_grain,
               [&](Index begin, Index end) { simd::transform(x + begin, y + begin, end - begin, f); });
}

/// y[i] = f(a[i * a_step], b[i * b_step]), steps 0 or 1.
template <class T, class F>
void map_row(const T* a, Index a_step, const T* b, Index b_step, T* y, Index n, F f) {
  using V = simd::Vec<T>;
  constexpr Index w = simd::lanes<T>;
  if (n == 0) return;
  const V first_a(*a), first_b(*b);
  Index i = 0;
  for (; i + w <= n; i += w) {
    simd::store(y + i, V(f(a_step == 0 ? first_a : simd::load(a + i), b_step == 0 ? first_b : simd::load(b + i))));
  }
  if (i == n) return;
  const Index rest = n - i;
  const V last_a = a_step == 0 ? first_a : simd::load_partial(a + i, rest);
  const V last_b = b_step == 0 ? first_b : simd::load_partial(b + i, rest);
  simd::store_partial(y + i, V(f(last_a, last_b)), rest);
}

/// y = f(a, b) with broadcasting; f takes vectors.
template <class T, class F>
AnyTensor<T> map_broadcast(const char* op, const AnyTensor<T>& a, const AnyTensor<T>& b, F f) {
  const bool same = a.shape() == b.shape();
  const Shape shape = same ? a.shape() : broadcast_shape(op, a.shape(), b.shape());
  AnyTensor<T> y(shape);
  const BroadcastPlan plan(shape, a.shape(), b.shape());
  const std::size_t last = plan.shape.rank() - 1;
  const Index n = plan.shape.back(), a_step = plan.a[last], b_step = plan.b[last];
  if (last == 0) {
    parallel_for(n, elementwise_grain, [&](Index begin, Index end) {
      map_row(a.data() + begin * a_step, a_step, b.data() + begin * b_step, b_step, y.data() + begin, end - begin, f);
    });
  } else {
    parallel_for(plan.rows(), std::max<Index>(1, elementwise_grain / std::max<Index>(1, n)),
                 [&](Index begin, Index end) {
                   plan.for_each_row(begin, end, [&](Index ia, Index ib, Index iy) {
                     map_row(a.data() + ia, a_step, b.data() + ib, b_step, y.data() + iy, n, f);
                   });
                 });
  }
  return y;
}

}  // namespace detail

/// Sums over the axes along which `shape` was broadcast: the gradient of a broadcast argument. Result has shape
/// `shape`.
struct ReduceToOp {
  static constexpr const char* name = "reduce_to";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  Shape shape;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y = x;
    // Neighbouring axes that are summed go in one pass; the shape of y shrinks from pass to pass.
    const std::size_t skip = x.rank() - shape.rank();
    auto summed = [&](std::size_t axis) { return axis < skip || (shape[axis - skip] == 1 && x.extent(axis) != 1); };
    Shape now = x.shape();
    for (std::size_t first = 0; first < x.rank(); ++first) {
      if (!summed(first)) continue;
      std::size_t last = first + 1;
      while (last < x.rank() && (summed(last) || x.extent(last) == 1)) ++last;
      const Index outer = now.size(0, first), n = now.size(first, last), inner = now.size(last, now.rank());
      for (std::size_t axis = first; axis < last; ++axis) now[axis] = 1;
      AnyTensor<T> sums(now);
      kernels::sum(y.data(), sums.data(), outer, n, inner);
      y = sums;
      first = last - 1;
    }
    return y.reshaped(shape);
  }
  template <class T>
  void backward(Pullback<T>& p) const;
};

/// Repeats x to `shape`: the adjoint of ReduceToOp.
struct BroadcastToOp {
  static constexpr const char* name = "broadcast_to";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  Shape shape;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    if (x.rank() > shape.rank() || !(detail::broadcast_shape(name, x.shape(), shape) == shape)) {
      fail<ShapeError>({"broadcast_to: ", x.shape(), " does not broadcast to ", shape});
    }
    AnyTensor<T> y(shape);
    const detail::BroadcastPlan plan(shape, x.shape(), x.shape());
    const Index n = plan.shape.back();
    const bool repeats = plan.a[plan.shape.rank() - 1] == 0;
    plan.for_each_row(0, plan.rows(), [&](Index ix, Index, Index iy) {
      if (repeats) {
        std::fill_n(y.data() + iy, n, x.data()[ix]);
      } else {
        std::copy_n(x.data() + ix, n, y.data() + iy);
      }
    });
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(ReduceToOp{p.input(0).shape()}, p.grad(0)));
  }
};

template <class T>
void ReduceToOp::backward(Pullback<T>& p) const {
  p.add(0, apply<dynamic_rank>(BroadcastToOp{p.input(0).shape()}, p.grad(0)));
}

namespace detail {
/// The gradient g of a broadcast result as that of an argument of shape `shape`.
template <class T>
Var<T> unbroadcast(Var<T> g, const Shape& shape) {
  return g.shape() == shape ? g : apply<dynamic_rank>(ReduceToOp{shape}, g);
}
}  // namespace detail

/// x * factor + offset, for constants.
struct AffineOp {
  static constexpr const char* name = "affine";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  double factor = 1, offset = 0;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    using V = simd::Vec<T>;
    const V a(static_cast<T>(factor)), b(static_cast<T>(offset));
    detail::map(x.data(), y.data(), x.size(), [=](const V& v) { return simd::fma(v, a, b); });
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(AffineOp{factor, 0}, p.grad(0)));
  }
};

/// factor * x + offset.
template <TensorLike X>
auto affine(const X& x, double factor, double offset = 0) {
  return apply<rank_of<X>>(AffineOp{factor, offset}, x);
}
template <TensorLike X>
auto neg(const X& x) {
  return affine(x, -1);
}

/// a + factor * b: addition and subtraction are this.
struct AddOp {
  static constexpr const char* name = "add";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  double factor = 1;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& a, const AnyTensor<T>& b) const {
    using V = simd::Vec<T>;
    const V f(static_cast<T>(factor));
    return detail::map_broadcast(factor == -1 ? "sub" : name, a, b,
                                 [=](const V& x, const V& y) { return simd::fma(f, y, x); });
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    if (p.needs(0)) p.add(0, detail::unbroadcast(p.grad(0), p.input(0).shape()));
    if (p.needs(1)) {
      const Var<T> g = detail::unbroadcast(p.grad(0), p.input(1).shape());
      p.add(1, factor == 1 ? g : affine(g, factor));
    }
  }
};

/// a * b or a / b.
struct MulOp {
  static constexpr const char* name = "mul";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  bool divide = false;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& a, const AnyTensor<T>& b) const {
    using V = simd::Vec<T>;
    if (divide) return detail::map_broadcast("div", a, b, [](const V& x, const V& y) { return x / y; });
    return detail::map_broadcast(name, a, b, [](const V& x, const V& y) { return x * y; });
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const auto call = [](bool quotient, const Var<T>& x, const Var<T>& y) {
      return apply<dynamic_rank>(MulOp{quotient}, x, y);
    };
    const Var<T> a = p.input(0), b = p.input(1);
    const Var<T> da = p.needs(0) || divide ? call(divide, p.grad(0), b) : Var<T>{};
    if (p.needs(0)) p.add(0, detail::unbroadcast(da, a.shape()));
    if (!p.needs(1)) return;
    const Var<T> db = divide ? neg(call(false, da, call(true, a, b))) : call(false, p.grad(0), a);
    p.add(1, detail::unbroadcast(db, b.shape()));
  }
};

/// a + b.
template <TensorLike A, TensorLike B>
auto add(const A& a, const B& b) {
  return apply<detail::broadcast_rank<A, B>>(AddOp{}, a, b);
}
/// a + factor * b.
template <TensorLike A, TensorLike B>
auto add_scaled(const A& a, const B& b, double factor) {
  return apply<detail::broadcast_rank<A, B>>(AddOp{factor}, a, b);
}
/// a - b.
template <TensorLike A, TensorLike B>
auto sub(const A& a, const B& b) {
  return apply<detail::broadcast_rank<A, B>>(AddOp{-1}, a, b);
}
/// a * b, element by element.
template <TensorLike A, TensorLike B>
auto mul(const A& a, const B& b) {
  return apply<detail::broadcast_rank<A, B>>(MulOp{}, a, b);
}
/// a / b, element by element.
template <TensorLike A, TensorLike B>
auto div(const A& a, const B& b) {
  return apply<detail::broadcast_rank<A, B>>(MulOp{true}, a, b);
}

/// Elementary functions of one argument: their derivatives are made of ops.
enum class Elementary : unsigned char { exp, sqrt, tanh, sigmoid };

/// Those whose derivative is a function of their value.
struct ElementaryOp {
  static constexpr const char* name = "elementary function";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 1;
  Elementary function;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    switch (function) {
      case Elementary::exp: detail::map(x.data(), y.data(), x.size(), simd::exp); break;
      case Elementary::sqrt: detail::map(x.data(), y.data(), x.size(), simd::sqrt); break;
      case Elementary::tanh: detail::map(x.data(), y.data(), x.size(), simd::tanh); break;
      case Elementary::sigmoid: detail::map(x.data(), y.data(), x.size(), simd::sigmoid); break;
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> dy = p.grad(0), y = p.output(0);
    switch (function) {
      case Elementary::exp: p.add(0, mul(dy, y)); break;
      case Elementary::sqrt: p.add(0, div(affine(dy, 0.5), y)); break;
      case Elementary::tanh: p.add(0, mul(dy, affine(mul(y, y), -1, 1))); break;
      case Elementary::sigmoid: p.add(0, mul(dy, mul(y, affine(y, -1, 1)))); break;
    }
  }
};

struct LogOp {
  static constexpr const char* name = "log";
  static constexpr unsigned keeps_inputs = 1, keeps_outputs = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    detail::map(x.data(), y.data(), x.size(), simd::log);
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, div(p.grad(0), p.input(0)));
  }
};

template <TensorLike X>
auto exp(const X& x) {
  return apply<rank_of<X>>(ElementaryOp{Elementary::exp}, x);
}
template <TensorLike X>
auto log(const X& x) {
  return apply<rank_of<X>>(LogOp{}, x);
}
template <TensorLike X>
auto sqrt(const X& x) {
  return apply<rank_of<X>>(ElementaryOp{Elementary::sqrt}, x);
}
template <TensorLike X>
auto tanh(const X& x) {
  return apply<rank_of<X>>(ElementaryOp{Elementary::tanh}, x);
}
template <TensorLike X>
auto sigmoid(const X& x) {
  return apply<rank_of<X>>(ElementaryOp{Elementary::sigmoid}, x);
}
/// x * x.
template <TensorLike X>
auto square(const X& x) {
  return mul(x, x);
}

}  // namespace ordo
