#include "ordo/ops/norm.hpp"

#include <cmath>

#include "ops/support.hpp"
#include "ordo/core/parallel.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

namespace {

/// Row by row, in long double. weight, bias: one number for each column, by function.
template <class X, class W, class B>
DynTensor<double, 2> naive(const X& x, bool centered, double eps, W&& weight, B&& bias) {
  const Index n = x.extent(X::rank() - 1), rows = x.size() / n;
  DynTensor<double, 2> y(rows, n);
  for (Index r = 0; r < rows; ++r) {
    long double mean = 0, square = 0;
    for (Index i = 0; i < n && centered; ++i) mean += x.data()[r * n + i];
    mean /= static_cast<long double>(n);
    for (Index i = 0; i < n; ++i) square += (x.data()[r * n + i] - mean) * (x.data()[r * n + i] - mean);
    const long double scale = 1 / std::sqrt(square / static_cast<long double>(n) + eps);
    for (Index i = 0; i < n; ++i)
      y(r, i) = static_cast<double>((x.data()[r * n + i] - mean) * scale * weight(i) + bias(i));
  }
  return y;
}

const auto one = [](Index) { return 1.0L; };
const auto zero = [](Index) { return 0.0L; };

}  // namespace

TEMPLATE_TEST_CASE("norms against naive ones", "", float, double) {
  const double tolerance = std::is_same_v<TestType, float> ? 2e-6 : 1e-14;
  for (Index n : {1, 2, 3, 16, 65, 131}) {
    const auto x = random_tensor<TestType>(1, 2, 3, n);
    const auto w = random_tensor<TestType>(2, n), b = random_tensor<TestType>(3, n);
    const auto weight = [&](Index i) { return static_cast<long double>(w(i)); };
    const auto bias = [&](Index i) { return static_cast<long double>(b(i)); };
    const auto shifted = [&](Index i) { return 1 + weight(i); };
    const auto same = [&](const auto& y, const DynTensor<double, 2>& expected) {
      CHECK(y.shape() == x.shape());
      CHECK(difference(y, [&](Index i) { return expected.data()[i]; }) < tolerance);
    };
    CAPTURE(n);
    same(layer_norm(x, none, none), naive(x, true, 1e-5, one, zero));
    same(layer_norm(x, w, none), naive(x, true, 1e-5, weight, zero));
    same(layer_norm(x, w, b), naive(x, true, 1e-5, weight, bias));
    same(layer_norm(x, none, b, 0.1), naive(x, true, 0.1, one, bias));
    same(layer_norm(x, DynParameter<TestType, 1>(w), DynParameter<TestType, 1>(), 0.1),
         naive(x, true, 0.1, weight, zero));
    same(rms_norm(x, none), naive(x, false, 1e-6, one, zero));
    same(rms_norm(x, w), naive(x, false, 1e-6, weight, zero));
    same(rms_norm(x, w, 0.01, 1), naive(x, false, 0.01, shifted, zero));
  }
}

TEST_CASE("norms: a mean that is large against the deviation, and constant rows") {
  DynTensor<float, 2> x(4, 64);
  Random random(1);
  for (float& v : x) v = static_cast<float>(300 + random.normal());
  const auto expected = naive(x, true, 1e-5, one, zero);
  CHECK(difference(layer_norm(x, none, none), [&](Index i) { return expected.data()[i]; }) <
        2e-5);  // 300 in float: 1.5e-5 apart

  Tape tape;
  const auto constant = track(tape, DynTensor<double, 2>(DynExtents<2>(2, 4), 3.0));
  const DynTensor<double, 1> bias(DynExtents<1>(4), {1, 2, 3, 4});
  const auto y = layer_norm(constant, none, bias);
  CHECK(difference(y, [](Index i) { return 1 + i % 4; }) == 0);
  DynTensor<double, 2> upstream(DynExtents<2>(2, 4), {1, 0, 0, 0, 0, 0, 0, 1});
  const auto g = tape.backward(y, borrow(upstream)).of(constant);
  CHECK(std::abs(g.data()[0] - 0.75 / std::sqrt(1e-5)) < 1e-9);
  CHECK(std::abs(g.data()[1] + 0.25 / std::sqrt(1e-5)) < 1e-9);
}

