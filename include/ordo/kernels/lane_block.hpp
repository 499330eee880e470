#pragma once
/// \file
/// Loops over channels: a block of a few vectors of neighbouring channels goes through all of its rows before the next
/// one.

#include <algorithm>
#include <type_traits>
#include <utility>

#include "ordo/core/extents.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::kernels::detail {

/// K vectors that are worked on together. Unrolled while it is parsed (folds over index sequences): no pass of the
/// optimiser has to find out that the members can live in registers.
template <class T, class Arch, int K>
struct Pack {
  using V = simd::Vec<T, Arch>;
  static constexpr Index width = K * simd::lanes<T, Arch>;
  V v[K];

  Pack() noexcept = default;
  template <class F, int... I>
  [[gnu::always_inline]] Pack(F&& f, std::integer_sequence<int, I...>) noexcept
      : v{f(std::integral_constant<int, I>{})...} {}
  [[gnu::always_inline]] explicit Pack(const V& x) noexcept : Pack([&](auto) { return x; }, all) {}
  [[gnu::always_inline]] explicit Pack(T x) noexcept : Pack(V(x)) {}

  [[gnu::always_inline]] static Pack load(const T* p) noexcept {
    return Pack([p](auto k) { return simd::load<Arch>(p + k * simd::lanes<T, Arch>); }, all);
  }
  [[gnu::always_inline]] void store(T* p) const noexcept { store_each(p, all); }
  [[gnu::always_inline]] V sum() const noexcept { return sum_each(all); }

  [[gnu::always_inline]] friend Pack operator+(const Pack& a, const Pack& b) noexcept {
    return Pack([&](auto k) { return a.v[k] + b.v[k]; }, all);
  }
  [[gnu::always_inline]] friend Pack operator*(const Pack& a, const Pack& b) noexcept {
    return Pack([&](auto k) { return a.v[k] * b.v[k]; }, all);
  }
  [[gnu::always_inline]] friend Pack operator*(const Pack& a, const V& b) noexcept {
    return Pack([&](auto k) { return a.v[k] * b; }, all);
  }

  static constexpr std::make_integer_sequence<int, K> all{};

 private:
  template <int... I>
  [[gnu::always_inline]] void store_each(T* p, std::integer_sequence<int, I...>) const noexcept {
    (simd::store(p + I * simd::lanes<T, Arch>, v[I]), ...);
  }
  template <int... I>
  [[gnu::always_inline]] V sum_each(std::integer_sequence<int, I...>) const noexcept {
    return (v[I] + ...);
  }
};

/// a b + c
template <class T, class Arch, int K>
[[gnu::always_inline]] inline Pack<T, Arch, K> fma(const Pack<T, Arch, K>& a, const Pack<T, Arch, K>& b,
                                                   const Pack<T, Arch, K>& c) noexcept {
  return Pack<T, Arch, K>([&](auto k) { return simd::fma(a.v[k], b.v[k], c.v[k]); }, Pack<T, Arch, K>::all);
}
template <class T, class Arch, int K>
[[gnu::always_inline]] inline Pack<T, Arch, K> fma(const Pack<T, Arch, K>& a, const simd::Vec<T, Arch>& b,
                                                   const Pack<T, Arch, K>& c) noexcept {
  return Pack<T, Arch, K>([&](auto k) { return simd::fma(a.v[k], b, c.v[k]); }, Pack<T, Arch, K>::all);
}
/// f of each vector.
template <class F, class T, class Arch, int K, class... P>
[[gnu::always_inline]] inline Pack<T, Arch, K> map(F&& f, const Pack<T, Arch, K>& a, const P&... more) noexcept {
  return Pack<T, Arch, K>([&](auto k) { return f(a.v[k], more.v[k]...); }, Pack<T, Arch, K>::all);
}

/// K vectors of neighbouring channels; if IsPartial, K = 1 and only the first `count` lanes are there (the others read
/// as 0).
template <class T, class Arch, int K, bool IsPartial>
struct LaneBlock {
  static_assert(!IsPartial || K == 1);
  using V = simd::Vec<T, Arch>;
  using P = Pack<T, Arch, K>;
  static constexpr bool partial = IsPartial;
  static constexpr Index width = P::width;

  Index channel = 0;  ///< the first
  Index group = 0;
  Index count = width;

  /// From and to numbers of channels: p points to that of channel 0.
  [[gnu::always_inline]] P load(const T* p) const noexcept { return load_own(p + channel); }
  [[gnu::always_inline]] P load_or(const T* p, T otherwise) const noexcept { return p ? load(p) : P(otherwise); }
  [[gnu::always_inline]] void store(T* p, const P& x) const noexcept { store_own(p + channel, x); }
  /// The same, p points to that of the block's first channel.
  [[gnu::always_inline]] P load_own(const T* p) const noexcept {
    if constexpr (IsPartial) {
      return P(simd::load_partial<Arch>(p, count));
    } else {
      return P::load(p);
    }
  }
  [[gnu::always_inline]] void store_own(T* p, const P& x) const noexcept {
    if constexpr (IsPartial) {
      simd::store_partial(p, x.v[0], count);
    } else {
      x.store(p);
    }
  }
  /// `rows` rows of this block, `stride` apart from its own first number on (null: zeros), into rows of `width`, and
  /// back.
  void gather(const T* from, Index stride, Index rows, T* to) const noexcept {
    for (Index n = 0; n < rows; ++n) (from ? load_own(from + n * stride) : P(T(0))).store(to + n * width);
  }
  void scatter(const T* from, Index rows, T* to, Index stride) const noexcept {
    for (Index n = 0; n < rows; ++n) store_own(to + n * stride, P::load(from + n * width));
  }
};

/// Cuts the channels [first, last) of a group into blocks of K vectors, then of one: calls f(LaneBlock).
template <class T, class Arch, int K, class F>
void for_lane_blocks(Index group, Index first, Index last, F&& f) {
  using Full = LaneBlock<T, Arch, K, false>;
  using Rest = LaneBlock<T, Arch, 1, true>;
  for (; first + Full::width <= last; first += Full::width) f(Full{first, group, Full::width});
  for (; first < last; first += Rest::width) f(Rest{first, group, std::min(Rest::width, last - first)});
}

/// Pieces of `width` channels that cross no group boundary.
struct ChannelPieces {
  Index per_group, width, a_group;
  ChannelPieces(Index channels, Index groups, Index piece_width) noexcept
      : per_group((channels / groups + piece_width - 1) / piece_width),
        width(piece_width),
        a_group(channels / groups) {}
  Index group(Index piece) const noexcept { return piece / per_group; }
  Index first(Index piece) const noexcept { return group(piece) * a_group + piece % per_group * width; }
  Index last(Index piece) const noexcept { return std::min(first(piece) + width, (group(piece) + 1) * a_group); }
};

}  // namespace ordo::kernels::detail
