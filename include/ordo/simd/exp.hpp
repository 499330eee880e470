#pragma once
/// \file
/// exp, exp2, expm1, and the parts of exp that other functions are made of.
///
/// exp(x) = 2^k exp(r), k = round(x / log 2), |r| <= log(2)/2, with a minimax polynomial for exp(r). Where a register
/// can be looked up in (AVX2, AVX-512), k is in eighths or sixteenths and the polynomial half as long.

#include <array>
#include <concepts>
#include <limits>

#include "ordo/simd/double_word.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::simd {

namespace detail {

/// A function of one vector. It takes numbers too, and gives for them the bits that a vector's lane would get.
template <class F>
struct Elementwise {
  template <class T, class A>
  [[gnu::always_inline]] Vec<T, A> operator()(const xsimd::batch<T, A>& x) const noexcept {
    return F::eval(x);
  }
  template <std::floating_point T>
  T operator()(T x) const noexcept {
    return F::eval(Vec<T>(x)).get(0);
  }
};

// ---- pieces ---------------------------------------------------------------------------------------------------------

template <const auto& C, class V, std::size_t... I>
[[gnu::always_inline]] inline V horner_steps(V x, std::index_sequence<I...>) noexcept {
  constexpr std::size_t last = C.size() - 1;
  V p(C[last]);
  ((p = fma(p, x, V(C[last - 1 - I]))), ...);
  return p;
}

/// C[0] + C[1] x + C[2] x^2 + ...
template <const auto& C, class V>
[[gnu::always_inline]] inline V polynomial(V x) noexcept {
  return horner_steps<C>(x, std::make_index_sequence<C.size() - 1>{});
}

/// max(x, low) and min(x, high) that keep a NaN: x86 returns its second operand, and xsimd 14 has turned them round.
template <class V>
[[gnu::always_inline]] inline V at_least(V x, typename V::value_type low) noexcept {
#if XSIMD_WITH_SSE2
  return XSIMD_VERSION_MAJOR >= 14 ? max(x, V(low)) : max(V(low), x);
#else
  return select(x < V(low), V(low), x);
#endif
}
template <class V>
[[gnu::always_inline]] inline V at_most(V x, typename V::value_type high) noexcept {
#if XSIMD_WITH_SSE2
  return XSIMD_VERSION_MAJOR >= 14 ? min(x, V(high)) : min(V(high), x);
#else
  return select(x > V(high), V(high), x);
#endif
}

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  static constexpr int mantissa_bits = 23;
  static constexpr float log2e = 0x1.715476p0f;
  static constexpr float ln2_hi = 0x1.63p-1f;  // 9 digits: its product with k is exact
  static constexpr float ln2_lo = -0x1.bd0106p-13f;
  static constexpr float round = 0x1.8p23f;         // x + round has the integer nearest to x in its low bits
  static constexpr float lowest = -0x1.5d589ep6f;   // exp(lowest) is the last normal number
  static constexpr float highest = 0x1.62e42ep6f;   // exp(highest) is the last finite number
  static constexpr float lowest2 = -126.0F;
  static constexpr float highest2 = 0x1.fffffep6f;
  /// (exp(r) - 1 - r) / r^2, |r| <= log(2)/2; the error of expm1 is 2^-26.1.
  static constexpr std::array p{0x1.fffffep-2f, 0x1.5554aap-3f, 0x1.55579cp-5f, 0x1.122c6cp-7f, 0x1.6ab77p-10f};
  /// (2^r - 1) / r, |r| <= 1/2; error 2^-27.5.
  static constexpr std::array p2{0x1.62e43p-1f,  0x1.ebfbdap-3f,  0x1.c6af22p-5f,
                                 0x1.3b2e38p-7f, 0x1.5f43d8p-10f, 0x1.420242p-13f};
};

