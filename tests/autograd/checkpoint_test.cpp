// Checkpointed blocks: the same gradients bit for bit, wherever their arguments and parameters are used besides, in less memory.

#include "ordo/autograd/checkpoint.hpp"

#include <cstring>
#include <vector>

#include "ops/support.hpp"
#include "ordo/autograd/state.hpp"
#include "ordo/nn/linear.hpp"
#include "ordo/nn/ssm/mamba.hpp"
#include "ordo/ops/activation.hpp"
#include "ordo/ops/elementwise.hpp"
#include "ordo/ops/reduce.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

using namespace ordo;  // NOLINT
using test::random_tensor;

namespace {

template <class T>
void check_same_bits(const AnyTensor<T>& a, const AnyTensor<T>& b) {
  REQUIRE(a.present());
  REQUIRE(b.present());
  REQUIRE(a.shape() == b.shape());
  CHECK(std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(T)) == 0);
}
template <class Model>
void check_same_gradients(const Model& model, const Gradients& a, const Gradients& b) {
  for_each_leaf(model, [&](const Path& path, const auto& p) {
    CAPTURE(path.str());
    check_same_bits(a.of(p), b.of(p));
  });
}

/// f as it is, or checkpointed.
template <class F, class... X>
auto call(bool recompute, const F& f, X&&... x) {
  return recompute ? checkpoint(f, x...) : f(x...);
}

using Vector = DynTensor<float, 1>;
using Matrix = DynTensor<float, 2>;

}  // namespace

TEST_CASE("gradients of a checkpointed block, its argument and its parameters being used elsewhere too") {
  Random random(3);
  const Linear<float> first({6, 6, true}, random), second({6, 6, true}, random);
  const Matrix x = random_tensor<float>(1, 5, 6), other = random_tensor<float>(2, 5, 6);
  std::vector<Gradients> all;
  std::vector<AnyTensor<float>> of_x, of_captured;
  for (const bool recompute : {false, true}) {
    Tape tape;
    const auto input = track(tape, x), captured = track(tape, other);
    const auto before = first(input);
    const auto block = [&](const auto& h) { return mul(first(tanh(second(first(h)))), captured); };
    const auto h = call(recompute, block, before);
    const auto loss = sum(square(add(add(first(h), before), second(mul(captured, h)))));
    all.push_back(tape.backward(loss));
    of_x.push_back(all.back().of(input));
    of_captured.push_back(all.back().of(captured));
  }
  check_same_gradients(first, all[0], all[1]);
  check_same_gradients(second, all[0], all[1]);
  check_same_bits(of_x[0], of_x[1]);
  check_same_bits(of_captured[0], of_captured[1]);
}

TEST_CASE("a checkpoint within a checkpoint, and results that are a tuple") {
  Random random(3);
  const Linear<float> layer({4, 4, true}, random);
  const Matrix x = random_tensor<float>(1, 3, 4);
  std::vector<Gradients> all;
  std::vector<AnyTensor<float>> of_x;
  for (const int depth : {0, 1, 2}) {
    Tape tape;
    const auto input = track(tape, x);
    const auto inner = [&](const auto& h) { return tanh(layer(h)); };
    const auto outer = [&](const auto& a, const auto& b) {
      const auto y = call(depth == 2, inner, add(a, b));
      return std::tuple(mul(y, a), layer(y), b);  // b goes through as it came
    };
    const auto [u, v, w] = call(depth > 0, outer, input, tanh(input));
    const auto loss = sum(mul(mul(u, v), square(w)));
    all.push_back(tape.backward(loss));
    of_x.push_back(all.back().of(input));
  }
  for (const std::size_t i : {1U, 2U}) {
    check_same_gradients(layer, all[0], all[i]);
    check_same_bits(of_x[0], of_x[i]);
  }
}

TEST_CASE("a layer with a state: outputs, states and gradients through both") {
  Random random(3);
  const Mamba<float> layer({.model_dim = 8, .state_dim = 4}, random);
  const auto x = random_tensor<float>(1, 2, 5, 8);
  std::vector<Gradients> all;
  std::vector<AnyTensor<float>> of_x, of_ssm, of_conv, outputs;
  for (const bool recompute : {false, true}) {
    Tape tape;
    const auto input = track(tape, x);
    auto plain = layer.initial_state(2);
    for (float& v : plain.ssm) v = 0.3F;
    for (float& v : plain.conv) v = -0.2F;
    auto state = track(tape, plain);
    const auto ssm = state.ssm, conv = state.conv;
    const auto block = [&](const auto& h, auto& s) { return layer(h, s); };
    const auto y = call(recompute, block, input, state);
    const auto z = call(recompute, block, y, state);
    const auto loss = add(sum(square(z)), add(sum(square(state.ssm)), sum(state.conv)));
    outputs.push_back(loss.var().value);
    all.push_back(tape.backward(loss));
    of_x.push_back(all.back().of(input));
    of_ssm.push_back(all.back().of(ssm));
    of_conv.push_back(all.back().of(conv));
  }
  check_same_gradients(layer, all[0], all[1]);
  for (const auto* pair : {&of_x, &of_ssm, &of_conv, &outputs}) check_same_bits((*pair)[0], (*pair)[1]);
}

