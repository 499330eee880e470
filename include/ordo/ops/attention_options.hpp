#pragma once
/// \file
/// What attention() can be asked for: AttentionOptions, Visibility, and how they become the engine's mask and score policy.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "ordo/kernels/attention_standard.hpp"
#include "ordo/kernels/attention_block.hpp"
#include "ordo/ops/positions.hpp"
#include "ordo/ops/sequences.hpp"

namespace ordo {

/// How scores are made, and which keys a query sees by its position. Query i stands at a = i + Lk - Lq: the last query at the last key.
struct AttentionOptions {
  double scale = 0;      ///< of <q, k>; 0: K^-1/2
  bool causal = false;   ///< keys j <= a
  Index window = 0;      ///< with causal, > 0: a query sees that many keys, its own included
  Index num_sink_tokens = 0;                       ///< with a window: the first keys stay visible
  std::optional<Index> window_left{}, window_right{};  ///< keys a - window_left .. a + window_right
  double logit_softcap = 0;                        ///< c > 0: s becomes c tanh(s / c) before anything is added
  bool softmax_one = false;                        ///< the denominator has one more term, exp(0) (Miller 2023)
  AnyTensor<double> alibi_slopes{};                ///< [H]: s - slope |a - j|
  Index relative_bias_max_distance = 128;
  std::optional<bool> relative_bias_bidirectional{};  ///< not given: not causal
};

/// Which keys a query sees besides: all that are given have to agree. Masks, padding, lengths, segments and blocks are about indices;
/// prefixes and packed sequences about positions. A query without a visible key gives zeros and zero gradients; what no query sees may
/// hold NaN.
struct Visibility {
  AnyTensor<std::uint8_t> key_padding{};             ///< [B, Lk], true = real key
  AnyTensor<std::uint8_t> mask{};                    ///< [B or 1, H or 1, Lq, Lk] or [H or 1, Lq, Lk], true = may attend
  AnyTensor<std::int64_t> lengths{};                 ///< [B]: keys of each row that are real
  AnyTensor<std::int64_t> segments{}, key_segments{};  ///< [B, Lq], [B, Lk] (absent: segments): visible when equal
  AnyTensor<std::int64_t> prefix_length{};           ///< [B]: with causal, keys at positions below it are visible to all queries of the row
  Packing packing{}, key_packing{};                    ///< packed sequences of queries and keys (not packed: as the queries), B = 1
  AnyTensor<std::int64_t> block_list{};              ///< [n, 2] (query block, key block) or [n, 3] (head first): only these are visible
  Index query_block_size = 0, key_block_size = 0;
  /// [B or 1, Lq], [B or 1, Lk]: where queries and keys stand, if not at i + Lk - Lq and j; those of keys never decrease along a row.
  AnyTensor<std::int64_t> query_positions{}, key_positions{};
};

/// Relative scores of a call: row r of a table for a key at distance j - a, by a map that is clamped at both ends; -1: none.
struct RelativeRows {
  AnyTensor<std::int32_t> rows{};  ///< distance d is at d + shift
  Index shift = 0;
};

namespace detail {

inline constexpr const char* attention_name = "attention";

/// q, k, v as the engine takes them; ShapeError if they do not fit.
template <class T>
kernels::AttentionInputs<T> attention_inputs(const AnyTensor<T>& q, const AnyTensor<T>& k, const AnyTensor<T>& v, double scale) {
  const bool ranks = q.rank() == 4 && k.rank() == 4 && v.rank() == 4;
  if (!ranks || k.extent(0) != q.extent(0) || v.extent(0) != q.extent(0) || k.extent(3) != q.extent(3) || v.extent(1) != k.extent(1) ||
      v.extent(2) != k.extent(2) || k.extent(2) == 0 || q.extent(2) % k.extent(2) != 0) {
    fail<ShapeError>({"attention: q has shape ", q.shape(), ", k ", k.shape(), ", v ", v.shape(),
                     "; expected [B, Lq, H, K], [B, Lk, Hk, K], [B, Lk, Hk, V] with H a multiple of Hk"});
  }
  kernels::AttentionInputs<T> in;
  in.batch = q.extent(0);
  in.queries = q.extent(1);
  in.keys = k.extent(1);
  in.heads = q.extent(2);
  in.kv_heads = k.extent(2);
  in.key_dim = q.extent(3);
  in.value_dim = v.extent(3);
  in.q = kernels::dense_heads(q.data(), in.queries, in.heads, in.key_dim);
  in.k = kernels::dense_heads(k.data(), in.keys, in.kv_heads, in.key_dim);
  in.v = kernels::dense_heads(v.data(), in.keys, in.kv_heads, in.value_dim);
  in.scale = static_cast<T>(scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(in.key_dim)));
  return in;
}

/// The shape of a mask or bias with all four axes; ShapeError unless it fits.
inline Shape pair_shape(const char* argument, const Shape& given, Index batch, Index heads, Index queries, Index keys) {
  const bool three = given.rank() == 3;
  const Shape s = three ? Shape{1, given[0], given[1], given[2]} : given;
  if (s.rank() != 4 || (s[0] != 1 && s[0] != batch) || (s[1] != 1 && s[1] != heads) || s[2] != queries || s[3] != keys) {
    fail<ShapeError>({"attention: ", argument, " has shape ", given, ", expected [H or 1, Lq, Lk] or [B or 1, H or 1, Lq, Lk] with B = ", batch,
                     ", H = ", heads, ", Lq = ", queries, ", Lk = ", keys});
  }
  return s;
}

/// The options of a call as the engine's mask and score policy, with the arrays that those point to.
template <class T>
class PreparedAttention {
 public:
  kernels::StandardMask<T> mask;
  kernels::StandardScore<T> score;

