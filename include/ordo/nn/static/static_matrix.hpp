#pragma once
/// \file
/// A matrix of fixed size for layers that run one token at a time: inline, columns padded to whole vectors, loops of constant length.

#include <algorithm>
#include <array>

#include "ordo/core/tensor.hpp"
#include "ordo/kernels/row.hpp"

namespace ordo {

/// A vector of N numbers inside its owner: what layers of fixed size take and give.
template <class T, Index N>
using StaticVector = Tensor<T, Extents<N>>;

namespace detail {

template <class T, Index Rows, Index Cols, class Arch = simd::DefaultArch>
class StaticMatrix {
  using V = simd::Vec<T, Arch>;
  static constexpr Index lanes = simd::lanes<T, Arch>, vectors = (Rows + lanes - 1) / lanes, padded = vectors * lanes;
  static constexpr Index at_once = 8;  // vectors of y in registers

 public:
  /// Row `row` from numbers that stand `stride` apart.
  void set_row(Index row, const T* from, Index stride = 1) noexcept {
    for (Index k = 0; k < Cols; ++k) columns_[static_cast<std::size_t>(k * padded + row)] = from[k * stride];
  }
  /// y [Rows] += W x, x [Cols].
  [[gnu::always_inline]] void add_product(const T* x, T* y) const noexcept {
    kernels::detail::unrolled<(vectors + at_once - 1) / at_once>([&](auto block) __attribute__((always_inline)) {
      constexpr Index first = block * at_once;
      add_block<first, std::min(at_once, vectors - first)>(x, y);
    });
  }

 private:
  /// `Count` vectors of y from vector `First`. Two or four sums a vector where few vectors would wait for each other.
  template <Index First, Index Count>
  [[gnu::always_inline]] void add_block(const T* x, T* y) const noexcept {
    constexpr Index sums = Count == 1 ? 4 : Count <= 3 ? 2 : 1;
    V acc[sums][Count];
    kernels::detail::unrolled<Count>([&](auto j) __attribute__((always_inline)) {
      acc[0][j] = kernels::detail::load_some<Arch>(y + (First + j) * lanes, count_of<First>(j));
      kernels::detail::unrolled<sums - 1>([&](auto s) __attribute__((always_inline)) { acc[s + 1][j] = V(T(0)); });
    });
    const auto add = [&](Index k, auto s) __attribute__((always_inline)) {
      const V factor(x[k]);
      const T* const column = columns_.data() + k * padded + First * lanes;
      kernels::detail::unrolled<Count>([&](auto j) __attribute__((always_inline)) {
        acc[s][j] = simd::fma(factor, V::load_aligned(column + j * lanes), acc[s][j]);
      });
    };
    constexpr Index whole = Cols / sums * sums;
    for (Index k = 0; k < whole; k += sums) {
      kernels::detail::unrolled<sums>([&](auto s) __attribute__((always_inline)) { add(k + s, s); });
    }
    kernels::detail::unrolled<Cols - whole>([&](auto s) __attribute__((always_inline)) { add(whole + s, s); });
    kernels::detail::unrolled<Count>([&](auto j) __attribute__((always_inline)) {
      V sum = acc[0][j];
      if constexpr (sums == 2) sum = sum + acc[1][j];
      if constexpr (sums == 4) sum = (sum + acc[1][j]) + (acc[2][j] + acc[3][j]);
      kernels::detail::store_some<Arch>(y + (First + j) * lanes, sum, count_of<First>(j));
    });
  }
  template <Index First>
  static constexpr Index count_of(Index j) noexcept {
    return std::min(lanes, Rows - (First + j) * lanes);
  }

  alignas(memory_alignment) std::array<T, static_cast<std::size_t>(padded * Cols)> columns_{};
};

}  // namespace detail

}  // namespace ordo
