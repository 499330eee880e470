#pragma once
// Properties of forward passes: every cut of a sequence gives the same numbers; rows and the future do not leak; states can
// be reset, saved, restored, and their rows rearranged; a warm step allocates nothing.

#include "properties/support.hpp"
#include "support/allocation_counter.hpp"

namespace properties {

template <class L>
void check_cuts(const L& layer, const typename L::Config& config) {
  using T = typename L::value_type;
  constexpr Index length = 43;
  const auto x = make_input<L>(config, 2, length, 1);
  const DynTensor<T, 3> whole = layer(x);
  for (const std::vector<Index>& cut : {std::vector<Index>{43}, {1, 7, 16, 19}, {20, 1, 22}, {42, 1}, {3, 3, 3, 34}}) {
    auto state = layer.initial_state(2);
    Index at = 0;
    for (const Index n : cut) {
      const DynTensor<T, 3> y = layer(tokens(x, at, n), state);
      CAPTURE(at, n);
      CHECK(difference(tokens(whole, at, n), y) <= tolerance<T>);
      at += n;
    }
  }
  auto state = layer.initial_state(2);
  DynTensor<T, 3> steps(whole.extents());
  for (Index t = 0; t < length; ++t) put_token<T>(steps, t, layer.step(token(x, t), state));
  CHECK(difference(whole, steps) <= tolerance<T>);

  auto mixed = layer.initial_state(2);  // a prompt, then steps
  static_cast<void>(layer(tokens(x, 0, 30), mixed));
  DynTensor<T, 3> tail(Index{2}, length - 30, whole.extent(2));
  for (Index t = 30; t < length; ++t) put_token<T>(tail, t - 30, layer.step(token(x, t), mixed));
  CHECK(difference(tokens(whole, 30, length - 30), tail) <= tolerance<T>);
}

template <class L>
void check_rows_and_future(const L& layer, const typename L::Config& config) {
  using T = typename L::value_type;
  constexpr Index length = 19;
  const auto x = make_input<L>(config, 3, length, 2);
  const DynTensor<T, 3> y = layer(x);
  for (Index b = 0; b < 3; ++b) {
    const DynTensor<T, 3> alone = layer(row(x, b));
    CHECK(difference(row(y, b), alone) <= tolerance<T>);
  }
  const auto other = make_input<L>(config, 3, length, 3);
  for (const Index t : {Index{1}, Index{8}, length - 1}) {
    auto changed = x;
    const Index width = x.size() / (3 * length);
    for (Index b = 0; b < 3; ++b) std::copy_n(other.data() + (b * length + t) * width, width, changed.data() + (b * length + t) * width);
    const DynTensor<T, 3> y2 = layer(changed);
    CAPTURE(t);
    CHECK(same_bits(tokens(y, 0, t), tokens(y2, 0, t)));
    CHECK_FALSE(same_bits(y, y2));  // the test could not fail if the change were not seen at all
  }
}

template <class L>
void check_state(const L& layer, const typename L::Config& config) {
  using T = typename L::value_type;
  const auto x = make_input<L>(config, 3, 12, 4);
  const auto run = [&](auto& state, Index from, Index to) {
    DynTensor<T, 2> y;
    for (Index t = from; t < to; ++t) y = layer.step(token(x, t), state);
    return y;
  };
  auto state = layer.initial_state(3);
  const DynTensor<T, 2> first = run(state, 0, 4);
  CHECK(layer.initial_state(6).size_bytes() == 2 * layer.initial_state(3).size_bytes());

  const auto saved = state.snapshot();
  const DynTensor<T, 2> onward = run(state, 4, 9);
  state.restore(saved);
  CHECK(same_bits(onward, run(state, 4, 9)));

  state.reset();
  CHECK(same_bits(first, run(state, 0, 4)));

  state.reset(1);  // row 1 begins anew, the others go on
  const DynTensor<T, 2> mixed = run(state, 4, 9);
  auto fresh = layer.initial_state(3);
  const DynTensor<T, 2> anew = run(fresh, 4, 9);
  const Index width = onward.extent(1);
  const auto of_row = [&](const DynTensor<T, 2>& y, Index b) {
    DynTensor<T, 1> r(width);
    std::copy_n(y.data() + b * width, width, r.data());
    return r;
  };
  CHECK(difference(of_row(onward, 0), of_row(mixed, 0)) <= tolerance<T>);
  CHECK(difference(of_row(anew, 1), of_row(mixed, 1)) <= tolerance<T>);
  CHECK(difference(of_row(onward, 2), of_row(mixed, 2)) <= tolerance<T>);

  auto rearranged = saved;
  const std::array<Index, 4> order{2, 0, 2, 1};
  rearranged.copy_rows(order);
  CHECK(rearranged.size_bytes() * 3 == saved.size_bytes() * 4);
  DynTensor<T, 2> y;
  for (Index t = 4; t < 9; ++t) {
    const auto x_t = tokens(x, t, 1);
    auto four = make_input<L>(config, 4, 1, 0);
    const Index n = x_t.size() / 3;
    for (std::size_t i = 0; i < 4; ++i) std::copy_n(x_t.data() + order[i] * n, n, four.data() + static_cast<Index>(i) * n);
    y = layer.step(token(four, 0), rearranged);
  }
  for (std::size_t i = 0; i < 4; ++i)
    CHECK(difference(of_row(onward, order[i]), of_row(y, static_cast<Index>(i))) <= tolerance<T>);
}

template <class L>
void check_step_allocations(const L& layer, const typename L::Config& config) {
  auto state = layer.initial_state(2);
  const auto x_t = token(make_input<L>(config, 2, 1, 5), 0);
  for (int i = 0; i < 40; ++i) static_cast<void>(layer.step(x_t, state));
  state.reset();  // what grows with the stream keeps its room
  for (int i = 0; i < 4; ++i) static_cast<void>(layer.step(x_t, state));
  ordo_test::AllocationCount count;
  for (int i = 0; i < 20; ++i) static_cast<void>(layer.step(x_t, state));
  const std::size_t allocations = count.allocations();
  CHECK(allocations == 0);
}

template <class T, Family family>
void check_streams() {
  for_each_made_layer<T, family>([]<class L>(const L& layer, const typename L::Config& config) {
    check_rows_and_future(layer, config);
    if constexpr (StreamingLayer<L>) {
      check_cuts(layer, config);
      check_state(layer, config);
      check_step_allocations(layer, config);
    }
  });
}

}  // namespace properties
