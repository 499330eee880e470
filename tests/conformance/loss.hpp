#pragma once
// The configuration keys of losses. A loss has those that its own struct visits.

#include "op_run.hpp"
#include "ordo/ops/reduction.hpp"

namespace conformance {

// "none" is the loss of each, the others are a Reduction.
struct LossConfig {
  std::string reduction = "mean";
  double delta = 1, beta = 1, margin = 0;
  bool batch_mean_too = false;

  bool none() const { return reduction == "none"; }
  Reduction of() const {
    if (reduction == "mean" || none()) return Reduction::mean;
    if (reduction == "sum") return Reduction::sum;
    if (reduction == "batch_mean" && batch_mean_too) return Reduction::batch_mean;
    fail<ConfigError>("config: reduction: unknown name \"" + reduction + "\"");
  }

  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("reduction", s.reduction);
  }
};
struct MarginConfig : LossConfig {
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    LossConfig::visit(s, f);
    f("margin", s.margin);
  }
};

template <class Config>
Config read_loss(const Case& c) {
  Config config;
  read_config(c.config(), config);
  static_cast<void>(config.of());
  return config;
}

}  // namespace conformance
