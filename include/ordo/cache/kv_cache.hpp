#pragma once
/// \file
/// KvCache: the keys and values that an attention stream remembers, all of them or those that a window still needs.

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ordo/autograd/state.hpp"
#include "ordo/ops/attention.hpp"
#include "ordo/ops/shape.hpp"

namespace ordo {

/// Which tokens of a stream a cache keeps: all, or, with a window, the last ones and the `num_sink_tokens` first.
struct CacheWindow {
  Index window = 0;  ///< 0: all tokens
  Index num_sink_tokens = 0;

  bool all() const noexcept { return window == 0; }
  /// Tokens that the cache has room for at most.
  Index capacity() const noexcept { return window + num_sink_tokens; }
  /// After t tokens: the first of those that the next query's window reaches, and how many are kept.
  Index first(Index t) const noexcept { return all() ? 0 : std::max<Index>(t - (window - 1), 0); }
  Index sinks(Index t) const noexcept { return std::min(num_sink_tokens, first(t)); }
  Index count(Index t) const noexcept { return sinks(t) + t - first(t); }
  /// The position of the n-th kept token after t.
  Index position(Index t, Index n) const noexcept { return n < sinks(t) ? n : first(t) + n - sinks(t); }
  /// The column where a ring keeps position p: sinks have columns of their own, the others take turns.
  Index slot(Index p) const noexcept { return all() || p < capacity() ? p : num_sink_tokens + (p - num_sink_tokens) % window; }
  /// The position that a ring's column holds after t tokens.
  Index held(Index t, Index column) const noexcept {
    return t <= capacity() || column < num_sink_tokens ? column : t - 1 - (t - 1 - column) % window;
  }
};

/// Keys and values of a stream: `keys` [B, n, Hk, K], `values` [B, n, Hk, V], `length` [B], the tokens that each row has seen.
///
/// Plain, n is a capacity that doubles when it is reached (reserve() it to stream without allocating), but with a window at most window +
/// num_sink_tokens columns, used as a ring. Recorded, and after compact(), the tensors hold exactly the tokens that are still needed, the
/// oldest first: that is the form in which states are written to files, and a state read from one goes on.
template <Mode M, class T>
struct KvCache : StateInterface<KvCache<M, T>> {
  using Counts = std::vector<Index, PoolAllocator<Index>>;  ///< a number for each row

  StateTensor<M, T, 4> keys, values;
  StateTensor<M, std::int32_t, 1> length;
  CacheWindow keep;

  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("keys", s.keys);
    f("values", s.values);
    f("length", s.length);
  }
  template <Mode N>
  KvCache<N, T> like() const {
    KvCache<N, T> other;
    other.keep = keep;
    return other;
  }

  /// Of a fresh stream.
  [[gnu::cold]] static KvCache empty(Index batch, Index reserve, Index kv_heads, Index key_dim, Index value_dim, CacheWindow keep = {})
    requires(M == Mode::plain)
  {
    KvCache cache;
    cache.keep = keep;
    if (!keep.all()) reserve = std::min(reserve, keep.capacity());
    cache.keys = DynTensor<T, 4>(batch, reserve, kv_heads, key_dim);
    cache.values = DynTensor<T, 4>(batch, reserve, kv_heads, value_dim);
    cache.length = DynTensor<std::int32_t, 1>(batch);
    return cache;
  }

  /// Room for `tokens` tokens in each row.
  [[gnu::cold]] void reserve(Index tokens)
    requires(M == Mode::plain)
  {
    if (!keep.all()) tokens = std::min(tokens, keep.capacity());
    if (!keep.all() && keys.extent(1) < keep.capacity() && longest() > keys.extent(1)) tokens = keep.capacity();  // compact, and some dropped
    if (tokens <= keys.extent(1)) return;
    rearrange(tokens, [this](Index t, Index p) { return std::pair(column(t, p), keep.slot(p)); });
  }
  /// Drops what is not needed any more, and the spare room; the oldest token first.
  void compact()
    requires(M == Mode::plain)
  {
    Index most = 0;
    for (const std::int32_t t : length) most = std::max(most, keep.count(t));
    const auto place = [this](Index t, Index p) { return std::pair(column(t, p), p < keep.sinks(t) ? p : keep.sinks(t) + p - keep.first(t)); };
    rearrange(most, place);
  }

