#pragma once
/// \file
/// What the passes of the attention engine (attention_tile.hpp) share: its arguments, the register tile, blocks of
/// query rows, and the copies that the products read.

#include <algorithm>
#include <numbers>
#include <type_traits>
#include <utility>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/attention_mask.hpp"
#include "ordo/kernels/attention_score.hpp"
#include "ordo/kernels/gemm_micro.hpp"
#include "ordo/kernels/gemm_pack.hpp"
#include "ordo/simd/math.hpp"

namespace ordo::kernels {

/// A [B, L, H, *] array somewhere in memory, with strides in elements; the last axis is contiguous. Slices of a fused
/// projection and caches with room behind their last row are such arrays.
template <class T>
struct HeadsView {
  T* data = nullptr;
  Index batch_stride = 0, row_stride = 0, head_stride = 0;

  constexpr T* at(Index b, Index row, Index head) const noexcept {
    return data + b * batch_stride + row * row_stride + head * head_stride;
  }
};

/// The view of a dense [B, length, heads, dim] array.
template <class T>
constexpr HeadsView<T> dense_heads(T* data, Index length, Index heads, Index dim) noexcept {
  return {data, length * heads * dim, heads * dim, dim};
}

/// s[i, j] = scale <q_i, k_j>. Query head h reads key/value head floor(h / (heads / kv_heads)).
template <class T>
struct AttentionInputs {
  Index batch = 0, queries = 0, keys = 0;  ///< B, Lq, Lk
  Index heads = 0, kv_heads = 0;           ///< H, a multiple of Hk
  Index key_dim = 0, value_dim = 0;        ///< K, V
  HeadsView<const T> q;                    ///< [B, Lq, H, K]
  HeadsView<const T> k;                    ///< [B, Lk, Hk, K]
  HeadsView<const T> v;                    ///< [B, Lk, Hk, V]
  T scale = T(1);
  const T* sinks = nullptr;  ///< null, or [H]: a score that joins the softmax and brings no value

