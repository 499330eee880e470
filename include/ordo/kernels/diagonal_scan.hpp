#pragma once
/// \file
/// Diagonal scans: h_t = a_t h_{t-1} + b_t, elementwise, all lanes independent.
///
/// Lanes run over channels, and a block of a few vectors of channels goes through all of its time before the next block
/// starts: its state stays in registers or the L1 cache, and nothing crosses lanes. Blocks and sequences are what threads
/// share. scan_forward and scan_backward are that loop for any scan whose decays and inputs a policy computes on the fly,
/// `states` numbers a channel (selective_scan.hpp is one such policy); diagonal_scan_forward and diagonal_scan_backward are
/// the scan of given a and b.
///
/// Decays of any size are fine, 0 and negative ones too: nothing takes their logarithm or divides by their products.

#include <algorithm>
#include <cstddef>
#include <optional>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/lane_block.hpp"
#include "ordo/kernels/sequences.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::kernels {

/// What all scans have: sequences, channels in groups that lanes must not mix, states a channel.
/// States lie [sequence][state][channel], so that lanes run over channels.
struct ScanShape {
  Sequences sequences;
  Index channels = 0;
  Index states = 1;
  Index groups = 1;  ///< divides channels; channel e is in group e / (channels / groups)

  constexpr Index state_size() const noexcept { return states * channels; }
};

/// The states that a forward pass may keep for the backward pass: h before row 0, 16, 32, ... of each sequence.
inline constexpr Index scan_interval = 16;

/// How many numbers those are. Sequence s has its first at begin(s) / scan_interval + s, which leaves room whatever the
/// lengths are.
inline Index scan_checkpoint_size(const ScanShape& shape) noexcept {
  return (shape.sequences.rows() / scan_interval + shape.sequences.count) * shape.state_size();
}

namespace detail {

/// How many rows ahead a scan asks for its inputs.
inline constexpr Index scan_prefetch = 16;

/// Rows whose inputs are worked out together, and whose results are: softplus and silu are long chains of operations, which
/// the loops over states would keep apart.
inline constexpr Index scan_rows = 4;
static_assert(scan_interval % scan_rows == 0);

/// Calls f(sequence, first row, end, LaneBlock, scratch of this thread's piece of work) for all blocks of all sequences.
template <class T, class Arch, int K, class F>
void for_scan_blocks(const ScanShape& shape, F&& f) {
  const Sequences& sequences = shape.sequences;
  const ChannelPieces pieces(shape.channels, shape.groups, K * simd::lanes<T, Arch>);
  const Index piece_count = pieces.per_group * shape.groups, all = sequences.count * piece_count;
  if (all == 0) return;
  // At least some 10 us of work in what a thread takes.
  const Index updates = std::max<Index>(1, sequences.rows() * shape.states * pieces.width / sequences.count);
  parallel_for(all, std::max<Index>(1, 65536 / updates), [&](Index first, Index last) {
    std::optional<Scratch<T>> scratch;
    for (Index i = first; i < last; ++i) {
      const Index s = i / piece_count, piece = i % piece_count;
      for_lane_blocks<T, Arch, K>(pieces.group(piece), pieces.first(piece), pieces.last(piece), [&](const auto& block) {
        f(s, sequences.begin(s), sequences.end(s), block, scratch);
      });
    }
  });
}

/// One block through the rows [begin, end) of a sequence. `work` (room for states * width numbers, and for what the policy
/// wants) may be null: then the block, which must not be partial, works in place on `state_out`.
template <class T, class Policy, class Block>
void scan_block(const Policy& policy, const Block& block, const ScanShape& shape, Index begin, Index end,
                const T* state_in, T* state_out, T* checkpoints, Index checkpoint_stride, T* work) {
  const Index states = shape.states;
  const Index stride = work ? block.width : shape.channels;
  T* h = work ? work : state_out + block.channel;
  if (work || state_in != state_out) {
    for (Index n = 0; n < states; ++n) {
      block.load_or(state_in ? state_in + n * shape.channels : nullptr, T(0)).store(h + n * stride);
    }
  }
  const auto lanes = policy.lanes(block, work ? work + states * block.width : nullptr);
  using Lanes = std::remove_const_t<decltype(lanes)>;
  typename Lanes::Token tokens[scan_rows];
  typename Lanes::Sums sums[scan_rows];
  for (Index first = begin; first < end; first += scan_rows) {
    const Index count = std::min(scan_rows, end - first);
    for (Index i = 0; i < count; ++i) {
      if (first + i + scan_prefetch < end) lanes.prefetch(first + i + scan_prefetch);
      tokens[i] = lanes.load(first + i);
    }
    if (checkpoints && (first - begin) % scan_interval == 0) {
      block.scatter(h, states, checkpoints, checkpoint_stride);
      checkpoints += states * checkpoint_stride;
    }
    for (Index i = 0; i < count; ++i) {
      auto sum = lanes.start();
      for (Index n = 0; n < states; ++n) {
        typename Block::P decay;
        lanes.advance(tokens[i], sum, n, Block::P::load(h + n * stride), decay).store(h + n * stride);
      }
      sums[i] = sum;
    }
    for (Index i = 0; i < count; ++i) lanes.finish(first + i, tokens[i], sums[i]);
  }
  if (work && state_out) block.scatter(h, states, state_out, shape.channels);
}

}  // namespace detail

