#pragma once
// What the tests of ops share: random tensors, and comparison with naive results.

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "ordo/autograd/gradcheck.hpp"
#include "ordo/core/random.hpp"
#include "ordo/core/tensor.hpp"
#include "support/catch.hpp"

namespace test {

using ordo::Index;

/// Uniform numbers on (low, high).
template <class T = double, std::convertible_to<Index>... I>
ordo::DynTensor<T, sizeof...(I)> random_tensor(std::uint64_t seed, double low, double high, I... extents) {
  ordo::DynTensor<T, sizeof...(I)> x(ordo::DynExtents<sizeof...(I)>(static_cast<Index>(extents)...));
  ordo::Random random(seed);
  for (T& v : x) v = static_cast<T>(random.uniform(low, high));
  return x;
}
template <class T = double, std::convertible_to<Index>... I>
auto random_tensor(std::uint64_t seed, I... extents) {
  return random_tensor<T>(seed, -2.0, 2.0, extents...);
}

/// The largest difference from expected(i), i the row-major position, relative to the largest expected value.
template <class Y, class F>
double difference(const Y& y, F&& expected) {
  double largest = 1e-6, worst = 0;
  for (Index i = 0; i < y.size(); ++i) {
    const double e = static_cast<double>(expected(i)), d = std::abs(static_cast<double>(y.data()[i]) - e);
    largest = std::max(largest, std::abs(e));
    if (!(d <= worst)) worst = d;
  }
  return worst / largest;
}

/// First and second derivatives of f agree with differences. 1e-6 is what the design asks for; 1e-8 is what smooth
/// functions give, so that a wrong term of small weight shows.
template <class F, class... X>
void check_gradients(F&& f, X&... x) {
  const auto first = ordo::gradcheck(f, x...);
  INFO("first derivative: " << first.where);
  CHECK(first.error < 1e-8);
  CHECK(first.checked > 0);
  const auto second = ordo::gradcheck_second(f, x...);
  INFO("second derivative: " << second.where);
  CHECK(second.error < 1e-8);
}

/// The message of the error E that f throws, or what happened instead.
template <class E, class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  } catch (const ordo::Error& e) {
    return std::string("another error: ") + e.what();
  }
  return "no error";
}

}  // namespace test
