#pragma once
/// \file
/// The selective scan of Mamba (Gu and Dao 2023, arXiv 2312.00752), forward, backward and step:
///
///     d = dt + dt_bias[e];  d = softplus(d) if dt_softplus (x itself above 20, where its slope is 1)
///     h_t[n, e] = exp(d a[n, e]) h_{t-1}[n, e] + d b_t[g, n] u_t[e]           g = e / (channels / groups)
///     y_t[e] = (sum_n c_t[g, n] h_t[n, e] + d_skip[e] u_t[e]) * silu(gate_t[e])
///
/// One vector exp a state, channel and row is nearly all of the work. d a may be anything, far below -1000 too: exp
/// gives 0, and nothing is divided by products of decays.

#include <algorithm>
#include <cstdint>

#include "ordo/kernels/diagonal_scan.hpp"
#include "ordo/simd/math.hpp"

namespace ordo::kernels {

/// The inputs of a selective scan. Rows are those of `shape.sequences`; u, dt and gate have shape.channels columns, b
/// and c have shape.groups * shape.states. Null pointers leave their term out.
template <class T>
struct SelectiveScan {
  ScanShape shape;
  Rows<const T> u, dt, b, c;
  const T* a = nullptr;        ///< [states, channels], already -exp(A_log)
  const T* d_skip = nullptr;   ///< [channels]
  const T* dt_bias = nullptr;  ///< [channels]
  Rows<const T> gate;
  const T* state_in = nullptr;  ///< [sequences, states, channels]; null: zeros
  bool dt_softplus = false;
};

/// Where gradients go; all are written, not added to, and null ones are left out. Shapes are those of the inputs.
template <class T>
struct SelectiveScanGradients {
  Rows<T> u, dt, b, c, gate;
  T* a = nullptr;
  T* d_skip = nullptr;
  T* dt_bias = nullptr;
  T* state_in = nullptr;
};

namespace detail {

template <class T, class Arch>
struct SelectiveTask;

template <class T, class Arch>
struct SelectivePolicy {
  static constexpr int vectors = 2;
  const SelectiveScan<T>& in;
  Rows<T> y;

  SelectivePolicy without_results() const noexcept { return {in, {}}; }
  Index work_rows() const noexcept { return in.shape.states; }
  static Index piece_width(const ScanShape& shape) noexcept { return shape.channels / shape.groups > 1024 ? 128 : 64; }

  template <class LaneBlockType>
  struct Lanes {
    using Block = LaneBlockType;
    using V = simd::Vec<T, Arch>;
    using P = typename Block::P;

    /// A row of this block. `d2` is d log2(e): the product with it costs one rounding more than exp(d a), and one
    /// multiplication less for each state.
    struct Token {
      P u, d, d2, du;
      const T *b, *c;
    };
    struct Sums {
      P y;
    };

    Lanes(const SelectivePolicy& policy, const Block& lane_block, T* work, bool fresh)
        : in(policy.in),
          out(policy.y),
          block(lane_block),
          a(policy.in.a + lane_block.channel),
          a_stride(policy.in.shape.channels),
          bias(block.load_or(policy.in.dt_bias, T(0))),
          skip(block.load_or(policy.in.d_skip, T(0))) {
      if (work) {
        if (fresh) block.gather(a, a_stride, in.shape.states, work);
        a = work;
        a_stride = block.width;
      }
    }

    [[gnu::always_inline]] P raw_step(Index row) const noexcept { return block.load(in.dt[row]) + bias; }

    [[gnu::always_inline]] Token load(Index row) const noexcept {
      Token token;
      token.d = raw_step(row);
      if (in.dt_softplus) token.d = map(simd::softplus, token.d);
      token.u = block.load(in.u[row]);
      token.d2 = token.d * V(T(1.44269504088896340736));
      token.du = token.d * token.u;
      token.b = in.b[row] + block.group * in.shape.states;
      token.c = in.c[row] + block.group * in.shape.states;
      return token;
    }

    [[gnu::always_inline]] Sums start() const noexcept { return {P(T(0))}; }

    [[gnu::always_inline]] P advance(const Token& token, Sums& sums, Index n, const P& old_h, P& decay) const noexcept {
      decay = map(simd::exp2, token.d2 * P::load(a + n * a_stride));
      const P h = fma(decay, old_h, token.du * V(token.b[n]));
      sums.y = fma(h, V(token.c[n]), sums.y);
      return h;
    }

    [[gnu::always_inline]] P ungated(const Token& token, const Sums& sums) const noexcept {
      return fma(skip, token.u, sums.y);
    }

    void finish(Index row, const Token& token, const Sums& sums) const noexcept {
      if (!out) return;
      const P ungated_y = ungated(token, sums);
      block.store(out[row], in.gate ? ungated_y * map(simd::silu, block.load(in.gate[row])) : ungated_y);
    }

    const SelectiveScan<T>& in;
    Rows<T> out;
    Block block;
    const T* a;
    Index a_stride;
    P bias, skip;
  };

