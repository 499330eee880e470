#pragma once
/// \file
/// The curves of recurrent cells: sigmoid and tanh within a few units in the last place of 1. They are most of what a step costs
/// beside its product, so they take one exponential and one division each and no correction behind it; simd::sigmoid and simd::tanh,
/// which keep the last bit, cost about twice as much.

#include "ordo/kernels/row.hpp"
#include "ordo/simd/exp.hpp"

namespace ordo::kernels::detail {

/// 1 / (1 + exp(-x)); below -80 the value at -80. NaN stays.
template <class V>
[[gnu::always_inline]] inline V gate_sigmoid(V x) noexcept {
  using T = typename V::value_type;
  const V e = simd::detail::ExpKernel<T, typename V::arch_type>::template exp<false>(-simd::detail::at_least(x, T(-80)));
  return V(T(1)) / (V(T(1)) + e);
}

/// -m / (2 + m), m = expm1(-2 x): precise around 0, never beyond 1. NaN stays.
template <class V>
[[gnu::always_inline]] inline V gate_tanh(V x) noexcept {
  using T = typename V::value_type;
  using C = simd::detail::ExpConstants<T>;
  const V bounded = simd::detail::at_most(simd::detail::at_least(x, T(-20)), T(20));
  const auto e = simd::detail::reduce_exp(V(bounded * V(T(-2))));
  const V q = simd::fma(e.r * e.r, simd::detail::polynomial<C::p>(e.r), e.r);  // expm1(r)
  const V power = simd::detail::scale_by_exponent(V(T(1)), e.bits);
  const V m = simd::fma(power, q, power - V(T(1)));
  return -m / (m + V(T(2)));
}

}  // namespace ordo::kernels::detail