  /// Queries and keys by their number alone: q and k are not looked at.
  PreparedAttention(const kernels::AttentionInputs<T>& in, const AttentionOptions& options, const Visibility& visibility,
                    const AnyTensor<T>& bias, const AnyTensor<T>& relative, const RelativeRows& relative_rows)
      : batch_(in.batch), queries_(in.queries), keys_(in.keys), heads_(in.heads), o_(options), v_(visibility) {
    check();
    prepare_spans();
    prepare_filter();
    prepare_score(bias, relative, relative_rows);
  }
  // The policies point into it.
  PreparedAttention(const PreparedAttention&) = delete;
  PreparedAttention& operator=(const PreparedAttention&) = delete;

 private:
  static constexpr Index padding = kernels::QuerySpans<T>::padding;
  static constexpr const char* name = attention_name;

  void check() const {
    if (o_.window < 0 || o_.num_sink_tokens < 0 || o_.window_left.value_or(0) < 0 || o_.window_right.value_or(0) < 0) {
      fail<ConfigError>("attention: windows and num_sink_tokens cannot be negative");
    }
    if (o_.window > 0 && !o_.causal) fail<ConfigError>("attention: window needs causal; window_left and window_right do not");
    require_shape(name, "key_padding", v_.key_padding, Shape{batch_, keys_});
    require_shape(name, "lengths", v_.lengths, Shape{batch_});
    require_shape(name, "prefix_length", v_.prefix_length, Shape{batch_});
    require_shape(name, "segments", v_.segments, Shape{batch_, queries_});
    require_shape(name, "key_segments", v_.key_segments, Shape{batch_, keys_});
    require_shape(name, "alibi_slopes", o_.alibi_slopes, Shape{heads_});
    require_rows("query_positions", v_.query_positions, queries_);
    require_rows("key_positions", v_.key_positions, keys_);
    if (v_.segments.present() && !v_.key_segments.present() && queries_ != keys_) {
      fail<ShapeError>({"attention: segments without key_segments need as many keys as queries, given ", queries_, " and ", keys_});
    }
    if (v_.key_segments.present() && !v_.segments.present()) fail<ShapeError>("attention: key_segments without segments");
    if (v_.key_packing.packed() && !v_.packing.packed()) fail<ShapeError>("attention: key_cu_seqlens without cu_seqlens");
    if (v_.packing.packed() && v_.query_positions.present()) fail<UsageError>("attention: packed sequences have positions of their own");
  }
  void require_rows(const char* argument, const AnyTensor<std::int64_t>& x, Index length) const {
    if (x.present() && !(x.shape() == Shape{1, length}) && !(x.shape() == Shape{batch_, length})) {
      fail<ShapeError>({"attention: ", argument, " has shape ", x.shape(), ", expected [", batch_, " or 1, ", length, "]"});
    }
  }

