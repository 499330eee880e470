#pragma once
/// \file
/// Block: a mixer, a cross attention and a feed-forward on a residual stream.

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "ordo/nn/one_of.hpp"
#include "ordo/ops/elementwise.hpp"
#include "ordo/stack/feed_forward.hpp"
#include "ordo/stack/inputs.hpp"
#include "ordo/stack/norm.hpp"

namespace ordo {

/// The cross attention of a block that has none.
struct NoCross {
  struct Config {
    template <class Self, class F>
    static void visit(Self&, F&&) {}
  };
  template <class Self, class F>
  static void visit(Self&, F&&) {}
};

namespace detail {

template <class L>
inline constexpr bool is_one_of = false;
template <class... L>
inline constexpr bool is_one_of<OneOf<L...>> = true;

/// Gives a layer's configuration the width of the model around it: a mixer reads and writes the residual stream.
template <class Config>
void set_model_dim(Config& config, Index model_dim) {
  if constexpr (requires { config.of; }) {
    std::visit([&](auto& own) { set_model_dim(own, model_dim); }, config.of);
  } else if constexpr (requires { config.model_dim; }) {
    config.model_dim = model_dim;
  } else {
    if (config.hidden_dim == 0) config.hidden_dim = model_dim;
    if (config.hidden_dim != model_dim) {
      fail<ConfigError>({"block: a mixer of hidden_dim ", config.hidden_dim, " on a residual stream of model_dim ", model_dim});
    }
    config.input_dim = model_dim;
    if (config.bidirectional) fail<ConfigError>("block: a recurrent mixer goes in one direction");
  }
}
template <class Config>
Index model_dim_of(const Config& config) {
  if constexpr (requires { config.model_dim; }) {
    return config.model_dim;
  } else {
    return 0;
  }
}

/// The linear map through which a layer writes to the residual stream: `out_proj`, `o_proj` or `down_proj`.
template <class L, class F>
void with_output_projection(L& layer, F&& f) {
  L::visit(layer, [&](std::string_view name, auto& member) {
    if constexpr (requires { member.weight(); }) {
      if (name == "out_proj" || name == "o_proj" || name == "down_proj") f(member);
    }
  });
}

/// The configuration of a cross attention, with the `name` that a mixer has too.
template <class Cross>
struct CrossConfig {
  typename Cross::Config of{};
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    if constexpr (requires { Cross::layer_name; }) {
      std::string name(Cross::layer_name);
      f("name", name);
      if (name != Cross::layer_name) fail<ConfigError>({"cross_attention: unknown layer \"", name, "\", expected ", Cross::layer_name});
    }
    Cross::Config::visit(c.of, f);
  }
};

/// Whether a mixer streams.
template <class Mixer>
bool is_causal(const Mixer& mixer) {
  if constexpr (is_one_of<Mixer>) {
    return mixer.with([](const auto& own) { return is_causal(own); });
  } else if constexpr (requires { mixer.config().causal; }) {
    return mixer.config().causal;
  } else {
    return true;
  }
}

/// mixer(x[, state]) with the inputs that only attention can heed.
template <class Mixer, class T, class X, class... State>
auto mix(const Mixer& mixer, const Visibility& visibility, const BlockPlace<T>& place, const X& x, State&... state) {
  if constexpr (is_one_of<Mixer>) {
    return mixer.with([&](const auto& own) { return mix(own, visibility, place, x, Mixer::state_of(own, state)...); });
  } else if constexpr (requires { mixer(x, state..., visibility, place.relative_bias); }) {
    return mixer(x, state..., visibility, place.relative_bias);
  } else {
    if (!empty(visibility)) fail<UsageError>("block: key_padding, mask and prefix_length are for attention, this mixer is another layer");
    return mixer(x, state...);
  }
}
template <class Mixer, class T, class X, class State>
auto mix_step(const Mixer& mixer, const Visibility& visibility, const BlockPlace<T>& place, const X& x_t, State& state) {
  if constexpr (is_one_of<Mixer>) {
    return mixer.with([&](const auto& own) { return mix_step(own, visibility, place, x_t, Mixer::state_of(own, state)); });
  } else if constexpr (requires { mixer.step(x_t, state, visibility, place.relative_bias); }) {
    return mixer.step(x_t, state, visibility, place.relative_bias);
  } else {
    if (!empty(visibility)) fail<UsageError>("block: key_padding is for attention, this mixer is another layer");
    return mixer.step(x_t, state);
  }
}
/// The T5 table of a mixer; none if it has no such thing.
template <class T, class Mixer>
const DynParameter<T, 2>* relative_table(const Mixer& mixer) {
  if constexpr (is_one_of<Mixer>) {
    return mixer.with([](const auto& own) { return relative_table<T>(own); });
  } else if constexpr (requires { mixer.relative_bias(); }) {
    return mixer.relative_bias().present() ? &mixer.relative_bias() : nullptr;
  } else {
    return nullptr;
  }
}
/// Lets a mixer that has a T5 table take another's; ConfigError if it has none.
template <class Config>
void take_relative_bias(Config& config) {
  if constexpr (requires { config.of; }) {
    std::visit([](auto& own) { take_relative_bias(own); }, config.of);
  } else if constexpr (requires { config.relative_bias_given; }) {
    if (!config.relative_bias) fail<ConfigError>("stack: share_relative_bias, and a mixer without relative_bias");
    config.relative_bias = false;
    config.relative_bias_given = true;
  } else {
    fail<ConfigError>("stack: share_relative_bias, and a mixer without relative_bias");
  }
}

}  // namespace detail

