#pragma once
/// \file
/// What is done to a score between scale * <q, k> and the softmax: the score policies of the attention engine
/// (attention_tile.hpp). A policy has
///
/// - `Vec value(Vec s, const Pairs<T, A>& at) const`
///   t = f(s), in natural units.
/// - `Vec gradient(Vec dt, Vec s, Vec t, const Pairs<T, A>& at) const`
///   dt f'(s). It may store dt for parameters of its own: it is shown each visible pair once in a backward pass, by one
///   thread, and hidden pairs of tiles that are partly visible too, with dt = 0.
/// - `static constexpr bool changes_nothing`
///   True: the policy costs nothing at all.
/// - `static constexpr bool can_hide`
///   True: t may be -inf, which hides the pair as a mask does (it has to be -inf even if s is NaN).
/// - `bool changes_nothing_now() const`, `bool can_hide_now() const`
///   The same, known only at run time (can_hide_now() needs can_hide): the policy then costs nearly nothing.
/// - `bool shares_gradients() const`
///   True: gradient() adds up numbers of several keys, so that the keys of a head are left to one thread.
///
/// The mask is applied after it.

#include <limits>
#include <type_traits>
#include <utility>

#include "ordo/kernels/attention_mask.hpp"
#include "ordo/simd/math.hpp"

namespace ordo::kernels {

/// t = s
struct NoScore {
  static constexpr bool changes_nothing = true;
  template <class T, class A>
  simd::Vec<T, A> value(const simd::Vec<T, A>& s, const Pairs<T, A>&) const noexcept {
    return s;
  }
  template <class T, class A>
  simd::Vec<T, A> gradient(const simd::Vec<T, A>& dt, const simd::Vec<T, A>&, const simd::Vec<T, A>&,
                           const Pairs<T, A>&) const noexcept {
    return dt;
  }
};

/// t = s - slopes[h] |a - j|, a = i + offset. Press et al. 2021, arXiv 2108.12409. The slopes are constants.
template <class T>
struct Alibi {
  const T* slopes = nullptr;  ///< [H]
  QueryOffset offset{};

  template <class A>
  simd::Vec<T, A> value(const simd::Vec<T, A>& s, const Pairs<T, A>& at) const noexcept {
    const auto distance = simd::abs(at.query + simd::Vec<T, A>(static_cast<T>(offset(at.batch))) - at.key);
    return simd::fnma(at.of_head(slopes), distance, s);
  }
  template <class A>
  simd::Vec<T, A> gradient(const simd::Vec<T, A>& dt, const simd::Vec<T, A>&, const simd::Vec<T, A>&,
                           const Pairs<T, A>&) const noexcept {
    return dt;
  }
};

/// t = cap tanh(s / cap). Gemma 2, arXiv 2408.00118.
template <class T>
struct Softcap {
  T cap = T(50);

  template <class A>
  simd::Vec<T, A> value(const simd::Vec<T, A>& s, const Pairs<T, A>&) const noexcept {
    return simd::Vec<T, A>(cap) * simd::tanh(s * simd::Vec<T, A>(T(1) / cap));
  }
  template <class A>
  simd::Vec<T, A> gradient(const simd::Vec<T, A>& dt, const simd::Vec<T, A>&, const simd::Vec<T, A>& t,
                           const Pairs<T, A>&) const noexcept {
    const auto y = t * simd::Vec<T, A>(T(1) / cap);
    return dt * simd::fnma(y, y, simd::Vec<T, A>(T(1)));
  }
};

/// t = s + bias[b, h, i, j]; -inf hides the pair. A stride of 0 broadcasts an axis.
template <class T>
struct ScoreBias {
  static constexpr bool can_hide = true;
  const T* bias = nullptr;
  Index batch_stride = 0, head_stride = 0, query_stride = 0;  ///< in elements; keys are contiguous
  /// Null, or [B, H, queries, keys], filled with zeros before the backward pass: receives the gradient of every pair.
  T* gradients = nullptr;
  Index heads = 0, queries = 0, keys = 0;  ///< extents of `gradients`

