#pragma once
/// \file
/// Products with a few rows: decoding, steps, small batches. They read every weight once, so the weights are taken as they
/// lie in memory: by dot products where the depth is contiguous (y = x W^T), by scaled rows where the columns are
/// (dx = dy W), by several panels at once where they are packed.

#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "ordo/kernels/gemm_micro.hpp"
#include "ordo/kernels/gemm_pack.hpp"

namespace ordo::kernels::detail {

// ---- dot products ---------------------------------------------------------------------------------------------------

/// Rows of w that all rows of x take before the next ones are touched, rows of x in all, and rows of x in a tile.
inline constexpr Index dot_block = 16, dot_max_rows = 16, dot_tile_rows = 3;

/// How many rows of w are in flight beside m rows of x: m * width accumulators, m + 1 vectors of operands.
template <class T, class Arch>
constexpr std::size_t dot_width(std::size_t m) {
  constexpr std::array<std::size_t, 3> of_32{8, 8, 8}, of_16{8, 4, 4};
  return RegisterTile<T, Arch>::registers == 32 ? of_32[m - 1] : of_16[m - 1];
}

template <class T, class Arch>
struct DotTile {
  using V = simd::Vec<T, Arch>;
  /// sums[i * dot_block + j] = the products of x[i] and w[j], not yet summed over the lanes.
  using Function = void (*)(Index depth, const T* x, Index x_stride, const T* w, Index w_stride, V* sums);
  struct Entry {
    Index width;
    Function wide, single;
  };

  template <std::size_t M>
  static constexpr Entry entry() {
    constexpr std::size_t width = dot_width<T, Arch>(M);
    return {static_cast<Index>(width), &run<M, width>, &run<M, 1>};
  }

 private:
  template <std::size_t M, std::size_t N>
  static void run(Index depth, const T* x, Index x_stride, const T* w, Index w_stride, V* sums) noexcept {
    constexpr auto rows = std::make_index_sequence<M>{};
    constexpr auto columns = std::make_index_sequence<N>{};
    V acc[N][M];
    tile_zero(acc);
    constexpr Index lanes = simd::lanes<T, Arch>;
    Index k = 0;
    for (; k + lanes <= depth; k += lanes) {
      step(acc, [k](const T* p) __attribute__((always_inline)) { return simd::load<Arch>(p + k); }, x, x_stride, w,
           w_stride, rows, columns);
    }
    if (k < depth) {
      step(acc, [k, depth](const T* p) __attribute__((always_inline)) {
        return simd::load_partial<Arch>(p + k, depth - k);
      }, x, x_stride, w, w_stride, rows, columns);
    }
    store(acc, sums, std::make_index_sequence<M * N>{});
  }

