#pragma once
/// \file
/// Rnn: the simple recurrent network.

#include "ordo/nn/recurrent/recurrent_layer.hpp"

namespace ordo {

namespace detail {
inline RnnStep rnn_step(const char* layer, Activation activation) {
  if (activation != Activation::tanh && activation != Activation::relu) {
    fail<ConfigError>(std::string(layer) + ": activation is tanh or relu, given " + to_string(activation));
  }
  return {activation == Activation::relu};
}
}  // namespace detail

/// h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), y_t = h_t, f = tanh or relu (Elman 1990).
///
/// x [B, L, input_dim] -> y [B, L, directions * E]; layers stand on top of each other, and of a bidirectional layer the next one reads
/// [forward ; reverse]. State: N E numbers a row. A token costs 2 E (I + E) flops a layer and direction.
/// Packed sequences and rows of different lengths: pass a Packing or a Padding. Agrees with torch.nn.RNN.
template <class T = float>
class Rnn : public detail::RecurrentLayer<T, RnnStep> {
  using Base = detail::RecurrentLayer<T, RnnStep>;

 public:
  struct Config {
    Index input_dim = 0, hidden_dim = 0, num_layers = 1;
    bool bias = true, bidirectional = false;
    Activation activation = Activation::tanh;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("input_dim", c.input_dim);
      f("hidden_dim", c.hidden_dim);
      f("num_layers", c.num_layers);
      f("bias", c.bias);
      f("bidirectional", c.bidirectional);
      f("activation", c.activation);
    }
  };
  Rnn() = default;
  Rnn(const Config& c, Random& random)
      : Base({.step = detail::rnn_step("rnn", c.activation), .input_dim = c.input_dim, .hidden_dim = c.hidden_dim, .num_layers = c.num_layers,
              .bias = c.bias, .bidirectional = c.bidirectional},
             random) {}
};

static_assert(SequenceLayer<Rnn<float>>);

}  // namespace ordo
