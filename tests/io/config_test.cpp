// Configurations from JSON: every kind of field, strictness, and the way back.

#include "ordo/io/config.hpp"

#include <string>

#include "io/support.hpp"
#include "support/catch.hpp"

namespace {

enum class Color { none, red, blue };
bool from_string(std::string_view name, Color& c) {
  if (name == "none") return c = Color::none, true;
  if (name == "red") return c = Color::red, true;
  if (name == "blue") return c = Color::blue, true;
  return false;
}
std::string to_string(Color c) { return c == Color::none ? "none" : c == Color::red ? "red" : "blue"; }

using namespace ordo;

struct Inner {
  Index width = 7;
  Activation activation = Activation::gelu;
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("width", c.width);
    f("activation", c.activation);
  }
};
struct Outer {
  Index model_dim = 64;
  bool bias = true;
  double norm_eps = 1e-5;
  float scale = 1;
  std::string title = "x";
  Color color = Color::red;
  std::optional<Index> window = 3;
  std::vector<double> betas{0.9, 0.999};
  std::vector<Inner> parts;
  std::vector<std::int32_t> end_tokens;
  Inner inner;
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("model_dim", c.model_dim);
    f("bias", c.bias);
    f("norm_eps", c.norm_eps);
    f("scale", c.scale);
    f("title", c.title);
    f("color", c.color);
    f("window", c.window);
    f("betas", c.betas);
    f("parts", c.parts);
    f("end_tokens", c.end_tokens);
    f("inner", c.inner);
  }
};

Outer read(std::string_view text) {
  Outer c;
  const Json json = Json::parse(text);
  read_config(json.named("config.json"), c);
  return c;
}
template <class E>
std::string error_of(std::string_view text) {
  try {
    read(text);
  } catch (const E& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("every kind of field") {
  const Outer c = read(
      R"({"model_dim": 128, "bias": false, "norm_eps": 1, "scale": 0.5, "title": "a b", "color": "blue", "window": 9,
                           "betas": [0.5, 1], "parts": [{"width": 1}, {}], "end_tokens": [3, 4], "inner": {"activation": "gelu_tanh"}})");
  CHECK(c.model_dim == 128);
  CHECK_FALSE(c.bias);
  CHECK(c.norm_eps == 1);
  CHECK(c.scale == 0.5F);
  CHECK(c.title == "a b");
  CHECK(c.color == Color::blue);
  CHECK(c.window == 9);
  CHECK(c.betas == std::vector<double>{0.5, 1});
  REQUIRE(c.parts.size() == 2);
  CHECK(c.parts[0].width == 1);
  CHECK(c.parts[1].width == 7);
  CHECK(c.end_tokens == std::vector<std::int32_t>{3, 4});
  CHECK(c.inner.activation == Activation::gelu_tanh);
  CHECK(c.inner.width == 7);
}

TEST_CASE("whole numbers may be written with a point") {
  CHECK(read(R"({"model_dim": 128.0})").model_dim == 128);
  CHECK(read(R"({"model_dim": 1e2})").model_dim == 100);
  CHECK(ordo_test::contains(error_of<FileError>(R"({"model_dim": 1.5})"),
                            "config.json: model_dim: expected a whole number"));
}

TEST_CASE("absent and null") {
  const Outer absent = read("{}");
  CHECK(absent.model_dim == 64);
  CHECK(absent.color == Color::red);
  CHECK(absent.window == 3);
  const Outer null =
      read(R"({"model_dim": null, "color": null, "window": null, "betas": null, "inner": null, "title": null})");
  CHECK(null.model_dim == 64);
  CHECK(null.color == Color::none);
  CHECK_FALSE(null.window.has_value());
  CHECK(null.betas.size() == 2);
  CHECK(null.title == "x");
}

TEST_CASE("unknown keys are named together with the known ones") {
  const std::string error = error_of<ConfigError>(R"({"model_dim": 1, "modl_dim": 2, "heads": 3})");
  CHECK(error ==
        "config.json: unknown keys \"modl_dim\", \"heads\"; known are model_dim, bias, norm_eps, scale, title, color, "
        "window, "
        "betas, parts, end_tokens, inner");
  CHECK(error_of<ConfigError>(R"({"inner": {"w": 1}})") ==
        "config.json: inner: unknown key \"w\"; known are width, activation");
}

TEST_CASE("wrong kinds and names say where") {
  CHECK(ordo_test::contains(error_of<FileError>(R"({"bias": 1})"), "config.json: bias: expected true or false"));
  CHECK(ordo_test::contains(error_of<FileError>(R"({"betas": [1, "a"]})"), "config.json: betas[1]: expected a number"));
  CHECK(ordo_test::contains(error_of<FileError>(R"({"parts": {}})"), "config.json: parts: expected an array"));
  CHECK(error_of<ConfigError>(R"({"color": "green"})") == "config.json: color: unknown name \"green\"");
  CHECK(ordo_test::contains(error_of<ConfigError>(R"({"inner": {"activation": "gleu"}})"), "inner.activation"));
  CHECK(ordo_test::contains(error_of<FileError>("[]"), "expected an object"));
}

TEST_CASE("an error leaves the configuration as it was") {
  Outer c;
  const Json json = Json::parse(R"({"model_dim": 1, "wrong": 2})");
  CHECK_THROWS_AS(read_config(json, c), ConfigError);
  CHECK(c.model_dim == 64);
}

TEST_CASE("what is written reads back") {
  Outer c;
  c.model_dim = 5;
  c.norm_eps = 1e-7;
  c.color = Color::blue;
  c.window.reset();
  c.parts.resize(2);
  c.parts[1].activation = Activation::silu;
  c.end_tokens = {1};
  const Json json = write_config(c);
  Outer back;
  read_config(json, back);
  CHECK(write_config(back) == json);
  CHECK(back.parts.at(1).activation == Activation::silu);
  CHECK(json.at("color").as_string() == "blue");
}
