#pragma once
/// \file
/// PyTorch's transformer modules: TransformerEncoderLayer, TransformerDecoderLayer, their stacks, and Transformer.

#include <string>
#include <utility>
#include <vector>

#include "ordo/core/names.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/stack/configured.hpp"
#include "ordo/stack/stack.hpp"

namespace ordo {

/// The options of torch.nn.TransformerEncoderLayer and TransformerDecoderLayer.
struct TransformerOptions {
  Index model_dim = 0, num_heads = 0, ff_dim = 0;
  Activation activation = Activation::relu;  ///< or gelu
  double norm_eps = 1e-5;
  NormPosition norm_position = NormPosition::post;  ///< or pre
  bool bias = true;                                 ///< of all linear maps and norms

  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("model_dim", c.model_dim);
    f("num_heads", c.num_heads);
    f("ff_dim", c.ff_dim);
    f("activation", c.activation);
    f("norm_eps", c.norm_eps);
    f("norm_position", c.norm_position);
    f("bias", c.bias);
  }
  /// The block that a layer is.
  template <class Block>
  typename Block::Config block(bool causal) const {
    if (activation != Activation::relu && activation != Activation::gelu) {
      fail<ConfigError>({"transformer: the activation is relu or gelu, given ", to_string(activation)});
    }
    if (norm_position != NormPosition::post && norm_position != NormPosition::pre) {
      fail<ConfigError>({"transformer: norm_position is post or pre, given ", to_string(norm_position)});
    }
    typename Block::Config c;
    c.model_dim = model_dim;
    c.norm = NormKind::layer_norm;
    c.norm_eps = norm_eps;
    c.norm_bias = bias;
    c.norm_position = norm_position;
    c.mixer.num_heads = num_heads;
    c.mixer.qkv_bias = c.mixer.out_bias = bias;
    if constexpr (Block::has_cross) c.cross_attention = {c.mixer};
    c.mixer.causal = causal;
    c.feed_forward = {{.ff_dim = ff_dim, .bias = bias, .activation = activation}};
    return c;
  }
};

namespace detail {

/// torch.nn's names of one layer below `ours` and `theirs`: "", or "layers.*." in both.
inline std::vector<NameMap::Rule> torch_layer_names(const std::string& at, bool decoder) {
  std::vector<NameMap::Rule> rules;
  const auto attention = [&](const std::string& ours, const std::string& theirs) {
    for (const char* kind : {"weight", "bias"}) {
      std::size_t part = 0;
      for (const char* projection : {"q_proj.", "k_proj.", "v_proj."}) {
        rules.push_back({at + ours + projection + kind, at + theirs + "in_proj_" + kind, part++, 3});
      }
    }
    rules.push_back({at + ours + "o_proj", at + theirs + "out_proj"});
  };
  attention("mixer.", "self_attn.");
  rules.push_back({at + "mixer_norm", at + "norm1"});
  if (decoder) {
    attention("cross_attention.", "multihead_attn.");
    rules.push_back({at + "cross_norm", at + "norm2"});
  }
  rules.push_back({at + "feed_forward_norm", at + (decoder ? "norm3" : "norm2")});
  rules.push_back({at + "feed_forward.up_proj", at + "linear1"});
  rules.push_back({at + "feed_forward.down_proj", at + "linear2"});
  return rules;
}

/// Where a mask is given it alone says what is seen, as in torch.nn: causality is lifted by a prefix as long as the sequence.
template <class X, class In>
In masked(const X& x, In inputs) {
  Visibility& v = inputs.visibility;
  if (!v.mask.present()) return inputs;
  const auto extents = view(x);
  v.prefix_length = AnyTensor<std::int64_t>(Shape{extents.extent(0)}, static_cast<std::int64_t>(extents.extent(1)));
  if (v.mask.rank() == 2) v.mask = v.mask.reshaped(Shape{1, v.mask.extent(0), v.mask.extent(1)});
  return inputs;
}

}  // namespace detail

/// A block or stack with torch.nn's options and torch.nn's sense of a mask (but true = may attend): `visibility.mask` [L, L], [H or 1, L, L]
/// or [B or 1, H or 1, L, L] replaces causality. Calls are those of Base.
template <class Base, class Spec>
class TransformerModule : public Configured<Base, Spec> {
 public:
  using T = typename Base::value_type;
  using Configured<Base, Spec>::Configured;
  template <TensorLike X>
  auto operator()(const X& x, const Inputs<mode_of<X>, T>& inputs = {}) const {
    return Base::operator()(x, detail::masked(x, inputs));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, typename Base::template State<M>& state, const Inputs<mode_of<X>, T>& inputs = {}) const {
    return Base::operator()(x, state, inputs);
  }
};

