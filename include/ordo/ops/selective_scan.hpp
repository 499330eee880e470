#pragma once
/// \file
/// The selective scan of Mamba.

#include <array>
#include <tuple>

#include "ordo/kernels/selective_scan.hpp"
#include "ordo/ops/sequences.hpp"

namespace ordo {

/// Arguments: u, dt, a, b, c, d_skip?, gate?, dt_bias?, state?; outputs: y, state.
struct SelectiveScanOp {
  static constexpr const char* name = "selective_scan";
  static constexpr unsigned keeps_inputs = 0x1ff, keeps_outputs = 0;
  static constexpr std::size_t outputs = 2;
  bool dt_softplus = false;
  Packing packing;

  template <class T>
  struct Saved {
    AnyTensor<T> checkpoints;
  };

  template <class T>
  std::array<AnyTensor<T>, 2> forward(Saved<T>* saved, const AnyTensor<T>& u, const AnyTensor<T>& dt, const AnyTensor<T>& a,
                                      const AnyTensor<T>& b, const AnyTensor<T>& c, const AnyTensor<T>& d_skip,
                                      const AnyTensor<T>& gate, const AnyTensor<T>& dt_bias, const AnyTensor<T>& state) const {
    if (u.rank() != 3) fail<ShapeError>({"selective_scan: u has shape ", u.shape(), ", expected [B, L, E]"});
    const Index channels = u.extent(2);
    if (a.rank() != 2 || a.extent(1) != channels) {
      fail<ShapeError>({"selective_scan: a has shape ", a.shape(), ", expected [N, ", channels, "]"});
    }
    const Index states = a.extent(0), groups = b.rank() == 4 ? b.extent(2) : 1;
    detail::require_shape(name, "dt", dt, u.shape());
    detail::require_shape(name, "gate", gate, u.shape());
    const Shape bc = b.rank() == 4 ? Shape{u.extent(0), u.extent(1), groups, states} : Shape{u.extent(0), u.extent(1), states};
    detail::require_shape(name, "b", b, bc);
    detail::require_shape(name, "c", c, bc);
    detail::require_shape(name, "d_skip", d_skip, Shape{channels});
    detail::require_shape(name, "dt_bias", dt_bias, Shape{channels});
    if (groups == 0 || channels % groups != 0) {
      fail<ShapeError>({"selective_scan: ", channels, " channels in ", groups, " groups"});
    }
    const auto in = arguments(u, dt, a, b, c, d_skip, gate, dt_bias, state);
    const Shape state_shape{in.shape.sequences.count, states, channels};
    detail::require_shape(name, "state", state, state_shape);
    AnyTensor<T> y(u.shape()), state_out(state_shape);
    if (saved != nullptr) saved->checkpoints = AnyTensor<T>(Shape{kernels::scan_checkpoint_size(in.shape)});
    kernels::selective_scan_forward(in, detail::mutable_rows_of(y), state_out.data(),
                                    saved != nullptr ? saved->checkpoints.data() : nullptr);
    return {std::move(y), std::move(state_out)};
  }

  template <class T>
  void backward(Pullback<T>& p, const Saved<T>& saved) const {
    const auto value = [&](std::size_t i) { return p.input(i).value; };
    const AnyTensor<T> u = value(0), dt = value(1), a = value(2), b = value(3), c = value(4), d_skip = value(5), gate = value(6),
                       dt_bias = value(7), state = value(8);
    const auto in = arguments(u, dt, a, b, c, d_skip, gate, dt_bias, state);
    std::array<AnyTensor<T>, 9> g;
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = detail::gradient_like(p, i);
    kernels::SelectiveScanGradients<T> out;
    out.u = detail::mutable_rows_of(g[0]);
    out.dt = detail::mutable_rows_of(g[1]);
    out.a = g[2].data();
    out.b = bc_rows(g[3]);
    out.c = bc_rows(g[4]);
    out.d_skip = g[5].data();
    out.gate = detail::mutable_rows_of(g[6]);
    out.dt_bias = g[7].data();
    out.state_in = g[8].data();
    AnyTensor<T> dy = p.grad(0).value;
    if (!dy.present()) dy = AnyTensor<T>(u.shape(), T{0});
    kernels::selective_scan_backward(in, detail::rows_of(dy), p.grad(1).value.data(), out, saved.checkpoints.data());
    for (std::size_t i = 0; i < g.size(); ++i) {
      if (p.needs(i)) p.add(i, std::move(g[i]));
    }
  }

 private:
  /// b and c are rows of groups * states numbers whatever their rank.
  template <class T>
  static auto bc_rows(AnyTensor<T>& x) {
    return x.present() ? kernels::Rows<T>(x.data(), x.shape().size(2, x.rank())) : kernels::Rows<T>();
  }
  template <class T>
  kernels::SelectiveScan<T> arguments(const AnyTensor<T>& u, const AnyTensor<T>& dt, const AnyTensor<T>& a, const AnyTensor<T>& b,
                                      const AnyTensor<T>& c, const AnyTensor<T>& d_skip, const AnyTensor<T>& gate,
                                      const AnyTensor<T>& dt_bias, const AnyTensor<T>& state) const {
    kernels::SelectiveScan<T> in;
    in.shape.sequences = packing.sequences(name, u.extent(0), u.extent(1));
    in.shape.channels = u.extent(2);
    in.shape.states = a.extent(0);
    in.shape.groups = b.rank() == 4 ? b.extent(2) : 1;
    in.u = detail::rows_of(u);
    in.dt = detail::rows_of(dt);
    in.b = {b.data(), b.shape().size(2, b.rank())};
    in.c = {c.data(), c.shape().size(2, c.rank())};
    in.a = a.data();
    in.d_skip = d_skip.data();
    in.dt_bias = dt_bias.data();
    in.gate = detail::rows_of(gate);
    in.state_in = state.data();
    in.dt_softplus = dt_softplus;
    return in;
  }
};

/// Selective scan (Gu and Dao 2023, arXiv 2312.00752, Mamba-1). With d = dt + dt_bias, d = softplus(d) if `dt_softplus`:
///
///     h_t[n, e] = exp(d_t[e] a[n, e]) h_{t-1}[n, e] + d_t[e] b_t[n] u_t[e]
///     y_t[e] = (sum_n c_t[n] h_t[n, e] + d_skip[e] u_t[e]) silu(gate_t[e])
///
/// u, dt, gate, y: [B, L, E]; a: [N, E], negative, already -exp(A_log); b, c: [B, L, N] or [B, L, G, N]; d_skip, dt_bias: [E];
/// state: [B, N, E] (a row for each sequence if `packing` is given), `none` for zeros. The others may be `none` too.
/// Returns (y, state). About 9 B L E N flops and B L E N exponentials; the state is N-major, so that vectors run over
/// channels. The backward pass recomputes h from a state kept every 32 tokens. Agrees with mamba_ssm's selective_scan_ref.
template <TensorLike U, TensorLike Dt, TensorLike A, TensorLike B, TensorLike C, class D, class Gate, class Bias, class State>
auto selective_scan(const U& u, const Dt& dt, const A& a, const B& b, const C& c, const D& d_skip, const Gate& gate,
                    const Bias& dt_bias, const State& state, bool dt_softplus, const Packing& packing = {}) {
  return apply<rank_of<U>, rank_of<U>>(SelectiveScanOp{dt_softplus, packing}, u, dt, a, b, c, d_skip, gate, dt_bias, state);
}

}  // namespace ordo
