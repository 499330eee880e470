#pragma once
/// \file
/// apply(op, args...): runs an op, and records it when an argument is tracked.
///
/// An op is a small struct. `forward` computes on rank-erased tensors, `backward` pulls gradients:
///
///     struct TanhOp {
///       static constexpr const char* name = "tanh";
///       static constexpr unsigned keeps_inputs = 0, keeps_outputs = 1;             // bit i: argument or output i stays alive
///       template <class T> AnyTensor<T> forward(const AnyTensor<T>& x) const;
///       template <class T> void backward(Pullback<T>& p) const {
///         const Var<T> y = p.output(0);
///         if (p.needs(0)) p.add(0, mul(p.grad(0), one_minus(mul(y, y))));          // ops again: can be recorded
///       }
///     };
///
/// A fused op has a `template <class T> struct Saved`, takes `Saved<T>*` (null when nothing is recorded) as the first argument of
/// forward, a `const Saved<T>&` as the second of backward, and adds plain AnyTensors: it has no second derivative, and asking for
/// one is an error that names it. Several outputs: forward returns std::array<AnyTensor<T>, n>.
/// Arguments without gradients (token ids, masks, sizes) are members of the op.

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#include "ordo/autograd/tape.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo {

/// Stands for an optional argument that is not given.
struct None {};
inline constexpr None none{};

inline constexpr std::size_t dynamic_rank = static_cast<std::size_t>(-1);

namespace detail {

template <class X>
inline constexpr bool is_tracked = false;
template <class X>
inline constexpr bool is_tracked<Tracked<X>> = true;
template <class X>
inline constexpr bool is_var = false;
template <class T>
inline constexpr bool is_var<Var<T>> = true;
template <class T>
inline constexpr bool is_dynamic_rank<Var<T>> = true;

template <class T>
struct TensorTraits<Var<T>> {
  using value_type = T;
  static constexpr std::size_t rank = dynamic_rank;
};

}  // namespace detail

/// How a call of an op runs, decided by the types of its arguments.
enum class Mode {
  plain,     ///< no argument is tracked: results are Tensors
  recorded,  ///< one is Tracked: results are Tracked
  dynamic,   ///< one is a Var, as inside a backward function: results are Vars
};

template <class... A>
inline constexpr Mode mode_of = (detail::is_var<A> || ...)       ? Mode::dynamic
                                : (detail::is_tracked<A> || ...) ? Mode::recorded
                                                                 : Mode::plain;

namespace detail {
template <Mode M, class T, std::size_t R>
struct ValueOf {
  using type = DynTensor<T, R>;
};
template <class T, std::size_t R>
struct ValueOf<Mode::recorded, T, R> {
  using type = Tracked<DynTensor<T, R>>;
};
template <class T, std::size_t R>
struct ValueOf<Mode::dynamic, T, R> {
  using type = Var<T>;
};
}  // namespace detail

/// The type of a result of rank R.
template <Mode M, class T, std::size_t R>
using Value = typename detail::ValueOf<M, T, R>::type;

namespace detail {

template <class A>
struct ScalarOf {
  using type = value_type_of<A>;
};
template <>
struct ScalarOf<None> {
  using type = void;
};
template <class... A>
struct FirstScalar;
template <class A, class... Rest>
struct FirstScalar<A, Rest...> {
  using own = typename ScalarOf<A>::type;
  using type = typename std::conditional_t<std::is_void_v<own>, FirstScalar<Rest...>, std::type_identity<own>>::type;
};
template <>
struct FirstScalar<> {
  using type = void;
};

template <class A>
Tape* tape_of(const A& a) {
  if constexpr (is_tracked<A>) {
    return &a.tape();
  } else if constexpr (is_var<A>) {
    return a.tape;
  } else {
    return nullptr;
  }
}

/// What an op with a Saved struct keeps of a call; nothing for others.
template <class Op, class T>
struct SavedOf {
  struct type {};
};
template <class Op, class T>
  requires requires { typename Op::template Saved<T>; }
struct SavedOf<Op, T> {
  using type = typename Op::template Saved<T>;
};
template <class Op, class T>
concept SavingOp = requires { typename Op::template Saved<T>; };

}  // namespace detail

/// What a backward function sees of its call.
template <class T>
class Pullback {
 public:
  Pullback(const char* op, detail::Sweep& sweep, const Var<T>* inputs, const Var<T>* outputs, const Var<T>* grads) noexcept
      : op_(op), sweep_(sweep), inputs_(inputs), outputs_(outputs), grads_(grads) {}

