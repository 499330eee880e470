// Scans.

#include "ordo/ops/diagonal_scan.hpp"
#include "ordo/ops/selective_scan.hpp"
#include "ordo/ops/shape.hpp"
#include "op_run.hpp"

namespace conformance {
namespace {

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

struct DiagonalScanConfig {
  bool complex = false;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("complex", s.complex);
  }
};

template <class T>
void run_diagonal_scan(const Case& c, RunMode mode, Report& report) {
  DiagonalScanConfig config;
  read_config(c.config(), config);
  c.require_inputs({"a", "b", "cu_seqlens"});
  for (const std::string& name : c.names("state_in")) {
    if (name != "hidden") fail<FileError>("unknown tensor state_in." + name);
  }
  Packing packing;
  if (c.has("input.cu_seqlens")) packing = Packing(c.tensor<std::int64_t, 1>("input.cu_seqlens"));
  const auto run = [&](const Var<T>& a, const Var<T>& b, const Var<T>& state) {
    return config.complex ? complex_diagonal_scan(a, b, state, packing) : diagonal_scan(a, b, state, packing);
  };
  Tape tape;
  const auto input = [&](const std::string& name) -> Var<T> {
    AnyTensor<T> value = c.read_if<T>(name);
    if (!value.present()) return {};
    return mode == RunMode::backward ? Var<T>{std::move(value), &tape, tape.new_slot()} : Var<T>{std::move(value)};
  };
  const Var<T> a = input("input.a"), b = input("input.b");
  Var<T> state = input("state_in.hidden");
  if (!a.present() || !b.present()) fail<FileError>("missing tensor: expected input.a and input.b");

  if (mode == RunMode::backward) {
    const auto [y, last] = run(a, b, state);
    report.compare("output.y", y.value);
    const auto seed = [&](const Var<T>& v, const char* name) {
      std::optional<Tape::Seed> s;
      with_rank(v.shape().rank(), [&]<std::size_t R>() { s = Tape::Seed::of(as_tracked<T, R>(v), c.read<T>(name)); });
      return *s;
    };
    std::vector<Tape::Seed> seeds;
    if (c.has("grad_output.y")) seeds.push_back(seed(y, "grad_output.y"));
    if (c.has("grad_state_out.hidden")) seeds.push_back(seed(last, "grad_state_out.hidden"));
    const Gradients gradients = tape.backward(seeds);
    report.compare("grad_input.a", gradient_of(gradients, a));
    report.compare("grad_input.b", gradient_of(gradients, b));
    if (state.present()) report.compare("grad_state_in.hidden", gradient_of(gradients, state));
    return;
  }
  if (mode != RunMode::whole && packing.packed()) fail<UsageError>("packed cases are not cut");
  const Shape shape = b.shape();
  const Index width = shape.size(2, shape.rank());
  AnyTensor<T> y(shape);
  Index at = 0;
  for (const Index length : pieces(mode, shape[1])) {
    const auto [part, next] = run(slice(a, 1, at, length), slice(b, 1, at, length), state);
    for (Index row = 0; row < shape[0]; ++row)
      std::copy_n(part.value.data() + row * length * width, length * width, y.data() + (row * shape[1] + at) * width);
    state = next;
    at += length;
  }
  report.compare("output.y", y);
  report.compare("state_out.hidden", state.value);
}

}  // namespace

std::optional<Runner> find_op(std::string_view name) {
  if (name == "diagonal_scan") return Runner{run_diagonal_scan<float>, run_diagonal_scan<double>};
  if (name == "selective_scan") return Runner{run_selective_scan<float>, run_selective_scan<double>};
  return std::nullopt;
}

}  // namespace conformance
