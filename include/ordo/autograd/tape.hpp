#pragma once
/// \file
/// The tape: what a tracked forward pass records, and the sweep that turns it into gradients.
///
///     Tape tape;
///     auto loss = cross_entropy(model(track(tape, tokens)), targets);
///     Gradients g = tape.backward(loss);      // frees what it has used up
///     optimizer.step(model, g);
///
/// Every differentiable value has a slot. A node is one call of an op: it knows the slots of its inputs and outputs and can pull
/// gradients from the outputs to the inputs. Nodes hide their op behind one virtual function.

#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ordo/autograd/parameter.hpp"
#include "ordo/core/any_tensor.hpp"
#include "ordo/core/memory.hpp"

namespace ordo {

class Tape;

/// A value with its rank erased that may have a slot on a tape. Without a slot it is a constant. Ops on Vars record exactly
/// when one of them has a slot: this is how the backward of an op, written once, can itself be recorded or not.
template <class T>
struct Var {
  AnyTensor<T> value;
  Tape* tape = nullptr;
  std::int32_t slot = -1;

  using value_type = T;
  bool tracked() const noexcept { return slot >= 0; }
  bool present() const noexcept { return value.present(); }
  const Shape& shape() const noexcept { return value.shape(); }
};

namespace detail {

template <class T>
inline constexpr int scalar_code = 0;
template <>
inline constexpr int scalar_code<float> = 1;
template <>
inline constexpr int scalar_code<double> = 2;

/// A Var with its scalar type erased.
class ErasedVar {
 public:
  ErasedVar() = default;
  template <class T>
  ErasedVar(Var<T> v)  // NOLINT(google-explicit-constructor)
      : bytes_(reinterpret_bytes(v.value)), tape_(v.tape), slot_(v.slot), code_(scalar_code<T>) {}

  bool present() const noexcept { return code_ != 0; }
  int code() const noexcept { return code_; }
  const Shape& shape() const noexcept { return bytes_.shape; }
  template <class T>
  Var<T> as() const {
    if (code_ != scalar_code<T>) fail<UsageError>("tape: a gradient is asked for in another scalar type than its value's");
    auto value = bytes_.storage ? AnyTensor<T>::share(bytes_.storage, bytes_.shape)
                                : AnyTensor<T>::borrow(static_cast<const T*>(bytes_.data), bytes_.shape);
    return {std::move(value), tape_, slot_};
  }
  void clear() noexcept { *this = ErasedVar(); }
  bool unique() const noexcept { return bytes_.storage.unique(); }

 private:
  struct Bytes {
    Storage storage;
    const void* data = nullptr;
    Shape shape;
  };
  template <class T>
  static Bytes reinterpret_bytes(AnyTensor<T>& a) {
    return {a.storage(), a.data(), a.shape()};
  }
  Bytes bytes_;
  Tape* tape_ = nullptr;
  std::int32_t slot_ = -1;
  int code_ = 0;
};

/// The gradients that a sweep has gathered, by slot.
class Sweep {
 public:
  Sweep(Tape& tape, std::size_t slots, bool recording) : grads_(slots), tape_(&tape), recording_(recording) {}

  /// Whether the backward pass is itself recorded.
  bool recording() const noexcept { return recording_; }
  Tape& tape() const noexcept { return *tape_; }

  bool has(std::int32_t slot) const noexcept { return grads_[static_cast<std::size_t>(slot)].present(); }
  /// Takes the gradient of a slot; absent if none arrived.
  template <class T>
  Var<T> take(std::int32_t slot) {
    ErasedVar& g = grads_[static_cast<std::size_t>(slot)];
    if (!g.present()) return {};
    Var<T> v = g.as<T>();
    g.clear();
    return v;
  }
  ErasedVar& at(std::int32_t slot) noexcept { return grads_[static_cast<std::size_t>(slot)]; }
  /// Makes room for slots that were given while the sweep is under way.
  void grow(std::size_t slots) {
    if (slots > grads_.size()) grads_.resize(slots);
  }
  std::size_t size() const noexcept { return grads_.size(); }

 private:
  std::vector<ErasedVar, PoolAllocator<ErasedVar>> grads_;
  Tape* tape_;
  bool recording_;
};

/// Adds a gradient to a slot; defined with apply(), since a recorded addition is an op.
template <class T>
void accumulate(Sweep& sweep, std::int32_t slot, Var<T> gradient);

/// One call of an op.
class Node {
 public:
  virtual ~Node() = default;
  virtual void pull(Sweep& sweep) = 0;
  bool wanted(const Sweep& sweep) const noexcept {
    for (std::int32_t i = 0; i < outputs; ++i) {
      if (sweep.has(first_output + i)) return true;
    }
    return false;
  }
  std::int32_t first_output = 0, outputs = 0;