  /// A run of queries that see some of keys [first_key, last_key) and stand at positions of their own, counted from first_key.
  struct Run {
    Index row, first, last, first_key, last_key;
  };
  /// Calls f(run) for each sequence of a row.
  template <class F>
  void runs(Index row, F&& f) const {
    if (!v_.packing.packed()) {
      f(Run{row, 0, queries_, 0, keys_});
      return;
    }
    const Packing& of_keys = v_.key_packing.packed() ? v_.key_packing : v_.packing;
    const auto q = v_.packing.sequences(name, batch_, queries_), k = of_keys.sequences(name, batch_, keys_);
    if (q.count != k.count) fail<ShapeError>({"attention: ", q.count, " sequences of queries, ", k.count, " of keys"});
    for (Index s = 0; s < q.count; ++s) {
      f(Run{row, static_cast<Index>(q.offsets[s]), static_cast<Index>(q.offsets[s + 1]), static_cast<Index>(k.offsets[s]),
            static_cast<Index>(k.offsets[s + 1])});
    }
  }
  /// The position of query i of a run.
  Index position(const Run& run, Index i) const {
    if (v_.query_positions.present()) return static_cast<Index>(v_.query_positions.data()[row_at(v_.query_positions, run.row) * queries_ + i]);
    return i - run.first + (run.last_key - run.first_key) - (run.last - run.first);
  }
  static Index row_at(const AnyTensor<std::int64_t>& x, Index row) noexcept { return x.extent(0) == 1 ? 0 : row; }
  /// The first key of a run at position p or behind.
  Index key_at(const Run& run, Index p) const {
    if (!v_.key_positions.present()) return run.first_key + std::clamp<Index>(p, 0, run.last_key - run.first_key);
    const std::int64_t* const row = v_.key_positions.data() + row_at(v_.key_positions, run.row) * keys_;
    return std::lower_bound(row + run.first_key, row + run.last_key, static_cast<std::int64_t>(p)) - row;
  }

  void prepare_spans() {
    const bool second = o_.causal && ((o_.window > 0 && o_.num_sink_tokens > 0) || v_.prefix_length.present());
    const bool sides = o_.window_left.has_value() || o_.window_right.has_value();
    if (!o_.causal && !sides && !v_.lengths.present() && !v_.packing.packed()) return;
    const auto many = [](const AnyTensor<std::int64_t>& x) { return x.present() && x.extent(0) > 1; };
    const Index rows = many(v_.lengths) || many(v_.prefix_length) || many(v_.query_positions) || many(v_.key_positions) ? batch_ : 1;
    const Index stride = queries_ + padding;
    spans_ = AnyTensor<T>(Shape{second ? 4 : 2, rows, stride});
    T* const begin = spans_.data();
    T *const end = begin + rows * stride, *const extra_begin = end + rows * stride, *const extra_end = extra_begin + rows * stride;
    for (Index b = 0; b < rows; ++b) {
      runs(b, [&](const Run& run) {
        const Index real = v_.lengths.present() ? std::clamp<Index>(static_cast<Index>(v_.lengths.data()[b]), 0, keys_) : keys_;
        const Index prefix = o_.causal && v_.prefix_length.present() ? key_at(run, static_cast<Index>(v_.prefix_length.data()[b])) : run.first_key;
        for (Index i = run.first; i < run.last; ++i) {
          const Index a = position(run, i), at = b * stride + i;
          Index first = run.first_key, last = std::min(run.last_key, real);
          if (o_.window_left) first = key_at(run, a - *o_.window_left);
          if (o_.window_right) last = std::min(last, key_at(run, a + *o_.window_right + 1));
          if (second) {
            Index sinks = o_.window > 0 ? std::min(key_at(run, o_.num_sink_tokens), key_at(run, a + 1)) : run.first_key;
            sinks = std::min(std::max(sinks, prefix), last);
            extra_begin[at] = static_cast<T>(std::min(first, sinks));
            extra_end[at] = static_cast<T>(sinks);
          }
          if (o_.causal) last = std::min(last, key_at(run, a + 1));
          if (o_.window > 0) first = std::max(first, key_at(run, a - o_.window + 1));
          begin[at] = static_cast<T>(std::min(first, last));
          end[at] = static_cast<T>(last);
        }
      });
    }
    mask.spans = {begin, end, second ? extra_begin : nullptr, second ? extra_end : nullptr, rows == 1 ? 0 : stride};
  }

