#pragma once
// Properties of training: gradients are those of differences, do not depend on the number of threads, and a warm training
// step takes nothing from the system.

#include "ordo/autograd/gradcheck.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/nn/feed_forward.hpp"
#include "ordo/train/adamw.hpp"
#include "properties/support.hpp"
#include "support/allocation_counter.hpp"

namespace properties {

// The gated feed-forward of relu has corners, which a difference may step over.
template <class L>
inline constexpr bool has_corners = false;
template <class T>
inline constexpr bool has_corners<ReGlu<T>> = true;

template <Family family>
void check_gradients() {
  for_each_made_layer<double, family>([]<class L>(L& layer, const typename L::Config& config) {
    auto x = make_input<L>(config, 2, 6, 11);
    if constexpr (TokenIdLayer<L>) {
      // Tables start near 0.02, which a norm behind them magnifies fifty times: steps of 1e-3 would be no small ones there.
      Random random(31);
      for_each_leaf(layer, [&](const Path& path, auto& p) {
        const std::string name = path.str();
        if (name.find("embedding") == std::string::npos) return;
        for (double& v : p.mutate()) v = random.normal();
      });
    }
    const auto check = [&] { return gradcheck_parameters(layer, [](const auto& m, const auto& in) { return m(in); }, x); };
    GradcheckResult result = check();
    // A wrong gradient is wrong for every input; one far enough from corners is among some dozens.
    for (std::uint64_t seed = 100; has_corners<L> && result.error >= 1e-6 && seed < 164; ++seed) {
      x = make_input<L>(config, 2, 6, seed);
      result = check();
    }
    INFO(result.where);
    CHECK(result.checked > 0);
    CHECK(result.error < 1e-6);
  });
}

// The output and all gradients of one pass, one number after the other.
template <class L, class X>
std::vector<typename L::value_type> pass(const L& layer, const X& x) {
  std::vector<typename L::value_type> all;
  const auto add = [&](const auto& t) { all.insert(all.end(), t.data(), t.data() + t.size()); };
  Tape tape;
  const auto tracked = track(tape, x);
  const auto y = layer(tracked);
  add(y);
  const Gradients gradients = tape.backward(y);
  if constexpr (!TokenIdLayer<L>) add(gradients.of(tracked));
  for_each_leaf(layer, [&](const Path&, const auto& p) { add(gradients.of(p)); });
  return all;
}

template <class L>
void check_threads(const L& layer, const typename L::Config& config) {
  const auto x = make_input<L>(config, 5, 61, 12);
  set_num_threads(1);
  const auto one = pass(layer, x);
  const auto one_plain = layer(x);
  set_num_threads(2);
  const auto two = pass(layer, x);
  const auto two_plain = layer(x);
  set_num_threads(1);
  CHECK(one == two);
  CHECK(same_bits(one_plain, two_plain));
}

template <class L>
void check_training_allocations(L& layer, const typename L::Config& config) {
  if (num_parameters(layer) == 0) return;
  const auto x = make_input<L>(config, 2, 20, 13);
  AdamW optimizer({.learning_rate = 1e-4});
  Tape tape;
  const auto step = [&] {
    tape.reset();
    const auto y = layer(track(tape, x));
    const Gradients gradients = tape.backward(y);
    optimizer.step(layer, gradients);
  };
  for (int i = 0; i < 5; ++i) step();
  ordo_test::AllocationCount count;
  for (int i = 0; i < 5; ++i) step();
  const std::size_t allocations = count.allocations();
  CHECK(allocations == 0);
}

template <class T, Family family>
void check_training() {
  for_each_made_layer<T, family>([]<class L>(L& layer, const typename L::Config& config) {
    check_threads(layer, config);
    check_training_allocations(layer, config);
  });
}

}  // namespace properties
