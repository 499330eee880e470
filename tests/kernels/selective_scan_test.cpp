// The selective scan against its recurrence in double, its gradients against central differences of that recurrence.

#include "ordo/kernels/selective_scan.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "scan_support.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

namespace {

using namespace ordo;
using namespace scan_test;
using kernels::Rows;
using kernels::ScanShape;
using kernels::SelectiveScan;
using kernels::SelectiveScanGradients;
using kernels::Sequences;

struct Case {
  Index batch, length, channels, states, groups;
  bool softplus, bias, skip, gate, state;
  std::vector<std::int64_t> offsets = {};
};

/// All inputs, dense, in double. Empty vectors stand for what is not there.
struct Problem {
  Case c;
  Index sequences, rows;
  Doubles u, dt, a, b, cc, skip, bias, gate, state, dy, dstate;

  explicit Problem(const Case& from, std::uint64_t seed = 1)
      : c(from),
        sequences(c.offsets.empty() ? c.batch : static_cast<Index>(c.offsets.size()) - 1),
        rows(c.offsets.empty() ? c.batch * c.length : static_cast<Index>(c.offsets.back())) {
    Random r(seed);
    u = random(r, rows * c.channels, -1, 1);
    dt = c.softplus ? random(r, rows * c.channels, -4, 2) : random(r, rows * c.channels, -0.1, 1);
    a = random(r, c.states * c.channels, -3, -0.1);
    b = random(r, rows * c.groups * c.states, -1, 1);
    cc = random(r, rows * c.groups * c.states, -1, 1);
    if (c.skip) skip = random(r, c.channels, -1, 1);
    if (c.bias) bias = random(r, c.channels, -0.5, 0.5);
    if (c.gate) gate = random(r, rows * c.channels, -2, 2);
    if (c.state) state = random(r, sequences * c.states * c.channels, -1, 1);
    dy = random(r, rows * c.channels, -1, 1);
    dstate = random(r, sequences * c.states * c.channels, -1, 1);
  }
  Sequences layout() const { return {sequences, c.length, c.offsets.empty() ? nullptr : c.offsets.data()}; }
};

struct Results {
  Doubles y, state;
};
struct Gradients {
  Doubles u, dt, a, b, c, skip, bias, gate, state;
};

Results reference(const Problem& p) {
  const Index E = p.c.channels, N = p.c.states, G = p.c.groups;
  const Sequences s = p.layout();
  Results out{Doubles(sz(p.rows * E)), Doubles(sz(p.sequences * N * E))};
  for (Index q = 0; q < p.sequences; ++q) {
    for (Index e = 0; e < E; ++e) {
      const Index g = e / (E / G);
      Doubles h(sz(N), 0.0);
      for (Index n = 0; n < N; ++n) {
        if (p.c.state) h[sz(n)] = p.state[sz((q * N + n) * E + e)];
      }
      for (Index t = s.begin(q); t < s.end(q); ++t) {
        double d = p.dt[sz(t * E + e)] + (p.c.bias ? p.bias[sz(e)] : 0);
        if (p.c.softplus) d = d > 20 ? d : std::log1p(std::exp(d));
        const double u = p.u[sz(t * E + e)];
        double y = 0;
        for (Index n = 0; n < N; ++n) {
          h[sz(n)] = std::exp(d * p.a[sz(n * E + e)]) * h[sz(n)] + d * p.b[sz((t * G + g) * N + n)] * u;
          y += p.cc[sz((t * G + g) * N + n)] * h[sz(n)];
        }
        if (p.c.skip) y += p.skip[sz(e)] * u;
        if (p.c.gate) y *= p.gate[sz(t * E + e)] / (1 + std::exp(-p.gate[sz(t * E + e)]));
        out.y[sz(t * E + e)] = y;
      }
      for (Index n = 0; n < N; ++n) out.state[sz((q * N + n) * E + e)] = h[sz(n)];
    }
  }
  return out;
}

/// The kernel's arguments with rows that are slices of wider ones.
template <class T>
struct Arguments {
  const Problem& p;
  Index E = p.c.channels, N = p.c.states, G = p.c.groups;
  Strided<T> u{p.rows, E, p.u}, dt{p.rows, E, p.dt, 5}, b{p.rows, G* N, p.b, 1}, c{p.rows, G* N, p.cc, 2};
  Strided<T> gate{p.c.gate ? p.rows : 0, E, p.gate, 7};
  std::vector<T> a = converted<T>(p.a), skip = converted<T>(p.skip), bias = converted<T>(p.bias),
                 state = converted<T>(p.state);

