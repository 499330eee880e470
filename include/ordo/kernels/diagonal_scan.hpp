#pragma once
/// \file
/// Diagonal scans: h_t = a_t h_{t-1} + b_t, elementwise, all lanes independent.
///
/// Lanes run over channels, and a block of a few vectors of channels goes through all of its time before the next block
/// starts: its state stays in registers or the L1 cache, and nothing crosses lanes. Blocks and sequences are what
/// threads share. scan_forward and scan_backward are that loop for any scan whose decays and inputs a policy computes
/// on the fly, `states` numbers a channel (selective_scan.hpp is one such policy); diagonal_scan_forward and
/// diagonal_scan_backward are the scan of given a and b.
///
/// Decays of any size are fine, 0 and negative ones too: nothing takes their logarithm or divides by their products.

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>

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

/// The states that a forward pass may keep for the backward pass: h before row 0, 32, 64, ... of each sequence.
inline constexpr Index scan_interval = 32;

/// How many numbers those are. Sequence s has its first at begin(s) / scan_interval + s, which leaves room whatever the
/// lengths are.
inline Index scan_checkpoint_size(const ScanShape& shape) noexcept {
  return (shape.sequences.rows() / scan_interval + shape.sequences.count) * shape.state_size();
}

namespace detail {

/// Rows whose inputs are worked out together, and whose results are: softplus and silu are long chains of operations,
/// which the loops over states would keep apart.
inline constexpr Index scan_rows = 4;
static_assert(scan_interval % scan_rows == 0);

/// Rows that go through all blocks of a piece before the next ones: a block alone walks from page to page, one or two
/// vectors on each, and 2,048 rows of four arrays are more pages than the TLB knows.
inline constexpr Index scan_tile = 64;
static_assert(scan_tile % scan_interval == 0);

/// Channels that a thread takes at a time.
inline Index scan_piece_width(const ScanShape& shape) noexcept { return shape.channels > 1024 ? 256 : 128; }

/// One block through the rows [begin, end) of a sequence. `work` has room for (states + work_rows) * width numbers; its
/// first part is the state, which a call with `fresh` takes from state_in, and others find as the call before has left
/// it. state_out and checkpoints may be null; checkpoints points to the block's first channel.
/// Without `work` the block, which must not be partial, is worked on in place in state_out.
template <class T, class Policy, class Block>
void scan_block(const Policy& policy, const Block& block, const ScanShape& shape, Index begin, Index end, bool fresh,
                const T* state_in, T* state_out, T* checkpoints, Index checkpoint_stride, T* work) {
  const Index states = shape.states;
  const Index stride = work ? block.width : shape.channels;
  T* const h = work ? work : state_out + block.channel;
  if (fresh && (work || state_in != state_out)) {
    for (Index n = 0; n < states; ++n) {
      block.load_or(state_in ? state_in + n * shape.channels : nullptr, T(0)).store(h + n * stride);
    }
  }
  const auto lanes = policy.lanes(block, work ? work + states * block.width : nullptr, fresh);
  using Lanes = std::remove_const_t<decltype(lanes)>;
  typename Lanes::Token tokens[scan_rows];
  typename Lanes::Sums sums[scan_rows];
  for (Index first = begin; first < end; first += scan_rows) {
    const Index count = std::min(scan_rows, end - first);
    for (Index i = 0; i < count; ++i) tokens[i] = lanes.load(first + i);
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
  if (work && state_out) block.scatter(h, states, state_out + block.channel, shape.channels);
}

/// Numbers of `work` for a piece of channels.
template <class T, class Arch, class Policy>
Index scan_work_size(const Policy& policy, const ScanShape& shape, Index channels) noexcept {
  constexpr Index lanes = simd::lanes<T, Arch>;
  return (channels + lanes - 1) / lanes * lanes * (shape.states + policy.work_rows());
}

/// The channels [first, last) of a group through the rows [begin, end) of a sequence; checkpoints (null: not wanted)
/// points to channel `first`.
template <class T, class Arch, class Policy>
void scan_piece(const Policy& policy, const ScanShape& shape, Index group, Index first, Index last, Index begin,
                Index end, const T* state_in, T* state_out, T* checkpoints, Index checkpoint_stride, T* work) {
  const Index per_channel = shape.states + policy.work_rows();
  Index row = begin;
  do {
    const Index stop = std::min(row + scan_tile, end);
    for_lane_blocks<T, Arch, Policy::vectors>(group, first, last, [&](const auto& block) {
      T* kept = checkpoints;
      if (kept) kept += (row - begin) / scan_interval * shape.states * checkpoint_stride + block.channel - first;
      scan_block<T>(policy, block, shape, row, stop, row == begin, state_in, stop == end ? state_out : nullptr, kept,
                    checkpoint_stride, work + (block.channel - first) * per_channel);
    });
    row = stop;
  } while (row < end);
}

/// A step, or a few: the states are worked on where they are, copies would cost more than they save.
template <class T, class Arch, class Policy>
void scan_in_place(const Policy& policy, const ScanShape& shape, Index group, Index first, Index last, Index begin,
                   Index end, const T* state_in, T* state_out) {
  for_lane_blocks<T, Arch, Policy::vectors>(group, first, last, [&](const auto& block) {
    if (block.partial) {
      Scratch<T> work(scan_work_size<T, Arch>(policy, shape, block.width));
      scan_block<T>(policy, block, shape, begin, end, true, state_in, state_out, static_cast<T*>(nullptr), 0,
                    work.data());
    } else {
      scan_block<T>(policy, block, shape, begin, end, true, state_in, state_out, static_cast<T*>(nullptr), 0,
                    static_cast<T*>(nullptr));
    }
  });
}

}  // namespace detail

/// Runs a scan.
///
/// A policy says what is scanned:
///     static constexpr int vectors;                          // K: vectors of channels a block
///     Index work_rows() const;                               // numbers of scratch a channel that lanes() wants
///     auto lanes(const LaneBlock&, T* work, bool fresh) const;   // work is null where copies do not pay (a step); it
///     is
///                                                            // as the last call for this block left it if not fresh
/// and its lanes do the rows of one block:
///     Token load(Index row) const;                           // all that a row needs
///     Sums start() const;                                    // zeros, for what is summed over the states of a row
///     P advance(const Token&, Sums&, Index n, const P& h, P& a) const;   // the new state n; a becomes its decay
///     void finish(Index row, const Token&, const Sums&) const;   // writes the row's results
/// (P: the block's Pack)
///
/// state_in (null: zeros) and state_out (null: not wanted; may be state_in) are [sequences, states, channels];
/// checkpoints (null: not wanted) has scan_checkpoint_size() numbers. A pass over one row touches no scratch unless a
/// block is partial.
template <class T, class Arch, class Policy>
void scan_forward(const Policy& policy, const ScanShape& shape, const T* state_in, T* state_out, T* checkpoints) {
  const Sequences& sequences = shape.sequences;
  const detail::ChannelPieces pieces(shape.channels, shape.groups, detail::scan_piece_width(shape));
  const Index piece_count = pieces.per_group * shape.groups, all = sequences.count * piece_count;
  if (all == 0) return;
  // At least some 10 us of work in what a thread takes.
  const Index updates = sequences.rows() * shape.states * std::min(pieces.width, pieces.a_group) / sequences.count;
  parallel_for(all, std::max<Index>(1, 65536 / std::max<Index>(updates, 1)), [&](Index task_begin, Index task_end) {
    std::optional<Scratch<T>> work;
    for (Index task = task_begin; task < task_end; ++task) {
      const Index s = task / piece_count, piece = task % piece_count, at = s * shape.state_size();
      const Index group = pieces.group(piece), first = pieces.first(piece), last = pieces.last(piece);
      const Index begin = sequences.begin(s), end = sequences.end(s);
      const T* const from = state_in ? state_in + at : nullptr;
      T* const to = state_out ? state_out + at : nullptr;
      if (to && !checkpoints && end - begin <= 3) {
        detail::scan_in_place<T, Arch>(policy, shape, group, first, last, begin, end, from, to);
        continue;
      }
      if (!work) work.emplace(detail::scan_work_size<T, Arch>(policy, shape, pieces.width));
      T* const kept = checkpoints ? checkpoints + (begin / scan_interval + s) * shape.state_size() + first : nullptr;
      detail::scan_piece<T, Arch>(policy, shape, group, first, last, begin, end, from, to, kept, shape.channels,
                                  work->data());
    }
  });
}

namespace detail {

/// States that go through a chunk together on the way back, their adjoints in registers.
inline constexpr int state_tile = 4;

/// Buffers of one backward task, for blocks of at most K vectors.
template <class T, class Arch, class Policy>
struct BackwardScratch {
  static constexpr Index width = Policy::vectors * simd::lanes<T, Arch>;
  BackwardScratch(const Policy& policy, const ScanShape& shape, Index channels, bool own_checkpoints, Index longest)
      : padded((channels + width - 1) / width * width),
        adjoint(shape.states * padded),
        work(scan_work_size<T, Arch>(policy, shape, padded)),
        checkpoints(own_checkpoints ? ((longest + scan_interval - 1) / scan_interval) * shape.states * padded : 1) {}
  Index padded;        ///< channels of the task, rounded up to whole blocks
  Scratch<T> adjoint;  ///< blocks of [states][width]: dL/dh behind the row at hand
  Scratch<T> work;     ///< of a forward pass, and of the policy's lanes
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
void scan_states_backward(const Lanes& all_lanes, const Back& all_back, Chunk* rows, Index count, Index first,
                          const T* start, Index start_stride, T* adjoint, std::integer_sequence<int, J...>) {
  using Block = typename Lanes::Block;
  using P = typename Block::P;
  // Copies, because vectors are stored all the time, and what is behind a reference would be read again after each
  // store.
  const Lanes lanes = all_lanes;
  const Back back = all_back;
  P decays[scan_interval][N], states[scan_interval + 1][N];
  {
    P h[N] = {lanes.block.load_own(start + (first + J) * start_stride)...};
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
template <class T, class Policy, class Task, class Block>
void scan_chunk_backward(const Policy& policy, Task& task, const Block& block, const ScanShape& shape, Index begin,
                         Index end, const T* start, Index start_stride, T* adjoint, T* work) {
  const auto lanes = policy.lanes(block, work, true);
  const auto back = task.lanes(lanes);
  ChunkRows<std::remove_const_t<decltype(lanes)>, std::remove_const_t<decltype(back)>> rows[scan_interval];
  for (Index row = begin; row < end; ++row) {
    const auto token = lanes.load(row);
    rows[row - begin] = {token, lanes.start(), back.load(row), back.start()};
  }
  Index n = 0;
  for (; n + state_tile <= shape.states; n += state_tile) {
    scan_states_backward<state_tile>(lanes, back, rows, end - begin, n, start, start_stride, adjoint,
                                     std::make_integer_sequence<int, state_tile>{});
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

/// The backward pass of scan_forward. States are recomputed from checkpoints, those of the forward pass or (null) own
/// ones, a chunk of scan_interval rows at a time, which is walked back at once.
///
/// A task of a thread is a piece of channels in a run of neighbouring sequences. The policy adds
///     static constexpr Index piece_width(const ScanShape&);     // channels a task; not a function of the threads
///     Policy without_results() const;                           // the same scan, whose finish() writes nothing
///     Task task(Index piece, Index group, Index first, Index last, Index run) const;
/// A task is told of chunks (begin_chunk(), end_chunk(first row, rows)), of its end (finish()), and gives lanes(forward
/// lanes) for one chunk of one block:
///     Row load(Index row) const;                                // what a row needs on the way back
///     RowSums start() const;                                    // zeros, for what is summed over the states of a row
///     State state(Index n) const;                               // what is summed over rows for state n, ...
///     void leave(Index n, const State&) const;                  // ... and its way to where it is kept
///     P walk(const Token&, const Row&, RowSums&, Index i, Index n, State&, s, a, old_h, new_h) const;
///     void finish(Index row, const Token&, const Sums&, const Row&, const RowSums&) const;   // writes the row's
///     gradients
/// where walk turns s, the adjoint of new_h without the row's own output, into the adjoint of old_h; row is the chunk's
/// i-th.
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
          block.gather(dstate_out ? dstate_out + state_at + block.channel : nullptr, shape.channels, states,
                       scratch.adjoint.data() + (block.channel - first) * states);
        });
        // From the task's first channel on; own ones lie as those of the forward pass, but for this task's channels
        // only.
        const T* const kept = checkpoints ? checkpoints + (begin / scan_interval + s) * shape.state_size() + first
                                          : scratch.checkpoints.data();
        const Index kept_stride = checkpoints ? shape.channels : scratch.padded;
        if (!checkpoints) {
          // The states behind the start of the last chunk are not needed.
          const Index until = begin + std::max<Index>(end - begin - 1, 0) / scan_interval * scan_interval + 1;
          detail::scan_piece<T, Arch>(policy.without_results(), shape, group, first, last, begin, std::min(until, end),
                                      state_in ? state_in + state_at : nullptr, static_cast<T*>(nullptr),
                                      scratch.checkpoints.data(), kept_stride, scratch.work.data());
        }
        for (Index chunk = (end - begin + scan_interval - 1) / scan_interval; chunk-- > 0;) {
          const Index row = begin + chunk * scan_interval, rows = std::min(scan_interval, end - row);
          task.begin_chunk();
          for_blocks([&](const auto& block) {
            detail::scan_chunk_backward<T>(policy, task, block, shape, row, row + rows,
                                           kept + chunk * states * kept_stride + block.channel - first, kept_stride,
                                           scratch.adjoint.data() + (block.channel - first) * states,
                                           scratch.work.data());
          });
          task.end_chunk(row, rows);
        }
        if (dstate_in) {
          for_blocks([&](const auto& block) {
            block.scatter(scratch.adjoint.data() + (block.channel - first) * states, states,
                          dstate_in + state_at + block.channel, shape.channels);
          });
        }
      }
      task.finish();
    }
  });
}

