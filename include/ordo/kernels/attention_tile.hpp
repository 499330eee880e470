#pragma once
/// \file
/// The attention engine: softmax attention without the matrix of scores, forward and backward.
///
///     s_ij = scale <q_i, k_j>      t_ij = score policy of s_ij, -inf where the mask hides the pair
///     p_ij = exp(t_ij) / (sum_j exp(t_ij) + exp(sink_h))      o_i = sum_j p_ij v_j      lse_i = log of the denominator
///
/// Online softmax over tiles of keys (Milakov & Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).
/// Masks and score policies are types, inlined into the loops: attention_mask.hpp and attention_score.hpp say how they
/// are written. Tiles that a mask calls empty are skipped, tiles that it calls full pay nothing.
///
/// What every combination guarantees:
/// - A query that sees no key gets o = 0, lse = -inf (its sink, if there is one) and zero gradients.
/// - What is behind the mask is not felt: keys and values that a query does not see may hold NaN. A NaN that a query
///   sees makes that query's row NaN and no other.
/// - Scores of any finite size; a row with one key gets exactly that value, and ds = 0 exactly.
/// - The same bits for any number of threads.

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "ordo/kernels/attention_backward.hpp"
#include "ordo/kernels/attention_block.hpp"
#include "ordo/kernels/attention_decode.hpp"
#include "ordo/kernels/attention_forward.hpp"
#include "ordo/kernels/attention_mask.hpp"
#include "ordo/kernels/attention_score.hpp"

namespace ordo::kernels {

/// o, and what else is asked for. Cost: 2 B H Lq Lk (K + V) flops for a full mask, half of it for a causal one; scratch
/// of some 100 KB a thread.
template <class T, class Arch = simd::DefaultArch, AttentionMask M, class Score>
void attention_forward(const AttentionInputs<T>& in, const AttentionOutputs<T>& to, const M& mask, const Score& score) {
  const Index rows = in.batch * in.heads * in.queries;
  if (rows == 0) return;
  // The backward pass must find the same bits in its scores as the statistics, so those come from the same products.
  const bool few = in.queries * in.group() <= detail::few_rows<T, Arch> && to.statistics == nullptr;
  const detail::ForwardPlan plan = few ? detail::decode_plan(in) : detail::forward_plan<T, Arch>(in);
  detail::ForwardOutput<T> out{
      to, detail::exponent_factor<T>(score), nullptr, nullptr, nullptr, in.heads, in.queries, in.value_dim, rows};
  std::optional<Scratch<T>> parts;
  if (plan.parts > 1) {
    parts.emplace(plan.parts * rows * (in.value_dim + 2));
    out.part_values = parts->data();
    out.part_max = out.part_values + plan.parts * rows * in.value_dim;
    out.part_sum = out.part_max + plan.parts * rows;
  }
  if (few) {
    detail::decode_parts<T, Arch>(in, plan, out, mask, score);
  } else {
    detail::forward_blocks<T, Arch>(in, plan, out, mask, score);
  }
  if (plan.parts > 1) out.template merge<Arch>(plan.parts, in.batch);
}

/// Attention over parts of the keys, put together: o [P, B, Lq, H, V] and lse [P, B, H, Lq], dense, of P disjoint sets
/// of keys give y [B, Lq, H, V] and y_lse [B, H, Lq] (may be null) of all of them.
///
///     y_lse = log sum_p exp(lse_p)      y = sum_p exp(lse_p - y_lse) o_p
///
/// A part without visible keys (lse = -inf) has no weight; if all are, y = 0 and y_lse = -inf.
template <class T, class Arch = simd::DefaultArch>
void attention_merge(Index parts, Index batch, Index queries, Index heads, Index value_dim, const T* o, const T* lse,
                     const HeadsView<T>& y, T* y_lse) {
  using V = simd::Vec<T, Arch>;
  const Index rows = batch * heads * queries;
  parallel_for(rows, std::max<Index>(1, 16384 / std::max<Index>(value_dim, 1)), [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const Index i = r % queries, h = r / queries % heads, b = r / (queries * heads);
      T max = -std::numeric_limits<T>::infinity();
      for (Index p = 0; p < parts; ++p) {
        const T l = lse[p * rows + r];
        max = l > max || l != l ? l : max;
      }
      T sum = T(0);
      for (Index p = 0; p < parts; ++p) {
        const T l = lse[p * rows + r];
        if (l != -std::numeric_limits<T>::infinity()) sum += std::exp(l - max);
      }
      const T total = sum == T(0) ? max : max + std::log(sum);
      T* const to = y.at(b, i, h);
      std::fill_n(to, value_dim, T(0));
      for (Index p = 0; p < parts; ++p) {
        const T l = lse[p * rows + r];
        if (l == -std::numeric_limits<T>::infinity()) continue;
        const V w(std::exp(l - max) / sum);
        const T* const from = o + (((p * batch + b) * queries + i) * heads + h) * value_dim;
        simd::transform<Arch>(to, from, to, value_dim, [&](const V& x, const V& z) { return V(simd::fma(w, z, x)); });
      }
      if (y_lse != nullptr) y_lse[r] = total;
    }
  });
}

}  // namespace ordo::kernels
