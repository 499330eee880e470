#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "io/support.hpp"
#include "ordo/core/random.hpp"
#include "ordo/io/safetensors.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

using namespace ordo;
using namespace ordo_test;

namespace {

struct BadFile {
  std::string text;
  const char* expected;
};

std::string entry(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return "{\"dtype\":\"" + std::string(dtype) + "\",\"shape\":" + std::string(shape) +
         ",\"data_offsets\":" + std::string(offsets) + "}";
}

// One tensor "a" and n bytes of data.
std::string one(std::string_view dtype, std::string_view shape, std::string_view offsets, std::size_t n) {
  return safetensors_text("{\"a\":" + entry(dtype, shape, offsets) + "}", std::string(n, 'x'));
}

std::string two(std::string_view shape_a, std::string_view offsets_a, std::string_view shape_b,
                std::string_view offsets_b, std::size_t n) {
  return safetensors_text(
      "{\"a\":" + entry("U8", shape_a, offsets_a) + ",\"b\":" + entry("U8", shape_b, offsets_b) + "}",
      std::string(n, 'x'));
}

std::string with_length(std::uint64_t length, std::string_view rest) {
  std::string text;
  for (int i = 0; i < 8; ++i) text += static_cast<char>(length >> (8 * i) & 255);
  return text.append(rest);
}

}  // namespace