  static void* operator new(std::size_t bytes) { return Pool::instance().allocate(bytes); }
  static void operator delete(void* p, std::size_t bytes) noexcept { Pool::instance().deallocate(p, bytes); }
};

template <class K, class V>
using PoolMap = std::unordered_map<K, V, std::hash<K>, std::equal_to<K>, PoolAllocator<std::pair<const K, V>>>;

}  // namespace detail

template <class X>
class Tracked;

/// The gradients of one backward pass: of parameters by address, of tracked inputs by their slot.
class Gradients {
 public:
  Gradients() = default;

  /// The gradient of a parameter; absent if the loss does not depend on it.
  template <class T, class E>
  AnyTensor<T> of(const Parameter<T, E>& p) const {
    const auto it = parameters_.find(p.key());
    return it == parameters_.end() ? AnyTensor<T>{} : it->second.template as<T>().value;
  }
  /// The gradient of a tracked input; absent if the loss does not depend on it.
  template <class X>
  AnyTensor<typename X::value_type> of(const Tracked<X>& x) const {
    const auto it = leaves_.find(x.var().slot);
    return it == leaves_.end() ? AnyTensor<typename X::value_type>{} : it->second.template as<typename X::value_type>().value;
  }

  /// The gradient of a parameter, to be written (clipping); it is copied first if someone else shares it.
  template <class T, class E>
  AnyTensor<T> mutate(const Parameter<T, E>& p) {
    const auto it = parameters_.find(p.key());
    if (it == parameters_.end()) return {};
    if (!it->second.unique()) it->second = Var<T>{it->second.template as<T>().value.copy()};
    return it->second.template as<T>().value;
  }
  /// Sets the gradient of a parameter.
  template <class T, class E>
  void set(const Parameter<T, E>& p, AnyTensor<T> gradient) {
    parameters_[p.key()] = Var<T>{std::move(gradient)};
  }

  /// Adds the gradients that another pass found for parameters: another shard of the batch. Those of tracked inputs, whose slots
  /// belong to one tape, stay apart.
  void add(const Gradients& other) {
    for (const auto& [key, theirs] : other.parameters_) {
      if (theirs.code() == detail::scalar_code<float>) {
        add_one<float>(parameters_[key], theirs);
      } else {
        add_one<double>(parameters_[key], theirs);
      }
    }
  }
  /// Multiplies the gradients of all parameters.
  void scale(double factor) {
    for (auto& [key, gradient] : parameters_) {
      if (gradient.code() == detail::scalar_code<float>) {
        scale_one<float>(gradient, factor);
      } else {
        scale_one<double>(gradient, factor);
      }
    }
  }

 private:
  template <class T>
  static void add_one(detail::ErasedVar& ours, const detail::ErasedVar& theirs) {
    if (!ours.present()) {
      ours = theirs;
      return;
    }
    if (!ours.unique()) ours = Var<T>{ours.as<T>().value.copy()};
    AnyTensor<T> sum = ours.as<T>().value;
    const AnyTensor<T> term = theirs.as<T>().value;
    T* out = sum.data();
    const T* in = term.data();
    for (Index i = 0; i < sum.size(); ++i) out[i] += in[i];
  }
  template <class T>
  static void scale_one(detail::ErasedVar& gradient, double factor) {
    if (!gradient.unique()) gradient = Var<T>{gradient.as<T>().value.copy()};
    AnyTensor<T> scaled = gradient.as<T>().value;
    T* out = scaled.data();
    for (Index i = 0; i < scaled.size(); ++i) out[i] *= static_cast<T>(factor);
  }

  friend class Tape;
  detail::PoolMap<const void*, detail::ErasedVar> parameters_;
  detail::PoolMap<std::int32_t, detail::ErasedVar> leaves_;
};

/// Records one forward pass. One tape a thread; it has to outlive the tracked values made on it.
class Tape {
 public:
  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  /// The gradient of sum(y * upstream) (upstream all ones if absent) with respect to every parameter and tracked input that y
  /// depends on. Uses the recording up: activations are freed as the sweep passes them.
  template <class X>
  Gradients backward(const Tracked<X>& y, const AnyTensor<typename X::value_type>& upstream = {}) {
    return backward(std::array{Seed::of(y, upstream)});
  }

