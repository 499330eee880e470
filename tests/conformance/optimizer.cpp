// Trajectories of optimisers and of averages of weights.

#include "optimizer.hpp"

#include "ordo/train/adafactor.hpp"
#include "ordo/train/adagrad.hpp"
#include "ordo/train/adamw.hpp"
#include "ordo/train/ema.hpp"
#include "ordo/train/lion.hpp"
#include "ordo/train/muon.hpp"
#include "ordo/train/rmsprop.hpp"
#include "ordo/train/sgd.hpp"

namespace conformance {
namespace {

std::pair<double, double> two_of(const std::vector<double>& pair, const char* key) {
  if (pair.size() != 2) fail<ConfigError>(std::string("config: ") + key + ": expected two numbers");
  return {pair[0], pair[1]};
}

// The keys of a case: those of the rule, with pairs where the rule has two fields, and what only cases have.
template <class Rule>
struct TrajectoryConfig {
  typename Rule::Config rule;
  std::vector<double> pair;
  std::vector<std::string> no_decay;
  std::vector<Index> snapshots;

  static constexpr bool has_betas = requires(typename Rule::Config c) { c.beta2; };
  static constexpr bool is_adafactor = std::is_same_v<Rule, AdafactorRule>;
  TrajectoryConfig() {
    if constexpr (has_betas) pair = {rule.beta1, rule.beta2};
    if constexpr (is_adafactor) pair = {rule.eps, rule.min_scale};
  }
  void finish() {
    if constexpr (has_betas) std::tie(rule.beta1, rule.beta2) = two_of(pair, "betas");
    if constexpr (is_adafactor) std::tie(rule.eps, rule.min_scale) = two_of(pair, "eps");
    if (snapshots.empty() || snapshots.front() < 1 ||
        std::adjacent_find(snapshots.begin(), snapshots.end(), std::greater_equal<>()) != snapshots.end())
      fail<ConfigError>("config: snapshots: expected increasing step numbers from 1");
  }
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    std::remove_cvref_t<decltype(s.rule)>::visit(s.rule, [&](std::string_view name, auto& field) {
      if (has_betas && name == "beta1") return f("betas", s.pair);
      if (is_adafactor && name == "eps") return f("eps", s.pair);
      if ((has_betas && name == "beta2") || (is_adafactor && name == "min_scale")) return;
      f(name, field);
    });
    if constexpr (std::is_same_v<Rule, AdamWRule>) f("no_decay", s.no_decay);
    f("snapshots", s.snapshots);
  }
};

// The rows [steps, *shape] of each parameter.
template <class T>
class Rows {
 public:
  Rows(const NamedParameters<T>& model, Index rows) : rows_(rows) {
    model.each([&](const std::string&, const auto& p) { all_.emplace_back(Shape{rows * p.size()}); });
  }
  void store(const NamedParameters<T>& model, Index row) {
    std::size_t i = 0;
    model.each([&](const std::string&, const auto& p) {
      std::copy_n(p.value().data(), p.size(), all_[i++].data() + row * p.size());
    });
  }
  void compare(const NamedParameters<T>& model, Report& report) const {
    std::size_t i = 0;
    model.each([&](const std::string& name, const auto& p) {
      Shape shape{rows_};
      for (const Index e : p.shape()) shape.push_back(e);
      report.compare("output." + name, all_[i++].reshaped(shape));
    });
  }