  SelectiveScan<T> scan() const {
    SelectiveScan<T> in;
    in.shape = {p.layout(), E, N, G};
    in.u = u.view();
    in.dt = dt.view();
    in.b = b.view();
    in.c = c.view();
    in.a = a.data();
    if (p.c.skip) in.d_skip = skip.data();
    if (p.c.bias) in.dt_bias = bias.data();
    if (p.c.gate) in.gate = gate.view();
    if (p.c.state) in.state_in = state.data();
    in.dt_softplus = p.c.softplus;
    return in;
  }
};

template <class T>
Results forward(const Problem& p, std::vector<T>* checkpoints = nullptr) {
  const Arguments<T> arguments{p};
  const auto in = arguments.scan();
  Strided<T> y(p.rows, p.c.channels);
  std::vector<T> state(sz(p.sequences * in.shape.state_size()), T(-7));
  if (checkpoints) checkpoints->assign(sz(kernels::scan_checkpoint_size(in.shape)), T(-7));
  kernels::selective_scan_forward<T>(in, y.view(), state.data(), checkpoints ? checkpoints->data() : nullptr);
  REQUIRE(y.gaps_untouched());
  return {y.dense(), doubles(state)};
}

template <class T>
Gradients backward(const Problem& p, const std::vector<T>* checkpoints = nullptr) {
  const Arguments<T> arguments{p};
  const Index E = p.c.channels, N = p.c.states, G = p.c.groups;
  const Strided<T> dy(p.rows, E, p.dy);
  const std::vector<T> dstate = converted<T>(p.dstate);
  Strided<T> du(p.rows, E, 4), ddt(p.rows, E, 2), db(p.rows, G * N), dc(p.rows, G * N, 1), dgate(p.rows, E, 6);
  std::vector<T> da(sz(N * E)), dskip(sz(E)), dbias(sz(E)), dstate_in(sz(p.sequences * N * E));
  SelectiveScanGradients<T> out;
  out.u = du.view();
  out.dt = ddt.view();
  out.b = db.view();
  out.c = dc.view();
  if (p.c.gate) out.gate = dgate.view();
  out.a = da.data();
  out.d_skip = dskip.data();
  out.dt_bias = dbias.data();
  out.state_in = dstate_in.data();
  kernels::selective_scan_backward<T>(arguments.scan(), dy.view(), dstate.data(), out,
                                      checkpoints ? checkpoints->data() : nullptr);
  const bool untouched = du.gaps_untouched() && ddt.gaps_untouched() && db.gaps_untouched() && dc.gaps_untouched() &&
                         dgate.gaps_untouched();
  REQUIRE(untouched);
  return {du.dense(),
          ddt.dense(),
          doubles(da),
          db.dense(),
          dc.dense(),
          p.c.skip ? doubles(dskip) : Doubles{},
          p.c.bias ? doubles(dbias) : Doubles{},
          p.c.gate ? dgate.dense() : Doubles{},
          p.c.state ? doubles(dstate_in) : Doubles{}};
}

/// The largest relative difference of any gradient.
double difference(const Gradients& got, const Gradients& expected) {
  return std::max({scan_test::difference(got.u, expected.u), scan_test::difference(got.dt, expected.dt),
                   scan_test::difference(got.a, expected.a), scan_test::difference(got.b, expected.b),
                   scan_test::difference(got.c, expected.c), scan_test::difference(got.skip, expected.skip),
                   scan_test::difference(got.bias, expected.bias), scan_test::difference(got.gate, expected.gate),
                   scan_test::difference(got.state, expected.state)});
}

Gradients numeric(Problem p) {
  const auto loss = [&p] {
    const Results r = reference(p);
    double sum = 0;
    for (std::size_t i = 0; i < r.y.size(); ++i) sum += p.dy[i] * r.y[i];
    for (std::size_t i = 0; i < r.state.size(); ++i) sum += p.dstate[i] * r.state[i];
    return sum;
  };
  Gradients g;
  g.u = central_differences(p.u, loss);
  g.dt = central_differences(p.dt, loss);
  g.a = central_differences(p.a, loss);
  g.b = central_differences(p.b, loss);
  g.c = central_differences(p.cc, loss);
  g.skip = central_differences(p.skip, loss);
  g.bias = central_differences(p.bias, loss);
  g.gate = central_differences(p.gate, loss);
  g.state = central_differences(p.state, loss);
  return g;
}

// Channels around the widths of vectors and blocks, lengths around checkpoints, states around the tile of the way back.
const std::vector<Case> cases = {
    {1, 1, 1, 1, 1, false, false, false, false, false},
    {2, 5, 3, 2, 1, true, true, true, true, true},
    {1, 17, 15, 5, 1, true, false, true, true, false},
    {3, 16, 17, 4, 1, true, true, true, false, true},
    {1, 33, 33, 16, 1, true, true, true, true, true},
    {2, 19, 12, 3, 2, true, true, true, true, true},
    {1, 65, 66, 6, 3, false, true, false, true, true},
    {1, 40, 130, 2, 1, false, false, true, false, true},
    {2, 3, 4, 7, 4, true, false, false, true, true},
    {1, 0, 19, 3, 1, true, true, true, true, true, {0, 4, 4, 21, 22, 40}},
    {1, 0, 5, 2, 5, true, true, true, true, false, {0, 0, 3, 3}},
};

std::string name(const Case& c) {
  return "B" + std::to_string(c.batch) + " L" + std::to_string(c.length) + " E" + std::to_string(c.channels) + " N" +
         std::to_string(c.states) + " G" + std::to_string(c.groups) + (c.offsets.empty() ? "" : " packed");
}

}  // namespace

