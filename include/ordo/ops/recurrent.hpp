#pragma once
/// \file
/// Recurrent sequences: one layer, one direction.

#include <array>
#include <tuple>

#include "ordo/kernels/recurrent.hpp"
#include "ordo/ops/matmul.hpp"
#include "ordo/ops/sequences.hpp"

namespace ordo {

/// h = f(a), f = tanh or max(., 0).
struct RnnStep {
  static constexpr const char* name = "rnn";
  template <class T>
  using Cell = kernels::RnnCell<T>;
  bool relu = false;
  template <class T>
  Cell<T> cell(const AnyTensor<T>&, const AnyTensor<T>&, const AnyTensor<T>&) const {
    return {relu};
  }
};

/// i, f, o = sigmoid(a + peephole), g = tanh(a); c = clip(f c + i g); h = o tanh(c). Rows i, f, g, o.
struct LstmStep {
  static constexpr const char* name = "lstm";
  template <class T>
  using Cell = kernels::LstmCell<T>;
  bool coupled_gates = false;  ///< f = 1 - i; the f rows are read nowhere
  double cell_clip = 0;        ///< > 0: bound of |c|
  template <class T>
  Cell<T> cell(const AnyTensor<T>& peephole_i, const AnyTensor<T>& peephole_f, const AnyTensor<T>& peephole_o) const {
    return {peephole_i.data(), peephole_f.data(), peephole_o.data(), coupled_gates, static_cast<T>(cell_clip)};
  }
};

/// r, z = sigmoid(a); n = tanh(x's part + r h's part); h = (1 - z) n + z h. Rows r, z, n.
struct GruStep {
  static constexpr const char* name = "gru";
  template <class T>
  using Cell = kernels::GruCell<T>;
  bool reset_after = true;  ///< false: the reset gate comes before the product, W_hn (r h)
  template <class T>
  Cell<T> cell(const AnyTensor<T>&, const AnyTensor<T>&, const AnyTensor<T>&) const {
    return {reset_after};
  }
};

/// How a recurrent sequence runs.
struct RecurrentOptions {
  bool reverse = false;        ///< from the last token of each sequence to its first
  double projection_clip = 0;  ///< > 0: bound of the projected |h|
  Packing packing{};
};

/// Arguments: x, weight_ih, weight_hh, bias_ih?, bias_hh?, weight_hr?, peephole_i?, peephole_f?, peephole_o?, hidden?, cell?;
/// outputs: y, hidden and, with a cell, cell.
template <class Step>
struct RecurrentOp {
  static constexpr const char* name = Step::name;
  static constexpr bool has_cell = Step::template Cell<float>::has_cell;
  static constexpr unsigned keeps_inputs = 0x7ff, keeps_outputs = 1;
  static constexpr std::size_t outputs = has_cell ? 3 : 2;
  Step step;
  RecurrentOptions options;
  const void *panels_ih = nullptr, *panels_hh = nullptr, *panels_hr = nullptr;  // BlockPanels<T>, and PackedMatrix<T>, if there already

  template <class T>
  struct Saved {
    AnyTensor<T> gates, cells;
  };