  /// Appends k [B, L, Hk, K] and v [B, L, Hk, V], then attends from q [B, L, H, K] to the tokens that each query sees. `options` are causal
  /// and have the window of `keep`. `key_padding` [B, all tokens so far]: keys that nobody sees, now as in earlier calls.
  template <class Q, class K, class V, class R = None, class S = None>
  auto append_and_attend(const Q& q, const K& k, const V& v, const AttentionOptions& options, const R& relative = none, const S& sinks = none,
                         const AnyTensor<std::uint8_t>& key_padding = {}) {
    const auto vk = view(k);
    check_batch(vk.extent(0));
    detail::require_shape("kv_cache", "key_padding", key_padding, Shape{vk.extent(0), longest() + vk.extent(1)});
    if constexpr (M == Mode::plain && mode_of<Q> == Mode::plain) {
      const AnyTensor<T> r = detail::lift<T>(nullptr, relative).value, s = detail::lift<T>(nullptr, sinks).value;
      if (keep.all()) {
        const Counts past = append(vk, view(v));
        Visibility visible;
        if (!uniform(past)) visible.query_positions = positions_after(past, vk.extent(1));
        visible.key_padding = key_padding;
        return attend(view(q), keys, values, longest(), options, visible, r, s);
      }
      if (vk.extent(1) == 1 && !key_padding.present()) return attend_ring(view(q), vk, view(v), options, r, s);
      return attend_pieces(view(q), vk, view(v), options, r, s, key_padding);
    } else {
      static_assert(M == Mode::recorded, "a tracked input needs a tracked state: track(tape, state)");
      const Index past = recorded_length(), tokens = vk.extent(1), kept = keep.count(past);
      Visibility visible;
      if (!keep.all()) {
        visible.query_positions = positions_after({past}, tokens);
        visible.key_positions = AnyTensor<std::int64_t>(Shape{1, kept + tokens});
        for (Index n = 0; n < kept + tokens; ++n) visible.key_positions.data()[n] = n < kept ? keep.position(past, n) : past + n - kept;
      }
      visible.key_padding = keep.all() ? key_padding : padding_at(key_padding, visible.key_positions);
      const auto all_keys = concat(1, kept_columns(keys, past), k), all_values = concat(1, kept_columns(values, past), v);
      auto o = attention(q, all_keys, all_values, options, visible, none, relative, sinks);
      keys = without_dropped(all_keys, past + tokens);
      values = without_dropped(all_values, past + tokens);
      set_length(past + tokens);
      return o;
    }
  }

