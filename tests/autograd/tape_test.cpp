#include "ordo/autograd/tape.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "ops/support.hpp"
#include "ordo/autograd/apply.hpp"
#include "ordo/ops/activation.hpp"
#include "ordo/ops/elementwise.hpp"
#include "ordo/ops/embedding.hpp"
#include "ordo/ops/reduce.hpp"
#include "ordo/ops/shape.hpp"

using namespace ordo;  // NOLINT
using test::difference;
using test::error_of;
using test::random_tensor;

namespace {

using Vector = DynTensor<double, 1>;
Vector vector(std::initializer_list<double> values) {
  return Vector(DynExtents<1>(static_cast<Index>(values.size())), values);
}
DynParameter<double, 1> parameter(std::initializer_list<double> values) {
  return DynParameter<double, 1>(vector(values));
}

template <class G>
void check_values(const G& g, std::initializer_list<double> expected) {
  REQUIRE(g.size() == static_cast<Index>(expected.size()));
  CHECK(difference(g, [&](Index i) { return expected.begin()[i]; }) < 1e-14);
}

/// A fused op: keeps a square root that forward has made, and gives plain gradients.
struct FusedRootOp {
  static constexpr const char* name = "fused_root";
  static constexpr unsigned keeps_inputs = 0, keeps_outputs = 0;
  template <class T>
  struct Saved {
    AnyTensor<T> root;
  };
  template <class T>
  AnyTensor<T> forward(Saved<T>* saved, const AnyTensor<T>& x) const {
    AnyTensor<T> y(x.shape());
    for (Index i = 0; i < x.size(); ++i) y.data()[i] = std::sqrt(x.data()[i]);
    if (saved != nullptr) saved->root = y;
    return y;
  }
  template <class T>
  void backward(Pullback<T>& p, const Saved<T>& saved) const {
    AnyTensor<T> g(saved.root.shape());
    for (Index i = 0; i < g.size(); ++i) g.data()[i] = p.grad(0).value.data()[i] / (2 * saved.root.data()[i]);
    p.add(0, std::move(g));
  }
};

}  // namespace

TEST_CASE("gradients of parameters and of tracked inputs") {
  const auto w = parameter({2, 3}), unused = parameter({1});
  const Vector constant = vector({10, 20});
  Tape tape;
  const auto x = track(tape, vector({5, 7})), other = track(tape, vector({1}));
  const auto y = add(mul(w, x), mul(constant, x));
  check_values(y.value(), {60, 161});
  const Gradients g = tape.backward(sum(y));
  check_values(g.of(w), {5, 7});
  check_values(g.of(x), {12, 23});
  CHECK_FALSE(g.of(unused).present());
  CHECK_FALSE(g.of(other).present());
}

TEST_CASE("the upstream gradient") {
  Tape tape;
  const auto x = track(tape, vector({1, 2}));
  const auto y = square(x);
  CHECK(error_of<ShapeError>([&] {
          tape.backward(y, borrow(vector({1, 2, 3})));
        }) == "backward: the upstream gradient has shape [3], the output [2]");
  const Vector upstream = vector({10, 100});
  check_values(tape.backward(y, borrow(upstream)).of(x), {20, 400});
  check_values(upstream, {10, 100});
}

TEST_CASE("several outputs in one backward pass") {
  Tape tape;
  const auto x = track(tape, vector({1, 2, 3}));
  const auto [a, b] = split(x, 1, 2);
  const Gradients g =
      tape.backward(std::array{Tape::Seed::of(square(a)), Tape::Seed::of(sum(b)), Tape::Seed::of(sum(x))});
  check_values(g.of(x), {3, 2, 2});
}

TEST_CASE("a value that is used often collects all gradients") {
  const auto w = parameter({0.5});
  Tape tape;
  auto y = track(tape, vector({1}));
  const auto x = y;
  for (int i = 0; i < 3; ++i) y = add(mul(y, w), mul(y, x));  // ((w + x)^3) x
  const Gradients g = tape.backward(y);
  check_values(g.of(w), {3 * 2.25});
  check_values(g.of(x), {3 * 2.25 + 3.375});
}

TEST_CASE("a gradient that two places share is not written through") {
  // add hands the same tensor to both arguments; accumulating into one must not change the other.
  Tape tape;
  const auto a = track(tape, vector({1, 2})), b = track(tape, vector({3, 4}));
  const auto y = add(a, b);
  const auto z = add(y, mul(a, a));
  const Gradients g = tape.backward(z);
  check_values(g.of(a), {3, 5});
  check_values(g.of(b), {1, 1});
}

