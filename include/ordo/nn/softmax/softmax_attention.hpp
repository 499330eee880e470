#pragma once
/// \file
/// SoftmaxAttention: multi-head attention with grouped keys, positions of every kind, cross attention and a key/value cache.

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>

#include "ordo/cache/kv_cache.hpp"
#include "ordo/nn/layer.hpp"
#include "ordo/nn/linear.hpp"
#include "ordo/ops/attention.hpp"
#include "ordo/ops/norm.hpp"
#include "ordo/ops/rotary.hpp"

namespace ordo {

/// What is done to each head of queries and keys before the rotation: nothing, RMS norm with a weight, or unit length.
enum class QkNorm { no, rms, l2 };
inline bool from_string(std::string_view name, QkNorm& value) {
  constexpr std::array<std::string_view, 3> names{"none", "rms", "l2"};
  return detail::named(names, name, value);
}
inline std::string to_string(QkNorm value) {
  return value == QkNorm::no ? "none" : value == QkNorm::rms ? "rms" : "l2";
}

namespace detail {

/// Positions first + i of `length` tokens, the same in every row; or, if packed, counted from the beginning of each sequence.
inline AnyTensor<std::int32_t> token_positions(const char* layer, Index batch, Index length, const Packing& packing = {}) {
  AnyTensor<std::int32_t> positions(Shape{1, length});
  if (packing.packed()) {
    const auto sequences = packing.sequences(layer, batch, length);
    for (Index s = 0; s < sequences.count; ++s) {
      for (Index t = sequences.begin(s); t < sequences.end(s); ++t) positions.data()[t] = static_cast<std::int32_t>(t - sequences.begin(s));
    }
  } else {
    for (Index t = 0; t < length; ++t) positions.data()[t] = static_cast<std::int32_t>(t);
  }
  return positions;
}
/// Positions behind the tokens that each row of a stream has seen; one row if those are as many.
template <class Length>
AnyTensor<std::int32_t> positions_behind(const Length& seen, Index length) {
  const std::int32_t* const past = seen.data();
  const bool same = std::all_of(past, past + seen.size(), [past](std::int32_t t) { return t == past[0]; });
  AnyTensor<std::int32_t> positions(Shape{same && seen.size() > 0 ? 1 : seen.size(), length});
  for (Index n = 0; n < positions.size(); ++n) positions.data()[n] = past[n / length] + static_cast<std::int32_t>(n % length);
  return positions;
}

/// Fills in what follows from num_heads and model_dim: num_kv_heads, head_dim and value_head_dim where they are 0.
template <class Config>
void complete_heads(const char* layer, Config& c) {
  require_at_least(layer, "model_dim", c.model_dim, 1);
  require_at_least(layer, "num_heads", c.num_heads, 1);
  if constexpr (requires { c.num_kv_heads; }) {
    if (c.num_kv_heads == 0) c.num_kv_heads = c.num_heads;
    if (c.num_kv_heads < 1 || c.num_heads % c.num_kv_heads != 0) {
      fail<ConfigError>({layer, ": num_heads ", c.num_heads, " is not a multiple of num_kv_heads ", c.num_kv_heads});
    }
  }
  if (c.head_dim == 0) {
    if (c.model_dim % c.num_heads != 0) {
      fail<ConfigError>({layer, ": model_dim ", c.model_dim, " is not a multiple of num_heads ", c.num_heads, "; give head_dim"});
    }
    c.head_dim = c.model_dim / c.num_heads;
  }
  require_at_least(layer, "head_dim", c.head_dim, 1);
  if constexpr (requires { c.value_head_dim; }) {
    if (c.value_head_dim == 0) c.value_head_dim = c.head_dim;
    require_at_least(layer, "value_head_dim", c.value_head_dim, 1);
  }
}

/// [B, L, H K] as [B, L, H, K], and back.
template <class X>
auto split_heads(const X& x, Index heads) {
  const auto v = view(x);
  return reshape(x, v.extent(0), v.extent(1), heads, v.extent(2) / heads);
}
template <class O>
auto join_heads(const O& o) {
  const auto v = view(o);
  return reshape(o, v.extent(0), v.extent(1), v.extent(2) * v.extent(3));
}

}  // namespace detail

/// y = o_proj(attention(rope(norm(q_proj(x))), rope(norm(k_proj(x))), v_proj(x))) with H query heads and Hk key/value heads.
///
/// x, y: [B, L, model_dim]. Query head h reads key/value head floor(h / (H / Hk)): H = Hk is multi-head, Hk = 1 multi-query attention.
/// Not causal (the default), every token sees all; causal, the layer streams. `attend()` is the general call: keys and values from another
/// sequence (cross attention), a bias on the scores, a Visibility (padding, masks, packed sequences, prefixes).
/// Options: RoPE with scalings, ALiBi, T5's relative bias, qk-norm, softcap, sinks, softmax_one, sliding windows with sink tokens.
/// State: a KvCache, Hk (K + V) numbers a token and row, with a window of at most window + num_sink_tokens tokens. A step with n tokens in
/// the cache costs 2 H n (K + V) flops beside the projections, reads Hk n (K + V) numbers, and allocates nothing while the cache has room.
/// Vaswani et al. 2017 (arXiv 1706.03762), Ainslie et al. 2023 (2305.13245), Su et al. 2021 (2104.09864), Press et al. 2021 (2108.12409),
/// Raffel et al. 2019 (1910.10683), Xiao et al. 2023 (2309.17453). Agrees with torch's MultiheadAttention and the attention of Llama,
/// Qwen3, Gemma 2, gpt-oss, Phi, GPT-J, MPT and T5 in transformers.
template <class T = float>
class SoftmaxAttention {
  static constexpr const char* name = "softmax_attention";

