#pragma once
/// \file
/// Conv1d, ConvTranspose1d, and CausalConv1d, which streams.

#include <cmath>

#include "ordo/nn/layer.hpp"
#include "ordo/ops/conv.hpp"

namespace ordo {

/// y[b, t, o] = bias[o] + sum_{w, i} weight[o, i, w] x[b, t stride + w dilation - padding_left, g(o) in_dim/G + i].
///
/// x: [B, L, in_dim]; y: [B, L', out_dim], L' = (L + padding_left + padding_right - dilation (conv_width - 1) - 1) / stride + 1.
/// G = num_groups (in_dim: depthwise). Agrees with torch.nn.Conv1d, but for the order of the axes.
template <class T = float>
class Conv1d {
 public:
  using value_type = T;
  struct Config {
    Index in_dim = 0, out_dim = 0, conv_width = 0, stride = 1, dilation = 1, padding_left = 0, padding_right = 0, num_groups = 1;
    bool bias = true;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("in_dim", c.in_dim);
      f("out_dim", c.out_dim);
      f("conv_width", c.conv_width);
      f("stride", c.stride);
      f("dilation", c.dilation);
      f("padding_left", c.padding_left);
      f("padding_right", c.padding_right);
      f("num_groups", c.num_groups);
      f("bias", c.bias);
    }
  };

  Conv1d() = default;
  Conv1d(const Config& config, Random& random)
      : parameters_{config.stride, config.dilation, config.padding_left, config.padding_right, config.num_groups} {
    detail::require_at_least("conv1d", "conv_width", config.conv_width, 1);
    detail::require_at_least("conv1d", "in_dim", config.in_dim, 1);
    detail::require_at_least("conv1d", "out_dim", config.out_dim, 1);
    detail::require_divisible("conv1d", "in_dim", config.in_dim, config.num_groups);
    detail::require_divisible("conv1d", "out_dim", config.out_dim, config.num_groups);
    const Index fan_in = config.in_dim / config.num_groups;
    const double bound = 1 / std::sqrt(static_cast<double>(fan_in * config.conv_width));
    weight_ = uniform_parameter<T>(DynExtents<3>(config.out_dim, fan_in, config.conv_width), bound, random);
    if (config.bias) bias_ = uniform_parameter<T>(DynExtents<1>(config.out_dim), bound, random);
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    return conv1d(x, weight_, bias_, parameters_);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("weight", self.weight_);
    if (self.bias_.present()) f("bias", self.bias_);
  }

 private:
  Conv1dParameters parameters_;
  DynParameter<T, 3> weight_;
  DynParameter<T, 1> bias_;
};

/// The adjoint of Conv1d: every x[b, t, i] adds x[b, t, i] weight[i, o, w] to y[b, t stride + w dilation - padding, g(i) out_dim/G + o].
///
/// x: [B, L, in_dim]; y: [B, L', out_dim], L' = (L-1) stride - 2 padding + dilation (conv_width - 1) + output_padding + 1. Agrees with
/// torch.nn.ConvTranspose1d, but for the order of the axes.
template <class T = float>
class ConvTranspose1d {
 public:
  using value_type = T;
  struct Config {
    Index in_dim = 0, out_dim = 0, conv_width = 0, stride = 1, dilation = 1, padding = 0, output_padding = 0, num_groups = 1;
    bool bias = true;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("in_dim", c.in_dim);
      f("out_dim", c.out_dim);
      f("conv_width", c.conv_width);
      f("stride", c.stride);
      f("dilation", c.dilation);
      f("padding", c.padding);
      f("output_padding", c.output_padding);
      f("num_groups", c.num_groups);
      f("bias", c.bias);
    }
  };

  ConvTranspose1d() = default;
  ConvTranspose1d(const Config& config, Random& random)
      : parameters_{config.stride, config.dilation, config.padding, config.output_padding, config.num_groups} {
    detail::require_at_least("conv_transpose1d", "conv_width", config.conv_width, 1);
    detail::require_at_least("conv_transpose1d", "in_dim", config.in_dim, 1);
    detail::require_at_least("conv_transpose1d", "out_dim", config.out_dim, 1);
    detail::require_divisible("conv_transpose1d", "in_dim", config.in_dim, config.num_groups);
    detail::require_divisible("conv_transpose1d", "out_dim", config.out_dim, config.num_groups);
    const Index fan_out = config.out_dim / config.num_groups;
    const double bound = 1 / std::sqrt(static_cast<double>(fan_out * config.conv_width));
    weight_ = uniform_parameter<T>(DynExtents<3>(config.in_dim, fan_out, config.conv_width), bound, random);
    if (config.bias) bias_ = uniform_parameter<T>(DynExtents<1>(config.out_dim), bound, random);
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    return conv_transpose1d(x, weight_, bias_, parameters_);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("weight", self.weight_);
    if (self.bias_.present()) f("bias", self.bias_);
  }

 private:
  ConvTranspose1dParameters parameters_;
  DynParameter<T, 3> weight_;
  DynParameter<T, 1> bias_;
};

