#pragma once
/// \file
/// CausalLm: embedding, a stack of blocks, norm, head. Trains and streams.

#include <cmath>
#include <cstdint>
#include <vector>

#include "ordo/nn/embedding.hpp"
#include "ordo/stack/block.hpp"

namespace ordo {

/// A causal language model over tokens 0..vocab_size-1:
///
///     x = embeddings[tokens] (+ positions);   x = block_i(x);   logits = head(norm_f(x))
///
///     CausalLm<Mamba<float>> model({.vocab_size = 256, .model_dim = 128, .num_layers = 4}, random);
///     auto logits = model(tokens);                          // [B, L] integers -> [B, L, vocab_size]
///     auto state = model.initial_state(1);                  // then: one token at a time
///     auto next = model.step(token, state);                 // [B] -> [B, vocab_size]
///
/// `mixers` holds the configuration of the mixers; with several, layer i takes number i modulo their count (a hybrid pattern, with OneOf
/// as the mixer). The head is the embedding (tied) or a matrix of its own. Each projection onto the residual stream starts
/// 1/sqrt(number of residual branches) smaller. Parameters are named as in Mamba's published checkpoints.
template <class Mixer, class FeedForward = NoFeedForward<typename Mixer::value_type>,
          class Norm = RmsNorm<typename Mixer::value_type>>
class CausalLm {
 public:
  using BlockType = Block<Mixer, FeedForward, Norm>;
  using T = typename Mixer::value_type;
  using value_type = T;