  /// Plain, all tokens kept: writes k and v behind the tokens of each row and returns how many those were.
  Counts append(const DynView<const T, 4>& k, const DynView<const T, 4>& v)
    requires(M == Mode::plain)
  {
    Counts past(length.begin(), length.end());
    const Index needed = longest() + k.extent(1);
    if (needed > keys.extent(1)) reserve(std::max(needed, 2 * keys.extent(1)));
    write(keys, k, past);
    write(values, v, past);
    for (std::int32_t& t : length) t += static_cast<std::int32_t>(k.extent(1));
    return past;
  }
  /// Recorded, all tokens kept: puts k and v behind the tokens so far.
  template <class K, class V>
  void append_recorded(const K& k, const V& v)
    requires(M == Mode::recorded)
  {
    const Index past = recorded_length();
    keys = concat(1, slice(keys, 1, 0, past), k);
    values = concat(1, slice(values, 1, 0, past), v);
    set_length(keys.extent(1));
  }
  /// The most tokens of a row.
  Index longest() const { return length.size() == 0 ? 0 : *std::max_element(length.data(), length.data() + length.size()); }
  /// The tokens of all rows; a UsageError if they differ.
  Index recorded_length() const {
    const Index past = longest();
    if (std::any_of(length.data(), length.data() + length.size(), [past](std::int32_t n) { return n != past; })) {
      fail<UsageError>("kv_cache: a recorded stream needs rows of one length");
    }
    return past;
  }
  void set_length(Index tokens)
    requires(M == Mode::recorded)
  {
    length = track(length.tape(), DynTensor<std::int32_t, 1>(DynExtents<1>(length.size()), static_cast<std::int32_t>(tokens)));
  }
  void check_batch(Index batch) const {
    if (batch != keys.extent(0)) {
      fail<ShapeError>({"kv_cache: an input of ", batch, " rows, a cache of ", keys.extent(0)});
    }
  }
  /// Positions past[b] + i of L tokens, [B, L].
  static AnyTensor<std::int64_t> positions_after(const Counts& past, Index tokens) {
    AnyTensor<std::int64_t> p(Shape{static_cast<Index>(past.size()), tokens});
    for (Index n = 0; n < p.size(); ++n) p.data()[n] = past[static_cast<std::size_t>(n / tokens)] + n % tokens;
    return p;
  }
  /// The columns of key_padding at the positions of keys [B or 1, n]; none are beyond its end.
  static AnyTensor<std::uint8_t> padding_at(const AnyTensor<std::uint8_t>& key_padding, const AnyTensor<std::int64_t>& positions) {
    if (!key_padding.present()) return {};
    const Index batch = key_padding.extent(0), all = key_padding.extent(1), columns = positions.extent(1);
    AnyTensor<std::uint8_t> at(Shape{batch, columns}, std::uint8_t{0});
    for (Index b = 0; b < batch; ++b) {
      const std::int64_t* const row = positions.data() + (positions.extent(0) == 1 ? 0 : b * columns);
      for (Index n = 0; n < columns; ++n) {
        if (row[n] < all) at.data()[b * columns + n] = key_padding.data()[b * all + row[n]];
      }
    }
    return at;
  }
  static bool uniform(const Counts& past) {
    return std::all_of(past.begin(), past.end(), [&](Index n) { return n == past[0]; });
  }

