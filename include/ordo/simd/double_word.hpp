#pragma once
/// \file
/// Sums of two numbers that carry twice the precision, where one rounding more would cost the last bit of a result.
/// Sources: Dekker 1971; Ogita, Rump, Oishi 2005, "Accurate sum and dot product".

#include "ordo/simd/simd.hpp"

namespace ordo::simd::detail {

/// The value hi + lo, |lo| at most about half a unit in the last place of hi.
template <class V>
struct DoubleWord {
  V hi;
  V lo;
};

/// a + b without error, |a| >= |b|.
template <class V>
[[gnu::always_inline]] inline DoubleWord<V> ordered_sum(V a, V b) noexcept {
  const V hi = a + b;
  return {hi, b - (hi - a)};
}

/// a + b without error.
template <class V>
[[gnu::always_inline]] inline DoubleWord<V> exact_sum(V a, V b) noexcept {
  const V hi = a + b;
  const V b_part = hi - a;
  return {hi, (a - (hi - b_part)) + (b - b_part)};
}

/// The upper half of x's digits. By a mask: the usual product with 2^12 + 1 breaks if a compiler fuses it with a sum.
template <class V>
[[gnu::always_inline]] inline V upper_half(V x) noexcept {
  using T = typename V::value_type;
  constexpr IntOf<T> low_digits = sizeof(T) == 4 ? IntOf<T>{0xfff} : static_cast<IntOf<T>>(0x7ffffff);
  using I = Vec<IntOf<T>, typename V::arch_type>;
  return bitcast<T>(bitcast<IntOf<T>>(x) & I(static_cast<IntOf<T>>(~low_digits)));
}

/// a b without error.
template <class V>
[[gnu::always_inline]] inline DoubleWord<V> exact_product(V a, V b) noexcept {
  const V hi = a * b;
  if constexpr (has_fma<typename V::arch_type>) {
    return {hi, fms(a, b, hi)};
  } else {
    const V a_hi = upper_half(a), a_lo = a - a_hi;
    const V b_hi = upper_half(b), b_lo = b - b_hi;
    return {hi, ((a_hi * b_hi - hi) + a_hi * b_lo + a_lo * b_hi) + a_lo * b_lo};
  }
}

template <class V>
[[gnu::always_inline]] inline DoubleWord<V> product(DoubleWord<V> a, V b) noexcept {
  const DoubleWord<V> p = exact_product(a.hi, b);
  return {p.hi, fma(a.lo, b, p.lo)};
}

template <class V>
[[gnu::always_inline]] inline DoubleWord<V> product(DoubleWord<V> a, DoubleWord<V> b) noexcept {
  const DoubleWord<V> p = exact_product(a.hi, b.hi);
  return {p.hi, fma(a.lo, b.hi, fma(a.hi, b.lo, p.lo))};
}

template <class V>
[[gnu::always_inline]] inline DoubleWord<V> operator-(DoubleWord<V> a) noexcept {
  return {-a.hi, -a.lo};
}

/// 1 / d to at least half of the digits, which is all that a quotient with a remainder needs.
template <class V>
[[gnu::always_inline]] inline V about_reciprocal(V d) noexcept {
  using T = typename V::value_type;
#if XSIMD_WITH_AVX512F
  if constexpr (is_avx512<typename V::arch_type> && std::is_same_v<T, float>) {
    return _mm512_rcp14_ps(d);
  } else if constexpr (is_avx512<typename V::arch_type> && std::is_same_v<T, double>) {
    const V r = _mm512_rcp14_pd(d);
    return fma(fnma(r, d, V(T(1))), r, r);
  } else
#endif
  {
    return V(T(1)) / d;
  }
}

/// a - q b, which is exact if q is about a / b.
template <class V>
[[gnu::always_inline]] inline V remainder(V a, V q, V b) noexcept {
  if constexpr (has_fma<typename V::arch_type>) {
    return fnma(q, b, a);
  } else {
    const DoubleWord<V> p = exact_product(q, b);
    return (a - p.hi) - p.lo;
  }
}

/// a / b, rounded nearly once, where about = 1 / b to half of the digits.
template <class V>
[[gnu::always_inline]] inline V quotient(DoubleWord<V> a, DoubleWord<V> b, V about) noexcept {
  const V q = a.hi * about;
  return fma(remainder(a.hi, q, b.hi) + fnma(q, b.lo, a.lo), about, q);
}

template <class V>
[[gnu::always_inline]] inline V quotient(DoubleWord<V> a, DoubleWord<V> b) noexcept {
  return quotient(a, b, about_reciprocal(b.hi));
}

/// The same for an a without a second word.
template <class V>
[[gnu::always_inline]] inline V quotient(V a, DoubleWord<V> b, V about) noexcept {
  const V q = a * about;
  return fma(fnma(q, b.lo, remainder(a, q, b.hi)), about, q);
}

template <class V>
[[gnu::always_inline]] inline V quotient(V a, DoubleWord<V> b) noexcept {
  return quotient(a, b, about_reciprocal(b.hi));
}

}  // namespace ordo::simd::detail