template <>
struct ExpConstants<double> {
  static constexpr int mantissa_bits = 52;
  static constexpr double log2e = 0x1.71547652b82fep0;
  static constexpr double ln2_hi = 0x1.62e42feep-1;
  static constexpr double ln2_lo = 0x1.a39ef35793c76p-33;
  static constexpr double round = 0x1.8p52;
  static constexpr double lowest = -0x1.6232bdd7abcd2p9;
  static constexpr double highest = 0x1.62e42fefa39efp9;
  static constexpr double lowest2 = -1022.0;
  static constexpr double highest2 = 0x1.fffffffffffffp9;
  /// Error 2^-58.6.
  static constexpr std::array p{0x1p-1,
                                0x1.5555555555559p-3,
                                0x1.5555555555559p-5,
                                0x1.111111110f6f3p-7,
                                0x1.6c16c16c1601dp-10,
                                0x1.a01a01afa7136p-13,
                                0x1.a01a01a9680cap-16,
                                0x1.71ddf9079a192p-19,
                                0x1.27e4ab2045995p-22,
                                0x1.af5daa9ca5bfp-26,
                                0x1.202c8cdfed752p-29};
  /// Error 2^-56.8.
  static constexpr std::array p2{0x1.62e42fefa39efp-1,  0x1.ebfbdff82c5b3p-3,  0x1.c6b08d704a26fp-5,
                                 0x1.3b2ab6fb9dab5p-7,  0x1.5d87fe78457efp-10, 0x1.4309131682144p-13,
                                 0x1.ffcbfe66300f3p-17, 0x1.62bfb4918a94cp-20, 0x1.b5208243745adp-24,
                                 0x1.e63ba08ca00cfp-28, 0x1.f0eb5d5b5d2a7p-32};
};

/// x = k log 2 + r. `bits` has the integer k in its low bits.
template <class V>
struct ExpReduction {
  V bits;
  V k;
  V r;
};

template <class V>
[[gnu::always_inline]] inline ExpReduction<V> reduce_exp(V x) noexcept {
  using C = ExpConstants<typename V::value_type>;
  const V bits = fma(x, V(C::log2e), V(C::round));
  const V k = bits - V(C::round);
  return {bits, k, fnma(k, V(C::ln2_lo), fnma(k, V(C::ln2_hi), x))};
}

/// p 2^k by adding k to p's exponent; the result must be a normal number.
template <class V>
[[gnu::always_inline]] inline V scale_by_exponent(V p, V bits) noexcept {
  using T = typename V::value_type;
  return bitcast<T>(bitcast<IntOf<T>>(p) + (bitcast<IntOf<T>>(bits) << ExpConstants<T>::mantissa_bits));
}

// ---- exp ------------------------------------------------------------------------------------------------------------

/// x < lowest ? 0 : y. Spelled for AVX, where compilers keep a blend with 0 that is slower than `and`.
template <class T, class A>
[[gnu::always_inline]] inline Vec<T, A> zero_below(const Vec<T, A>& x, T lowest, const Vec<T, A>& y) noexcept {
  const Vec<T, A> limit(lowest);
#if XSIMD_WITH_AVX
  if constexpr (is_avx<A> && std::is_same_v<T, float>) {
    return _mm256_and_ps(y, _mm256_cmp_ps(x, limit, _CMP_NLT_UQ));
  } else if constexpr (is_avx<A> && std::is_same_v<T, double>) {
    return _mm256_and_pd(y, _mm256_cmp_pd(x, limit, _CMP_NLT_UQ));
  } else
#endif
  {
    return select(x < limit, T(0), y);
  }
}

/// y, but 0 for x < lowest and infinity for x > highest; a NaN's payload may have spoilt y, so y is not trusted there.
template <bool Overflows, class V>
[[gnu::always_inline]] inline V finish_exp(V x, V y, typename V::value_type lowest,
                                           typename V::value_type highest) noexcept {
  using T = typename V::value_type;
  if constexpr (Overflows) {
    y = zero_below(x, lowest, y);
    return select(x <= V(highest), y, x + V(std::numeric_limits<T>::infinity()));
  } else {
    return select(x >= V(lowest), y, at_least(x, T(0)));
  }
}

/// What decides about the speed of attention and scans: one kernel for every processor, and shorter ones for two.
///   exp<Overflows>, exp2<Overflows>: Overflows says whether arguments above `highest` may come.
///   close(z), close(z, z_lo): exp(z + z_lo), z <= 0, with an error of little more than half a unit in the last place,
///   for what is built on it; z_lo is about the rounding error of z.
template <class T, class A>
struct ExpKernel {
  using V = Vec<T, A>;
  using C = ExpConstants<T>;

  template <bool Overflows>
  [[gnu::always_inline]] static V exp(V x) noexcept {
    const ExpReduction<V> e = reduce_exp(x);
    const V one(T(1));
    const V p = fma(fma(polynomial<C::p>(e.r), e.r, one), e.r, one);
    return finish<Overflows>(x, p, e.bits, C::lowest, C::highest);
  }

  template <bool Overflows>
  [[gnu::always_inline]] static V exp2(V x) noexcept {
    const V bits = x + V(C::round);
    const V r = x - (bits - V(C::round));
    return finish<Overflows>(x, fma(polynomial<C::p2>(r), r, V(T(1))), bits, C::lowest2, C::highest2);
  }

