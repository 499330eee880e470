#pragma once
/// \file
/// The learning-rate schedules of the common libraries, each a value that is called with the step, counted from 0: the
/// rate at s is that of optimiser step s + 1. They agree with transformers' get_*_schedule and, from StepDecay on, with
/// torch.optim.lr_scheduler. (CosineSchedule and ConstantSchedule of schedule.hpp warm up from (t + 1) / W instead.)
///
///     const WarmupCosine rate{.learning_rate = 3e-3, .warmup_steps = 100, .total_steps = 5000};
///     optimizer.step(model, gradients, rate(step));
///
/// Schedule holds any of them, chosen by name.

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"

namespace ordo {

namespace detail {

inline double as_real(Index i) noexcept { return static_cast<double>(i); }

inline void check_step(const char* kind, Index s) {
  if (s < 0) fail<ConfigError>(std::string(kind) + " schedule: step " + std::to_string(s) + ", expected at least 0");
}
inline void require_steps(const char* kind, const char* key, Index value, Index least) {
  if (value < least) {
    fail<ConfigError>(std::string(kind) + " schedule: " + key + " must be at least " + std::to_string(least) +
                      ", given " + std::to_string(value));
  }
}

/// The part of a linear warm-up at s, nothing where it is over.
inline std::optional<double> warmup(const char* kind, Index s, Index warmup_steps) {
  check_step(kind, s);
  require_steps(kind, "warmup_steps", warmup_steps, 0);
  if (s >= warmup_steps) return std::nullopt;
  return as_real(s) / as_real(warmup_steps);
}
/// How far s is between the warm-up and the end; beyond 1 after it.
inline double progress(Index s, Index warmup_steps, Index total_steps) noexcept {
  return as_real(s - warmup_steps) / as_real(std::max<Index>(1, total_steps - warmup_steps));
}
inline double half_cosine(double x) noexcept { return (1 + std::cos(std::numbers::pi * x)) / 2; }

}  // namespace detail

/// r s / w while s < w, then r.
struct WarmupConstant {
  static constexpr const char* kind = "constant";
  double learning_rate = 1e-3;
  Index warmup_steps = 0;
  double operator()(Index s) const { return learning_rate * detail::warmup(kind, s, warmup_steps).value_or(1); }
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("warmup_steps", c.warmup_steps);
  }
};

/// Linear warm-up, then a line to 0 at total_steps.
struct WarmupLinear {
  static constexpr const char* kind = "linear";
  double learning_rate = 1e-3;
  Index warmup_steps = 0;
  Index total_steps = 1;
  double operator()(Index s) const {
    if (const auto part = detail::warmup(kind, s, warmup_steps)) return learning_rate * *part;
    return learning_rate * std::max(0.0, detail::as_real(total_steps - s) /
                                             detail::as_real(std::max<Index>(1, total_steps - warmup_steps)));
  }
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("warmup_steps", c.warmup_steps);
    f("total_steps", c.total_steps);
  }
};

/// Linear warm-up from 0, then with x from 0 to 1: m + (r - m) (1 + cos(2 pi num_cycles x)) / 2, which goes on beyond
/// total_steps.
struct WarmupCosine {
  static constexpr const char* kind = "cosine";
  double learning_rate = 1e-3;
  Index warmup_steps = 0;
  Index total_steps = 1;
  double num_cycles = 0.5;
  double min_learning_rate = 0;
  double operator()(Index s) const {
    if (const auto part = detail::warmup(kind, s, warmup_steps)) return learning_rate * *part;
    const double x = detail::progress(s, warmup_steps, total_steps);
    return min_learning_rate + (learning_rate - min_learning_rate) * detail::half_cosine(2 * num_cycles * x);
  }
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("warmup_steps", c.warmup_steps);
    f("total_steps", c.total_steps);
    f("num_cycles", c.num_cycles);
    f("min_learning_rate", c.min_learning_rate);
  }
};

/// Linear warm-up, then num_cycles half cosines, each from r to 0; 0 from total_steps on.
struct WarmupCosineRestarts {
  static constexpr const char* kind = "cosine_restarts";
  double learning_rate = 1e-3;
  Index warmup_steps = 0;
  Index total_steps = 1;
  Index num_cycles = 1;
  double operator()(Index s) const {
    detail::require_steps(kind, "num_cycles", num_cycles, 1);
    if (const auto part = detail::warmup(kind, s, warmup_steps)) return learning_rate * *part;
    const double x = detail::progress(s, warmup_steps, total_steps);
    if (x >= 1) return 0;
    return learning_rate * detail::half_cosine(std::fmod(detail::as_real(num_cycles) * x, 1.0));
  }
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("warmup_steps", c.warmup_steps);
    f("total_steps", c.total_steps);
    f("num_cycles", c.num_cycles);
  }
};

