#pragma once
/// \file
/// The forward pass of the attention engine (attention_tile.hpp) for few query rows: one token, or a few, against a
/// cache.
///
/// Bound by reading keys and values, so each row of them is read in place, once for all heads of the group; lanes run
/// along the keys of one query. Nothing is packed or copied but a tile of values that the mask hides from some queries
/// and that holds NaN.

#include <algorithm>
#include <array>

#include "ordo/kernels/attention_forward.hpp"

namespace ordo::kernels::detail {

/// Rows up to which this is faster than tiles of queries: the lanes of those would be mostly empty.
template <class T, class Arch>
inline constexpr Index few_rows = std::max<Index>(simd::lanes<T, Arch> / 2, 1);

template <class T>
ForwardPlan decode_plan(const AttentionInputs<T>& in) noexcept {
  ForwardPlan plan;
  plan.count = in.queries;
  plan.blocks = 1;
  plan.tile = 64;
  // A long cache comes from memory, where the heads of a row lie side by side: one task reads them all. A short one
  // lies in the processor's caches, and each head is a task.
  constexpr Index many_keys = 4096;
  plan.heads = in.keys >= many_keys ? in.kv_heads : 1;
  split_keys(plan, in.batch * in.kv_heads / plan.heads, in.keys);
  return plan;
}

/// to[n] = <key n, query> for keys p[0 .. lanes - 1].
template <class Arch, class T, std::size_t... I>
[[gnu::always_inline]] inline void dot_keys(const T* const* p, const T* query, Index dim, T* to,
                                            std::index_sequence<I...>) noexcept {
  using V = simd::Vec<T, Arch>;
  constexpr Index lanes = simd::lanes<T, Arch>;
  V sums[sizeof...(I)] = {(static_cast<void>(I), V(T(0)))...};
  Index c = 0;
  for (; c + lanes <= dim; c += lanes) {
    const V q = simd::load<Arch>(query + c);
    ((sums[I] = simd::fma(simd::load<Arch>(p[I] + c), q, sums[I])), ...);
  }
  if (c < dim) {
    const V q = simd::load<Arch>(query + c);  // padded with zeros
    ((sums[I] = simd::fma(simd::load_partial<Arch>(p[I] + c, dim - c), q, sums[I])), ...);
  }
  ((to[I] = simd::hsum(sums[I])), ...);
}

/// Rows of keys and values that will be needed next. They are asked for a few at a time, between products: all at once
/// would fill the queues to memory and stop the products until they are through.
template <class T>
struct NextRows {
  HeadsView<const T> k, v;
  Index batch, kv_head, key_dim, value_dim;
  Range rows;

