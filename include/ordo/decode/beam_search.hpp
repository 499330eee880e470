#pragma once
/// \file
/// Beam search, and beam search in groups that differ.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ordo/decode/log_probability.hpp"
#include "ordo/decode/search.hpp"

namespace ordo {

/// When a beam search with enough finished sequences stops looking for better ones.
enum class EarlyStopping {
  no,     ///< when the best running one, were it to end now, would not be better
  yes,    ///< at once
  never,  ///< when the best running one cannot become better at any length
};

struct BeamSearchConfig : SearchConfig {
  Index num_beams = 4;             ///< W
  Index num_return_sequences = 1;  ///< R, at most W
  double length_penalty = 1;       ///< a: finished sequences compare by sum of log probabilities / (generated tokens)^a
  EarlyStopping early_stopping = EarlyStopping::no;
  Index num_beam_groups = 1;     ///< of diverse_beam_search
  double diversity_penalty = 0;  ///< of diverse_beam_search
};

namespace detail {

/// A token that could follow a running sequence.
struct BeamCandidate {
  double score;
  std::size_t beam;
  std::int32_t token;
};

class BeamTools : public SearchTools {
 public:
  BeamTools(const char* name, const BeamSearchConfig& config, const DynTensor<std::int32_t, 2>& prompts)
      : SearchTools(name, config, prompts), config_(config) {
    const auto require = [&](bool fine, const char* key, Index value, const char* range) {
      if (!fine) fail<ConfigError>(std::string(name) + ": " + key + " must be " + range + ", given " + std::to_string(value));
    };
    require(config.num_beams >= 1, "num_beams", config.num_beams, "at least 1");
    require(config.num_return_sequences >= 1 && config.num_return_sequences <= config.num_beams, "num_return_sequences",
            config.num_return_sequences, "from 1 to num_beams");
    require(config.num_beam_groups >= 1 && config.num_beams % config.num_beam_groups == 0, "num_beam_groups",
            config.num_beam_groups, "a divisor of num_beams");
    if (!std::isfinite(config.length_penalty)) fail<ConfigError>(std::string(name) + ": length_penalty must be finite");
  }

  double finished_score(double sum, Index length) const { return sum / std::pow(static_cast<double>(length), config_.length_penalty); }
  /// The most that a running sequence of this score counts as, after n generated tokens.
  double attainable(double sum, Index n) const {
    const bool any_length = config_.early_stopping == EarlyStopping::never && config_.length_penalty > 0;
    return finished_score(sum, any_length ? config_.max_new_tokens : n);
  }
  /// The best continuations of the running sequences of a row, best first. `adjust` edits log probabilities before the
  /// processors do.
  template <class Logits, class Adjust>
  std::vector<BeamCandidate>& candidates(const Logits& logits, Index batch_row, std::span<const Hypothesis> running, Index beams,
                                         Adjust&& adjust) {
    list_.clear();
    for (std::size_t i = 0; i < running.size(); ++i) {
      std::vector<double>& scores = scores_of(logits, running[i].row);
      const double normalizer = log_sum_exp(scores.data(), static_cast<Index>(scores.size()));
      for (double& s : scores) s -= normalizer;
      adjust(scores);
      process(scores, batch_row, running[i].tokens);
      for (std::size_t t = 0; t < scores.size(); ++t) {
        if (scores[t] == -std::numeric_limits<double>::infinity()) continue;
        list_.push_back({scores[t] + running[i].score, i, static_cast<std::int32_t>(t)});
      }
    }
    const std::size_t wanted = std::max<std::size_t>(2, 1 + config_.end_tokens.size()) * static_cast<std::size_t>(beams);
    const auto end = list_.begin() + static_cast<std::ptrdiff_t>(std::min(wanted, list_.size()));
    std::partial_sort(list_.begin(), end, list_.end(), [](const BeamCandidate& a, const BeamCandidate& b) {
      if (a.score != b.score) return a.score > b.score;
      return a.beam != b.beam ? a.beam < b.beam : a.token < b.token;
    });
    list_.erase(end, list_.end());
    return list_;
  }
  static Hypothesis extended(std::span<const Hypothesis> running, const BeamCandidate& c) {
    Hypothesis h = running[c.beam];
    h.tokens.push_back(c.token);
    h.score = c.score;
    return h;
  }
  /// Puts a finished sequence among the best `most`, best first.
  static void enter(std::vector<Hypothesis>& finished, Hypothesis h, Index most) {
    const auto place = std::find_if(finished.begin(), finished.end(), [&](const Hypothesis& f) { return f.score < h.score; });
    finished.insert(place, std::move(h));
    if (finished.size() > static_cast<std::size_t>(most)) finished.pop_back();
  }
  std::vector<Hypothesis> best(std::vector<Hypothesis> finished) const {
    const auto count = static_cast<std::size_t>(config_.num_return_sequences);
    if (finished.size() < count) {
      fail<UsageError>("beam search: the constraints leave " + std::to_string(finished.size()) + " sequences, asked for " +
                       std::to_string(count));
    }
    std::stable_sort(finished.begin(), finished.end(), [](const Hypothesis& a, const Hypothesis& b) { return a.score > b.score; });
    finished.resize(count);
    return finished;
  }

