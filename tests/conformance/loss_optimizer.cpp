// Losses, optimisers, clipping.

#include "ordo/ops/loss.hpp"
#include "ordo/train/adamw.hpp"
#include "ordo/train/clip.hpp"
#include "report.hpp"

namespace conformance {
namespace {

struct CrossEntropyConfig : CrossEntropyParameters {
  std::string reduction_name = "mean";
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("reduction", s.reduction_name);
    f("ignore_index", s.ignore_index);
    f("label_smoothing", s.label_smoothing);
    f("z_loss", s.z_loss);
  }
};

template <class T>
void run_cross_entropy(const Case& c, RunMode mode, Report& report) {
  CrossEntropyConfig config;
  read_config(c.config(), config);
  if (config.reduction_name != "mean" && config.reduction_name != "sum" && config.reduction_name != "none")
    fail<ConfigError>("config: reduction: unknown name \"" + config.reduction_name + "\"");
  config.reduction = config.reduction_name == "sum" ? Reduction::sum : Reduction::mean;
  c.require_inputs({"logits", "targets", "target_probabilities", "class_weight"});
  if (mode != RunMode::whole && mode != RunMode::backward) fail<UsageError>("a loss is not cut along the sequence");
  if (c.has("input.targets") == c.has("input.target_probabilities"))
    fail<FileError>("expected either input.targets or input.target_probabilities");

  const auto finish = [&](const auto& logits, const auto& loss_of) {
    if (mode == RunMode::whole) {
      report.compare("output.loss", borrow(loss_of(logits)).copy());
      return;
    }
    Tape tape;
    const auto tracked = track(tape, logits);
    const auto loss = loss_of(tracked);
    report.compare("output.loss", loss.var().value);
    report.compare("grad_input.logits", tape.backward(loss, c.read<T>("grad_output.loss")).of(tracked));
  };
  const auto with_loss = [&](const auto& logits, const auto& targets, const auto& weight) {
    if (config.reduction_name == "none") {
      finish(logits, [&](const auto& x) { return cross_entropy_each(x, targets, config, weight); });
    } else {
      finish(logits, [&](const auto& x) { return cross_entropy(x, targets, config, weight); });
    }
  };
  const auto with_weight = [&](const auto& logits, const auto& targets) {
    if (c.has("input.class_weight")) {
      with_loss(logits, targets, c.tensor<T, 1>("input.class_weight"));
    } else {
      with_loss(logits, targets, none);
    }
  };
  const auto with_targets = [&]<std::size_t R>() {
    const auto logits = c.tensor<T, R>("input.logits");
    if (c.has("input.targets")) {
      with_weight(logits, c.tensor<std::int64_t, R - 1>("input.targets"));
    } else {
      with_weight(logits, c.tensor<T, R>("input.target_probabilities"));
    }
  };
  const std::size_t rank = c.shape("input.logits").rank();
  if (rank == 2) return with_targets.template operator()<2>();
  if (rank == 3) return with_targets.template operator()<3>();
  fail<FileError>("input.logits: expected [N, V] or [B, L, V]");
}

// Parameters under names of a case's own. The arithmetic of an optimiser is elementwise, so they are kept flat.
template <class T>
struct NamedParameters {
  std::vector<std::pair<std::string, DynParameter<T, 1>>> all;

  void add(const std::string& name, const AnyTensor<T>& value) {
    DynTensor<T, 1> flat(value.size());
    std::copy_n(value.data(), value.size(), flat.data());
    all.emplace_back(name, DynParameter<T, 1>(std::move(flat)));
  }
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    for (auto& [name, p] : s.all) f(name, p);
  }
};

struct AdamWCaseConfig {
  AdamWRule::Config rule;
  std::vector<double> betas{0.9, 0.999};
  std::vector<std::string> no_decay;
  std::vector<Index> snapshots;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("learning_rate", s.rule.learning_rate);
    f("betas", s.betas);
    f("eps", s.rule.eps);
    f("weight_decay", s.rule.weight_decay);
    f("amsgrad", s.rule.amsgrad);
    f("no_decay", s.no_decay);
    f("snapshots", s.snapshots);
  }
};

