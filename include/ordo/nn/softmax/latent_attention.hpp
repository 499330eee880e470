#pragma once
/// \file
/// LatentAttention: keys and values of all heads from one small vector a token.

#include <cmath>
#include <optional>
#include <string>
#include <tuple>

#include "ordo/cache/token_rows.hpp"
#include "ordo/nn/norm.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/ops/latent_attention.hpp"

namespace ordo {

/// Multi-head latent attention, causal:
///
///     q = q_b_proj(norm(q_a_proj(x))) or q_proj(x);  per head K features without and R with rotary position
///     t = kv_a_proj(x): c = norm(first C), r = the last R rotated, one for all heads;   the state keeps (c, r)
///     kv_b_proj(c): per head K key features and V value features;   k = [key features, r]
///     y = o_proj(softmax([q_n, q_r] k scale) v)
///
/// x, y: [B, L, model_dim]. State: C + R numbers a token and row, whatever the number of heads: `compressed` [B, n, C] after the norm and
/// `rope_key` [B, n, R] after the rotation, each feature in its place. A plain stream keeps them side by side with room behind and
/// compact() gives the two. A step works on them as they are: kv_b_proj moves to the query and to the output (C instead of K features in
/// the scores), so that nothing is expanded for the tokens of the past; pieces so long that expansion is cheaper expand.
/// DeepSeek-V2 (arXiv 2405.04434), V3 (2412.19437); agrees with transformers' DeepseekV3Attention and, direct queries, DeepseekV2Attention.
template <class T = float>
class LatentAttention {
  static constexpr const char* name = "latent_attention";

 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0, num_heads = 1;
    Index head_dim = 0;             ///< K: features of q and k without position
    Index rope_dim = 0;             ///< R
    Index value_head_dim = 0;       ///< V
    Index kv_low_rank_dim = 0;      ///< C
    Index query_low_rank_dim = 0;   ///< 0: direct queries
    double rope_base = 10000;
    bool rope_interleaved = false;
    bool bias = false;  ///< of q_a_proj, kv_a_proj, o_proj
    double norm_eps = 1e-6;
    double scale = 0;         ///< 0: (head_dim + rope_dim)^-1/2
    Index cache_reserve = 0;  ///< tokens that a fresh state has room for
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("num_heads", c.num_heads);
      f("head_dim", c.head_dim);
      f("rope_dim", c.rope_dim);
      f("value_head_dim", c.value_head_dim);
      f("kv_low_rank_dim", c.kv_low_rank_dim);
      f("query_low_rank_dim", c.query_low_rank_dim);
      f("rope_base", c.rope_base);
      f("rope_interleaved", c.rope_interleaved);
      f("bias", c.bias);
      f("norm_eps", c.norm_eps);
      f("scale", c.scale);
    }
  };

  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    StateTensor<M, T, 3> compressed, rope_key;  ///< as in files; recorded always so
    TokenRows<M, T> rows;                       ///< plain: [B, n, C + R], and how many of the n each row has
    bool joined = false;                        ///< which of the two it is
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      if (s.joined) {
        std::remove_cvref_t<decltype(s.rows)>::visit(s.rows, f);
      } else {
        f("compressed", s.compressed);
        f("rope_key", s.rope_key);
      }
    }
    template <Mode N>
    State<N> like() const {
      State<N> other;
      other.joined = joined;
      return other;
    }
    /// `compressed` and `rope_key` with the tokens so far; rows of different lengths are an error.
    void compact()
      requires(M == Mode::plain)
    {
      if (!joined) return;
      const Index n = rows.common_length(), c = compressed.extent(2);
      const auto both = rows.first(n);
      compressed = slice(both, 2, 0, c);
      rope_key = slice(both, 2, c, both.extent(2) - c);
      rows = {};
      joined = false;
    }
    void join(Index reserve)
      requires(M == Mode::plain)
    {
      if (joined) return;
      rows = TokenRows<M, T>::of(concat(2, compressed, rope_key));
      rows.reserve(reserve);
      compressed = DynTensor<T, 3>(compressed.extent(0), Index{0}, compressed.extent(2));  // remembers C
      joined = true;
    }
  };

  LatentAttention() = default;
  LatentAttention(const Config& given, Random& random) : config_(given) {
    const Config& c = config_;
    for (const auto& [key, value] : {std::pair("model_dim", c.model_dim), {"num_heads", c.num_heads}, {"head_dim", c.head_dim}, {"rope_dim", c.rope_dim},
                                     {"value_head_dim", c.value_head_dim}, {"kv_low_rank_dim", c.kv_low_rank_dim}}) {
      detail::require_at_least(name, key, value, 1);
    }
    detail::require_at_least(name, "query_low_rank_dim", c.query_low_rank_dim, 0);
    frequencies_ = rotary_frequencies(c.rope_dim, c.rope_base);
    const Index q_dim = c.num_heads * (c.head_dim + c.rope_dim);
    if (direct()) {
      q_proj_ = Linear<T>({c.model_dim, q_dim, false}, random);
    } else {
      q_a_proj_ = Linear<T>({c.model_dim, c.query_low_rank_dim, c.bias}, random);
      q_a_norm_ = RmsNorm<T>({.model_dim = c.query_low_rank_dim, .norm_eps = c.norm_eps});
      q_b_proj_ = Linear<T>({c.query_low_rank_dim, q_dim, false}, random);
    }
    kv_a_proj_ = Linear<T>({c.model_dim, c.kv_low_rank_dim + c.rope_dim, c.bias}, random);
    kv_a_norm_ = RmsNorm<T>({.model_dim = c.kv_low_rank_dim, .norm_eps = c.norm_eps});
    kv_b_proj_ = Linear<T>({c.kv_low_rank_dim, c.num_heads * (c.head_dim + c.value_head_dim), false}, random);
    o_proj_ = Linear<T>({c.num_heads * c.value_head_dim, c.model_dim, c.bias}, random);
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    const auto v = view(x);
    const RotaryTable<T> table(frequencies_, detail::token_positions(name, v.extent(0), v.extent(1)));
    const auto [q_n, q_r] = queries(x, table);
    const auto [c, r] = compress(x, table);
    return expanded(q_n, q_r, c, r, {});
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    const Index length = view(x).extent(1);
    if constexpr (M == Mode::plain && mode_of<X> == Mode::plain) {
      state.join(config_.cache_reserve);
      const RotaryTable<T> table(frequencies_, detail::positions_behind(state.rows.length, length));
      const auto [q_n, q_r] = queries(x, table);
      const auto [c, r] = compress(x, table);
      const Visibility visible = state.rows.append(concat(2, c, r));
      const Index n = state.rows.longest();
      if (absorbing_is_cheaper(length, n)) {
        return o_proj_(detail::join_heads(absorbed_latent_attention(q_n, q_r, state.rows.values, n, kv_b_proj_.weight().value(), config_.value_head_dim, options(), visible)));
      }
      const auto all = state.rows.first(n);
      return expanded(q_n, q_r, slice(all, 2, 0, config_.kv_low_rank_dim), slice(all, 2, config_.kv_low_rank_dim, config_.rope_dim), visible);
    } else {
      static_assert(M == Mode::recorded, "a tracked input needs a tracked state: track(tape, state)");
      if (state.joined) {
        const auto all = slice(state.rows.values, 1, 0, state.rows.common_length());
        state.compressed = slice(all, 2, 0, config_.kv_low_rank_dim);
        state.rope_key = slice(all, 2, config_.kv_low_rank_dim, config_.rope_dim);
        state.joined = false;
      }
      const DynTensor<std::int32_t, 1> past(DynExtents<1>(Index{1}), static_cast<std::int32_t>(state.compressed.extent(1)));
      const RotaryTable<T> table(frequencies_, detail::positions_behind(past, length));
      const auto [q_n, q_r] = queries(x, table);
      const auto [c, r] = compress(x, table);
      state.compressed = concat(1, state.compressed, c);
      state.rope_key = concat(1, state.rope_key, r);
      return expanded(q_n, q_r, state.compressed, state.rope_key, {});
    }
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return detail::only_token((*this)(detail::one_token(x_t), state));
  }
  State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    s.compressed = DynTensor<T, 3>(batch, Index{0}, config_.kv_low_rank_dim);
    s.rope_key = DynTensor<T, 3>(batch, Index{0}, config_.rope_dim);
    return s;
  }

  const Config& config() const noexcept { return config_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    if (self.direct()) {
      f("q_proj", self.q_proj_);
    } else {
      f("q_a_proj", self.q_a_proj_);
      f("q_a_norm", self.q_a_norm_);
      f("q_b_proj", self.q_b_proj_);
    }
    f("kv_a_proj", self.kv_a_proj_);
    f("kv_a_norm", self.kv_a_norm_);
    f("kv_b_proj", self.kv_b_proj_);
    f("o_proj", self.o_proj_);
  }

 private:
  bool direct() const noexcept { return config_.query_low_rank_dim == 0; }
  AttentionOptions options() const {
    AttentionOptions o;
    o.causal = true;
    o.scale = config_.scale != 0 ? config_.scale : 1 / std::sqrt(static_cast<double>(config_.head_dim + config_.rope_dim));
    return o;
  }
  /// q_n [B, L, H, K], q_r [B, L, H, R] rotated.
  template <class X>
  auto queries(const X& x, const RotaryTable<T>& table) const {
    auto q = detail::split_heads(direct() ? q_proj_(x) : q_b_proj_(q_a_norm_(q_a_proj_(x))), config_.num_heads);
    auto [q_n, q_r] = split(q, config_.head_dim, config_.rope_dim);
    return std::tuple(std::move(q_n), rotary(q_r, table, config_.rope_interleaved));
  }
  /// c [B, L, C], r [B, L, R].
  template <class X>
  auto compress(const X& x, const RotaryTable<T>& table) const {
    const auto [c, r] = split(kv_a_proj_(x), config_.kv_low_rank_dim, config_.rope_dim);
    return std::tuple(kv_a_norm_(c), detail::join_heads(rotary(detail::split_heads(r, 1), table, config_.rope_interleaved)));
  }
  template <class Q, class R, class C, class S>
  auto expanded(const Q& q_n, const R& q_r, const C& c, const S& r, const Visibility& visible) const {
    const auto [k_n, v] = split(detail::split_heads(kv_b_proj_(c), config_.num_heads), config_.head_dim, config_.value_head_dim);
    // The rotated part of the key, one for all heads.
    const auto k_r = add(detail::split_heads(r, 1), DynTensor<T, 4>(Index{1}, Index{1}, config_.num_heads, config_.rope_dim));
    return o_proj_(detail::join_heads(attention(concat(3, q_n, q_r), concat(3, k_n, k_r), v, options(), visible)));
  }
  /// By flops: for n tokens of which `length` are new.
  bool absorbing_is_cheaper(Index length, Index n) const noexcept {
    const auto l = static_cast<double>(length), all = static_cast<double>(n), c = static_cast<double>(config_.kv_low_rank_dim);
    const auto k = static_cast<double>(config_.head_dim), v = static_cast<double>(config_.value_head_dim), r = static_cast<double>(config_.rope_dim);
    return l * (k + v) * c + l * all * (2 * c + r) < all * c * (k + v) + l * all * (k + r + v);
  }

  Config config_;
  RotaryFrequencies frequencies_;
  Linear<T> q_proj_, q_a_proj_, q_b_proj_, kv_a_proj_, kv_b_proj_, o_proj_;
  RmsNorm<T> q_a_norm_, kv_a_norm_;
};

static_assert(SequenceLayer<LatentAttention<float>>);

}  // namespace ordo
