#pragma once
/// \file
/// Running sums along the middle axis of [outer, n, inner].

#include <algorithm>

#include "ordo/core/parallel.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::kernels {

/// y[o, t, :] = start[o, :] + the sum of x[o, r, :] over r <= t (or r < t, `exclusive`; in `reverse` r >= t or r > t), total = start +
/// the sum over all. start may be null (zeros). One number after the other: every cut into pieces gives the same bits.
template <class T, class Arch = simd::DefaultArch>
void cumulative_sum(const T* x, const T* start, T* y, T* total, Index outer, Index n, Index inner, bool reverse, bool exclusive) {
  using V = simd::Vec<T, Arch>;
  parallel_for(outer, std::max<Index>(1, 16384 / std::max<Index>(1, n * inner)), [&](Index begin, Index end) {
    for (Index o = begin; o < end; ++o) {
      T* const sum = total + o * inner;
      if (start != nullptr) {
        std::copy_n(start + o * inner, inner, sum);
      } else {
        std::fill_n(sum, inner, T(0));
      }
      for (Index i = 0; i < n; ++i) {
        const Index at = (o * n + (reverse ? n - 1 - i : i)) * inner;
        if (exclusive) std::copy_n(sum, inner, y + at);
        simd::transform<Arch>(sum, x + at, sum, inner, [](const V& s, const V& v) { return s + v; });
        if (!exclusive) std::copy_n(sum, inner, y + at);
      }
    }
  });
}

}  // namespace ordo::kernels
