// Edited logits where the golden cases do not look, penalties while generating, and log probabilities.

#include "ordo/decode/logits.hpp"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "ordo/decode/generate.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

using namespace ordo;

namespace {

constexpr float forbidden = -std::numeric_limits<float>::infinity();

std::vector<float> edited(const SamplerConfig& config, std::vector<float> logits, const DecodeContext& context = {}) {
  LogitsProcessor process(config);
  process(std::span<float>(logits), context);
  return logits;
}
std::vector<int> left(const std::vector<float>& logits) {
  std::vector<int> tokens;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] != forbidden) tokens.push_back(static_cast<int>(i));
  }
  return tokens;
}

/// Always prefers the same token, a little less each higher one.
struct StubbornModel {
  static constexpr Index vocab = 5;
  struct State {};
  DynTensor<double, 2> step(const DynTensor<std::int32_t, 1>&, State&) const {
    DynTensor<double, 2> y(1, vocab);
    for (Index i = 0; i < vocab; ++i) y(0, i) = 5 - 0.5 * static_cast<double>(i);
    return y;
  }
  DynTensor<double, 3> operator()(const DynTensor<std::int32_t, 2>& tokens, State& state) const {
    DynTensor<double, 3> y(tokens.extent(0), tokens.extent(1), vocab);
    const auto row = step({}, state);
    for (Index i = 0; i < y.size(); ++i) y.data()[i] = row.data()[i % vocab];
    return y;
  }
  State initial_state(Index) const { return {}; }
};

std::vector<std::int32_t> generated(const SamplerConfig& sampling, const GenerateConfig& config) {
  const StubbornModel model;
  StubbornModel::State state;
  std::vector<std::int32_t> tokens;
  const std::vector<std::int32_t> prompt{0, 3};
  generate(model, state, prompt, config, sampling, [&](std::int32_t t) {
    tokens.push_back(t);
    return true;
  });
  return tokens;
}

}  // namespace

TEST_CASE("min-p cuts in proportion to the most probable token, at the temperature") {
  const std::vector<float> logits{0, -1, -2, -3};
  CHECK(left(edited({.min_p = 0.1}, logits)) == std::vector<int>{0, 1, 2});
  CHECK(left(edited({.temperature = 2, .min_p = 0.1}, logits)) == std::vector<int>{0, 1, 2, 3});
  CHECK(left(edited({.min_p = 1}, logits)) == std::vector<int>{0});
  CHECK(left(edited({.min_p = 1, .min_tokens_to_keep = 3}, logits)) == std::vector<int>{0, 1, 2});
}

TEST_CASE("a repeated token is punished whatever its sign") {
  const std::vector<std::int32_t> history{1, 1, 2};
  const auto x = edited({.repetition_penalty = 2}, {4, 4, -4}, {.history = history, .prompt_length = 3});
  CHECK(x == std::vector<float>{4, 2, -8});
  const auto y = edited({.presence_penalty = 1, .frequency_penalty = 0.5}, {4, 4, -4}, {.history = history, .prompt_length = 1});
  CHECK(y == std::vector<float>{4, 2.5F, -5.5F});
}

TEST_CASE("each setting of one processor sees the text of its own call") {
  LogitsProcessor process({.repetition_penalty = 2});
  const std::vector<std::int32_t> first{0, 0, 0}, second{1};
  std::vector<float> a{4, 4}, b{4, 4};
  process(std::span<float>(a), {.history = first});
  process(std::span<float>(b), {.history = second});
  CHECK(a == std::vector<float>{2, 4});
  CHECK(b == std::vector<float>{4, 2});
}

TEST_CASE("nothing may be left") {
  const auto x = edited({.suppress_tokens = {0, 1}}, {4, 4});
  CHECK(left(x).empty());
  Sampler sampler({.suppress_tokens = {0, 1}});
  CHECK_THROWS_AS(sampler(std::vector<float>{4, 4}), UsageError);
}

TEST_CASE("generation knows what it has written") {
  CHECK(generated({.temperature = 0}, {.max_new_tokens = 3}) == std::vector<std::int32_t>{0, 0, 0});
  // 0 and 3 stand in the prompt. Divided by 10 they come after all others, which then are punished too.
  CHECK(generated({.temperature = 0, .repetition_penalty = 10}, {.max_new_tokens = 5}) ==
        std::vector<std::int32_t>{1, 2, 4, 0, 0});
  CHECK(generated({.temperature = 0, .frequency_penalty = 0.3}, {.max_new_tokens = 5}) ==
        std::vector<std::int32_t>{0, 0, 1, 0, 1});
  CHECK(generated({.temperature = 0, .no_repeat_ngram_size = 1}, {.max_new_tokens = 3}) == std::vector<std::int32_t>{1, 2, 4});
  CHECK(generated({.temperature = 0, .min_new_tokens = 2}, {.max_new_tokens = 9, .end_tokens = {0}}) ==
        std::vector<std::int32_t>{1, 1, 0});
}

