#pragma once
/// \file
/// Convolution over time and its transpose, with groups, stride, dilation and padding. They can be differentiated any number of times:
/// <y, conv(x, weight)> is linear in each of the three, and every derivative is one of the same three parts again.

#include <type_traits>

#include "ordo/kernels/conv.hpp"
#include "ordo/ops/shape.hpp"
#include "ordo/ops/elementwise.hpp"
#include "ordo/ops/sequences.hpp"
#include "ordo/ops/shape.hpp"

namespace ordo {

/// The derivative of <y, conv(x, weight)> by one of the three, given the two others.
struct ConvolutionOp {
  static constexpr const char* name = "convolution";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  enum class Part : unsigned char {
    y,       ///< conv(x, weight) + bias; arguments x, weight, bias?
    x,       ///< its adjoint in y, + bias; arguments y, weight, bias?
    weight,  ///< arguments x, y
  };
  Part part = Part::y;
  kernels::Convolution c;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& a, const AnyTensor<T>& b, const AnyTensor<T>& bias) const {
    switch (part) {
      case Part::y: {
        AnyTensor<T> y(Shape{c.batch, c.out_length, c.out_dim});
        kernels::convolve(c, a.data(), b.data(), bias.data(), y.data());
        return y;
      }
      case Part::x: {
        AnyTensor<T> x(Shape{c.batch, c.in_length, c.in_dim});
        kernels::convolve_transposed(c, a.data(), b.data(), bias.data(), x.data());
        return x;
      }
      default: {
        AnyTensor<T> weight(Shape{c.out_dim, c.group_in(), c.width});
        kernels::convolution_weight(c, a.data(), b.data(), weight.data());
        return weight;
      }
    }
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> a = p.input(0), b = p.input(1), g = p.grad(0);
    const auto derivative = [this](Part by, const Var<T>& u, const Var<T>& v) {
      return apply<dynamic_rank>(ConvolutionOp{by, c}, u, v, none);
    };
    switch (part) {
      case Part::y:
        if (p.needs(0)) p.add(0, derivative(Part::x, g, b));
        if (p.needs(1)) p.add(1, derivative(Part::weight, a, g));
        break;
      case Part::x:
        if (p.needs(0)) p.add(0, derivative(Part::y, g, b));
        if (p.needs(1)) p.add(1, derivative(Part::weight, g, a));
        break;
      case Part::weight:
        if (p.needs(0)) p.add(0, derivative(Part::x, b, g));
        if (p.needs(1)) p.add(1, derivative(Part::y, a, g));
        break;
    }
    if (p.needs(2)) p.add(2, detail::unbroadcast(g, p.input(2).shape()));
  }
};

struct Conv1dParameters {
  Index stride = 1, dilation = 1;
  Index padding_left = 0, padding_right = 0;  ///< zeros in front and behind
  Index num_groups = 1;
};
struct ConvTranspose1dParameters {
  Index stride = 1, dilation = 1;
  Index padding = 0;         ///< outputs cut off on both sides
  Index output_padding = 0;  ///< outputs more at the end
  Index num_groups = 1;
};

namespace detail {

/// The convolution of a weight [out_dim, in_dim / groups, width], without lengths; errors name the op.
inline kernels::Convolution convolution_of(const char* op, const Shape& weight, Index stride, Index dilation, Index left, Index groups) {
  if (stride < 1 || dilation < 1 || groups < 1 || left < 0) {
    fail<ConfigError>({op, ": stride ", stride, ", dilation ", dilation, ", num_groups ", groups, ", padding ", left,
                       "; expected at least 1, 1, 1 and 0"});
  }
  if (weight.rank() != 3 || weight[2] < 1 || weight[0] % groups != 0) {
    fail<ShapeError>({op, ": the weight has shape ", weight, ", expected three axes, the first a multiple of num_groups ", groups,
                      ", the last at least 1"});
  }
  kernels::Convolution c;
  c.out_dim = weight[0];
  c.in_dim = weight[1] * groups;
  c.width = weight[2];
  c.stride = stride;
  c.dilation = dilation;
  c.left = left;
  c.groups = groups;
  return c;
}
inline void check_conv_input(const char* op, const Shape& x, Index channels, const Shape& weight, Index groups) {
  if (x.rank() == 3 && x[2] == channels) return;
  fail<ShapeError>({op, ": x has shape ", x, ", expected [B, L, ", channels, "] for a weight of shape ", weight, " in ", groups, " groups"});
}
/// ShapeError unless the bias is absent or [channels].
template <class X>
void check_conv_bias(const char* op, const X& bias, Index channels) {
  if constexpr (!std::is_same_v<X, None>) {
    if constexpr (is_parameter<X>) {
      if (!bias.present()) return;
    } else if constexpr (is_var<X>) {
      if (!bias.present()) return;
    }
    const Shape shape = shape_of(bias);
    if (!(shape == Shape{channels})) fail<ShapeError>({op, ": the bias has shape ", shape, ", expected [", channels, "]"});
  }
}

}  // namespace detail