TEST_CASE("malformed safetensors files are refused with the reason") {
  const std::string good = entry("U8", "[2]", "[0,2]");
  const BadFile files[] = {
      // The length.
      {"", "at least 8 bytes, found 0"},
      {"1234567", "at least 8 bytes, found 7"},
      {with_length(0, ""), "starts with '{'"},
      {with_length(2, "{"), "expected a header of 2 bytes, found 1: is the file cut off?"},
      {with_length(100'000'001, "{}"), "expected a header of at most 100000000 bytes, found a length of 100000001"},
      {with_length(100'000'000, "{}"), "expected a header of 100000000 bytes, found 2"},
      {with_length(0xFFFFFFFFFFFFFFFF, "{}"), "expected a header of at most 100000000 bytes"},
      {with_length(0xFFFFFFFFFFFFFFF8, "{}"), "expected a header of at most 100000000 bytes"},  // + 8 wraps to 0
      {with_length(0x8000000000000000, "{}"), "expected a header of at most 100000000 bytes"},
      {"{\"a\":1}   {}", "is it a safetensors file?"},
      // The header as a text.
      {safetensors_text(" {}", ""), "starts with '{'"},
      {safetensors_text("[]", ""), "starts with '{'"},
      {safetensors_text("{", ""), "m, header, line 1, column 2 (byte 1): expected a key in quotes, found the end"},
      {safetensors_text("{}x", ""), "expected the end of the text, found 'x'"},
      {safetensors_text(std::string("{}\0", 3), ""), "expected the end of the text, found byte 0x00"},
      {safetensors_text("{\"a\":" + good + ",}", "xx"), "expected a key in quotes, found '}'"},
      {safetensors_text("{\"\xFF\":" + good + "}", "xx"), "expected valid UTF-8"},
      {safetensors_text("{\"\xED\xA0\x80\":" + good + "}", "xx"), "expected valid UTF-8"},
      {safetensors_text("{\"\\ud800\":" + good + "}", "xx"), "expected a low surrogate"},
      {safetensors_text("{\"a\":" + good, "xx"), "expected a comma or '}', found the end"},
      // Keys.
      {safetensors_text("{\"a\":" + good + ",\"a\":" + good + "}", "xx"),
       "(byte 53): expected each tensor once, found \"a\" again"},
      {safetensors_text("{\"a\":" + good + ",\"\\u0061\":" + good + "}", "xx"), "expected each tensor once"},
      {safetensors_text("{\"__metadata__\":{},\"__metadata__\":{}}", ""), "expected \"__metadata__\" once"},
      {safetensors_text("{\"__metadata__\":{\"k\":\"1\",\"k\":\"1\"}}", ""), "expected each key of the metadata once"},
      {safetensors_text("{\"__metadata__\":{\"k\":1}}", ""), "expected a string, found '1'"},
      {safetensors_text("{\"__metadata__\":{\"k\":null}}", ""), "expected a string, found 'n'"},
      {safetensors_text("{\"__metadata__\":[]}", ""), "expected an object, found '['"},
      {safetensors_text("{\"__metadata__\":null}", ""), "expected an object, found 'n'"},
      // Entries.
      {safetensors_text("{\"a\":1}", ""), "expected an object, found '1'"},
      {safetensors_text("{\"a\":{}}", ""), "found no dtype"},
      {safetensors_text("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,0]}}", ""), "found no shape"},
      {safetensors_text("{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}", ""), "found no data_offsets"},
      {safetensors_text("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\"}}", ""), "once each, found \"dtype\" again"},
      {safetensors_text("{\"a\":{\"dtype\":\"U8\",\"strides\":[1]}}", ""), "once each, found \"strides\""},
      {one("F7", "[2]", "[0,2]", 2), "F8_E5M2FNUZ), found \"F7\""},
      {one("f32", "[1]", "[0,4]", 4), "found \"f32\""},
      {one("F4", "[4]", "[0,2]", 2), "found F4: elements smaller than a byte are not supported"},
      {one("F6_E2M3", "[4]", "[0,3]", 3), "found F6_E2M3: elements smaller than a byte"},
      {one("F6_E3M2", "[4]", "[0,3]", 3), "found F6_E3M2: elements smaller than a byte"},
      {safetensors_text("{\"a\":{\"dtype\":5,\"shape\":[2],\"data_offsets\":[0,2]}}", "xx"),
       "expected a string, found '5'"},
      // Shapes.
      {one("U8", "2", "[0,2]", 2), "expected an array, found '2'"},
      {one("U8", "[-2]", "[0,2]", 2), "expected an extent, a whole number from 0"},
      {one("U8", "[2.0]", "[0,2]", 2), "expected an extent, a whole number from 0"},
      {one("U8", "[2e0]", "[0,2]", 2), "expected an extent, a whole number from 0"},
      {one("U8", "[\"2\"]", "[0,2]", 2), "expected a number, found '\"'"},
      {one("U8", "[null]", "[0,2]", 2), "expected a number, found 'n'"},
      {one("U8", "[9223372036854775808]", "[0,2]", 2), "expected an extent, a whole number from 0"},
      {one("U8", "[1" + std::string(400, '0') + "]", "[0,2]", 2), "expected a number that a double can hold"},
      {one("U8", "[[2]]", "[0,2]", 2), "expected a number, found '['"},
      {one("U8",
           "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
           "1,1,1,1,1,1,1,1,1,1,1,1]",
           "[0,1]", 1),
       "expected at most 64 axes"},
      {one("U8", "[4611686018427387904,4]", "[0,0]", 0), "expected a size that fits in 63 bits"},  // wraps to 0
      {one("U8", "[4611686018427387904,4,0]", "[0,0]", 0), "expected a size that fits in 63 bits"},
      {one("F32", "[4611686018427387904]", "[0,0]", 0), "expected a size that fits in 63 bits"},  // bytes wrap to 0
      {one("F64", "[2305843009213693953]", "[0,8]", 8), "expected a size that fits in 63 bits"},  // bytes wrap to 8
      // Offsets.
      {one("U8", "[2]", "[0]", 2), "expected two data_offsets"},
      {one("U8", "[2]", "[]", 2), "expected two data_offsets"},
      {one("U8", "[2]", "[0,2,2]", 2), "expected two data_offsets"},
      {one("U8", "[2]", "{}", 2), "expected an array, found '{'"},
      {one("U8", "[2]", "[-2,0]", 2), "expected an offset, a whole number from 0"},
      {one("U8", "[2]", "[0,2.0]", 2), "expected an offset, a whole number from 0"},
      {one("U8", "[2]", "[2,0]", 2), "tensor \"a\": expected data_offsets [2, 0] in order"},
      {one("U8", "[2]", "[0,3]", 3), "tensor \"a\": expected 2 bytes for U8 [2], found data_offsets [0, 3]"},
      {one("F32", "[2]", "[0,2]", 2), "expected 8 bytes for F32 [2], found data_offsets [0, 2]"},
      {one("F32", "[]", "[0,0]", 0), "expected 4 bytes for F32 [], found data_offsets [0, 0]"},
      {one("U8", "[2]", "[0,2]", 1), "expected data_offsets [0, 2] within the 1 bytes of data: is the file cut off?"},
      {one("U8", "[1099511627776]", "[0,1099511627776]", 4), "within the 4 bytes of data"},
      {one("U8", "[2]", "[9223372036854775805,9223372036854775807]", 2), "within the 2 bytes of data"},
      {one("U8", "[0]", "[3,3]", 2), "within the 2 bytes of data"},
      // The tensors together.
      {one("U8", "[2]", "[1,3]", 3), "expected data from byte 0 on, where the tensor before it ends, found 1 (a hole)"},
      {two("[1]", "[0,1]", "[1]", "[2,3]", 3),
       "tensor \"b\": expected data from byte 1 on, where the tensor before it ends, found 2 (a hole)"},
      {two("[2]", "[0,2]", "[2]", "[1,3]", 3),
       "tensor \"b\": expected data from byte 2 on, where the tensor before it ends, found 1 (an overlap)"},
      {two("[2]", "[0,2]", "[2]", "[0,2]", 2), "(an overlap)"},
      {two("[2]", "[0,2]", "[0]", "[1,1]", 2), "(an overlap)"},
      {one("U8", "[2]", "[0,2]", 6), "expected the end of the file after the last tensor, found 4 more bytes"},
      {safetensors_text("{}", "x"), "found 1 more bytes"},
  };
  CHECK(std::size(files) >= 25);
  for (const BadFile& file : files) {
    const auto bytes = to_bytes(file.text);
    const std::string message = file_error([&] { SafetensorsFile::from_bytes(bytes, "m"); });
    CAPTURE(file.text, file.expected, message);
    CHECK(contains(message, file.expected));
    CHECK(message.starts_with("m"));
  }
}

