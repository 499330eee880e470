#pragma once
/// \file
/// Layer norm and RMS norm over rows, forward and backward: one text, centered or not.

#include <algorithm>
#include <cmath>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/sequences.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::kernels {

/// y = (x - mean) * scale * (weight_offset + weight) + bias, scale = 1 / sqrt(mean of (x - mean)^2 + eps); mean = 0 if not `centered`.
template <class T>
struct Normalization {
  bool centered = false;
  Index rows = 0, n = 0;
  const T* x = nullptr;
  const T* weight = nullptr;  ///< [n]; null: the factor is 1
  const T* bias = nullptr;    ///< [n] or null
  T weight_offset = 0;
  T eps = 0;
};

namespace detail {

/// sum of f(x_i, ...) over a row, in four accumulators.
template <class T, class Arch, class F>
[[gnu::always_inline]] inline T sum_of(Index n, F&& f) {
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
[[gnu::always_inline]] inline simd::Vec<T, Arch> load_count(const T* p, Index count) noexcept {
  return count == simd::lanes<T, Arch> ? simd::load<Arch>(p) : simd::load_partial<Arch>(p, count);
}
template <class Arch, class T>
[[gnu::always_inline]] inline void store_count(T* p, simd::Vec<T, Arch> v, Index count) noexcept {
  if (count == simd::lanes<T, Arch>) {
    simd::store(p, v);
  } else {
    simd::store_partial(p, v, count);
  }
}
/// v in the first `count` lanes, 0 in the others.
template <class Arch, class T>
[[gnu::always_inline]] inline simd::Vec<T, Arch> first_lanes(simd::Vec<T, Arch> v, Index count) noexcept {
  if (count == simd::lanes<T, Arch>) return v;
  return simd::select(simd::lane_mask<T, Arch>(count), v, simd::Vec<T, Arch>(T(0)));
}

/// How many rows make a piece of work.
inline Index norm_grain(Index n) noexcept { return std::max<Index>(1, 16384 / std::max<Index>(n, 1)); }

}  // namespace detail

/// Writes y; `mean` [rows] (centered only) and `scale` [rows] are what the backward pass needs, null if nobody does.
template <class T, class Arch = simd::DefaultArch>
void normalize_forward(const Normalization<T>& in, T* y, T* mean, T* scale) {
  using V = simd::Vec<T, Arch>;
  constexpr Index w = simd::lanes<T, Arch>;
  const Index n = in.n;
  parallel_for(in.rows, detail::norm_grain(n), [&](Index first, Index last) {
    for (Index r = first; r < last; ++r) {
      const T* x = in.x + r * n;
      // Two passes: a mean that is large against the deviation costs no digits.
      const T m = in.centered ? detail::sum_of<T, Arch>(n, [&](Index i, Index c) { return detail::load_count<Arch>(x + i, c); }) / static_cast<T>(n) : T(0);
      const V vm(m);
      const T square = detail::sum_of<T, Arch>(n, [&](Index i, Index c) {
        const V d = detail::first_lanes<Arch, T>(detail::load_count<Arch>(x + i, c) - vm, c);
        return d * d;
      });
      const T s = T(1) / std::sqrt(square / static_cast<T>(n) + in.eps);
      if (mean != nullptr) mean[r] = m;
      if (scale != nullptr) scale[r] = s;
      const V vs(s), offset(in.weight_offset);
      for (Index i = 0; i < n; i += w) {
        const Index c = std::min(w, n - i);
        V v = (detail::load_count<Arch>(x + i, c) - vm) * vs;
        if (in.weight != nullptr) v = v * (detail::load_count<Arch>(in.weight + i, c) + offset);
        if (in.bias != nullptr) v = v + detail::load_count<Arch>(in.bias + i, c);
        detail::store_count<Arch>(y + r * n + i, v, c);
      }
    }
  });
}

/// Gradients from dy, written, null ones left out. With h = (x - mean) scale and g = dy (offset + weight):
/// dx = scale (g - mean(g) [centered] - h mean(g h)); dweight = sum over rows of dy h; dbias = sum over rows of dy.
template <class T, class Arch = simd::DefaultArch>
void normalize_backward(const Normalization<T>& in, const T* mean, const T* scale, const T* dy, T* dx, T* dweight, T* dbias) {
  using V = simd::Vec<T, Arch>;
  constexpr Index w = simd::lanes<T, Arch>;
  const Index n = in.n;
  const SumPieces pieces(in.rows, 64);
  Scratch<T> partial(dweight != nullptr || dbias != nullptr ? 2 * pieces.count * n : 0);
  std::fill_n(partial.data(), dweight != nullptr || dbias != nullptr ? 2 * pieces.count * n : 0, T(0));
  parallel_for(pieces.count, 1, [&](Index first_piece, Index last_piece) {
    for (Index piece = first_piece; piece < last_piece; ++piece) {
      T* const dw = partial.data() + piece * n;
      T* const db = partial.data() + (pieces.count + piece) * n;
      for (Index r = pieces.begin(piece); r < pieces.end(piece); ++r) {
        const T *x = in.x + r * n, *g = dy + r * n;
        const V vm(in.centered ? mean[r] : T(0)), vs(scale[r]), offset(in.weight_offset);
        const auto normal = [&](Index i, Index c) {
          return detail::first_lanes<Arch, T>((detail::load_count<Arch>(x + i, c) - vm) * vs, c);
        };
        const auto weighted = [&](Index i, Index c) {
          const V v = detail::load_count<Arch>(g + i, c);
          return in.weight != nullptr ? v * (detail::load_count<Arch>(in.weight + i, c) + offset) : v;
        };
        if (dx != nullptr) {
          const T inverse = T(1) / static_cast<T>(n);
          const T along = inverse * detail::sum_of<T, Arch>(n, [&](Index i, Index c) { return weighted(i, c) * normal(i, c); });
          const T level = in.centered ? inverse * detail::sum_of<T, Arch>(n, weighted) : T(0);
          const V va(along), vl(level);
          for (Index i = 0; i < n; i += w) {
            const Index c = std::min(w, n - i);
            detail::store_count<Arch>(dx + r * n + i, vs * (weighted(i, c) - vl - normal(i, c) * va), c);
          }
        }
        if (dweight != nullptr || dbias != nullptr) {
          for (Index i = 0; i < n; i += w) {
            const Index c = std::min(w, n - i);
            const V v = detail::load_count<Arch>(g + i, c);
            detail::store_count<Arch>(dw + i, simd::fma(v, normal(i, c), detail::load_count<Arch>(dw + i, c)), c);
            detail::store_count<Arch>(db + i, v + detail::load_count<Arch>(db + i, c), c);
          }
        }
      }
    }
  });
  if (dweight != nullptr) sum_pieces(partial.data(), pieces.count, n, dweight);
  if (dbias != nullptr) sum_pieces(partial.data() + pieces.count * n, pieces.count, n, dbias);
}

}  // namespace ordo::kernels
