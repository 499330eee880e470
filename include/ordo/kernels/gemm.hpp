#pragma once
/// \file
/// Matrix products, one core near its multiply-add peak:
///
///     C[m, n] = activation(A[m, k] B[k, n] + C (if accumulate) + bias[n]) + residual[m, n]
///
/// A and B are taken as they lie, transposed or not, or B as panels packed once (PackedMatrix). The loops are those of
/// Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008): a panel of B near the core, a block
/// of A behind it, accumulators in registers. Products with a few rows or columns go other ways (gemm_rows.hpp).
///
/// Every element is summed in an order that depends on the shape, the strides and the architecture, never on threads.
///
///     kernels::GemmArgs<float> args{.m = rows, .n = out, .k = in};   // y = x W^T
///     args.a = {x, in, 1};
///     args.b = {w, 1, in};
///     args.c = y;
///     args.c_stride = out;
///     kernels::gemm(args);

#include <algorithm>
#include <array>
#include <utility>

#include "ordo/core/parallel.hpp"
#include "ordo/kernels/gemm_block.hpp"
#include "ordo/kernels/gemm_rows.hpp"

namespace ordo::kernels {

namespace detail {

/// The ways that a product can go.
enum class GemmWay : unsigned char {
  tiles,         ///< blocks of register tiles
  panels,        ///< a few rows against several panels at a time
  dots,          ///< a few rows against rows of the transposed B
  swapped_dots,  ///< a few columns of B against rows of A
  scaled_rows,   ///< a few rows, B beyond the caches: its rows in order
};

template <class T, class Arch>
class GemmDriver {
  using Tile = RegisterTile<T, Arch>;
  using Args = GemmArgs<T, Arch>;
  static constexpr Index element = static_cast<Index>(sizeof(T));
  static constexpr Index few = 8;
  static constexpr Index panel_rows = std::min(few, Tile::rows);

 public:
  static void run(Args args) {
    if (args.m <= 0 || args.n <= 0) return;
    if (args.k <= 0) return run_empty(args);
    settle_strides(args);
    const GemmWay way = choose(args);
    if (way == GemmWay::tiles) return run_tiles(args);
    const bool copy_a = args.a.col_stride != 1, copy_b = way == GemmWay::swapped_dots && args.b.col_stride == 1;
    if (!copy_a && !copy_b) return run_few(args, way);
    // A few rows (or columns) that do not lie along k: a copy that does.
    const Index rows = copy_a ? args.m : args.n;
    const MatrixRef<T> from = copy_a ? args.a.transposed() : args.b;
    const Scratch<T> copy(rows * args.k);
    pack_transposed<Arch>(from.data, from.row_stride, args.k, rows, copy.data(), args.k);
    (copy_a ? args.a : args.b) = copy_a ? MatrixRef<T>{copy.data(), args.k, 1} : MatrixRef<T>{copy.data(), 1, args.k};
    run_few(args, way);
  }

 private:
  /// The strides of single rows and columns mean nothing; they become what tells how the others lie.
  static void settle_strides(Args& args) noexcept {
    const auto settle = [](MatrixRef<T>& x, Index rows, Index cols) {
      if (rows == 1) x = x.col_stride == 1 ? MatrixRef<T>{x.data, cols, 1} : MatrixRef<T>{x.data, 1, x.col_stride};
      else if (cols == 1) x = x.row_stride == 1 ? MatrixRef<T>{x.data, 1, rows} : MatrixRef<T>{x.data, x.row_stride, 1};
    };
    settle(args.a, args.m, args.k);
    settle(args.b, args.k, args.n);
  }

  static GemmWay choose(const Args& args) noexcept {
    const Index m = args.m, n = args.n, k = args.k;
    if (args.packed != nullptr) return m <= panel_rows ? GemmWay::panels : GemmWay::tiles;
    const bool a_rows = args.a.col_stride == 1, b_rows = args.b.col_stride == 1;
    if (!b_rows && (m <= few || (m <= dot_max_rows && k >= 512))) return GemmWay::dots;
    if (a_rows && (n == 1 || (n <= few && n < m && k >= 64))) return GemmWay::swapped_dots;
    if (b_rows && m <= few) {
      // Rows of B in order where they come from memory; where they come from a cache, accumulators in registers.
      constexpr Index cache_bytes = 8 << 20;
      if (m == 1 || n * k * element > cache_bytes) return GemmWay::scaled_rows;
      if (m <= panel_rows) return GemmWay::panels;
    }
    return GemmWay::tiles;
  }

  static void run_empty(const Args& args) {
    for (Index i = 0; i < args.m && !args.accumulate; ++i) {
      std::fill(args.c + i * args.c_stride, args.c + i * args.c_stride + args.n, T(0));
    }
    finish_rows<T, Arch>(args.c, args.c_stride, args.m, args.n, args.epilogue);
  }

  static Index threads() noexcept { return ordo::detail::inside_parallel() ? 1 : num_threads(); }

  /// A piece of [0, n) for a thread, a multiple of `unit`, when all of it is `work` and less than `least` is not worth
  /// waking one.
  static Index grain(Index n, Index unit, Index work, Index least) noexcept {
    const Index t = threads();
    const Index pieces = t == 1 ? 1 : std::clamp<Index>(work / least, 1, 3 * t);
    return (n + pieces * unit - 1) / (pieces * unit) * unit;
  }