  /// One output of several with its upstream gradient.
  class Seed {
   public:
    template <class X>
    static Seed of(const Tracked<X>& y, const AnyTensor<typename X::value_type>& upstream = {}) {
      using T = typename X::value_type;
      AnyTensor<T> u = upstream;
      if (!u.present()) u = AnyTensor<T>(y.var().shape(), T{1});
      if (!(u.shape() == y.var().shape())) {
        fail<ShapeError>({"backward: the upstream gradient has shape ", u.shape(), ", the output ", y.var().shape()});
      }
      Seed s;
      s.slot_ = y.var().slot;
      s.start_ = [](detail::Sweep& sweep, std::int32_t slot, const detail::ErasedVar& g) {
        detail::accumulate<T>(sweep, slot, g.template as<T>());
      };
      s.gradient_ = Var<T>{std::move(u)};
      return s;
    }

   private:
    friend class Tape;
    std::int32_t slot_ = -1;
    void (*start_)(detail::Sweep&, std::int32_t, const detail::ErasedVar&) = nullptr;
    detail::ErasedVar gradient_;
  };

  template <class Seeds>
    requires(std::same_as<typename Seeds::value_type, Seed>)
  Gradients backward(const Seeds& seeds) {
    if (consumed_) fail<UsageError>("tape: backward has already used this recording up; record the forward pass again");
    detail::Sweep sweep(*this, slots_, false);
    for (const Seed& seed : seeds) {
      if (seed.slot_ >= 0) seed.start_(sweep, seed.slot_, seed.gradient_);
    }
    consumed_ = true;
    sweep_back(sweep, 0);
    return collect(sweep);
  }

  /// dy/dx for a scalar y as a tracked value: it can enter another loss. The recording stays.
  template <class Y, class X>
  Tracked<X> gradient(const Tracked<Y>& y, const Tracked<X>& x) {
    if (consumed_) fail<UsageError>("tape: backward has already used this recording up; record the forward pass again");
    detail::Sweep sweep(*this, slots_, true);
    const Seed seed = Seed::of(y);
    if (seed.slot_ >= 0) seed.start_(sweep, seed.slot_, seed.gradient_);
    sweep_back(sweep, 0);
    using T = typename X::value_type;
    auto g = sweep.has(x.var().slot) ? sweep.at(x.var().slot).template as<T>()
                                     : Var<T>{AnyTensor<T>(x.var().shape(), T{0})};
    g.tape = this;
    return Tracked<X>(std::move(g));
  }

  /// Lets the model run with `value` in the place of a parameter from now on (fast weights, inner loops).
  template <class T, class E, class X>
  void substitute(const Parameter<T, E>& p, const Tracked<X>& value) {
    if (!(value.var().shape() == p.shape())) {
      fail<ShapeError>({"substitute: the parameter has shape ", p.shape(), ", the value ", value.var().shape()});
    }
    substituted_[p.key()] = value.var();
  }

  /// Whether calls are not recorded at the moment, see PauseRecording.
  bool paused() const noexcept { return paused_ > 0; }

  /// Forgets the recording and keeps the memory of its lists.
  void reset() noexcept {
    while (!nodes_.empty()) nodes_.pop_back();
    parameters_.clear();
    substituted_.clear();
    slots_ = 0;
    consumed_ = false;
  }

  // ---- for apply() ----
  std::int32_t new_slot() noexcept { return static_cast<std::int32_t>(slots_++); }
  std::size_t slots() const noexcept { return slots_; }
  std::size_t size() const noexcept { return nodes_.size(); }
  void push(std::unique_ptr<detail::Node> node) { nodes_.push_back(std::move(node)); }
  template <class T, class E>
  Var<T> lift(const Parameter<T, E>& p) {
    if (!p.present()) return {};
    if (const auto other = substituted_.find(p.key()); other != substituted_.end()) return other->second.template as<T>();
    const auto it = parameters_.find(p.key());
    if (it != parameters_.end()) return it->second.template as<T>();
    Var<T> v{p.any(), this, new_slot()};
    parameters_.emplace(p.key(), v);
    return v;
  }
  /// Pulls gradients through the nodes from `first` on, last one first. Unless the sweep is recorded they are freed as it
  /// passes them. A node may record more while it is pulled, and sweeps back through that itself.
  void sweep_back(detail::Sweep& sweep, std::size_t first) {
    for (std::size_t i = nodes_.size(); i-- > first;) {
      detail::Node& node = *nodes_[i];
      if (node.wanted(sweep)) node.pull(sweep);
      if (!sweep.recording()) nodes_[i].reset();
    }
    if (!sweep.recording()) nodes_.resize(first);
  }
  using Substitutions = detail::PoolMap<const void*, detail::ErasedVar>;
  const Substitutions& substitutions() const noexcept { return substituted_; }
  void swap_substitutions(Substitutions& other) noexcept { substituted_.swap(other); }

