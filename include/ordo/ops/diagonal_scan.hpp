#pragma once
/// \file
/// The diagonal scan: h_t = a_t h_{t-1} + b_t.

#include <array>
#include <complex>
#include <tuple>

#include "ordo/kernels/diagonal_scan.hpp"
#include "ordo/ops/sequences.hpp"

namespace ordo {

/// Arguments: a, b, state?; outputs: y, state. Complex numbers are pairs on a last axis of 2.
struct DiagonalScanOp {
  static constexpr const char* name = "diagonal_scan";
  static constexpr unsigned keeps_inputs = 0x5, keeps_outputs = 0x1;
  static constexpr std::size_t outputs = 2;
  bool complex = false;
  Packing packing;
  template <class T>
  struct Saved {};

  template <class T>
  std::array<AnyTensor<T>, 2> forward(Saved<T>*, const AnyTensor<T>& a, const AnyTensor<T>& b, const AnyTensor<T>& state) const {
    const std::size_t rank = complex ? 4 : 3;
    if (b.rank() != rank || (complex && b.shape().back() != 2)) {
      fail<ShapeError>({"diagonal_scan: b has shape ", b.shape(), ", expected ", complex ? "[B, L, E, 2]" : "[B, L, E]"});
    }
    detail::require_shape(name, "a", a, b.shape());
    const Index sequences = packing.sequences(name, b.extent(0), b.extent(1)).count;
    const Shape state_shape = complex ? Shape{sequences, b.extent(2), 2} : Shape{sequences, b.extent(2)};
    detail::require_shape(name, "state", state, state_shape);
    AnyTensor<T> y(b.shape()), state_out(state_shape, T{0});
    with_numbers<T>([&]<class C>() {
      kernels::diagonal_scan_forward(arguments<C>(a, b.data(), state), rows<C>(y), numbers<C>(state_out));
    });
    return {std::move(y), std::move(state_out)};
  }

  template <class T>
  void backward(Pullback<T>& p, const Saved<T>&) const {
    const AnyTensor<T> a = p.input(0).value, state = p.input(2).value, y = p.output(0).value;
    std::array<AnyTensor<T>, 3> g;
    for (std::size_t i = 0; i < g.size(); ++i) g[i] = detail::gradient_like(p, i);
    AnyTensor<T> dy = p.grad(0).value;
    if (!dy.present()) dy = AnyTensor<T>(a.shape(), T{0});
    with_numbers<T>([&]<class C>() {
      const T* const dstate = p.grad(1).value.data();
      kernels::diagonal_scan_backward<C>(arguments<C>(a, static_cast<const T*>(nullptr), state), rows<C>(y), rows<C>(dy),
                                         reinterpret_cast<const C*>(dstate), {rows<C>(g[0]), rows<C>(g[1]), numbers<C>(g[2])});
    });
    for (std::size_t i = 0; i < g.size(); ++i) {
      if (p.needs(i)) p.add(i, std::move(g[i]));
    }
  }

 private:
  /// Calls f<C>() with the numbers that are scanned: T or std::complex<T>, whose layout is that of T[2].
  template <class T, class F>
  void with_numbers(F&& f) const {
    if (complex) {
      f.template operator()<std::complex<T>>();
    } else {
      f.template operator()<T>();
    }
  }
  template <class C, class T>
  static C* numbers(AnyTensor<T>& x) {
    return reinterpret_cast<C*>(x.data());
  }
  template <class C, class T>
  static kernels::Rows<C> rows(AnyTensor<T>& x) {
    return x.present() ? kernels::Rows<C>(numbers<C>(x), x.extent(2)) : kernels::Rows<C>();
  }
  template <class C, class T>
  static kernels::Rows<const C> rows(const AnyTensor<T>& x) {
    return {reinterpret_cast<const C*>(x.data()), x.extent(2)};
  }
  template <class C, class T>
  kernels::DiagonalScan<C> arguments(const AnyTensor<T>& a, const T* b, const AnyTensor<T>& state) const {
    kernels::DiagonalScan<C> scan;
    scan.shape.sequences = packing.sequences(name, a.extent(0), a.extent(1));
    scan.shape.channels = a.extent(2);
    scan.a = rows<C>(a);
    if (b != nullptr) scan.b = {reinterpret_cast<const C*>(b), a.extent(2)};
    scan.state_in = state.size() == 0 ? nullptr : reinterpret_cast<const C*>(state.data());
    return scan;
  }
};

/// h_t = a_t h_{t-1} + b_t, y_t = h_t, elementwise, all lanes independent.   Returns (y, state).
///
/// a, b, y: [B, L, E]; state: [B, E] (a row for each sequence if `packing` is given), `none` for zeros. 2 B L E flops; bound by the
/// bandwidth of memory. Decays of any size and sign are fine: nothing takes their logarithm or divides by their products. Agrees with
/// mambapy's pscan.
template <TensorLike A, TensorLike B, class S>
auto diagonal_scan(const A& a, const B& b, const S& state, const Packing& packing = {}) {
  return apply<3, 2>(DiagonalScanOp{false, packing}, a, b, state);
}

/// The same over complex numbers: a, b, y: [B, L, E, 2] (real, imaginary), state: [B, E, 2]. Gradients are those of the parts.
template <TensorLike A, TensorLike B, class S>
auto complex_diagonal_scan(const A& a, const B& b, const S& state, const Packing& packing = {}) {
  return apply<4, 3>(DiagonalScanOp{true, packing}, a, b, state);
}

}  // namespace ordo