TEST_CASE("selective scan: forward is the recurrence") {
  for (const Case& c : cases) {
    CAPTURE(name(c));
    const Problem p(c);
    const Results expected = reference(p);
    const Results in_double = forward<double>(p), in_float = forward<float>(p);
    CHECK(scan_test::difference(in_double.y, expected.y) < 1e-13);
    CHECK(scan_test::difference(in_double.state, expected.state) < 1e-13);
    CHECK(scan_test::difference(in_float.y, expected.y) < 3e-6);
    CHECK(scan_test::difference(in_float.state, expected.state) < 3e-6);
  }
}

TEST_CASE("selective scan: gradients are central differences") {
  for (const Case& c : cases) {
    if (c.channels * c.states > 200) continue;  // the reference is slow; the float test below covers them
    CAPTURE(name(c));
    const Problem p(c);
    const Gradients got = backward<double>(p), expected = numeric(p);
    CHECK(scan_test::difference(got.u, expected.u) < 1e-8);
    CHECK(scan_test::difference(got.dt, expected.dt) < 1e-8);
    CHECK(scan_test::difference(got.a, expected.a) < 1e-8);
    CHECK(scan_test::difference(got.b, expected.b) < 1e-8);
    CHECK(scan_test::difference(got.c, expected.c) < 1e-8);
    CHECK(scan_test::difference(got.skip, expected.skip) < 1e-8);
    CHECK(scan_test::difference(got.bias, expected.bias) < 1e-8);
    CHECK(scan_test::difference(got.gate, expected.gate) < 1e-8);
    CHECK(scan_test::difference(got.state, expected.state) < 1e-8);
  }
}

