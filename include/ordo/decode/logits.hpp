#pragma once
/// \file
/// Editing the logits of the next token: penalties, constraints, temperature, and the cutting of unlikely tokens.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"
#include "ordo/core/memory.hpp"

namespace ordo {

/// Added to the logit of the last token of `tokens` where the text ends with the others.
struct SequenceBias {
  std::vector<std::int32_t> tokens{};
  double bias = 0;
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("tokens", c.tokens);
    f("bias", c.bias);
  }
};

/// How the next token is chosen. The settings act in the order that LogitsProcessor says.
struct SamplerConfig {
  double temperature = 1;  ///< logits are divided by it; 0: always the most probable token
  Index top_k = 0;         ///< only the k largest logits, and what ties with the last of them; 0: all
  double top_p = 1;  ///< of these only the fewest most probable tokens that together reach it, at least one; 1: all
  std::uint64_t seed = 0;  ///< of the draws of a Sampler
  double min_p = 0;        ///< no token less probable than min_p times the most probable one (Nguyen et al. 2024)
  double typical_p = 1;  ///< the tokens whose information is nearest to the entropy, until they reach it (Meister et al. 2023)
  double epsilon_cutoff = 0;  ///< no token less probable than this; 0: off (Hewitt et al. 2022)
  double eta_cutoff = 0;      ///< the same with min(eta, sqrt(eta) exp(-entropy)); 0: off
  Index min_tokens_to_keep = 1;    ///< what the settings from top_k to eta_cutoff leave at least
  double repetition_penalty = 1;   ///< logits of tokens of the whole text: divided by it, or multiplied if negative
  double presence_penalty = 0;     ///< subtracted for each token that was generated
  double frequency_penalty = 0;    ///< subtracted as often as a token was generated
  Index no_repeat_ngram_size = 0;  ///< no N-gram of the text comes a second time; 0: off
  Index min_new_tokens = 0;        ///< no end token before
  std::vector<SequenceBias> sequence_bias{};
  std::vector<std::vector<std::int32_t>> bad_sequences{};  ///< must not be generated
  std::vector<std::int32_t> suppress_tokens{};             ///< never
  std::vector<std::int32_t> begin_suppress_tokens{};       ///< not as the first generated token
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("temperature", c.temperature);
    f("top_k", c.top_k);
    f("top_p", c.top_p);
    f("seed", c.seed);
    f("min_p", c.min_p);
    f("typical_p", c.typical_p);
    f("epsilon_cutoff", c.epsilon_cutoff);
    f("eta_cutoff", c.eta_cutoff);
    f("min_tokens_to_keep", c.min_tokens_to_keep);
    f("repetition_penalty", c.repetition_penalty);
    f("presence_penalty", c.presence_penalty);
    f("frequency_penalty", c.frequency_penalty);
    f("no_repeat_ngram_size", c.no_repeat_ngram_size);
    f("min_new_tokens", c.min_new_tokens);
    f("sequence_bias", c.sequence_bias);
    f("bad_sequences", c.bad_sequences);
    f("suppress_tokens", c.suppress_tokens);
    f("begin_suppress_tokens", c.begin_suppress_tokens);
  }
};

/// What a choice may depend on besides the logits. The spans are borrowed.
struct DecodeContext {
  std::span<const std::int32_t> history{};  ///< prompt and generated tokens
  Index prompt_length = 0;                  ///< how many of them are the prompt
  std::span<const std::int32_t> end_tokens{};
  std::span<const std::uint8_t> allowed{};  ///< of each token of the vocabulary: 0 forbids it; empty: all are allowed
};

/// Edits the logits x of one position. In this order, each on the result of the one before, where a forbidden token has x
/// = -infinity and p = softmax(x) is renewed in each step:
///
///     sequence_bias; repetition_penalty; presence_penalty, frequency_penalty; no_repeat_ngram_size; bad_sequences;
///     min_new_tokens; context.allowed; suppress_tokens; begin_suppress_tokens;
///     temperature; top_k; top_p; min_p; typical_p; epsilon_cutoff; eta_cutoff
///
/// A bad sequence that is one end token is ignored. Where context.allowed permits only tokens that are forbidden already,
/// they get the logit 0. Agrees with the processors of transformers' generate(), presence and frequency penalty with the
/// definitions of OpenAI's interface. Costs O(V), sorting what top_p and typical_p look at, and O(history) for the
/// settings that look at it. Nothing is allocated after the first call for a vocabulary.
///
/// Logits with a NaN or +infinity are a UsageError, and so are tokens outside the vocabulary.
class LogitsProcessor {
 public:
  /// A token that is still allowed.
  struct Candidate {
    double logit;   ///< before the temperature
    double scaled;  ///< (logit - largest) / temperature
    double weight;  ///< exp(scaled)
    std::int32_t token;
  };

