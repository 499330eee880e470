// Layers of fixed size give the numbers of the dynamic ones, and take nothing from a heap.

#include <vector>

#include "ordo/nn/static/linear.hpp"
#include "ordo/nn/static/recurrent.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

namespace {

using namespace ordo;

// Relative to numbers of about 1: sums in another order, over a few dozen steps.
template <class T>
constexpr double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-14;

template <class T, Index N>
StaticVector<T, N> random_vector(Random& random) {
  StaticVector<T, N> x;
  for (T& v : x) v = static_cast<T>(random.normal());
  return x;
}
template <class T, Index N>
DynTensor<T, 2> as_row(const StaticVector<T, N>& x) {
  DynTensor<T, 2> row(Index{1}, N);
  std::copy_n(x.data(), N, row.data());
  return row;
}
template <class A, class B>
double difference(const A& a, const B& b) {
  double worst = a.size() == b.size() ? 0 : HUGE_VAL;
  for (Index i = 0; i < a.size() && i < b.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i])));
  return worst;
}

template <Index I, class Fixed, class Layer>
void check_stream(const Layer& layer) {
  using T = typename Layer::value_type;
  const Fixed fixed(layer);
  typename Fixed::State own;
  auto state = layer.initial_state(1);
  Random random(4);
  double worst = 0;
  std::size_t allocations = 0;
  for (int t = 0; t < 40; ++t) {
    const auto x = random_vector<T, I>(random);
    ordo_test::AllocationCount count;
    const auto y = fixed.step(x, own);
    allocations += count.allocations();
    worst = std::max(worst, difference(layer.step(as_row<T, I>(x), state), y));
  }
  CHECK(worst <= tolerance<T>);
  CHECK(allocations == 0);
  const auto x = random_vector<T, I>(random);
  own.reset();
  auto fresh = layer.initial_state(1);
  CHECK(difference(layer.step(as_row<T, I>(x), fresh), fixed.step(x, own)) <= tolerance<T>);
}

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEMPLATE_TEST_CASE("static layers: recurrent ones are the dynamic ones", "", float, double) {
  using T = TestType;
  Random random(1);
  check_stream<3, StaticRnn<3, 7, T>>(Rnn<T>({.input_dim = 3, .hidden_dim = 7}, random));
  check_stream<4, StaticRnn<4, 19, T>>(Rnn<T>({.input_dim = 4, .hidden_dim = 19, .bias = false, .activation = Activation::relu}, random));
  check_stream<5, StaticLstm<5, 16, T>>(Lstm<T>({.input_dim = 5, .hidden_dim = 16}, random));
  check_stream<1, StaticLstm<1, 1, T>>(Lstm<T>({.input_dim = 1, .hidden_dim = 1, .coupled_gates = true, .cell_clip = 0.1}, random));
  check_stream<6, StaticGru<6, 40, T>>(Gru<T>({.input_dim = 6, .hidden_dim = 40}, random));
  check_stream<6, StaticGru<6, 9, T, false>>(Gru<T>({.input_dim = 6, .hidden_dim = 9, .reset_after = false}, random));
}

TEMPLATE_TEST_CASE("static layers: linear and convolution", "", float, double) {
  using T = TestType;
  Random random(2);
  const Linear<T> linear({.in_dim = 5, .out_dim = 21, .activation = Activation::silu}, random);
  const StaticLinear<5, 21, T> fixed(linear);
  const auto x = random_vector<T, 5>(random);
  CHECK(difference(linear(as_row<T, 5>(x)), fixed(x)) <= tolerance<T>);

  DynTensor<T, 3> weight(4, 3, 5);
  DynTensor<T, 1> bias(4);
  for (T& v : weight) v = static_cast<T>(random.normal());
  for (T& v : bias) v = static_cast<T>(random.normal());
  const StaticConv1d<3, 4, 5, T> conv(weight, bias);
  typename StaticConv1d<3, 4, 5, T>::State state;
  std::vector<StaticVector<T, 3>> inputs;
  for (int t = 0; t < 9; ++t) {
    inputs.push_back(random_vector<T, 3>(random));
    const auto y = conv.step(inputs.back(), state);
    for (Index o = 0; o < 4; ++o) {
      double expected = static_cast<double>(bias(o));
      for (Index w = 0; w < 5; ++w) {
        const int from = t - 4 + static_cast<int>(w);
        for (Index i = 0; from >= 0 && i < 3; ++i) expected += static_cast<double>(weight(o, i, w)) * static_cast<double>(inputs[static_cast<std::size_t>(from)](i));
      }
      CHECK(std::abs(expected - static_cast<double>(y(o))) <= 10 * tolerance<T>);
    }
  }
}

TEST_CASE("static layers: another shape is an error that names it") {
  Random random(3);
  const Lstm<float> lstm({.input_dim = 3, .hidden_dim = 4}, random), deep({.input_dim = 3, .hidden_dim = 4, .num_layers = 2}, random);
  CHECK(message_of([&] { StaticLstm<3, 5> fixed(lstm); }) == "lstm: weight_ih_l0 has shape [16, 3], the fixed layer's [20, 3]");
  CHECK(message_of([&] { StaticLstm<3, 4> fixed(deep); }).find("it has no weight_ih_l1") != std::string::npos);
  const Gru<float> gru({.input_dim = 3, .hidden_dim = 4}, random);
  CHECK(message_of([&] { StaticGru<3, 4, float, false> fixed(gru); }).find("reset_after") != std::string::npos);
}
