#pragma once
/// \file
/// Recurrent layers over time, one layer and direction at a time, for the cells of recurrent_cell.hpp:
///
///     a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh;   (h_t, c_t) = cell(a_t, h_{t-1}, c_{t-1});   h_t = clip(W_hr h_t)
///
/// Sequences are taken in order of falling length, and their tokens time by time: the rows that are still running in a step are the
/// first ones, whatever the lengths, and a direction is only where a row finds its tokens. The product with x is made for many steps at
/// once, that with h a step at a time on packed weights. The backward pass keeps gates and cells, goes back through time with one
/// product a step, and makes the gradients of the weights as large products behind the loop.
///
/// Sequences are independent: they are worked on in groups, which threads share; the groups depend on the sizes alone.

#include <algorithm>
#include <array>
#include <limits>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/gemm.hpp"
#include "ordo/kernels/recurrent_cell.hpp"
#include "ordo/kernels/reduce.hpp"
#include "ordo/kernels/sequences.hpp"

namespace ordo::kernels {

/// A weight in panels, block by block.
template <class T>
using BlockPanels = std::array<PackedMatrix<T>, 2>;

/// The blocks of w [rows, width] for products x W^T (transposed) or dy W.
template <class T>
BlockPanels<T> pack_blocks(const GateBlocks& blocks, const T* w, Index hidden, Index width, bool transposed = true) {
  BlockPanels<T> panels;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const Index rows = blocks[i].rows * hidden;
    if (rows == 0) continue;
    const T* const from = w + blocks[i].row * hidden * width;
    panels[i] = transposed ? pack_b<T>({from, 1, width}, width, rows) : pack_b<T>({from, width, 1}, rows, width);
  }
  return panels;
}

/// The arguments of a recurrence: I = input, E = hidden, P = output (= E without a projection), S sequences.
template <class T, class Cell>
struct Recurrence {
  Cell cell;
  Sequences sequences;
  bool reverse = false;
  Index input = 0, hidden = 0, output = 0;
  const T* x = nullptr;                               ///< [tokens, I]
  const T *weight_ih = nullptr, *weight_hh = nullptr; ///< [rows, I], [rows, P]
  const T *bias_ih = nullptr, *bias_hh = nullptr;     ///< [rows] or null
  const T* weight_hr = nullptr;                       ///< [P, E]: the projection, or null
  T projection_clip = 0;                              ///< > 0: bound of |h|
  const T *hidden_in = nullptr, *cell_in = nullptr;   ///< [S, P], [S, E], or null: zeros
  /// The weights in panels where the caller keeps them.
  const BlockPanels<T> *packed_ih = nullptr, *packed_hh = nullptr;
  const PackedMatrix<T>* packed_hr = nullptr;
};

/// Where a recurrence keeps what its backward pass needs, token by token in the order of time: gates [tokens, gate_blocks E],
/// cells [tokens, E].
template <class T>
struct RecurrenceTape {
  T *gates = nullptr, *cells = nullptr;
};

/// What the backward pass fills; null where nobody wants it.
template <class T>
struct RecurrenceGradients {
  T *x = nullptr, *weight_ih = nullptr, *weight_hh = nullptr, *bias_ih = nullptr, *bias_hh = nullptr, *weight_hr = nullptr;
  T *peephole_i = nullptr, *peephole_f = nullptr, *peephole_o = nullptr;
  T *hidden_in = nullptr, *cell_in = nullptr;
};

namespace detail {

/// Sequences by falling length, cut into groups of about `group_rows`.
class TimeMajor {
 public:
  static constexpr Index group_rows = 32;

  TimeMajor(const Sequences& sequences, bool reverse) : sequences_(sequences), reverse_(reverse), order_(sequences.count) {
    for (Index s = 0; s < sequences.count; ++s) order_[s] = s;
    if (sequences.offsets == nullptr) return;
    std::sort(order_.data(), order_.data() + sequences.count, [&](Index a, Index b) {
      const Index la = length_of(a), lb = length_of(b);
      return la != lb ? la > lb : a < b;
    });
  }

  /// Some sequences, longest first, and where their tokens begin among all.
  struct Group {
    Index first, rows, token;
  };
  Index groups() const noexcept { return std::max<Index>(1, sequences_.count / group_rows); }
  Group group(Index i) const noexcept {
    const Index first = sequences_.count * i / groups(), last = sequences_.count * (i + 1) / groups();
    Index token = 0;
    for (Index r = 0; r < first; ++r) token += length(r);
    return {first, last - first, token};
  }

