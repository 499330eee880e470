#pragma once
/// \file
/// Checks gradients against central differences, in double.
///
///     auto f = [](const auto& x, const auto& y) { return mul(tanh(x), y); };
///     CHECK(gradcheck(f, x, y).error < 1e-6);
///     CHECK(gradcheck_second(f, x, y).error < 1e-6);
///     CHECK(gradcheck_parameters(layer, [](const auto& m, const auto& x) { return m(x); }, x).error < 1e-6);

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/autograd/apply.hpp"
#include "ordo/core/random.hpp"
#include "ordo/core/visit.hpp"

namespace ordo {

/// What a check found: the largest |analytic - numeric| of any element, relative to the largest |gradient| of its
/// tensor (or 1e-3 if that is larger), and where. `checked` elements were tried.
struct GradcheckResult {
  double error = 0;
  std::string where;
  Index checked = 0;
};

namespace detail {

inline double dot(const AnyTensor<double>& a, const AnyTensor<double>& b) {
  double sum = 0;
  for (Index i = 0; i < a.size(); ++i) sum += a.data()[i] * b.data()[i];
  return sum;
}

inline AnyTensor<double> random_like(const Shape& shape, Random& random) {
  AnyTensor<double> w(shape);
  for (Index i = 0; i < w.size(); ++i) w.data()[i] = random.normal();
  return w;
}

/// weights * x for a scalar x: the adjoint of ProjectOp.
struct SpreadOp {
  static constexpr const char* name = "spread";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  AnyTensor<double> weights;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(weights.shape());
    for (Index i = 0; i < y.size(); ++i) y.data()[i] = weights.data()[i] * *x.data();
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const;
};

/// sum(weights * x): turns a tensor into a scalar whose gradient can be recorded.
struct ProjectOp {
  static constexpr const char* name = "project";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  AnyTensor<double> weights;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    return AnyTensor<T>(Shape{}, dot(weights, x));
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(SpreadOp{weights}, p.grad(0)));
  }
};

template <class T>
void SpreadOp::backward(Pullback<T>& p) const {
  p.add(0, apply<dynamic_rank>(ProjectOp{weights}, p.grad(0)));
}

/// The same elements under another shape.
struct UnflattenOp {
  static constexpr const char* name = "unflatten";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  Shape shape;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    return x.reshaped(shape);
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, apply<dynamic_rank>(UnflattenOp{p.input(0).shape()}, p.grad(0)));
  }
};

using TrackedScalar = Tracked<DynTensor<double, 0>>;
using TrackedVector = Tracked<DynTensor<double, 1>>;

/// A function of some tensors with its types erased, so that the checks are compiled once and not for each function.
struct CheckedFunction {
  std::vector<AnyTensor<double>> inputs;                                          // the caller's own memory
  std::function<AnyTensor<double>()> plain;                                       // f(inputs)
  std::function<Var<double>(Tape&, const std::vector<TrackedVector>&)> recorded;  // the same from flat tracked copies

  std::vector<TrackedVector> track_inputs(Tape& tape) const {
    std::vector<TrackedVector> flat;
    for (const AnyTensor<double>& x : inputs) {
      flat.emplace_back(Var<double>{x.copy().reshaped(Shape{x.size()}), &tape, tape.new_slot()});
    }
    return flat;
  }
  /// <weights, f> on a tape.
  TrackedScalar loss(Tape& tape, const std::vector<TrackedVector>& flat, const AnyTensor<double>& weights) const {
    const Var<double> y = recorded(tape, flat);
    return TrackedScalar(apply<dynamic_rank>(ProjectOp{weights}, y));
  }
};

/// A tensor whose elements a check moves.
struct CheckedTensor {
  std::string name;
  AnyTensor<double> value;
  std::function<void(Index, double)> set;
};

