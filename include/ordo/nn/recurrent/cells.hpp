#pragma once
/// \file
/// RnnCell, LstmCell, GruCell: one step of Rnn, Lstm and Gru, for loops that a program writes itself.

#include "ordo/nn/recurrent/gru.hpp"
#include "ordo/nn/recurrent/lstm.hpp"
#include "ordo/nn/recurrent/rnn.hpp"

namespace ordo {

namespace detail {

/// A recurrent layer of one token: x [B, I] and a state make y [B, E], the new hidden state.
template <class T, class Step>
class RecurrentCell {
  static constexpr bool has_cell = RecurrentOp<Step>::has_cell;

 public:
  using value_type = T;

  /// `hidden` [B, E] and, for LstmCell, `cell` [B, E].
  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    StateTensor<M, T, 2> hidden;
    struct NoCell {};
    [[no_unique_address]] std::conditional_t<has_cell, StateTensor<M, T, 2>, NoCell> cell;
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("hidden", s.hidden);
      if constexpr (has_cell) f("cell", s.cell);
    }
  };

  RecurrentCell() = default;

  /// From a zero state.
  template <TensorLike X>
  auto operator()(const X& x) const {
    return last(std::get<0>(weights_.run(step_, one_token(x), none, none, {})));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    if constexpr (has_cell) {
      auto [y, hidden, cell] = weights_.run(step_, one_token(x), state.hidden, state.cell, {});
      state.hidden = std::move(hidden);
      state.cell = std::move(cell);
      return last(y);
    } else {
      auto [y, hidden] = weights_.run(step_, one_token(x), state.hidden, none, {});
      state.hidden = std::move(hidden);
      return last(y);
    }
  }
  State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    s.hidden = DynTensor<T, 2>(batch, hidden_dim_);
    if constexpr (has_cell) s.cell = DynTensor<T, 2>(batch, hidden_dim_);
    return s;
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    RecurrentWeights<T>::visit(self.weights_, "", f);
  }

 protected:
  RecurrentCell(const char* name, const Step& step, Index input_dim, Index hidden_dim, bool bias, Random& random) : step_(step), hidden_dim_(hidden_dim) {
    require_at_least(name, "input_dim", input_dim, 1);
    require_at_least(name, "hidden_dim", hidden_dim, 1);
    weights_ = RecurrentWeights<T>(Step::template Cell<T>::weight_blocks, input_dim, hidden_dim, 0, bias, false, random);
  }
  RecurrentWeights<T>& weights() noexcept { return weights_; }

 private:
  template <class Y>
  static auto last(const Y& y) {
    return only_token(y);
  }
  Step step_{};
  Index hidden_dim_ = 0;
  RecurrentWeights<T> weights_;
};

}  // namespace detail

/// One step of Rnn. Agrees with torch.nn.RNNCell.
template <class T = float>
class RnnCell : public detail::RecurrentCell<T, RnnStep> {
 public:
  struct Config {
    Index input_dim = 0, hidden_dim = 0;
    bool bias = true;
    Activation activation = Activation::tanh;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("input_dim", c.input_dim);
      f("hidden_dim", c.hidden_dim);
      f("bias", c.bias);
      f("activation", c.activation);
    }
  };
  RnnCell() = default;
  RnnCell(const Config& c, Random& random)
      : detail::RecurrentCell<T, RnnStep>("rnn_cell", detail::rnn_step("rnn_cell", c.activation), c.input_dim, c.hidden_dim, c.bias, random) {}
};

/// One step of Lstm, without its options. Agrees with torch.nn.LSTMCell.
template <class T = float>
class LstmCell : public detail::RecurrentCell<T, LstmStep> {
 public:
  struct Config {
    Index input_dim = 0, hidden_dim = 0;
    bool bias = true;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("input_dim", c.input_dim);
      f("hidden_dim", c.hidden_dim);
      f("bias", c.bias);
    }
  };
  LstmCell() = default;
  LstmCell(const Config& c, Random& random) : detail::RecurrentCell<T, LstmStep>("lstm_cell", {}, c.input_dim, c.hidden_dim, c.bias, random) {
    detail::open_forget_gates(this->weights());
  }
};

/// One step of Gru, the reset gate after the product. Agrees with torch.nn.GRUCell.
template <class T = float>
class GruCell : public detail::RecurrentCell<T, GruStep> {
 public:
  using Config = typename LstmCell<T>::Config;
  GruCell() = default;
  GruCell(const Config& c, Random& random) : detail::RecurrentCell<T, GruStep>("gru_cell", {}, c.input_dim, c.hidden_dim, c.bias, random) {}
};

}  // namespace ordo
