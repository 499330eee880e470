// Scans as multiples of what bounds them: a selective scan does one exp a state, channel and token, so the measure is
// the time of simd::exp over as many numbers in the same run ("x_exp"); the diagonal scan moves memory ("bytes/s").

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/kernels/diagonal_scan.hpp"
#include "ordo/kernels/selective_scan.hpp"
#include "ordo/simd/math.hpp"
#include "support/machine.hpp"

namespace {

using namespace ordo::kernels;
using ordo::Index;

std::vector<float> random(Index n, double low, double high, std::uint64_t seed) {
  ordo::Random r(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = static_cast<float>(r.uniform(low, high));
  return x;
}

/// Seconds of simd::exp on one number of an array in the L1 cache, the best of several passes.
double exp_seconds() {
  static const double seconds = [] {
    const std::vector<float> x = random(4096, -10, 0, 1);
    std::vector<float> y(x.size());
    double best = 1;
    for (int pass = 0; pass < 50; ++pass) {
      const double start = ordo::bench::seconds_now();
      for (int i = 0; i < 100; ++i) {
        ordo::simd::transform(x.data(), y.data(), static_cast<Index>(x.size()), ordo::simd::exp);
        benchmark::DoNotOptimize(y.data());
        benchmark::ClobberMemory();
      }
      best = std::min(best, (ordo::bench::seconds_now() - start) / (100.0 * static_cast<double>(x.size())));
    }
    return best;
  }();
  return seconds;
}

/// A layer of Mamba: softplus, bias, skip and gate.
struct Selective {
  Index batch, length, channels, states;
  std::vector<float> u, dt, b, c, gate, dy, a, skip, bias, state, y, checkpoints;
  std::vector<float> du, ddt, db, dc, dgate, da, dskip, dbias;

  Selective(Index B, Index L, Index E, Index N) : batch(B), length(L), channels(E), states(N) {
    const Index n = B * L * E;
    u = random(n, -1, 1, 1);
    dt = random(n, -5, -1, 2);
    b = random(B * L * N, -1, 1, 3);
    c = random(B * L * N, -1, 1, 4);
    gate = random(n, -2, 2, 5);
    dy = random(n, -1, 1, 6);
    a = random(N * E, -16, -1, 7);
    skip = random(E, -1, 1, 8);
    bias = random(E, -1, 1, 9);
    state.resize(static_cast<std::size_t>(B * N * E));
    y = du = ddt = dgate = u;
    db = dc = b;
    da = a;
    dskip = dbias = skip;
    checkpoints.resize(static_cast<std::size_t>(scan_checkpoint_size(scan().shape)));
  }
  SelectiveScan<float> scan() const {
    SelectiveScan<float> in;
    in.shape = {{batch, length, nullptr}, channels, states, 1};
    in.u = {u.data(), channels};
    in.dt = {dt.data(), channels};
    in.b = {b.data(), states};
    in.c = {c.data(), states};
    in.a = a.data();
    in.d_skip = skip.data();
    in.dt_bias = bias.data();
    in.gate = {gate.data(), channels};
    in.state_in = state.data();
    in.dt_softplus = true;
    return in;
  }
  SelectiveScanGradients<float> gradients() {
    SelectiveScanGradients<float> out;
    out.u = {du.data(), channels};
    out.dt = {ddt.data(), channels};
    out.b = {db.data(), states};
    out.c = {dc.data(), states};
    out.gate = {dgate.data(), channels};
    out.a = da.data();
    out.d_skip = dskip.data();
    out.dt_bias = dbias.data();
    return out;
  }
  double exps() const { return static_cast<double>(batch * length * channels * states); }
};

/// Runs f until the benchmark has enough, and reports its time as a multiple of the exps' time.
template <class F>
void measure(benchmark::State& state, const Selective& s, F&& f) {
  const double of_exp = s.exps() * exp_seconds(), start = ordo::bench::seconds_now();
  for (auto _ : state) f();
  const double taken = ordo::bench::seconds_now() - start;
  state.SetItemsProcessed(state.iterations() * s.batch * s.length);
  state.counters["x_exp"] = taken / (of_exp * static_cast<double>(state.iterations()));
}

void selective_forward(benchmark::State& state) {
  Selective s(state.range(0), state.range(1), state.range(2), state.range(3));
  const auto in = s.scan();
  measure(state, s, [&] { selective_scan_forward<float>(in, {s.y.data(), s.channels}, s.state.data()); });
}
void selective_backward(benchmark::State& state) {
  Selective s(state.range(0), state.range(1), state.range(2), state.range(3));
  const auto in = s.scan();
  selective_scan_forward<float>(in, {s.y.data(), s.channels}, nullptr, s.checkpoints.data());
  measure(state, s, [&] {
    selective_scan_backward<float>(in, Rows<const float>(s.dy.data(), s.channels), nullptr, s.gradients(),
                                   s.checkpoints.data());
  });
}
void selective_backward_recompute(benchmark::State& state) {
  Selective s(state.range(0), state.range(1), state.range(2), state.range(3));
  const auto in = s.scan();
  measure(state, s, [&] {
    selective_scan_backward<float>(in, Rows<const float>(s.dy.data(), s.channels), nullptr, s.gradients());
  });
}

/// The same recurrence as anyone would write it first.
void selective_naive(benchmark::State& state) {
  Selective s(state.range(0), state.range(1), state.range(2), state.range(3));
  const Index E = s.channels, N = s.states;
  measure(state, s, [&] {
    for (Index row = 0; row < s.batch * s.length; ++row) {
      float* h = s.state.data() + row / s.length * N * E;
      for (Index e = 0; e < E; ++e) {
        const auto at = static_cast<std::size_t>(row * E + e);
        const float d = std::log1p(std::exp(s.dt[at] + s.bias[static_cast<std::size_t>(e)]));
        float y = s.skip[static_cast<std::size_t>(e)] * s.u[at];
        for (Index n = 0; n < N; ++n) {
          const auto bc = static_cast<std::size_t>(row * N + n);
          h[n * E + e] = std::exp(d * s.a[static_cast<std::size_t>(n * E + e)]) * h[n * E + e] + d * s.b[bc] * s.u[at];
          y += s.c[bc] * h[n * E + e];
        }
        s.y[at] = y * s.gate[at] / (1 + std::exp(-s.gate[at]));
      }
    }
    benchmark::ClobberMemory();
  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "L", "E", "N"});
  b->Args({1, 512, 768, 16})->Args({12, 64, 256, 16})->Args({1, 2048, 1536, 16})->Args({1, 512, 100, 8});
}
BENCHMARK(selective_forward)->Apply(shapes)->Args({1, 1, 1536, 16})->Args({8, 1, 1536, 16});
BENCHMARK(selective_backward)->Apply(shapes);
BENCHMARK(selective_backward_recompute)->Apply(shapes);
BENCHMARK(selective_naive)->ArgNames({"B", "L", "E", "N"})->Args({1, 512, 768, 16});

void diagonal_forward(benchmark::State& state) {
  const Index L = state.range(0), E = state.range(1);
  const std::vector<float> a = random(L * E, 0, 1, 1), b = random(L * E, -1, 1, 2);
  std::vector<float> y(a.size()), hidden(static_cast<std::size_t>(E));
  DiagonalScan<float> in;
  in.shape = {{1, L, nullptr}, E, 1, 1};
  in.a = {a.data(), E};
  in.b = {b.data(), E};
  for (auto _ : state) diagonal_scan_forward<float>(in, {y.data(), E}, hidden.data());
  state.SetItemsProcessed(state.iterations() * L);
  state.SetBytesProcessed(state.iterations() * L * E * 3 * static_cast<Index>(sizeof(float)));
}
void diagonal_backward(benchmark::State& state) {
  const Index L = state.range(0), E = state.range(1);
  const std::vector<float> a = random(L * E, 0, 1, 1), b = random(L * E, -1, 1, 2), y = b, dy = a;
  std::vector<float> da(a.size()), db(a.size());
  DiagonalScan<float> in;
  in.shape = {{1, L, nullptr}, E, 1, 1};
  in.a = {a.data(), E};
  in.b = {b.data(), E};
  for (auto _ : state) {
    diagonal_scan_backward<float>(in, Rows<const float>(y.data(), E), Rows<const float>(dy.data(), E), nullptr,
                                  {{da.data(), E}, {db.data(), E}, nullptr});
  }
  state.SetItemsProcessed(state.iterations() * L);
  state.SetBytesProcessed(state.iterations() * L * E * 5 * static_cast<Index>(sizeof(float)));
}
BENCHMARK(diagonal_forward)->ArgNames({"L", "E"})->Args({128, 256})->Args({512, 768})->Args({4096, 1024});
BENCHMARK(diagonal_backward)->ArgNames({"L", "E"})->Args({128, 256})->Args({512, 768})->Args({4096, 1024});

}  // namespace
