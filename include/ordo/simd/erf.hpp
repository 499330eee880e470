#pragma once
/// \file
/// erf, erfc, and gelu = x Phi(x), exact to the last bits far into the tails.
///
/// Tails are exp(-t^2) times a slowly varying factor, here M(v) / (1 + t) with a polynomial M in v = (t - K) / (t + K)
/// (the variable of Shepherd and Laframboise 1981). t^2 is formed to twice the precision, because its rounding error
/// is the relative error of the result.

#include <array>

#include "ordo/simd/exp.hpp"

namespace ordo::simd {

namespace detail {

/// (1 + t) exp(t^2) erfc(t) = (c0 + c0_lo) + m[0] v + m[1] v^2 + ..., t >= 0.
template <class T>
struct ErfcTail;

template <>
struct ErfcTail<float> {
  static constexpr bool steep = true;
  static constexpr float k = 3.5F;
  static constexpr float c0 = 0x1.65cbecp-1f;
  static constexpr float c0_lo = 0x1.99c572p-26f;
  /// t <= 10; error 2^-29.1.
  static constexpr std::array m{-0x1.b793aap-3f, 0x1.c7d578p-4f, -0x1.056728p-5f, -0x1.529a64p-7f, 0x1.5c7c92p-6f,
                                -0x1.049e9ep-6f, 0x1.e87baap-8f, -0x1.07a12cp-9f, -0x1.566b24p-14f, 0x1.f2f748p-13f};
};

template <>
struct ErfcTail<double> {
  static constexpr bool steep = true;
  static constexpr double k = 3.5;
  static constexpr double c0 = 0x1.65cbecd50c636p-1;
  static constexpr double c0_lo = 0x1.9ec70e343e1d6p-55;
  /// t <= 28; error 2^-55.6.
  static constexpr std::array m{-0x1.b793a9950de20p-3, 0x1.c7d5576918ea3p-4, -0x1.056785b079de3p-5,
                                -0x1.5285d56cd70f5p-7, 0x1.5c8a409eb2370p-6, -0x1.04e3165675c1bp-6,
                                0x1.e6d652d56aefap-8, -0x1.02b652a722ad6p-9, -0x1.cc1e4ff865071p-18,
                                0x1.de7717271deecp-13, -0x1.08a1cf874e83fp-14, -0x1.ede1fdac6cd53p-17,
                                0x1.7bb91fafa15b4p-17, 0x1.b52aec29f364bp-22, -0x1.ce8b283b870acp-20,
                                0x1.276f9c71bb37dp-24, 0x1.229b1131e37c0p-22, -0x1.9472a1eb3a678p-27,
                                -0x1.72e731dd792d2p-25, -0x1.0e938c43a76bbp-29, 0x1.5e98cea5d255dp-28,
                                0x1.2d2c451ed4f91p-30};
};

/// The same of (1 + t) exp(t^2 / 2) Phi(-t), Phi the normal distribution function.
template <class T>
struct NormalTail;

template <>
struct NormalTail<float> {
  static constexpr bool steep = false;
  static constexpr float k = 4.0F;
  static constexpr float c0 = 0x1.e361eap-2f;
  static constexpr float c0_lo = 0x1.d94604p-28f;
  /// t <= 14; error 2^-28.6.
  static constexpr std::array m{-0x1.8c18fp-4f, 0x1.cabd16p-7f, 0x1.d4951ep-6f, -0x1.07c262p-5f, 0x1.25ee74p-6f,
                                -0x1.48003p-8f, -0x1.3edcacp-12f, 0x1.6baf86p-11f, -0x1.f20a1ep-15f,
                                -0x1.2a84f4p-14f};
};

template <>
struct NormalTail<double> {
  static constexpr bool steep = false;
  static constexpr double k = 5.0;
  static constexpr double c0 = 0x1.d8979b0f2b39dp-2;
  static constexpr double c0_lo = 0x1.89fe021f25c94p-56;
  /// t <= 40; error 2^-55.2.
  static constexpr std::array m{-0x1.76ff86859eb0ep-4, 0x1.fc66cc64a1540p-6, 0x1.47c1d030531a6p-7,
                                -0x1.b08e0007b9cfap-6, 0x1.92037bab5f464p-6, -0x1.f11aab0221786p-7,
                                0x1.ab6d03879d7c9p-8, -0x1.b75f4fd91272ep-10, 0x1.0571fee9a2873p-17,
                                0x1.7e61f4ec09e1bp-13, -0x1.c1b236b916689p-15, -0x1.4c1380327aa7ap-17,
                                0x1.3008b67e5412cp-17, -0x1.26acf35a0833fp-24, -0x1.5f7a970066666p-20,
                                0x1.0b04ca15c4380p-23, 0x1.a953dfa688e59p-23, -0x1.772577bfe9fa7p-26,
                                -0x1.0d8ff6cdce14bp-25, 0x1.066ddee094b8dp-31, 0x1.05529e540f67fp-28,
                                0x1.74a5528b77660p-31};
};

/// (erf(x) / x - 1) in x^2, |x| <= 1/2.
template <class T>
struct ErfCentre;

template <>
struct ErfCentre<float> {
  /// Error 2^-29.3.
  static constexpr std::array p{0x1.06eba8p-3f, -0x1.812732p-2f, 0x1.ce24fp-4f, -0x1.b6636cp-6f, 0x1.352f6ap-8f};
};

template <>
struct ErfCentre<double> {
  /// Error 2^-57.1.
  static constexpr std::array p{0x1.06eba8214db68p-3, -0x1.812746b0379b3p-2,  0x1.ce2f21a03d652p-4,
                                -0x1.b82ce30f1cf5bp-6, 0x1.565bcbf55b41fp-8,  -0x1.c02d4e7ba92c6p-11,
                                0x1.f98d8f195a487p-14, -0x1.f2220f55676e2p-17, 0x1.8b34a03c8dd56p-20};
};

/// M / (1 + t), and about = 1 / (1 + t) to half of the digits.
template <class V>
struct TailFactor {
  DoubleWord<V> m;
  DoubleWord<V> denominator;
  V about;
};

template <class Tail, class V>
[[gnu::always_inline]] inline TailFactor<V> tail_factor(V t) noexcept {
  using T = typename V::value_type;
  const V one(T(1)), k(Tail::k);
  const DoubleWord<V> denominator = exact_sum(one, t);
  // whether M is steep enough for the rounding error of t + K to count
  constexpr bool exact = Tail::steep || !has_fma<typename V::arch_type>;
  const DoubleWord<V> down = exact ? exact_sum(k, t) : DoubleWord<V>{k + t, V(T(0))};
  V about, about_down;
  if constexpr (has_fma<typename V::arch_type>) {
    const V both = about_reciprocal(down.hi * denominator.hi);  // one reciprocal for two
    about = both * down.hi;
    about_down = both * denominator.hi;
  } else {
    about = one / denominator.hi;
    about_down = one / down.hi;
  }
  // v = u - 1, u = 2 t / (t + K): near t = 0, where M is steepest, the error of u is small
  V u = (t + t) * about_down;
  V rest = remainder(t + t, u, down.hi);
  if constexpr (exact) rest = fnma(u, down.lo, rest);
  u = fma(rest, about_down, u);
  const V v = u - one;
  const DoubleWord<V> m = ordered_sum(V(Tail::c0), v * polynomial<Tail::m>(v));
  return {{m.hi, m.lo + V(Tail::c0_lo)}, denominator, about};
}

/// erfc(t), 0 <= t <= 32.
template <class V>
inline V erfc_of_positive(V t) noexcept {
  const V e = close_exp(-exact_product(t, t));
  const auto f = tail_factor<ErfcTail<typename V::value_type>>(t);
  return quotient(product(f.m, e), f.denominator, f.about);
}

struct Erfc : Elementwise<Erfc> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V tail = erfc_of_positive(at_most(V(abs(x)), T(32)));
    return select(x < V(T(0)), V(T(2)) - tail, tail);
  }
};

