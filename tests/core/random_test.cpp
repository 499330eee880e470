#include <cmath>
#include <cstring>
#include <vector>

#include "ordo/core/random.hpp"
#include "support/catch.hpp"

using namespace ordo;

TEST_CASE("Philox gives the published test vectors") {
  // Random123's known answers for philox4x32-10.
  CHECK(Random::block(0, {0, 0, 0, 0}) == Random::Block{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U});
  CHECK(Random::block(~std::uint64_t{0}, {~0U, ~0U, ~0U, ~0U}) == Random::Block{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU});
  CHECK(Random::block(0x299f31d0a4093822ULL, {0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}) ==
        Random::Block{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U});
}

TEST_CASE("normal numbers are the same bits everywhere") {
  Random random(42);
  std::uint64_t hash = 1469598103934665603ULL;
  for (int i = 0; i < 1000; ++i) {
    const double x = random.normal();
    std::uint64_t bits = 0;
    std::memcpy(&bits, &x, sizeof bits);
    hash = (hash ^ bits) * 1099511628211ULL;
  }
  CHECK(hash == 0x60bb6e3eea976cb6ULL);
}

TEST_CASE("the inverse normal distribution inverts") {
  for (double p : {1e-300, 1e-12, 1e-4, 0.02, 0.3, 0.5, 0.7, 0.98, 1 - 1e-6}) {
    const double x = Random::inverse_normal(p);
    CHECK_THAT(0.5 * std::erfc(-x / std::sqrt(2.0)), Catch::Matchers::WithinRel(p, 1e-12));
  }
}

TEST_CASE("moments and ranges") {
  Random random(7);
  double sum = 0, square = 0, fourth = 0;
  const int n = 400000;
  for (int i = 0; i < n; ++i) {
    const double x = random.normal();
    sum += x;
    square += x * x;
    fourth += x * x * x * x;
  }
  // Five standard errors: 1/sqrt(n), sqrt(2/n), sqrt(96/n).
  CHECK(std::abs(sum / n) < 5 / std::sqrt(n));
  CHECK(std::abs(square / n - 1) < 5 * std::sqrt(2.0 / n));
  CHECK(std::abs(fourth / n - 3) < 5 * std::sqrt(96.0 / n));
  std::vector<int> count(7);
  for (int i = 0; i < 70000; ++i) ++count[random.below(7)];
  for (int c : count) CHECK(std::abs(c - 10000) < 500);
  for (int i = 0; i < 1000; ++i) {
    const double u = random.uniform();
    CHECK((u > 0 && u < 1));
    CHECK(random.below((std::uint64_t{1} << 40) + 1) <= std::uint64_t{1} << 40);
  }
}

TEST_CASE("a state resumes the stream, and split streams differ") {
  Random a(3);
  for (int i = 0; i < 13; ++i) a.bits();
  Random b = Random::from_state(a.state());
  for (int i = 0; i < 20; ++i) CHECK(a.bits() == b.bits());
  Random c = a.split(0), d = a.split(1), e = a.split(0);
  CHECK(c.bits() != d.bits());
  c = a.split(0);
  CHECK(c.bits() == e.bits());
}