  [[gnu::always_inline]] void prefetch(Range some) const noexcept {
    const Range now = intersect({rows.begin + some.begin, rows.begin + some.end}, rows);
    prefetch_rows(k, batch, kv_head, now, key_dim);
    prefetch_rows(v, batch, kv_head, now, value_dim);
  }
};

/// scores[r * score_stride + j] = <key j, query r>, j < keys rounded up to lanes; what is behind the last repeats it.
template <class Arch, class T>
[[gnu::noinline]] void dot_rows(Index rows, Index keys, Index dim, const T* queries, Index query_stride, const T* k,
                                Index k_stride, T* scores, Index score_stride, const NextRows<T>& next) noexcept {
  constexpr Index lanes = simd::lanes<T, Arch>;
  for (Index j = 0; j < keys; j += lanes) {
    const T* p[static_cast<std::size_t>(lanes)];
    for (Index n = 0; n < lanes; ++n) p[n] = k + std::min(j + n, keys - 1) * k_stride;
    for (Index r = 0; r < rows; ++r) {
      next.prefetch({j + r * lanes / rows, j + (r + 1) * lanes / rows});
      dot_keys<Arch>(p, queries + r * query_stride, dim, scores + r * score_stride + j,
                     std::make_index_sequence<static_cast<std::size_t>(lanes)>{});
    }
  }
}

/// out[r] = factor[r] out[r] + sum_j p[r * p_stride + j] v[j] for M rows, all whole vectors of columns.
template <class Arch, std::size_t M, class T>
[[gnu::noinline]] void add_values(Index keys, Index vectors, const T* p, Index p_stride, const T* v, Index v_stride,
                                  T* out, Index out_stride, const T* factor) noexcept {
  using V = simd::Vec<T, Arch>;
  constexpr Index lanes = simd::lanes<T, Arch>;
  const auto columns = [&]<std::size_t NV>(std::integral_constant<std::size_t, NV>) {
    V acc[M][NV];
    tile_load(acc, out, out_stride);
    for (std::size_t r = 0; r < M; ++r) {
      for (std::size_t c = 0; c < NV; ++c) acc[r][c] = acc[r][c] * V(factor[r]);
    }
    tile_product(acc, keys, BroadcastRows<T>{p, p_stride}, v, v_stride);
    tile_store(acc, out, out_stride);
    v += static_cast<Index>(NV) * lanes;
    out += static_cast<Index>(NV) * lanes;
    vectors -= static_cast<Index>(NV);
  };
  while (vectors >= 4) columns(std::integral_constant<std::size_t, 4>{});
  if (vectors >= 2) columns(std::integral_constant<std::size_t, 2>{});
  if (vectors >= 1) columns(std::integral_constant<std::size_t, 1>{});
}

/// All queries of the groups of some key/value heads against one part of the keys.
template <class T, class Arch, AttentionMask M, class Score>
class DecodePart {
  using V = simd::Vec<T, Arch>;
  static constexpr Index lanes = simd::lanes<T, Arch>;
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  static constexpr Index most_rows = 4;  // whose outputs are in registers together

 public:
  DecodePart(const AttentionInputs<T>& in, const ForwardPlan& plan, const ForwardOutput<T>& out, const M& mask,
             const Score& score)
      : in_(in),
        plan_(plan),
        out_(out),
        mask_(mask),
        score_(score),
        rows_(in.queries * in.group()),
        key_stride_(round_up(in.key_dim, lanes)),
        value_stride_(round_up(in.value_dim, lanes)),
        memory_(rows_ * (plan.heads * (key_stride_ + value_stride_ + 2) + plan.tile + 1)) {
    all_queries_ = memory_.data();
    all_values_out_ = all_queries_ + plan.heads * rows_ * key_stride_;
    p_ = all_values_out_ + plan.heads * rows_ * value_stride_;
    all_max_ = p_ + rows_ * plan.tile;
    all_sum_ = all_max_ + plan.heads * rows_;
    factor_ = all_sum_ + plan.heads * rows_;
  }

  /// Key/value heads first .. first + plan.heads - 1.
  void run(Index batch, Index first, Index part) {
    const Range all = intersect({part * plan_.part_keys, (part + 1) * plan_.part_keys}, {0, in_.keys});
    const auto block_of = [&](Index n) {
      select(n);
      return RowBlock{batch, first + n, (first + n) * in_.group(), in_.group(), 0, in_.queries};
    };
    Range seen{};
    for (Index n = 0; n < plan_.heads; ++n) {
      const RowBlock block = block_of(n);
      seen = hull(seen, block.keys(mask_, 0, rows_, all));
      begin(block, part);
    }
    for (Index j = seen.begin; j < seen.end; j += plan_.tile) {
      const Range tile{j, std::min(j + plan_.tile, seen.end)};
      const Range next = intersect({tile.end, tile.end + plan_.tile}, seen);
      for (Index n = 0; n < plan_.heads; ++n) key_tile(block_of(n), tile, next);
    }
    for (Index n = 0; n < plan_.heads; ++n) {
      const RowBlock block = block_of(n);
      for (Index r = 0; r < rows_; ++r) {
        out_.template put<Arch>(part, batch, block.head(r), block.query(r), values_out_ + r * value_stride_, max_[r],
                                sum_[r]);
      }
    }
  }

