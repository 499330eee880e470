// Norms and clipping against sums in long double.

#include "ordo/train/clip.hpp"

#include <cmath>
#include <limits>

#include "support/catch.hpp"
#include "train/support.hpp"

using namespace ordo;

namespace {

struct Two {
  using value_type = float;
  DynParameter<float, 2> a{DynExtents<2>(300, 401)};
  DynParameter<float, 1> b{DynExtents<1>(37)};
  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("a", self.a);
    f("b", self.b);
  }
};

Gradients gradients_of(const Two& model, std::uint64_t seed) {
  Random random(seed);
  Gradients g;
  for_each_leaf(model, [&](const Path&, const auto& p) {
    AnyTensor<float> values(p.shape());
    for (Index i = 0; i < values.size(); ++i) values.data()[i] = static_cast<float>(random.normal());
    g.set(p, values);
  });
  return g;
}

template <class F>
void each(const Two& model, const Gradients& g, F&& f) {
  for_each_leaf(model, [&](const Path&, const auto& p) {
    const auto values = g.of(p);
    for (Index i = 0; i < values.size(); ++i) f(values.data()[i]);
  });
}

}  // namespace

TEST_CASE("norms of all orders") {
  const Two model;
  const Gradients g = gradients_of(model, 1);
  for (const double order : {1.0, 2.0, 3.0, 0.5, std::numeric_limits<double>::infinity()}) {
    CAPTURE(order);
    long double sum = 0;
    each(model, g, [&](float x) {
      const long double a = std::abs(static_cast<long double>(x));
      sum = std::isinf(order) ? std::max(sum, a) : sum + std::pow(a, static_cast<long double>(order));
    });
    const double expected =
        static_cast<double>(std::isinf(order) ? sum : std::pow(sum, 1 / static_cast<long double>(order)));
    CHECK(std::abs(grad_norm(model, g, order) - expected) <= 1e-13 * expected);  // 1.2e5 terms in double, in 16 sums
  }
  CHECK_THROWS_AS(grad_norm(model, g, 0), ConfigError);
}

TEST_CASE("clipping scales to the limit and returns the norm before") {
  const Two model;
  Gradients g = gradients_of(model, 2);
  const Gradients before = gradients_of(model, 2);
  const double norm = grad_norm(model, g);
  CHECK(clip_grad_norm(model, g, 3.0) == norm);
  const auto factor = static_cast<float>(3.0 / (norm + 1e-6));
  CHECK(g.of(model.b).data()[5] == before.of(model.b).data()[5] * factor);
  CHECK(g.of(model.a).data()[120299] == before.of(model.a).data()[120299] * factor);
  CHECK(std::abs(grad_norm(model, g) - 3.0) < 1e-5);
}

TEST_CASE("gradients below the limit stay exactly") {
  const Two model;
  Gradients g = gradients_of(model, 3);
  const Gradients before = gradients_of(model, 3);
  const double norm = clip_grad_norm(model, g, 1e6);
  CHECK(norm < 1e6);
  CHECK(g.of(model.b).data()[5] == before.of(model.b).data()[5]);
}

TEST_CASE("two parameters whose gradients share a block are scaled once each") {
  Two model;
  DynParameter<float, 1> unused;
  Gradients g;
  const AnyTensor<float> shared(Shape{37}, 1.0F);
  g.set(model.b, shared);
  clip_grad_norm(model, g, 1.0);
  CHECK(shared.data()[0] == 1.0F);
  CHECK(std::abs(g.of(model.b).data()[0] - 1 / std::sqrt(37.0F)) < 1e-6F);
}

TEST_CASE("a norm that is not finite is returned and nothing is scaled") {
  const Two model;
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const double order : {2.0, std::numeric_limits<double>::infinity()}) {
      Gradients g = gradients_of(model, 4);
      g.mutate(model.a).data()[77] = bad;
      const float other = g.of(model.a).data()[78];
      CHECK_FALSE(std::isfinite(clip_grad_norm(model, g, 1.0, order)));
      CHECK(g.of(model.a).data()[78] == other);
    }
  }
}

TEST_CASE("the norm does not depend on the number of threads") {
  const Two model;
  const Gradients g = gradients_of(model, 5);
  const double one = grad_norm(model, g);
  set_num_threads(3);
  const double three = grad_norm(model, g);
  set_num_threads(1);
  CHECK(one == three);
}
