#pragma once
/// \file
/// Losses of classification: cross-entropy of logits, fused with log-softmax, and the likelihood of log-probabilities.

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

#include "ordo/kernels/cross_entropy.hpp"
#include "ordo/ops/reduction.hpp"
#include "ordo/ops/softmax.hpp"

namespace ordo {

namespace detail {

/// UsageError for a target that is neither a class nor ignore_index.
inline void check_targets(const char* op, const AnyTensor<Index>& targets, Index classes, Index ignore_index) {
  for (Index r = 0; r < targets.size(); ++r) {
    const Index t = targets.data()[r];
    if (t == ignore_index || (t >= 0 && t < classes)) continue;
    std::string at;
    Index rest = r;
    for (std::size_t back = 0; back < targets.rank(); ++back) {
      const Index e = targets.shape().back(back);
      at = std::to_string(rest % e) + (at.empty() ? "" : ", ") + at;
      rest /= e;
    }
    fail<UsageError>({op, ": target ", t, " at [", at, "], expected 0 to ", classes - 1, ", or ignore_index ", ignore_index});
  }
}

}  // namespace detail

struct CrossEntropyParameters {
  Index ignore_index = -100;   ///< positions with this index target do not count; any class may serve
  double label_smoothing = 0;  ///< s in [0, 1): the target is (1 - s) target + s / V
  double z_loss = 0;  ///< z >= 0: adds z logsumexp(logits)^2; with index targets and without class weights only
  Reduction reduction = Reduction::mean;
};

/// Arguments: logits [..., V], class weights [V]?, target probabilities [..., V]?. The last two are constants.
struct CrossEntropyOp {
  static constexpr const char* name = "cross_entropy";
  static constexpr unsigned keeps_inputs = 7, keeps_outputs = 0;
  CrossEntropyParameters parameters;
  bool reduced = true;
  AnyTensor<Index> targets;  // absent with probabilities

  template <class T>
  struct Saved {
    AnyTensor<T> shift, sum;  // [rows]
  };

  template <class T>
  AnyTensor<T> forward(Saved<T>* saved, const AnyTensor<T>& logits, const AnyTensor<T>& weight,
                       const AnyTensor<T>& probabilities) const {
    const Shape weight_shape = weight.shape();
    check(logits.shape(), targets.present() ? targets.shape() : probabilities.shape(),
          weight.present() ? &weight_shape : nullptr);
    const auto in = arguments(logits, weight, probabilities);
    AnyTensor<T> each(positions(logits.shape())), shift(Shape{in.rows}), sum(Shape{in.rows});
    kernels::cross_entropy_forward(in, each.data(), shift.data(), sum.data());
    const Scales scales = scales_of(in);
    const auto z = [&](Index r) {
      const double lse = static_cast<double>(shift.data()[r]) + std::log(static_cast<double>(sum.data()[r]));
      return in.kept(r) ? scales.z * lse * lse : 0.0;
    };
    AnyTensor<T> y = each;
    if (reduced) {
      double total = 0;
      for (Index r = 0; r < in.rows; ++r) {
        total += scales.loss * static_cast<double>(each.data()[r]) + (scales.z == 0 ? 0 : z(r));
      }
      y = AnyTensor<T>(Shape{}, static_cast<T>(total));
    } else if (scales.z != 0) {
      for (Index r = 0; r < in.rows; ++r) y.data()[r] += static_cast<T>(z(r));
    }
    if (saved != nullptr) *saved = {std::move(shift), std::move(sum)};
    return y;
  }