  LogitsProcessor() : LogitsProcessor(SamplerConfig{}) {}
  explicit LogitsProcessor(const SamplerConfig& config) : config_(config) {
    const auto require = [](bool fine, const char* key, double value, const char* range) {
      if (!fine)
        fail<ConfigError>(std::string("sampler: ") + key + " must be " + range + ", given " + std::to_string(value));
    };
    const auto in_unit = [&](const char* key, double value) { require(value >= 0 && value <= 1, key, value, "from 0 to 1"); };
    const auto at_least = [&](const char* key, Index value, Index least) {
      require(value >= least, key, static_cast<double>(value), least == 0 ? "at least 0" : "at least 1");
    };
    require(config.temperature >= 0 && std::isfinite(config.temperature), "temperature", config.temperature, "at least 0");
    at_least("top_k", config.top_k, 0);
    in_unit("top_p", config.top_p);
    in_unit("min_p", config.min_p);
    in_unit("typical_p", config.typical_p);
    in_unit("epsilon_cutoff", config.epsilon_cutoff);
    in_unit("eta_cutoff", config.eta_cutoff);
    at_least("min_tokens_to_keep", config.min_tokens_to_keep, 1);
    require(config.repetition_penalty > 0 && std::isfinite(config.repetition_penalty), "repetition_penalty",
            config.repetition_penalty, "positive");
    require(std::isfinite(config.presence_penalty), "presence_penalty", config.presence_penalty, "finite");
    require(std::isfinite(config.frequency_penalty), "frequency_penalty", config.frequency_penalty, "finite");
    at_least("no_repeat_ngram_size", config.no_repeat_ngram_size, 0);
    at_least("min_new_tokens", config.min_new_tokens, 0);
    for (const SequenceBias& s : config.sequence_bias) {
      if (s.tokens.empty()) fail<ConfigError>("sampler: sequence_bias: an empty sequence");
      require(s.bias < std::numeric_limits<double>::infinity(), "a bias of sequence_bias", s.bias, "less than infinity");
    }
    for (const auto& s : config.bad_sequences) {
      if (s.empty()) fail<ConfigError>("sampler: bad_sequences: an empty sequence");
    }
  }

  const SamplerConfig& config() const noexcept { return config_; }
  /// Whether the settings look at what was written before: without it they would do nothing.
  bool uses_history() const noexcept {
    const SamplerConfig& c = config_;
    return !c.sequence_bias.empty() || c.repetition_penalty != 1 || c.presence_penalty != 0 ||
           c.frequency_penalty != 0 || c.no_repeat_ngram_size > 0 || c.min_new_tokens > 0 ||
           !c.bad_sequences.empty() || !c.begin_suppress_tokens.empty();
  }

  /// What is left of the tokens, with the sum of their weights, until the next call. In the order of the tokens, unless
  /// top_p or typical_p have sorted them. At temperature 0 the one token with the largest logit, the first of equal ones.
  template <class T>
  std::pair<std::span<const Candidate>, double> candidates(std::span<const T> logits, const DecodeContext& context = {}) {
    load(logits);
    edit(context);
    std::erase_if(list_, [](const Candidate& c) { return c.logit == forbidden; });
    if (list_.empty()) return {{}, 0};
    cut();
    return {list_, total_};
  }

  /// Writes the edited logits in their place; `renormalize`: as log probabilities.
  template <class T>
  void operator()(std::span<T> logits, const DecodeContext& context = {}, bool renormalize = false) {
    const auto [left, total] = candidates(std::span<const T>(logits), context);
    std::fill(logits.begin(), logits.end(), -std::numeric_limits<T>::infinity());
    const double log_total = std::log(total);
    for (const Candidate& c : left) {
      const double x = renormalize ? c.scaled - log_total
                       : config_.temperature == 0 ? c.logit
                                                  : c.logit / config_.temperature;
      logits[static_cast<std::size_t>(c.token)] = static_cast<T>(x);
    }
  }

 private:
  static constexpr double forbidden = -std::numeric_limits<double>::infinity();
  static bool before(const Candidate& a, const Candidate& b) noexcept {
    return a.scaled > b.scaled || (a.scaled == b.scaled && a.token < b.token);
  }

  template <class T>
  void load(std::span<const T> logits) {
    list_.clear();
    list_.reserve(logits.size());
    for (const T x : logits) {
      const auto token = static_cast<std::int32_t>(list_.size());
      if (std::isnan(x) || x == std::numeric_limits<T>::infinity()) {
        fail<UsageError>("sampler: the logit of token " + std::to_string(token) + " is " + std::to_string(x));
      }
      list_.push_back({static_cast<double>(x), 0, 0, token});
    }
  }

