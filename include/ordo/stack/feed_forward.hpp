#pragma once
/// \file
/// The feed-forward of a block, chosen at run time.

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "ordo/nn/feed_forward.hpp"

namespace ordo {

enum class FeedForwardKind { mlp, swiglu, geglu, reglu, gated };
namespace detail {
inline constexpr std::string_view feed_forward_names[]{"mlp", "swiglu", "geglu", "reglu", "gated"};
}
inline std::string to_string(FeedForwardKind kind) { return std::string(detail::feed_forward_names[static_cast<std::size_t>(kind)]); }
inline bool from_string(std::string_view name, FeedForwardKind& kind) {
  for (std::size_t i = 0; i < std::size(detail::feed_forward_names); ++i) {
    if (detail::feed_forward_names[i] == name) {
      kind = static_cast<FeedForwardKind>(i);
      return true;
    }
  }
  return false;
}

/// Mlp, or one of the gated feed-forwards, under one type.   x, y: [..., model_dim].
///
/// The activation is silu (swiglu), relu (reglu), gelu or gelu_tanh (geglu), any (mlp, gated; gelu if none is given).
template <class T = float>
class FeedForward {
  using Gated = GatedFeedForward<T, Activation::gelu, Activation::gelu_tanh, Activation::silu, Activation::relu, Activation::quick_gelu,
                                 Activation::relu_squared, Activation::tanh, Activation::sigmoid, Activation::none>;

 public:
  using value_type = T;
  struct Config {
    FeedForwardKind name = FeedForwardKind::mlp;
    Index model_dim = 0, ff_dim = 0;
    bool bias = true;
    std::optional<Activation> activation{};  ///< not given: the usual one
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("name", c.name);
      f("model_dim", c.model_dim);
      f("ff_dim", c.ff_dim);
      f("bias", c.bias);
      f("activation", c.activation);
    }
  };

  FeedForward() = default;
  [[gnu::cold]] FeedForward(const Config& c, Random& random) {
    if (c.name == FeedForwardKind::mlp) {
      of_.template emplace<Mlp<T>>(typename Mlp<T>::Config{c.model_dim, c.ff_dim, c.bias, activation_of(c)}, random);
    } else {
      of_.template emplace<Gated>(typename Gated::Config{c.model_dim, c.ff_dim, c.bias, activation_of(c)}, random);
    }
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    return std::visit([&](const auto& of) { return of(x); }, of_);
  }
  /// residual + y.
  template <TensorLike X, TensorLike R>
  auto operator()(const X& x, const R& residual) const {
    return std::visit([&](const auto& of) { return of(x, residual); }, of_);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    std::visit([&](auto& of) { std::remove_cvref_t<decltype(of)>::visit(of, f); }, self.of_);
  }

 private:
  static Activation activation_of(const Config& c) {
    const auto one_of = [&](Activation usual, Activation other) {
      const Activation f = c.activation.value_or(usual);
      if (f == usual || f == other) return f;
      fail<ConfigError>({"feed_forward: ", to_string(c.name), " has the activation ", to_string(usual), ", given ", to_string(f)});
    };
    switch (c.name) {
      case FeedForwardKind::swiglu: return one_of(Activation::silu, Activation::silu);
      case FeedForwardKind::reglu: return one_of(Activation::relu, Activation::relu);
      case FeedForwardKind::geglu: return one_of(Activation::gelu, Activation::gelu_tanh);
      default: return c.activation.value_or(Activation::gelu);
    }
  }

  std::variant<Mlp<T>, Gated> of_;
};

}  // namespace ordo