  void prepare_filter() {
    kernels::PairFilter& f = mask.filter;
    f.queries = queries_;
    f.keys = keys_;
    if (v_.key_padding.present()) f.padding = v_.key_padding.data();
    if (v_.mask.present()) {
      const Shape s = pair_shape("mask", v_.mask.shape(), batch_, heads_, queries_, keys_);
      f.mask = v_.mask.data();
      f.mask_head = s[1] == 1 ? 0 : queries_ * keys_;
      f.mask_batch = s[0] == 1 ? 0 : s[1] * queries_ * keys_;
    }
    if (v_.segments.present()) {
      f.segments = v_.segments.data();
      f.key_segments = (v_.key_segments.present() ? v_.key_segments : v_.segments).data();
    }
    if (v_.block_list.present()) prepare_blocks();
  }
  void prepare_blocks() {
    const AnyTensor<std::int64_t>& list = v_.block_list;
    if (list.rank() != 2 || (list.extent(1) != 2 && list.extent(1) != 3)) {
      fail<ShapeError>({"attention: block_list has shape ", list.shape(), ", expected [n, 2] or [n, 3]"});
    }
    if (v_.query_block_size < 1 || v_.key_block_size < 1) {
      fail<ConfigError>("attention: block_list needs query_block_size and key_block_size of at least 1");
    }
    const bool by_head = list.extent(1) == 3;
    const Index query_blocks = (queries_ + v_.query_block_size - 1) / v_.query_block_size, key_blocks = (keys_ + v_.key_block_size - 1) / v_.key_block_size;
    blocks_ = AnyTensor<std::uint8_t>(Shape{by_head ? heads_ : 1, query_blocks, key_blocks}, std::uint8_t{0});
    for (Index n = 0; n < list.extent(0); ++n) {
      const std::int64_t* const row = list.data() + n * list.extent(1);
      const Index h = by_head ? static_cast<Index>(row[0]) : 0, i = static_cast<Index>(row[by_head ? 1 : 0]), j = static_cast<Index>(row[by_head ? 2 : 1]);
      if (h < 0 || h >= blocks_.extent(0) || i < 0 || i >= query_blocks || j < 0 || j >= key_blocks) {
        fail<UsageError>({"attention: block_list row ", n, " is (", h, ", ", i, ", ", j, "); there are ", blocks_.extent(0), " heads, ", query_blocks,
                         " query blocks and ", key_blocks, " key blocks"});
      }
      blocks_.data()[(h * query_blocks + i) * key_blocks + j] = 1;
    }
    kernels::PairFilter& f = mask.filter;
    f.blocks = blocks_.data();
    f.block_head = by_head ? query_blocks * key_blocks : 0;
    f.query_block = v_.query_block_size;
    f.key_block = v_.key_block_size;
    f.key_blocks = key_blocks;
  }

