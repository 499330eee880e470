#include "ordo/ops/elementwise.hpp"

#include <cmath>

#include "ops/support.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/ops/reduce.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

namespace {

/// Position of an element of `shape` in a tensor that was broadcast to it.
Index source(const Shape& from, const Shape& shape, Index position) {
  Index offset = 0, step = 1;
  for (std::size_t back = 0; back < shape.rank(); ++back) {
    const Index e = shape.back(back), at = position % e;
    position /= e;
    if (back < from.rank()) {
      const Index extent = from.back(back);
      offset += (extent == 1 ? 0 : at) * step;
      step *= extent;
    }
  }
  return offset;
}

template <class A, class B>
void check_arithmetic(const A& a, const B& b, const Shape& expected_shape) {
  using T = typename A::value_type;
  const double tolerance = std::is_same_v<T, float> ? 1e-6 : 1e-15;
  const auto left = [&](Index i) { return a.data()[source(a.shape(), expected_shape, i)]; };
  const auto right = [&](Index i) { return b.data()[source(b.shape(), expected_shape, i)]; };
  const auto total = add(a, b), less = sub(a, b), product = mul(a, b), quotient = div(a, b),
             scaled = add_scaled(a, b, 0.5);
  CHECK(total.shape() == expected_shape);
  CHECK(difference(total, [&](Index i) { return left(i) + right(i); }) == 0);
  CHECK(difference(less, [&](Index i) { return left(i) - right(i); }) == 0);
  CHECK(difference(product, [&](Index i) { return left(i) * right(i); }) == 0);
  CHECK(difference(quotient, [&](Index i) { return left(i) / right(i); }) == 0);
  CHECK(difference(scaled, [&](Index i) { return left(i) + T(0.5) * right(i); }) < tolerance);
}

}  // namespace

TEMPLATE_TEST_CASE("arithmetic broadcasts as NumPy does", "", float, double) {
  using T = TestType;
  const auto x = [](std::uint64_t seed, auto... e) { return random_tensor<T>(seed, 0.5, 2.0, e...); };
  for (Index n : {1, 3, 16, 37}) {
    check_arithmetic(x(1, 4, n), x(2, 4, n), Shape{4, n});
    check_arithmetic(x(1, 2, 3, n), x(2, n), Shape{2, 3, n});
    check_arithmetic(x(1, 2, 3, n), x(2, 3, n), Shape{2, 3, n});
    check_arithmetic(x(1, 2, 3, n), x(2, 2, 1, n), Shape{2, 3, n});
    check_arithmetic(x(1, 2, 3, n), x(2, 2, 1, 1), Shape{2, 3, n});
    check_arithmetic(x(1, 2, 3, n), x(2, 3, 1), Shape{2, 3, n});
    check_arithmetic(x(1, 2, 1, n), x(2, 1, 3, 1), Shape{2, 3, n});
    check_arithmetic(x(1, n), x(2, 2, 5, 1), Shape{2, 5, n});
    check_arithmetic(x(1, 1), x(2, 5, n), Shape{5, n});
    check_arithmetic(x(1), x(2, 5, n), Shape{5, n});
    check_arithmetic(x(1, 2, 1, 3, 1, n), x(2, 4, 1, 5, 1), Shape{2, 4, 3, 5, n});
  }
  check_arithmetic(x(1), x(2), Shape{});
  set_num_threads(2);
  check_arithmetic(x(1, 300, 500), x(2, 300, 500), Shape{300, 500});  // more than one piece for threads
  check_arithmetic(x(1, 5, 70, 301), x(2, 5, 1, 301), Shape{5, 70, 301});
  set_num_threads(1);
  CHECK(add(x(1, 0, 3), x(2, 3)).shape() == Shape{0, 3});
}

