// Recurrent layers on one core: whole sequences, steps of a stream, training passes.
//
// Names are layer/pass/type/shape. Counters: GFLOP/s of the products (2 R (I + H) a token, R = H, 3 H, 4 H rows) and the fraction of the
// multiply-add peak that this run measured; activations are not counted. For batches of one, most of the time is the stream of W_hh.

#include <benchmark/benchmark.h>

#include <string>

#include "ordo/nn/recurrent/gru.hpp"
#include "ordo/nn/recurrent/lstm.hpp"
#include "ordo/nn/recurrent/rnn.hpp"
#include "ordo/nn/static/recurrent.hpp"
#include "support/machine.hpp"

namespace {

using namespace ordo;

struct Shape4 {
  Index batch, length, input, hidden;
  std::string name() const {
    return "B" + std::to_string(batch) + "_L" + std::to_string(length) + "_D" + std::to_string(input) + "_H" + std::to_string(hidden);
  }
};

template <class T>
void report(benchmark::State& state, const Shape4& s, Index rows, double passes) {
  const double flops = passes * 2.0 * static_cast<double>(s.batch * s.length * rows) * static_cast<double>(s.input + s.hidden);
  using benchmark::Counter;
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["of_peak"] = Counter(flops / bench::measured_peak<T>(), Counter::kIsIterationInvariantRate);
  state.counters["tokens/s"] = Counter(static_cast<double>(s.batch * s.length), Counter::kIsIterationInvariantRate);
}
template <class T>
DynTensor<T, 3> input_of(const Shape4& s) {
  Random random(2);
  DynTensor<T, 3> x(s.batch, s.length, s.input);
  for (T& v : x) v = static_cast<T>(random.normal());
  return x;
}

template <class L>
void whole(benchmark::State& state, Shape4 s, Index blocks) {
  Random random(1);
  const L layer({.input_dim = s.input, .hidden_dim = s.hidden}, random);
  const auto x = input_of<typename L::value_type>(s);
  for (auto _ : state) benchmark::DoNotOptimize(layer(x).data());
  report<typename L::value_type>(state, s, blocks * s.hidden, 1);
}
template <class L>
void step(benchmark::State& state, Shape4 s, Index blocks) {
  Random random(1);
  const L layer({.input_dim = s.input, .hidden_dim = s.hidden}, random);
  DynTensor<typename L::value_type, 2> x(s.batch, s.input);
  auto stream = layer.initial_state(s.batch);
  for (auto _ : state) benchmark::DoNotOptimize(layer.step(x, stream).data());
  report<typename L::value_type>(state, s, blocks * s.hidden, 1);
}
template <class Fixed, class L, Index I>
void fixed_step(benchmark::State& state, Shape4 s, Index blocks) {
  Random random(1);
  const Fixed layer(L({.input_dim = s.input, .hidden_dim = s.hidden}, random));
  StaticVector<typename L::value_type, I> x;
  typename Fixed::State stream;
  for (auto _ : state) {
    const auto y = layer.step(x, stream);
    benchmark::DoNotOptimize(y.data());
    benchmark::ClobberMemory();
  }
  report<typename L::value_type>(state, s, blocks * s.hidden, 1);
}
template <class L>
void train(benchmark::State& state, Shape4 s, Index blocks) {
  Random random(1);
  const L layer({.input_dim = s.input, .hidden_dim = s.hidden}, random);
  const auto x = input_of<typename L::value_type>(s);
  Tape tape;
  for (auto _ : state) {
    tape.reset();
    const auto y = layer(track(tape, x));
    const Gradients g = tape.backward(y);
    benchmark::DoNotOptimize(&g);
  }
  report<typename L::value_type>(state, s, blocks * s.hidden, 3);
}

void add(const std::string& name, void (*f)(benchmark::State&, Shape4, Index), const Shape4& s, Index blocks) {
  benchmark::RegisterBenchmark((name + "/float/" + s.name()).c_str(), [=](benchmark::State& state) { f(state, s, blocks); })->Unit(benchmark::kMicrosecond);
}

}  // namespace

int main(int argc, char** argv) {
  const Shape4 batch32{32, 128, 256, 256}, batch1{1, 256, 256, 256}, one{1, 1, 256, 256}, small{1, 1, 16, 16}, training{12, 64, 128, 384};
  for (const Shape4& s : {batch32, batch1}) {
    add("lstm/forward", whole<Lstm<float>>, s, 4);
    add("gru/forward", whole<Gru<float>>, s, 3);
    add("rnn/forward", whole<Rnn<float>>, s, 1);
  }
  for (const Shape4& s : {one, small}) {
    add("lstm/step", step<Lstm<float>>, s, 4);
    add("gru/step", step<Gru<float>>, s, 3);
  }
  add("lstm/fixed_step", fixed_step<StaticLstm<16, 16>, Lstm<float>, 16>, small, 4);
  add("gru/fixed_step", fixed_step<StaticGru<16, 16>, Gru<float>, 16>, small, 3);
  add("lstm/train", train<Lstm<float>>, training, 4);
  add("gru/train", train<Gru<float>>, training, 3);
  add("lstm/train", train<Lstm<float>>, batch32, 4);
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
