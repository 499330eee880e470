#pragma once
/// \file
/// The mask and the score policy behind the attention ops: every option of them in one type each, chosen at run time
/// and asked about once a tile, so that a program compiles the engine once for all of its layers.

#include <algorithm>
#include <cstdint>
#include <limits>

#include "ordo/kernels/attention_mask.hpp"
#include "ordo/kernels/attention_score.hpp"

namespace ordo::kernels {

/// Keys begin[i] .. end[i] - 1 and extra_begin[i] .. extra_end[i] - 1 for query i: causal masks, windows, sink tokens,
/// prefixes, lengths and packed sequences are such spans. All four never decrease along the queries. They are numbers
/// of type T to be compared with in vectors, 64 more than queries.
template <class T>
struct QuerySpans {
  const T *begin = nullptr, *end = nullptr;              ///< null: all keys
  const T *extra_begin = nullptr, *extra_end = nullptr;  ///< null: no second span
  Index row_stride = 0;                                  ///< 0: the same spans in all rows of the batch
  static constexpr Index padding = 64;

  constexpr bool all() const noexcept { return begin == nullptr; }

  Range hull_of(Index b, Range i) const noexcept {
    const Index first = b * row_stride + i.begin, last = b * row_stride + i.end - 1;
    const Range main{static_cast<Index>(begin[first]), static_cast<Index>(end[last])};
    if (extra_begin == nullptr) return main;
    return hull(main, {static_cast<Index>(extra_begin[first]), static_cast<Index>(extra_end[last])});
  }
  Cover cover(Index b, Range i, Range j) const noexcept {
    const Index first = b * row_stride + i.begin, last = b * row_stride + i.end - 1;
    const Cover main = covered(begin, end, first, last, j);
    if (extra_begin == nullptr || main == Cover::full) return main;
    const Cover extra = covered(extra_begin, extra_end, first, last, j);
    return extra == Cover::empty ? main : (extra == Cover::full ? Cover::full : Cover::partial);
  }
  bool contains(Index b, Index i, Index j) const noexcept {
    const Index at = b * row_stride + i;
    const T key = static_cast<T>(j);
    return (key >= begin[at] && key < end[at]) ||
           (extra_begin != nullptr && key >= extra_begin[at] && key < extra_end[at]);
  }
  template <class A>
  simd::Mask<T, A> contains(const Pairs<T, A>& at) const noexcept {
    const Index row = at.batch * row_stride;
    const auto main = at.key >= at.of_query(begin + row) && at.key < at.of_query(end + row);
    if (extra_begin == nullptr) return main;
    return main || (at.key >= at.of_query(extra_begin + row) && at.key < at.of_query(extra_end + row));
  }

 private:
  static Cover covered(const T* from, const T* to, Index first, Index last, Range j) noexcept {
    if (j.end <= static_cast<Index>(from[first]) || j.begin >= static_cast<Index>(to[last])) return Cover::empty;
    return j.begin >= static_cast<Index>(from[last]) && j.end <= static_cast<Index>(to[first]) ? Cover::full
                                                                                              : Cover::partial;
  }
};

/// What is not a span, pair by pair: each member that is null hides nothing.
struct PairFilter {
  const std::uint8_t* padding = nullptr;  ///< [B, Lk], true = real key
  const std::uint8_t* mask = nullptr;     ///< [B, H, Lq, Lk] with these strides, true = may attend
  Index mask_batch = 0, mask_head = 0;
  const std::int64_t *segments = nullptr, *key_segments = nullptr;  ///< [B, Lq], [B, Lk]: visible when equal
  const std::uint8_t* blocks = nullptr;                             ///< [H, query blocks, key blocks], true = visible
  Index block_head = 0, query_block = 1, key_block = 1, key_blocks = 0;
  Index queries = 0, keys = 0;