  // ---- while every token of the vocabulary is in its place ----

  double& logit(std::int32_t token) {
    if (token < 0 || static_cast<std::size_t>(token) >= list_.size()) {
      fail<UsageError>("sampler: token " + std::to_string(token) + " of a vocabulary of " + std::to_string(list_.size()));
    }
    return list_[static_cast<std::size_t>(token)].logit;
  }
  void forbid(std::int32_t token) { logit(token) = forbidden; }
  void forbid(std::span<const std::int32_t> tokens) {
    for (const std::int32_t t : tokens) forbid(t);
  }
  /// Whether the last token of `sequence` would complete it.
  static bool would_complete(std::span<const std::int32_t> history, std::span<const std::int32_t> sequence) noexcept {
    const std::size_t n = sequence.size() - 1;
    return n <= history.size() && std::equal(sequence.begin(), sequence.end() - 1, history.end() - static_cast<std::ptrdiff_t>(n));
  }

  void edit(const DecodeContext& context) {
    const SamplerConfig& c = config_;
    const auto history = context.history;
    const auto length = static_cast<Index>(history.size());
    if (context.prompt_length < 0 || context.prompt_length > length) {
      fail<UsageError>("sampler: a prompt of " + std::to_string(context.prompt_length) + " tokens in a history of " +
                       std::to_string(length));
    }
    for (const SequenceBias& s : c.sequence_bias) {
      if (would_complete(history, s.tokens)) logit(s.tokens.back()) += s.bias;
    }
    if (c.repetition_penalty != 1) {
      for_each_counted(history, [&](double& x, std::int32_t) { x = x < 0 ? x * c.repetition_penalty : x / c.repetition_penalty; });
    }
    if (c.presence_penalty != 0 || c.frequency_penalty != 0) {
      for_each_counted(history.subspan(static_cast<std::size_t>(context.prompt_length)), [&](double& x, std::int32_t count) {
        x -= c.frequency_penalty * count + c.presence_penalty;
      });
    }
    if (c.no_repeat_ngram_size > 0) forbid_repeated_ngrams(history);
    for (const auto& s : c.bad_sequences) {
      const bool end = s.size() == 1 && std::find(context.end_tokens.begin(), context.end_tokens.end(), s[0]) != context.end_tokens.end();
      if (!end && would_complete(history, s)) forbid(s.back());
    }
    if (length - context.prompt_length < c.min_new_tokens) {
      if (context.end_tokens.empty()) fail<UsageError>("sampler: min_new_tokens needs the end tokens");
      forbid(context.end_tokens);
    }
    if (!context.allowed.empty()) constrain(context.allowed);
    forbid(c.suppress_tokens);
    if (length == context.prompt_length) forbid(c.begin_suppress_tokens);
  }

  /// f(logit, count) once for each token that occurs.
  template <class F>
  void for_each_counted(std::span<const std::int32_t> tokens, F&& f) {
    counts_.resize(std::max(counts_.size(), list_.size()), 0);
    for (const std::int32_t t : tokens) {
      logit(t);  // checks
      ++counts_[static_cast<std::size_t>(t)];
    }
    for (const std::int32_t t : tokens) {
      if (const std::int32_t count = std::exchange(counts_[static_cast<std::size_t>(t)], 0); count > 0) f(logit(t), count);
    }
  }
  void forbid_repeated_ngrams(std::span<const std::int32_t> history) {
    const auto n = static_cast<std::size_t>(config_.no_repeat_ngram_size);
    if (history.size() < n) return;
    const auto last = history.last(n - 1);
    for (std::size_t i = 0; i + n <= history.size(); ++i) {
      if (std::equal(last.begin(), last.end(), history.begin() + static_cast<std::ptrdiff_t>(i))) forbid(history[i + n - 1]);
    }
  }
  void constrain(std::span<const std::uint8_t> allowed) {
    if (allowed.size() != list_.size()) {
      fail<UsageError>("sampler: a constraint over " + std::to_string(allowed.size()) + " tokens, the vocabulary has " +
                       std::to_string(list_.size()));
    }
    bool any = false;
    for (std::size_t i = 0; i < list_.size(); ++i) {
      if (allowed[i] == 0) list_[i].logit = forbidden;
      any = any || list_[i].logit != forbidden;
    }
    for (std::size_t i = 0; i < list_.size() && !any; ++i) {
      if (allowed[i] != 0) list_[i].logit = 0;
    }
  }

  // ---- once only what is allowed is left ----