  template <std::size_t M, std::size_t N, std::size_t... I>
  [[gnu::always_inline]] static void store(const V (&acc)[N][M], V* sums, std::index_sequence<I...>) noexcept {
    ((sums[static_cast<Index>(I % M) * dot_block + static_cast<Index>(I / M)] = acc[I / M][I % M]), ...);
  }
  template <std::size_t M, std::size_t N, class Load, std::size_t... I, std::size_t... J>
  [[gnu::always_inline]] static void step(V (&acc)[N][M], Load load, const T* x, Index x_stride, const T* w,
                                          Index w_stride, std::index_sequence<I...> rows,
                                          std::index_sequence<J...>) noexcept {
    const V factors[M] = {load(x + static_cast<Index>(I) * x_stride)...};
    (row(acc[J], load(w + static_cast<Index>(J) * w_stride), factors, rows), ...);
  }
  template <std::size_t M, std::size_t... I>
  [[gnu::always_inline]] static void row(V (&acc)[M], V w, const V (&x)[M], std::index_sequence<I...>) noexcept {
    ((acc[I] = simd::fma(x[I], w, acc[I])), ...);
  }
};

/// Partial sums of a and b by turns. Whether zips cross 128-bit lanes depends on xsimd's version; whose sum a lane holds,
/// counted modulo four (two), does not. (xsimd 8.1's own haddp gives a wrong order for AVX-512 floats.)
template <class V>
[[gnu::always_inline]] inline V interleaved_sum(const V& a, const V& b) noexcept {
  return zip_lo(a, b) + zip_hi(a, b);
}

/// The sums over the lanes of NarrowVec::size vectors, side by side.
template <class T, class Arch>
[[gnu::always_inline]] inline NarrowVec<T> sums_of_lanes(const simd::Vec<T, Arch>* v) noexcept {
  using V = simd::Vec<T, Arch>;
  using N = NarrowVec<T>;
  constexpr Index narrow = static_cast<Index>(N::size);
  V mixed;
  if constexpr (narrow == 4) {
    mixed = interleaved_sum(interleaved_sum(v[0], v[2]), interleaved_sum(v[1], v[3]));
  } else {
    mixed = interleaved_sum(v[0], v[1]);
  }
  alignas(memory_alignment) T lanes[V::size];
  mixed.store_aligned(lanes);
  N sum = N::load_aligned(lanes);
  for (Index l = narrow; l < static_cast<Index>(V::size); l += narrow) sum = sum + N::load_aligned(lanes + l);
  return sum;
}

/// c[i * c_row + j * c_col] (+)= x[i] . w[j] for m <= dot_max_rows rows of x and n rows of w. w is read once, in order.
template <class T, class Arch>
[[gnu::noinline]] void dot_rows(Index m, Index n, Index depth, const T* x, Index x_stride, const T* w, Index w_stride, T* c, Index c_row,
              Index c_col, bool accumulate) noexcept {
  using V = simd::Vec<T, Arch>;
  using Entry = typename DotTile<T, Arch>::Entry;
  static constexpr Entry table[dot_tile_rows] = {
      DotTile<T, Arch>::template entry<1>(), DotTile<T, Arch>::template entry<2>(),
      DotTile<T, Arch>::template entry<3>()};
  constexpr Index narrow = static_cast<Index>(NarrowVec<T>::size);
  static_assert(dot_block % narrow == 0);
  const Index groups = (m + dot_tile_rows - 1) / dot_tile_rows;
  const Index rows = (m + groups - 1) / groups;  // 5 rows as 3 + 2, not 4 + 1
  V sums[dot_max_rows * dot_block];
  for (Index block = 0; block < n; block += dot_block) {
    const Index count = std::min(dot_block, n - block);
    for (Index first = 0; first < count; first += 8) {
      const Index end = std::min(first + 8, count);
      for (Index i = 0; i < m; i += rows) {
        const Entry& entry = table[std::min(rows, m - i) - 1];
        for (Index j = first; j < end;) {
          const bool wide = j + entry.width <= end;
          (wide ? entry.wide : entry.single)(depth, x + i * x_stride, x_stride, w + (block + j) * w_stride, w_stride,
                                             sums + i * dot_block + j);
          j += wide ? entry.width : 1;
        }
      }
    }
    for (Index i = 0; i < m; ++i) {
      T* const to = c + i * c_row + block * c_col;
      for (Index j = count; j < dot_block; ++j) sums[i * dot_block + j] = V(T(0));
      for (Index j = 0; j < count; j += narrow) {
        const NarrowVec<T> sum = sums_of_lanes<T, Arch>(sums + i * dot_block + j);
        if (c_col == 1 && j + narrow <= count) {
          simd::store(to + j, accumulate ? sum + NarrowVec<T>::load_unaligned(to + j) : sum);
        } else {
          alignas(memory_alignment) T values[NarrowVec<T>::size];
          sum.store_aligned(values);
          for (Index l = 0; l < std::min(narrow, count - j); ++l) {
            T& value = to[(j + l) * c_col];
            value = accumulate ? values[l] + value : values[l];
          }
        }
      }
    }
  }
}

// ---- scaled rows ----------------------------------------------------------------------------------------------------

template <class T, class Arch>
struct ScaledRows {
  using V = simd::Vec<T, Arch>;