/// The inputs of the scan h_t = a_t h_{t-1} + b_t, y_t = h_t. T may be std::complex: gradients are then those of the
/// real and the imaginary parts, as real numbers of their own.
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

/// A scan of given decays is bound by memory: rows are streamed, this many channels wide, the state stays in the L1
/// cache.
inline constexpr Index diagonal_channels = 512;

/// A real number is its own conjugate.
template <class T, class A>
[[gnu::always_inline]] inline simd::Vec<T, A> conjugate(const simd::Vec<T, A>& x) noexcept {
  if constexpr (std::is_floating_point_v<T>) {
    return x;
  } else {
    return conj(x);  // found by its argument
  }
}

/// Calls f(sequence, first channel, channels) for all of them.
template <class F>
void for_diagonal_pieces(const ScanShape& shape, F&& f) {
  const Index pieces = (shape.channels + diagonal_channels - 1) / diagonal_channels;
  const Index rows = shape.sequences.rows() / std::max<Index>(shape.sequences.count, 1);
  parallel_for(shape.sequences.count * pieces, std::max<Index>(1, 64 / std::max<Index>(rows, 1)),
               [&](Index begin, Index end) {
                 for (Index i = begin; i < end; ++i) {
                   const Index e = i % pieces * diagonal_channels;
                   f(i / pieces, e, std::min(diagonal_channels, shape.channels - e));
                 }
               });
}

}  // namespace detail

