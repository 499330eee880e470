#pragma once
/// \file
/// Recurrent layers of the layer list.

#include "ordo/eval/layers/entry.hpp"
#include "ordo/nn/recurrent/gru.hpp"
#include "ordo/nn/recurrent/lstm.hpp"
#include "ordo/nn/recurrent/recurrent_mixer.hpp"
#include "ordo/nn/recurrent/rnn.hpp"
#include "ordo/stack/causal_lm.hpp"

namespace ordo {

template <>
struct LayersOf<Family::recurrent> {
  // Odd sizes, and sizes beyond one vector: tails and full vectors are both reached. No relu: differences across its kink prove nothing.
  template <class T, class F>
  static void list(F& f) {
    using detail::list_layer;
    list_layer<Rnn<T>>(f, "rnn", Family::recurrent, {{.input_dim = 5, .hidden_dim = 7}, {.input_dim = 3, .hidden_dim = 18, .num_layers = 2, .bias = false}});
    list_layer<Lstm<T>>(f, "lstm", Family::recurrent, {{.input_dim = 5, .hidden_dim = 7}, {.input_dim = 3, .hidden_dim = 18, .num_layers = 2, .bias = false, .projection_dim = 5, .cell_clip = 1, .projection_clip = 0.5},
                                                       {.input_dim = 4, .hidden_dim = 6, .peephole = true, .coupled_gates = true}});
    list_layer<Gru<T>>(f, "gru", Family::recurrent, {{.input_dim = 5, .hidden_dim = 7}, {.input_dim = 3, .hidden_dim = 18, .num_layers = 2, .bias = false, .reset_after = false}});
    list_layer<CausalLm<RecurrentMixer<Lstm<T>>, Mlp<T>>>(f, "lstm_lm", Family::recurrent, {{.vocab_size = 11, .model_dim = 6, .num_layers = 2, .block = {.feed_forward = {{.ff_dim = 9}}}, .tie_embeddings = true}});
    list_layer<CausalLm<RecurrentMixer<Gru<T>>>>(f, "gru_lm", Family::recurrent, {{.vocab_size = 7, .model_dim = 5, .num_layers = 2, .block = {.mixer = {.layer = {.hidden_dim = 8}}}}});
  }
};

}  // namespace ordo
