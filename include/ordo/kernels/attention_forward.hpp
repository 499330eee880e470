#pragma once
/// \file
/// The forward pass of the attention engine (attention_tile.hpp) for many query rows; attention_decode.hpp takes few.
///
/// Scores are computed with queries in the lanes, so that maxima and sums of the softmax run down the lanes and nothing
/// is reduced across them; exp(scores) then is, in place, the transposed left operand of the product with the values.

#include <cmath>
#include <iterator>
#include <limits>
#include <optional>

#include "ordo/kernels/attention_block.hpp"

namespace ordo::kernels::detail {

/// Where a piece of the forward pass puts its rows: finished ones into the outputs, or, if the keys are split among
/// tasks, unfinished ones (sum of exp(t - max) v, max, sum of exp(t - max)) into the parts.
template <class T>
struct ForwardOutput {
  AttentionOutputs<T> to;
  T factor = T(1);           ///< exponent_factor() of the score policy
  T* part_values = nullptr;  ///< [parts, B, H, Lq, V]
  T* part_max = nullptr;     ///< [parts, B, H, Lq]
  T* part_sum = nullptr;     ///< [parts, B, H, Lq]
  Index heads = 0, queries = 0, value_dim = 0, all_rows = 0;

  /// values[V], not yet divided by sum.
  template <class Arch>
  void put(Index part, Index b, Index h, Index i, const T* values, T max, T sum) const noexcept {
    using V = simd::Vec<T, Arch>;
    const Index row = (b * heads + h) * queries + i;
    if (part_values != nullptr) {
      const Index at = part * all_rows + row;
      std::copy_n(values, value_dim, part_values + at * value_dim);
      part_max[at] = max;
      part_sum[at] = sum;
      return;
    }
    const V inverse(sum == T(0) ? T(0) : T(1) / sum);
    simd::transform<Arch>(values, to.o.at(b, i, h), value_dim, [&](const V& x) { return V(x * inverse); });
    put_sums(row, max, sum);
  }

  void put_sums(Index row, T max, T sum) const noexcept {
    if (to.lse != nullptr) {
      to.lse[row] =
          sum == T(0) ? -std::numeric_limits<T>::infinity() : max * (factor * std::numbers::ln2_v<T>)+std::log(sum);
    }
    if (to.statistics != nullptr) {
      to.statistics[2 * row] = max;
      to.statistics[2 * row + 1] = std::log2(sum);
    }
  }

  /// Puts the parts of all rows together, in the order of the parts.
  template <class Arch>
  void merge(Index parts, Index batch) const {
    using V = simd::Vec<T, Arch>;
    parallel_for(batch * heads * queries, std::max<Index>(1, 16384 / value_dim), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) {
        T max = -std::numeric_limits<T>::infinity();
        for (Index p = 0; p < parts; ++p) {
          const T m = part_max[p * all_rows + r];
          max = m > max || m != m ? m : max;
        }
        T* const o = to.o.at(r / (queries * heads), r % queries, r / queries % heads);
        T sum = T(0);
        std::fill_n(o, value_dim, T(0));
        for (Index p = 0; p < parts; ++p) {
          const Index from = p * all_rows + r;
          if (part_sum[from] == T(0)) continue;
          const T weight = std::exp2((part_max[from] - max) * factor);
          sum += weight * part_sum[from];
          const V w(weight);
          simd::transform<Arch>(o, part_values + from * value_dim, o, value_dim,
                                [&](const V& x, const V& y) { return V(simd::fma(w, y, x)); });
        }
        const V inverse(sum == T(0) ? T(0) : T(1) / sum);
        simd::transform<Arch>(o, o, value_dim, [&](const V& x) { return V(x * inverse); });
        put_sums(r, max, sum);
      }
    });
  }
};

/// How the forward pass is cut: by the shape alone.
struct ForwardPlan {
  Index count = 0;      ///< queries of a block
  Index blocks = 0;     ///< of the queries
  Index tile = 0;       ///< keys at a time
  Index parts = 1;      ///< of the keys
  Index part_keys = 0;  ///< keys of a part
  Index heads = 1;      ///< key/value heads of a task (attention_decode.hpp)

  Index tasks(Index batch, Index kv_heads) const noexcept { return batch * kv_heads * blocks * parts; }
};

