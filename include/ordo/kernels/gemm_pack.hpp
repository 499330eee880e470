#pragma once
/// \file
/// Packing: B into panels of RegisterTile::cols columns, A into panels as high as a tile, so that the register tile reads
/// both one after the other.

#include <algorithm>
#include <utility>

#include "ordo/core/memory.hpp"
#include "ordo/kernels/gemm_micro.hpp"

namespace ordo::kernels {

/// A matrix in place: element (i, j) is data[i * row_stride + j * col_stride], and one of the strides is 1.
/// `{w, 1, ldw}` is the transpose of `{w, ldw, 1}`.
template <class T>
struct MatrixRef {
  const T* data = nullptr;
  Index row_stride = 0;
  Index col_stride = 1;

  constexpr MatrixRef transposed() const noexcept { return {data, col_stride, row_stride}; }
  constexpr MatrixRef block(Index row, Index col) const noexcept {
    return {data + row * row_stride + col * col_stride, row_stride, col_stride};
  }
};

namespace detail {

// 128-bit vectors: shuffles of that width are cheap everywhere, and wider transposes gain nothing on Zen 4.
template <class T>
using NarrowVec = xsimd::make_sized_batch_t<T, 16 / sizeof(T)>;

// The functions below carry Arch in their names though they hardly use it: see simd::DefaultArch.

/// to[k * to_stride + r] = from[r * from_stride + k] for r, k < NarrowVec::size.
template <class T>
[[gnu::always_inline]] inline void transpose_square(const T* from, Index from_stride, T* to, Index to_stride) noexcept {
  using V = NarrowVec<T>;
  if constexpr (V::size == 4) {
    const V r0 = V::load_unaligned(from), r1 = V::load_unaligned(from + from_stride);
    const V r2 = V::load_unaligned(from + 2 * from_stride), r3 = V::load_unaligned(from + 3 * from_stride);
    const V a = xsimd::zip_lo(r0, r2), b = xsimd::zip_lo(r1, r3), c = xsimd::zip_hi(r0, r2), d = xsimd::zip_hi(r1, r3);
    xsimd::zip_lo(a, b).store_unaligned(to);
    xsimd::zip_hi(a, b).store_unaligned(to + to_stride);
    xsimd::zip_lo(c, d).store_unaligned(to + 2 * to_stride);
    xsimd::zip_hi(c, d).store_unaligned(to + 3 * to_stride);
  } else {
    static_assert(V::size == 2);
    const V r0 = V::load_unaligned(from), r1 = V::load_unaligned(from + from_stride);
    xsimd::zip_lo(r0, r1).store_unaligned(to);
    xsimd::zip_hi(r0, r1).store_unaligned(to + to_stride);
  }
}

/// to[k * width + r] = from[r * stride + k], r < count, k < depth; columns count..width of `to` become 0.
template <class Arch, class T>
[[gnu::noinline]] void pack_transposed(const T* from, Index stride, Index count, Index depth, T* to, Index width) noexcept {
  constexpr Index step = static_cast<Index>(NarrowVec<T>::size);
  constexpr Index line = static_cast<Index>(memory_alignment / sizeof(T));
  Index k = 0;
  if (count >= step) {
    // A whole cache line of a few rows at a time: with a power of two between rows, all of them share a set of the L1.
    for (; k + step <= depth; k += line) {
      const Index k_end = std::min(k + line, depth / step * step);
      for (Index r = 0; r < count; r += step) {
        const Index row = std::min(r, count - step);  // the last group overlaps the one before
        for (Index kk = k; kk < k_end; kk += step) {
          transpose_square(from + row * stride + kk, stride, to + kk * width + row, width);
        }
      }
    }
    k = depth / step * step;
  }
  for (; k < depth; ++k) {
    for (Index r = 0; r < count; ++r) to[k * width + r] = from[r * stride + k];
  }
  if (count < width) {
    for (k = 0; k < depth; ++k) std::fill(to + k * width + count, to + (k + 1) * width, T(0));
  }
}

/// to[r] = from[r], r < count; to[count, width) = 0.
template <class T>
[[gnu::always_inline]] inline void copy_padded(const T* from, Index count, T* to, Index width) noexcept {
  using V = NarrowVec<T>;
  constexpr Index step = static_cast<Index>(V::size);
  if (count >= step) {
    Index r = 0;
    for (; r + step <= count; r += step) V::load_unaligned(from + r).store_unaligned(to + r);
    if (r < count) V::load_unaligned(from + count - step).store_unaligned(to + count - step);
  } else {
    for (Index r = 0; r < count; ++r) to[r] = from[r];
  }
  if (count < width) std::fill(to + count, to + width, T(0));
}

/// to[r] = from[r], r < N.
template <Index N, class T, std::size_t... R>
[[gnu::always_inline]] inline void copy_fixed(const T* from, T* to, std::index_sequence<R...>) noexcept {
  using V = NarrowVec<T>;
  constexpr Index step = static_cast<Index>(V::size);
  (V::load_unaligned(from + std::min(static_cast<Index>(R) * step, N - step))
       .store_unaligned(to + std::min(static_cast<Index>(R) * step, N - step)),
   ...);
}
template <Index N, class T>
[[gnu::always_inline]] inline void copy_fixed(const T* from, T* to) noexcept {
  constexpr std::size_t step = NarrowVec<T>::size;
  copy_fixed<N>(from, to, std::make_index_sequence<(static_cast<std::size_t>(N) + step - 1) / step>{});
}

/// to[k * width + r] = from[k * stride + r], r < count, k < depth; columns count..width of `to` become 0.
template <class Arch, class T>
[[gnu::noinline]] void pack_copied(const T* from, Index stride, Index count, Index depth, T* to, Index width) noexcept {
  for (Index k = 0; k < depth; ++k) copy_padded(from + k * stride, count, to + k * width, width);
}

/// A full panel: whole vectors, no tail.
template <class Arch, class T>
[[gnu::noinline]] void pack_full_panel(const T* from, Index stride, Index depth, T* to) noexcept {
  using Tile = RegisterTile<T, Arch>;
  using V = simd::Vec<T, Arch>;
  for (Index k = 0; k < depth; ++k, from += stride, to += Tile::cols) {
    V row[Tile::vectors];
    load_row(row, from, std::make_index_sequence<Tile::vectors>{});
    for (Index j = 0; j < Tile::vectors; ++j) row[j].store_aligned(to + j * Tile::lanes);
  }
}

/// Columns [0, count) and rows [0, depth) of b into a panel [depth][width] at `to`, 64-byte aligned.
template <class Arch, class T>
void pack_panel(const MatrixRef<T>& b, Index count, Index depth, T* to, Index width) noexcept {
  if (b.col_stride != 1) {
    pack_transposed<Arch>(b.data, b.col_stride, count, depth, to, width);
  } else if (count == RegisterTile<T, Arch>::cols) {
    pack_full_panel<Arch>(b.data, b.row_stride, depth, to);
  } else {
    pack_copied<Arch>(b.data, b.row_stride, count, depth, to, width);
  }
}

/// The width of the panel that begins where `left` columns are left: one vector if that is enough, else a whole tile.
template <class T, class Arch>
constexpr Index panel_width(Index left) noexcept {
  using Tile = RegisterTile<T, Arch>;
  return left <= Tile::lanes ? Tile::lanes : Tile::cols;
}

}  // namespace detail

/// A [K, N] matrix packed once for many products: panels of RegisterTile::cols columns, each [K][width], one after the
/// other; the last one as narrow as its columns allow, padded with zeros. Copies share the panels, which never change
/// once packed. The layout belongs to the architecture that packed it.
template <class T, class Arch = simd::DefaultArch>
class PackedMatrix {
 public:
  PackedMatrix() noexcept = default;

