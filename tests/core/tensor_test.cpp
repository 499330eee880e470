#include <Eigen/Core>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "ordo/core/any_tensor.hpp"
#include "ordo/core/tensor.hpp"
#include "support/catch.hpp"

using namespace ordo;

TEST_CASE("extents mix static and dynamic axes") {
  const Extents<dyn, 3, dyn> e(2, 3, 5);
  CHECK(e[0] == 2);
  CHECK(e[1] == 3);
  CHECK(e[2] == 5);
  CHECK(e.size() == 30);
  CHECK(sizeof(Extents<2, 3>) == 1);
  CHECK_FALSE((Extents<dyn, dyn>::is_static()));
  CHECK((Extents<4, 4>::is_static()));
  CHECK_THROWS_AS((Extents<dyn, 3>(2, 4)), ShapeError);
  CHECK_THROWS_AS((Extents<dyn>(-1)), ShapeError);
}

TEST_CASE("a shape says its extents and refuses too many axes") {
  Shape s{2, 3};
  CHECK(to_string(s) == "[2, 3]");
  CHECK(to_string(Shape{}) == "[]");
  CHECK(Shape{}.size() == 1);
  CHECK(s.with_back(7) == Shape{2, 7});
  CHECK_FALSE(s == Shape{2, 3, 1});
  CHECK_THROWS_AS((Shape{1, 1, 1, 1, 1, 1, 1}), ShapeError);
}

TEST_CASE("tensors have value semantics and aligned memory") {
  DynTensor<float, 2> a(DynExtents<2>(2, 3), {1, 2, 3, 4, 5, 6});
  CHECK(reinterpret_cast<std::uintptr_t>(a.data()) % memory_alignment == 0);
  DynTensor<float, 2> b = a;
  b(1, 2) = 9;
  CHECK(a(1, 2) == 6);
  b = a;
  CHECK(b(1, 2) == 6);
  const float* where = b.data();
  DynTensor<float, 2> c = std::move(b);
  CHECK(c.data() == where);
  CHECK_THROWS_AS((DynTensor<float, 1>(DynExtents<1>(2), {1, 2, 3})), ShapeError);
  CHECK(DynTensor<float, 2>().size() == 0);

  // Writing to a tensor that shares its block does not change what the other owner sees.
  DynTensor<float, 2> shared = DynTensor<float, 2>::share(a.extents(), a.storage());
  a = DynTensor<float, 2>(DynExtents<2>(2, 3), 7.0F);
  CHECK(shared(0, 0) == 1);
}

TEST_CASE("static tensors live inline") {
  Tensor<double, Extents<2, 2>> s;
  CHECK(s(1, 1) == 0);
  const auto inside = reinterpret_cast<const char*>(s.data()) - reinterpret_cast<const char*>(&s);
  CHECK(inside >= 0);
  CHECK(inside < static_cast<std::ptrdiff_t>(sizeof s));
  const DynView<const double, 2> v = view(s);
  CHECK(v.extent(1) == 2);
}

TEST_CASE("what others own can be viewed") {
  const std::vector<float> v{1, 2, 3};
  CHECK(view(v).extent(0) == 3);
  const std::array<int, 2> a{4, 5};
  CHECK(view(a)(1) == 5);
  CHECK(view(std::span<const float>(v))(2) == 3);
  Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> m(2, 3);
  m << 1, 2, 3, 4, 5, 6;
  CHECK(view(m).extent(0) == 2);
  CHECK(view(m)(1, 0) == 4);
  const Eigen::VectorXd x = Eigen::VectorXd::Ones(4);
  CHECK(view(x).size() == 4);
  static_assert(!TensorLike<int>);
  static_assert(!TensorLike<std::string*>);
  static_assert(rank_of<Eigen::VectorXd> == 1);
}

TEST_CASE("rank-erased tensors share, borrow and copy") {
  const DynTensor<float, 1> x(DynExtents<1>(3), {1, 2, 3});
  const AnyTensor<float> borrowed = borrow(x);
  CHECK_FALSE(borrowed.owns());
  CHECK(borrowed.data() == x.data());
  const AnyTensor<float> owned = borrowed.copy();
  CHECK(owned.owns());
  CHECK(to_tensor<1>(owned).data() == owned.data());
  CHECK_THROWS_AS(to_tensor<2>(owned), ShapeError);
  CHECK_FALSE(AnyTensor<float>().present());
  CHECK(AnyTensor<float>().size() == 0);
}