  /// Argument i; its value is there if `keeps_inputs` has bit i. The shape always is.
  [[gnu::noinline]] Var<T> input(std::size_t i) const { return constant_unless_recording(inputs_[i]); }
  /// Output i, if `keeps_outputs` has bit i.
  [[gnu::noinline]] Var<T> output(std::size_t i) const { return constant_unless_recording(outputs_[i]); }
  /// The gradient that arrived for output i; absent if none did.
  const Var<T>& grad(std::size_t i) const { return grads_[i]; }
  /// Whether argument i wants a gradient.
  bool needs(std::size_t i) const noexcept { return inputs_[i].slot >= 0; }

  [[gnu::noinline]] void add(std::size_t i, Var<T> gradient) {
    if (needs(i)) detail::accumulate<T>(sweep_, inputs_[i].slot, std::move(gradient));
  }
  [[gnu::noinline]] void add(std::size_t i, AnyTensor<T> gradient) {
    if (sweep_.recording()) {
      fail<UsageError>({op_, ": this fused op has no second derivative"});
    }
    add(i, Var<T>{std::move(gradient)});
  }

 private:
  Var<T> constant_unless_recording(const Var<T>& v) const {
    return sweep_.recording() ? v : Var<T>{v.value};
  }
  const char* op_;
  detail::Sweep& sweep_;
  const Var<T>*inputs_, *outputs_, *grads_;
};

namespace detail {

/// What the nodes of all ops have in common: compiled once for each scalar type, and there are many ops.
template <class T>
class NodeOf : public Node {
 public:
  [[gnu::noinline]] void pull(Sweep& sweep) final {
    Pullback<T> p(name_, sweep, in_, out_, grads_);
    for (std::int32_t i = 0; i < outputs; ++i) grads_[i] = sweep.take<T>(first_output + i);
    run(p);
    for (std::int32_t i = 0; i < outputs; ++i) {
      // a later sweep over the same recording starts from what arrived here
      if (sweep.recording() && grads_[i].present()) sweep.at(first_output + i) = grads_[i];
      grads_[i] = {};
    }
  }

  /// Gives the results their slots, keeps what backward will read, lets go of the rest, and goes on the tape.
  [[gnu::noinline]] static void record(std::unique_ptr<NodeOf> node, Var<T>* results, unsigned inputs_kept,
                                       unsigned outputs_kept, Tape* tape) {
    for (std::int32_t i = 0; i < node->outputs; ++i) {
      results[i].slot = tape->new_slot();
      node->out_[i] = results[i];
      if (!(outputs_kept >> i & 1U)) drop_value(node->out_[i]);
    }
    node->first_output = results[0].slot;
    for (std::size_t i = 0; i < node->inputs_; ++i) {
      if (!(inputs_kept >> i & 1U)) drop_value(node->in_[i]);
    }
    tape->push(std::move(node));
  }

 protected:
  /// `vars`: the arguments, then as many Vars again as there are results, twice.
  NodeOf(const char* name, Var<T>* vars, std::size_t inputs, std::size_t results) noexcept
      : name_(name), in_(vars), out_(vars + inputs), grads_(out_ + results), inputs_(inputs) {
    outputs = static_cast<std::int32_t>(results);
  }
  virtual void run(Pullback<T>& p) = 0;

 private:
  static void drop_value(Var<T>& v) {
    if (v.present()) v.value = AnyTensor<T>::borrow(nullptr, v.shape());
  }
  const char* name_;
  Var<T>*in_, *out_, *grads_;
  std::size_t inputs_;
};

template <class Op, class T, std::size_t In, std::size_t Out>
class OpNode final : public NodeOf<T> {
 public:
  OpNode(const Op& op, const Var<T>* in) : NodeOf<T>(Op::name, vars_, In, Out), op_(op) { std::copy_n(in, In, vars_); }

  [[no_unique_address]] typename SavedOf<Op, T>::type saved;

