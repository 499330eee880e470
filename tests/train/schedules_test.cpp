// Schedules at the places where their pieces meet; whole curves are held against golden cases by the conformance tests.

#include "ordo/train/schedules.hpp"

#include <cmath>

#include "support/catch.hpp"

using namespace ordo;

TEST_CASE("warm-ups begin at 0 and end at the full rate") {
  CHECK(WarmupConstant{.learning_rate = 2, .warmup_steps = 4}(0) == 0);
  CHECK(WarmupConstant{.learning_rate = 2, .warmup_steps = 4}(1) == 0.5);
  CHECK(WarmupConstant{.learning_rate = 2, .warmup_steps = 4}(4) == 2);
  CHECK(WarmupConstant{.learning_rate = 2}(0) == 2);
  CHECK(WarmupCosine{.learning_rate = 2, .warmup_steps = 4, .total_steps = 10, .min_learning_rate = 1}(0) == 0);
  CHECK(WarmupCosine{.learning_rate = 2, .warmup_steps = 4, .total_steps = 10}(4) == 2);
  CHECK(WarmupInverseSqrt{.learning_rate = 2, .warmup_steps = 4, .timescale = 7}(4) == 2);
}

TEST_CASE("ends, and what is beyond them") {
  CHECK(WarmupLinear{.learning_rate = 2, .warmup_steps = 4, .total_steps = 10}(10) == 0);
  CHECK(WarmupLinear{.learning_rate = 2, .warmup_steps = 4, .total_steps = 10}(30) == 0);
  CHECK(WarmupCosine{.learning_rate = 2, .total_steps = 10}(10) == 0);
  CHECK(WarmupCosine{.learning_rate = 2, .total_steps = 10}(20) == 2);  // the wave goes on
  CHECK(WarmupCosineRestarts{.learning_rate = 2, .total_steps = 10, .num_cycles = 2}(5) == 2);
  CHECK(WarmupCosineRestarts{.learning_rate = 2, .total_steps = 10, .num_cycles = 2}(10) == 0);
  CHECK(WarmupPolynomial{.learning_rate = 2, .total_steps = 10, .min_learning_rate = 0.5}(10) == 0.5);
  CHECK(WarmupPolynomial{.learning_rate = 2, .total_steps = 10, .min_learning_rate = 0.5}(11) == 0.5);
  const WarmupStableDecay trapezium{.learning_rate = 2, .warmup_steps = 2, .stable_steps = 3, .decay_steps = 4, .decay_type = Ramp::linear, .min_learning_rate = 1};
  CHECK(trapezium(0) == 1);
  CHECK(trapezium(2) == 2);
  CHECK(trapezium(5) == 2);
  CHECK(trapezium(7) == 1.5);
  CHECK(trapezium(9) == 1);
  CHECK(StepDecay{.learning_rate = 8, .step_size = 3, .gamma = 0.5}(6) == 2);
  CHECK(ExponentialDecay{.learning_rate = 8, .gamma = 0.5}(3) == 1);
  const OneCycle cycle{.learning_rate = 1, .total_steps = 11, .warmup_fraction = 6.0 / 11, .anneal = Anneal::linear, .div_factor = 4, .final_div_factor = 2};
  CHECK(cycle(0) == 0.25);
  CHECK(std::abs(cycle(5) - 1) < 1e-15);
  CHECK(std::abs(cycle(10) - 0.125) < 1e-15);
  CHECK(cycle(100) == cycle(10));
}

TEST_CASE("a schedule by its name") {
  Schedule rate("step");
  std::get<StepDecay>(rate.any()) = {.learning_rate = 8, .step_size = 3, .gamma = 0.5};
  CHECK(rate(6) == 2);
  CHECK(std::string(rate.kind()) == "step");
  rate = WarmupConstant{.learning_rate = 3};
  CHECK(rate(0) == 3);
  CHECK_THROWS_AS(Schedule("steps"), ConfigError);
  CHECK(Schedule::kinds().find("one_cycle") != std::string::npos);
}

TEST_CASE("wrong settings") {
  CHECK_THROWS_AS(WarmupConstant{}(-1), ConfigError);
  CHECK_THROWS_AS(WarmupLinear{.warmup_steps = -2}(0), ConfigError);
  CHECK_THROWS_AS(StepDecay{.step_size = 0}(0), ConfigError);
  CHECK_THROWS_AS((OneCycle{.total_steps = 3, .warmup_fraction = 0.1}(0)), ConfigError);
  CHECK_THROWS_AS((WarmupInverseSqrt{.timescale = 0.0}(3)), ConfigError);
}
