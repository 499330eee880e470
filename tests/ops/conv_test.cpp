#include "ordo/ops/conv.hpp"

#include <string>

#include "ops/support.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/ops/reduce.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

namespace {

struct Problem {
  Index length, in, out, width;
  Conv1dParameters p{};
};

// Every way that a tap can be computed: merged, apart, in groups, channel by channel; windows that begin and end outside of x.
const Problem problems[] = {
    {11, 5, 7, 3, {}},
    {11, 5, 7, 3, {.padding_left = 2, .padding_right = 1}},
    {11, 5, 7, 1, {}},
    {1, 5, 7, 3, {.padding_left = 1, .padding_right = 1}},
    {3, 4, 3, 6, {.padding_left = 5, .padding_right = 5}},
    {29, 3, 20, 4, {.stride = 3, .padding_left = 4, .padding_right = 3}},
    {19, 5, 7, 3, {.dilation = 4, .padding_left = 8}},
    {19, 5, 7, 3, {.stride = 2, .dilation = 3, .padding_left = 2, .padding_right = 6}},
    {13, 6, 9, 3, {.stride = 2, .padding_left = 1, .padding_right = 1, .num_groups = 3}},
    {13, 4, 12, 3, {.dilation = 2, .padding_left = 4, .num_groups = 4}},
    {70, 37, 37, 4, {.padding_left = 3, .num_groups = 37}},
    {71, 5, 5, 3, {.stride = 2, .dilation = 2, .padding_left = 1, .padding_right = 2, .num_groups = 5}},
    {2, 3, 3, 2, {.padding_left = 7, .padding_right = 4, .num_groups = 3}},
};

template <class X, class W>
DynTensor<double, 3> naive(const X& x, const W& w, const Conv1dParameters& p) {
  const Index batch = x.extent(0), length = x.extent(1), in = w.extent(1), out = w.extent(0), width = w.extent(2);
  const Index to = (length + p.padding_left + p.padding_right - p.dilation * (width - 1) - 1) / p.stride + 1;
  DynTensor<double, 3> y(batch, to, out);
  for (Index b = 0; b < batch; ++b) {
    for (Index t = 0; t < to; ++t) {
      for (Index o = 0; o < out; ++o) {
        for (Index k = 0; k < width; ++k) {
          const Index s = t * p.stride + k * p.dilation - p.padding_left, group = o * p.num_groups / out;
          if (s < 0 || s >= length) continue;
          for (Index i = 0; i < in; ++i)
            y(b, t, o) += static_cast<double>(w(o, i, k)) * static_cast<double>(x(b, s, group * in + i));
        }
      }
    }
  }
  return y;
}

}  // namespace

TEMPLATE_TEST_CASE("conv1d against the definition, conv_transpose1d as its adjoint", "", float, double) {
  const double tolerance = std::is_same_v<TestType, float> ? 2e-6 : 1e-14;
  for (const Problem& c : problems) {
    const auto x = random_tensor<TestType>(1, 3, c.length, c.in);
    const auto w = random_tensor<TestType>(2, c.out, c.in / c.p.num_groups, c.width);
    const auto b = random_tensor<TestType>(3, c.out);
    CAPTURE(c.length, c.in, c.out, c.width, c.p.stride, c.p.dilation, c.p.num_groups);
    const auto expected = naive(x, w, c.p);
    const auto y = conv1d(x, w, none, c.p);
    REQUIRE(y.shape() == expected.shape());
    CHECK(difference(y, [&](Index i) { return expected.data()[i]; }) < tolerance);
    const auto with_bias = conv1d(x, w, b, c.p);
    CHECK(difference(with_bias, [&](Index i) { return expected.data()[i] + static_cast<double>(b.data()[i % c.out]); }) < tolerance);

    // <u, conv(x)> = <conv_transpose(u), x>: it has one padding for both sides, so of the right one only what that leaves.
    const auto u = random_tensor<TestType>(4, 3, y.extent(1), c.out);
    const Index reach = c.p.dilation * (c.width - 1) + 1;
    const Index output_padding = c.length - ((y.extent(1) - 1) * c.p.stride - 2 * c.p.padding_left + reach);
    if (output_padding < 0) continue;
    const auto back = conv_transpose1d(u, w, none, {c.p.stride, c.p.dilation, c.p.padding_left, output_padding, c.p.num_groups});
    REQUIRE(back.shape() == x.shape());
    double left = 0, right = 0, size = 0;
    for (Index i = 0; i < y.size(); ++i) {
      left += static_cast<double>(u.data()[i]) * expected.data()[i];
      size += std::abs(static_cast<double>(u.data()[i]) * expected.data()[i]);
    }
    for (Index i = 0; i < x.size(); ++i) right += static_cast<double>(back.data()[i]) * static_cast<double>(x.data()[i]);
    CHECK(std::abs(left - right) < tolerance * size);
  }
}

