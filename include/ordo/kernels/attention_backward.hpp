#pragma once
/// \file
/// The backward pass of the attention engine (attention_tile.hpp): scores are computed again from q, k and the saved
/// statistics of the rows, and every tile of them feeds all three gradients at once (five products a tile, where a pass
/// for dq and another for dk and dv would need seven).
///
///     p = exp(t - lse)   dp = <do_i, v_j>   delta = <do_i, o_i> - dlse_i   dt = p (dp - delta)   ds = f'(s) dt
///     dv_j = sum_i p do_i     dk_j = scale sum_i ds q_i     dq_i = scale sum_j ds k_j

#include <cmath>
#include <iterator>
#include <limits>
#include <optional>

#include "ordo/kernels/attention_block.hpp"

namespace ordo::kernels {

/// What the backward pass reads besides the inputs, and what it writes. Gradients are overwritten, all of them: keys
/// that no query sees get zeros.
template <class T>
struct AttentionGradients {
  HeadsView<const T> o;           ///< [B, Lq, H, V], the output of the forward pass
  const T* statistics = nullptr;  ///< [B, H, Lq, 2], also of the forward pass
  HeadsView<const T> d_o;         ///< [B, Lq, H, V]
  const T* d_lse = nullptr;       ///< null, or [B, H, Lq]
  HeadsView<T> dq;                ///< [B, Lq, H, K]
  HeadsView<T> dk;                ///< [B, Lk, Hk, K]
  HeadsView<T> dv;                ///< [B, Lk, Hk, V]
  T* d_sinks = nullptr;           ///< [H] if there are sinks and their gradient is wanted
};

namespace detail {

/// How the backward pass is cut: by the shape alone.
struct BackwardPlan {
  Index count = 0;      ///< queries of a block
  Index tile = 0;       ///< keys at a time
  Index parts = 1;      ///< of the keys; each has its own sum of dq
  Index part_keys = 0;  ///< keys of a part
};

template <class T, class Arch>
BackwardPlan backward_plan(const AttentionInputs<T>& in, bool one_part) noexcept {
  using Tile = AttentionTile<T, Arch>;
  constexpr Index wide = 2 * Tile::panel;
  BackwardPlan plan;
  constexpr Index block_bytes = 1 << 19;  // of copies of q and do (two each) and dq
  const Index row_bytes = (3 * in.key_dim + 2 * in.value_dim) * static_cast<Index>(sizeof(T));
  plan.count = std::max<Index>(std::clamp<Index>(block_bytes / row_bytes, 64, 512) / in.group(), 1);
  if (plan.count > wide) plan.count = plan.count / wide * wide;
  plan.count = std::min(plan.count, in.queries);
  plan.tile = round_up(64, Tile::key_rows);
  constexpr Index enough_tasks = 32, least_keys = 1024;
  plan.parts = std::clamp<Index>(enough_tasks / std::max<Index>(in.batch * in.kv_heads, 1), 1,
                                 std::max<Index>(in.keys / least_keys, 1));
  if (one_part) plan.parts = 1;
  plan.part_keys = round_up((in.keys + plan.parts - 1) / plan.parts, plan.tile);
  plan.parts = std::max<Index>((in.keys + plan.part_keys - 1) / std::max<Index>(plan.part_keys, 1), 1);
  return plan;
}

/// All query rows of one group of heads against one part of the keys.
template <class T, class Arch, AttentionMask M, class Score>
class BackwardPart {
  using Tile = AttentionTile<T, Arch>;
  using V = simd::Vec<T, Arch>;
  static constexpr T infinity = std::numeric_limits<T>::infinity();
  /// Queries that a tile of keys meets at a time: two panels, because the sums over queries become longer.
  static constexpr Index wide = 2 * Tile::panel;
  static constexpr Index units = wide / Tile::unit;
  static constexpr Index units_in_panel = Tile::panel / Tile::unit;

