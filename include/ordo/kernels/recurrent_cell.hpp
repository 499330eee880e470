#pragma once
/// \file
/// The cells of recurrent layers: what happens to the gates of one row and one step after the products. The loop over time that
/// makes the products is in recurrent.hpp and knows a cell only by what is declared here:
///
///     has_cell                     a second state c beside the hidden state h
///     weight_blocks                rows of W_ih and W_hh, in units of E
///     gate_blocks()                columns of the gates of a token, in units of E
///     input_blocks, hidden_blocks  which rows of W_ih and of W_hh feed which columns; products of h come in one or two stages
///     forward(stage, E, row)       turns pre-activations into activations, in place, and h and c into the next ones
///     backward(stage, E, row)      turns the gradient of h (and c) into that of the pre-activations and of the last h (and c)
///
/// E is a number or, for layers of fixed size, a constant, which unrolls the loops.
/// Gates keep their activations for the backward pass; options that are rare are branches around the loops, not in them.

#include <array>
#include <type_traits>

#include "ordo/kernels/recurrent_gates.hpp"

namespace ordo::kernels {

/// Rows [row, row + rows) of a weight make the columns [column, column + rows) of the gates, all in units of E. rows = 0: no block.
struct GateBlock {
  Index row = 0, rows = 0, column = 0;
};
using GateBlocks = std::array<GateBlock, 2>;

/// One row of a batch in one step, forward.
template <class T>
struct CellRow {
  T* gates;         ///< [G E] pre-activations, becoming activations
  T* h;             ///< [E] the last hidden state, becoming the next
  const T* c_last;  ///< [E] if the cell has one; may be c
  T* c;             ///< [E]
  T* product;       ///< [E] what the second stage multiplies with its weights
};

/// The same, backward.
template <class T>
struct CellGradientRow {
  const T* gates;                 ///< [G E] activations
  const T *h_last, *c_last, *c;   ///< [E]
  T* dh;                          ///< [E] gradient of the next h; what reaches the last h beside the products is left here
  T* dc;                          ///< [E] gradient of the next c, becoming that of the last
  T* dgates;                      ///< [G E] gradients of the pre-activations
  T* dproduct;                    ///< [E] gradient of what the second stage multiplied
};

namespace detail {
/// f(j, count) for the vectors of [0, n).
template <class T, class Arch, class F>
[[gnu::always_inline]] inline void each_vector(Index n, F&& f) {
  constexpr Index w = simd::lanes<T, Arch>;
  Index j = 0;
  for (; j + w <= n; j += w) f(j, std::integral_constant<Index, w>{});
  if (j < n) f(j, n - j);
}
template <class Arch, class T, class Count>
[[gnu::always_inline]] inline simd::Vec<T, Arch> take(const T* p, Count count) noexcept {
  if constexpr (std::is_same_v<Count, Index>) {
    return simd::load_partial<Arch>(p, count);
  } else {
    return simd::load<Arch>(p);
  }
}
template <class T, class Arch, class Count>
[[gnu::always_inline]] inline void put(T* p, const simd::Vec<T, Arch>& v, Count count) noexcept {
  if constexpr (std::is_same_v<Count, Index>) {
    simd::store_partial(p, v, count);
  } else {
    simd::store(p, v);
  }
}
}  // namespace detail

/// h = f(a), f = tanh or max(., 0).
template <class T, class Arch = simd::DefaultArch>
struct RnnCell {
  static constexpr bool has_cell = false;
  static constexpr Index weight_blocks = 1;
  static constexpr Index gate_blocks() noexcept { return 1; }
  bool relu = false;

  static constexpr Index stages() noexcept { return 1; }
  static constexpr GateBlocks input_blocks() noexcept { return {GateBlock{0, 1, 0}}; }
  static constexpr GateBlocks hidden_blocks() noexcept { return {GateBlock{0, 1, 0}}; }
  /// The products with W_hh are all that reaches the last h.
  static constexpr bool keeps_hidden = false;