struct Erf : Elementwise<Erf> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V t = abs(x);
    const V centre = fma(x, polynomial<ErfCentre<T>::p>(x * x), x);
    const V outer = V(T(1)) - erfc_of_positive(at_most(t, T(32)));
    return select(t < V(T(0.5)), centre, select(x < V(T(0)), -outer, outer));
  }
};

/// exp(-t^2 / 2), 0 <= t <= 64.
template <class V>
[[gnu::always_inline]] inline V gaussian(V t) noexcept {
  const DoubleWord<V> square = exact_product(t, t);
  const V minus_half(typename V::value_type(-0.5));
  return close_exp(DoubleWord<V>{square.hi * minus_half, square.lo * minus_half});
}

/// x Phi(x) = max(x, 0) - |x| Phi(-|x|): the second part is never the larger one, so nothing cancels.
struct Gelu : Elementwise<Gelu> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V t = at_most(V(abs(x)), T(64));
    const auto f = tail_factor<NormalTail<T>>(t);
    const DoubleWord<V> tail = product(product(f.m, t), gaussian(t));
    return max(x, V(T(0))) - quotient(tail, f.denominator, f.about);
  }
};

/// Phi(x) + x phi(x); with h(t) = Phi(-t) - t phi(t) it is h(-x) left and 1 - h(x) right of 0.
struct GeluGrad : Elementwise<GeluGrad> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V t = at_most(V(abs(x)), T(64));
    const auto f = tail_factor<NormalTail<T>>(t);
    const V phi = quotient(f.m, f.denominator, f.about);
    const V h = gaussian(t) * fnma(t, V(T(0.398942280401432677939946059934L)), phi);
    return select(x < V(T(0)), h, V(T(1)) - h);
  }
};

}  // namespace detail

/// The error function.
inline constexpr detail::Erf erf{};

/// 1 - erf(x), precise in the right tail; 0 where the result would be denormal (x > 9.2 in float).
inline constexpr detail::Erfc erfc{};

/// x Phi(x) = x/2 (1 + erf(x / sqrt 2)), precise in the left tail; 0 where Phi would be denormal (x < -13 in float).
inline constexpr detail::Gelu gelu{};

/// The derivative of gelu, Phi(x) + x phi(x).
inline constexpr detail::GeluGrad gelu_grad{};

}  // namespace ordo::simd