TEST_CASE("a long recording needs no deep stack") {
  Tape tape;
  const auto x = track(tape, vector({1}));
  auto y = affine(x, 1);
  for (int i = 0; i < 100000; ++i) y = affine(y, 1.00001);
  check_values(tape.backward(y).of(x), {std::pow(1.00001, 100000)});
}

TEST_CASE("constants may die before the backward pass") {
  Tape tape;
  const auto x = track(tape, vector({1, 2}));
  auto y = [&] {
    const Vector constant = vector({3, 4});
    return mul(x, constant);
  }();
  check_values(tape.backward(y).of(x), {3, 4});
}

TEST_CASE("plain and recorded calls give the same numbers") {
  const auto w = DynParameter<double, 2>(random_tensor(1, 4, 6));
  const auto x = random_tensor(2, 3, 4, 6);
  const auto f = [&](const auto& a) { return sum(silu(mul(tanh(a), w)), 1); };
  Tape tape;
  const auto plain = f(x);
  const auto recorded = f(track(tape, x));
  CHECK(difference(plain, [&](Index i) { return recorded.data()[i]; }) == 0);
  static_assert(std::is_same_v<std::remove_const_t<decltype(plain)>, DynTensor<double, 2>>);
  static_assert(std::is_same_v<std::remove_const_t<decltype(recorded)>, Tracked<DynTensor<double, 2>>>);
}

TEST_CASE("a recording serves one backward pass") {
  Tape tape;
  auto x = track(tape, vector({2}));
  auto y = square(x);
  static_cast<void>(tape.backward(y));
  const std::string used = "tape: backward has already used this recording up; record the forward pass again";
  CHECK(error_of<UsageError>([&] { tape.backward(y); }) == used);
  CHECK(error_of<UsageError>([&] { tape.gradient(y, x); }) == used);
  tape.reset();
  x = track(tape, vector({3}));
  y = square(x);
  check_values(tape.backward(y).of(x), {6});
}

TEST_CASE("stop_gradient makes a constant") {
  Tape tape;
  const auto x = track(tape, vector({2, 3}));
  const auto stopped = stop_gradient(square(x));
  static_assert(std::is_same_v<std::remove_const_t<decltype(stopped)>, Tracked<Vector>>);
  const Gradients g = tape.backward(mul(stopped, x));
  check_values(g.of(x), {4, 9});
  check_values(stop_gradient(vector({1, 2})), {1, 2});
  Tape other;
  const auto z = track(other, vector({1}));
  CHECK_FALSE(other.backward(stop_gradient(z)).of(z).present());
}

TEST_CASE("substitute runs a model with other weights") {
  const auto w = parameter({2, 3});
  Tape tape;
  const auto x = track(tape, vector({5, 7}));
  const auto v = track(tape, vector({10, 20}));
  tape.substitute(w, square(v));
  const auto y = mul(w, x);
  check_values(y.value(), {500, 2800});
  const Gradients g = tape.backward(sum(y));
  check_values(g.of(v), {100, 280});
  check_values(g.of(x), {100, 400});

  tape.reset();
  const auto leaf = track(tape, vector({4, 5}));
  tape.substitute(w, leaf);
  const Gradients h = tape.backward(mul(w, track(tape, vector({5, 7}))));
  check_values(h.of(leaf), {5, 7});

  tape.reset();
  check_values(mul(w, track(tape, vector({1, 1}))).value(), {2, 3});
  CHECK(error_of<ShapeError>([&] { tape.substitute(w, track(tape, vector({1}))); }) ==
        "substitute: the parameter has shape [2], the value [1]");
}

TEST_CASE("learning to learn: the gradient through a gradient step") {
  // Inner loss (w x - t)^2, w' = w - r dloss/dw; outer loss (w' x2 - t2)^2. d outer/dw = 2 (w' x2 - t2) x2 (1 - 2 r
  // x^2).
  constexpr double x1 = 1.5, t1 = 2.0, x2 = -0.5, t2 = 1.0, r = 0.1, w0 = 0.7;
  const auto w = parameter({w0});
  const auto loss = [&](const auto& x, const Vector& t) { return sum(square(sub(mul(w, x), t))); };
  Tape tape;
  const auto start = track(tape, w.value());
  tape.substitute(w, start);
  const auto inner = loss(track(tape, vector({x1})), vector({t1}));
  const auto moved = add_scaled(start, tape.gradient(inner, start), -r);
  tape.substitute(w, moved);
  const Gradients g = tape.backward(loss(track(tape, vector({x2})), vector({t2})));
  const double w1 = w0 - r * 2 * (w0 * x1 - t1) * x1;
  check_values(moved.value(), {w1});
  check_values(g.of(start), {2 * (w1 * x2 - t2) * x2 * (1 - 2 * r * x1 * x1)});
}

