#pragma once
/// \file
/// Encoder: tokens through embeddings and a stack. Language models are this and a head.

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ordo/nn/embedding.hpp"
#include "ordo/ops/positions.hpp"
#include "ordo/stack/stack.hpp"

namespace ordo {

enum class PositionKind { no, learned, sinusoidal };
inline std::string to_string(PositionKind kind) {
  return kind == PositionKind::learned ? "learned" : kind == PositionKind::sinusoidal ? "sinusoidal" : "none";
}
inline bool from_string(std::string_view name, PositionKind& kind) {
  for (const PositionKind known : {PositionKind::no, PositionKind::learned, PositionKind::sinusoidal}) {
    if (to_string(known) == name) {
      kind = known;
      return true;
    }
  }
  return false;
}
/// Vectors added to the embeddings of tokens by their positions.
struct Positions {
  PositionKind name = PositionKind::no;
  Index max_length = 0;  ///< of learned ones: the rows of the table; a later position is an error
  SinusoidLayout layout = SinusoidLayout::interleaved;
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("name", c.name);
    f("max_length", c.max_length);
    f("layout", c.layout);
  }
};

/// The configuration of a model over tokens; the last five fields are those of a head, which an encoder has not.
template <class Block>
struct ModelConfig {
  Index vocab_size = 0, model_dim = 0;
  Index num_layers = 0;               ///< 0: as many as `layers` has
  typename Block::Config block{};               ///< of every layer,
  std::vector<typename Block::Config> layers{}; ///< or, if not empty: layer i has number i modulo their count
  std::optional<NormKind> norm{};     ///< of the model's own norms, and of the blocks that do not say otherwise; so the next four
  std::optional<double> norm_eps{};
  std::optional<bool> norm_bias{};
  std::optional<NormPosition> norm_position{};
  std::optional<double> residual_scale{};
  bool final_norm = true;             ///< a norm after the last block
  bool share_relative_bias = false;   ///< the table of layer 0 serves all layers
  double embedding_scale = 1;         ///< of the looked-up rows
  Positions positions{};
  Index num_token_types = 0;          ///< > 0: a second table, looked up by token type
  bool embedding_norm = false;        ///< a norm on the sum of embeddings
  double init_deviation = 0;          ///< > 0: all matrices start N(0, deviation^2) and biases 0 (GPT-2); 0: as each layer starts
  bool tie_embeddings = false;        ///< the head is the embedding table
  bool head_bias = false;
  double logit_scale = 1;             ///< logits = scale (W x + b)
  double logit_softcap = 0;           ///< c > 0: then c tanh(logits / c)
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("vocab_size", c.vocab_size);
    f("model_dim", c.model_dim);
    f("num_layers", c.num_layers);
    f("block", c.block);
    f("layers", c.layers);
    detail::visit_style(c, f);
    f("final_norm", c.final_norm);
    f("share_relative_bias", c.share_relative_bias);
    f("embedding_scale", c.embedding_scale);
    f("positions", c.positions);
    f("num_token_types", c.num_token_types);
    f("embedding_norm", c.embedding_norm);
    f("init_deviation", c.init_deviation);
    f("tie_embeddings", c.tie_embeddings);
    f("head_bias", c.head_bias);
    f("logit_scale", c.logit_scale);
    f("logit_softcap", c.logit_softcap);
  }
};

namespace detail {

/// All matrices N(0, deviation^2), all biases 0.
template <class M>
void initialise_normal(M& model, double deviation, Random& random) {
  for_each_leaf(model, [&](const Path& path, auto& p) {
    using T = typename std::remove_cvref_t<decltype(p)>::value_type;
    if (p.shape().rank() == 2) {
      for (T& w : p.mutate()) w = static_cast<T>(deviation * random.normal());
    } else if (path.name() == "bias") {
      for (T& w : p.mutate()) w = 0;
    }
  });
}
}  // namespace detail

