#pragma once
/// \file
/// What a call of a block or model may be given beside its sequence.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ordo/autograd/state.hpp"
#include "ordo/ops/attention_options.hpp"

namespace ordo {

namespace detail {
/// Nothing is given.
inline bool empty(const Visibility& v) noexcept {
  return !v.key_padding.present() && !v.mask.present() && !v.lengths.present() && !v.segments.present() && !v.prefix_length.present() &&
         !v.packing.packed() && !v.block_list.present();
}
}  // namespace detail

/// The keys and values that the cross attention of one block reads.
template <Mode M, class T>
struct CrossKeys : StateInterface<CrossKeys<M, T>> {
  StateTensor<M, T, 4> keys, values;  ///< [B, Lm, Hk, K]
  bool present = false;               ///< false: the block has no cross attention
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    if (!s.present) return;
    f("keys", s.keys);
    f("values", s.values);
  }
};

/// A memory as a decoder sees it: computed once by `decoder.remember(memory, key_padding)`, read by every call and step.
template <Mode M, class T>
struct CrossMemory : StateInterface<CrossMemory<M, T>> {
  static constexpr Mode mode = M;
  std::vector<CrossKeys<M, T>> layers;
  AnyTensor<std::uint8_t> key_padding;  ///< [B, Lm]; absent: all real
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("layers", s.layers);
  }
  /// Row i becomes what row indices[i] was, the padding included.
  void copy_rows(std::span<const Index> indices) {
    StateInterface<CrossMemory<M, T>>::copy_rows(indices);
    if (!key_padding.present()) return;
    const Index rows = key_padding.extent(0), length = key_padding.extent(1);
    AnyTensor<std::uint8_t> copied(Shape{static_cast<Index>(indices.size()), length});
    std::uint8_t* to = copied.data();
    for (const Index row : indices) {
      if (row < 0 || row >= rows) fail<ShapeError>({"memory: row ", row, " of key_padding, which has ", rows});
      to = std::copy_n(key_padding.data() + row * length, length, to);
    }
    key_padding = copied;
  }
};

/// Beside the sequence, all optional. M: the mode of the sequence, T: the model's scalar type, so that a call reads
/// `model(x, {.visibility = {.key_padding = padding}, .memory = &memory})`.
template <Mode M, class T>
struct Inputs {
  Visibility visibility{};                     ///< of the mixers' keys
  const CrossMemory<M, T>* memory = nullptr;   ///< of the cross attentions
};

/// Where a block stands in its stack: which keys of a memory are its own, and the T5 table that the mixers of a stack share.
template <class T>
struct BlockPlace {
  Index layer = 0;
  const DynParameter<T, 2>* relative_bias = nullptr;
};

}  // namespace ordo
