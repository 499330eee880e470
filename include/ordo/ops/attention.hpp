#pragma once
/// \file
/// Softmax attention on the tile engine, and attention over parts of the keys put together.

#include <array>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "ordo/kernels/attention_tile.hpp"
#include "ordo/ops/attention_options.hpp"

namespace ordo {

namespace detail {

/// What the backward pass of an attention op needs besides its arguments and its output.
template <class T>
struct AttentionSaved {
  AnyTensor<T> statistics;
};

/// o and log_sum_exp.
template <class T, class Mask, class Score>
std::array<AnyTensor<T>, 2> attention_outputs(AttentionSaved<T>* saved, const kernels::AttentionInputs<T>& in, const Mask& mask, const Score& score) {
  AnyTensor<T> o(Shape{in.batch, in.queries, in.heads, in.value_dim}), lse(Shape{in.batch, in.heads, in.queries});
  kernels::AttentionOutputs<T> out;
  out.o = kernels::dense_heads(o.data(), in.queries, in.heads, in.value_dim);
  out.lse = lse.data();
  if (saved != nullptr) {
    saved->statistics = AnyTensor<T>(Shape{in.batch, in.heads, in.queries, 2});
    out.statistics = saved->statistics.data();
  }
  kernels::attention_forward<T>(in, out, mask, score);
  return {std::move(o), std::move(lse)};
}

/// Gradients of q, k, v, the arguments 0, 1, 2.
template <class T, class Mask, class Score>
void attention_pullback(Pullback<T>& p, const AttentionSaved<T>& saved, const kernels::AttentionInputs<T>& in, const Mask& mask, const Score& score,
                        T* d_sinks = nullptr) {
  const AnyTensor<T> o = p.output(0).value, d_lse = p.grad(1).value;
  AnyTensor<T> dq(p.input(0).shape()), dk(p.input(1).shape()), dv(p.input(2).shape()), d_o = p.grad(0).value;
  if (!d_o.present()) d_o = AnyTensor<T>(o.shape(), T{0});
  kernels::AttentionGradients<T> g;
  g.o = kernels::dense_heads(o.data(), in.queries, in.heads, in.value_dim);
  g.statistics = saved.statistics.data();
  g.d_o = kernels::dense_heads(std::as_const(d_o).data(), in.queries, in.heads, in.value_dim);
  g.d_lse = d_lse.data();
  g.dq = kernels::dense_heads(dq.data(), in.queries, in.heads, in.key_dim);
  g.dk = kernels::dense_heads(dk.data(), in.keys, in.kv_heads, in.key_dim);
  g.dv = kernels::dense_heads(dv.data(), in.keys, in.kv_heads, in.value_dim);
  g.d_sinks = d_sinks;
  kernels::attention_backward<T>(in, g, mask, score);
  if (p.needs(0)) p.add(0, std::move(dq));
  if (p.needs(1)) p.add(1, std::move(dk));
  if (p.needs(2)) p.add(2, std::move(dv));
}

}  // namespace detail

/// Arguments: q, k, v, attn_bias?, relative?, sinks?; outputs: o, log_sum_exp.
struct AttentionOp {
  static constexpr const char* name = detail::attention_name;
  static constexpr unsigned keeps_inputs = 0x3f, keeps_outputs = 0x1;
  static constexpr std::size_t outputs = 2;
  AttentionOptions options;
  Visibility visibility;
  RelativeRows relative_rows;

  template <class T>
  using Saved = detail::AttentionSaved<T>;

  template <class T>
  std::array<AnyTensor<T>, 2> forward(Saved<T>* saved, const AnyTensor<T>& q, const AnyTensor<T>& k, const AnyTensor<T>& v, const AnyTensor<T>& bias,
                                      const AnyTensor<T>& relative, const AnyTensor<T>& sinks) const {
    auto in = detail::attention_inputs(q, k, v, options.scale);
    const AnyTensor<T> sink = sink_scores(sinks, in.heads);
    in.sinks = sink.data();
    const detail::PreparedAttention<T> prepared(in, options, visibility, bias, relative, relative_rows);
    return detail::attention_outputs(saved, in, prepared.mask, prepared.score);
  }
  template <class T>
  void backward(Pullback<T>& p, const Saved<T>& saved) const {
    const AnyTensor<T> bias = p.input(3).value, relative = p.input(4).value;
    auto in = detail::attention_inputs(p.input(0).value, p.input(1).value, p.input(2).value, options.scale);
    const AnyTensor<T> sink = sink_scores(p.input(5).value, in.heads);
    in.sinks = sink.data();
    detail::PreparedAttention<T> prepared(in, options, visibility, bias, relative, relative_rows);
    AnyTensor<T> d_bias, d_relative, d_sinks;
    if (p.needs(3)) {
      d_bias = AnyTensor<T>(Shape{in.batch, in.heads, in.queries, in.keys}, T{0});
      prepared.score.bias.gradients = d_bias.data();
    }
    if (p.needs(4)) d_relative = prepared.relative_gradient();
    if (p.needs(5)) d_sinks = AnyTensor<T>(Shape{in.heads});
    detail::attention_pullback(p, saved, in, prepared.mask, prepared.score, d_sinks.data());
    if (p.needs(3)) p.add(3, d_bias.shape() == bias.shape() ? std::move(d_bias) : detail::sum_to_pairs(d_bias, bias.shape()));
    if (p.needs(4)) p.add(4, relative.rank() == 2 ? table_gradient(d_relative) : std::move(d_relative));
    if (p.needs(5)) p.add(5, std::move(d_sinks));
  }

