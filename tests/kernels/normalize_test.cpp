// Layer norm and RMS norm against their formulas in double, gradients against central differences.

#include "ordo/kernels/normalize.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "scan_support.hpp"
#include "support/catch.hpp"

namespace {

using namespace ordo;
using namespace scan_test;
using kernels::Normalization;

struct Problem {
  Index rows, n;
  bool centered, with_weight, with_bias;
  double offset, eps;
  Doubles x, weight, bias, dy;

  Problem(Index number_rows, Index columns, bool is_centered, bool has_weight, bool has_bias, double weight_offset = 0,
          double epsilon = 1e-5)
      : rows(number_rows),
        n(columns),
        centered(is_centered),
        with_weight(has_weight),
        with_bias(has_bias),
        offset(weight_offset),
        eps(static_cast<double>(static_cast<float>(epsilon))) {
    Random r(11);
    x = random(r, rows * n, -1, 2);
    if (has_weight) weight = random(r, n, 0.5, 1.5);
    if (has_bias) bias = random(r, n, -1, 1);
    dy = random(r, rows * n, -1, 1);
  }
};

Doubles reference(const Problem& p) {
  Doubles y(p.x.size());
  for (Index r = 0; r < p.rows; ++r) {
    const double* x = p.x.data() + r * p.n;
    double mean = 0, square = 0;
    if (p.centered) {
      for (Index i = 0; i < p.n; ++i) mean += x[i] / static_cast<double>(p.n);
    }
    for (Index i = 0; i < p.n; ++i) square += (x[i] - mean) * (x[i] - mean) / static_cast<double>(p.n);
    for (Index i = 0; i < p.n; ++i) {
      const double factor = p.with_weight ? p.offset + p.weight[sz(i)] : 1;
      y[sz(r * p.n + i)] = (x[i] - mean) / std::sqrt(square + p.eps) * factor + (p.with_bias ? p.bias[sz(i)] : 0);
    }
  }
  return y;
}

struct Outcome {
  Doubles y, dx, dweight, dbias;
};

template <class T>
Outcome run(const Problem& p) {
  const auto x = converted<T>(p.x), weight = converted<T>(p.weight), bias = converted<T>(p.bias),
             dy = converted<T>(p.dy);
  Normalization<T> in;
  in.centered = p.centered;
  in.rows = p.rows;
  in.n = p.n;
  in.x = x.data();
  if (p.with_weight) in.weight = weight.data();
  if (p.with_bias) in.bias = bias.data();
  in.weight_offset = static_cast<T>(p.offset);
  in.eps = static_cast<T>(p.eps);
  std::vector<T> y(x.size()), mean(sz(p.rows)), scale(sz(p.rows)), dx(x.size()), dweight(sz(p.n)), dbias(sz(p.n));
  kernels::normalize_forward<T>(in, y.data(), mean.data(), scale.data());
  kernels::normalize_backward<T>(in, mean.data(), scale.data(), dy.data(), dx.data(), dweight.data(), dbias.data());
  return {doubles(y), doubles(dx), p.with_weight ? doubles(dweight) : Doubles{},
          p.with_bias ? doubles(dbias) : Doubles{}};
}

Outcome numeric(Problem p) {
  const auto loss = [&p] {
    const Doubles y = reference(p);
    double sum = 0;
    for (std::size_t i = 0; i < y.size(); ++i) sum += p.dy[i] * y[i];
    return sum;
  };
  Outcome out;
  out.dx = central_differences(p.x, loss);
  out.dweight = central_differences(p.weight, loss);
  out.dbias = central_differences(p.bias, loss);
  return out;
}

}  // namespace

TEST_CASE("normalize: values and gradients for every width, centered or not") {
  for (const bool centered : {false, true}) {
    for (const Index n : {1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65}) {
      CAPTURE(centered, n);
      const Problem p(3, n, centered, n % 3 != 0, centered && n % 2 == 0, n % 4 == 1 ? 1 : 0, n < 4 ? 0.1 : 1e-5);
      const Outcome got = run<double>(p), in_float = run<float>(p), expected = numeric(p);
      const Doubles y = reference(p);
      CHECK(difference(got.y, y) < 1e-13);
      CHECK(difference(in_float.y, y) < 1e-6);
      CHECK(difference(got.dx, expected.dx) < 1e-7);
      CHECK(difference(got.dweight, expected.dweight) < 1e-9);
      CHECK(difference(got.dbias, expected.dbias) < 1e-9);
      CHECK(difference(in_float.dx, got.dx) < (n == 1 && centered ? 1.1 : 1e-5));  // n = 1: all is rounding around 0
      CHECK(difference(in_float.dweight, got.dweight) < 2e-6);
    }
  }
}

TEST_CASE("normalize: a mean that is large against the deviation") {
  for (const double mean : {300.0, 1e4}) {
    CAPTURE(mean);
    Problem p(5, 65, true, true, true);
    Random r(5);
    for (double& v : p.x) v = static_cast<double>(static_cast<float>(mean + r.uniform(-1.5, 1.5)));
    // The inputs are what float holds; from there on only the last places of y may differ.
    const Outcome in_float = run<float>(p), in_double = run<double>(p);
    CHECK(difference(in_float.y, reference(p)) < 2e-6);
    CHECK(difference(in_float.dx, in_double.dx) < 2e-5);
    CHECK(difference(in_float.dweight, in_double.dweight) < 2e-5);
  }
}

TEST_CASE("normalize: a constant row gives the bias, and a finite gradient") {
  for (const double value : {0.0, 0.3, 300.7, -12345.6}) {
    CAPTURE(value);
    Problem p(2, 33, true, true, true);
    for (double& v : p.x) v = static_cast<double>(static_cast<float>(value));
    const Outcome in_float = run<float>(p), in_double = run<double>(p);
    for (Index i = 0; i < p.n; ++i) CHECK(std::abs(in_float.y[sz(i)] - p.bias[sz(i)]) < 1e-5);
    // No deviation, so the gradient is that of the mean's removal alone, divided by sqrt(eps).
    Doubles expected(p.x.size());
    for (Index row = 0; row < p.rows; ++row) {
      double mean = 0;
      for (Index i = 0; i < p.n; ++i) mean += p.dy[sz(row * p.n + i)] * p.weight[sz(i)] / static_cast<double>(p.n);
      for (Index i = 0; i < p.n; ++i) {
        expected[sz(row * p.n + i)] = (p.dy[sz(row * p.n + i)] * p.weight[sz(i)] - mean) / std::sqrt(p.eps);
      }
    }
    CHECK(difference(in_float.dx, expected) < 1e-5);
    CHECK(difference(in_double.dx, expected) < 1e-11);
  }
  Problem p(1, 16, false, true, false);
  std::fill(p.x.begin(), p.x.end(), 0.0);
  const Outcome zero = run<float>(p);
  CHECK(*std::max_element(zero.y.begin(), zero.y.end()) == 0);
  CHECK(difference(zero.dx, run<double>(p).dx) < 1e-6);
}

TEST_CASE("normalize: sums over many rows have the same bits for any number of threads") {
  const Problem p(700, 50, true, true, true);
  const Outcome one = run<float>(p);
  CHECK(difference(one.dweight, run<double>(p).dweight) < 1e-5);
  set_num_threads(3);
  const Outcome many = run<float>(p);
  set_num_threads(1);
  CHECK(many.y == one.y);
  CHECK(many.dx == one.dx);
  CHECK(many.dweight == one.dweight);
  CHECK(many.dbias == one.dbias);
}
