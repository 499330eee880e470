#pragma once
/// \file
/// How kernels over time find their rows: activations lie as rows [B * L, channels], and a row may be a slice of a
/// wider one.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "ordo/core/extents.hpp"

namespace ordo::kernels {

/// Rows of numbers, `stride` elements from one to the next. A default-made one stands for "not there".
template <class T>
struct Rows {
  T* data = nullptr;
  Index stride = 0;

  constexpr Rows() noexcept = default;
  constexpr Rows(T* first, Index row_stride) noexcept : data(first), stride(row_stride) {}
  template <class U>
    requires(std::is_same_v<const U, T> && !std::is_same_v<U, T>)
  constexpr Rows(const Rows<U>& other) noexcept  // NOLINT(google-explicit-constructor): as T* to const T*
      : data(other.data), stride(other.stride) {}

  constexpr T* operator[](Index row) const noexcept { return data + row * stride; }
  constexpr explicit operator bool() const noexcept { return data != nullptr; }
};

/// Which rows make up which sequence: `count` sequences of `length` rows each one behind the other, or, packed,
/// sequence s in the rows offsets[s] up to offsets[s + 1] (`cu_seqlens`: first 0, never decreasing; equal neighbours
/// are an empty sequence). Row s of a state belongs to sequence s.
struct Sequences {
  Index count = 0;
  Index length = 0;
  const std::int64_t* offsets = nullptr;  ///< [count + 1] or null

  constexpr Index begin(Index s) const noexcept { return offsets ? static_cast<Index>(offsets[s]) : s * length; }
  constexpr Index end(Index s) const noexcept {
    return offsets ? static_cast<Index>(offsets[s + 1]) : (s + 1) * length;
  }
  constexpr Index rows() const noexcept { return count == 0 ? 0 : end(count - 1); }

  /// Calls f(s, first, last) for what of each sequence lies in the rows [first_row, last_row); not for empty sequences.
  template <class F>
  void for_each_in(Index first_row, Index last_row, F&& f) const {
    if (first_row >= last_row) return;
    Index s = 0;
    if (offsets) {
      s = static_cast<Index>(std::upper_bound(offsets, offsets + count + 1, std::int64_t{first_row}) - offsets) - 1;
    } else {
      s = first_row / length;
    }
    for (; s < count && begin(s) < last_row; ++s) {
      const Index first = std::max(begin(s), first_row), last = std::min(end(s), last_row);
      if (first < last) f(s, first, last);
    }
  }
};

/// A fixed number of pieces for sums over `n` things that threads share: the sums do not depend on the number of
/// threads, because the pieces depend on n alone. Piece i is [n i / pieces, n (i + 1) / pieces).
struct SumPieces {
  static constexpr Index most = 16;
  Index n;
  Index count;
  explicit constexpr SumPieces(Index things, Index least = 1) noexcept
      : n(things), count(std::clamp<Index>(things / std::max<Index>(least, 1), 1, most)) {}
  constexpr Index begin(Index piece) const noexcept { return n * piece / count; }
  constexpr Index end(Index piece) const noexcept { return n * (piece + 1) / count; }
};

/// out[i] = from[0][i] + from[1][i] + ... in this order; the `count` pieces lie n apart.
template <class T>
void sum_pieces(const T* from, Index count, Index n, T* out) {
  std::copy(from, from + n, out);
  for (Index piece = 1; piece < count; ++piece) {
    const T* part = from + piece * n;
    for (Index i = 0; i < n; ++i) out[i] += part[i];
  }
}

}  // namespace ordo::kernels