/// Runs a scan.
///
/// A policy says what is scanned:
///     static constexpr int vectors;                             // K: vectors of channels a block
///     Index work_size(Index width) const;                       // numbers of scratch that lanes() wants for a block
///     auto lanes(const LaneBlock& block, T* work) const;        // work is null where copies do not pay (a step)
/// and its lanes do the rows of one block:
///     void prefetch(Index row) const;                           // what load() and finish() will read
///     Token load(Index row) const;                              // all that a row needs
///     Sums start() const;                                       // zeros, for what is summed over the states of a row
///     P advance(const Token&, Sums&, Index n, const P& h, P& a) const;   // state n: a becomes its decay; returns the new h
///     void finish(Index row, const Token&, const Sums&) const;  // writes the row's results
/// (P: the block's Pack)
///
/// state_in (null: zeros) and state_out (null: not wanted; may be state_in) are [sequences, states, channels]; checkpoints
/// (null: not wanted) has scan_checkpoint_size() numbers. A pass over one row touches no scratch unless a block is partial.
template <class T, class Arch, class Policy>
void scan_forward(const Policy& policy, const ScanShape& shape, const T* state_in, T* state_out, T* checkpoints) {
  constexpr Index width = Policy::vectors * simd::lanes<T, Arch>;
  detail::for_scan_blocks<T, Arch, Policy::vectors>(
      shape, [&](Index s, Index begin, Index end, const auto& block, std::optional<Scratch<T>>& scratch) {
        const Index at = s * shape.state_size();
        T* work = nullptr;
        if (block.partial || end - begin > 3 || !state_out || checkpoints) {
          if (!scratch) scratch.emplace(shape.states * width + policy.work_size(width));
          work = scratch->data();
        }
        T* kept = checkpoints ? checkpoints + (begin / scan_interval + s) * shape.state_size() : nullptr;
        detail::scan_block<T>(policy, block, shape, begin, end, state_in ? state_in + at : nullptr,
                              state_out ? state_out + at : nullptr, kept, shape.channels, work);
      });
}