 private:
  template <class T>
  AnyTensor<T> sink_scores(const AnyTensor<T>& sinks, Index heads) const {
    if (!sinks.present()) return options.softmax_one ? AnyTensor<T>(Shape{heads}, T{0}) : AnyTensor<T>{};
    if (options.softmax_one) fail<ConfigError>("attention: softmax_one is a sink of its own; there are sinks already");
    detail::require_shape(name, "sinks", sinks, Shape{heads});
    return sinks;
  }
  /// [B, H, 1, buckets] -> [buckets, H]
  template <class T>
  static AnyTensor<T> table_gradient(const AnyTensor<T>& g) {
    const Index batch = g.extent(0), heads = g.extent(1), buckets = g.extent(3);
    AnyTensor<T> y(Shape{buckets, heads}, T{0});
    for (Index b = 0; b < batch; ++b) {
      for (Index h = 0; h < heads; ++h) {
        for (Index r = 0; r < buckets; ++r) y.data()[r * heads + h] += g.data()[(b * heads + h) * buckets + r];
      }
    }
    return y;
  }
};

/// o_i = sum_j p_ij v_j, p = softmax over the keys that query i sees, and the logarithms of the sums of exp(s) [B, H, Lq].
///
///     s_ij = scale <q_i, k_j>,  then softcap, - slope |a - j|, + relative_bias[bucket(j - a), h], + attn_bias, in this order
///
/// q: [B, Lq, H, K]; k: [B, Lk, Hk, K]; v: [B, Lk, Hk, V] -> [B, Lq, H, V]. Query head h reads key/value head floor(h / (H / Hk)).
/// attn_bias [B or 1, H or 1, Lq, Lk] or [H or 1, Lq, Lk], -inf hides the pair; relative_bias [buckets, H] (T5); sinks [H]: a score that
/// joins the softmax and brings no value (gpt-oss). Each may be `none`.
/// A query without a visible key gives zeros and zero gradients, and the log-sum -inf (its sink, if there is one).
/// 2 B H Lq Lk (K + V) flops for what is visible, tile by tile; nothing of size Lq Lk is stored (but the gradient of attn_bias), the
/// backward pass recomputes it. Vaswani et al. 2017 (arXiv 1706.03762); agrees with torch's flex_attention and, where the last query is
/// the last key, scaled_dot_product_attention.
template <TensorLike Q, TensorLike K, TensorLike V, class B = None, class R = None, class S = None>
auto attention_with_log_sum_exp(const Q& q, const K& k, const V& v, const AttentionOptions& options, const Visibility& visibility = {},
                                const B& attn_bias = none, const R& relative_bias = none, const S& sinks = none, const RelativeRows& relative_rows = {}) {
  constexpr std::size_t rank = rank_of<Q>, one_less = rank == dynamic_rank ? dynamic_rank : 3;
  return apply<rank, one_less>(AttentionOp{options, visibility, relative_rows}, q, k, v, attn_bias, relative_bias, sinks);
}
/// The first of the two.
template <TensorLike Q, TensorLike K, TensorLike V, class B = None, class R = None, class S = None>
auto attention(const Q& q, const K& k, const V& v, const AttentionOptions& options, const Visibility& visibility = {}, const B& attn_bias = none,
               const R& relative_bias = none, const S& sinks = none, const RelativeRows& relative_rows = {}) {
  return std::get<0>(attention_with_log_sum_exp(q, k, v, options, visibility, attn_bias, relative_bias, sinks, relative_rows));
}
template <TensorLike Q, TensorLike K, TensorLike V>
auto attention(const Q& q, const K& k, const V& v, bool causal, double scale = 0) {
  return attention(q, k, v, AttentionOptions{.scale = scale, .causal = causal});
}

/// Arguments: q, k, v; outputs: o, log_sum_exp. With a mask and a score policy of any type.
template <class Mask, class Score>
struct PolicyAttentionOp {
  static constexpr const char* name = detail::attention_name;
  static constexpr unsigned keeps_inputs = 0x7, keeps_outputs = 0x1;
  static constexpr std::size_t outputs = 2;
  Mask mask;
  Score score;
  double scale = 0;

  template <class T>
  using Saved = detail::AttentionSaved<T>;

