#include "ordo/ops/entmax.hpp"

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

constexpr double infinity = std::numeric_limits<double>::infinity();

/// max(s_i - tau, 0)^power with sum 1, tau by bisection: another way than the one that is tested.
template <class T>
std::vector<double> naive(const T* x, Index n, double factor, int power) {
  const auto value = [&](Index i, long double tau) {
    const long double over = std::max<long double>(static_cast<long double>(x[i]) * factor - tau, 0);
    return power == 1 ? over : over * over;
  };
  long double high = -infinity;
  for (Index i = 0; i < n; ++i) high = std::max<long double>(high, static_cast<long double>(x[i]) * factor);
  long double low = high - 1;
  for (int step = 0; step < 200; ++step) {
    const long double tau = (low + high) / 2;
    long double total = 0;
    for (Index i = 0; i < n; ++i) total += value(i, tau);
    (total > 1 ? low : high) = tau;
  }
  std::vector<double> y;
  for (Index i = 0; i < n; ++i) y.push_back(static_cast<double>(value(i, low)));
  return y;
}

}  // namespace

TEMPLATE_TEST_CASE("sparsemax and entmax15 against thresholds found by bisection", "", float, double) {
  const double tolerance = std::is_same_v<TestType, float> ? 2e-6 : 1e-14;
  for (const double reach : {0.01, 1.0, 5.0}) {
    for (const Index n : {1, 2, 3, 16, 65, 130}) {
      const auto x = random_tensor<TestType>(1, -reach, reach, 7, n);
      const auto sparse = sparsemax(x), ent = entmax15(x);
      CAPTURE(reach, n);
      for (Index r = 0; r < 7; ++r) {
        const auto s = naive(x.data() + r * n, n, 1, 1), e = naive(x.data() + r * n, n, 0.5, 2);
        for (Index i = 0; i < n; ++i) {
          const auto at = static_cast<std::size_t>(i);
          CHECK(std::abs(static_cast<double>(sparse(r, i)) - s[at]) < tolerance);
          CHECK(std::abs(static_cast<double>(ent(r, i)) - e[at]) < tolerance);
        }
      }
    }
  }
  const auto x = random_tensor<TestType>(2, 3, 5, 4);
  const auto turned = transpose(sparsemax(transpose(x, 1, 2)), 1, 2);
  CHECK(difference(sparsemax(x, 1), [&](Index i) { return turned.data()[i]; }) == 0);
}

TEST_CASE("sparsemax and entmax15: masked, equal, large and not-a-number scores") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const DynTensor<double, 2> x(DynExtents<2>(5, 4), {0, 0, 0, 0, -infinity, 3, -infinity, 3, -infinity, -infinity, -infinity, -infinity,
                                                     1e300, 0, -1e300, 1, nan, 0, 1, 2});
  for (const auto& y : {sparsemax(x), entmax15(x)}) {
    const double expected[] = {0.25, 0.25, 0.25, 0.25, 0, 0.5, 0, 0.5, 0, 0, 0, 0, 1, 0, 0, 0};
    for (Index i = 0; i < 16; ++i) CHECK(std::abs(y.data()[i] - expected[i]) < 1e-15);
    for (Index i = 16; i < 20; ++i) CHECK(std::isnan(y.data()[i]));
  }
  // What arrives where y is 0 does not matter.
  const DynTensor<double, 2> z(DynExtents<2>(1, 3), {1, 0.5, -4}), u(DynExtents<2>(1, 3), {1, 2, nan});
  Tape tape;
  const auto tracked = track(tape, z);
  const auto g = tape.backward(sparsemax(tracked), borrow(u)).of(tracked);
  const double gradient[] = {-0.5, 0.5, 0};
  CHECK(difference(g, [&](Index i) { return gradient[i]; }) < 1e-15);
}

TEST_CASE("derivatives of sparsemax and entmax15, first and second") {
  auto x = random_tensor(3, -1.0, 1.0, 3, 4, 5);
  auto w = random_tensor(4, 3, 4, 5);
  for (const Index axis : {-1, 1}) {
    check_gradients([=](const auto& a) { return sparsemax(a, axis); }, x);
    check_gradients([=](const auto& a, const auto& b) { return mul(square(sparsemax(square(a), axis)), b); }, x, w);
    check_gradients([=](const auto& a, const auto& b) { return mul(square(entmax15(a, axis)), b); }, x, w);
  }
}

TEST_CASE("softmax_masked: only what the mask lets through") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  auto x = random_tensor(1, 2, 3, 4);
  DynTensor<bool, 3> mask(Index{1}, Index{3}, Index{4});
  for (Index i = 0; i < 12; ++i) mask.data()[i] = i < 8 && i % 3 != 1;  // the last row of each: nothing
  for (Index i = 0; i < 24; ++i) {
    if (!mask.data()[i % 12]) x.data()[i] = i % 2 == 0 ? nan : infinity;
  }
  Tape tape;
  const auto tracked = track(tape, x);
  const auto y = softmax_masked(tracked, mask);
  const auto g = tape.backward(y, borrow(random_tensor(2, 2, 3, 4))).of(tracked);
  for (Index r = 0; r < 6; ++r) {
    double total = 0, expected = 0, flow = 0;
    for (Index i = r * 4; i < r * 4 + 4; ++i) {
      if (mask.data()[i % 12]) expected += std::exp(x.data()[i]);
    }
    for (Index i = r * 4; i < r * 4 + 4; ++i) {
      const bool open = mask.data()[i % 12];
      CHECK(std::abs(y.data()[i] - (open ? std::exp(x.data()[i]) / expected : 0)) < 1e-15);
      if (!open) CHECK(g.data()[i] == 0);
      total += y.data()[i];
      flow += g.data()[i];
    }
    CHECK(std::abs(total - (r % 3 == 2 ? 0 : 1)) < 1e-15);
    CHECK(std::abs(flow) < 1e-15);
  }
  auto z = random_tensor(3, 2, 3, 4);
  auto w = random_tensor(4, 2, 3, 4);
  check_gradients([&](const auto& a, const auto& b) { return mul(softmax_masked(a, mask), b); }, z, w);
  CHECK(error_of<ShapeError>([&] { softmax_masked(z, DynTensor<bool, 2>(3, 3)); }) ==
        "softmax_masked: shapes [3, 3] and [2, 3, 4] do not broadcast");
}

TEST_CASE("entmax does not depend on the number of threads") {
  const auto x = random_tensor<float>(1, 500, 130);
  const auto one = entmax15(x);
  set_num_threads(2);
  const auto two = entmax15(x);
  set_num_threads(1);
  CHECK(difference(two, [&](Index i) { return one.data()[i]; }) == 0);
}
