#pragma once
/// \file
/// Mamba: the selective state-space layer.

#include <cmath>
#include <string>
#include <string_view>
#include <tuple>

#include "ordo/nn/layer.hpp"
#include "ordo/nn/linear.hpp"
#include "ordo/nn/norm.hpp"
#include "ordo/nn/sequences.hpp"
#include "ordo/nn/short_conv.hpp"
#include "ordo/ops/selective_scan.hpp"

namespace ordo {

/// What Mamba does to the low-rank dt, B and C before it uses them.
enum class DtBcNorm {
  no,              ///< nothing (Mamba)
  rms,             ///< RMS norms with weights (Jamba)
  rms_weightless,  ///< RMS norms without weights (Falcon-Mamba)
};
inline std::string to_string(DtBcNorm norm) {
  return norm == DtBcNorm::no ? "none" : norm == DtBcNorm::rms ? "rms" : "rms_weightless";
}
/// "none", "rms", "rms_weightless"; false if `name` is none of them.
inline bool from_string(std::string_view name, DtBcNorm& norm) {
  for (DtBcNorm known : {DtBcNorm::no, DtBcNorm::rms, DtBcNorm::rms_weightless}) {
    if (to_string(known) == name) {
      norm = known;
      return true;
    }
  }
  return false;
}

/// Mamba (Gu and Dao 2023, arXiv 2312.00752), with E = inner_dim, N = state_dim, R = dt_rank, W = conv_width:
///
///     u, z = split(in_proj(x));   u = silu(conv1d(u));   dt, b, c = split(x_proj(u))
///     y = selective_scan(u, dt_proj dt, -exp(A_log), b, c, D, gate z, dt bias, softplus);   out_proj(y)
///
/// x, y: [B, L, model_dim]. State: E (N + W - 1) numbers a row. A token costs 2 E (3 D + 2 R + 2 N) + 9 E N flops.
/// Parameters have the names and shapes of published checkpoints (spec: state-spaces/mamba; transformers). Agrees with transformers'
/// MambaMixer, JambaMambaMixer and FalconMambaMixer, and, stepping, with mamba_ssm's Mamba.step.
///
/// Packed sequences and padded batches: pass a Packing or a Padding. Padded tokens count as absent: the state and the convolution see the
/// real ones only, the output there is zero.
template <class T = float>
class Mamba {
 public:
  using value_type = T;
  static constexpr std::string_view layer_name = "mamba";
  struct Config {
    Index model_dim = 0;
    Index inner_dim = 0;  ///< 0: 2 model_dim
    Index state_dim = 16;
    Index conv_width = 4;
    Index dt_rank = 0;  ///< 0: ceil(model_dim / 16)
    bool conv_bias = true;
    bool proj_bias = false;
    DtBcNorm dt_b_c_norm = DtBcNorm::no;
    double norm_eps = 1e-5;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("inner_dim", c.inner_dim);
      f("state_dim", c.state_dim);
      f("conv_width", c.conv_width);
      f("dt_rank", c.dt_rank);
      f("conv_bias", c.conv_bias);
      f("proj_bias", c.proj_bias);
      f("dt_b_c_norm", c.dt_b_c_norm);
      f("norm_eps", c.norm_eps);
    }
  };

