// What the property tests of all layers do not see: the causal layer is the general one with its padding in front, and configurations
// that cannot be say so. Likewise of norms and feed-forwards.
#include "ordo/nn/conv1d.hpp"

#include "ops/support.hpp"
#include "ordo/nn/feed_forward.hpp"
#include "ordo/nn/norm.hpp"

using namespace ordo;  // NOLINT
using test::difference;
using test::error_of;
using test::random_tensor;

TEST_CASE("a causal convolution is the general one, padded in front") {
  for (const Index dilation : {1, 3}) {
    Random one(1), two(1);
    const CausalConv1d<float> causal({.in_dim = 6, .out_dim = 4, .conv_width = 3, .dilation = dilation, .num_groups = 2}, one);
    const Conv1d<float> general({.in_dim = 6, .out_dim = 4, .conv_width = 3, .dilation = dilation, .padding_left = 2 * dilation, .num_groups = 2}, two);
    const auto x = random_tensor<float>(2, 2, 9, 6);
    const auto expected = general(x);
    CHECK(difference(causal(x), [&](Index i) { return expected.data()[i]; }) == 0);
    auto state = causal.initial_state(2);
    CHECK(state.past.shape() == Shape{2, 2 * dilation, 6});
    CHECK(difference(causal(x, state), [&](Index i) { return expected.data()[i]; }) < 1e-6);
    CHECK(causal(DynTensor<float, 3>(2, 0, 6), state).shape() == Shape{2, 0, 4});
  }
}

TEST_CASE("configurations that cannot be") {
  Random random(1);
  CHECK(error_of<ConfigError>([&] { Conv1d<float>({.in_dim = 6, .out_dim = 4, .conv_width = 3, .num_groups = 3}, random); }) ==
        "conv1d: out_dim must be a multiple of num_groups (3), given 4");
  CHECK(error_of<ConfigError>([&] { ConvTranspose1d<float>({.in_dim = 6, .out_dim = 4}, random); }) ==
        "conv_transpose1d: conv_width must be at least 1, given 0");
  CHECK(error_of<ConfigError>([&] { CausalConv1d<float>({.in_dim = 6, .out_dim = 4, .conv_width = 2, .dilation = 0}, random); }) ==
        "causal_conv1d: dilation must be at least 1, given 0");
  CHECK(error_of<ConfigError>([&] { GroupNorm<float>({.model_dim = 6, .num_groups = 4}); }) ==
        "group_norm: model_dim must be a multiple of num_groups (4), given 6");
  CHECK(error_of<ConfigError>([&] { GatedRmsNorm<float>({.model_dim = 6, .gate_activation = Activation::relu}); }) ==
        "gated_rms_norm: gate_activation is silu or sigmoid, given relu");
  CHECK(error_of<ConfigError>([&] { GeGlu<float>({.model_dim = 6, .ff_dim = 4, .activation = Activation::silu}, random); }) ==
        "gated feed-forward: activation is gelu or gelu_tanh, given silu");
  const GroupNorm<float> norm({.model_dim = 6, .num_groups = 2, .over_length = true});
  CHECK(error_of<ShapeError>([&] { norm(random_tensor<float>(1, 3, 6)); }) ==
        "group_norm: x has shape [3, 6], expected [B, L, n] for statistics over the length");
}