  void prepare_score(const AnyTensor<T>& bias, const AnyTensor<T>& relative, const RelativeRows& relative_rows) {
    score.cap = static_cast<T>(o_.logit_softcap);
    if (o_.alibi_slopes.present()) {
      slopes_ = AnyTensor<T>(Shape{heads_});
      for (Index h = 0; h < heads_; ++h) slopes_.data()[h] = static_cast<T>(o_.alibi_slopes.data()[h]);
      score.slopes = slopes_.data();
    }
    if (relative.present()) prepare_relative(relative, relative_rows);
    if (o_.alibi_slopes.present() || relative.present()) prepare_places();
    if (bias.present()) {
      const Shape s = pair_shape("attn_bias", bias.shape(), batch_, heads_, queries_, keys_);
      score.bias = {bias.data(), s[0] == 1 ? 0 : s[1] * queries_ * keys_, s[1] == 1 ? 0 : queries_ * keys_, keys_, nullptr, heads_, queries_, keys_};
    }
  }
  /// Where queries and keys stand, on one scale: places among the keys of the row, or positions if those are given.
  void prepare_places() {
    const Index stride = queries_ + padding, rows = v_.query_positions.present() ? v_.query_positions.extent(0) : 1;
    places_ = AnyTensor<T>(Shape{rows, stride});
    for (Index b = 0; b < rows; ++b) {
      runs(b, [&](const Run& run) {
        for (Index i = run.first; i < run.last; ++i) places_.data()[b * stride + i] = static_cast<T>(run.first_key + position(run, i));
      });
    }
    score.query_places = places_.data();
    score.query_row = rows == 1 ? 0 : stride;
    if (!v_.key_positions.present()) return;
    const Index key_rows = v_.key_positions.extent(0), key_stride = keys_ + padding;
    key_places_ = AnyTensor<T>(Shape{key_rows, key_stride});
    for (Index b = 0; b < key_rows; ++b) {
      for (Index j = 0; j < keys_; ++j) key_places_.data()[b * key_stride + j] = static_cast<T>(v_.key_positions.data()[b * keys_ + j]);
    }
    score.key_places = key_places_.data();
    score.key_row = key_rows == 1 ? 0 : key_stride;
  }
  void prepare_relative(const AnyTensor<T>& table, const RelativeRows& given) {
    score.relative = table.data();
    if (table.rank() == 2) {  // T5: [buckets, H]
      const Index buckets = table.extent(0), farthest = o_.relative_bias_max_distance;
      if (table.extent(1) != heads_) fail<ShapeError>({"attention: relative_bias has shape ", table.shape(), ", expected [buckets, ", heads_, "]"});
      const bool both_sides = o_.relative_bias_bidirectional.value_or(!o_.causal);
      if (buckets < (both_sides ? 2 : 1) || farthest < 1) fail<ConfigError>({"attention: ", buckets, " buckets of relative_bias up to distance ", farthest});
      const Index reach = std::max(farthest, buckets);
      rows_ = AnyTensor<std::int32_t>(Shape{2 * reach + 1});
      for (Index r = -reach; r <= reach; ++r) rows_.data()[r + reach] = static_cast<std::int32_t>(relative_bucket(r, buckets, farthest, both_sides));
      score.relative_head = 1;
      score.relative_row = heads_;
      score.row_shift = reach;
      gradient_rows_ = buckets;
    } else {
      if (!(table.rank() == 4 && table.extent(0) == batch_ && table.extent(1) == heads_ && table.extent(2) == queries_) || !given.rows.present()) {
        fail<ShapeError>({"attention: relative scores have shape ", table.shape(), ", expected [B, H, Lq, rows] or [buckets, H]"});
      }
      rows_ = given.rows;
      score.relative_query = table.extent(3);
      score.relative_head = queries_ * table.extent(3);
      score.relative_batch = heads_ * score.relative_head;
      score.row_shift = given.shift;
      gradient_rows_ = table.extent(3);
    }
    score.rows = rows_.data();
    score.row_count = rows_.size();
  }

 public:
  /// Where gradients of the relative scores are to be added up: [B, H, Lq or 1, rows].
  AnyTensor<T> relative_gradient() {
    const bool by_query = score.relative_query != 0;
    AnyTensor<T> g(Shape{batch_, heads_, by_query ? queries_ : 1, gradient_rows_}, T{0});
    score.d_relative = g.data();
    score.d_relative_query = by_query ? gradient_rows_ : 0;
    score.d_relative_head = g.extent(2) * gradient_rows_;
    score.d_relative_batch = heads_ * score.d_relative_head;
    return g;
  }

 private:
  Index batch_, queries_, keys_, heads_, gradient_rows_ = 0;
  const AttentionOptions& o_;
  const Visibility& v_;
  AnyTensor<T> spans_, slopes_, places_, key_places_;
  AnyTensor<std::uint8_t> blocks_;
  AnyTensor<std::int32_t> rows_;
};

/// The sum of x [B, H, Lq, Lk] over the axes that `shape` broadcasts, in that shape.
template <class T>
AnyTensor<T> sum_to_pairs(const AnyTensor<T>& x, const Shape& shape) {
  const Index queries = x.extent(2) * x.extent(3), heads = x.extent(1);
  const bool three = shape.rank() == 3;
  const bool by_batch = !three && shape[0] > 1, by_head = shape[three ? 0 : 1] > 1;
  AnyTensor<T> y(shape, T{0});
  for (Index n = 0; n < x.extent(0) * heads; ++n) {
    const Index b = by_batch ? n / heads : 0, h = by_head ? n % heads : 0;
    T* const to = y.data() + (b * (by_head ? heads : 1) + h) * queries;
    const T* const from = x.data() + n * queries;
    for (Index i = 0; i < queries; ++i) to[i] += from[i];
  }
  return y;
}

}  // namespace detail

}  // namespace ordo