  template <class A>
  simd::Vec<T, A> value(const simd::Vec<T, A>& s, const Pairs<T, A>& at) const noexcept {
    const simd::Vec<T, A> hidden(-std::numeric_limits<T>::infinity());
    const simd::Vec<T, A> added = at.of_pair(bias, batch_stride, head_stride, query_stride);
    return simd::select(added == hidden, hidden, s + added);  // also where s is NaN
  }
  template <class A>
  simd::Vec<T, A> gradient(const simd::Vec<T, A>& dt, const simd::Vec<T, A>&, const simd::Vec<T, A>&,
                           const Pairs<T, A>& at) const noexcept {
    if (gradients != nullptr) {
      alignas(64) T value[simd::Vec<T, A>::size];
      dt.store_aligned(value);
      if (at.heads == nullptr && !at.keys_in_lanes) {
        T* to = gradients + ((at.batch * heads + at.head) * queries + at.first_query) * keys + at.first_key;
        for (Index lane = 0; lane < at.count; ++lane, to += keys) *to = value[lane];
        return dt;
      }
      Index lane = 0;
      static_cast<void>(at.each([&](Index b, Index h, Index i, Index j) {
        if (lane < at.count) gradients[((b * heads + h) * queries + i) * keys + j] = value[lane];
        ++lane;
        return T(0);
      }));
    }
    return dt;
  }
};

/// t = f(s, b, h, i, j) and dt/ds = df(s, b, h, i, j) for any two callables, one score at a time.
template <class F, class D>
struct ScoreFunction {
  F f;
  D df;

  template <class T, class A>
  simd::Vec<T, A> value(const simd::Vec<T, A>& s, const Pairs<T, A>& at) const {
    return apply(f, s, at);
  }
  template <class T, class A>
  simd::Vec<T, A> gradient(const simd::Vec<T, A>& dt, const simd::Vec<T, A>& s, const simd::Vec<T, A>&,
                           const Pairs<T, A>& at) const {
    return dt * apply(df, s, at);
  }

 private:
  template <class G, class T, class A>
  static simd::Vec<T, A> apply(const G& g, const simd::Vec<T, A>& s, const Pairs<T, A>& at) {
    alignas(64) T score[simd::Vec<T, A>::size];
    s.store_aligned(score);
    std::size_t lane = 0;
    return at.each([&](Index b, Index h, Index i, Index j) { return g(score[lane++], b, h, i, j); });
  }
};
template <class F, class D>
ScoreFunction(F, D) -> ScoreFunction<F, D>;

/// First one, then the other: t = second(first(s)).
template <class First, class Second>
struct Then {
  static constexpr bool can_hide = requires { requires First::can_hide; } || requires { requires Second::can_hide; };
  First first;
  Second second;

  template <class T, class A>
  simd::Vec<T, A> value(const simd::Vec<T, A>& s, const Pairs<T, A>& at) const {
    return second.value(first.value(s, at), at);
  }
  template <class T, class A>
  simd::Vec<T, A> gradient(const simd::Vec<T, A>& dt, const simd::Vec<T, A>& s, const simd::Vec<T, A>& t,
                           const Pairs<T, A>& at) const {
    const simd::Vec<T, A> between = first.value(s, at);
    return first.gradient(second.gradient(dt, between, t, at), s, between, at);
  }
};
template <class First, class Second>
Then(First, Second) -> Then<First, Second>;

template <class S>
inline constexpr bool score_changes_nothing = requires { requires S::changes_nothing; };
template <class S>
inline constexpr bool score_can_hide = requires { requires S::can_hide; };
template <class S>
constexpr bool changes_nothing_now(const S& score) {
  if constexpr (requires { score.changes_nothing_now(); }) {
    return score.changes_nothing_now();
  } else {
    return score_changes_nothing<S>;
  }
}
template <class S>
constexpr bool shares_gradients(const S& score) {
  if constexpr (requires { score.shares_gradients(); }) {
    return score.shares_gradients();
  } else {
    return false;
  }
}
template <class S>
constexpr bool can_hide_now(const S& score) {
  if constexpr (requires { score.can_hide_now(); }) {
    return score.can_hide_now();
  } else {
    return score_can_hide<S>;
  }
}

}  // namespace ordo::kernels