 private:
  const BeamSearchConfig& config_;
  std::vector<BeamCandidate> list_;
};

}  // namespace detail

/// Beam search with W beams a row: keeps the W best running sequences by the sum of their log probabilities, and the W best
/// finished ones by that sum / (generated tokens)^length_penalty. The R best finished ones of each row, best first. Rows do
/// not influence each other, and a row that is done costs nothing more. Processors edit log probabilities, not logits.
/// Agrees with transformers 5 (generate with num_beams).
///
///     auto scorer = scorer_of(model, prompts.extent(0));
///     BeamSearchConfig config;
///     config.end_tokens = {2};
///     const SearchResult best = beam_search(scorer, prompts, config);
template <class Scorer>
SearchResult beam_search(Scorer& scorer, const DynTensor<std::int32_t, 2>& prompts, const BeamSearchConfig& config) {
  using detail::Hypothesis;
  detail::BeamTools tools("beam_search", config, prompts);
  struct Row {
    std::vector<Hypothesis> running, finished;
    bool closed = false;
  };
  std::vector<Row> rows;
  for (Index b = 0; b < prompts.extent(0); ++b) rows.push_back({{tools.prompt(prompts, b)}, {}, false});
  const auto beams = static_cast<std::size_t>(config.num_beams);
  auto logits = scorer.start(prompts);
  std::vector<Hypothesis*> live;
  for (Index n = 1; n <= config.max_new_tokens; ++n) {
    live.clear();
    for (std::size_t b = 0; b < rows.size(); ++b) {
      Row& row = rows[b];
      if (row.closed) continue;
      const auto& candidates = tools.candidates(logits, static_cast<Index>(b), row.running, config.num_beams, [](auto&) {});
      std::vector<Hypothesis> next;
      for (std::size_t rank = 0; rank < candidates.size(); ++rank) {
        const auto& c = candidates[rank];
        if (!tools.is_end(c.token) && n < config.max_new_tokens) {
          if (next.size() < beams) next.push_back(tools.extended(row.running, c));
        } else if (rank < beams) {
          Hypothesis h = tools.extended(row.running, c);
          h.score = tools.finished_score(c.score, n);
          tools.enter(row.finished, std::move(h), config.num_beams);
        }
      }
      row.running = std::move(next);
      const bool full = row.finished.size() == beams;
      row.closed = row.running.empty() || (full && (config.early_stopping == EarlyStopping::yes ||
                                                    tools.attainable(row.running[0].score, n) <= row.finished.back().score));
      if (row.closed) continue;
      for (Hypothesis& h : row.running) live.push_back(&h);
    }
    if (live.empty()) break;
    logits = tools.advance(scorer, live);
  }
  std::vector<std::vector<Hypothesis>> all;
  for (Row& row : rows) all.push_back(tools.best(std::move(row.finished)));
  return tools.result(all);
}

/// Diverse beam search (Vijayakumar et al. 2018, arXiv 1610.02424): num_beam_groups groups of W / G beams take their turns;
/// a token's log probability is lowered by diversity_penalty for each beam of an earlier group that chose it in this step.
/// The R best finished sequences of all groups of each row, best first; doubles stay. Sequences that ended are closed with
/// the first of end_tokens. Agrees with transformers 4.52 (group beam search).
template <class Scorer>
SearchResult diverse_beam_search(Scorer& scorer, const DynTensor<std::int32_t, 2>& prompts, const BeamSearchConfig& config) {
  using detail::Hypothesis;
  detail::BeamTools tools("diverse_beam_search", config, prompts);
  if (!(config.diversity_penalty >= 0)) {
    fail<ConfigError>("diverse_beam_search: diversity_penalty must not be negative, given " + std::to_string(config.diversity_penalty));
  }
  struct Group {
    std::vector<Hypothesis> running, finished;
    bool ended = false;
  };
  const auto groups = static_cast<std::size_t>(config.num_beam_groups);
  const Index width = config.num_beams / config.num_beam_groups;
  const auto beams = static_cast<std::size_t>(width);
  std::vector<std::vector<Group>> rows;
  for (Index b = 0; b < prompts.extent(0); ++b) {
    rows.emplace_back(groups, Group{{tools.prompt(prompts, b)}, {}, false});
  }
  auto logits = scorer.start(prompts);
  std::vector<std::int32_t> chosen;  // by the earlier groups of the row, in this step
  std::vector<Hypothesis*> live;
  for (Index n = 1; n <= config.max_new_tokens; ++n) {
    live.clear();
    for (std::size_t b = 0; b < rows.size(); ++b) {
      chosen.clear();
      for (Group& group : rows[b]) {
        if (group.ended) {
          chosen.insert(chosen.end(), beams, config.pad_token);
          continue;
        }
        const auto& candidates =
            tools.candidates(logits, static_cast<Index>(b), group.running, width, [&](std::vector<double>& scores) {
              for (const std::int32_t t : chosen) {
                if (static_cast<std::size_t>(t) < scores.size()) scores[static_cast<std::size_t>(t)] -= config.diversity_penalty;
              }
            });
        std::vector<Hypothesis> next;
        for (std::size_t rank = 0; rank < candidates.size() && next.size() < beams; ++rank) {
          const auto& c = candidates[rank];
          if (!tools.is_end(c.token)) {
            next.push_back(tools.extended(group.running, c));
          } else if (rank < beams) {
            Hypothesis h = tools.extended(group.running, c);
            h.tokens.back() = config.end_tokens[0];
            h.score = tools.finished_score(c.score, n);
            tools.enter(group.finished, std::move(h), width);
          }
        }
        for (const Hypothesis& h : next) chosen.push_back(h.tokens.back());
        const bool full = group.finished.size() == beams;
        group.ended = next.empty() || (full && (config.early_stopping == EarlyStopping::yes ||
                                                group.finished.back().score >= tools.attainable(candidates[0].score, n)));
        group.running = std::move(next);
        if (group.ended) continue;
        for (Hypothesis& h : group.running) live.push_back(&h);
      }
    }
    if (live.empty() || n == config.max_new_tokens) break;
    logits = tools.advance(scorer, live);
  }
  std::vector<std::vector<Hypothesis>> all;
  for (auto& row : rows) {
    std::vector<Hypothesis> finished;
    for (Group& group : row) {
      if (!group.ended) {
        for (Hypothesis& h : group.running) {
          h.score = tools.finished_score(h.score, config.max_new_tokens);
          tools.enter(group.finished, std::move(h), width);
        }
      }
      finished.insert(finished.end(), group.finished.begin(), group.finished.end());
    }
    all.push_back(tools.best(std::move(finished)));
  }
  return tools.result(all);
}

}  // namespace ordo