  template <class Width>
  void forward(Index, Width width, const CellRow<T>& row) const noexcept {
    using V = simd::Vec<T, Arch>;
    const auto run = [&](auto f) __attribute__((always_inline)) {
      detail::each_vector<T, Arch>(width, [&](Index j, auto count) __attribute__((always_inline)) {
        const V h = f(detail::take<Arch>(row.gates + j, count));
        detail::put<T, Arch>(row.gates + j, h, count);
        detail::put<T, Arch>(row.h + j, h, count);
      });
    };
    if (relu) {
      run([](V a) __attribute__((always_inline)) { return simd::detail::at_least(a, T(0)); });
    } else {
      run([](V a) __attribute__((always_inline)) { return detail::gate_tanh(a); });
    }
  }
  void backward(Index, Index width, const CellGradientRow<T>& row) const noexcept {
    using V = simd::Vec<T, Arch>;
    detail::each_vector<T, Arch>(width, [&](Index j, auto count) __attribute__((always_inline)) {
      const V h = detail::take<Arch>(row.gates + j, count), dh = detail::take<Arch>(row.dh + j, count);
      const V linear = simd::select(h > V(T(0)), dh, V(T(0))), curved = dh * simd::fnma(h, h, V(T(1)));
      detail::put<T, Arch>(row.dgates + j, relu ? linear : curved, count);
    });
  }
};

/// i, f, o = sigmoid, g = tanh;  c = clip(f c_last + i g);  h = o tanh(c).  Gates and weights in the order i, f, g, o.
template <class T, class Arch = simd::DefaultArch>
struct LstmCell {
  static constexpr bool has_cell = true;
  static constexpr Index weight_blocks = 4;
  static constexpr Index gate_blocks() noexcept { return 4; }
  /// Weights of c_last in i and f, of c in o; none if null.
  const T *peephole_i = nullptr, *peephole_f = nullptr, *peephole_o = nullptr;
  bool coupled = false;  ///< f = 1 - i
  T clip = 0;            ///< > 0: bound of |c|

  static constexpr Index stages() noexcept { return 1; }
  static constexpr GateBlocks input_blocks() noexcept { return {GateBlock{0, 4, 0}}; }
  static constexpr GateBlocks hidden_blocks() noexcept { return {GateBlock{0, 4, 0}}; }
  static constexpr bool keeps_hidden = false;

  template <class Width>
  void forward(Index, Width width, const CellRow<T>& row) const noexcept {
    if (peephole_i != nullptr || coupled) return run<true>(width, row);
    run<false>(width, row);
  }
  void backward(Index, Index width, const CellGradientRow<T>& row) const noexcept {
    if (peephole_i != nullptr || coupled) return run_back<true>(width, row);
    run_back<false>(width, row);
  }

 private:
  template <bool Rare, class Width>
  [[gnu::noinline]] void run(Width width, const CellRow<T>& row) const noexcept {
    using V = simd::Vec<T, Arch>;
    const T bound = clip > 0 ? clip : std::numeric_limits<T>::infinity();
    const bool peephole = peephole_i != nullptr;
    detail::each_vector<T, Arch>(width, [&](Index j, auto count) __attribute__((always_inline)) {
      const auto gate = [&](Index which) __attribute__((always_inline)) { return row.gates + which * width + j; };
      V a_i = detail::take<Arch>(gate(0), count), a_f = detail::take<Arch>(gate(1), count);
      V a_o = detail::take<Arch>(gate(3), count);
      const V c_last = detail::take<Arch>(row.c_last + j, count);
      if (Rare && peephole) {
        a_i = simd::fma(detail::take<Arch>(peephole_i + j, count), c_last, a_i);
        a_f = simd::fma(detail::take<Arch>(peephole_f + j, count), c_last, a_f);
      }
      const V i = detail::gate_sigmoid(a_i), g = detail::gate_tanh(detail::take<Arch>(gate(2), count));
      const V f = Rare && coupled ? V(T(1)) - i : detail::gate_sigmoid(a_f);
      const V c = simd::detail::at_least(simd::detail::at_most(V(simd::fma(f, c_last, i * g)), bound), -bound);
      if (Rare && peephole) a_o = simd::fma(detail::take<Arch>(peephole_o + j, count), c, a_o);
      const V o = detail::gate_sigmoid(a_o);
      detail::put<T, Arch>(gate(0), i, count);
      detail::put<T, Arch>(gate(1), f, count);
      detail::put<T, Arch>(gate(2), g, count);
      detail::put<T, Arch>(gate(3), o, count);
      detail::put<T, Arch>(row.c + j, c, count);
      detail::put<T, Arch>(row.h + j, o * detail::gate_tanh(c), count);
    });
  }

