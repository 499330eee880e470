#pragma once
/// \file
/// Vectors: the only door to xsimd (8.1 to 14). Everything that its versions spell differently is settled here.
///
/// The functions are objects, so that they can be passed on (`transform(x, y, n, simd::exp)`) and so that argument-
/// dependent lookup never mixes them up with xsimd's own functions of the same names.

// GCC 12's AVX-512 intrinsics read their own "undefined" vectors, and it warns about that (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <xsimd/xsimd.hpp>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"

namespace ordo::simd {

/// The best architecture that the compiler's flags allow. It is part of every kernel's type, so that object files
/// with different flags link into one program.
using DefaultArch = xsimd::default_arch;

/// `lanes<T, A>` numbers that are worked on together.
template <class T, class A = DefaultArch>
using Vec = xsimd::batch<T, A>;

/// What comparing two vectors gives.
template <class T, class A = DefaultArch>
using Mask = xsimd::batch_bool<T, A>;

template <class T, class A = DefaultArch>
inline constexpr Index lanes = static_cast<Index>(Vec<T, A>::size);

namespace detail {

template <class X>
inline constexpr bool is_vec = false;
template <class T, class A>
inline constexpr bool is_vec<xsimd::batch<T, A>> = true;

/// The first vector type among X...: in `fma(a, b, c)` the others may be numbers.
template <class X, class... Rest>
struct FirstVec : FirstVec<Rest...> {};
template <class T, class A, class... Rest>
struct FirstVec<xsimd::batch<T, A>, Rest...> {
  using type = xsimd::batch<T, A>;
};

/// A is Root or inherits from it, as xsimd's architectures do from what they extend.
template <class A, class Root>
inline constexpr bool extends = std::is_base_of_v<Root, A>;

/// The names of xsimd's tags are there in every build; the intrinsics only with the matching flags.
#if XSIMD_WITH_AVX512F
template <class A>
inline constexpr bool is_avx512 = extends<A, xsimd::avx512f>;
#else
template <class A>
inline constexpr bool is_avx512 = false;
#endif
#if XSIMD_WITH_AVX
template <class A>
inline constexpr bool is_avx = extends<A, xsimd::avx>;
#else
template <class A>
inline constexpr bool is_avx = false;
#endif

template <std::size_t Bytes>
struct IntOfSize;
template <>
struct IntOfSize<4> {
  using type = std::int32_t;
};
template <>
struct IntOfSize<8> {
  using type = std::int64_t;
};

}  // namespace detail

/// The signed integer as wide as T.
template <class T>
using IntOf = typename detail::IntOfSize<sizeof(T)>::type;

template <class X>
concept VecLike = detail::is_vec<std::remove_cvref_t<X>>;

/// True where fma(a, b, c) is known to round once. Elsewhere (SSE, AVX without FMA) it is a product and a sum.
template <class A>
inline constexpr bool has_fma = detail::is_avx512<A> || detail::extends<A, xsimd::fma3<xsimd::avx2>> ||
                                detail::extends<A, xsimd::fma3<xsimd::avx>> ||
                                detail::extends<A, xsimd::fma3<xsimd::sse4_2>> || detail::extends<A, xsimd::neon64>;

// ---- memory ---------------------------------------------------------------------------------------------------------

/// Reads `lanes` numbers; p need not be aligned.
template <class A = DefaultArch, class T>
[[gnu::always_inline]] inline Vec<T, A> load(const T* p) noexcept {
  return Vec<T, A>::load_unaligned(p);
}

namespace detail {
/// load(ones_then_zeros<T> + W - n) has n lanes set, for W <= 16.
template <class T>
alignas(64) inline constexpr IntOf<T> ones_then_zeros[32] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                                             -1, -1, -1, -1, -1, -1, -1, -1};
template <class T>
[[gnu::always_inline]] inline const IntOf<T>* lane_bits(Index n) noexcept {
  return ones_then_zeros<T> + (16 - n);
}
}  // namespace detail