  template <class Block>
  Lanes<Block> lanes(const Block& block, T* work, bool fresh) const {
    return {*this, block, work, fresh};
  }

  SelectiveTask<T, Arch> task(Index piece, Index group, Index first, Index last, Index run) const;

  // The backward pass.
  Rows<const T> dy{};
  const SelectiveScanGradients<T>* gradients = nullptr;
  T* channel_sums = nullptr;  ///< [run][states + 2][channels]: dL/da, dL/dd_skip, dL/ddt_bias of each run
  T* row_sums = nullptr;      ///< [2][piece][row][state]: dL/db and dL/dc of each piece of channels
};

/// One task of the backward pass: it sums over its channels for each row (b, c), and over its rows for each channel (a,
/// ...).
template <class T, class Arch>
struct SelectiveTask {
  using Policy = SelectivePolicy<T, Arch>;
  using V = simd::Vec<T, Arch>;
  static constexpr Index lane_count = simd::lanes<T, Arch>;

  SelectiveTask(const Policy& of, Index piece_index, Index first_channel, Index last_channel, Index run)
      : policy(of),
        states(of.in.shape.states),
        piece(piece_index),
        first(first_channel),
        channels(last_channel - first_channel),
        padded((channels + Policy::vectors * lane_count - 1) / (Policy::vectors * lane_count) * Policy::vectors *
               lane_count),
        totals(of.channel_sums + run * (states + 2) * of.in.shape.channels),
        per_channel((states + 2) * padded),
        per_row(2 * scan_interval * states * lane_count) {
    std::fill_n(per_channel.data(), (states + 2) * padded, T(0));
  }

  template <class Forward>
  struct Lanes {
    using Block = typename Forward::Block;
    using P = typename Block::P;
    using Token = typename Forward::Token;
    using Sums = typename Forward::Sums;
    struct Row {
      P g;  // dL/d(y before the gate)
    };
    struct RowSums {
      P from_input;  // sum_n s b
      P from_decay;  // sum_n s a decay old_h
    };
    struct State {
      P da;
    };

    Lanes(SelectiveTask& owner, const Forward& forward_lanes)
        : task(owner),
          forward(forward_lanes),
          block(forward_lanes.block),
          a(forward_lanes.a),
          da(owner.per_channel.data() + (block.channel - owner.first) * (owner.states + 2)),
          db(owner.per_row.data()),
          dc(owner.per_row.data() + scan_interval * owner.states * lane_count) {}

    Row load(Index row) const noexcept {
      const P dy = block.load(task.policy.dy[row]);
      if (!task.policy.in.gate) return {dy};
      return {dy * map(simd::silu, block.load(task.policy.in.gate[row]))};
    }
    RowSums start() const noexcept { return {P(T(0)), P(T(0))}; }
    State state(Index n) const noexcept { return {P::load(da + n * block.width)}; }
    void leave(Index n, const State& state) const noexcept { state.da.store(da + n * block.width); }

    [[gnu::always_inline]] P walk(const Token& token, const Row& row, RowSums& sums, Index i, Index n, State& state,
                                  const P& old_s, const P& decay, const P& old_h, const P& new_h) const noexcept {
      T* const db_n = db + (n * scan_interval + i) * lane_count;
      T* const dc_n = dc + (n * scan_interval + i) * lane_count;
      const P s = fma(row.g, V(token.c[n]), old_s);
      simd::store(dc_n, (row.g * new_h).sum() + simd::load<Arch>(dc_n));
      simd::store(db_n, (s * token.du).sum() + simd::load<Arch>(db_n));
      sums.from_input = fma(s, V(token.b[n]), sums.from_input);
      const P next = s * decay, q = next * old_h;
      state.da = fma(q, token.d, state.da);
      sums.from_decay = fma(q, P::load(a + n * block.width), sums.from_decay);
      return next;
    }

    void finish(Index row, const Token& token, const Sums& sums, const Row& r, const RowSums& row_sums) const noexcept {
      const SelectiveScan<T>& in = task.policy.in;
      const SelectiveScanGradients<T>& out = *task.policy.gradients;
      if (in.gate && out.gate) {
        const P slope = map(simd::silu_grad, block.load(in.gate[row]));
        block.store(out.gate[row], block.load(task.policy.dy[row]) * forward.ungated(token, sums) * slope);
      }
      if (out.u) block.store(out.u[row], fma(token.d, row_sums.from_input, r.g * forward.skip));
      P ddt = fma(token.u, row_sums.from_input, row_sums.from_decay);
      if (in.dt_softplus) ddt = ddt * map(simd::softplus_grad, forward.raw_step(row));
      if (out.dt) block.store(out.dt[row], ddt);
      T* const skip_sum = da + task.states * block.width;
      T* const bias_sum = skip_sum + block.width;
      fma(r.g, token.u, P::load(skip_sum)).store(skip_sum);
      (P::load(bias_sum) + ddt).store(bias_sum);
    }

    SelectiveTask& task;
    const Forward& forward;
    Block block;
    const T* a;  ///< [states][width]
    T *da, *db, *dc;
  };