  template <bool Rare>
  [[gnu::noinline]] void run_back(Index width, const CellGradientRow<T>& row) const noexcept {
    using V = simd::Vec<T, Arch>;
    const V one(T(1)), zero(T(0)), bound(clip > 0 ? clip : std::numeric_limits<T>::infinity());
    const bool peephole = peephole_i != nullptr;
    detail::each_vector<T, Arch>(width, [&](Index j, auto count) __attribute__((always_inline)) {
      const auto gate = [&](Index which) __attribute__((always_inline)) {
        return detail::take<Arch>(row.gates + which * width + j, count);
      };
      const V i = gate(0), f = gate(1), g = gate(2), o = gate(3);
      const V c = detail::take<Arch>(row.c + j, count), c_last = detail::take<Arch>(row.c_last + j, count);
      const V dh = detail::take<Arch>(row.dh + j, count), t = detail::gate_tanh(c);
      const V da_o = dh * t * o * (one - o);
      V dc = simd::fma(dh * o, simd::fnma(t, t, one), detail::take<Arch>(row.dc + j, count));
      if (Rare && peephole) dc = simd::fma(detail::take<Arch>(peephole_o + j, count), da_o, dc);
      dc = simd::select(simd::abs(c) < bound, dc, zero);
      V di = dc * g;
      if (Rare && coupled) di = simd::fnma(dc, c_last, di);
      const V da_i = di * i * (one - i), da_f = Rare && coupled ? zero : dc * c_last * f * (one - f);
      const V da_g = dc * i * simd::fnma(g, g, one);
      V dc_last = dc * f;
      if (Rare && peephole) {
        dc_last = simd::fma(detail::take<Arch>(peephole_i + j, count), da_i, dc_last);
        dc_last = simd::fma(detail::take<Arch>(peephole_f + j, count), da_f, dc_last);
      }
      T* const out = row.dgates + j;
      detail::put<T, Arch>(out, da_i, count);
      detail::put<T, Arch>(out + width, da_f, count);
      detail::put<T, Arch>(out + 2 * width, da_g, count);
      detail::put<T, Arch>(out + 3 * width, da_o, count);
      detail::put<T, Arch>(row.dc + j, dc_last, count);
    });
  }
};

/// r, z = sigmoid;  n = tanh(n_x + r n_h) (reset after) or tanh(n_x + W_hn (r h_last));  h = (1 - z) n + z h_last.
/// Weights in the order r, z, n; gates in the order n_x, r, z, n_h, so that both products fill neighbours.
template <class T, class Arch = simd::DefaultArch>
struct GruCell {
  static constexpr bool has_cell = false;
  static constexpr Index weight_blocks = 3;
  constexpr Index gate_blocks() const noexcept { return reset_after ? 4 : 3; }
  bool reset_after = true;