  [[gnu::always_inline]] static V close(V z) noexcept { return close_of(z, reduce_exp(z)); }
  [[gnu::always_inline]] static V close(V z, V z_lo) noexcept {
    ExpReduction<V> e = reduce_exp(z);
    e.r += z_lo;
    return close_of(z, e);
  }

 private:
  [[gnu::always_inline]] static V close_of(V z, const ExpReduction<V>& e) noexcept {
    const DoubleWord<V> s = ordered_sum(V(T(1)), e.r);
    const V p = s.hi + fma(e.r * e.r, polynomial<C::p>(e.r), s.lo);
    return finish<false>(z, p, e.bits, C::lowest, C::highest);
  }

  template <bool Overflows>
  [[gnu::always_inline]] static V finish(V x, V p, V bits, T lowest, T highest) noexcept {
    return finish_exp<Overflows>(x, scale_by_exponent(p, bits), lowest, highest);
  }
};

/// The powers 2^(i/N) in a register, and what they lack; k is in units of 1/N and `round` shifted accordingly.
template <class T, int N>
struct ExpTable;

template <>
struct ExpTable<float, 8> {
  static constexpr float round = ExpConstants<float>::round / 8;
  alignas(32) static constexpr float powers[8] = {0x1p0f,        0x1.172b84p0f, 0x1.306fep0f,  0x1.4bfdaep0f,
                                                  0x1.6a09e6p0f, 0x1.8ace54p0f, 0x1.ae89fap0f, 0x1.d5818ep0f};
  alignas(32) static constexpr float rests[8] = {0,
                                                 -0x1.c15742p-27f,
                                                 0x1.4636e2p-25f,
                                                 -0x1.593abcp-25f,
                                                 0x1.9fcef4p-26f,
                                                 0x1.15506ep-27f,
                                                 -0x1.a94b14p-26f,
                                                 -0x1.822dbcp-27f};
  /// (exp(r) - 1) / r, |r| <= log(2)/16; error 2^-25.2.
  static constexpr std::array p{0x1.000002p0f, 0x1.00088p-1f, 0x1.5545c2p-3f};
  /// The same for `close`; error 2^-32.4.
  static constexpr std::array p_close{0x1p0f, 0x1p-1f, 0x1.555c72p-3f, 0x1.55567p-5f};
  /// (2^r - 1) / r, |r| <= 1/16; error 2^-25.2.
  static constexpr std::array p2{0x1.62e432p-1f, 0x1.ec0c2ap-3f, 0x1.c690fcp-5f};
};

template <>
struct ExpTable<float, 16> {
  static constexpr float round = ExpConstants<float>::round / 16;
  alignas(64) static constexpr float powers[16] = {
      0x1p0f,        0x1.0b5586p0f, 0x1.172b84p0f, 0x1.2387a6p0f, 0x1.306fep0f,  0x1.3dea64p0f,
      0x1.4bfdaep0f, 0x1.5ab07ep0f, 0x1.6a09e6p0f, 0x1.7a1148p0f, 0x1.8ace54p0f, 0x1.9c4918p0f,
      0x1.ae89fap0f, 0x1.c199bep0f, 0x1.d5818ep0f, 0x1.ea4afap0f};
  alignas(64) static constexpr float rests[16] = {
      0,               0x1.9f3122p-25f,  -0x1.c15742p-27f, 0x1.ceac48p-25f, 0x1.4636e2p-25f, 0x1.824684p-25f,
      -0x1.593abcp-25f, -0x1.5bd5ecp-27f, 0x1.9fcef4p-26f,  -0x1.829fdp-25f, 0x1.15506ep-27f, 0x1.51f848p-27f,
      -0x1.a94b14p-26f, -0x1.3d56b2p-27f, -0x1.822dbcp-27f, 0x1.52486cp-27f};
  /// (exp(r) - 1) / r, |r| <= log(2)/32; error 2^-29.2.
  static constexpr std::array p{0x1p0f, 0x1.00022p-1f, 0x1.555638p-3f};
  static constexpr std::array p_close = p;
  /// (2^r - 1) / r, |r| <= 1/32; error 2^-29.2.
  static constexpr std::array p2{0x1.62e43p-1f, 0x1.ebfff6p-3f, 0x1.c6acdap-5f};
};

