#pragma once
/// \file
/// What Rnn, Lstm and Gru have in common: weights, directions, layers on top of each other, the state of all.

#include <cmath>
#include <string>
#include <tuple>
#include <vector>

#include "ordo/nn/layer.hpp"
#include "ordo/nn/sequences.hpp"
#include "ordo/ops/recurrent.hpp"

namespace ordo::detail {

/// A member's name and where it belongs ("weight_ih" + "_l0_reverse"), without a heap: models are visited in every training step.
class MemberName {
 public:
  MemberName(std::string_view name, std::string_view suffix) noexcept {
    for (const std::string_view part : {name, suffix}) {
      for (const char c : part) text_[size_++] = c;
    }
  }
  operator std::string_view() const noexcept { return {text_, size_}; }  // NOLINT(google-explicit-constructor)

 private:
  char text_[56];
  std::size_t size_ = 0;
};

/// The weights of one direction of one layer, with PyTorch's names.
template <class T>
struct RecurrentWeights {
  DynParameter<T, 2> weight_ih, weight_hh, weight_hr;
  DynParameter<T, 1> bias_ih, bias_hh, peephole_i, peephole_f, peephole_o;

  RecurrentWeights() = default;
  /// `blocks` blocks of E rows over `input` features; P = `projection` (0: none). Matrices start uniform on (-1, 1) / sqrt(E), biases 0.
  RecurrentWeights(Index blocks, Index input, Index hidden, Index projection, bool bias, bool peephole, Random& random) {
    const double bound = 1 / std::sqrt(static_cast<double>(hidden));
    const Index rows = blocks * hidden, output = projection > 0 ? projection : hidden;
    weight_ih = uniform_parameter<T>(DynExtents<2>(rows, input), bound, random);
    weight_hh = uniform_parameter<T>(DynExtents<2>(rows, output), bound, random);
    if (projection > 0) weight_hr = uniform_parameter<T>(DynExtents<2>(projection, hidden), bound, random);
    if (bias) {
      bias_ih = constant_parameter<T>(DynExtents<1>(rows), 0);
      bias_hh = constant_parameter<T>(DynExtents<1>(rows), 0);
    }
    if (peephole) {
      for (auto* p : {&peephole_i, &peephole_f, &peephole_o}) *p = uniform_parameter<T>(DynExtents<1>(hidden), bound, random);
    }
  }

  /// (y, hidden) or (y, hidden, cell).
  template <class Step, class X, class H, class C>
  auto run(const Step& step, const X& x, const H& hidden, const C& cell, const RecurrentOptions& options) const {
    return recurrent(step, x, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, peephole_i, peephole_f, peephole_o, hidden, cell, options);
  }

  template <class Self, class F>
  static void visit(Self& w, std::string_view suffix, F&& f) {
    const auto name = [&](std::string_view member, auto& p) {
      if (p.present()) f(static_cast<std::string_view>(MemberName(member, suffix)), p);
    };
    name("weight_ih", w.weight_ih);
    name("weight_hh", w.weight_hh);
    name("bias_ih", w.bias_ih);
    name("bias_hh", w.bias_hh);
    name("weight_hr", w.weight_hr);
    name("peephole_i", w.peephole_i);
    name("peephole_f", w.peephole_f);
    name("peephole_o", w.peephole_o);
  }
};

/// What a recurrent layer is made of beside its sizes: filled in by Rnn, Lstm and Gru from their configurations.
template <class Step>
struct RecurrentShape {
  Step step{};
  Index input_dim = 0, hidden_dim = 0, num_layers = 1, projection_dim = 0;
  bool bias = true, bidirectional = false, peephole = false;
  double projection_clip = 0;
  Index directions() const noexcept { return bidirectional ? 2 : 1; }
  Index output_dim() const noexcept { return projection_dim > 0 ? projection_dim : hidden_dim; }
};

template <class T, class Step>
class RecurrentLayer {
  static constexpr bool has_cell = RecurrentOp<Step>::has_cell;

 public:
  using value_type = T;

