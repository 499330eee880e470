#pragma once
/// \file
/// Generating text token by token.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "ordo/core/tensor.hpp"
#include "ordo/decode/log_probability.hpp"
#include "ordo/decode/sample.hpp"

namespace ordo {

struct GenerateConfig {
  Index max_new_tokens = 100;
  std::vector<std::int32_t> end_tokens{};  ///< generation ends after one of these, which the callback still sees
  Index prefill_chunk = 2048;              ///< a long prompt is read in pieces of this length, which bounds the memory
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("max_new_tokens", c.max_new_tokens);
    f("end_tokens", c.end_tokens);
    f("prefill_chunk", c.prefill_chunk);
  }
};

enum class StopReason { max_new_tokens, end_token, callback };

struct GenerateResult {
  Index new_tokens = 0;  ///< how many the callback saw
  StopReason reason = StopReason::max_new_tokens;
};

/// Feeds tokens [B, L] to a stream and returns the logits [B, vocab_size] of what follows the last ones. Only the last
/// hidden states go through the head, which costs as much as several layers.
template <class Model, class State>
auto prefill(const Model& model, const DynTensor<std::int32_t, 2>& tokens, State& state) {
  if (tokens.extent(1) < 1) fail<UsageError>("prefill: the prompt is empty");
  const auto last_of = [](const auto& sequence) {
    using T = typename std::remove_cvref_t<decltype(sequence)>::value_type;
    const Index batch = sequence.extent(0), length = sequence.extent(1), width = sequence.extent(2);
    DynTensor<T, 2> last(DynExtents<2>(batch, width), uninitialized);
    for (Index b = 0; b < batch; ++b) {
      std::copy_n(sequence.data() + (b * length + length - 1) * width, width, last.data() + b * width);
    }
    return last;
  };
  if constexpr (requires { model.head(last_of(model.hidden(tokens, state))); }) {
    return model.head(last_of(model.hidden(tokens, state)));
  } else {
    return last_of(model(tokens, state));
  }
}

/// Continues `prompt` on a stream of one row: reads it at once, then draws tokens with `sampler`, hands each to
/// `callback(token)`, which says whether to go on, and steps the model with it. A token costs one step and, after the
/// first, no allocation. A callback that takes (token, log_probability) is also told the token's log probability by the
/// model, before penalties, temperature and cuts.
///
///     auto state = model.initial_state(1);
///     Sampler sampler({.temperature = 0.8, .top_k = 50});
///     generate(model, state, prompt, {.max_new_tokens = 200}, sampler, [](std::int32_t token) { std::putchar(token);
///     return true; });
///
/// Afterwards the state has seen the prompt and all new tokens but the last: to go on, begin the next prompt with that
/// one.
template <class Model, class State, class Callback>
GenerateResult generate(const Model& model, State& state, std::span<const std::int32_t> prompt,
                        const GenerateConfig& config, Sampler& sampler, Callback&& callback) {
  if (prompt.empty()) fail<UsageError>("generate: the prompt is empty; give at least one token to start from");
  if (config.max_new_tokens < 0 || config.prefill_chunk < 1) {
    fail<ConfigError>({"generate: max_new_tokens must be at least 0 and prefill_chunk at least 1, given ", config.max_new_tokens, " and ", config.prefill_chunk});
  }
  const auto chunk = [&](Index begin) {
    const Index length = std::min(config.prefill_chunk, static_cast<Index>(prompt.size()) - begin);
    DynTensor<std::int32_t, 2> tokens(DynExtents<2>(1, length), uninitialized);
    std::copy_n(prompt.data() + begin, length, tokens.data());
    return tokens;
  };
  auto logits = prefill(model, chunk(0), state);
  for (Index at = config.prefill_chunk; at < static_cast<Index>(prompt.size()); at += config.prefill_chunk) {
    logits = prefill(model, chunk(at), state);
  }
  const bool remembers = sampler.uses_history();
  std::vector<std::int32_t> history;
  if (remembers) {
    history.reserve(prompt.size() + static_cast<std::size_t>(config.max_new_tokens));
    history.assign(prompt.begin(), prompt.end());
  }
  const auto go_on = [&](std::int32_t chosen) {
    if constexpr (std::is_invocable_v<Callback&, std::int32_t, double>) {
      using T = typename decltype(logits)::value_type;
      return callback(chosen, log_probability(std::span<const T>(logits.data(), static_cast<std::size_t>(logits.size())), chosen));
    } else {
      return callback(chosen);
    }
  };
  GenerateResult result;
  DynTensor<std::int32_t, 1> token(1);
  while (result.new_tokens < config.max_new_tokens) {
    DecodeContext context{.end_tokens = config.end_tokens};
    if (remembers) {
      context.history = history;
      context.prompt_length = static_cast<Index>(prompt.size());
    }
    token(0) = sampler(logits, context);
    if (remembers) history.push_back(token(0));
    ++result.new_tokens;
    if (!go_on(token(0))) {
      result.reason = StopReason::callback;
      return result;
    }
    if (std::find(config.end_tokens.begin(), config.end_tokens.end(), token(0)) != config.end_tokens.end()) {
      result.reason = StopReason::end_token;
      return result;
    }
    if (result.new_tokens < config.max_new_tokens) logits = model.step(token, state);
  }
  return result;
}

/// The same with a sampler of its own.
template <class Model, class State, class Callback>
GenerateResult generate(const Model& model, State& state, std::span<const std::int32_t> prompt,
                        const GenerateConfig& config, const SamplerConfig& sampling, Callback&& callback) {
  Sampler sampler(sampling);
  return generate(model, state, prompt, config, sampler, callback);
}

}  // namespace ordo