  constexpr Index stages() const noexcept { return reset_after ? 1 : 2; }
  static constexpr GateBlocks input_blocks() noexcept { return {GateBlock{0, 2, 1}, GateBlock{2, 1, 0}}; }
  constexpr GateBlocks hidden_blocks() const noexcept {
    return reset_after ? GateBlocks{GateBlock{0, 3, 1}} : GateBlocks{GateBlock{0, 2, 1}, GateBlock{2, 1, 0}};
  }
  static constexpr bool keeps_hidden = true;

  template <class Width>
  [[gnu::noinline]] void forward(Index stage, Width width, const CellRow<T>& row) const noexcept {
    using V = simd::Vec<T, Arch>;
    T *const n_x = row.gates, *const r_of = n_x + width, *const z_of = r_of + width, *const n_h = z_of + width;
    if (stage == 0 && !reset_after) {
      detail::each_vector<T, Arch>(width, [&](Index j, auto count) __attribute__((always_inline)) {
        const V r = detail::gate_sigmoid(detail::take<Arch>(r_of + j, count));
        detail::put<T, Arch>(r_of + j, r, count);
        detail::put<T, Arch>(row.product + j, r * detail::take<Arch>(row.h + j, count), count);
      });
      return;
    }
    detail::each_vector<T, Arch>(width, [&](Index j, auto count) __attribute__((always_inline)) {
      V a = detail::take<Arch>(n_x + j, count);
      if (reset_after) {
        const V r = detail::gate_sigmoid(detail::take<Arch>(r_of + j, count));
        detail::put<T, Arch>(r_of + j, r, count);
        a = simd::fma(r, detail::take<Arch>(n_h + j, count), a);
      }
      const V z = detail::gate_sigmoid(detail::take<Arch>(z_of + j, count)), n = detail::gate_tanh(a);
      detail::put<T, Arch>(z_of + j, z, count);
      detail::put<T, Arch>(n_x + j, n, count);
      detail::put<T, Arch>(row.h + j, simd::fma(z, detail::take<Arch>(row.h + j, count) - n, n), count);
    });
  }
  [[gnu::noinline]] void backward(Index stage, Index width, const CellGradientRow<T>& row) const noexcept {
    using V = simd::Vec<T, Arch>;
    const V one(T(1));
    const T *const n_of = row.gates, *const r_of = n_of + width, *const z_of = r_of + width, *const n_h = z_of + width;
    T *const dn = row.dgates, *const dr = dn + width, *const dz = dr + width, *const dn_h = dz + width;
    if (stage == 0 && !reset_after) {
      detail::each_vector<T, Arch>(width, [&](Index j, auto count) __attribute__((always_inline)) {
        const V r = detail::take<Arch>(r_of + j, count), dq = detail::take<Arch>(row.dproduct + j, count);
        const V h_last = detail::take<Arch>(row.h_last + j, count);
        detail::put<T, Arch>(dr + j, dq * h_last * r * (one - r), count);
        detail::put<T, Arch>(row.dh + j, simd::fma(dq, r, detail::take<Arch>(row.dh + j, count)), count);
      });
      return;
    }
    detail::each_vector<T, Arch>(width, [&](Index j, auto count) __attribute__((always_inline)) {
      const V n = detail::take<Arch>(n_of + j, count), z = detail::take<Arch>(z_of + j, count);
      const V dh = detail::take<Arch>(row.dh + j, count);
      const V da = dh * (one - z) * simd::fnma(n, n, one);
      detail::put<T, Arch>(dn + j, da, count);
      detail::put<T, Arch>(dz + j, dh * (detail::take<Arch>(row.h_last + j, count) - n) * z * (one - z), count);
      detail::put<T, Arch>(row.dh + j, dh * z, count);
      if (reset_after) {
        const V r = detail::take<Arch>(r_of + j, count);
        detail::put<T, Arch>(dr + j, da * detail::take<Arch>(n_h + j, count) * r * (one - r), count);
        detail::put<T, Arch>(dn_h + j, da * r, count);
      }
    });
  }
};

}  // namespace ordo::kernels
