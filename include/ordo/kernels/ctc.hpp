#pragma once
/// \file
/// Connectionist temporal classification: the forward-backward algorithm in log space, rows of a batch apart.
///
/// Probabilities are kept in double for float logits too: over hundreds of frames a float logarithm of a few hundreds has no digits
/// left for the posterior.

#include <algorithm>
#include <cmath>
#include <limits>

#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/kernels/softmax.hpp"
#include "ordo/simd/math.hpp"

namespace ordo::kernels {

/// Row b: frames 0..input_lengths[b]-1 of logits, labels targets[b, :target_lengths[b]]. Lengths and labels are in range, and no label
/// is the blank.
template <class T>
struct Ctc {
  Index batch = 0, length = 0, classes = 0, max_labels = 0, blank = 0;
  const T* logits = nullptr;       ///< [batch, length, classes]
  const Index* targets = nullptr;  ///< [batch, max_labels]
  const Index* input_lengths = nullptr;
  const Index* target_lengths = nullptr;
};

namespace detail {

/// One row. Its states are the labels with a blank before, between and behind: 2 U + 1. States are kept with two impossible ones
/// on either side, so that what reaches a state is always three neighbours.
template <class T, class Arch>
class CtcRow {
  using V = simd::Vec<double, Arch>;
  static constexpr double never = -std::numeric_limits<double>::infinity();
  static constexpr Index border = 2;

 public:
  CtcRow(const Ctc<T>& in, Index row)
      : frames_(in.input_lengths[row]),
        labels_(in.target_lengths[row]),
        classes_(in.classes),
        blank_(in.blank),
        targets_(in.targets + row * in.max_labels),
        logits_(in.logits + row * in.length * in.classes),
        stride_(states() + 2 * border),
        memory_((frames_ + 4) * stride_) {
    std::fill_n(memory_.data(), (frames_ + 4) * stride_, never);
    for (Index s = 3; s < states(); s += 2) {
      if (label(s) != label(s - 2)) skip()[s] = 0;
    }
  }

  /// log of the sum over all alignments; -inf if there is none.
  double forward() {
    if (frames_ == 0) return labels_ == 0 ? 0.0 : never;
    for (Index t = 0; t < frames_; ++t) {
      emit(t, nullptr);
      double* const now = alpha(t);
      if (t == 0) {
        for (Index s = 0; s < std::min(states(), Index{2}); ++s) now[s] = emission()[s];
        continue;
      }
      const double* const before = alpha(t - 1);
      simd::for_lanes<double, Arch>(states(), [&, this](Index s, auto c) {
        const V stay = load_some<Arch>(before + s, c), one = load_some<Arch>(before + s - 1, c);
        const V two = load_some<Arch>(before + s - 2, c) + load_some<Arch>(skip() + s, c);
        store_some<Arch, double>(now + s, log_sum(stay, one, two) + load_some<Arch>(emission() + s, c), c);
      });
    }
    const double* const end = alpha(frames_ - 1) + states() - 1;
    return log_sum(V(end[0]), V(labels_ > 0 ? end[-1] : never), V(never)).get(0);
  }

  /// After forward(), which gave `total` (finite): dx = u (softmax - posterior of the classes) of the row's frames.
  void backward(double total, T u, T* dx) {
    double* const after = beta(0);  // beta_{t+1} + emission_{t+1}
    double* const now = beta(1);
    for (Index t = frames_ - 1; t >= 0; --t) {
      T* const out = dx + t * classes_;
      const T sum = emit(t, out);
      if (t == frames_ - 1) {
        now[states() - 1] = 0;
        if (labels_ > 0) now[states() - 2] = 0;
      } else {
        simd::for_lanes<double, Arch>(states(), [&, this](Index s, auto c) {
          const V stay = load_some<Arch>(after + s, c), one = load_some<Arch>(after + s + 1, c);
          const V two = load_some<Arch>(after + s + 2, c) + load_some<Arch>(skip() + s + 2, c);
          store_some<Arch, double>(now + s, log_sum(stay, one, two), c);
        });
      }
      row_affine<T, Arch>(out, u / sum, T(0), out, classes_);
      for (Index s = 0; s < states(); ++s) {
        out[label(s)] -= static_cast<T>(static_cast<double>(u) * std::exp(alpha(t)[s] + now[s] - total));
        after[s] = now[s] + emission()[s];
      }
    }
  }

 private:
  Index states() const noexcept { return 2 * labels_ + 1; }
  Index label(Index s) const noexcept { return s % 2 == 1 ? targets_[s / 2] : blank_; }
  double* line(Index i) const noexcept { return memory_.data() + i * stride_ + border; }
  double* alpha(Index t) const noexcept { return line(4 + t); }
  double* beta(Index i) const noexcept { return line(i); }
  double* emission() const noexcept { return line(2); }
  double* skip() const noexcept { return line(3); }  ///< 0 where the state before the last may be skipped, else -inf

  /// log softmax of frame t at the label of each state. Gives the sum of the exponentials, and these if somebody wants them.
  T emit(Index t, T* exponentials) {
    const T* const x = logits_ + t * classes_;
    const T shift = finite_shift(row_max<T, Arch>(x, classes_)), sum = row_exp_sum<T, Arch>(x, shift, classes_, exponentials);
    const double lse = static_cast<double>(shift) + std::log(static_cast<double>(sum));
    const double blank = static_cast<double>(x[blank_]) - lse;
    for (Index s = 0; s < states(); s += 2) emission()[s] = blank;
    for (Index s = 1; s < states(); s += 2) emission()[s] = static_cast<double>(x[targets_[s / 2]]) - lse;
    return sum;
  }
  static V log_sum(V a, V b, V c) noexcept {
    const V largest = simd::max(simd::max(a, b), c), none(never);
    const auto possible = largest > none;
    const V m = simd::select(possible, largest, V(0.0));
    const V sum = simd::exp_nonpositive(a - m) + simd::exp_nonpositive(b - m) + simd::exp_nonpositive(c - m);
    return simd::select(possible, simd::log(simd::select(possible, sum, V(1.0))) + m, none);
  }

  Index frames_, labels_, classes_, blank_;
  const Index* targets_;
  const T* logits_;
  Index stride_;
  Scratch<double> memory_;
};

}  // namespace detail

/// loss[b] = -log of the sum over all alignments of row b; infinity if there is none.
template <class T, class Arch = simd::DefaultArch>
void ctc_forward(const Ctc<T>& in, T* loss) {
  parallel_for(in.batch, 1, [&](Index begin, Index end) {
    for (Index b = begin; b < end; ++b) loss[b] = static_cast<T>(-detail::CtcRow<T, Arch>(in, b).forward());
  });
}

/// dx [batch, length, classes] from the gradients u [batch] of the losses; 0 behind a row's frames and in rows without an alignment.
template <class T, class Arch = simd::DefaultArch>
void ctc_backward(const Ctc<T>& in, const T* u, T* dx) {
  const Index size = in.length * in.classes;
  parallel_for(in.batch, 1, [&](Index begin, Index end) {
    for (Index b = begin; b < end; ++b) {
      detail::CtcRow<T, Arch> row(in, b);
      const double total = row.forward();
      const Index used = std::isfinite(total) ? in.input_lengths[b] * in.classes : 0;
      if (used > 0) row.backward(total, u[b], dx + b * size);
      std::fill_n(dx + b * size + used, size - used, T(0));
    }
  });
}

}  // namespace ordo::kernels