/// Splits the keys where there are few blocks and many keys. Too fine a split costs more than it brings.
inline void split_keys(ForwardPlan& plan, Index tasks, Index keys) noexcept {
  constexpr Index enough_tasks = 32, least_keys = 1024;
  plan.parts = std::clamp<Index>(enough_tasks / std::max<Index>(tasks, 1), 1, std::max<Index>(keys / least_keys, 1));
  plan.part_keys = round_up((keys + plan.parts - 1) / plan.parts, 64);
  plan.parts = std::max<Index>((keys + plan.part_keys - 1) / std::max<Index>(plan.part_keys, 1), 1);
}

template <class T, class Arch>
ForwardPlan forward_plan(const AttentionInputs<T>& in) noexcept {
  using Tile = AttentionTile<T, Arch>;
  ForwardPlan plan;
  // Queries and outputs of a block stay in the L2; the keys and values are copied once for each block.
  constexpr Index block_bytes = 1 << 18;
  const Index row_bytes = (in.key_dim + in.value_dim) * static_cast<Index>(sizeof(T));
  plan.count = std::max<Index>(std::clamp<Index>(block_bytes / row_bytes, 128, 512) / in.group(), 1);
  if (plan.count > Tile::panel) plan.count = plan.count / Tile::panel * Tile::panel;
  plan.count = std::min(plan.count, in.queries);
  plan.blocks = (in.queries + plan.count - 1) / plan.count;
  constexpr Index tile_bytes = 32768;  // of values
  plan.tile =
      round_up(std::clamp<Index>(tile_bytes / static_cast<Index>(sizeof(T)) / in.value_dim, 32, 128), Tile::key_rows);
  split_keys(plan, in.batch * in.kv_heads * plan.blocks, in.keys);
  return plan;
}

/// One block of query rows against one part of the keys.
template <class T, class Arch, AttentionMask M, class Score>
class ForwardBlock {
  using Tile = AttentionTile<T, Arch>;
  using V = simd::Vec<T, Arch>;
  static constexpr T infinity = std::numeric_limits<T>::infinity();

 public:
  ForwardBlock(const AttentionInputs<T>& in, const ForwardPlan& plan, const ForwardOutput<T>& out, const M& mask,
               const Score& score)
      : in_(in), plan_(plan), out_(out), mask_(mask), score_(score) {
    const Index padded = round_up(plan.count * in.group(), Tile::panel), keys = plan.tile + Tile::key_rows;
    key_stride_ = round_up(in.key_dim, Tile::lanes);
    value_stride_ = round_up(in.value_dim, Tile::lanes);
    const Index sizes[] = {padded * in.key_dim,
                           padded * value_stride_,
                           keys * Tile::panel,
                           keys * key_stride_,
                           keys * value_stride_,
                           padded,
                           padded,
                           padded,
                           padded};
    T** const parts[] = {&queries_, &values_out_, &scores_, &keys_, &values_, &max_, &sum_, &factor_, &lane_queries_};
    Index all = 0;
    for (const Index n : sizes) all += round_up(n, 16);
    memory_.emplace(all);
    heads_.emplace(padded);
    T* p = memory_->data();
    for (std::size_t i = 0; i < std::size(sizes); ++i) {
      *parts[i] = p;
      p += round_up(sizes[i], 16);
    }
  }