TEST_CASE("log probabilities of tokens, of the best, of texts, and while generating") {
  const std::vector<double> logits{std::log(0.5), std::log(0.25), std::log(0.25)};
  const std::span<const double> row(logits);
  CHECK(std::abs(log_probability(row, 0) - std::log(0.5)) < 1e-15);
  const auto best = top_log_probabilities(row, 2);
  REQUIRE(best.size() == 2);
  CHECK(best[0].token == 0);
  CHECK(best[1].token == 1);
  CHECK(std::abs(best[1].log_probability - std::log(0.25)) < 1e-15);
  CHECK(top_log_probabilities(row, 10).size() == 3);
  CHECK(log_probability(std::span<const float>(std::vector<float>{3e38F, -3e38F}), 0) == 0);
  CHECK_THROWS_AS(log_probability(row, 3), UsageError);

  const StubbornModel model;
  DynTensor<std::int32_t, 2> tokens(2, 7);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (auto& t : tokens) t %= 5;
  double normalizer = 0;
  for (int i = 0; i < 5; ++i) normalizer += std::exp(5 - 0.5 * i);
  for (const Index chunk : {Index{1}, Index{4}, Index{256}}) {
    const auto scores = log_probabilities(model, tokens, chunk);
    REQUIRE(scores.extent(1) == 6);
    for (Index b = 0; b < 2; ++b) {
      for (Index i = 0; i < 6; ++i) {
        CHECK(std::abs(scores(b, i) - (5 - 0.5 * tokens(b, i + 1) - std::log(normalizer))) < 1e-14);
      }
    }
  }
  CHECK(log_probabilities(model, DynTensor<std::int32_t, 2>(2, 1)).size() == 0);

  StubbornModel::State state;
  std::vector<double> told;
  const std::vector<std::int32_t> prompt{1};
  // Of the model itself: neither the temperature nor the cut changes it.
  generate(model, state, prompt, {.max_new_tokens = 2}, SamplerConfig{.temperature = 0.01, .top_k = 1},
           [&](std::int32_t, double log_p) {
             told.push_back(log_p);
             return true;
           });
  REQUIRE(told.size() == 2);
  CHECK(std::abs(told[1] - (5 - std::log(normalizer))) < 1e-14);
}

TEST_CASE("all settings together allocate nothing after the first call") {
  const std::vector<std::int32_t> history{1, 2, 3, 1, 2}, ends{0};
  LogitsProcessor process({.temperature = 0.7, .top_k = 40, .top_p = 0.95, .min_p = 0.01, .typical_p = 0.9,
                           .epsilon_cutoff = 1e-4, .eta_cutoff = 1e-4, .min_tokens_to_keep = 2, .repetition_penalty = 1.1,
                           .presence_penalty = 0.1, .frequency_penalty = 0.1, .no_repeat_ngram_size = 3, .min_new_tokens = 9});
  std::vector<double> logits(100), copy;
  for (std::size_t i = 0; i < 100; ++i) logits[i] = std::sin(static_cast<double>(i * i));
  copy = logits;
  const DecodeContext context{.history = history, .prompt_length = 2, .end_tokens = ends};
  process(std::span<double>(copy), context);
  ordo_test::AllocationCount count;
  for (int i = 0; i < 10; ++i) {
    std::copy(logits.begin(), logits.end(), copy.begin());
    process(std::span<double>(copy), context);
  }
  const std::size_t allocations = count.allocations();
  CHECK(allocations == 0);
}

TEST_CASE("wrong settings and tokens") {
  CHECK_THROWS_AS(LogitsProcessor({.min_p = 1.5}), ConfigError);
  CHECK_THROWS_AS(LogitsProcessor({.typical_p = -0.1}), ConfigError);
  CHECK_THROWS_AS(LogitsProcessor({.min_tokens_to_keep = 0}), ConfigError);
  CHECK_THROWS_AS(LogitsProcessor({.repetition_penalty = 0}), ConfigError);
  CHECK_THROWS_AS(LogitsProcessor({.bad_sequences = {{}}}), ConfigError);
  CHECK_THROWS_AS(edited({.suppress_tokens = {7}}, {0, 0}), UsageError);
  CHECK_THROWS_AS(edited({.min_new_tokens = 1}, {0, 0}), UsageError);
  const std::vector<std::int32_t> history{9};
  CHECK_THROWS_AS(edited({.repetition_penalty = 2}, {0, 0}, {.history = history}), UsageError);
  CHECK_THROWS_AS(edited({}, {0, 0}, {.prompt_length = 1}), UsageError);
  const std::vector<std::uint8_t> allowed{1};
  CHECK_THROWS_AS(edited({}, {0, 0}, {.allowed = allowed}), UsageError);
}
