// Losses of classification; of elements and vectors: loss_elements.cpp, loss_vectors.cpp.

#include "loss.hpp"
#include "ordo/ops/ctc.hpp"
#include "ordo/ops/loss.hpp"

namespace conformance {
namespace {

struct CrossEntropyConfig : LossConfig {
  CrossEntropyParameters parameters;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    LossConfig::visit(s, f);
    f("ignore_index", s.parameters.ignore_index);
    f("label_smoothing", s.parameters.label_smoothing);
    f("z_loss", s.parameters.z_loss);
  }
};
template <class T>
void run_cross_entropy(const Case& c, RunMode mode, Report& report) {
  auto config = read_loss<CrossEntropyConfig>(c);
  config.parameters.reduction = config.of();
  if (c.has("input.targets") == c.has("input.target_probabilities"))
    fail<FileError>("expected either input.targets or input.target_probabilities");
  OpRun<T> run(c, mode, report);
  const Var<T> x = run.input("logits"), w = run.constant("class_weight", false);
  const auto finish = [&](const auto& targets) {
    run.output("loss", config.none() ? cross_entropy_each(x, targets, config.parameters, w) : cross_entropy(x, targets, config.parameters, w));
    run.finish();
  };
  if (c.has("input.targets")) {
    finish(run.template constant<Index>("targets"));
  } else {
    finish(run.constant("target_probabilities"));
  }
}

struct NllConfig : LossConfig {
  NllParameters parameters;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    LossConfig::visit(s, f);
    f("ignore_index", s.parameters.ignore_index);
  }
};
template <class T>
void run_nll(const Case& c, RunMode mode, Report& report) {
  auto config = read_loss<NllConfig>(c);
  config.parameters.reduction = config.of();
  OpRun<T> run(c, mode, report);
  const Var<T> x = run.input("log_probabilities"), w = run.constant("class_weight", false);
  const Var<Index> targets = run.template constant<Index>("targets");
  run.output("loss", config.none() ? nll_loss_each(x, targets, config.parameters, w) : nll_loss(x, targets, config.parameters, w));
  run.finish();
}

struct CtcConfig : LossConfig {
  CtcParameters parameters;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    LossConfig::visit(s, f);
    f("blank", s.parameters.blank);
    f("zero_infinity", s.parameters.zero_infinity);
  }
};
template <class T>
void run_ctc_loss(const Case& c, RunMode mode, Report& report) {
  auto config = read_loss<CtcConfig>(c);
  config.parameters.reduction = config.of();
  OpRun<T> run(c, mode, report);
  const Var<T> logits = run.input("logits");
  const Var<Index> targets = run.template constant<Index>("targets"), frames = run.template constant<Index>("input_lengths"),
                   labels = run.template constant<Index>("target_lengths");
  run.output("loss", config.none() ? ctc_loss_each(logits, targets, frames, labels, config.parameters)
                                   : ctc_loss(logits, targets, frames, labels, config.parameters));
  run.finish();
}

}  // namespace

std::optional<Runner> find_loss(std::string_view name) {
  if (name == "cross_entropy") return Runner{run_cross_entropy<float>, run_cross_entropy<double>};
  if (name == "nll") return Runner{run_nll<float>, run_nll<double>};
  if (name == "ctc_loss") return Runner{run_ctc_loss<float>, run_ctc_loss<double>};
  if (const auto element = find_element_loss(name)) return element;
  return find_vector_loss(name);
}

}  // namespace conformance
