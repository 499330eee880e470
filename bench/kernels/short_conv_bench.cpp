// The short convolution beside what it cannot be faster than: its activation alone over as many numbers.

#include "ordo/kernels/short_conv.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "ordo/core/random.hpp"

namespace {

using namespace ordo::kernels;
using ordo::Index;

std::vector<float> random(Index n, std::uint64_t seed) {
  ordo::Random r(seed);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (float& v : x) v = static_cast<float>(r.uniform(-1, 1));
  return x;
}

/// x is the first half of rows twice as wide, as behind Mamba's in_proj.
struct Case {
  Index batch, length, channels, width;
  std::vector<float> x, weight, bias, state, y, dy, dx, dweight, dbias, dstate;

  explicit Case(const benchmark::State& s)
      : batch(s.range(0)), length(s.range(1)), channels(s.range(2)), width(s.range(3)) {
    const Index rows = batch * length;
    x = random(rows * 2 * channels, 1);
    weight = random(channels * width, 2);
    bias = random(channels, 3);
    state = random(batch * channels * (width - 1), 4);
    dy = random(rows * channels, 5);
    y = dy;
    dx = x;
    dweight = weight;
    dbias = bias;
    dstate = state;
  }
  ShortConvolution<float> conv() const {
    ShortConvolution<float> c;
    c.sequences = {batch, length, nullptr};
    c.channels = channels;
    c.width = width;
    c.x = {x.data(), 2 * channels};
    c.weight = weight.data();
    c.bias = bias.data();
    c.state_in = state.data();
    c.silu = true;
    return c;
  }
  Index elements() const { return batch * length * channels; }
};

void forward(benchmark::State& state) {
  Case c(state);
  const auto conv = c.conv();
  for (auto _ : state) short_conv_forward<float>(conv, {c.y.data(), c.channels}, c.state.data());
  state.SetItemsProcessed(state.iterations() * c.elements());
}
void backward(benchmark::State& state) {
  Case c(state);
  const auto conv = c.conv();
  const ShortConvolutionGradients<float> out{
      {c.dx.data(), 2 * c.channels}, c.dweight.data(), c.dbias.data(), c.dstate.data()};
  for (auto _ : state) short_conv_backward<float>(conv, Rows<const float>(c.dy.data(), c.channels), nullptr, out);
  state.SetItemsProcessed(state.iterations() * c.elements());
}
void silu_alone(benchmark::State& state) {
  Case c(state);
  for (auto _ : state) {
    ordo::simd::transform(c.dy.data(), c.y.data(), c.elements(), ordo::simd::silu);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * c.elements());
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "L", "E", "W"});
  b->Args({1, 512, 768, 4})->Args({12, 64, 256, 4})->Args({1, 512, 768, 5});
}
BENCHMARK(forward)->Apply(shapes)->Args({1, 1, 1536, 4});
BENCHMARK(backward)->Apply(shapes);
BENCHMARK(silu_alone)->ArgNames({"B", "L", "E", "W"})->Args({1, 512, 768, 4});

}  // namespace
