#pragma once
/// \file
/// checkpoint(f, x...): a block of a model whose activations are not kept but computed again in the backward pass.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/autograd/apply.hpp"
#include "ordo/core/visit.hpp"

namespace ordo {

namespace detail {

template <class X>
inline constexpr bool is_tuple = false;
template <class... X>
inline constexpr bool is_tuple<std::tuple<X...>> = true;
template <class A, class B>
inline constexpr bool is_tuple<std::pair<A, B>> = true;

/// f(tensor) for every tracked floating tensor in a value: itself, the members of a tuple, the leaves of a state.
template <class X, class F>
void for_each_tracked(X& x, F&& f) {
  using Plain = std::remove_cvref_t<X>;
  if constexpr (is_tracked<Plain>) {
    if constexpr (std::is_floating_point_v<typename Plain::value_type>) f(x);
  } else if constexpr (is_tuple<Plain>) {
    std::apply([&](auto&... member) { (for_each_tracked(member, f), ...); }, x);
  } else if constexpr (Visitable<Plain>) {
    for_each_leaf(x, [&](const Path&, auto& leaf) { for_each_tracked(leaf, f); });
  }
}

template <class X>
Tape* tape_within(const X& x) {
  Tape* tape = nullptr;
  if constexpr (is_tracked<X>) {
    tape = &x.tape();
  } else {
    for_each_tracked(x, [&](const auto& t) {
      if (t.var().value.present()) tape = &t.tape();
    });
  }
  return tape;
}

/// Whether a call may change an argument: a state that is not constant.
template <class X>
inline constexpr bool is_changeable = Visitable<X> && !std::is_const_v<X>;

/// One call of a checkpointed block: the function, its arguments as they were, and where its results have their slots.
template <class F, class... Args>
class CheckpointNode final : public Node {
 public:
  CheckpointNode(Tape& tape, const F& f, const Args&... args) : f_(f), args_(args...), substitutions_(tape.substitutions()) {}

  void pull(Sweep& sweep) override {
    Tape& tape = sweep.tape();
    const std::size_t first = tape.size();
    std::tuple<Args...> args = args_;
    tape.swap_substitutions(substitutions_);
    auto result = std::apply([this](auto&... arg) { return f_(arg...); }, args);
    tape.swap_substitutions(substitutions_);
    sweep.grow(tape.slots());
    std::int32_t slot = first_output;
    const auto hand_over = [&](const auto& y) {
      using T = typename std::remove_cvref_t<decltype(y)>::value_type;
      Var<T> arrived = sweep.template take<T>(slot);
      if (arrived.present() && sweep.recording()) sweep.at(slot) = arrived;  // as every recorded node does
      ++slot;
      if (y.var().slot >= 0) accumulate<T>(sweep, y.var().slot, std::move(arrived));
    };
    for_each_tracked(result, hand_over);
    const auto changed = [&]<class A>(A& arg) {
      if constexpr (is_changeable<A>) for_each_tracked(arg, hand_over);
    };
    std::apply([&](auto&... arg) { (changed(arg), ...); }, args);
    tape.sweep_back(sweep, first);
  }

 private:
  F f_;
  std::tuple<Args...> args_;
  Tape::Substitutions substitutions_;  // those of the call, not of the sweep
};

/// Gives what a call has changed or made its slots in the order in which pull() hands gradients over.
inline constexpr auto give_slots = [](Tape& tape, Node& node) {
  return [&tape, &node](auto& y) {
    using Tensor = std::remove_cvref_t<decltype(y)>;
    Var<typename Tensor::value_type> v = y.var();
    const std::int32_t slot = tape.new_slot();
    if (node.outputs++ == 0) node.first_output = slot;
    if (!v.value.present()) return;
    v.tape = &tape;
    v.slot = slot;
    y = Tensor(std::move(v));
  };
};

}  // namespace detail

/// f(x...) whose recording is thrown away: the backward pass calls f again, sweeps back through what that records, and
/// throws it away too. Between the two passes only the arguments live. The gradients are those of the plain call bit for
/// bit, wherever else parameters and arguments are used; so are gradients of gradients.
///
///     for (const auto& block : blocks) h = checkpoint([&](const auto& x) { return block(x); }, h);
///     y = checkpoint([&](const auto& x, auto& state) { return layer(x, state); }, x, state);
///
/// Arguments are tracked tensors, and states of tracked tensors, which f may change when they are passed as lvalues; the
/// result is a tracked tensor or a tuple of them. f is kept by value: what it refers to has to live, and to be the same,
/// until the backward pass (random numbers: by value, so that both calls draw the same). Tensors that f captures get
/// their gradients as well. Without a tracked argument this is f(x...).
template <class F, class... X>
auto checkpoint(const F& f, X&&... x) {
  Tape* tape = nullptr;
  (static_cast<void>(tape = tape != nullptr ? tape : detail::tape_within(x)), ...);
  if (tape == nullptr || tape->paused()) return f(x...);
  auto node = std::make_unique<detail::CheckpointNode<F, std::remove_reference_t<X>...>>(*tape, f, x...);
  auto result = [&] {
    const PauseRecording pause(*tape);
    return f(x...);
  }();
  const auto give_slot = detail::give_slots(*tape, *node);
  detail::for_each_tracked(result, give_slot);
  const auto changed = [&]<class A>(A& argument) {
    if constexpr (detail::is_changeable<A>) detail::for_each_tracked(argument, give_slot);
  };
  (changed(x), ...);
  tape->push(std::move(node));
  return result;
}

}  // namespace ordo
