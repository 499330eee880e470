#include "ordo/io/json.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "io/support.hpp"
#include "ordo/core/random.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

using namespace ordo;
using namespace ordo_test;

namespace {

std::string parse_error(std::string_view text, JsonOptions options = {}) {
  return file_error([&] { Json::parse(text, "t.json", options); });
}

std::string round_trip(std::string_view text) { return Json::parse(text).dump(); }

}  // namespace

TEST_CASE("json values of every kind") {
  const Json json = Json::parse(R"( {"a" : 1, "b":[true,false,null, -2.5e3], "c":{"d":"x"}, "":"" } )");
  CHECK(json.dump() == R"({"a":1,"b":[true,false,null,-2500.0],"c":{"d":"x"},"":""})");
  CHECK(json.kind() == JsonKind::object);
  CHECK(json.size() == 4);
  CHECK(json.at("a").as_int() == 1);
  CHECK(json.at("b").at(0).as_bool());
  CHECK(json.at("b").at(2)->is_null());
  CHECK(json.at("b").at(3).as_double() == -2500.0);
  CHECK(json.at("c").at("d").as_string() == "x");
  CHECK(json.at("").as_string().empty());
  CHECK(json.find("z") == nullptr);
  CHECK(json.members()[1].first == "b");
  CHECK(Json::parse("7").as_int() == 7);
  CHECK(Json::parse("[]").size() == 0);
  CHECK(Json::parse("{}").dump() == "{}");
}

TEST_CASE("json numbers keep their value and their kind") {
  CHECK(round_trip("9223372036854775807") == "9223372036854775807");
  CHECK(round_trip("-9223372036854775808") == "-9223372036854775808");
  CHECK(round_trip("18446744073709551615") == "18446744073709551615");
  CHECK(round_trip("1.0") == "1.0");
  CHECK(round_trip("0") == "0");
  CHECK(round_trip("1e-05") == "1e-05");
  CHECK(round_trip("1E+2") == "100.0");
  CHECK(std::signbit(Json::parse("-0").as_double()));
  CHECK(round_trip("-0") == "-0.0");
  CHECK(Json::parse("18446744073709551616").as_double() == 0x1p64);
  CHECK(Json::parse("1e-400").as_double() == 0.0);
  CHECK(std::signbit(Json::parse("-1e-400").as_double()));
  CHECK(Json::parse("0e999").as_double() == 0.0);
  CHECK(Json::parse("0." + std::string(400, '0') + "1e402").as_double() == 10.0);
  CHECK(Json::parse("0." + std::string(400, '0') + "1").as_double() == 0.0);
  CHECK(Json::parse("1e-99999999999999999999").as_double() == 0.0);
  CHECK(Json::parse("4.9406564584124654e-324").as_double() == std::numeric_limits<double>::denorm_min());

  CHECK(Json::parse("3.0").as_int() == 3);
  CHECK(Json::parse("3e2").as_int() == 300);
  CHECK(Json::parse("-9223372036854775808.0").as_int() == std::numeric_limits<std::int64_t>::min());
  CHECK(Json::parse("18446744073709551615").as_uint() == std::numeric_limits<std::uint64_t>::max());
  CHECK(Json::parse("18446744073709549568.0").as_uint() == 18446744073709549568U);
  CHECK(contains(file_error([] { (void)Json::parse("3.5").as_int(); }), "expected a whole number"));
  CHECK(contains(file_error([] { (void)Json::parse("9223372036854775808").as_int(); }), "expected a whole number"));
  CHECK(contains(file_error([] { (void)Json::parse("9223372036854775808.0").as_int(); }), "expected a whole number"));
  CHECK(contains(file_error([] { (void)Json::parse("18446744073709551616.0").as_uint(); }), "expected a whole number"));
  CHECK(contains(file_error([] { (void)Json::parse("-1").as_uint(); }), "expected a whole number"));
  CHECK(contains(file_error([] { (void)Json::parse("300").named("n").as<std::int8_t>(); }), "from -128 to 127"));

  CHECK(Json(std::uint64_t{5}) == Json(5));
  CHECK(Json(1.0) != Json(1));
}

TEST_CASE("every double comes back with the same bits") {
  Random random(3);
  int wrong = 0;
  for (int i = 0; i < 100000; ++i) {
    const std::uint64_t high = random.bits(), bits = high << 32 | random.bits();
    const double x = std::bit_cast<double>(bits);
    if (!std::isfinite(x)) continue;
    const Json back = Json::parse(Json(x).dump());
    wrong += back.kind() != JsonKind::real || std::bit_cast<std::uint64_t>(back.as_double()) != bits;
  }
  for (const double x : {0.0, -0.0, 1.0, 1e22, 0.1, 5e-324, std::numeric_limits<double>::max(), 0x1p53}) {
    const Json back = Json::parse(Json(x).dump());
    wrong += back.kind() != JsonKind::real ||
             std::bit_cast<std::uint64_t>(back.as_double()) != std::bit_cast<std::uint64_t>(x);
  }
  CHECK(wrong == 0);
}

