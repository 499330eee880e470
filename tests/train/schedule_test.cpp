#include "ordo/train/schedule.hpp"

#include <cmath>
#include <numbers>

#include "support/catch.hpp"

using namespace ordo;

TEST_CASE("the cosine runs under the warm-up and ends at its fraction") {
  const CosineSchedule rate{.learning_rate = 4e-3, .total_steps = 3000, .warmup_steps = 100};
  for (Index t = 0; t <= 3000; ++t) {
    const double x = static_cast<double>(t);
    const double expected =
        4e-3 * std::min(1.0, (x + 1) / 100) * (0.1 + 0.9 * (1 + std::cos(std::numbers::pi * x / 3000)) / 2);
    REQUIRE(std::abs(rate(t) - expected) < 1e-17);
  }
  CHECK(std::abs(rate(3000) - 4e-4) < 1e-17);
  CHECK(rate(5000) == rate(3000));
  CHECK_THROWS_AS(rate(-1), ConfigError);
  CHECK_THROWS_AS((CosineSchedule{.total_steps = 0}(0)), ConfigError);
}

TEST_CASE("no warm-up, and a constant rate") {
  CHECK(CosineSchedule{.learning_rate = 2, .total_steps = 10}(0) == 2);
  CHECK(ConstantSchedule{.learning_rate = 2}(0) == 2);
  const ConstantSchedule rate{.learning_rate = 2, .warmup_steps = 4};
  CHECK(rate(0) == 0.5);
  CHECK(rate(3) == 2);
  CHECK(rate(100) == 2);
}
