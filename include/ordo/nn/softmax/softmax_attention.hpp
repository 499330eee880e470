#pragma once
/// \file
/// SoftmaxAttention: multi-head attention with grouped keys, rotary positions and a key/value cache.

#include <string>

#include "ordo/cache/kv_cache.hpp"
#include "ordo/nn/layer.hpp"
#include "ordo/nn/linear.hpp"
#include "ordo/ops/attention.hpp"
#include "ordo/ops/rotary.hpp"

namespace ordo {

/// y = o_proj(attention(rope(q_proj(x)), rope(k_proj(x)), v_proj(x))) with H query heads and Hk key/value heads.
///
/// x, y: [B, L, model_dim]. Query head h reads key/value head floor(h / (H / Hk)): H = Hk is multi-head, Hk = 1 multi-query attention.
/// State: a KvCache, Hk (K + V) numbers a token and row. A step with n tokens in the cache costs 2 H n (K + V) flops beside the
/// projections, reads Hk n (K + V) numbers, and allocates nothing while the cache has room.
/// Vaswani et al. 2017 (arXiv 1706.03762), Ainslie et al. 2023 (2305.13245), Su et al. 2021 (2104.09864).
/// Agrees with torch's scaled_dot_product_attention; the last query is aligned with the last key.
template <class T = float>
class SoftmaxAttention {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0, num_heads = 1;
    Index num_kv_heads = 0;    ///< 0: num_heads
    Index head_dim = 0;        ///< K; 0: model_dim / num_heads
    Index value_head_dim = 0;  ///< V; 0: head_dim
    bool qkv_bias = false, out_bias = false;
    bool causal = true;    ///< false: every token sees all; no state then
    double scale = 0;      ///< 0: head_dim^-1/2
    double rope_base = 0;  ///< 0: no rotary positions
    Index rope_dim = 0;    ///< 0: head_dim
    bool rope_interleaved = false;
    Index cache_reserve = 0;  ///< tokens that a fresh state has room for
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("num_heads", c.num_heads);
      f("num_kv_heads", c.num_kv_heads);
      f("head_dim", c.head_dim);
      f("value_head_dim", c.value_head_dim);
      f("qkv_bias", c.qkv_bias);
      f("out_bias", c.out_bias);
      f("causal", c.causal);
      f("scale", c.scale);
      f("rope_base", c.rope_base);
      f("rope_dim", c.rope_dim);
      f("rope_interleaved", c.rope_interleaved);
    }
  };

  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    KvCache<M, T> kv_cache;
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("kv_cache", s.kv_cache);
    }
  };

  SoftmaxAttention() = default;
  SoftmaxAttention(const Config& given, Random& random) : config_(given) {
    Config& c = config_;
    detail::require_at_least("softmax_attention", "model_dim", c.model_dim, 1);
    detail::require_at_least("softmax_attention", "num_heads", c.num_heads, 1);
    if (c.num_kv_heads == 0) c.num_kv_heads = c.num_heads;
    if (c.num_kv_heads < 1 || c.num_heads % c.num_kv_heads != 0) {
      fail<ConfigError>("softmax_attention: num_heads " + std::to_string(c.num_heads) + " is not a multiple of num_kv_heads " +
                        std::to_string(c.num_kv_heads));
    }
    if (c.head_dim == 0) {
      if (c.model_dim % c.num_heads != 0) {
        fail<ConfigError>("softmax_attention: model_dim " + std::to_string(c.model_dim) + " is not a multiple of num_heads " +
                          std::to_string(c.num_heads) + "; give head_dim");
      }
      c.head_dim = c.model_dim / c.num_heads;
    }
    if (c.value_head_dim == 0) c.value_head_dim = c.head_dim;
    detail::require_at_least("softmax_attention", "head_dim", c.head_dim, 1);
    detail::require_at_least("softmax_attention", "value_head_dim", c.value_head_dim, 1);
    if (c.rope_base < 0) fail<ConfigError>("softmax_attention: rope_base must be positive, or 0 for no rotary positions");
    if (c.rope_dim == 0) c.rope_dim = c.head_dim;
    if (c.rope_base > 0 && (c.rope_dim % 2 != 0 || c.rope_dim < 0 || c.rope_dim > c.head_dim)) {
      fail<ConfigError>("softmax_attention: rope_dim " + std::to_string(c.rope_dim) + " must be even and at most head_dim " +
                        std::to_string(c.head_dim));
    }
    q_proj_ = Linear<T>({c.model_dim, c.num_heads * c.head_dim, c.qkv_bias}, random);
    k_proj_ = Linear<T>({c.model_dim, c.num_kv_heads * c.head_dim, c.qkv_bias}, random);
    v_proj_ = Linear<T>({c.model_dim, c.num_kv_heads * c.value_head_dim, c.qkv_bias}, random);
    o_proj_ = Linear<T>({c.num_heads * c.value_head_dim, c.model_dim, c.out_bias}, random);
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    const auto [q, k, v] = project(x, {});
    return merge(attention(q, k, v, config_.causal, config_.scale));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    if (!config_.causal) fail<UsageError>("softmax_attention: a layer that is not causal has no stream");
    const auto [q, k, v] = project(x, positions(state.kv_cache.length));
    return merge(state.kv_cache.append_and_attend(q, k, v, config_.scale));
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return detail::only_token((*this)(detail::one_token(x_t), state));
  }

  State<Mode::plain> initial_state(Index batch) const {
    const Config& c = config_;
    State<Mode::plain> s;
    s.kv_cache.keys = DynTensor<T, 4>(batch, c.cache_reserve, c.num_kv_heads, c.head_dim);
    s.kv_cache.values = DynTensor<T, 4>(batch, c.cache_reserve, c.num_kv_heads, c.value_head_dim);
    s.kv_cache.length = DynTensor<std::int32_t, 1>(batch);
    return s;
  }

  const Config& config() const noexcept { return config_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("q_proj", self.q_proj_);
    f("k_proj", self.k_proj_);
    f("v_proj", self.v_proj_);
    f("o_proj", self.o_proj_);
  }

 private:
  template <class Length>
  AnyTensor<std::int32_t> positions(const Length& length) const {
    return config_.rope_base > 0 ? borrow(length).copy() : AnyTensor<std::int32_t>{};
  }
  template <class X>
  auto project(const X& x, const AnyTensor<std::int32_t>& offsets) const {
    static_assert(rank_of<X> == 3, "softmax_attention takes [B, L, model_dim]");
    const Config& c = config_;
    const auto v = view(x);
    const Index batch = v.extent(0), length = v.extent(1);
    const auto rotate = [&](const auto& heads) {
      return c.rope_base > 0 ? rotary(heads, c.rope_dim, c.rope_base, c.rope_interleaved, offsets) : heads;
    };
    return std::tuple(rotate(reshape(q_proj_(x), batch, length, c.num_heads, c.head_dim)),
                      rotate(reshape(k_proj_(x), batch, length, c.num_kv_heads, c.head_dim)),
                      reshape(v_proj_(x), batch, length, c.num_kv_heads, c.value_head_dim));
  }
  template <class O>
  auto merge(const O& o) const {
    const auto v = view(o);
    return o_proj_(reshape(o, v.extent(0), v.extent(1), v.extent(2) * v.extent(3)));
  }

  Config config_;
  Linear<T> q_proj_, k_proj_, v_proj_, o_proj_;
};

static_assert(SequenceLayer<SoftmaxAttention<float>>);

}  // namespace ordo
