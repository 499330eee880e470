#pragma once
/// \file
/// The logistic function and what is made of it: tanh, softplus, silu, gelu_tanh, quick_gelu, mish, and derivatives.
///
/// Every one starts from e = exp(-|z|), which cannot overflow, and is put together so that nothing cancels:
/// x sigma(z) = max(x, 0) - |x| e / (1 + e) where x and z have the same sign.

#include "ordo/simd/exp.hpp"
#include "ordo/simd/log.hpp"

namespace ordo::simd {

namespace detail {

/// max(x, 0) - |x| e / (1 + e), size = min(|x|, some bound).
template <class V>
[[gnu::always_inline]] inline V gated(V x, V size, V e) noexcept {
  const V tail = quotient(exact_product(size, e), ordered_sum(V(typename V::value_type(1)), e));
  return max(x, V(typename V::value_type(0))) - tail;
}

struct Sigmoid : Elementwise<Sigmoid> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V e = close_exp(-V(abs(x)));
    const V tail = quotient(e, ordered_sum(V(T(1)), e));
    return select(x < V(T(0)), tail, V(T(1)) - tail);
  }
};

/// e / (1 + e)^2
struct SigmoidGrad : Elementwise<SigmoidGrad> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V e = close_exp(-V(abs(x)));
    const DoubleWord<V> d = ordered_sum(V(T(1)), e);
    return quotient(e, product(d, d));
  }
};

/// -m / (2 + m), m = expm1(-2|x|).
struct Tanh : Elementwise<Tanh> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    using C = ExpConstants<T>;
    const ExpReduction<V> e = reduce_exp(at_least(V(abs(x)) * V(T(-2)), T(-40)));
    const V q = fma(e.r * e.r, polynomial<C::p>(e.r), e.r);  // expm1(r)
    const V power = scale_by_exponent(V(T(1)), e.bits);
    const DoubleWord<V> m = ordered_sum(power - V(T(1)), power * q);
    const DoubleWord<V> d = ordered_sum(V(T(2)), m.hi);
    const V y = m.hi / d.hi;
    const V rest = fnma(y, d.lo + m.lo, m.lo);
    const V exact = fma(rest, fnma(y, V(T(0.5)), V(T(0.5))), y);  // 1 / d = (1 - y) / 2
    return select(x < V(T(0)), exact, -exact);
  }
};

/// 1 - tanh(x)^2 = 4 sigma(2x) sigma(-2x)
struct TanhGrad : Elementwise<TanhGrad> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    return Vec<T, A>(T(4)) * SigmoidGrad::eval(x + x);
  }
};

/// log(1 + exp(-|x|)).
template <class V>
[[gnu::always_inline]] inline V softplus_tail(V x) noexcept {
  using T = typename V::value_type;
  const V e = close_exp(-V(abs(x)));
  // log1p(e) = e (1 - c), c about e / 2: tiny e need not be told apart, and their squares would be denormal
  return fnma(e, log1p_defect(max(e, V(std::numeric_limits<T>::epsilon() / 1024))), e);
}

struct Softplus : Elementwise<Softplus> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    return select(x > V(T(20)), x, max(x, V(T(0))) + softplus_tail(V(x)));
  }
};

struct SoftplusGrad : Elementwise<SoftplusGrad> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    return select(x > V(T(20)), V(T(1)), Sigmoid::eval(x));
  }
};

struct LogSigmoid : Elementwise<LogSigmoid> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    return min(x, V(T(0))) - softplus_tail(V(x));
  }
};

struct LogSigmoidGrad : Elementwise<LogSigmoidGrad> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    return Sigmoid::eval(-x);
  }
};

struct Silu : Elementwise<Silu> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V size = at_most(V(abs(x)), T(1024));
    return gated(V(x), size, close_exp(-size));
  }
};

/// The derivative of x sigma(z) with slope = dz/dx, from e = exp(-|z|); x and z have the same sign. Left of 0 it is
/// sigma(z) (1 - |x| slope / (1 + e)), right of 0 it is 1 minus the value at -x.
template <class V>
[[gnu::always_inline]] inline V gated_grad(V x, V size, V slope, V e) noexcept {
  using T = typename V::value_type;
  const V one(T(1));
  const V about = one / (one + e);
  const V h = e * about * fnma(size * slope, about, one);
  return select(x < V(T(0)), h, one - h);
}

struct SiluGrad : Elementwise<SiluGrad> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V size = at_most(V(abs(x)), T(1024));
    return gated_grad(V(x), size, V(T(1)), close_exp(-size));
  }
};

/// A constant to twice the precision of T; hi and lo are its double parts.
template <class T>
struct LongConstant {
  constexpr LongConstant(double high, double low) noexcept
      : hi(static_cast<T>(high)), lo(static_cast<T>((high - static_cast<double>(hi)) + low)) {}
  T hi;
  T lo;
};

/// z = x (c1 + c3 x^2) with c1 = 2 sqrt(2 / pi), c3 = 0.044715 c1; and z = 1.702 x.
template <class T>
struct GateConstants {
  static constexpr LongConstant<T> c1{0x1.9884533d43651p0, -0x1.cbc0d30ebfd15p-54};
  static constexpr LongConstant<T> c3{0x1.2444f2a4d8b4bp-4, -0x1.6c843a29d1c7p-61};
  static constexpr LongConstant<T> quick{0x1.b3b645a1cac08p0, 0x1.89374bc6a7efap-55};
};

