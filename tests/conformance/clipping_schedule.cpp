// Clipping of gradients, learning-rate schedules.

#include "optimizer.hpp"

#include "ordo/train/clip.hpp"
#include "ordo/train/schedules.hpp"

namespace conformance {
namespace {

void require_keys(const JsonRef& config, std::initializer_list<std::string_view> known) {
  for (const auto& [key, value] : config->members()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) fail<ConfigError>("config: unknown key \"" + key + "\"");
  }
}

// The gradients of a case as those of a model.
template <class T>
struct CaseGradients {
  NamedParameters<T> model;
  Gradients gradients;

  explicit CaseGradients(const Case& c) {
    const std::vector<std::string> names = c.names("input.grad");
    if (names.size() != c.names("input").size()) fail<FileError>("unknown tensor among input.*: expected input.grad.NAME only");
    for (const std::string& name : names) model.add(name, AnyTensor<T>(c.shape("input.grad." + name), T{0}));
    model.each([&](const std::string& name, const auto& p) {
      gradients.set(p, c.read<T>("input.grad." + name).reshaped(p.shape()));
    });
  }
  void compare(const Case& c, Report& report) const {
    model.each([&](const std::string& name, const auto& p) {
      report.compare("output.grad." + name, gradients.of(p).reshaped(c.shape("input.grad." + name)));
    });
  }
};

template <class T>
void run_clip_grad_norm(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("clipping runs whole");
  const JsonRef config = c.config();
  require_keys(config, {"clip_norm", "norm_type"});
  double norm_type = 2;
  if (const auto given = config.find("norm_type"); given && !(*given)->is_null()) {
    if ((*given)->is_string()) {
      if (given->as_string() != "inf") fail<ConfigError>("config: norm_type: unknown name \"" + given->as_string() + "\"");
      norm_type = HUGE_VAL;
    } else {
      norm_type = given->as_double();
    }
  }
  CaseGradients<T> all(c);
  const double norm = clip_grad_norm(all.model, all.gradients, config.at("clip_norm").as_double(), norm_type);
  report.compare("output.total_norm", AnyTensor<T>(Shape{}, static_cast<T>(norm)));
  all.compare(c, report);
}

template <class T>
void run_clip_grad_value(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("clipping runs whole");
  require_keys(c.config(), {"clip_value"});
  CaseGradients<T> all(c);
  clip_grad_value(all.model, all.gradients, c.config().at("clip_value").as_double());
  all.compare(c, report);
}

// The keys of a schedule beside the kind and the length.
template <class S>
struct ScheduleCaseConfig {
  S& schedule;
  std::string kind;
  Index length = 0;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("kind", s.kind);
    f("length", s.length);
    S::visit(s.schedule, f);
  }
};

template <class T>
void run_schedule(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("a schedule runs whole");
  c.require_inputs({});
  Schedule schedule(c.config().at("kind").as_string());
  Index length = 0;
  std::visit(
      [&]<class S>(S& s) {
        ScheduleCaseConfig<S> config{s, {}, 0};
        detail::read_fields(c.config(), config);
        length = config.length;
      },
      schedule.any());
  if (length < 1) fail<ConfigError>("config: length: expected at least 1");
  AnyTensor<T> rates(Shape{length});
  for (Index s = 0; s < length; ++s) rates.data()[s] = static_cast<T>(schedule(s));
  report.compare("output.learning_rate", rates);
}

}  // namespace

std::optional<Runner> find_clipping(std::string_view name) {
  if (name == "clip_grad_norm") return Runner{run_clip_grad_norm<float>, run_clip_grad_norm<double>};
  if (name == "clip_grad_value") return Runner{run_clip_grad_value<float>, run_clip_grad_value<double>};
  if (name == "schedule") return Runner{run_schedule<float>, run_schedule<double>};
  return std::nullopt;
}

}  // namespace conformance