  template <class T>
  std::array<AnyTensor<T>, outputs> forward(Saved<T>* saved, const AnyTensor<T>& x, const AnyTensor<T>& weight_ih, const AnyTensor<T>& weight_hh,
                                            const AnyTensor<T>& bias_ih, const AnyTensor<T>& bias_hh, const AnyTensor<T>& weight_hr,
                                            const AnyTensor<T>& peephole_i, const AnyTensor<T>& peephole_f, const AnyTensor<T>& peephole_o,
                                            const AnyTensor<T>& hidden, const AnyTensor<T>& cell) const {
    constexpr Index blocks = Step::template Cell<T>::weight_blocks;
    if (x.rank() != 3 || weight_ih.rank() != 2 || weight_ih.extent(1) != x.extent(2) || weight_ih.extent(0) % blocks != 0) {
      fail<ShapeError>(std::string(name) + ": x has shape " + to_string(x.shape()) + ", weight_ih " + to_string(weight_ih.shape()) +
                       "; expected [B, L, I] and [" + (blocks == 1 ? "" : std::to_string(blocks) + " ") + "E, I]");
    }
    const Index rows = weight_ih.extent(0), width = rows / blocks, out = weight_hr.present() ? weight_hr.shape()[0] : width;
    detail::require_shape(name, "weight_hh", weight_hh, Shape{rows, out});
    detail::require_shape(name, "bias_ih", bias_ih, Shape{rows});
    detail::require_shape(name, "bias_hh", bias_hh, Shape{rows});
    detail::require_shape(name, "weight_hr", weight_hr, Shape{out, width});
    for (const auto* peephole : {&peephole_i, &peephole_f, &peephole_o}) detail::require_shape(name, "a peephole", *peephole, Shape{width});
    const kernels::Sequences sequences = options.packing.sequences(name, x.extent(0), x.extent(1));
    detail::require_shape(name, "hidden", hidden, Shape{sequences.count, out});
    detail::require_shape(name, "cell", cell, Shape{sequences.count, width});
    auto p = problem(x, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole_i, peephole_f, peephole_o, hidden, cell);
    p.packed_ih = static_cast<const kernels::BlockPanels<T>*>(panels_ih);
    p.packed_hh = static_cast<const kernels::BlockPanels<T>*>(panels_hh);
    p.packed_hr = static_cast<const kernels::PackedMatrix<T>*>(panels_hr);
    std::array<AnyTensor<T>, outputs> y;
    y[0] = AnyTensor<T>(x.shape().with_back(out));
    y[1] = AnyTensor<T>(Shape{sequences.count, out});
    if constexpr (has_cell) y[2] = AnyTensor<T>(Shape{sequences.count, width});
    kernels::RecurrenceTape<T> tape;
    if (saved != nullptr) {
      const Index tokens = sequences.rows();
      saved->gates = AnyTensor<T>(Shape{tokens, p.cell.gate_blocks() * width});
      if constexpr (has_cell) saved->cells = AnyTensor<T>(Shape{tokens, width});
      tape = {saved->gates.data(), saved->cells.data()};
    }
    kernels::recurrent_forward(p, y[0].data(), y[1].data(), y[outputs - 1].data(), tape);
    return y;
  }

  template <class T>
  void backward(Pullback<T>& p, const Saved<T>& saved) const {
    std::array<AnyTensor<T>, 11> in, g;
    for (std::size_t i = 0; i < in.size(); ++i) {
      in[i] = p.input(i).value;
      g[i] = detail::gradient_like(p, i);
    }
    kernels::RecurrenceGradients<T> out;
    out.x = g[0].data();
    out.weight_ih = g[1].data();
    out.weight_hh = g[2].data();
    out.bias_ih = g[3].data();
    out.bias_hh = g[4].data();
    out.weight_hr = g[5].data();
    out.peephole_i = g[6].data();
    out.peephole_f = g[7].data();
    out.peephole_o = g[8].data();
    out.hidden_in = g[9].data();
    out.cell_in = g[10].data();
    AnyTensor<T> gates = saved.gates, cells = saved.cells;
    kernels::recurrent_backward(problem(in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8], in[9], in[10]),
                                {gates.data(), cells.data()}, p.output(0).value.data(), p.grad(0).value.data(), p.grad(1).value.data(),
                                has_cell ? p.grad(outputs - 1).value.data() : nullptr, out);
    for (std::size_t i = 0; i < g.size(); ++i) {
      if (p.needs(i)) p.add(i, std::move(g[i]));
    }
  }