  void run(const RowBlock& block, Index part) {
    const Range all = intersect({part * plan_.part_keys, (part + 1) * plan_.part_keys}, {0, in_.keys});
    const Index rows = block.rows(), padded = round_up(rows, Tile::panel);
    const Range seen = block.keys(mask_, 0, rows, all);
    const Range first = intersect({seen.begin, seen.begin + plan_.tile}, seen);
    prefetch_rows(in_.k, block.batch, block.kv_head, first, in_.key_dim);
    prefetch_rows(in_.v, block.batch, block.kv_head, first, in_.value_dim);
    begin(block, padded, part);
    for (Index j = seen.begin; j < seen.end; j += plan_.tile) {
      const Range tile{j, std::min(j + plan_.tile, seen.end)};
      if (block.cover(mask_, 0, rows, tile) == Cover::empty) continue;
      copy_rows<Arch>(in_.k.at(block.batch, j, block.kv_head), in_.k.row_stride, tile.size(), in_.key_dim, keys_,
                      key_stride_, tile.size() + Tile::key_rows, T(1), false);
      const bool finite = copy_rows<Arch>(in_.v.at(block.batch, j, block.kv_head), in_.v.row_stride, tile.size(),
                                          in_.value_dim, values_, value_stride_, tile.size(), T(1), !hides_nothing_);
      const Index panels = padded / Tile::panel;
      const Index ahead = (plan_.tile + panels - 1) / panels;  // keys of the next tile for each panel of this one
      for (Index r = 0; r < padded; r += Tile::panel) {
        const Index from = tile.end + r / Tile::panel * ahead;
        const Range next = intersect({from, from + ahead}, {tile.end, std::min(tile.end + plan_.tile, seen.end)});
        prefetch_rows(in_.k, block.batch, block.kv_head, next, in_.key_dim);
        prefetch_rows(in_.v, block.batch, block.kv_head, next, in_.value_dim);
        panel(block, r, tile, finite);
      }
    }
    block.runs(0, rows, [&](Index r, Index h, Range i) {
      for (Index n = 0; n < i.size(); ++n) {
        out_.template put<Arch>(part, block.batch, h, i.begin + n, values_out_ + (r + n) * value_stride_, max_[r + n],
                                sum_[r + n]);
      }
    });
  }

 private:
  void begin(const RowBlock& block, Index padded, Index part) {
    const Index rows = block.rows();
    BlockRows<const T> q(in_.q, block);
    const T scale = in_.scale * query_factor<T>(score_);
    for (Index r = 0; r < padded; r += Tile::panel) {
      transpose_rows(q, std::min(Tile::panel, rows - r), in_.key_dim, queries_ + r * in_.key_dim, Tile::panel, scale);
    }
    if (!hides_nothing_ || !plain_) {
      lanes_ = RowLanes<T, Arch>(lane_queries_, heads_->data());
      lanes_.fill(block, padded);
    }
    std::fill_n(values_out_, padded * value_stride_, T(0));
    const bool sink = in_.sinks != nullptr && part == 0;
    std::fill_n(max_, padded, -infinity);
    std::fill_n(sum_, padded, sink ? T(1) : T(0));
    if (sink) {
      block.runs(0, rows, [&](Index r, Index h, Range i) {
        std::fill_n(max_ + r, i.size(), in_.sinks[h] * query_factor<T>(score_));
      });
    }
  }

  void panel(const RowBlock& block, Index r, Range tile, bool finite) {
    const PanelView<T, Arch> view = look(block, r, tile);
    if (!view.any) return;
    panel_scores(view, in_.key_dim, keys_, key_stride_, queries_ + r * in_.key_dim, scores_, Tile::panel);
    for (Index lane = 0; lane < Tile::panel; lane += Tile::lanes) {
      const Index u = lane / Tile::unit;
      if (view.keys[u].empty()) continue;
      if_plain<Score>(plain_, [&](auto plain) {
        if (view.partial[u]) {
          softmax<true, plain>(r, lane, view.keys[u], tile.begin);
        } else {
          softmax<false, plain>(r, lane, view.keys[u], tile.begin);
        }
      });
    }
    if (!hides_nothing_ && !finite && view.any_partial) {
      const WithoutBadRows<T> guard(values_, value_stride_, in_.value_dim, tile.size());
      weigh(view, r);
      for (Index u = 0; u < view.units; ++u) {
        guard.add(view.keys[u], scores_ + u * Tile::unit, Tile::panel, Tile::unit,
                  values_out_ + (r + u * Tile::unit) * value_stride_, value_stride_);
      }
    } else {
      weigh(view, r);
    }
  }

  PanelView<T, Arch> look(const RowBlock& block, Index r, Range tile) const {
    if (hides_nothing_) {
      return PanelView<T, Arch>(block.rows() - r, tile.size());
    } else {
      return PanelView<T, Arch>(mask_, block, r, tile, hides_);
    }
  }