/// Lanes 0..n-1; 0 <= n <= lanes.
template <class T, class A = DefaultArch>
[[gnu::always_inline]] inline Mask<T, A> lane_mask(Index n) noexcept {
  ORDO_ASSERT(n >= 0 && n <= (lanes<T, A>));
#if XSIMD_WITH_AVX512F
  if constexpr (detail::is_avx512<A>) {
    using Bits = typename Mask<T, A>::register_type;
    return Mask<T, A>(static_cast<Bits>((1U << static_cast<unsigned>(n)) - 1U));
  } else
#endif
  {
    const auto bits = Vec<IntOf<T>, A>::load_unaligned(detail::lane_bits<T>(n));
#if XSIMD_VERSION_MAJOR >= 9
    return xsimd::batch_bool_cast<T>(bits != Vec<IntOf<T>, A>(0));
#else
    return xsimd::bool_cast(bits != Vec<IntOf<T>, A>(0));
#endif
  }
}

/// Reads n numbers, 0 <= n <= lanes, and nothing behind them; the other lanes are 0.
template <class A = DefaultArch, class T>
[[gnu::always_inline]] inline Vec<T, A> load_partial(const T* p, Index n) noexcept {
  ORDO_ASSERT(n >= 0 && n <= (lanes<T, A>));
#if XSIMD_WITH_AVX512F
  if constexpr (detail::is_avx512<A> && std::is_same_v<T, float>) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1U << static_cast<unsigned>(n)) - 1U), p);
  } else if constexpr (detail::is_avx512<A> && std::is_same_v<T, double>) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1U << static_cast<unsigned>(n)) - 1U), p);
  } else
#endif
#if XSIMD_WITH_AVX
      if constexpr (detail::is_avx<A> && std::is_same_v<T, float>) {
    return _mm256_maskload_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(detail::lane_bits<T>(n))));
  } else if constexpr (detail::is_avx<A> && std::is_same_v<T, double>) {
    return _mm256_maskload_pd(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(detail::lane_bits<T>(n))));
  } else
#endif
  {
    alignas(64) T buffer[Vec<T, A>::size] = {};
    for (Index i = 0; i < n; ++i) buffer[i] = p[i];
    return Vec<T, A>::load_aligned(buffer);
  }
}

namespace detail {

struct Store {
  /// Writes all lanes; p need not be aligned.
  template <class T, class A>
  [[gnu::always_inline]] void operator()(T* p, const xsimd::batch<T, A>& v) const noexcept {
    v.store_unaligned(p);
  }
};

}  // namespace detail

inline constexpr detail::Store store{};

/// Writes lanes 0..n-1, 0 <= n <= lanes, and touches nothing behind them.
template <class T, class A>
[[gnu::always_inline]] inline void store_partial(T* p, const Vec<T, A>& v, Index n) noexcept {
  ORDO_ASSERT(n >= 0 && n <= (lanes<T, A>));
#if XSIMD_WITH_AVX512F
  if constexpr (detail::is_avx512<A> && std::is_same_v<T, float>) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1U << static_cast<unsigned>(n)) - 1U), v);
  } else if constexpr (detail::is_avx512<A> && std::is_same_v<T, double>) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1U << static_cast<unsigned>(n)) - 1U), v);
  } else
#endif
#if XSIMD_WITH_AVX
      if constexpr (detail::is_avx<A> && std::is_same_v<T, float>) {
    _mm256_maskstore_ps(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(detail::lane_bits<T>(n))), v);
  } else if constexpr (detail::is_avx<A> && std::is_same_v<T, double>) {
    _mm256_maskstore_pd(p, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(detail::lane_bits<T>(n))), v);
  } else
#endif
  {
    alignas(64) T buffer[Vec<T, A>::size];
    v.store_aligned(buffer);
    for (Index i = 0; i < n; ++i) p[i] = buffer[i];
  }
}

// ---- casts ----------------------------------------------------------------------------------------------------------

/// The same bits as lanes of To; To is as wide as T.
template <class To, class T, class A>
[[gnu::always_inline]] inline Vec<To, A> bitcast(const Vec<T, A>& v) noexcept {
  static_assert(sizeof(To) == sizeof(T), "bitcast: both lane types must be equally wide");
#if XSIMD_VERSION_MAJOR >= 11
  return xsimd::bitwise_cast<To>(v);
#else
  return xsimd::bitwise_cast<Vec<To, A>>(v);
#endif
}

/// A mask of T as a mask of the equally wide To.
template <class To, class T, class A>
[[gnu::always_inline]] inline Mask<To, A> mask_cast(const Mask<T, A>& m) noexcept {
  static_assert(sizeof(To) == sizeof(T), "mask_cast: both lane types must be equally wide");
  if constexpr (std::is_same_v<To, T>) {
    return m;
  } else {
#if XSIMD_VERSION_MAJOR >= 9
    return xsimd::batch_bool_cast<To>(m);
#else
    return xsimd::bool_cast(m);
#endif
  }
}

