#pragma once
/// \file
/// A tensor whose rank is erased: what ops work on, so that an op is compiled once for each scalar type and not once for each
/// rank or set of static extents of its callers.

#include <algorithm>
#include <concepts>
#include <string>
#include <utility>

#include "ordo/core/extents.hpp"
#include "ordo/core/memory.hpp"
#include "ordo/core/tensor.hpp"

namespace ordo {

/// Owns, shares or borrows a row-major block of elements. Copies share the block: treat a tensor that was passed in as
/// constant, and write only to one that was just made. A default-made one is absent: an optional argument not given.
template <class T>
class AnyTensor {
 public:
  using value_type = T;

  AnyTensor() noexcept = default;
  /// Owns; elements unset.
  [[gnu::noinline]] explicit AnyTensor(const Shape& shape)
      : shape_(shape), storage_(static_cast<std::size_t>(shape.size()) * sizeof(T)), data_(static_cast<T*>(storage_.data())), present_(true) {}
  AnyTensor(const Shape& shape, T value) : AnyTensor(shape) { fill(value); }
  /// Borrows: the elements have to outlive this.
  [[gnu::noinline]] static AnyTensor borrow(const T* data, const Shape& shape) noexcept {
    AnyTensor a;
    a.shape_ = shape;
    a.data_ = const_cast<T*>(data);
    a.present_ = true;
    return a;
  }
  /// Shares a block.
  [[gnu::noinline]] static AnyTensor share(Storage storage, const Shape& shape) noexcept {
    AnyTensor a;
    a.shape_ = shape;
    a.storage_ = std::move(storage);
    a.data_ = static_cast<T*>(a.storage_.data());
    a.present_ = true;
    return a;
  }

  bool present() const noexcept { return present_; }
  explicit operator bool() const noexcept { return present_; }
  const Shape& shape() const noexcept { return shape_; }
  std::size_t rank() const noexcept { return shape_.rank(); }
  Index extent(std::size_t axis) const noexcept { return shape_[axis]; }
  /// The number of elements; 0 if absent.
  Index size() const noexcept { return present_ ? shape_.size() : 0; }
  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  const Storage& storage() const noexcept { return storage_; }
  bool owns() const noexcept { return static_cast<bool>(storage_) || size() == 0; }
  void fill(T value) noexcept { std::fill_n(data_, size(), value); }

  /// The same elements, with other extents of the same size.
  AnyTensor reshaped(const Shape& shape) const noexcept {
    ORDO_ASSERT(shape.size() == size());
    AnyTensor a = *this;
    a.shape_ = shape;
    return a;
  }
  /// A copy that owns.
  [[gnu::noinline]] AnyTensor copy() const {
    if (!present_) return {};
    AnyTensor a(shape_);
    std::copy_n(data_, size(), a.data_);
    return a;
  }

 private:
  Shape shape_;
  Storage storage_;
  T* data_ = nullptr;
  bool present_ = false;
};

/// Lends a tensor-like value to an op.
template <TensorLike X>
AnyTensor<value_type_of<X>> borrow(const X& x) {
  const auto v = view(x);
  return AnyTensor<value_type_of<X>>::borrow(v.data(), v.shape());
}

namespace detail {
/// The block of an op's result: a copy where the result does not own one.
template <class T>
[[gnu::noinline]] Storage block_of(const AnyTensor<T>& a, std::size_t rank) {
  if (a.rank() != rank) {
    fail<ShapeError>({"tensor: a result of shape ", a.shape(), " where rank ", rank, " is declared"});
  }
  return a.owns() ? a.storage() : a.copy().storage();
}
}  // namespace detail

/// The statically ranked tensor over an op's result, without a copy if the result owns its block.
template <std::size_t R, class T>
DynTensor<T, R> to_tensor(const AnyTensor<T>& a) {
  Storage block = detail::block_of(a, R);
  if constexpr (R == 0) {  // a scalar lives inline
    return DynTensor<T, 0>(DynExtents<0>(), {*a.data()});
  } else {
    return DynTensor<T, R>::share(a.shape().template extents<R>(), std::move(block));
  }
}

}  // namespace ordo
