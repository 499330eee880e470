#pragma once
/// \file
/// Extents with a compile-time rank (each static or `dyn`), and Shape, whose rank is known at run time.

#include <array>
#include <cstddef>
#include <initializer_list>
#include <string>
#include <type_traits>
#include <utility>

#include "ordo/core/error.hpp"

namespace ordo {

using Index = std::ptrdiff_t;

/// An extent that is known at run time only.
inline constexpr Index dyn = -1;

/// The largest rank that a tensor can have.
inline constexpr std::size_t max_rank = 6;

/// The extents of a row-major tensor: `Extents<dyn, dyn, 64>` is [B, L, 64]. Static extents take no space.
template <Index... E>
class Extents {
  static_assert(((E == dyn || E >= 0) && ...), "an extent is `dyn` or not negative");
  static_assert(sizeof...(E) <= max_rank, "Ordo's tensors have at most six axes");

 public:
  static constexpr std::size_t rank() noexcept { return sizeof...(E); }
  static constexpr bool is_static() noexcept { return ((E != dyn) && ...); }
  static constexpr Index static_extent(std::size_t axis) noexcept { return statics[axis]; }

  /// All static extents as declared, the dynamic ones 0.
  constexpr Extents() noexcept = default;

  /// One value for each axis; the value of a static axis has to be that axis' extent.
  template <class... I>
    requires(sizeof...(I) == sizeof...(E) && sizeof...(I) > 0 && (std::is_convertible_v<I, Index> && ...))
  constexpr explicit(sizeof...(I) == 1) Extents(I... extents)
      : Extents(std::array<Index, sizeof...(E)>{static_cast<Index>(extents)...}) {}

  constexpr explicit Extents(const std::array<Index, sizeof...(E)>& extents) {
    std::size_t next = 0;
    for (std::size_t axis = 0; axis < rank(); ++axis) {
      if (extents[axis] < 0) fail<ShapeError>({"extents: axis ", axis, " is negative"});
      if (statics[axis] == dyn) {
        dynamic_[next++] = extents[axis];
      } else if (statics[axis] != extents[axis]) {
        fail<ShapeError>({"extents: axis ", axis, " is fixed to ", statics[axis], ", given ", extents[axis]});
      }
    }
  }

  constexpr Index operator[](std::size_t axis) const noexcept {
    if (statics[axis] != dyn) return statics[axis];
    std::size_t place = 0;
    for (std::size_t i = 0; i < axis; ++i) place += statics[i] == dyn;
    return dynamic_[place];
  }
  constexpr Index extent(std::size_t axis) const noexcept { return (*this)[axis]; }

  /// The number of elements.
  constexpr Index size() const noexcept {
    Index n = 1;
    for (std::size_t axis = 0; axis < rank(); ++axis) n *= (*this)[axis];
    return n;
  }

  constexpr std::array<Index, sizeof...(E)> to_array() const noexcept {
    std::array<Index, sizeof...(E)> all{};
    for (std::size_t axis = 0; axis < rank(); ++axis) all[axis] = (*this)[axis];
    return all;
  }

  template <Index... F>
  friend constexpr bool operator==(const Extents& a, const Extents<F...>& b) noexcept {
    if constexpr (sizeof...(E) != sizeof...(F)) {
      return false;
    } else {
      return a.to_array() == b.to_array();
    }
  }

 private:
  static constexpr std::size_t dynamic_count = (std::size_t{0} + ... + (E == dyn ? 1 : 0));
  static constexpr std::array<Index, sizeof...(E)> statics{E...};
  [[no_unique_address]] std::array<Index, dynamic_count> dynamic_{};
};

namespace detail {
template <class S>
struct DynExtentsOf;
template <std::size_t... I>
struct DynExtentsOf<std::index_sequence<I...>> {
  using type = Extents<(static_cast<void>(I), dyn)...>;
};
}  // namespace detail

/// R extents, all known at run time.
template <std::size_t R>
using DynExtents = typename detail::DynExtentsOf<std::make_index_sequence<R>>::type;

/// Extents whose rank is known at run time, at most `max_rank`.
class Shape {
 public:
  constexpr Shape() noexcept = default;
  constexpr Shape(std::initializer_list<Index> extents) {
    for (Index e : extents) push_back(e);
  }
  template <Index... E>
  constexpr Shape(const Extents<E...>& extents) noexcept  // NOLINT(google-explicit-constructor): a Shape says the same
      : rank_(sizeof...(E)) {
    static_assert(sizeof...(E) <= max_rank, "a shape has at most max_rank axes");
    for (std::size_t axis = 0; axis < sizeof...(E); ++axis) extents_[axis] = extents[axis];
  }

  constexpr std::size_t rank() const noexcept { return rank_; }
  constexpr Index operator[](std::size_t axis) const noexcept { return extents_[axis]; }
  constexpr Index& operator[](std::size_t axis) noexcept { return extents_[axis]; }
  constexpr Index back(std::size_t from_end = 0) const noexcept { return extents_[rank_ - 1 - from_end]; }
  constexpr const Index* begin() const noexcept { return extents_.data(); }
  constexpr const Index* end() const noexcept { return extents_.data() + rank_; }

  constexpr void push_back(Index extent) {
    if (rank_ == max_rank || extent < 0) refuse(rank_);
    extents_[rank_++] = extent;
  }

  /// The number of elements of axes [first, last).
  constexpr Index size(std::size_t first, std::size_t last) const noexcept {
    Index n = 1;
    for (std::size_t axis = first; axis < last; ++axis) n *= extents_[axis];
    return n;
  }
  constexpr Index size() const noexcept { return size(0, rank_); }

  /// The same extents with the last one replaced.
  constexpr Shape with_back(Index extent) const noexcept {
    Shape s = *this;
    s.extents_[rank_ - 1] = extent;
    return s;
  }

  /// These extents with a compile-time rank.
  template <std::size_t R>
  constexpr DynExtents<R> extents() const {
    ORDO_ASSERT(rank_ == R);
    std::array<Index, R> all{};
    for (std::size_t axis = 0; axis < R; ++axis) all[axis] = extents_[axis];
    return DynExtents<R>(all);
  }

  friend constexpr bool operator==(const Shape& a, const Shape& b) noexcept {
    if (a.rank_ != b.rank_) return false;
    for (std::size_t axis = 0; axis < a.rank_; ++axis) {
      if (a.extents_[axis] != b.extents_[axis]) return false;
    }
    return true;
  }

 private:
  [[noreturn, gnu::cold, gnu::noinline]] static void refuse(std::size_t rank) {
    if (rank == max_rank) fail<ShapeError>({"shape: more than ", max_rank, " axes"});
    fail<ShapeError>({"shape: axis ", rank, " is negative"});
  }
  std::array<Index, max_rank> extents_{};
  std::size_t rank_ = 0;
};

/// "[2, 3]": how error messages write a shape.
[[gnu::cold]] inline std::string to_string(const Shape& shape) {
  std::string s = "[";
  for (std::size_t axis = 0; axis < shape.rank(); ++axis) s += (axis ? ", " : "") + std::to_string(shape[axis]);
  return s + "]";
}

}  // namespace ordo
