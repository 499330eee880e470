#pragma once
/// \file
/// The register tile under every matrix product: M rows x NV vectors of accumulators that stay in registers, A read by
/// broadcast, B read by vectors from a panel. Matrix products and attention tiles are loops around it.
///
///     Vec acc[M][NV];                                  // M <= RegisterTile::rows, NV <= RegisterTile::vectors
///     tile_zero(acc);                                  // or tile_load(acc, from, row_stride)
///     tile_product(acc, k, BroadcastRows{a, lda}, b, b_stride);
///     tile_store(acc, c, ldc);

#include <cstddef>
#include <utility>

#include "ordo/core/extents.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::kernels {

/// The tile that fills the registers: `rows` x `vectors` accumulators, and `cols` = vectors * lanes columns.
/// 32 registers: 14 x 2 and room for two vectors of B and one broadcast. 16 registers: 6 x 2 where a multiply-add is one
/// instruction, 4 x 2 where the product needs a register of its own.
template <class T, class Arch = simd::DefaultArch>
struct RegisterTile {
  static constexpr Index lanes = simd::lanes<T, Arch>;
  static constexpr Index vector_bytes = lanes * static_cast<Index>(sizeof(T));
#if defined(__aarch64__)
  static constexpr Index registers = 32;
#else
  static constexpr Index registers = vector_bytes == 64 ? 32 : 16;
#endif
  static constexpr Index vectors = 2;
  static constexpr Index rows = registers == 32 ? 14 : (simd::has_fma<Arch> ? 6 : 4);
  static constexpr Index cols = vectors * lanes;
};

/// How a tile reads A: element (i, k) is `data[i * stride + k]`, the rows of a row-major matrix.
template <class T>
struct BroadcastRows {
  const T* data;
  Index stride;
};
template <class T>
BroadcastRows(const T*, Index) -> BroadcastRows<T>;

/// How a tile reads A: element (i, k) is `data[i + k * stride]`, packed row panels and transposed matrices.
template <class T>
struct BroadcastColumns {
  const T* data;
  Index stride;
};
template <class T>
BroadcastColumns(const T*, Index) -> BroadcastColumns<T>;

/// How a tile reads A: element (i, k) is `data[i * row_stride + k * col_stride]`. Serves both of the above from one
/// function, at the price of a few additions a step.
template <class T>
struct BroadcastStrided {
  const T* data;
  Index row_stride, col_stride;
};
template <class T>
BroadcastStrided(const T*, Index, Index) -> BroadcastStrided<T>;

namespace detail {

// Everything below is unrolled while it is parsed (folds over index sequences): no pass of the optimiser has to find out
// that the accumulators can live in registers.

template <class V, std::size_t M, std::size_t NV, class T, std::size_t... I>
[[gnu::always_inline]] inline void load_all(V (&acc)[M][NV], const T* from, Index stride,
                                            std::index_sequence<I...>) noexcept {
  constexpr Index lanes = static_cast<Index>(V::size);
  ((acc[I / NV][I % NV] =
        V::load_unaligned(from + static_cast<Index>(I / NV) * stride + static_cast<Index>(I % NV) * lanes)),
   ...);
}

template <class V, std::size_t M, std::size_t NV, class T, std::size_t... I>
[[gnu::always_inline]] inline void store_all(const V (&acc)[M][NV], T* to, Index stride,
                                             std::index_sequence<I...>) noexcept {
  constexpr Index lanes = static_cast<Index>(V::size);
  (acc[I / NV][I % NV].store_unaligned(to + static_cast<Index>(I / NV) * stride + static_cast<Index>(I % NV) * lanes),
   ...);
}

template <class V, std::size_t M, std::size_t NV, class T, std::size_t... I>
[[gnu::always_inline]] inline void add_all(V (&acc)[M][NV], const T* from, Index stride,
                                           std::index_sequence<I...>) noexcept {
  constexpr Index lanes = static_cast<Index>(V::size);
  ((acc[I / NV][I % NV] = acc[I / NV][I % NV] + V::load_unaligned(from + static_cast<Index>(I / NV) * stride +
                                                                  static_cast<Index>(I % NV) * lanes)),
   ...);
}

template <class V, std::size_t M, std::size_t NV, std::size_t... I>
[[gnu::always_inline]] inline void fill_all(V (&acc)[M][NV], V value, std::index_sequence<I...>) noexcept {
  ((acc[I / NV][I % NV] = value), ...);
}

// One row of the tile: NV multiply-adds with the same broadcast element.
template <class V, std::size_t NV, class T, std::size_t... J>
[[gnu::always_inline]] inline void row_step(V (&acc)[NV], T a, const V (&b)[NV], std::index_sequence<J...>) noexcept {
  const V broadcast(a);
  ((acc[J] = fma(broadcast, b[J], acc[J])), ...);
}

template <class V, std::size_t NV, class T, std::size_t... J>
[[gnu::always_inline]] inline void load_row(V (&b)[NV], const T* from, std::index_sequence<J...>) noexcept {
  ((b[J] = V::load_unaligned(from + J * V::size)), ...);
}

template <class V, std::size_t M, std::size_t NV, class T, std::size_t... I>
[[gnu::always_inline]] inline void tile_step(V (&acc)[M][NV], const BroadcastColumns<T>& a, const T* b,
                                             std::index_sequence<I...>) noexcept {
  constexpr auto columns = std::make_index_sequence<NV>{};
  V row[NV];
  load_row(row, b, columns);
  (row_step(acc[I], a.data[I], row, columns), ...);
}

// Three rows to a pointer, so that 14 rows need five registers for addresses and not fourteen.
template <class V, std::size_t M, std::size_t NV, class T, std::size_t P, std::size_t... I>
[[gnu::always_inline]] inline void tile_step(V (&acc)[M][NV], const T* const (&a)[P], Index stride, Index k, const T* b,
                                             std::index_sequence<I...>) noexcept {
  constexpr auto columns = std::make_index_sequence<NV>{};
  V row[NV];
  load_row(row, b, columns);
  (row_step(acc[I], a[I / 3][static_cast<Index>(I % 3) * stride + k], row, columns), ...);
}

template <class T, std::size_t P, std::size_t... I>
[[gnu::always_inline]] inline void row_pointers(const T* (&p)[P], const T* data, Index stride,
                                                std::index_sequence<I...>) noexcept {
  ((p[I] = data + static_cast<Index>(3 * I) * stride), ...);
}

template <class T, std::size_t P, std::size_t... I>
[[gnu::always_inline]] inline void advance(const T* (&p)[P], Index step, std::index_sequence<I...>) noexcept {
  ((p[I] += step), ...);
}

}  // namespace detail

