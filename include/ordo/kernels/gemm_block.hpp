#pragma once
/// \file
/// A block of a matrix product by one thread: everything between the choice of threads (gemm.hpp) and the register tile
/// (gemm_micro.hpp).

#include <algorithm>
#include <array>
#include <utility>

#include "ordo/core/memory.hpp"
#include "ordo/kernels/gemm_epilogue.hpp"
#include "ordo/kernels/gemm_pack.hpp"

namespace ordo::kernels {

/// One product, C = activation(A B + C (if accumulate) + bias) + residual. Zero extents are fine: with k = 0 the product
/// is zero and the rest still applies.
template <class T, class Arch = simd::DefaultArch>
struct GemmArgs {
  Index m = 0, n = 0, k = 0;
  MatrixRef<T> a;                                 ///< [m, k]
  MatrixRef<T> b;                                 ///< [k, n], not read where `packed` is given
  const PackedMatrix<T, Arch>* packed = nullptr;  ///< b as panels
  T* c = nullptr;                                 ///< [m, n], overlaps no input
  Index c_stride = 0;
  bool accumulate = false;  ///< adds to what C holds; otherwise C is not read
  Epilogue<T> epilogue;
};

namespace detail {

/// [0, n) cut into the fewest pieces of at most `limit`, as equal as can be.
struct EvenSplit {
  EvenSplit(Index n, Index limit) noexcept
      : pieces((n + limit - 1) / limit), size(pieces == 0 ? 0 : n / pieces), longer(pieces == 0 ? 0 : n % pieces) {}
  Index begin(Index piece) const noexcept { return piece * size + std::min(piece, longer); }
  Index longest() const noexcept { return size + (longer > 0 ? 1 : 0); }
  Index pieces, size, longer;
};

/// The rows of a block cut into tiles: full ones, then what is left. Low tiles leave the multipliers waiting (four rows of AVX2 run at
/// 61% of the peak where six run at 96%: Zen 4), so a low rest shares the rows of some full tiles before it: with 16 registers tiles of
/// one row less than the full one, with 32 tiles of up to eight, which are the next that are compiled.
template <class T, class Arch>
struct RowTiles {
  static constexpr Index full = RegisterTile<T, Arch>::rows;
  explicit RowTiles(Index rows) noexcept
      : head_(rows / full - shared(rows)), tail_(rows - head_ * full, limit(rows)), count(head_ + tail_.pieces) {}
  Index begin(Index tile) const noexcept { return tile <= head_ ? tile * full : head_ * full + tail_.begin(tile - head_); }

 private:
  /// How many full tiles give rows to the rest.
  static constexpr Index shared(Index rows) noexcept {
    const Index tiles = rows / full, rest = rows % full;
    if (rest == 0) return 0;
    if (RegisterTile<T, Arch>::registers == 32) {
      const Index wanted = rest <= 2 ? 1 : rest <= 4 ? 2 : 0;
      return wanted <= tiles ? wanted : 0;
    }
    return std::min(tiles, full - 1 - rest);
  }
  static constexpr Index limit(Index rows) noexcept {
    return shared(rows) == 0 ? full : RegisterTile<T, Arch>::registers == 32 ? 8 : full - 1;
  }
  Index head_;
  EvenSplit tail_;

 public:
  Index count;
};

/// The register tile as functions for the heights that are compiled: all up to eight, and the full one. A tile between
/// is two of half its height, which lose little and spare a third of the time to compile them all.
template <class T, class Arch>
struct TileFunctions {
  using Tile = RegisterTile<T, Arch>;
  using V = simd::Vec<T, Arch>;
  /// c[i, j] = from[i, j] + sum_k a(i, k) b[k, j]; a `from_stride` of 0 adds the same row to all.
  using Function = void (*)(Index depth, BroadcastStrided<T> a, const T* b, Index b_stride, const T* from,
                            Index from_stride, T* c, Index c_stride);
  static_assert(Tile::vectors == 2 && Tile::rows <= 16);
  static constexpr Index low = std::min<Index>(Tile::rows, 8);

  static constexpr bool has(Index rows, Index vectors) noexcept {
    return rows <= low || (rows == Tile::rows && vectors == Tile::vectors);
  }
  static Function get(Index rows, Index vectors) noexcept {
    if (rows > low) return &run<static_cast<std::size_t>(Tile::rows), 2>;
    const auto i = static_cast<std::size_t>(rows - 1);
    return vectors == Tile::vectors ? wide[i] : narrow[i];
  }

 private:
  template <std::size_t M, std::size_t NV>
  static void run(Index depth, BroadcastStrided<T> a, const T* b, Index b_stride, const T* from, Index from_stride, T* c,
                  Index c_stride) noexcept {
    // C comes from far away while the product runs, and is added when it is here.
    for (std::size_t i = 0; i < M; ++i) {
      for (std::size_t j = 0; j < NV; ++j) __builtin_prefetch(c + static_cast<Index>(i) * c_stride + j * V::size, 1);
    }
    V acc[M][NV];
    tile_zero(acc);
    tile_product(acc, depth, a, b, b_stride);
    tile_add(acc, from, from_stride);
    tile_store(acc, c, c_stride);
  }

