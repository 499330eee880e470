#include "ordo/train/batches.hpp"

#include <string>
#include <vector>

#include "support/catch.hpp"

using namespace ordo;

TEST_CASE("targets are the tokens one further, and every window is from the text") {
  std::vector<std::int32_t> text(101);
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::int32_t>(1000 + i);
  TextBatches batches(text, {.batch_size = 50, .length = 8}, Random(3));
  std::vector<int> starts(101, 0);
  for (int n = 0; n < 40; ++n) {
    const TokenBatch b = batches.next();
    REQUIRE(b.tokens.shape() == Shape{50, 8});
    for (Index row = 0; row < 50; ++row) {
      const std::int32_t first = b.tokens(row, 0);
      ++starts.at(static_cast<std::size_t>(first - 1000));
      for (Index i = 0; i < 8; ++i) {
        REQUIRE(b.tokens(row, i) == first + i);
        REQUIRE(b.targets(row, i) == first + i + 1);
      }
    }
  }
  // 2000 windows over 93 places: each is met (a place is missed with probability 4e-10), none beyond.
  for (std::size_t i = 0; i < 93; ++i) CHECK(starts[i] > 0);
  for (std::size_t i = 93; i < 101; ++i) CHECK(starts[i] == 0);
}

TEST_CASE("bytes above 127 are tokens above 127") {
  const std::string text = "a\xff\x80";
  TextBatches batches(text, {.batch_size = 1, .length = 2}, Random(0));
  const TokenBatch b = batches.next();
  CHECK(b.tokens(0, 1) == 255);
  CHECK(b.targets(0, 1) == 128);
}

TEST_CASE("after seek the same batches follow") {
  const std::string text(1000, 'x');
  std::string varied = text;
  for (std::size_t i = 0; i < varied.size(); ++i) varied[i] = static_cast<char>(i * 31 % 251);
  TextBatches a(varied, {.batch_size = 3, .length = 5}, Random(1));
  a.next();
  const auto state = a.random().state();
  const TokenBatch expected = a.next();
  TextBatches b(varied, {.batch_size = 3, .length = 5}, Random(99));
  b.seek(Random::from_state(state));
  const TokenBatch found = b.next();
  CHECK(std::equal(expected.tokens.begin(), expected.tokens.end(), found.tokens.begin()));
}

TEST_CASE("shards cover the batch") {
  const std::string text = "abcdefghij";
  TextBatches batches(text, {.batch_size = 7, .length = 3}, Random(1));
  const TokenBatch b = batches.next();
  Index row = 0;
  for (Index shard = 0; shard < 3; ++shard) {
    const TokenBatch part = b.shard(shard, 3);
    for (Index i = 0; i < part.tokens.extent(0); ++i, ++row) CHECK(part.tokens(i, 2) == b.tokens(row, 2));
  }
  CHECK(row == 7);
  CHECK_THROWS_AS(b.rows(3, 8), ShapeError);
}

TEST_CASE("texts that are too short") {
  const std::string text = "abc";
  CHECK_THROWS_AS(TextBatches(text, {.batch_size = 1, .length = 3}, Random(1)), ConfigError);
  CHECK_NOTHROW(TextBatches(text, {.batch_size = 1, .length = 2}, Random(1)));
  CHECK_THROWS_AS(TextBatches(text, {.batch_size = 1, .length = 0}, Random(1)), ConfigError);
  CHECK_THROWS_AS(TextBatches(std::string(), {.batch_size = 1, .length = 1}, Random(1)), ConfigError);
}
