#pragma once
/// \file
/// Which rows of an activation tensor make up which sequence, for ops over time: padded batches, packed sequences.

#include <cstdint>
#include <string>

#include "ordo/autograd/apply.hpp"
#include "ordo/core/any_tensor.hpp"
#include "ordo/kernels/sequences.hpp"

namespace ordo {

/// Several sequences one behind the other in one row: sequence s is tokens [cu_seqlens[s], cu_seqlens[s + 1]) of an input of
/// shape [1, L, ...]. S + 1 numbers, first 0, last L, never decreasing; equal neighbours are an empty sequence, which hands its
/// state through. States have S rows. Default-made: every row of the batch is a sequence.
class Packing {
 public:
  Packing() = default;
  /// Copies the offsets; ShapeError if they do not begin with 0 or decrease.
  template <TensorLike X>
  explicit Packing(const X& cu_seqlens) {
    const auto v = view(cu_seqlens);
    static_assert(std::remove_cvref_t<decltype(v)>::rank() == 1, "cu_seqlens has one axis");
    if (v.size() == 0) fail<ShapeError>("cu_seqlens: empty; expected S + 1 numbers");
    offsets_ = AnyTensor<std::int64_t>(Shape{v.size()});
    for (Index i = 0; i < v.size(); ++i) {
      offsets_.data()[i] = static_cast<std::int64_t>(v.data()[i]);
      if (offsets_.data()[i] < (i == 0 ? 0 : offsets_.data()[i - 1]) || (i == 0 && offsets_.data()[0] != 0)) {
        fail<ShapeError>("cu_seqlens: entry " + std::to_string(i) + " is " + std::to_string(offsets_.data()[i]) +
                         "; the first must be 0 and none less than the one before");
      }
    }
  }

  bool packed() const noexcept { return offsets_.present(); }
  Index count() const noexcept { return offsets_.size() - 1; }

  /// The sequences of an input of `batch` rows of `length` tokens; ShapeError if the offsets do not end with its tokens.
  kernels::Sequences sequences(const char* op, Index batch, Index length) const {
    if (!packed()) return {batch, length, nullptr};
    if (batch != 1 || offsets_.data()[count()] != length) {
      fail<ShapeError>(std::string(op) + ": cu_seqlens ends with " + std::to_string(offsets_.data()[count()]) +
                       ", the input has " + std::to_string(batch) + " rows of " + std::to_string(length) +
                       " tokens (packed sequences stand in one row)");
    }
    return {count(), length, offsets_.data()};
  }

 private:
  AnyTensor<std::int64_t> offsets_;
};

namespace detail {

/// Rows [rows, width] of the last axis of x, for kernels; not there if x is absent.
template <class T>
kernels::Rows<const T> rows_of(const AnyTensor<T>& x) {
  return x.present() ? kernels::Rows<const T>(x.data(), x.shape().back()) : kernels::Rows<const T>();
}
template <class T>
kernels::Rows<T> mutable_rows_of(AnyTensor<T>& x) {
  return x.present() ? kernels::Rows<T>(x.data(), x.shape().back()) : kernels::Rows<T>();
}

/// ShapeError unless x is absent or has the shape.
template <class T>
void require_shape(const char* op, const char* argument, const AnyTensor<T>& x, const Shape& expected) {
  if (x.present() && !(x.shape() == expected)) {
    fail<ShapeError>({op, ": ", argument, " has shape ", x.shape(), ", expected ", expected});
  }
}

/// A gradient to be filled: absent if nobody wants it.
template <class T>
AnyTensor<T> gradient_like(const Pullback<T>& p, std::size_t i) {
  return p.needs(i) ? AnyTensor<T>(p.input(i).shape()) : AnyTensor<T>{};
}

}  // namespace detail

}  // namespace ordo
