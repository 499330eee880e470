// Every mask and score policy of the attention engine against the naive formula in double: odd sizes, grouped heads,
// strides with NaN in the gaps, forward and backward.

#include "kernels/attention_support.hpp"

using namespace attention_test;

namespace {

// Sizes that fill nothing evenly: tiles, panels, vectors, register tiles; one row; rows for the path of few rows; more
// queries than keys.
const Shape shapes[] = {
    {2, 37, 53, 6, 2, 24, 20}, {1, 1, 1, 2, 1, 5, 3},    {2, 1, 53, 6, 2, 24, 20},   {1, 3, 130, 2, 2, 16, 16},
    {2, 9, 9, 4, 2, 5, 3},     {1, 70, 33, 3, 1, 8, 33}, {1, 130, 200, 2, 1, 7, 64}, {3, 1, 1, 1, 1, 1, 1},
};

Index offset(const Shape& s) { return s.keys - s.queries; }

Allowed everything() {
  return [](Index, Index, Index, Index) { return true; };
}

}  // namespace

TEMPLATE_TEST_CASE("attention: no mask", "", float, double) {
  for (const Shape& s : shapes) {
    CAPTURE(s.queries, s.keys, s.heads, s.key_dim, s.value_dim);
    check(Problem<TestType>(s), NoMask{}, NoScore{}, everything(), plain_score());
  }
}

TEMPLATE_TEST_CASE("attention: causal, the last query at the last key", "", float, double) {
  for (const Shape& s : shapes) {
    CAPTURE(s.queries, s.keys, s.heads, s.key_dim, s.value_dim);
    const Index at = offset(s);  // negative for more queries than keys: the first ones see nothing
    check(
        Problem<TestType>(s), Causal{at}, NoScore{}, [at](Index, Index, Index i, Index j) { return j <= i + at; },
        plain_score());
  }
}

TEMPLATE_TEST_CASE("attention: window", "", float, double) {
  for (const Shape& s : shapes) {
    for (const Index width : {Index{1}, Index{7}, Index{64}, Index{1000}}) {
      CAPTURE(s.queries, s.keys, s.heads, s.key_dim, s.value_dim, width);
      const Index at = offset(s);
      check(
          Problem<TestType>(s), Window{at, width}, NoScore{},
          [=](Index, Index, Index i, Index j) { return j <= i + at && j > i + at - width; }, plain_score());
    }
  }
}

TEMPLATE_TEST_CASE("attention: lengths of the rows, alone and with causal", "", float, double) {
  for (const Shape& s : shapes) {
    CAPTURE(s.queries, s.keys, s.heads, s.key_dim, s.value_dim);
    const Index at = offset(s);
    const Index lengths[] = {std::max<Index>(s.keys - 5, 1), 0, s.keys};
    const Allowed real = [&](Index b, Index, Index, Index j) { return j < lengths[b]; };
    check(Problem<TestType>(s), KeyLengths{lengths}, NoScore{}, real, plain_score());
    check(
        Problem<TestType>(s), And{Causal{at}, KeyLengths{lengths}}, NoScore{},
        [&](Index b, Index, Index i, Index j) { return j <= i + at && j < lengths[b]; }, plain_score());
  }
}
