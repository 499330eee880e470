// The formulas are tested with the kernels; here what the ops add: shapes, derivatives on the tape, errors.
#include "ordo/ops/activation.hpp"

#include <cmath>

#include "ops/support.hpp"
#include "ordo/ops/reduce.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

namespace {
/// Random numbers at least 0.02 away from the kinks at 0 and 3: differences do not step over one.
DynTensor<double, 2> arguments(std::uint64_t seed) {
  auto x = random_tensor(seed, -5.0, 5.0, 6, 7);
  for (double& v : x) {
    for (double kink : {-3.0, 0.0, 3.0}) {
      if (std::abs(v - kink) < 0.02) v = kink + 0.05;
    }
  }
  return x;
}
}  // namespace

TEST_CASE("activations: derivatives on the tape, first and second") {
  for (int i = 0; i <= static_cast<int>(Activation::log_sigmoid); ++i) {
    const ActivationParameters f{static_cast<Activation>(i), 0.2, 0.75, 1.5};
    CAPTURE(to_string(f.kind));
    auto x = arguments(static_cast<std::uint64_t>(i));
    check_gradients([&](const auto& a) { return activation(a, f); }, x);
    check_gradients([&](const auto& a) { return mul(a, activation(activation(a, f), Activation::tanh)); }, x);
  }
}

TEST_CASE("activations: the short forms") {
  const auto x = arguments(1);
  const auto same = [&](const auto& y, const ActivationParameters& f) {
    CAPTURE(to_string(f.kind));
    const auto expected = activation(x, f);
    CHECK(y.shape() == x.shape());
    CHECK(difference(y, [&](Index i) { return expected.data()[i]; }) == 0);
  };
  same(relu(x), {Activation::relu});
  same(relu_squared(x), {Activation::relu_squared});
  same(leaky_relu(x), {Activation::leaky_relu, 0.01});
  same(leaky_relu(x, 0.3), {Activation::leaky_relu, 0.3});
  same(elu(x), {Activation::elu, 0, 1});
  same(elu(x, 0.5), {Activation::elu, 0, 0.5});
  same(gelu(x), {Activation::gelu});
  same(gelu_tanh(x), {Activation::gelu_tanh});
  same(quick_gelu(x), {Activation::quick_gelu});
  same(silu(x), {Activation::silu});
  same(softplus(x), {Activation::softplus, 0, 0, 1});
  same(softplus(x, 2), {Activation::softplus, 0, 0, 2});
  same(mish(x), {Activation::mish});
  same(hard_swish(x), {Activation::hard_swish});
  same(hard_sigmoid(x), {Activation::hard_sigmoid});
  same(log_sigmoid(x), {Activation::log_sigmoid});
  CHECK(difference(activation(x, Activation::none), [&](Index i) { return x.data()[i]; }) == 0);
  CHECK(difference(silu(x), [&](Index i) { return x.data()[i] / (1 + std::exp(-x.data()[i])); }) < 1e-15);
  CHECK(difference(relu(x), [&](Index i) { return std::max(x.data()[i], 0.0); }) == 0);
}

TEST_CASE("activations: a third derivative is an error that says so") {
  Tape tape;
  const auto x = track(tape, arguments(1));
  const auto second = tape.gradient(sum(tape.gradient(sum(silu(x)), x)), x);
  CHECK(error_of<UsageError>([&] { tape.gradient(sum(second), x); }) ==
        "activation silu: the third derivative is not implemented");
  CHECK(error_of<ConfigError>([&] { softplus(x, 0); }) == "activation: softplus needs a beta other than 0");
}