 private:
  void run(Pullback<T>& p) override {
    if constexpr (SavingOp<Op, T>) {
      op_.backward(p, saved);
    } else {
      op_.backward(p);
    }
  }
  Op op_;
  Var<T> vars_[In + 2 * Out];
};

// Calls that are never recorded run on the values alone.
template <class T>
const AnyTensor<T>& value_of(const AnyTensor<T>& x) noexcept { return x; }
template <class T>
AnyTensor<T>& value_of(AnyTensor<T>& x) noexcept { return x; }
template <class T>
const AnyTensor<T>& value_of(const Var<T>& x) noexcept { return x.value; }
template <class T>
AnyTensor<T>& value_of(Var<T>& x) noexcept { return x.value; }

/// Runs forward and puts the values of the results in place, whatever their number.
template <class Op, class T, std::size_t In, std::size_t Out, class Value>
[[gnu::noinline]] void run_forward(const Op& op, typename SavedOf<Op, T>::type* saved, const Value* in, Value* out) {
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const auto forward = [&] {
      if constexpr (SavingOp<Op, T>) {
        return op.template forward<T>(saved, value_of(in[I])...);
      } else {
        return op.template forward<T>(value_of(in[I])...);
      }
    };
    if constexpr (Out == 1) {
      value_of(*out) = forward();
    } else {
      auto values = forward();
      for (std::size_t i = 0; i < Out; ++i) value_of(out[i]) = std::move(values[i]);
    }
  }(std::make_index_sequence<In>{});
}

template <class T>
[[gnu::noinline]] bool any_slot(const Var<T>* in, std::size_t n) {
  return std::any_of(in, in + n, [](const Var<T>& v) { return v.tracked(); });
}

/// One call of an op on Vars; records it if one of them has a slot. Compiled once for each op and scalar type.
template <class Op, class T, std::size_t In, std::size_t Out>
[[gnu::noinline]] void call(const Op& op, const Var<T>* in, Var<T>* out, Tape* tape) {
  for (std::size_t i = 0; i < Out; ++i) out[i].tape = tape;
  if (!any_slot(in, In) || tape->paused()) return run_forward<Op, T, In, Out>(op, nullptr, in, out);
  auto node = std::make_unique<OpNode<Op, T, In, Out>>(op, in);
  run_forward<Op, T, In, Out>(op, &node->saved, in, out);
  NodeOf<T>::record(std::move(node), out, Op::keeps_inputs, Op::keeps_outputs, tape);
}

/// An argument as a Var: parameters get a slot on the tape, plain tensors become constants (copied, since the backward pass may
/// run after they are gone; borrowed where nothing is recorded).
template <class T, class A>
[[gnu::noinline]] Var<T> lift(Tape* tape, const A& a) {
  if constexpr (std::same_as<A, None>) {
    return {};
  } else if constexpr (is_var<A>) {
    return a;
  } else if constexpr (is_tracked<A>) {
    return a.var();
  } else if constexpr (is_parameter<A>) {
    return tape == nullptr ? Var<T>{a.any()} : tape->lift(a);
  } else {
    return tape == nullptr ? Var<T>{borrow(a)} : Var<T>{borrow(a).copy()};
  }
}

/// An argument of a call that is not recorded.
template <class T, class A>
AnyTensor<T> lend(const A& a) {
  if constexpr (std::same_as<A, None>) {
    return {};
  } else if constexpr (is_parameter<A>) {
    return a.any();
  } else {
    return borrow(a);
  }
}

template <class Op>
inline constexpr std::size_t outputs_of = 1;
template <class Op>
  requires requires { Op::outputs; }
inline constexpr std::size_t outputs_of<Op> = Op::outputs;

template <Mode M, std::size_t R, class T>
Value<M, T, R> wrap(std::conditional_t<M == Mode::plain, AnyTensor<T>, Var<T>>&& v) {
  if constexpr (M == Mode::plain) {
    return to_tensor<R>(v);
  } else if constexpr (M == Mode::recorded) {
    return Tracked<DynTensor<T, R>>(std::move(v));
  } else {
    return v;
  }
}

}  // namespace detail

/// Where a call is recorded: the mode of some arguments and, if one is tracked, its tape. For ops whose tracked argument is an
/// integer tensor that the op holds as a member.
template <Mode M>
struct Recorder {
  static constexpr Mode mode = M;
  Tape* tape = nullptr;
};
template <class... A>
Recorder<mode_of<A...>> recorder(const A&... a) {
  Tape* tape = nullptr;
  (static_cast<void>(tape = tape != nullptr ? tape : detail::tape_of(a)), ...);
  return {tape};
}

namespace detail {
template <Mode M, class T, std::size_t... R>
struct ResultOf {
  using type = std::tuple<Value<M, T, R>...>;
};
template <Mode M, class T, std::size_t R>
struct ResultOf<M, T, R> {
  using type = Value<M, T, R>;
};
}  // namespace detail

