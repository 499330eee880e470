// Derivatives of add, sub, mul and div for every way of broadcasting.
#include "ops/support.hpp"
#include "ordo/ops/elementwise.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::random_tensor;

TEST_CASE("derivatives of arithmetic, first and second") {
  auto x = random_tensor(1, 0.5, 2.0, 2, 3, 4);
  const auto check = [&](auto& y) {
    check_gradients([](const auto& a, const auto& b) { return add(mul(a, a), b); }, x, y);
    check_gradients([](const auto& a, const auto& b) { return sub(a, mul(b, b)); }, x, y);
    check_gradients([](const auto& a, const auto& b) { return add_scaled(square(a), square(b), -0.3); }, x, y);
    check_gradients([](const auto& a, const auto& b) { return mul(a, b); }, x, y);
    check_gradients([](const auto& a, const auto& b) { return div(a, b); }, x, y);
    check_gradients([](const auto& a, const auto& b) { return div(b, a); }, x, y);
    check_gradients([](const auto& a, const auto& b) { return mul(mul(a, b), div(a, square(b))); }, x, y);
  };
  SECTION("equal shapes") {
    auto y = random_tensor(2, 0.5, 2.0, 2, 3, 4);
    check(y);
  }
  SECTION("a vector") {
    auto y = random_tensor(2, 0.5, 2.0, 4);
    check(y);
  }
  SECTION("an inner axis of one") {
    auto y = random_tensor(2, 0.5, 2.0, 2, 1, 4);
    check(y);
  }
  SECTION("a last axis of one") {
    auto y = random_tensor(2, 0.5, 2.0, 3, 1);
    check(y);
  }
  SECTION("a scalar") {
    auto y = random_tensor(2, 0.5, 2.0);
    check(y);
  }
  SECTION("both repeat") {
    auto a = random_tensor(3, 0.5, 2.0, 3, 1);
    auto b = random_tensor(4, 0.5, 2.0, 1, 4);
    check_gradients([](const auto& p, const auto& q) { return div(mul(p, p), q); }, a, b);
  }
}
