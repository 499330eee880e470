#pragma once
/// \file
/// EncoderDecoder: an encoder whose hidden states a decoder reads.

#include <string>
#include <utility>

#include "ordo/stack/causal_lm.hpp"

namespace ordo {

/// logits = decoder(target, memory = encoder(source)): T5, BART, Marian, the original Transformer.
///
///     EncoderDecoder<SoftmaxAttention<float>> model(config, random);
///     auto logits = model(target, model.remember(source, padding));      // [B, L], [B, Ls] -> [B, L, vocab_size]
///     const auto memory = model.remember(source, padding);               // a stream: the source once, then token by token
///     auto state = model.initial_state(batch);
///     auto next = model.step(token, state, memory);
///
/// `key_padding` [B, Ls], 0: not a token of the source; the encoder and the cross attentions do not see it. With `share_embeddings` one table
/// serves both sides (and a tied head), its gradient is the sum of all uses. Beam search copies rows of state and memory alike.
template <class Mixer, class FF = FeedForward<typename Mixer::value_type>, class Cross = Mixer>
class EncoderDecoder {
 public:
  using T = typename Mixer::value_type;
  using value_type = T;
  using EncoderType = Encoder<Mixer, FF, Cross>;
  using DecoderType = CausalLm<Mixer, FF, Cross>;
  template <Mode M = Mode::plain>
  using State = typename DecoderType::template State<M>;

  struct Config {
    Index model_dim = 0;
    typename EncoderType::Config encoder{};
    typename DecoderType::Config decoder{};
    bool share_embeddings = false;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("encoder", c.encoder);
      f("decoder", c.decoder);
      f("share_embeddings", c.share_embeddings);
    }
  };

  EncoderDecoder() = default;
  [[gnu::cold]] EncoderDecoder(Config c, Random& random) {
    for (auto* side : {&c.encoder, &c.decoder}) {
      if (side->model_dim == 0) side->model_dim = c.model_dim;
      if (side->model_dim != c.model_dim) {
        fail<ConfigError>({"encoder_decoder: model_dim ", c.model_dim, ", one side has ", side->model_dim});
      }
    }
    if (c.share_embeddings) {
      if (c.encoder.vocab_size != c.decoder.vocab_size) {
        fail<ConfigError>({"encoder_decoder: a shared table and vocab_size ", c.encoder.vocab_size, " in the encoder, ", c.decoder.vocab_size,
                           " in the decoder"});
      }
      embedding_ = std::move(Embedding<T>({.vocab_size = c.encoder.vocab_size, .model_dim = c.model_dim}, random).weight());
    }
    encoder_ = EncoderType(c.encoder, random, !c.share_embeddings);
    decoder_ = DecoderType(c.decoder, random, !c.share_embeddings);
  }

  /// The encoder's hidden states: [B, Ls] -> [B, Ls, model_dim].
  template <TensorLike Ids>
  auto encode(const Ids& source, const AnyTensor<std::uint8_t>& key_padding = {}) const {
    const Inputs<mode_of<Ids>, T> inputs{.visibility = {.key_padding = key_padding}};
    return encoder_.hidden(embedding_.present() ? embedding_ : encoder_.embedding_table(), source, inputs);
  }
  /// What the decoder's cross attentions read of a source.
  template <TensorLike Ids>
  auto remember(const Ids& source, const AnyTensor<std::uint8_t>& key_padding = {}) const {
    return decoder_.backbone().stack().remember(encode(source, key_padding), key_padding);
  }

  /// Logits of the next token after each token of the target: [B, L] -> [B, L, vocab_size].
  template <TensorLike Ids>
  auto operator()(const Ids& target, const CrossMemory<mode_of<Ids>, T>& memory) const {
    return decoder_.head(decoder_.backbone().hidden(table(), target, Inputs<mode_of<Ids>, T>{.memory = &memory}), table());
  }
  template <TensorLike Ids, Mode M>
  auto operator()(const Ids& target, State<M>& state, const CrossMemory<mode_of<Ids>, T>& memory) const {
    return decoder_.head(decoder_.backbone().hidden(table(), target, state, Inputs<mode_of<Ids>, T>{.memory = &memory}), table());
  }
  /// [B] -> [B, vocab_size].
  template <TensorLike Ids, Mode M>
  auto step(const Ids& target, State<M>& state, const CrossMemory<mode_of<Ids>, T>& memory) const {
    return decoder_.head(decoder_.backbone().step(table(), target, state, Inputs<mode_of<Ids>, T>{.memory = &memory}), table());
  }
  State<Mode::plain> initial_state(Index batch) const { return decoder_.initial_state(batch); }

  const EncoderType& encoder() const noexcept { return encoder_; }
  const DecoderType& decoder() const noexcept { return decoder_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    if (self.embedding_.present()) f("embedding.weight", self.embedding_);
    f("encoder", self.encoder_);
    f("decoder", self.decoder_);
  }

 private:
  const DynParameter<T, 2>& table() const noexcept { return embedding_.present() ? embedding_ : decoder_.backbone().embedding_table(); }

  DynParameter<T, 2> embedding_;
  EncoderType encoder_;
  DecoderType decoder_;
};

}  // namespace ordo