/// The type of a call's result, spelled out: deduced from the body it would need the backward functions, which call ops.
template <Mode M, class T, std::size_t... R>
using ApplyResult = typename detail::ResultOf<M, T, R...>::type;

/// apply in the mode that `r` says. R: the rank of each output.
template <std::size_t... R, Mode M, class Op, class... A>
auto apply_in(const Recorder<M>& r, const Op& op, const A&... a)
    -> ApplyResult<M, typename detail::FirstScalar<A...>::type, R...> {
  using T = typename detail::FirstScalar<A...>::type;
  static_assert(std::is_floating_point_v<T>, "an op works on float or double tensors");
  static_assert(((std::is_void_v<typename detail::ScalarOf<A>::type> ||
                  std::is_same_v<typename detail::ScalarOf<A>::type, T>) &&
                 ...),
                "the arguments of an op must have one scalar type: all float or all double");
  static_assert(sizeof...(R) == detail::outputs_of<Op>, "apply: one rank for each output of the op");
  using Argument = std::conditional_t<M == Mode::plain, AnyTensor<T>, Var<T>>;
  std::array<Argument, sizeof...(R)> out;
  if constexpr (M == Mode::plain) {  // a program that only infers compiles neither tapes nor backward functions
    const std::array<Argument, sizeof...(A)> in{detail::lend<T>(a)...};
    detail::run_forward<Op, T, sizeof...(A), sizeof...(R)>(op, nullptr, in.data(), out.data());
  } else {
    const std::array<Argument, sizeof...(A)> in{detail::lift<T>(r.tape, a)...};
    detail::call<Op, T, sizeof...(A), sizeof...(R)>(op, in.data(), out.data(), r.tape);
  }
  if constexpr (sizeof...(R) == 1) {
    return detail::wrap<M, R..., T>(std::move(out[0]));
  } else {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return std::tuple<Value<M, T, R>...>(detail::wrap<M, R, T>(std::move(out[I]))...);
    }(std::make_index_sequence<sizeof...(R)>{});
  }
}

/// Runs an op on its arguments: tensors in, tensors out; tracked in, tracked out.
template <std::size_t... R, class Op, class... A>
auto apply(const Op& op, const A&... a) -> ApplyResult<mode_of<A...>, typename detail::FirstScalar<A...>::type, R...> {
  return apply_in<R...>(recorder(a...), op, a...);
}

namespace detail {

/// a + b of equal shapes: how gradients of one value meet in a recorded sweep.
struct AccumulateOp {
  static constexpr const char* name = "accumulate";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& a, const AnyTensor<T>& b) const {
    AnyTensor<T> y(a.shape());
    sum(a.data(), b.data(), y.data(), y.size());
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, p.grad(0));
    p.add(1, p.grad(0));
  }
  /// y[i] = a[i] + b[i]; y may be a. By vectors: GCC 12 leaves the plain loop scalar at -O2.
  template <class T>
  static void sum(const T* a, const T* b, T* y, Index n) {
    using V = simd::Vec<T>;
    simd::transform(a, b, y, n, [](const V& u, const V& v) { return u + v; });
  }
};

/// a + b, recorded if `tape` is given.
template <class T>
Var<T> sum_of_gradients(const Var<T>& a, const Var<T>& b, Tape* tape) {
  const std::array<Var<T>, 2> in{a, b};
  Var<T> out;
  call<AccumulateOp, T, 2, 1>(AccumulateOp{}, in.data(), &out, tape);
  return out;
}

template <class T>
void accumulate(Sweep& sweep, std::int32_t slot, Var<T> gradient) {
  if (!gradient.present()) return;
  ErasedVar& at = sweep.at(slot);
  if (!at.present()) {
    at = std::move(gradient);
    return;
  }
  if (sweep.recording()) {
    at = sum_of_gradients<T>(at.as<T>(), gradient, &sweep.tape());
    return;
  }
  if (!at.unique()) {  // somebody else holds this block: another slot, or the upstream gradient
    at = sum_of_gradients<T>(at.as<T>(), gradient, nullptr);
    return;
  }
  AnyTensor<T> sum = at.as<T>().value;
  AccumulateOp::sum(sum.data(), gradient.value.data(), sum.data(), sum.size());
}

}  // namespace detail

}  // namespace ordo
