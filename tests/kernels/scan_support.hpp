#pragma once
// What the tests of scans share: arrays with gaps that must stay untouched, and central differences.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/kernels/sequences.hpp"
#include "support/catch.hpp"

namespace scan_test {

using ordo::Index;
using Doubles = std::vector<double>;

inline std::size_t sz(Index i) { return static_cast<std::size_t>(i); }

/// Numbers that a float holds exactly, so that float and double kernels see the same inputs.
inline Doubles random(ordo::Random& r, Index n, double low, double high) {
  Doubles x(sz(n));
  for (double& v : x) v = static_cast<double>(static_cast<float>(r.uniform(low, high)));
  return x;
}

/// Rows that are slices of wider ones; what lies between them is NaN and has to stay it.
template <class T>
struct Strided {
  Index rows, columns, stride;
  std::vector<T> values;

  Strided(Index r, Index c, Index gap = 3)
      : rows(r), columns(c), stride(c + gap), values(sz(r * stride), std::numeric_limits<T>::quiet_NaN()) {}
  Strided(Index r, Index c, const Doubles& from, Index gap = 3) : Strided(r, c, gap) {
    for (Index i = 0; i < r; ++i) {
      for (Index j = 0; j < c; ++j) values[sz(i * stride + j)] = static_cast<T>(from[sz(i * c + j)]);
    }
  }
  ordo::kernels::Rows<T> view() { return {values.data(), stride}; }
  ordo::kernels::Rows<const T> view() const { return {values.data(), stride}; }
  Doubles dense() const {
    Doubles out;
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < columns; ++j) out.push_back(static_cast<double>(values[sz(i * stride + j)]));
    }
    return out;
  }
  bool gaps_untouched() const {
    for (Index i = 0; i < rows; ++i) {
      for (Index j = columns; j < stride; ++j) {
        if (!std::isnan(values[sz(i * stride + j)])) return false;
      }
    }
    return true;
  }
};

template <class T>
std::vector<T> converted(const Doubles& x) {
  std::vector<T> out(x.size());
  std::transform(x.begin(), x.end(), out.begin(), [](double v) { return static_cast<T>(v); });
  return out;
}
template <class T>
Doubles doubles(const std::vector<T>& x) {
  return Doubles(x.begin(), x.end());
}

/// The largest difference, relative to the largest number expected; infinite if the sizes differ or something is not
/// finite.
inline double difference(const Doubles& got, const Doubles& expected) {
  if (got.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double largest = 0, worst = 0;
  for (double v : expected) largest = std::max(largest, std::abs(v));
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double d = std::abs(got[i] - expected[i]);
    if (!(d <= worst)) worst = std::isnan(d) ? std::numeric_limits<double>::infinity() : d;
  }
  return worst == 0 ? 0 : worst / (largest > 0 ? largest : 1);
}

/// d loss() / d x by central differences: two step widths, so that the error is of fourth order.
template <class F>
Doubles central_differences(Doubles& x, F&& loss) {
  Doubles g;
  for (double& v : x) {
    const double old = v, h = 1e-3 * std::max(0.1, std::abs(old));
    const auto slope = [&](double step) {
      v = old + step;
      const double up = loss();
      v = old - step;
      const double down = loss();
      v = old;
      return (up - down) / (2 * step);
    };
    const double narrow = slope(h), wide = slope(2 * h);
    g.push_back(narrow + (narrow - wide) / 3);
  }
  return g;
}

}  // namespace scan_test
