#pragma once
/// \file
/// Which keys a query sees: the mask policies of the attention engine (attention_tile.hpp).
///
/// A mask is a small value that is inlined into the loops. Only the first member is required; the others let the engine
/// skip work, and what is missing is derived from what is there:
///
/// - `bool operator()(Index b, Index h, Index i, Index j) const`
///   May query i of head h in row b of the batch attend to key j?
/// - `Cover cover(Index b, Index h, Range i, Range j) const`
///   The same of a rectangle of pairs. `empty` and `full` are promises, `partial` is always allowed.
/// - `Range keys(Index b, Index h, Range i) const`
///   No query of i sees a key outside of this range.
/// - `auto visible(const Pairs<T, A>& at) const`
///   The same of a vector of pairs, as a simd::Mask<T, A>.
/// - `static constexpr bool hides_nothing`
///   True: the mask costs nothing at all.
/// - `bool hides_nothing_now() const`
///   The same, known only at run time: the mask then costs nearly nothing.
///
/// So a lambda `[](Index b, Index h, Index i, Index j) { return ...; }` is a mask (every tile is then partial, and
/// every pair asked for), and a list of blocks is a mask with a `cover`. A mask is a pure function: it is asked about a
/// pair any number of times, from several threads, and only about pairs that exist.

#include <algorithm>
#include <concepts>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

#include "ordo/simd/simd.hpp"

namespace ordo::kernels {

/// Indices begin .. end - 1.
struct Range {
  Index begin = 0;
  Index end = 0;
  constexpr bool empty() const noexcept { return end <= begin; }
  constexpr Index size() const noexcept { return empty() ? 0 : end - begin; }
  friend constexpr bool operator==(const Range&, const Range&) noexcept = default;
};

constexpr Range intersect(Range a, Range b) noexcept { return {std::max(a.begin, b.begin), std::min(a.end, b.end)}; }

/// The smallest range that holds both.
constexpr Range hull(Range a, Range b) noexcept {
  if (a.empty()) return b;
  if (b.empty()) return a;
  return {std::min(a.begin, b.begin), std::max(a.end, b.end)};
}

/// How much of a rectangle of pairs is visible.
enum class Cover : unsigned char { empty, partial, full };

/// Both conditions at once.
constexpr Cover both(Cover a, Cover b) noexcept {
  if (a == Cover::empty || b == Cover::empty) return Cover::empty;
  return a == Cover::full && b == Cover::full ? Cover::full : Cover::partial;
}

/// One rectangle beside the other.
constexpr Cover beside(Cover a, Cover b) noexcept { return a == b ? a : Cover::partial; }

/// Where the lanes of a vector of scores are. In most kernels the lanes run along the queries of one key, for few
/// queries along the keys of one query; a policy that uses these members works for both. Indices are numbers of type T:
/// exact in float below 2^24.
template <class T, class A>
struct Pairs {
  using V = simd::Vec<T, A>;

  Index batch;
  Index head;          ///< of all lanes, if heads is null
  const Index* heads;  ///< of each lane
  V query;             ///< index of the query
  V key;               ///< index of the key
  Index count;         ///< lanes behind it repeat an earlier pair, and what is computed for them is not used
  Index first_query;   ///< index of the first lane's query
  Index first_key;     ///< index of the first lane's key
  bool keys_in_lanes;  ///< which of the two runs along the lanes

  /// table[head] of each lane.
  V of_head(const T* table) const noexcept {
    if (heads == nullptr) return V(table[head]);
    alignas(64) T values[V::size];
    for (std::size_t lane = 0; lane < V::size; ++lane) values[lane] = table[heads[lane]];
    return V::load_aligned(values);
  }

  /// table[query] and table[key] of each lane.
  V of_query(const T* table) const noexcept {
    if (keys_in_lanes) return V(table[first_query]);
    return heads == nullptr && count == static_cast<Index>(V::size) ? V::load_unaligned(table + first_query)
                                                                    : gather(table, query);
  }
  V of_key(const T* table) const noexcept {
    if (!keys_in_lanes) return V(table[first_key]);
    return count == static_cast<Index>(V::size) ? V::load_unaligned(table + first_key) : gather(table, key);
  }

