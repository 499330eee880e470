#pragma once
/// \file
/// ShortConv: a depthwise causal convolution over a few tokens.

#include <cmath>

#include "ordo/nn/layer.hpp"
#include "ordo/ops/short_conv.hpp"

namespace ordo {

/// y_t[e] = f(bias[e] + sum_{w<W} weight[e, 0, w] x_{t-(W-1)+w}[e]), f = silu or none.   x, y: [B, L, inner_dim].
///
/// State: the last W-1 inputs, E (W - 1) numbers a row. 2 E W flops a token. Agrees with causal_conv1d.
template <class T = float>
class ShortConv {
 public:
  using value_type = T;
  struct Config {
    Index inner_dim = 0, conv_width = 4;
    bool bias = true;
    Activation activation = Activation::silu;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("inner_dim", c.inner_dim);
      f("conv_width", c.conv_width);
      f("bias", c.bias);
      f("activation", c.activation);
    }
  };
  /// `conv` [B, E, W-1], newest last; absent for W = 1.
  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    StateTensor<M, T, 3> conv;
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("conv", s.conv);
    }
  };

  ShortConv() = default;
  [[gnu::cold]] ShortConv(const Config& config, Random& random) : config_(config) {
    detail::require_at_least("short_conv", "inner_dim", config.inner_dim, 1);
    detail::require_at_least("short_conv", "conv_width", config.conv_width, 1);
    if (config.activation != Activation::silu && config.activation != Activation::none) {
      fail<ConfigError>({"short_conv: activation is silu or none, given ", to_string(config.activation)});
    }
    const double bound = 1 / std::sqrt(static_cast<double>(config.conv_width));
    weight_ = uniform_parameter<T>(DynExtents<3>(config.inner_dim, Index{1}, config.conv_width), bound, random);
    if (config.bias) bias_ = uniform_parameter<T>(DynExtents<1>(config.inner_dim), bound, random);
  }

  template <TensorLike X>
  auto operator()(const X& x, const Packing& packing = {}) const {
    return std::get<0>(run(x, none, packing));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state, const Packing& packing = {}) const {
    auto [y, conv] = run(x, state.conv, packing);
    state.conv = std::move(conv);
    return y;
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return detail::only_token((*this)(detail::one_token(x_t), state));
  }
  [[gnu::cold]] State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    s.conv = DynTensor<T, 3>(batch, config_.inner_dim, config_.conv_width - 1);
    return s;
  }

  /// (y, state) from a state or none: for layers that keep the state themselves.
  template <TensorLike X, class S>
  auto run(const X& x, const S& state, const Packing& packing) const {
    return short_conv(x, weight_, bias_, state, config_.activation == Activation::silu, packing);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("weight", self.weight_);
    if (self.bias_.present()) f("bias", self.bias_);
  }

 private:
  Config config_;
  DynParameter<T, 3> weight_;
  DynParameter<T, 1> bias_;
};

static_assert(SequenceLayer<ShortConv<float>>);

}  // namespace ordo