 private:
  template <class T>
  auto problem(const AnyTensor<T>& x, const AnyTensor<T>& weight_ih, const AnyTensor<T>& weight_hh, const AnyTensor<T>& bias_ih,
               const AnyTensor<T>& bias_hh, const AnyTensor<T>& weight_hr, const AnyTensor<T>& peephole_i, const AnyTensor<T>& peephole_f,
               const AnyTensor<T>& peephole_o, const AnyTensor<T>& hidden, const AnyTensor<T>& cell) const {
    kernels::Recurrence<T, typename Step::template Cell<T>> r;
    r.cell = step.cell(peephole_i, peephole_f, peephole_o);
    r.sequences = options.packing.sequences(name, x.extent(0), x.extent(1));
    r.reverse = options.reverse;
    r.input = x.extent(2);
    r.output = weight_hh.extent(1);
    r.hidden = weight_hh.extent(0) / Step::template Cell<T>::weight_blocks;
    r.x = x.data();
    r.weight_ih = weight_ih.data();
    r.weight_hh = weight_hh.data();
    r.bias_ih = bias_ih.data();
    r.bias_hh = bias_hh.data();
    r.weight_hr = weight_hr.data();
    r.projection_clip = static_cast<T>(options.projection_clip);
    r.hidden_in = hidden.data();
    r.cell_in = cell.data();
    return r;
  }
};

/// One recurrent layer in one direction, a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh, with the equations of `Step` (RnnStep, LstmStep,
/// GruStep) and, for Lstm, h_t = clip(W_hr (o tanh(c_t))) with a projection.
///
/// x: [B, L, I] -> y: [B, L, P] (P = E without a projection); weight_ih [R, I], weight_hh [R, P], biases [R], weight_hr [P, E],
/// peepholes [E]; hidden [B, P], cell [B, E] (a row for each sequence if packed). What is not there is `none`: no bias, no projection,
/// zero states. Returns (y, hidden) or (y, hidden, cell). A token costs 2 R (I + P) flops; recorded, it keeps R + E numbers (Gru 4 E). The
/// weights of a plain call on Parameters are packed once.
template <class Step, TensorLike X, TensorLike Wih, TensorLike Whh, class Bih, class Bhh, class Whr, class Pi, class Pf, class Po, class H, class C>
auto recurrent(const Step& step, const X& x, const Wih& weight_ih, const Whh& weight_hh, const Bih& bias_ih, const Bhh& bias_hh,
               const Whr& weight_hr, const Pi& peephole_i, const Pf& peephole_f, const Po& peephole_o, const H& hidden, const C& cell,
               const RecurrentOptions& options = {}) {
  using Op = RecurrentOp<Step>;
  using T = value_type_of<X>;
  static_assert(rank_of<X> == 3 || rank_of<X> == dynamic_rank, "a recurrent sequence has the shape [B, L, I]");
  Op op{step, options};
  if constexpr (mode_of<X, H, C> == Mode::plain && is_parameter<Wih> && is_parameter<Whh> && is_parameter<Whr>) {
    struct Panels {
      kernels::BlockPanels<T> blocks;
    };
    const auto packed = [&](const auto& w, const kernels::GateBlocks& blocks, Index hidden_dim) -> const void* {
      return &w.template derived<Panels>([&] {
        return Panels{kernels::pack_blocks(blocks, w.value().data(), hidden_dim, w.value().extent(1))};
      }).blocks;
    };
    const auto cell_of = step.template cell<T>({}, {}, {});
    const Index rows = weight_hh.value().extent(0), hidden_dim = rows / Step::template Cell<T>::weight_blocks;
    if (weight_ih.value().extent(0) == rows) {
      op.panels_ih = packed(weight_ih, cell_of.input_blocks(), hidden_dim);
      op.panels_hh = packed(weight_hh, cell_of.hidden_blocks(), hidden_dim);
      if (weight_hr.present()) op.panels_hr = detail::packed_weight(weight_hr);
    }
  }
  if constexpr (Op::has_cell) {
    return apply<3, 2, 2>(op, x, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole_i, peephole_f, peephole_o, hidden, cell);
  } else {
    return apply<3, 2>(op, x, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole_i, peephole_f, peephole_o, hidden, cell);
  }
}

}  // namespace ordo