template <>
struct ExpTable<double, 8> {
  static constexpr double round = ExpConstants<double>::round / 8;
  alignas(64) static constexpr double powers[8] = {0x1p0,
                                                   0x1.172b83c7d517bp0,
                                                   0x1.306fe0a31b715p0,
                                                   0x1.4bfdad5362a27p0,
                                                   0x1.6a09e667f3bcdp0,
                                                   0x1.8ace5422aa0dbp0,
                                                   0x1.ae89f995ad3adp0,
                                                   0x1.d5818dcfba487p0};
  alignas(64) static constexpr double rests[8] = {0,
                                                  -0x1.19041b9d78a76p-55,
                                                  0x1.6f46ad23182e4p-55,
                                                  0x1.d4397afec42e2p-56,
                                                  -0x1.bdd3413b26456p-54,
                                                  0x1.6e9f156864b27p-54,
                                                  0x1.7a1cd345dcc81p-54,
                                                  0x1.2ed02d75b3707p-55};
  /// (exp(r) - 1) / r, |r| <= log(2)/16; error 2^-58.2.
  static constexpr std::array p{0x1p0,
                                0x1.0000000000119p-1,
                                0x1.55555555558c3p-3,
                                0x1.55555547a3151p-5,
                                0x1.111110f287956p-7,
                                0x1.6c1cd4210ef57p-10,
                                0x1.a02a3bad3378dp-13};
  static constexpr std::array p_close = p;
  /// (2^r - 1) / r, |r| <= 1/16; error 2^-58.1.
  static constexpr std::array p2{0x1.62e42fefa39efp-1,  0x1.ebfbdff82c7cep-3,  0x1.c6b08d704ccb8p-5,
                                 0x1.3b2ab6ee77587p-7,  0x1.5d87fd8cac769p-10, 0x1.430e9250c4f12p-13,
                                 0x1.0010dc47acdfdp-16};
};

/// The kernel over a table. Look says how its processor looks up a power and scales:
///   lookup(table, bits); scale<Overflows>(x, p, bits, k, lowest, highest): p 2^floor(k), 0 below `lowest`.
template <class T, class A, int N, class Look>
struct TableExpKernel {
  using V = Vec<T, A>;
  using C = ExpConstants<T>;
  using Table = ExpTable<T, N>;

  template <bool Overflows>
  [[gnu::always_inline]] static V exp(V x) noexcept {
    const ExpReduction<V> e = reduce(Look::template bounded<Overflows>(x, C::highest + T(1)));
    const V power = Look::lookup(Table::powers, e.bits);
    const V p = fma(power * e.r, polynomial<Table::p>(e.r), power);
    return Look::template scale<Overflows>(x, p, e.bits, e.k, C::lowest, C::highest);
  }

  template <bool Overflows>
  [[gnu::always_inline]] static V exp2(V x) noexcept {
    const V low = Look::template bounded<Overflows>(x, C::highest2 + T(2));
    const V bits = low + V(Table::round);
    const V k = bits - V(Table::round);
    const V r = low - k;
    const V power = Look::lookup(Table::powers, bits);
    const V p = fma(power * r, polynomial<Table::p2>(r), power);
    return Look::template scale<Overflows>(x, p, bits, k, C::lowest2, C::highest2);
  }

  [[gnu::always_inline]] static V close(V z) noexcept { return close_of(z, reduce(z)); }
  [[gnu::always_inline]] static V close(V z, V z_lo) noexcept {
    ExpReduction<V> e = reduce(z);
    e.r += z_lo;
    return close_of(z, e);
  }

 private:
  [[gnu::always_inline]] static ExpReduction<V> reduce(V x) noexcept {
    const V bits = fma(x, V(C::log2e), V(Table::round));
    const V k = bits - V(Table::round);
    return {bits, k, fnma(k, V(C::ln2_lo), fnma(k, V(C::ln2_hi), x))};
  }

  [[gnu::always_inline]] static V close_of(V z, const ExpReduction<V>& e) noexcept {
    const V power = Look::lookup(Table::powers, e.bits);
    const V p = power + fma(power * e.r, polynomial<Table::p_close>(e.r), Look::lookup(Table::rests, e.bits));
    return Look::template scale<false>(z, p, e.bits, e.k, C::lowest, C::highest);
  }
};

#if XSIMD_WITH_AVX2
template <class A>
struct Avx2Look {
  using V = Vec<float, A>;

  template <bool Overflows>
  [[gnu::always_inline]] static V bounded(V x, float) noexcept {
    return x;
  }
  [[gnu::always_inline]] static V lookup(const float* table, V bits) noexcept {
    return _mm256_permutevar8x32_ps(_mm256_load_ps(table), _mm256_castps_si256(bits));
  }
  template <bool Overflows>
  [[gnu::always_inline]] static V scale(V x, V p, V bits, V, float lowest, float highest) noexcept {
    const auto k = (bitcast<std::int32_t>(bits) & Vec<std::int32_t, A>(~7)) << (ExpConstants<float>::mantissa_bits - 3);
    return finish_exp<Overflows>(x, bitcast<float>(bitcast<std::int32_t>(p) + k), lowest, highest);
  }
};

