// Activations and their derivatives against formulas evaluated with more digits.

#include <cmath>
#include <limits>

#include "simd/sweep.hpp"

using namespace ordo;
using namespace ordo::test;

namespace {

template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();

/// A sum of two numbers. In the tails, where exp(z) magnifies the rounding error of z by |z|, the reference needs it.
template <class R>
struct Pair {
  R hi;
  R lo;
};

template <class R>
Pair<R> times(R a, R b) {
  const R p = a * b;
  return {p, std::fma(a, b, -p)};
}
template <class R>
Pair<R> times(Pair<R> a, R b) {
  const Pair<R> p = times(a.hi, b);
  return {p.hi, p.lo + a.lo * b};
}
template <class R>
Pair<R> plus(Pair<R> a, Pair<R> b) {
  const R s = a.hi + b.hi;
  const R t = s - a.hi;
  return {s, ((a.hi - (s - t)) + (b.hi - t)) + a.lo + b.lo};
}
/// A constant given as the sum of three doubles, for any R.
template <class R>
Pair<R> constant(double a, double b, double c) {
  return plus(plus(Pair<R>{static_cast<R>(a), 0}, {static_cast<R>(b), 0}), {static_cast<R>(c), 0});
}

template <class R>
R sigma(Pair<R> z) {
  const R e = std::exp(-std::fabs(z.hi)) * (1 - std::copysign(z.lo, z.lo * z.hi));
  return z.hi < 0 ? e / (1 + e) : 1 / (1 + e);
}
template <class R>
R sigma(R z) {
  return sigma(Pair<R>{z, 0});
}

/// sqrt(1/2), 2 sqrt(2/pi), 0.044715 times that, 1.702.
template <class R>
Pair<R> root_half() {
  return constant<R>(0x1.6a09e667f3bcdp-1, -0x1.bdd3413b26456p-55, 0x1.57d3e3adec175p-109);
}
template <class R>
Pair<R> c1() {
  return constant<R>(0x1.9884533d43651p0, -0x1.cbc0d30ebfd15p-54, -0x1.c7402c7d60cfbp-110);
}
template <class R>
Pair<R> c3() {
  return constant<R>(0x1.2444f2a4d8b4bp-4, -0x1.6c843a29d1c7p-61, -0x1.e59a5ef3f43e4p-115);
}
template <class R>
Pair<R> c_quick() {
  return constant<R>(0x1.b3b645a1cac08p0, 0x1.89374bc6a7efap-55, -0x1.26e978d4fdf3bp-110);
}

/// Phi(x) = erfc(-x sqrt(1/2)) / 2
template <class R>
R normal(R x) {
  const Pair<R> y = times(root_half<R>(), -x);
  return (std::erfc(y.hi) - R(1.12837916709551257389615890312154517L) * std::exp(-y.hi * y.hi) * y.lo) / 2;
}
template <class R>
R normal_density(R x) {
  return R(0.398942280401432677939946059934381868L) * std::exp(-x * x / 2);
}
template <class R>
Pair<R> gelu_gate(R x) {
  Pair<R> square = times(x, x);
  Pair<R> cubic = times(c3<R>(), square.hi);
  cubic.lo += c3<R>().hi * square.lo;
  return times(plus(c1<R>(), cubic), x);
}
template <class R>
Pair<R> quick_gate(R x) {
  return times(c_quick<R>(), x);
}
template <class R>
R mish_tanh(R x) {
  const R e = std::exp(-std::fabs(x));
  return x < 0 ? e * (e + 2) / (e * (e + 2) + 2) : (1 + 2 * e) / (1 + 2 * e + 2 * e * e);
}

}  // namespace

TEMPLATE_TEST_CASE("sigmoid and softplus are within 2 ulp", "[simd]", float, double) {
  using T = TestType;
  using R = Reference<T>;
  const auto sigmoid = [](R x) { return sigma(x); };
  const auto softplus = [](R x) { return x > 20 ? x : std::log1p(std::exp(x)); };
  const auto log_sigmoid = [](R x) { return x < 0 ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x)); };
  check_ulps<T>("sigmoid", simd::sigmoid, sigmoid, -exp_range<T>, 50);
  check_ulps<T>("sigmoid", simd::sigmoid, sigmoid, -6, 6);
  check_ulps<T>("softplus", simd::softplus, softplus, -exp_range<T>, 50);
  check_ulps<T>("softplus", simd::softplus, softplus, -25, 6);
  check_ulps<T>("log_sigmoid", simd::log_sigmoid, log_sigmoid, -50, exp_range<T>);
  check_ulps<T>("log_sigmoid", simd::log_sigmoid, log_sigmoid, -6, 6);
  for (const T x : {std::nextafter(T(20), T(21)), T(25), T(1e10), std::numeric_limits<T>::max(), infinity<T>}) {
    CHECK(simd::softplus(x) == x);
    CHECK(simd::softplus_grad(x) == 1);
    CHECK(simd::log_sigmoid(-x) == -x - (x < 30 ? std::exp(-x) : T(0)));
  }
  CHECK(simd::softplus(-infinity<T>) == 0);
  CHECK(simd::log_sigmoid(infinity<T>) == 0);
  CHECK(simd::sigmoid(T(0)) == T(0.5));
  CHECK(simd::sigmoid(infinity<T>) == 1);
  CHECK(simd::sigmoid(-infinity<T>) == 0);
  for (const T x : points<T>(-50, 50, 10'000)) {
    REQUIRE(simd::sigmoid(x) >= 0);
    REQUIRE(simd::sigmoid(x) <= 1);
  }
}

