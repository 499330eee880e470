#include "ordo/io/tensor_source.hpp"

#include <string>
#include <vector>

#include "io/support.hpp"
#include "ordo/io/safetensors.hpp"
#include "support/catch.hpp"

using namespace ordo;
using namespace ordo_test;
namespace fs = std::filesystem;

namespace {

void write_file(const fs::path& path, const std::vector<std::pair<std::string, float>>& tensors) {
  SafetensorsWriter writer;
  for (const auto& [name, value] : tensors) writer.add(name, Shape{}, std::span<const float>(&value, 1));
  writer.write(path);
}

std::string load_error(const fs::path& path) {
  return file_error([&] { load_sharded(path); });
}

std::string index_of(std::string_view map) {
  return "{\"metadata\":{\"total_size\":12},\"weight_map\":" + std::string(map) + "}";
}

}  // namespace

TEST_CASE("a checkpoint loads from one file, from a folder, and from several files by their index") {
  const TemporaryFolder folder;
  write_file(folder / "model-00001-of-00002.safetensors", {{"b", 2}, {"d", 4}});
  fs::create_directory(folder / "more");
  write_file(folder / "more/x.safetensors", {{"c", 3}, {"a", 1}, {"e", 5}});
  const std::string first = "model-00001-of-00002.safetensors";
  write_plainly(folder / "model.safetensors.index.json",
                index_of("{\"a\":\"more/x.safetensors\",\"b\":\"" + first +
                         "\",\"c\":\"./more/x.safetensors\",\"d\":\"" + first + "\",\"e\":\"more/x.safetensors\"}"));
  // "./more/x" and "more/x" are two spellings of one file.
  CHECK(load_error(folder.path()).empty());

  for (const fs::path& path : {folder.path(), folder / "model.safetensors.index.json"}) {
    TensorSource opened = load_sharded(path);
    const TensorSource source = std::move(opened);
    CHECK(source.files().size() == 2);
    CHECK(source.size() == 5);
    CHECK(source.names() == std::vector<std::string>{"a", "b", "c", "d", "e"});
    CHECK(source.read<float>("a") == std::vector<float>{1});
    CHECK(source.read<double>("d") == std::vector<double>{4});
    float value = 0;
    source.read("c", Shape{}, std::span(&value, 1));
    CHECK(value == 3);
    CHECK(source.info("e").describe() == "F32 []");
    CHECK(source.contains("e"));
    CHECK_FALSE(source.contains("f"));
    CHECK(contains(source.file_of("b").file_name(), first));
    CHECK(contains(source.file_name(), " and 1 more"));
    CHECK(contains(file_error([&] { source.info("f"); }), "tensor \"f\": expected in the file, not found"));
  }
  const TensorSource one = load_sharded(folder / first);
  CHECK(one.names() == std::vector<std::string>{"b", "d"});

  // model.safetensors wins over the index.
  write_file(folder / "model.safetensors", {{"z", 9}});
  CHECK(load_sharded(folder.path()).names() == std::vector<std::string>{"z"});

  TensorSource both{SafetensorsFile(folder / first)};
  both.add(SafetensorsFile(folder / "more/x.safetensors"));
  CHECK(both.size() == 5);
  CHECK(contains(file_error([&] { both.add(SafetensorsFile(folder / first)); }), "expected in one file, found in "));
  CHECK(both.size() == 5);
  CHECK(TensorSource().names().empty());
}