TEST_CASE("conv_transpose1d: a bias, outputs that no tap reaches, cut ends") {
  const DynTensor<double, 3> x(DynExtents<3>(1, 2, 1), {1, 10});
  const DynTensor<double, 3> w(DynExtents<3>(1, 1, 2), {1, 2});
  const DynTensor<double, 1> b(DynExtents<1>(1), {100});
  const auto same = [](const auto& y, const std::vector<double>& expected) {
    REQUIRE(y.size() == static_cast<Index>(expected.size()));
    CHECK(difference(y, [&](Index i) { return expected[static_cast<std::size_t>(i)]; }) == 0);
  };
  same(conv_transpose1d(x, w, none), {1, 12, 20});
  same(conv_transpose1d(x, w, b, {.stride = 3}), {101, 102, 100, 110, 120});
  same(conv_transpose1d(x, w, b, {.stride = 3, .output_padding = 2}), {101, 102, 100, 110, 120, 100, 100});
  same(conv_transpose1d(x, w, none, {.padding = 1, .output_padding = 1}), {12, 20});
  same(conv_transpose1d(x, w, none, {.dilation = 2}), {1, 10, 2, 20});
}

TEST_CASE("derivatives of convolutions, first and second") {
  for (const Problem& c : problems) {
    if (c.in > 12 || c.length > 40) continue;
    auto x = random_tensor(1, 2, c.length, c.in);
    auto w = random_tensor(2, c.out, c.in / c.p.num_groups, c.width);
    auto b = random_tensor(3, c.out);
    CAPTURE(c.length, c.in, c.out, c.width, c.p.stride, c.p.dilation, c.p.num_groups);
    const auto first = gradcheck([&](const auto& a, const auto& k, const auto& z) { return conv1d(a, k, z, c.p); }, x, w, b);
    INFO(first.where);
    CHECK(first.error < 1e-8);
  }
  auto x = random_tensor(1, 2, 6, 4);
  auto w = random_tensor(2, 6, 2, 3);
  auto b = random_tensor(3, 6);
  const Conv1dParameters p{.stride = 2, .padding_left = 2, .padding_right = 1, .num_groups = 2};
  check_gradients([&](const auto& a, const auto& k, const auto& z) { return square(conv1d(a, k, z, p)); }, x, w, b);
  auto u = random_tensor(4, 2, 4, 6);
  auto c = random_tensor(5, 4);
  const ConvTranspose1dParameters q{.stride = 2, .padding = 1, .output_padding = 1, .num_groups = 2};
  check_gradients([&](const auto& a, const auto& k, const auto& z) { return square(conv_transpose1d(a, k, z, q)); }, u, w, c);
  auto d = random_tensor(6, 4, 1, 3);
  check_gradients([&](const auto& a, const auto& k) { return square(conv1d(a, k, none, {.padding_left = 2, .num_groups = 4})); }, x, d);
  check_gradients([&](const auto& a, const auto& k) { return square(conv_transpose1d(a, k, none, {.stride = 2, .num_groups = 4})); }, x, d);
}

TEST_CASE("convolutions do not depend on the number of threads") {
  for (const Index groups : {1, 2, 96}) {
    const auto x = random_tensor<float>(1, 3, 150, 96);
    const auto w = random_tensor<float>(2, 96, 96 / groups, 5);
    const auto all = [&] {
      Tape tape;
      const auto tx = track(tape, x), tw = track(tape, w);
      const auto y = conv1d(tx, tw, none, {.padding_left = 4, .num_groups = groups});
      const Gradients g = tape.backward(sum(square(y)));
      return std::array{y.var().value, g.of(tx), g.of(tw)};
    };
    const auto one = all();
    set_num_threads(2);
    const auto two = all();
    set_num_threads(1);
    for (std::size_t k = 0; k < 3; ++k) CHECK(difference(two[k], [&](Index i) { return one[k].data()[i]; }) == 0);
  }
}

TEST_CASE("convolutions name what does not fit") {
  const auto x = random_tensor(1, 2, 5, 4);
  const auto w = random_tensor(2, 6, 4, 3);
  CHECK(error_of<ShapeError>([&] { conv1d(x, random_tensor(2, 6, 3, 3), none); }) ==
        "conv1d: x has shape [2, 5, 4], expected [B, L, 3] for a weight of shape [6, 3, 3] in 1 groups");
  CHECK(error_of<ShapeError>([&] { conv1d(x, w, random_tensor(3, 4)); }) == "conv1d: the bias has shape [4], expected [6]");
  CHECK(error_of<ShapeError>([&] { conv1d(x, w, none, {.dilation = 3}); }) ==
        "conv1d: 3 taps reach over 7 tokens, the padded input has 5");
  CHECK(error_of<ConfigError>([&] { conv1d(x, w, none, {.stride = 0}); }) ==
        "conv1d: stride 0, dilation 1, num_groups 1, padding 0; expected at least 1, 1, 1 and 0");
  CHECK(error_of<ShapeError>([&] { conv1d(x, w, none, {.num_groups = 4}); }) ==
        "conv1d: the weight has shape [6, 4, 3], expected three axes, the first a multiple of num_groups 4, the last at least 1");
  CHECK(error_of<ShapeError>([&] { conv_transpose1d(x, w, none); }) ==
        "conv_transpose1d: x has shape [2, 5, 4], expected [B, L, 6] for a weight of shape [6, 4, 3] in 1 groups");
  CHECK(error_of<ShapeError>([&] { conv_transpose1d(random_tensor(1, 2, 1, 6), w, none, {.padding = 3}); }) ==
        "conv_transpose1d: 1 tokens give -3 (output_padding 0)");
  CHECK(conv1d(x, w, none, {.padding_left = 0}).shape() == Shape{2, 3, 6});
  CHECK(conv1d(random_tensor(1, 2, 2, 4), w, none).shape() == Shape{2, 0, 6});
}