 private:
  friend class PauseRecording;
  Gradients collect(detail::Sweep& sweep) {
    Gradients g;
    for (std::size_t slot = 0; slot < sweep.size(); ++slot) {
      detail::ErasedVar& v = sweep.at(static_cast<std::int32_t>(slot));
      if (v.present()) g.leaves_.emplace(static_cast<std::int32_t>(slot), std::move(v));
    }
    for (const auto& [key, var] : parameters_) {
      const auto it = g.leaves_.find(slot_of(var));
      if (it == g.leaves_.end()) continue;
      g.parameters_.emplace(key, std::move(it->second));
      g.leaves_.erase(it);
    }
    return g;
  }
  static std::int32_t slot_of(const detail::ErasedVar& v) {
    return v.code() == detail::scalar_code<float> ? v.as<float>().slot : v.as<double>().slot;
  }

  std::vector<std::unique_ptr<detail::Node>, PoolAllocator<std::unique_ptr<detail::Node>>> nodes_;
  detail::PoolMap<const void*, detail::ErasedVar> parameters_;  // each with its own slot
  Substitutions substituted_;                                    // what stands in for a parameter
  std::size_t slots_ = 0;
  int paused_ = 0;
  bool consumed_ = false;
};

/// While it lives, calls on tracked values are not recorded: their results are constants.
///
///     const PauseRecording pause(tape);
///     const auto target = model(x);
class PauseRecording {
 public:
  explicit PauseRecording(Tape& tape) noexcept : tape_(tape) { ++tape_.paused_; }
  PauseRecording(const PauseRecording&) = delete;
  PauseRecording& operator=(const PauseRecording&) = delete;
  ~PauseRecording() { --tape_.paused_; }

 private:
  Tape& tape_;
};

/// A tensor that remembers its place on a tape. X is the plain tensor type, always with dynamic extents. Integer tensors can be
/// tracked too: they have no gradient and carry the tape, so that a model fed tracked token ids is a model in training.
template <class X>
class Tracked {
 public:
  using value_type = typename X::value_type;
  using extents_type = typename X::extents_type;
  using plain_type = X;
  static constexpr std::size_t rank() noexcept { return X::rank(); }

  /// Absent: a tensor of a state that is not there yet.
  Tracked() = default;
  explicit Tracked(Var<value_type> var) : var_(std::move(var)) {
    if (var_.value.rank() != X::rank()) {
      fail<ShapeError>({"tracked: a value of shape ", var_.shape(), " where rank ", X::rank(), " is declared"});
    }
  }

  const Var<value_type>& var() const noexcept { return var_; }
  Tape& tape() const noexcept { return *var_.tape; }
  extents_type extents() const { return var_.shape().template extents<X::rank()>(); }
  Index extent(std::size_t axis) const noexcept { return var_.shape()[axis]; }
  Shape shape() const noexcept { return var_.shape(); }
  Index size() const noexcept { return var_.value.size(); }
  const value_type* data() const noexcept { return var_.value.data(); }
  /// A plain copy.
  X value() const { return to_tensor<X::rank()>(var_.value.copy()); }
  /// The one element of a scalar.
  value_type item() const {
    if (size() != 1) fail<ShapeError>({"item: the tensor has shape ", shape(), ", not one element"});
    return *data();
  }

 private:
  Var<value_type> var_;
};

template <class X>
auto view(const Tracked<X>& x) {
  return DynView<const typename X::value_type, X::rank()>(x.data(), x.extents());
}

/// Puts a plain tensor on a tape: a copy of it, with a slot for its gradient if it is floating.
template <TensorLike X>
auto track(Tape& tape, const X& x) {
  using T = value_type_of<X>;
  Var<T> v{borrow(x).copy(), &tape, std::is_floating_point_v<T> ? tape.new_slot() : -1};
  return Tracked<DynTensor<T, rank_of<X>>>(std::move(v));
}

}  // namespace ordo
