#pragma once
/// \file
/// Rotary position embedding.

#include <cmath>
#include <concepts>

#include "ordo/ops/positions.hpp"

namespace ordo {

/// Cosines and sines for the tokens of a call: made once for queries and keys. [B or 1, L, 2 pairs], the cosines first.
template <class T>
struct RotaryTable {
  AnyTensor<T> values;

  /// positions [B or 1, L], any integers.
  RotaryTable(const RotaryFrequencies& frequencies, const AnyTensor<std::int32_t>& positions) {
    const auto pairs = static_cast<Index>(frequencies.inv_freq.size());
    values = AnyTensor<T>(Shape{positions.extent(0), positions.extent(1), 2 * pairs});
    T* to = values.data();
    for (Index n = 0; n < positions.size(); ++n, to += 2 * pairs) {
      const auto position = static_cast<double>(positions.data()[n]);
      for (Index i = 0; i < pairs; ++i) {  // in double: positions go up to a million and more
        const double angle = position * frequencies.inv_freq[static_cast<std::size_t>(i)];
        to[i] = static_cast<T>(frequencies.attention_factor * std::cos(angle));
        to[pairs + i] = static_cast<T>(frequencies.attention_factor * std::sin(angle));
      }
    }
  }
};

/// Turns pairs of features; linear, and its own adjoint with the angles turned round.
template <class S>
struct RotaryOp {
  static constexpr const char* name = "rotary";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  AnyTensor<S> table;
  bool interleaved = false;
  bool inverse = false;

  template <std::same_as<S> T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    const Index half = table.extent(2) / 2, rows = table.extent(0);
    if (x.rank() != 4 || 2 * half > x.extent(3) || table.extent(1) != x.extent(1) || (rows != 1 && rows != x.extent(0))) {
      fail<ShapeError>({"rotary: x of shape ", x.shape(), " with positions [", rows, ", ", table.extent(1), "] and ", 2 * half,
                       " rotated features; expected [B, L, H, K], positions [B or 1, L], and at most K features"});
    }
    AnyTensor<T> y(x.shape());
    const Index batch = x.extent(0), length = x.extent(1), heads = x.extent(2), k = x.extent(3);
    const T* in = x.data();
    T* out = y.data();
    for (Index n = 0; n < batch * length; ++n) {
      const T* const cos = table.data() + (rows == 1 ? n % length : n) * 2 * half;
      for (Index h = 0; h < heads; ++h, in += k, out += k) turn(in, out, k, half, cos, cos + half);
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    RotaryOp turned = *this;
    turned.inverse = !inverse;
    p.add(0, apply<dynamic_rank>(turned, p.grad(0)));
  }

 private:
  void turn(const S* __restrict in, S* __restrict out, Index k, Index half, const S* __restrict cos, const S* __restrict sin) const noexcept {
    const S sign = inverse ? S(-1) : S(1);
    if (interleaved) {
      for (Index i = 0; i < half; ++i) {
        const S u = in[2 * i], w = in[2 * i + 1], s = sign * sin[i];
        out[2 * i] = u * cos[i] - w * s;
        out[2 * i + 1] = u * s + w * cos[i];
      }
    } else {
      for (Index i = 0; i < half; ++i) {
        const S u = in[i], w = in[i + half], s = sign * sin[i];
        out[i] = u * cos[i] - w * s;
        out[i + half] = u * s + w * cos[i];
      }
    }
    std::copy(in + 2 * half, in + k, out + 2 * half);
  }
};

/// x [B, L, H, K] with the first features of each head rotated: pair i of a token at position p turns by p inv_freq[i]. Pairs are
/// (i, i + R/2), or (2i, 2i + 1) if `interleaved`; features from R = 2 pairs on stay as they are. Su et al. 2021 (arXiv 2104.09864);
/// the halves form agrees with transformers' Llama, the interleaved one with GPT-J and GLM.
template <TensorLike X>
auto rotary(const X& x, const RotaryTable<value_type_of<X>>& table, bool interleaved = false) {
  return apply<rank_of<X>>(RotaryOp<value_type_of<X>>{table.values, interleaved, false}, x);
}
/// The same at the positions first, first + 1, ... in every row.
template <TensorLike X>
auto rotary(const X& x, Index dim, double base = 10000, bool interleaved = false, Index first = 0) {
  AnyTensor<std::int32_t> positions(Shape{1, view(x).extent(1)});
  for (Index i = 0; i < positions.size(); ++i) positions.data()[i] = static_cast<std::int32_t>(first + i);
  return rotary(x, RotaryTable<value_type_of<X>>(rotary_frequencies(dim, base), positions), interleaved);
}

}  // namespace ordo