template <class A>
  requires(extends<A, xsimd::avx2>)
struct ExpKernel<float, A> : TableExpKernel<float, A, 8, Avx2Look<A>> {};
#endif

#if XSIMD_WITH_AVX512F
/// scalef takes the floor of k and knows overflow.
template <class A>
struct Avx512Look {
  using F = Vec<float, A>;
  using D = Vec<double, A>;

  template <bool Overflows, class V, class T>
  [[gnu::always_inline]] static V bounded(V x, T highest) noexcept {
    return Overflows ? at_most(x, highest) : x;
  }
  [[gnu::always_inline]] static F lookup(const float* table, F bits) noexcept {
    return _mm512_permutexvar_ps(_mm512_castps_si512(bits), _mm512_load_ps(table));
  }
  [[gnu::always_inline]] static D lookup(const double* table, D bits) noexcept {
    return _mm512_permutexvar_pd(_mm512_castpd_si512(bits), _mm512_load_pd(table));
  }
  template <bool>
  [[gnu::always_inline]] static F scale(F x, F p, F, F k, float lowest, float) noexcept {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, F(lowest), _CMP_NLT_UQ), p, k);
  }
  template <bool>
  [[gnu::always_inline]] static D scale(D x, D p, D, D k, double lowest, double) noexcept {
    return _mm512_maskz_scalef_pd(_mm512_cmp_pd_mask(x, D(lowest), _CMP_NLT_UQ), p, k);
  }
};

template <class A>
  requires is_avx512<A>
struct ExpKernel<float, A> : TableExpKernel<float, A, 16, Avx512Look<A>> {};

template <class A>
  requires is_avx512<A>
struct ExpKernel<double, A> : TableExpKernel<double, A, 8, Avx512Look<A>> {};
#endif

/// exp(z), z <= 0, nearly correctly rounded.
template <class T, class A>
[[gnu::always_inline]] inline Vec<T, A> close_exp(const xsimd::batch<T, A>& z) noexcept {
  return ExpKernel<T, A>::close(z);
}
template <class T, class A>
[[gnu::always_inline]] inline Vec<T, A> close_exp(const DoubleWord<xsimd::batch<T, A>>& z) noexcept {
  return ExpKernel<T, A>::close(z.hi, z.lo);
}

template <bool Overflows>
struct Exp : Elementwise<Exp<Overflows>> {
  template <class T, class A>
  [[gnu::always_inline]] static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    return ExpKernel<T, A>::template exp<Overflows>(x);
  }
};

template <bool Overflows>
struct Exp2 : Elementwise<Exp2<Overflows>> {
  template <class T, class A>
  [[gnu::always_inline]] static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    return ExpKernel<T, A>::template exp2<Overflows>(x);
  }
};

struct Expm1 : Elementwise<Expm1> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    using C = ExpConstants<T>;
    const ExpReduction<V> e = reduce_exp(at_least(V(x), T(-64)));
    const DoubleWord<V> q = ordered_sum(e.r, e.r * e.r * polynomial<C::p>(e.r));  // expm1(r)
    // 2^k (q + 1) - 1, halved, because 2^k itself overflows first
    const V half = scale_by_exponent(V(T(0.5)), e.bits);
    const DoubleWord<V> m = ordered_sum(half - V(T(0.5)), half * q.hi);
    V y = m.hi + fma(half, q.lo, m.lo);
    y = select(e.k == V(T(0)), q.hi, y + y);
    return select(x <= V(C::highest), y, x + V(std::numeric_limits<T>::infinity()));
  }
};

}  // namespace detail

/// e^x. Error below 1.3 ulp; results that would be denormal are 0 (x < -87.33 in float, x < -708.3 in double).
inline constexpr detail::Exp<true> exp{};

/// e^x for x <= 0 (-inf and NaN included), cheaper; it stays right up to x = 88.
inline constexpr detail::Exp<false> exp_nonpositive{};

/// 2^x, cheaper than exp. Error below 1.3 ulp; results that would be denormal are 0.
inline constexpr detail::Exp2<true> exp2{};

/// 2^x for x <= 0 (-inf and NaN included), cheaper; it stays right below x = 127.
inline constexpr detail::Exp2<false> exp2_nonpositive{};

/// e^x - 1, precise near 0.
inline constexpr detail::Expm1 expm1{};

}  // namespace ordo::simd
