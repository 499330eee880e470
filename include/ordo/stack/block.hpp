#pragma once
/// \file
/// Block: a mixer and a feed-forward on a residual stream.

#include <utility>

#include "ordo/nn/feed_forward.hpp"
#include "ordo/nn/norm.hpp"
#include "ordo/nn/one_of.hpp"
#include "ordo/ops/elementwise.hpp"

namespace ordo {

namespace detail {

template <class L>
inline constexpr bool is_one_of = false;
template <class... L>
inline constexpr bool is_one_of<OneOf<L...>> = true;
template <class F>
inline constexpr bool is_no_feed_forward = false;
template <class T>
inline constexpr bool is_no_feed_forward<NoFeedForward<T>> = true;

/// Gives a layer's configuration the width of the model around it.
template <class Config>
void set_model_dim(Config& config, Index model_dim) {
  if constexpr (requires { config.model_dim; }) {
    config.model_dim = model_dim;
  } else {
    std::visit([&](auto& own) { set_model_dim(own, model_dim); }, config.of);
  }
}

/// The linear map through which a layer writes to the residual stream: `out_proj`, `o_proj` or `down_proj`.
template <class L, class F>
void with_output_projection(L& layer, F&& f) {
  if constexpr (is_one_of<L>) {
    layer.with([&](auto& own) { with_output_projection(own, f); });
  } else {
    L::visit(layer, [&](std::string_view name, auto& member) {
      if constexpr (requires { member.weight(); }) {
        if (name == "out_proj" || name == "o_proj" || name == "down_proj") f(member);
      }
    });
  }
}

}  // namespace detail

/// Pre-norm residual block:  x += mixer(norm(x));  x += ff(ff_norm(x)).   x: [B, L, model_dim].
///
/// The mixer is any causal sequence layer, so that a block streams: `block(x, state)`, `block.step(x_t, state)`.
template <class Mixer, class FeedForward = NoFeedForward<typename Mixer::value_type>,
          class Norm = RmsNorm<typename Mixer::value_type>>
class Block {
  static_assert(SequenceLayer<Mixer>,
                "Block: the mixer must be a causal sequence layer (x, state and step); a layer without a state cannot stand in a decoder");

 public:
  using T = typename Mixer::value_type;
  using value_type = T;
  static constexpr bool has_feed_forward = !detail::is_no_feed_forward<FeedForward>;

  struct Config {
    Index model_dim = 0;
    typename Mixer::Config mixer{};
    typename FeedForward::Config ff{};
    double norm_eps = 1e-5;
    typename Norm::Config norm{};  ///< its model_dim and norm_eps come from here
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("norm_eps", c.norm_eps);
      std::remove_cvref_t<decltype(c.mixer)>::visit(c.mixer, f);
      if constexpr (has_feed_forward) f("ff", c.ff);
    }
  };

  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    typename Mixer::template State<M> mixer;
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("mixer", s.mixer);
    }
    template <Mode N>
    State<N> like() const {
      State<N> other;
      if constexpr (requires { mixer.template like<N>(); }) other.mixer = mixer.template like<N>();
      return other;
    }
  };

  Block() = default;
  Block(Config c, Random& random) {
    detail::require_at_least("block", "model_dim", model_dim_of(c), 1);
    c.model_dim = model_dim_of(c);
    detail::set_model_dim(c.mixer, c.model_dim);
    detail::set_model_dim(c.ff, c.model_dim);
    c.norm.model_dim = c.model_dim;
    c.norm.norm_eps = c.norm_eps;
    norm_ = Norm(c.norm);
    mixer_ = Mixer(c.mixer, random);
    if constexpr (has_feed_forward) {
      ff_norm_ = Norm(c.norm);
      ff_ = FeedForward(c.ff, random);
    }
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    return feed_forward(add(mixer_(norm_(x)), x));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    return feed_forward(add(mixer_(norm_(x), state.mixer), x));
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return feed_forward(add(mixer_.step(norm_(x_t), state.mixer), x_t));
  }
  State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    s.mixer = mixer_.initial_state(batch);
    return s;
  }

  /// Calls f with each linear map that writes to the residual stream.
  template <class F>
  void with_residual_outputs(F&& f) {
    detail::with_output_projection(mixer_, f);
    if constexpr (has_feed_forward) detail::with_output_projection(ff_, f);
  }
  static constexpr int residual_branches = has_feed_forward ? 2 : 1;

  const Mixer& mixer() const noexcept { return mixer_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("norm", self.norm_);
    f("mixer", self.mixer_);
    if constexpr (has_feed_forward) {
      f("ff_norm", self.ff_norm_);
      f("ff", self.ff_);
    }
  }

 private:
  static Index model_dim_of(const Config& c) {
    if (c.model_dim != 0) return c.model_dim;
    if constexpr (requires { c.mixer.model_dim; }) return c.mixer.model_dim;
    return 0;
  }
  template <class X>
  auto feed_forward(const X& x) const {
    if constexpr (has_feed_forward) {
      return ff_(ff_norm_(x), x);
    } else {
      return x;
    }
  }

  Norm norm_, ff_norm_;
  Mixer mixer_;
  [[no_unique_address]] FeedForward ff_;
};

}  // namespace ordo
