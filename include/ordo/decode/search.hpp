#pragma once
/// \file
/// What searches for the best continuation share: where logits come from, what is allowed, what is returned; greedy search.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/core/tensor.hpp"
#include "ordo/decode/generate.hpp"
#include "ordo/decode/logits.hpp"

namespace ordo {

/// Gives a search the logits of the next tokens of several rows, as a model with a state does. A search drops, copies and
/// reorders rows; any other source has the same two functions:
///
///     logits [B, V] = start(prompts [B, P]);
///     logits [n, V] = advance(tokens of n rows, parents);      // row i goes on from row parents[i] of the last call
template <class Model, class State>
class ModelScorer {
 public:
  ModelScorer(const Model& model, State state) : model_(model), state_(std::move(state)) {}

  auto start(const DynTensor<std::int32_t, 2>& prompts) { return prefill(model_, prompts, state_); }
  auto advance(std::span<const std::int32_t> tokens, std::span<const Index> parents) {
    state_.copy_rows(parents);
    DynTensor<std::int32_t, 1> next(static_cast<Index>(tokens.size()));
    std::copy(tokens.begin(), tokens.end(), next.begin());
    return model_.step(next, state_);
  }

 private:
  const Model& model_;
  State state_;
};
/// Over prompts of `batch` rows.
template <class Model>
auto scorer_of(const Model& model, Index batch) {
  auto state = model.initial_state(batch);
  return ModelScorer<Model, decltype(state)>(model, std::move(state));
}

struct SearchConfig {
  Index max_new_tokens = 100;
  std::vector<std::int32_t> end_tokens{};
  std::int32_t pad_token = 0;  ///< stands behind the end of shorter results
  SamplerConfig processing{};  ///< penalties and constraints; temperature, cuts and seed are not used
  /// Marks what may follow: constraint(row, history, allowed), allowed[token] = 0 or 1, all 0 at first.
  std::function<void(Index, std::span<const std::int32_t>, std::span<std::uint8_t>)> constraint{};
};

/// Sequences of different lengths, padded: ids [B, R, longest], prompt included; lengths and scores [B, R].
struct SearchResult {
  DynTensor<std::int32_t, 3> ids;
  DynTensor<std::int32_t, 2> lengths;
  DynTensor<double, 2> scores;
};

namespace detail {

/// One sequence of a search.
struct Hypothesis {
  std::vector<std::int32_t> tokens;
  double score = 0;
  Index row = 0;  ///< of the scorer's last logits
};

/// The settings that every search uses, checked.
class SearchTools {
 public:
  SearchTools(const char* name, const SearchConfig& config, const DynTensor<std::int32_t, 2>& prompts)
      : config_(config), processor_(config.processing), prompt_length_(prompts.extent(1)) {
    const auto at_least = [&](const char* key, Index value) {
      if (value < 1) fail<ConfigError>(std::string(name) + ": " + key + " must be at least 1, given " + std::to_string(value));
    };
    at_least("max_new_tokens", config.max_new_tokens);
    if (prompts.extent(0) < 1 || prompt_length_ < 1) {
      fail<UsageError>(std::string(name) + ": prompts of shape " + to_string(prompts.shape()) + ", expected at least one token each");
    }
    const SamplerConfig& p = config.processing;
    if (p.temperature != 1 || p.top_k != 0 || p.top_p != 1 || p.min_p != 0 || p.typical_p != 1 || p.epsilon_cutoff != 0 || p.eta_cutoff != 0) {
      fail<ConfigError>(std::string(name) + ": temperature and cuts are of sampling, a search does not draw");
    }
  }