TEST_CASE("selective scan: gradients in float are those in double") {
  for (const Case& c : cases) {
    CAPTURE(name(c));
    const Problem p(c);
    CHECK(difference(backward<float>(p), backward<double>(p)) < 2e-5);
  }
}

TEST_CASE("selective scan: kept states give the same gradients as recomputed ones, to the bit") {
  for (const Case& c : cases) {
    CAPTURE(name(c));
    const Problem p(c);
    std::vector<float> checkpoints;
    const Results with = forward<float>(p, &checkpoints), without = forward<float>(p);
    CHECK(with.y == without.y);
    CHECK(with.state == without.state);
    CHECK(difference(backward<float>(p, &checkpoints), backward<float>(p)) == 0);
  }
}

TEST_CASE("selective scan: whole, in chunks of any size, and step by step") {
  const Case c{2, 37, 35, 5, 1, true, true, true, true, true};
  const Problem p(c);
  const Results whole = forward<float>(p);
  const Index E = c.channels;
  for (const Index chunk : {Index{1}, Index{2}, Index{3}, Index{4}, Index{15}, Index{16}, Index{20}}) {
    CAPTURE(chunk);
    const Arguments<float> arguments{p};
    Strided<float> y(p.rows, E);
    std::vector<float> state = arguments.state;
    for (Index first = 0; first < c.length; first += chunk) {
      // Both batch rows have to be cut, so each goes by itself; the state is updated in place.
      for (Index row = 0; row < c.batch; ++row) {
        auto in = arguments.scan();
        const Index at = row * c.length + first;
        in.shape.sequences = {1, std::min(chunk, c.length - first), nullptr};
        in.u.data = arguments.u.view()[at];
        in.dt.data = arguments.dt.view()[at];
        in.b.data = arguments.b.view()[at];
        in.c.data = arguments.c.view()[at];
        in.gate.data = arguments.gate.view()[at];
        in.state_in = state.data() + row * in.shape.state_size();
        kernels::selective_scan_forward<float>(in, {y.view()[at], y.stride},
                                               state.data() + row * in.shape.state_size());
      }
    }
    // One text for all lengths: not close, but equal.
    CHECK(y.dense() == whole.y);
    CHECK(doubles(state) == whole.state);
  }
}

TEST_CASE("selective scan: a step of all batch rows, with and without a state to start from") {
  for (const bool state : {false, true}) {
    for (const Index channels : {Index{1}, Index{32}, Index{64}, Index{77}}) {
      const Problem p(Case{5, 1, channels, 16, 1, true, true, true, true, state});
      const Results expected = reference(p), got = forward<float>(p);
      CHECK(scan_test::difference(got.y, expected.y) < 3e-6);
      CHECK(scan_test::difference(got.state, expected.state) < 3e-6);
    }
  }
}

TEST_CASE("selective scan: a step allocates nothing") {
  const Problem p(Case{1, 1, 77, 16, 1, true, true, true, true, true});
  const Arguments<float> arguments{p};
  const auto in = arguments.scan();
  Strided<float> y(p.rows, 77);
  std::vector<float> state(sz(in.shape.state_size()));
  kernels::selective_scan_forward<float>(in, y.view(), state.data());
  ordo_test::AllocationCount count;
  for (int i = 0; i < 10; ++i) kernels::selective_scan_forward<float>(in, y.view(), state.data());
  const std::size_t allocations = count.allocations();
  CHECK(allocations == 0);
}

