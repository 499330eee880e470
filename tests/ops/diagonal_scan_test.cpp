// The diagonal scan: gradients, packed sequences, errors. The golden cases are in tests/conformance.

#include "ordo/autograd/gradcheck.hpp"
#include "ordo/ops/diagonal_scan.hpp"
#include "ops/support.hpp"

using namespace ordo;
using test::random_tensor;

TEST_CASE("diagonal_scan: gradients of y and of the final state are those of differences") {
  const auto a = random_tensor(1, 2, 5, 3), b = random_tensor(2, 2, 5, 3);
  const auto h = random_tensor(3, 2, 3);
  const auto y = [](const auto& decay, const auto& in, const auto& state) { return std::get<0>(diagonal_scan(decay, in, state)); };
  const auto last = [](const auto& decay, const auto& in, const auto& state) { return std::get<1>(diagonal_scan(decay, in, state)); };
  CHECK(gradcheck(y, a, b, h).error < 1e-6);
  CHECK(gradcheck(last, a, b, h).error < 1e-6);

  const auto ca = random_tensor(4, 2, 4, 3, 2), cb = random_tensor(5, 2, 4, 3, 2);
  const auto ch = random_tensor(6, 2, 3, 2);
  const auto cy = [](const auto& decay, const auto& in, const auto& state) { return std::get<0>(complex_diagonal_scan(decay, in, state)); };
  CHECK(gradcheck(cy, ca, cb, ch).error < 1e-6);
}

TEST_CASE("diagonal_scan: an empty piece leaves the state as it is") {
  const DynTensor<double, 3> nothing(2, 0, 3);
  const auto h = random_tensor(3, 2, 3);
  const auto [y, last] = diagonal_scan(nothing, nothing, h);
  CHECK(y.size() == 0);
  for (Index i = 0; i < h.size(); ++i) CHECK(last.data()[i] == h.data()[i]);
}

TEST_CASE("diagonal_scan: shapes that do not fit are refused") {
  const DynTensor<float, 3> a(2, 4, 3), b(2, 4, 2);
  const DynTensor<float, 2> h(2, 2);
  CHECK_THROWS_AS(diagonal_scan(a, b, none), ShapeError);
  CHECK_THROWS_AS(diagonal_scan(a, a, h), ShapeError);
  CHECK_THROWS_AS(complex_diagonal_scan(DynTensor<float, 4>(1, 2, 3, 1), DynTensor<float, 4>(1, 2, 3, 1), none), ShapeError);
}
