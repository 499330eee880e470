#pragma once
/// \file
/// log and log1p: x = 2^k (1 + f), sqrt(1/2) <= 1 + f < sqrt(2), s = f / (2 + f), log(1 + f) = 2 artanh(s).

#include <array>
#include <limits>

#include "ordo/simd/exp.hpp"

namespace ordo::simd {

namespace detail {

template <class T>
struct LogConstants;

template <>
struct LogConstants<float> {
  static constexpr std::int32_t sqrt_half = 0x3f3504f3;
  static constexpr std::int32_t one = 0x3f800000;
  static constexpr std::int32_t exponent_of_round = 0x4b000000;  // the bits of 2^23
  static constexpr float round = 0x1p23f;
  static constexpr float bias = 127.0F;
  static constexpr float min_normal = 0x1p-126f;
  static constexpr float up = 0x1p24f;  // makes a denormal number normal
  static constexpr float up_exponent = 24.0F;
  /// (2 artanh(s) / s - 2) / s^2 in s^2, |s| <= 0.172; error of log 2^-30.2.
  static constexpr std::array artanh{0x1.55557ap-1f, 0x1.995edp-2f, 0x1.31e1a8p-2f};
  /// The same, |s| <= 1/3; error 2^-33.0.
  static constexpr std::array artanh_third{0x1.555558p-1f, 0x1.9996d8p-2f, 0x1.250514p-2f, 0x1.b72adap-3f,
                                           0x1.f09094p-3f};
};

template <>
struct LogConstants<double> {
  static constexpr std::int64_t sqrt_half = 0x3fe6a09e667f3bcd;
  static constexpr std::int64_t one = 0x3ff0000000000000;
  static constexpr std::int64_t exponent_of_round = 0x4330000000000000;
  static constexpr double round = 0x1p52;
  static constexpr double bias = 1023.0;
  static constexpr double min_normal = 0x1p-1022;
  static constexpr double up = 0x1p53;
  static constexpr double up_exponent = 53.0;
  /// Error 2^-59.5.
  static constexpr std::array artanh{0x1.5555555555593p-1, 0x1.999999997f9d3p-2, 0x1.249249422e52dp-2,
                                     0x1.c71c51d2fa42bp-3, 0x1.74664af989ff7p-3, 0x1.39a06d03dc377p-3,
                                     0x1.2f135d571f915p-3};
  /// Error 2^-64.5.
  static constexpr std::array artanh_third{0x1.5555555555556p-1, 0x1.999999999965ap-2, 0x1.24924924ba174p-2,
                                           0x1.c71c71a9d42d9p-3, 0x1.745d1d697c812p-3, 0x1.3b12e48afb6a7p-3,
                                           0x1.11225c28f80b9p-3, 0x1.dff5700c4636ap-4, 0x1.c0f6c74254e18p-4,
                                           0x1.20361098b544bp-4, 0x1.4fe366962c4ffp-3};
};

/// x = 2^k (1 + f), x positive and normal. Only shifts without a sign and conversions by addition: 64-bit integers
/// have no others before AVX-512.
template <class V>
struct LogReduction {
  V k;
  V f;
};

template <class V>
[[gnu::always_inline]] inline LogReduction<V> reduce_log(V x) noexcept {
  using T = typename V::value_type;
  using C = LogConstants<T>;
  using I = Vec<IntOf<T>, typename V::arch_type>;
  using Unsigned = std::make_unsigned_t<IntOf<T>>;
  constexpr int digits = ExpConstants<T>::mantissa_bits;
  constexpr IntOf<T> mantissa = (IntOf<T>{1} << digits) - 1;
  const I moved = bitcast<IntOf<T>>(x) + I(C::one - C::sqrt_half);
  const auto exponent = bitcast<IntOf<T>>(bitcast<Unsigned>(moved) >> digits);
  const V k = bitcast<T>(exponent | I(C::exponent_of_round)) - V(C::round + C::bias);
  const V m = bitcast<T>((moved & I(mantissa)) + I(C::sqrt_half));
  return {k, m - V(T(1))};
}

/// k log 2 + log(1 + f) + correction.
template <class V>
[[gnu::always_inline]] inline V finish_log(V k, V f, V correction) noexcept {
  using T = typename V::value_type;
  using C = ExpConstants<T>;
  const V s = f / (V(T(2)) + f);
  const V z = s * s;
  const V half_square = V(T(0.5)) * f * f;
  const V rest = fma(s, fma(z, polynomial<LogConstants<T>::artanh>(z), half_square), fma(k, V(C::ln2_lo), correction));
  return fma(k, V(C::ln2_hi), f - (half_square - rest));
}

/// log1p(e) = e (1 - log1p_defect(e)), 0 <= e <= 1.
template <class V>
[[gnu::always_inline]] inline V log1p_defect(V e) noexcept {
  using T = typename V::value_type;
  const DoubleWord<V> d = ordered_sum(V(T(2)), e);
  const V about = V(T(1)) / d.hi;
  const V s = e * about;
  const V z = s * s;
  return quotient(fnma(z, polynomial<LogConstants<T>::artanh_third>(z), e), d, about);
}

struct Log : Elementwise<Log> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    using C = LogConstants<T>;
    using Limits = std::numeric_limits<T>;
    const auto denormal = x < V(C::min_normal);
    const LogReduction<V> l = reduce_log(select(denormal, x * V(C::up), x));
    V y = finish_log(select(denormal, l.k - V(C::up_exponent), l.k), l.f, V(T(0)));
    y = select(x < V(Limits::infinity()), y, x);
    return select(x > V(T(0)), y, select(x == V(T(0)), -Limits::infinity(), x * V(Limits::quiet_NaN())));
  }
};

struct Log1p : Elementwise<Log1p> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    using Limits = std::numeric_limits<T>;
    const V one(T(1));
    const DoubleWord<V> u = exact_sum(one, V(x));
    const LogReduction<V> l = reduce_log(u.hi);
    const auto small = l.k == V(T(0));
    V y = finish_log(l.k, select(small, x, l.f), select(small, T(0), u.lo / u.hi));
    y = select(x < V(Limits::infinity()), y, x);
    return select(x > V(T(-1)), y, select(x == V(T(-1)), -Limits::infinity(), x * V(Limits::quiet_NaN())));
  }
};

}  // namespace detail

/// The natural logarithm. log(0) = -inf; NaN below; denormal arguments count.
inline constexpr detail::Log log{};

/// log(1 + x), precise near 0. log1p(-1) = -inf; NaN below.
inline constexpr detail::Log1p log1p{};

}  // namespace ordo::simd
