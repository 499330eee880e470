#pragma once
/// \file
/// The loss of connectionist temporal classification.

#include <algorithm>
#include <limits>
#include <utility>

#include "ordo/kernels/ctc.hpp"
#include "ordo/ops/gather.hpp"
#include "ordo/ops/reduction.hpp"
#include "ordo/ops/sequences.hpp"

namespace ordo {

struct CtcParameters {
  Index blank = 0;             ///< the class that stands for "no label"
  bool zero_infinity = false;  ///< rows without any alignment count as 0 instead of infinity
  Reduction reduction = Reduction::mean;
};

/// Arguments: logits [B, L, V].
struct CtcOp {
  static constexpr const char* name = "ctc_loss";
  static constexpr unsigned keeps_inputs = 1, keeps_outputs = 0;
  AnyTensor<Index> targets, input_lengths, target_lengths;
  Index blank = 0;
  bool zero_infinity = false;
  template <class T>
  struct Saved {};

  template <class T>
  AnyTensor<T> forward(Saved<T>*, const AnyTensor<T>& logits) const {
    check(logits.shape());
    AnyTensor<T> loss(Shape{logits.extent(0)});
    kernels::ctc_forward(arguments(logits), loss.data());
    if (zero_infinity) std::replace(loss.data(), loss.data() + loss.size(), std::numeric_limits<T>::infinity(), T(0));
    return loss;
  }
  template <class T>
  void backward(Pullback<T>& p, const Saved<T>&) const {
    if (!p.needs(0)) return;
    AnyTensor<T> dx(p.input(0).shape());
    kernels::ctc_backward(arguments(p.input(0).value), p.grad(0).value.data(), dx.data());
    p.add(0, std::move(dx));
  }

 private:
  template <class T>
  kernels::Ctc<T> arguments(const AnyTensor<T>& logits) const {
    return {logits.extent(0), logits.extent(1),       logits.extent(2), targets.extent(1),    blank,
            logits.data(),    targets.data(),         input_lengths.data(), target_lengths.data()};
  }
  void check(const Shape& logits) const {
    if (logits.rank() != 3 || logits[2] < 1) fail<ShapeError>({name, ": logits of shape ", logits, ", expected [B, L, V]"});
    const Index batch = logits[0], length = logits[1], classes = logits[2];
    if (targets.rank() != 2 || targets.extent(0) != batch) {
      fail<ShapeError>({name, ": targets of shape ", targets.shape(), ", expected [", batch, ", U]"});
    }
    detail::require_shape(name, "input_lengths", input_lengths, Shape{batch});
    detail::require_shape(name, "target_lengths", target_lengths, Shape{batch});
    if (blank < 0 || blank >= classes) fail<ConfigError>({name, ": blank is ", blank, ", expected 0 to ", classes - 1});
    for (Index b = 0; b < batch; ++b) {
      check_length("input_lengths", input_lengths.data()[b], b, length);
      check_length("target_lengths", target_lengths.data()[b], b, targets.extent(1));
      for (Index u = 0; u < target_lengths.data()[b]; ++u) {
        const Index t = targets.data()[b * targets.extent(1) + u];
        if (t < 0 || t >= classes || t == blank) {
          fail<UsageError>({name, ": target ", t, " at [", b, ", ", u, "], expected 0 to ", classes - 1, " but the blank ", blank});
        }
      }
    }
  }
  static void check_length(const char* what, Index value, Index row, Index most) {
    if (value < 0 || value > most) {
      fail<UsageError>({name, ": ", what, "[", row, "] is ", value, ", expected 0 to ", most});
    }
  }
};

/// -log p(labels | frames) of each row, [B], summed over all ways to spread the labels over the frames with blanks between them.
///
/// logits: [B, L, V], any numbers: the log-softmax is inside. targets: [B, U] integers, of which row b has target_lengths[b], never the
/// blank; of its frames input_lengths[b] count, the others get gradient 0. A row whose frames are fewer than its labels plus its equal
/// neighbours has no alignment: its loss is infinity (0 with zero_infinity), its gradient 0. O(B L (V + U)), in log space and double.
/// First derivative only. Graves et al. 2006; agrees with torch.nn.functional.ctc_loss of log_softmax.
template <TensorLike X, TensorLike Y, TensorLike I, TensorLike U>
auto ctc_loss_each(const X& logits, const Y& targets, const I& input_lengths, const U& target_lengths,
                   const CtcParameters& parameters = {}) {
  constexpr std::size_t rank = rank_of<X> == dynamic_rank ? dynamic_rank : 1;
  const CtcOp op{detail::hold_indices(targets), detail::hold_indices(input_lengths), detail::hold_indices(target_lengths),
                 parameters.blank, parameters.zero_infinity};
  return apply_in<rank>(recorder(logits, targets, input_lengths, target_lengths), op, logits);
}

/// The same as one number: the sum, or the mean over rows of loss / max(target_length, 1).
template <TensorLike X, TensorLike Y, TensorLike I, TensorLike U>
auto ctc_loss(const X& logits, const Y& targets, const I& input_lengths, const U& target_lengths,
              const CtcParameters& parameters = {}) {
  constexpr std::size_t rank = rank_of<X> == dynamic_rank ? dynamic_rank : 1;
  using T = value_type_of<X>;
  if (parameters.reduction == Reduction::batch_mean) fail<ConfigError>("ctc_loss: reduction is mean or sum, given batch_mean");
  const auto each = ctc_loss_each(logits, targets, input_lengths, target_lengths, parameters);
  const AnyTensor<Index> lengths = detail::hold_indices(target_lengths);
  AnyTensor<T> weight(lengths.shape(), T(1));
  for (Index b = 0; b < weight.size() && parameters.reduction == Reduction::mean; ++b) {
    weight.data()[b] = T(1) / static_cast<T>(weight.size() * std::max<Index>(lengths.data()[b], 1));
  }
  return sum(mul(each, detail::constant<rank>(weight)));
}

}  // namespace ordo
