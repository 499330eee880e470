#pragma once
/// \file
/// Layer norm, RMS norm and L2 norm over rows or groups of their columns, forward and backward: one text.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <utility>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/row.hpp"
#include "ordo/kernels/sequences.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::kernels {

/// What rows are multiplied by.
enum class NormScale : unsigned char {
  rms,     ///< 1 / sqrt(mean of (x - mean)^2 + eps)
  l2_sum,  ///< 1 / sqrt(sum of x^2 + eps)
  l2_max,  ///< 1 / max(sqrt(sum of x^2), eps): constant where eps is the larger one
};

/// y = (x - mean) scale (weight_offset + weight) + bias over rows of n; mean = 0 if not `centered`.
///
/// Row r has weights and biases number r % groups of the `groups` that there are: groups of channels are rows too.
template <class T>
struct Normalization {
  bool centered = false;  ///< with NormScale::rms only
  Index rows = 0, n = 0;
  const T* x = nullptr;
  const T* weight = nullptr;  ///< [groups, n]; null: the factor is 1
  const T* bias = nullptr;    ///< [groups, n] or null
  T weight_offset = 0;
  T eps = 0;
  Index groups = 1;
  NormScale scale = NormScale::rms;

  /// What sums over a row are multiplied by.
  T part() const noexcept { return scale == NormScale::rms ? T(1) / static_cast<T>(n) : T(1); }
  const T* of_group(const T* per_channel, Index row) const noexcept {
    return per_channel == nullptr ? nullptr : per_channel + row % groups * n;
  }
};

namespace detail {

/// Several sums over a row at once: f(i, count, sums) adds the vector at i to each.
template <std::size_t N, class T, class Arch, class F>
[[gnu::always_inline]] inline std::array<T, N> add_up_each(Index n, F&& f) {
  using V = simd::Vec<T, Arch>;
  using Width = std::integral_constant<Index, simd::lanes<T, Arch>>;
  V even[N], odd[N];
  unrolled<static_cast<Index>(N)>([&](auto k) { even[k] = odd[k] = V(T(0)); });
  Index i = 0;
  for (; i + 2 * Width::value <= n; i += 2 * Width::value) {
    f(i, Width{}, even);
    f(i + Width::value, Width{}, odd);
  }
  for (; i < n; i += Width::value) f(i, std::min(Width::value, n - i), even);
  std::array<T, N> sums;
  unrolled<static_cast<Index>(N)>([&](auto k) { sums[static_cast<std::size_t>(k)] = simd::hsum(even[k] + odd[k]); });
  return sums;
}

/// One row's view of a Normalization: (x - mean) without the rounding error of the mean, and (offset + weight).
///
/// A mean of 300 is known to 1e-5 in float. That error is the mean of the deviations from it, which are exact
/// differences: `shift` takes it out again, of y as of the variance, so that even a constant row of large numbers gives
/// 0.
template <class T, class Arch>
struct NormRow {
  using V = simd::Vec<T, Arch>;
  const T *x, *weight;
  V mean = V(T(0)), shift = V(T(0)), offset;

  NormRow(const Normalization<T>& in, Index row) : x(in.x + row * in.n), weight(in.of_group(in.weight, row)), offset(in.weight_offset) {}

  /// x - mean, before the shift; 0 behind the row's end.
  V deviation(Index i, Index count) const noexcept {
    return keep_some<Arch, T>(load_some<Arch>(x + i, count) - mean, count);
  }
  V deviation_from_mean(Index i, Index count) const noexcept { return deviation(i, count) - shift; }
  V weighted(V v, Index i, Index count) const noexcept {
    return weight != nullptr ? v * (load_some<Arch>(weight + i, count) + offset) : v;
  }
};

}  // namespace detail

/// Writes y; `mean` [rows] (centered only) and `scale` [rows] are what the backward pass needs, null if nobody does.
template <class T, class Arch = simd::DefaultArch>
void normalize_forward(const Normalization<T>& in, T* y, T* mean, T* scale) {
  using V = simd::Vec<T, Arch>;
  const Index n = in.n;
  const T part = in.part();
  parallel_for(in.rows, detail::row_grain(n), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      detail::NormRow<T, Arch> row(in, r);
      T variance = 0;
      if (in.centered) {
        const T m = part * detail::add_up<T, Arch>(n, [&](Index i, auto c) { return row.deviation(i, c); });
        row.mean = V(m);
        const auto [sum, squares] = detail::add_up_each<2, T, Arch>(n, [&](Index i, auto c, V(&sums)[2]) {
          const V d = row.deviation(i, c);
          sums[0] = sums[0] + d;
          sums[1] = simd::fma(d, d, sums[1]);
        });
        const T error = part * sum;
        row.shift = V(error);
        variance = std::max(part * squares - error * error, T(0));
        if (mean != nullptr) mean[r] = m;
      } else {
        variance = part * detail::add_up<T, Arch>(n, [&](Index i, auto c) {
                     const V v = row.deviation(i, c);
                     return v * v;
                   });
      }
      const T s = in.scale == NormScale::l2_max ? std::min(T(1) / std::sqrt(variance), T(1) / in.eps)
                                                : T(1) / std::sqrt(variance + in.eps);
      if (scale != nullptr) scale[r] = s;
      simd::for_lanes<T, Arch>(n, [row, vs = V(s), bias = in.of_group(in.bias, r), to = y + r * n](Index i, auto c) {
        const V v = row.weighted(row.deviation_from_mean(i, c) * vs, i, c);
        detail::store_some<Arch, T>(to + i, bias != nullptr ? v + detail::load_some<Arch>(bias + i, c) : v, c);
      });
    }
  });
}