  constexpr Index group() const noexcept { return heads / kv_heads; }
};

/// What the forward pass writes.
template <class T>
struct AttentionOutputs {
  HeadsView<T> o;    ///< [B, Lq, H, V]
  T* lse = nullptr;  ///< null, or [B, H, Lq]: log of the sum of exp(t)
  /// Null, or [B, H, Lq, 2]: what attention_backward() needs of each row. It is lse in two pieces, because the whole
  /// has lost what decides about p = exp(t - lse) where scores are large.
  T* statistics = nullptr;
};

namespace detail {

/// Scores become exponents of two. Where no policy stands between, the queries are scaled by log2(e) before; else what
/// the policy gives is a natural exponent, and (t - max) is multiplied (the difference first: it is exact for the
/// largest).
template <class T, class Score>
constexpr T query_factor(const Score& score) noexcept {
  return changes_nothing_now(score) ? std::numbers::log2e_v<T> : T(1);
}
template <class T, class Score>
constexpr T exponent_factor(const Score& score) noexcept {
  return changes_nothing_now(score) ? T(1) : std::numbers::log2e_v<T>;
}

/// `plain`: no policy stands between.
template <bool plain, class V>
[[gnu::always_inline]] inline V exp_difference(V difference) noexcept {
  if constexpr (plain) {
    return simd::exp2_nonpositive(difference);
  } else {
    return simd::exp2_nonpositive(difference * V(std::numbers::log2e_v<typename V::value_type>));
  }
}

/// f(std::true_type) if the policy changes nothing, else f(std::false_type); compiled for both only where that is known
/// at run time.
template <class Score, class F>
[[gnu::always_inline]] inline auto if_plain(bool plain, F&& f) {
  if constexpr (score_changes_nothing<Score>) {
    return f(std::true_type());
  } else if constexpr (requires(const Score& s) { s.changes_nothing_now(); }) {
    return plain ? f(std::true_type()) : f(std::false_type());
  } else {
    return f(std::false_type());
  }
}

/// The register tiles of the attention products. Where the rows of a tile are keys, rows behind the last one are
/// computed and not used. Where they are queries, they have to divide a unit, so that no product touches its
/// neighbour's rows.
template <class T, class Arch>
struct AttentionTile {
  static constexpr bool many_registers = RegisterTile<T, Arch>::registers == 32;
  static constexpr Index lanes = simd::lanes<T, Arch>;
  static constexpr Index key_rows = many_registers ? 8 : RegisterTile<T, Arch>::rows;
  static constexpr Index key_vectors = 2;
  static constexpr Index query_rows = many_registers ? 8 : 4;
  static constexpr Index query_vectors = !many_registers && simd::has_fma<Arch> ? 3 : 2;
  /// Queries whose visible keys are found together.
  static constexpr Index unit = std::max(lanes, query_rows);
  /// Queries whose scores are computed together.
  static constexpr Index panel = 2 * unit;
};

constexpr Index round_up(Index n, Index to) noexcept { return (n + to - 1) / to * to; }

// ---- products -------------------------------------------------------------------------------------------------------

/// c[r] = row_scale[r] c[r] + sum_p a(r, p) b[p] for r < m rounded up to `rows`, and NV vectors of columns; `keep`
/// false: c is not read. row_scale null: 1.
template <class Arch, Index rows, Index NV, class T, template <class> class Operand>
[[gnu::always_inline]] inline void product_columns(Index m, Index depth, Operand<T> a, Index a_step, const T* b,
                                                   Index b_stride, T* c, Index c_stride, bool keep,
                                                   const T* row_scale) noexcept {
  using V = simd::Vec<T, Arch>;
  for (Index r = 0; r < m; r += rows) {
    V acc[rows][NV];
    if (keep) {
      tile_load(acc, c + r * c_stride, c_stride);
      if (row_scale != nullptr) {
        for (Index i = 0; i < rows; ++i) {
          const V factor(row_scale[r + i]);
          for (Index j = 0; j < NV; ++j) acc[i][j] = acc[i][j] * factor;
        }
      }
    } else {
      tile_zero(acc);
    }
    tile_product(acc, depth, Operand<T>{a.data + r * a_step, a.stride}, b, b_stride);
    tile_store(acc, c + r * c_stride, c_stride);
  }
}

/// The same for any number of vectors, `most` at a time.
template <class Arch, Index rows, Index most, class T, template <class> class Operand>
[[gnu::noinline]] void product(Index m, Index vectors, Index depth, Operand<T> a, Index a_step, const T* b,
                               Index b_stride, T* c, Index c_stride, bool keep, const T* row_scale) noexcept {
  constexpr Index lanes = simd::lanes<T, Arch>;
  while (vectors > 0) {
    // 4 = 2 + 2 rather than 3 + 1: a tile of one vector is bound by latency.
    const Index now = vectors >= most && vectors != most + 1 ? most : (vectors >= 2 ? 2 : 1);
    if (now == most) {
      product_columns<Arch, rows, most>(m, depth, a, a_step, b, b_stride, c, c_stride, keep, row_scale);
    } else if (now == 2) {
      product_columns<Arch, rows, 2>(m, depth, a, a_step, b, b_stride, c, c_stride, keep, row_scale);
    } else {
      product_columns<Arch, rows, 1>(m, depth, a, a_step, b, b_stride, c, c_stride, keep, row_scale);
    }
    vectors -= now;
    b += now * lanes;
    c += now * lanes;
  }
}

/// c = a b (keep: c += a b), the rows of `a`, keys, at a[r * a_stride + p].
template <class Arch, class T>
inline void product_rows(Index m, Index vectors, Index depth, const T* a, Index a_stride, const T* b, Index b_stride,
                         T* c, Index c_stride, bool keep) noexcept {
  using Tile = AttentionTile<T, Arch>;
  product<Arch, Tile::key_rows, Tile::key_vectors>(m, vectors, depth, BroadcastRows<T>{a, a_stride}, a_stride, b,
                                                   b_stride, c, c_stride, keep, static_cast<const T*>(nullptr));
}

/// c[r] = row_scale[r] c[r] + (a b)[r], the rows of `a`, queries, at a[p * a_stride + r].
template <class Arch, class T>
inline void product_transposed(Index m, Index vectors, Index depth, const T* a, Index a_stride, const T* b,
                               Index b_stride, T* c, Index c_stride, const T* row_scale) noexcept {
  using Tile = AttentionTile<T, Arch>;
  product<Arch, Tile::query_rows, Tile::query_vectors>(m, vectors, depth, BroadcastColumns<T>{a, a_stride}, 1, b,
                                                       b_stride, c, c_stride, true, row_scale);
}

// ---- blocks of query rows -------------------------------------------------------------------------------------------

/// The rows that a task works on: queries first .. first + count - 1 of all heads of a group, head by head. Row r is
/// query first + r % count of head `head0 + r / count`.
struct RowBlock {
  Index batch = 0, kv_head = 0, head0 = 0, group = 1;
  Index first = 0, count = 0;

