#pragma once
/// \file
/// RecurrentMixer: a recurrent layer as the mixer of a block.

#include "ordo/nn/linear.hpp"
#include "ordo/nn/recurrent/gru.hpp"
#include "ordo/nn/recurrent/lstm.hpp"
#include "ordo/nn/recurrent/rnn.hpp"

namespace ordo {

/// y = out_proj(layer(x)) with Rnn, Lstm or Gru as the layer, [B, L, model_dim] -> [B, L, model_dim]; without out_proj where the layer's
/// output has that width already. One layer in one direction: stacks are what blocks are for.
///
///     CausalLm<RecurrentMixer<Gru<float>>, Mlp<float>> model({.vocab_size = 256, .model_dim = 128, .num_layers = 3}, random);
///
/// State: that of the layer. Parameters: those of the layer (`weight_ih_l0`, ...) and `out_proj.weight`.
template <class Layer>
class RecurrentMixer {
 public:
  using value_type = typename Layer::value_type;
  using T = value_type;
  struct Config {
    Index model_dim = 0;
    /// input_dim is model_dim, and so is hidden_dim if it is 0.
    typename Layer::Config layer{};
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      Layer::Config::visit(c.layer, [&](std::string_view name, auto& field) {
        if (name != "input_dim" && name != "num_layers" && name != "bidirectional") f(name, field);
      });
    }
  };
  template <Mode M = Mode::plain>
  using State = typename Layer::template State<M>;

  RecurrentMixer() = default;
  RecurrentMixer(Config c, Random& random) {
    detail::require_at_least("recurrent_mixer", "model_dim", c.model_dim, 1);
    if (c.layer.num_layers != 1 || c.layer.bidirectional) {
      fail<ConfigError>("recurrent_mixer: a mixer is one layer in one direction, given num_layers " + std::to_string(c.layer.num_layers) +
                        (c.layer.bidirectional ? ", bidirectional" : ""));
    }
    if (c.layer.input_dim != 0 && c.layer.input_dim != c.model_dim) {
      fail<ConfigError>("recurrent_mixer: input_dim is model_dim " + std::to_string(c.model_dim) + ", given " + std::to_string(c.layer.input_dim));
    }
    c.layer.input_dim = c.model_dim;
    if (c.layer.hidden_dim == 0) c.layer.hidden_dim = c.model_dim;
    layer_ = Layer(c.layer, random);
    projects_ = layer_.output_dim() != c.model_dim;
    if (projects_) out_proj_ = Linear<T>({layer_.output_dim(), c.model_dim, false}, random);
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    return projected(layer_(x));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    return projected(layer_(x, state));
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return projected(layer_.step(x_t, state));
  }
  State<Mode::plain> initial_state(Index batch) const { return layer_.initial_state(batch); }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    Layer::visit(self.layer_, f);
    if (self.projects_) f("out_proj", self.out_proj_);
  }

 private:
  template <class Y>
  auto projected(Y y) const {
    return projects_ ? out_proj_(y) : y;
  }
  Layer layer_;
  Linear<T> out_proj_;
  bool projects_ = false;
};

static_assert(SequenceLayer<RecurrentMixer<Gru<float>>>);

}  // namespace ordo