 public:
  using value_type = T;
  static constexpr std::string_view layer_name = "softmax_attention";
  struct Config {
    Index model_dim = 0, num_heads = 1;
    Index num_kv_heads = 0;    ///< 0: num_heads
    Index head_dim = 0;        ///< K; 0: model_dim / num_heads
    Index value_head_dim = 0;  ///< V; 0: head_dim
    Index key_dim = 0;         ///< width of a memory; 0: model_dim
    Index value_dim = 0;       ///< width of memory_values; 0: key_dim
    bool qkv_bias = false, out_bias = false;
    bool causal = false;  ///< a token sees those up to itself, and the layer streams; a Block sets it
    Index window = 0;     ///< with causal, > 0: that many tokens, its own included
    Index num_sink_tokens = 0;  ///< with a window: the first tokens stay visible
    double scale = 0;           ///< 0: head_dim^-1/2
    double logit_softcap = 0;   ///< 0: none
    bool softmax_one = false;
    bool sinks = false;  ///< a learned score a head that joins the softmax
    bool alibi = false;
    bool relative_bias = false;  ///< T5's, a table of its own,
    bool relative_bias_given = false;  ///< or the one that calls are given: layers that share one
    Index relative_bias_buckets = 32, relative_bias_max_distance = 128;
    std::optional<bool> relative_bias_bidirectional{};  ///< not given: not causal
    QkNorm qk_norm = QkNorm::no;
    double norm_eps = 1e-6;
    double rope_base = 0;  ///< 0: no rotary positions
    Index rope_dim = 0;    ///< 0: head_dim
    bool rope_interleaved = false;
    RopeScaling rope_scaling{};
    Index cache_reserve = 0;  ///< tokens that a fresh state has room for
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("num_heads", c.num_heads);
      f("num_kv_heads", c.num_kv_heads);
      f("head_dim", c.head_dim);
      f("value_head_dim", c.value_head_dim);
      f("key_dim", c.key_dim);
      f("value_dim", c.value_dim);
      f("qkv_bias", c.qkv_bias);
      f("out_bias", c.out_bias);
      f("causal", c.causal);
      f("window", c.window);
      f("num_sink_tokens", c.num_sink_tokens);
      f("scale", c.scale);
      f("logit_softcap", c.logit_softcap);
      f("softmax_one", c.softmax_one);
      f("sinks", c.sinks);
      f("alibi", c.alibi);
      f("relative_bias", c.relative_bias);
      f("relative_bias_buckets", c.relative_bias_buckets);
      f("relative_bias_max_distance", c.relative_bias_max_distance);
      f("relative_bias_bidirectional", c.relative_bias_bidirectional);
      f("qk_norm", c.qk_norm);
      f("norm_eps", c.norm_eps);
      f("rope_base", c.rope_base);
      f("rope_dim", c.rope_dim);
      f("rope_interleaved", c.rope_interleaved);
      f("rope_scaling", c.rope_scaling);
    }
  };

