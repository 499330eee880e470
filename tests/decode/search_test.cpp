// Searches over a model against sums of its log probabilities and against all sequences there are; what speculation and CTC
// have to keep.

#include "ordo/decode/beam_search.hpp"

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "ordo/decode/ctc.hpp"
#include "ordo/decode/log_probability.hpp"
#include "ordo/decode/speculative.hpp"
#include "ordo/nn/ssm/mamba.hpp"
#include "ordo/stack/causal_lm.hpp"
#include "support/catch.hpp"

using namespace ordo;

namespace {

constexpr Index vocab = 5;

CausalLm<Mamba<double>> model_of(std::uint64_t seed) {
  Random random(seed);
  CausalLm<Mamba<double>> model({.vocab_size = vocab, .model_dim = 8, .num_layers = 1, .init_deviation = 0.7}, random);
  return model;
}
DynTensor<std::int32_t, 2> prompts() { return DynTensor<std::int32_t, 2>(DynExtents<2>(2, 2), {1, 3, 4, 2}); }

/// The sum of the log probabilities of what follows the prompt.
double score_of(const CausalLm<Mamba<double>>& model, const std::vector<std::int32_t>& text, Index prompt) {
  DynTensor<std::int32_t, 2> tokens(1, static_cast<Index>(text.size()));
  std::copy(text.begin(), text.end(), tokens.begin());
  const auto scores = log_probabilities(model, tokens);
  double sum = 0;
  for (Index i = prompt - 1; i < scores.extent(1); ++i) sum += scores(0, i);
  return sum;
}
std::vector<std::int32_t> text_of(const SearchResult& r, Index b, Index k) {
  return {&r.ids(b, k, 0), &r.ids(b, k, 0) + r.lengths(b, k)};
}

/// The best score / length^a over all continuations that end with token 0 or have the full length.
double best_of_all(const CausalLm<Mamba<double>>& model, std::vector<std::int32_t> text, std::size_t prompt, std::size_t most, double a) {
  double best = -std::numeric_limits<double>::infinity();
  if (text.size() > prompt && (text.back() == 0 || text.size() == prompt + most)) {
    return score_of(model, text, static_cast<Index>(prompt)) / std::pow(static_cast<double>(text.size() - prompt), a);
  }
  for (std::int32_t t = 0; t < vocab; ++t) {
    text.push_back(t);
    best = std::max(best, best_of_all(model, text, prompt, most, a));
    text.pop_back();
  }
  return best;
}

}  // namespace

TEST_CASE("scores of a beam search are those of the model, whatever was reordered and dropped") {
  const auto model = model_of(3);
  BeamSearchConfig config;
  config.max_new_tokens = 6;
  config.end_tokens = {0};
  config.num_beams = 3;
  config.num_return_sequences = 3;
  config.length_penalty = 0;
  auto scorer = scorer_of(model, 2);
  const SearchResult r = beam_search(scorer, prompts(), config);
  for (Index b = 0; b < 2; ++b) {
    for (Index k = 0; k < 3; ++k) {
      const auto text = text_of(r, b, k);
      CHECK(text[0] == prompts()(b, 0));
      CHECK(std::abs(r.scores(b, k) - score_of(model, text, 2)) < 1e-12);
      if (k > 0) CHECK(r.scores(b, k) <= r.scores(b, k - 1));
      for (Index i = r.lengths(b, k); i < r.ids.extent(2); ++i) CHECK(r.ids(b, k, i) == 0);
    }
  }
}

TEST_CASE("a beam as wide as the tree finds the best sequence of all") {
  for (const std::uint64_t seed : {3U, 4U}) {
    const auto model = model_of(seed);
    for (const double a : {0.0, 1.0}) {
      BeamSearchConfig config;
      config.max_new_tokens = 3;
      config.end_tokens = {0};
      config.num_beams = 125;
      config.length_penalty = a;
      config.early_stopping = EarlyStopping::never;
      auto scorer = scorer_of(model, 2);
      const SearchResult r = beam_search(scorer, prompts(), config);
      for (Index b = 0; b < 2; ++b) {
        CHECK(std::abs(r.scores(b, 0) - best_of_all(model, {prompts()(b, 0), prompts()(b, 1)}, 2, 3, a)) < 1e-12);
      }
    }
  }
}

