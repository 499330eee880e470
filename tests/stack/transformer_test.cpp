#include "ordo/stack/transformer.hpp"

#include <cmath>

#include "io/support.hpp"
#include "ordo/io/pretrained.hpp"
#include "support/catch.hpp"

using namespace ordo;

namespace {
DynTensor<float, 3> noise(Index batch, Index length, Index width, std::uint64_t seed) {
  Random random(seed);
  DynTensor<float, 3> x(batch, length, width);
  for (float& v : x) v = static_cast<float>(random.normal());
  return x;
}
double largest_difference(const DynTensor<float, 3>& a, const DynTensor<float, 3>& b) {
  double worst = a.size() == b.size() ? 0 : HUGE_VAL;
  for (Index i = 0; i < a.size() && i < b.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a.data()[i] - b.data()[i])));
  return worst;
}
TransformerDecoder<float>::Config decoder_config() {
  TransformerDecoder<float>::Config c;
  c.model_dim = 8;
  c.num_heads = 2;
  c.ff_dim = 10;
  c.num_layers = 2;
  return c;
}
}  // namespace

TEST_CASE("transformer: a mask replaces causality") {
  Random random(2);
  const TransformerDecoder<float> decoder(decoder_config(), random);
  const auto x = noise(2, 5, 8, 1);
  const auto memory = decoder.remember(noise(2, 3, 8, 2));
  AnyTensor<std::uint8_t> triangle(Shape{5, 5}, std::uint8_t{0}), all(Shape{1, 5, 5}, std::uint8_t{1});
  for (Index i = 0; i < 5; ++i) std::fill_n(triangle.data() + 5 * i, i + 1, std::uint8_t{1});
  const DynTensor<float, 3> causal = decoder(x, {.memory = &memory});
  CHECK(largest_difference(causal, decoder(x, {.visibility = {.mask = triangle}, .memory = &memory})) < 1e-5);
  CHECK(largest_difference(causal, decoder(x, {.visibility = {.mask = all}, .memory = &memory})) > 1e-3);
}

TEST_CASE("transformer: torch.nn's names and fused projections") {
  Random random(2);
  const TransformerDecoder<float> decoder(decoder_config(), random);
  const NameMap names = TransformerDecoder<float>::Config::torch_names();
  const ordo_test::TemporaryFolder folder;
  save_named(folder / "decoder.safetensors", decoder, names);
  const SafetensorsFile file(folder / "decoder.safetensors");
  for (const char* name : {"self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight", "self_attn.out_proj.bias",
                           "multihead_attn.in_proj_weight", "multihead_attn.out_proj.bias", "linear1.weight", "linear2.bias", "norm1.weight",
                           "norm2.bias", "norm3.weight"}) {
    CHECK(file.contains("layers.1." + std::string(name)));
  }
  CHECK(file.find("layers.0.self_attn.in_proj_weight")->shape == std::vector<Index>{24, 8});
  CHECK(file.tensors().size() == 2 * 18);

  Random other(9);
  TransformerDecoder<float> read(decoder_config(), other);
  load_named(load_sharded(folder / "decoder.safetensors"), read, names);
  const auto x = noise(2, 5, 8, 1), memory = noise(2, 3, 8, 2);
  const auto a = decoder.remember(memory), b = read.remember(memory);
  CHECK(largest_difference(decoder(x, {.memory = &a}), read(x, {.memory = &b})) == 0);
}

TEST_CASE("transformer: options that torch.nn does not have are errors, as is a missing memory") {
  Random random(2);
  auto c = decoder_config();
  c.activation = Activation::silu;
  CHECK_THROWS_AS(TransformerDecoder<float>(c, random), ConfigError);
  c = decoder_config();
  c.norm_position = NormPosition::parallel;
  CHECK_THROWS_AS(TransformerDecoder<float>(c, random), ConfigError);
  const TransformerDecoder<float> decoder(decoder_config(), random);
  CHECK_THROWS_AS(decoder(noise(1, 2, 8, 1)), UsageError);
}
