#pragma once
/// \file
/// StaticRnn, StaticLstm, StaticGru: recurrent layers whose sizes are known when the program is compiled.

#include <string>

#include "ordo/nn/recurrent/gru.hpp"
#include "ordo/nn/recurrent/lstm.hpp"
#include "ordo/nn/recurrent/rnn.hpp"
#include "ordo/nn/static/static_matrix.hpp"

namespace ordo {

namespace detail {

/// One layer, one direction, one row: weights, state and scratch stand inside, and a step touches no heap.
template <class T, class Step, Index I, Index E, bool TwoStages, class Arch>
class StaticRecurrent {
  static_assert(I >= 1 && E >= 1, "a recurrent layer has at least one input and one unit");
  using Cell = typename Step::template Cell<T>;
  static constexpr bool has_cell = Cell::has_cell;
  static constexpr Cell form() noexcept {
    Cell c{};
    if constexpr (requires { c.reset_after; }) c.reset_after = !TwoStages;
    return c;
  }
  static constexpr kernels::GateBlocks input_blocks = form().input_blocks(), hidden_blocks = form().hidden_blocks();
  static constexpr Index rows = Cell::weight_blocks * E, gates = form().gate_blocks() * E;

 public:
  using value_type = T;

  /// What a stream remembers.
  struct State {
    StaticVector<T, E> hidden;
    StaticVector<T, has_cell ? E : 0> cell;  ///< Lstm alone
    void reset() noexcept {
      hidden.fill(T(0));
      cell.fill(T(0));
    }
  };

  StaticRecurrent() = default;

  /// One token: the next hidden state.
  StaticVector<T, E> step(const StaticVector<T, I>& x, State& state) const noexcept {
    alignas(memory_alignment) T a[gates];
    alignas(memory_alignment) T q[TwoStages ? E : 1];
    std::copy_n(bias_.data(), gates, a);
    input_.add_product(x.data(), a);
    hidden_.add_product(state.hidden.data(), a + hidden_blocks[0].column * E);
    const kernels::CellRow<T> row{a, state.hidden.data(), state.cell.data(), state.cell.data(), q};
    cell_.forward(0, std::integral_constant<Index, E>{}, row);
    if constexpr (TwoStages) {
      second_.add_product(q, a + hidden_blocks[1].column * E);
      cell_.forward(1, std::integral_constant<Index, E>{}, row);
    }
    return state.hidden;
  }

 protected:
  template <class Layer>
  explicit StaticRecurrent(const Layer& layer) {
    const Step& step = layer.equations();
    cell_ = step.template cell<T>({}, {}, {});
    if (cell_.stages() != (TwoStages ? 2 : 1)) fail<ConfigError>(std::string(Step::name) + ": reset_after of the layer and of the fixed one differ");
    for_each_leaf(layer, [&](const Path& path, const auto& p) {
      const std::string name = path.str();
      const auto require = [&](const Shape& expected) {
        if (!(p.shape() == expected)) {
          fail<ShapeError>(std::string(Step::name) + ": " + name + " has shape " + to_string(p.shape()) + ", the fixed layer's " + to_string(expected));
        }
      };
      const T* const from = p.value().data();
      if (name == "weight_ih_l0") {
        require(Shape{rows, I});
        for (const auto& b : input_blocks) {
          for (Index r = 0; r < b.rows * E; ++r) input_.set_row(b.column * E + r, from + (b.row * E + r) * I);
        }
      } else if (name == "weight_hh_l0") {
        require(Shape{rows, E});
        for (Index r = 0; r < hidden_blocks[0].rows * E; ++r) hidden_.set_row(r, from + (hidden_blocks[0].row * E + r) * E);
        if constexpr (TwoStages) {
          for (Index r = 0; r < E; ++r) second_.set_row(r, from + (hidden_blocks[1].row * E + r) * E);
        }
      } else if (name == "bias_ih_l0" || name == "bias_hh_l0") {
        require(Shape{rows});
        for (const auto& b : name == "bias_ih_l0" ? input_blocks : hidden_blocks) {
          for (Index r = 0; r < b.rows * E; ++r) bias_[static_cast<std::size_t>(b.column * E + r)] += from[b.row * E + r];
        }
      } else {
        fail<ConfigError>(std::string(Step::name) + ": a fixed layer is one layer in one direction without projection and peepholes; it has no " + name);
      }
    });
  }

 private:
  StaticMatrix<T, rows, I, Arch> input_;
  StaticMatrix<T, hidden_blocks[0].rows * E, E, Arch> hidden_;
  StaticMatrix<T, TwoStages ? E : 0, E, Arch> second_;
  std::array<T, static_cast<std::size_t>(gates)> bias_{};
  Cell cell_;
};

}  // namespace detail

/// Rnn of I inputs and E units for one stream, without a heap:
///
///     Rnn<float> trained = ...;
///     StaticRnn<8, 16> rnn(trained);
///     StaticRnn<8, 16>::State state;
///     StaticVector<float, 16> y = rnn.step(x, state);
///
/// The numbers are those of Rnn::step, sums in another order.
template <Index I, Index E, class T = float, class Arch = simd::DefaultArch>
struct StaticRnn : detail::StaticRecurrent<T, RnnStep, I, E, false, Arch> {
  StaticRnn() = default;
  explicit StaticRnn(const Rnn<T>& layer) : detail::StaticRecurrent<T, RnnStep, I, E, false, Arch>(layer) {}
};

/// The same for Lstm, with its cell_clip and coupled_gates.
template <Index I, Index E, class T = float, class Arch = simd::DefaultArch>
struct StaticLstm : detail::StaticRecurrent<T, LstmStep, I, E, false, Arch> {
  StaticLstm() = default;
  explicit StaticLstm(const Lstm<T>& layer) : detail::StaticRecurrent<T, LstmStep, I, E, false, Arch>(layer) {}
};

/// The same for Gru; ResetAfter is the layer's reset_after.
template <Index I, Index E, class T = float, bool ResetAfter = true, class Arch = simd::DefaultArch>
struct StaticGru : detail::StaticRecurrent<T, GruStep, I, E, !ResetAfter, Arch> {
  StaticGru() = default;
  explicit StaticGru(const Gru<T>& layer) : detail::StaticRecurrent<T, GruStep, I, E, !ResetAfter, Arch>(layer) {}
};

}  // namespace ordo