TEST_CASE("json strings") {
  using namespace std::string_literals;
  CHECK(Json::parse(R"("a\"\\\/\b\f\n\r\t\u00E9\ud83d\uDE00\u0000")").as_string() ==
        "a\"\\/\b\f\n\r\t\xC3\xA9\xF0\x9F\x98\x80\0"s);
  CHECK(Json::parse("\"\xC3\xA9\xF0\x9F\x98\x80\"").as_string() == "\xC3\xA9\xF0\x9F\x98\x80");
  const std::string text = "\x01\x1F\"\\\n\t\x7F\xC3\xA9 \xEF\xBF\xBF\xF4\x8F\xBF\xBF\0z"s;
  CHECK(Json::parse(Json(text).dump()).as_string() == text);
  CHECK(Json("\x01\n").dump() == R"("\u0001\n")");
  CHECK(contains(file_error([] { (void)Json("a\xFF").dump(); }), "not UTF-8"));

  // Every code point, written raw and escaped.
  int wrong = 0;
  for (std::uint32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string raw;
    detail::append_utf8(raw, code);
    wrong += detail::utf8_sequence(raw, 0) != raw.size();
    // Cut short it is nothing.
    if (raw.size() > 1) wrong += detail::find_invalid_utf8(std::string_view(raw).substr(0, raw.size() - 1)) != 0;
  }
  CHECK(wrong == 0);
}

TEST_CASE("malformed json is refused, with the place and what was expected there") {
  const std::pair<std::string, const char*> cases[] = {
      {"", "byte 0): expected a value, found the end of the text"},
      {" ", "byte 1): expected a value, found the end"},
      {"x", "byte 0): expected a value, found 'x'"},
      {"\xEF\xBB\xBF{}", "without a byte order mark"},
      {"tru", "byte 0): expected true"},
      {"nullx", "byte 4): expected the end of the text, found 'x'"},
      {"True", "expected a value, found 'T'"},
      {"1 2", "byte 2): expected the end of the text, found '2'"},
      {"01", "without leading zeros"},
      {"-01", "without leading zeros"},
      {"-", "byte 1): expected a digit, found the end"},
      {"+1", "expected a value, found '+'"},
      {".5", "expected a value, found '.'"},
      {"1.", "byte 2): expected a digit after the decimal point"},
      {"1.e3", "expected a digit after the decimal point, found 'e'"},
      {"1e", "expected a digit of the exponent"},
      {"1e+", "expected a digit of the exponent"},
      {"0x10", "expected the end of the text, found 'x'"},
      {"1e400", "expected a number that a double can hold"},
      {"-1e400", "expected a number that a double can hold"},
      {"1" + std::string(400, '0'), "expected a number that a double can hold"},
      {"1e99999999999999999999", "expected a number that a double can hold"},
      {"NaN", "NaN and Infinity are no JSON"},
      {"Infinity", "NaN and Infinity are no JSON"},
      {"-Infinity", "expected a digit, found 'I'"},
      {"[1,]", "byte 3): expected a value, found ']'"},
      {"[1 2]", "byte 3): expected a comma or ']', found '2'"},
      {"[1", "byte 2): expected a comma or ']', found the end"},
      {"[", "expected a value, found the end"},
      {"]", "expected a value, found ']'"},
      {"[1}", "expected a comma or ']', found '}'"},
      {"{", "expected a key in quotes, found the end"},
      {"{a:1}", "expected a key in quotes, found 'a'"},
      {"{'a':1}", "expected a key in quotes, found '''"},
      {"{\"a\" 1}", "expected ':' after a key, found '1'"},
      {"{\"a\":1,}", "expected a key in quotes, found '}'"},
      {"{\"a\":1 \"b\":2}", "expected a comma or '}', found '\"'"},
      {"{\"a\":}", "expected a value, found '}'"},
      {"{,}", "expected a key in quotes, found ','"},
      {"[,1]", "expected a value, found ','"},
      {"{\"a\":1,\n \"b\":2,\n  \"a\":3}",
       "line 3, column 3 (byte 18): expected each key once in an object, found \"a\" again"},
      {"{\"a\":1,\"\\u0061\":3}", "expected each key once"},
      {"// c\n1", "expected a value, found '/'"},
      {"\"abc", "byte 0): expected a closing quote"},
      {"\"a\nb\"", "byte 2): expected an escape in place of the control character in a string, found byte 0x0a"},
      {{'"', 'a', '\0', '"'}, "found byte 0x00"},
      {"\"\\x41\"", "byte 1): expected one of the escapes"},
      {"\"\\", "expected one of the escapes"},
      {"\"\\u12\"", "expected four hexadecimal digits"},
      {"\"\\u12G4\"", "expected four hexadecimal digits"},
      {"\"\\u-123\"", "expected four hexadecimal digits"},
      {"\"\\ud800\"", "expected a low surrogate"},
      {"\"\\ud800\\n\"", "expected a low surrogate"},
      {"\"\\ud800\\ud800\"", "expected a low surrogate"},
      {"\"\\udc00\"", "expected a high surrogate"},
      {"\"\x80\"", "expected valid UTF-8, found byte 0x80"},
      {"\"\xC0\x80\"", "expected valid UTF-8"},          // overlong
      {"\"\xC1\xBF\"", "expected valid UTF-8"},          // overlong
      {"\"\xE0\x9F\xBF\"", "expected valid UTF-8"},      // overlong
      {"\"\xED\xA0\x80\"", "expected valid UTF-8"},      // surrogate
      {"\"\xF0\x8F\xBF\xBF\"", "expected valid UTF-8"},  // overlong
      {"\"\xF4\x90\x80\x80\"", "expected valid UTF-8"},  // above U+10FFFF
      {"\"\xF5\x80\x80\x80\"", "expected valid UTF-8"},
      {"\"\xE2\x82\"", "expected valid UTF-8"},  // cut short by the quote
      {"\"\xE2\x82", "expected valid UTF-8"},    // cut short by the end
      {"\x7F", "found byte 0x7f"},
  };
  for (const auto& [text, expected] : cases) {
    const std::string message = parse_error(text);
    CAPTURE(text, message, expected);
    CHECK(contains(message, expected));
    CHECK(message.starts_with("t.json, line "));
  }
}

