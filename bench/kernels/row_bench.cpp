// Row kernels: norms, softmax, cross-entropy. They stream their rows: bytes/s beside the bandwidth of the cache or
// memory that holds them.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/kernels/cross_entropy.hpp"
#include "ordo/kernels/normalize.hpp"
#include "ordo/kernels/softmax.hpp"

namespace {

using namespace ordo::kernels;
using ordo::Index;

std::vector<float> random(Index n, std::uint64_t seed) {
  ordo::Random r(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = static_cast<float>(r.uniform(-3, 3));
  return x;
}

/// What a kernel reads and writes, once each.
void report(benchmark::State& state, Index elements, Index arrays) {
  state.SetItemsProcessed(state.iterations() * elements);
  state.SetBytesProcessed(state.iterations() * elements * arrays * static_cast<Index>(sizeof(float)));
}

struct Norm {
  Index rows, n;
  std::vector<float> x, dy, weight, bias, y, mean, scale, dx, dweight, dbias;
  Normalization<float> in;

  explicit Norm(const benchmark::State& s) : rows(s.range(0)), n(s.range(1)) {
    x = random(rows * n, 1);
    dy = random(rows * n, 2);
    weight = random(n, 3);
    bias = random(n, 4);
    y = dx = x;
    mean = scale = random(rows, 5);
    dweight = dbias = weight;
    in.centered = s.range(2) != 0;
    in.rows = rows;
    in.n = n;
    in.x = x.data();
    in.weight = weight.data();
    if (in.centered) in.bias = bias.data();
    in.eps = 1e-5F;
  }
};

void norm_forward(benchmark::State& state) {
  Norm c(state);
  for (auto _ : state) normalize_forward<float>(c.in, c.y.data(), c.mean.data(), c.scale.data());
  report(state, c.rows * c.n, 2);
}
void norm_backward(benchmark::State& state) {
  Norm c(state);
  normalize_forward<float>(c.in, c.y.data(), c.mean.data(), c.scale.data());
  for (auto _ : state) {
    normalize_backward<float>(c.in, c.mean.data(), c.scale.data(), c.dy.data(), c.dx.data(), c.dweight.data(),
                              c.in.centered ? c.dbias.data() : nullptr);
  }
  report(state, c.rows * c.n, 3);
}
void norm_shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "n", "centered"});
  for (const Index centered : {0, 1}) b->Args({768, 128, centered})->Args({512, 768, centered});
}
BENCHMARK(norm_forward)->Apply(norm_shapes);
BENCHMARK(norm_backward)->Apply(norm_shapes);

void softmax_forward(benchmark::State& state) {
  const Index rows = state.range(0), n = state.range(1);
  const std::vector<float> x = random(rows * n, 1);
  std::vector<float> y(x.size());
  for (auto _ : state) softmax<float>(x.data(), y.data(), rows, n);
  report(state, rows * n, 2);
}
BENCHMARK(softmax_forward)->ArgNames({"rows", "n"})->Args({512, 64})->Args({512, 1024});

void cross_entropy(benchmark::State& state) {
  const Index rows = state.range(0), classes = state.range(1);
  const std::vector<float> x = random(rows * classes, 1);
  std::vector<Index> targets(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < targets.size(); ++r) targets[r] = static_cast<Index>(r * 31) % classes;
  std::vector<float> loss(targets.size()), shift(targets.size()), sum(targets.size()), u(targets.size(), 1.0F);
  std::vector<float> dx(x.size());
  CrossEntropy<float> in;
  in.rows = rows;
  in.classes = classes;
  in.logits = x.data();
  in.targets = targets.data();
  for (auto _ : state) {
    cross_entropy_forward<float>(in, loss.data(), shift.data(), sum.data());
    cross_entropy_backward<float>(in, shift.data(), sum.data(), u.data(), nullptr, dx.data());
  }
  report(state, rows * classes, 3);
}
BENCHMARK(cross_entropy)->ArgNames({"rows", "classes"})->Args({768, 65})->Args({512, 256})->Args({64, 50280});

}  // namespace