  /// Packs b [depth, cols]. For weights W [out, in] and y = x W^T: b = {W, 1, in}, depth = in, cols = out.
  PackedMatrix(const MatrixRef<T>& b, Index depth, Index cols)
      : storage_(size_of(depth, cols) * sizeof(T)), depth_(depth), cols_(cols) {
    constexpr Index width = RegisterTile<T, Arch>::cols;
    T* const panels = static_cast<T*>(storage_.data());
    if (depth == 0) return;
    for (Index j = 0; j < cols; j += width) {
      const Index left = cols - j;
      detail::pack_panel<Arch>(b.block(0, j), std::min(left, width), depth, panels + j * depth,
                               detail::panel_width<T, Arch>(left));
    }
  }

  bool empty() const noexcept { return depth_ == 0 || cols_ == 0; }
  Index depth() const noexcept { return depth_; }
  Index cols() const noexcept { return cols_; }
  Index size_bytes() const noexcept { return static_cast<Index>(size_of(depth_, cols_) * sizeof(T)); }
  /// The panel that holds column j, a multiple of RegisterTile::cols.
  const T* panel(Index j) const noexcept { return static_cast<const T*>(storage_.data()) + j * depth_; }

 private:
  static std::size_t size_of(Index depth, Index cols) noexcept {
    constexpr Index lanes = RegisterTile<T, Arch>::lanes;
    return static_cast<std::size_t>((cols + lanes - 1) / lanes * lanes * depth);
  }

  Storage storage_;
  Index depth_ = 0, cols_ = 0;
};

/// The panels of b [depth, cols].
template <class T, class Arch = simd::DefaultArch>
PackedMatrix<T, Arch> pack_b(const MatrixRef<T>& b, Index depth, Index cols) {
  return PackedMatrix<T, Arch>(b, depth, cols);
}

}  // namespace ordo::kernels