  /// table[batch, head, query, key] of each lane, with these strides; keys are contiguous.
  V of_pair(const T* table, Index batch_stride, Index head_stride, Index query_stride) const noexcept {
    if (heads == nullptr) {
      const T* const row = table + batch * batch_stride + head * head_stride + first_query * query_stride + first_key;
      if (keys_in_lanes && count == static_cast<Index>(V::size)) return V::load_unaligned(row);
      const Index step = keys_in_lanes ? 1 : query_stride;
      alignas(64) T out[V::size];
      for (Index lane = 0; lane < static_cast<Index>(V::size); ++lane) out[lane] = row[std::min(lane, last()) * step];
      return V::load_aligned(out);
    }
    return each([&](Index b, Index h, Index i, Index j) {
      return table[b * batch_stride + h * head_stride + i * query_stride + j];
    });
  }

  /// f(b, h, i, j) of each lane, as a vector of T.
  template <class F>
  V each(const F& f) const {
    alignas(64) T i[V::size], j[V::size], out[V::size];
    if (heads == nullptr) {
      for (Index lane = 0; lane < static_cast<Index>(V::size); ++lane) {
        const Index n = std::min(lane, last());
        out[lane] = static_cast<T>(f(batch, head, first_query + (keys_in_lanes ? 0 : n), first_key + (keys_in_lanes ? n : 0)));
      }
      return V::load_aligned(out);
    }
    query.store_aligned(i);
    key.store_aligned(j);
    for (std::size_t lane = 0; lane < V::size; ++lane) {
      out[lane] = static_cast<T>(f(batch, heads[lane], static_cast<Index>(i[lane]), static_cast<Index>(j[lane])));
    }
    return V::load_aligned(out);
  }

 private:
  /// Lanes behind this one repeat it.
  constexpr Index last() const noexcept { return std::max<Index>(count, 1) - 1; }
  static V gather(const T* table, const V& at) noexcept {
    alignas(64) T place[V::size], out[V::size];
    at.store_aligned(place);
    for (std::size_t lane = 0; lane < V::size; ++lane) out[lane] = table[static_cast<Index>(place[lane])];
    return V::load_aligned(out);
  }
};

/// A query with index i is at position i + offset among the keys. One offset for all rows (keys - queries: the last
/// query stands at the last key), or one for each row of a ragged batch (lengths[b] - queries).
struct QueryOffset {
  Index all = 0;
  const Index* rows = nullptr;

  constexpr QueryOffset() noexcept = default;
  template <std::integral I>  // a template, so that a literal 0 is no null pointer
  constexpr QueryOffset(I offset) noexcept : all(static_cast<Index>(offset)) {}  // NOLINT(google-explicit-constructor)
  constexpr QueryOffset(const Index* offsets) noexcept : rows(offsets) {}        // NOLINT(google-explicit-constructor)
  constexpr Index operator()(Index b) const noexcept { return rows == nullptr ? all : rows[b]; }
};

/// Every query sees every key.
struct NoMask {
  static constexpr bool hides_nothing = true;
  constexpr bool operator()(Index, Index, Index, Index) const noexcept { return true; }
  constexpr Cover cover(Index, Index, Range, Range) const noexcept { return Cover::full; }
};

/// Keys up to the position of the query: j <= i + offset. With offset = keys - queries the last query is aligned with
/// the last key; with more queries than keys the first ones then see nothing.
struct Causal {
  QueryOffset offset{};

  constexpr bool operator()(Index b, Index, Index i, Index j) const noexcept { return j <= i + offset(b); }
  constexpr Cover cover(Index b, Index, Range i, Range j) const noexcept {
    const Index at = offset(b);
    if (j.begin > i.end - 1 + at) return Cover::empty;
    return j.end - 1 <= i.begin + at ? Cover::full : Cover::partial;
  }
  constexpr Range keys(Index b, Index, Range i) const noexcept { return {0, i.end + offset(b)}; }
  template <class T, class A>
  simd::Mask<T, A> visible(const Pairs<T, A>& at) const noexcept {
    return at.key <= at.query + simd::Vec<T, A>(static_cast<T>(offset(at.batch)));
  }
};

/// Causal, and no further back than `width` keys, the query's own included: a - width < j <= a, a = i + offset.
struct Window {
  QueryOffset offset{};
  Index width = 1;

