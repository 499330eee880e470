#pragma once
/// \file
/// The time-invariant baseline of selective copying.

#include "ordo/nn/layer.hpp"
#include "ordo/nn/linear.hpp"
#include "ordo/nn/short_conv.hpp"
#include "ordo/ops/selective_scan.hpp"

namespace ordo_papers {

using namespace ordo;

/// Mamba without what makes it selective: the step size softplus(dt_bias) belongs to a channel, and b and c are learnt
/// vectors, the same for every token. Convolution, SiLU and the gate remain.
template <class T = float>
class TimeInvariantMamba {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0, inner_dim = 0, state_dim = 16, conv_width = 4;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("inner_dim", c.inner_dim);
      f("state_dim", c.state_dim);
      f("conv_width", c.conv_width);
    }
  };
  template <Mode M = Mode::plain>
  struct State : StateInterface<State<M>> {
    StateTensor<M, T, 3> ssm, conv;
    template <class Self, class F>
    static void visit(Self& s, F&& f) {
      f("ssm", s.ssm);
      f("conv", s.conv);
    }
  };

  TimeInvariantMamba() = default;
  TimeInvariantMamba(const Config& given, Random& random) : config_(given) {
    Config& c = config_;
    if (c.inner_dim == 0) c.inner_dim = 2 * c.model_dim;
    in_proj_ = Linear<T>({c.model_dim, 2 * c.inner_dim, false}, random);
    conv1d_ = ShortConv<T>({c.inner_dim, c.conv_width, true, Activation::silu}, random);
    dt_bias_ = DynParameter<T, 1>(DynExtents<1>(c.inner_dim));
    for (T& v : dt_bias_.mutate()) {
      const double dt = std::max(std::exp(random.uniform(std::log(1e-3), std::log(1e-1))), 1e-4);
      v = static_cast<T>(dt + std::log(-std::expm1(-dt)));
    }
    a_log_ = DynParameter<T, 2>(DynExtents<2>(c.state_dim, c.inner_dim));
    for (Index n = 0; n < c.state_dim; ++n) {
      std::fill_n(a_log_.mutate().data() + n * c.inner_dim, c.inner_dim, static_cast<T>(std::log(static_cast<double>(n + 1))));
    }
    b_ = normal_parameter<T>(DynExtents<1>(c.state_dim), 1, random);
    c_ = normal_parameter<T>(DynExtents<1>(c.state_dim), 1, random);
    d_skip_ = constant_parameter<T>(DynExtents<1>(c.inner_dim), 1);
    out_proj_ = Linear<T>({c.inner_dim, c.model_dim, false}, random);
  }

  template <TensorLike X>
  auto operator()(const X& x) const {
    return std::get<0>(run(x, none, none));
  }
  template <TensorLike X, Mode M>
  auto operator()(const X& x, State<M>& state) const {
    auto [y, conv, ssm] = run(x, state.conv, state.ssm);
    state.conv = std::move(conv);
    state.ssm = std::move(ssm);
    return y;
  }
  template <TensorLike X, Mode M>
  auto step(const X& x_t, State<M>& state) const {
    return detail::only_token((*this)(detail::one_token(x_t), state));
  }
  State<Mode::plain> initial_state(Index batch) const {
    State<Mode::plain> s;
    s.ssm = DynTensor<T, 3>(batch, config_.state_dim, config_.inner_dim);
    s.conv = DynTensor<T, 3>(batch, config_.inner_dim, config_.conv_width - 1);
    return s;
  }
  Linear<T>& out_proj() noexcept { return out_proj_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("in_proj", self.in_proj_);
    f("conv1d", self.conv1d_);
    f("dt_bias", self.dt_bias_);
    f("A_log", self.a_log_);
    f("b", self.b_);
    f("c", self.c_);
    f("D", self.d_skip_);
    f("out_proj", self.out_proj_);
  }

 private:
  template <class X, class Conv, class Ssm>
  auto run(const X& x, const Conv& conv_in, const Ssm& ssm_in) const {
    const Index e = config_.inner_dim;
    const auto [u_in, z] = split(in_proj_(x), e, e);
    auto [u, conv] = conv1d_.run(u_in, conv_in, Packing{});
    const Shape tokens = view(x).shape();
    const auto same_for_all = [&](const DynParameter<T, 1>& p) {
      return apply_in<3>(recorder(x), BroadcastToOp{Shape{tokens[0], tokens[1], p.size()}}, p);
    };
    const DynTensor<T, 3> dt(tokens[0], tokens[1], e);  // zero: softplus(dt_bias) alone
    const auto a = neg(exp(apply_in<2>(recorder(x), BroadcastToOp{a_log_.shape()}, a_log_)));
    auto [y, ssm] = selective_scan(u, dt, a, same_for_all(b_), same_for_all(c_), d_skip_, z, dt_bias_, ssm_in, true);
    return std::tuple(out_proj_(y), std::move(conv), std::move(ssm));
  }

  Config config_;
  Linear<T> in_proj_, out_proj_;
  ShortConv<T> conv1d_;
  DynParameter<T, 2> a_log_;
  DynParameter<T, 1> b_, c_, d_skip_, dt_bias_;
};

static_assert(SequenceLayer<TimeInvariantMamba<float>>);

}  // namespace ordo_papers
