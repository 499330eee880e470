#include "ordo/ops/reduce.hpp"

#include <cmath>
#include <limits>

#include "ops/support.hpp"
#include "ordo/core/parallel.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

namespace {

/// f over the line of x along `axis` that result element i stands for.
template <class X, class F>
double over_line(const X& x, std::size_t axis, Index i, double start, F&& f) {
  const Index n = x.extent(axis), inner = x.shape().size(axis + 1, X::rank());
  for (Index j = 0; j < n; ++j)
    start = f(start, static_cast<double>(x.data()[(i / inner * n + j) * inner + i % inner]));
  return start;
}

}  // namespace

TEMPLATE_TEST_CASE("reductions along any axis", "", float, double) {
  const double tolerance = std::is_same_v<TestType, float> ? 1e-6 : 1e-15;
  const auto plus = [](double a, double b) { return a + b; };
  const auto larger = [](double a, double b) { return std::max(a, b); };
  for (Index last : {1, 5, 16, 67}) {
    const auto x = random_tensor<TestType>(1, 3, 70, last);
    for (Index axis = -3; axis < 3; ++axis) {
      const auto at = static_cast<std::size_t>((axis + 3) % 3);
      const double n = static_cast<double>(x.extent(at));
      CAPTURE(last, axis);
      Shape kept = x.shape();
      kept[at] = 1;
      const auto s = sum(x, axis);
      CHECK(s.rank() == 2);
      CHECK(difference(s, [&](Index i) { return over_line(x, at, i, 0, plus); }) < tolerance);
      CHECK(sum(x, axis, keep_axis).shape() == kept);
      CHECK(difference(sum(x, axis, keep_axis), [&](Index i) { return s.data()[i]; }) == 0);
      CHECK(difference(mean(x, axis), [&](Index i) { return over_line(x, at, i, 0, plus) / n; }) < tolerance);
      CHECK(mean(x, axis, keep_axis).shape() == kept);
      CHECK(difference(max(x, axis), [&](Index i) { return over_line(x, at, i, -1e9, larger); }) == 0);
      CHECK(max(x, axis, keep_axis).shape() == kept);
    }
  }
}

TEST_CASE("the sum of all elements") {
  const auto x = random_tensor(1, 7, 9);
  double total = 0;
  for (double v : x) total += v;
  CHECK(sum(x).rank() == 0);
  CHECK(std::abs(*sum(x).data() - total) < 1e-13);
  CHECK(std::abs(*mean(x).data() - total / 63) < 1e-15);
  CHECK(*sum(random_tensor(1, 0, 4)).data() == 0);
  CHECK(sum(random_tensor(1, 0, 4), 0).shape() == Shape{4});
  CHECK(sum(random_tensor(1, 0, 4), 1).shape() == Shape{0});
}

TEST_CASE("long float sums keep their precision, with the same bits on any number of threads") {
  // Naive float summation of ten million numbers around 0.5 would be off by about 1e-3.
  DynTensor<float, 2> x(5000, 2000);
  Random random(3);
  for (float& v : x) v = static_cast<float>(random.uniform());
  double total = 0;
  for (float v : x) total += static_cast<double>(v);
  const auto all = sum(x), rows = sum(reshape(x, 5000 * 2000));
  CHECK(std::abs(static_cast<double>(*all.data()) / total - 1) < 5e-7);
  const auto columns = sum(x, 0), lines = sum(x, 1);
  double worst = 0;
  for (Index j = 0; j < 2000; ++j) {
    double expected = 0;
    for (Index i = 0; i < 5000; ++i) expected += static_cast<double>(x(i, j));
    worst = std::max(worst, std::abs(static_cast<double>(columns(j)) / expected - 1));
  }
  CHECK(worst < 1e-6);
  set_num_threads(2);
  CHECK(*sum(x).data() == *all.data());
  CHECK(*sum(reshape(x, 5000 * 2000)).data() == *rows.data());
  CHECK(difference(sum(x, 0), [&](Index i) { return columns.data()[i]; }) == 0);
  CHECK(difference(sum(x, 1), [&](Index i) { return lines.data()[i]; }) == 0);
  set_num_threads(1);
}

TEST_CASE("derivatives of reductions, first and second") {
  auto x = random_tensor(1, 3, 4, 5);
  check_gradients([](const auto& a) { return square(sum(a)); }, x);
  check_gradients([](const auto& a) { return square(mean(square(a))); }, x);
  for (Index axis : {0, 1, 2, -1}) {
    check_gradients([=](const auto& a) { return square(sum(square(a), axis)); }, x);
    check_gradients([=](const auto& a) { return mul(a, mean(square(a), axis, keep_axis)); }, x);
    check_gradients([=](const auto& a) { return square(max(square(a), axis)); }, x);
    check_gradients([=](const auto& a) { return exp(sub(a, max(a, axis, keep_axis))); }, x);
  }
}

TEST_CASE("max: ties, NaN, and empty axes") {
  Tape tape;
  const auto x = track(tape, DynTensor<double, 2>(DynExtents<2>(2, 3), {1, 7, 7, 5, 5, 2}));
  const Gradients g = tape.backward(sum(max(x, 1)));
  CHECK(difference(g.of(x), [](Index i) { return i == 1 || i == 3 ? 1 : 0; }) == 0);  // the first of equal ones
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  const DynTensor<double, 2> lowest(DynExtents<2>(2, 2), -infinity);
  CHECK(max(lowest, 1)(1) == -infinity);
  CHECK(max(lowest, 0)(1) == -infinity);
  const DynTensor<double, 2> y(DynExtents<2>(3, 2), {1, nan, nan, 3, 2, 4});
  CHECK(std::isnan(max(y, 0)(0)));
  CHECK(std::isnan(max(y, 0)(1)));
  CHECK(std::isnan(max(y, 1)(0)));
  CHECK(error_of<ShapeError>([] { max(DynTensor<float, 2>(3, 0), 1); }) == "max: axis 1 of shape [3, 0] is empty");
  CHECK(error_of<ShapeError>([] { sum(DynTensor<float, 2>(3, 2), 2); }) == "sum: axis 2 of a tensor of rank 2");
  CHECK(error_of<ShapeError>([] { mean(DynTensor<float, 2>(3, 2), -3); }) == "mean: axis -3 of a tensor of rank 2");
}
