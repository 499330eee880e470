#pragma once
/// \file
/// Choices between elements, and elementary functions with corners: where, masked_fill, maximum, minimum, abs, pow. All can be
/// differentiated any number of times; at a corner the derivative is that of one side.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include "ordo/ops/elementwise.hpp"
#include "ordo/ops/shape.hpp"

namespace ordo {

namespace detail {

/// A mask of any integers or bools (not 0 = true) as bytes.
template <TensorLike M>
AnyTensor<std::uint8_t> hold_mask(const M& mask) {
  using I = value_type_of<M>;
  static_assert(std::integral<I>, "a mask holds bools or integers");
  const auto copy = [](const I* from, const Shape& shape) {
    AnyTensor<std::uint8_t> held(shape);
    std::transform(from, from + held.size(), held.data(), [](I m) { return static_cast<std::uint8_t>(m != I{}); });
    return held;
  };
  if constexpr (is_var<M>) {
    return copy(mask.value.data(), mask.shape());
  } else {
    const auto v = view(mask);
    return copy(v.data(), Shape(v.extents()));
  }
}

/// The mask under the shape that it is broadcast to.
inline AnyTensor<std::uint8_t> broadcast_mask(const char* op, AnyTensor<std::uint8_t> mask, const Shape& shape) {
  if (mask.shape() == shape) return mask;
  if (mask.rank() > shape.rank() || !(broadcast_shape(op, mask.shape(), shape) == shape)) {
    fail<ShapeError>({op, ": a mask of shape ", mask.shape(), " for ", shape});
  }
  return BroadcastToOp{shape}.forward(mask);
}

}  // namespace detail

/// x where the mask (of x's shape) is `wanted`, else `value`. What x holds elsewhere, NaN too, reaches neither y nor the gradient.
struct MaskedFillOp {
  static constexpr const char* name = "masked_fill";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  AnyTensor<std::uint8_t> mask;
  bool wanted = true;
  double value = 0;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    const T fill = static_cast<T>(value);
    for (Index i = 0; i < x.size(); ++i) y.data()[i] = (mask.data()[i] != 0) == wanted ? x.data()[i] : fill;
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(MaskedFillOp{mask, wanted, 0}, p.grad(0)));
  }
};

namespace detail {
/// a where a byte of the mask's shape is 1, b where it is 0. `source` is what the mask was made from: a tracked one records.
template <class M, class A, class B>
auto choose(const AnyTensor<std::uint8_t>& bytes, const M& source, const A& a, const B& b) {
  return add(apply_in<rank_of<A>>(recorder(a, source), MaskedFillOp{bytes, true, 0}, a),
             apply_in<rank_of<B>>(recorder(b, source), MaskedFillOp{bytes, false, 0}, b));
}
}  // namespace detail

/// x where the mask is false, `value` where it is true. The mask (bools or integers) broadcasts to x.
template <TensorLike X, TensorLike M>
auto masked_fill(const X& x, const M& mask, double value) {
  MaskedFillOp op{detail::broadcast_mask("masked_fill", detail::hold_mask(mask), detail::shape_of(x)), false, value};
  return apply_in<rank_of<X>>(recorder(x, mask), op, x);
}
/// a where the mask is true, b where it is false; a and b of one shape, to which the mask broadcasts. Gradients go to the chosen one
/// alone.
template <TensorLike M, TensorLike A, TensorLike B>
auto where(const M& mask, const A& a, const B& b) {
  if (!(detail::shape_of(a) == detail::shape_of(b))) {
    fail<ShapeError>({"where: shapes ", detail::shape_of(a), " and ", detail::shape_of(b)});
  }
  return detail::choose(detail::broadcast_mask("where", detail::hold_mask(mask), detail::shape_of(a)), mask, a, b);
}

/// The larger or smaller of a and b. NaN if a is; of equal ones a has the gradient.
struct ExtremeOp {
  static constexpr const char* name = "maximum";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  bool smaller = false;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& a, const AnyTensor<T>& b) const {
    return choose(a, b, [](const auto& x, const auto&) { return x; }, [](const auto&, const auto& y) { return y; });
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    using V = simd::Vec<T>;
    const auto one = [](const V&, const V&) { return V(1); };
    const auto zero = [](const V&, const V&) { return V(0); };
    const Var<T> a = p.input(0), b = p.input(1), dy = p.grad(0);
    if (p.needs(0)) p.add(0, detail::unbroadcast(mul(dy, Var<T>{choose(a.value, b.value, one, zero)}), a.shape()));
    if (p.needs(1)) p.add(1, detail::unbroadcast(mul(dy, Var<T>{choose(a.value, b.value, zero, one)}), b.shape()));
  }

 private:
  template <class T, class F, class G>
  AnyTensor<T> choose(const AnyTensor<T>& a, const AnyTensor<T>& b, F of_a, G of_b) const {
    using V = simd::Vec<T>;
    const V sign(smaller ? T(-1) : T(1));
    return detail::map_broadcast(smaller ? "minimum" : name, a, b, [=](const V& x, const V& y) {
      return simd::select(x * sign < y * sign, V(of_b(x, y)), V(of_a(x, y)));
    });
  }
};

/// max(a, b), element by element.
template <TensorLike A, TensorLike B>
auto maximum(const A& a, const B& b) {
  return apply<detail::broadcast_rank<A, B>>(ExtremeOp{}, a, b);
}
/// min(a, b), element by element.
template <TensorLike A, TensorLike B>
auto minimum(const A& a, const B& b) {
  return apply<detail::broadcast_rank<A, B>>(ExtremeOp{true}, a, b);
}

struct AbsOp {
  static constexpr const char* name = "abs";
  static constexpr unsigned keeps_inputs = 1, keeps_outputs = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    detail::map(x.data(), y.data(), x.size(), simd::abs);
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    using V = simd::Vec<T>;
    const AnyTensor<T> x = p.input(0).value;
    AnyTensor<T> sign(x.shape());
    detail::map(x.data(), sign.data(), x.size(), [](const V& v) {
      return simd::select(v > V(0), V(1), simd::select(v < V(0), V(-1), V(0)));
    });
    p.add(0, mul(p.grad(0), Var<T>{sign}));
  }
};

/// |x|; the derivative at 0 is 0.
template <TensorLike X>
auto abs(const X& x) {
  return apply<rank_of<X>>(AbsOp{}, x);
}

struct PowOp {
  static constexpr const char* name = "pow";
  static constexpr unsigned keeps_inputs = 1, keeps_outputs = 0;
  double exponent = 1;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    const T e = static_cast<T>(exponent);
    for (Index i = 0; i < x.size(); ++i) y.data()[i] = std::pow(x.data()[i], e);
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    if (exponent == 0) return;
    p.add(0, mul(p.grad(0), affine(apply<dynamic_rank>(PowOp{exponent - 1}, p.input(0)), exponent)));
  }
};

/// x^exponent, as std::pow has it.
template <TensorLike X>
auto pow(const X& x, double exponent) {
  return apply<rank_of<X>>(PowOp{exponent}, x);
}

}  // namespace ordo