  template <class T>
  void backward(Pullback<T>& p, const Saved<T>& saved) const {
    if (!p.needs(0)) return;
    if (p.output(0).tracked()) return recorded_backward(p);
    const AnyTensor<T> logits = p.input(0).value, weight = p.input(1).value, probabilities = p.input(2).value;
    const auto in = arguments(logits, weight, probabilities);
    const Scales scales = scales_of(in);
    const AnyTensor<T>& dy = p.grad(0).value;
    AnyTensor<T> dx(logits.shape()), u(Shape{in.rows}), v(Shape{scales.z == 0 ? 0 : in.rows});
    for (Index r = 0; r < in.rows; ++r) u.data()[r] = dy.data()[reduced ? 0 : r] * static_cast<T>(scales.loss);
    for (Index r = 0; r < v.size(); ++r) {
      const T lse = saved.shift.data()[r] + std::log(saved.sum.data()[r]);
      v.data()[r] = dy.data()[reduced ? 0 : r] * static_cast<T>(2 * scales.z) * lse;
    }
    kernels::cross_entropy_backward<T>(in, saved.shift.data(), saved.sum.data(), u.data(),
                                       scales.z == 0 ? nullptr : v.data(), dx.data());
    p.add(0, std::move(dx));
  }

 private:
  /// What the loss and the squared log-sum-exp of a position are multiplied by.
  struct Scales {
    double loss, z;
  };
  template <class T>
  Scales scales_of(const kernels::CrossEntropy<T>& in) const {
    if (!reduced || parameters.reduction == Reduction::sum) return {1, parameters.z_loss};
    double weights = 0, count = 0;
    for (Index r = 0; r < in.rows; ++r) {
      if (!in.kept(r)) continue;
      weights += in.targets == nullptr ? 1.0 : static_cast<double>(in.weight(r));
      ++count;
    }
    return {weights == 0 ? 0 : 1 / weights, count == 0 ? 0 : parameters.z_loss / count};
  }

  /// u (p sum(c) - c) + v p with the coefficients c written out, so that p and u are recorded.
  template <class T>
  [[gnu::cold]] void recorded_backward(Pullback<T>& p) const {
    const Var<T> x = p.input(0), dy = p.grad(0);
    const auto in = arguments(x.value, p.input(1).value, p.input(2).value);
    const Scales scales = scales_of(in);
    Shape line = x.shape().with_back(1);
    AnyTensor<T> c(x.shape(), T{0}), total(line, T{0}), kept(line, T{0});
    const double s = parameters.label_smoothing, even = s / static_cast<double>(in.classes);
    for (Index r = 0; r < in.rows; ++r) {
      if (!in.kept(r)) continue;
      for (Index k = 0; k < in.classes; ++k) {
        const double q =
            in.targets == nullptr ? static_cast<double>(in.probabilities[r * in.classes + k]) : in.targets[r] == k;
        const double w = in.class_weight == nullptr ? 1 : static_cast<double>(in.class_weight[k]);
        c.data()[r * in.classes + k] = static_cast<T>(w * ((1 - s) * q + even));
        total.data()[r] += c.data()[r * in.classes + k];
      }
      kept.data()[r] = T{1};
    }
    const Var<T> u = reduced ? dy : apply<dynamic_rank>(ReshapeOp{line}, dy), probability = softmax(x);
    Var<T> g = affine(sub(mul(probability, Var<T>{total}), Var<T>{c}), scales.loss);
    if (scales.z != 0) {
      const Var<T> lse = mul(logsumexp(x, -1, keep_axis), Var<T>{kept});
      g = add_scaled(g, mul(probability, lse), 2 * scales.z);
    }
    p.add(0, mul(g, u));
  }

