#pragma once
/// \file
/// CausalLm: embeddings, a stack of blocks, norm, head. Trains and streams.

#include <cmath>
#include <cstdint>
#include <utility>

#include "ordo/stack/encoder.hpp"

namespace ordo {

/// A causal language model over tokens 0..vocab_size-1:
///
///     x = embedding_norm(embedding_scale E[id] + position);   x = norm(block_i(x));   logits = softcap(logit_scale (W x + b))
///
///     CausalLm<Mamba<float>> model({.vocab_size = 256, .model_dim = 128, .num_layers = 4}, random);
///     auto logits = model(tokens);                          // [B, L] integers -> [B, L, vocab_size]
///     auto state = model.initial_state(1);                  // then: one token at a time
///     auto next = model.step(token, state);                 // [B] -> [B, vocab_size]
///
/// `block` describes every layer, or `layers` a pattern of different ones (a hybrid, with OneOf as the mixer). With Cross = SoftmaxAttention
/// it is the decoder of an EncoderDecoder. Each projection onto the residual stream starts 1/sqrt(number of residual branches) smaller.
template <class Mixer, class FF = FeedForward<typename Mixer::value_type>, class Cross = NoCross>
class CausalLm {
 public:
  using Backbone = Encoder<Mixer, FF, Cross>;
  using BlockType = typename Backbone::BlockType;
  static_assert(SequenceLayer<Mixer>,
                "CausalLm: the mixer must be a causal sequence layer (x, state, step); without a state it cannot stand in a decoder");
  using T = typename Mixer::value_type;
  using value_type = T;
  using Config = ModelConfig<BlockType>;
  using Table = typename Backbone::Table;
  template <Mode M = Mode::plain>
  using State = typename Backbone::template State<M>;

  CausalLm() = default;
  [[gnu::cold]] CausalLm(const Config& c, Random& random, bool own_table = true) : backbone_(c, random, own_table) {
    if (!c.tie_embeddings) head_.weight = std::move(Linear<T>({c.model_dim, c.vocab_size, false}, random).weight());
    if (c.head_bias) head_.bias = constant_parameter<T>(DynExtents<1>(c.vocab_size), 0);
    if (c.init_deviation > 0) detail::initialise_normal(*this, c.init_deviation, random);
    double branches = 0;
    for (auto& block : backbone_.stack().layers()) {
      branches += block.residual_branches();
      if (!block.causal()) fail<ConfigError>("causal_lm: a mixer that is not causal: set `causal`");
    }
    for (auto& block : backbone_.stack().layers()) {
      block.with_residual_outputs([&](auto& linear) {
        for (T& w : linear.weight().mutate()) w = static_cast<T>(w / std::sqrt(branches));
      });
    }
  }

  /// Logits of the next token after each token: [B, L] -> [B, L, vocab_size].
  template <TensorLike Ids>
  auto operator()(const Ids& tokens, const Inputs<mode_of<Ids>, T>& inputs = {}) const {
    return head(hidden(tokens, inputs));
  }
  template <TensorLike Ids, Mode M>
  auto operator()(const Ids& tokens, State<M>& state, const Inputs<mode_of<Ids>, T>& inputs = {}) const {
    return head(hidden(tokens, state, inputs));
  }
  /// [B] -> [B, vocab_size].
  template <TensorLike Ids, Mode M>
  auto step(const Ids& tokens, State<M>& state, const Inputs<mode_of<Ids>, T>& inputs = {}) const {
    return head(backbone_.step(tokens, state, inputs));
  }
  /// The final hidden states, which head() turns into logits: [B, L] -> [B, L, model_dim].
  template <TensorLike Ids>
  auto hidden(const Ids& tokens, const Inputs<mode_of<Ids>, T>& inputs = {}) const {
    return backbone_(tokens, inputs);
  }
  template <TensorLike Ids, Mode M>
  auto hidden(const Ids& tokens, State<M>& state, const Inputs<mode_of<Ids>, T>& inputs = {}) const {
    return backbone_(tokens, state, inputs);
  }
  /// [..., model_dim] -> [..., vocab_size].
  template <TensorLike X>
  auto head(const X& x) const {
    return head(x, backbone_.embedding_table());
  }
  /// The same where the tied table is another model's.
  template <TensorLike X>
  auto head(const X& x, const Table& table) const {
    const Config& c = config();
    auto y = linear(x, c.tie_embeddings ? table : head_.weight, head_.bias);
    if (c.logit_softcap > 0) {
      y = affine(tanh(affine(y, c.logit_scale / c.logit_softcap)), c.logit_softcap);
    } else if (c.logit_scale != 1) {
      y = affine(y, c.logit_scale);
    }
    return y;
  }

  State<Mode::plain> initial_state(Index batch) const { return backbone_.initial_state(batch); }
  const Config& config() const noexcept { return backbone_.config(); }
  const Backbone& backbone() const noexcept { return backbone_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    Backbone::visit(self.backbone_, f);
    f("head", self.head_);
  }

 private:
  struct Head {
    DynParameter<T, 2> weight;  // absent: tied
    DynParameter<T, 1> bias;
    template <class Self, class F>
    static void visit(Self& h, F&& f) {
      if (h.weight.present()) f("weight", h.weight);
      if (h.bias.present()) f("bias", h.bias);
    }
  };

  Backbone backbone_;
  Head head_;
};

}  // namespace ordo