/// Linear warm-up, then m + (r - m) (1 - x)^power; m after total_steps.
struct WarmupPolynomial {
  static constexpr const char* kind = "polynomial";
  double learning_rate = 1e-3;
  Index warmup_steps = 0;
  Index total_steps = 1;
  double min_learning_rate = 1e-7;
  double power = 1;
  double operator()(Index s) const {
    if (const auto part = detail::warmup(kind, s, warmup_steps)) return learning_rate * *part;
    if (s > total_steps) return min_learning_rate;
    const double left = 1 - detail::progress(s, warmup_steps, total_steps);
    return min_learning_rate + (learning_rate - min_learning_rate) * std::pow(left, power);
  }
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("warmup_steps", c.warmup_steps);
    f("total_steps", c.total_steps);
    f("min_learning_rate", c.min_learning_rate);
    f("power", c.power);
  }
};

/// Linear warm-up, then r / sqrt((s + timescale - w) / timescale). Without a timescale: w, or 10000 where w is 0.
struct WarmupInverseSqrt {
  static constexpr const char* kind = "inverse_sqrt";
  double learning_rate = 1e-3;
  Index warmup_steps = 0;
  std::optional<double> timescale{};
  double operator()(Index s) const {
    if (const auto part = detail::warmup(kind, s, warmup_steps)) return learning_rate * *part;
    const double scale = timescale.value_or(warmup_steps > 0 ? detail::as_real(warmup_steps) : 10000);
    if (!(scale > 0)) {
      fail<ConfigError>("inverse_sqrt schedule: timescale must be positive, given " + std::to_string(scale));
    }
    return learning_rate / std::sqrt((detail::as_real(s - warmup_steps) + scale) / scale);
  }
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("warmup_steps", c.warmup_steps);
    f("timescale", c.timescale);
  }
};

/// How WarmupStableDecay rises and falls.
enum class Ramp { linear, cosine, one_minus_sqrt };
inline bool from_string(std::string_view name, Ramp& value) {
  if (name != "linear" && name != "cosine" && name != "1-sqrt") return false;
  value = name == "linear" ? Ramp::linear : name == "cosine" ? Ramp::cosine : Ramp::one_minus_sqrt;
  return true;
}
inline std::string to_string(Ramp value) {
  return value == Ramp::linear ? "linear" : value == Ramp::cosine ? "cosine" : "1-sqrt";
}

/// Up from m to r in warmup_steps, r for stable_steps, down to m in decay_steps, then m.
struct WarmupStableDecay {
  static constexpr const char* kind = "warmup_stable_decay";
  double learning_rate = 1e-3;
  Index warmup_steps = 0;
  Index stable_steps = 0;
  Index decay_steps = 1;
  Ramp warmup_type = Ramp::linear;
  Ramp decay_type = Ramp::cosine;
  double num_cycles = 0.5;
  double min_learning_rate = 0;
  double operator()(Index s) const { return min_learning_rate + (learning_rate - min_learning_rate) * fraction(s); }
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("warmup_steps", c.warmup_steps);
    f("stable_steps", c.stable_steps);
    f("decay_steps", c.decay_steps);
    f("warmup_type", c.warmup_type);
    f("decay_type", c.decay_type);
    f("num_cycles", c.num_cycles);
    f("min_learning_rate", c.min_learning_rate);
  }

 private:
  double fraction(Index s) const {
    detail::require_steps(kind, "stable_steps", stable_steps, 0);
    detail::require_steps(kind, "decay_steps", decay_steps, 0);
    if (const auto x = detail::warmup(kind, s, warmup_steps)) {
      switch (warmup_type) {
        case Ramp::linear: return *x;
        case Ramp::cosine: return 1 - detail::half_cosine(*x);
        case Ramp::one_minus_sqrt: return 1 - std::sqrt(1 - *x);
      }
    }
    s -= warmup_steps + stable_steps;
    if (s < 0) return 1;
    if (s >= decay_steps) return 0;
    const double x = detail::as_real(s) / detail::as_real(decay_steps);
    switch (decay_type) {
      case Ramp::linear: return 1 - x;
      case Ramp::cosine: return detail::half_cosine(2 * num_cycles * x);
      case Ramp::one_minus_sqrt: return 1 - std::sqrt(x);
    }
    return 0;
  }
};

/// r gamma^floor(s / step_size).
struct StepDecay {
  static constexpr const char* kind = "step";
  double learning_rate = 1e-3;
  Index step_size = 1;
  double gamma = 0.1;
  double operator()(Index s) const {
    detail::check_step(kind, s);
    detail::require_steps(kind, "step_size", step_size, 1);
    return learning_rate * std::pow(gamma, detail::as_real(s / step_size));
  }
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("step_size", c.step_size);
    f("gamma", c.gamma);
  }
};

