#pragma once
// Dense comparison of a vector function with a reference of more digits.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "ordo/simd/math.hpp"
#include "support/catch.hpp"

namespace ordo::test {

/// Float is judged by double, double by long double (64 or 113 digits; where it has only 53, double is not judged).
template <class T>
using Reference = std::conditional_t<std::is_same_v<T, float>, double, long double>;

template <class T>
inline constexpr bool has_reference = std::numeric_limits<Reference<T>>::digits >= std::numeric_limits<T>::digits + 11;

/// Numbers in the order of their values, as integers: neighbours differ by 1.
template <class T>
simd::IntOf<T> ordinal(T x) {
  const auto bits = std::bit_cast<simd::IntOf<T>>(x);
  return bits >= 0 ? bits : static_cast<simd::IntOf<T>>(std::numeric_limits<simd::IntOf<T>>::min() - bits);
}
template <class T>
T from_ordinal(simd::IntOf<T> i) {
  return std::bit_cast<T>(i >= 0 ? i : static_cast<simd::IntOf<T>>(std::numeric_limits<simd::IntOf<T>>::min() - i));
}

/// n points in [low, high]: half of them evenly spread over the values, half over the bit patterns (so that every
/// binary order of magnitude is met), and both ends.
template <class T>
std::vector<T> points(double low, double high, std::size_t n) {
  std::vector<T> x;
  x.reserve(n);
  std::mt19937_64 random(n);
  const auto unit = [&] { return static_cast<double>(random() >> 11) * 0x1p-53; };
  const auto first = static_cast<double>(ordinal(static_cast<T>(low)));
  const auto last = static_cast<double>(ordinal(static_cast<T>(high)));
  for (std::size_t i = 0; i + 2 < n; ++i) {
    const double at = (static_cast<double>(i / 2) + unit()) / (static_cast<double>(n) / 2);
    const auto in_order = static_cast<simd::IntOf<T>>(first + (last - first) * at);
    // the middle digits of a double are lost in `first + ...`: fill them
    const auto low_bits = sizeof(T) == 8 ? static_cast<simd::IntOf<T>>(random() & 0x3ff) : simd::IntOf<T>{0};
    const T v = i % 2 == 0 ? static_cast<T>(low + (high - low) * at)
                           : from_ordinal<T>(static_cast<simd::IntOf<T>>(in_order ^ low_bits));
    x.push_back(std::clamp(v, static_cast<T>(low), static_cast<T>(high)));
  }
  x.push_back(static_cast<T>(low));
  x.push_back(static_cast<T>(high));
  return x;
}

/// |y - wanted| in units in the last place of T at `wanted`; a flushed result counts its distance to 0.
template <class T>
double ulps(T y, Reference<T> wanted) {
  if (std::isnan(y) || std::isinf(y)) return std::numeric_limits<double>::infinity();
  const int lowest = std::numeric_limits<T>::min_exponent - 1;
  const int exponent = wanted == 0 ? lowest : std::max(lowest, std::ilogb(wanted));
  const auto unit = std::ldexp(Reference<T>(1), exponent - std::numeric_limits<T>::digits + 1);
  return static_cast<double>(std::fabs(static_cast<Reference<T>>(y) - wanted) / unit);
}

template <class T>
struct Worst {
  double error = 0;
  T at = 0;
  T got = 0;
  Reference<T> wanted = 0;
};

/// The largest of measure(y, wanted) over the points of [low, high].
template <class T, class F, class R, class Measure>
Worst<T> worst_of(F&& f, R&& reference, double low, double high, Measure&& measure) {
  const std::vector<T> x = points<T>(low, high, std::is_same_v<T, float> ? 800'000 : 120'000);
  std::vector<T> y(x.size());
  simd::transform(x.data(), y.data(), static_cast<Index>(x.size()), f);
  Worst<T> worst;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const Reference<T> wanted = reference(static_cast<Reference<T>>(x[i]));
    const double error = measure(y[i], wanted);
    if (!(error <= worst.error)) worst = {error, x[i], y[i], wanted};
  }
  return worst;
}

/// Checks f to `limit` units in the last place on [low, high].
template <class T, class F, class R>
void check_ulps(const std::string& name, F&& f, R&& reference, double low, double high, double limit = 2.0) {
  if constexpr (has_reference<T>) {
    const Worst<T> worst = worst_of<T>(f, reference, low, high, [](T y, Reference<T> r) { return ulps<T>(y, r); });
    INFO(name << (sizeof(T) == 4 ? " float" : " double") << " on [" << low << ", " << high << "]: f(" << worst.at
              << ") = " << worst.got << ", not " << static_cast<double>(worst.wanted));
    CHECK(worst.error <= limit);
  }
}

/// Checks f to `limit` epsilons times max(1, |f|): for derivatives, which cross zero.
template <class T, class F, class R>
void check_absolute(const std::string& name, F&& f, R&& reference, double low, double high, double limit) {
  if constexpr (has_reference<T>) {
    const Worst<T> worst = worst_of<T>(f, reference, low, high, [](T y, Reference<T> r) {
      return static_cast<double>(std::fabs(static_cast<Reference<T>>(y) - r) /
                                 std::max(Reference<T>(1), std::fabs(r)) / std::numeric_limits<T>::epsilon());
    });
    INFO(name << (sizeof(T) == 4 ? " float" : " double") << " on [" << low << ", " << high << "]: f(" << worst.at
              << ") = " << worst.got << ", not " << static_cast<double>(worst.wanted));
    CHECK(worst.error <= limit);
  }
}

/// The range on which exp(-|x|) is a normal number.
template <class T>
inline constexpr double exp_range = sizeof(T) == 4 ? 87.33 : 708.39;

}  // namespace ordo::test