// ---- arithmetic -----------------------------------------------------------------------------------------------------

namespace detail {

/// a b + c, a b - c, c - a b. xsimd 8.1 has no fused operations for AVX-512 (it writes x * y + z and hopes for the
/// compiler, which GCC fulfils and Clang does not), and only the first for NEON; so they are chosen here.
template <class T, class A>
[[gnu::always_inline]] inline Vec<T, A> fused(const Vec<T, A>& a, const Vec<T, A>& b, const Vec<T, A>& c) noexcept {
#if XSIMD_WITH_AVX512F
  if constexpr (is_avx512<A> && std::is_same_v<T, float>) {
    return _mm512_fmadd_ps(a, b, c);
  } else if constexpr (is_avx512<A> && std::is_same_v<T, double>) {
    return _mm512_fmadd_pd(a, b, c);
  } else
#endif
  {
    return xsimd::fma(a, b, c);
  }
}

template <class T, class A>
[[gnu::always_inline]] inline Vec<T, A> fused_minus(const Vec<T, A>& a, const Vec<T, A>& b,
                                                    const Vec<T, A>& c) noexcept {
#if XSIMD_WITH_AVX512F
  if constexpr (is_avx512<A> && std::is_same_v<T, float>) {
    return _mm512_fmsub_ps(a, b, c);
  } else if constexpr (is_avx512<A> && std::is_same_v<T, double>) {
    return _mm512_fmsub_pd(a, b, c);
  } else
#endif
      if constexpr (extends<A, xsimd::neon64>) {
    return xsimd::fma(a, b, -c);
  } else {
    return xsimd::fms(a, b, c);
  }
}

template <class T, class A>
[[gnu::always_inline]] inline Vec<T, A> fused_from(const Vec<T, A>& a, const Vec<T, A>& b,
                                                   const Vec<T, A>& c) noexcept {
#if XSIMD_WITH_AVX512F
  if constexpr (is_avx512<A> && std::is_same_v<T, float>) {
    return _mm512_fnmadd_ps(a, b, c);
  } else if constexpr (is_avx512<A> && std::is_same_v<T, double>) {
    return _mm512_fnmadd_pd(a, b, c);
  } else
#endif
      if constexpr (extends<A, xsimd::neon64>) {
    return xsimd::fma(-a, b, c);
  } else {
    return xsimd::fnma(a, b, c);
  }
}

struct Fma {
  /// a b + c; at least one is a vector, the others may be numbers. Rounded once where has_fma.
  template <class X, class Y, class Z>
    requires(VecLike<X> || VecLike<Y> || VecLike<Z>)
  [[gnu::always_inline]] auto operator()(const X& a, const Y& b, const Z& c) const noexcept {
    using V = typename FirstVec<X, Y, Z>::type;
    return fused(V(a), V(b), V(c));
  }
};

struct Fms {
  /// a b - c
  template <class X, class Y, class Z>
    requires(VecLike<X> || VecLike<Y> || VecLike<Z>)
  [[gnu::always_inline]] auto operator()(const X& a, const Y& b, const Z& c) const noexcept {
    using V = typename FirstVec<X, Y, Z>::type;
    return fused_minus(V(a), V(b), V(c));
  }
};

struct Fnma {
  /// c - a b
  template <class X, class Y, class Z>
    requires(VecLike<X> || VecLike<Y> || VecLike<Z>)
  [[gnu::always_inline]] auto operator()(const X& a, const Y& b, const Z& c) const noexcept {
    using V = typename FirstVec<X, Y, Z>::type;
    return fused_from(V(a), V(b), V(c));
  }
};

struct Max {
  /// The larger of each pair; which one is taken when one of them is NaN depends on the processor.
  template <class X, class Y>
    requires(VecLike<X> || VecLike<Y>)
  [[gnu::always_inline]] auto operator()(const X& a, const Y& b) const noexcept {
    using V = typename FirstVec<X, Y>::type;
    return xsimd::max(V(a), V(b));
  }
};

struct Min {
  /// The smaller of each pair; which one is taken when one of them is NaN depends on the processor.
  template <class X, class Y>
    requires(VecLike<X> || VecLike<Y>)
  [[gnu::always_inline]] auto operator()(const X& a, const Y& b) const noexcept {
    using V = typename FirstVec<X, Y>::type;
    return xsimd::min(V(a), V(b));
  }
};

struct Select {
  /// condition ? a : b, lane by lane; a and b may be numbers.
  template <class T, class A, class X, class Y>
  [[gnu::always_inline]] Vec<T, A> operator()(const xsimd::batch_bool<T, A>& condition, const X& a,
                                              const Y& b) const noexcept {
#if XSIMD_WITH_AVX512F
    // xsimd 8.1's own does not compile without optimisation
    if constexpr (is_avx512<A> && std::is_integral_v<T> && sizeof(T) == 4) {
      return _mm512_mask_blend_epi32(condition, Vec<T, A>(b), Vec<T, A>(a));
    } else if constexpr (is_avx512<A> && std::is_integral_v<T> && sizeof(T) == 8) {
      return _mm512_mask_blend_epi64(condition, Vec<T, A>(b), Vec<T, A>(a));
    } else
#endif
    {
      return xsimd::select(condition, Vec<T, A>(a), Vec<T, A>(b));
    }
  }
};

struct Abs {
  template <class T, class A>
  [[gnu::always_inline]] Vec<T, A> operator()(const xsimd::batch<T, A>& x) const noexcept {
    return xsimd::abs(x);
  }
};

struct Sqrt {
  /// Correctly rounded.
  template <class T, class A>
  [[gnu::always_inline]] Vec<T, A> operator()(const xsimd::batch<T, A>& x) const noexcept {
    return xsimd::sqrt(x);
  }
};

struct Any {
  template <class T, class A>
  [[gnu::always_inline]] bool operator()(const xsimd::batch_bool<T, A>& m) const noexcept {
    return xsimd::any(m);
  }
};

struct All {
  template <class T, class A>
  [[gnu::always_inline]] bool operator()(const xsimd::batch_bool<T, A>& m) const noexcept {
    return xsimd::all(m);
  }
};

}  // namespace detail