 public:
  BackwardPart(const AttentionInputs<T>& in, const BackwardPlan& plan, const AttentionGradients<T>& grad, const M& mask,
               const Score& score, T* part_dq)
      : in_(in), plan_(plan), grad_(grad), mask_(mask), score_(score), part_dq_(part_dq) {
    const Index padded = round_up(plan.count * in.group(), wide), keys = plan.tile + Tile::key_rows;
    key_stride_ = round_up(in.key_dim, Tile::lanes);
    value_stride_ = round_up(in.value_dim, Tile::lanes);
    const Index sizes[] = {padded * in.key_dim,
                           padded * in.value_dim,
                           padded * key_stride_,
                           padded * value_stride_,
                           padded * key_stride_,
                           keys * key_stride_,
                           keys * value_stride_,
                           keys * key_stride_,
                           keys * value_stride_,
                           keys * wide,
                           keys * wide,
                           in.value_dim * Tile::panel,
                           padded,
                           padded,
                           padded,
                           padded};
    T** const parts[] = {&queries_, &outputs_, &query_rows_, &output_rows_, &dq_,  &keys_,    &values_, &dk_,
                         &dv_,      &p_,       &ds_,         &old_,         &max_, &log_sum_, &delta_,  &lane_queries_};
    static_assert(std::size(sizes) == std::size(parts));
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

  void run(Index batch, Index kv_head, Index part) {
    const Range all = intersect({part * plan_.part_keys, (part + 1) * plan_.part_keys}, {0, in_.keys});
    for (Index first = 0; first < in_.queries; first += plan_.count) {
      const RowBlock block{batch,       kv_head, kv_head * in_.group(),
                           in_.group(), first,   std::min(plan_.count, in_.queries - first)};
      const Index rows = block.rows(), padded = round_up(rows, wide);
      const Range seen = block.keys(mask_, 0, rows, all);
      begin(block, padded);
      // Every key of the part belongs to one tile of every block, so that what was written first is what is added to.
      for (Index j = all.begin; j < all.end; j += plan_.tile) {
        const Range tile{j, std::min(j + plan_.tile, all.end)};
        const Range used = intersect(tile, seen);
        if (used.empty() || block.cover(mask_, 0, rows, used) == Cover::empty) {
          if (first == 0) write_keys(batch, kv_head, tile, {}, true);
          continue;
        }
        key_tile(block, padded, used);
        write_keys(batch, kv_head, tile, used, first == 0);
      }
      write_queries(block, part);
    }
    if (in_.queries == 0) write_keys(batch, kv_head, all, {}, true);
  }

 private:
  void begin(const RowBlock& block, Index padded) {
    const Index rows = block.rows();
    BlockRows<const T> q(in_.q, block), d_o(grad_.d_o, block), o(grad_.o, block);
    const T scale = in_.scale * query_factor<T>(score_);
    std::fill_n(max_, padded, infinity);
    std::fill_n(log_sum_, padded, T(0));
    std::fill_n(delta_, padded, T(0));
    block.runs(0, rows, [&](Index r, Index h, Range i) {
      const Index at = (block.batch * in_.heads + h) * in_.queries;
      for (Index n = 0; n < i.size(); ++n) {
        const T* const row = grad_.statistics + 2 * (at + i.begin + n);
        if (row[0] != -infinity) {  // else the row saw nothing: exp(t - inf) = 0 whatever t is
          max_[r + n] = row[0];
          log_sum_[r + n] = row[1];
        }
        if (grad_.d_lse != nullptr) delta_[r + n] = -grad_.d_lse[at + i.begin + n];
      }
      copy_rows<Arch>(in_.q.at(block.batch, i.begin, h), in_.q.row_stride, i.size(), in_.key_dim,
                      query_rows_ + r * key_stride_, key_stride_, i.size(), in_.scale, false);
      copy_rows<Arch>(grad_.d_o.at(block.batch, i.begin, h), grad_.d_o.row_stride, i.size(), in_.value_dim,
                      output_rows_ + r * value_stride_, value_stride_, i.size(), T(1), false);
    });
    for (Index r = 0; r < padded; r += Tile::panel) {
      const Index count = std::min(rows - r, Tile::panel);
      transpose_rows(q, count, in_.key_dim, queries_ + r * in_.key_dim, Tile::panel, scale);
      T* const lanes = outputs_ + r * in_.value_dim;
      transpose_rows(d_o, count, in_.value_dim, lanes, Tile::panel, T(1));
      transpose_rows(o, count, in_.value_dim, old_, Tile::panel, T(1));
      // In the order of the product for dp, so that a row with one key, where o = v, gets a ds of exactly 0.
      for (Index lane = 0; lane < Tile::panel; lane += Tile::lanes) {
        V delta(T(0));
        for (Index c = 0; c < in_.value_dim; ++c) {
          delta = simd::fma(simd::load<Arch>(lanes + c * Tile::panel + lane),
                            simd::load<Arch>(old_ + c * Tile::panel + lane), delta);
        }
        simd::store(delta_ + r + lane, V(delta + simd::load<Arch>(delta_ + r + lane)));
      }
    }
    hide_empty_rows(rows);
    if (!hides_nothing_ || !plain_) {
      lanes_ = RowLanes<T, Arch>(lane_queries_, heads_->data());
      lanes_.fill(block, padded);
    }
    std::fill_n(dq_, padded * key_stride_, T(0));
  }

  /// A query that sees nothing may hold anything: it must not reach dk and dv as 0 * NaN.
  void hide_empty_rows(Index rows) noexcept {
    for (Index r = 0; r < rows; ++r) {
      if (max_[r] != infinity) continue;
      std::fill_n(query_rows_ + r * key_stride_, key_stride_, T(0));
      std::fill_n(output_rows_ + r * value_stride_, value_stride_, T(0));
    }
  }

  void key_tile(const RowBlock& block, Index padded, Range tile) {
    const Index count = tile.size(), all = count + Tile::key_rows, rows = block.rows();
    const bool finite = copy_rows<Arch>(in_.k.at(block.batch, tile.begin, block.kv_head), in_.k.row_stride, count,
                                        in_.key_dim, keys_, key_stride_, all, T(1), !hides_nothing_);
    copy_rows<Arch>(in_.v.at(block.batch, tile.begin, block.kv_head), in_.v.row_stride, count, in_.value_dim, values_,
                    value_stride_, all, T(1), false);
    std::fill_n(dk_, all * key_stride_, T(0));
    std::fill_n(dv_, all * value_stride_, T(0));
    for (Index r = 0; r < padded; r += wide) {
      const Index many = std::min(wide, rows - r);
      if (many <= 0) break;
      if (hides_nothing_ || (!hides_ && block.cover(mask_, r, r + many, tile) == Cover::full)) {
        all_pairs(r, many, tile);
      } else {
        some_pairs(block, r, many, tile, finite);
      }
    }
  }

  /// Rows r .. r + count - 1 see all keys of the tile.
  void all_pairs(Index r, Index count, Range tile) {
    const Index keys = tile.size(), lanes = round_up(count, Tile::unit);
    for (Index lane = 0; lane < count; lane += Tile::panel) {
      scores(r + lane, lane, PanelView<T, Arch>(count - lane, keys));
    }
    for (Index lane = 0; lane < lanes; lane += Tile::lanes) softmax(false, r, lane, {0, keys}, tile.begin);
    pad_keys(keys);
    key_products(r, {0, count}, {0, keys});
    query_products(r, {0, lanes}, {0, keys});
  }

  void some_pairs(const RowBlock& block, Index r, Index count, Range tile, bool finite) {
    const Index keys = tile.size();
    Range seen[units]{};
    bool any = false, any_partial = false;
    for (Index lane = 0; lane < count; lane += Tile::panel) {
      const PanelView<T, Arch> view(mask_, block, r + lane, tile, hides_);
      if (view.any) scores(r + lane, lane, view);
      for (Index u = 0; u < units_in_panel; ++u) {
        const Range now = view.keys[u];
        seen[lane / Tile::unit + u] = now;
        for (Index at = lane + u * Tile::unit; at < lane + (u + 1) * Tile::unit; at += Tile::lanes) {
          if (!now.empty()) softmax(view.partial[u], r, at, now, tile.begin);
          clear(at, {0, now.empty() ? keys : now.begin});
          clear(at, {now.empty() ? keys : now.end, keys});
        }
      }
      any |= view.any;
      any_partial |= view.any_partial;
    }
    if (!any) return;
    pad_keys(keys);
    // Keys that are seen by the same units together.
    for (Index j = 0; j < keys;) {
      const Range rows = rows_that_see(seen, j, count);
      Index end = j + Tile::key_rows;
      while (end < keys && rows_that_see(seen, end, count) == rows) end += Tile::key_rows;
      end = std::min(end, keys);
      if (!rows.empty()) key_products(r, rows, {j, end});
      j = end;
    }
    if (!finite && any_partial) {
      const WithoutBadRows<T> guard(keys_, key_stride_, in_.key_dim, keys);
      for (Index u = 0; u < units; ++u) {
        const Index lane = u * Tile::unit;
        query_products(r, {lane, lane + Tile::unit}, seen[u]);
        guard.add(seen[u], ds_ + lane, wide, Tile::unit, dq_ + (r + lane) * key_stride_, key_stride_);
      }
      return;
    }
    for (Index u = 0; u < units;) {
      Index same = u + 1;
      while (same < units && seen[same] == seen[u]) ++same;
      query_products(r, {u * Tile::unit, same * Tile::unit}, seen[u]);
      u = same;
    }
  }

  /// The hull of the rows that see one of the keys j .. j + key_rows - 1.
  static Range rows_that_see(const Range (&seen)[units], Index j, Index count) noexcept {
    Range rows{};
    for (Index u = 0; u < units; ++u) {
      if (!intersect(seen[u], {j, j + Tile::key_rows}).empty()) {
        rows = hull(rows, {u * Tile::unit, std::min((u + 1) * Tile::unit, count)});
      }
    }
    return rows;
  }

  /// p_ = <k, q> and ds_ = <v, do> of a panel that stands at `lane` of the tile.
  void scores(Index r, Index lane, const PanelView<T, Arch>& view) noexcept {
    panel_scores(view, in_.key_dim, keys_, key_stride_, queries_ + r * in_.key_dim, p_ + lane, wide);
    panel_scores(view, in_.value_dim, values_, value_stride_, outputs_ + r * in_.value_dim, ds_ + lane, wide);
  }

  /// p_ becomes p, ds_ becomes ds.
  void softmax(bool partial, Index r, Index lane, Range keys, Index first_key) {
    if_plain<Score>(plain_, [&](auto plain) {
      if (partial) {
        softmax<true, plain>(r, lane, keys, first_key);
      } else {
        softmax<false, plain>(r, lane, keys, first_key);
      }
    });
  }
  template <bool partial, bool plain>
  void softmax(Index r, Index lane, Range keys, Index first_key) {
    const V max = simd::load<Arch>(max_ + r + lane), log_sum = simd::load<Arch>(log_sum_ + r + lane);
    const V delta = simd::load<Arch>(delta_ + r + lane);
    T *const scores = p_ + lane, *const d = ds_ + lane;
    if constexpr (partial || !plain) {
      Pairs<T, Arch> pairs = lanes_.at(r + lane);
      for (Index j = keys.begin; j < keys.end; ++j) {
        const V s = simd::load<Arch>(scores + j * wide);
        pairs.key = V(static_cast<T>(first_key + j));
        pairs.first_key = first_key + j;
        V t = s;
        if constexpr (!plain) t = score_.value(s, pairs);
        V p = weight<plain>(t, max, log_sum);
        V dt = p * (simd::load<Arch>(d + j * wide) - delta);
        if constexpr (partial) {
          const simd::Mask<T, Arch> seen = visible(pairs, t);
          p = simd::select(seen, p, V(T(0)));
          dt = simd::select(seen, dt, V(T(0)));
          // Again, because s may be NaN where it is hidden.
          if constexpr (!plain) dt = simd::select(seen, score_.gradient(dt, s, t, pairs), V(T(0)));
        } else {
          if constexpr (!plain) dt = score_.gradient(dt, s, t, pairs);
        }
        simd::store(scores + j * wide, p);
        simd::store(d + j * wide, dt);
      }
    } else {
      for (Index j = keys.begin; j < keys.end; ++j) {
        const V p = weight<plain>(simd::load<Arch>(scores + j * wide), max, log_sum);
        const V dt = p * (simd::load<Arch>(d + j * wide) - delta);
        simd::store(scores + j * wide, p);
        simd::store(d + j * wide, dt);
      }
    }
  }

  /// exp(t - max) / sum
  template <bool plain>
  static V weight(const V& t, const V& max, const V& log_sum) noexcept {
    if constexpr (plain) {
      return simd::exp2_nonpositive((t - max) - log_sum);
    } else {
      return simd::exp2_nonpositive(simd::fms(t - max, V(std::numbers::log2e_v<T>), log_sum));
    }
  }

  simd::Mask<T, Arch> visible(const Pairs<T, Arch>& pairs, const V& t) const {
    if constexpr (!score_can_hide<Score>) {
      return mask_visible(mask_, pairs);
    } else if constexpr (mask_hides_nothing<M>) {
      return t != V(-infinity);
    } else {
      return mask_visible(mask_, pairs) && t != V(-infinity);
    }
  }

  void clear(Index lane, Range keys) noexcept {
    for (Index j = keys.begin; j < keys.end; ++j) {
      simd::store(p_ + j * wide + lane, V(T(0)));
      simd::store(ds_ + j * wide + lane, V(T(0)));
    }
  }

  /// The products below read whole register tiles of keys.
  void pad_keys(Index keys) noexcept {
    const Index missing = round_up(keys, Tile::key_rows) - keys;
    std::fill_n(p_ + keys * wide, missing * wide, T(0));
    std::fill_n(ds_ + keys * wide, missing * wide, T(0));
  }

  /// dv += p do and dk += ds q over some of the rows behind r. Keys begin at a multiple of key_rows.
  void key_products(Index r, Range rows, Range keys) noexcept {
    const Index at = keys.begin * wide + rows.begin;
    product_rows<Arch>(keys.size(), value_stride_ / Tile::lanes, rows.size(), p_ + at, wide,
                       output_rows_ + (r + rows.begin) * value_stride_, value_stride_, dv_ + keys.begin * value_stride_,
                       value_stride_, true);
    product_rows<Arch>(keys.size(), key_stride_ / Tile::lanes, rows.size(), ds_ + at, wide,
                       query_rows_ + (r + rows.begin) * key_stride_, key_stride_, dk_ + keys.begin * key_stride_,
                       key_stride_, true);
  }

  /// dq += ds k
  void query_products(Index r, Range lanes, Range keys) noexcept {
    if (keys.empty() || lanes.empty()) return;
    product_transposed<Arch>(lanes.size(), key_stride_ / Tile::lanes, keys.size(),
                             ds_ + keys.begin * wide + lanes.begin, wide, keys_ + keys.begin * key_stride_, key_stride_,
                             dq_ + (r + lanes.begin) * key_stride_, key_stride_, static_cast<const T*>(nullptr));
  }

  /// Adds the sums of a tile to dk and dv, or, for the first block, sets all keys of the tile.
  void write_keys(Index batch, Index kv_head, Range tile, Range used, bool set) noexcept {
    for (Index j = tile.begin; j < tile.end; ++j) {
      const bool known = j >= used.begin && j < used.end;
      if (!known && !set) continue;
      const Index at = j - used.begin;
      write_row(grad_.dk.at(batch, j, kv_head), known ? dk_ + at * key_stride_ : nullptr, in_.key_dim, set);
      write_row(grad_.dv.at(batch, j, kv_head), known ? dv_ + at * value_stride_ : nullptr, in_.value_dim, set);
    }
  }
  static void write_row(T* to, const T* from, Index n, bool set) noexcept {
    if (from == nullptr) {
      std::fill_n(to, n, T(0));
    } else if (set) {
      simd::transform<Arch>(from, to, n, [](const V& x) { return x; });
    } else {
      simd::transform<Arch>(from, to, to, n, [](const V& x, const V& y) { return V(x + y); });
    }
  }

  void write_queries(const RowBlock& block, Index part) noexcept {
    const V scale(in_.scale);
    // A part's sums are [B, Lq, H, K].
    HeadsView<T> to = grad_.dq;
    if (part_dq_ != nullptr) {
      to = dense_heads(part_dq_ + part * in_.batch * in_.queries * in_.heads * in_.key_dim, in_.queries, in_.heads,
                       in_.key_dim);
    }
    BlockRows<T> rows(to, block);
    for (Index r = 0; r < block.rows(); ++r) {
      simd::transform<Arch>(dq_ + r * key_stride_, rows.next(), in_.key_dim, [&](const V& x) { return V(x * scale); });
    }
  }

  const AttentionInputs<T>& in_;
  const BackwardPlan& plan_;
  const AttentionGradients<T>& grad_;
  const M& mask_;
  const Score& score_;
  const bool plain_ = changes_nothing_now(score_), hides_ = can_hide_now(score_);
  const bool hides_nothing_ = hides_nothing_now(mask_) && !hides_;
  T* part_dq_;
  Index key_stride_ = 0, value_stride_ = 0;
  std::optional<Scratch<T>> memory_;
  std::optional<Scratch<Index>> heads_;
  // Lanes are queries in queries_, outputs_ (panels [dim][panel]), p_, ds_ ([key][wide]); the others are rows.
  T *queries_, *outputs_, *query_rows_, *output_rows_, *dq_, *keys_, *values_, *dk_, *dv_, *p_, *ds_, *old_, *max_,
      *log_sum_, *delta_, *lane_queries_;
  RowLanes<T, Arch> lanes_{nullptr, nullptr};
};

/// dz_h = sum over b, i of p (dlse - <do, o>), p = exp(z_h - lse), in this order.
template <class T, class Arch, class Score>
void sink_gradients(const AttentionInputs<T>& in, const AttentionGradients<T>& grad, const Score& score) {
  using V = simd::Vec<T, Arch>;
  parallel_for(in.heads, 1, [&](Index begin, Index end) {
    for (Index h = begin; h < end; ++h) {
      const T sink = in.sinks[h] * query_factor<T>(score);
      T sum = T(0);
      for (Index b = 0; b < in.batch; ++b) {
        for (Index i = 0; i < in.queries; ++i) {
          const T *d_o = grad.d_o.at(b, i, h), *o = grad.o.at(b, i, h);
          V delta(T(0));
          simd::for_lanes<T, Arch>(in.value_dim, [&](Index c, Index n) {
            delta = simd::fma(simd::load_partial<Arch>(d_o + c, n), simd::load_partial<Arch>(o + c, n), delta);
          });
          const Index at = (b * in.heads + h) * in.queries + i;
          const T d_lse = grad.d_lse == nullptr ? T(0) : grad.d_lse[at];
          const T* const row = grad.statistics + 2 * at;
          sum += std::exp2((sink - row[0]) * exponent_factor<T>(score) - row[1]) * (d_lse - simd::hsum(delta));
        }
      }
      grad.d_sinks[h] = sum;
    }
  });
}

}  // namespace detail

/// Gradients of attention_forward() with the same inputs, mask and score policy, t = f(s). The order of all sums
/// follows from the shape alone. Cost: 4 B H Lq Lk (K + V) + 2 B H Lq Lk K flops for a full mask; scratch of some 100
/// KB to 1 MB a thread, and, where few heads meet many keys, up to 32 / (B Hk) more copies of dq.
template <class T, class Arch = simd::DefaultArch, AttentionMask M, class Score>
void attention_backward(const AttentionInputs<T>& in, const AttentionGradients<T>& grad, const M& mask,
                        const Score& score) {
  using V = simd::Vec<T, Arch>;
  if (in.batch == 0) return;
  const detail::BackwardPlan plan = detail::backward_plan<T, Arch>(in, shares_gradients(score));
  const Index rows = in.batch * in.queries * in.heads;
  std::optional<Scratch<T>> part_dq;
  if (plan.parts > 1) part_dq.emplace(plan.parts * rows * in.key_dim);
  T* const parts = part_dq ? part_dq->data() : nullptr;
  const double flops = 4.0 * static_cast<double>(in.queries * in.group() * plan.part_keys) *
                       static_cast<double>(in.key_dim + in.value_dim);
  const auto grain = static_cast<Index>(1e6 / std::max(flops, 1.0)) + 1;  // some 10 microseconds
  parallel_for(in.batch * in.kv_heads * plan.parts, grain, [&](Index begin, Index end) {
    detail::BackwardPart<T, Arch, M, Score> worker(in, plan, grad, mask, score, parts);
    for (Index task = begin; task < end; ++task) {
      const Index part = task % plan.parts, head = task / plan.parts % in.kv_heads;
      worker.run(task / (plan.parts * in.kv_heads), head, part);
    }
  });
  if (parts != nullptr) {
    parallel_for(rows, std::max<Index>(1, 16384 / in.key_dim), [&](Index begin, Index end) {
      for (Index r = begin; r < end; ++r) {
        T* const to = grad.dq.at(r / (in.queries * in.heads), r / in.heads % in.queries, r % in.heads);
        const T* from = parts + r * in.key_dim;
        simd::transform<Arch>(from, to, in.key_dim, [](const V& x) { return x; });
        for (Index p = 1; p < plan.parts; ++p) {
          from += rows * in.key_dim;
          simd::transform<Arch>(from, to, to, in.key_dim, [](const V& x, const V& y) { return V(x + y); });
        }
      }
    });
  }
  if (in.sinks != nullptr && grad.d_sinks != nullptr) detail::sink_gradients<T, Arch>(in, grad, score);
}

}  // namespace ordo::kernels
