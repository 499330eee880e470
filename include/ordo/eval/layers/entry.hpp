#pragma once
/// \file
/// What an entry of the layer list is. The list itself: eval/layer_list.hpp and, family by family, eval/layers.

#include <array>
#include <initializer_list>
#include <string_view>
#include <utility>
#include <vector>

#include "ordo/autograd/state.hpp"

namespace ordo {

/// The folders that layers come from.
enum class Family { core, ssm, softmax, recurrent, stack };
inline constexpr std::string_view to_string(Family family) noexcept {
  constexpr std::array<std::string_view, 5> names{"core", "ssm", "softmax", "recurrent", "stack"};
  return names[static_cast<std::size_t>(family)];
}

/// A layer under its name, with some small configurations that reach its options.
template <class L>
struct LayerEntry {
  using Layer = L;
  std::string_view name;  ///< snake_case; conformance cases and documentation use it
  Family family;
  std::vector<typename L::Config> configs;
};

/// Takes tokens (integers) rather than vectors.
template <class L>
concept TokenIdLayer = requires(typename L::Config& c) { c.vocab_size; };
/// Has a stream: state, step.
template <class L>
concept StreamingLayer = requires { typename L::template State<Mode::plain>; };

/// The layers of a family: `template <class T, class F> static void list(F& f)` calls f(LayerEntry<Layer>) for each over the scalar type
/// T. Specialised in eval/layers/FAMILY.hpp.
template <Family family>
struct LayersOf;

namespace detail {

template <class L, class F>
void list_layer(F& f, std::string_view name, Family family, std::initializer_list<typename L::Config> configs) {
  f(LayerEntry<L>{name, family, configs});
}

}  // namespace detail

/// Calls f(LayerEntry<Layer>) for every layer of these families over the scalar type T.
template <class T, Family first, Family... rest, class F>
void for_each_layer(F&& f) {
  LayersOf<first>::template list<T>(f);
  (LayersOf<rest>::template list<T>(f), ...);
}

}  // namespace ordo
