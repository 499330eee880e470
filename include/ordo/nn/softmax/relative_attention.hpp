#pragma once
/// \file
/// Attention with vectors for distances: ShawRelativeAttention (learned, clipped) and TransformerXlAttention (sinusoids, with a memory).

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>

#include "ordo/cache/token_rows.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/ops/relative_attention.hpp"

namespace ordo {

/// What stands beyond the last distance of a table: its last row, or a vector of zeros.
enum class ClipMode { edge, zero };
inline bool from_string(std::string_view name, ClipMode& value) {
  constexpr std::array<std::string_view, 2> names{"edge", "zero"};
  return detail::named(names, name, value);
}
inline std::string to_string(ClipMode value) { return value == ClipMode::edge ? "edge" : "zero"; }

/// s_ij = K^-1/2 (<q_i, k_j> + <q_i, e(j - i)>),  y = o_proj(sum_j softmax(s)_ij (v_j + e_v(j - i))).
///
/// e(r) is row clamp(r, -(R-1), causal ? 0 : R-1) + R-1 of relative_embedding [H, rows, K], or [rows, K] if `shared`; clip_mode zero: a
/// zero vector where |r| >= R. e_v likewise, with `relative_values` (whose weights take B H L n numbers; without it none are stored).
/// x, y: [B, L, model_dim]. Causal, the layer streams; state: a KvCache. Shaw et al. 2018 (arXiv 1803.02155), Music Transformer (Huang et
/// al. 2018, 1809.04281: per head, zero); agrees with transformers' Wav2Vec2-BERT (`relative_key`) and OpenNMT-py.
template <class T = float>
class ShawRelativeAttention {
  static constexpr const char* name = "shaw_relative_attention";

 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0, num_heads = 1;
    Index head_dim = 0;        ///< K; 0: model_dim / num_heads
    Index value_head_dim = 0;  ///< V; 0: head_dim
    bool causal = false;
    Index max_distance = 1;  ///< R: the table holds distances below it
    ClipMode clip_mode = ClipMode::edge;
    bool relative_values = false;
    bool shared = false, shared_values = false;  ///< one table for all heads, of the scores and of the values
    bool qkv_bias = false, out_bias = false;
    Index cache_reserve = 0;  ///< tokens that a fresh state has room for
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("num_heads", c.num_heads);
      f("head_dim", c.head_dim);
      f("value_head_dim", c.value_head_dim);
      f("causal", c.causal);
      f("max_distance", c.max_distance);
      f("clip_mode", c.clip_mode);
      f("relative_values", c.relative_values);
      f("shared", c.shared);
      f("shared_values", c.shared_values);
      f("qkv_bias", c.qkv_bias);
      f("out_bias", c.out_bias);
    }
  };
  template <Mode M = Mode::plain>
  struct State : KvCacheState<State<M>, M, T> {};

  ShawRelativeAttention() = default;
  ShawRelativeAttention(const Config& given, Random& random) : config_(given) {
    Config& c = config_;
    detail::complete_heads(name, c);
    detail::require_at_least(name, "max_distance", c.max_distance, 1);
    q_proj_ = Linear<T>({c.model_dim, c.num_heads * c.head_dim, c.qkv_bias}, random);
    k_proj_ = Linear<T>({c.model_dim, c.num_heads * c.head_dim, c.qkv_bias}, random);
    v_proj_ = Linear<T>({c.model_dim, c.num_heads * c.value_head_dim, c.qkv_bias}, random);
    o_proj_ = Linear<T>({c.num_heads * c.value_head_dim, c.model_dim, c.out_bias}, random);
    const Index reach = c.max_distance, rows = c.causal ? reach : 2 * reach - 1;
    const auto make = [&](bool share, DynParameter<T, 2>& shared, DynParameter<T, 3>& own, Index width) {
      const double deviation = 1 / std::sqrt(static_cast<double>(width));
      if (share) {
        shared = normal_parameter<T>(DynExtents<2>(rows, width), deviation, random);
      } else {
        own = normal_parameter<T>(DynExtents<3>(c.num_heads, rows, width), deviation, random);
      }
    };
    make(c.shared, shared_embedding_, embedding_, c.head_dim);
    if (c.relative_values) make(c.shared_values, shared_value_embedding_, value_embedding_, c.value_head_dim);
    // Distances -R .. R; beyond, the map is clamped.
    rows_.shift = reach;
    rows_.rows = AnyTensor<std::int32_t>(Shape{2 * reach + 1});
    for (Index r = -reach; r <= reach; ++r) {
      const bool beyond = std::abs(r) == reach && c.clip_mode == ClipMode::zero;
      rows_.rows.data()[r + reach] = beyond ? -1 : static_cast<std::int32_t>(std::clamp<Index>(r, -(reach - 1), c.causal ? 0 : reach - 1) + reach - 1);
    }
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    const auto [q, k, v] = project(x);
    Visibility visible;
    if (config_.relative_values) visible.query_positions = positions(view(x).extent(1), 0);
    return output(attend(q, k, v, visible));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    if (!streams()) fail<UsageError>("shaw_relative_attention: a layer that is not causal has no stream");
    const auto [q, k, v] = project(x);
    auto& cache = state.cache;
    const Index length = view(x).extent(1);
    cache.check_batch(view(x).extent(0));
    Visibility visible;
    if constexpr (M == Mode::plain && mode_of<X> == Mode::plain) {
      const auto past = cache.append(view(k), view(v));
      const Index n = cache.longest();
      if (config_.relative_values || !cache.uniform(past)) visible.query_positions = cache.positions_after(past, length);
      if (config_.relative_values) return output(attend(q, slice(cache.keys, 1, 0, n), slice(cache.values, 1, 0, n), visible));
      return output(cache.attend(view(q), cache.keys, cache.values, n, options(), visible, borrow(scores(q)), {}, rows_));
    } else {
      cache.append_recorded(k, v);
      if (config_.relative_values) visible.query_positions = positions(length, cache.keys.extent(1) - length);
      return output(attend(q, cache.keys, cache.values, visible));
    }
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return detail::only_token((*this)(detail::one_token(x_t), state));
  }
  bool streams() const noexcept { return config_.causal; }
  State<Mode::plain> initial_state(Index batch) const {
    const Config& c = config_;
    State<Mode::plain> s;
    s.cache = KvCache<Mode::plain, T>::empty(batch, c.cache_reserve, c.num_heads, c.head_dim, c.value_head_dim);
    return s;
  }

  const Config& config() const noexcept { return config_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("q_proj", self.q_proj_);
    f("k_proj", self.k_proj_);
    f("v_proj", self.v_proj_);
    f("o_proj", self.o_proj_);
    if (self.embedding_.present()) f("relative_embedding", self.embedding_);
    if (self.shared_embedding_.present()) f("relative_embedding", self.shared_embedding_);
    if (self.value_embedding_.present()) f("relative_value_embedding", self.value_embedding_);
    if (self.shared_value_embedding_.present()) f("relative_value_embedding", self.shared_value_embedding_);
  }

 private:
  AttentionOptions options() const {
    AttentionOptions o;
    o.causal = config_.causal;
    return o;
  }
  static AnyTensor<std::int64_t> positions(Index length, Index first) {
    AnyTensor<std::int64_t> p(Shape{1, length});
    for (Index i = 0; i < length; ++i) p.data()[i] = first + i;
    return p;
  }
  template <class X>
  auto project(const X& x) const {
    const Index heads = config_.num_heads;
    return std::tuple(detail::split_heads(q_proj_(x), heads), detail::split_heads(k_proj_(x), heads), detail::split_heads(v_proj_(x), heads));
  }
  template <class Q>
  auto scores(const Q& q) const {
    const auto s = config_.shared ? relative_scores(q, shared_embedding_) : relative_scores(q, embedding_);
    return affine(s, 1 / std::sqrt(static_cast<double>(config_.head_dim)));
  }
  template <class Q, class K, class V>
  auto attend(const Q& q, const K& k, const V& v, const Visibility& visible) const {
    if (config_.relative_values) {
      const auto with = [&](const auto& table) {
        const auto of = [&](const auto& values) {
          return relative_value_attention(q, k, v, table, values, config_.causal, rows_, visible.query_positions);
        };
        return config_.shared_values ? of(shared_value_embedding_) : of(value_embedding_);
      };
      return config_.shared ? with(shared_embedding_) : with(embedding_);
    }
    return attention(q, k, v, options(), visible, none, scores(q), none, rows_);
  }
  template <class O>
  auto output(const O& o) const {
    return o_proj_(detail::join_heads(o));
  }

  Config config_;
  RelativeRows rows_;
  Linear<T> q_proj_, k_proj_, v_proj_, o_proj_;
  DynParameter<T, 3> embedding_, value_embedding_;
  DynParameter<T, 2> shared_embedding_, shared_value_embedding_;
};