  constexpr Index rows() const noexcept { return group * count; }
  constexpr Index head(Index r) const noexcept { return head0 + r / count; }
  constexpr Index query(Index r) const noexcept { return first + r % count; }

  /// Calls f(row, head, queries) for each run of rows of one head in [begin, end).
  template <class F>
  constexpr void runs(Index begin, Index end, F&& f) const {
    for (Index r = begin; r < end;) {
      const Index g = r / count, from = r - g * count;
      const Index run = std::min(end - r, count - from);
      f(r, head0 + g, Range{first + from, first + from + run});
      r += run;
    }
  }
  template <AttentionMask M>
  Cover cover(const M& mask, Index begin, Index end, Range keys) const {
    Cover all = Cover::partial;
    runs(begin, end, [&](Index r, Index h, Range i) {
      const Cover now = mask_cover(mask, batch, h, i, keys);
      all = r == begin ? now : beside(all, now);
    });
    return all;
  }
  template <AttentionMask M>
  Range keys(const M& mask, Index begin, Index end, Range all) const {
    Range seen{};
    runs(begin, end, [&](Index, Index h, Range i) { seen = hull(seen, mask_keys(mask, batch, h, i, all)); });
    return seen;
  }
};

/// Where the lanes of a block's score vectors are: filled once per block.
template <class T, class Arch>
class RowLanes {
 public:
  using V = simd::Vec<T, Arch>;

  RowLanes(T* queries, Index* heads) noexcept : queries_(queries), heads_(heads) {}

  /// Rows behind the last one repeat it.
  void fill(const RowBlock& block, Index padded) noexcept {
    batch_ = block.batch;
    rows_ = block.rows();
    block.runs(0, rows_, [&](Index r, Index h, Range i) {
      for (Index n = 0; n < i.size(); ++n) {
        queries_[r + n] = static_cast<T>(i.begin + n);
        heads_[r + n] = h;
      }
    });
    for (Index r = rows_; r < padded; ++r) {
      queries_[r] = queries_[rows_ - 1];
      heads_[r] = heads_[rows_ - 1];
    }
  }

  /// The pairs of rows r .. r + lanes - 1 with a key that `at.key` is still to be set to.
  Pairs<T, Arch> at(Index r) const noexcept {
    const Index* heads = heads_ + r;
    const bool same = heads[0] == heads[V::size - 1];
    return {batch_,
            heads[0],
            same ? nullptr : heads,
            V::load_unaligned(queries_ + r),
            V(T(0)),
            std::clamp<Index>(rows_ - r, 0, static_cast<Index>(V::size)),
            static_cast<Index>(queries_[r]),
            0,
            false};
  }

 private:
  T* queries_;
  Index* heads_;
  Index batch_ = 0, rows_ = 0;
};

// ---- copies ---------------------------------------------------------------------------------------------------------

/// to[r * to_stride + c] = factor * from[r * from_stride + c] for r < rows, c < cols; columns cols .. to_stride and
/// rows rows .. padded become 0. Returns whether all numbers are finite if `check`.
template <class Arch, class T>
[[gnu::noinline]] bool copy_rows(const T* from, Index from_stride, Index rows, Index cols, T* to, Index to_stride,
                                 Index padded, T factor, bool check) noexcept {
  using V = simd::Vec<T, Arch>;
  constexpr Index lanes = simd::lanes<T, Arch>;
  V poison(T(0));
  const V scale(factor);
  for (Index r = 0; r < rows; ++r, from += from_stride, to += to_stride) {
    Index c = 0;
    for (; c + lanes <= cols; c += lanes) {
      const V x = simd::load<Arch>(from + c);
      poison = simd::fma(x, V(T(0)), poison);
      simd::store(to + c, V(x * scale));
    }
    if (c < cols) {
      const V x = simd::load_partial<Arch>(from + c, cols - c);
      poison = simd::fma(x, V(T(0)), poison);
      simd::store(to + c, V(x * scale));
      c += lanes;
    }
    for (; c < to_stride; c += lanes) simd::store(to + c, V(T(0)));
  }
  std::fill_n(to, (padded - rows) * to_stride, T(0));
  return !check || simd::hsum(poison) == T(0);
}

/// Asks for rows of a view ahead of their copy: they lie too far apart for the processor to guess the next. Inlined,
/// because GCC 12 takes a function that only prefetches for one that does nothing.
template <class T>
[[gnu::always_inline]] inline void prefetch_rows(const HeadsView<const T>& view, Index b, Index head, Range rows,
                                                 Index dim) noexcept {
#if defined(__GNUC__)
  constexpr Index line = static_cast<Index>(memory_alignment / sizeof(T));
  for (Index r = rows.begin; r < rows.end; ++r) {
    const T* const row = view.at(b, r, head);
    for (Index c = 0; c < dim; c += line) __builtin_prefetch(row + c, 0, 2);
  }
#endif
}

/// The rows of a block in a [B, Lq, H, dim] array, one after the other (a division for each row would cost as much as
/// copying it).
template <class T>
class BlockRows {
 public:
  BlockRows(const HeadsView<T>& view, const RowBlock& block) noexcept
      : view_(view), row_(view.at(block.batch, block.first, block.head0)), count_(block.count), left_(block.count) {}