/// Gradients from dy, written, null ones left out. With h = (x - mean) scale and g = dy (offset + weight):
/// dx = scale (g - mean(g) [centered] - h mean(g h)); dweight = sum over rows of dy h; dbias = sum over rows of dy. With an
/// L2 scale sums stand in the place of means, and nothing in that of mean(g h) where the scale is constant.
/// Rows are cut in pieces that depend on their number alone, whose sums are added in order.
template <class T, class Arch = simd::DefaultArch>
void normalize_backward(const Normalization<T>& in, const T* mean, const T* scale, const T* dy, T* dx, T* dweight,
                        T* dbias) {
  using V = simd::Vec<T, Arch>;
  const Index n = in.n, channels = in.groups * n;
  const T part = in.part();
  const bool sums = dweight != nullptr || dbias != nullptr;
  const SumPieces pieces(in.rows, 64);
  Scratch<T> partial(sums ? 2 * pieces.count * channels : 0);
  parallel_for(pieces.count, 1, [&](Index first_piece, Index last_piece) {
    for (Index piece = first_piece; piece < last_piece; ++piece) {
      T* const dws = partial.data() + piece * channels;
      T* const dbs = partial.data() + (pieces.count + piece) * channels;
      if (sums) {
        std::fill_n(dws, channels, T(0));
        std::fill_n(dbs, channels, T(0));
      }
      for (Index r = pieces.begin(piece); r < pieces.end(piece); ++r) {
        detail::NormRow<T, Arch> row(in, r);
        if (in.centered) row.mean = V(mean[r]);
        const T* const u = dy + r * n;
        T* const dw = dws + r % in.groups * n;
        T* const db = dbs + r % in.groups * n;
        const T s = scale[r];
        const bool constant = in.scale == NormScale::l2_max && s >= T(1) / in.eps;
        const auto [level, along, error] = detail::add_up_each<3, T, Arch>(n, [row, u](Index i, auto c, V(&sum)[3]) {
          const V g = row.weighted(detail::load_some<Arch>(u + i, c), i, c), d = row.deviation(i, c);
          sum[0] = sum[0] + g;
          sum[1] = simd::fma(g, d, sum[1]);
          sum[2] = sum[2] + d;
        });
        const T shift = in.centered ? part * error : T(0);
        row.shift = V(shift);
        const V vs(s), vlevel(in.centered ? part * level : T(0)), valong(constant ? T(0) : part * s * (along - shift * level));
        // The lambdas hold copies: what is behind a reference would be read again after each store.
        if (dx != nullptr) {
          simd::for_lanes<T, Arch>(n, [row, vs, vlevel, valong, u, to = dx + r * n](Index i, auto c) {
            const V h = row.deviation_from_mean(i, c) * vs;
            const V g = row.weighted(detail::load_some<Arch>(u + i, c), i, c);
            detail::store_some<Arch, T>(to + i, vs * simd::fnma(h, valong, g - vlevel), c);
          });
        }
        if (dweight != nullptr) {
          simd::for_lanes<T, Arch>(n, [row, vs, u, dw](Index i, auto c) {
            const V h = row.deviation_from_mean(i, c) * vs;
            const V sum = simd::fma(detail::load_some<Arch>(u + i, c), h, detail::load_some<Arch>(dw + i, c));
            detail::store_some<Arch, T>(dw + i, sum, c);
          });
        }
        if (dbias != nullptr) {
          simd::for_lanes<T, Arch>(n, [u, db](Index i, auto c) {
            detail::store_some<Arch, T>(db + i, detail::load_some<Arch>(u + i, c) + detail::load_some<Arch>(db + i, c),
                                        c);
          });
        }
      }
    }
  });
  if (dweight != nullptr) sum_pieces(partial.data(), pieces.count, channels, dweight);
  if (dbias != nullptr) sum_pieces(partial.data() + pieces.count * channels, pieces.count, channels, dbias);
}

}  // namespace ordo::kernels