  template <class T>
  std::array<AnyTensor<T>, 2> forward(Saved<T>* saved, const AnyTensor<T>& q, const AnyTensor<T>& k, const AnyTensor<T>& v) const {
    return detail::attention_outputs(saved, detail::attention_inputs(q, k, v, scale), mask, score);
  }
  template <class T>
  void backward(Pullback<T>& p, const Saved<T>& saved) const {
    const auto in = detail::attention_inputs(p.input(0).value, p.input(1).value, p.input(2).value, scale);
    detail::attention_pullback(p, saved, in, mask, score);
  }
};

/// Attention with a mask and a score policy of your own, inlined into the engine: which keys a query sees is what `mask` says and nothing
/// else. A lambda is a mask, and two are a score policy, t = f(s) and its derivative:
///
///     attention_with(q, k, v, [](Index b, Index h, Index i, Index j) { return (i - j) % 4 == 0; });
///     attention_with(q, k, v, kernels::Causal{}, kernels::ScoreFunction{[](auto s, Index, Index, Index, Index) { return s / 2; },
///                                                                       [](auto, Index, Index, Index, Index) { return 0.5; }});
///
/// kernels/attention_mask.hpp tells how a mask lets whole tiles be skipped, and how masks combine (kernels::And); attention_score.hpp how a
/// policy works on vectors. Each pair of types compiles the engine once more.
template <TensorLike Q, TensorLike K, TensorLike V, kernels::AttentionMask M, class S = kernels::NoScore>
auto attention_with(const Q& q, const K& k, const V& v, const M& mask, const S& score = {}, double scale = 0) {
  constexpr std::size_t rank = rank_of<Q>, one_less = rank == dynamic_rank ? dynamic_rank : 3;
  return std::get<0>(apply<rank, one_less>(PolicyAttentionOp<M, S>{mask, score, scale}, q, k, v));
}

/// Arguments: outputs [P, B, L, H, V], log_sum_exps [P, B, H, L]; outputs: y, log_sum_exp.
struct MergeAttentionOp {
  static constexpr const char* name = "merge_attention";
  static constexpr unsigned keeps_inputs = 0x3, keeps_outputs = 0x3;
  static constexpr std::size_t outputs = 2;
  template <class T>
  struct Saved {};

  template <class T>
  std::array<AnyTensor<T>, 2> forward(Saved<T>*, const AnyTensor<T>& o, const AnyTensor<T>& lse) const {
    const Shape& s = o.shape();
    if (s.rank() != 5 || s[0] < 1 || !(lse.shape() == Shape{s[0], s[1], s[3], s[2]})) {
      fail<ShapeError>({"merge_attention: outputs of shape ", s, " with log_sum_exps of shape ", lse.shape(), "; expected [P, B, L, H, V] and [P, B, H, L]"});
    }
    AnyTensor<T> y(Shape{s[1], s[2], s[3], s[4]}), y_lse(Shape{s[1], s[3], s[2]});
    kernels::attention_merge<T>(s[0], s[1], s[2], s[3], s[4], o.data(), lse.data(), kernels::dense_heads(y.data(), s[2], s[3], s[4]), y_lse.data());
    return {std::move(y), std::move(y_lse)};
  }
  template <class T>
  void backward(Pullback<T>& p, const Saved<T>&) const {
    const AnyTensor<T> o = p.input(0).value, lse = p.input(1).value, y = p.output(0).value, y_lse = p.output(1).value;
    const Shape& s = o.shape();
    const Index parts = s[0], batch = s[1], length = s[2], heads = s[3], dim = s[4], rows = batch * heads * length;
    const AnyTensor<T> dy = p.grad(0).value, dl = p.grad(1).value;
    AnyTensor<T> d_o(s, T{0}), d_lse(lse.shape(), T{0});
    for (Index r = 0; r < parts * rows; ++r) {
      const Index row = r % rows, part = r / rows, i = row % length, h = row / length % heads, b = row / (length * heads);
      if (lse.data()[r] == -std::numeric_limits<T>::infinity()) continue;
      const T w = std::exp(lse.data()[r] - y_lse.data()[row]);
      const Index at = ((b * length + i) * heads + h) * dim, from = part * y.size() + at;
      T sum = dl.present() ? dl.data()[row] : T(0);
      if (dy.present()) {
        for (Index c = 0; c < dim; ++c) {
          d_o.data()[from + c] = w * dy.data()[at + c];
          sum += dy.data()[at + c] * (o.data()[from + c] - y.data()[at + c]);
        }
      }
      d_lse.data()[r] = w * sum;
    }
    if (p.needs(0)) p.add(0, std::move(d_o));
    if (p.needs(1)) p.add(1, std::move(d_lse));
  }
};

/// Attention over P parts of the keys put together: w_p = exp(l_p - l), l = log sum_p exp(l_p), y = sum_p w_p o_p. Returns (y, l).
///
/// outputs [P, B, L, H, V] and log_sum_exps [P, B, H, L], each of a part as attention_with_log_sum_exp() gives them, -> y [B, L, H, V],
/// l [B, H, L]: exactly the attention over all keys. A part without visible keys (l_p = -inf) has no weight; if all are, y = 0, l = -inf.
template <TensorLike O, TensorLike L>
auto merge_attention(const O& outputs, const L& log_sum_exps) {
  constexpr bool ranked = rank_of<O> != dynamic_rank;
  return apply<ranked ? 4 : dynamic_rank, ranked ? 3 : dynamic_rank>(MergeAttentionOp{}, outputs, log_sum_exps);
}

}  // namespace ordo