  /// Scores of the keys become exp(t - max), and max_, sum_ and factor_ of the lanes go on.
  template <bool partial, bool plain>
  void softmax(Index r, Index lane, Range keys, Index first_key) {
    T* const scores = scores_ + lane;
    const Index at = r + lane;
    V top(-infinity);
    if constexpr (partial || !plain) {
      Pairs<T, Arch> pairs = lanes_.at(at);
      for (Index j = keys.begin; j < keys.end; ++j) {
        V s = V::load_unaligned(scores + j * Tile::panel);
        pairs.key = V(static_cast<T>(first_key + j));
        pairs.first_key = first_key + j;
        if constexpr (!plain) s = score_.value(s, pairs);
        if constexpr (partial && !mask_hides_nothing<M>) s = simd::select(mask_visible(mask_, pairs), s, V(-infinity));
        simd::store(scores + j * Tile::panel, s);
        top = simd::max(top, s);
      }
    } else {
      for (Index j = keys.begin; j < keys.end; ++j) top = simd::max(top, V::load_unaligned(scores + j * Tile::panel));
    }
    const V before = V::load_unaligned(max_ + at), now = simd::max(before, top);
    // Where nothing has been seen yet: exp(-inf - 0) = 0, and never -inf - -inf.
    const V from = simd::select(now == V(-infinity), V(T(0)), now);
    const V factor = exp_difference<plain>(V(before - from));
    V sum = V::load_unaligned(sum_ + at) * factor;
    for (Index j = keys.begin; j < keys.end; ++j) {
      const V p = exp_difference<plain>(V(V::load_unaligned(scores + j * Tile::panel) - from));
      sum += p;
      simd::store(scores + j * Tile::panel, p);
    }
    simd::store(max_ + at, now);
    simd::store(sum_ + at, sum);
    simd::store(factor_ + at, factor);
  }

  /// Rows of the output: times factor_, plus the weights in scores_ times the values.
  void weigh(const PanelView<T, Arch>& view, Index r) noexcept {
    for (Index u = 0; u < view.units;) {
      Index same = u + 1;
      while (same < view.units && view.keys[same] == view.keys[u]) ++same;
      const Range keys = view.keys[u];
      const Index lane = u * Tile::unit;
      if (!keys.empty()) {
        product_transposed<Arch>((same - u) * Tile::unit, value_stride_ / Tile::lanes, keys.size(),
                                 scores_ + keys.begin * Tile::panel + lane, Tile::panel,
                                 values_ + keys.begin * value_stride_, value_stride_,
                                 values_out_ + (r + lane) * value_stride_, value_stride_, factor_ + r + lane);
      }
      u = same;
    }
  }

  const AttentionInputs<T>& in_;
  const ForwardPlan& plan_;
  const ForwardOutput<T>& out_;
  const M& mask_;
  const Score& score_;
  const bool plain_ = changes_nothing_now(score_), hides_ = can_hide_now(score_);
  const bool hides_nothing_ = hides_nothing_now(mask_) && !hides_;
  Index key_stride_ = 0, value_stride_ = 0;
  std::optional<Scratch<T>> memory_;
  std::optional<Scratch<Index>> heads_;
  T *queries_, *values_out_, *scores_, *keys_, *values_, *max_, *sum_, *factor_, *lane_queries_;
  RowLanes<T, Arch> lanes_{nullptr, nullptr};
};

/// All blocks of many query rows.
template <class T, class Arch, AttentionMask M, class Score>
void forward_blocks(const AttentionInputs<T>& in, const ForwardPlan& plan, const ForwardOutput<T>& out, const M& mask,
                    const Score& score) {
  const double flops = 2.0 * static_cast<double>(plan.count * in.group() * plan.part_keys) *
                       static_cast<double>(in.key_dim + in.value_dim);
  const auto grain = static_cast<Index>(1e6 / flops) + 1;  // some 10 microseconds
  parallel_for(plan.tasks(in.batch, in.kv_heads), grain, [&](Index begin, Index end) {
    ForwardBlock<T, Arch, M, Score> worker(in, plan, out, mask, score);
    for (Index task = begin; task < end; ++task) {
      const Index part = task % plan.parts, n = task / plan.parts % plan.blocks;
      const Index head = task / (plan.parts * plan.blocks) % in.kv_heads;
      const Index b = task / (plan.parts * plan.blocks * in.kv_heads);
      const Index first = n * plan.count;
      worker.run({b, head, head * in.group(), in.group(), first, std::min(plan.count, in.queries - first)}, part);
    }
  });
}

}  // namespace ordo::kernels::detail