  template <std::size_t NV, std::size_t... M>
  static constexpr std::array<Function, sizeof...(M)> heights(std::index_sequence<M...>) {
    return {&run<M + 1, NV>...};
  }
  static constexpr auto wide = heights<2>(std::make_index_sequence<static_cast<std::size_t>(low)>{});
  static constexpr auto narrow = heights<1>(std::make_index_sequence<static_cast<std::size_t>(low)>{});
};

template <class T, class Arch>
class GemmBlock {
  using Tile = RegisterTile<T, Arch>;
  static constexpr Index element = static_cast<Index>(sizeof(T));
  static constexpr Index panel_bytes = 48 * 1024;   // of B, read again from L1 or L2 for each tile of A
  static constexpr Index block_bytes = 768 * 1024;  // of A, streamed from L2 (or L3) for each panel of B
  static constexpr Index stack_bytes = 16 * 1024;   // panels up to here need no scratch
  // The one number here that the results depend on.
  static constexpr Index max_depth = panel_bytes / (Tile::cols * element);

 public:
  /// Rows [row, row_end) and columns [col, col_end) of the product; col is a multiple of Tile::cols, and so is col_end
  /// unless it is n.
  static void run(const GemmArgs<T, Arch>& args, Index row, Index row_end, Index col, Index col_end) {
    const Index depth = EvenSplit(args.k, max_depth).longest();
    // B in place saves its packing (on Zen 4 4% of the time for 128 rows), though a panel is then spread over many pages
    // and, with some strides, over few sets of a cache. Narrow tiles ask for its lines twice as often.
    const Index enough_rows = Tile::registers != 32 ? 96 : (args.b.row_stride * element % 4096 == 0 ? 128 : 256);
    const bool pack_b = args.packed == nullptr && (args.b.col_stride != 1 || row_end - row > enough_rows);
    // So does A in place, unless the lines that a tile reads share few sets of the L1 cache, or miss it for many panels.
    const bool aliased = args.a.col_stride == 1 ? args.a.row_stride * element % 2048 == 0
                                                : args.a.col_stride * element % (Tile::registers == 32 ? 4096 : 2048) == 0;
    const bool pack_a = col_end - col > (aliased ? 64 : 512);
    if (depth * Tile::cols * element <= stack_bytes) {
      alignas(memory_alignment) T panel[stack_bytes / element];
      run_rows(args, row, row_end, col, col_end, pack_a, pack_b, panel);
    } else {
      const Scratch<T> panel(depth * Tile::cols);
      run_rows(args, row, row_end, col, col_end, pack_a, pack_b, panel.data());
    }
  }

 private:
  static void run_rows(const GemmArgs<T, Arch>& args, Index row, Index row_end, Index col, Index col_end, bool pack_a,
                       bool pack_b, T* panel) {
    const Index depth = EvenSplit(args.k, max_depth).longest();
    const EvenSplit blocks(row_end - row, std::max(Tile::rows, block_bytes / (depth * element)));
    for (Index block = 0; block < blocks.pieces; ++block) {
      const Index begin = row + blocks.begin(block), end = row + blocks.begin(block + 1);
      if (pack_a) {
        const Scratch<T> rows((end - begin) * depth);
        run_block(args, begin, end, col, col_end, rows.data(), pack_b, panel);
      } else {
        run_block(args, begin, end, col, col_end, nullptr, pack_b, panel);
      }
    }
  }

  /// A panel of B, and which part of the product it brings.
  struct Step {
    bool first, last;
    Index depth, k, col, count, width;
    const T* b;
    Index b_stride;
  };

  [[gnu::noinline]] static void run_block(const GemmArgs<T, Arch>& args, Index row, Index row_end, Index col, Index col_end, T* packed_a,
                        bool pack_b, T* panel) {
    const RowTiles<T, Arch> tiles(row_end - row);
    const EvenSplit depths(args.k, max_depth);
    for (Index d = 0; d < depths.pieces; ++d) {
      const Index k = depths.begin(d), depth = depths.begin(d + 1) - k;
      if (packed_a != nullptr) pack_rows(args.a.block(row, k), tiles, depth, packed_a);
      for (Index j = col; j < col_end; j += Tile::cols) {
        const Index count = std::min(Tile::cols, col_end - j), width = panel_width<T, Arch>(col_end - j);
        const T* b = panel;
        Index b_stride = width;
        if (args.packed != nullptr) {
          b = args.packed->panel(j) + k * width;
        } else if (pack_b || count != width) {
          pack_panel<Arch>(args.b.block(k, j), count, depth, panel, width);
        } else {
          b = args.b.block(k, j).data;
          b_stride = args.b.row_stride;
        }
        const Step step{d == 0, d + 1 == depths.pieces, depth, k, j, count, width, b, b_stride};
        for (Index t = 0; t < tiles.count; ++t) {
          const Index i = row + tiles.begin(t), rows = row + tiles.begin(t + 1) - i;
          const BroadcastStrided<T> a = packed_a == nullptr
                                            ? BroadcastStrided<T>{args.a.block(i, k).data, args.a.row_stride, args.a.col_stride}
                                            : BroadcastStrided<T>{packed_a + tiles.begin(t) * depth, 1, rows};
          run_tile(args, step, i, rows, a);
        }
      }
    }
  }

