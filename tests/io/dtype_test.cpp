#include "ordo/io/dtype.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "io/support.hpp"
#include "ordo/core/half.hpp"
#include "ordo/io/safetensors.hpp"
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

TEST_CASE("dtypes and their names") {
  for (const char* name : {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "BF16", "F32", "F64",
                           "C64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}) {
    const auto dtype = parse_dtype(name);
    REQUIRE(dtype);
    CHECK(to_string(*dtype) == name);
  }
  CHECK_FALSE(parse_dtype("F4"));
  CHECK_FALSE(parse_dtype("f32"));
  CHECK_FALSE(parse_dtype(""));
  CHECK(dtype_of<bool>() == Dtype::boolean);
  CHECK(dtype_of<BFloat16>() == Dtype::bf16);
  CHECK(dtype_of<long>() == dtype_of<std::int64_t>());
  CHECK(size_of(Dtype::c64) == 8);
  CHECK(size_of(Dtype::f16) == 2);
}

TEST_CASE("floating tensors convert to each other, rounded once") {
  const double x = 1.0 + 0x1p-11 + 0x1p-40;  // to half through float would round down
  const std::vector<double> values{x, 0.1, -0.0, 1e300, -std::numeric_limits<double>::infinity(), 0x1p-24};
  SafetensorsWriter writer;
  for (const Dtype dtype : {Dtype::f64, Dtype::f32, Dtype::f16, Dtype::bf16}) {
    writer.add_as(std::string(to_string(dtype)), dtype, Shape{6}, view(values));
  }
  const auto bytes = writer.to_bytes();
  const SafetensorsFile file = open(bytes);
  CHECK(file.read<double>("F64") == values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double v = values[i];
    CHECK(file.read<float>("F64")[i] == static_cast<float>(v));
    CHECK(file.read<Float16>("F64")[i].bits() == Float16(v).bits());
    CHECK(file.read<BFloat16>("F64")[i].bits() == BFloat16(v).bits());
    CHECK(file.read<double>("F32")[i] == static_cast<double>(static_cast<float>(v)));
    CHECK(file.read<BFloat16>("F32")[i].bits() == BFloat16(static_cast<float>(v)).bits());
    CHECK(file.read<double>("F16")[i] == static_cast<double>(Float16(v)));
    CHECK(file.read<float>("F16")[i] == static_cast<float>(Float16(v)));
    CHECK(file.read<double>("BF16")[i] == static_cast<double>(BFloat16(v)));
    CHECK(file.read<Float16>("F16")[i].bits() == Float16(v).bits());
    CHECK(std::signbit(file.read<float>("BF16")[2]));
  }
}

TEMPLATE_TEST_CASE("integers convert where every value fits", "", std::int8_t, std::uint8_t, std::int16_t,
                   std::uint16_t, std::int32_t, std::uint32_t, std::int64_t, std::uint64_t) {
  using Limits = std::numeric_limits<TestType>;
  const std::vector<TestType> values{Limits::min(), 0, 1, Limits::max()};
  SafetensorsWriter writer;
  writer.add("x", Shape{4}, view(values));
  const auto bytes = writer.to_bytes();
  const SafetensorsFile file = open(bytes);
  CHECK(kind_of(file.info("x").dtype) == DtypeKind::integer);
  CHECK(file.read<TestType>("x") == values);
  if constexpr (!std::same_as<TestType, std::uint64_t>) {
    const auto wide = file.read<std::int64_t>("x");
    for (std::size_t i = 0; i < 4; ++i) CHECK(wide[i] == static_cast<std::int64_t>(values[i]));
  }
  if constexpr (!std::same_as<TestType, std::int8_t>) {
    const std::string message = file_error([&] { file.read<std::int8_t>("x"); });
    const bool low = Limits::min() != 0;
    CHECK(contains(message, "m.safetensors: tensor \"x\": expected values that fit I8, found " +
                                std::to_string(low ? Limits::min() : Limits::max()) + " at element " +
                                (low ? "0" : "3")));
  }
  if constexpr (Limits::min() != 0) {
    CHECK(contains(file_error([&] { file.read<std::uint64_t>("x"); }), "expected values that fit U64"));
  }
  CHECK(
      contains(file_error([&] { file.read<float>("x"); }), "expected a floating dtype (F16, BF16, F32, F64), found "));
}