/// x (c1 + c3 x^2), 0 <= x <= 32.
template <class V>
[[gnu::always_inline]] inline DoubleWord<V> gelu_tanh_gate(V x) noexcept {
  using C = GateConstants<typename V::value_type>;
  const DoubleWord<V> cubic = product(exact_product(x, x), DoubleWord<V>{V(C::c3.hi), V(C::c3.lo)});
  const DoubleWord<V> sum = exact_sum(V(C::c1.hi), cubic.hi);
  return product(DoubleWord<V>{sum.hi, sum.lo + (cubic.lo + V(C::c1.lo))}, x);
}

struct GeluTanh : Elementwise<GeluTanh> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V size = at_most(V(abs(x)), T(32));
    const DoubleWord<V> z = gelu_tanh_gate(size);
    return gated(V(x), size, close_exp(-z));
  }
};

struct GeluTanhGrad : Elementwise<GeluTanhGrad> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    using C = GateConstants<T>;
    const V size = at_most(V(abs(x)), T(32));
    const DoubleWord<V> z = gelu_tanh_gate(size);
    const V slope = fma(size * size, V(T(3) * C::c3.hi), V(C::c1.hi));
    return gated_grad(V(x), size, slope, close_exp(-z));
  }
};

template <class V>
[[gnu::always_inline]] inline DoubleWord<V> quick_gelu_gate(V x) noexcept {
  using C = GateConstants<typename V::value_type>;
  return product(DoubleWord<V>{V(C::quick.hi), V(C::quick.lo)}, x);
}

struct QuickGelu : Elementwise<QuickGelu> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V size = at_most(V(abs(x)), T(1024));
    const DoubleWord<V> z = quick_gelu_gate(size);
    return gated(V(x), size, close_exp(-z));
  }
};

struct QuickGeluGrad : Elementwise<QuickGeluGrad> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V size = at_most(V(abs(x)), T(1024));
    const DoubleWord<V> z = quick_gelu_gate(size);
    return gated_grad(V(x), size, V(GateConstants<T>::quick.hi), close_exp(-z));
  }
};

/// x tanh(log(1 + exp(x))) = x n / d: with e = exp(-|x|), left of 0 n = e (2 + e), d = n + 2; right of 0
/// n = 1 + 2 e, d = n + 2 e^2.
struct Mish : Elementwise<Mish> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V zero(T(0)), one(T(1)), two(T(2));
    const V size = at_most(V(abs(x)), T(1024));
    const auto left = x < zero;
    const V factor = close_exp(-size);
    // beside 1 and 2 a tiny e need not be told from a tinier one, and its square would be denormal
    const V e = max(factor, V(std::numeric_limits<T>::epsilon() / 1024));
    const DoubleWord<V> square = exact_product(e, e);
    const DoubleWord<V> n = ordered_sum(select(left, two, one), select(left, e, e + e));
    const DoubleWord<V> rest = exact_sum(select(left, e + e, zero), select(left, square.hi, square.hi + square.hi));
    const DoubleWord<V> base = exact_sum(select(left, two, n.hi), rest.hi);
    const DoubleWord<V> d{base.hi, base.lo + (rest.lo + select(left, square.lo, n.lo + square.lo + square.lo))};
    const V y = quotient(product(product(n, select(left, factor, one)), size), d);
    return select(x > V(T(64)), x, select(left, -y, y));
  }
};

/// tanh(p) + x (1 - tanh(p)^2) sigma(x), p = log(1 + exp(x)); 1 - tanh(p)^2 = 4 e (1 + e) (1 or e) / (sigma d^2).
struct MishGrad : Elementwise<MishGrad> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V one(T(1)), two(T(2));
    const V size = at_most(V(abs(x)), T(1024));
    const auto left = x < V(T(0));
    const V e = ExpKernel<T, A>::template exp<false>(-size);
    const V about = one / select(left, fma(e, e + two, two), fma(e, fma(e, two, two), one));
    const V n = select(left, e * (e + two), fma(e, two, one));
    const V slope = V(T(4)) * e * (one + e) * select(left, one, e) * about;
    return about * fma(select(left, -size, size), slope, n);
  }
};

}  // namespace detail

/// 1 / (1 + exp(-x)), precise in the left tail.
inline constexpr detail::Sigmoid sigmoid{};
inline constexpr detail::SigmoidGrad sigmoid_grad{};

inline constexpr detail::Tanh tanh{};
/// 1 - tanh(x)^2, from x.
inline constexpr detail::TanhGrad tanh_grad{};

/// log(1 + exp(x)), precise in the left tail; exactly x above 20, as in PyTorch and in Mamba's reference kernels.
inline constexpr detail::Softplus softplus{};
/// sigmoid(x); exactly 1 above 20.
inline constexpr detail::SoftplusGrad softplus_grad{};

/// -log(1 + exp(-x)).
inline constexpr detail::LogSigmoid log_sigmoid{};
inline constexpr detail::LogSigmoidGrad log_sigmoid_grad{};

/// x sigmoid(x).
inline constexpr detail::Silu silu{};
inline constexpr detail::SiluGrad silu_grad{};

/// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) = x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)).
inline constexpr detail::GeluTanh gelu_tanh{};
inline constexpr detail::GeluTanhGrad gelu_tanh_grad{};

/// x sigmoid(1.702 x).
inline constexpr detail::QuickGelu quick_gelu{};
inline constexpr detail::QuickGeluGrad quick_gelu_grad{};

/// x tanh(log(1 + exp(x))).
inline constexpr detail::Mish mish{};
inline constexpr detail::MishGrad mish_grad{};

}  // namespace ordo::simd