/// Compares one tensor's gradient with differences of `loss`.
inline void gradcheck_tensor(const CheckedTensor& x, const AnyTensor<double>& gradient,
                             const std::function<double()>& loss, Random& random, GradcheckResult& result) {
  constexpr Index samples = 200;
  constexpr double good = 1e-7;  // nothing better is to be had from differences
  if (gradient.present() && gradient.size() != x.value.size()) {
    fail<ShapeError>({"gradcheck: ", x.name, " has shape ", x.value.shape(), ", its gradient ", gradient.shape()});
  }
  double largest = 1e-3;
  for (Index i = 0; i < gradient.size(); ++i) largest = std::max(largest, std::abs(gradient.data()[i]));
  const Index n = x.value.size();
  for (Index k = 0; k < std::min(n, samples); ++k) {
    const Index i = n <= samples ? k : static_cast<Index>(random.below(static_cast<std::uint64_t>(n)));
    const double old = x.value.data()[i];
    const auto at = [&](double v) {
      x.set(i, v);
      return loss();
    };
    const double analytic = gradient.present() ? gradient.data()[i] : 0.0;
    double error = HUGE_VAL, numeric = 0;
    // Differences of fourth order. A long step has the smallest rounding error; where a kink or a sharp bend is near, a short
    // one tells: a wrong gradient agrees with neither.
    for (const double step : {1e-3, 1e-5}) {
      const double h = step * std::max(1.0, std::abs(old));
      const double near = at(old + h) - at(old - h), far = at(old + 2 * h) - at(old - 2 * h);
      const double difference = (8 * near - far) / (12 * h), e = std::abs(analytic - difference) / largest;
      if (e < error || std::isnan(e)) {
        error = e;
        numeric = difference;
      }
      if (!(error > good)) break;
    }
    x.set(i, old);
    ++result.checked;
    if (!(error <= result.error)) {
      result.error = error;
      result.where = x.name + "[" + std::to_string(i) + "]: analytic " + std::to_string(analytic) + ", numeric " +
                     std::to_string(numeric);
    }
  }
}

/// Compares the gradients of all inputs with differences of `loss`.
inline void gradcheck_inputs(const CheckedFunction& f, const std::vector<TrackedVector>& flat, const Gradients& g,
                             const std::function<double()>& loss, Random& random, GradcheckResult& result) {
  for (std::size_t k = 0; k < flat.size(); ++k) {
    AnyTensor<double> value = f.inputs[k];
    const CheckedTensor x{"argument " + std::to_string(k), value, [&value](Index i, double v) { value.data()[i] = v; }};
    gradcheck_tensor(x, g.of(flat[k]), loss, random, result);
  }
}

inline GradcheckResult gradcheck_first(const CheckedFunction& f) {
  Random random(17);
  const auto weights = random_like(f.plain().shape(), random);
  Tape tape;
  const auto flat = f.track_inputs(tape);
  const Gradients g = tape.backward(f.loss(tape, flat, weights));
  GradcheckResult result;
  gradcheck_inputs(
      f, flat, g, [&] { return dot(weights, f.plain()); }, random, result);
  return result;
}

inline GradcheckResult gradcheck_second(const CheckedFunction& f) {
  Random random(19);
  const auto weights = random_like(f.plain().shape(), random);
  std::vector<AnyTensor<double>> directions;
  for (const auto& x : f.inputs) directions.push_back(random_like(Shape{x.size()}, random));

  Tape tape;
  const auto flat = f.track_inputs(tape);
  const auto loss = f.loss(tape, flat, weights);
  std::vector<Tape::Seed> seeds;
  for (std::size_t k = 0; k < flat.size(); ++k) {
    seeds.push_back(Tape::Seed::of(apply<0>(ProjectOp{directions[k]}, tape.gradient(loss, flat[k]))));
  }
  const Gradients g = tape.backward(seeds);

  const auto first = [&] {
    Tape t;
    const auto now = f.track_inputs(t);
    const Gradients gradients = t.backward(f.loss(t, now, weights));
    double sum = 0;
    for (std::size_t k = 0; k < now.size(); ++k) {
      const auto gradient = gradients.of(now[k]);
      if (gradient.present()) sum += dot(directions[k], gradient);
    }
    return sum;
  };
  GradcheckResult result;
  gradcheck_inputs(f, flat, g, first, random, result);
  return result;
}

