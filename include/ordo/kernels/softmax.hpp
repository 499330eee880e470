#pragma once
/// \file
/// Softmax, log-softmax and log-sum-exp of rows, forward and backward.
///
/// -inf counts as masked: probability and gradient 0. A row of nothing else has probabilities 0 and gradient 0, not
/// NaN.

#include <algorithm>
#include <cmath>
#include <limits>

#include "ordo/core/parallel.hpp"
#include "ordo/kernels/row.hpp"
#include "ordo/simd/exp.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo::kernels {

namespace detail {

/// What is subtracted from a row before exp: its largest element, or 0 if all are -inf, so that all exponentials are 0.
/// A NaN that the maximum has lost comes back with the sum of exponentials.
template <class T>
T finite_shift(T largest) noexcept {
  return largest == -std::numeric_limits<T>::infinity() ? T(0) : largest;
}

/// sum_i exp(x_i - shift); writes the terms if `terms` is not null.
template <class T, class Arch>
T row_exp_sum(const T* x, T shift, Index n, T* terms) {
  using V = simd::Vec<T, Arch>;
  const V s(shift);
  return add_up<T, Arch>(n, [&](Index i, Index c) {
    const V e = keep_some<Arch, T>(simd::exp_nonpositive(load_some<Arch>(x + i, c) - s), c);
    if (terms != nullptr) store_some<Arch, T>(terms + i, e, c);
    return e;
  });
}

/// y_i = a x_i + b.
template <class T, class Arch>
void row_affine(const T* x, T a, T b, T* y, Index n) {
  using V = simd::Vec<T, Arch>;
  simd::transform<Arch>(x, y, n, [va = V(a), vb = V(b)](const V& v) { return simd::fma(v, va, vb); });
}

}  // namespace detail

/// y_i = exp(x_i - max x) / sum_j exp(x_j - max x) of each of `rows` rows [n]; y may be x.
template <class T, class Arch = simd::DefaultArch>
void softmax(const T* x, T* y, Index rows, Index n) {
  parallel_for(rows, detail::row_grain(n), [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const T shift = detail::finite_shift(detail::row_max<T, Arch>(x + r * n, n));
      const T sum = detail::row_exp_sum<T, Arch>(x + r * n, shift, n, y + r * n);
      detail::row_affine<T, Arch>(y + r * n, sum == T(0) ? T(0) : T(1) / sum, T(0), y + r * n, n);
    }
  });
}

/// From softmax's y and the gradient u: dx_i = y_i (u_i - sum_j y_j u_j); dx may be y or u. Where y is 0, dx is 0
/// whatever u is.
template <class T, class Arch = simd::DefaultArch>
void softmax_backward(const T* y, const T* u, T* dx, Index rows, Index n) {
  using V = simd::Vec<T, Arch>;
  parallel_for(rows, detail::row_grain(n), [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const T *yr = y + r * n, *ur = u + r * n;
      const V zero(T(0));
      const T sum = detail::add_up<T, Arch>(n, [&](Index i, Index c) {
        const V p = detail::load_some<Arch>(yr + i, c);
        return simd::select(p == zero, zero, p * detail::load_some<Arch>(ur + i, c));
      });
      simd::transform<Arch>(yr, ur, dx + r * n, n, [zero, s = V(sum)](const V& p, const V& g) {
        return simd::select(p == zero, zero, p * (g - s));
      });
    }
  });
}

/// y_i = x_i - max x - log sum_j exp(x_j - max x); y may be x. All -inf: all -inf.
template <class T, class Arch = simd::DefaultArch>
void log_softmax(const T* x, T* y, Index rows, Index n) {
  using V = simd::Vec<T, Arch>;
  parallel_for(rows, detail::row_grain(n), [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const T shift = detail::finite_shift(detail::row_max<T, Arch>(x + r * n, n));
      const T sum = detail::row_exp_sum<T, Arch>(x + r * n, shift, n, nullptr);
      const V s(shift), l(sum == T(0) ? T(0) : std::log(sum));
      simd::transform<Arch>(x + r * n, y + r * n, n, [s, l](const V& v) { return (v - s) - l; });
    }
  });
}

/// From log_softmax's y and the gradient u: dx_i = u_i - exp(y_i) sum_j u_j; dx may be u.
template <class T, class Arch = simd::DefaultArch>
void log_softmax_backward(const T* y, const T* u, T* dx, Index rows, Index n) {
  using V = simd::Vec<T, Arch>;
  parallel_for(rows, detail::row_grain(n), [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const T sum =
          detail::add_up<T, Arch>(n, [&](Index i, Index c) { return detail::load_some<Arch>(u + r * n + i, c); });
      simd::transform<Arch>(y + r * n, u + r * n, dx + r * n, n, [s = V(sum)](const V& l, const V& g) {
        return simd::fnma(simd::exp_nonpositive(l), s, g);
      });
    }
  });
}

/// y = log sum_j exp(x_j) of each row.
template <class T, class Arch = simd::DefaultArch>
void log_sum_exp(const T* x, T* y, Index rows, Index n) {
  parallel_for(rows, detail::row_grain(n), [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const T shift = detail::finite_shift(detail::row_max<T, Arch>(x + r * n, n));
      y[r] = shift + std::log(detail::row_exp_sum<T, Arch>(x + r * n, shift, n, nullptr));
    }
  });
}

}  // namespace ordo::kernels