  Index sequence(Index row) const noexcept { return order_[row]; }
  Index length(Index row) const noexcept { return length_of(order_[row]); }
  Index longest() const noexcept { return sequences_.count == 0 ? 0 : length(0); }
  /// Which token of the batch row `row` reads in step t.
  Index token(Index row, Index t) const noexcept {
    const Index s = order_[row];
    return reverse_ ? sequences_.end(s) - 1 - t : sequences_.begin(s) + t;
  }
  /// How many of the group's rows run in step t.
  Index running(const Group& g, Index t) const noexcept {
    if (sequences_.offsets == nullptr) return t < sequences_.length ? g.rows : 0;
    Index low = 0, high = g.rows;
    while (low < high) {
      const Index middle = (low + high) / 2;
      if (length(g.first + middle) > t) low = middle + 1;
      else high = middle;
    }
    return low;
  }
  /// The tokens stand in the order of time already.
  bool in_order() const noexcept { return sequences_.count == 1 && !reverse_; }

 private:
  Index length_of(Index s) const noexcept { return sequences_.end(s) - sequences_.begin(s); }
  Sequences sequences_;
  bool reverse_;
  Scratch<Index> order_;
};

template <class T>
inline void copy_row(const T* from, Index n, T* to) noexcept {
  if (from == nullptr) {
    std::fill_n(to, n, T(0));
  } else {
    std::copy_n(from, n, to);
  }
}

template <class T, class Cell>
class RecurrenceDriver {
  using Problem = Recurrence<T, Cell>;
  using Group = TimeMajor::Group;
  /// Tokens whose product with W_ih is made at once: enough to use panels well, few enough to stay near.
  static constexpr Index chunk_tokens = 128;

 public:
  explicit RecurrenceDriver(const Problem& p)
      : p_(p), time_(p.sequences, p.reverse), e_(p.hidden), g_(p.cell.gate_blocks() * p.hidden), input_blocks_(p.cell.input_blocks()),
        hidden_blocks_(p.cell.hidden_blocks()) {}

