// Ops of the core family that are not layers, and the gated norm, a layer of two inputs.

#include "op_run.hpp"
#include "ordo/io/model.hpp"
#include "ordo/nn/norm.hpp"
#include "ordo/ops/cumulative_sum.hpp"
#include "ordo/ops/entmax.hpp"

namespace conformance {
namespace {

struct NoConfig {
  template <class Self, class F>
  static void visit(Self&, F&&) {}
};

// An op of one tensor, input.x -> output.y.
template <class T, class F>
void run_unary(const Case& c, RunMode mode, Report& report, F f) {
  OpRun<T> run(c, mode, report);
  run.output("y", f(run.input("x")));
  run.finish();
}

struct ActivationConfig : ActivationParameters {
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("kind", s.kind);
    f("negative_slope", s.negative_slope);
    f("alpha", s.alpha);
    f("beta", s.beta);
  }
};
template <class T>
void run_activation(const Case& c, RunMode mode, Report& report) {
  ActivationConfig config;
  read_config(c.config(), config);
  run_unary<T>(c, mode, report, [&](const Var<T>& x) { return activation(x, config); });
}

enum class Along { softmax, log_softmax, sparsemax, entmax15 };
struct AxisConfig {
  Index axis = -1;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("axis", s.axis);
  }
};
template <class T, Along op>
void run_along(const Case& c, RunMode mode, Report& report) {
  AxisConfig config;
  read_config(c.config(), config);
  run_unary<T>(c, mode, report, [&](const Var<T>& x) {
    switch (op) {
      case Along::softmax: return softmax(x, config.axis);
      case Along::log_softmax: return log_softmax(x, config.axis);
      case Along::sparsemax: return sparsemax(x, config.axis);
      default: return entmax15(x, config.axis);
    }
  });
}

template <class T>
void run_softmax_masked(const Case& c, RunMode mode, Report& report) {
  NoConfig config;
  read_config(c.config(), config);
  OpRun<T> run(c, mode, report);
  const Var<T> x = run.input("x");
  const auto mask = run.template constant<std::uint8_t>("mask");
  if (mask.shape().rank() != x.shape().rank()) fail<FileError>("input.mask: expected the rank of input.x");
  run.output("y", softmax_masked(x, mask));
  run.finish();
}

struct L2Config {
  std::string eps_form = "sum";
  double norm_eps = 1e-6;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("eps_form", s.eps_form);
    f("norm_eps", s.norm_eps);
  }
};
template <class T>
void run_l2_norm(const Case& c, RunMode mode, Report& report) {
  L2Config config;
  read_config(c.config(), config);
  if (config.eps_form != "sum" && config.eps_form != "max") fail<ConfigError>("config: eps_form: unknown name \"" + config.eps_form + "\"");
  const L2Eps form = config.eps_form == "sum" ? L2Eps::sum : L2Eps::max;
  run_unary<T>(c, mode, report, [&](const Var<T>& x) { return l2_norm(x, config.norm_eps, form); });
}

struct CumulativeSumConfig : CumulativeSumParameters {
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("reverse", s.reverse);
    f("exclusive", s.exclusive);
  }
};
template <class T>
void run_cumulative_sum(const Case& c, RunMode mode, Report& report) {
  CumulativeSumConfig config;
  read_config(c.config(), config);
  if (mode == RunMode::whole || mode == RunMode::backward) {
    OpRun<T> run(c, mode, report);
    const Var<T> x = run.input("x"), start = run.state("sum", !config.reverse);
    const auto [y, state] = cumulative_sum(x, 1, start, config);
    run.output("y", y);
    run.state_out("sum", state);
    return run.finish();
  }
  if (config.reverse) fail<UsageError>("sums from the end are not cut");
  const auto x = c.tensor<T, 3>("input.x");
  DynTensor<T, 2> state = c.tensor<T, 2>("state_in.sum");
  DynTensor<T, 3> y(x.extent(0), Index{0}, x.extent(2));
  Index at = 0;
  for (const Index length : pieces(mode, x.extent(1))) {
    auto [part, next] = cumulative_sum(slice(x, 1, at, length), 1, state, config);
    y = concat(1, y, part);
    state = next;
    at += length;
  }
  report.compare("output.y", borrow(y));
  report.compare("state_out.sum", borrow(state));
}

template <class T>
void run_gated_rms_norm(const Case& c, RunMode mode, Report& report) {
  typename GatedRmsNorm<T>::Config config;
  read_config(c.config(), config);
  GatedRmsNorm<T> layer(config);
  load_model(c.source(), layer, {.ignore = [](const std::string& name) { return !name.starts_with("param."); },
                                 .rename = [](const std::string& name) { return "param." + name; }});
  OpRun<T> run(c, mode, report);
  const Var<T> x = run.input("x"), gate = run.input("gate");
  run.output("y", layer(x, gate));
  run.finish_with(layer);
}

}  // namespace

std::optional<Runner> find_core_op(std::string_view name) {
  using enum Along;
  if (name == "activation") return Runner{run_activation<float>, run_activation<double>};
  if (name == "softmax") return Runner{run_along<float, softmax>, run_along<double, softmax>};
  if (name == "log_softmax") return Runner{run_along<float, log_softmax>, run_along<double, log_softmax>};
  if (name == "sparsemax") return Runner{run_along<float, sparsemax>, run_along<double, sparsemax>};
  if (name == "entmax15") return Runner{run_along<float, entmax15>, run_along<double, entmax15>};
  if (name == "softmax_masked") return Runner{run_softmax_masked<float>, run_softmax_masked<double>};
  if (name == "l2_norm") return Runner{run_l2_norm<float>, run_l2_norm<double>};
  if (name == "cumulative_sum") return Runner{run_cumulative_sum<float>, run_cumulative_sum<double>};
  if (name == "gated_rms_norm") return Runner{run_gated_rms_norm<float>, run_gated_rms_norm<double>};
  return std::nullopt;
}

}  // namespace conformance