  template <Mode M = Mode::plain>
  struct State : KvCacheState<State<M>, M, T> {
    template <Mode N>
    State<N> like() const {
      State<N> other;
      other.cache = this->cache.template like<N>();
      return other;
    }
  };

  SoftmaxAttention() = default;
  SoftmaxAttention(const Config& given, Random& random) : config_(given) {
    Config& c = config_;
    detail::complete_heads(name, c);
    if (c.key_dim == 0) c.key_dim = c.model_dim;
    if (c.value_dim == 0) c.value_dim = c.key_dim;
    for (const auto& [key, value] : {std::pair("window", c.window), {"num_sink_tokens", c.num_sink_tokens}, {"cache_reserve", c.cache_reserve}}) {
      detail::require_at_least(name, key, value, 0);
    }
    detail::require_at_least(name, "relative_bias_buckets", c.relative_bias_buckets, 2);
    if (c.window > 0 && !c.causal) fail<ConfigError>("softmax_attention: window needs causal");
    if (c.num_sink_tokens > 0 && c.window == 0) fail<ConfigError>("softmax_attention: num_sink_tokens needs a window");
    if (c.sinks && c.softmax_one) fail<ConfigError>("softmax_attention: sinks and softmax_one are not for one layer");
    if (c.logit_softcap < 0) fail<ConfigError>("softmax_attention: logit_softcap must be positive, or 0 for none");
    if (c.rope_base < 0) fail<ConfigError>("softmax_attention: rope_base must be positive, or 0 for no rotary positions");
    if (c.rope_dim == 0) c.rope_dim = c.head_dim;
    if (c.rope_base > 0 && (c.rope_dim % 2 != 0 || c.rope_dim < 0 || c.rope_dim > c.head_dim)) {
      fail<ConfigError>({"softmax_attention: rope_dim ", c.rope_dim, " must be even and at most head_dim ", c.head_dim});
    }
    if (c.rope_base > 0) frequencies_ = rotary_frequencies(c.rope_dim, c.rope_base, c.rope_scaling);
    options_.scale = c.scale;
    options_.causal = c.causal;
    options_.window = c.window;
    options_.num_sink_tokens = c.num_sink_tokens;
    options_.logit_softcap = c.logit_softcap;
    options_.softmax_one = c.softmax_one;
    options_.relative_bias_max_distance = c.relative_bias_max_distance;
    options_.relative_bias_bidirectional = c.relative_bias_bidirectional.value_or(!c.causal);
    if (c.alibi) {
      const std::vector<double> slopes = alibi_slopes(c.num_heads);
      options_.alibi_slopes = AnyTensor<double>(Shape{c.num_heads});
      std::copy(slopes.begin(), slopes.end(), options_.alibi_slopes.data());
    }
    q_proj_ = Linear<T>({c.model_dim, c.num_heads * c.head_dim, c.qkv_bias}, random);
    k_proj_ = Linear<T>({c.key_dim, c.num_kv_heads * c.head_dim, c.qkv_bias}, random);
    v_proj_ = Linear<T>({c.value_dim, c.num_kv_heads * c.value_head_dim, c.qkv_bias}, random);
    o_proj_ = Linear<T>({c.num_heads * c.value_head_dim, c.model_dim, c.out_bias}, random);
    if (c.qk_norm == QkNorm::rms) {
      q_norm_ = constant_parameter<T>(DynExtents<1>(c.head_dim), 1);
      k_norm_ = constant_parameter<T>(DynExtents<1>(c.head_dim), 1);
    }
    if (c.relative_bias) relative_bias_ = normal_parameter<T>(DynExtents<2>(c.relative_bias_buckets, c.num_heads), 0.1, random);
    if (c.sinks) sinks_ = normal_parameter<T>(DynExtents<1>(c.num_heads), 0.1, random);
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    return attend(x);
  }
  template <TensorLike X>
  auto operator()(const X& x, const Visibility& visible, const DynParameter<T, 2>* relative_bias = nullptr) const {
    return attend(x, none, none, none, visible, relative_bias);
  }
  /// `visible`: key_padding [B, all tokens of the stream so far] alone.
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state, const Visibility& visible = {}, const DynParameter<T, 2>* relative_bias = nullptr) const {
    if (!streams()) fail<UsageError>("softmax_attention: a layer that is not causal has no stream");
    if (visible.mask.present() || visible.prefix_length.present() || visible.lengths.present() || visible.segments.present() ||
        visible.packing.packed() || visible.block_list.present()) {
      fail<UsageError>("softmax_attention: a stream takes key_padding and no other mask");
    }
    const Index length = view(x).extent(1);
    const auto table = config_.rope_base > 0 ? rotary_table(detail::positions_behind(state.cache.length, length)) : std::nullopt;
    const auto q = rotated(queries(x), table);
    const auto [k, v] = keys_and_values(x, x, table);
    return output(state.cache.append_and_attend(q, k, v, options_, bias_table(relative_bias), sinks_, visible.key_padding));
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state, const Visibility& visible = {}, const DynParameter<T, 2>* relative_bias = nullptr) const {
    return detail::only_token((*this)(detail::one_token(x_t), state, visible, relative_bias));
  }

  /// The whole sequence with everything that can be given. `memory` [B, Lk, key_dim]: keys and values come from it instead of x (cross
  /// attention; positions play no part then), or `memory_values` [B, Lk, value_dim]: the values do. `attn_bias` [B or 1, H or 1, L, Lk] or
  /// [H or 1, L, Lk] is added to the scores, -inf hides. Each may be `none`.
  template <TensorLike X, class Memory = None, class Values = None, class Bias = None>
  auto attend(const X& x, const Memory& memory = none, const Values& memory_values = none, const Bias& attn_bias = none,
              const Visibility& visible = {}, const DynParameter<T, 2>* relative_bias = nullptr) const {
    static_assert(rank_of<X> == 3, "softmax_attention takes [B, L, model_dim]");
    if constexpr (std::same_as<Memory, None>) {
      static_assert(std::same_as<Values, None>, "memory_values go with a memory");
      const auto v = view(x);
      const auto table = config_.rope_base > 0 ? rotary_table(detail::token_positions(name, v.extent(0), v.extent(1), visible.packing)) : std::nullopt;
      const auto q = rotated(queries(x), table);
      const auto [k, values] = keys_and_values(x, x, table);
      return attend_heads(q, k, values, attn_bias, visible, bias_table(relative_bias));
    } else if constexpr (std::same_as<Values, None>) {
      const auto [k, v] = project_memory(memory, memory);
      return attend_projected(x, k, v, attn_bias, visible);
    } else {
      const auto [k, v] = project_memory(memory, memory_values);
      return attend_projected(x, k, v, attn_bias, visible);
    }
  }
  /// Keys [B, Lk, Hk, K] and values [B, Lk, Hk, V] of a memory, to be made once for all steps of a decoder.
  template <TensorLike Memory, TensorLike Values>
  auto project_memory(const Memory& memory, const Values& memory_values) const {
    if (config_.causal || config_.rope_base > 0 || config_.alibi || config_.relative_bias || config_.relative_bias_given) {
      fail<UsageError>("softmax_attention: a memory has no positions; a layer that is causal or has rope, alibi or a relative bias cannot attend to one");
    }
    return keys_and_values(memory, memory_values, std::optional<RotaryTable<T>>{});
  }
  template <TensorLike Memory>
  auto project_memory(const Memory& memory) const {
    return project_memory(memory, memory);
  }
  /// Cross attention to a projected memory.
  template <TensorLike X, TensorLike K, TensorLike V, class Bias = None>
  auto attend_projected(const X& x, const K& keys, const V& values, const Bias& attn_bias = none, const Visibility& visible = {}) const {
    return attend_heads(queries(x), keys, values, attn_bias, visible, relative_bias_);
  }

  /// Whether there is a stream: the layer is causal.
  bool streams() const noexcept { return config_.causal; }
  [[gnu::cold]] State<Mode::plain> initial_state(Index batch) const {
    const Config& c = config_;
    State<Mode::plain> s;
    s.cache = KvCache<Mode::plain, T>::empty(batch, c.cache_reserve, c.num_kv_heads, c.head_dim, c.value_head_dim, {c.window, c.num_sink_tokens});
    return s;
  }

  const Config& config() const noexcept { return config_; }
  const DynParameter<T, 2>& relative_bias() const noexcept { return relative_bias_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("q_proj", self.q_proj_);
    f("k_proj", self.k_proj_);
    f("v_proj", self.v_proj_);
    f("o_proj", self.o_proj_);
    if (self.q_norm_.present()) f("q_norm.weight", self.q_norm_);
    if (self.k_norm_.present()) f("k_norm.weight", self.k_norm_);
    if (self.relative_bias_.present()) f("relative_bias.weight", self.relative_bias_);
    if (self.sinks_.present()) f("sinks", self.sinks_);
  }

 private:
  std::optional<RotaryTable<T>> rotary_table(const AnyTensor<std::int32_t>& positions) const {
    const Config& c = config_;
    if (!c.rope_scaling.depends_on_length()) return RotaryTable<T>(frequencies_, positions);
    const std::int32_t last = positions.size() == 0 ? 0 : *std::max_element(positions.data(), positions.data() + positions.size());
    return RotaryTable<T>(rotary_frequencies(c.rope_dim, c.rope_base, c.rope_scaling, last + 1), positions);
  }
  template <class H>
  auto rotated(H heads, const std::optional<RotaryTable<T>>& table) const {
    if (!table) return heads;
    return rotary(heads, *table, config_.rope_interleaved);
  }
  template <class H>
  auto normed(H heads, const DynParameter<T, 1>& weight) const {
    switch (config_.qk_norm) {
      case QkNorm::rms: return rms_norm(heads, weight, config_.norm_eps);
      case QkNorm::l2: {  // x / |x| = x / sqrt(mean(x^2)) K^-1/2; the eps keeps a length of 0 from dividing
        const double k = static_cast<double>(config_.head_dim);
        return affine(rms_norm(heads, none, 1e-24 / k), 1 / std::sqrt(k));
      }
      default: return heads;
    }
  }
  template <class X>
  auto queries(const X& x) const {
    return normed(detail::split_heads(q_proj_(x), config_.num_heads), q_norm_);
  }
  template <class X, class Y>
  auto keys_and_values(const X& x, const Y& of_values, const std::optional<RotaryTable<T>>& table) const {
    return std::tuple(rotated(normed(detail::split_heads(k_proj_(x), config_.num_kv_heads), k_norm_), table),
                      detail::split_heads(v_proj_(of_values), config_.num_kv_heads));
  }
  template <class Q, class K, class V, class Bias>
  auto attend_heads(const Q& q, const K& k, const V& v, const Bias& attn_bias, const Visibility& visible, const DynParameter<T, 2>& relative_bias) const {
    return output(attention(q, k, v, options_, visible, attn_bias, relative_bias, sinks_));
  }
  const DynParameter<T, 2>& bias_table(const DynParameter<T, 2>* given) const {
    if (!config_.relative_bias_given) return relative_bias_;
    if (given == nullptr || !given->present()) fail<UsageError>("softmax_attention: the relative bias of another layer is to be given");
    return *given;
  }
  template <class O>
  auto output(const O& o) const {
    return o_proj_(detail::join_heads(o));
  }

  Config config_;
  AttentionOptions options_;
  RotaryFrequencies frequencies_;
  Linear<T> q_proj_, k_proj_, v_proj_, o_proj_;
  DynParameter<T, 1> q_norm_, k_norm_, sinks_;
  DynParameter<T, 2> relative_bias_;
};

static_assert(SequenceLayer<SoftmaxAttention<float>>);

}  // namespace ordo
