#pragma once
/// \file
/// Rotary position embedding.

#include <cmath>
#include <string>

#include "ordo/autograd/apply.hpp"

namespace ordo {

/// Rotates pairs of features by an angle that grows with the position; linear, and its own adjoint with the angle turned round.
struct RotaryOp {
  static constexpr const char* name = "rotary";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  double base = 10000;
  Index dim = 0;  ///< R, even; features from R on stay as they are
  bool interleaved = false;
  AnyTensor<std::int32_t> offsets;  ///< [B]: the position of each row's first token; absent: 0
  bool inverse = false;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    if (x.rank() != 4 || dim < 0 || dim % 2 != 0 || dim > x.extent(3)) {
      fail<ShapeError>("rotary: " + std::to_string(dim) + " features of x of shape " + to_string(x.shape()) +
                       "; expected [B, L, H, K] and an even number up to K");
    }
    AnyTensor<T> y(x.shape());
    const Index batch = x.extent(0), length = x.extent(1), heads = x.extent(2), k = x.extent(3), half = dim / 2;
    // Angles in double: positions go up to a million and more.
    Scratch<double> frequency(half);
    for (Index i = 0; i < half; ++i) frequency[i] = std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
    Scratch<T> table(2 * length * half);
    Index at = -1;
    for (Index b = 0; b < batch; ++b) {
      const Index offset = offsets.present() ? offsets.data()[b] : 0;
      if (offset != at) {
        at = offset;
        for (Index t = 0; t < length; ++t) {
          for (Index i = 0; i < half; ++i) {
            const double angle = static_cast<double>(offset + t) * frequency[i];
            table[2 * t * half + i] = static_cast<T>(std::cos(angle));
            table[(2 * t + 1) * half + i] = static_cast<T>(inverse ? -std::sin(angle) : std::sin(angle));
          }
        }
      }
      for (Index t = 0; t < length; ++t) {
        const T *cos = table.data() + 2 * t * half, *sin = cos + half;
        for (Index h = 0; h < heads; ++h) {
          const T* in = x.data() + ((b * length + t) * heads + h) * k;
          T* out = y.data() + ((b * length + t) * heads + h) * k;
          if (interleaved) {
            for (Index i = 0; i < half; ++i) {
              const T u = in[2 * i], w = in[2 * i + 1];
              out[2 * i] = u * cos[i] - w * sin[i];
              out[2 * i + 1] = u * sin[i] + w * cos[i];
            }
          } else {
            for (Index i = 0; i < half; ++i) {
              const T u = in[i], w = in[i + half];
              out[i] = u * cos[i] - w * sin[i];
              out[i + half] = u * sin[i] + w * cos[i];
            }
          }
          std::copy(in + dim, in + k, out + dim);
        }
      }
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    RotaryOp turned = *this;
    turned.inverse = !inverse;
    p.add(0, apply<dynamic_rank>(turned, p.grad(0)));
  }
};

/// x [B, L, H, K] with the first `dim` features of each head rotated: the pair i of the token at position p turns by
/// p base^(-2i/dim). Pairs are (i, i + dim/2), or (2i, 2i + 1) if `interleaved`. `offsets` [B]: the position of each row's first
/// token, or absent for 0. Su et al. 2021 (arXiv 2104.09864); the halves form agrees with transformers' rotate_half.
template <TensorLike X>
auto rotary(const X& x, Index dim, double base = 10000, bool interleaved = false, const AnyTensor<std::int32_t>& offsets = {}) {
  return apply<rank_of<X>>(RotaryOp{base, dim, interleaved, offsets, false}, x);
}

}  // namespace ordo
