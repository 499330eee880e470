#pragma once
/// \file
/// Attention to compressed keys and values as they are, for inference.

#include <algorithm>

#include "ordo/kernels/gemm.hpp"
#include "ordo/ops/attention.hpp"

namespace ordo {

/// Attention whose keys and values of head h are linear maps of one vector a token, with the maps moved to the query and the output:
///
///     <q_n, W_k c> = <W_k^T q_n, c>        sum_j p_j W_v c_j = W_v sum_j p_j c_j
///
/// q_n [B, L, H, K], q_r [B, L, H, R]; rows [B, capacity, C + R]: c and a key part that all heads share, the first `count` tokens;
/// weight [H (K + V), C]: per head K rows of W_k, then V of W_v. -> [B, L, H, V]. The scale of `options` has to be given.
/// 2 B L H ((K + V) C + n (2 C + R)) flops, and it reads C + R numbers a token for all heads: one key/value head.
template <class T>
DynTensor<T, 4> absorbed_latent_attention(const DynTensor<T, 4>& q_n, const DynTensor<T, 4>& q_r, const DynTensor<T, 3>& rows, Index count,
                                          const DynTensor<T, 2>& weight, Index value_dim, const AttentionOptions& options, const Visibility& visible) {
  const Index batch = q_n.extent(0), length = q_n.extent(1), heads = q_n.extent(2), k = q_n.extent(3), r = q_r.extent(3);
  const Index c = weight.extent(1), width = c + r, tokens = batch * length;
  if (weight.extent(0) != heads * (k + value_dim) || rows.extent(2) != width || count > rows.extent(1)) {
    fail<ShapeError>({"latent_attention: weight ", weight.shape(), " and rows ", rows.shape(), " for queries ", q_n.shape(), " and ", q_r.shape()});
  }
  DynTensor<T, 4> q(DynExtents<4>(batch, length, heads, width), uninitialized), mixed(DynExtents<4>(batch, length, heads, c), uninitialized);
  DynTensor<T, 4> o(DynExtents<4>(batch, length, heads, value_dim), uninitialized);
  kernels::GemmArgs<T> product;
  product.m = tokens;
  product.n = c;
  product.k = k;
  product.c_stride = heads * width;
  for (Index h = 0; h < heads; ++h) {
    product.a = {q_n.data() + h * k, heads * k, 1};
    product.b = {weight.data() + h * (k + value_dim) * c, c, 1};
    product.c = q.data() + h * width;
    kernels::gemm(product);
  }
  for (Index n = 0; n < tokens * heads; ++n) std::copy_n(q_r.data() + n * r, r, q.data() + n * width + c);
  kernels::AttentionInputs<T> in;
  in.batch = batch;
  in.queries = length;
  in.keys = count;
  in.heads = heads;
  in.kv_heads = 1;
  in.key_dim = width;
  in.value_dim = c;
  in.q = kernels::dense_heads(std::as_const(q).data(), length, heads, width);
  in.k = in.v = kernels::dense_heads(rows.data(), rows.extent(1), 1, width);
  in.scale = static_cast<T>(options.scale);
  const detail::PreparedAttention<T> prepared(in, options, visible, AnyTensor<T>{}, AnyTensor<T>{}, {});
  kernels::AttentionOutputs<T> out;
  out.o = kernels::dense_heads(mixed.data(), length, heads, c);
  kernels::attention_forward<T>(in, out, prepared.mask, prepared.score);
  product.n = value_dim;
  product.k = c;
  product.c_stride = heads * value_dim;
  for (Index h = 0; h < heads; ++h) {
    product.a = {mixed.data() + h * c, heads * c, 1};
    product.b = {weight.data() + (h * (k + value_dim) + k) * c, 1, c};
    product.c = o.data() + h * value_dim;
    kernels::gemm(product);
  }
  return o;
}

}  // namespace ordo