/// f as a CheckedFunction; those x that are not double tensors (token ids) are tracked as they are.
template <class F, class... X>
CheckedFunction checked_function(F& f, X&... x) {
  CheckedFunction c;
  const auto remember = [&](auto& input) {
    if constexpr (std::is_same_v<value_type_of<std::remove_cvref_t<decltype(input)>>, double>)
      c.inputs.push_back(borrow(input));
  };
  (remember(x), ...);
  c.plain = [&] { return borrow(f(std::as_const(x)...)).copy(); };
  c.recorded = [&](Tape& tape, const std::vector<TrackedVector>& flat) {
    std::size_t k = 0;
    const auto lift_input = [&](auto& input) {
      using In = std::remove_cvref_t<decltype(input)>;
      if constexpr (std::is_same_v<value_type_of<In>, double>) {
        return apply<rank_of<In>>(UnflattenOp{Shape(view(input).extents())}, flat[k++]);
      } else {
        return track(tape, input);
      }
    };
    const std::tuple inputs{lift_input(x)...};  // braces: one after the other
    return std::apply(f, inputs).var();
  };
  return c;
}

}  // namespace detail

/// Checks the gradient of f with respect to each of the double tensors x: f takes as many tensors, plain or tracked,
/// and returns one tensor, whose elements are weighted by random numbers. Steps of 1e-3 and fourth-order differences
/// give errors of about 1e-11 for smooth f. Of a tensor with more than 200 elements a sample is tried. The x are
/// changed and put back.
template <class F, class... X>
GradcheckResult gradcheck(F&& f, X&... x) {
  return detail::gradcheck_first(detail::checked_function(f, x...));
}

/// Checks the second derivatives of f with respect to the double tensors x: with w and v random, the gradient of
/// sum_k <v_k, d<w, f>/dx_k>, as the tape computes it by recording its own backward pass, against differences of the
/// first gradient.
template <class F, class... X>
GradcheckResult gradcheck_second(F&& f, X&... x) {
  return detail::gradcheck_second(detail::checked_function(f, x...));
}

/// Checks the gradients of all parameters of a model, found by its visit(), and of those inputs that are double
/// tensors: f(model, x...) returns one tensor. The inputs are tracked; integers (token ids) may be among them, and
/// without any input there would be nothing to record on. Of the result, `where` names a parameter as checkpoints do
/// ("layers.0.in_proj.weight"). The model's values are changed and put back.
template <class Model, class F, class... X>
GradcheckResult gradcheck_parameters(Model& model, F&& f, X&... x) {
  static_assert(sizeof...(X) > 0, "gradcheck_parameters: give the model's input, so that the call can be recorded");
  const auto call = [&](const auto&... inputs) { return f(std::as_const(model), inputs...); };
  const detail::CheckedFunction c = detail::checked_function(call, x...);
  Random random(23);
  const auto weights = detail::random_like(c.plain().shape(), random);
  Tape tape;
  const auto flat = c.track_inputs(tape);
  const Gradients g = tape.backward(c.loss(tape, flat, weights));
  const auto loss = [&] { return detail::dot(weights, c.plain()); };
  GradcheckResult result;
  for_each_leaf(model, [&](const Path& path, auto& leaf) {
    if constexpr (is_parameter<std::remove_cvref_t<decltype(leaf)>>) {
      if (!leaf.present()) return;
      const auto set = [&leaf](Index i, double v) { leaf.mutate().data()[i] = v; };
      detail::gradcheck_tensor({path.str(), leaf.any(), set}, g.of(leaf), loss, random, result);
    }
  });
  detail::gradcheck_inputs(c, flat, g, loss, random, result);
  return result;
}

}  // namespace ordo
