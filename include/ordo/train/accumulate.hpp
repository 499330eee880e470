#pragma once
/// \file
/// Gradients of a large batch from several small ones, one after the other.

#include <string>
#include <utility>

#include "ordo/autograd/tape.hpp"
#include "ordo/train/data_parallel.hpp"

namespace ordo {

/// Sums losses and gradients of several backward passes before an update: a batch that memory has no room for.
///
///     GradientAccumulator accumulate(4);
///     for (...) {
///       accumulate.add(loss.item(), tape.backward(loss));
///       if (!accumulate.complete()) continue;
///       auto [mean_loss, gradients] = accumulate.take_mean();
///       optimizer.step(model, gradients);
///     }
///
/// Adds in the order of the calls: parts 0 to n - 1 give the bits that DataParallel(n) gives for the same shards.
class GradientAccumulator {
 public:
  /// `parts`: backward passes of an update.
  explicit GradientAccumulator(Index parts) : parts_(parts) {
    if (parts < 1) fail<ConfigError>("gradient accumulator: at least 1 part, given " + std::to_string(parts));
  }

  Index parts() const noexcept { return parts_; }
  /// Parts added since the last update.
  Index count() const noexcept { return count_; }
  bool complete() const noexcept { return count_ == parts_; }

  void add(double loss, Gradients&& gradients) {
    if (complete()) fail<UsageError>("gradient accumulator: all " + std::to_string(parts_) + " parts are there; take them first");
    if (count_++ == 0) {
      total_ = {loss, std::move(gradients)};
    } else {
      total_.loss += loss;
      total_.gradients.add(gradients);
    }
  }
  void add(LossAndGradients&& part) { add(part.loss, std::move(part.gradients)); }

  /// The sums over the parts; begins anew.
  LossAndGradients take_sum() {
    if (count_ == 0) fail<UsageError>("gradient accumulator: nothing was added");
    count_ = 0;
    return std::exchange(total_, {});
  }
  /// The means over the parts that were added (at the end of an epoch they may be fewer); begins anew.
  LossAndGradients take_mean() {
    const auto n = static_cast<double>(count_);
    LossAndGradients total = take_sum();
    total.loss /= n;
    if (n > 1) total.gradients.scale(1 / n);
    return total;
  }

 private:
  Index parts_, count_ = 0;
  LossAndGradients total_;
};

}  // namespace ordo
