// exp, log, tanh, erf and their like against libm with more digits.

#include <cmath>
#include <limits>

#include "simd/sweep.hpp"

using namespace ordo;
using namespace ordo::test;

namespace {
template <class T>
constexpr T infinity = std::numeric_limits<T>::infinity();
}  // namespace

TEMPLATE_TEST_CASE("exp is within 2 ulp", "[simd]", float, double) {
  using T = TestType;
  using R = Reference<T>;
  const auto exp = [](R x) { return std::exp(x); };
  const auto exp2 = [](R x) { return std::exp2(x); };
  const double top = sizeof(T) == 4 ? 88.7228 : 709.7827;
  const double top2 = sizeof(T) == 4 ? 127.99999 : 1023.9999999;
  const double bottom2 = sizeof(T) == 4 ? -126 : -1022;
  check_ulps<T>("exp", simd::exp, exp, -exp_range<T>, top);
  check_ulps<T>("exp", simd::exp, exp, -2, 2);
  check_ulps<T>("exp_nonpositive", simd::exp_nonpositive, exp, -exp_range<T>, 0);
  check_ulps<T>("exp_nonpositive", simd::exp_nonpositive, exp, -20, 87);
  check_ulps<T>("exp2", simd::exp2, exp2, bottom2, top2);
  check_ulps<T>("exp2_nonpositive", simd::exp2_nonpositive, exp2, bottom2, 0);
  const auto expm1 = [](R x) { return std::expm1(x); };
  check_ulps<T>("expm1", simd::expm1, expm1, -100, top);
  check_ulps<T>("expm1", simd::expm1, expm1, -1, 1);
}

TEMPLATE_TEST_CASE("exp at the edges of its range", "[simd]", float, double) {
  using T = TestType;
  using Limits = std::numeric_limits<T>;
  const T lowest = simd::detail::ExpConstants<T>::lowest;
  const T highest = simd::detail::ExpConstants<T>::highest;
  for (const auto& f : {+[](T x) { return simd::exp(x); }, +[](T x) { return simd::exp_nonpositive(x); }}) {
    CHECK(f(lowest) >= Limits::min());
    CHECK(f(std::nextafter(lowest, -infinity<T>)) == 0);
    CHECK(f(-1000) == 0);
    CHECK(f(-T(1e30)) == 0);
    CHECK(f(Limits::lowest()) == 0);
    CHECK(f(-infinity<T>) == 0);
    CHECK(f(0) == 1);
    CHECK(f(-T(0)) == 1);
    CHECK(f(Limits::denorm_min()) == 1);
  }
  CHECK(std::isfinite(simd::exp(highest)));
  CHECK(simd::exp(std::nextafter(highest, infinity<T>)) == infinity<T>);
  CHECK(simd::exp(T(1e30)) == infinity<T>);
  CHECK(simd::exp(Limits::max()) == infinity<T>);
  CHECK(simd::exp(infinity<T>) == infinity<T>);

  const T bottom2 = simd::detail::ExpConstants<T>::lowest2;
  CHECK(simd::exp2(bottom2) == Limits::min());
  CHECK(simd::exp2(std::nextafter(bottom2, -infinity<T>)) == 0);
  CHECK(simd::exp2_nonpositive(-infinity<T>) == 0);
  CHECK(simd::exp2(-bottom2 + 2) == infinity<T>);
  CHECK(simd::exp2(infinity<T>) == infinity<T>);
  for (int k = -20; k <= 20; ++k) CHECK(simd::exp2(static_cast<T>(k)) == std::ldexp(T(1), k));

  CHECK(simd::expm1(-infinity<T>) == -1);
  CHECK(simd::expm1(T(-1e30)) == -1);
  CHECK(simd::expm1(T(0)) == 0);
  CHECK(std::isfinite(simd::expm1(highest)));
  CHECK(simd::expm1(T(1e30)) == infinity<T>);
  CHECK(simd::expm1(infinity<T>) == infinity<T>);
}

TEMPLATE_TEST_CASE("exp never gives denormal numbers and rises", "[simd]", float, double) {
  using T = TestType;
  using I = simd::IntOf<T>;
  const auto falls_at = [](T centre) {
    const I middle = ordinal(centre);
    T before = -1;
    for (I i = -3000; i < 3000; ++i) {
      const T y = simd::exp(from_ordinal<T>(middle + i));
      if (!(y == 0 || y >= std::numeric_limits<T>::min())) return false;
      if (y < before * (1 - 2 * std::numeric_limits<T>::epsilon())) return false;
      before = y;
    }
    return true;
  };
  CHECK(falls_at(simd::detail::ExpConstants<T>::lowest));
  CHECK(falls_at(simd::detail::ExpConstants<T>::highest));
  CHECK(falls_at(T(-1)));
}