/// Conv1d that sees the present and the past only: y[b, t, o] = bias[o] + sum_{w, i} weight[o, i, w] x[b, t - (W-1-w) dilation, g(o) in_dim/G + i]
/// (tap W-1 is the newest), as in WaveNet and temporal convolutional networks.   x: [B, L, in_dim]; y: [B, L, out_dim].
///
/// State: the last dilation (W-1) inputs, [B, dilation (W-1), in_dim], newest last. Equals Conv1d with padding_left = dilation (W-1).
template <class T = float>
class CausalConv1d {
 public:
  using value_type = T;
  struct Config {
    Index in_dim = 0, out_dim = 0, conv_width = 0, dilation = 1, num_groups = 1;
    bool bias = true;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("in_dim", c.in_dim);
      f("out_dim", c.out_dim);
      f("conv_width", c.conv_width);
      f("dilation", c.dilation);
      f("num_groups", c.num_groups);
      f("bias", c.bias);
    }
  };
  /// `past` [B, dilation (W-1), in_dim], newest last.
  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    StateTensor<M, T, 3> past;
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("past", s.past);
    }
  };

  CausalConv1d() = default;
  CausalConv1d(const Config& config, Random& random) : in_dim_(config.in_dim) {
    detail::require_at_least("causal_conv1d", "conv_width", config.conv_width, 1);
    detail::require_at_least("causal_conv1d", "in_dim", config.in_dim, 1);
    detail::require_at_least("causal_conv1d", "out_dim", config.out_dim, 1);
    detail::require_at_least("causal_conv1d", "dilation", config.dilation, 1);
    detail::require_divisible("causal_conv1d", "in_dim", config.in_dim, config.num_groups);
    detail::require_divisible("causal_conv1d", "out_dim", config.out_dim, config.num_groups);
    parameters_ = {.dilation = config.dilation, .num_groups = config.num_groups};
    past_ = config.dilation * (config.conv_width - 1);
    const Index fan_in = config.in_dim / config.num_groups;
    const double bound = 1 / std::sqrt(static_cast<double>(fan_in * config.conv_width));
    weight_ = uniform_parameter<T>(DynExtents<3>(config.out_dim, fan_in, config.conv_width), bound, random);
    if (config.bias) bias_ = uniform_parameter<T>(DynExtents<1>(config.out_dim), bound, random);
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    Conv1dParameters padded = parameters_;
    padded.padding_left = past_;
    return conv1d(x, weight_, bias_, padded);
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    const auto seen = concat(1, state.past, x);
    state.past = slice(seen, 1, detail::shape_of(seen)[1] - past_, past_);
    return conv1d(seen, weight_, bias_, parameters_);
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return detail::only_token((*this)(detail::one_token(x_t), state));
  }
  State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    s.past = DynTensor<T, 3>(batch, past_, in_dim_);
    return s;
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("weight", self.weight_);
    if (self.bias_.present()) f("bias", self.bias_);
  }

 private:
  Conv1dParameters parameters_;
  Index in_dim_ = 0, past_ = 0;
  DynParameter<T, 3> weight_;
  DynParameter<T, 1> bias_;
};

static_assert(SequenceLayer<CausalConv1d<float>>);

}  // namespace ordo