  void forward(T* y, T* hidden_out, T* cell_out, const RecurrenceTape<T>& tape) const {
    const Index tokens = p_.sequences.rows();
    BlockPanels<T> own_ih, own_hh;
    PackedMatrix<T> own_hr;
    const BlockPanels<T>*ih = p_.packed_ih, *hh = p_.packed_hh;
    const PackedMatrix<T>* hr = p_.packed_hr;
    // Packing a weight costs about as much as using it twice.
    if (ih == nullptr && tokens > chunk_tokens) ih = &(own_ih = pack_blocks(input_blocks_, p_.weight_ih, e_, p_.input));
    if (hh == nullptr && time_.longest() > 2) hh = &(own_hh = pack_blocks(hidden_blocks_, p_.weight_hh, e_, p_.output));
    if (hr == nullptr && p_.weight_hr != nullptr && time_.longest() > 2) hr = &(own_hr = pack_b<T>({p_.weight_hr, 1, e_}, e_, p_.output));
    const Scratch<T> bias(g_);
    gather_bias(bias.data());
    parallel_for(time_.groups(), 1, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) run_group(time_.group(i), {ih, hh, hr, bias.data()}, y, hidden_out, cell_out, tape);
    });
  }

  void backward(const RecurrenceTape<T>& tape, const T* y, const T* dy, const T* dhidden, const T* dcell,
                const RecurrenceGradients<T>& out) const {
    const Index tokens = p_.sequences.rows(), width = p_.output;
    const bool two_stages = p_.cell.stages() == 2, projected = p_.weight_hr != nullptr;
    BlockPanels<T> hh;
    PackedMatrix<T> hr;
    if (time_.longest() > 2) {
      hh = pack_blocks(hidden_blocks_, p_.weight_hh, e_, width, false);
      if (projected) hr = pack_b<T>({p_.weight_hr, e_, 1}, width, e_);
    }
    const Scratch<T> dgates(tokens * g_), h_last(tokens * width), products(two_stages ? tokens * e_ : 0);
    const Scratch<T> cell_outputs(projected ? tokens * e_ : 0), dprojected(projected ? tokens * width : 0);
    const Work work{&hh, &hr, dgates.data(), h_last.data(), products.data(), cell_outputs.data(), dprojected.data()};
    parallel_for(time_.groups(), 1, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) run_group_back(time_.group(i), work, tape, y, dy, dhidden, dcell, out);
    });
    if (out.weight_ih != nullptr || out.x != nullptr) {
      const Scratch<T> gathered(time_.in_order() ? 0 : tokens * p_.input);
      if (out.weight_ih != nullptr) {
        const T* const x = in_time_order(p_.x, p_.input, gathered.data());
        for (const GateBlock& block : input_blocks_) weight_gradient(block, dgates.data(), x, p_.input, out.weight_ih);
      }
      if (out.x != nullptr) input_gradient(dgates.data(), gathered.data(), out.x);
    }
    if (out.weight_hh != nullptr) {
      for (std::size_t stage = 0; stage < hidden_blocks_.size(); ++stage) {
        weight_gradient(hidden_blocks_[stage], dgates.data(), stage == 0 ? h_last.data() : products.data(), width, out.weight_hh);
      }
    }
    if (out.weight_hr != nullptr) product(width, e_, tokens, {dprojected.data(), 1, width}, {cell_outputs.data(), e_, 1}, nullptr, out.weight_hr, e_, false);
    if (out.bias_ih != nullptr || out.bias_hh != nullptr) {
      const Scratch<T> sums(g_);
      sum(dgates.data(), sums.data(), 1, tokens, g_);
      scatter_bias(input_blocks_, sums.data(), out.bias_ih);
      scatter_bias(hidden_blocks_, sums.data(), out.bias_hh);
    }
    if constexpr (Cell::has_cell) peephole_gradients(tape, dgates.data(), out);
  }

 private:
  struct Weights {
    const BlockPanels<T>*ih, *hh;
    const PackedMatrix<T>* hr;
    const T* bias;
  };
  struct Work {
    const BlockPanels<T>* hh;
    const PackedMatrix<T>* hr;
    T *dgates, *h_last, *products, *cell_outputs, *dprojected;
  };

  static void product(Index m, Index n, Index k, const MatrixRef<T>& a, const MatrixRef<T>& b, const PackedMatrix<T>* packed, T* c,
                      Index c_stride, bool accumulate, const T* bias = nullptr) {
    GemmArgs<T> args;
    args.m = m;
    args.n = n;
    args.k = k;
    args.a = a;
    args.b = b;
    args.packed = packed == nullptr || packed->empty() ? nullptr : packed;
    args.c = c;
    args.c_stride = c_stride;
    args.accumulate = accumulate;
    args.epilogue.bias = bias;
    gemm(args);
  }

  // ---- forward ----

  /// Both biases where the gates stand.
  void gather_bias(T* bias) const {
    std::fill_n(bias, g_, T(0));
    const auto add = [&](const GateBlocks& blocks, const T* from) {
      if (from == nullptr) return;
      for (const GateBlock& b : blocks) {
        for (Index j = 0; j < b.rows * e_; ++j) bias[b.column * e_ + j] += from[b.row * e_ + j];
      }
    };
    add(input_blocks_, p_.bias_ih);
    add(hidden_blocks_, p_.bias_hh);
  }
  /// The pre-activations of `tokens` tokens, as far as x gives them.
  void project(const T* x, Index tokens, const Weights& w, T* gates) const {
    Index covered = 0;
    for (std::size_t i = 0; i < input_blocks_.size(); ++i) {
      const GateBlock& b = input_blocks_[i];
      if (b.rows == 0) continue;
      const Index column = b.column * e_;
      covered = std::max(covered, b.column + b.rows);
      product(tokens, b.rows * e_, p_.input, {x, p_.input, 1}, {p_.weight_ih + b.row * e_ * p_.input, 1, p_.input},
              w.ih != nullptr ? &(*w.ih)[i] : nullptr, gates + column, g_, false, w.bias + column);
    }
    const Index from = covered * e_;  // columns that only h feeds
    for (Index i = 0; i < tokens && from < g_; ++i) std::copy(w.bias + from, w.bias + g_, gates + i * g_ + from);
  }

  void run_group(const Group& group, const Weights& w, T* y, T* hidden_out, T* cell_out, const RecurrenceTape<T>& tape) const {
    if (group.rows == 0) return;
    constexpr bool has_cell = Cell::has_cell;
    const Index rows = group.rows, steps = time_.length(group.first), width = p_.output;
    const Index chunk = std::max<Index>(1, chunk_tokens / rows), chunk_size = std::min(chunk, steps) * rows;
    const bool kept = tape.gates != nullptr, projected = p_.weight_hr != nullptr, two_stages = p_.cell.stages() == 2;
    const Scratch<T> h(rows * width), c(has_cell ? rows * e_ : 0), m(projected ? rows * e_ : 0), q(two_stages ? rows * e_ : 0);
    const Scratch<T> gates_of_chunk(kept ? 0 : chunk_size * g_), x_of_chunk(time_.in_order() ? 0 : chunk_size * p_.input);
    for (Index r = 0; r < rows; ++r) {
      const Index s = time_.sequence(group.first + r);
      copy_row(p_.hidden_in != nullptr ? p_.hidden_in + s * width : nullptr, width, h.data() + r * width);
      if constexpr (has_cell) copy_row(p_.cell_in != nullptr ? p_.cell_in + s * e_ : nullptr, e_, c.data() + r * e_);
    }
    const auto finish = [&](Index r, const T* c_row) {
      const Index s = time_.sequence(group.first + r);
      std::copy_n(h.data() + r * width, width, hidden_out + s * width);
      if constexpr (has_cell) std::copy_n(c_row, e_, cell_out + s * e_);
    };
    for (Index r = time_.running(group, 0); r < rows; ++r) finish(r, c.data() + r * e_);

    Index done = group.token;  // tokens before this step, for what is kept
    const T* c_last = c.data();
    for (Index first = 0; first < steps; first += chunk) {
      const Index last = std::min(first + chunk, steps);
      Index tokens = 0;
      for (Index t = first; t < last; ++t) {
        const Index n = time_.running(group, t);
        if (!time_.in_order()) {
          for (Index r = 0; r < n; ++r) {
            std::copy_n(p_.x + time_.token(group.first + r, t) * p_.input, p_.input, x_of_chunk.data() + (tokens + r) * p_.input);
          }
        }
        tokens += n;
      }
      const T* const x = time_.in_order() ? p_.x + done * p_.input : x_of_chunk.data();
      T* gates = kept ? tape.gates + done * g_ : gates_of_chunk.data();
      project(x, tokens, w, gates);
      for (Index t = first; t < last; ++t) {
        const Index n = time_.running(group, t);
        T* const c_next = kept && has_cell ? tape.cells + done * e_ : c.data();
        step(n, w, gates, h.data(), c_last, c_next, m.data(), q.data());
        for (Index r = 0; r < n; ++r) std::copy_n(h.data() + r * width, width, y + time_.token(group.first + r, t) * width);
        for (Index r = time_.running(group, t + 1); r < n; ++r) finish(r, c_next + r * e_);
        c_last = c_next;
        gates += n * g_;
        done += n;
      }
    }
  }

  void step(Index n, const Weights& w, T* gates, T* h, const T* c_last, T* c, T* m, T* q) const {
    const bool projected = p_.weight_hr != nullptr;
    T* const out = projected ? m : h;
    for (Index stage = 0; stage < p_.cell.stages(); ++stage) {
      const GateBlock& b = hidden_blocks_[static_cast<std::size_t>(stage)];
      product(n, b.rows * e_, p_.output, {stage == 0 ? h : q, p_.output, 1}, {p_.weight_hh + b.row * e_ * p_.output, 1, p_.output},
              w.hh != nullptr ? &(*w.hh)[static_cast<std::size_t>(stage)] : nullptr, gates + b.column * e_, g_, true);
      for (Index r = 0; r < n; ++r) p_.cell.forward(stage, e_, CellRow<T>{gates + r * g_, out + r * e_, c_last + r * e_, c + r * e_, q + r * e_});
    }
    if (!projected) return;
    product(n, p_.output, e_, {m, e_, 1}, {p_.weight_hr, 1, e_}, w.hr, h, p_.output, false);
    if (p_.projection_clip <= 0) return;
    for (Index i = 0; i < n * p_.output; ++i) h[i] = h[i] < -p_.projection_clip ? -p_.projection_clip : h[i] > p_.projection_clip ? p_.projection_clip : h[i];
  }

  // ---- backward ----

  void run_group_back(const Group& group, const Work& work, const RecurrenceTape<T>& tape, const T* y, const T* dy, const T* dhidden,
                      const T* dcell, const RecurrenceGradients<T>& out) const {
    if (group.rows == 0) return;
    constexpr bool has_cell = Cell::has_cell;
    const Index rows = group.rows, steps = time_.length(group.first), width = p_.output;
    const bool projected = p_.weight_hr != nullptr, two_stages = p_.cell.stages() == 2;
    const Scratch<T> dh(rows * width), dc(has_cell ? rows * e_ : 0), dm(projected ? rows * e_ : 0), dq(two_stages ? rows * e_ : 0);
    const Scratch<T> c_first(has_cell ? rows * e_ : 0);
    Index total = group.token;
    for (Index r = 0; r < rows; ++r) {
      const Index s = time_.sequence(group.first + r);
      copy_row(dhidden != nullptr ? dhidden + s * width : nullptr, width, dh.data() + r * width);
      if constexpr (has_cell) {
        copy_row(dcell != nullptr ? dcell + s * e_ : nullptr, e_, dc.data() + r * e_);
        copy_row(p_.cell_in != nullptr ? p_.cell_in + s * e_ : nullptr, e_, c_first.data() + r * e_);
      }
      total += time_.length(group.first + r);
    }
    for (Index t = steps - 1; t >= 0; --t) {
      const Index n = time_.running(group, t), before = t > 0 ? time_.running(group, t - 1) : 0;
      const Index done = total - n;  // the tokens before this step
      total = done;
      T* const h_last = work.h_last + done * width;
      for (Index r = 0; r < n; ++r) {
        const Index row = group.first + r, token = time_.token(row, t), s = time_.sequence(row);
        const T* const last = t > 0 ? y + time_.token(row, t - 1) * width : p_.hidden_in != nullptr ? p_.hidden_in + s * width : nullptr;
        copy_row(last, width, h_last + r * width);
        T* const d = dh.data() + r * width;
        if (dy != nullptr) simd::transform(d, dy + token * width, d, width, [](auto a, auto b) { return a + b; });
        if (p_.projection_clip > 0) {
          for (Index j = 0; j < width; ++j) {
            if (std::abs(y[token * width + j]) >= p_.projection_clip) d[j] = 0;
          }
        }
      }
      T* from = dh.data();
      if (projected) {
        std::copy_n(dh.data(), n * width, work.dprojected + done * width);
        product(n, e_, width, {dh.data(), width, 1}, {p_.weight_hr, e_, 1}, work.hr, dm.data(), e_, false);
        from = dm.data();
      }
      const T* const gates = tape.gates + done * g_;
      const T* const c = has_cell ? tape.cells + done * e_ : nullptr;
      const T* const c_last = t > 0 ? c - before * e_ : c_first.data();
      T* const dgates = work.dgates + done * g_;
      for (Index stage = p_.cell.stages(); stage-- > 0;) {
        for (Index r = 0; r < n; ++r) {
          p_.cell.backward(stage, e_, CellGradientRow<T>{gates + r * g_, h_last + r * width, c_last + r * e_, c + r * e_, from + r * e_, dc.data() + r * e_, dgates + r * g_, dq.data() + r * e_});
        }
        const GateBlock& b = hidden_blocks_[static_cast<std::size_t>(stage)];
        product(n, width, b.rows * e_, {dgates + b.column * e_, g_, 1}, {p_.weight_hh + b.row * e_ * width, width, 1},
                &(*work.hh)[static_cast<std::size_t>(stage)], stage == 0 ? dh.data() : dq.data(), width, stage == 0 && Cell::keeps_hidden);
      }
      if (projected) cell_outputs(gates, c, n, work.cell_outputs + done * e_);
      if (two_stages) last_products(gates, h_last, n, work.products + done * e_);
    }
    for (Index r = 0; r < rows; ++r) {
      const Index s = time_.sequence(group.first + r);
      if (out.hidden_in != nullptr) std::copy_n(dh.data() + r * width, width, out.hidden_in + s * width);
      if (has_cell && out.cell_in != nullptr) std::copy_n(dc.data() + r * e_, e_, out.cell_in + s * e_);
    }
  }
  /// o tanh(c): what was projected.
  void cell_outputs(const T* gates, const T* c, Index n, T* m) const {
    for (Index r = 0; r < n; ++r) {
      simd::transform(gates + r * g_ + 3 * e_, c + r * e_, m + r * e_, e_, [](auto o, auto cell) { return o * gate_tanh(cell); });
    }
  }
  /// r h: what the second stage multiplied.
  void last_products(const T* gates, const T* h_last, Index n, T* q) const {
    for (Index r = 0; r < n; ++r) simd::transform(gates + r * g_ + e_, h_last + r * e_, q + r * e_, e_, [](auto a, auto b) { return a * b; });
  }

  template <class F>
  void each_token(F&& f) const {
    for (Index i = 0; i < time_.groups(); ++i) {
      const Group group = time_.group(i);
      if (group.rows == 0) continue;
      Index at = group.token;
      for (Index t = 0; t < time_.length(group.first); ++t) {
        const Index n = time_.running(group, t);
        for (Index r = 0; r < n; ++r) f(at++, time_.token(group.first + r, t));
      }
    }
  }
  const T* in_time_order(const T* rows, Index width, T* to) const {
    if (time_.in_order()) return rows;
    each_token([&](Index at, Index token) { std::copy_n(rows + token * width, width, to + at * width); });
    return to;
  }
  /// dW[block] = dgates[:, block]^T x.
  void weight_gradient(const GateBlock& b, const T* dgates, const T* x, Index width, T* dw) const {
    if (b.rows == 0) return;
    product(b.rows * e_, width, p_.sequences.rows(), {dgates + b.column * e_, 1, g_}, {x, width, 1}, nullptr, dw + b.row * e_ * width, width, false);
  }
  void input_gradient(const T* dgates, T* gathered, T* dx) const {
    const Index tokens = p_.sequences.rows();
    T* const to = time_.in_order() ? dx : gathered;
    bool more = false;
    for (const GateBlock& b : input_blocks_) {
      if (b.rows == 0) continue;
      product(tokens, p_.input, b.rows * e_, {dgates + b.column * e_, g_, 1}, {p_.weight_ih + b.row * e_ * p_.input, p_.input, 1}, nullptr, to, p_.input, more);
      more = true;
    }
    if (to != dx) each_token([&](Index at, Index token) { std::copy_n(to + at * p_.input, p_.input, dx + token * p_.input); });
  }
  void scatter_bias(const GateBlocks& blocks, const T* sums, T* bias) const {
    if (bias == nullptr) return;
    for (const GateBlock& b : blocks) std::copy_n(sums + b.column * e_, b.rows * e_, bias + b.row * e_);
  }
  /// Sums over all tokens of a gate's gradient times the cell that its peephole saw.
  void peephole_gradients(const RecurrenceTape<T>& tape, const T* dgates, const RecurrenceGradients<T>& out) const {
    for (T* d : {out.peephole_i, out.peephole_f, out.peephole_o}) {
      if (d != nullptr) std::fill_n(d, e_, T(0));
    }
    if (out.peephole_i == nullptr && out.peephole_f == nullptr && out.peephole_o == nullptr) return;
    const auto add = [&](T* d, const T* gradient, const T* cell) {
      if (d == nullptr || cell == nullptr) return;
      for (Index j = 0; j < e_; ++j) d[j] += gradient[j] * cell[j];
    };
    for (Index i = 0; i < time_.groups(); ++i) {
      const Group group = time_.group(i);
      if (group.rows == 0) continue;
      Index at = group.token, before = 0;
      for (Index t = 0; t < time_.length(group.first); ++t) {
        const Index n = time_.running(group, t);
        for (Index r = 0; r < n; ++r) {
          const T* const d = dgates + (at + r) * g_;
          const T* c_last = nullptr;
          if (t > 0) c_last = tape.cells + (at - before + r) * e_;
          else if (p_.cell_in != nullptr) c_last = p_.cell_in + time_.sequence(group.first + r) * e_;
          add(out.peephole_i, d, c_last);
          add(out.peephole_f, d + e_, c_last);
          add(out.peephole_o, d + 3 * e_, tape.cells + (at + r) * e_);
        }
        at += n;
        before = n;
      }
    }
  }

  const Problem& p_;
  TimeMajor time_;
  Index e_, g_;
  GateBlocks input_blocks_, hidden_blocks_;
};

}  // namespace detail

/// y [tokens, P], hidden_out [S, P], cell_out [S, E] (cells with one). `tape` may be empty: nothing is kept then.
template <class T, class Cell>
void recurrent_forward(const Recurrence<T, Cell>& p, T* y, T* hidden_out, T* cell_out, const RecurrenceTape<T>& tape = {}) {
  detail::RecurrenceDriver<T, Cell>(p).forward(y, hidden_out, cell_out, tape);
}

/// The gradients, from what forward kept, its output y, and the gradients dy [tokens, P], dhidden [S, P], dcell [S, E] (null: zero).
template <class T, class Cell>
void recurrent_backward(const Recurrence<T, Cell>& p, const RecurrenceTape<T>& tape, const T* y, const T* dy, const T* dhidden,
                        const T* dcell, const RecurrenceGradients<T>& out) {
  detail::RecurrenceDriver<T, Cell>(p).backward(tape, y, dy, dhidden, dcell, out);
}

}  // namespace ordo::kernels
