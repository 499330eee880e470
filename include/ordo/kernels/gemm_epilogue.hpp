#pragma once
/// \file
/// What happens to a product's elements on their way out.

#include "ordo/kernels/activation.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::kernels {

using ordo::Activation;

/// activation(x + bias[j]) + residual[i, j]. The activation is a run-time value: one compiled product serves all.
template <class T>
struct Epilogue {
  const T* bias = nullptr;  ///< [n], or none
  Activation activation = Activation::none;
  const T* residual = nullptr;  ///< [m, n], or none; not the memory of the result
  Index residual_stride = 0;

  constexpr bool empty() const noexcept {
    return bias == nullptr && activation == Activation::none && residual == nullptr;
  }
  constexpr Epilogue block(Index row, Index col) const noexcept {
    return {bias == nullptr ? nullptr : bias + col, activation,
            residual == nullptr ? nullptr : residual + row * residual_stride + col, residual_stride};
  }
};

namespace detail {

template <class T, class Arch>
[[gnu::noinline]] void add(const T* a, const T* b, T* sum, Index n) noexcept {
  simd::transform<Arch>(a, b, sum, n, [](auto x, auto y) { return x + y; });
}

/// c = epilogue(c) for rows of C in place.
template <class T, class Arch>
[[gnu::noinline]] void finish_rows(T* c, Index c_stride, Index rows, Index cols, const Epilogue<T>& epilogue) {
  for (Index i = 0; i < rows; ++i) {
    T* const row = c + i * c_stride;
    if (epilogue.bias != nullptr) add<T, Arch>(row, epilogue.bias, row, cols);
    if (epilogue.activation != Activation::none) activate<T, Arch>({epilogue.activation}, row, row, cols);
    if (epilogue.residual != nullptr) add<T, Arch>(row, epilogue.residual + i * epilogue.residual_stride, row, cols);
  }
}

/// c = epilogue(tile) for a tile [rows][width] of which `cols` columns belong to C. The activation goes over the tile in
/// one call.
template <class T, class Arch>
[[gnu::noinline]] void finish_tile(T* tile, Index width, T* c, Index c_stride, Index rows, Index cols, const Epilogue<T>& epilogue) {
  if (epilogue.bias != nullptr) {
    for (Index i = 0; i < rows; ++i) add<T, Arch>(tile + i * width, epilogue.bias, tile + i * width, cols);
  }
  if (epilogue.activation != Activation::none) activate<T, Arch>({epilogue.activation}, tile, tile, rows * width);
  for (Index i = 0; i < rows; ++i) {
    if (epilogue.residual != nullptr) {
      add<T, Arch>(tile + i * width, epilogue.residual + i * epilogue.residual_stride, c + i * c_stride, cols);
    } else {
      simd::transform<Arch>(tile + i * width, c + i * c_stride, cols, [](auto x) { return x; });
    }
  }
}

}  // namespace detail

}  // namespace ordo::kernels