/// acc = 0
template <class V, std::size_t M, std::size_t NV>
[[gnu::always_inline]] inline void tile_zero(V (&acc)[M][NV]) noexcept {
  detail::fill_all(acc, V(typename V::value_type(0)), std::make_index_sequence<M * NV>{});
}

/// acc[i] = from[i * stride ...]; a stride of 0 loads the same row (a bias) into all.
template <class V, std::size_t M, std::size_t NV, class T>
[[gnu::always_inline]] inline void tile_load(V (&acc)[M][NV], const T* from, Index stride) noexcept {
  detail::load_all(acc, from, stride, std::make_index_sequence<M * NV>{});
}

/// acc[i] += from[i * stride ...]; a stride of 0 adds the same row (a bias) to all.
template <class V, std::size_t M, std::size_t NV, class T>
[[gnu::always_inline]] inline void tile_add(V (&acc)[M][NV], const T* from, Index stride) noexcept {
  detail::add_all(acc, from, stride, std::make_index_sequence<M * NV>{});
}

/// to[i * stride ...] = acc[i]
template <class V, std::size_t M, std::size_t NV, class T>
[[gnu::always_inline]] inline void tile_store(const V (&acc)[M][NV], T* to, Index stride) noexcept {
  detail::store_all(acc, to, stride, std::make_index_sequence<M * NV>{});
}

/// acc[i][j] += sum over k < depth of a(i, k) * b[k * b_stride + j * lanes ...], in the order of k for every element.
/// b_stride is the row stride of B in place, or NV * lanes for a packed panel. Reads M x depth of A and depth x NV vectors
/// of B, nothing beyond.
template <class V, std::size_t M, std::size_t NV, class T>
[[gnu::always_inline]] inline void tile_product(V (&acc)[M][NV], Index depth, BroadcastColumns<T> a, const T* b,
                                                Index b_stride) noexcept {
  constexpr auto rows = std::make_index_sequence<M>{};
  Index k = depth;
  for (; k >= 2; k -= 2) {
    detail::tile_step(acc, a, b, rows);
    detail::tile_step(acc, BroadcastColumns<T>{a.data + a.stride, 0}, b + b_stride, rows);
    a.data += 2 * a.stride;
    b += 2 * b_stride;
  }
  if (k > 0) detail::tile_step(acc, a, b, rows);
}

template <class V, std::size_t M, std::size_t NV, class T>
[[gnu::always_inline]] inline void tile_product(V (&acc)[M][NV], Index depth, BroadcastRows<T> a, const T* b,
                                                Index b_stride) noexcept {
  constexpr auto rows = std::make_index_sequence<M>{};
  constexpr std::size_t pointers = (M + 2) / 3;
  constexpr auto groups = std::make_index_sequence<pointers>{};
  const T* p[pointers];
  detail::row_pointers(p, a.data, a.stride, groups);
  Index k = depth;
  for (; k >= 2; k -= 2) {
    detail::tile_step(acc, p, a.stride, 0, b, rows);
    detail::tile_step(acc, p, a.stride, 1, b + b_stride, rows);
    detail::advance(p, 2, groups);
    b += 2 * b_stride;
  }
  if (k > 0) detail::tile_step(acc, p, a.stride, 0, b, rows);
}

template <class V, std::size_t M, std::size_t NV, class T>
[[gnu::always_inline]] inline void tile_product(V (&acc)[M][NV], Index depth, BroadcastStrided<T> a, const T* b,
                                                Index b_stride) noexcept {
  constexpr auto rows = std::make_index_sequence<M>{};
  constexpr std::size_t pointers = (M + 2) / 3;
  constexpr auto groups = std::make_index_sequence<pointers>{};
  const T* p[pointers];
  detail::row_pointers(p, a.data, a.row_stride, groups);
  for (Index k = 0; k < depth; ++k, b += b_stride) {
    detail::tile_step(acc, p, a.row_stride, 0, b, rows);
    detail::advance(p, a.col_stride, groups);
  }
}

}  // namespace ordo::kernels