namespace detail {

/// States that go through a chunk together on the way back, their adjoints in registers.
template <class T, class Arch>
inline constexpr int state_tile = sizeof(simd::Vec<T, Arch>) == 64 ? 4 : 2;

/// Buffers of one backward task, for blocks of at most K vectors.
template <class T, class Arch, class Policy>
struct BackwardScratch {
  static constexpr Index width = Policy::vectors * simd::lanes<T, Arch>;
  BackwardScratch(const Policy& policy, const ScanShape& shape, Index channels, bool own_checkpoints, Index longest)
      : padded((channels + width - 1) / width * width),
        adjoint(shape.states * padded),
        work(policy.work_size(width) + shape.states * width),
        checkpoints(own_checkpoints ? ((longest + scan_interval - 1) / scan_interval) * shape.states * padded : 1) {}
  Index padded;         ///< channels of the task, rounded up to whole blocks
  Scratch<T> adjoint;   ///< blocks of [states][width]: dL/dh behind the row at hand
  Scratch<T> work;      ///< of a forward pass, and of the policy's lanes
  Scratch<T> checkpoints;
};

/// What a chunk of a block keeps between the ways there and back.
template <class Lanes, class Back>
struct ChunkRows {
  typename Lanes::Token token;
  typename Lanes::Sums sums;
  typename Back::Row row;
  typename Back::RowSums row_sums;
};

/// N states of a chunk of rows, there and back: all that is kept for it fits in the L1 cache.
template <int N, class T, class Lanes, class Back, class Chunk, int... J>
void scan_states_backward(const Lanes& all_lanes, const Back& all_back, Chunk* rows, Index count, Index first, const T* start,
                          Index start_stride, T* adjoint, std::integer_sequence<int, J...>) {
  using Block = typename Lanes::Block;
  using P = typename Block::P;
  // Copies, because vectors are stored all the time, and what is behind a reference would be read again after each store.
  const Lanes lanes = all_lanes;
  const Back back = all_back;
  P decays[scan_interval][N], states[scan_interval + 1][N];
  {
    P h[N] = {lanes.block.load(start + (first + J) * start_stride)...};
    ((states[0][J] = h[J]), ...);
    for (Index i = 0; i < count; ++i) {
      auto sums = rows[i].sums;
      ((h[J] = lanes.advance(rows[i].token, sums, first + J, h[J], decays[i][J]), states[i + 1][J] = h[J]), ...);
      rows[i].sums = sums;
    }
  }
  P s[N] = {P::load(adjoint + (first + J) * Block::width)...};
  typename Back::State state[N] = {back.state(first + J)...};
  for (Index i = count; i-- > 0;) {
    auto sums = rows[i].row_sums;
    ((s[J] = back.walk(rows[i].token, rows[i].row, sums, i, first + J, state[J], s[J], decays[i][J], states[i][J],
                       states[i + 1][J])),
     ...);
    rows[i].row_sums = sums;
  }
  (s[J].store(adjoint + (first + J) * Block::width), ...);
  (back.leave(first + J, state[J]), ...);
}

/// Recomputes the rows [begin, end) (at most scan_interval) of one block from the state at their start, and walks back.
template <class T, class Arch, class Policy, class Task, class Block>
void scan_chunk_backward(const Policy& policy, Task& task, const Block& block, const ScanShape& shape, Index begin,
                         Index end, const T* start, Index start_stride, T* adjoint, T* work) {
  constexpr int tile = state_tile<T, Arch>;
  const auto lanes = policy.lanes(block, work);
  const auto back = task.lanes(lanes);
  ChunkRows<std::remove_const_t<decltype(lanes)>, std::remove_const_t<decltype(back)>> rows[scan_interval];
  for (Index row = begin; row < end; ++row) {
    if (row + scan_prefetch < end) back.prefetch(row + scan_prefetch);
    const auto token = lanes.load(row);
    rows[row - begin] = {token, lanes.start(), back.load(row), back.start()};
  }
  Index n = 0;
  for (; n + tile <= shape.states; n += tile) {
    scan_states_backward<tile>(lanes, back, rows, end - begin, n, start, start_stride, adjoint,
                               std::make_integer_sequence<int, tile>{});
  }
  for (; n < shape.states; ++n) {
    scan_states_backward<1>(lanes, back, rows, end - begin, n, start, start_stride, adjoint,
                            std::integer_sequence<int, 0>{});
  }
  for (Index row = begin; row < end; ++row) {
    const auto& r = rows[row - begin];
    back.finish(row, r.token, r.sums, r.row, r.row_sums);
  }
}

}  // namespace detail