 private:
  Index rows_;
  std::vector<AnyTensor<T>> all_;
};

template <class Rule, class T>
void run_trajectory(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("an optimiser runs whole");
  TrajectoryConfig<Rule> config;
  read_config(c.config(), config);
  config.finish();
  const Index steps = config.snapshots.back();

  NamedParameters<T> model;
  for (const std::string& name : c.names("param")) model.add(name, c.read<T>("param." + name));
  std::vector<AnyTensor<T>> gradients;
  model.each([&](const std::string& name, const auto& p) {
    gradients.push_back(c.read<T>("input.grad." + name));
    if (gradients.back().size() != steps * p.size())
      fail<FileError>("input.grad." + name + ": expected one gradient for each of " + std::to_string(steps) + " steps");
  });
  for (const std::string& name : c.names("input")) {
    if (name != "learning_rate" && !(name.starts_with("grad.") && c.has("param." + name.substr(5))))
      fail<FileError>("unknown tensor input." + name);
  }
  const AnyTensor<double> rates = c.read_if<double>("input.learning_rate");
  if (rates.present() && rates.size() != steps) fail<FileError>("input.learning_rate: expected one for each step");

  Optimizer<Rule> optimizer(config.rule, [&](const ParameterInfo& p) {
    const bool decays = std::find(config.no_decay.begin(), config.no_decay.end(), p.path) == config.no_decay.end();
    return ParameterGroup{.weight_decay = decays ? config.rule.weight_decay : 0};
  });
  Rows<T> snapshots(model, static_cast<Index>(config.snapshots.size()));
  Index taken = 0;
  for (Index t = 1; t <= steps; ++t) {
    Gradients step;
    std::size_t i = 0;
    model.each([&](const std::string&, const auto& p) {
      step.set(p, AnyTensor<T>::borrow(gradients[i++].data() + (t - 1) * p.size(), p.shape()));
    });
    if (rates.present()) {
      optimizer.step(model, step, rates.data()[t - 1]);
    } else {
      optimizer.step(model, step);
    }
    if (t == config.snapshots[static_cast<std::size_t>(taken)]) snapshots.store(model, taken++);
  }
  snapshots.compare(model, report);
}

template <class T>
void run_ema(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("an average of weights runs whole");
  EmaRule::Config config;
  read_config(c.config(), config);
  NamedParameters<T> model;
  std::vector<AnyTensor<T>> values;
  std::vector<std::string> names = c.names("input");
  if (names.empty()) fail<FileError>("no input.NAME");
  const Index steps = c.shape("input." + names[0])[0];
  for (const std::string& name : names) {
    const Shape all = c.shape("input." + name);
    if (all.rank() < 1 || all[0] != steps) fail<FileError>("input." + name + ": expected " + std::to_string(steps) + " updates");
    Shape one;
    for (std::size_t i = 1; i < all.rank(); ++i) one.push_back(all[i]);
    model.add(name, AnyTensor<T>(one, T{0}));
  }
  model.each([&](const std::string& name, const auto&) { values.push_back(c.read<T>("input." + name)); });
  Ema ema(config);
  Rows<T> rows(model, steps);
  for (Index t = 0; t < steps; ++t) {
    std::size_t i = 0;
    model.each([&](const std::string&, auto& p) { std::copy_n(values[i++].data() + t * p.size(), p.size(), p.mutate().data()); });
    ema.update(model);
    ema.swap(model);
    rows.store(model, t);
    ema.swap(model);
  }
  rows.compare(model, report);
}

template <class Rule>
Runner trajectory() {
  return {run_trajectory<Rule, float>, run_trajectory<Rule, double>};
}

}  // namespace

std::optional<Runner> find_optimizer(std::string_view name) {
  if (name == "sgd") return trajectory<SgdRule>();
  if (name == "adam") return trajectory<AdamRule>();
  if (name == "adamw") return trajectory<AdamWRule>();
  if (name == "rmsprop") return trajectory<RmsPropRule>();
  if (name == "adagrad") return trajectory<AdagradRule>();
  if (name == "adadelta") return trajectory<AdadeltaRule>();
  if (name == "lion") return trajectory<LionRule>();
  if (name == "adafactor") return trajectory<AdafactorRule>();
  if (name == "muon") return trajectory<MuonRule>();
  if (name == "ema") return Runner{run_ema<float>, run_ema<double>};
  return find_clipping(name);
}

}  // namespace conformance
