#pragma once
/// \file
/// Stack: blocks one after the other, and a norm.

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/stack/block.hpp"

namespace ordo {

namespace detail {

/// x as the type that ops return: views and tensors of static extents are copied.
template <TensorLike X>
auto as_value(X&& x) {
  using Given = std::remove_cvref_t<X>;
  using Y = Value<mode_of<Given>, value_type_of<Given>, rank_of<Given>>;
  if constexpr (std::is_same_v<Given, Y>) {
    return Y(std::forward<X>(x));
  } else {
    return to_tensor<rank_of<Given>>(borrow(x).copy());
  }
}

}  // namespace detail

/// x = block_i(x) for i = 0, 1, ...;  norm(x).   x: [B, L, model_dim]. With causal mixers it streams.
///
/// Blocks that do not say otherwise have the stack's norm options. A stack whose blocks have cross attention reads a memory:
///
///     auto memory = stack.remember(encoded, key_padding);     // [B, Lm, model_dim]: its keys and values, computed once
///     auto y = stack(x, {.memory = &memory});                 // read by each call, and each step of a stream
template <class Mixer, class FF = FeedForward<typename Mixer::value_type>, class Cross = NoCross>
class Stack {
 public:
  using BlockType = Block<Mixer, FF, Cross>;
  using T = typename Mixer::value_type;
  using value_type = T;

  struct Config {
    Index model_dim = 0;
    Index num_layers = 0;                             ///< 0: as many as `layers` has
    typename BlockType::Config block{};               ///< of every layer,
    std::vector<typename BlockType::Config> layers{}; ///< or, if not empty: layer i has number i modulo their count
    std::optional<NormKind> norm{};
    std::optional<double> norm_eps{};
    std::optional<bool> norm_bias{};
    std::optional<NormPosition> norm_position{};
    std::optional<double> residual_scale{};
    bool final_norm = true;
    bool share_relative_bias = false;  ///< the table of layer 0 serves all layers
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("num_layers", c.num_layers);
      f("block", c.block);
      f("layers", c.layers);
      detail::visit_style(c, f);
      f("final_norm", c.final_norm);
      f("share_relative_bias", c.share_relative_bias);
    }
  };

  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    std::vector<typename BlockType::template State<M>> layers;
    /// Drops spare room, as states are written to files.
    void compact() {
      for (auto& layer : layers) layer.compact();
    }
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("layers", s.layers);
    }
    /// A state of another mode for the same stack, its tensors absent.
    template <Mode N>
    State<N> like() const {
      State<N> other;
      for (const auto& layer : layers) other.layers.push_back(layer.template like<N>());
      return other;
    }
  };

  Stack() = default;
  /// `c`: any configuration with the fields of Config.
  template <class C>
  [[gnu::cold]] Stack(const C& c, Random& random) {
    detail::require_at_least("stack", "model_dim", c.model_dim, 1);
    detail::require_at_least("stack", "num_layers", c.num_layers, 0);
    const auto pattern = static_cast<Index>(c.layers.size());
    const Index count = c.num_layers > 0 ? c.num_layers : pattern;
    for (Index i = 0; i < count; ++i) {
      auto block = pattern > 0 ? c.layers[static_cast<std::size_t>(i % pattern)] : c.block;
      if (block.model_dim == 0) block.model_dim = c.model_dim;
      if (block.model_dim != c.model_dim) {
        fail<ConfigError>({"stack: layer ", i, " has model_dim ", block.model_dim, ", the stack ", c.model_dim});
      }
      detail::inherit_style(block, c);
      if (c.share_relative_bias && i > 0) detail::take_relative_bias(block.mixer);
      layers_.emplace_back(std::move(block), random);
      reads_memory_ = reads_memory_ || layers_.back().reads_memory();
    }
    share_relative_bias_ = c.share_relative_bias && count > 0;
    if (share_relative_bias_ && relative_bias() == nullptr) fail<ConfigError>("stack: share_relative_bias, and a mixer without relative_bias");
    if (c.final_norm) norm_ = Norm<T>::of(c, c.model_dim);
  }

  template <TensorLike X>
  auto operator()(X given, const Inputs<mode_of<X>, T>& inputs = {}) const {
    check(inputs);
    auto x = detail::as_value(std::move(given));
    for (std::size_t i = 0; i < layers_.size(); ++i) x = layers_[i](x, inputs, place(i));
    return norm_(x);
  }
  template <TensorLike X, Mode M>
  auto operator()(X given, State<M>& state, const Inputs<mode_of<X>, T>& inputs = {}) const {
    check(inputs);
    check(state);
    auto x = detail::as_value(std::move(given));
    for (std::size_t i = 0; i < layers_.size(); ++i) x = layers_[i](x, state.layers[i], inputs, place(i));
    return norm_(x);
  }
  template <TensorLike X, Mode M>
  auto step(X given, State<M>& state, const Inputs<mode_of<X>, T>& inputs = {}) const {
    check(inputs);
    check(state);
    auto x = detail::as_value(std::move(given));
    for (std::size_t i = 0; i < layers_.size(); ++i) x = layers_[i].step(x, state.layers[i], inputs, place(i));
    return norm_(x);
  }
  State<Mode::plain> initial_state(Index batch) const {
    detail::require_at_least("stack", "batch", batch, 1);
    State<Mode::plain> s;
    for (const auto& block : layers_) s.layers.push_back(block.initial_state(batch));
    return s;
  }

  /// What the cross attentions read of a memory [B, Lm, model_dim]; `key_padding` [B, Lm], 0: nobody sees this key.
  template <TensorLike X>
  auto remember(const X& memory, const AnyTensor<std::uint8_t>& key_padding = {}) const {
    CrossMemory<mode_of<X>, T> all;
    all.key_padding = key_padding;
    for (const auto& block : layers_) all.layers.push_back(block.remember_keys(memory));
    return all;
  }

  /// Whether there is a stream: every mixer has one.
  bool causal() const {
    return std::all_of(layers_.begin(), layers_.end(), [](const BlockType& block) { return block.causal(); });
  }

  std::vector<BlockType>& layers() noexcept { return layers_; }
  const std::vector<BlockType>& layers() const noexcept { return layers_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("layers", self.layers_);
    f("norm", self.norm_);
  }

 private:
  template <Mode M>
  void check(const Inputs<M, T>& inputs) const {
    if (reads_memory_ != (inputs.memory != nullptr)) {
      fail<UsageError>(reads_memory_ ? "stack: its blocks read a memory, and none is given" : "stack: a memory is given, and no block reads one");
    }
  }
  BlockPlace<T> place(std::size_t layer) const { return {static_cast<Index>(layer), share_relative_bias_ ? relative_bias() : nullptr}; }
  const DynParameter<T, 2>* relative_bias() const { return detail::relative_table<T>(layers_[0].mixer()); }
  template <Mode M>
  void check(const State<M>& state) const {
    if (state.layers.size() != layers_.size()) {
      fail<ShapeError>({"stack: a state of ", state.layers.size(), " layers, the stack has ", layers_.size()});
    }
  }

  std::vector<BlockType> layers_;
  Norm<T> norm_;
  bool share_relative_bias_ = false, reads_memory_ = false;
};

}  // namespace ordo
