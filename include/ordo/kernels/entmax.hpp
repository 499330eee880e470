#pragma once
/// \file
/// Sparsemax and 1.5-entmax of rows: exact thresholds from sorted candidates, forward and backward.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/row.hpp"

namespace ordo::kernels {

/// y_i = max(s_i - tau, 0)^power with sum y = 1: alpha-entmax with alpha = 2 (sparsemax) or 1.5, where s = (alpha - 1) x.
enum class Entmax : unsigned char {
  sparsemax,  ///< s = x, power 1
  entmax15,   ///< s = x / 2, power 2
};

namespace detail {

/// tau from the candidates s, sorted downwards, the largest 0: the threshold of the first k of them, k as large as they allow.
template <class T>
double entmax_threshold(Entmax kind, const T* s, Index count) {
  double tau = 0, sum = 0, mean = 0, squares = 0;
  for (Index i = 0; i < count; ++i) {
    const double v = static_cast<double>(s[i]), r = static_cast<double>(i + 1);
    if (kind == Entmax::sparsemax) {
      sum += v;
      if (!(1 + r * v > sum)) break;
      tau = (sum - 1) / r;
    } else {  // tau_r of the first r: their mean and squared deviations, by Welford's recurrence
      const double before = v - mean;
      mean += before / r;
      squares += before * (v - mean);
      const double t = mean - std::sqrt(std::max(1 - squares, 0.0) / r);
      if (!(t <= v)) break;
      tau = t;
    }
  }
  return tau;
}

}  // namespace detail

/// Each of `rows` rows [n]; y may be x. -inf counts as masked: 0; a row of nothing else is all 0, one with NaN or +inf all NaN. Only elements
/// within 1 (of s) of the largest can be chosen, and only those are sorted.
template <class T, class Arch = simd::DefaultArch>
void entmax(Entmax kind, const T* x, T* y, Index rows, Index n) {
  using V = simd::Vec<T, Arch>;
  parallel_for(rows, detail::row_grain(n), [&](Index begin, Index end) {
    Scratch<T> candidates(n);
    const T factor = kind == Entmax::sparsemax ? T(1) : T(0.5), reach = T(1) / factor;
    for (Index r = begin; r < end; ++r) {
      const T* const from = x + r * n;
      T* const to = y + r * n;
      const T largest = detail::row_max<T, Arch>(from, n);
      constexpr T infinity = std::numeric_limits<T>::infinity();
      Index count = 0;
      bool nan = largest == infinity;
      for (Index i = 0; i < n; ++i) {
        const T v = from[i];
        nan = nan || v != v;
        if (v >= largest - reach) candidates[count++] = (v - largest) * factor;
      }
      if (nan || largest == -infinity) {
        std::fill_n(to, n, nan ? std::numeric_limits<T>::quiet_NaN() : T(0));
        continue;
      }
      std::sort(candidates.data(), candidates.data() + count, std::greater<>());
      const T tau = static_cast<T>(detail::entmax_threshold(kind, candidates.data(), count));
      simd::transform<Arch>(from, to, n, [=](const V& v) {
        const V over = simd::max(simd::fma(v - V(largest), V(factor), V(-tau)), V(T(0)));
        return kind == Entmax::sparsemax ? over : over * over;
      });
    }
  });
}

/// From y and the gradient u: dx_i = g_i (u_i - sum g u / sum g), g = 1 or sqrt(y) where y > 0; 0 elsewhere, whatever u is there.
template <class T, class Arch = simd::DefaultArch>
void entmax_backward(Entmax kind, const T* y, const T* u, T* dx, Index rows, Index n) {
  using V = simd::Vec<T, Arch>;
  const auto slope = [kind](const V& p) {
    return kind == Entmax::sparsemax ? simd::select(p > V(T(0)), V(T(1)), V(T(0))) : simd::sqrt(p);
  };
  const auto chosen = [](const V& p, const V& v) { return simd::select(p > V(T(0)), v, V(T(0))); };
  parallel_for(rows, detail::row_grain(n), [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const T *yr = y + r * n, *ur = u + r * n;
      const T total = detail::add_up<T, Arch>(n, [&](Index i, Index c) { return slope(detail::load_some<Arch>(yr + i, c)); });
      const T along = detail::add_up<T, Arch>(n, [&](Index i, Index c) {
        const V p = detail::load_some<Arch>(yr + i, c);
        return chosen(p, slope(p) * detail::load_some<Arch>(ur + i, c));
      });
      const V mean(total == T(0) ? T(0) : along / total);
      simd::transform<Arch>(yr, ur, dx + r * n, n, [&](const V& p, const V& g) { return chosen(p, slope(p) * (g - mean)); });
    }
  });
}

}  // namespace ordo::kernels