/// A residual block on x [B, L, model_dim]: the branches f = mixer, cross attention (where there is one), feed-forward (where there is
/// one), each added to x as `norm_position` says,
///
///     pre: x + s f(N(x))      post: N(x + s f(x))      branch_output: x + s N(f(x))      sandwich: x + s N'(f(N(x)))
///     parallel: x + s (mixer(N(x)) + feed_forward(N(x)))              parallel_two_norms: the feed-forward has a norm of its own
///
/// with s = residual_scale. The mixer is any sequence layer; with a causal one the block streams: `block(x, state)`, `block.step(x_t, state)`.
/// Cross: SoftmaxAttention for a block that reads a memory; see remember(). Covers the blocks of GPT-2, Llama, Gemma 2, OLMo 2, Cohere,
/// GPT-J, GPT-NeoX, Granite, Mamba, BERT, T5, BART.
template <class Mixer, class FF = FeedForward<typename Mixer::value_type>, class Cross = NoCross>
class Block {
 public:
  using T = typename Mixer::value_type;
  using value_type = T;
  static constexpr bool has_cross = !std::is_same_v<Cross, NoCross>;

  struct Config {
    Index model_dim = 0;
    std::optional<NormKind> norm{};  ///< none given: the model's around it, or rms_norm; so the other four
    std::optional<double> norm_eps{};
    std::optional<bool> norm_bias{};
    std::optional<NormPosition> norm_position{};
    std::optional<double> residual_scale{};
    typename Mixer::Config mixer{};
    std::optional<detail::CrossConfig<Cross>> cross_attention{};
    std::optional<typename FF::Config> feed_forward{};
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      detail::visit_style(c, f);
      f("mixer", c.mixer);
      if constexpr (has_cross) f("cross_attention", c.cross_attention);
      f("feed_forward", c.feed_forward);
    }
  };

  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    typename Mixer::template State<M> mixer;
    /// Drops spare room, as states are written to files.
    void compact() {
      if constexpr (requires { mixer.compact(); }) mixer.compact();
    }
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
  [[gnu::cold]] Block(Config c, Random& random)
      : position_(c.norm_position.value_or(NormPosition::pre)), scale_(c.residual_scale.value_or(1)), has_feed_forward_(c.feed_forward) {
    const Index d = c.model_dim != 0 ? c.model_dim : detail::model_dim_of(c.mixer);
    detail::require_at_least("block", "model_dim", d, 1);
    if (parallel() && (c.cross_attention || !c.feed_forward)) {
      fail<ConfigError>({"block: norm_position ", to_string(position_), " takes a mixer and a feed-forward, and no cross attention"});
    }
    detail::set_model_dim(c.mixer, d);
    mixer_norm_ = Norm<T>::of(c, d);
    mixer_ = Mixer(c.mixer, random);
    if constexpr (has_cross) {
      if (c.cross_attention) {
        detail::set_model_dim(c.cross_attention->of, d);
        cross_norm_ = Norm<T>::of(c, d);
        cross_.emplace(c.cross_attention->of, random);
      }
    }
    if (has_feed_forward_) {
      detail::set_model_dim(*c.feed_forward, d);
      if (position_ != NormPosition::parallel) feed_forward_norm_ = Norm<T>::of(c, d);
      feed_forward_ = FF(*c.feed_forward, random);
    }
    if (position_ == NormPosition::sandwich) {
      mixer_post_norm_ = mixer_norm_;
      cross_post_norm_ = cross_norm_;
      feed_forward_post_norm_ = feed_forward_norm_;
    }
  }

  template <TensorLike X>
  auto operator()(const X& x, const Inputs<mode_of<X>, T>& inputs = {}, const BlockPlace<T>& place = {}) const {
    return run(x, inputs, place, [&](const auto& h) { return detail::mix(mixer_, inputs.visibility, place, h); });
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state, const Inputs<mode_of<X>, T>& inputs = {}, const BlockPlace<T>& place = {}) const {
    return run(x, inputs, place, [&](const auto& h) { return detail::mix(mixer_, inputs.visibility, place, h, state.mixer); });
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state, const Inputs<mode_of<X>, T>& inputs = {}, const BlockPlace<T>& place = {}) const {
    return run(x_t, inputs, place, [&](const auto& h) { return detail::mix_step(mixer_, inputs.visibility, place, h, state.mixer); });
  }
  State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    s.mixer = mixer_.initial_state(batch);
    return s;
  }

  /// What the cross attention reads of a memory [B, Lm, model_dim]; absent if there is none.
  template <TensorLike X>
  auto remember_keys(const X& memory) const {
    CrossKeys<mode_of<X>, T> of;
    if constexpr (has_cross) {
      if (cross_) {
        auto [keys, values] = cross_->project_memory(memory);
        of.keys = std::move(keys);
        of.values = std::move(values);
        of.present = true;
      }
    }
    return of;
  }
  /// The same for calls of this block alone. `key_padding` [B, Lm], 0: nobody sees this key.
  template <TensorLike X>
  auto remember(const X& memory, const AnyTensor<std::uint8_t>& key_padding = {}) const {
    CrossMemory<mode_of<X>, T> all;
    all.key_padding = key_padding;
    all.layers.push_back(remember_keys(memory));
    return all;
  }

  /// Calls f with each linear map that writes to the residual stream.
  template <class F>
  void with_residual_outputs(F&& f) {
    detail::with_output_projection(mixer_, f);
    if constexpr (has_cross) {
      if (cross_) detail::with_output_projection(*cross_, f);
    }
    if (has_feed_forward_) detail::with_output_projection(feed_forward_, f);
  }
  int residual_branches() const noexcept { return 1 + reads_memory() + has_feed_forward_; }
  bool reads_memory() const noexcept {
    if constexpr (has_cross) {
      return cross_.has_value();
    } else {
      return false;
    }
  }

  /// Whether there is a stream.
  bool causal() const { return detail::is_causal(mixer_); }

  const Mixer& mixer() const noexcept { return mixer_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("mixer_norm", self.mixer_norm_);
    f("mixer", self.mixer_);
    f("mixer_post_norm", self.mixer_post_norm_);
    if constexpr (has_cross) {
      f("cross_norm", self.cross_norm_);
      if (self.cross_) f("cross_attention", *self.cross_);
      f("cross_post_norm", self.cross_post_norm_);
    }
    if (self.has_feed_forward_) {
      f("feed_forward_norm", self.feed_forward_norm_);
      f("feed_forward", self.feed_forward_);
      f("feed_forward_post_norm", self.feed_forward_post_norm_);
    }
  }

 private:
  bool parallel() const noexcept { return position_ == NormPosition::parallel || position_ == NormPosition::parallel_two_norms; }

  template <class X, class Branch>
  auto residual(const X& x, const Branch& branch) const {
    return scale_ == 1 ? add(branch, x) : add_scaled(x, branch, scale_);
  }
  /// One branch f of the stream, not parallel.
  template <class X, class F>
  auto branch(const X& x, const Norm<T>& norm, const Norm<T>& post, F&& f) const {
    const bool before = position_ == NormPosition::pre || position_ == NormPosition::sandwich;
    auto y = before && norm.present() ? f(norm(x)) : f(x);
    if (position_ == NormPosition::branch_output) y = norm(y);
    if (position_ == NormPosition::sandwich) y = post(y);
    auto sum = residual(x, y);
    if (position_ == NormPosition::post) sum = norm(sum);
    return sum;
  }
  template <class X, class Mix>
  auto run(const X& x, const Inputs<mode_of<X>, T>& inputs, const BlockPlace<T>& place, Mix&& mix) const {
    if (parallel()) {
      const auto h = mixer_norm_(x);
      auto y = mix(h);
      y = add(y, feed_forward_(position_ == NormPosition::parallel ? h : feed_forward_norm_(x)));
      return residual(x, y);
    }
    auto y = branch(x, mixer_norm_, mixer_post_norm_, mix);
    if constexpr (has_cross) y = cross(std::move(y), inputs, place.layer);
    if (!has_feed_forward_) return y;
    if (position_ == NormPosition::pre && scale_ == 1) return feed_forward_(feed_forward_norm_(y), y);  // the sum is fused
    return branch(y, feed_forward_norm_, feed_forward_post_norm_, [&](const auto& h) { return feed_forward_(h); });
  }
  template <class Y>
  Y cross(Y y, const Inputs<mode_of<Y>, T>& inputs, Index layer) const {
    if (!cross_) return y;
    if (inputs.memory == nullptr) fail<UsageError>("block: its cross attention reads a memory, and none is given");
    if (layer >= static_cast<Index>(inputs.memory->layers.size())) fail<UsageError>("block: a memory of another model");
    const auto& memory = inputs.memory->layers[static_cast<std::size_t>(layer)];
    return branch(y, cross_norm_, cross_post_norm_, [&](const auto& h) {
      const Visibility visible{.key_padding = inputs.memory->key_padding};
      if constexpr (rank_of<Y> == 2) {
        return detail::only_token(cross_->attend_projected(detail::one_token(h), memory.keys, memory.values, none, visible));
      } else {
        return cross_->attend_projected(h, memory.keys, memory.values, none, visible);
      }
    });
  }

  NormPosition position_ = NormPosition::pre;
  double scale_ = 1;
  bool has_feed_forward_ = false;
  Norm<T> mixer_norm_, mixer_post_norm_, cross_norm_, cross_post_norm_, feed_forward_norm_, feed_forward_post_norm_;
  Mixer mixer_;
  std::optional<std::conditional_t<has_cross, Cross, NoCross>> cross_;
  FF feed_forward_;
};

}  // namespace ordo