 private:
  /// The state of the n-th head.
  void select(Index n) noexcept {
    queries_ = all_queries_ + n * rows_ * key_stride_;
    values_out_ = all_values_out_ + n * rows_ * value_stride_;
    max_ = all_max_ + n * rows_;
    sum_ = all_sum_ + n * rows_;
  }

  void begin(const RowBlock& block, Index part) {
    const V scale(in_.scale * query_factor<T>(score_));
    const bool sink = in_.sinks != nullptr && part == 0;
    for (Index r = 0; r < rows_; ++r) {
      const T* const q = in_.q.at(block.batch, block.query(r), block.head(r));
      T* const to = queries_ + r * key_stride_;
      simd::for_lanes<T, Arch>(
          in_.key_dim, [&](Index c, Index n) { simd::store(to + c, V(simd::load_partial<Arch>(q + c, n) * scale)); });
      max_[r] = sink ? in_.sinks[block.head(r)] * query_factor<T>(score_) : -infinity;
      sum_[r] = sink ? T(1) : T(0);
    }
    std::fill_n(values_out_, rows_ * value_stride_, T(0));
  }

  void key_tile(const RowBlock& block, Range tile, Range next) {
    const Index count = tile.size();
    const Cover cover = block.cover(mask_, 0, rows_, tile);
    if (cover == Cover::empty) return;
    const bool partial = hides_ || cover == Cover::partial;
    dot_rows<Arch>(rows_, count, in_.key_dim, queries_, key_stride_, in_.k.at(block.batch, tile.begin, block.kv_head),
                   in_.k.row_stride, p_, plan_.tile,
                   NextRows<T>{in_.k, in_.v, block.batch, block.kv_head, in_.key_dim, in_.value_dim, next});
    bool hidden = false;
    for (Index r = 0; r < rows_; ++r) {
      hidden |= if_plain<Score>(plain_, [&](auto plain) {
        return partial ? softmax<true, plain>(block, r, tile) : softmax<false, plain>(block, r, tile);
      });
    }
    const T* const v = in_.v.at(block.batch, tile.begin, block.kv_head);
    if (!hides_nothing_ && hidden) {
      Scratch<T> copy(count * value_stride_);
      if (!copy_rows<Arch>(v, in_.v.row_stride, count, in_.value_dim, copy.data(), value_stride_, count, T(1), true)) {
        const WithoutBadRows<T> guard(copy.data(), value_stride_, in_.value_dim, count);
        weigh(copy.data(), value_stride_, count);
        for (Index r = 0; r < rows_; ++r) {
          guard.add({0, count}, p_ + r * plan_.tile, 1, 1, values_out_ + r * value_stride_, value_stride_);
        }
        return;
      }
    }
    weigh(v, in_.v.row_stride, count);
  }

  /// Scores of row r become exp(t - max). Returns whether some pair is hidden.
  template <bool partial, bool plain>
  bool softmax(const RowBlock& block, Index r, Range tile) {
    alignas(64) static constexpr auto steps = [] {
      std::array<T, static_cast<std::size_t>(lanes)> x{};
      for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(i);
      return x;
    }();
    const Index count = tile.size();
    T* const scores = p_ + r * plan_.tile;
    V top(-infinity);
    bool hidden = false;
    Pairs<T, Arch> pairs{block.batch, block.head(r), nullptr, V(static_cast<T>(block.query(r))), V(T(0)), lanes, block.query(r), 0, true};
    for (Index j = 0; j < count; j += lanes) {
      V s = simd::load<Arch>(scores + j);
      const Index n = std::min(lanes, count - j);
      if constexpr (partial || !plain) {
        const V key = V::load_aligned(steps.data()) + V(static_cast<T>(tile.begin + j));
        pairs.key = simd::min(key, V(static_cast<T>(tile.end - 1)));
        pairs.count = n;
        pairs.first_key = tile.begin + j;
        if constexpr (!plain) s = score_.value(s, pairs);
        if constexpr (partial && !mask_hides_nothing<M>) {
          const auto visible = mask_visible(mask_, pairs);
          hidden |= !simd::all(visible);
          s = simd::select(visible, s, V(-infinity));
        }
        hidden |= hides_;
      }
      if (n < lanes) s = simd::select(simd::lane_mask<T, Arch>(n), s, V(-infinity));
      if (partial || !plain || n < lanes) simd::store(scores + j, s);
      top = simd::max(top, s);
    }
    const T highest = simd::hmax(top), before = max_[r], now = before > highest ? before : highest;
    const T from = now == -infinity ? T(0) : now;
    V sum(T(0));
    for (Index j = 0; j < count; j += lanes) {
      const V p = exp_difference<plain>(V(simd::load<Arch>(scores + j) - V(from)));
      sum += p;
      simd::store(scores + j, p);
    }
    factor_[r] = before == -infinity ? T(0) : exp_difference<plain>(V(before - from)).get(0);
    sum_[r] = sum_[r] * factor_[r] + simd::hsum(sum);
    max_[r] = now;
    return hidden;
  }