TEST_CASE("gradient of something that does not depend on x is zero") {
  Tape tape;
  const auto x = track(tape, vector({1, 2})), y = track(tape, vector({3, 4}));
  const auto g = tape.gradient(sum(square(y)), x);
  check_values(g.value(), {0, 0});
  check_values(tape.backward(add(g, x)).of(x), {1, 1});
}

TEST_CASE("several gradients of one recording") {
  Tape tape;
  const auto x = track(tape, vector({2})), y = track(tape, vector({5}));
  const auto z = sum(mul(square(x), y));
  const auto dx = tape.gradient(z, x), dy = tape.gradient(z, y);
  check_values(dx.value(), {20});
  check_values(dy.value(), {4});
  const Gradients g = tape.backward(mul(dx, dy));  // 2 x y * x^2
  check_values(g.of(x), {6 * 4 * 5});
  check_values(g.of(y), {16});
}

TEST_CASE("a fused op has a first derivative, and says that it has no second") {
  Tape tape;
  const auto x = track(tape, vector({4, 9}));
  const auto y = sum(apply<1>(FusedRootOp{}, x));
  CHECK(error_of<UsageError>([&] { tape.gradient(y, x); }) == "fused_root: this fused op has no second derivative");
  check_values(tape.backward(y).of(x), {0.25, 1.0 / 6});
  check_values(apply<1>(FusedRootOp{}, vector({16})), {4});
}

TEST_CASE("tracked integers make a call a recorded one") {
  const DynParameter<double, 2> table(random_tensor(1, 4, 3));
  const DynTensor<std::int32_t, 1> ids(DynExtents<1>(3), {2, 0, 2});
  Tape tape;
  const auto tracked = track(tape, ids);
  CHECK_FALSE(tracked.var().tracked());
  const auto y = embedding(table, tracked);
  static_assert(std::is_same_v<std::remove_const_t<decltype(y)>, Tracked<DynTensor<double, 2>>>);
  const auto g = tape.backward(sum(y)).of(table);
  CHECK(difference(g, [](Index i) { return i / 3 == 2 ? 2 : i / 3 == 0 ? 1 : 0; }) == 0);
}

TEST_CASE("gradients can be read, replaced and changed in place") {
  const auto a = parameter({1}), b = parameter({2});
  Tape tape;
  const auto x = track(tape, vector({1}));
  Gradients g = tape.backward(add(mul(a, x), mul(b, x)));
  g.mutate(a).data()[0] *= 7;
  check_values(g.of(a), {7});
  check_values(g.of(b), {1});
  g.set(b, borrow(vector({5})).copy());
  check_values(g.of(b), {5});
  CHECK_FALSE(g.mutate(parameter({1})).present());
}

TEST_CASE("activations die as the backward pass uses them up, and a steady loop asks the system for nothing") {
  const DynParameter<double, 2> w(random_tensor(1, 64, 64));
  const auto x = random_tensor(2, 64, 64);
  Tape tape;
  const auto step = [&] {
    tape.reset();
    auto y = track(tape, x);
    for (int i = 0; i < 20; ++i) y = tanh(mul(y, w));
    return tape.backward(sum(y));
  };
  { const Gradients g = step(); }
  const auto warm = Pool::instance().stats();
  for (int i = 0; i < 10; ++i) {
    const Gradients g = step();
    CHECK(g.of(w).present());
  }
  const auto after = Pool::instance().stats();
  CHECK(after.system_allocations == warm.system_allocations);
  CHECK(after.bytes_in_use == warm.bytes_in_use);

  tape.reset();
  Pool::instance().reset_peak();
  const std::size_t before = Pool::instance().stats().bytes_in_use;
  constexpr std::size_t matrix = 64 * 64 * sizeof(double);
  {
    auto y = track(tape, x);
    for (int i = 0; i < 20; ++i) y = tanh(mul(y, w));
    const std::size_t recorded = Pool::instance().stats().bytes_in_use - before;
    CHECK(recorded > 20 * matrix);      // mul keeps its argument, tanh its result: the same tensor
    CHECK(recorded < 20 * matrix * 2);  // and nothing else is kept
    Pool::instance().reset_peak();
    const Gradients g = tape.backward(sum(y));
    // Without freeing on the way, gradients of 20 layers would come on top.
    CHECK(Pool::instance().stats().peak_bytes - before < recorded + 8 * matrix);
  }
}
