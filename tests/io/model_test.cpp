// Saving and strict loading of models.

#include "ordo/io/model.hpp"

#include <memory>

#include "io/support.hpp"
#include "support/catch.hpp"
#include "train/support.hpp"

using namespace ordo;
using ordo_test::contains;
using ordo_test::TinyModel;
using ordo_test::weights_of;

TEST_CASE("a model comes back bit for bit, and runs with the new weights") {
  const ordo_test::TemporaryFolder folder;
  Random random(1);
  const TinyModel<float> saved(random);
  TinyModel<float> loaded(random);
  DynTensor<float, 3> x(DynExtents<3>(1, 3, 1), 0.5F);
  loaded(x);  // packs the weights that must be dropped
  save_model(folder / "m.safetensors", saved, {{"format", "pt"}});
  load_model(folder / "m.safetensors", loaded);
  CHECK(ordo_test::same_bits(weights_of(saved), weights_of(loaded)));
  CHECK(saved(x)(0, 2, 0) == loaded(x)(0, 2, 0));
  const SafetensorsFile file(folder / "m.safetensors");
  CHECK(file.names() == std::vector<std::string>{"down.bias", "down.weight", "up.bias", "up.weight"});
  CHECK(file.metadata().at("format") == "pt");
}

TEST_CASE("values are converted to the model's type") {
  const ordo_test::TemporaryFolder folder;
  Random random(1);
  const TinyModel<float> saved(random);
  TinyModel<double> wide(random);
  save_model(folder / "m.safetensors", saved);
  load_model(folder / "m.safetensors", wide);
  const auto a = weights_of(saved);
  const auto b = weights_of(wide);
  CHECK(std::equal(a.begin(), a.end(), b.begin(), b.end(),
                   [](float x, double y) { return static_cast<double>(x) == y; }));
}

TEST_CASE("weights in another floating type: rounded once when saved, exact when read") {
  const ordo_test::TemporaryFolder folder;
  Random random(1);
  const TinyModel<double> saved(random);
  const auto weights = weights_of(saved);
  const auto check = [&](Dtype dtype, auto rounded) {
    CAPTURE(to_string(dtype));
    save_model(folder / "m.safetensors", saved, dtype, {{"format", "pt"}});
    const SafetensorsFile file(folder / "m.safetensors");
    CHECK(file.metadata().at("format") == "pt");
    for (const TensorInfo& tensor : file.tensors()) CHECK(tensor.dtype == dtype);
    TinyModel<double> wide(random);
    TinyModel<float> narrow(random);
    load_model(folder / "m.safetensors", wide);
    load_model(folder / "m.safetensors", narrow);
    const auto a = weights_of(wide);
    const auto b = weights_of(narrow);
    REQUIRE(a.size() == weights.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      REQUIRE(a[i] == static_cast<double>(rounded(weights[i])));
      REQUIRE(b[i] == static_cast<float>(a[i]));
    }
  };
  check(Dtype::f16, [](double x) { return Float16(x); });
  check(Dtype::bf16, [](double x) { return BFloat16(x); });
  check(Dtype::f32, [](double x) { return static_cast<float>(x); });
  check(Dtype::f64, [](double x) { return x; });
  CHECK_THROWS_AS(save_model(folder / "m.safetensors", saved, Dtype::i32), Error);
}

TEST_CASE("everything that does not fit is one error, and the model is untouched") {
  const ordo_test::TemporaryFolder folder;
  SafetensorsWriter writer;
  const std::vector<float> numbers(24, 5.0F);
  const std::vector<std::int32_t> integers(1, 5);
  writer.add<float>("up.weight", Shape{24, 1}, numbers);
  writer.add<float>("up.bias", Shape{1, 24}, numbers);
  writer.add<std::int32_t>("down.bias", Shape{1}, std::span(integers));
  writer.add<float>("more", Shape{24}, numbers);
  writer.write(folder / "m.safetensors");
  Random random(1);
  TinyModel<float> model(random);
  const auto before = weights_of(model);
  const std::string error = ordo_test::file_error([&] { load_model(folder / "m.safetensors", model); });
  CHECK(contains(error, "down.weight [1, 24]"));
  CHECK(contains(error, "more [24]"));
  CHECK(contains(error, "up.bias: file has [1, 24], model needs [24]"));
  CHECK(contains(error, "down.bias: file has integers"));
  CHECK(ordo_test::same_bits(before, weights_of(model)));
}

TEST_CASE("an element type that cannot be converted is found before anything is written") {
  const ordo_test::TemporaryFolder folder;
  SafetensorsWriter writer;
  const std::vector<float> numbers(24, 5.0F);
  writer.add<float>("up.weight", Shape{24, 1}, numbers);
  writer.add<float>("up.bias", Shape{24}, numbers);
  writer.add<float>("down.weight", Shape{1, 24}, numbers);
  writer.add("down.bias", Dtype::c64, Shape{1}, std::vector<std::byte>(8));
  writer.write(folder / "m.safetensors");
  Random random(1);
  TinyModel<float> model(random);
  const auto before = weights_of(model);
  CHECK(contains(ordo_test::file_error([&] { load_model(folder / "m.safetensors", model); }), "down.bias"));
  CHECK(ordo_test::same_bits(before, weights_of(model)));
}

TEST_CASE("renamed parameters and tensors to ignore") {
  const ordo_test::TemporaryFolder folder;
  Random random(1);
  const TinyModel<float> saved(random);
  SafetensorsWriter writer;
  for_each_leaf(saved, [&](const Path& path, const auto& p) {
    writer.add<float>("net." + path.str(), p.shape(),
                      std::span<const float>(p.value().data(), static_cast<std::size_t>(p.size())));
  });
  const std::vector<float> other(3);
  writer.add<float>("rotary.inv_freq", Shape{3}, other);
  writer.write(folder / "m.safetensors");
  TinyModel<float> model(random);
  const auto rename = [](const std::string& name) { return "net." + name; };
  CHECK(contains(ordo_test::file_error([&] { load_model(folder / "m.safetensors", model, {.rename = rename}); }),
                 "rotary.inv_freq"));
  load_model(folder / "m.safetensors", model,
             {.ignore = [](const std::string& n) { return n == "rotary.inv_freq"; }, .rename = rename});
  CHECK(ordo_test::same_bits(weights_of(saved), weights_of(model)));
}

namespace {
struct StreamState {
  DynTensor<double, 2> memory{2, 3};
  DynTensor<std::int32_t, 1> position{2};
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("memory", s.memory);
    f("position", s.position);
  }
};
}  // namespace

TEST_CASE("states are saved the same way") {
  const ordo_test::TemporaryFolder folder;
  StreamState state, back;
  state.memory(1, 2) = 0.1;
  state.position(1) = 77;
  save_model(folder / "s.safetensors", state);
  load_model(folder / "s.safetensors", back);
  CHECK(back.memory(1, 2) == 0.1);
  CHECK(back.position(1) == 77);
  StreamState other;
  other.position = DynTensor<std::int32_t, 1>(3);
  CHECK(contains(ordo_test::file_error([&] { load_model(folder / "s.safetensors", other); }),
                 "position: file has [2], model needs [3]"));
}