TEST_CASE("the depth of json is bounded") {
  const auto nested = [](std::size_t n) { return std::string(n, '[') + std::string(n, ']'); };
  CHECK(parse_error(nested(128)).empty());
  CHECK(contains(parse_error(nested(129)), "byte 128): expected at most 128 arrays and objects inside one another"));
  CHECK(contains(parse_error(std::string(1000000, '[')), "expected at most 128"));
  CHECK(contains(parse_error("[[1]]", {.max_depth = 1}), "expected at most 1 "));
  CHECK(parse_error("[1]", {.max_depth = 1}).empty());
}

TEST_CASE("numbers that are not finite need an option") {
  const JsonOptions python{.non_finite = true};
  const Json json =
      Json::parse(R"([Infinity, -Infinity, NaN, {"__float__": "-Infinity"}, {"__float__": 1}])", "t", python);
  const double infinity = std::numeric_limits<double>::infinity();
  CHECK(json.at(0).as_double() == infinity);
  CHECK(json.at(1).as_double() == -infinity);
  CHECK(std::isnan(json.at(2).as_double()));
  CHECK(json.at(3).as_double() == -infinity);
  CHECK(json.at(4)->is_object());
  CHECK(Json::parse(R"({"__float__": "NaN"})").is_object());
  CHECK(contains(parse_error("-NaN", python), "expected a digit, found 'N'"));
  CHECK(contains(parse_error("Infinit", python), "expected Infinity"));
  CHECK(json.dump({.non_finite = true}) == R"([Infinity,-Infinity,NaN,-Infinity,{"__float__":1}])");
  CHECK(contains(file_error([&] { (void)json.dump(); }), "not finite"));
  CHECK(contains(file_error([&] { (void)json.at(0).as_int(); }), "found the number Infinity"));
  CHECK(contains(file_error([&] { (void)json.at(2).as_int(); }), "found the number NaN"));
}

