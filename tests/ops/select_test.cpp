#include "ordo/ops/select.hpp"

#include <cmath>
#include <limits>

#include "ops/support.hpp"
#include "ordo/ops/dropout.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/nn/dropout.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

TEST_CASE("masked_fill and where: what is not chosen does not leak") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  auto x = random_tensor(1, 2, 3, 4);
  auto y = random_tensor(2, 2, 3, 4);
  const DynTensor<bool, 2> mask(DynExtents<2>(3, 1), {true, false, true});
  const auto on = [&](Index i) { return mask.data()[i / 4 % 3]; };
  CHECK(difference(masked_fill(x, mask, 7), [&](Index i) { return on(i) ? 7 : x.data()[i]; }) == 0);
  CHECK(difference(where(mask, x, y), [&](Index i) { return on(i) ? x.data()[i] : y.data()[i]; }) == 0);
  check_gradients([&](const auto& a) { return square(masked_fill(a, mask, 2)); }, x);
  check_gradients([&](const auto& a, const auto& b) { return square(where(mask, square(a), b)); }, x, y);

  auto dirty = x;
  for (Index i = 0; i < x.size(); ++i) {
    if (!on(i)) dirty.data()[i] = nan;
  }
  Tape tape;
  const auto tx = track(tape, dirty), ty = track(tape, y);
  const auto z = where(mask, log(tx), ty);
  const Gradients g = tape.backward(z);
  CHECK(difference(g.of(ty), [&](Index i) { return on(i) ? 0 : 1; }) == 0);
  CHECK(error_of<ShapeError>([&] { masked_fill(x, DynTensor<int, 2>(2, 4), 0); }) ==
        "masked_fill: shapes [2, 4] and [2, 3, 4] do not broadcast");
  CHECK(error_of<ShapeError>([&] { where(mask, x, random_tensor(1, 2, 3)); }) == "where: shapes [2, 3, 4] and [2, 3]");
}

TEST_CASE("maximum, minimum, abs, pow and their derivatives") {
  auto x = random_tensor(1, 3, 5);
  auto y = random_tensor(2, 5);
  CHECK(difference(maximum(x, y), [&](Index i) { return std::max(x.data()[i], y.data()[i % 5]); }) == 0);
  CHECK(difference(minimum(x, y), [&](Index i) { return std::min(x.data()[i], y.data()[i % 5]); }) == 0);
  CHECK(difference(abs(x), [&](Index i) { return std::abs(x.data()[i]); }) == 0);
  auto p = random_tensor(3, 0.3, 2.0, 3, 5);
  CHECK(difference(pow(p, 2.5), [&](Index i) { return std::pow(p.data()[i], 2.5); }) < 1e-15);
  check_gradients([](const auto& a, const auto& b) { return square(maximum(a, b)); }, x, y);
  check_gradients([](const auto& a, const auto& b) { return square(minimum(square(a), b)); }, x, y);
  check_gradients([](const auto& a) { return square(abs(a)); }, x);
  for (const double e : {-1.5, 0.0, 1.0, 2.0, 2.5}) {
    check_gradients([=](const auto& a) { return pow(a, e); }, p);
  }
  // Of equal ones the first has the gradient.
  Tape tape;
  const DynTensor<double, 1> same(DynExtents<1>(2), {1, 1});
  const auto a = track(tape, same), b = track(tape, same);
  const Gradients g = tape.backward(add(maximum(a, b), minimum(a, b)));
  CHECK(difference(g.of(a), [](Index) { return 2; }) == 0);
  CHECK(difference(g.of(b), [](Index) { return 0; }) == 0);
}

TEST_CASE("dropout: the rate, the scale, the same mask backward and for any number of threads") {
  const Index n = 100000;
  DynTensor<float, 2> x(n / 10, Index{10});
  x.fill(1);
  for (const double rate : {0.0, 0.1, 0.5, 0.9}) {
    Random random(3);
    const auto y = dropout(x, rate, random);
    Index kept = 0;
    for (const float v : y) {
      kept += v != 0;
      CHECK((v == 0 || v == static_cast<float>(1 / (1 - rate))));
    }
    CAPTURE(rate);
    // Five standard deviations of a binomial count.
    CHECK(std::abs(static_cast<double>(kept) - (1 - rate) * static_cast<double>(n)) <= 5 * std::sqrt(rate * (1 - rate) * static_cast<double>(n)));

    Random same(3);
    Tape tape;
    const auto tracked = track(tape, x);
    const auto z = dropout(tracked, rate, same);
    CHECK(difference(z, [&](Index i) { return y.data()[i]; }) == 0);
    CHECK(difference(tape.backward(z).of(tracked), [&](Index i) { return y.data()[i]; }) == 0);

    set_num_threads(2);
    Random again(3);
    const auto two_threads = dropout(x, rate, again);
    set_num_threads(1);
    CHECK(difference(two_threads, [&](Index i) { return y.data()[i]; }) == 0);
  }
  Random random(3);
  const auto first = dropout(x, 0.5, random), second = dropout(x, 0.5, random);
  CHECK(difference(first, [&](Index i) { return second.data()[i]; }) > 0);

  auto small = random_tensor(1, 3, 7);
  check_gradients(
      [](const auto& a) {
        Random fixed(9);
        return square(dropout(square(a), 0.4, fixed));
      },
      small);
  CHECK(error_of<ConfigError>([&] { dropout(x, 1, random); }) == "dropout: rate is 1.000000, expected 0 <= rate < 1");
}

TEST_CASE("the dropout layer drops in training only") {
  const Dropout<double> layer(Dropout<double>::Config{.rate = 0.5});
  const auto x = random_tensor(1, 20, 20);
  Random random(1);
  const auto before = random.state();
  CHECK(difference(layer(x, random), [&](Index i) { return x.data()[i]; }) == 0);
  CHECK(random.state() == before);
  Tape tape;
  const auto tracked = track(tape, x);
  const auto y = layer(tracked, random);
  CHECK(random.state() != before);
  Index zeros = 0;
  for (Index i = 0; i < y.size(); ++i) zeros += y.data()[i] == 0;
  CHECK(zeros > 100);
  CHECK(zeros < 300);
  CHECK(error_of<ConfigError>([] { Dropout<float>(Dropout<float>::Config{.rate = -1}); }) ==
        "dropout: rate is -1.000000, expected 0 <= rate < 1");
}
