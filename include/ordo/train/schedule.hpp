#pragma once
/// \file
/// Learning rates over the steps of a training run. A schedule is a value that is called with the step, counted from 0.

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"

namespace ordo {

/// Warm-up times a half cosine: with W = warmup_steps, T = total_steps, m = min_fraction, at step t = 0, 1, ...
///
///     learning_rate * min(1, (t + 1) / W) * (m + (1 - m) (1 + cos(pi t / T)) / 2)
///
/// The cosine runs under the warm-up; beyond T the rate stays at learning_rate m. W = 0: no warm-up.
struct CosineSchedule {
  double learning_rate = 1e-3;
  Index total_steps = 1;
  Index warmup_steps = 0;
  double min_fraction = 0.1;

  double operator()(Index step) const {
    if (step < 0 || total_steps < 1) {
      fail<ConfigError>({"cosine schedule: step ", step, " of ", total_steps});
    }
    const double t = static_cast<double>(std::min(step, total_steps));
    const double warmup =
        step + 1 < warmup_steps ? static_cast<double>(step + 1) / static_cast<double>(warmup_steps) : 1;
    const double cosine = (1 + std::cos(std::numbers::pi * t / static_cast<double>(total_steps))) / 2;
    return learning_rate * warmup * (min_fraction + (1 - min_fraction) * cosine);
  }

  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("total_steps", c.total_steps);
    f("warmup_steps", c.warmup_steps);
    f("min_fraction", c.min_fraction);
  }
};

/// learning_rate * min(1, (t + 1) / W), W = warmup_steps; W = 0: constant from the first step.
struct ConstantSchedule {
  double learning_rate = 1e-3;
  Index warmup_steps = 0;

  double operator()(Index step) const {
    if (step < 0) fail<ConfigError>({"constant schedule: step ", step});
    const double warmup =
        step + 1 < warmup_steps ? static_cast<double>(step + 1) / static_cast<double>(warmup_steps) : 1;
    return learning_rate * warmup;
  }

  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("warmup_steps", c.warmup_steps);
  }
};

}  // namespace ordo
