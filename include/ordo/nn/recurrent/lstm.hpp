#pragma once
/// \file
/// Lstm: long short-term memory.

#include <string_view>

#include "ordo/nn/recurrent/recurrent_layer.hpp"

namespace ordo {

namespace detail {
/// Forget gates start open: their input bias is 1.
template <class T>
void open_forget_gates(RecurrentWeights<T>& w) {
  if (!w.bias_ih.present()) return;
  auto& bias = w.bias_ih.mutate();
  std::fill_n(bias.data() + bias.size() / 4, bias.size() / 4, T(1));
}
}  // namespace detail

/// Long short-term memory (Hochreiter and Schmidhuber 1997; Gers et al. 2000), with a = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh in the rows
/// i, f, g, o:
///
///     i = sigmoid(a_i [+ p_i c_{t-1}]);   f = sigmoid(a_f [+ p_f c_{t-1}])  or, coupled, 1 - i;   g = tanh(a_g)
///     c_t = clip(f c_{t-1} + i g);   o = sigmoid(a_o [+ p_o c_t]);   h_t = o tanh(c_t)  or  clip(W_hr (o tanh(c_t)));   y_t = h_t
///
/// x [B, L, input_dim] -> y [B, L, directions * P], P = projection_dim or E = hidden_dim. State: N (P + E) numbers a row. A token costs
/// 8 E (I + P) flops a layer and direction. Layers, directions, Packing and Padding as in Rnn. Matrices start uniform on (-1, 1) / sqrt(E),
/// biases 0 but 1 for f. Agrees with torch.nn.LSTM (projection included), with allennlp's LstmCellWithProjection for the clips, and with
/// ONNX's LSTM for peepholes and coupled gates (whose rows stand in the order i, o, f, c there). A state that comes in is not clipped.
template <class T = float>
class Lstm : public detail::RecurrentLayer<T, LstmStep> {
  using Base = detail::RecurrentLayer<T, LstmStep>;

 public:
  static constexpr std::string_view layer_name = "lstm";
  struct Config {
    Index input_dim = 0, hidden_dim = 0, num_layers = 1;
    bool bias = true, bidirectional = false;
    Index projection_dim = 0;    ///< P, 0 < P < hidden_dim; 0: none
    bool peephole = false;       ///< weights p of the cell in the gates; not with a projection
    bool coupled_gates = false;  ///< f = 1 - i; not with a projection
    double cell_clip = 0;        ///< > 0: bound of |c|
    double projection_clip = 0;  ///< > 0: bound of the projected |h|
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("input_dim", c.input_dim);
      f("hidden_dim", c.hidden_dim);
      f("num_layers", c.num_layers);
      f("bias", c.bias);
      f("bidirectional", c.bidirectional);
      f("projection_dim", c.projection_dim);
      f("peephole", c.peephole);
      f("coupled_gates", c.coupled_gates);
      f("cell_clip", c.cell_clip);
      f("projection_clip", c.projection_clip);
    }
  };
  Lstm() = default;
  Lstm(const Config& c, Random& random) : Base(checked(c), random) {
    for (auto& w : this->weights()) detail::open_forget_gates(w);
  }

 private:
  static detail::RecurrentShape<LstmStep> checked(const Config& c) {
    if (c.projection_dim != 0 && (c.projection_dim < 0 || c.projection_dim >= c.hidden_dim)) {
      fail<ConfigError>("lstm: projection_dim must be positive and less than hidden_dim " + std::to_string(c.hidden_dim) + ", or 0, given " +
                        std::to_string(c.projection_dim));
    }
    if (c.projection_dim != 0 && (c.peephole || c.coupled_gates)) fail<ConfigError>("lstm: a projection excludes peephole and coupled_gates");
    if (c.cell_clip < 0 || c.projection_clip < 0) fail<ConfigError>("lstm: cell_clip and projection_clip must be positive, or 0 for none");
    return {.step = {c.coupled_gates, c.cell_clip}, .input_dim = c.input_dim, .hidden_dim = c.hidden_dim, .num_layers = c.num_layers,
            .projection_dim = c.projection_dim, .bias = c.bias, .bidirectional = c.bidirectional, .peephole = c.peephole,
            .projection_clip = c.projection_dim > 0 ? c.projection_clip : 0};
  }
};

static_assert(SequenceLayer<Lstm<float>>);

}  // namespace ordo
