#pragma once
/// \file
/// Cross-entropy of rows of logits, fused with log-softmax: forward keeps two numbers a row, backward makes the
/// gradient in one pass. No probabilities are stored.

#include <algorithm>
#include <cmath>

#include "ordo/core/parallel.hpp"
#include "ordo/kernels/softmax.hpp"

namespace ordo::kernels {

/// With l = log_softmax(x) of a row, w the class weights (or ones) and s the smoothing, the loss is sum_c c_c (-l_c),
/// where
///   index targets t:   c_c = (1 - s) w_t [c = t] + (s / V) w_c,     0 in rows with t = ignore_index
///   probabilities q:   c_c = w_c ((1 - s) q_c + s / V)
template <class T>
struct CrossEntropy {
  Index rows = 0, classes = 0;
  const T* logits = nullptr;
  const Index* targets = nullptr;    ///< [rows], or
  const T* probabilities = nullptr;  ///< [rows, classes]
  const T* class_weight = nullptr;   ///< [classes] or null
  Index ignore_index = -100;
  T smoothing = 0;

  bool kept(Index r) const noexcept { return targets == nullptr || targets[r] != ignore_index; }
  /// The weight of an index target.
  T weight(Index r) const noexcept { return class_weight == nullptr ? T(1) : class_weight[targets[r]]; }
};

namespace detail {

/// The coefficients c of a row without the target's own one; zero everywhere without smoothing and probabilities.
template <class T, class Arch>
struct SpreadCoefficients {
  using V = simd::Vec<T, Arch>;
  const T* probabilities;
  const T* class_weight;
  V keep, spread;

  SpreadCoefficients(const CrossEntropy<T>& in, Index r)
      : probabilities(in.probabilities == nullptr ? nullptr : in.probabilities + r * in.classes),
        class_weight(in.class_weight),
        keep(T(1) - in.smoothing),
        spread(in.smoothing / static_cast<T>(in.classes)) {}
  /// Lanes behind `count` hold 0.
  V operator()(Index i, Index count) const {
    V c = probabilities == nullptr ? spread : simd::fma(keep, load_some<Arch>(probabilities + i, count), spread);
    if (class_weight != nullptr) c = c * load_some<Arch>(class_weight + i, count);
    return keep_some<Arch, T>(c, count);
  }
};

}  // namespace detail

/// Writes the loss of each row, and the shift and the sum of exponentials: log_softmax(x) = x - shift - log(sum).
/// Rows that are not kept have loss 0, shift 0 and sum 1.
template <class T, class Arch = simd::DefaultArch>
void cross_entropy_forward(const CrossEntropy<T>& in, T* loss, T* shift, T* sum) {
  using V = simd::Vec<T, Arch>;
  const Index n = in.classes;
  parallel_for(in.rows, detail::row_grain(n), [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      if (!in.kept(r)) {
        loss[r] = shift[r] = T(0);
        sum[r] = T(1);
        continue;
      }
      const T* x = in.logits + r * n;
      const T m = detail::finite_shift(detail::row_max<T, Arch>(x, n));
      const T s = detail::row_exp_sum<T, Arch>(x, m, n, nullptr), log_sum = std::log(s);
      shift[r] = m;
      sum[r] = s;
      // -l as (m - x) + log(s): m and x may be large and equal.
      T total = 0;
      if (in.targets != nullptr) total = (T(1) - in.smoothing) * in.weight(r) * ((m - x[in.targets[r]]) + log_sum);
      if (in.targets == nullptr || in.smoothing != T(0)) {
        const detail::SpreadCoefficients<T, Arch> coefficients(in, r);
        const V vm(m), vl(log_sum), zero(T(0));
        total += detail::add_up<T, Arch>(n, [&](Index i, Index c) {
          const V k = coefficients(i, c);
          return simd::select(k == zero, zero, k * ((vm - detail::load_some<Arch>(x + i, c)) + vl));  // 0 * inf is 0
        });
      }
      loss[r] = total;
    }
  });
}

/// dx_c = u (p_c sum(c) - c_c) + v p_c of each row: u [rows] is the gradient of the loss, v [rows] (or null) that of
/// log-sum-exp. Rows that are not kept have gradient 0.
template <class T, class Arch = simd::DefaultArch>
void cross_entropy_backward(const CrossEntropy<T>& in, const T* shift, const T* sum, const T* u, const T* v, T* dx) {
  using V = simd::Vec<T, Arch>;
  constexpr Index w = simd::lanes<T, Arch>;
  const Index n = in.classes;
  parallel_for(in.rows, detail::row_grain(n), [&](Index begin, Index end) {
    for (Index r = begin; r < end; ++r) {
      const T* x = in.logits + r * n;
      T* out = dx + r * n;
      if (!in.kept(r)) {
        std::fill_n(out, n, T(0));
        continue;
      }
      const detail::SpreadCoefficients<T, Arch> coefficients(in, r);
      const bool spread = in.targets == nullptr || in.smoothing != T(0);
      T total = spread ? detail::add_up<T, Arch>(n, coefficients) : T(0);
      const T own = in.targets == nullptr ? T(0) : (T(1) - in.smoothing) * in.weight(r);
      total += own;
      const V factor((u[r] * total + (v == nullptr ? T(0) : v[r])) / sum[r]), vu(u[r]), m(shift[r]);
      for (Index i = 0; i < n; i += w) {
        const Index c = std::min(w, n - i);
        V g = factor * simd::exp_nonpositive(detail::load_some<Arch>(x + i, c) - m);
        if (spread) g = simd::fnma(vu, coefficients(i, c), g);
        detail::store_some<Arch, T>(out + i, g, c);
      }
      if (in.targets != nullptr) out[in.targets[r]] -= u[r] * own;
    }
  });
}

}  // namespace ordo::kernels
