// Ops: activations, softmaxes, the selective scan.

#include "ordo/ops/activation.hpp"
#include "ordo/ops/selective_scan.hpp"
#include "ordo/ops/shape.hpp"
#include "ordo/ops/softmax.hpp"
#include "report.hpp"

namespace conformance {
namespace {

// An op of one tensor, input.x -> output.y.
template <class T, class F>
void run_unary(const Case& c, RunMode mode, Report& report, F f) {
  c.require_inputs({"x"});
  if (mode != RunMode::whole && mode != RunMode::backward) fail<UsageError>("this op is not cut along the sequence");
  with_rank(c.shape("input.x").rank(), [&]<std::size_t R>() {
    const auto x = c.tensor<T, R>("input.x");
    if (mode == RunMode::whole) {
      report.compare("output.y", borrow(f(x)).copy());
      return;
    }
    Tape tape;
    const auto tracked = track(tape, x);
    const auto y = f(tracked);
    report.compare("output.y", y.var().value);
    report.compare("grad_input.x", tape.backward(y, c.read<T>("grad_output.y")).of(tracked));
  });
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
  run_unary<T>(c, mode, report, [&](const auto& x) { return activation(x, config); });
}

struct AxisConfig {
  Index axis = -1;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("axis", s.axis);
  }
};
template <class T>
void run_softmax(const Case& c, RunMode mode, Report& report) {
  AxisConfig config;
  read_config(c.config(), config);
  run_unary<T>(c, mode, report, [&](const auto& x) { return softmax(x, config.axis); });
}
template <class T>
void run_log_softmax(const Case& c, RunMode mode, Report& report) {
  AxisConfig config;
  read_config(c.config(), config);
  run_unary<T>(c, mode, report, [&](const auto& x) { return log_softmax(x, config.axis); });
}

struct SelectiveScanConfig {
  bool dt_softplus = false;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("dt_softplus", s.dt_softplus);
  }
};

// The arguments of a call, in the layouts of the file ([E, N] and [B, E, N]); optional ones are absent. As Vars, so that one
// compiled call serves every choice of them and both plain and recorded runs.
template <class T>
struct ScanArguments {
  static constexpr std::array<const char*, 8> names{"u", "dt", "a", "b", "c", "d_skip", "gate", "dt_bias"};
  static constexpr std::array<bool, 8> is_cut{true, true, false, true, true, false, true, false};
  std::array<Var<T>, 8> of;
  Var<T> state;

  std::pair<Var<T>, Var<T>> run(bool dt_softplus, const Packing& packing) const {
    const Var<T> state_in = state.present() ? transpose(state, 1, 2) : state;
    auto [y, state_out] = selective_scan(of[0], of[1], transpose(of[2], 0, 1), of[3], of[4], of[5], of[6], of[7], state_in, dt_softplus, packing);
    return {y, transpose(state_out, 1, 2)};
  }
};

template <class T, std::size_t R>
Tracked<DynTensor<T, R>> as_tracked(const Var<T>& v) {
  return Tracked<DynTensor<T, R>>(v);
}
// The gradient of a Var of any rank.
template <class T>
AnyTensor<T> gradient_of(const Gradients& gradients, const Var<T>& v) {
  AnyTensor<T> g;
  with_rank(v.shape().rank(), [&]<std::size_t R>() { g = gradients.of(as_tracked<T, R>(v)); });
  return g;
}

template <class T>
void run_selective_scan(const Case& c, RunMode mode, Report& report) {
  SelectiveScanConfig config;
  read_config(c.config(), config);
  c.require_inputs({"u", "dt", "a", "b", "c", "d_skip", "gate", "dt_bias", "cu_seqlens"});
  for (const std::string& name : c.names("state_in")) {
    if (name != "ssm") fail<FileError>("unknown tensor state_in." + name);
  }
  Tape tape;
  const bool backward = mode == RunMode::backward;
  const auto input = [&](const std::string& name) -> Var<T> {
    AnyTensor<T> value = c.read_if<T>(name);
    if (!value.present()) return {};
    return backward ? Var<T>{std::move(value), &tape, tape.new_slot()} : Var<T>{std::move(value)};
  };
  ScanArguments<T> in;
  for (std::size_t i = 0; i < in.of.size(); ++i) {
    in.of[i] = input(std::string("input.") + in.names[i]);
    if (i < 5 && !in.of[i].present()) fail<FileError>(std::string("missing tensor input.") + in.names[i]);
  }
  in.state = input("state_in.ssm");
  if (in.of[0].shape().rank() != 3) fail<FileError>("input.u: expected [B, L, E]");
  Packing packing;
  if (c.has("input.cu_seqlens")) packing = Packing(c.tensor<std::int64_t, 1>("input.cu_seqlens"));

  if (backward) {
    const auto [y, state] = in.run(config.dt_softplus, packing);
    report.compare("output.y", y.value);
    std::vector<Tape::Seed> seeds;
    if (c.has("grad_output.y")) seeds.push_back(Tape::Seed::of(as_tracked<T, 3>(y), c.read<T>("grad_output.y")));
    if (c.has("grad_state_out.ssm"))
      seeds.push_back(Tape::Seed::of(as_tracked<T, 3>(state), c.read<T>("grad_state_out.ssm")));
    const Gradients gradients = tape.backward(seeds);
    for (std::size_t i = 0; i < in.of.size(); ++i) {
      if (in.of[i].present())
        report.compare(std::string("grad_input.") + in.names[i], gradient_of(gradients, in.of[i]));
    }
    if (in.state.present()) report.compare("grad_state_in.ssm", gradient_of(gradients, in.state));
    return;
  }

  if (mode != RunMode::whole && packing.packed()) fail<UsageError>("packed cases are not cut");
  const Shape shape = in.of[0].shape();
  AnyTensor<T> y(shape);
  Index at = 0;
  for (const Index length : pieces(mode, shape[1])) {
    ScanArguments<T> piece = in;
    for (std::size_t i = 0; i < in.of.size(); ++i) {
      if (in.is_cut[i] && in.of[i].present()) piece.of[i] = slice(in.of[i], 1, at, length);
    }
    const auto [part, state] = piece.run(config.dt_softplus, packing);
    for (Index b = 0; b < shape[0]; ++b)
      std::copy_n(part.value.data() + b * length * shape[2], length * shape[2], y.data() + (b * shape[1] + at) * shape[2]);
    in.state = state;
    at += length;
  }
  report.compare("output.y", y);
  report.compare("state_out.ssm", in.state.value);
}

}  // namespace

std::optional<Runner> find_op(std::string_view name) {
  if (name == "activation") return Runner{run_activation<float>, run_activation<double>};
  if (name == "softmax") return Runner{run_softmax<float>, run_softmax<double>};
  if (name == "log_softmax") return Runner{run_log_softmax<float>, run_log_softmax<double>};
  if (name == "selective_scan") return Runner{run_selective_scan<float>, run_selective_scan<double>};
  return std::nullopt;
}

}  // namespace conformance