  constexpr bool operator()(Index b, Index, Index i, Index j) const noexcept {
    const Index a = i + offset(b);
    return j <= a && j > a - width;
  }
  constexpr Cover cover(Index b, Index, Range i, Range j) const noexcept {
    const Index first = i.begin + offset(b), last = i.end - 1 + offset(b);
    if (j.begin > last || j.end - 1 <= first - width) return Cover::empty;
    return j.end - 1 <= first && j.begin > last - width ? Cover::full : Cover::partial;
  }
  constexpr Range keys(Index b, Index, Range i) const noexcept {
    return {i.begin + offset(b) - width + 1, i.end + offset(b)};
  }
  template <class T, class A>
  simd::Mask<T, A> visible(const Pairs<T, A>& at) const noexcept {
    const auto distance = at.query + simd::Vec<T, A>(static_cast<T>(offset(at.batch))) - at.key;
    return distance >= simd::Vec<T, A>(T(0)) && distance < simd::Vec<T, A>(static_cast<T>(width));
  }
};

/// Row b has lengths[b] keys; what stands behind them is padding.
struct KeyLengths {
  const Index* lengths = nullptr;

  constexpr bool operator()(Index b, Index, Index, Index j) const noexcept { return j < lengths[b]; }
  constexpr Cover cover(Index b, Index, Range, Range j) const noexcept {
    if (j.begin >= lengths[b]) return Cover::empty;
    return j.end <= lengths[b] ? Cover::full : Cover::partial;
  }
  constexpr Range keys(Index b, Index, Range) const noexcept { return {0, lengths[b]}; }
  template <class T, class A>
  simd::Mask<T, A> visible(const Pairs<T, A>& at) const noexcept {
    return at.key < simd::Vec<T, A>(static_cast<T>(lengths[at.batch]));
  }
};

template <class M>
concept AttentionMask = std::predicate<const M&, Index, Index, Index, Index>;

// ---- what a mask does not say, derived from what it does ------------------------------------------------------------

template <class M>
inline constexpr bool mask_hides_nothing = [] {
  if constexpr (requires { M::hides_nothing; }) {
    return M::hides_nothing;
  } else {
    return false;
  }
}();

template <class M>
constexpr bool hides_nothing_now(const M& mask) {
  if constexpr (requires { mask.hides_nothing_now(); }) {
    return mask.hides_nothing_now();
  } else {
    return mask_hides_nothing<M>;
  }
}

template <AttentionMask M>
constexpr Cover mask_cover(const M& mask, Index b, Index h, Range i, Range j) {
  if constexpr (requires { mask.cover(b, h, i, j); }) {
    return mask.cover(b, h, i, j);
  } else {
    return Cover::partial;
  }
}

template <class M>
concept KnowsKeys = requires(const M& mask, Index b, Range i) {
  { mask.keys(b, b, i) } -> std::same_as<Range>;
};

template <AttentionMask M>
constexpr Range mask_keys(const M& mask, Index b, Index h, Range i, Range all) {
  if constexpr (KnowsKeys<M>) {
    return intersect(mask.keys(b, h, i), all);
  } else {
    return all;
  }
}

template <AttentionMask M, class T, class A>
simd::Mask<T, A> mask_visible(const M& mask, const Pairs<T, A>& at) {
  if constexpr (requires { mask.visible(at); }) {
    return mask.visible(at);
  } else {
    return at.each(mask) != simd::Vec<T, A>(T(0));
  }
}

/// Visible where all masks say so.
template <AttentionMask... M>
struct And {
  std::tuple<M...> masks;

  constexpr explicit And(M... all) : masks(std::move(all)...) {}

  constexpr bool operator()(Index b, Index h, Index i, Index j) const {
    return std::apply([&](const M&... m) { return (static_cast<bool>(m(b, h, i, j)) && ...); }, masks);
  }
  constexpr Cover cover(Index b, Index h, Range i, Range j) const {
    return std::apply(
        [&](const M&... m) {
          Cover all = Cover::full;
          ((all = both(all, mask_cover(m, b, h, i, j))), ...);
          return all;
        },
        masks);
  }
  constexpr Range keys(Index b, Index h, Range i) const
    requires(KnowsKeys<M> || ...)
  {
    constexpr Range everything{std::numeric_limits<Index>::min(), std::numeric_limits<Index>::max()};
    return std::apply(
        [&](const M&... m) {
          Range all = everything;
          ((all = mask_keys(m, b, h, i, all)), ...);
          return all;
        },
        masks);
  }
  template <class T, class A>
  simd::Mask<T, A> visible(const Pairs<T, A>& at) const {
    return std::apply([&](const M&... m) { return (mask_visible(m, at) && ...); }, masks);
  }
};

}  // namespace ordo::kernels