TEST_CASE("shapes that do not broadcast are named") {
  const auto a = random_tensor(1, 2, 3);
  const auto b = random_tensor(2, 2, 4);
  CHECK(error_of<ShapeError>([&] { add(a, b); }) == "add: shapes [2, 3] and [2, 4] do not broadcast");
  CHECK(error_of<ShapeError>([&] { sub(a, b); }) == "sub: shapes [2, 3] and [2, 4] do not broadcast");
  CHECK(error_of<ShapeError>([&] { mul(a, b); }) == "mul: shapes [2, 3] and [2, 4] do not broadcast");
  CHECK(error_of<ShapeError>([&] { div(a, b); }) == "div: shapes [2, 3] and [2, 4] do not broadcast");
}

TEST_CASE("elementary functions and their derivatives") {
  auto x = random_tensor(1, 0.3, 2.5, 3, 5);
  CHECK(difference(exp(x), [&](Index i) { return std::exp(x.data()[i]); }) < 1e-15);
  CHECK(difference(log(x), [&](Index i) { return std::log(x.data()[i]); }) < 1e-15);
  CHECK(difference(sqrt(x), [&](Index i) { return std::sqrt(x.data()[i]); }) < 1e-15);
  CHECK(difference(tanh(x), [&](Index i) { return std::tanh(x.data()[i]); }) < 1e-15);
  CHECK(difference(sigmoid(x), [&](Index i) { return 1 / (1 + std::exp(-x.data()[i])); }) < 1e-15);
  CHECK(difference(affine(x, -3, 0.5), [&](Index i) { return 0.5 - 3 * x.data()[i]; }) < 1e-15);
  CHECK(difference(neg(x), [&](Index i) { return -x.data()[i]; }) == 0);
  check_gradients([](const auto& a) { return exp(a); }, x);
  check_gradients([](const auto& a) { return log(a); }, x);
  check_gradients([](const auto& a) { return sqrt(a); }, x);
  check_gradients([](const auto& a) { return tanh(a); }, x);
  check_gradients([](const auto& a) { return sigmoid(a); }, x);
  check_gradients([](const auto& a) { return affine(square(a), -3, 0.5); }, x);
  check_gradients([](const auto& a) { return exp(neg(mul(tanh(a), log(add(a, sqrt(a)))))); }, x);
}

TEST_CASE("third derivatives: a recorded backward pass can be recorded again") {
  // x^4: 24 x is the third derivative.
  Tape tape;
  const auto x = track(tape, DynTensor<double, 1>(DynExtents<1>(3), {0.5, -1.25, 2.0}));
  const auto y = sum(square(square(x)));
  const auto second = tape.gradient(sum(tape.gradient(y, x)), x);
  const auto third = tape.gradient(sum(second), x);
  CHECK(difference(second, [&](Index i) { return 12 * x.data()[i] * x.data()[i]; }) < 1e-15);
  CHECK(difference(third, [&](Index i) { return 24 * x.data()[i]; }) < 1e-15);
}

TEST_CASE("float gradients agree with double") {
  const auto f = [](const auto& a, const auto& b) { return mul(tanh(add(a, b)), exp(neg(square(b)))); };
  const auto x = random_tensor(1, 4, 6);
  const auto y = random_tensor(2, 6);
  const auto narrow = [](const auto& t) {
    using X = std::remove_cvref_t<decltype(t)>;
    Tensor<float, typename X::extents_type> s(t.extents());
    std::copy(t.begin(), t.end(), s.begin());
    return s;
  };
  Tape wide_tape, narrow_tape;
  const auto xw = track(wide_tape, x);
  const auto yw = track(wide_tape, y);
  const auto xn = track(narrow_tape, narrow(x));
  const auto yn = track(narrow_tape, narrow(y));
  const Gradients wide = wide_tape.backward(sum(f(xw, yw))), small = narrow_tape.backward(sum(f(xn, yn)));
  CHECK(difference(small.of(xn), [&](Index i) { return wide.of(xw).data()[i]; }) < 1e-6);
  CHECK(difference(small.of(yn), [&](Index i) { return wide.of(yw).data()[i]; }) < 1e-6);
}