/// y[b, t, o] = bias[o] + sum_{w, i} weight[o, i, w] x[b, t stride + w dilation - padding_left, g(o) in_dim/G + i], zeros outside of x.
///
/// x: [B, L, in_dim], weight: [out_dim, in_dim/G, W], bias: [out_dim] or none; y: [B, L', out_dim],
/// L' = (L + padding_left + padding_right - dilation (W-1) - 1) / stride + 1. 2 L' out_dim in_dim/G W flops a row of the batch.
/// Agrees with torch.nn.functional.conv1d.
template <TensorLike X, TensorLike W, class B>
auto conv1d(const X& x, const W& weight, const B& bias, const Conv1dParameters& p = {}) {
  const Shape xs = detail::shape_of(x), ws = detail::shape_of(weight);
  kernels::Convolution c = detail::convolution_of("conv1d", ws, p.stride, p.dilation, p.padding_left, p.num_groups);
  detail::check_conv_input("conv1d", xs, c.in_dim, ws, p.num_groups);
  detail::check_conv_bias("conv1d", bias, c.out_dim);
  const Index reach = p.dilation * (c.width - 1), padded = xs[1] + p.padding_left + p.padding_right;
  if (p.padding_right < 0 || padded < reach) {
    fail<ShapeError>({"conv1d: ", c.width, " taps reach over ", reach + 1, " tokens, the padded input has ", padded});
  }
  c.batch = xs[0];
  c.in_length = xs[1];
  c.out_length = padded == reach ? 0 : (padded - reach - 1) / p.stride + 1;
  return apply<rank_of<X>>(ConvolutionOp{ConvolutionOp::Part::y, c}, x, weight, bias);
}

/// The adjoint of conv1d, plus a bias: x[b, t, i] adds x[b, t, i] weight[i, o, w] to y[b, t stride + w dilation - padding,
/// g(i) out_dim/G + o] where that place exists.
///
/// x: [B, L, in_dim], weight: [in_dim, out_dim/G, W], bias: [out_dim] or none; y: [B, L', out_dim],
/// L' = (L-1) stride - 2 padding + dilation (W-1) + output_padding + 1. Agrees with torch.nn.functional.conv_transpose1d.
template <TensorLike X, TensorLike W, class B>
auto conv_transpose1d(const X& x, const W& weight, const B& bias, const ConvTranspose1dParameters& p = {}) {
  const Shape xs = detail::shape_of(x), ws = detail::shape_of(weight);
  kernels::Convolution c = detail::convolution_of("conv_transpose1d", ws, p.stride, p.dilation, p.padding, p.num_groups);
  detail::check_conv_input("conv_transpose1d", xs, c.out_dim, ws, p.num_groups);
  detail::check_conv_bias("conv_transpose1d", bias, c.in_dim);
  const Index length = (xs[1] - 1) * p.stride - 2 * p.padding + p.dilation * (c.width - 1) + p.output_padding + 1;
  if (p.output_padding < 0 || length < 0 || xs[1] < 1) {
    fail<ShapeError>({"conv_transpose1d: ", xs[1], " tokens give ", length, " (output_padding ", p.output_padding, ")"});
  }
  c.batch = xs[0];
  c.in_length = length;
  c.out_length = xs[1];
  return apply<rank_of<X>>(ConvolutionOp{ConvolutionOp::Part::x, c}, x, weight, bias);
}

}  // namespace ordo
