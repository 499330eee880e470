#pragma once
/// \file
/// Exponential moving averages of weights.

#include <array>
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>

#include "ordo/train/parameter_memory.hpp"

namespace ordo {

/// The update of Ema on plain arrays.
struct EmaRule {
  struct Config {
    double decay = 0.999;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("decay", c.decay);
    }
  };
  static constexpr const char* name = "ema";
  static constexpr std::array memories{"average"};
  static constexpr std::size_t memory_count(const Config&) noexcept { return 1; }
  static void check(const Config& c) {
    detail::require_setting(c.decay >= 0 && c.decay <= 1, name, "decay", c.decay, "from 0 to 1");
  }

  template <class T, class Arch = simd::DefaultArch>
  static void update(const Config& c, const UpdateStep& step, T*, const T* weights, const std::array<T*, 1>& memory,
                     Index n) {
    if (step.t == 1) {
      std::copy_n(weights, n, memory[0]);
      return;
    }
    using V = simd::Vec<T, Arch>;
    const V decay(static_cast<T>(c.decay)), fresh(static_cast<T>(1 - c.decay));
    detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
      store(memory[0] + i, simd::fma(decay, load(memory[0] + i), fresh * load(weights + i)));
    });
  }
};

/// An average of the weights of a model over its steps, which often is the better model: the first update copies, later
/// ones make a = decay a + (1 - decay) weights. No bias correction. Agrees with torch's AveragedModel with
/// get_ema_multi_avg_fn. Remembers one number a weight.
///
///     Ema ema({.decay = 0.999});
///     optimizer.step(model, gradients);
///     ema.update(model);
///     {
///       const EmaScope averaged(ema, model);     // the model is the average in here
///       evaluate(model);
///     }
///
/// Saved with a training run: save_checkpoint(path, model, std::tie(optimizer, ema), progress).
class Ema : public ParameterMemory<EmaRule> {
 public:
  using Which = std::function<bool(const ParameterInfo&)>;

  Ema() : Ema(Config{}) {}
  explicit Ema(const Config& config) : Ema(config, [](const ParameterInfo&) { return true; }) {}
  /// Averages the parameters for which `which` holds, asked once at the first update; the others are never swapped.
  Ema(const Config& config, Which which)
      : ParameterMemory(config, [which = std::move(which)](const ParameterInfo& p) {
          return ParameterGroup{0, which(p) ? 1.0 : 0.0};
        }) {}

  template <Visitable Model>
  void update(const Model& model) {
    if (swapped_) fail<UsageError>("ema: an update while the averages are in the model");
    update_all(model, 1, [](const auto& p) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      const T* weights = p.value().data();
      return std::pair<T*, const T*>(const_cast<T*>(weights), weights);  // the rule writes to its memory alone
    });
  }
  /// Exchanges the weights of the model and the averages; a second call exchanges them back. Nothing is done before the
  /// first update.
  template <Visitable Model>
  void swap(Model& model) {
    if (!prepared()) return;
    prepare(std::as_const(model));
    std::size_t i = 0;
    for_each_parameter(model, [&](const Path&, auto& p) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      Slot& s = slot(i++);
      if (s.steps == 0) return;
      T* average = memory_of<T>(s, 0);
      std::swap_ranges(average, average + p.size(), p.mutate().data());
    });
    swapped_ = !swapped_;
  }
  /// Whether the averages are in the model now, and its own weights here.
  bool swapped() const noexcept { return swapped_; }
  void reset() noexcept {
    ParameterMemory::reset();
    swapped_ = false;
  }

 private:
  bool swapped_ = false;
};

/// While it lives, a model has its averaged weights.
template <Visitable Model>
class EmaScope {
 public:
  EmaScope(Ema& ema, Model& model) : ema_(ema), model_(model) { ema_.swap(model_); }
  EmaScope(const EmaScope&) = delete;
  EmaScope& operator=(const EmaScope&) = delete;
  ~EmaScope() { ema_.swap(model_); }

 private:
  Ema& ema_;
  Model& model_;
};

}  // namespace ordo