  /// `hidden` [B, N, P] and, for Lstm, `cell` [B, N, E]; N = num_layers * directions, number layer * directions + direction
  /// (0 forward, 1 reverse). PyTorch has N before B.
  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    StateTensor<M, T, 3> hidden;
    struct NoCell {};
    [[no_unique_address]] std::conditional_t<has_cell, StateTensor<M, T, 3>, NoCell> cell;
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("hidden", s.hidden);
      if constexpr (has_cell) f("cell", s.cell);
    }
  };

  RecurrentLayer() = default;

  template <TensorLike X>
  auto operator()(const X& x, const Packing& packing = {}) const {
    return run(x, none, none, packing).y;
  }
  /// From a state, which becomes that after the last token (of a reverse direction: after the first).
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state, const Packing& packing = {}) const {
    auto result = [&] {
      if constexpr (has_cell) {
        return run(x, state.hidden, state.cell, packing);
      } else {
        return run(x, state.hidden, none, packing);
      }
    }();
    state.hidden = std::move(result.hidden);
    if constexpr (has_cell) state.cell = std::move(result.cell);
    return std::move(result.y);
  }
  /// Rows of different lengths: a state stops at the last real token, y is zero at padded ones.
  template <TensorLike X>
  auto operator()(const X& x, const Padding& padding) const {
    return padding.unpack((*this)(padding.pack(x), padding.packing()));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state, const Padding& padding) const {
    return padding.unpack((*this)(padding.pack(x), state, padding.packing()));
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    if (shape_.bidirectional) fail<UsageError>(std::string(Step::name) + ": a bidirectional layer has no steps: it reads the whole sequence first");
    return only_token((*this)(one_token(x_t), state));
  }
  State<Mode::plain> initial_state(Index batch) const {
    const Index n = shape_.num_layers * shape_.directions();
    State<Mode::plain> s;
    s.hidden = DynTensor<T, 3>(batch, n, shape_.output_dim());
    if constexpr (has_cell) s.cell = DynTensor<T, 3>(batch, n, shape_.hidden_dim);
    return s;
  }

  /// The equations of a step and their options.
  const Step& equations() const noexcept { return shape_.step; }
  /// The features of y: directions * P.
  Index output_dim() const noexcept { return shape_.directions() * shape_.output_dim(); }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    const Index directions = self.shape_.directions();
    for (Index i = 0; i < static_cast<Index>(self.weights_.size()); ++i) {
      RecurrentWeights<T>::visit(self.weights_[static_cast<std::size_t>(i)], suffix(i / directions, i % directions == 1), f);
    }
  }

 protected:
  RecurrentLayer(const RecurrentShape<Step>& shape, Random& random) : shape_(shape) {
    const RecurrentShape<Step>& s = shape_;
    require_at_least(Step::name, "input_dim", s.input_dim, 1);
    require_at_least(Step::name, "hidden_dim", s.hidden_dim, 1);
    require_at_least(Step::name, "num_layers", s.num_layers, 1);
    require_at_least(Step::name, "projection_dim", s.projection_dim, 0);
    for (Index layer = 0; layer < s.num_layers; ++layer) {
      const Index width = layer == 0 ? s.input_dim : output_dim();
      for (Index d = 0; d < s.directions(); ++d) {
        weights_.emplace_back(Step::template Cell<T>::weight_blocks, width, s.hidden_dim, s.projection_dim, s.bias, s.peephole, random);
      }
    }
  }
  std::vector<RecurrentWeights<T>>& weights() noexcept { return weights_; }

 private:
  template <class Y, class S>
  struct Result {
    Y y;
    S hidden, cell;
  };

  static MemberName suffix(Index layer, bool reverse) {
    char digits[24];
    std::size_t at = sizeof digits;
    do digits[--at] = static_cast<char>('0' + layer % 10);
    while ((layer /= 10) > 0);
    return {MemberName("_l", std::string_view(digits + at, sizeof digits - at)), reverse ? "_reverse" : ""};
  }

  /// State number i of all, [B, width].
  template <class S>
  auto state_of(const S& all, Index i) const {
    if constexpr (std::is_same_v<S, None>) {
      static_cast<void>(i);
      return none;
    } else {
      const auto v = view(all);
      if (v.extent(1) != static_cast<Index>(weights_.size())) {
        fail<ShapeError>(std::string(Step::name) + ": a state of shape " + to_string(v.shape()) + ", expected " + std::to_string(weights_.size()) + " on its second axis");
      }
      if (v.extent(1) == 1) return reshape(all, v.extent(0), v.extent(2));
      return reshape(slice(all, 1, i, 1), v.extent(0), v.extent(2));
    }
  }
  /// [B, width] behind the states before it.
  template <class S3, class S2>
  static void append(S3& all, const S2& own, bool first) {
    const auto v = view(own);
    auto one = reshape(own, v.extent(0), Index{1}, v.extent(1));
    all = first ? std::move(one) : concat(1, all, one);
  }

  template <class X, class H, class C>
  auto run(const X& x, const H& hidden, const C& cell, const Packing& packing) const {
    constexpr Mode mode = mode_of<X, H, C>;
    Result<Value<mode, T, 3>, Value<mode, T, 3>> result;
    Index i = 0;
    const auto direction = [&](const auto& input) {
      auto out = weights_[static_cast<std::size_t>(i)].run(shape_.step, input, state_of(hidden, i), state_of(cell, i),
                                                           {shape_.bidirectional && i % 2 == 1, shape_.projection_clip, packing});
      append(result.hidden, std::get<1>(out), i == 0);
      if constexpr (has_cell) append(result.cell, std::get<2>(out), i == 0);
      ++i;
      return std::move(std::get<0>(out));
    };
    const auto layer = [&](const auto& input) {
      auto y = direction(input);
      if (shape_.bidirectional) y = concat(-1, y, direction(input));
      result.y = std::move(y);
    };
    layer(x);
    while (i < static_cast<Index>(weights_.size())) {
      const Value<mode, T, 3> below = std::move(result.y);
      layer(below);
    }
    return result;
  }

  RecurrentShape<Step> shape_;
  std::vector<RecurrentWeights<T>> weights_;
};

}  // namespace ordo::detail