TEST_CASE("derivatives of norms, first and second") {
  auto x = random_tensor(1, 2, 3, 7);
  auto w = random_tensor(2, 7);
  auto b = random_tensor(3, 7);
  check_gradients([](const auto& a) { return layer_norm(a, none, none, 0.01); }, x);
  check_gradients([](const auto& a, const auto& p) { return layer_norm(a, p, none); }, x, w);
  check_gradients([](const auto& a, const auto& p, const auto& q) { return layer_norm(a, p, q); }, x, w, b);
  check_gradients([](const auto& a) { return rms_norm(a, none, 0.01); }, x);
  check_gradients([](const auto& a, const auto& p) { return rms_norm(a, p); }, x, w);
  check_gradients([](const auto& a, const auto& p) { return rms_norm(square(a), p, 0.1, 1); }, x, w);
  // Only the parameters want a gradient.
  const auto constant = x;
  check_gradients([&](const auto& p, const auto& q) { return layer_norm(constant, p, q); }, w, b);
}

TEST_CASE("norm gradients do not depend on the number of threads") {
  const auto x = random_tensor<float>(1, 400, 96);
  const DynParameter<float, 1> w(random_tensor<float>(2, 96)), b(random_tensor<float>(3, 96));
  const auto gradients = [&] {
    Tape tape;
    const auto tracked = track(tape, x);
    const Gradients g = tape.backward(sum(square(layer_norm(tracked, w, b))));
    return std::array{g.of(tracked), g.of(w), g.of(b)};
  };
  const auto one_thread = gradients();
  set_num_threads(2);
  const auto two_threads = gradients();
  set_num_threads(1);
  for (std::size_t k = 0; k < 3; ++k) {
    CHECK(difference(two_threads[k], [&](Index i) { return one_thread[k].data()[i]; }) == 0);
  }
}

TEST_CASE("norms name what does not fit") {
  const auto x = random_tensor(1, 2, 3);
  const auto w = random_tensor(2, 4);
  CHECK(error_of<ShapeError>([&] { layer_norm(x, w, none); }) == "layer_norm: weight has shape [4], expected [3]");
  CHECK(error_of<ShapeError>([&] { layer_norm(x, none, w); }) == "layer_norm: bias has shape [4], expected [3]");
  CHECK(error_of<ShapeError>([&] { rms_norm(x, w); }) == "rms_norm: weight has shape [4], expected [3]");
  CHECK(error_of<ShapeError>([&] { rms_norm(DynTensor<double, 0>(), none); }) == "rms_norm: x is a scalar");
  CHECK(layer_norm(random_tensor(1, 0, 3), none, none).shape() == Shape{0, 3});
}

namespace {

/// Each run of channels of each token (or of each batch row over all tokens) by itself, in long double.
DynTensor<double, 3> naive_groups(const DynTensor<double, 3>& x, Index groups, double eps, bool centered, bool over_length) {
  const Index batch = x.extent(0), length = x.extent(1), n = x.extent(2) / groups;
  DynTensor<double, 3> y(x.extents());
  const auto normalize = [&](Index b, Index first, Index last, Index g) {
    long double mean = 0, square = 0;
    const auto count = static_cast<long double>((last - first) * n);
    for (Index t = first; t < last; ++t) {
      for (Index i = g * n; i < g * n + n; ++i) mean += centered ? static_cast<long double>(x(b, t, i)) / count : 0;
    }
    for (Index t = first; t < last; ++t) {
      for (Index i = g * n; i < g * n + n; ++i) square += (x(b, t, i) - mean) * (x(b, t, i) - mean) / count;
    }
    for (Index t = first; t < last; ++t) {
      for (Index i = g * n; i < g * n + n; ++i) y(b, t, i) = static_cast<double>((x(b, t, i) - mean) / std::sqrt(square + eps));
    }
  };
  for (Index b = 0; b < batch; ++b) {
    for (Index g = 0; g < groups; ++g) {
      if (over_length) {
        normalize(b, 0, length, g);
      } else {
        for (Index t = 0; t < length; ++t) normalize(b, t, t + 1, g);
      }
    }
  }
  return y;
}

}  // namespace