  static void run_tiles(const Args& args) {
    constexpr Index least = Index{1} << 21;
    const Index work = args.m * args.n * args.k;
    const Index rows = grain(args.m, Tile::rows, work, least), cols = grain(args.n, Tile::cols, work, least);
    // Each piece packs what it needs: pieces of rows repeat the packing of B, pieces of columns that of A.
    if (rows >= 4 * Tile::rows && (args.packed != nullptr || args.m >= args.n)) {
      parallel_for(args.m, rows, [&](Index begin, Index end) { GemmBlock<T, Arch>::run(args, begin, end, 0, args.n); });
    } else {
      parallel_for(args.n, cols, [&](Index begin, Index end) { GemmBlock<T, Arch>::run(args, 0, args.m, begin, end); });
    }
  }

  /// A's rows lie along k; B's columns as the way needs them.
  static void run_few(const Args& args, GemmWay way) {
    constexpr Index least = Index{1} << 19, unit = 64;
    static_assert(unit % dot_block == 0 && unit % Tile::cols == 0);
    const bool swapped = way == GemmWay::swapped_dots;
    const Index length = swapped ? args.m : args.n;
    const Index work = std::max(length * args.k * element, length * args.k * std::min(args.m, args.n) / 4);
    parallel_for(length, grain(length, unit, work, least), [&](Index begin, Index end) {
      T* const c = args.c + begin * (swapped ? args.c_stride : 1);
      switch (way) {
        case GemmWay::dots:
          dot_rows<T, Arch>(args.m, end - begin, args.k, args.a.data, args.a.row_stride, args.b.block(0, begin).data,
                            args.b.col_stride, c, args.c_stride, 1, args.accumulate);
          break;
        case GemmWay::swapped_dots:
          dot_rows<T, Arch>(args.n, end - begin, args.k, args.b.data, args.b.col_stride, args.a.block(begin, 0).data,
                            args.a.row_stride, c, 1, args.c_stride, args.accumulate);
          break;
        case GemmWay::scaled_rows:
          for (Index i = 0; i < args.m && !args.accumulate; ++i) {
            std::fill(c + i * args.c_stride, c + i * args.c_stride + (end - begin), T(0));
          }
          scaled_rows<T, Arch>(args.m, end - begin, args.k, args.a.data, args.a.row_stride, args.b.block(0, begin).data,
                               args.b.row_stride, c, args.c_stride);
          break;
        default: return run_panels(args, begin, end);
      }
      if (args.epilogue.empty()) return;
      if (swapped) {
        finish_rows<T, Arch>(c, args.c_stride, end - begin, args.n, args.epilogue.block(begin, 0));
      } else {
        finish_rows<T, Arch>(c, args.c_stride, args.m, end - begin, args.epilogue.block(0, begin));
      }
    });
  }

  /// Columns [begin, end): the whole panels over the whole depth at once, the others as a block.
  static void run_panels(const Args& args, Index begin, Index end) {
    const Index whole = begin + (end - begin) / Tile::cols * Tile::cols;
    const bool packed = args.packed != nullptr;
    const Index b_stride = packed ? Tile::cols : args.b.row_stride, panel = packed ? args.k * Tile::cols : Tile::cols;
    const auto several = PanelRows<T, Arch>::get(args.m);
    const auto one = TileFunctions<T, Arch>::get(args.m, Tile::vectors);
    alignas(memory_alignment) static constexpr T zeros[Tile::cols] = {};
    for (Index j = begin; j < whole;) {
      const T* const b = packed ? args.packed->panel(j) : args.b.data + j;
      T* const c = args.c + j;
      if (j + several.panels * Tile::cols <= whole && several.panels > 1) {
        several.run(args.k, args.a.data, args.a.row_stride, b, b_stride, panel, c, args.c_stride, args.accumulate);
        j += several.panels * Tile::cols;
      } else {
        one(args.k, {args.a.data, args.a.row_stride, 1}, b, b_stride, args.accumulate ? c : zeros,
            args.accumulate ? args.c_stride : 0, c, args.c_stride);
        j += Tile::cols;
      }
    }
    if (!args.epilogue.empty()) {
      finish_rows<T, Arch>(args.c + begin, args.c_stride, args.m, whole - begin, args.epilogue.block(0, begin));
    }
    if (whole < end) GemmBlock<T, Arch>::run(args, 0, args.m, whole, end);
  }
};

}  // namespace detail

/// The product that the arguments describe. Takes 2 m n k operations; large ones are shared by the threads of parallel_for.
template <class T, class Arch = simd::DefaultArch>
[[gnu::noinline]] void gemm(const GemmArgs<T, Arch>& args) {
  detail::GemmDriver<T, Arch>::run(args);
}

/// The same for products that are known to be small, as one head's at a time: no threads, no choice among ways.
template <class T, class Arch = simd::DefaultArch>
[[gnu::noinline]] void gemm_small(const GemmArgs<T, Arch>& args) {
  if (args.m > 0 && args.n > 0 && args.k > 0) {
    detail::GemmBlock<T, Arch>::run(args, 0, args.m, 0, args.n);
  } else {
    detail::GemmDriver<T, Arch>::run(args);
  }
}

}  // namespace ordo::kernels
