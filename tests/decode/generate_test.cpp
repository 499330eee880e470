// Generation with a model whose next token is known: it counts what it has seen.

#include "ordo/decode/generate.hpp"

#include <vector>

#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

using namespace ordo;

namespace {

/// The logits prefer token (sum of all tokens seen) mod 11.
struct SumModel {
  static constexpr Index vocab = 11;
  struct State {
    Index sum = 0;
    int calls = 0;
  };
  DynTensor<float, 2> logits_of(Index sum) const {
    DynTensor<float, 2> y(1, vocab);
    y(0, sum % vocab) = 50;
    return y;
  }
  DynTensor<float, 3> operator()(const DynTensor<std::int32_t, 2>& tokens, State& state) const {
    ++state.calls;
    DynTensor<float, 3> y(1, tokens.extent(1), vocab);
    for (Index i = 0; i < tokens.extent(1); ++i) {
      state.sum += tokens(0, i);
      y(0, i, state.sum % vocab) = 50;
    }
    return y;
  }
  DynTensor<float, 2> step(const DynTensor<std::int32_t, 1>& token, State& state) const {
    state.sum += token(0);
    return logits_of(state.sum);
  }
};

/// The same with a head of its own, which must see one row only.
struct HeadModel : SumModel {
  mutable Index head_rows = 0;
  DynTensor<float, 3> hidden(const DynTensor<std::int32_t, 2>& tokens, State& state) const {
    return (*this)(tokens, state);
  }
  DynTensor<float, 2> head(const DynTensor<float, 2>& x) const {
    head_rows += x.extent(0);
    return x;
  }
};

std::vector<std::int32_t> expected_after(std::vector<std::int32_t> history, Index n) {
  std::vector<std::int32_t> made;
  Index sum = 0;
  for (const auto t : history) sum += t;
  for (Index i = 0; i < n; ++i) {
    made.push_back(static_cast<std::int32_t>(sum % SumModel::vocab));
    sum += made.back();
  }
  return made;
}

const std::vector<std::int32_t> prompt{3, 1, 4, 1, 5, 9, 2, 6};

template <class Model>
std::vector<std::int32_t> run(const Model& model, const GenerateConfig& config, GenerateResult* result = nullptr,
                              typename Model::State* state_out = nullptr) {
  typename Model::State state;
  std::vector<std::int32_t> tokens;
  const auto r = generate(model, state, prompt, config, SamplerConfig{.temperature = 0}, [&](std::int32_t t) {
    tokens.push_back(t);
    return true;
  });
  if (result != nullptr) *result = r;
  if (state_out != nullptr) *state_out = state;
  return tokens;
}

}  // namespace

TEST_CASE("each token follows from all before it, however the prompt is cut") {
  for (const Index chunk : {Index{1}, Index{3}, Index{7}, Index{8}, Index{100}}) {
    CAPTURE(chunk);
    SumModel::State state;
    GenerateResult result;
    CHECK(run(SumModel{}, {.max_new_tokens = 20, .prefill_chunk = chunk}, &result, &state) ==
          expected_after(prompt, 20));
    CHECK(result.new_tokens == 20);
    CHECK(result.reason == StopReason::max_new_tokens);
    CHECK(state.calls == (8 + chunk - 1) / chunk);
  }
}

TEST_CASE("the head sees the last row of the prompt only") {
  HeadModel model;
  CHECK(run(model, {.max_new_tokens = 5}) == expected_after(prompt, 5));
  CHECK(model.head_rows == 1);
}

TEST_CASE("afterwards the stream goes on from its last token") {
  SumModel model;
  SumModel::State state;
  std::vector<std::int32_t> tokens;
  const auto collect = [&](std::int32_t t) {
    tokens.push_back(t);
    return true;
  };
  Sampler greedy({.temperature = 0});
  generate(model, state, prompt, {.max_new_tokens = 4}, greedy, collect);
  const std::vector<std::int32_t> last{tokens.back()};
  generate(model, state, last, {.max_new_tokens = 6}, greedy, collect);
  CHECK(tokens == expected_after(prompt, 10));
}

TEST_CASE("what ends a generation") {
  const auto all = expected_after(prompt, 20);
  GenerateResult result;
  const auto tokens = run(SumModel{}, {.max_new_tokens = 20, .end_tokens = {-5, all[3]}}, &result);
  const auto first = std::find(all.begin(), all.end(), all[3]);
  CHECK(tokens == std::vector<std::int32_t>(all.begin(), first + 1));
  CHECK(result.reason == StopReason::end_token);

  SumModel::State state;
  int seen = 0;
  result = generate(SumModel{}, state, prompt, {.max_new_tokens = 20}, SamplerConfig{},
                    [&](std::int32_t) { return ++seen < 3; });
  CHECK(seen == 3);
  CHECK(result.new_tokens == 3);
  CHECK(result.reason == StopReason::callback);

  CHECK(run(SumModel{}, {.max_new_tokens = 0}, &result).empty());
  CHECK(result.new_tokens == 0);
}

TEST_CASE("wrong calls") {
  SumModel::State state;
  const auto go = [](std::int32_t) { return true; };
  const std::vector<std::int32_t> empty;
  CHECK_THROWS_AS(generate(SumModel{}, state, empty, {}, SamplerConfig{}, go), UsageError);
  CHECK_THROWS_AS(generate(SumModel{}, state, prompt, {.max_new_tokens = -1}, SamplerConfig{}, go), ConfigError);
  CHECK_THROWS_AS(generate(SumModel{}, state, prompt, {.prefill_chunk = 0}, SamplerConfig{}, go), ConfigError);
}

TEST_CASE("a token costs no allocation") {
  SumModel model;
  SumModel::State state;
  Sampler sampler({.temperature = 0.7, .top_k = 5, .top_p = 0.9});
  std::size_t allocations = 1;
  int seen = 0;
  ordo_test::AllocationCount count;
  generate(model, state, prompt, {.max_new_tokens = 100}, sampler, [&](std::int32_t) {
    if (++seen == 2) count.restart();
    if (seen == 100) allocations = count.allocations();
    return true;
  });
  CHECK(allocations == 0);
}