/// The layer's keys, and `causal`.
template <class Block>
struct TransformerEncoderLayerConfig : TransformerOptions {
  bool causal = false;
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    TransformerOptions::visit(c, f);
    f("causal", c.causal);
  }
  typename Block::Config expand() const { return block<Block>(causal); }
  static NameMap torch_names() { return NameMap(detail::torch_layer_names("", false)); }
};
template <class Block>
struct TransformerDecoderLayerConfig : TransformerOptions {
  typename Block::Config expand() const { return block<Block>(true); }
  static NameMap torch_names() { return NameMap(detail::torch_layer_names("", true)); }
};
/// Stacks: the layer's keys, `num_layers` and `final_norm`.
template <class Stack, class Layer>
struct TransformerStackConfig : Layer {
  Index num_layers = 0;
  bool final_norm = false;
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    Layer::visit(c, f);
    f("num_layers", c.num_layers);
    f("final_norm", c.final_norm);
  }
  typename Stack::Config expand() const {
    detail::require_at_least("transformer", "num_layers", num_layers, 1);
    typename Stack::Config c;
    c.model_dim = this->model_dim;
    c.num_layers = num_layers;
    c.block = Layer::expand();
    c.norm = NormKind::layer_norm;
    c.norm_eps = this->norm_eps;
    c.norm_bias = this->bias;
    c.final_norm = final_norm;
    return c;
  }
  static NameMap torch_names() { return NameMap(detail::torch_layer_names("layers.*.", Stack::BlockType::has_cross)); }
};

namespace detail {
template <class T>
using TransformerDecoderBlock = Block<SoftmaxAttention<T>, FeedForward<T>, SoftmaxAttention<T>>;
template <class T>
using TransformerDecoderStack = Stack<SoftmaxAttention<T>, FeedForward<T>, SoftmaxAttention<T>>;
}  // namespace detail

/// torch.nn.TransformerEncoderLayer: x [B, L, D] -> [B, L, D] (batch_first). Vaswani et al. 2017 (arXiv 1706.03762).
template <class T = float>
using TransformerEncoderLayer = TransformerModule<Block<SoftmaxAttention<T>>, TransformerEncoderLayerConfig<Block<SoftmaxAttention<T>>>>;
/// torch.nn.TransformerDecoderLayer, causal unless a mask is given: `auto memory = layer.remember(encoded, key_padding)`, then
/// `layer(x, {.memory = &memory})`, with a state or step by step.
template <class T = float>
using TransformerDecoderLayer =
    TransformerModule<detail::TransformerDecoderBlock<T>, TransformerDecoderLayerConfig<detail::TransformerDecoderBlock<T>>>;
/// torch.nn.TransformerEncoder, TransformerDecoder: layers with weights of their own, and a norm if `final_norm`.
template <class T = float>
using TransformerEncoder =
    TransformerModule<Stack<SoftmaxAttention<T>>,
                      TransformerStackConfig<Stack<SoftmaxAttention<T>>, TransformerEncoderLayerConfig<Block<SoftmaxAttention<T>>>>>;
template <class T = float>
using TransformerDecoder =
    TransformerModule<detail::TransformerDecoderStack<T>,
                      TransformerStackConfig<detail::TransformerDecoderStack<T>, TransformerDecoderLayerConfig<detail::TransformerDecoderBlock<T>>>>;

/// torch.nn.Transformer: an encoder of the source [B, Ls, D] and a causal decoder of the target [B, L, D], each with a norm at its end.
///
///     auto memory = model.remember(source, source_key_padding);
///     auto y = model(target, memory);                            // or with a state, or step by step
template <class T = float>
class Transformer {
 public:
  using value_type = T;
  template <Mode M = Mode::plain>
  using State = typename TransformerDecoder<T>::template State<M>;

  struct Config : TransformerOptions {
    Index num_encoder_layers = 0, num_decoder_layers = 0;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      TransformerOptions::visit(c, f);
      f("num_encoder_layers", c.num_encoder_layers);
      f("num_decoder_layers", c.num_decoder_layers);
    }
  };

  Transformer() = default;
  [[gnu::cold]] Transformer(const Config& c, Random& random)
      : encoder_(side<TransformerEncoder<T>>(c, c.num_encoder_layers), random),
        decoder_(side<TransformerDecoder<T>>(c, c.num_decoder_layers), random) {}

  template <TensorLike X>
  auto encode(const X& source, const AnyTensor<std::uint8_t>& key_padding = {}) const {
    return encoder_(source, {.visibility = {.key_padding = key_padding}});
  }
  template <TensorLike X>
  auto remember(const X& source, const AnyTensor<std::uint8_t>& key_padding = {}) const {
    return decoder_.remember(encode(source, key_padding), key_padding);
  }
  template <TensorLike X>
  auto operator()(const X& target, const CrossMemory<mode_of<X>, T>& memory) const {
    return decoder_(target, {.memory = &memory});
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& target, State<M>& state, const CrossMemory<mode_of<X>, T>& memory) const {
    return decoder_(target, state, {.memory = &memory});
  }
  template <TensorLike X, Mode M>
  auto step(const X& target_t, State<M>& state, const CrossMemory<mode_of<X>, T>& memory) const {
    return decoder_.step(target_t, state, {.memory = &memory});
  }
  State<Mode::plain> initial_state(Index batch) const { return decoder_.initial_state(batch); }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("encoder", self.encoder_);
    f("decoder", self.decoder_);
  }

 private:
  template <class Side>
  static typename Side::Config side(const Config& c, Index num_layers) {
    typename Side::Config of;
    static_cast<TransformerOptions&>(of) = c;
    of.num_layers = num_layers;
    of.final_norm = true;
    return of;
  }
  TransformerEncoder<T> encoder_;
  TransformerDecoder<T> decoder_;
};

}  // namespace ordo