TEST_CASE("greedy search takes the largest logit at each step") {
  const auto model = model_of(3);
  SearchConfig config;
  config.max_new_tokens = 7;
  config.end_tokens = {0};
  config.pad_token = 4;
  auto scorer = scorer_of(model, 2);
  const SearchResult r = greedy_search(scorer, prompts(), config);
  for (Index b = 0; b < 2; ++b) {
    std::vector<std::int32_t> text{prompts()(b, 0), prompts()(b, 1)};
    auto state = model.initial_state(1);
    DynTensor<std::int32_t, 2> prompt(DynExtents<2>(1, 2), {text[0], text[1]});
    auto logits = prefill(model, prompt, state);
    while (text.size() < 9 && text.back() != 0) {
      text.push_back(static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      logits = model.step(DynTensor<std::int32_t, 1>(DynExtents<1>(1), {text.back()}), state);
    }
    CHECK(text_of(r, b, 0) == text);
  }
}

TEST_CASE("groups of a diverse search begin differently, one group is a plain search") {
  const auto model = model_of(3);
  BeamSearchConfig config;
  config.max_new_tokens = 4;
  config.num_beams = config.num_beam_groups = config.num_return_sequences = 4;
  config.diversity_penalty = 1000;
  auto scorer = scorer_of(model, 2);
  const SearchResult r = diverse_beam_search(scorer, prompts(), config);
  for (Index b = 0; b < 2; ++b) {
    std::map<std::int32_t, int> first;
    for (Index k = 0; k < 4; ++k) ++first[r.ids(b, k, 2)];
    CHECK(first.size() == 4);
  }
  config.num_beam_groups = 1;
  config.num_return_sequences = 1;
  config.end_tokens = {0};
  auto one = scorer_of(model, 2), plain = scorer_of(model, 2);
  CHECK(text_of(diverse_beam_search(one, prompts(), config), 0, 0) == text_of(beam_search(plain, prompts(), config), 0, 0));
}

TEST_CASE("constraints hold in every row") {
  const auto model = model_of(3);
  BeamSearchConfig config;
  config.max_new_tokens = 4;
  config.num_beams = 2;
  config.constraint = [](Index row, std::span<const std::int32_t>, std::span<std::uint8_t> allowed) {
    allowed[static_cast<std::size_t>(1 + row)] = 1;
    allowed[static_cast<std::size_t>(2 + row)] = 1;
  };
  auto scorer = scorer_of(model, 2);
  const SearchResult r = beam_search(scorer, prompts(), config);
  for (Index b = 0; b < 2; ++b) {
    for (Index i = 2; i < 6; ++i) CHECK((r.ids(b, 0, i) == 1 + b || r.ids(b, 0, i) == 2 + b));
  }
}

TEST_CASE("wrong settings of searches") {
  const auto model = model_of(3);
  auto scorer = scorer_of(model, 2);
  BeamSearchConfig config;
  config.num_return_sequences = 5;
  CHECK_THROWS_AS(beam_search(scorer, prompts(), config), ConfigError);
  config.num_return_sequences = 1;
  config.num_beam_groups = 3;
  CHECK_THROWS_AS(diverse_beam_search(scorer, prompts(), config), ConfigError);
  config.num_beam_groups = 1;
  config.processing.top_k = 3;
  CHECK_THROWS_AS(beam_search(scorer, prompts(), config), ConfigError);
  config.processing.top_k = 0;
  config.max_new_tokens = 0;
  CHECK_THROWS_AS(beam_search(scorer, prompts(), config), ConfigError);
  config.max_new_tokens = 3;
  CHECK_THROWS_AS(greedy_search(scorer, DynTensor<std::int32_t, 2>(2, 0), config), UsageError);
}

TEST_CASE("speculation leaves the distribution of the large model") {
  // P(token) = q min(1, p / q) + P(rejected) next(token), which has to be p.
  const DynTensor<double, 2> p(DynExtents<2>(2, 3), {0.5, 0.2, 0.3, 0.1, 0.1, 0.8}), q(DynExtents<2>(1, 3), {0.2, 0.7, 0.1});
  std::vector<double> found(3);
  double rejected = 0;
  DynTensor<double, 1> next;
  for (std::int32_t token = 0; token < 3; ++token) {
    const double ratio = std::min(1.0, p(0, token) / q(0, token));
    const std::vector<std::int32_t> drafted{token};
    const std::vector<double> low{0}, high{0.999999};
    CHECK(speculative_verify(p, q, drafted, std::span<const double>(low)).accepted == 1);
    const auto r = speculative_verify(p, q, drafted, std::span<const double>(high));
    CHECK(r.accepted == (ratio == 1 ? 1 : 0));
    if (r.accepted == 0) next = r.next_probabilities;
    else CHECK(r.next_probabilities(2) == 0.8);
    found[static_cast<std::size_t>(token)] += q(0, token) * ratio;
    rejected += q(0, token) * (1 - ratio);
  }
  for (Index i = 0; i < 3; ++i) CHECK(std::abs(found[static_cast<std::size_t>(i)] + rejected * next(i) - p(0, i)) < 1e-15);
  CHECK_THROWS_AS(speculative_verify(q, q, std::vector<std::int32_t>{0}, std::span<const double>(found).first(1)), ShapeError);
}

TEST_CASE("a CTC beam that keeps everything sums all paths") {
  Random random(5);
  constexpr Index frames = 4, labels = 3;
  DynTensor<double, 2> logits(frames, labels);
  for (double& x : logits) x = random.normal();
  std::map<std::vector<std::int32_t>, double> sums;
  for (int path = 0; path < 81; ++path) {
    std::vector<std::int32_t> text;
    double p = 1;
    std::int32_t last = 0;
    for (int t = 0, rest = path; t < frames; ++t, rest /= labels) {
      const std::int32_t label = rest % labels;
      p *= std::exp(log_probability(std::span<const double>(&logits(t, 0), labels), label));
      if (label != 0 && label != last) text.push_back(label);
      last = label;
    }
    sums[text] += p;
  }
  const auto best = std::max_element(sums.begin(), sums.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  const CtcResult r = ctc_beam_search(logits, 0, 1000);
  CHECK(r.labels == best->first);
  CHECK(std::abs(r.score - std::log(best->second)) < 1e-13);
  CHECK(ctc_greedy(DynTensor<float, 2>(DynExtents<2>(4, 2), {0, 1, 0, 1, 1, 0, 0, 1}), 0) == std::vector<std::int32_t>{1, 1});
  CHECK(ctc_greedy(DynTensor<float, 2>(0, 2), 0).empty());
  CHECK_THROWS_AS(ctc_greedy(logits, 3), UsageError);
  CHECK_THROWS_AS(ctc_beam_search(logits, 0, 0), ConfigError);
}
