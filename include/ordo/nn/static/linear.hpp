#pragma once
/// \file
/// StaticLinear and StaticConv1d: maps whose sizes are known when the program is compiled.

#include <string>

#include "ordo/nn/linear.hpp"
#include "ordo/nn/static/static_matrix.hpp"

namespace ordo {

/// y = f(W x + b) of one vector, without a heap: Linear of In inputs and Out outputs.
template <Index In, Index Out, class T = float, class Arch = simd::DefaultArch>
class StaticLinear {
  static_assert(In >= 1 && Out >= 1, "a linear map has at least one input and one output");

 public:
  using value_type = T;
  StaticLinear() = default;
  explicit StaticLinear(const Linear<T>& layer) : activation_(layer.activation()) {
    if (!(layer.weight().shape() == Shape{Out, In})) {
      fail<ShapeError>("linear: weight has shape " + to_string(layer.weight().shape()) + ", the fixed layer's " + to_string(Shape{Out, In}));
    }
    for (Index r = 0; r < Out; ++r) weight_.set_row(r, layer.weight().value().data() + r * In);
    if (layer.bias().present()) std::copy_n(layer.bias().value().data(), Out, bias_.data());
  }

  StaticVector<T, Out> operator()(const StaticVector<T, In>& x) const noexcept {
    StaticVector<T, Out> y = bias_;
    weight_.add_product(x.data(), y.data());
    if (activation_ != Activation::none) kernels::activate<T, Arch>({activation_}, y.data(), y.data(), Out);
    return y;
  }

 private:
  detail::StaticMatrix<T, Out, In, Arch> weight_;
  StaticVector<T, Out> bias_;
  Activation activation_ = Activation::none;
};

/// A causal convolution over W tokens, one token at a time, without a heap:
///
///     y_t[o] = bias[o] + sum_{i, w<W} weight[o, i, w] x_{t-(W-1)+w}[i]
///
/// The weight has PyTorch's layout [Out, In, W], tap W-1 = newest. State: the last W-1 inputs.
template <Index In, Index Out, Index W, class T = float, class Arch = simd::DefaultArch>
class StaticConv1d {
  static_assert(In >= 1 && Out >= 1 && W >= 1, "a convolution has at least one input, output and tap");

 public:
  using value_type = T;
  /// The last W-1 inputs, oldest first.
  struct State {
    StaticVector<T, (W - 1) * In> inputs;
    void reset() noexcept { inputs.fill(T(0)); }
  };

  StaticConv1d() = default;
  /// weight [Out, In, W], bias [Out].
  template <TensorLike Weight, TensorLike Bias>
  StaticConv1d(const Weight& weight, const Bias& bias) {
    const auto w = view(weight);
    const auto b = view(bias);
    if (!(w.shape() == Shape{Out, In, W}) || b.size() != Out) {
      fail<ShapeError>("conv1d: weight has shape " + to_string(w.shape()) + ", bias " + to_string(b.shape()) + ", the fixed layer's " +
                       to_string(Shape{Out, In, W}) + " and " + to_string(Shape{Out}));
    }
    std::array<T, static_cast<std::size_t>(In * W)> row;
    for (Index o = 0; o < Out; ++o) {
      for (Index i = 0; i < In; ++i) {
        for (Index tap = 0; tap < W; ++tap) row[static_cast<std::size_t>(tap * In + i)] = w.data()[(o * In + i) * W + tap];
      }
      weight_.set_row(o, row.data());
      bias_(o) = b.data()[o];
    }
  }

  StaticVector<T, Out> step(const StaticVector<T, In>& x, State& state) const noexcept {
    alignas(memory_alignment) T window[W * In];
    std::copy_n(state.inputs.data(), (W - 1) * In, window);
    std::copy_n(x.data(), In, window + (W - 1) * In);
    StaticVector<T, Out> y = bias_;
    weight_.add_product(window, y.data());
    std::copy_n(window + In, (W - 1) * In, state.inputs.data());
    return y;
  }

 private:
  detail::StaticMatrix<T, Out, In * W, Arch> weight_;
  StaticVector<T, Out> bias_;
};

}  // namespace ordo