template <class T>
void run_adamw(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("an optimiser runs whole");
  AdamWCaseConfig config;
  read_config(c.config(), config);
  if (config.betas.size() != 2) fail<ConfigError>("config: betas: expected two numbers");
  config.rule.beta1 = config.betas[0];
  config.rule.beta2 = config.betas[1];
  if (config.snapshots.empty()) fail<ConfigError>("config: snapshots: missing");

  NamedParameters<T> model;
  for (const std::string& name : c.names("param")) model.add(name, c.read<T>("param." + name));
  std::vector<AnyTensor<T>> gradients;
  for (const auto& [name, p] : model.all) {
    gradients.push_back(c.read<T>("input.grad." + name));
    if (gradients.back().size() != config.snapshots.back() * p.size())
      fail<FileError>("input.grad." + name + ": expected one gradient for each of " + std::to_string(config.snapshots.back()) + " steps");
  }
  for (const std::string& name : c.names("input")) {
    if (name != "learning_rate" && !(name.starts_with("grad.") && c.has("param." + name.substr(5))))
      fail<FileError>("unknown tensor input." + name);
  }
  const AnyTensor<double> rates = c.read_if<double>("input.learning_rate");

  AdamW optimizer(config.rule, [&](const ParameterInfo& p) {
    const bool decays = std::find(config.no_decay.begin(), config.no_decay.end(), p.path) == config.no_decay.end();
    return ParameterGroup{.weight_decay = decays ? config.rule.weight_decay : 0};
  });
  const auto count = static_cast<Index>(config.snapshots.size());
  std::vector<AnyTensor<T>> snapshots;
  for (const auto& [name, p] : model.all) snapshots.emplace_back(Shape{count * p.size()});
  Index taken = 0;
  for (Index t = 1; t <= config.snapshots.back(); ++t) {
    Gradients step;
    for (std::size_t i = 0; i < model.all.size(); ++i) {
      const auto& p = model.all[i].second;
      step.set(p, AnyTensor<T>::borrow(gradients[i].data() + (t - 1) * p.size(), Shape{p.size()}));
    }
    optimizer.step(model, step, rates.present() ? rates.data()[t - 1] : config.rule.learning_rate);
    if (t != config.snapshots[static_cast<std::size_t>(taken)]) continue;
    for (std::size_t i = 0; i < model.all.size(); ++i) {
      const auto& p = model.all[i].second;
      std::copy_n(p.value().data(), p.size(), snapshots[i].data() + taken * p.size());
    }
    ++taken;
  }
  if (taken != count) fail<ConfigError>("config: snapshots: expected increasing step numbers from 1");
  for (std::size_t i = 0; i < model.all.size(); ++i) {
    Shape shape{count};
    for (const Index e : c.shape("param." + model.all[i].first)) shape.push_back(e);
    report.compare("output." + model.all[i].first, snapshots[i].reshaped(shape));
  }
}

template <class T>
void run_clip_grad_norm(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("clipping runs whole");
  const JsonRef config = c.config();
  for (const auto& [key, value] : config->members()) {
    if (key != "clip_norm" && key != "norm_type") fail<ConfigError>("config: unknown key \"" + key + "\"; known are clip_norm, norm_type");
  }
  const double clip_norm = config.at("clip_norm").as_double();
  double norm_type = 2;
  if (const auto given = config.find("norm_type"); given && !(*given)->is_null()) {
    if ((*given)->is_string()) {
      if (given->as_string() != "inf") fail<ConfigError>("config: norm_type: unknown name \"" + given->as_string() + "\"");
      norm_type = HUGE_VAL;
    } else {
      norm_type = given->as_double();
    }
  }
  NamedParameters<T> model;
  for (const std::string& name : c.names("input.grad")) model.add(name, AnyTensor<T>(c.shape("input.grad." + name), T{0}));
  if (model.all.size() != c.names("input").size()) fail<FileError>("unknown tensor among input.*: expected input.grad.NAME only");
  Gradients gradients;
  for (const auto& [name, p] : model.all) gradients.set(p, c.read<T>("input.grad." + name).reshaped(Shape{p.size()}));
  const double norm = clip_grad_norm(model, gradients, clip_norm, norm_type);
  report.compare("output.total_norm", AnyTensor<T>(Shape{}, static_cast<T>(norm)));
  for (const auto& [name, p] : model.all)
    report.compare("output.grad." + name, gradients.of(p).reshaped(c.shape("input.grad." + name)));
}

}  // namespace

std::optional<Runner> find_loss_or_optimizer(std::string_view name) {
  if (name == "cross_entropy") return Runner{run_cross_entropy<float>, run_cross_entropy<double>};
  if (name == "adamw") return Runner{run_adamw<float>, run_adamw<double>};
  if (name == "clip_grad_norm") return Runner{run_clip_grad_norm<float>, run_clip_grad_norm<double>};
  return std::nullopt;
}

}  // namespace conformance
