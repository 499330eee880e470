#include "ordo/io/pretrained.hpp"

#include <cmath>
#include <string>

#include "io/support.hpp"
#include "ordo/models/gpt2.hpp"
#include "ordo/models/llama.hpp"
#include "support/catch.hpp"

using namespace ordo;
using namespace ordo_test;

namespace {

DynTensor<std::int32_t, 2> some_tokens(Index vocab) {
  DynTensor<std::int32_t, 2> ids(2, 6);
  for (Index i = 0; i < ids.size(); ++i) ids.data()[i] = static_cast<std::int32_t>((3 * i + 1) % vocab);
  return ids;
}
template <class A, class B>
double largest_difference(const A& a, const B& b) {
  double worst = a.size() == b.size() ? 0 : HUGE_VAL;
  for (Index i = 0; i < a.size() && i < b.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(a.data()[i] - b.data()[i])));
  return worst;
}
template <class F>
std::string config_error(F&& f) {
  try {
    f();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

const std::string gpt2_json = R"({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 6, "n_head": 2, "n_layer": 2, "n_positions": 9,
                               "vocab_size": 11, "n_inner": null, "some_new_key": {"a": 1}})";

Gpt2Config<float> gpt2_config() {
  Gpt2Config<float> c;
  c.n_embd = 6;
  c.n_head = 2;
  c.n_layer = 2;
  c.n_positions = 9;
  c.vocab_size = 11;
  return c;
}

/// A folder with a GPT-2 of random weights; `prefix` before its names.
Gpt2<float> write_gpt2(const TemporaryFolder& folder, const std::string& prefix, const std::string& json = gpt2_json) {
  Random random(5);
  Gpt2<float> model(gpt2_config(), random);
  for_each_leaf(model, [&](const Path&, auto& p) {
    for (float& v : p.mutate()) v = static_cast<float>(0.3 * random.normal());
  });
  write_plainly(folder / "config.json", json);
  save_named(folder / "model.safetensors", model, Gpt2Config<float>::names().with_prefix(prefix, "head"));
  return model;
}

}  // namespace

TEST_CASE("pretrained: GPT-2's fused, transposed matrices are read back, with and without prefix") {
  for (const char* prefix : {"transformer.", ""}) {
    const TemporaryFolder folder;
    const auto model = write_gpt2(folder, prefix);
    const SafetensorsFile file(folder / "model.safetensors");
    REQUIRE(file.contains(std::string(prefix) + "h.1.attn.c_attn.weight"));
    CHECK(file.find(std::string(prefix) + "h.1.attn.c_attn.weight")->shape == std::vector<Index>{6, 18});
    CHECK(file.find(std::string(prefix) + "h.1.mlp.c_fc.weight")->shape == std::vector<Index>{6, 24});
    CHECK(file.tensors().size() == 2 * 12 + 4);
    const auto read = load_pretrained<Gpt2<float>>(folder.path());
    const auto ids = some_tokens(11);
    CHECK(read.has_head);
    CHECK(largest_difference(model(ids), read.model(ids)) == 0);
  }
}

TEST_CASE("pretrained: the rows of c_attn are q, k, v, and a weight is [in, out]") {
  const TemporaryFolder folder;
  const auto model = write_gpt2(folder, "");
  const auto fused = SafetensorsFile(folder / "model.safetensors").read<float>("h.0.attn.c_attn.weight");
  Index checked = 0;
  for_each_leaf(model, [&](const Path& path, const auto& p) {
    const std::string name = path.str();
    const Index part = name == "layers.0.mixer.q_proj.weight" ? 0 : name == "layers.0.mixer.k_proj.weight" ? 1 : name == "layers.0.mixer.v_proj.weight" ? 2 : -1;
    if (part < 0) return;
    for (Index out = 0; out < 6; ++out) {
      for (Index in = 0; in < 6; ++in, ++checked) {
        CHECK(p.value().data()[out * 6 + in] == fused[static_cast<std::size_t>(in * 18 + part * 6 + out)]);
      }
    }
  });
  CHECK(checked == 3 * 36);
}

