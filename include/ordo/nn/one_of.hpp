#pragma once
/// \file
/// OneOf: a layer that is one of several, chosen when it is made. Hybrid stacks are stacks of these.

#include <array>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>

#include "ordo/nn/layer.hpp"

namespace ordo {

/// One of several causal sequence layers, chosen by which of their configurations is given. It costs one branch a call; parameters and
/// state are those of the layer that it is, under the same names.
template <SequenceLayer... Layers>
class OneOf {
  using First = std::tuple_element_t<0, std::tuple<Layers...>>;
  static_assert((std::is_same_v<typename Layers::value_type, typename First::value_type> && ...),
                "the layers of a OneOf have one scalar type");

 public:
  using value_type = typename First::value_type;
  using T = value_type;

  struct Config {
    std::variant<typename Layers::Config...> of;
    Config() = default;
    template <class C>
      requires(std::is_same_v<C, typename Layers::Config> || ...)
    Config(C config) : of(std::move(config)) {}  // NOLINT(google-explicit-constructor): a config of a layer is one of this
    /// Layers that have a `layer_name` are chosen by it: the field `name`, then those of the layer's own configuration.
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      if constexpr ((requires { Layers::layer_name; } && ...)) {
        constexpr std::array<std::string_view, sizeof...(Layers)> names{Layers::layer_name...};
        std::string name(names[c.of.index()]);
        f("name", name);
        if constexpr (!std::is_const_v<Self>) c.choose(names, name);
      }
      std::visit([&](auto& own) { std::remove_cvref_t<decltype(own)>::visit(own, f); }, c.of);
    }

   private:
    void choose(const auto& names, const std::string& name) {
      if (name == names[of.index()]) return;
      std::string known;
      const bool found = [&]<std::size_t... I>(std::index_sequence<I...>) {
        ((known += (I == 0 ? "" : ", ") + std::string(names[I])), ...);
        return ((names[I] == name && (of.template emplace<I>(), true)) || ...);
      }(std::index_sequence_for<Layers...>{});
      if (!found) fail<ConfigError>({"unknown layer \"", name, "\"; known are ", known});
    }
  };

  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    std::variant<typename Layers::template State<M>...> of;
    /// Drops spare room, as states are written to files.
    void compact() {
      std::visit([](auto& own) {
        if constexpr (requires { own.compact(); }) own.compact();
      }, of);
    }
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      std::visit([&](auto& own) { std::remove_cvref_t<decltype(own)>::visit(own, f); }, s.of);
    }
    /// A state of another mode for the same layer, its tensors absent.
    template <Mode N>
    State<N> like() const {
      State<N> other;
      [&]<std::size_t... I>(std::index_sequence<I...>) {
        (void)((of.index() == I && (like_of<I>(*std::get_if<I>(&of), other), true)) || ...);
      }(std::index_sequence_for<Layers...>{});
      return other;
    }

   private:
    template <std::size_t I, Mode N>
    static void like_of(const auto& own, State<N>& other) {
      auto& made = other.of.template emplace<I>();
      if constexpr (requires { own.template like<N>(); }) made = own.template like<N>();
    }
  };

  OneOf() = default;
  OneOf(const Config& config, Random& random) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (void)((config.of.index() == I && (layer_.template emplace<I>(*std::get_if<I>(&config.of), random), true)) || ...);
    }(std::index_sequence_for<Layers...>{});
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    return std::visit([&](const auto& layer) { return layer(x); }, layer_);
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    return std::visit(
        [&](const auto& layer) {
          return layer(x, std::get<typename std::remove_cvref_t<decltype(layer)>::template State<M>>(state.of));
        },
        layer_);
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return std::visit(
        [&](const auto& layer) {
          return layer.step(x_t, std::get<typename std::remove_cvref_t<decltype(layer)>::template State<M>>(state.of));
        },
        layer_);
  }
  State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    std::visit([&](const auto& layer) { s.of = layer.initial_state(batch); }, layer_);
    return s;
  }

  /// Calls f with the layer that this is.
  template <class F>
  decltype(auto) with(F&& f) {
    return std::visit(f, layer_);
  }
  template <class F>
  decltype(auto) with(F&& f) const {
    return std::visit(f, layer_);
  }

  /// The state of the layer that this is, as with() gives it.
  template <class Layer, Mode M>
  static auto& state_of(const Layer&, State<M>& state) {
    return std::get<typename Layer::template State<M>>(state.of);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    std::visit([&](auto& layer) { std::remove_cvref_t<decltype(layer)>::visit(layer, f); }, self.layer_);
  }

 private:
  std::variant<Layers...> layer_;
};

}  // namespace ordo