TEST_CASE("gradients of gradients pass through a checkpoint") {
  const auto x = random_tensor<double>(1, 7);
  std::vector<AnyTensor<double>> second;
  std::vector<double> losses;
  for (const bool recompute : {false, true}) {
    Tape tape;
    const auto input = track(tape, x);
    const auto block = [](const auto& h) { return mul(tanh(h), exp(h)); };
    const auto y = sum(square(call(recompute, block, mul(input, input))));
    const auto slope = tape.gradient(y, input);
    const auto loss = sum(square(slope));
    losses.push_back(loss.item());
    second.push_back(tape.backward(loss).of(input));
  }
  CHECK(losses[0] == losses[1]);
  // Recomputing while the sweep is recorded adds the parts of a gradient in another order.
  REQUIRE(second[0].size() == second[1].size());
  for (Index i = 0; i < second[0].size(); ++i) {
    const double a = second[0].data()[i], b = second[1].data()[i];
    CHECK(std::abs(a - b) <= 1e-14 * std::abs(a));
  }
}

TEST_CASE("the block runs again with the parameters that were substituted when it was called") {
  DynParameter<double, 1> weight(DynTensor<double, 1>(DynExtents<1>(2), {2, 3}));
  std::vector<AnyTensor<double>> found;
  for (const bool recompute : {false, true}) {
    Tape tape;
    const auto x = track(tape, DynTensor<double, 1>(DynExtents<1>(2), {5, 7}));
    const auto fast = track(tape, DynTensor<double, 1>(DynExtents<1>(2), {0.5, 0.25}));
    tape.substitute(weight, fast);
    const auto y = call(recompute, [&](const auto& h) { return square(mul(h, weight)); }, x);
    tape.substitute(weight, mul(fast, fast));
    const auto loss = sum(mul(y, weight));
    found.push_back(tape.backward(loss).of(fast));
  }
  check_same_bits(found[0], found[1]);
}

TEST_CASE("plain arguments are a plain call") {
  const Vector x(DynExtents<1>(2), {1, 2});
  const auto y = checkpoint([](const auto& h) { return square(h); }, x);
  static_assert(std::is_same_v<std::remove_const_t<decltype(y)>, Vector>);
  CHECK(y(1) == 4);
}

TEST_CASE("what is not recorded is a constant") {
  Tape tape;
  const auto x = track(tape, Vector(DynExtents<1>(2), {1, 2}));
  const auto target = [&] {
    const PauseRecording pause(tape);
    return square(x);
  }();
  CHECK_FALSE(target.var().tracked());
  const auto g = tape.backward(sum(mul(x, target))).of(x);
  CHECK(g.data()[1] == 4);  // and not 3 * 4
}

TEST_CASE("a steady step with checkpoints takes nothing from the system") {
  Random random(3);
  const Linear<float> layer({8, 8, true}, random);
  const Matrix x = random_tensor<float>(1, 5, 8);
  Tape tape;
  const auto step = [&] {
    tape.reset();
    auto h = track(tape, x);
    for (int i = 0; i < 3; ++i) h = checkpoint([&layer](const auto& a) { return tanh(layer(a)); }, h);
    tape.backward(sum(h));
  };
  step();
  step();
  ordo_test::AllocationCount count;
  step();
  const std::size_t allocations = count.allocations();
  CHECK(allocations == 0);
}

TEST_CASE("activations of a deep stack die at the end of each block") {
  constexpr Index width = 64, rows = 256;
  constexpr std::size_t depth = 12;
  Random random(3);
  std::vector<Linear<float>> layers;
  for (std::size_t i = 0; i < depth; ++i) layers.emplace_back(Linear<float>::Config{width, width, true}, random);
  const Matrix x = random_tensor<float>(1, rows, width);
  std::vector<std::size_t> peak, after_forward;
  for (const bool recompute : {false, true}) {
    Tape tape;
    Pool::instance().reset_peak();
    const std::size_t before = Pool::instance().stats().bytes_in_use;
    auto h = track(tape, x);
    for (const Linear<float>& layer : layers) {
      h = call(recompute, [&layer](const auto& a) { return add(a, tanh(layer(tanh(layer(tanh(layer(a))))))); }, h);
    }
    const auto loss = sum(square(h));
    after_forward.push_back(Pool::instance().stats().bytes_in_use - before);
    tape.backward(loss);
    peak.push_back(Pool::instance().stats().peak_bytes - before);
  }
  // Between the passes a block of seven calls keeps one tensor where it kept five; at the peak there are besides what one
  // block keeps while it is recomputed, and the gradients.
  CHECK(after_forward[1] * 3 < after_forward[0]);
  CHECK(peak[1] * 2 < peak[0]);
}