TEST_CASE("the same from a file on disk") {
  const TemporaryFolder folder;
  write_plainly(folder / "empty.safetensors", "");
  write_plainly(folder / "short.safetensors", one("U8", "[2]", "[0,2]", 1));
  for (const MapMode map : {MapMode::automatic, MapMode::read}) {
    const SafetensorsOptions options{.map = map};
    const auto error = [&](const char* name) { return file_error([&] { SafetensorsFile(folder / name, options); }); };
    CHECK(contains(error("empty.safetensors"),
                   "empty.safetensors: expected a safetensors file of at least 8 bytes, found 0"));
    CHECK(contains(error("short.safetensors"), "short.safetensors: tensor \"a\": expected data_offsets [0, 2] within"));
    CHECK(contains(error("absent.safetensors"), "cannot open "));
  }
}

TEST_CASE("large numbers in a small file allocate nothing large") {
  // Each of these claims much more than it has.
  const std::string claims[] = {one("U8", "[1099511627776]", "[0,1099511627776]", 4),
                                one("F64", "[1073741824]", "[0,8589934592]", 64), with_length(99'999'999, "{}"),
                                with_length(0x7FFFFFFFFFFFFFFF, "{}"),
                                one("U8", "[0,9223372036854775807,9223372036854775807]", "[0,0]", 0)};
  for (const std::string& text : claims) {
    const auto bytes = to_bytes(text);
    const AllocationCount counted;
    file_error([&] {
      const auto file = SafetensorsFile::from_bytes(bytes, "m");
      (void)file.read<double>("a");
    });
    const std::size_t allocated = counted.since().bytes;
    CAPTURE(text, allocated);
    CHECK(allocated < 8192);
  }
}

TEST_CASE("mutated safetensors files are refused or read within their bounds") {
  SafetensorsWriter writer;
  const std::vector<float> floats{1, 2, 3, 4, 5, 6};
  const std::vector<std::int32_t> ids{1, -2, 3};
  const bool flags[] = {true, false, true};
  writer.set_metadata("format", "pt");
  writer.add("w", Shape{2, 3}, std::span<const float>(floats));
  writer.add_as("h", Dtype::f16, Shape{3, 2}, std::span<const float>(floats));
  writer.add("i", Shape{3}, std::span<const std::int32_t>(ids));
  writer.add("b", Shape{3, 1}, std::span<const bool>(flags));
  writer.add("s", Shape{}, std::span<const float>(floats).first(1));
  writer.add("e", Shape{0, 4}, std::span<const float>());
  const std::vector<std::byte> valid = writer.to_bytes();
  const std::size_t header_end =
      8 + std::to_integer<std::size_t>(valid[0]) + (std::to_integer<std::size_t>(valid[1]) << 8);
  REQUIRE(header_end + 24 + 12 + 12 + 3 + 4 == valid.size());

  Random random(1);
  int refused = 0, read = 0;
  std::string unexpected;
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes = valid;
    for (std::uint64_t n = random.below(3) + 1; n > 0; --n) {
      // Mostly in the header, and there often one digit for another.
      const std::size_t at = random.below(8) != 0 ? random.below(header_end) : random.below(bytes.size());
      const auto old = std::to_integer<unsigned char>(bytes[std::min(at, bytes.size() - 1)]);
      switch (random.below(5)) {
        case 0: bytes[std::min(at, bytes.size() - 1)] = static_cast<std::byte>(random.below(256)); break;
        case 1: bytes[std::min(at, bytes.size() - 1)] ^= static_cast<std::byte>(1U << random.below(8)); break;
        case 2: bytes.resize(random.below(bytes.size()) + 1); break;
        case 3: bytes.insert(bytes.end(), random.below(9), std::byte{0}); break;
        default:
          if (old >= '0' && old <= '9')
            bytes[std::min(at, bytes.size() - 1)] = static_cast<std::byte>('0' + random.below(10));
      }
    }
    // Exactly as much memory as there are bytes, so that a sanitizer sees a read past the end.
    const std::vector<std::byte> exact(bytes.begin(), bytes.end());
    try {
      const auto file = SafetensorsFile::from_bytes(exact, "m", {.allow_trailing_bytes = random.below(2) == 0});
      ++read;
      for (const TensorInfo& tensor : file.tensors()) {
        if (!tensor.bytes.empty() && (tensor.bytes.data() < exact.data() ||
                                      tensor.bytes.data() + tensor.bytes.size() > exact.data() + exact.size())) {
          unexpected = "out of bounds: " + tensor.name;
        }
        if (kind_of(tensor.dtype) == DtypeKind::floating) {
          (void)file.read<double>(tensor.name);
        } else {
          (void)file.read<std::int64_t>(tensor.name);
        }
      }
    } catch (const FileError&) {
      ++refused;
    } catch (const std::exception& error) {
      unexpected = error.what();
    }
  }
  CHECK(unexpected.empty());
  CHECK(refused > 10000);
  CHECK(read > 1000);
}