TEMPLATE_TEST_CASE("silu, the gelus and mish are within 2 ulp", "[simd]", float, double) {
  using T = TestType;
  using R = Reference<T>;
  const auto silu = [](R x) { return x * sigma(x); };
  const auto gelu = [](R x) { return x * normal(x); };
  const auto gelu_tanh = [](R x) { return x * sigma(gelu_gate(x)); };
  const auto quick_gelu = [](R x) { return x * sigma(quick_gate(x)); };
  const auto mish = [](R x) { return x * mish_tanh(x); };
  const double top = 100;
  check_ulps<T>("silu", simd::silu, silu, -exp_range<T>, top);
  check_ulps<T>("silu", simd::silu, silu, -6, 6);
  check_ulps<T>("gelu", simd::gelu, gelu, sizeof(T) == 4 ? -12.9 : -37.4, top);
  check_ulps<T>("gelu", simd::gelu, gelu, -7, 6);
  check_ulps<T>("gelu_tanh", simd::gelu_tanh, gelu_tanh, sizeof(T) == 4 ? -10 : -20.9, top);
  check_ulps<T>("gelu_tanh", simd::gelu_tanh, gelu_tanh, -6, 6);
  check_ulps<T>("quick_gelu", simd::quick_gelu, quick_gelu, -exp_range<T> / 1.703, top);
  check_ulps<T>("quick_gelu", simd::quick_gelu, quick_gelu, -4, 4);
  check_ulps<T>("mish", simd::mish, mish, -exp_range<T>, top);
  check_ulps<T>("mish", simd::mish, mish, -4, 4);
}

TEMPLATE_TEST_CASE("elu and the piecewise linear activations", "[simd]", float, double) {
  using T = TestType;
  using R = Reference<T>;
  check_ulps<T>("elu", simd::elu, [](R x) { return x > 0 ? x : std::expm1(x); }, -100, 100);
  check_ulps<T>("elu_grad", simd::elu_grad, [](R x) { return x > 0 ? R(1) : std::exp(x); }, -exp_range<T>, 100);
  check_ulps<T>("relu", simd::relu, [](R x) { return x > 0 ? x : R(0); }, -5, 5, 0);
  check_ulps<T>("relu_squared", simd::relu_squared, [](R x) { return x > 0 ? x * x : R(0); }, -5, 5);
  const auto gate = [](R x) { return std::fmin(std::fmax(x + 3, R(0)), R(6)) / 6; };
  check_absolute<T>("hard_sigmoid", simd::hard_sigmoid, gate, -80, 80, 1);
  check_absolute<T>("hard_swish", simd::hard_swish, [&](R x) { return x * gate(x); }, -80, 80, 1.5);
  for (const T x : {T(80), T(1e30), std::numeric_limits<T>::max(), infinity<T>}) {
    CHECK(simd::hard_swish(x) == x);
    CHECK(simd::hard_swish(-x) == 0);
    CHECK(simd::hard_sigmoid(x) == 1);
    CHECK(simd::hard_sigmoid(-x) == 0);
    CHECK(simd::elu(x) == x);
    CHECK(simd::elu(-x) == -1);
    CHECK(simd::elu_grad(x) == 1);
    CHECK(simd::relu(x) == x);
    CHECK(simd::relu(-x) == 0);
  }
  CHECK(simd::hard_sigmoid_grad(T(1)) == T(1) / T(6));
  CHECK(simd::hard_sigmoid_grad(T(4)) == 0);
  CHECK(simd::hard_swish_grad(T(0)) == T(0.5));
  CHECK(simd::hard_swish_grad(T(-4)) == 0);
  CHECK(simd::hard_swish_grad(T(4)) == 1);
}

