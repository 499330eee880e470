#pragma once
/// \file
/// Losses of single elements: mean squared and absolute error, Huber's, binary cross-entropy of logits, Kullback-Leibler divergence.
/// Gradients go to both arguments, any number of times. `..._each` does not reduce.

#include <cmath>

#include "ordo/ops/activation.hpp"
#include "ordo/ops/reduction.hpp"

namespace ordo {

/// u times the n-th derivative (n = order; the function itself if 0, u not there then) of a function of d = x - target.
/// The third derivatives of all of them are 0.
struct ResidualOp {
  static constexpr const char* name = "residual";
  static constexpr unsigned keeps_inputs = 7, keeps_outputs = 0;
  enum class Kind : unsigned char {
    square,    ///< d^2
    absolute,  ///< |d|
    huber,     ///< |d| <= width: d^2 / 2, else width (|d| - width / 2)
  };
  const char* op;
  Kind kind;
  double width = 1, factor = 1;  // huber's; and what everything is multiplied by
  int order = 0;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x, const AnyTensor<T>& target, const AnyTensor<T>& u) const {
    if (!(x.shape() == target.shape())) {
      fail<ShapeError>({op, ": x has shape ", x.shape(), ", the target ", target.shape()});
    }
    using V = simd::Vec<T>;
    AnyTensor<T> y(x.shape());
    const V zero(T(0)), one(T(1)), half(T(0.5)), w(static_cast<T>(width)), scale(static_cast<T>(factor));
    const auto each = [&](auto f) {
      parallel_for(x.size(), detail::elementwise_grain, [&](Index begin, Index end) {
        simd::transform(x.data() + begin, target.data() + begin, y.data() + begin, end - begin,
                        [&](const V& a, const V& b) { return scale * f(a - b); });
        if (order > 0) {
          simd::transform(y.data() + begin, u.data() + begin, y.data() + begin, end - begin,
                          [](const V& a, const V& b) { return a * b; });
        }
      });
    };
    switch (3 * static_cast<int>(kind) + order) {
      case 0: each([](const V& d) { return d * d; }); break;
      case 1: each([](const V& d) { return d + d; }); break;
      case 2: each([=](const V&) { return one + one; }); break;
      case 3: each([](const V& d) { return simd::abs(d); }); break;
      case 4: each([=](const V& d) { return simd::select(d > zero, one, simd::select(d < zero, -one, d)); }); break;
      case 6:
        each([=](const V& d) {
          const V a = simd::abs(d);
          return simd::select(a > w, w * (a - half * w), half * d * d);
        });
        break;
      case 7: each([=](const V& d) { return simd::select(d > w, w, simd::select(d < -w, -w, d)); }); break;
      case 8: each([=](const V& d) { return simd::select(simd::abs(d) > w, zero, one); }); break;
      default: y.fill(T(0)); break;
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> x = p.input(0), target = p.input(1), u = p.input(2), g = p.grad(0);
    if (p.needs(2)) p.add(2, apply<dynamic_rank>(*this, x, target, g));
    if (order == 2 || !(p.needs(0) || p.needs(1))) return;
    ResidualOp next = *this;
    ++next.order;
    const Var<T> dx = apply<dynamic_rank>(next, x, target, order == 0 ? g : mul(u, g));
    if (p.needs(0)) p.add(0, dx);
    if (p.needs(1)) p.add(1, neg(dx));
  }
};

namespace detail {
template <class X, class Y>
auto residual(const char* op, ResidualOp::Kind kind, const X& x, const Y& target, double width = 1, double factor = 1) {
  return apply<rank_of<X>>(ResidualOp{op, kind, width, factor, 0}, x, target, none);
}
inline void require_positive(const char* op, const char* key, double value) {
  if (!(value > 0)) fail<ConfigError>({op, ": ", key, " is ", value, ", expected > 0"});
}
}  // namespace detail

/// (x - target)^2 of each element; x and target of one shape.
template <TensorLike X, TensorLike Y>
auto mse_loss_each(const X& x, const Y& target) {
  return detail::residual("mse_loss", ResidualOp::Kind::square, x, target);
}
template <TensorLike X, TensorLike Y>
auto mse_loss(const X& x, const Y& target, Reduction reduction = Reduction::mean) {
  return detail::reduced(mse_loss_each(x, target), reduction);
}

/// |x - target| of each element; the derivative at 0 is 0.
template <TensorLike X, TensorLike Y>
auto l1_loss_each(const X& x, const Y& target) {
  return detail::residual("l1_loss", ResidualOp::Kind::absolute, x, target);
}
template <TensorLike X, TensorLike Y>
auto l1_loss(const X& x, const Y& target, Reduction reduction = Reduction::mean) {
  return detail::reduced(l1_loss_each(x, target), reduction);
}

/// With d = x - target: d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2). Huber 1964.
template <TensorLike X, TensorLike Y>
auto huber_loss_each(const X& x, const Y& target, double delta = 1) {
  detail::require_positive("huber_loss", "delta", delta);
  return detail::residual("huber_loss", ResidualOp::Kind::huber, x, target, delta);
}
template <TensorLike X, TensorLike Y>
auto huber_loss(const X& x, const Y& target, double delta = 1, Reduction reduction = Reduction::mean) {
  return detail::reduced(huber_loss_each(x, target, delta), reduction);
}

/// With d = x - target: d^2 / (2 beta) where |d| < beta, else |d| - beta / 2: Huber's loss over its delta.
template <TensorLike X, TensorLike Y>
auto smooth_l1_loss_each(const X& x, const Y& target, double beta = 1) {
  detail::require_positive("smooth_l1_loss", "beta", beta);
  return detail::residual("smooth_l1_loss", ResidualOp::Kind::huber, x, target, beta, 1 / beta);
}
template <TensorLike X, TensorLike Y>
auto smooth_l1_loss(const X& x, const Y& target, double beta = 1, Reduction reduction = Reduction::mean) {
  return detail::reduced(smooth_l1_loss_each(x, target, beta), reduction);
}

/// weight (positive_weight y softplus(-x) + (1 - y) softplus(x)) of each element: the cross-entropy between sigmoid(x) and y in [0, 1].
///
/// logits, targets, weight: one shape; positive_weight: [last axis]; both weights may be none. No logit overflows. Agrees with
/// torch.nn.functional.binary_cross_entropy_with_logits (its pos_weight).
template <TensorLike X, TensorLike Y, class W = None, class P = None>
auto binary_cross_entropy_with_logits_each(const X& logits, const Y& targets, const W& weight = none,
                                           const P& positive_weight = none) {
  constexpr const char* op = "binary_cross_entropy_with_logits";
  detail::require_same_shape(op, "logits", logits, "targets", targets);
  const auto times = [](const auto& y, const auto& w) { return mul(y, w); };
  const auto weighted = [&](const auto& y, const auto& w) {
    detail::require_same_shape(op, "logits", logits, "weight", w);
    return mul(y, w);
  };
  const auto positive = detail::if_given(mul(targets, softplus(neg(logits))), positive_weight, times);
  return detail::if_given(add(positive, mul(affine(targets, -1, 1), softplus(logits))), weight, weighted);
}
/// The mean divides by the number of elements, whatever the weights.
template <TensorLike X, TensorLike Y, class W = None, class P = None>
auto binary_cross_entropy_with_logits(const X& logits, const Y& targets, const W& weight = none, const P& positive_weight = none,
                                      Reduction reduction = Reduction::mean) {
  return detail::reduced(binary_cross_entropy_with_logits_each(logits, targets, weight, positive_weight), reduction);
}

/// Arguments: log_q, p.
struct KlDivergenceOp {
  static constexpr const char* name = "kl_divergence";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  bool log_target = false;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& log_q, const AnyTensor<T>& p) const {
    if (!(log_q.shape() == p.shape())) {
      fail<ShapeError>({name, ": log_q has shape ", log_q.shape(), ", p ", p.shape()});
    }
    using V = simd::Vec<T>;
    const V zero(T(0)), one(T(1));
    if (log_target) {
      return detail::map_broadcast(name, log_q, p, [=](const V& l, const V& v) {
        const V e = simd::exp(v);
        return simd::select(e > zero, e * (v - l), zero);
      });
    }
    return detail::map_broadcast(name, log_q, p, [=](const V& l, const V& v) {
      return simd::select(v == zero, zero, v * (simd::log(simd::select(v == zero, one, v)) - l));
    });
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    const Var<T> log_q = p.input(0), target = p.input(1), g = p.grad(0);
    const Var<T> probability = log_target ? exp(target) : target;
    if (p.needs(0)) p.add(0, neg(mul(g, probability)));
    if (!p.needs(1)) return;
    const Var<T> slope = affine(sub(log_target ? target : log(target), log_q), 1, 1);
    p.add(1, mul(g, log_target ? mul(probability, slope) : slope));
  }
};

/// KL(p || q) of each element, q given by its logarithm: p (ln p - log_q), 0 where p = 0; with log_target p is a logarithm too:
/// exp(p) (p - log_q). log_q, p: one shape. Agrees with torch.nn.functional.kl_div.
template <TensorLike Q, TensorLike P>
auto kl_divergence_each(const Q& log_q, const P& p, bool log_target = false) {
  return apply<rank_of<Q>>(KlDivergenceOp{log_target}, log_q, p);
}
/// The mean is over all elements; Reduction::batch_mean, the mathematical one, over the first axis.
template <TensorLike Q, TensorLike P>
auto kl_divergence(const Q& log_q, const P& p, bool log_target = false, Reduction reduction = Reduction::mean) {
  return detail::reduced(kl_divergence_each(log_q, p, log_target), reduction);
}

}  // namespace ordo