  /// c[i, j] += sum over r < R of x[i * x_stride + r] * w[r * w_stride + j], in the order of r.
  template <std::size_t... I, std::size_t... R>
  [[gnu::noinline]] static void run(Index n, const T* x, Index x_stride, const T* w, Index w_stride, T* c, Index c_stride,
                  std::index_sequence<I...> rows, std::index_sequence<R...> depth) noexcept {
    V x_of[sizeof...(I)][sizeof...(R)];
    (broadcast(x_of[I], x + static_cast<Index>(I) * x_stride, depth), ...);
    simd::for_lanes<T, Arch>(n, [&](Index j, auto count) __attribute__((always_inline)) {
      constexpr bool tail = std::is_same_v<decltype(count), Index>;
      const auto load = [&](const T* p) __attribute__((always_inline)) {
        if constexpr (tail) {
          return simd::load_partial<Arch>(p + j, count);
        } else {
          return simd::load<Arch>(p + j);
        }
      };
      V acc[sizeof...(I)] = {load(c + static_cast<Index>(I) * c_stride)...};
      (add(acc, x_of, load(w + static_cast<Index>(R) * w_stride), std::integral_constant<std::size_t, R>{}, rows), ...);
      for (std::size_t i = 0; i < sizeof...(I); ++i) {
        if constexpr (tail) {
          simd::store_partial(c + static_cast<Index>(i) * c_stride + j, acc[i], count);
        } else {
          simd::store(c + static_cast<Index>(i) * c_stride + j, acc[i]);
        }
      }
    });
  }

 private:
  template <std::size_t N, std::size_t... R>
  [[gnu::always_inline]] static void broadcast(V (&to)[N], const T* x, std::index_sequence<R...>) noexcept {
    ((to[R] = V(x[R])), ...);
  }
  template <std::size_t M, std::size_t N, std::size_t R, std::size_t... I>
  [[gnu::always_inline]] static void add(V (&acc)[M], const V (&x)[M][N], V w, std::integral_constant<std::size_t, R>,
                                         std::index_sequence<I...>) noexcept {
    ((acc[I] = simd::fma(x[I][R], w, acc[I])), ...);
  }
};

/// c[i, ...] += sum_k x[i * x_stride + k] * w[k * w_stride ...] for m rows of x and n columns of w. w is read once, in
/// order, several rows at a time; c and what the next rows of x read again stay in a near cache meanwhile.
template <class T, class Arch>
[[gnu::noinline]] void scaled_rows(Index m, Index n, Index depth, const T* x, Index x_stride, const T* w, Index w_stride, T* c,
                 Index c_stride) noexcept {
  constexpr std::size_t block = RegisterTile<T, Arch>::registers == 32 ? 8 : 4;  // for pairs; single rows take 8
  constexpr auto one = std::make_index_sequence<1>{};
  constexpr auto two = std::make_index_sequence<2>{};
  using Scaled = ScaledRows<T, Arch>;
  const Index chunk = (m == 1 ? 4096 : 2048) * 4 / static_cast<Index>(sizeof(T));
  for (Index j = 0; j < n; j += chunk) {
    const Index count = std::min(chunk, n - j);
    const Index step = m == 1 ? 8 : static_cast<Index>(block);
    Index k = 0;
    for (; k + step <= depth; k += step) {
      Index i = 0;
      for (; i + 2 <= m; i += 2) {
        Scaled::run(count, x + i * x_stride + k, x_stride, w + k * w_stride + j, w_stride, c + i * c_stride + j, c_stride,
                    two, std::make_index_sequence<block>{});
      }
      for (Index kk = k; i < m && kk < k + step; kk += m == 1 ? 8 : step) {
        if (m == 1) {
          Scaled::run(count, x + kk, 0, w + kk * w_stride + j, w_stride, c + j, 0, one, std::make_index_sequence<8>{});
        } else {
          Scaled::run(count, x + i * x_stride + kk, 0, w + kk * w_stride + j, w_stride, c + i * c_stride + j, 0, one,
                      std::make_index_sequence<block>{});
        }
      }
    }
    for (; k < depth; ++k) {
      for (Index i = 0; i < m; ++i) {
        Scaled::run(count, x + i * x_stride + k, 0, w + k * w_stride + j, w_stride, c + i * c_stride + j, 0, one, one);
      }
    }
  }
}

// ---- several panels -------------------------------------------------------------------------------------------------

/// How many panels m rows take at once: two accumulators are too few to hide the latency of a multiply-add, and more
/// streams keep more of the memory's bandwidth busy.
template <class T, class Arch>
constexpr std::size_t panels_at_once(std::size_t m) {
  using Tile = RegisterTile<T, Arch>;
  const auto fit = static_cast<std::size_t>(Tile::registers - 1) / (static_cast<std::size_t>(Tile::vectors) * (m + 1));
  return std::clamp<std::size_t>(fit, 1, 4);
}

template <class T, class Arch>
struct PanelRows {
  using V = simd::Vec<T, Arch>;
  using Tile = RegisterTile<T, Arch>;
  /// c[i, ...] (+)= sum_k x[i * x_stride + k] * b[k * b_stride ...] for some rows and some whole panels, `panel` apart.
  using Function = void (*)(Index depth, const T* x, Index x_stride, const T* b, Index b_stride, Index panel, T* c,
                            Index c_stride, bool accumulate);
  struct Entry {
    Index panels;
    Function run;  ///< none where one panel is all that fits: that is a tile's function
  };

