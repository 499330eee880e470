// The checks themselves: they pass what is right and find what is wrong.
#include "ordo/autograd/gradcheck.hpp"

#include <cstdint>
#include <string>

#include "ops/support.hpp"
#include "ordo/ops/activation.hpp"
#include "ordo/ops/elementwise.hpp"
#include "ordo/ops/embedding.hpp"
#include "ordo/ops/reduce.hpp"

using namespace ordo;  // NOLINT
using test::error_of;
using test::random_tensor;

namespace {

/// x^2 with a derivative that is wrong by a part in a thousand, in element 3 only.
struct WrongOp {
  static constexpr const char* name = "wrong";
  static constexpr unsigned keeps_inputs = 1, keeps_outputs = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    for (Index i = 0; i < x.size(); ++i) y.data()[i] = x.data()[i] * x.data()[i];
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    AnyTensor<T> factor = p.input(0).value.copy();
    for (Index i = 0; i < factor.size(); ++i) factor.data()[i] *= i == 3 ? T(2.002) : T(2);
    p.add(0, mul(p.grad(0), Var<T>{factor}));
  }
};

/// x^2 with the right first derivative, which then counts as a constant: the second is wrong.
struct HalfRightOp : WrongOp {
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, mul(p.grad(0), affine(stop_gradient(p.input(0)), 2)));
  }
};

/// Forgets one of its two arguments.
struct ForgetfulOp {
  static constexpr const char* name = "forgetful";
  static constexpr unsigned keeps_inputs = 3, keeps_outputs = 0;
  template <class T>
  AnyTensor<T> forward(const AnyTensor<T>& a, const AnyTensor<T>& b) const {
    return MulOp{}.forward(a, b);
  }
  template <class T>
  void backward(Pullback<T>& p) const {
    p.add(0, mul(p.grad(0), p.input(1)));
  }
};

template <class T>
class Scale {
 public:
  explicit Scale(Index n) : weight_(Tensor<T, DynExtents<1>>(DynExtents<1>(n), T(0.7))) {}
  template <TensorLike X>
  auto operator()(const X& x) const {
    return mul(x, weight_);
  }
  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("weight", self.weight_);
    f("bias", self.bias_);
  }
  const DynParameter<T, 1>& weight() const { return weight_; }

 private:
  DynParameter<T, 1> weight_, bias_;  // the bias stays absent
};

template <class T>
class Net {
 public:
  Net() : table_(Tensor<T, DynExtents<2>>(DynExtents<2>(5, 3), T(0.3))), layers_{Scale<T>(3), Scale<T>(3)} {}
  template <TensorLike Ids, TensorLike X>
  auto operator()(const Ids& ids, const X& x) const {
    return mul(tanh(layers_[1](tanh(layers_[0](embedding(table_, ids))))), x);
  }
  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("table", self.table_);
    f("layers", self.layers_);
  }
  const DynParameter<T, 2>& table() const { return table_; }

 private:
  DynParameter<T, 2> table_;
  std::vector<Scale<T>> layers_;
};

}  // namespace

TEST_CASE("gradcheck finds a wrong element and says where") {
  auto x = random_tensor(1, 0.5, 1.0, 2, 3);
  const auto result = gradcheck([](const auto& a) { return apply<2>(WrongOp{}, a); }, x);
  CHECK(result.error > 1e-5);
  CHECK(result.error < 1e-2);
  CHECK(result.where.find("argument 0[3]: analytic ") == 0);
  CHECK(result.checked == 6);
}

TEST_CASE("gradcheck finds a missing gradient") {
  auto x = random_tensor(1, 3);
  auto y = random_tensor(2, 3);
  const auto result = gradcheck([](const auto& a, const auto& b) { return apply<1>(ForgetfulOp{}, a, b); }, x, y);
  CHECK(result.error > 1e-2);
  CHECK(result.where.find("argument 1[") == 0);
}

TEST_CASE("gradcheck_second finds a constant that is none") {
  auto x = random_tensor(1, 0.5, 1.0, 2, 3);
  const auto f = [](const auto& a) { return apply<2>(HalfRightOp{}, a); };
  CHECK(gradcheck(f, x).error < 1e-9);
  CHECK(gradcheck_second(f, x).error > 1e-2);
}

TEST_CASE("gradcheck of functions without a gradient") {
  auto x = random_tensor(1, 4);
  CHECK(gradcheck([](const auto& a) { return stop_gradient(affine(a, 0)); }, x).error < 1e-9);
  CHECK(gradcheck_second([](const auto& a) { return affine(a, 3, 1); }, x).error <
        1e-9);                                                                      // linear: no second derivative
  CHECK(gradcheck([](const auto& a) { return stop_gradient(a); }, x).error > 0.1);  // it does depend on x
}

TEST_CASE("the checks put values back, and sample large tensors") {
  auto x = random_tensor(1, 30, 30);
  const auto before = x;
  const auto result = gradcheck([](const auto& a) { return square(a); }, x);
  CHECK(result.checked == 200);
  CHECK(test::difference(x, [&](Index i) { return before.data()[i]; }) == 0);
}

TEST_CASE("gradcheck_parameters walks a model") {
  Net<double> net;
  DynTensor<std::int64_t, 2> ids(DynExtents<2>(2, 3), {0, 4, 2, 2, 1, 0});
  auto x = random_tensor(1, 2, 3, 3);
  const auto call = [](const auto& m, const auto& i, const auto& a) { return m(i, a); };
  const auto result = gradcheck_parameters(net, call, ids, x);
  INFO(result.where);
  CHECK(result.error < 1e-8);
  CHECK(result.checked == 15 + 3 + 3 + 18);  // the table, two weights, x; the absent biases and ids are passed over

  SECTION("and names what is wrong") {
    const auto forgets = [](const auto& m, const auto& i, const auto& a) {
      return add(m(i, a), stop_gradient(square(m(i, a))));
    };
    CHECK(gradcheck_parameters(net, forgets, ids, x).error > 1e-2);
    const auto wrong = [](const auto& m, const auto&, const auto& a) {
      return apply<3>(WrongOp{}, mul(a, mul(apply<1>(WrongOp{}, reshape(m.table(), 15)),
                                            DynTensor<double, 1>(DynExtents<1>(1), {1.0}))));
    };
    auto y = random_tensor(2, 1, 1, 15);
    CHECK(gradcheck_parameters(net, wrong, ids, y).where.find("table[3]: ") == 0);
  }
  SECTION("with only token ids as its input") {
    const auto only_ids = [](const auto& m, const auto& i) { return square(embedding(m.table(), i)); };
    const auto ids_result = gradcheck_parameters(net, only_ids, ids);
    CHECK(ids_result.error < 1e-8);
    CHECK(ids_result.checked == 15 + 3 + 3);
  }
}