  T* next() noexcept {
    T* const now = row_;
    row_ += view_.row_stride;
    if (--left_ == 0) {
      row_ += view_.head_stride - count_ * view_.row_stride;
      left_ = count_;
    }
    return now;
  }

 private:
  HeadsView<T> view_;
  T* row_;
  Index count_, left_;
};

/// to[c * width + n] = factor * row_n[c] for the next `count` rows, c < cols: queries in lanes. Lanes count .. width
/// repeat the last row (or hold zeros, if there is none).
template <class T>
[[gnu::noinline]] void transpose_rows(BlockRows<const T>& rows, Index count, Index cols, T* to, Index width,
                                      T factor) noexcept {
  using V = NarrowVec<T>;
  constexpr Index step = static_cast<Index>(V::size);
  const V scale(factor);
  if (count <= 0) {
    std::fill_n(to, cols * width, T(0));
    return;
  }
  const T* row = nullptr;
  for (Index r = 0; r < width; r += step) {
    const T* p[V::size];
    for (Index n = 0; n < step; ++n) {
      if (r + n < count) row = rows.next();
      p[n] = row;
    }
    T* out = to + r;
    Index c = 0;
    for (; c + step <= cols; c += step, out += step * width) {
      if constexpr (step == 4) {
        const V r0 = V::load_unaligned(p[0] + c) * scale, r1 = V::load_unaligned(p[1] + c) * scale;
        const V r2 = V::load_unaligned(p[2] + c) * scale, r3 = V::load_unaligned(p[3] + c) * scale;
        const V a = xsimd::zip_lo(r0, r2), b = xsimd::zip_lo(r1, r3), d = xsimd::zip_hi(r0, r2),
                e = xsimd::zip_hi(r1, r3);
        xsimd::zip_lo(a, b).store_unaligned(out);
        xsimd::zip_hi(a, b).store_unaligned(out + width);
        xsimd::zip_lo(d, e).store_unaligned(out + 2 * width);
        xsimd::zip_hi(d, e).store_unaligned(out + 3 * width);
      } else {
        const V r0 = V::load_unaligned(p[0] + c) * scale, r1 = V::load_unaligned(p[1] + c) * scale;
        xsimd::zip_lo(r0, r1).store_unaligned(out);
        xsimd::zip_hi(r0, r1).store_unaligned(out + width);
      }
    }
    for (; c < cols; ++c, out += width) {
      for (Index n = 0; n < step; ++n) out[n] = factor * p[n][c];
    }
  }
}

// ---- what a panel of queries sees of a tile of keys -----------------------------------------------------------------

/// For each unit of a panel: the keys of the tile (relative to its first) that it may see, and whether each pair of
/// them has to be asked for.
template <class T, class Arch>
struct PanelView {
  using Tile = AttentionTile<T, Arch>;
  static constexpr Index units = Tile::panel / Tile::unit;
  Range keys[units];
  bool partial[units];
  bool any = false, any_partial = false;

  /// All of the `rows` rows that there are see all of `count` keys.
  constexpr PanelView(Index rows, Index count) noexcept : any(count > 0) {
    for (Index u = 0; u < units; ++u) {
      keys[u] = {0, u * Tile::unit < rows ? count : 0};
      partial[u] = false;
    }
  }

