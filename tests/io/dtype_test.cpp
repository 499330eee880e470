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