TEST_CASE("an index cannot lead out of its folder or disagree with its files") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "in");
  write_file(folder / "outside.safetensors", {{"a", 1}});
  write_file(folder / "in/inside.safetensors", {{"a", 1}, {"b", 2}});
  const fs::path index = folder / "in/model.safetensors.index.json";
  const auto error = [&](std::string_view map) {
    write_plainly(index, index_of(map));
    return load_error(folder / "in");
  };
  CHECK(error(R"({"a":"inside.safetensors","b":"inside.safetensors"})").empty());
  const std::string outside = (folder / "outside.safetensors").string();
  for (const std::string& name :
       {std::string("../outside.safetensors"), std::string("x/../../outside.safetensors"), outside, std::string(""),
        std::string(".."), std::string("inside.safetensors\\u0000")}) {
    const std::string message = error("{\"a\":\"" + name + "\"}");
    CAPTURE(name, message);
    CHECK(contains(message, "weight_map.a: expected the name of a file in the folder of the index, found the string "));
  }
  CHECK(contains(error(R"({"layer.a":3})"), "weight_map[\"layer.a\"]: expected a string, found the number 3"));
  CHECK(contains(error("[]"),
                 "weight_map: expected an object that maps names of tensors to names of files, found an array"));
  CHECK(contains(error("{}"), "weight_map: expected an object that maps"));
  CHECK(contains(error(R"({"a":"absent.safetensors"})"), "No such file or directory"));
  CHECK(contains(error(R"({"a":"."})"), "it is a folder"));
  CHECK(contains(error(R"({"a":"model.safetensors.index.json"})"), "is it a safetensors file?"));
  const std::string both = error(R"({"a":"inside.safetensors","c":"inside.safetensors"})");
  CHECK(contains(both, "1 tensors that the index places where they are not:\n    \"c\" in "));
  CHECK(contains(both, "1 tensors that the index does not place there:\n    \"b\" in "));
  write_plainly(index, "{\"weight_map\":{\"a\":\"inside.safetensors\",\"a\":\"inside.safetensors\"}}");
  CHECK(contains(load_error(folder / "in"), "index.json, line 1, column 41 (byte 40): expected each key once"));
  write_plainly(index, "{}");
  CHECK(contains(load_error(folder / "in"), "index.json: weight_map: missing"));
  fs::remove(index);
  CHECK(
      contains(load_error(folder / "in"), "expected model.safetensors or model.safetensors.index.json in the folder"));
  CHECK(contains(load_error(folder / "nowhere"), "No such file or directory"));
}

TEST_CASE("a report lists everything that does not fit, at once") {
  const std::vector<TensorSpec> model{{"norm", {4}}, {"a.weight", {3, 2}}, {"b", {}}, {"c", {1}, DtypeKind::floating}};
  LoadReport good(model, {{"c", {1}, DtypeKind::floating}, {"b", {}}, {"a.weight", {3, 2}}, {"norm", {4}}});
  CHECK(good.matches());
  good.require_match("m");

  const LoadReport bad(
      model, {{"a.weight", {2, 3}}, {"c", {1}, DtypeKind::integer}, {"norm", {4}}, {"x\n", {7, 7}}, {"0", {}}});
  CHECK_FALSE(bad.matches());
  CHECK(bad.missing() == std::vector<std::string>{"b []"});
  CHECK(bad.extra() == std::vector<std::string>{"0 []", "x\\x0a [7, 7]"});
  CHECK(bad.misshaped() == std::vector<std::string>{"a.weight: file has [2, 3], model needs [3, 2]"});
  CHECK(bad.mistyped() == std::vector<std::string>{"c: file has integers, model needs floating-point numbers"});
  CHECK(file_error([&] { bad.require_match("m.safetensors"); }) == R"(m.safetensors: the file does not fit the model
  1 missing (the model needs them, the file has no such name):
    b []
  2 extra (the file has them, the model does not use them):
    0 []
    x\x0a [7, 7]
  1 misshaped:
    a.weight: file has [2, 3], model needs [3, 2]
  1 of another kind:
    c: file has integers, model needs floating-point numbers)");

  const LoadReport ignoring({}, {{"rotary.inv_freq", {4}}, {"other", {1}}},
                            [](const std::string& name) { return name.ends_with("inv_freq"); });
  CHECK(ignoring.extra() == std::vector<std::string>{"other [1]"});
  CHECK_THROWS_AS(LoadReport({{"a", {1}}, {"a", {1}}}, {}), UsageError);
}

TEST_CASE("a report stays short") {
  std::vector<TensorSpec> model;
  for (int i = 0; i < 100; ++i) model.push_back({"layer." + std::to_string(100 + i), {i, 1}});
  const LoadReport report(model, {});
  CHECK(report.missing().size() == 100);
  const std::string message = report.message("m");
  CHECK(contains(message, "100 missing"));
  CHECK(contains(message, "layer.119 [19, 1]\n    ... and 80 more"));
  CHECK_FALSE(contains(message, "layer.120"));
}

TEST_CASE("the specs of a file are its names, shapes and kinds") {
  const TemporaryFolder folder;
  write_file(folder / "model.safetensors", {{"b", 2}, {"a", 4}});
  const auto specs = tensor_specs(load_sharded(folder.path()));
  REQUIRE(specs.size() == 2);
  CHECK(specs[0].name == "a");
  CHECK(specs[0].shape.empty());
  CHECK(specs[0].kind == DtypeKind::floating);
  CHECK(tensor_specs(SafetensorsFile(folder / "model.safetensors")).size() == 2);
}
