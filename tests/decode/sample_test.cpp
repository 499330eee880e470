// Distributions of samplers against probabilities, and the edges of top-k and top-p.

#include "ordo/decode/sample.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

using namespace ordo;

namespace {

constexpr float forbidden = -std::numeric_limits<float>::infinity();

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double total = 0;
  for (const float x : logits) total += p.emplace_back(std::exp(static_cast<double>(x) / temperature));
  for (double& x : p) x /= total;
  return p;
}

std::vector<double> frequencies(Sampler sampler, const std::vector<float>& logits, int draws) {
  std::vector<double> count(logits.size());
  for (int i = 0; i < draws; ++i) ++count.at(static_cast<std::size_t>(sampler(logits)));
  return count;
}

/// sum (found - expected)^2 / expected. Tokens of probability 0 must not be drawn.
double chi_square(const std::vector<double>& count, const std::vector<double>& probability, int draws) {
  double sum = 0;
  for (std::size_t i = 0; i < count.size(); ++i) {
    const double expected = probability[i] * draws;
    if (expected == 0) {
      if (count[i] != 0) return HUGE_VAL;
    } else {
      sum += (count[i] - expected) * (count[i] - expected) / expected;
    }
  }
  return sum;
}

/// The probabilities of those in `kept`, 0 elsewhere.
std::vector<double> renormalised(std::vector<double> p, const std::vector<std::size_t>& kept) {
  std::vector<double> out(p.size());
  double total = 0;
  for (const std::size_t i : kept) total += p[i];
  for (const std::size_t i : kept) out[i] = p[i] / total;
  return out;
}

const std::vector<float> logits{0.3F, -1.2F, 2.0F, 0.9F, 1.4F, -0.5F};
constexpr int draws = 40000;
// Five degrees of freedom: 20.5 is exceeded with probability 0.001. The seeds are fixed, so the draw is always the
// same.
constexpr double limit = 20.5;

}  // namespace

TEST_CASE("tokens come with their probabilities, at every temperature") {
  for (const double temperature : {1.0, 0.5, 3.0}) {
    CAPTURE(temperature);
    const auto p = softmax(logits, temperature);
    CHECK(chi_square(frequencies(Sampler({.temperature = temperature, .seed = 11}), logits, draws), p, draws) < limit);
  }
  // The test can tell temperatures apart.
  CHECK(chi_square(frequencies(Sampler({.temperature = 1.0}), logits, draws), softmax(logits, 1.1), draws) > limit);
}

TEST_CASE("top-k leaves the largest k, renormalised") {
  const auto p = softmax(logits, 1);
  CHECK(chi_square(frequencies(Sampler({.top_k = 3, .seed = 5}), logits, draws), renormalised(p, {2, 3, 4}), draws) <
        limit);
  CHECK(chi_square(frequencies(Sampler({.top_k = 600, .seed = 5}), logits, draws), p, draws) < limit);
  CHECK(frequencies(Sampler({.top_k = 1}), logits, 100)[2] == 100);
}

TEST_CASE("what ties with the k-th stays") {
  const std::vector<float> tied{1, 3, 2, 2, 0, 2};
  const auto count = frequencies(Sampler({.top_k = 2}), tied, 5000);
  CHECK(chi_square(count, renormalised(softmax(tied, 1), {1, 2, 3, 5}), 5000) < limit);
}

TEST_CASE("top-p keeps the fewest tokens that reach it") {
  // Probabilities 0.5, 0.25, 0.125, 0.125, in another order.
  const std::vector<float> halves{std::log(0.125F), std::log(0.5F), std::log(0.125F), std::log(0.25F)};
  const auto p = softmax(halves, 1);
  const auto kept = [&](double top_p) {
    const auto count = frequencies(Sampler({.top_p = top_p, .seed = 3}), halves, 4000);
    std::vector<int> all;
    for (std::size_t i = 0; i < count.size(); ++i) {
      if (count[i] > 0) all.push_back(static_cast<int>(i));
    }
    return all;
  };
  CHECK(kept(0) == std::vector<int>{1});
  CHECK(kept(1e-9) == std::vector<int>{1});
  CHECK(kept(0.49) == std::vector<int>{1});
  CHECK(kept(0.51) == std::vector<int>{1, 3});
  CHECK(kept(0.74) == std::vector<int>{1, 3});
  CHECK(kept(0.76) == std::vector<int>{0, 1, 3});  // of equal ones the lower
  CHECK(kept(0.9) == std::vector<int>{0, 1, 2, 3});
  CHECK(kept(1) == std::vector<int>{0, 1, 2, 3});
  const auto count = frequencies(Sampler({.top_p = 0.7, .seed = 9}), halves, draws);
  CHECK(chi_square(count, renormalised(p, {1, 3}), draws) < limit);
}