TEST_CASE("errors of access name the path") {
  const Json json = Json::parse(R"({"rope": {"factor": "yarn", "list": [1, {"a.b": true}]}, "n": null, "k": 3})");
  const JsonRef root = json.named("config.json");
  const auto error = [](auto f) { return file_error(f); };
  CHECK(error([&] { (void)root.at("rope").at("factor").as_double(); }) ==
        "config.json: rope.factor: expected a number, found the string \"yarn\"");
  CHECK(error([&] { (void)root.at("rope").at("missing"); }) == "config.json: rope.missing: missing");
  CHECK(error([&] { (void)root.at("rope").at("list").at(1).at("a.b").as_int(); }) ==
        "config.json: rope.list[1][\"a.b\"]: expected a whole number, found true");
  CHECK(error([&] { (void)root.at("rope").at("list").at(2); }) ==
        "config.json: rope.list[2]: missing, the array has 2 elements");
  CHECK(error([&] { (void)root.at("k").at("x"); }) == "config.json: k: expected an object, found the number 3");
  CHECK(error([&] { (void)root.at(0); }) == "config.json: expected an array, found an object");
  CHECK(error([&] { (void)root.at("n").as_bool(); }) == "config.json: n: expected true or false, found null");
  CHECK(error([&] { (void)root.at("rope").as_string(); }) == "config.json: rope: expected a string, found an object");
  CHECK(error([&] { (void)json.at("k").as_string(); }) == "k: expected a string, found the number 3");
  CHECK(error([&] { (void)json.as_int(); }) == "expected a whole number, found an object");
  const Json list = Json::parse("[1, \"x\"]");
  CHECK(error([&] { (void)list.named("f").as<std::vector<double>>(); }) ==
        "f: [1]: expected a number, found the string \"x\"");

  CHECK(root.get_or("k", 5) == 3);
  CHECK(root.get_or("n", 5) == 5);
  CHECK(root.get_or("absent", std::string("x")) == "x");
  CHECK(root.get_or("k", 0.5F) == 3.0F);
  CHECK(error([&] { (void)root.get_or("k", true); }) == "config.json: k: expected true or false, found the number 3");
  CHECK_FALSE(root.find("absent"));
  CHECK(root.find("k")->as_int() == 3);
  CHECK(Json::parse("[1, 2]").named("f").as<std::vector<int>>() == std::vector<int>{1, 2});
}

TEST_CASE("json is built, compared and printed") {
  Json json;
  json.set("name", "mamba").set("sizes", Json::array_of(std::vector<int>{1, 2})).set("eps", 1e-5).set("on", true);
  json.set("empty", Json::array()).set("none", nullptr).set("object", Json::object());
  json.set("name", "gla");
  CHECK(json.dump() == R"({"name":"gla","sizes":[1,2],"eps":1e-05,"on":true,"empty":[],"none":null,"object":{}})");
  CHECK(json.dump({.indent = 2}) == R"({
  "name": "gla",
  "sizes": [
    1,
    2
  ],
  "eps": 1e-05,
  "on": true,
  "empty": [],
  "none": null,
  "object": {}
})");
  CHECK(Json::parse(json.dump({.indent = 3})) == json);
  CHECK(Json::parse(R"({"a":1,"b":2})") == Json::parse(R"({"b":2,"a":1})"));
  CHECK(Json::parse(R"({"a":1,"b":2})") != Json::parse(R"({"a":1,"b":3})"));
  CHECK(Json::parse(R"({"a":1})") != Json::parse(R"({"a":1,"b":3})"));
  CHECK_THROWS_AS(Json(1).set("a", 1), UsageError);
  CHECK_THROWS_AS(Json("x").push_back(1), UsageError);

  Json copy = json;
  copy.find("sizes")->push_back(3);
  CHECK(json.at("sizes")->size() == 2);
  CHECK(copy.at("sizes").at(2).as_int() == 3);

  Json large;
  for (int i = 0; i < 1000; ++i) large.set("k" + std::to_string(i * 7919 % 1000), i);
  int wrong = 0;
  for (int i = 0; i < 1000; ++i) wrong += large.at("k" + std::to_string(i * 7919 % 1000)).as_int() != i;
  CHECK(wrong == 0);
  CHECK(large.members()[1].first == "k919");
}

TEST_CASE("mutated json is refused or read, and what is read can be written") {
  const std::string valid = R"({"model_type":"mamba","n":[1,-2.5e-3,18446744073709551615],)"
                            R"("s":"\u00e9\ud83d\ude00 é\\","o":{"a":null,"b":[[],{}],"t":true}})";
  REQUIRE(parse_error(valid).empty());
  Random random(11);
  const std::string_view alphabet = "{}[]\",:0123456789-+.eE\\utrfalsn \n\xC3\x80\xF0";
  int refused = 0, wrong = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text = valid;
    for (std::uint64_t n = random.below(4) + 1; n > 0; --n) {
      const std::size_t at = random.below(text.size());
      switch (random.below(4)) {
        case 0: text[at] = static_cast<char>(random.below(256)); break;
        case 1: text[at] = alphabet[random.below(alphabet.size())]; break;
        case 2: text.erase(at, random.below(5)); break;
        default: text.insert(at, 1, alphabet[random.below(alphabet.size())]);
      }
      if (text.empty()) text = " ";
    }
    // Exactly as much memory as there is text, so that a sanitizer sees a read past its end.
    const std::vector<char> exact(text.begin(), text.end());
    try {
      const Json json = Json::parse({exact.data(), exact.size()});
      wrong += Json::parse(json.dump()) != json;
    } catch (const FileError&) {
      ++refused;
    }
  }
  CHECK(wrong == 0);
  CHECK(refused > 10000);
  CHECK(refused < 20000);
}