  Index prompt_length() const noexcept { return prompt_length_; }
  bool is_end(std::int32_t token) const noexcept {
    return std::find(config_.end_tokens.begin(), config_.end_tokens.end(), token) != config_.end_tokens.end();
  }
  Hypothesis prompt(const DynTensor<std::int32_t, 2>& prompts, Index row) const {
    const std::int32_t* from = prompts.data() + row * prompt_length_;
    return {std::vector<std::int32_t>(from, from + prompt_length_), 0, row};
  }
  /// Edits scores of the next token of a sequence; forbidden tokens become -infinity.
  void process(std::span<double> scores, Index batch_row, std::span<const std::int32_t> history) {
    DecodeContext context{.history = history, .prompt_length = prompt_length_, .end_tokens = config_.end_tokens};
    if (config_.constraint) {
      allowed_.assign(scores.size(), 0);
      config_.constraint(batch_row, history, allowed_);
      context.allowed = allowed_;
    }
    processor_(scores, context);
  }
  /// The row of logits of a sequence, in double.
  template <class Logits>
  std::vector<double>& scores_of(const Logits& logits, Index row) {
    const Index vocab = logits.extent(1);
    scores_.assign(logits.data() + row * vocab, logits.data() + (row + 1) * vocab);
    return scores_;
  }
  /// The next logits of the sequences, which take their places in the rows.
  template <class Scorer>
  auto advance(Scorer& scorer, std::span<Hypothesis* const> live) {
    std::vector<std::int32_t> tokens;
    std::vector<Index> parents;
    for (Hypothesis* h : live) {
      tokens.push_back(h->tokens.back());
      parents.push_back(std::exchange(h->row, static_cast<Index>(parents.size())));
    }
    return scorer.advance(std::span<const std::int32_t>(tokens), std::span<const Index>(parents));
  }
  /// all[b][r] as tensors.
  SearchResult result(const std::vector<std::vector<Hypothesis>>& all) const {
    const auto batch = static_cast<Index>(all.size()), count = static_cast<Index>(all[0].size());
    std::size_t longest = 0;
    for (const auto& row : all) {
      for (const Hypothesis& h : row) longest = std::max(longest, h.tokens.size());
    }
    SearchResult r{DynTensor<std::int32_t, 3>(DynExtents<3>(batch, count, static_cast<Index>(longest)), config_.pad_token),
                   DynTensor<std::int32_t, 2>(batch, count), DynTensor<double, 2>(batch, count)};
    for (Index b = 0; b < batch; ++b) {
      for (Index k = 0; k < count; ++k) {
        const Hypothesis& h = all[static_cast<std::size_t>(b)][static_cast<std::size_t>(k)];
        std::copy(h.tokens.begin(), h.tokens.end(), &r.ids(b, k, 0));
        r.lengths(b, k) = static_cast<std::int32_t>(h.tokens.size());
        r.scores(b, k) = h.score;
      }
    }
    return r;
  }

 private:
  const SearchConfig& config_;
  LogitsProcessor processor_;
  Index prompt_length_;
  std::vector<double> scores_;
  std::vector<std::uint8_t> allowed_;
};

}  // namespace detail

/// Always the token with the largest (edited) logit. A row ends with an end token, which stays, or after max_new_tokens; it
/// then costs nothing more. R is 1; scores are not computed and 0.
///
///     auto scorer = scorer_of(model, prompts.extent(0));
///     const SearchResult best = greedy_search(scorer, prompts, {.max_new_tokens = 50, .end_tokens = {2}});
template <class Scorer>
SearchResult greedy_search(Scorer& scorer, const DynTensor<std::int32_t, 2>& prompts, const SearchConfig& config) {
  detail::SearchTools tools("greedy_search", config, prompts);
  std::vector<std::vector<detail::Hypothesis>> rows;
  for (Index b = 0; b < prompts.extent(0); ++b) rows.push_back({tools.prompt(prompts, b)});
  auto logits = scorer.start(prompts);
  std::vector<std::uint8_t> ended(rows.size(), 0);
  std::vector<detail::Hypothesis*> live;
  for (Index n = 1;; ++n) {
    live.clear();
    for (std::size_t b = 0; b < rows.size(); ++b) {
      if (ended[b] != 0) continue;
      detail::Hypothesis& h = rows[b][0];
      std::vector<double>& scores = tools.scores_of(logits, h.row);
      tools.process(scores, static_cast<Index>(b), h.tokens);
      const auto best = std::max_element(scores.begin(), scores.end());
      if (*best == -std::numeric_limits<double>::infinity()) {
        fail<UsageError>("greedy_search: no token is allowed in row " + std::to_string(b));
      }
      h.tokens.push_back(static_cast<std::int32_t>(best - scores.begin()));
      ended[b] = tools.is_end(h.tokens.back());
      if (ended[b] == 0) live.push_back(&h);
    }
    if (live.empty() || n == config.max_new_tokens) return tools.result(rows);
    logits = tools.advance(scorer, live);
  }
}

}  // namespace ordo