/// hidden = norm(blocks(embedding_norm(embedding_scale E[id] + position + token type))).   ids: [B, L] integers -> [B, L, model_dim].
///
/// With causal mixers it streams; else the whole sequence is seen at once (BERT, the encoders of T5 and BART, decoders without a head).
template <class Mixer, class FF = FeedForward<typename Mixer::value_type>, class Cross = NoCross>
class Encoder {
 public:
  using StackType = Stack<Mixer, FF, Cross>;
  using BlockType = typename StackType::BlockType;
  using T = typename Mixer::value_type;
  using value_type = T;
  using Config = ModelConfig<BlockType>;
  using Table = DynParameter<T, 2>;

  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    typename StackType::template State<M> stack;
    StateTensor<M, std::int32_t, 1> position;  ///< [B]: tokens seen, where the model has positions
    bool has_position = false;
    void compact() {
      stack.compact();
    }
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      std::remove_cvref_t<decltype(s.stack)>::visit(s.stack, f);
      if (s.has_position) f("position", s.position);
    }
    /// A state of another mode for the same model, its tensors absent.
    template <Mode N>
    State<N> like() const {
      State<N> other;
      other.stack = stack.template like<N>();
      other.has_position = has_position;
      return other;
    }
  };

  Encoder() = default;
  [[gnu::cold]] Encoder(const Config& c, Random& random) : Encoder(c, random, true) {
    if (c.tie_embeddings || c.head_bias || c.logit_scale != 1 || c.logit_softcap != 0) {
      fail<ConfigError>("encoder: tie_embeddings, head_bias, logit_scale and logit_softcap are options of a head, which an encoder has not");
    }
    if (c.init_deviation > 0) detail::initialise_normal(*this, c.init_deviation, random);
  }
  /// As part of another model, which may have the table of embeddings.
  [[gnu::cold]] Encoder(const Config& c, Random& random, bool own_table) : config_(c) {
    detail::require_at_least("model", "vocab_size", c.vocab_size, 1);
    detail::require_at_least("model", "model_dim", c.model_dim, 1);
    if (own_table) embedding_ = std::move(Embedding<T>({.vocab_size = c.vocab_size, .model_dim = c.model_dim}, random).weight());
    if (c.positions.name == PositionKind::learned) {
      detail::require_at_least("model", "positions.max_length", c.positions.max_length, 1);
      position_embedding_ = std::move(Embedding<T>({.vocab_size = c.positions.max_length, .model_dim = c.model_dim}, random).weight());
    } else if (c.positions.name == PositionKind::sinusoidal && c.model_dim % 2 != 0) {
      fail<ConfigError>({"model: sinusoidal positions need an even model_dim, given ", c.model_dim});
    }
    if (c.num_token_types > 0) {
      token_type_embedding_ = std::move(Embedding<T>({.vocab_size = c.num_token_types, .model_dim = c.model_dim}, random).weight());
    }
    if (c.embedding_norm) embedding_norm_ = Norm<T>::of(c, c.model_dim);
    stack_ = StackType(c, random);
  }

  /// The hidden states of whole sequences. `token_types` [B, L]: with num_token_types.
  template <TensorLike Ids>
  auto operator()(const Ids& ids, const Inputs<mode_of<Ids>, T>& inputs = {}, const AnyTensor<std::int32_t>& token_types = {}) const {
    return hidden(embedding_, ids, inputs, token_types);
  }
  template <TensorLike Ids, Mode M>
  auto operator()(const Ids& ids, State<M>& state, const Inputs<mode_of<Ids>, T>& inputs = {}) const {
    return hidden(embedding_, ids, state, inputs);
  }
  template <TensorLike Ids, Mode M>
  auto step(const Ids& ids, State<M>& state, const Inputs<mode_of<Ids>, T>& inputs = {}) const {
    return step(embedding_, ids, state, inputs);
  }

  /// The same with a table that another model has.
  template <TensorLike Ids>
  auto hidden(const Table& table, const Ids& ids, const Inputs<mode_of<Ids>, T>& inputs, const AnyTensor<std::int32_t>& token_types = {}) const {
    if (token_types.present() != (config_.num_token_types > 0)) {
      fail<UsageError>(token_types.present() ? "model: token_types are given, num_token_types is 0" : "model: token_types are missing");
    }
    auto x = embedding(table, ids, config_.embedding_scale);
    if (config_.positions.name != PositionKind::no) x = add(x, position_vectors<2>(ids, view(ids), {}));
    if (token_types.present()) {
      if (!(token_types.shape() == Shape(view(ids).extents()))) {
        fail<ShapeError>({"model: token_types have shape ", token_types.shape(), ", the tokens ", Shape(view(ids).extents())});
      }
      x = add(x, rows<2>(ids, token_type_embedding_, token_types));
    }
    if (config_.embedding_norm) x = embedding_norm_(x);
    return stack_(std::move(x), inputs);
  }
  template <TensorLike Ids, Mode M>
  auto hidden(const Table& table, const Ids& ids, State<M>& state, const Inputs<mode_of<Ids>, T>& inputs) const {
    return stack_(embed_next<2>(table, ids, state), state.stack, inputs);
  }
  template <TensorLike Ids, Mode M>
  auto step(const Table& table, const Ids& ids, State<M>& state, const Inputs<mode_of<Ids>, T>& inputs) const {
    static_assert(rank_of<Ids> == 1, "step takes one token of every row: [B]");
    return stack_.step(embed_next<1>(table, ids, state), state.stack, inputs);
  }

  State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    s.stack = stack_.initial_state(batch);
    s.has_position = config_.positions.name != PositionKind::no;
    if (s.has_position) s.position = DynTensor<std::int32_t, 1>(batch);
    return s;
  }

  const Config& config() const noexcept { return config_; }
  const Table& embedding_table() const noexcept { return embedding_; }
  StackType& stack() noexcept { return stack_; }
  const StackType& stack() const noexcept { return stack_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    if (self.embedding_.present()) f("embedding.weight", self.embedding_);
    if (self.position_embedding_.present()) f("position_embedding.weight", self.position_embedding_);
    if (self.token_type_embedding_.present()) f("token_type_embedding.weight", self.token_type_embedding_);
    f("embedding_norm", self.embedding_norm_);
    StackType::visit(self.stack_, f);
  }

 private:
  /// Rows of a table, recorded where the tokens are tracked.
  template <std::size_t R, class Ids>
  auto rows(const Ids& ids, const Table& table, const AnyTensor<std::int32_t>& which) const {
    EmbeddingOp op;
    op.ids = which;
    return apply_in<R + 1>(recorder(ids), op, table);
  }
  /// The vectors of the positions from[b] + 0, 1, ... of each row: [B, L, D] or [B, D].
  template <std::size_t R, class Ids, class V>
  auto position_vectors(const Ids& ids, const V& tokens, const AnyTensor<std::int32_t>& from) const {
    const Index batch = tokens.extent(0), length = R == 2 ? tokens.extent(R - 1) : 1, d = config_.model_dim;
    const Positions& positions = config_.positions;
    if (positions.name == PositionKind::sinusoidal) {
      Shape shape(tokens.extents());
      shape.push_back(d);
      AnyTensor<T> table(shape);
      for (Index b = 0; b < batch; ++b) {
        const auto row = sinusoidal_positions<T>(length, d, from.present() ? from.data()[b] : 0, positions.layout);
        std::copy_n(row.data(), row.size(), table.data() + b * row.size());
      }
      return detail::wrap<mode_of<Ids>, R + 1, T>({std::move(table)});
    }
    AnyTensor<std::int32_t> places{Shape(tokens.extents())};
    for (Index b = 0; b < batch; ++b) {
      const Index first = from.present() ? from.data()[b] : 0;
      if (first + length > positions.max_length) {
        fail<ShapeError>({"model: position ", first + length - 1, ", the table of positions has ", positions.max_length, " rows"});
      }
      for (Index i = 0; i < length; ++i) places.data()[b * length + i] = static_cast<std::int32_t>(first + i);
    }
    return rows<R>(ids, position_embedding_, places);
  }
  /// The embeddings of the next tokens of a stream; moves the positions on.
  template <std::size_t R, class Ids, Mode M>
  auto embed_next(const Table& table, const Ids& ids, State<M>& state) const {
    if (config_.num_token_types > 0) fail<UsageError>("model: a model with token types has no stream");
    auto x = embedding(table, ids, config_.embedding_scale);
    if (state.has_position) {
      const auto v = view(ids);
      const Index batch = v.extent(0);
      if (state.position.size() != batch) {
        fail<ShapeError>({"model: tokens of ", batch, " rows, a state of ", state.position.size()});
      }
      x = add(x, position_vectors<R>(ids, v, borrow(state.position)));
      DynTensor<std::int32_t, 1> moved(batch);
      for (Index b = 0; b < batch; ++b) moved(b) = static_cast<std::int32_t>(state.position.data()[b] + (R == 2 ? v.extent(R - 1) : 1));
      if constexpr (M == Mode::plain) {
        state.position = std::move(moved);
      } else {
        state.position = track(state.position.tape(), moved);
      }
    }
    if (config_.embedding_norm) x = embedding_norm_(x);
    return x;
  }

  Config config_;
  Table embedding_, position_embedding_, token_type_embedding_;
  Norm<T> embedding_norm_;
  StackType stack_;
};

}  // namespace ordo