static_assert(SequenceLayer<ShawRelativeAttention<float>>);

/// Transformer-XL's attention with a memory of the inputs of the past, causal. With m = [memory, x] and query i at n + i, d = n + i - j:
///
///     s_ij = K^-1/2 (<q_i + r_w_bias, k_j> + <q_i + r_r_bias, r_proj(R_d)>),   y = o_proj(softmax(s) v)
///     R_d = [sin(d f_0), ..., cos(d f_0), ...],   f_i = 10000^(-2i/D)
///
/// x, y: [B, L, model_dim]. State: the inputs so far, D numbers a token and row; nothing is dropped, and each call projects all of them.
/// No norm and no residual. Dai et al. 2019 (arXiv 1901.02860); agrees with kimiyoung/transformer-xl.
template <class T = float>
class TransformerXlAttention {
  static constexpr const char* name = "relative_attention_transformer_xl";

 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0;  ///< even
    Index num_heads = 1;
    Index head_dim = 0;       ///< 0: model_dim / num_heads
    Index cache_reserve = 0;  ///< tokens that a fresh state has room for
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("num_heads", c.num_heads);
      f("head_dim", c.head_dim);
    }
  };
  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    TokenRows<M, T> rows;  ///< `memory` [B, n, D] and how many of the n each row has
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("memory", s.rows.values);
      f("length", s.rows.length);
    }
    void compact()
      requires(M == Mode::plain)
    {
      rows.values = rows.first(rows.common_length());
    }
  };

  TransformerXlAttention() = default;
  TransformerXlAttention(const Config& given, Random& random) : config_(given) {
    Config& c = config_;
    detail::complete_heads(name, c);
    if (c.model_dim % 2 != 0) fail<ConfigError>({"relative_attention_transformer_xl: model_dim ", c.model_dim, " must be even"});
    const Index heads = c.num_heads * c.head_dim;
    for (Linear<T>* const projection : {&q_proj_, &k_proj_, &v_proj_, &r_proj_}) *projection = Linear<T>({c.model_dim, heads, false}, random);
    o_proj_ = Linear<T>({heads, c.model_dim, false}, random);
    r_w_bias_ = normal_parameter<T>(DynExtents<2>(c.num_heads, c.head_dim), 0.02, random);
    r_r_bias_ = normal_parameter<T>(DynExtents<2>(c.num_heads, c.head_dim), 0.02, random);
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    return attend(x, x, {});
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    if constexpr (M == Mode::plain && mode_of<X> == Mode::plain) {
      const Visibility visible = state.rows.append(x);
      return attend(x, state.rows.first(state.rows.longest()), visible);
    } else {
      static_assert(M == Mode::recorded, "a tracked input needs a tracked state: track(tape, state)");
      auto& rows = state.rows;
      rows.values = concat(1, slice(rows.values, 1, 0, rows.common_length()), x);
      rows.length = track(rows.length.tape(), DynTensor<std::int32_t, 1>(DynExtents<1>(rows.length.size()), static_cast<std::int32_t>(rows.values.extent(1))));
      return attend(x, rows.values, {});
    }
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return detail::only_token((*this)(detail::one_token(x_t), state));
  }
  State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    s.rows = TokenRows<Mode::plain, T>::of(DynTensor<T, 3>(batch, Index{0}, config_.model_dim));
    s.rows.reserve(config_.cache_reserve);
    return s;
  }

  const Config& config() const noexcept { return config_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("q_proj", self.q_proj_);
    f("k_proj", self.k_proj_);
    f("v_proj", self.v_proj_);
    f("o_proj", self.o_proj_);
    f("r_proj", self.r_proj_);
    f("r_w_bias", self.r_w_bias_);
    f("r_r_bias", self.r_r_bias_);
  }

 private:
  /// From x to m, which ends with it.
  template <class X, class Y>
  auto attend(const X& x, const Y& m, const Visibility& visible) const {
    const Index heads = config_.num_heads, n = view(m).extent(1);
    const auto q = detail::split_heads(q_proj_(x), heads);
    // r_proj of the distances 0 .. n - 1, recorded where x is.
    const DynTensor<T, 2> distances = sinusoidal_positions<T>(n, config_.model_dim, 0, SinusoidLayout::halves);
    LinearOp product;
    const auto r = reshape(apply_in<2>(recorder(x), product, distances, r_proj_.weight(), none, none), n, heads, config_.head_dim);
    const double scale = 1 / std::sqrt(static_cast<double>(config_.head_dim));
    const auto relative = affine(relative_scores(add(q, r_r_bias_), transpose(r, 0, 1)), scale);
    RelativeRows rows;  // key j of a query at a: distance a - j, which is its row
    rows.shift = n - 1;
    rows.rows = AnyTensor<std::int32_t>(Shape{n});
    for (Index i = 0; i < n; ++i) rows.rows.data()[i] = static_cast<std::int32_t>(n - 1 - i);
    AttentionOptions options;
    options.causal = true;
    return o_proj_(detail::join_heads(attention(add(q, r_w_bias_), detail::split_heads(k_proj_(m), heads), detail::split_heads(v_proj_(m), heads), options, visible,
                                                none, relative, none, rows)));
  }

  Config config_;
  Linear<T> q_proj_, k_proj_, v_proj_, o_proj_, r_proj_;
  DynParameter<T, 2> r_w_bias_, r_r_bias_;
};

static_assert(SequenceLayer<TransformerXlAttention<float>>);

}  // namespace ordo
