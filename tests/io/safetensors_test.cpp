#include "ordo/io/safetensors.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "io/support.hpp"
#include "ordo/core/random.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

using namespace ordo;
using namespace ordo_test;

namespace {

SafetensorsFile open(std::span<const std::byte> bytes, SafetensorsOptions options = {}) {
  return SafetensorsFile::from_bytes(bytes, "m.safetensors", options);
}

template <class T>
std::span<const T> view(const std::vector<T>& values) {
  return values;
}

}  // namespace

TEST_CASE("safetensors come back as they were written") {
  const TemporaryFolder folder;
  const std::vector<float> weight{1.5F, -2, 0.1F, 4, 5, 1e-40F};
  const std::vector<double> scalar{std::acos(-1.0)}, nothing;
  const std::vector<std::int64_t> ids{-1, 1LL << 62, 0};
  const std::vector<std::uint8_t> bytes{0, 255, 7};
  const bool flags[] = {true, false, true};
  SafetensorsWriter writer;
  writer.set_metadata("format", "first");
  writer.set_metadata("note", "a \"quoted\"\nné");
  writer.set_metadata("format", "pt");
  writer.add("z.weight", Shape{2, 3}, view(weight));
  writer.add("scalar", {}, view(scalar));
  writer.add("empty", {3, 0, 2}, view(nothing));
  writer.add("ids", Shape{3}, view(ids));
  writer.add("bytes", Shape{3}, view(bytes));
  writer.add("flags", Shape{3, 1}, std::span<const bool>(flags));
  writer.add_as("half", Dtype::bf16, Shape{6}, view(weight));
  writer.add("raw", Dtype::f8_e4m3, Shape{2}, to_bytes("ab"));
  writer.add("unicode \xC3\xA9 \"", Shape{2, 3}, view(weight));
  CHECK(writer.size() == 9);
  writer.write(folder / "m.safetensors");

  for (const MapMode map : {MapMode::automatic, MapMode::read}) {
    SafetensorsFile opened(folder / "m.safetensors", {.map = map});
    const SafetensorsFile file = std::move(opened);  // infos stay valid
    CHECK(file.size() == 9);
    CHECK(file.names() == std::vector<std::string>{"bytes", "empty", "flags", "half", "ids", "raw", "scalar",
                                                   "unicode \xC3\xA9 \"", "z.weight"});
    CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}, {"note", "a \"quoted\"\nné"}});
    CHECK(file.contains("scalar"));
    CHECK_FALSE(file.contains("scala"));
    CHECK(file.info("z.weight").shape == std::vector<Index>{2, 3});
    CHECK(file.info("z.weight").describe() == "F32 [2, 3]");
    CHECK(file.info("scalar").describe() == "F64 []");
    CHECK(file.info("empty").describe() == "F64 [3, 0, 2]");
    CHECK(file.info("empty").size() == 0);
    CHECK(file.read<float>("z.weight") == weight);
    CHECK(file.read<float>("unicode \xC3\xA9 \"") == weight);
    CHECK(file.read<double>("scalar") == scalar);
    CHECK(file.read<double>("empty").empty());
    CHECK(file.read<std::int64_t>("ids") == ids);
    CHECK(file.read<std::uint8_t>("bytes") == bytes);
    CHECK(file.read<int>("flags") == std::vector<int>{1, 0, 1});
    bool read_flags[3] = {};
    file.read("flags", std::span(read_flags));
    CHECK((read_flags[0] && !read_flags[1] && read_flags[2]));
    CHECK(std::to_integer<char>(file.info("raw").bytes[1]) == 'b');
    const auto half = file.read<float>("half");
    for (std::size_t i = 0; i < half.size(); ++i) CHECK(half[i] == static_cast<float>(BFloat16(weight[i])));
    // Every tensor is aligned to its elements.
    const auto* start = file.info("ids").bytes.data();
    for (const TensorInfo& tensor : file.tensors()) {
      CHECK((tensor.bytes.data() - start) % static_cast<std::ptrdiff_t>(size_of(tensor.dtype)) == 0);
    }
  }
  CHECK(folder.count() == 1);
}

TEST_CASE("the bytes written depend on the contents only, and are the format's") {
  const std::vector<float> a{1, 2};
  const std::vector<std::uint8_t> b{3};
  SafetensorsWriter forward, backward;
  forward.set_metadata("k", "v");
  forward.set_metadata("a", "b");
  forward.add("a", Shape{2}, view(a));
  forward.add("b", Shape{1}, view(b));
  forward.add("A", Shape{1, 2}, view(a));
  backward.add("A", Shape{1, 2}, view(a));
  backward.add("b", Shape{1}, view(b));
  backward.add("a", Shape{2}, view(a));
  backward.set_metadata("a", "b");
  backward.set_metadata("k", "v");
  CHECK(forward.to_bytes() == backward.to_bytes());

  std::string header =
      R"({"__metadata__":{"a":"b","k":"v"},"A":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"b":{"dtype":"U8","shape":[1],"data_offsets":[16,17]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const std::string two("\0\0\x80\x3F\0\0\0\x40", 8);
  CHECK(forward.to_bytes() == to_bytes(safetensors_text(header, two + two + "\x03")));

  CHECK(SafetensorsWriter().to_bytes() == to_bytes(safetensors_text("{}      ", "")));
  const auto nothing = SafetensorsWriter().to_bytes();
  CHECK(open(nothing).size() == 0);
}