  constexpr bool active() const noexcept {
    return padding != nullptr || mask != nullptr || segments != nullptr || blocks != nullptr;
  }
  /// Hides keys from all queries alike, and nothing else.
  constexpr bool by_key() const noexcept {
    return padding != nullptr && mask == nullptr && segments == nullptr && blocks == nullptr;
  }
  bool operator()(Index b, Index h, Index i, Index j) const noexcept {
    return (padding == nullptr || padding[b * keys + j] != 0) &&
           (mask == nullptr || mask[b * mask_batch + h * mask_head + i * keys + j] != 0) &&
           (segments == nullptr || segments[b * queries + i] == key_segments[b * keys + j]) &&
           (blocks == nullptr || blocks[h * block_head + i / query_block * key_blocks + j / key_block] != 0);
  }
  Cover cover(Index b, Index h, Range i, Range j) const noexcept {
    Cover all = Cover::full;
    const auto add = [&all](Cover one) {
      all = both(all, one);
      return all != Cover::empty;
    };
    if (blocks != nullptr) {
      Tally tally;
      for (Index n = i.begin / query_block; n <= (i.end - 1) / query_block && !tally.mixed(); ++n) {
        const std::uint8_t* const row = blocks + h * block_head + n * key_blocks;
        tally.add(row + j.begin / key_block, row + (j.end - 1) / key_block + 1);
      }
      if (!add(tally.cover())) return all;
    }
    if (padding != nullptr) {
      Tally tally;
      tally.add(padding + b * keys + j.begin, padding + b * keys + j.end);
      if (!add(tally.cover())) return all;
    }
    if (segments != nullptr && !add(cover_segments(b, i, j))) return all;
    if (mask != nullptr) {
      constexpr Index most = 1 << 14;  // pairs: a look at each costs less than its products
      if (i.size() * j.size() > most) return both(all, Cover::partial);
      Tally tally;
      for (Index n = i.begin; n < i.end && !tally.mixed(); ++n) {
        const std::uint8_t* const row = mask + b * mask_batch + h * mask_head + n * keys;
        tally.add(row + j.begin, row + j.end);
      }
      add(tally.cover());
    }
    return all;
  }

 private:
  struct Tally {
    bool some = false, not_all = false;
    void add(const std::uint8_t* from, const std::uint8_t* to) noexcept {
      std::uint8_t any = 0, zero = 0;
      for (; from != to; ++from) {
        any |= *from;
        zero = static_cast<std::uint8_t>(zero | (*from == 0));
      }
      some = some || any != 0;
      not_all = not_all || zero != 0;
    }
    bool mixed() const noexcept { return some && not_all; }
    Cover cover() const noexcept { return !some ? Cover::empty : (not_all ? Cover::partial : Cover::full); }
  };
  Cover cover_segments(Index b, Range i, Range j) const noexcept {
    const auto q = std::minmax_element(segments + b * queries + i.begin, segments + b * queries + i.end);
    const auto k = std::minmax_element(key_segments + b * keys + j.begin, key_segments + b * keys + j.end);
    if (*q.second < *k.first || *k.second < *q.first) return Cover::empty;
    return *q.first == *q.second && *k.first == *k.second ? Cover::full : Cover::partial;
  }
};

/// Visible where the spans and the filter say so.
template <class T>
struct StandardMask {
  QuerySpans<T> spans;
  PairFilter filter;

  bool hides_nothing_now() const noexcept { return spans.all() && !filter.active(); }
  bool operator()(Index b, Index h, Index i, Index j) const noexcept {
    return (spans.all() || spans.contains(b, i, j)) && filter(b, h, i, j);
  }
  Cover cover(Index b, Index h, Range i, Range j) const noexcept {
    if (i.empty() || j.empty()) return Cover::empty;
    const Cover now = spans.all() ? Cover::full : spans.cover(b, i, j);
    return now == Cover::empty || !filter.active() ? now : both(now, filter.cover(b, h, i, j));
  }
  Range keys(Index b, Index, Range i) const noexcept {
    return spans.all() || i.empty() ? Range{0, std::numeric_limits<Index>::max()} : spans.hull_of(b, i);
  }
  template <class A>
  simd::Mask<T, A> visible(const Pairs<T, A>& at) const noexcept {
    if (!filter.active() && !spans.all() && spans.extra_begin == nullptr) return spans.contains(at);
    return visible_pairs(at);
  }