  void weigh(const T* v, Index v_stride, Index count) noexcept {
    const Index vectors = in_.value_dim / lanes;
    for (Index r = 0; r < rows_;) {
      const Index left = rows_ - r, now = left >= most_rows ? most_rows : (left >= 2 ? 2 : 1);
      const T* const p = p_ + r * plan_.tile;
      T* const out = values_out_ + r * value_stride_;
      if (now == 4) {
        add_values<Arch, 4>(count, vectors, p, plan_.tile, v, v_stride, out, value_stride_, factor_ + r);
      } else if (now == 2) {
        add_values<Arch, 2>(count, vectors, p, plan_.tile, v, v_stride, out, value_stride_, factor_ + r);
      } else {
        add_values<Arch, 1>(count, vectors, p, plan_.tile, v, v_stride, out, value_stride_, factor_ + r);
      }
      r += now;
    }
    const Index first = vectors * lanes, tail = in_.value_dim - first;
    if (tail == 0) return;
    for (Index r = 0; r < rows_; ++r) {
      T* const out = values_out_ + r * value_stride_ + first;
      V sum = simd::load<Arch>(out) * V(factor_[r]);
      for (Index j = 0; j < count; ++j) {
        sum = simd::fma(V(p_[r * plan_.tile + j]), simd::load_partial<Arch>(v + j * v_stride + first, tail), sum);
      }
      simd::store(out, sum);
    }
  }

  const AttentionInputs<T>& in_;
  const ForwardPlan& plan_;
  const ForwardOutput<T>& out_;
  const M& mask_;
  const Score& score_;
  const bool plain_ = changes_nothing_now(score_), hides_ = can_hide_now(score_);
  const bool hides_nothing_ = hides_nothing_now(mask_) && !hides_;
  Index rows_, key_stride_, value_stride_;
  Scratch<T> memory_;
  T *all_queries_, *all_values_out_, *all_max_, *all_sum_, *p_, *factor_;
  T *queries_, *values_out_, *max_, *sum_;  // of the selected head
};

/// All groups of heads, few query rows each.
template <class T, class Arch, AttentionMask M, class Score>
void decode_parts(const AttentionInputs<T>& in, const ForwardPlan& plan, const ForwardOutput<T>& out, const M& mask,
                  const Score& score) {
  const double numbers =
      static_cast<double>(plan.part_keys * plan.heads) * static_cast<double>(in.key_dim + in.value_dim);
  const auto grain = static_cast<Index>(1e5 / std::max(numbers, 1.0)) + 1;  // some 10 microseconds
  const Index groups = in.kv_heads / plan.heads;
  parallel_for(in.batch * groups * plan.parts, grain, [&](Index begin, Index end) {
    DecodePart<T, Arch, M, Score> worker(in, plan, out, mask, score);
    for (Index task = begin; task < end; ++task) {
      const Index part = task % plan.parts, group = task / plan.parts % groups;
      worker.run(task / (plan.parts * groups), group * plan.heads, part);
    }
  });
}

}  // namespace ordo::kernels::detail
