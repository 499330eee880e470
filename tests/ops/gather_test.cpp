#include "ordo/ops/gather.hpp"

#include "ops/support.hpp"
#include "ordo/ops/cumulative_sum.hpp"
#include "ordo/ops/embedding.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

TEST_CASE("gather takes elements along any axis, scatter_add puts them back") {
  auto x = random_tensor(1, 3, 4, 5);
  for (Index axis = 0; axis < 3; ++axis) {
    const auto at = static_cast<std::size_t>(axis);
    auto extents = x.extents().to_array();
    extents[at] = 2;
    DynTensor<std::int32_t, 3> ids((DynExtents<3>(extents)));
    Random random(5);
    for (auto& id : ids) id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(x.extent(at)) + 1)) - 1;
    const auto y = gather(x, axis, ids);
    REQUIRE(y.shape() == ids.shape());
    std::size_t wrong = 0, nothing = 0;
    for (Index i = 0; i < ids.extent(0); ++i) {
      for (Index j = 0; j < ids.extent(1); ++j) {
        for (Index k = 0; k < ids.extent(2); ++k) {
          const Index id = ids(i, j, k);
          nothing += id < 0;
          wrong += y(i, j, k) != (id < 0 ? 0.0 : axis == 0 ? x(id, j, k) : axis == 1 ? x(i, id, k) : x(i, j, id));
        }
      }
    }
    CHECK(wrong == 0);
    CHECK(nothing > 0);
    // The adjoint: <u, gather(x)> = <scatter(u), x>.
    const auto u = random_tensor(2, extents[0], extents[1], extents[2]);
    const auto back = scatter_add(u, axis, ids, x.extent(at));
    double left = 0, right = 0;
    for (Index i = 0; i < u.size(); ++i) left += u.data()[i] * y.data()[i];
    for (Index i = 0; i < x.size(); ++i) right += back.data()[i] * x.data()[i];
    CHECK(std::abs(left - right) < 1e-13);
    check_gradients([&](const auto& a) { return square(gather(a, axis, ids)); }, x);
    check_gradients([&](const auto& a) { return square(scatter_add(gather(a, axis, ids), axis, ids, 6)); }, x);
  }
  const DynTensor<int, 3> far(DynExtents<3>(3, 4, 1), 5);
  CHECK(error_of<UsageError>([&] { gather(x, -1, far); }) == "gather: index 5 at place 0, expected 0 to 4 (or -1 for nothing)");
  CHECK(error_of<ShapeError>([&] { gather(x, 0, far); }) == "gather: indices of shape [3, 4, 1], expected [3, 4, 5] but for axis 0");
  CHECK(error_of<ShapeError>([&] { scatter_add(x, 0, far, 3); }) == "scatter_add: x has shape [3, 4, 5], the indices [3, 4, 1]");
}

TEST_CASE("rows of a table, and sums of rows") {
  auto table = random_tensor(1, 4, 2, 3);
  const DynTensor<int, 1> ids(DynExtents<1>(5), {3, 0, -1, 3, 1});
  const auto y = gather_rows(table, ids);
  REQUIRE(y.shape() == Shape{5, 2, 3});
  CHECK(difference(y, [&](Index i) { return ids(i / 6) < 0 ? 0.0 : table.data()[ids(i / 6) * 6 + i % 6]; }) == 0);
  const auto sums = scatter_rows(y, ids, 4);
  CHECK(difference(sums, [&](Index i) {
          const double times[] = {1, 1, 0, 2};
          return times[i / 6] * table.data()[i];
        }) < 1e-15);
  check_gradients([&](const auto& a) { return square(gather_rows(a, ids)); }, table);
  check_gradients([&](const auto& a) { return square(scatter_rows(square(gather_rows(a, ids)), ids, 4)); }, table);
  CHECK(error_of<UsageError>([&] { scatter_rows(y, ids, 3); }) == "scatter_rows: id 3 at place 0, the table has 3 rows");
}

TEST_CASE("running sums: from either end, with and without the element, in pieces") {
  auto x = random_tensor(1, 2, 7, 3);
  auto s = random_tensor(2, 2, 3);
  for (const bool reverse : {false, true}) {
    for (const bool exclusive : {false, true}) {
      CAPTURE(reverse, exclusive);
      const CumulativeSumParameters p{reverse, exclusive};
      const auto [y, total] = cumulative_sum(x, 1, s, p);
      CHECK(difference(y, [&](Index i) {
              const Index b = i / 21, t = i / 3 % 7, d = i % 3;
              double sum = s(b, d);
              for (Index r = 0; r < 7; ++r) {
                if (reverse ? (r > t || (r == t && !exclusive)) : (r < t || (r == t && !exclusive))) sum += x(b, r, d);
              }
              return sum;
            }) < 1e-15);
      check_gradients([&](const auto& a, const auto& b) { return square(std::get<0>(cumulative_sum(a, 1, b, p))); }, x, s);
      check_gradients([&](const auto& a, const auto& b) { return square(std::get<1>(cumulative_sum(a, 1, square(b), p))); }, x, s);
      for (const Index axis : {0, 1, -1}) check_gradients([&](const auto& a) { return square(cumulative_sum(a, axis, p)); }, x);
    }
  }
  const auto [whole, total] = cumulative_sum(x, 1, s, {});
  const auto [a, middle] = cumulative_sum(slice(x, 1, 0, 3), 1, s, {});
  const auto [b, end] = cumulative_sum(slice(x, 1, 3, 4), 1, middle, {});
  const auto pieces = concat(1, a, b);
  CHECK(difference(pieces, [&w = whole](Index i) { return w.data()[i]; }) == 0);
  CHECK(difference(end, [&t = total](Index i) { return t.data()[i]; }) == 0);
  CHECK(error_of<ShapeError>([&] { cumulative_sum(x, 1, random_tensor(1, 3, 2), {}); }) ==
        "cumulative_sum: the state has shape [3, 2], expected [2, 3]");
}
