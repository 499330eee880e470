#include "ordo/ops/shape.hpp"

#include "ops/support.hpp"
#include "ordo/ops/elementwise.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

TEST_CASE("reshape keeps the order of elements") {
  auto x = random_tensor(1, 2, 3, 4);
  const auto y = reshape(x, 6, 4);
  CHECK(y.shape() == Shape{6, 4});
  CHECK(difference(y, [&](Index i) { return x.data()[i]; }) == 0);
  const auto scalar = reshape(random_tensor(1, 1));
  CHECK(scalar.rank() == 0);
  check_gradients([](const auto& a) { return square(reshape(a, 4, 6)); }, x);
  CHECK(error_of<ShapeError>([&] { reshape(x, 5, 5); }) == "reshape: [2, 3, 4] has 24 elements, [5, 5] has 25");
}

TEMPLATE_TEST_CASE("transpose swaps any two axes", "", float, double) {
  const auto x = random_tensor<TestType>(1, 2, 3, 20, 33);
  const Index e[] = {2, 3, 20, 33};
  for (Index a = 0; a < 4; ++a) {
    for (Index b = 0; b < 4; ++b) {
      const auto y = transpose(x, a, b);
      const auto last = transpose(x, a - 4, b - 4);
      std::array<Index, 4> at{};
      std::size_t wrong = 0;
      for (at[0] = 0; at[0] < e[0]; ++at[0]) {
        for (at[1] = 0; at[1] < e[1]; ++at[1]) {
          for (at[2] = 0; at[2] < e[2]; ++at[2]) {
            for (at[3] = 0; at[3] < e[3]; ++at[3]) {
              auto to = at;
              std::swap(to[static_cast<std::size_t>(a)], to[static_cast<std::size_t>(b)]);
              wrong += x(at[0], at[1], at[2], at[3]) != y(to[0], to[1], to[2], to[3]);
              wrong += x(at[0], at[1], at[2], at[3]) != last(to[0], to[1], to[2], to[3]);
            }
          }
        }
      }
      CAPTURE(a, b);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("derivatives of transpose") {
  auto x = random_tensor(1, 2, 3, 4);
  check_gradients([](const auto& a) { return square(transpose(a, 0, 2)); }, x);
  check_gradients([](const auto& a) { return mul(transpose(a, 1, -1), transpose(square(a), 2, 1)); }, x);
  CHECK(error_of<ShapeError>([&] { transpose(x, 0, 3); }) == "transpose: axis 3 of a tensor of rank 3");
  CHECK(error_of<ShapeError>([&] { transpose(x, -4, 0); }) == "transpose: axis -4 of a tensor of rank 3");
}

TEST_CASE("slice takes a part of any axis") {
  auto x = random_tensor(1, 3, 4, 5);
  for (Index axis = -3; axis < 3; ++axis) {
    const auto from = static_cast<std::size_t>((axis + 3) % 3);
    for (Index begin = 0; begin <= x.extent(from); ++begin) {
      for (Index count = 0; begin + count <= x.extent(from); ++count) {
        const auto y = slice(x, axis, begin, count);
        Shape shape = x.shape();
        shape[from] = count;
        REQUIRE(y.shape() == shape);
        std::size_t wrong = 0;
        for (Index i = 0; i < shape[0]; ++i) {
          for (Index j = 0; j < shape[1]; ++j) {
            for (Index k = 0; k < shape[2]; ++k) {
              wrong += y(i, j, k) !=
                       x(i + (from == 0 ? begin : 0), j + (from == 1 ? begin : 0), k + (from == 2 ? begin : 0));
            }
          }
        }
        CHECK(wrong == 0);
      }
    }
  }
  check_gradients([](const auto& a) { return square(slice(a, 0, 1, 2)); }, x);
  check_gradients([](const auto& a) { return mul(slice(a, -1, 0, 3), slice(square(a), 2, 2, 3)); }, x);
  CHECK(error_of<ShapeError>([&] { slice(x, 1, 2, 3); }) == "slice: 3 elements from 2 of axis 1 of shape [3, 4, 5]");
  CHECK(error_of<ShapeError>([&] { slice(x, 1, -1, 3); }) == "slice: 3 elements from -1 of axis 1 of shape [3, 4, 5]");
  CHECK(error_of<ShapeError>([&] { slice(x, 3, 0, 1); }) == "slice: axis 3 of a tensor of rank 3");
}

TEST_CASE("concat and split are inverse") {
  auto x = random_tensor(1, 2, 3, 7);
  const auto [a, b, c] = split(x, 4, 1, 2);
  CHECK(a.shape() == Shape{2, 3, 4});
  CHECK(b.shape() == Shape{2, 3, 1});
  CHECK(c.shape() == Shape{2, 3, 2});
  CHECK(b(1, 2, 0) == x(1, 2, 4));
  const auto whole = concat(-1, a, b, c);
  CHECK(difference(whole, [&](Index i) { return x.data()[i]; }) == 0);
  auto y = random_tensor(2, 2, 2, 7);
  const auto both = concat(1, x, y);
  CHECK(both.shape() == Shape{2, 5, 7});
  CHECK(both(1, 2, 6) == x(1, 2, 6));
  CHECK(both(1, 3, 6) == y(1, 0, 6));

  check_gradients([](const auto& p, const auto& q) { return square(concat(1, p, square(q), p)); }, x, y);
  check_gradients(
      [](const auto& p) {
        const auto [first, second] = split(p, 3, 4);
        return mul(square(first), slice(second, -1, 1, 3));
      },
      x);
  // A part that nobody uses has gradient zero.
  check_gradients([](const auto& p) { return square(std::get<1>(split(p, 3, 4))); }, x);

  CHECK(error_of<ShapeError>([&] { split(x, 4, 4); }) == "split: parts 4 + 4 of the last axis of [2, 3, 7]");
  CHECK(error_of<ShapeError>([&] { split(x, 8, -1); }) == "split: parts 8 + -1 of the last axis of [2, 3, 7]");
  CHECK(error_of<ShapeError>([&] { concat(2, x, y); }) == "concat along axis 2: shapes [2, 3, 7] and [2, 2, 7]");
}

TEST_CASE("pad, flip and permute") {
  auto x = random_tensor(1, 2, 3, 4);
  const auto padded = pad(x, 1, 2, 1);
  REQUIRE(padded.shape() == Shape{2, 6, 4});
  CHECK(difference(padded, [&](Index i) {
          const Index b = i / 24, t = i / 4 % 6 - 2;
          return t < 0 || t > 2 ? 0.0 : x(b, t, i % 4);
        }) == 0);
  const auto back = slice(padded, 1, 2, 3);
  CHECK(difference(back, [&](Index i) { return x.data()[i]; }) == 0);
  check_gradients([](const auto& a) { return square(pad(square(a), -1, 1, 2)); }, x);
  CHECK(error_of<ShapeError>([&] { pad(x, 1, -1, 0); }) == "pad: -1 zeros before and 0 behind axis 1");

  for (Index axis = 0; axis < 3; ++axis) {
    CHECK(difference(flip(x, axis), [&](Index i) {
            const Index at[] = {i / 12, i / 4 % 3, i % 4};
            return x(axis == 0 ? 1 - at[0] : at[0], axis == 1 ? 2 - at[1] : at[1], axis == 2 ? 3 - at[2] : at[2]);
          }) == 0);
    check_gradients([=](const auto& a) { return mul(a, flip(square(a), axis)); }, x);
  }

  const auto y = permute(x, 2, 0, 1);
  REQUIRE(y.shape() == Shape{4, 2, 3});
  CHECK(difference(y, [&](Index i) { return x(i / 3 % 2, i % 3, i / 6); }) == 0);
  const auto swapped = transpose(x, 0, -1);
  CHECK(difference(permute(x, -1, 1, 0), [&](Index i) { return swapped.data()[i]; }) == 0);
  check_gradients([](const auto& a) { return square(permute(a, 1, 2, 0)); }, x);
  CHECK(error_of<ShapeError>([&] { permute(x, 0, 1, 1); }) == "permute: 3 axes that are not those of [2, 3, 4] each once");
}

TEST_CASE("split along any axis") {
  auto x = random_tensor(1, 2, 7, 3);
  const auto [a, b, c] = split_axis(x, 1, 4, 1, 2);
  REQUIRE(b.shape() == Shape{2, 1, 3});
  CHECK(b(1, 0, 2) == x(1, 4, 2));
  const auto whole = concat(1, a, b, c);
  CHECK(difference(whole, [&](Index i) { return x.data()[i]; }) == 0);
  check_gradients([](const auto& p) { return square(std::get<1>(split_axis(p, 1, 3, 4))); }, x);
  CHECK(error_of<ShapeError>([&] { split_axis(x, 1, 4, 4); }) == "split: parts 4 + 4 of axis 1 of [2, 7, 3]");
}