  /// Rows [begin, begin + panel) of the block against keys [tile.begin, tile.end). Always partial if `hides`.
  template <AttentionMask M>
  PanelView(const M& mask, const RowBlock& block, Index begin, Range tile, bool hides) {
    const Index rows = block.rows();
    for (Index u = 0; u < units; ++u) {
      const Index from = begin + u * Tile::unit, to = std::min(from + Tile::unit, rows);
      Range seen{};
      Cover cover = Cover::empty;
      if (from < to) {
        seen = block.keys(mask, from, to, tile);
        if (!seen.empty()) cover = block.cover(mask, from, to, seen);
        if constexpr (!KnowsKeys<M>) {
          if (cover == Cover::partial) trim(mask, block, from, to, seen);
        }
      }
      keys[u] = cover == Cover::empty || seen.empty() ? Range{} : Range{seen.begin - tile.begin, seen.end - tile.begin};
      partial[u] = !keys[u].empty() && (hides || cover == Cover::partial);
      any |= !keys[u].empty();
      any_partial |= partial[u];
    }
  }
  constexpr Range common() const noexcept {
    Range all = keys[0];
    for (Index u = 1; u < units; ++u) all = intersect(all, keys[u]);
    return all;
  }

 private:
  template <AttentionMask M>
  static void trim(const M& mask, const RowBlock& block, Index from, Index to, Range& seen) {
    constexpr Index step = Tile::key_rows;
    while (!seen.empty() &&
           block.cover(mask, from, to, {seen.begin, std::min(seen.begin + step, seen.end)}) == Cover::empty) {
      seen.begin += step;
    }
    while (!seen.empty() &&
           block.cover(mask, from, to, {std::max(seen.end - step, seen.begin), seen.end}) == Cover::empty) {
      seen.end -= step;
    }
  }
};

/// scores[j * stride + lane] = <k_j, q_lane> for what the panel sees; writes up to key_rows - 1 keys beyond.
template <class T, class Arch>
void panel_scores(const PanelView<T, Arch>& view, Index dim, const T* keys, Index key_stride, const T* queries,
                  T* scores, Index stride) noexcept {
  using Tile = AttentionTile<T, Arch>;
  constexpr Index unit_vectors = Tile::unit / Tile::lanes;
  const auto part = [&](Index lane, Index vectors, Range j) {
    if (j.empty()) return;
    product_rows<Arch>(j.size(), vectors, dim, keys + j.begin * key_stride, key_stride, queries + lane, Tile::panel,
                       scores + j.begin * stride + lane, stride, false);
  };
  const Range common = view.common();
  part(0, Tile::panel / Tile::lanes, common);
  for (Index u = 0; u < view.units; ++u) {
    const Range all = view.keys[u];
    if (common.empty()) {
      part(u * Tile::unit, unit_vectors, all);
    } else {
      part(u * Tile::unit, unit_vectors, {all.begin, common.begin});
      part(u * Tile::unit, unit_vectors, {common.end, all.end});
    }
  }
}

/// Rows of values (or keys) that are not finite must not be multiplied by the zeros of hidden pairs: takes them out of
/// `tile` while it lives. add() then puts the visible pairs back, one by one.
template <class T>
class WithoutBadRows {
 public:
  WithoutBadRows(T* tile, Index stride, Index dim, Index rows) noexcept
      : tile_(tile), stride_(stride), dim_(dim), rows_(rows), kept_(rows * dim), bad_(rows) {
    for (Index j = 0; j < rows; ++j) {
      T* row = tile + j * stride;
      T poison = T(0);
      for (Index c = 0; c < dim; ++c) poison += row[c] * T(0);
      bad_[j] = !(poison == T(0));
      if (bad_[j]) {
        std::copy_n(row, dim, kept_.data() + j * dim);
        std::fill_n(row, dim, T(0));
      }
    }
  }
  WithoutBadRows(const WithoutBadRows&) = delete;
  WithoutBadRows& operator=(const WithoutBadRows&) = delete;
  ~WithoutBadRows() {
    for (Index j = 0; j < rows_; ++j) {
      if (bad_[j]) std::copy_n(kept_.data() + j * dim_, dim_, tile_ + j * stride_);
    }
  }
  /// out[n * out_stride] += weights[j * weight_stride + n] row_j for n < count, j in keys and weights that are not 0.
  void add(Range keys, const T* weights, Index weight_stride, Index count, T* out, Index out_stride) const noexcept {
    for (Index j = keys.begin; j < keys.end; ++j) {
      if (!bad_[j]) continue;
      for (Index n = 0; n < count; ++n) {
        const T weight = weights[j * weight_stride + n];
        if (weight == T(0)) continue;
        for (Index c = 0; c < dim_; ++c) out[n * out_stride + c] += weight * kept_[j * dim_ + c];
      }
    }
  }

 private:
  T* tile_;
  Index stride_, dim_, rows_;
  Scratch<T> kept_;
  Scratch<bool> bad_;
};

}  // namespace detail
}  // namespace ordo::kernels
