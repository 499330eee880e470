#include "ordo/core/names.hpp"

#include "support/catch.hpp"

using namespace ordo;

TEST_CASE("names: the longest pattern that fits counts, whole segments only") {
  const NameMap names{{"layers", "h"}, {"layers.*.mixer", "h.*.attn"}, {"norm", "ln_f"}};
  CHECK(names("layers.12.mixer.q_proj.weight").name == "h.12.attn.q_proj.weight");
  CHECK(names("layers.3.other.weight").name == "h.3.other.weight");
  CHECK(names("layers.x.mixer.weight").name == "h.x.mixer.weight");
  CHECK(names("norm.weight").name == "ln_f.weight");
  CHECK(names("normal.weight").name == "normal.weight");
  CHECK(names("head").name == "head");
}

TEST_CASE("names: parts and transposes; a bias has no other side") {
  const NameMap names{{"k_proj", "c_attn", 1, 3, true}};
  const FilePlace weight = names("k_proj.weight"), bias = names("k_proj.bias");
  CHECK(weight.name == "c_attn.weight");
  CHECK(weight.part == 1);
  CHECK(weight.parts == 3);
  CHECK(weight.transposed);
  CHECK(bias.part == 1);
  CHECK_FALSE(bias.transposed);
}

TEST_CASE("names: a prefix goes before all names but one") {
  const NameMap names = NameMap{{"layers", "h"}, {"head", "lm_head"}}.with_prefix("transformer.", "head");
  CHECK(names("layers.0.x").name == "transformer.h.0.x");
  CHECK(names("head.weight").name == "lm_head.weight");
}
