#pragma once
/// \file
/// DifferentialAttention: the difference of two softmax maps.

#include <cmath>
#include <optional>
#include <string>

#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/ops/reduce.hpp"

namespace ordo {

/// Query heads h and h + H/2 read the same wide values, 2K features, and the second is subtracted lambda times:
///
///     o_h = softmax(q_h k_g K^-1/2) [v_m, v_{m + Hk/2}],  g = floor(h / (H/Hk)),  m = g mod Hk/2
///     u_h = o_h - lambda o_{h + H/2},  h < H/2,   lambda = exp(<lambda_q1, lambda_k1>) - exp(<lambda_q2, lambda_k2>) + lambda_init
///     y = o_proj((1 - lambda_init) u_h / sqrt(mean(u_h^2) + norm_eps), the heads joined)
///
/// x, y: [B, L, model_dim]; always causal. State: a KvCache, 2 Hk K numbers a token and row. Ye et al. 2024 (arXiv 2410.05258), where
/// lambda_init = 0.8 - 0.6 exp(-0.3 depth); agrees with transformers' DiffLlamaAttention.
template <class T = float>
class DifferentialAttention {
  static constexpr const char* name = "differential_attention";

 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0, num_heads = 2;
    Index num_kv_heads = 0;  ///< 0: num_heads; both even
    Index head_dim = 0;      ///< 0: model_dim / num_heads
    bool qkv_bias = false, out_bias = false;
    bool causal = true;    ///< the only value
    double rope_base = 0;  ///< 0: no rotary positions
    double norm_eps = 1e-6;
    double lambda_init = 0.2;
    Index cache_reserve = 0;  ///< tokens that a fresh state has room for
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("num_heads", c.num_heads);
      f("num_kv_heads", c.num_kv_heads);
      f("head_dim", c.head_dim);
      f("qkv_bias", c.qkv_bias);
      f("out_bias", c.out_bias);
      f("causal", c.causal);
      f("rope_base", c.rope_base);
      f("norm_eps", c.norm_eps);
      f("lambda_init", c.lambda_init);
    }
  };
  template <Mode M = Mode::plain>
  struct State : KvCacheState<State<M>, M, T> {};

  DifferentialAttention() = default;
  DifferentialAttention(const Config& given, Random& random) : config_(given) {
    Config& c = config_;
    detail::complete_heads(name, c);
    if (c.num_heads % 2 != 0 || c.num_kv_heads % 2 != 0) {
      fail<ConfigError>({"differential_attention: num_heads ", c.num_heads, " and num_kv_heads ", c.num_kv_heads, " must be even"});
    }
    if (!c.causal) fail<ConfigError>("differential_attention: the layer is causal");
    if (c.rope_base > 0) frequencies_ = rotary_frequencies(c.head_dim, c.rope_base);
    q_proj_ = Linear<T>({c.model_dim, c.num_heads * c.head_dim, c.qkv_bias}, random);
    k_proj_ = Linear<T>({c.model_dim, c.num_kv_heads * c.head_dim, c.qkv_bias}, random);
    v_proj_ = Linear<T>({c.model_dim, c.num_kv_heads * c.head_dim, c.qkv_bias}, random);
    o_proj_ = Linear<T>({c.num_heads * c.head_dim, c.model_dim, c.out_bias}, random);
    for (DynParameter<T, 1>* const lambda : {&lambda_q1_, &lambda_k1_, &lambda_q2_, &lambda_k2_}) {
      *lambda = normal_parameter<T>(DynExtents<1>(c.head_dim), 0.1, random);
    }
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    const auto v = view(x);
    const auto [q, k, values] = project(x, detail::token_positions(name, v.extent(0), v.extent(1)));
    return output(attention(q, k, wide(values), options()));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    auto& cache = state.cache;
    const auto [q, k, v] = project(x, detail::positions_behind(cache.length, view(x).extent(1)));
    cache.check_batch(view(x).extent(0));
    if constexpr (M == Mode::plain && mode_of<X> == Mode::plain) {
      const auto past = cache.append(view(k), view(v));
      Visibility visible;
      if (!cache.uniform(past)) visible.query_positions = cache.positions_after(past, view(x).extent(1));
      return output(attend_cache(q, cache, visible));
    } else {
      cache.append_recorded(k, v);
      return output(attention(q, cache.keys, wide(cache.values), options()));
    }
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return detail::only_token((*this)(detail::one_token(x_t), state));
  }
  State<Mode::plain> initial_state(Index batch) const {
    const Config& c = config_;
    State<Mode::plain> s;
    s.cache = KvCache<Mode::plain, T>::empty(batch, c.cache_reserve, c.num_kv_heads, c.head_dim, c.head_dim);
    return s;
  }

  const Config& config() const noexcept { return config_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("q_proj", self.q_proj_);
    f("k_proj", self.k_proj_);
    f("v_proj", self.v_proj_);
    f("o_proj", self.o_proj_);
    f("lambda_q1", self.lambda_q1_);
    f("lambda_k1", self.lambda_k1_);
    f("lambda_q2", self.lambda_q2_);
    f("lambda_k2", self.lambda_k2_);
  }

 private:
  static AttentionOptions options() {
    AttentionOptions o;
    o.causal = true;
    return o;
  }
  template <class X>
  auto project(const X& x, const AnyTensor<std::int32_t>& positions) const {
    std::optional<RotaryTable<T>> table;
    if (config_.rope_base > 0) table.emplace(frequencies_, positions);
    const auto rotated = [&table](auto heads) {
      if (!table) return heads;
      return rotary(heads, *table);
    };
    return std::tuple(rotated(detail::split_heads(q_proj_(x), config_.num_heads)), rotated(detail::split_heads(k_proj_(x), config_.num_kv_heads)),
                      detail::split_heads(v_proj_(x), config_.num_kv_heads));
  }
  /// [B, n, Hk, K] -> [B, n, Hk, 2K]: the wide values of each key head.
  template <class V>
  auto wide(const V& v) const {
    const Index half = config_.num_kv_heads / 2;
    const auto pairs = concat(3, slice(v, 2, 0, half), slice(v, 2, half, half));
    return concat(2, pairs, pairs);
  }
  /// The same attention without making the wide values: each half of the queries' heads against each half of the values' heads, in place.
  DynTensor<T, 4> attend_cache(const DynTensor<T, 4>& q, const KvCache<Mode::plain, T>& cache, const Visibility& visible) const {
    const Index heads = config_.num_heads / 2, kv_heads = config_.num_kv_heads / 2, k = config_.head_dim, length = q.extent(1);
    DynTensor<T, 4> o(DynExtents<4>(q.extent(0), length, 2 * heads, 2 * k), uninitialized);
    kernels::AttentionInputs<T> in;
    in.batch = q.extent(0);
    in.queries = length;
    in.keys = cache.longest();
    in.heads = heads;
    in.kv_heads = kv_heads;
    in.key_dim = in.value_dim = k;
    in.scale = static_cast<T>(1 / std::sqrt(static_cast<double>(k)));
    const AttentionOptions causal = options();
    const detail::PreparedAttention<T> prepared(in, causal, visible, AnyTensor<T>{}, AnyTensor<T>{}, {});
    for (const Index map : {0, 1}) {
      in.q = kernels::dense_heads(q.data() + map * heads * k, length, 2 * heads, k);
      in.k = kernels::dense_heads(cache.keys.data() + map * kv_heads * k, cache.keys.extent(1), 2 * kv_heads, k);
      for (const Index half : {0, 1}) {
        in.v = kernels::dense_heads(cache.values.data() + half * kv_heads * k, cache.values.extent(1), 2 * kv_heads, k);
        kernels::AttentionOutputs<T> out;
        out.o = kernels::dense_heads(o.data() + map * heads * 2 * k + half * k, length, 2 * heads, 2 * k);
        kernels::attention_forward<T>(in, out, prepared.mask, prepared.score);
      }
    }
    return o;
  }
  template <class O>
  auto output(const O& o) const {
    const Index half = config_.num_heads / 2;
    // On the tape of o, so that the result is recorded where o is.
    const auto product = [&](const DynParameter<T, 1>& a, const DynParameter<T, 1>& b) {
      return exp(sum(apply_in<1>(recorder(o), MulOp{}, a, b)));
    };
    const auto lambda = affine(sub(product(lambda_q1_, lambda_k1_), product(lambda_q2_, lambda_k2_)), 1, config_.lambda_init);
    const auto u = sub(slice(o, 2, 0, half), mul(slice(o, 2, half, half), lambda));
    return o_proj_(detail::join_heads(affine(rms_norm(u, none, config_.norm_eps), 1 - config_.lambda_init)));
  }

  Config config_;
  RotaryFrequencies frequencies_;
  Linear<T> q_proj_, k_proj_, v_proj_, o_proj_;
  DynParameter<T, 1> lambda_q1_, lambda_k1_, lambda_q2_, lambda_k2_;
};

static_assert(SequenceLayer<DifferentialAttention<float>>);

}  // namespace ordo