/// Writes y and, unless null, the final state (may be state_in itself).
template <class T, class Arch = simd::DefaultArch>
void diagonal_scan_forward(const DiagonalScan<T>& in, Rows<T> y, T* state_out) {
  using V = simd::Vec<T, Arch>;
  detail::for_diagonal_pieces(in.shape, [&](Index sequence, Index e, Index n) {
    const Index at = sequence * in.shape.channels + e;
    T zeros[detail::diagonal_channels];
    if (!in.state_in) std::fill_n(zeros, n, T(0));
    const T* h = in.state_in ? in.state_in + at : zeros;
    for (Index row = in.shape.sequences.begin(sequence); row < in.shape.sequences.end(sequence); ++row) {
      simd::transform<Arch>(in.a[row] + e, h, in.b[row] + e, y[row] + e, n,
                            [](const V& a, const V& old_h, const V& b) { return simd::fma(a, old_h, b); });
      h = y[row] + e;
    }
    if (state_out && h != state_out + at) std::copy_n(h, n, state_out + at);
  });
}

/// Gradients given y, dL/dy and dL/d(final state) (null: zeros): the same scan from the end,
/// s_t = dy_t + conj(a_{t+1}) s_{t+1}.
template <class T, class Arch = simd::DefaultArch>
void diagonal_scan_backward(const DiagonalScan<T>& in, Rows<const T> y, Rows<const T> dy, const T* dstate_out,
                            const DiagonalScanGradients<T>& out) {
  using V = simd::Vec<T, Arch>;
  const auto times_conjugate = [](const V& x, const V& z) { return x * detail::conjugate(z); };
  detail::for_diagonal_pieces(in.shape, [&](Index sequence, Index e, Index n) {
    const Index at = sequence * in.shape.channels + e, begin = in.shape.sequences.begin(sequence);
    T s[detail::diagonal_channels], zeros[detail::diagonal_channels];
    std::fill_n(zeros, n, T(0));
    std::copy_n(dstate_out ? dstate_out + at : zeros, n, s);
    for (Index row = in.shape.sequences.end(sequence); row-- > begin;) {
      simd::transform<Arch>(s, dy[row] + e, s, n, [](const V& a, const V& b) { return a + b; });
      if (out.b) std::copy_n(s, n, out.b[row] + e);
      if (out.a) {
        const T* const h = row > begin ? y[row - 1] + e : (in.state_in ? in.state_in + at : zeros);
        simd::transform<Arch>(s, h, out.a[row] + e, n, times_conjugate);
      }
      simd::transform<Arch>(s, in.a[row] + e, s, n, times_conjugate);
    }
    if (out.state_in) std::copy_n(s, n, out.state_in + at);
  });
}

}  // namespace ordo::kernels