  /// Attention from q to the first `count` columns of keys and values that have room for more.
  static DynTensor<T, 4> attend(const DynView<const T, 4>& q, const DynTensor<T, 4>& k, const DynTensor<T, 4>& v, Index count,
                                const AttentionOptions& options, const Visibility& visible, const AnyTensor<T>& relative, const AnyTensor<T>& sinks,
                                const RelativeRows& rows = {}) {
    kernels::AttentionInputs<T> in;
    in.batch = q.extent(0);
    in.queries = q.extent(1);
    in.keys = count;
    in.heads = q.extent(2);
    in.kv_heads = k.extent(2);
    in.key_dim = q.extent(3);
    in.value_dim = v.extent(3);
    in.q = kernels::dense_heads(q.data(), in.queries, in.heads, in.key_dim);
    in.k = kernels::dense_heads(k.data(), k.extent(1), in.kv_heads, in.key_dim);
    in.v = kernels::dense_heads(v.data(), v.extent(1), in.kv_heads, in.value_dim);
    return attend(in, options, visible, relative, sinks, rows);
  }
  static DynTensor<T, 4> attend(kernels::AttentionInputs<T> in, const AttentionOptions& options, const Visibility& visible, const AnyTensor<T>& relative,
                                const AnyTensor<T>& sinks, const RelativeRows& rows = {}) {
    in.scale = static_cast<T>(options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<double>(in.key_dim)));
    const AnyTensor<T> sink = sinks.present() || !options.softmax_one ? sinks : AnyTensor<T>(Shape{in.heads}, T{0});
    in.sinks = sink.data();
    const detail::PreparedAttention<T> prepared(in, options, visible, AnyTensor<T>{}, relative, rows);
    DynTensor<T, 4> o(DynExtents<4>(in.batch, in.queries, in.heads, in.value_dim), uninitialized);
    kernels::AttentionOutputs<T> out;
    out.o = kernels::dense_heads(o.data(), in.queries, in.heads, in.value_dim);
    kernels::attention_forward<T>(in, out, prepared.mask, prepared.score);
    return o;
  }

 private:
  /// The column of position p in a row of t tokens: as a ring, or compact if it has dropped tokens and not room for a full ring.
  Index column(Index t, Index p) const {
    const bool compact = !keep.all() && keys.extent(1) < keep.capacity() && t > keys.extent(1);
    if (!compact) return keep.slot(p);
    return p < keep.sinks(t) ? p : keep.sinks(t) + p - keep.first(t);
  }
  template <class F>
  void rearrange(Index columns, F&& place) {
    DynTensor<T, 4> k = rearranged(keys, columns, place), v = rearranged(values, columns, place);
    keys = std::move(k);
    values = std::move(v);
  }
  /// A tensor of `columns` columns with the kept tokens of every row moved from column first to column second of place(t, p).
  template <class F>
  DynTensor<T, 4> rearranged(const DynTensor<T, 4>& from, Index columns, F&& place) const {
    DynTensor<T, 4> to(DynExtents<4>(from.extent(0), columns, from.extent(2), from.extent(3)));
    const Index row = from.extent(2) * from.extent(3);
    for (Index b = 0; b < from.extent(0); ++b) {
      const Index t = length(b);
      for (Index n = 0; n < keep.count(t); ++n) {
        const auto [source, target] = place(t, keep.position(t, n));
        std::copy_n(from.data() + (b * from.extent(1) + source) * row, row, to.data() + (b * columns + target) * row);
      }
    }
    return to;
  }
  /// Token i of row b becomes column at[b] + i, or the ring's for that position.
  void write(DynTensor<T, 4>& to, const DynView<const T, 4>& from, const Counts& past) const {
    const Index row = to.extent(2) * to.extent(3), tokens = from.extent(1);
    for (Index b = 0; b < to.extent(0); ++b) {
      const Index at = past[static_cast<std::size_t>(b)];
      T* const base = to.data() + b * to.extent(1) * row;
      const T* const source = from.data() + b * tokens * row;
      if (keep.all()) {
        std::copy_n(source, tokens * row, base + at * row);
        continue;
      }
      for (Index i = 0; i < tokens; ++i) {
        const Index p = at + i;
        if (p >= keep.num_sink_tokens && p < at + tokens - keep.window) continue;
        std::copy_n(source + i * row, row, base + keep.slot(p) * row);
      }
    }
  }

  /// One token into the ring: every column then is visible.
  DynTensor<T, 4> attend_ring(const DynView<const T, 4>& q, const DynView<const T, 4>& k, const DynView<const T, 4>& v, AttentionOptions options,
                              const AnyTensor<T>& relative, const AnyTensor<T>& sinks) {
    const Counts past(length.begin(), length.end());
    const Index most = longest() + 1;
    if (std::min(most, keep.capacity()) > keys.extent(1)) reserve(std::max(most, 2 * keys.extent(1)));
    write(keys, k, past);
    write(values, v, past);
    for (std::int32_t& t : length) ++t;
    const Index columns = std::min(most, keep.capacity());
    Visibility visible;
    if (!uniform(past)) {
      visible.lengths = AnyTensor<std::int64_t>(Shape{length.size()});
      for (Index b = 0; b < length.size(); ++b) visible.lengths.data()[b] = std::min<std::int64_t>(length(b), columns);
    }
    if (relative.present() || options.alibi_slopes.present()) {
      visible.query_positions = positions_after(past, 1);
      visible.key_positions = AnyTensor<std::int64_t>(Shape{length.size(), columns});
      for (Index b = 0; b < length.size(); ++b) {
        for (Index n = 0; n < columns; ++n) visible.key_positions.data()[b * columns + n] = keep.held(length(b), n);
      }
    }
    options.relative_bias_bidirectional = options.relative_bias_bidirectional.value_or(!options.causal);
    options.causal = false;
    options.window = options.num_sink_tokens = 0;
    return attend(q, keys, values, columns, options, visible, relative, sinks);
  }
  /// Several tokens: what is kept and the new ones side by side, then the last of them into the ring.
  DynTensor<T, 4> attend_pieces(const DynView<const T, 4>& q, const DynView<const T, 4>& k, const DynView<const T, 4>& v, const AttentionOptions& options,
                                const AnyTensor<T>& relative, const AnyTensor<T>& sinks, const AnyTensor<std::uint8_t>& key_padding) {
    const Counts past(length.begin(), length.end());
    const Index batch = k.extent(0), tokens = k.extent(1);
    Index most = 0;
    for (const Index t : past) most = std::max(most, keep.count(t));
    const Index columns = most + tokens;
    Visibility visible;
    visible.query_positions = positions_after(past, tokens);
    // Behind the end of a row: further than any query.
    visible.key_positions = AnyTensor<std::int64_t>(Shape{batch, columns}, std::int64_t{1} << 40);
    DynTensor<T, 4> all_keys(batch, columns, k.extent(2), k.extent(3)), all_values(batch, columns, v.extent(2), v.extent(3));
    const auto put = [&](DynTensor<T, 4>& all, const DynTensor<T, 4>& kept, const DynView<const T, 4>& fresh) {
      const Index row = all.extent(2) * all.extent(3);
      for (Index b = 0; b < batch; ++b) {
        const Index t = past[static_cast<std::size_t>(b)], count = keep.count(t);
        T* to = all.data() + b * columns * row;
        for (Index n = 0; n < count; ++n) to = std::copy_n(kept.data() + (b * kept.extent(1) + column(t, keep.position(t, n))) * row, row, to);
        std::copy_n(fresh.data() + b * tokens * row, tokens * row, to);
        for (Index n = 0; n < count + tokens; ++n) visible.key_positions.data()[b * columns + n] = n < count ? keep.position(t, n) : t + n - count;
      }
    };
    put(all_keys, keys, k);
    put(all_values, values, v);
    visible.key_padding = padding_at(key_padding, visible.key_positions);
    if (std::min(longest() + tokens, keep.capacity()) > keys.extent(1)) reserve(std::max(longest() + tokens, 2 * keys.extent(1)));
    write(keys, k, past);
    write(values, v, past);
    for (std::int32_t& t : length) t += static_cast<std::int32_t>(tokens);
    return attend(q, all_keys, all_values, columns, options, visible, relative, sinks);
  }

  /// Recorded: the kept tokens of x after t, the oldest first.
  template <class X>
  auto kept_columns(const X& x, Index t) const {
    const Index kept = keep.count(t);
    if (kept == t || x.extent(1) < keep.capacity()) return slice(x, 1, 0, kept);
    const Index sinks = keep.num_sink_tokens, first = (keep.first(t) - sinks) % keep.window, tail = std::min(keep.window - first, keep.window - 1);
    return concat(1, slice(x, 1, 0, sinks), slice(x, 1, sinks + first, tail), slice(x, 1, sinks, keep.window - 1 - tail));
  }
  /// The first keep.sinks(t) and the last tokens of x, which ends at t.
  template <class X>
  auto without_dropped(const X& x, Index t) const {
    const Index sinks = keep.sinks(t), rest = t - keep.first(t), all = x.extent(1);
    return sinks + rest == all ? slice(x, 1, 0, all) : concat(1, slice(x, 1, 0, sinks), slice(x, 1, all - rest, rest));
  }
};

/// The state of a layer that remembers keys and values and nothing else: `keys`, `values`, `length`.
template <class Derived, Mode M, class T>
struct KvCacheState : StateInterface<Derived> {
  KvCache<M, T> cache;

  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    std::remove_cvref_t<decltype(s.cache)>::visit(s.cache, f);
  }
  void reserve(Index tokens)
    requires(M == Mode::plain)
  {
    cache.reserve(tokens);
  }
  void compact()
    requires(M == Mode::plain)
  {
    cache.compact();
  }
};

}  // namespace ordo
