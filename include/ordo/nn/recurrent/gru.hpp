#pragma once
/// \file
/// Gru: gated recurrent units.

#include <string_view>

#include "ordo/nn/recurrent/recurrent_layer.hpp"

namespace ordo {

/// Gated recurrent units (Cho et al. 2014, arXiv 1406.1078), weights in the rows r, z, n:
///
///     r = sigmoid(W_ir x + b_ir + W_hr h + b_hr);   z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
///     n = tanh(W_in x + b_in + r (W_hn h + b_hn))              reset_after: PyTorch, cuDNN, Keras 2
///     n = tanh(W_in x + b_in + b_hn + W_hn (r h))              otherwise: Cho et al., ONNX by default
///     h_t = (1 - z) n + z h_{t-1};   y_t = h_t
///
/// x [B, L, input_dim] -> y [B, L, directions * E]. State: N E numbers a row. A token costs 6 E (I + E) flops a layer and direction. Layers,
/// directions, Packing and Padding as in Rnn. Agrees with torch.nn.GRU and with ONNX's GRU (whose rows stand in the order z, r, h there).
template <class T = float>
class Gru : public detail::RecurrentLayer<T, GruStep> {
  using Base = detail::RecurrentLayer<T, GruStep>;

 public:
  static constexpr std::string_view layer_name = "gru";
  struct Config {
    Index input_dim = 0, hidden_dim = 0, num_layers = 1;
    bool bias = true, bidirectional = false;
    bool reset_after = true;  ///< the reset gate acts on W_hn h; false: on h before the product
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("input_dim", c.input_dim);
      f("hidden_dim", c.hidden_dim);
      f("num_layers", c.num_layers);
      f("bias", c.bias);
      f("bidirectional", c.bidirectional);
      f("reset_after", c.reset_after);
    }
  };
  Gru() = default;
  Gru(const Config& c, Random& random)
      : Base({.step = {c.reset_after}, .input_dim = c.input_dim, .hidden_dim = c.hidden_dim, .num_layers = c.num_layers, .bias = c.bias,
              .bidirectional = c.bidirectional},
             random) {}
};

static_assert(SequenceLayer<Gru<float>>);

}  // namespace ordo
