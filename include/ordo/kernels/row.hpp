#pragma once
/// \file
/// Pieces of loops along a row of n numbers: whole vectors, then one with the rest.

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

#include "ordo/core/extents.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::kernels::detail {

/// Calls f(i, count) for the vectors of a row and adds up what it returns, in four accumulators.
template <class T, class Arch, class F>
[[gnu::always_inline]] inline T add_up(Index n, F&& f) {
  using V = simd::Vec<T, Arch>;
  constexpr Index w = simd::lanes<T, Arch>;
  V s0(T(0)), s1(T(0)), s2(T(0)), s3(T(0));
  Index i = 0;
  for (; i + 4 * w <= n; i += 4 * w) {
    s0 += f(i, w);
    s1 += f(i + w, w);
    s2 += f(i + 2 * w, w);
    s3 += f(i + 3 * w, w);
  }
  for (; i < n; i += w) s0 += f(i, std::min(w, n - i));
  return simd::hsum((s0 + s1) + (s2 + s3));
}
template <class Arch, class T>
[[gnu::always_inline]] inline simd::Vec<T, Arch> load_some(const T* p, Index count) noexcept {
  return count == simd::lanes<T, Arch> ? simd::load<Arch>(p) : simd::load_partial<Arch>(p, count);
}
template <class Arch, class T>
[[gnu::always_inline]] inline void store_some(T* p, simd::Vec<T, Arch> v, Index count) noexcept {
  if (count == simd::lanes<T, Arch>) {
    simd::store(p, v);
  } else {
    simd::store_partial(p, v, count);
  }
}
/// v in the first `count` lanes, `other` behind them.
template <class Arch, class T>
[[gnu::always_inline]] inline simd::Vec<T, Arch> keep_some(simd::Vec<T, Arch> v, Index count, T other = T(0)) noexcept {
  if (count == simd::lanes<T, Arch>) return v;
  return simd::select(simd::lane_mask<T, Arch>(count), v, simd::Vec<T, Arch>(other));
}

/// f(0), ..., f(N - 1) with integral constants: arrays that are indexed by them can live in registers whatever the
/// optimiser thinks of unrolling (GCC at -O2 does not).
template <Index N, class F>
[[gnu::always_inline]] inline void unrolled(F&& f) {
  [&]<Index... I>(std::integer_sequence<Index, I...>) {
    (f(std::integral_constant<Index, I>{}), ...);
  }(std::make_integer_sequence<Index, N>{});
}

/// How many rows make a piece of work.
inline Index row_grain(Index n) noexcept { return std::max<Index>(1, 8192 / std::max<Index>(n, 1)); }

/// The largest element, -inf of an empty row. NaN may or may not be lost.
template <class T, class Arch>
T row_max(const T* x, Index n) {
  using V = simd::Vec<T, Arch>;
  constexpr Index w = simd::lanes<T, Arch>;
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  V m0(lowest), m1(lowest);
  Index i = 0;
  for (; i + 2 * w <= n; i += 2 * w) {
    m0 = simd::max(m0, simd::load<Arch>(x + i));
    m1 = simd::max(m1, simd::load<Arch>(x + i + w));
  }
  for (; i < n; i += w) {
    const Index c = std::min(w, n - i);
    m0 = simd::max(m0, keep_some<Arch>(load_some<Arch>(x + i, c), c, lowest));
  }
  return simd::hmax(simd::max(m0, m1));
}

}  // namespace ordo::kernels::detail