  static Entry get(Index rows) noexcept { return table[static_cast<std::size_t>(rows - 1)]; }

 private:
  template <std::size_t M, std::size_t P>
  static void run(Index depth, const T* x, Index x_stride, const T* b, Index b_stride, Index panel, T* c, Index c_stride,
                  bool accumulate) noexcept {
    constexpr std::size_t columns = P * static_cast<std::size_t>(Tile::vectors);
    V acc[M][columns];
    tile_zero(acc);
    for (Index k = 0; k < depth; ++k, b += b_stride) {
      step(acc, x + k, x_stride, b, panel, std::make_index_sequence<M>{}, std::make_index_sequence<columns>{});
    }
    if (accumulate) tile_add(acc, c, c_stride);
    tile_store(acc, c, c_stride);
  }
  template <std::size_t M>
  static constexpr Entry entry() {
    constexpr std::size_t panels = panels_at_once<T, Arch>(M);
    if constexpr (panels > 1) {
      return {static_cast<Index>(panels), &run<M, panels>};
    } else {
      return {1, nullptr};
    }
  }
  template <std::size_t M, std::size_t N, std::size_t... I, std::size_t... J>
  [[gnu::always_inline]] static void step(V (&acc)[M][N], const T* x, Index x_stride, const T* b, Index panel,
                                          std::index_sequence<I...>, std::index_sequence<J...> columns) noexcept {
    constexpr std::size_t vectors = static_cast<std::size_t>(Tile::vectors);
    const V row[N] = {simd::load<Arch>(b + static_cast<Index>(J / vectors) * panel +
                                       static_cast<Index>(J % vectors) * Tile::lanes)...};
    (row_step(acc[I], x[static_cast<Index>(I) * x_stride], row, columns), ...);
  }

  static constexpr std::array<Entry, 8> table{entry<1>(), entry<2>(), entry<3>(), entry<4>(),
                                              entry<5>(), entry<6>(), entry<7>(), entry<8>()};
};

}  // namespace ordo::kernels::detail