TEST_CASE("top-p counts what top-k left, at the temperature") {
  // After top-k 2: 2/3 and 1/3, so 0.6 is reached by the first alone; of all four it would take two.
  const std::vector<float> halves{std::log(0.125F), std::log(0.5F), std::log(0.125F), std::log(0.25F)};
  CHECK(frequencies(Sampler({.top_k = 2, .top_p = 0.6}), halves, 500)[1] == 500);
  CHECK(frequencies(Sampler({.top_p = 0.6}), halves, 500)[1] < 500);
  // Temperature 1/2 squares: 0.25 : 0.0625 : 2 * 0.0156 makes 0.727 of the first.
  CHECK(frequencies(Sampler({.temperature = 0.5, .top_p = 0.7}), halves, 500)[1] == 500);
  CHECK(frequencies(Sampler({.temperature = 1, .top_p = 0.7}), halves, 500)[1] < 500);
}

TEST_CASE("greedy takes the largest, the lowest of equal ones") {
  Sampler greedy({.temperature = 0});
  CHECK(greedy(logits) == 2);
  CHECK(greedy(std::vector<float>{1, 5, 5, 2}) == 1);
  CHECK(greedy(std::vector<float>{forbidden, -3, forbidden}) == 1);
  CHECK(greedy(std::vector<double>{-1e300, -1e301}) == 0);
  CHECK(greedy.random().state()[2] == 0);  // and draws no random number
}

TEST_CASE("forbidden tokens, extreme logits and temperatures") {
  const std::vector<float> some{forbidden, 0, forbidden, 0};
  const auto count = frequencies(Sampler(SamplerConfig{}), some, 2000);
  CHECK(count[0] + count[2] == 0);
  CHECK(count[1] > 850);
  CHECK(frequencies(Sampler({.top_k = 3, .top_p = 0.999}), some, 200)[0] == 0);
  CHECK(frequencies(Sampler({.temperature = 1e-300}), logits, 50)[2] == 50);
  CHECK(frequencies(Sampler(SamplerConfig{}), {3e38F, -3e38F}, 50)[0] == 50);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({.temperature = temperature});
    CHECK_THROWS_AS(sampler(std::vector<float>{0, nan}), UsageError);
    CHECK_THROWS_AS(sampler(std::vector<float>{0, -forbidden}), UsageError);
    CHECK_THROWS_AS(sampler(std::vector<float>{forbidden, forbidden}), UsageError);
    CHECK_THROWS_AS(sampler(std::vector<float>{}), UsageError);
  }
}

TEST_CASE("shapes: one position, whatever its rank") {
  Sampler greedy({.temperature = 0});
  DynTensor<double, 3> one(1, 1, 4);
  one(0, 0, 3) = 1;
  CHECK(greedy(one) == 3);
  CHECK_THROWS_AS(greedy(DynTensor<float, 2>(2, 4)), ShapeError);
}

TEST_CASE("wrong configurations") {
  CHECK_THROWS_AS(Sampler({.temperature = -1}), ConfigError);
  CHECK_THROWS_AS(Sampler({.temperature = NAN}), ConfigError);
  CHECK_THROWS_AS(Sampler({.top_k = -1}), ConfigError);
  CHECK_THROWS_AS(Sampler({.top_p = 1.5}), ConfigError);
  CHECK_THROWS_AS(Sampler({.top_p = NAN}), ConfigError);
}

TEST_CASE("the seed decides, a saved position goes on, and nothing is allocated") {
  Sampler a({.top_k = 4, .top_p = 0.9, .seed = 1}), b({.top_k = 4, .top_p = 0.9, .seed = 1}),
      c({.top_k = 4, .top_p = 0.9, .seed = 2});
  int differ = 0;
  for (int i = 0; i < 50; ++i) {
    const auto token = a(logits);
    REQUIRE(token == b(logits));
    differ += token != c(logits);
  }
  CHECK(differ > 0);
  const Random position = a.random();
  const auto next = a(logits);
  a.seek(position);
  CHECK(a(logits) == next);

  ordo_test::AllocationCount count;
  for (int i = 0; i < 100; ++i) a(logits);
  const std::size_t allocations = count.allocations();
  CHECK(allocations == 0);
}
