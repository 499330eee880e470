#pragma once
/// \file
/// KvCache: the keys and values that an attention stream remembers.

#include <algorithm>
#include <string>

#include "ordo/autograd/state.hpp"
#include "ordo/kernels/attention_tile.hpp"
#include "ordo/ops/attention.hpp"
#include "ordo/ops/shape.hpp"

namespace ordo {

/// Keys and values of all tokens so far: `keys` [B, capacity, Hk, K], `values` [B, capacity, Hk, V], `length` [B] of each row.
///
/// Plain, the capacity doubles when it is reached (reserve() it to stream without allocating); recorded, the tensors hold exactly
/// the tokens so far and every row has as many.
template <Mode M, class T>
struct KvCache : StateInterface<KvCache<M, T>> {
  StateTensor<M, T, 4> keys, values;
  StateTensor<M, std::int32_t, 1> length;

  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("keys", s.keys);
    f("values", s.values);
    f("length", s.length);
  }

  /// Room for `tokens` tokens in each row.
  void reserve(Index tokens)
    requires(M == Mode::plain)
  {
    grow(keys, tokens);
    grow(values, tokens);
  }

  /// Appends k [B, L, Hk, K] and v [B, L, Hk, V], then attends from q [B, L, H, K] to all tokens up to its own.
  template <class Q, class K, class V>
  auto append_and_attend(const Q& q, const K& k, const V& v, double scale) {
    const auto vk = view(k);
    if (vk.extent(0) != keys.extent(0)) {
      fail<ShapeError>("kv_cache: an input of " + std::to_string(vk.extent(0)) + " rows, a cache of " + std::to_string(keys.extent(0)));
    }
    if constexpr (M == Mode::plain && mode_of<Q> == Mode::plain) {
      return attend_plain(view(q), vk, view(v), scale);
    } else {
      static_assert(M == Mode::recorded, "a tracked input needs a tracked state: track(tape, state)");
      const Index past = keys.extent(1) == 0 ? 0 : *std::max_element(length.data(), length.data() + length.size());
      if (std::any_of(length.data(), length.data() + length.size(), [past](std::int32_t n) { return n != past; })) {
        fail<UsageError>("kv_cache: a recorded stream needs rows of one length");
      }
      keys = concat(1, slice(keys, 1, 0, past), k);
      values = concat(1, slice(values, 1, 0, past), v);
      length = track(length.tape(), DynTensor<std::int32_t, 1>(DynExtents<1>(length.size()), static_cast<std::int32_t>(past + vk.extent(1))));
      return attention(q, keys, values, true, scale);
    }
  }

 private:
  static void grow(DynTensor<T, 4>& t, Index tokens) {
    if (t.extent(1) >= tokens) return;
    DynTensor<T, 4> bigger(DynExtents<4>(t.extent(0), tokens, t.extent(2), t.extent(3)), uninitialized);
    const Index row = t.extent(2) * t.extent(3);
    for (Index b = 0; b < t.extent(0); ++b) {
      T* to = std::copy_n(t.data() + b * t.extent(1) * row, t.extent(1) * row, bigger.data() + b * tokens * row);
      std::fill(to, bigger.data() + (b + 1) * tokens * row, T{0});
    }
    t = std::move(bigger);
  }
  static void write(DynTensor<T, 4>& to, const DynView<const T, 4>& from, const DynTensor<std::int32_t, 1>& at) {
    const Index row = to.extent(2) * to.extent(3), count = from.extent(1) * row;
    for (Index b = 0; b < to.extent(0); ++b) std::copy_n(from.data() + b * count, count, to.data() + (b * to.extent(1) + at(b)) * row);
  }
  DynTensor<T, 4> attend_plain(const DynView<const T, 4>& q, const DynView<const T, 4>& k, const DynView<const T, 4>& v, double scale) {
    const Index batch = k.extent(0), tokens = k.extent(1);
    const Index longest = tokens + *std::max_element(length.begin(), length.end());
    if (longest > keys.extent(1)) reserve(std::max(longest, 2 * keys.extent(1)));
    write(keys, k, length);
    write(values, v, length);
    Scratch<Index> past(batch);
    for (Index b = 0; b < batch; ++b) {
      past[b] = length(b);
      length(b) += static_cast<std::int32_t>(tokens);
    }
    kernels::AttentionInputs<T> in;
    in.batch = batch;
    in.queries = tokens;
    in.keys = longest;
    in.heads = q.extent(2);
    in.kv_heads = k.extent(2);
    in.key_dim = q.extent(3);
    in.value_dim = v.extent(3);
    in.q = kernels::dense_heads(q.data(), tokens, in.heads, in.key_dim);
    in.k = kernels::dense_heads(std::as_const(keys).data(), keys.extent(1), in.kv_heads, in.key_dim);
    in.v = kernels::dense_heads(std::as_const(values).data(), values.extent(1), in.kv_heads, in.value_dim);
    in.scale = static_cast<T>(scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(in.key_dim)));
    DynTensor<T, 4> o(DynExtents<4>(batch, tokens, in.heads, in.value_dim), uninitialized);
    kernels::AttentionOutputs<T> out;
    out.o = kernels::dense_heads(o.data(), tokens, in.heads, in.value_dim);
    kernels::attention_forward<T>(in, out, kernels::Causal{past.data()}, kernels::NoScore{});
    return o;
  }
};

}  // namespace ordo