TEMPLATE_TEST_CASE("log is within 2 ulp", "[simd]", float, double) {
  using T = TestType;
  using R = Reference<T>;
  const auto log = [](R x) { return std::log(x); };
  const auto log1p = [](R x) { return std::log1p(x); };
  const double top = static_cast<double>(std::numeric_limits<T>::max());
  check_ulps<T>("log", simd::log, log, static_cast<double>(std::numeric_limits<T>::denorm_min()), top);
  check_ulps<T>("log", simd::log, log, 0.4, 2.1);
  check_ulps<T>("log", simd::log, log, 0.99, 1.01);
  check_ulps<T>("log1p", simd::log1p, log1p, -0.99999, top);
  check_ulps<T>("log1p", simd::log1p, log1p, -0.6, 1.1);
  CHECK(simd::log(T(1)) == 0);
  CHECK(simd::log(T(0)) == -infinity<T>);
  CHECK(simd::log(-T(0)) == -infinity<T>);
  CHECK(simd::log(infinity<T>) == infinity<T>);
  CHECK(std::isnan(simd::log(T(-1))));
  CHECK(std::isnan(simd::log(-infinity<T>)));
  CHECK(simd::log1p(T(0)) == 0);
  CHECK(simd::log1p(T(-1)) == -infinity<T>);
  CHECK(simd::log1p(infinity<T>) == infinity<T>);
  CHECK(std::isnan(simd::log1p(T(-1.5))));
  CHECK(std::isnan(simd::log1p(-infinity<T>)));
}

TEMPLATE_TEST_CASE("tanh, erf and erfc are within 2 ulp", "[simd]", float, double) {
  using T = TestType;
  using R = Reference<T>;
  const auto tanh = [](R x) { return std::tanh(x); };
  const auto erf = [](R x) { return std::erf(x); };
  const auto erfc = [](R x) { return std::erfc(x); };
  check_ulps<T>("tanh", simd::tanh, tanh, -25, 25);
  check_ulps<T>("tanh", simd::tanh, tanh, -1, 1);
  check_ulps<T>("erf", simd::erf, erf, -7, 7);
  check_ulps<T>("erf", simd::erf, erf, -1, 1);
  check_ulps<T>("erfc", simd::erfc, erfc, -7, sizeof(T) == 4 ? 9.19 : 26.5);
  check_ulps<T>("erfc", simd::erfc, erfc, -1, 1);
  for (const T x : points<T>(-50, 50, 10'000)) {
    REQUIRE(std::fabs(simd::tanh(x)) <= 1);
    REQUIRE(std::fabs(simd::erf(x)) <= 1);
  }
  for (const T x : {T(50), T(1e30), std::numeric_limits<T>::max(), infinity<T>}) {
    CHECK(simd::tanh(x) == 1);
    CHECK(simd::tanh(-x) == -1);
    CHECK(simd::erf(x) == 1);
    CHECK(simd::erf(-x) == -1);
    CHECK(simd::erfc(x) == 0);
    CHECK(simd::erfc(-x) == 2);
  }
  CHECK(simd::tanh(T(0)) == 0);
  CHECK(simd::erf(T(0)) == 0);
  CHECK(simd::erfc(T(0)) == 1);
}

TEMPLATE_TEST_CASE("NaN goes through every elementary function", "[simd]", float, double) {
  using T = TestType;
  using I = simd::IntOf<T>;
  const T quiet = std::numeric_limits<T>::quiet_NaN();
  // payloads that look like table indices and exponents
  const T payload = std::bit_cast<T>(static_cast<I>(std::bit_cast<I>(quiet) | I{0x2a5}));
  for (const T x : {quiet, -quiet, payload, -payload}) {
    CHECK(std::isnan(simd::exp(x)));
    CHECK(std::isnan(simd::exp_nonpositive(x)));
    CHECK(std::isnan(simd::exp2(x)));
    CHECK(std::isnan(simd::exp2_nonpositive(x)));
    CHECK(std::isnan(simd::expm1(x)));
    CHECK(std::isnan(simd::log(x)));
    CHECK(std::isnan(simd::log1p(x)));
    CHECK(std::isnan(simd::tanh(x)));
    CHECK(std::isnan(simd::tanh_grad(x)));
    CHECK(std::isnan(simd::erf(x)));
    CHECK(std::isnan(simd::erfc(x)));
  }
}

TEMPLATE_TEST_CASE("a lane does not depend on its neighbours, and a number is a lane", "[simd]", float, double) {
  using T = TestType;
  const std::vector<T> x = points<T>(-30, 30, 2'001);
  std::vector<T> y(x.size());
  const auto check = [&](auto f) {
    simd::transform(x.data(), y.data(), static_cast<Index>(x.size()), f);
    for (std::size_t i = 0; i < x.size(); ++i) {
      REQUIRE(std::bit_cast<simd::IntOf<T>>(y[i]) == std::bit_cast<simd::IntOf<T>>(f(x[i])));
    }
  };
  check(simd::exp);
  check(simd::exp2);
  check(simd::expm1);
  check(simd::tanh);
  check(simd::erf);
}