 private:
  template <class A>
  [[gnu::noinline]] simd::Mask<T, A> visible_pairs(const Pairs<T, A>& at) const noexcept {
    using V = simd::Vec<T, A>;
    const bool one_key = filter.by_key() && !at.keys_in_lanes;
    const auto filtered = one_key           ? V(T(filter.padding[at.batch * filter.keys + at.first_key])) != V(T(0))
                          : filter.active() ? at.each(filter) != V(T(0))
                                            : at.key == at.key;
    return spans.all() ? filtered : spans.contains(at) && filtered;
  }
};

/// Softcap, ALiBi, a table of relative scores, a bias, in this order; those that are not set change nothing. Its functions are
/// called, not inlined: a call a vector costs little beside what they do, and inlined they would be compiled many times.
template <class T>
struct StandardScore {
  T cap = T(0);               ///< > 0: cap tanh(s / cap)
  const T* slopes = nullptr;  ///< [H]: - slopes[h] |a - j|
  /// Where the queries stand among the keys, [B, Lq] with 64 more behind; for slopes and relative scores.
  const T* query_places = nullptr;
  Index query_row = 0;
  const T* key_places = nullptr;  ///< [B, Lk] with 64 more behind, null: key j stands at j
  Index key_row = 0;

  /// + relative[b, h, i, rows[clamp(j - a + shift)]], a row of -1 adds nothing; strides of 0 broadcast.
  const T* relative = nullptr;
  Index relative_batch = 0, relative_head = 0, relative_query = 0, relative_row = 1;
  const std::int32_t* rows = nullptr;
  Index row_count = 0, row_shift = 0;
  T* d_relative = nullptr;  ///< [B, H, Lq or 1, rows], zeros before the backward pass: the sum of the gradients
  Index d_relative_batch = 0, d_relative_head = 0, d_relative_query = 0;

  ScoreBias<T> bias{};

  static constexpr bool can_hide = true;
  bool changes_nothing_now() const noexcept {
    return cap == T(0) && slopes == nullptr && relative == nullptr && bias.bias == nullptr;
  }
  bool can_hide_now() const noexcept { return bias.bias != nullptr; }
  bool shares_gradients() const noexcept { return d_relative != nullptr; }

  template <class A>
  [[gnu::noinline]] simd::Vec<T, A> value(const simd::Vec<T, A>& s, const Pairs<T, A>& at) const noexcept {
    using V = simd::Vec<T, A>;
    V t = cap > T(0) ? Softcap<T>{cap}.value(s, at) : s;
    if (slopes != nullptr) {
      const V key = key_places == nullptr ? at.key : at.of_key(key_places + at.batch * key_row);
      const V distance = simd::abs(V(at.of_query(query_places + at.batch * query_row) - key));
      t = simd::fnma(at.of_head(slopes), distance, t);
    }
    if (relative != nullptr) {
      t += at.each([this](Index b, Index h, Index i, Index j) {
        const Index row = row_of(b, i, j);
        return row < 0 ? T(0)
                       : relative[b * relative_batch + h * relative_head + i * relative_query + row * relative_row];
      });
    }
    return bias.bias != nullptr ? bias.value(t, at) : t;
  }
  template <class A>
  [[gnu::noinline]] simd::Vec<T, A> gradient(const simd::Vec<T, A>& dt, const simd::Vec<T, A>& s, const simd::Vec<T, A>& t,
                           const Pairs<T, A>& at) const noexcept {
    using V = simd::Vec<T, A>;
    if (bias.bias != nullptr) static_cast<void>(bias.gradient(dt, s, t, at));
    if (d_relative != nullptr) {
      alignas(64) T value[V::size];
      dt.store_aligned(value);
      Index lane = 0;
      static_cast<void>(at.each([&](Index b, Index h, Index i, Index j) {
        const T add = value[lane];
        if (lane++ < at.count && add != T(0)) {
          const Index row = row_of(b, i, j);
          if (row >= 0) d_relative[b * d_relative_batch + h * d_relative_head + i * d_relative_query + row] += add;
        }
        return T(0);
      }));
    }
    if (!(cap > T(0))) return dt;
    const Softcap<T> softcap{cap};
    return softcap.gradient(dt, s, softcap.value(s, at), at);
  }

 private:
  Index row_of(Index b, Index i, Index j) const noexcept {
    const T key = key_places == nullptr ? static_cast<T>(j) : key_places[b * key_row + j];
    const Index r = static_cast<Index>(key - query_places[b * query_row + i]) + row_shift;
    return rows[std::clamp<Index>(r, 0, row_count - 1)];
  }
};

}  // namespace ordo::kernels