  static Shape positions(const Shape& logits) {
    Shape s;
    for (std::size_t axis = 0; axis + 1 < logits.rank(); ++axis) s.push_back(logits[axis]);
    return s;
  }
  template <class T>
  kernels::CrossEntropy<T> arguments(const AnyTensor<T>& logits, const AnyTensor<T>& weight,
                                     const AnyTensor<T>& probabilities) const {
    kernels::CrossEntropy<T> in;
    in.rows = logits.shape().size(0, logits.rank() - 1);
    in.classes = logits.shape().back();
    in.logits = logits.data();
    in.targets = targets.present() ? targets.data() : nullptr;
    in.probabilities = probabilities.data();
    in.class_weight = weight.data();
    in.ignore_index = parameters.ignore_index;
    in.smoothing = static_cast<T>(parameters.label_smoothing);
    return in;
  }
  void check(const Shape& logits, const Shape& target_shape, const Shape* weight) const {
    if (logits.rank() == 0 || logits.back() == 0) {
      fail<ShapeError>({name, ": logits of shape ", logits, "; expected [..., V]"});
    }
    const Index classes = logits.back();
    const Shape expected = targets.present() ? positions(logits) : logits;
    if (!(target_shape == expected)) {
      fail<ShapeError>({name, ": targets of shape ", target_shape, ", expected ", expected, " for logits ", logits});
    }
    if (weight != nullptr && !(*weight == Shape{classes})) {
      fail<ShapeError>({name, ": class weights of shape ", *weight, ", expected [", classes, "]"});
    }
    const double smoothing = parameters.label_smoothing, z = parameters.z_loss;
    if (!(smoothing >= 0 && smoothing < 1)) {
      fail<ConfigError>({name, ": label_smoothing is ", smoothing, ", expected 0 <= s < 1"});
    }
    if (!(z >= 0)) fail<ConfigError>({name, ": z_loss is ", z, ", expected >= 0"});
    if (z > 0 && (weight != nullptr || !targets.present())) {
      fail<ConfigError>({name, ": z_loss goes with index targets and without class weights"});
    }
    if (parameters.reduction == Reduction::batch_mean) fail<ConfigError>({name, ": reduction is mean or sum, given batch_mean"});
    detail::check_targets(name, targets, classes, parameters.ignore_index);
  }
};

namespace detail {

template <bool Reduced, class Logits, class Targets, class W>
auto cross_entropy_of(const Logits& logits, const Targets& targets, const CrossEntropyParameters& parameters,
                      const W& weight) {
  using T = value_type_of<Targets>;
  constexpr std::size_t rank = rank_of<Logits>, positions = rank == dynamic_rank ? dynamic_rank : rank - 1;
  constexpr std::size_t result = Reduced ? (rank == dynamic_rank ? dynamic_rank : 0) : positions;
  static_assert(rank > 0, "cross_entropy: logits have a last axis of classes");
  CrossEntropyOp op{parameters, Reduced, {}};
  if constexpr (std::integral<T>) {
    static_assert(rank == dynamic_rank || rank_of<Targets> == positions,
                  "cross_entropy: index targets have the axes of the logits but the last one");
    op.targets = hold_indices(targets);
    return apply_in<result>(recorder(logits, targets, weight), op, logits, weight, none);
  } else {
    return apply_in<result>(recorder(logits, targets, weight), op, logits, weight, targets);
  }
}

}  // namespace detail

/// The cross-entropy between softmax(logits) and targets, one number (rank 0).   logits: [..., V].
///
/// Targets are integers [...] (of any type; tracked ones record), or probabilities [..., V] that sum to 1 along V. With
/// l = log_softmax(logits), w the class weights (or ones) and s = label_smoothing, a position's loss is
///     (1 - s) w_t (-l_t) + s / V sum_c w_c (-l_c)      for an index t other than ignore_index, 0 for ignore_index
///     sum_c w_c ((1 - s) q_c + s / V) (-l_c)           for probabilities q
/// The mean of the former is their sum over the sum of the w_t that count, that of the latter over the number of
/// positions; the z_loss is divided by the number of positions that count. If nothing counts, the mean is 0. Targets
/// and weights are constants.
///
/// Forward O(rows V) with two numbers kept for each row beside the logits; backward as much. Can be differentiated any
/// number of times. UsageError for a target out of range. Agrees with torch.nn.functional.cross_entropy; z_loss: PaLM
/// (arXiv 2204.02311).
template <TensorLike Logits, TensorLike Targets, class W = None>
auto cross_entropy(const Logits& logits, const Targets& targets, const CrossEntropyParameters& parameters = {},
                   const W& class_weight = none) {
  return detail::cross_entropy_of<true>(logits, targets, parameters, class_weight);
}

/// The same for each position, not reduced: [...].
template <TensorLike Logits, TensorLike Targets, class W = None>
auto cross_entropy_each(const Logits& logits, const Targets& targets, const CrossEntropyParameters& parameters = {},
                        const W& class_weight = none) {
  return detail::cross_entropy_of<false>(logits, targets, parameters, class_weight);
}

struct NllParameters {
  Index ignore_index = -100;  ///< positions with this target do not count
  Reduction reduction = Reduction::mean;
};

namespace detail {

/// -w_t log_probabilities_t of each position, and the sum of the weights that count.
template <class X, class Y, class W>
auto nll_of(const X& log_probabilities, const Y& targets, const W& class_weight, Index ignore_index) {
  constexpr const char* op = "nll_loss";
  using T = value_type_of<X>;
  const Shape shape = shape_of(log_probabilities);
  if (shape.rank() == 0) fail<ShapeError>({op, ": log_probabilities of shape ", shape, "; expected [..., V]"});
  const Index classes = shape.back();
  const AnyTensor<Index> index = hold_indices(targets);
  const Shape positions = without_axis(shape, shape.rank() - 1);
  if (!(index.shape() == positions)) {
    fail<ShapeError>({op, ": targets of shape ", index.shape(), ", expected ", positions, " for log_probabilities ", shape});
  }
  check_targets(op, index, classes, ignore_index);
  const Var<T> weight = lift<T>(static_cast<Tape*>(nullptr), class_weight);
  if (weight.present() && !(weight.shape() == Shape{classes})) {
    fail<ShapeError>({op, ": class weights of shape ", weight.shape(), ", expected [", classes, "]"});
  }
  AnyTensor<T> factor(positions, T(0));
  AnyTensor<Index> places(shape.with_back(1), Index{-1});
  double total = 0;
  for (Index r = 0; r < index.size(); ++r) {
    const Index t = index.data()[r];
    if (t == ignore_index) continue;
    places.data()[r] = t;
    const T w = weight.present() ? weight.value.data()[t] : T(1);
    factor.data()[r] = -w;
    total += static_cast<double>(w);
  }
  const auto picked = apply_in<rank_of<X>>(recorder(log_probabilities, targets), GatherOp{shape.rank() - 1, places}, log_probabilities);
  constexpr std::size_t rank = rank_without_axis<X>;
  return std::pair(mul(drop_axis<X>(picked, shape, shape.rank() - 1), constant<rank>(factor)), total);
}

}  // namespace detail

/// -w_t log_probabilities_t of each position, 0 where the target t is ignore_index.   log_probabilities: [..., V], targets: integers
/// [...], class_weight: [V] or none. Taken as they stand, without normalisation.
template <TensorLike X, TensorLike Y, class W = None>
auto nll_loss_each(const X& log_probabilities, const Y& targets, const NllParameters& parameters = {}, const W& class_weight = none) {
  return detail::nll_of(log_probabilities, targets, class_weight, parameters.ignore_index).first;
}
/// The same as one number. The mean is over the sum of the weights that count; 0 if nothing does. Agrees with
/// torch.nn.functional.nll_loss.
template <TensorLike X, TensorLike Y, class W = None>
auto nll_loss(const X& log_probabilities, const Y& targets, const NllParameters& parameters = {}, const W& class_weight = none) {
  if (parameters.reduction == Reduction::batch_mean) fail<ConfigError>("nll_loss: reduction is mean or sum, given batch_mean");
  const auto [each, total] = detail::nll_of(log_probabilities, targets, class_weight, parameters.ignore_index);
  return affine(sum(each), parameters.reduction == Reduction::sum ? 1 : total == 0 ? 0 : 1 / total);
}

}  // namespace ordo