/// r gamma^s.
struct ExponentialDecay {
  static constexpr const char* kind = "exponential";
  double learning_rate = 1e-3;
  double gamma = 0.999;
  double operator()(Index s) const {
    detail::check_step(kind, s);
    return learning_rate * std::pow(gamma, detail::as_real(s));
  }
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("gamma", c.gamma);
  }
};

/// How OneCycle goes from one rate to the next.
enum class Anneal { cosine, linear };
inline bool from_string(std::string_view name, Anneal& value) {
  if (name != "cosine" && name != "linear") return false;
  value = name == "linear" ? Anneal::linear : Anneal::cosine;
  return true;
}
inline std::string to_string(Anneal value) { return value == Anneal::linear ? "linear" : "cosine"; }

/// The 1cycle policy (Smith and Topin 2017, arXiv 1708.07120): from r / div_factor up to r within warmup_fraction of all
/// steps, then down to r / (div_factor final_div_factor); three_phase: down to the start as fast as up, and then on.
struct OneCycle {
  static constexpr const char* kind = "one_cycle";
  double learning_rate = 1e-3;
  Index total_steps = 100;
  double warmup_fraction = 0.3;
  Anneal anneal = Anneal::cosine;
  double div_factor = 25;
  double final_div_factor = 1e4;
  bool three_phase = false;
  double operator()(Index s) const {
    detail::check_step(kind, s);
    const double n = detail::as_real(total_steps), low = learning_rate / div_factor, last = low / final_div_factor;
    const double peak = warmup_fraction * n - 1, end = n - 1, at = std::min(detail::as_real(s), end);  // the last rate stays
    if (!(peak > 0 && warmup_fraction <= 1)) {
      fail<ConfigError>("one_cycle schedule: warmup_fraction " + std::to_string(warmup_fraction) + " of " +
                        std::to_string(total_steps) + " steps, expected more than one step and at most all");
    }
    if (at <= peak) return between(low, learning_rate, at / peak);
    if (!three_phase) return between(learning_rate, last, (at - peak) / (end - peak));
    if (at <= 2 * peak) return between(learning_rate, low, (at - peak) / peak);
    return between(low, last, (at - 2 * peak) / (end - 2 * peak));
  }
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("learning_rate", c.learning_rate);
    f("total_steps", c.total_steps);
    f("warmup_fraction", c.warmup_fraction);
    f("anneal", c.anneal);
    f("div_factor", c.div_factor);
    f("final_div_factor", c.final_div_factor);
    f("three_phase", c.three_phase);
  }

 private:
  double between(double from, double to, double x) const noexcept {
    return anneal == Anneal::linear ? from + (to - from) * x : to + (from - to) * detail::half_cosine(x);
  }
};

/// Any schedule, chosen by its kind: a setting of a training program.
///
///     Schedule rate("cosine");
///     std::visit([&](auto& schedule) { read_config(json, schedule); }, rate.any());
///     optimizer.step(model, gradients, rate(step));
class Schedule {
 public:
  using Any = std::variant<WarmupConstant, WarmupLinear, WarmupCosine, WarmupCosineRestarts, WarmupPolynomial,
                           WarmupInverseSqrt, WarmupStableDecay, StepDecay, ExponentialDecay, OneCycle>;

  Schedule() = default;
  template <class S>
    requires std::constructible_from<Any, S>
  Schedule(S schedule) : any_(std::move(schedule)) {}  // NOLINT(google-explicit-constructor)
  /// One with default settings.
  explicit Schedule(std::string_view kind) {
    if (!choose(kind, std::make_index_sequence<std::variant_size_v<Any>>{})) {
      fail<ConfigError>("schedule: unknown kind \"" + std::string(kind) + "\"; known are " + kinds());
    }
  }

  double operator()(Index step) const {
    return std::visit([step](const auto& s) { return s(step); }, any_);
  }
  const char* kind() const {
    return std::visit([](const auto& s) { return s.kind; }, any_);
  }
  const Any& any() const noexcept { return any_; }
  Any& any() noexcept { return any_; }
  /// "constant, linear, ..."
  static std::string kinds() {
    std::string all;
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((all += (I == 0 ? "" : ", ") + std::string(std::variant_alternative_t<I, Any>::kind)), ...);
    }(std::make_index_sequence<std::variant_size_v<Any>>{});
    return all;
  }

 private:
  template <std::size_t... I>
  bool choose(std::string_view kind, std::index_sequence<I...>) {
    return ((kind == std::variant_alternative_t<I, Any>::kind && (any_.emplace<I>(), true)) || ...);
  }

  Any any_;
};

}  // namespace ordo