/// The backward pass of scan_forward. States are recomputed from checkpoints, those of the forward pass or (null) own ones,
/// a chunk of scan_interval rows at a time, which is walked back at once.
///
/// A task of a thread is a piece of channels in a run of neighbouring sequences. The policy adds
///     static constexpr Index piece_width(const ScanShape&);     // channels a task; not a function of the threads
///     Policy without_results() const;                           // the same scan, whose finish() writes nothing
///     Task task(Index piece, Index group, Index first, Index last, Index run) const;
/// A task is told of chunks (begin_chunk(), end_chunk(first row, rows)), of its end (finish()), and gives lanes(forward lanes)
/// for one chunk of one block:
///     void prefetch(Index row) const;
///     Row load(Index row) const;                                // what a row needs on the way back
///     RowSums start() const;                                    // zeros, for what is summed over the states of a row
///     State state(Index n) const;                               // what is summed over rows for state n, ...
///     void leave(Index n, const State&) const;                  // ... and its way to where it is kept
///     P walk(const Token&, const Row&, RowSums&, Index i, Index n, State&, s, a, old_h, new_h) const;
///     void finish(Index row, const Token&, const Sums&, const Row&, const RowSums&) const;   // writes the row's gradients
/// where walk turns s, the adjoint of new_h without the row's own output, into the adjoint of old_h; row is the chunk's i-th.
///
/// dstate_out (null: zeros) is the gradient of the final state, dstate_in (null: not wanted) that of the first one.
template <class T, class Arch, class Policy>
void scan_backward(const Policy& policy, const ScanShape& shape, const T* state_in, const T* checkpoints,
                   const T* dstate_out, T* dstate_in) {
  constexpr int K = Policy::vectors;
  const Sequences& sequences = shape.sequences;
  const detail::ChannelPieces pieces(shape.channels, shape.groups, Policy::piece_width(shape));
  const SumPieces runs(sequences.count);
  const Index piece_count = pieces.per_group * shape.groups, states = shape.states;
  if (piece_count == 0) return;
  Index longest = 0;
  for (Index s = 0; s < sequences.count; ++s) longest = std::max(longest, sequences.end(s) - sequences.begin(s));

  parallel_for(runs.count * piece_count, 1, [&](Index task_first, Index task_last) {
    for (Index i = task_first; i < task_last; ++i) {
      const Index run = i / piece_count, piece = i % piece_count, group = pieces.group(piece);
      const Index first = pieces.first(piece), last = pieces.last(piece);
      detail::BackwardScratch<T, Arch, Policy> scratch(policy, shape, last - first, checkpoints == nullptr, longest);
      auto task = policy.task(piece, group, first, last, run);
      const auto for_blocks = [&](auto&& f) { detail::for_lane_blocks<T, Arch, K>(group, first, last, f); };
      for (Index s = runs.begin(run); s < runs.end(run); ++s) {
        const Index begin = sequences.begin(s), end = sequences.end(s), state_at = s * shape.state_size();
        for_blocks([&](const auto& block) {
          block.gather(dstate_out ? dstate_out + state_at : nullptr, shape.channels, states,
                       scratch.adjoint.data() + (block.channel - first) * states);
        });
        const T* kept = nullptr;
        Index kept_stride = 0;
        if (checkpoints) {
          kept = checkpoints + (begin / scan_interval + s) * shape.state_size();
          kept_stride = shape.channels;
        } else {
          // Own ones lie as those of the forward pass, but for this task's channels only.
          kept = scratch.checkpoints.data() - first;
          kept_stride = scratch.padded;
          // The states behind the start of the last chunk are not needed.
          const Index until = begin + std::max<Index>(end - begin - 1, 0) / scan_interval * scan_interval + 1;
          for_blocks([&](const auto& block) {
            detail::scan_block<T>(policy.without_results(), block, shape, begin, std::min(until, end),
                                  state_in ? state_in + state_at : nullptr, static_cast<T*>(nullptr),
                                  scratch.checkpoints.data() - first, kept_stride, scratch.work.data());
          });
        }
        for (Index chunk = (end - begin + scan_interval - 1) / scan_interval; chunk-- > 0;) {
          const Index row = begin + chunk * scan_interval, rows = std::min(scan_interval, end - row);
          task.begin_chunk();
          for_blocks([&](const auto& block) {
            detail::scan_chunk_backward<T, Arch>(policy, task, block, shape, row, row + rows,
                                                 kept + chunk * states * kept_stride, kept_stride,
                                                 scratch.adjoint.data() + (block.channel - first) * states,
                                                 scratch.work.data());
          });
          task.end_chunk(row, rows);
        }
        if (dstate_in) {
          for_blocks([&](const auto& block) {
            block.scatter(scratch.adjoint.data() + (block.channel - first) * states, states,
                          dstate_in + state_at, shape.channels);
          });
        }
      }
      task.finish();
    }
  });
}