  void cut() {
    const SamplerConfig& c = config_;
    const auto largest = std::min_element(list_.begin(), list_.end(), [](const Candidate& a, const Candidate& b) { return a.logit > b.logit; });
    if (c.temperature == 0) {
      list_[0] = {largest->logit, 0, 1, largest->token};
      list_.erase(list_.begin() + 1, list_.end());
      total_ = 1;
      return;
    }
    const double most = largest->logit;
    for (Candidate& x : list_) x.scaled = (x.logit - most) / c.temperature;
    if (c.top_k > 0) keep_largest(std::max(c.top_k, c.min_tokens_to_keep));
    for (Candidate& x : list_) x.weight = std::exp(x.scaled);
    sum();
    if (c.top_p < 1) keep_top_p();
    if (c.min_p > 0) erase_below(c.min_p);
    if (c.typical_p < 1) keep_typical();
    if (c.epsilon_cutoff > 0) erase_below(c.epsilon_cutoff * total_);
    if (c.eta_cutoff > 0) {
      erase_below(std::min(c.eta_cutoff, std::sqrt(c.eta_cutoff) * std::exp(-entropy())) * total_);
    }
  }
  std::size_t keep() const noexcept {
    return std::min(static_cast<std::size_t>(config_.min_tokens_to_keep), list_.size());
  }
  void sum() noexcept {
    total_ = 0;
    for (const Candidate& c : list_) total_ += c.weight;
  }
  double entropy() const noexcept {
    const double log_total = std::log(total_);
    double h = 0;
    for (const Candidate& c : list_) {
      if (c.weight > 0) h += c.weight / total_ * (log_total - c.scaled);
    }
    return h;
  }

  void keep_largest(Index count) {
    const auto k = static_cast<std::size_t>(count);
    if (k >= list_.size()) return;
    const auto last = list_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(list_.begin(), last, list_.end(), before);
    const double threshold = last->scaled;
    const auto end = std::partition(last + 1, list_.end(), [&](const Candidate& c) { return c.scaled == threshold; });
    list_.erase(end, list_.end());
    // The order that nth_element leaves belongs to a standard library; a draw must not depend on it.
    std::sort(list_.begin(), list_.end(), [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  }

  /// Takes the most probable ones out of a heap until they suffice: the nucleus is mostly small.
  void keep_top_p() {
    const auto after = [](const Candidate& a, const Candidate& b) { return before(b, a); };
    std::make_heap(list_.begin(), list_.end(), after);
    auto heap_end = list_.end();
    double reached = 0;
    for (std::size_t taken = 0; heap_end != list_.begin() && (taken < keep() || reached < config_.top_p * total_); ++taken) {
      std::pop_heap(list_.begin(), heap_end, after);
      reached += (--heap_end)->weight;
    }
    list_.erase(list_.begin(), heap_end);
    total_ = reached;
  }

  /// By the distance of a token's information from the entropy, nearest first.
  void keep_typical() {
    const double log_total = std::log(total_), h = entropy();
    const auto distance = [&](const Candidate& c) { return std::abs(log_total - c.scaled - h); };
    std::sort(list_.begin(), list_.end(), [&](const Candidate& a, const Candidate& b) {
      const double da = distance(a), db = distance(b);
      return da < db || (da == db && a.token < b.token);
    });
    double reached = 0;
    std::size_t taken = 0;
    while (taken < list_.size() && (taken < keep() || reached < config_.typical_p * total_)) reached += list_[taken++].weight;
    list_.resize(taken);
    total_ = reached;
  }

  /// Erases weights below `least` (the largest weight is 1), but for the min_tokens_to_keep largest.
  void erase_below(double least) {
    double spared = 0;  // what is at least as likely as the keep-th stays
    if (keep() == 1) {
      spared = std::max_element(list_.begin(), list_.end(), [](const Candidate& a, const Candidate& b) { return a.scaled < b.scaled; })->scaled;
    } else {
      sorted_.clear();
      for (const Candidate& c : list_) sorted_.push_back(c.scaled);
      const auto at = sorted_.begin() + static_cast<std::ptrdiff_t>(keep() - 1);
      std::nth_element(sorted_.begin(), at, sorted_.end(), std::greater<>());
      spared = *at;
    }
    std::erase_if(list_, [&](const Candidate& c) { return c.weight < least && c.scaled < spared; });
    sum();
  }

  SamplerConfig config_;
  std::vector<Candidate, PoolAllocator<Candidate>> list_;
  std::vector<std::int32_t, PoolAllocator<std::int32_t>> counts_;  // all zero between calls
  std::vector<double, PoolAllocator<double>> sorted_;
  double total_ = 0;
};

}  // namespace ordo