TEST_CASE("group norm, of tokens and over the length") {
  for (const Index groups : {1, 2, 6}) {
    for (const Index length : {1, 5}) {
      const auto x = random_tensor(1, 3, length, 18);
      const auto w = random_tensor(2, 18), b = random_tensor(3, 18);
      CAPTURE(groups, length);
      const auto tokens = naive_groups(x, groups, 0.01, true, false), rows = naive_groups(x, groups, 0.01, true, true);
      const auto with = [&](const auto& e) { return [&](Index i) { return e.data()[i] * w(i % 18) + b(i % 18); }; };
      CHECK(difference(group_norm(x, none, none, groups, 0.01), [&](Index i) { return tokens.data()[i]; }) < 1e-14);
      CHECK(difference(group_norm(x, w, b, groups, 0.01), with(tokens)) < 1e-14);
      CHECK(difference(group_norm_over_length(x, none, none, groups, 0.01), [&](Index i) { return rows.data()[i]; }) < 1e-14);
      CHECK(difference(group_norm_over_length(x, w, b, groups, 0.01), with(rows)) < 1e-14);
    }
  }
  auto x = random_tensor(1, 2, 3, 6);
  auto w = random_tensor(2, 6), b = random_tensor(3, 6);
  check_gradients([](const auto& a, const auto& p, const auto& q) { return group_norm(a, p, q, 2, 0.1); }, x, w, b);
  check_gradients([](const auto& a, const auto& p) { return group_norm(square(a), p, none, 3, 0.1); }, x, w);
  check_gradients([](const auto& a, const auto& p, const auto& q) { return group_norm_over_length(a, p, q, 3, 0.1); }, x, w, b);
  check_gradients([](const auto& a) { return group_norm_over_length(a, none, none, 1, 0.1); }, x);
  CHECK(error_of<ShapeError>([&] { group_norm(x, none, none, 4); }) == "group_norm: 6 channels cannot be cut in 4 groups");
  CHECK(error_of<ShapeError>([&] { group_norm_over_length(x, none, none, 4); }) == "group_norm: 6 channels cannot be cut in 4 groups");
  CHECK(error_of<ShapeError>([&] { group_norm(x, random_tensor(1, 3), none, 2); }) == "group_norm: weight has shape [3], expected [6]");
  CHECK(error_of<ShapeError>([&] { group_norm_over_length(x, none, random_tensor(1, 3), 2); }) ==
        "group_norm: bias has shape [3], expected [6]");
}

TEST_CASE("gated RMS norm, the gate behind it or in front") {
  auto x = random_tensor(1, 2, 3, 6), z = random_tensor(2, 2, 3, 6);
  auto w = random_tensor(3, 6), b = random_tensor(4, 6);
  const auto opening = silu(z);
  const auto product = mul(x, opening);
  for (const Index groups : {1, 3}) {
    const auto behind = naive_groups(x, groups, 0.1, false, false), front = naive_groups(product, groups, 0.1, false, false);
    CHECK(difference(gated_rms_norm(x, z, w, b, Activation::silu, true, groups, 0.1), [&](Index i) {
            return (behind.data()[i] * w(i % 6) + b(i % 6)) * opening.data()[i];
          }) < 1e-14);
    CHECK(difference(gated_rms_norm(x, z, w, b, Activation::silu, false, groups, 0.1),
                     [&](Index i) { return front.data()[i] * w(i % 6) + b(i % 6); }) < 1e-14);
    for (const bool first : {true, false}) {
      check_gradients([=](const auto& a, const auto& g, const auto& p,
                          const auto& q) { return gated_rms_norm(a, g, p, q, Activation::sigmoid, first, groups, 0.1); },
                      x, z, w, b);
    }
  }
  CHECK(error_of<ShapeError>([&] { gated_rms_norm(x, random_tensor(1, 2, 3, 1), w, b); }) ==
        "gated_rms_norm: x has shape [2, 3, 6], the gate [2, 3, 1]");
}

TEST_CASE("L2 norm: eps in the sum, or as the least length") {
  auto x = random_tensor(1, 3, 7);
  for (Index i = 0; i < 7; ++i) x(1, i) *= 0.01;  // shorter than the least length below
  const auto length = [&](Index r) {
    double sum = 0;
    for (Index i = 0; i < 7; ++i) sum += x(r, i) * x(r, i);
    return sum;
  };
  CHECK(difference(l2_norm(x, 0.1), [&](Index i) { return x.data()[i] / std::sqrt(length(i / 7) + 0.1); }) < 1e-15);
  CHECK(difference(l2_norm(x, 0.5, L2Eps::max), [&](Index i) { return x.data()[i] / std::max(std::sqrt(length(i / 7)), 0.5); }) < 1e-15);
  check_gradients([](const auto& a) { return l2_norm(a, 0.1); }, x);
  check_gradients([](const auto& a) { return l2_norm(a, 0.5, L2Eps::max); }, x);
  check_gradients([](const auto& a) { return square(l2_norm(square(a), 0.5, L2Eps::max)); }, x);
  // Nothing at all: no NaN.
  Tape tape;
  const auto zero = track(tape, DynTensor<float, 2>(2, 3));
  const auto y = l2_norm(zero, 1e-12, L2Eps::max);
  CHECK(difference(y, [](Index) { return 0; }) == 0);
  CHECK(difference(tape.backward(y).of(zero), [](Index) { return 1e12; }) < 1e-6);
}
