#pragma once
/// \file
/// Sums and maxima along the middle axis of [outer, n, inner].

#include <algorithm>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/row.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::kernels {

namespace detail {

/// The sum of n contiguous numbers; n is at most a block, so that a float keeps its precision.
template <class T, class Arch>
T sum_run(const T* x, Index n) {
  return add_up<T, Arch>(n, [x](Index i, Index count) { return load_some<Arch>(x + i, count); });
}

/// y[j] = sum_i x[i, j] of n rows.
template <class T, class Arch>
void sum_rows(const T* x, T* y, Index n, Index inner) {
  constexpr Index tile = 4 * simd::lanes<T, Arch>;
  using V = simd::Vec<T, Arch>;
  constexpr Index w = simd::lanes<T, Arch>;
  Index j = 0;
  for (; j + tile <= inner; j += tile) {
    V s0(T(0)), s1(T(0)), s2(T(0)), s3(T(0));
    for (Index i = 0; i < n; ++i) {
      const T* row = x + i * inner + j;
      s0 += simd::load<Arch>(row);
      s1 += simd::load<Arch>(row + w);
      s2 += simd::load<Arch>(row + 2 * w);
      s3 += simd::load<Arch>(row + 3 * w);
    }
    simd::store(y + j, s0);
    simd::store(y + j + w, s1);
    simd::store(y + j + 2 * w, s2);
    simd::store(y + j + 3 * w, s3);
  }
  for (; j < inner; j += w) {
    const Index count = std::min(w, inner - j);
    V s(T(0));
    for (Index i = 0; i < n; ++i) s += simd::load_partial<Arch>(x + i * inner + j, count);
    simd::store_partial(y + j, s, count);
  }
}

}  // namespace detail

/// y[o, j] = sum_i x[o, i, j]. Long sums go by blocks of fixed length, whose results are added in order: the rounding
/// error grows with the number of blocks plus their length instead of n, and the bits do not depend on threads.
template <class T, class Arch = simd::DefaultArch>
void sum(const T* x, T* y, Index outer, Index n, Index inner) {
  if (outer * inner == 0) return;
  const Index block = inner == 1 ? 4096 : 64, blocks = std::max<Index>(1, (n + block - 1) / block);
  if (blocks == 1) {
    parallel_for(outer, std::max<Index>(1, 32768 / std::max<Index>(1, n * inner)), [&](Index begin, Index end) {
      for (Index o = begin; o < end; ++o) {
        if (inner == 1) {
          y[o] = detail::sum_run<T, Arch>(x + o * n, n);
        } else {
          detail::sum_rows<T, Arch>(x + o * n * inner, y + o * inner, n, inner);
        }
      }
    });
    return;
  }
  Scratch<T> partial(outer * blocks * inner);
  parallel_for(outer * blocks, std::max<Index>(1, 32768 / (block * inner)), [&](Index begin, Index end) {
    for (Index p = begin; p < end; ++p) {
      const Index o = p / blocks, first = p % blocks * block, count = std::min(block, n - first);
      const T* from = x + (o * n + first) * inner;
      if (inner == 1) {
        partial[p] = detail::sum_run<T, Arch>(from, count);
      } else {
        detail::sum_rows<T, Arch>(from, partial.data() + p * inner, count, inner);
      }
    }
  });
  sum<T, Arch>(partial.data(), y, outer, blocks, inner);
}

namespace detail {
/// Where the largest of n numbers stands first; NaN is the largest.
template <class T, class Arch>
Index first_max(const T* x, Index n) {
  using V = simd::Vec<T, Arch>;
  const bool any_nan = add_up<T, Arch>(n, [x](Index i, Index count) {
                         const V v = load_some<Arch>(x + i, count);
                         return simd::select(v == v, V(T(0)), V(T(1)));
                       }) != T(0);
  if (any_nan) return std::find_if(x, x + n, [](T v) { return v != v; }) - x;
  return std::find(x, x + n, row_max<T, Arch>(x, n)) - x;
}
}  // namespace detail

/// y[o, j] = max_i x[o, i, j], and the first i where it stands. n >= 1. A NaN counts as the largest.
template <class T, class Arch = simd::DefaultArch>
void max(const T* x, T* y, Index* place, Index outer, Index n, Index inner) {
  for (Index o = 0; o < outer; ++o) {
    const T* const from = x + o * n * inner;
    T* const best = y + o * inner;
    Index* const at = place + o * inner;
    if (inner == 1) {
      *at = detail::first_max<T, Arch>(from, n);
      *best = from[*at];
      continue;
    }
    std::copy_n(from, inner, best);
    std::fill_n(at, inner, Index{0});
    for (Index i = 1; i < n; ++i) {
      for (Index j = 0; j < inner; ++j) {
        const T v = from[i * inner + j];
        if (v > best[j] || (v != v && best[j] == best[j])) {
          best[j] = v;
          at[j] = i;
        }
      }
    }
  }
}

}  // namespace ordo::kernels