inline constexpr detail::Fma fma{};
inline constexpr detail::Fms fms{};
inline constexpr detail::Fnma fnma{};
inline constexpr detail::Max max{};
inline constexpr detail::Min min{};
inline constexpr detail::Select select{};
inline constexpr detail::Abs abs{};
inline constexpr detail::Sqrt sqrt{};
inline constexpr detail::Any any{};
inline constexpr detail::All all{};

// ---- reductions -----------------------------------------------------------------------------------------------------

namespace detail {

/// Unqualified, so that the name that this xsimd lacks is looked up only in the branch that is taken.
template <class V>
[[gnu::always_inline]] inline auto reduce_sum(const V& v) noexcept {
  if constexpr (requires { reduce_add(v); }) {
    return reduce_add(v);
  } else {
    return hadd(v);
  }
}

/// Halves a vector until it is 128 bits wide, then goes through its lanes; f is associative and commutative.
template <class T, class A, class F>
[[gnu::always_inline]] inline T reduce_halves(const Vec<T, A>& v, F f) noexcept {
#if XSIMD_WITH_AVX512F && XSIMD_WITH_AVX2
  if constexpr (is_avx512<A> && std::is_same_v<T, float>) {
    const Vec<T, xsimd::avx2> low(_mm512_castps512_ps256(v));
    const Vec<T, xsimd::avx2> high(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
    return reduce_halves(Vec<T, xsimd::avx2>(f(low, high)), f);
  } else if constexpr (is_avx512<A> && std::is_same_v<T, double>) {
    const Vec<T, xsimd::avx2> low(_mm512_castpd512_pd256(v)), high(_mm512_extractf64x4_pd(v, 1));
    return reduce_halves(Vec<T, xsimd::avx2>(f(low, high)), f);
  } else
#endif
#if XSIMD_WITH_AVX
      if constexpr (is_avx<A> && std::is_same_v<T, float>) {
    const Vec<T, xsimd::sse4_2> low(_mm256_castps256_ps128(v)), high(_mm256_extractf128_ps(v, 1));
    return reduce_halves(Vec<T, xsimd::sse4_2>(f(low, high)), f);
  } else if constexpr (is_avx<A> && std::is_same_v<T, double>) {
    const Vec<T, xsimd::sse4_2> low(_mm256_castpd256_pd128(v)), high(_mm256_extractf128_pd(v, 1));
    return reduce_halves(Vec<T, xsimd::sse4_2>(f(low, high)), f);
  } else
#endif
#if XSIMD_WITH_SSE2
      if constexpr (extends<A, xsimd::sse2> && std::is_same_v<T, float>) {
    const Vec<T, A> pairs = f(v, Vec<T, A>(_mm_movehl_ps(v, v)));
    const Vec<T, A> one = f(pairs, Vec<T, A>(_mm_shuffle_ps(pairs, pairs, 1)));
    return _mm_cvtss_f32(one);
  } else if constexpr (extends<A, xsimd::sse2> && std::is_same_v<T, double>) {
    return _mm_cvtsd_f64(Vec<T, A>(f(v, Vec<T, A>(_mm_unpackhi_pd(v, v)))));
  } else
#endif
  {
    alignas(64) T buffer[Vec<T, A>::size];
    v.store_aligned(buffer);
    for (std::size_t width = Vec<T, A>::size / 2; width > 0; width /= 2) {
      for (std::size_t i = 0; i < width; ++i) {
        buffer[i] = f(Vec<T, A>(buffer[i]), Vec<T, A>(buffer[i + width])).get(0);
      }
    }
    return buffer[0];
  }
}

}  // namespace detail

/// The sum of the lanes; its order depends on the architecture.
template <class T, class A>
[[gnu::always_inline]] inline T hsum(const Vec<T, A>& v) noexcept {
  return detail::reduce_sum(v);
}

/// The largest lane.
template <class T, class A>
[[gnu::always_inline]] inline T hmax(const Vec<T, A>& v) noexcept {
  return detail::reduce_halves(v, max);
}

/// The smallest lane.
template <class T, class A>
[[gnu::always_inline]] inline T hmin(const Vec<T, A>& v) noexcept {
  return detail::reduce_halves(v, min);
}

// ---- loops ----------------------------------------------------------------------------------------------------------

/// Calls f(i, count) for i = 0, W, 2W, ...: count = W = lanes<T, A>, at the end the rest (never 0).
template <class T, class A = DefaultArch, class F>
[[gnu::always_inline]] inline void for_lanes(Index n, F&& f) {
  constexpr Index w = lanes<T, A>;
  Index i = 0;
  for (; i + w <= n; i += w) f(i, std::integral_constant<Index, w>{});
  if (i < n) f(i, n - i);
}

/// y[i] = f(x[i]), i < n. f takes and gives vectors; y may be x. Lanes behind the end hold zeros when f sees them.
template <class A = DefaultArch, class T, class F>
inline void transform(const T* x, T* y, Index n, F&& f) {
  constexpr Index w = lanes<T, A>;
  Index i = 0;
  for (; i + w <= n; i += w) store(y + i, Vec<T, A>(f(load<A>(x + i))));
  if (i < n) store_partial(y + i, Vec<T, A>(f(load_partial<A>(x + i, n - i))), n - i);
}

/// y[i] = f(a[i], b[i]), i < n; y may be a or b.
template <class A = DefaultArch, class T, class F>
inline void transform(const T* a, const T* b, T* y, Index n, F&& f) {
  constexpr Index w = lanes<T, A>;
  Index i = 0;
  for (; i + w <= n; i += w) store(y + i, Vec<T, A>(f(load<A>(a + i), load<A>(b + i))));
  if (i < n) {
    const Index rest = n - i;
    store_partial(y + i, Vec<T, A>(f(load_partial<A>(a + i, rest), load_partial<A>(b + i, rest))), rest);
  }
}

/// y[i] = f(a[i], b[i], c[i]), i < n; y may be a, b or c.
template <class A = DefaultArch, class T, class F>
inline void transform(const T* a, const T* b, const T* c, T* y, Index n, F&& f) {
  constexpr Index w = lanes<T, A>;
  Index i = 0;
  for (; i + w <= n; i += w) store(y + i, Vec<T, A>(f(load<A>(a + i), load<A>(b + i), load<A>(c + i))));
  if (i < n) {
    const Index rest = n - i;
    store_partial(y + i,
                  Vec<T, A>(f(load_partial<A>(a + i, rest), load_partial<A>(b + i, rest),
                              load_partial<A>(c + i, rest))),
                  rest);
  }
}

}  // namespace ordo::simd
