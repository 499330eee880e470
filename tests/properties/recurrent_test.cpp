// Recurrent layers with padded batches and packed sequences, in both directions; what they refuse.

#include "ordo/nn/recurrent/cells.hpp"
#include "ordo/nn/recurrent/recurrent_mixer.hpp"
#include "properties/support.hpp"

using namespace properties;

namespace {

template <class L>
void check_lengths(const typename L::Config& config) {
  using T = typename L::value_type;
  Random random(3);
  const L layer(config, random);
  const std::array<Index, 4> lengths{9, 4, 17, 1};
  constexpr Index longest = 17;
  const auto x = make_input<L>(config, 4, longest, 21);
  auto padded = x;
  for (Index b = 0; b < 4; ++b) {  // what stands at padded places must not matter
    const Index n = lengths[static_cast<std::size_t>(b)], width = x.extent(2);
    std::fill(padded.data() + (b * longest + n) * width, padded.data() + (b + 1) * longest * width, std::numeric_limits<T>::quiet_NaN());
  }
  auto state = layer.initial_state(4);
  for (T& v : state.hidden) v = static_cast<T>(0.3 * random.normal());
  const auto start = state;
  const DynTensor<T, 3> y = layer(padded, state, Padding::of_lengths(lengths, longest));
  for (Index b = 0; b < 4; ++b) {
    const Index n = lengths[static_cast<std::size_t>(b)], out = y.extent(2);
    const std::array<Index, 1> only{b};
    auto alone = start, all = state;
    alone.copy_rows(only);
    all.copy_rows(only);
    CHECK(difference(layer(block(x, b, 1, 0, n), alone), block(y, b, 1, 0, n)) <= tolerance<T>);
    CHECK(difference(alone.hidden, all.hidden) <= tolerance<T>);
    CHECK(std::all_of(y.data() + (b * longest + n) * out, y.data() + (b + 1) * longest * out, [](T v) { return v == 0; }));
  }
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
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEMPLATE_TEST_CASE("properties: rows of different lengths are the rows alone, in both directions", "", float, double) {
  check_lengths<Rnn<TestType>>({.input_dim = 4, .hidden_dim = 6, .num_layers = 2, .bidirectional = true});
  check_lengths<Lstm<TestType>>({.input_dim = 4, .hidden_dim = 6, .num_layers = 2, .bidirectional = true, .projection_dim = 3});
  check_lengths<Gru<TestType>>({.input_dim = 4, .hidden_dim = 18, .num_layers = 1, .bidirectional = true, .reset_after = false});
}

TEST_CASE("properties: a cell is a step of its layer") {
  Random random(5);
  const auto check = [&]<class L, class C>(const L& layer, C cell) {
    for_each_leaf(layer, [&](const Path& path, const auto& p) {
      for_each_leaf(cell, [&](const Path& own, auto& q) {
        if constexpr (std::is_same_v<std::remove_cvref_t<decltype(p)>, std::remove_cvref_t<decltype(q)>>) {
          if (own.str() + "_l0" == path.str()) q.mutate() = p.value();
        }
      });
    });
    auto state = layer.initial_state(3);
    auto own = cell.initial_state(3);
    DynTensor<double, 2> x(3, 4);
    for (int t = 0; t < 3; ++t) {
      for (double& v : x) v = random.normal();
      CHECK(same_bits(layer.step(x, state), cell(x, own)));
    }
    CHECK(same_bits(state.hidden, own.hidden));
  };
  check(Rnn<double>({.input_dim = 4, .hidden_dim = 5}, random), RnnCell<double>({.input_dim = 4, .hidden_dim = 5}, random));
  check(Lstm<double>({.input_dim = 4, .hidden_dim = 5}, random), LstmCell<double>({.input_dim = 4, .hidden_dim = 5}, random));
  check(Gru<double>({.input_dim = 4, .hidden_dim = 5}, random), GruCell<double>({.input_dim = 4, .hidden_dim = 5}, random));
}

TEST_CASE("properties: recurrent layers refuse what they cannot do, in a sentence") {
  Random random(1);
  const auto make = [&](Lstm<float>::Config c) { return message_of([&] { static_cast<void>(Lstm<float>(c, random)); }); };
  CHECK(contains(make({.input_dim = 0, .hidden_dim = 3}), "lstm: input_dim must be at least 1"));
  CHECK(contains(make({.input_dim = 2, .hidden_dim = 3, .projection_dim = 3}), "projection_dim must be positive and less than hidden_dim 3"));
  CHECK(contains(make({.input_dim = 2, .hidden_dim = 3, .projection_dim = 2, .peephole = true}), "a projection excludes peephole"));
  CHECK(contains(make({.input_dim = 2, .hidden_dim = 3, .cell_clip = -1}), "cell_clip"));
  CHECK(contains(message_of([&] { static_cast<void>(Rnn<float>({.input_dim = 2, .hidden_dim = 3, .activation = Activation::gelu}, random)); }), "activation is tanh or relu"));
  const Gru<float> both({.input_dim = 2, .hidden_dim = 3, .bidirectional = true}, random);
  auto state = both.initial_state(1);
  CHECK(contains(message_of([&] { both.step(DynTensor<float, 2>(1, 2), state); }), "a bidirectional layer has no steps"));
  CHECK(contains(message_of([&] { both(DynTensor<float, 3>(1, 4, 3)); }), "gru: x has shape [1, 4, 3]"));
  auto other = both.initial_state(2);
  CHECK(contains(message_of([&] { both(DynTensor<float, 3>(1, 4, 2), other); }), "hidden has shape [2, 3], expected [1, 3]"));
  CHECK(contains(message_of([&] { static_cast<void>(RecurrentMixer<Gru<float>>({.model_dim = 4, .layer = {.num_layers = 2}}, random)); }), "one layer in one direction"));
  CHECK(contains(message_of([&] { Padding::of_lengths(std::array<Index, 1>{5}, 4); }), "lengths: row 0 has 5 tokens of 4"));
}
