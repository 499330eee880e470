#pragma once
/// \file
/// Softmax attention on the tile engine.

#include <array>
#include <cmath>
#include <string>

#include "ordo/kernels/attention_tile.hpp"
#include "ordo/ops/sequences.hpp"

namespace ordo {

/// Arguments: q, k, v.
struct AttentionOp {
  static constexpr const char* name = "attention";
  static constexpr unsigned keeps_inputs = 0x7, keeps_outputs = 0x1;
  double scale = 0;  ///< 0: K^-1/2
  bool causal = false;

  template <class T>
  struct Saved {
    AnyTensor<T> statistics;
  };

  template <class T>
  AnyTensor<T> forward(Saved<T>* saved, const AnyTensor<T>& q, const AnyTensor<T>& k, const AnyTensor<T>& v) const {
    const auto in = inputs(q, k, v);
    AnyTensor<T> o(Shape{in.batch, in.queries, in.heads, in.value_dim});
    kernels::AttentionOutputs<T> out;
    out.o = kernels::dense_heads(o.data(), in.queries, in.heads, in.value_dim);
    if (saved != nullptr) {
      saved->statistics = AnyTensor<T>(Shape{in.batch, in.heads, in.queries, 2});
      out.statistics = saved->statistics.data();
    }
    with_mask(in, [&](const auto& mask) { kernels::attention_forward<T>(in, out, mask, kernels::NoScore{}); });
    return o;
  }
  template <class T>
  void backward(Pullback<T>& p, const Saved<T>& saved) const {
    const AnyTensor<T> q = p.input(0).value, k = p.input(1).value, v = p.input(2).value, o = p.output(0).value;
    const auto in = inputs(q, k, v);
    AnyTensor<T> dq(q.shape()), dk(k.shape()), dv(v.shape());
    kernels::AttentionGradients<T> g;
    g.o = kernels::dense_heads(o.data(), in.queries, in.heads, in.value_dim);
    g.statistics = saved.statistics.data();
    const AnyTensor<T> d_o = p.grad(0).value;
    g.d_o = kernels::dense_heads(d_o.data(), in.queries, in.heads, in.value_dim);
    g.dq = kernels::dense_heads(dq.data(), in.queries, in.heads, in.key_dim);
    g.dk = kernels::dense_heads(dk.data(), in.keys, in.kv_heads, in.key_dim);
    g.dv = kernels::dense_heads(dv.data(), in.keys, in.kv_heads, in.value_dim);
    with_mask(in, [&](const auto& mask) { kernels::attention_backward<T>(in, g, mask, kernels::NoScore{}); });
    if (p.needs(0)) p.add(0, std::move(dq));
    if (p.needs(1)) p.add(1, std::move(dk));
    if (p.needs(2)) p.add(2, std::move(dv));
  }

 private:
  template <class T, class F>
  void with_mask(const kernels::AttentionInputs<T>& in, F&& f) const {
    if (causal) {
      f(kernels::Causal{in.keys - in.queries});
    } else {
      f(kernels::NoMask{});
    }
  }
  template <class T>
  kernels::AttentionInputs<T> inputs(const AnyTensor<T>& q, const AnyTensor<T>& k, const AnyTensor<T>& v) const {
    const bool ranks = q.rank() == 4 && k.rank() == 4 && v.rank() == 4;
    if (!ranks || k.extent(0) != q.extent(0) || v.extent(0) != q.extent(0) || k.extent(3) != q.extent(3) || v.extent(1) != k.extent(1) ||
        v.extent(2) != k.extent(2) || k.extent(2) == 0 || q.extent(2) % k.extent(2) != 0) {
      fail<ShapeError>("attention: q has shape " + to_string(q.shape()) + ", k " + to_string(k.shape()) + ", v " + to_string(v.shape()) +
                       "; expected [B, Lq, H, K], [B, Lk, Hk, K], [B, Lk, Hk, V] with H a multiple of Hk");
    }
    kernels::AttentionInputs<T> in;
    in.batch = q.extent(0);
    in.queries = q.extent(1);
    in.keys = k.extent(1);
    in.heads = q.extent(2);
    in.kv_heads = k.extent(2);
    in.key_dim = q.extent(3);
    in.value_dim = v.extent(3);
    in.q = kernels::dense_heads(q.data(), in.queries, in.heads, in.key_dim);
    in.k = kernels::dense_heads(k.data(), in.keys, in.kv_heads, in.key_dim);
    in.v = kernels::dense_heads(v.data(), in.keys, in.kv_heads, in.value_dim);
    in.scale = static_cast<T>(scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(in.key_dim)));
    return in;
  }
};

/// o_i = sum_j softmax_j(scale <q_i, k_j>) v_j, over the keys j <= i + Lk - Lq if `causal` (the last query is aligned with the last key).
///
/// q: [B, Lq, H, K]; k: [B, Lk, Hk, K]; v: [B, Lk, Hk, V] -> [B, Lq, H, V]. Query head h reads key/value head floor(h / (H / Hk)). scale 0: K^-1/2.
/// A query without a visible key gives zeros and zero gradients. 2 B H Lq Lk (K + V) flops, half of that if causal; nothing of
/// size Lq Lk is stored, the backward pass recomputes it. Vaswani et al. 2017; agrees with torch's scaled_dot_product_attention.
template <TensorLike Q, TensorLike K, TensorLike V>
auto attention(const Q& q, const K& k, const V& v, bool causal, double scale = 0) {
  return apply<rank_of<Q>>(AttentionOp{scale, causal}, q, k, v);
}

}  // namespace ordo
