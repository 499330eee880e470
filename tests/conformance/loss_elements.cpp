// Losses of single elements.

#include "loss.hpp"
#include "ordo/ops/pointwise_loss.hpp"

namespace conformance {
namespace {

struct HuberConfig : LossConfig {
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    LossConfig::visit(s, f);
    f("delta", s.delta);
  }
};
struct SmoothL1Config : LossConfig {
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    LossConfig::visit(s, f);
    f("beta", s.beta);
  }
};

// A loss of x and a target of its shape.
template <class T, class Config, class Each, class Reduced>
void run_pair(const Case& c, RunMode mode, Report& report, Each each, Reduced reduced) {
  const Config config = read_loss<Config>(c);
  OpRun<T> run(c, mode, report);
  const Var<T> x = run.input("x"), target = run.constant("target");
  run.output("loss", config.none() ? each(x, target, config) : reduced(x, target, config));
  run.finish();
}
template <class T>
void run_mse(const Case& c, RunMode mode, Report& report) {
  run_pair<T, LossConfig>(
      c, mode, report, [](const auto& x, const auto& y, const auto&) { return mse_loss_each(x, y); },
      [](const auto& x, const auto& y, const auto& k) { return mse_loss(x, y, k.of()); });
}
template <class T>
void run_l1(const Case& c, RunMode mode, Report& report) {
  run_pair<T, LossConfig>(
      c, mode, report, [](const auto& x, const auto& y, const auto&) { return l1_loss_each(x, y); },
      [](const auto& x, const auto& y, const auto& k) { return l1_loss(x, y, k.of()); });
}
template <class T>
void run_huber(const Case& c, RunMode mode, Report& report) {
  run_pair<T, HuberConfig>(
      c, mode, report, [](const auto& x, const auto& y, const auto& k) { return huber_loss_each(x, y, k.delta); },
      [](const auto& x, const auto& y, const auto& k) { return huber_loss(x, y, k.delta, k.of()); });
}
template <class T>
void run_smooth_l1(const Case& c, RunMode mode, Report& report) {
  run_pair<T, SmoothL1Config>(
      c, mode, report, [](const auto& x, const auto& y, const auto& k) { return smooth_l1_loss_each(x, y, k.beta); },
      [](const auto& x, const auto& y, const auto& k) { return smooth_l1_loss(x, y, k.beta, k.of()); });
}

template <class T>
void run_binary_cross_entropy(const Case& c, RunMode mode, Report& report) {
  const auto config = read_loss<LossConfig>(c);
  OpRun<T> run(c, mode, report);
  const Var<T> x = run.input("logits"), y = run.constant("targets"), w = run.constant("weight", false);
  const Var<T> positive = run.constant("positive_weight", false);
  run.output("loss", config.none() ? binary_cross_entropy_with_logits_each(x, y, w, positive)
                                   : binary_cross_entropy_with_logits(x, y, w, positive, config.of()));
  run.finish();
}

struct KlConfig : LossConfig {
  bool log_target = false;
  KlConfig() { batch_mean_too = true; }
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    LossConfig::visit(s, f);
    f("log_target", s.log_target);
  }
};
template <class T>
void run_kl_divergence(const Case& c, RunMode mode, Report& report) {
  const auto config = read_loss<KlConfig>(c);
  OpRun<T> run(c, mode, report);
  const Var<T> log_q = run.input("log_q"), p = run.constant("p");
  run.output("loss", config.none() ? kl_divergence_each(log_q, p, config.log_target)
                                   : kl_divergence(log_q, p, config.log_target, config.of()));
  run.finish();
}

}  // namespace

std::optional<Runner> find_element_loss(std::string_view name) {
  if (name == "mse") return Runner{run_mse<float>, run_mse<double>};
  if (name == "l1") return Runner{run_l1<float>, run_l1<double>};
  if (name == "huber") return Runner{run_huber<float>, run_huber<double>};
  if (name == "smooth_l1") return Runner{run_smooth_l1<float>, run_smooth_l1<double>};
  if (name == "binary_cross_entropy_with_logits") return Runner{run_binary_cross_entropy<float>, run_binary_cross_entropy<double>};
  if (name == "kl_divergence") return Runner{run_kl_divergence<float>, run_kl_divergence<double>};
  return std::nullopt;
}

}  // namespace conformance