  [[gnu::noinline]] static void run_tile(const GemmArgs<T, Arch>& args, const Step& step, Index row, Index rows,
                                         BroadcastStrided<T> a) {
    const Index vectors = step.width / Tile::lanes;
    if (!TileFunctions<T, Arch>::has(rows, vectors)) {
      const Index half = (rows + 1) / 2;
      run_tile(args, step, row, half, a);
      run_tile(args, step, row + half, rows - half, {a.data + half * a.row_stride, a.row_stride, a.col_stride});
      return;
    }
    const auto tile = TileFunctions<T, Arch>::get(rows, vectors);
    T* const c = args.c + row * args.c_stride + step.col;
    const bool adds_c = args.accumulate || !step.first;
    Epilogue<T> epilogue = step.last ? args.epilogue.block(row, step.col) : Epilogue<T>{};
    const T* const first_bias = args.accumulate || !step.first ? nullptr : args.epilogue.bias;
    if (!args.accumulate) epilogue.bias = nullptr;  // it is the first summand
    alignas(memory_alignment) static constexpr T zeros[Tile::cols] = {};

    if (step.count == step.width && epilogue.empty()) {
      const T* const from = adds_c ? c : (first_bias != nullptr ? first_bias + step.col : zeros);
      tile(step.depth, a, step.b, step.b_stride, from, adds_c ? args.c_stride : 0, c, args.c_stride);
      return;
    }
    // The last columns, of which C gets a part, or the last step, where more is to be done: a tile beside C.
    alignas(memory_alignment) T result[Tile::rows * Tile::cols];
    if (adds_c) {
      for (Index i = 0; i < rows; ++i) copy_padded(c + i * args.c_stride, step.count, result + i * step.width, step.width);
      tile(step.depth, a, step.b, step.b_stride, result, step.width, result, step.width);
    } else if (first_bias != nullptr) {
      alignas(memory_alignment) T bias[Tile::cols];
      copy_padded(first_bias + step.col, step.count, bias, step.width);
      tile(step.depth, a, step.b, step.b_stride, bias, 0, result, step.width);
    } else {
      tile(step.depth, a, step.b, step.b_stride, zeros, 0, result, step.width);
    }
    finish_tile<T, Arch>(result, step.width, c, args.c_stride, rows, step.count, epilogue);
  }

  /// Rows of A in panels as high as their tiles: [tile][k][row].
  [[gnu::noinline]] static void pack_rows(const MatrixRef<T>& a, const RowTiles<T, Arch>& tiles, Index depth, T* to) noexcept {
    if (a.col_stride == 1) {
      for (Index t = 0; t < tiles.count; ++t) {
        const Index i = tiles.begin(t), rows = tiles.begin(t + 1) - i;
        pack_transposed<Arch>(a.data + i * a.row_stride, a.row_stride, rows, depth, to + i * depth, rows);
      }
      return;
    }
    // Several tiles at once, some k at a time: what is read from one row of the transposed matrix should be longer than a
    // cache line or two, and what is written to one tile too.
    constexpr Index group = 512 / (Tile::rows * element), several = 16;
    constexpr Index line = static_cast<Index>(memory_alignment) / element;
    for (Index first = 0; first < tiles.count; first += group) {
      const Index last = std::min(first + group, tiles.count);
      const Index begin = tiles.begin(first), end = tiles.begin(last);
      for (Index k = 0; k < depth; k += several) {
        const Index k_end = std::min(k + several, depth);
        for (Index kk = k_end; kk < std::min(k_end + several, depth); ++kk) {
          for (Index i = begin; i < end; i += line) __builtin_prefetch(a.data + kk * a.col_stride + i);
        }
        for (Index t = first; t < last; ++t) {
          const Index i = tiles.begin(t), rows = tiles.begin(t + 1) - i;
          T* const tile = to + i * depth;
          const T* const from = a.data + i;
          if (rows == Tile::rows) {
            for (Index kk = k; kk < k_end; ++kk) copy_fixed<Tile::rows>(from + kk * a.col_stride, tile + kk * Tile::rows);
          } else {
            for (Index kk = k; kk < k_end; ++kk) copy_padded(from + kk * a.col_stride, rows, tile + kk * rows, rows);
          }
        }
      }
    }
  }
};

}  // namespace detail

}  // namespace ordo::kernels
