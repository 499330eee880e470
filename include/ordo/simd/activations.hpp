#pragma once
/// \file
/// Activations without a curve of their own: piecewise linear ones, and elu.

#include "ordo/simd/exp.hpp"

namespace ordo::simd {

namespace detail {

struct Relu : Elementwise<Relu> {
  template <class T, class A>
  [[gnu::always_inline]] static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    return at_least(Vec<T, A>(x), T(0));
  }
};

struct ReluSquared : Elementwise<ReluSquared> {
  template <class T, class A>
  [[gnu::always_inline]] static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    const Vec<T, A> y = at_least(Vec<T, A>(x), T(0));
    return y * y;
  }
};

/// min(max(x + 3, 0), 6) / 6. A division: 1/6 as a factor would cost the last bit.
struct HardSigmoid : Elementwise<HardSigmoid> {
  template <class T, class A>
  [[gnu::always_inline]] static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    return at_most(at_least(V(x + V(T(3))), T(0)), T(6)) / V(T(6));
  }
};

struct HardSigmoidGrad : Elementwise<HardSigmoidGrad> {
  template <class T, class A>
  [[gnu::always_inline]] static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    return select(abs(x) < Vec<T, A>(T(3)), T(1) / T(6), T(0));
  }
};

struct HardSwish : Elementwise<HardSwish> {
  template <class T, class A>
  [[gnu::always_inline]] static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V y = x * at_most(V(x + V(T(3))), T(6)) / V(T(6));
    return select(x <= V(T(-3)), T(0), select(x >= V(T(3)), x, y));
  }
};

struct HardSwishGrad : Elementwise<HardSwishGrad> {
  template <class T, class A>
  [[gnu::always_inline]] static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    const V y = (x + x + V(T(3))) / V(T(6));
    return select(x <= V(T(-3)), T(0), select(x >= V(T(3)), T(1), y));
  }
};

struct Elu : Elementwise<Elu> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    return select(x > Vec<T, A>(T(0)), x, Expm1::eval(x));
  }
};

struct EluGrad : Elementwise<EluGrad> {
  template <class T, class A>
  static Vec<T, A> eval(const xsimd::batch<T, A>& x) noexcept {
    using V = Vec<T, A>;
    return select(x > V(T(0)), T(1), ExpKernel<T, A>::template exp<false>(at_most(V(x), T(0))));
  }
};

}  // namespace detail

/// max(x, 0).
inline constexpr detail::Relu relu{};

/// max(x, 0)^2.
inline constexpr detail::ReluSquared relu_squared{};

/// min(max(x + 3, 0), 6) / 6.
inline constexpr detail::HardSigmoid hard_sigmoid{};
inline constexpr detail::HardSigmoidGrad hard_sigmoid_grad{};

/// x min(max(x + 3, 0), 6) / 6.
inline constexpr detail::HardSwish hard_swish{};
inline constexpr detail::HardSwishGrad hard_swish_grad{};

/// x > 0 ? x : expm1(x). For another alpha: select(x > 0, x, alpha * elu(x)), the same for the derivative.
inline constexpr detail::Elu elu{};
inline constexpr detail::EluGrad elu_grad{};

}  // namespace ordo::simd