TEMPLATE_TEST_CASE("derivatives of activations", "[simd]", float, double) {
  using T = TestType;
  using R = Reference<T>;
  const auto bump = [](R x) { return sigma(x) * sigma(-x); };
  check_ulps<T>("sigmoid_grad", simd::sigmoid_grad, bump, -exp_range<T>, exp_range<T>);
  check_ulps<T>("tanh_grad", simd::tanh_grad, [&](R x) { return 4 * bump(2 * x); }, -30, 30);
  check_ulps<T>("softplus_grad", simd::softplus_grad, [](R x) { return x > 20 ? R(1) : sigma(x); }, -60, 60);
  check_ulps<T>("log_sigmoid_grad", simd::log_sigmoid_grad, [](R x) { return sigma(-x); }, -60, 60);

  const auto silu = [](R x) { return sigma(x) * (1 + x * sigma(-x)); };
  const auto gelu = [](R x) { return normal(x) + x * normal_density(x); };
  const auto gelu_tanh = [](R x) {
    const Pair<R> z = gelu_gate(x);
    return sigma(z) * (1 + x * (c1<R>().hi + 3 * c3<R>().hi * x * x) * sigma(-z.hi));
  };
  const auto quick_gelu = [](R x) {
    const R z = c_quick<R>().hi * x;
    return sigma(z) * (1 + z * sigma(-z));
  };
  const auto mish = [&](R x) {
    const R t = mish_tanh(x);
    return t + x * (1 - t * t) * sigma(x);
  };
  // they cross zero: units of max(1, |f'|) there, units in the last place (8) in the tails
  check_absolute<T>("silu_grad", simd::silu_grad, silu, -80, 80, 2);
  check_absolute<T>("gelu_grad", simd::gelu_grad, gelu, -80, 80, 2);
  check_absolute<T>("gelu_tanh_grad", simd::gelu_tanh_grad, gelu_tanh, -80, 80, 2);
  check_absolute<T>("quick_gelu_grad", simd::quick_gelu_grad, quick_gelu, -80, 80, 2);
  check_absolute<T>("mish_grad", simd::mish_grad, mish, -80, 80, 3);
  check_ulps<T>("silu_grad", simd::silu_grad, silu, -80, -2, 8);
  check_ulps<T>("gelu_grad", simd::gelu_grad, gelu, -12, -1.5, 8);
  check_ulps<T>("gelu_tanh_grad", simd::gelu_tanh_grad, gelu_tanh, -9, -1.5, 8);
  check_ulps<T>("quick_gelu_grad", simd::quick_gelu_grad, quick_gelu, -40, -1.5, 8);
}

TEMPLATE_TEST_CASE("activations at the ends of the number line", "[simd]", float, double) {
  using T = TestType;
  for (const T x : {T(80), T(1000), T(1e30), std::numeric_limits<T>::max(), infinity<T>}) {
    CAPTURE(x);
    CHECK(simd::silu(x) == x);
    CHECK(simd::gelu(x) == x);
    CHECK(simd::gelu_tanh(x) == x);
    CHECK(simd::quick_gelu(x) == x);
    CHECK(simd::mish(x) == x);
    CHECK(simd::silu_grad(x) == 1);
    CHECK(simd::gelu_grad(x) == 1);
    CHECK(simd::gelu_tanh_grad(x) == 1);
    CHECK(simd::quick_gelu_grad(x) == 1);
    CHECK(simd::mish_grad(x) == 1);
    CHECK(simd::sigmoid_grad(x) <= T(1e-30));
    // limits, not NaN, and no denormal numbers, on the left
    for (const T y : {simd::silu(-x), simd::gelu(-x), simd::gelu_tanh(-x), simd::quick_gelu(-x), simd::mish(-x),
                      simd::silu_grad(-x), simd::gelu_grad(-x), simd::gelu_tanh_grad(-x), simd::quick_gelu_grad(-x),
                      simd::mish_grad(-x), simd::tanh_grad(-x)}) {
      CHECK(std::fabs(y) <= T(1e-30));
      CHECK((y == 0 || std::fabs(y) >= std::numeric_limits<T>::min()));
    }
  }
  for (const T x : {T(0), -T(0)}) {
    CHECK(simd::silu(x) == 0);
    CHECK(simd::gelu(x) == 0);
    CHECK(simd::gelu_tanh(x) == 0);
    CHECK(simd::quick_gelu(x) == 0);
    CHECK(simd::mish(x) == 0);
  }
}

TEMPLATE_TEST_CASE("NaN goes through every activation", "[simd]", float, double) {
  using T = TestType;
  using I = simd::IntOf<T>;
  const T quiet = std::numeric_limits<T>::quiet_NaN();
  const T payload = std::bit_cast<T>(static_cast<I>(std::bit_cast<I>(quiet) | I{0x2a5}));
  for (const T x : {quiet, -quiet, payload, -payload}) {
    for (const T y :
         {simd::sigmoid(x), simd::softplus(x), simd::log_sigmoid(x), simd::silu(x), simd::gelu(x), simd::gelu_tanh(x),
          simd::quick_gelu(x), simd::mish(x), simd::elu(x), simd::relu(x), simd::relu_squared(x), simd::hard_sigmoid(x),
          simd::hard_swish(x), simd::sigmoid_grad(x), simd::softplus_grad(x), simd::log_sigmoid_grad(x),
          simd::silu_grad(x), simd::gelu_grad(x), simd::gelu_tanh_grad(x), simd::quick_gelu_grad(x), simd::mish_grad(x),
          simd::elu_grad(x)}) {
      CHECK(std::isnan(y));
    }
  }
}
