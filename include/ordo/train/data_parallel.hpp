#pragma once
/// \file
/// DataParallel: one training step on several shards of a batch at once.

#include <deque>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/autograd/tape.hpp"
#include "ordo/core/parallel.hpp"

namespace ordo {

struct LossAndGradients {
  double loss = 0;
  Gradients gradients;
};

/// Runs a fixed number of shards on the threads of parallel_for and adds losses and gradients in the order of the
/// shards: the results are the same bits for any number of threads. Each shard has a tape of its own, kept from step to
/// step.
///
///     DataParallel parallel(4);
///     auto [loss, gradients] = parallel.mean([&](Index shard, Tape& tape) {
///       return cross_entropy(model(track(tape, batch.tokens(shard))), batch.targets(shard));
///     });
///
/// f(shard, tape) returns the tracked scalar loss of its shard, or LossAndGradients. It must not change the model.
class DataParallel {
 public:
  explicit DataParallel(Index shards) : results_(checked(shards)), tapes_(checked(shards)) {}

  Index shards() const noexcept { return static_cast<Index>(results_.size()); }

  /// The sums over the shards.
  template <class F>
  LossAndGradients sum(F&& f) {
    parallel_for(shards(), 1, [&](Index begin, Index end) {
      for (Index shard = begin; shard < end; ++shard) run(shard, f);
    });
    LossAndGradients total = std::move(results_[0]);
    for (std::size_t i = 1; i < results_.size(); ++i) {
      total.loss += results_[i].loss;
      total.gradients.add(results_[i].gradients);
      results_[i] = {};
    }
    return total;
  }
  /// The means over the shards: for losses that are means over shards of one size.
  template <class F>
  LossAndGradients mean(F&& f) {
    LossAndGradients total = sum(f);
    const auto n = static_cast<double>(shards());
    total.loss /= n;
    if (shards() > 1) total.gradients.scale(1 / n);
    return total;
  }

 private:
  static std::size_t checked(Index shards) {
    if (shards < 1) fail<ConfigError>({"data_parallel: at least 1 shard, given ", shards});
    return static_cast<std::size_t>(shards);
  }
  template <class F>
  void run(Index shard, F& f) {
    Tape& tape = tapes_[static_cast<std::size_t>(shard)];
    tape.reset();
    auto& result = results_[static_cast<std::size_t>(shard)];
    if constexpr (std::is_same_v<std::remove_cvref_t<std::invoke_result_t<F&, Index, Tape&>>, LossAndGradients>) {
      result = f(shard, tape);
    } else {
      const auto loss = f(shard, tape);
      result.loss = static_cast<double>(loss.item());
      result.gradients = tape.backward(loss);
    }
    tape.reset();
  }

  std::vector<LossAndGradients> results_;
  std::deque<Tape> tapes_;  // a tape cannot move
};

}  // namespace ordo
