#pragma once
/// \file
/// Layer norm, RMS norm, group norm, gated RMS norm and L2 norm. Fused, forward and backward; a backward pass that is
/// itself recorded is made of elementary ops instead, so that all can be differentiated any number of times.

#include <utility>

#include "ordo/kernels/normalize.hpp"
#include "ordo/ops/activation.hpp"
#include "ordo/ops/reduce.hpp"
#include "ordo/ops/sequences.hpp"

namespace ordo {

/// Arguments: x, weight?, bias?. The last axis is cut in `groups` that are normalised each for itself; weight and bias are per
/// channel.
struct NormOp {
  static constexpr const char* name = "norm";
  static constexpr unsigned keeps_inputs = 0x3, keeps_outputs = 0;
  const char* op = "norm";
  bool centered = false;
  double eps = 1e-5, weight_offset = 0;
  Index groups = 1;
  kernels::NormScale scale = kernels::NormScale::rms;

  template <class T>
  struct Saved {
    AnyTensor<T> mean, scale;
  };

  template <class T>
  AnyTensor<T> forward(Saved<T>* saved, const AnyTensor<T>& x, const AnyTensor<T>& weight,
                       const AnyTensor<T>& bias) const {
    if (x.rank() == 0) fail<ShapeError>({op, ": x is a scalar"});
    if (groups < 1 || x.shape().back() % groups != 0) {
      fail<ShapeError>({op, ": ", x.shape().back(), " channels cannot be cut in ", groups, " groups"});
    }
    detail::require_shape(op, "weight", weight, Shape{x.shape().back()});
    detail::require_shape(op, "bias", bias, Shape{x.shape().back()});
    const auto in = arguments(x, weight, bias);
    AnyTensor<T> y(x.shape());
    if (saved != nullptr) {
      saved->scale = AnyTensor<T>(Shape{in.rows});
      if (centered) saved->mean = AnyTensor<T>(Shape{in.rows});
      kernels::normalize_forward<T>(in, y.data(), saved->mean.data(), saved->scale.data());
    } else {
      kernels::normalize_forward<T>(in, y.data(), nullptr, nullptr);
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p, const Saved<T>& saved) const {
    if (p.output(0).tracked()) return recorded_backward(p, saved);
    AnyTensor<T> dx = detail::gradient_like(p, 0), dw = detail::gradient_like(p, 1), db = detail::gradient_like(p, 2);
    kernels::normalize_backward<T>(arguments(p.input(0).value, p.input(1).value, AnyTensor<T>{}), saved.mean.data(),
                                   saved.scale.data(), p.grad(0).value.data(), dx.data(), dw.data(), db.data());
    if (p.needs(0)) p.add(0, std::move(dx));
    if (p.needs(1)) p.add(1, std::move(dw));
    if (p.needs(2)) p.add(2, std::move(db));
  }

 private:
  /// With h = (x - mean) / r, r = 1 / scale and g = dy (weight_offset + weight):
  /// dx = (g - mean(g) [centered] - h mean(g h)) / r, sums for means with an L2 scale. All as [rows, groups, n].
  template <class T>
  [[gnu::cold]] void recorded_backward(Pullback<T>& p, const Saved<T>& saved) const {
    using kernels::NormScale;
    const Index channels = p.input(0).shape().back();
    const Shape lines{channels == 0 ? 0 : p.input(0).shape().size() / channels, groups, channels / groups};
    const auto as = [](const Var<T>& v, const Shape& shape) { return apply<dynamic_rank>(ReshapeOp{shape}, v); };
    const auto part = [this](const Var<T>& v) {
      return scale == NormScale::rms ? mean(v, -1, keep_axis) : sum(v, -1, keep_axis);
    };
    const auto deviation = [&](const Var<T>& v) { return centered ? sub(v, part(v)) : v; };
    const Var<T> dy = as(p.grad(0), lines), d = deviation(as(p.input(0), lines));
    Var<T> level = part(square(d)), moves;
    if (scale == NormScale::l2_max) {
      // Where the scale is constant, eps^2 stands in the place of the sum of squares, from which nothing flows back.
      AnyTensor<T> from_x(lines.with_back(1)), constant(lines.with_back(1));
      for (Index r = 0; r < from_x.size(); ++r) {
        const bool moving = saved.scale.data()[r] < T(1) / static_cast<T>(eps);
        from_x.data()[r] = moving ? T(1) : T(0);
        constant.data()[r] = moving ? T(0) : static_cast<T>(eps * eps);
      }
      moves = Var<T>{from_x};
      level = add(mul(level, moves), Var<T>{constant});
    } else {
      level = affine(level, 1, eps);
    }
    const Var<T> r = sqrt(level), h = div(d, r);
    Var<T> g = dy;
    if (p.input(1).present()) g = mul(dy, affine(as(p.input(1), Shape{groups, lines.back()}), 1, weight_offset));
    if (p.needs(0)) {
      const Var<T> along = part(mul(g, h));
      const Var<T> dx = div(sub(deviation(g), mul(h, moves.present() ? mul(along, moves) : along)), r);
      p.add(0, as(dx, p.input(0).shape()));
    }
    const auto per_channel = [&](const Var<T>& v) {
      return as(detail::unbroadcast(v, Shape{groups, lines.back()}), Shape{channels});
    };
    if (p.needs(1)) p.add(1, per_channel(mul(dy, h)));
    if (p.needs(2)) p.add(2, per_channel(dy));
  }
  template <class T>
  kernels::Normalization<T> arguments(const AnyTensor<T>& x, const AnyTensor<T>& weight,
                                      const AnyTensor<T>& bias) const {
    kernels::Normalization<T> in;
    in.centered = centered;
    in.n = x.shape().back() / groups;
    in.rows = in.n == 0 ? 0 : x.size() / in.n;
    in.x = x.data();
    in.weight = weight.data();
    in.bias = bias.data();
    in.weight_offset = static_cast<T>(weight_offset);
    in.eps = static_cast<T>(eps);
    in.groups = groups;
    in.scale = scale;
    return in;
  }
};

/// x * weight + bias along the last axis. Arguments: x, weight?, bias?.
struct ChannelAffineOp {
  static constexpr const char* name = "channel_affine";
  static constexpr unsigned keeps_inputs = 0x3, keeps_outputs = 0;
  const char* op = name;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x, const AnyTensor<T>& weight, const AnyTensor<T>& bias) const {
    const Index n = x.shape().back();
    detail::require_shape(op, "weight", weight, Shape{n});
    detail::require_shape(op, "bias", bias, Shape{n});
    AnyTensor<T> y = x;
    using V = simd::Vec<T>;
    if (weight.present()) y = detail::map_broadcast(op, y, weight, [](const V& a, const V& w) { return a * w; });
    if (bias.present()) y = detail::map_broadcast(op, y, bias, [](const V& a, const V& b) { return a + b; });
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> dy = p.grad(0), w = p.input(1);
    if (p.needs(0)) p.add(0, w.present() ? mul(dy, w) : dy);
    if (p.needs(1)) p.add(1, detail::unbroadcast(mul(dy, p.input(0)), w.shape()));
    if (p.needs(2)) p.add(2, detail::unbroadcast(dy, p.input(2).shape()));
  }
};

/// y = (x - mean) / sqrt(var + eps) * weight + bias over the last axis, with the biased variance; weight, bias: [n] or
/// none.
template <TensorLike X, class W, class B>
auto layer_norm(const X& x, const W& weight, const B& bias, double eps = 1e-5) {
  return apply<rank_of<X>>(NormOp{"layer_norm", true, eps}, x, weight, bias);
}
/// y = x / sqrt(mean(x^2) + eps) * (weight_offset + weight) over the last axis; weight: [n] or none (no factor then).
template <TensorLike X, class W>
auto rms_norm(const X& x, const W& weight, double eps = 1e-6, double weight_offset = 0) {
  return apply<rank_of<X>>(NormOp{"rms_norm", false, eps, weight_offset}, x, weight, none);
}

/// y = (x - mean) / sqrt(var + eps) * weight[c] + bias[c], mean and biased variance those of each token's group: the last axis is
/// cut in `num_groups` runs of n / num_groups channels. weight, bias: [n] or none.
///
/// Wu and He 2018 (arXiv 1803.08494) for single tokens, as RWKV and RetNet use it.
template <TensorLike X, class W, class B>
auto group_norm(const X& x, const W& weight, const B& bias, Index num_groups, double eps = 1e-5) {
  return apply<rank_of<X>>(NormOp{"group_norm", true, eps, 0, num_groups}, x, weight, bias);
}

/// The same with mean and variance of each batch row's group, over all its tokens. x: [B, L, n]; not causal. Agrees with
/// torch.nn.functional.group_norm on [B, n, L]. Two transposed copies beside the norm.
template <TensorLike X, class W, class B>
auto group_norm_over_length(const X& x, const W& weight, const B& bias, Index num_groups, double eps = 1e-5) {
  const Shape s = detail::shape_of(x);
  if (s.rank() != 3) fail<ShapeError>({"group_norm: x has shape ", s, ", expected [B, L, n]"});
  if (num_groups < 1 || s[2] % num_groups != 0) {
    fail<ShapeError>({"group_norm: ", s[2], " channels cannot be cut in ", num_groups, " groups"});
  }
  const Index n = s[2] / num_groups;
  const auto by_group = transpose(reshape(x, s[0], s[1], num_groups, n), 1, 2);
  const auto lines = layer_norm(reshape(by_group, s[0], num_groups, s[1] * n), none, none, eps);
  const auto y = reshape(transpose(reshape(lines, s[0], num_groups, s[1], n), 1, 2), s[0], s[1], s[2]);
  return apply<rank_of<X>>(ChannelAffineOp{"group_norm"}, y, weight, bias);
}

/// R(x) f(gate), or with the gate first R(x f(gate)), where R(u) = u / sqrt(mean(u^2) + eps) * weight[c] + bias[c] over each of
/// `num_groups` runs of channels.   x, gate: [..., n]; weight, bias: [n] or none.
///
/// Agrees with mamba_ssm's rms_norm_ref (triton/layernorm_gated.py).
template <TensorLike X, TensorLike G, class W, class B>
auto gated_rms_norm(const X& x, const G& gate, const W& weight, const B& bias, Activation f = Activation::silu,
                    bool norm_before_gate = true, Index num_groups = 1, double eps = 1e-5) {
  const NormOp norm{"gated_rms_norm", false, eps, 0, num_groups};
  const auto opening = activation(gate, f);
  constexpr std::size_t rank = detail::broadcast_rank<X, G>;
  if (!(detail::shape_of(x) == detail::shape_of(gate))) {
    fail<ShapeError>({"gated_rms_norm: x has shape ", detail::shape_of(x), ", the gate ", detail::shape_of(gate)});
  }
  if (norm_before_gate) return mul(apply<rank>(norm, x, weight, bias), opening);
  return apply<rank>(norm, mul(x, opening), weight, bias);
}

/// How eps keeps l2_norm from dividing by zero.
enum class L2Eps : unsigned char {
  sum,  ///< x / sqrt(sum x^2 + eps)
  max,  ///< x / max(sqrt(sum x^2), eps); where eps is the larger one, the gradient is that of x / eps
};

/// x over its Euclidean length, along the last axis.
///
/// `sum`: fla's l2norm; `max`: torch.nn.functional.normalize.
template <TensorLike X>
auto l2_norm(const X& x, double eps = 1e-6, L2Eps form = L2Eps::sum) {
  const auto scale = form == L2Eps::sum ? kernels::NormScale::l2_sum : kernels::NormScale::l2_max;
  return apply<rank_of<X>>(NormOp{"l2_norm", false, eps, 0, 1, scale}, x, none, none);
}

}  // namespace ordo
