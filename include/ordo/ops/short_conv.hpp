#pragma once
/// \file
/// Depthwise causal convolution with a state.

#include <array>
#include <tuple>

#include "ordo/kernels/activation.hpp"
#include "ordo/kernels/short_conv.hpp"
#include "ordo/ops/sequences.hpp"

namespace ordo {

/// Arguments: x, weight, bias?, state?; outputs: y, state.
struct ShortConvOp {
  static constexpr const char* name = "short_conv";
  static constexpr unsigned keeps_inputs = 0xf, keeps_outputs = 0;
  static constexpr std::size_t outputs = 2;
  bool silu = true;
  Packing packing;
  template <class T>
  struct Saved {};

  template <class T>
  std::array<AnyTensor<T>, 2> forward(Saved<T>*, const AnyTensor<T>& x, const AnyTensor<T>& weight, const AnyTensor<T>& bias,
                                      const AnyTensor<T>& state) const {
    if (x.rank() != 3 || weight.rank() != 3 || weight.extent(0) != x.extent(2) || weight.extent(1) != 1 || weight.extent(2) < 1) {
      fail<ShapeError>({"short_conv: x has shape ", x.shape(), ", the weight ", weight.shape(), "; expected [B, L, E] and [E, 1, W]"});
    }
    detail::require_shape(name, "bias", bias, Shape{x.extent(2)});
    const auto conv = arguments(x, weight, bias, state);
    const Shape state_shape{conv.sequences.count, conv.channels, conv.width - 1};
    detail::require_shape(name, "state", state, state_shape);
    AnyTensor<T> y(x.shape()), state_out(state_shape);
    kernels::short_conv_forward(conv, detail::mutable_rows_of(y), state_out.data());
    return {std::move(y), std::move(state_out)};
  }
  template <class T>
  void backward(Pullback<T>& p, const Saved<T>&) const {
    const AnyTensor<T> x = p.input(0).value, weight = p.input(1).value, bias = p.input(2).value, state = p.input(3).value;
    std::array<AnyTensor<T>, 4> g;
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = detail::gradient_like(p, i);
    AnyTensor<T> dy = p.grad(0).value;
    if (!dy.present()) dy = AnyTensor<T>(x.shape(), T{0});
    kernels::short_conv_backward(arguments(x, weight, bias, state), detail::rows_of(dy), p.grad(1).value.data(),
                                 {detail::mutable_rows_of(g[0]), g[1].data(), g[2].data(), g[3].data()});
    for (std::size_t i = 0; i < g.size(); ++i) {
      if (p.needs(i)) p.add(i, std::move(g[i]));
    }
  }

 private:
  template <class T>
  kernels::ShortConvolution<T> arguments(const AnyTensor<T>& x, const AnyTensor<T>& weight, const AnyTensor<T>& bias,
                                         const AnyTensor<T>& state) const {
    kernels::ShortConvolution<T> conv;
    conv.sequences = packing.sequences(name, x.extent(0), x.extent(1));
    conv.channels = x.extent(2);
    conv.width = weight.extent(2);
    conv.x = detail::rows_of(x);
    conv.weight = weight.data();
    conv.bias = bias.data();
    conv.state_in = state.size() == 0 ? nullptr : state.data();
    conv.silu = silu;
    return conv;
  }
};

/// y_t[e] = f(bias[e] + sum_{w<W} weight[e, 0, w] z_{t+w}[e]), z = the state's W-1 columns followed by x (tap W-1 = newest).
///
/// x, y: [B, L, E]; weight: [E, 1, W]; bias: [E] or none; state: [B, E, W-1], raw inputs, newest last, or none for zeros (a row for each
/// sequence if packed). Returns (y, state). Agrees with causal_conv1d's causal_conv1d_ref.
template <TensorLike X, TensorLike W, class B, class S>
auto short_conv(const X& x, const W& weight, const B& bias, const S& state, bool silu, const Packing& packing = {}) {
  return apply<rank_of<X>, rank_of<X>>(ShortConvOp{silu, packing}, x, weight, bias, state);
}

}  // namespace ordo