TEST_CASE("the writer refuses what could not be read") {
  SafetensorsWriter writer;
  const std::vector<float> a{1, 2};
  writer.add("a", Shape{2}, view(a));
  const auto error = [](auto f) -> std::string {
    try {
      f();
    } catch (const UsageError& e) {
      return e.what();
    }
    return "";
  };
  CHECK(contains(error([&] { writer.add("a", Shape{2}, view(a)); }), "\"a\": there is a tensor of this name"));
  CHECK(contains(error([&] { writer.add("__metadata__", Shape{2}, view(a)); }), "reserves this name"));
  CHECK(contains(error([&] { writer.add("\xFF", Shape{2}, view(a)); }), "not UTF-8"));
  CHECK(contains(error([&] { writer.add("b", Shape{3}, view(a)); }), "expected 12 bytes for F32 [3], found 8"));
  const std::vector<Index> huge{1LL << 62, 4}, negative{-2};
  CHECK(contains(error([&] { writer.add("b", huge, view(a)); }), "fewer than 2^63"));
  CHECK(contains(error([&] { writer.add("b", negative, view(a)); }), "negative extent"));
  CHECK(contains(error([&] { writer.add_as("b", Dtype::i32, Shape{2}, view(a)); }), "found I32"));
  CHECK(writer.size() == 1);
  SafetensorsWriter other;
  other.set_metadata("k", "\xFF");
  CHECK(contains(file_error([&] { other.to_bytes(); }), "not UTF-8"));
}

TEST_CASE("errors of reading name the file, the tensor, what was expected and found") {
  const std::vector<float> a{1, 2, 3, 4};
  SafetensorsWriter writer;
  writer.add("a", Shape{2, 2}, view(a));
  writer.add("c", Dtype::c64, Shape{1}, std::vector<std::byte>(8));
  writer.add("flag", Dtype::boolean, Shape{2}, to_bytes(std::string("\1\2", 2)));
  const auto bytes = writer.to_bytes();
  const SafetensorsFile file = open(bytes);
  std::vector<float> four(4), five(5);
  CHECK(file_error([&] { file.info("b"); }) == "m.safetensors: tensor \"b\": expected in the file, not found");
  CHECK(file_error([&] { file.read("a", std::span(five)); }) ==
        "m.safetensors: tensor \"a\": expected 5 elements, found F32 [2, 2], which has 4");
  CHECK(file_error([&] { file.read("a", Shape{4}, std::span(four)); }) ==
        "m.safetensors: tensor \"a\": expected the shape [4], found F32 [2, 2]");
  CHECK(file_error([&] { file.read("a", Shape{2, 2}, std::span(four)); }).empty());
  CHECK(four == a);
  CHECK(file_error([&] { file.read<int>("a"); }) ==
        "m.safetensors: tensor \"a\": expected an integer dtype or BOOL, found F32 [2, 2]");
  bool flags[2];
  CHECK(file_error([&] { file.read("flag", std::span(flags)); }) ==
        "m.safetensors: tensor \"flag\": expected values that fit BOOL, found 2 at element 1 of BOOL [2]");
  CHECK(contains(file_error([&] { file.read<float>("flag"); }),
                 "expected a floating dtype (F16, BF16, F32, F64), found BOOL [2]"));
  CHECK(contains(file_error([&] { file.read("a", std::span<bool>(flags, 0)); }),
                 "expected 0 elements, found F32 [2, 2]"));
  CHECK(contains(file_error([&] { file.read<double>("c"); }),
                 "expected a floating dtype (F16, BF16, F32, F64), found C64 [1]"));
}

TEST_CASE("trailing bytes are an error unless allowed") {
  const auto bytes = to_bytes(safetensors_text(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", "xyzzzz"));
  CHECK(contains(file_error([&] { open(bytes); }),
                 "found 4 more bytes (SafetensorsOptions::allow_trailing_bytes ignores them)"));
  const SafetensorsFile file = open(bytes, {.allow_trailing_bytes = true});
  CHECK(file.read<int>("a") == std::vector<int>{'x', 'y'});
}

TEST_CASE("tensors may stand in any order, at any address, padded by any white space") {
  // Offsets fall while the keys rise, the F32 is misaligned, an empty tensor stands at every border.
  const auto bytes = to_bytes(safetensors_text(
      R"({"b":{"shape":[1],"data_offsets":[3,7],"dtype":"F32"}, "a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},
         "e0":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},
         "e3":{"dtype":"F64","shape":[0,9223372036854775807],"data_offsets":[3,3]},
         "e7":{"dtype":"U8","shape":[5,0],"data_offsets":[7,7]} , "__metadata__" : {} } )"
      "\t\r\n ",
      std::string("abc\0\0\x80\x3F", 7)));
  const SafetensorsFile file = open(bytes);
  CHECK(file.read<float>("b") == std::vector<float>{1});
  CHECK(file.read<int>("a") == std::vector<int>{'a', 'b', 'c'});
  CHECK(file.info("e3").size() == 0);
}

TEST_CASE("a file with many tensors opens in proportion to its size") {
  // 20,000 tensors; the header is about 1.5 MB.
  std::string header = "{";
  const int count = 20000;
  for (int i = 0; i < count; ++i) {
    const std::string n = std::to_string(i);
    header += std::string(i > 0 ? "," : "") + "\"layers." + n +
              ".weight\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[" + n + "," + std::to_string(i + 1) + "]}";
  }
  const auto bytes = to_bytes(safetensors_text(header + "}", std::string(count, 'x')));
  const AllocationCount counted;
  const SafetensorsFile file = open(bytes);
  const std::size_t allocated = counted.since().bytes;
  CHECK(file.size() == count);
  CHECK(file.contains("layers.19999.weight"));
  CHECK(allocated < 20 * bytes.size());
}