TEST_CASE("selective scan: steps and decays of every size give neither NaN nor infinity") {
  const Case c{1, 41, 19, 3, 1, GENERATE(false, true), false, true, true, true};
  Problem p(c);
  const double sizes[] = {1e-8, 1e-3, 1, 20, 1000, -1e-3, 0};
  for (std::size_t i = 0; i < p.dt.size(); ++i) p.dt[i] = static_cast<double>(static_cast<float>(sizes[i % 7]));
  for (std::size_t i = 0; i < p.a.size(); ++i) p.a[i] = i % 2 == 0 ? -30 : -0.125;
  const Results expected = reference(p), in_float = forward<float>(p);
  CHECK(scan_test::difference(forward<double>(p).y, expected.y) < 1e-12);
  CHECK(scan_test::difference(in_float.y, expected.y) < 1e-5);
  CHECK(scan_test::difference(in_float.state, expected.state) < 1e-5);
  CHECK(difference(backward<float>(p), backward<double>(p)) < 1e-4);
}

TEST_CASE("selective scan: a growing state is right too") {
  Problem p(Case{1, 12, 18, 2, 1, false, false, false, false, true});
  for (double& d : p.dt) d = -std::abs(d) - 1;  // exp(d a) up to exp(6)
  const Results expected = reference(p);
  CHECK(scan_test::difference(forward<double>(p).y, expected.y) < 1e-12);
  CHECK(scan_test::difference(forward<float>(p).y, expected.y) < 1e-5);
  CHECK(scan_test::difference(backward<double>(p).dt, numeric(p).dt) < 1e-7);
}

TEST_CASE("selective scan: above 20 softplus is the number itself and its slope one") {
  Problem p(Case{1, 2, 4, 1, 1, true, false, false, false, false});
  for (std::size_t i = 0; i < p.dt.size(); ++i) p.dt[i] = 20.5 + static_cast<double>(i);
  for (double& a : p.a) a = -1e-3;
  Problem plain = p;
  plain.c.softplus = false;
  CHECK(forward<double>(p).y == forward<double>(plain).y);
  CHECK(backward<double>(p).dt == backward<double>(plain).dt);
}

TEST_CASE("selective scan: an empty sequence passes its state and the state's gradient through") {
  const Problem p(Case{1, 0, 7, 3, 1, true, true, true, true, true, {0, 3, 3, 5}});
  const Results r = forward<double>(p);
  const Gradients g = backward<double>(p);
  const auto row = [](const Doubles& x) { return Doubles(x.begin() + 21, x.begin() + 42); };
  CHECK(row(r.state) == row(p.state));
  CHECK(row(g.state) == row(p.dstate));
}

TEST_CASE("selective scan: the bits do not depend on the number of threads") {
  const Problem p(Case{5, 50, 200, 16, 1, true, true, true, true, true});
  const Results one = forward<float>(p);
  const Gradients g_one = backward<float>(p);
  for (const int threads : {2, 5}) {
    set_num_threads(threads);
    const Results many = forward<float>(p);
    const Gradients g_many = backward<float>(p);
    set_num_threads(1);
    CHECK(many.y == one.y);
    CHECK(many.state == one.state);
    CHECK(difference(g_many, g_one) == 0);
  }
}

TEST_CASE("selective scan: gradients that nobody wants are left out") {
  const Problem p(Case{2, 20, 21, 3, 1, true, true, true, true, true});
  const Gradients all = backward<double>(p);
  const Arguments<double> arguments{p};
  const Strided<double> dy(p.rows, 21, p.dy);
  std::vector<double> da(sz(3 * 21));
  SelectiveScanGradients<double> out;
  out.a = da.data();
  kernels::selective_scan_backward<double>(arguments.scan(), dy.view(), p.dstate.data(), out);
  CHECK(da == all.a);
  Strided<double> db(p.rows, 3);
  out = {};
  out.b = db.view();
  kernels::selective_scan_backward<double>(arguments.scan(), dy.view(), p.dstate.data(), out);
  CHECK(db.dense() == all.b);
}
