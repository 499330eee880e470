// Masks of the attention engine that come with a batch, or from its user, against the naive formula in double.
// In float: the same code runs in double, which attention_score_test.cpp and attention_tile_test.cpp cover.

#include "kernels/attention_support.hpp"

using namespace attention_test;

namespace {

const Shape shapes[] = {
    {2, 37, 53, 6, 2, 24, 20}, {2, 1, 53, 6, 2, 24, 20}, {1, 3, 130, 2, 2, 16, 16},
    {2, 9, 9, 4, 2, 5, 3},     {1, 70, 33, 3, 1, 8, 33}, {1, 130, 200, 2, 1, 7, 64},
};

Index offset(const Shape& s) { return s.keys - s.queries; }

}  // namespace

TEMPLATE_TEST_CASE("attention: a ragged batch in a cache, each row causal at its own end", "", float) {
  const Shape shapes_of_caches[] = {{3, 1, 60, 6, 2, 24, 20}, {3, 5, 60, 6, 2, 24, 20}, {3, 40, 60, 2, 1, 16, 16}};
  for (const Shape& s : shapes_of_caches) {
    CAPTURE(s.queries);
    const Index lengths[] = {41, 60, 50};
    Index offsets[3];
    for (int b = 0; b < 3; ++b) offsets[b] = lengths[b] - s.queries;
    check(
        Problem<TestType>(s), Causal{offsets}, NoScore{},
        [&](Index b, Index, Index i, Index j) { return j <= i + offsets[b]; }, plain_score());
  }
}

TEMPLATE_TEST_CASE("attention: any callable is a mask", "", float) {
  for (const Shape& s : shapes) {
    CAPTURE(s.queries, s.keys, s.heads, s.key_dim, s.value_dim);
    const auto scattered = [](Index b, Index h, Index i, Index j) {
      return (b * 31 + h * 17 + i * 7 + j * 3 + i * j) % 5 < 2 && i % 11 != 4;  // every 11th query sees nothing
    };
    check(Problem<TestType>(s), scattered, NoScore{}, scattered, plain_score());
    const Index at = offset(s);
    check(
        Problem<TestType>(s), And{scattered, Causal{at}}, NoScore{},
        [&](Index b, Index h, Index i, Index j) { return scattered(b, h, i, j) && j <= i + at; }, plain_score());
  }
}

namespace {

/// A mask with nothing but a classification of rectangles: blocks of 16 x 16, by head.
struct Blocks {
  bool operator()(Index, Index h, Index i, Index j) const { return (i / 16 + 2 * (j / 16) + h) % 3 == 0; }
  Cover cover(Index b, Index h, Range i, Range j) const {
    Cover all = Cover::partial;
    for (Index y = i.begin / 16; y <= (i.end - 1) / 16; ++y) {
      for (Index x = j.begin / 16; x <= (j.end - 1) / 16; ++x) {
        const Cover now = (*this)(b, h, 16 * y, 16 * x) ? Cover::full : Cover::empty;
        all = y == i.begin / 16 && x == j.begin / 16 ? now : beside(all, now);
      }
    }
    return all;
  }
};

}  // namespace

TEMPLATE_TEST_CASE("attention: a list of blocks is a mask", "", float) {
  for (const Shape& s : shapes) {
    CAPTURE(s.queries, s.keys, s.heads, s.key_dim, s.value_dim);
    check(Problem<TestType>(s), Blocks{}, NoScore{}, Blocks{}, plain_score());
  }
}