  /// `ssm` [B, N, E], `conv` [B, E, W-1].
  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    StateTensor<M, T, 3> ssm, conv;
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("ssm", s.ssm);
      f("conv", s.conv);
    }
  };

  Mamba() = default;
  [[gnu::cold]] Mamba(const Config& given, Random& random) : config_(given) {
    Config& c = config_;
    detail::require_at_least("mamba", "model_dim", c.model_dim, 1);
    if (c.inner_dim == 0) c.inner_dim = 2 * c.model_dim;
    if (c.dt_rank == 0) c.dt_rank = (c.model_dim + 15) / 16;
    detail::require_at_least("mamba", "inner_dim", c.inner_dim, 1);
    detail::require_at_least("mamba", "state_dim", c.state_dim, 1);
    detail::require_at_least("mamba", "conv_width", c.conv_width, 1);
    detail::require_at_least("mamba", "dt_rank", c.dt_rank, 1);
    in_proj_ = Linear<T>({c.model_dim, 2 * c.inner_dim, c.proj_bias}, random);
    conv1d_ = ShortConv<T>({c.inner_dim, c.conv_width, c.conv_bias, Activation::silu}, random);
    x_proj_ = Linear<T>({c.inner_dim, c.dt_rank + 2 * c.state_dim, false}, random);
    dt_proj_ = Linear<T>({c.dt_rank, c.inner_dim, true}, random);
    // dt log-uniform in [1e-3, 1e-1]; the bias is its inverse softplus.
    for (T& v : dt_proj_.bias().mutate()) {
      const double dt = std::max(std::exp(random.uniform(std::log(1e-3), std::log(1e-1))), 1e-4);
      v = static_cast<T>(dt + std::log(-std::expm1(-dt)));
    }
    a_log_ = DynParameter<T, 2>(DynExtents<2>(c.inner_dim, c.state_dim));
    auto& a_log = a_log_.mutate();
    for (Index e = 0; e < c.inner_dim; ++e) {
      for (Index n = 0; n < c.state_dim; ++n) a_log(e, n) = static_cast<T>(std::log(static_cast<double>(n + 1)));
    }
    d_skip_ = constant_parameter<T>(DynExtents<1>(c.inner_dim), 1);
    out_proj_ = Linear<T>({c.inner_dim, c.model_dim, c.proj_bias}, random);
    if (c.dt_b_c_norm == DtBcNorm::rms) {
      dt_norm_ = RmsNorm<T>({c.dt_rank, c.norm_eps});
      b_norm_ = RmsNorm<T>({c.state_dim, c.norm_eps});
      c_norm_ = RmsNorm<T>({c.state_dim, c.norm_eps});
    }
  }

  template <TensorLike X>
  auto operator()(const X& x, const Packing& packing = {}) const {
    return std::get<0>(run(x, none, none, packing));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state, const Packing& packing = {}) const {
    auto [y, conv, ssm] = run(x, state.conv, state.ssm, packing);
    state.conv = std::move(conv);
    state.ssm = std::move(ssm);
    return y;
  }
  template <TensorLike X>
  auto operator()(const X& x, const Padding& padding) const {
    return padding.unpack((*this)(padding.pack(x), padding.packing()));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state, const Padding& padding) const {
    return padding.unpack((*this)(padding.pack(x), state, padding.packing()));
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return detail::only_token((*this)(detail::one_token(x_t), state));
  }

  [[gnu::cold]] State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    s.ssm = DynTensor<T, 3>(batch, config_.state_dim, config_.inner_dim);
    s.conv = DynTensor<T, 3>(batch, config_.inner_dim, config_.conv_width - 1);
    return s;
  }

  const Config& config() const noexcept { return config_; }
  Linear<T>& out_proj() noexcept { return out_proj_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("in_proj", self.in_proj_);
    f("conv1d", self.conv1d_);
    f("x_proj", self.x_proj_);
    f("dt_proj", self.dt_proj_);
    f("A_log", self.a_log_);
    f("D", self.d_skip_);
    f("out_proj", self.out_proj_);
    if (self.config_.dt_b_c_norm == DtBcNorm::rms) {
      f("dt_layernorm", self.dt_norm_);
      f("b_layernorm", self.b_norm_);
      f("c_layernorm", self.c_norm_);
    }
  }

 private:
  template <class X, class Conv, class Ssm>
  auto run(const X& x, const Conv& conv_in, const Ssm& ssm_in, const Packing& packing) const {
    const Index e = config_.inner_dim, n = config_.state_dim;
    const auto [u_in, z] = split(in_proj_(x), e, e);
    auto [u, conv] = conv1d_.run(u_in, conv_in, packing);
    const auto [dt_low, b, c] = split(x_proj_(u), config_.dt_rank, n, n);
    const auto dt = linear(normed(dt_low, dt_norm_), dt_proj_.weight(), none);
    auto [y, ssm] = selective_scan(u, dt, transition<mode_of<X, Ssm>>(x), normed(b, b_norm_), normed(c, c_norm_), d_skip_, z,
                                   dt_proj_.bias(), ssm_in, true, packing);
    return std::tuple(out_proj_(y), std::move(conv), std::move(ssm));
  }

  template <class X>
  X normed(const X& x, const RmsNorm<T>& norm) const {
    if (config_.dt_b_c_norm == DtBcNorm::no) return x;
    if (config_.dt_b_c_norm == DtBcNorm::rms) return norm(x);
    return rms_norm(x, none, config_.norm_eps, 0);
  }

  /// -exp(A_log) as [N, E]: kept with the parameter where nothing is recorded.
  template <Mode M, class X>
  auto transition(const X& x) const {
    if constexpr (M == Mode::plain) {
      static_cast<void>(x);
      struct Transition {
        DynTensor<T, 2> a;
      };
      const auto& kept = a_log_.template derived<Transition>([&] {
        DynTensor<T, 2> a(config_.state_dim, config_.inner_dim);
        for (Index e = 0; e < config_.inner_dim; ++e) {
          for (Index n = 0; n < config_.state_dim; ++n) a(n, e) = a_log_.value()(e, n);
        }
        simd::transform(a.data(), a.data(), a.size(), [](auto v) { return -simd::exp(v); });
        return Transition{std::move(a)};
      });
      return view(kept.a);
    } else {
      const auto a_log = apply_in<2>(recorder(x), TransposeOp{0, 1}, a_log_);
      return neg(exp(a_log));
    }
  }

  Config config_;
  Linear<T> in_proj_, x_proj_, dt_proj_, out_proj_;
  ShortConv<T> conv1d_;
  DynParameter<T, 2> a_log_;
  DynParameter<T, 1> d_skip_;
  RmsNorm<T> dt_norm_, b_norm_, c_norm_;
};

static_assert(SequenceLayer<Mamba<float>>);

}  // namespace ordo
