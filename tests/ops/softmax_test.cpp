#include "ordo/ops/softmax.hpp"

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

/// log sum exp of the line along `axis` in which element i of x lies.
template <class X>
long double naive_lse(const X& x, std::size_t axis, Index i) {
  const Index n = x.extent(axis), inner = x.shape().size(axis + 1, X::rank());
  const Index first = i / (n * inner) * n * inner + i % inner;
  long double largest = -infinity, sum = 0;
  for (Index j = 0; j < n; ++j) largest = std::max(largest, static_cast<long double>(x.data()[first + j * inner]));
  for (Index j = 0; j < n; ++j) sum += std::exp(x.data()[first + j * inner] - largest);
  return largest + std::log(sum);
}

}  // namespace

TEMPLATE_TEST_CASE("softmaxes against naive ones", "", float, double) {
  const double tolerance = std::is_same_v<TestType, float> ? 2e-6 : 2e-15;
  for (Index n : {1, 2, 7, 16, 33, 130}) {
    const auto x = random_tensor<TestType>(1, -30.0, 30.0, 3, 5, n);
    for (Index axis = -3; axis < 3; ++axis) {
      const auto at = static_cast<std::size_t>((axis + 3) % 3);
      CAPTURE(n, axis);
      CHECK(difference(softmax(x, axis), [&](Index i) { return std::exp(x.data()[i] - naive_lse(x, at, i)); }) <
            tolerance * 4);
      CHECK(difference(log_softmax(x, axis), [&](Index i) { return x.data()[i] - naive_lse(x, at, i); }) < tolerance);
      const Index inner = x.shape().size(at + 1, 3);
      const auto lse = logsumexp(x, axis);
      CHECK(lse.rank() == 2);
      CHECK(difference(lse, [&](Index i) { return naive_lse(x, at, i / inner * x.extent(at) * inner + i % inner); }) <
            tolerance);
      CHECK(logsumexp(x, axis, keep_axis).shape() == detail::with_axis_one(x.shape(), at));
    }
    CHECK(difference(softmax(x), [&](Index i) { return softmax(x, 2).data()[i]; }) == 0);
  }
}

TEST_CASE("softmaxes: large values, and masked ones") {
  const DynTensor<double, 2> x(DynExtents<2>(4, 3), {1000, 1000, -infinity, -infinity, -infinity, -infinity, -1000,
                                                     -infinity, -infinity, 1e300, 0, -1e300});
  const auto y = softmax(x);
  const double expected[] = {0.5, 0.5, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0};
  CHECK(difference(y, [&](Index i) { return expected[i]; }) < 1e-15);
  const auto l = log_softmax(x);
  CHECK(std::abs(l(0, 0) + std::log(2)) < 1e-15);
  CHECK(l(0, 2) == -infinity);
  CHECK(l(1, 0) == -infinity);
  CHECK(l(2, 0) == 0);
  const auto s = logsumexp(x, 1);
  CHECK(s(0) == 1000 + std::log(2));
  CHECK(s(1) == -infinity);
  CHECK(s(2) == -1000);

  // Masked places have gradient 0 even if what arrives there is no number.
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const DynTensor<double, 2> u(DynExtents<2>(4, 3), {1, 2, nan, nan, nan, infinity, 3, nan, infinity, 1, 0, 0});
  Tape tape;
  const auto tracked = track(tape, x);
  const auto g = tape.backward(softmax(tracked), borrow(u)).of(tracked);
  const double gradient[] = {-0.25, 0.25, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  CHECK(difference(g, [&](Index i) { return gradient[i]; }) < 1e-15);

  Tape second;
  const auto again = track(second, x);
  const auto h = second.backward(sum(logsumexp(again, -1))).of(again);
  CHECK(difference(h, [&](Index i) { return expected[i]; }) < 1e-15);

  const DynTensor<double, 1> with_nan(DynExtents<1>(3), {0, nan, 1});
  for (Index i = 0; i < 3; ++i) CHECK(std::isnan(softmax(with_nan)(i)));
}

TEST_CASE("derivatives of softmaxes, first and second") {
  auto x = random_tensor(1, 3, 4, 5);
  auto y = random_tensor(2, 3, 4, 5);
  for (Index axis : {-1, 1, 0}) {
    check_gradients([=](const auto& a) { return softmax(a, axis); }, x);
    check_gradients([=](const auto& a) { return log_softmax(a, axis); }, x);
    check_gradients([=](const auto& a) { return logsumexp(a, axis); }, x);
    check_gradients([=](const auto& a, const auto& b) { return mul(softmax(mul(a, b), axis), b); }, x, y);
  }
  check_gradients([](const auto& a) { return mul(a, logsumexp(square(a), -1, keep_axis)); }, x);
  // The entropy of a row, and a gradient that comes through the softmax's own gradient twice.
  check_gradients([](const auto& a) { return sum(mul(softmax(a), log_softmax(a)), -1); }, x);
}

TEST_CASE("softmax: results do not depend on the number of threads, errors are named") {
  const auto x = random_tensor<float>(1, 700, 300);
  const auto one_thread = softmax(x);
  set_num_threads(2);
  const auto two_threads = softmax(x);
  set_num_threads(1);
  CHECK(difference(two_threads, [&](Index i) { return one_thread.data()[i]; }) == 0);
  CHECK(error_of<ShapeError>([&] { softmax(x, 2); }) == "softmax: axis 2 of a tensor of rank 2");
  CHECK(error_of<ShapeError>([&] { log_softmax(DynTensor<float, 0>()); }) ==
        "log_softmax: axis -1 of a tensor of rank 0");
  CHECK(softmax(DynTensor<float, 2>(0, 3)).shape() == Shape{0, 3});
}
