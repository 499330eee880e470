#include "ordo/stack/causal_lm.hpp"

#include <string>

#include "ordo/io/config.hpp"
#include "ordo/stack/mixers.hpp"
#include "support/catch.hpp"

using namespace ordo;

namespace {

using Model = CausalLm<AnyMixer<float>>;

Model::Config read(const std::string& text) {
  Model::Config c;
  read_config(Json::parse(text), c);
  return c;
}
template <class F>
std::string error_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
std::vector<std::string> names_of(const Model& model) {
  std::vector<std::string> names;
  for_each_leaf(model, [&](const Path& path, const auto&) { names.push_back(path.str()); });
  return names;
}

}  // namespace

TEST_CASE("causal_lm: a hybrid from a description; blocks inherit what they do not say") {
  const auto c = read(R"({"vocab_size": 11, "model_dim": 6, "norm": "layer_norm", "norm_position": "sandwich", "tie_embeddings": true, "layers": [
      {"mixer": {"name": "lstm"}},
      {"norm": "rms_norm", "mixer": {"name": "softmax_attention", "num_heads": 2, "causal": true}, "feed_forward": {"name": "swiglu", "ff_dim": 5, "bias": false}},
      {"norm_position": "post", "norm_bias": false, "mixer": {"name": "mamba", "state_dim": 2}}]})");
  CHECK(read(write_config(c).dump()).layers.size() == 3);
  Random random(1);
  const auto names = names_of(Model(c, random));
  const auto has = [&](const std::string& name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  for (const char* name : {"embedding.weight", "layers.0.mixer.weight_ih_l0", "layers.0.mixer_norm.bias", "layers.0.mixer_post_norm.weight",
                           "layers.1.mixer.q_proj.weight", "layers.1.feed_forward.gate_proj.weight", "layers.1.feed_forward_post_norm.weight",
                           "layers.2.mixer.in_proj.weight", "layers.2.mixer_norm.weight", "norm.bias"}) {
    INFO(name);
    CHECK(has(name));
  }
  for (const char* name : {"layers.1.mixer_norm.bias", "layers.2.mixer_norm.bias", "layers.2.mixer_post_norm.weight", "layers.0.feed_forward_norm.weight", "head.weight"}) {
    INFO(name);
    CHECK_FALSE(has(name));
  }
}

TEST_CASE("causal_lm: descriptions that make no model") {
  Random random(1);
  const auto error = [&](const std::string& block) {
    return error_of([&] { Model(read(R"({"vocab_size": 11, "model_dim": 6, "num_layers": 1, "block": )" + block + "}"), random); });
  };
  CHECK(contains(error(R"({"mixer": {"name": "hyena"}})"), "known are softmax_attention, mamba, lstm, gru"));
  CHECK(contains(error(R"({"mixer": {"name": "mamba", "num_heads": 2}})"), "num_heads"));
  CHECK(contains(error(R"({"mixer": {"name": "softmax_attention", "num_heads": 2}})"), "not causal"));
  CHECK(contains(error(R"({"mixer": {"name": "gru", "hidden_dim": 7}})"), "hidden_dim 7"));
  CHECK(contains(error(R"({"norm_position": "parallel", "mixer": {"name": "mamba"}})"), "feed-forward"));
  CHECK(contains(error(R"({"mixer": {"name": "mamba"}, "feed_forward": {"name": "swiglu", "ff_dim": 4, "activation": "gelu"}})"), "silu"));
  CHECK(contains(error(R"({"norm_position": "before", "mixer": {"name": "mamba"}})"), "before"));
  CHECK(contains(error(R"({"model_dim": 7, "mixer": {"name": "mamba"}})"), "model_dim 7"));
}

TEST_CASE("causal_lm: positions beyond the table, wrong states, masks for mixers that have none") {
  Random random(1);
  const Model model(read(R"({"vocab_size": 11, "model_dim": 6, "num_layers": 1, "block": {"mixer": {"name": "gru"}},
                           "positions": {"name": "learned", "max_length": 4}})"), random);
  CHECK_NOTHROW(model(DynTensor<std::int32_t, 2>(1, 4)));
  CHECK(contains(error_of([&] { model(DynTensor<std::int32_t, 2>(1, 5)); }), "position 4, the table of positions has 4 rows"));
  auto state = model.initial_state(1);
  static_cast<void>(model(DynTensor<std::int32_t, 2>(1, 3), state));
  static_cast<void>(model.step(DynTensor<std::int32_t, 1>(1), state));
  CHECK_THROWS_AS(model.step(DynTensor<std::int32_t, 1>(1), state), ShapeError);
  auto two = model.initial_state(2);
  CHECK_THROWS_AS(model(DynTensor<std::int32_t, 2>(1, 3), two), ShapeError);
  CHECK_THROWS_AS(model(DynTensor<std::int32_t, 2>(1, 3), {.visibility = {.key_padding = AnyTensor<std::uint8_t>(Shape{1, 3}, std::uint8_t{1})}}), UsageError);
}
