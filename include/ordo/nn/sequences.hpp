#pragma once
/// \file
/// Padded batches as packed sequences: a layer that can run packed can run padded.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "ordo/nn/layer.hpp"
#include "ordo/ops/embedding.hpp"
#include "ordo/ops/sequences.hpp"
#include "ordo/ops/shape.hpp"

namespace ordo {

/// The real tokens of a padded batch, pushed together: where they stand, and where each row begins among them.
class Padding {
 public:
  /// mask [B, L]: true (or not 0) = real token.
  template <TensorLike M>
  explicit Padding(const M& mask) {
    const auto v = view(mask);
    static_assert(std::remove_cvref_t<decltype(v)>::rank() == 2, "key_padding has the shape [B, L]");
    batch_ = v.extent(0);
    length_ = v.extent(1);
    std::vector<std::int64_t, PoolAllocator<std::int64_t>> offsets{0};
    to_packed_ = AnyTensor<std::int32_t>(Shape{batch_ * length_}, -1);
    std::int32_t total = 0;
    for (Index i = 0; i < v.size(); ++i) {
      if (v.data()[i]) to_packed_.data()[i] = total++;
      if ((i + 1) % length_ == 0) offsets.push_back(total);
    }
    if (length_ == 0) offsets.assign(static_cast<std::size_t>(batch_) + 1, 0);
    from_padded_ = AnyTensor<std::int32_t>(Shape{1, total});
    for (Index i = 0; i < v.size(); ++i) {
      if (to_packed_.data()[i] >= 0) from_padded_.data()[to_packed_.data()[i]] = static_cast<std::int32_t>(i);
    }
    to_packed_ = to_packed_.reshaped(Shape{batch_, length_});
    packing_ = Packing(offsets);
  }

  /// Rows whose first lengths[b] of `length` tokens are real.
  template <TensorLike X>
  static Padding of_lengths(const X& lengths, Index length) {
    const auto v = view(lengths);
    static_assert(std::remove_cvref_t<decltype(v)>::rank() == 1, "lengths have the shape [B]");
    DynTensor<std::uint8_t, 2> mask(v.size(), length);
    for (Index b = 0; b < v.size(); ++b) {
      const auto n = static_cast<Index>(v.data()[b]);
      if (n < 0 || n > length) fail<ShapeError>("lengths: row " + std::to_string(b) + " has " + std::to_string(n) + " tokens of " + std::to_string(length));
      std::fill_n(mask.data() + b * length, n, std::uint8_t{1});
    }
    return Padding(mask);
  }

  const Packing& packing() const noexcept { return packing_; }

  /// [B, L, D] -> [1, real tokens, D].
  template <TensorLike X>
  auto pack(const X& x) const {
    const auto v = view(x);
    if (v.extent(0) != batch_ || v.extent(1) != length_) {
      fail<ShapeError>({"key_padding: the mask has shape ", to_string(Shape{batch_, length_}), ", the input ", v.shape()});
    }
    return apply<3>(GatherRowsOp{from_padded_}, reshape(x, batch_ * length_, v.extent(2)));
  }
  /// [1, real tokens, D] -> [B, L, D], zeros at padded places.
  template <TensorLike X>
  auto unpack(const X& x) const {
    const auto v = view(x);
    return apply<3>(GatherRowsOp{to_packed_}, reshape(x, v.extent(1), v.extent(2)));
  }

 private:
  Index batch_ = 0, length_ = 0;
  AnyTensor<std::int32_t> to_packed_, from_padded_;
  Packing packing_;
};

}  // namespace ordo