/// The inputs of the scan h_t = a_t h_{t-1} + b_t, y_t = h_t. T may be std::complex: gradients are then those of the real and
/// the imaginary parts, as real numbers of their own.
template <class T>
struct DiagonalScan {
  ScanShape shape;  ///< states and groups stay 1
  Rows<const T> a, b;
  const T* state_in = nullptr;  ///< [sequences, channels]; null: zeros
};

/// Where gradients go; all are written, not added to, and null ones are left out.
template <class T>
struct DiagonalScanGradients {
  Rows<T> a, b;
  T* state_in = nullptr;
};

namespace detail {

template <class T, class Arch>
struct DiagonalPolicy {
  static constexpr int vectors = 4;
  const DiagonalScan<T>& in;
  Rows<T> y;

  Index work_size(Index) const noexcept { return 0; }

  template <class LaneBlockType>
  struct Lanes {
    using Block = LaneBlockType;
    using P = typename Block::P;
    struct Token {
      P a, b;
    };
    struct Sums {
      P h;
    };
    void prefetch(Index row) const noexcept {
      block.prefetch(policy.in.a[row]);
      block.prefetch(policy.in.b[row]);
    }
    Token load(Index row) const noexcept { return {block.load(policy.in.a[row]), block.load(policy.in.b[row])}; }
    Sums start() const noexcept { return {}; }
    [[gnu::always_inline]] P advance(const Token& token, Sums& sums, Index, const P& old_h, P& decay) const noexcept {
      decay = token.a;
      return sums.h = fma(token.a, old_h, token.b);
    }
    void finish(Index row, const Token&, const Sums& sums) const noexcept { block.store(policy.y[row], sums.h); }

    const DiagonalPolicy& policy;
    Block block;
  };

  template <class Block>
  Lanes<Block> lanes(const Block& block, T*) const noexcept {
    return {*this, block};
  }
};

}  // namespace detail

/// Writes y and, unless null, the final state (may be state_in itself).
template <class T, class Arch = simd::DefaultArch>
void diagonal_scan_forward(const DiagonalScan<T>& in, Rows<T> y, T* state_out) {
  const detail::DiagonalPolicy<T, Arch> policy{in, y};
  scan_forward<T, Arch>(policy, in.shape, in.state_in, state_out, static_cast<T*>(nullptr));
}

/// Gradients given y, dL/dy and dL/d(final state) (null: zeros): the same scan from the end, s_t = conj(a_{t+1}) s_{t+1} + dy_t.
template <class T, class Arch = simd::DefaultArch>
void diagonal_scan_backward(const DiagonalScan<T>& in, Rows<const T> y, Rows<const T> dy, const T* dstate_out,
                            const DiagonalScanGradients<T>& out) {
  detail::for_scan_blocks<T, Arch, detail::DiagonalPolicy<T, Arch>::vectors>(
      in.shape, [&](Index sequence, Index begin, Index end, const auto& block, auto&) {
        const Index at = sequence * in.shape.channels;
        auto s = block.load_or(dstate_out ? dstate_out + at : nullptr, T(0));
        for (Index row = end; row-- > begin;) {
          if (row - begin >= detail::scan_prefetch) {
            block.prefetch(dy[row - detail::scan_prefetch]);
            block.prefetch(in.a[row - detail::scan_prefetch]);
            block.prefetch(y[row - detail::scan_prefetch]);
          }
          s = s + block.load(dy[row]);
          if (out.b) block.store(out.b[row], s);
          if (out.a) {
            const auto h = row > begin ? block.load(y[row - 1]) : block.load_or(in.state_in ? in.state_in + at : nullptr, T(0));
            block.store(out.a[row], s * conj(h));
          }
          s = s * conj(block.load(in.a[row]));
        }
        if (out.state_in) block.store(out.state_in + at, s);
      });
}

}  // namespace ordo::kernels
