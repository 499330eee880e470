#pragma once
/// \file
/// A weight: a value, and what kernels derive from it. Gradients and optimiser state live outside the model, so that a const
/// model can be shared by threads.

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

#include "ordo/core/any_tensor.hpp"
#include "ordo/core/tensor.hpp"

namespace ordo {

/// Values computed once from a constant parameter (packed panels, a transposed table), one of each type V. Built at the first
/// call of get() under a lock, read without one, dropped by every write to the parameter.
class DerivedCache {
 public:
  DerivedCache() noexcept = default;
  DerivedCache(const DerivedCache&) noexcept {}  // a copied parameter derives its own
  DerivedCache(DerivedCache&& other) noexcept : first_(other.first_.exchange(nullptr)) {}
  DerivedCache& operator=(const DerivedCache&) noexcept {
    clear();
    return *this;
  }
  DerivedCache& operator=(DerivedCache&& other) noexcept {
    clear();
    first_.store(other.first_.exchange(nullptr));
    return *this;
  }
  ~DerivedCache() { clear(); }

  template <class V, class Make>
  const V& get(Make&& make) const {
    if (const V* v = find<V>()) return *v;
    std::lock_guard lock(mutex());
    if (const V* v = find<V>()) return *v;
    auto* entry = new EntryOf<V>(make());
    entry->next = first_.load(std::memory_order_relaxed);
    first_.store(entry, std::memory_order_release);
    return entry->value;
  }

  void clear() noexcept {
    if (first_.load(std::memory_order_relaxed) != nullptr) drop();
  }

 private:
  struct Entry {
    explicit Entry(const void* t) noexcept : tag(t) {}
    virtual ~Entry() = default;
    const void* tag;
    Entry* next = nullptr;
  };
  [[gnu::cold, gnu::noinline]] void drop() noexcept {
    for (Entry* e = first_.exchange(nullptr); e != nullptr;) delete std::exchange(e, e->next);
  }
  template <class V>
  static const void* tag_of() noexcept {
    static const char tag = 0;
    return &tag;
  }
  template <class V>
  struct EntryOf final : Entry {
    explicit EntryOf(V&& v) : Entry(tag_of<V>()), value(std::move(v)) {}
    V value;
  };
  template <class V>
  const V* find() const noexcept {
    for (Entry* e = first_.load(std::memory_order_acquire); e != nullptr; e = e->next) {
      if (e->tag == tag_of<V>()) return &static_cast<EntryOf<V>*>(e)->value;
    }
    return nullptr;
  }
  static std::mutex& mutex() noexcept {  // building is rare: one lock for all keeps parameters small
    static std::mutex m;
    return m;
  }

  mutable std::atomic<Entry*> first_{nullptr};
};

/// A named weight of a layer. Default-made it is absent: an optional weight that the configuration leaves out.
template <class T, class E>
class Parameter {
 public:
  using value_type = T;
  using extents_type = E;
  static constexpr std::size_t rank() noexcept { return E::rank(); }

  Parameter() = default;
  explicit Parameter(const E& extents) : value_(extents), present_(true) {}
  explicit Parameter(Tensor<T, E> value) : value_(std::move(value)), present_(true) {}

  bool present() const noexcept { return present_; }
  const Tensor<T, E>& value() const noexcept { return value_; }
  Shape shape() const noexcept { return value_.shape(); }
  Index size() const noexcept { return present_ ? value_.size() : 0; }

  /// The value, to be written: drops everything derived from it. Not while another thread runs the model.
  Tensor<T, E>& mutate() noexcept {
    derived_.clear();
    return value_;
  }

  /// What a kernel keeps beside the value, made by `make()` at the first call.
  template <class V, class Make>
  const V& derived(Make&& make) const {
    return derived_.get<V>(std::forward<Make>(make));
  }

  /// The value with its rank erased; absent if this is.
  AnyTensor<T> any() const noexcept {
    return present_ ? AnyTensor<T>::borrow(value_.data(), value_.shape()) : AnyTensor<T>{};
  }
  /// What identifies this weight on a tape and in an optimiser.
  const void* key() const noexcept { return this; }

 private:
  Tensor<T, E> value_;
  bool present_ = false;
  DerivedCache derived_;
};

template <class T, std::size_t R>
using DynParameter = Parameter<T, DynExtents<R>>;

template <class T, class E>
TensorView<const T, E> view(const Parameter<T, E>& p) noexcept {
  return {p.value().data(), p.value().extents()};
}

template <class X>
inline constexpr bool is_parameter = false;
template <class T, class E>
inline constexpr bool is_parameter<Parameter<T, E>> = true;

}  // namespace ordo
