#pragma once
/// \file
/// Attention with vectors for distances: scores of queries against a table of them, and values that depend on the distance.

#include <algorithm>
#include <cmath>
#include <limits>

#include "ordo/ops/attention.hpp"
#include "ordo/ops/matmul.hpp"
#include "ordo/ops/softmax.hpp"

namespace ordo {

/// scores[b, h, i, r] = <q[b, i, h], table[h, r]>: q [B, L, H, K], table [H, rows, K] or [rows, K] for all heads -> [B, H, L, rows].
template <TensorLike Q, TensorLike E>
auto relative_scores(const Q& q, const E& table) {
  const auto v = view(q);
  const Index batch = v.extent(0), length = v.extent(1), heads = v.extent(2), k = v.extent(3);
  if constexpr (rank_of<E> == 2) {
    return transpose(matmul(q, table, false, true), 1, 2);
  } else {
    const auto by_head = reshape(transpose(transpose(q, 1, 2), 0, 1), heads, batch * length, k);
    return transpose(reshape(matmul(by_head, table, false, true), heads, batch, length, view(table).extent(1)), 0, 1);
  }
}

/// From rows to keys: y[b, h, i, j] = x[b, h, i, rows[distance of j]]; or back, summed up (adjoint).
struct RelativeKeysOp {
  static constexpr const char* name = "relative_keys";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  RelativeRows map;
  AnyTensor<std::int64_t> query_positions;  ///< [B or 1, L]
  Index keys = 0, rows = 0;
  bool adjoint = false;

  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    const Index batch = x.extent(0), heads = x.extent(1), length = x.extent(2), width = adjoint ? rows : keys;
    AnyTensor<T> y(Shape{batch, heads, length, width}, T{0});
    for (Index n = 0; n < batch * heads * length; ++n) {
      const Index b = query_positions.extent(0) == 1 ? 0 : n / (heads * length);
      const auto a = static_cast<Index>(query_positions.data()[b * length + n % length]);
      const T* const in = x.data() + n * (adjoint ? keys : rows);
      T* const out = y.data() + n * width;
      for (Index j = 0; j < keys; ++j) {
        const Index row = map.rows.data()[std::clamp<Index>(j - a + map.shift, 0, map.rows.size() - 1)];
        if (row < 0) continue;
        if (adjoint) {
          out[row] += in[j];
        } else {
          out[j] = in[row];
        }
      }
    }
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    RelativeKeysOp turned = *this;
    turned.adjoint = !adjoint;
    p.add(0, apply<dynamic_rank>(turned, p.grad(0)));
  }
};

/// o_i = sum_j p_ij (v_j + value_table[h, row of j - a_i]), p = softmax(scale (<q_i, k_j> + <q_i, table[h, row]>)). Shaw et al. 2018.
///
/// q [B, L, H, K], k [B, n, H, K], v [B, n, H, V], tables [H, rows, K or V] or [rows, K or V]; `rows` tells the row of a distance, -1: a
/// vector of zeros. `query_positions` [B or 1, L]. The weights are made whole, B H L n numbers: the sum over the values of the distances
/// needs each of them. Without value_table use attention() with relative_scores(), which stores none.
template <TensorLike Q, TensorLike K, TensorLike V, TensorLike E, TensorLike F>
auto relative_value_attention(const Q& q, const K& k, const V& v, const E& table, const F& value_table, bool causal, const RelativeRows& rows,
                              const AnyTensor<std::int64_t>& query_positions) {
  using T = value_type_of<Q>;
  const auto shape = view(q);
  const Index keys = view(k).extent(1), batch = shape.extent(0), length = shape.extent(1), heads = shape.extent(2);
  const auto by_head = [](const auto& x) { return transpose(x, 1, 2); };
  const auto relative = apply<4>(RelativeKeysOp{rows, query_positions, keys, view(table).extent(rank_of<E> - 2), false}, relative_scores(q, table));
  const auto both = affine(add(matmul(by_head(q), by_head(k), false, true), relative), 1 / std::sqrt(static_cast<double>(shape.extent(3))));
  DynTensor<T, 4> hidden(query_positions.extent(0), Index{1}, length, keys);
  for (Index n = 0; n < hidden.size(); ++n) {
    if (causal && n % keys > query_positions.data()[n / keys]) hidden.data()[n] = -std::numeric_limits<T>::infinity();
  }
  const auto p = softmax(add(both, hidden), -1);
  const Index table_rows = view(value_table).extent(rank_of<F> - 2);
  const auto summed = apply<4>(RelativeKeysOp{rows, query_positions, keys, table_rows, true}, p);
  const auto of_table = [&] {
    if constexpr (rank_of<F> == 2) {
      return matmul(summed, value_table);
    } else {
      const Index width = view(value_table).extent(2);
      return transpose(reshape(matmul(reshape(transpose(summed, 0, 1), heads, batch * length, table_rows), value_table), heads, batch, length, width), 0, 1);
    }
  }();
  return transpose(add(matmul(p, by_head(v)), of_table), 1, 2);
}

}  // namespace ordo
