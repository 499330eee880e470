#pragma once
/// \file
/// Activation functions with their first and second derivatives. The kind is a run-time value, looked at once for each
/// call.
///
/// Values and first derivatives are those of simd/math.hpp: precise in the tails, no NaN from finite arguments, NaN
/// stays NaN.

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <type_traits>

#include "ordo/core/error.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/simd/math.hpp"
#include "ordo/simd/simd.hpp"

namespace ordo {

// GCC 12 takes a scoped enumerator for something that could hide ordo::none.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#endif
/// sigma(x) = 1 / (1 + exp(-x)).
enum class Activation : unsigned char {
  none,          ///< x
  relu,          ///< max(x, 0)
  relu_squared,  ///< max(x, 0)^2
  leaky_relu,    ///< x > 0 ? x : negative_slope x
  elu,           ///< x > 0 ? x : alpha (exp(x) - 1)
  gelu,          ///< x Phi(x) = x/2 (1 + erf(x / sqrt 2))
  gelu_tanh,     ///< x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  quick_gelu,    ///< x sigma(1.702 x)
  silu,          ///< x sigma(x)
  softplus,      ///< log(1 + exp(beta x)) / beta
  sigmoid,       ///< sigma(x)
  tanh,          ///< tanh(x)
  mish,          ///< x tanh(log(1 + exp(x)))
  hard_swish,    ///< x min(max(x + 3, 0), 6) / 6
  hard_sigmoid,  ///< min(max(x + 3, 0), 6) / 6
  log_sigmoid,   ///< -log(1 + exp(-x))
};
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace detail {
inline constexpr std::array<std::string_view, 16> activation_names{
    "none", "relu",     "relu_squared", "leaky_relu", "elu",  "gelu",       "gelu_tanh",    "quick_gelu",
    "silu", "softplus", "sigmoid",      "tanh",       "mish", "hard_swish", "hard_sigmoid", "log_sigmoid"};
}  // namespace detail

/// The name as in configurations: "gelu_tanh".
inline std::string to_string(Activation kind) {
  const auto i = static_cast<std::size_t>(kind);
  return std::string(i < detail::activation_names.size() ? detail::activation_names[i] : "unknown activation");
}

/// The activation of that name; ConfigError with the known names if there is none.
inline Activation activation_from_string(std::string_view name) {
  std::string known;
  for (std::size_t i = 0; i < detail::activation_names.size(); ++i) {
    if (detail::activation_names[i] == name) return static_cast<Activation>(i);
    known += (i == 0 ? "" : ", ") + std::string(detail::activation_names[i]);
  }
  fail<ConfigError>({"activation: unknown name \"", name, "\"; known are ", known});
}

/// An activation and the constants of those that have some.
struct ActivationParameters {
  Activation kind = Activation::none;
  double negative_slope = 0.01;  ///< of leaky_relu
  double alpha = 1;              ///< of elu
  double beta = 1;               ///< of softplus, not 0
};

namespace kernels {

/// An activation and its derivatives, as functions of a vector.
template <class Value, class First, class Second>
struct ActivationFunctions {
  Value value;
  First first;
  Second second;
};
template <class Value, class First, class Second>
ActivationFunctions(Value, First, Second) -> ActivationFunctions<Value, First, Second>;

namespace detail {

/// What second derivatives are made of, not inlined: they are rare, and would be most of what this file costs to
/// compile.
template <class V>
[[gnu::noinline]] V sigmoid_slope(V x) {
  return simd::sigmoid_grad(x);
}
template <class V>
[[gnu::noinline]] V tanh_of(V x) {
  return simd::tanh(x);
}

/// x held to [-limit, limit]: beyond, exponentials have long become 0, and a square of x could overflow. NaN stays.
template <class V>
V held(V x, typename V::value_type limit) {
  return simd::select(x > V(limit), V(limit), simd::select(x < V(-limit), V(-limit), x));
}

/// phi(x) (2 - x^2), phi the normal density. Where fma rounds once, the rounding of x^2 is put back.
template <class V>
V gelu_second(V x) {
  using T = typename V::value_type;
  const V c = held(x, T(64)), square = c * c, rest = simd::fms(c, c, square);
  const V e = simd::exp(V(T(-0.5)) * square);
  return V(T(0.39894228040143267794)) * simd::fma(e, V(T(-0.5)) * rest, e) * (V(2) - square);
}

/// With u = 2 sqrt(2/pi) (x + 0.044715 x^3): sigma'(u) (2 u' + x u'' - x u'^2 tanh(u/2)).
template <class V>
V gelu_tanh_second(V at) {
  using T = typename V::value_type;
  constexpr double c = 1.5957691216057307117, k = 0.044715;
  const V x = held(at, T(32)), square = x * x;
  const V u = x * simd::fma(square, V(T(c * k)), V(T(c))), slope = simd::fma(square, V(T(3 * c * k)), V(T(c)));
  const V bend = simd::fma(square, V(T(6 * c * k)), slope + slope);
  return sigmoid_slope(u) * simd::fnma(x * slope * slope, tanh_of(V(T(0.5)) * u), bend);
}

/// Of x sigma(c x): c sigma'(c x) (2 - c x tanh(c x / 2)).
template <class V>
V silu_second(V x, typename V::value_type c) {
  using T = typename V::value_type;
  const V u = V(c) * x;
  return V(c) * sigmoid_slope(u) * simd::fnma(u, tanh_of(V(T(0.5)) * u), V(2));
}

/// Of x t, t = tanh(log(1 + exp(x))): 2 t' + x t'', t' = (1 - t^2) sigma(x), t'' = t' (sigma(-x) - 2 t sigma(x)).
template <class V>
V mish_second(V x) {
  const V n = simd::exp(-simd::abs(x));
  const auto left = x < V(0);
  // t = a / (a + b), 1 - t = b / (a + b), from the exponential that cannot overflow
  const V a = simd::select(left, n * (n + V(2)), n + n + V(1)), b = simd::select(left, V(2), V(2) * n * n);
  const V scale = V(1) / (a + b), t = a * scale, large = V(1) / (V(1) + n), small = n * large;
  const V plus = simd::select(left, small, large), minus = simd::select(left, large, small);
  const V slope = b * scale * (V(1) + t) * plus;
  return slope * simd::fma(x, simd::fnma(t + t, plus, minus), V(2));
}

}  // namespace detail

/// Calls f with the functions of an activation, for vectors of T.
template <class T, class F>
decltype(auto) with_activation(const ActivationParameters& p, F&& f) {
  using simd::select;
  const T slope = static_cast<T>(p.negative_slope), alpha = static_cast<T>(p.alpha), beta = static_cast<T>(p.beta);
  const auto zero = [](auto x) { return decltype(x)(0); };
  const auto one = [](auto x) { return decltype(x)(1); };
  // where(x > 0, a, b) with numbers or vectors
  const auto positive = [](auto x, auto a, auto b) {
    return select(x > decltype(x)(0), decltype(x)(a), decltype(x)(b));
  };
  const auto inside = [](auto x, T a) { return select(simd::abs(x) < decltype(x)(3), decltype(x)(a), decltype(x)(0)); };

  switch (p.kind) {
    case ordo::Activation::none: break;
    case ordo::Activation::relu:
      return f(ActivationFunctions{simd::relu, [=](auto x) { return positive(x, T(1), T(0)); }, zero});
    case ordo::Activation::relu_squared:
      return f(ActivationFunctions{simd::relu_squared, [](auto x) { return decltype(x)(2) * simd::relu(x); },
                                   [=](auto x) { return positive(x, T(2), T(0)); }});
    case ordo::Activation::leaky_relu:
      return f(ActivationFunctions{[=](auto x) { return positive(x, x, decltype(x)(slope) * x); },
                                   [=](auto x) { return positive(x, T(1), slope); }, zero});
    case ordo::Activation::elu:
      return f(ActivationFunctions{[=](auto x) { return positive(x, x, decltype(x)(alpha) * simd::elu(x)); },
                                   [=](auto x) { return positive(x, T(1), decltype(x)(alpha) * simd::elu_grad(x)); },
                                   [=](auto x) { return positive(x, T(0), decltype(x)(alpha) * simd::elu_grad(x)); }});
    case ordo::Activation::gelu:
      return f(ActivationFunctions{simd::gelu, simd::gelu_grad, [](auto x) { return detail::gelu_second(x); }});
    case ordo::Activation::gelu_tanh:
      return f(ActivationFunctions{simd::gelu_tanh, simd::gelu_tanh_grad,
                                   [](auto x) { return detail::gelu_tanh_second(x); }});
    case ordo::Activation::quick_gelu:
      return f(ActivationFunctions{simd::quick_gelu, simd::quick_gelu_grad,
                                   [](auto x) { return detail::silu_second(x, T(1.702)); }});
    case ordo::Activation::silu:
      return f(ActivationFunctions{simd::silu, simd::silu_grad, [](auto x) { return detail::silu_second(x, T(1)); }});
    case ordo::Activation::softplus:  // as -log sigma(-beta x): simd::softplus is x itself above 20
      return f(ActivationFunctions{
          [=](auto x) { return simd::log_sigmoid(decltype(x)(-beta) * x) / decltype(x)(-beta); },
          [=](auto x) { return simd::sigmoid(decltype(x)(beta) * x); },
          [=](auto x) { return decltype(x)(beta) * detail::sigmoid_slope(decltype(x)(beta) * x); }});
    case ordo::Activation::sigmoid:
      return f(ActivationFunctions{simd::sigmoid, simd::sigmoid_grad, [](auto x) {
                                     return -detail::sigmoid_slope(x) * detail::tanh_of(decltype(x)(T(0.5)) * x);
                                   }});
    case ordo::Activation::tanh:
      return f(ActivationFunctions{simd::tanh, simd::tanh_grad,
                                   [](auto x) { return decltype(x)(-2) * simd::tanh_grad(x) * detail::tanh_of(x); }});
    case ordo::Activation::mish:
      return f(ActivationFunctions{simd::mish, simd::mish_grad, [](auto x) { return detail::mish_second(x); }});
    case ordo::Activation::hard_swish:
      return f(
          ActivationFunctions{simd::hard_swish, simd::hard_swish_grad, [=](auto x) { return inside(x, T(1) / T(3)); }});
    case ordo::Activation::hard_sigmoid:
      return f(ActivationFunctions{simd::hard_sigmoid, simd::hard_sigmoid_grad, zero});
    case ordo::Activation::log_sigmoid:
      return f(ActivationFunctions{simd::log_sigmoid, simd::log_sigmoid_grad,
                                   [](auto x) { return -detail::sigmoid_slope(x); }});
  }
  return f(ActivationFunctions{[](auto x) { return x; }, one, zero});
}

// ---- over arrays ----

namespace detail {

/// How many elements a thread takes at a time.
inline constexpr Index activation_grain = 1 << 15;

/// out[i] = f(x[i], u[i]), i < n. One copy of the body, tail included: the functions are long, and a second copy would
/// double the time to compile them.
template <class Arch, class T, class F>
void for_each_vector(const T* x, const T* u, T* out, Index n, F f) {
  using V = simd::Vec<T, Arch>;
  constexpr Index w = simd::lanes<T, Arch>;
  for (Index i = 0; i < n; i += w) {
    const Index rest = n - i;
    const bool full = rest >= w;
    const V vx = full ? simd::load<Arch>(x + i) : simd::load_partial<Arch>(x + i, rest);
    const V vu = full ? simd::load<Arch>(u + i) : simd::load_partial<Arch>(u + i, rest);
    const V y = f(vx, vu);
    if (full) {
      simd::store(out + i, y);
    } else {
      simd::store_partial(out + i, y, rest);
    }
  }
}

/// Cuts [0, n) and calls f(functions, begin, end) for each piece.
template <class T, class F>
void for_each_piece(const ActivationParameters& p, Index n, F f) {
  parallel_for(n, activation_grain, [&](Index begin, Index end) {
    kernels::with_activation<T>(p, [&](auto functions) { f(functions, begin, end); });
  });
}

}  // namespace detail

/// y[i] = f(x[i]), i < n; y may be x.
template <class T, class Arch = simd::DefaultArch>
void activate(const ActivationParameters& p, const T* x, T* y, Index n) {
  detail::for_each_piece<T>(p, n, [&](auto f, Index begin, Index end) {
    detail::for_each_vector<Arch>(x + begin, x + begin, y + begin, end - begin,
                                  [&](auto v, auto) { return f.value(v); });
  });
}

/// y[i] = u[i] f'(x[i]), i < n; y may be x or u.
template <class T, class Arch = simd::DefaultArch>
void activate_first(const ActivationParameters& p, const T* x, const T* u, T* y, Index n) {
  detail::for_each_piece<T>(p, n, [&](auto f, Index begin, Index end) {
    detail::for_each_vector<Arch>(x + begin, u + begin, y + begin, end - begin,
                                  [&](auto v, auto g) { return g * f.first(v); });
  });
}

/// y[i] = u[i] f''(x[i]), i < n; y may be x or u.
template <class T, class Arch = simd::DefaultArch>
void activate_second(const ActivationParameters& p, const T* x, const T* u, T* y, Index n) {
  detail::for_each_piece<T>(p, n, [&](auto f, Index begin, Index end) {
    detail::for_each_vector<Arch>(x + begin, u + begin, y + begin, end - begin,
                                  [&](auto v, auto g) { return g * f.second(v); });
  });
}

}  // namespace kernels

}  // namespace ordo