  struct Config {
    Index vocab_size = 0, model_dim = 0, num_layers = 0;
    std::vector<typename Mixer::Config> mixers{1};
    typename FeedForward::Config ff{};
    typename Norm::Config norm{};
    double norm_eps = 1e-5;
    bool tie_embeddings = true;
    Index max_length = 0;       ///< > 0: learned positions, a table of so many rows
    double init_deviation = 0;  ///< > 0: all matrices start N(0, deviation^2) and biases 0 (GPT-2); 0: as each layer starts
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("vocab_size", c.vocab_size);
      f("model_dim", c.model_dim);
      f("num_layers", c.num_layers);
      f("norm_eps", c.norm_eps);
      f("tie_embeddings", c.tie_embeddings);
      f("max_length", c.max_length);
      if (c.mixers.size() == 1) {
        std::remove_cvref_t<decltype(c.mixers[0])>::visit(c.mixers[0], [&](std::string_view name, auto& field) {
          if (name != "model_dim" && name != "norm_eps") f(name, field);
        });
      }
    }
  };

  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    std::vector<typename BlockType::template State<M>> layers;
    StateTensor<M, std::int32_t, 1> position;  ///< [B], with learned positions
    bool has_position = false;
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("layers", s.layers);
      if (s.has_position) f("position", s.position);
    }
    /// A state of another mode for the same model, its tensors absent.
    template <Mode N>
    State<N> like() const {
      State<N> other;
      for (const auto& layer : layers) other.layers.push_back(layer.template like<N>());
      other.has_position = has_position;
      return other;
    }
  };

  CausalLm() = default;
  CausalLm(const Config& given, Random& random) : config_(given) {
    Config& c = config_;
    detail::require_at_least("causal_lm", "vocab_size", c.vocab_size, 1);
    detail::require_at_least("causal_lm", "model_dim", c.model_dim, 1);
    detail::require_at_least("causal_lm", "num_layers", c.num_layers, 0);
    detail::require_at_least("causal_lm", "max_length", c.max_length, 0);
    if (c.mixers.empty()) fail<ConfigError>("causal_lm: no mixer is configured");
    embeddings_ = Embedding<T>({.vocab_size = c.vocab_size, .model_dim = c.model_dim}, random);
    if (c.max_length > 0) positions_ = Embedding<T>({.vocab_size = c.max_length, .model_dim = c.model_dim}, random);
    for (Index i = 0; i < c.num_layers; ++i) {
      typename BlockType::Config block;
      block.model_dim = c.model_dim;
      block.mixer = c.mixers[static_cast<std::size_t>(i) % c.mixers.size()];
      block.ff = c.ff;
      block.norm = c.norm;
      block.norm_eps = c.norm_eps;
      set_norm_eps(block.mixer, c.norm_eps);
      layers_.emplace_back(std::move(block), random);
    }
    c.norm.model_dim = c.model_dim;
    c.norm.norm_eps = c.norm_eps;
    norm_f_ = Norm(c.norm);
    if (!c.tie_embeddings) lm_head_ = Linear<T>({c.model_dim, c.vocab_size, false}, random);
    if (c.init_deviation > 0) initialise_normal(random);
    const double branches = static_cast<double>(c.num_layers) * BlockType::residual_branches;
    for (auto& block : layers_) {
      block.with_residual_outputs([&](auto& linear) {
        for (T& w : linear.weight().mutate()) w = static_cast<T>(w / std::sqrt(branches));
      });
    }
  }

  /// Logits of the next token after each token: [B, L] -> [B, L, vocab_size].
  template <TensorLike Tokens>
  auto operator()(const Tokens& tokens) const {
    return head(hidden(tokens));
  }
  template <TensorLike Tokens, Mode M>
  auto operator()(const Tokens& tokens, State<M>& state) const {
    return head(hidden(tokens, state));
  }
  /// [B] -> [B, vocab_size].
  template <TensorLike Tokens, Mode M>
  auto step(const Tokens& tokens, State<M>& state) const {
    static_assert(rank_of<Tokens> == 1, "step takes one token of every row: [B]");
    auto x = embeddings_(tokens);
    if (config_.max_length > 0) x = add(x, next_positions<1>(tokens, state));
    for (std::size_t i = 0; i < layers_.size(); ++i) x = layers_[i].step(x, state.layers[i]);
    return head(norm_f_(x));
  }

  /// The final hidden states, which head() turns into logits: [B, L] -> [B, L, model_dim].
  template <TensorLike Tokens>
  auto hidden(const Tokens& tokens) const {
    auto x = embeddings_(tokens);
    if (config_.max_length > 0) {
      const auto v = view(tokens);
      DynTensor<std::int32_t, 1> places(v.extent(1));
      for (Index i = 0; i < places.size(); ++i) places(i) = static_cast<std::int32_t>(i);
      check_length(v.extent(1));
      x = add(x, embedding_at(tokens, places));
    }
    for (const auto& block : layers_) x = block(x);
    return norm_f_(x);
  }
  template <TensorLike Tokens, Mode M>
  auto hidden(const Tokens& tokens, State<M>& state) const {
    check_state(view(tokens).extent(0), state);
    auto x = embeddings_(tokens);
    if (config_.max_length > 0) x = add(x, next_positions<2>(tokens, state));
    for (std::size_t i = 0; i < layers_.size(); ++i) x = layers_[i](x, state.layers[i]);
    return norm_f_(x);
  }
  /// [..., model_dim] -> [..., vocab_size].
  template <TensorLike X>
  auto head(const X& x) const {
    return config_.tie_embeddings ? embeddings_.logits(x) : lm_head_(x);
  }

  State<Mode::plain> initial_state(Index batch) const {
    detail::require_at_least("causal_lm", "batch", batch, 1);
    State<Mode::plain> s;
    for (const auto& block : layers_) s.layers.push_back(block.initial_state(batch));
    if (config_.max_length > 0) {
      s.position = DynTensor<std::int32_t, 1>(batch);
      s.has_position = true;
    }
    return s;
  }

  const Config& config() const noexcept { return config_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("backbone.embeddings", self.embeddings_);
    if (self.config_.max_length > 0) f("backbone.positions", self.positions_);
    f("backbone.layers", self.layers_);
    f("backbone.norm_f", self.norm_f_);
    if (!self.config_.tie_embeddings) f("lm_head", self.lm_head_);
  }

 private:
  template <class MixerConfig>
  static void set_norm_eps(MixerConfig& c, double eps) {
    if constexpr (requires { c.of; }) {
      std::visit([&](auto& own) { set_norm_eps(own, eps); }, c.of);
    } else if constexpr (requires { c.norm_eps; }) {
      c.norm_eps = eps;
    }
  }
  void initialise_normal(Random& random) {
    for_each_leaf(*this, [&](const Path& path, auto& p) {
      const bool matrix = p.shape().rank() == 2;
      if (matrix) {
        for (T& w : p.mutate()) w = static_cast<T>(config_.init_deviation * random.normal());
      } else if (path.name() == "bias") {
        for (T& w : p.mutate()) w = 0;
      }
    });
  }
  void check_length(Index length) const {
    if (length > config_.max_length) {
      fail<ShapeError>("causal_lm: position " + std::to_string(length - 1) + ", the table of positions has " +
                       std::to_string(config_.max_length) + " rows");
    }
  }
  template <Mode M>
  void check_state(Index batch, const State<M>& state) const {
    if (state.layers.size() != layers_.size()) {
      fail<ShapeError>("causal_lm: a state of " + std::to_string(state.layers.size()) + " layers, the model has " + std::to_string(layers_.size()));
    }
    static_cast<void>(batch);
  }
  template <class Tokens>
  auto embedding_at(const Tokens& tokens, const auto& places) const {
    EmbeddingOp op;
    op.ids = detail::hold_ids(places);
    return apply_in<rank_of<std::remove_cvref_t<decltype(places)>> + 1>(recorder(tokens), op, positions_.weight());
  }
  /// The vectors of the next positions of each row, [B, L, D] or [B, D]; moves the positions on.
  template <std::size_t R, class Tokens, Mode M>
  auto next_positions(const Tokens& tokens, State<M>& state) const {
    const auto v = view(tokens);
    const Index batch = v.extent(0), length = R == 2 ? v.extent(R - 1) : 1;
    if (state.position.size() != batch) {
      fail<ShapeError>("causal_lm: tokens of " + std::to_string(batch) + " rows, a state of " + std::to_string(state.position.size()));
    }
    DynTensor<std::int32_t, 1> moved(batch);
    DynTensor<std::int32_t, R> places(v.extents());
    for (Index b = 0; b < batch; ++b) {
      const Index from = state.position.data()[b];
      check_length(from + length);
      for (Index i = 0; i < length; ++i) places.data()[b * length + i] = static_cast<std::int32_t>(from + i);
      moved(b) = static_cast<std::int32_t>(from + length);
    }
    if constexpr (M == Mode::plain) {
      state.position = std::move(moved);
    } else {
      state.position = track(state.position.tape(), moved);
    }
    return embedding_at(tokens, places);
  }

  Config config_;
  Embedding<T> embeddings_, positions_;
  std::vector<BlockType> layers_;
  Norm norm_f_;
  Linear<T> lm_head_;
};

}  // namespace ordo