  template <class Forward>
  Lanes<Forward> lanes(const Forward& forward) {
    return {*this, forward};
  }

  void begin_chunk() noexcept { std::fill_n(per_row.data(), 2 * scan_interval * states * lane_count, T(0)); }

  void end_chunk(Index row, Index rows) noexcept {
    const Index all_rows = policy.in.shape.sequences.rows();
    const Index pieces =
        ChannelPieces(policy.in.shape.channels, policy.in.shape.groups, Policy::piece_width(policy.in.shape))
            .per_group *
        policy.in.shape.groups;
    for (Index which = 0; which < 2; ++which) {
      if (which == 0 ? !policy.gradients->b : !policy.gradients->c) continue;
      const T* const lanes_of = per_row.data() + which * scan_interval * states * lane_count;
      T* const to = policy.row_sums + ((which * pieces + piece) * all_rows + row) * states;
      for (Index n = 0; n < states; ++n) {
        const T* const of_state = lanes_of + n * scan_interval * lane_count;
        for (Index i = 0; i < rows; ++i) to[i * states + n] = simd::hsum(V::load_aligned(of_state + i * lane_count));
      }
    }
  }

  void finish() noexcept {
    for_lane_blocks<T, Arch, Policy::vectors>(0, first, first + channels, [&](const auto& block) {
      block.scatter(per_channel.data() + (block.channel - first) * (states + 2), states + 2, totals + block.channel,
                    policy.in.shape.channels);
    });
  }

  Policy policy;
  Index states, piece, first, channels, padded;
  T* totals;               ///< of this run, [states + 2][all channels]
  Scratch<T> per_channel;  ///< blocks of [states + 2][width]
  Scratch<T> per_row;      ///< [b, c][state][row of the chunk][lane]
};

template <class T, class Arch>
SelectiveTask<T, Arch> SelectivePolicy<T, Arch>::task(Index piece, Index, Index first, Index last, Index run) const {
  return {*this, piece, first, last, run};
}

}  // namespace detail

/// Writes y (rows as u) and, unless null, the final state (may be state_in itself) and the checkpoints that make a
/// later backward pass about a third cheaper (scan_checkpoint_size(in.shape) numbers). One row (a step) costs no
/// scratch.
template <class T, class Arch = simd::DefaultArch>
void selective_scan_forward(const SelectiveScan<T>& in, Rows<T> y, T* state_out, T* checkpoints = nullptr) {
  const detail::SelectivePolicy<T, Arch> policy{in, y};
  scan_forward<T, Arch>(policy, in.shape, in.state_in, state_out, checkpoints);
}

/// Gradients given dL/dy and dL/d(final state) (null: zeros). Sums over channels and rows are split in pieces that
/// depend on the shape alone: the bits do not depend on the number of threads.
template <class T, class Arch = simd::DefaultArch>
void selective_scan_backward(const SelectiveScan<T>& in, Rows<const T> dy, const T* dstate_out,
                             const SelectiveScanGradients<T>& out, const T* checkpoints = nullptr) {
  using Policy = detail::SelectivePolicy<T, Arch>;
  const ScanShape& shape = in.shape;
  const Index rows = shape.sequences.rows(), states = shape.states, channels = shape.channels;
  const SumPieces runs(shape.sequences.count);
  const detail::ChannelPieces pieces(channels, shape.groups, Policy::piece_width(shape));
  const Index piece_count = pieces.per_group * shape.groups, piece_size = rows * states;
  Scratch<T> channel_sums(runs.count * (states + 2) * channels);
  Scratch<T> row_sums(2 * piece_count * piece_size);
  const Policy policy{in, {}, dy, &out, channel_sums.data(), row_sums.data()};
  scan_backward<T, Arch>(policy, shape, in.state_in, checkpoints, dstate_out, out.state_in);

  const auto sum_channels = [&](Index first, Index n, T* to) {
    if (!to) return;
    const T* from = channel_sums.data() + first * channels;
    std::copy_n(from, n * channels, to);
    for (Index run = 1; run < runs.count; ++run) {
      from += (states + 2) * channels;
      for (Index i = 0; i < n * channels; ++i) to[i] += from[i];
    }
  };
  sum_channels(0, states, out.a);
  sum_channels(states, 1, out.d_skip);
  sum_channels(states + 1, 1, out.dt_bias);

  parallel_for(rows, 64, [&](Index begin, Index end) {
    for (Index which = 0; which < 2; ++which) {
      const Rows<T> to = which == 0 ? out.b : out.c;
      if (!to) continue;
      for (Index row = begin; row < end; ++row) {
        for (Index g = 0; g < shape.groups; ++g) {
          T* sum = to[row] + g * states;
          for (Index p = 0; p < pieces.per_group; ++p) {
            const T* part =
                row_sums.data() + (which * piece_count + g * pieces.per_group + p) * piece_size + row * states;
            for (Index n = 0; n < states; ++n) sum[n] = p == 0 ? part[n] : sum[n] + part[n];
          }
        }
      }
    }
  });
}

}  // namespace ordo::kernels