TEST_CASE("pretrained: what a folder may lack or have too much of") {
  const TemporaryFolder folder;
  SECTION("a base model gives hidden states") {
    auto json = gpt2_json;
    json.replace(json.find("GPT2LMHeadModel"), 15, "GPT2Model");
    write_gpt2(folder, "", json);
    CHECK_FALSE(load_pretrained<Gpt2<float>>(folder.path()).has_head);
  }
  SECTION("an unknown architecture") {
    auto json = gpt2_json;
    json.replace(json.find("GPT2LMHeadModel"), 15, "GPT2Classifier");
    write_gpt2(folder, "", json);
    CHECK(contains(config_error([&] { load_pretrained<Gpt2<float>>(folder.path()); }), "unknown architecture \"GPT2Classifier\""));
  }
  SECTION("an unknown activation") {
    auto json = gpt2_json;
    json.insert(1, "\"activation_function\": \"swoosh\", ");
    write_gpt2(folder, "", json);
    CHECK(contains(config_error([&] { load_pretrained<Gpt2<float>>(folder.path()); }), "swoosh"));
  }
  SECTION("an untied head that is missing") {
    auto json = gpt2_json;
    json.insert(1, "\"tie_word_embeddings\": false, ");
    write_gpt2(folder, "", json);
    CHECK(contains(file_error([&] { load_pretrained<Gpt2<float>>(folder.path()); }), "lm_head.weight is missing"));
  }
  SECTION("more layers than the file has") {
    auto json = gpt2_json;
    json.replace(json.find("\"n_layer\": 2"), 12, "\"n_layer\": 3");
    write_gpt2(folder, "", json);
    const std::string error = file_error([&] { load_pretrained<Gpt2<float>>(folder.path()); });
    CHECK(contains(error, "missing"));
    CHECK(contains(error, "h.2.attn.c_attn.weight [6, 18]"));
  }
  SECTION("fewer layers") {
    auto json = gpt2_json;
    json.replace(json.find("\"n_layer\": 2"), 12, "\"n_layer\": 1");
    write_gpt2(folder, "", json);
    CHECK(contains(file_error([&] { load_pretrained<Gpt2<float>>(folder.path()); }), "extra"));
  }
  SECTION("causal masks of old files are let pass") {
    auto model = write_gpt2(folder, "");
    const auto tensors = in_file_layout<float>(model, Gpt2Config<float>::names(), [](const auto& p) { return p.any(); });
    SafetensorsWriter writer;
    for (const auto& [name, x] : tensors) writer.add<float>(name, x.shape(), std::span<const float>(x.data(), static_cast<std::size_t>(x.size())));
    const std::vector<float> mask(9, 1.0F);
    writer.add<float>("h.0.attn.bias", Shape{1, 1, 3, 3}, std::span<const float>(mask));
    writer.write(folder / "model.safetensors");
    CHECK(load_pretrained<Gpt2<float>>(folder.path()).has_head);
  }
}

TEST_CASE("pretrained: Llama's rotary positions in each of their forms") {
  const auto mixer_of = [](const char* text) {
    LlamaConfig<float> c;
    ordo::detail::read_known_fields(Json::parse(text).named("config.json"), c);
    return c.expand().block.mixer;
  };
  const char* plain = R"({"hidden_size": 32, "num_attention_heads": 4})";
  CHECK(mixer_of(plain).rope_base == 10000);
  CHECK(mixer_of(plain).rope_dim == 8);
  const auto old = mixer_of(R"({"hidden_size": 32, "num_attention_heads": 4, "rope_theta": 500, "partial_rotary_factor": 0.5,
                               "rope_scaling": {"type": "linear", "factor": 2.5, "finetuned": true}})");
  CHECK(old.rope_base == 500);
  CHECK(old.rope_dim == 4);
  CHECK(old.rope_scaling.type == RopeScalingType::linear);
  CHECK(old.rope_scaling.factor == 2.5);
  const auto yarn = mixer_of(R"({"head_dim": 16, "max_position_embeddings": 400, "rope_theta": 500,
                                "rope_parameters": {"rope_type": "yarn", "rope_theta": 700, "original_max_position_embeddings": 100}})");
  CHECK(yarn.rope_base == 700);
  CHECK(yarn.rope_scaling.factor == 4);
  CHECK(contains(config_error([&] { mixer_of(R"({"rope_scaling": {"rope_type": "spiral"}})"); }), "spiral"));
}
