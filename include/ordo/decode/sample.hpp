#pragma once
/// \file
/// Choosing the next token from its logits: greedy, temperature, top-k, nucleus.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "ordo/core/memory.hpp"
#include "ordo/core/random.hpp"
#include "ordo/core/tensor.hpp"

namespace ordo {

struct SamplerConfig {
  double temperature = 1;  ///< logits are divided by it; 0: always the most probable token
  Index top_k = 0;         ///< only the k largest logits, and what ties with the last of them; 0: all
  double top_p = 1;  ///< of these only the fewest most probable tokens that together reach it, at least one; 1: all
  std::uint64_t seed = 0;
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("temperature", c.temperature);
    f("top_k", c.top_k);
    f("top_p", c.top_p);
    f("seed", c.seed);
  }
};

/// Draws tokens: logits / temperature, then top_k, then top_p (of what top_k left; Holtzman et al. 2020, arXiv
/// 1904.09751), then one token in proportion to exp(logit). O(V), with top_p O(V + n log V) for a nucleus of n tokens.
/// Nothing is allocated after the first call.
///
/// A logit of -infinity forbids its token. Of equal logits the lower token comes first. Logits with a NaN or +infinity,
/// or none that is allowed, are a UsageError: there is nothing to choose.
class Sampler {
 public:
  Sampler() : Sampler(SamplerConfig{}) {}
  explicit Sampler(const SamplerConfig& config) : config_(config), random_(config.seed) {
    if (!(config.temperature >= 0) || std::isinf(config.temperature)) {
      fail<ConfigError>("sampler: temperature must be at least 0, given " + std::to_string(config.temperature));
    }
    if (config.top_k < 0) fail<ConfigError>("sampler: top_k must be at least 0, given " + std::to_string(config.top_k));
    if (!(config.top_p >= 0 && config.top_p <= 1)) {
      fail<ConfigError>("sampler: top_p must be from 0 to 1, given " + std::to_string(config.top_p));
    }
  }

  /// The token for the logits of one position: rank 1, or several axes of which only the last is not 1.
  template <TensorLike X>
  std::int32_t operator()(const X& logits) {
    const auto v = view(logits);
    const Index vocab = v.shape().back();
    if (v.size() != vocab)
      fail<ShapeError>("sampler: logits of shape " + to_string(v.shape()) + ", expected those of one position");
    return draw(v.data(), vocab);
  }

  const SamplerConfig& config() const noexcept { return config_; }
  /// The position in the stream of random numbers, to be saved and set.
  const Random& random() const noexcept { return random_; }
  void seek(const Random& random) noexcept { random_ = random; }

 private:
  struct Candidate {
    double weight;  // the logit, later its exponential
    std::int32_t token;
  };
  static bool before(const Candidate& a, const Candidate& b) noexcept {
    return a.weight > b.weight || (a.weight == b.weight && a.token < b.token);
  }

  template <class T>
  std::int32_t draw(const T* logits, Index vocab) {
    const Index best = largest(logits, vocab);
    if (config_.temperature == 0 || config_.top_p == 0) return static_cast<std::int32_t>(best);
    const double most = static_cast<double>(logits[best]);
    candidates_.clear();
    candidates_.reserve(static_cast<std::size_t>(vocab));
    for (Index i = 0; i < vocab; ++i) {
      if (logits[i] > -std::numeric_limits<T>::infinity()) {
        candidates_.push_back({static_cast<double>(logits[i]), static_cast<std::int32_t>(i)});
      }
    }
    keep_top_k();
    double total = 0;
    for (Candidate& c : candidates_) total += c.weight = std::exp((c.weight - most) / config_.temperature);
    if (config_.top_p < 1) total = keep_top_p(total);

    const double u = random_.uniform() * total;
    double sum = 0;
    const Candidate* chosen = nullptr;
    for (const Candidate& c : candidates_) {
      if (c.weight == 0) continue;
      chosen = &c;  // of the last one rounding may leave u beyond the sum
      if (u < (sum += c.weight)) break;
    }
    return chosen->token;
  }

  template <class T>
  static Index largest(const T* logits, Index vocab) {
    Index best = -1;
    for (Index i = 0; i < vocab; ++i) {
      if (std::isnan(logits[i]) || logits[i] == std::numeric_limits<T>::infinity()) {
        fail<UsageError>("sampler: the logit of token " + std::to_string(i) + " is " + std::to_string(logits[i]));
      }
      if (logits[i] > (best < 0 ? -std::numeric_limits<T>::infinity() : logits[best])) best = i;
    }
    if (best < 0) fail<UsageError>("sampler: no token is allowed, of " + std::to_string(vocab));
    return best;
  }

  void keep_top_k() {
    const auto k = static_cast<std::size_t>(config_.top_k);
    if (k == 0 || k >= candidates_.size()) return;
    const auto last = candidates_.begin() + static_cast<std::ptrdiff_t>(k - 1);
    std::nth_element(candidates_.begin(), last, candidates_.end(), before);
    const double threshold = last->weight;
    const auto end =
        std::partition(last + 1, candidates_.end(), [&](const Candidate& c) { return c.weight == threshold; });
    candidates_.erase(end, candidates_.end());
    // The order that nth_element leaves belongs to a standard library; the draw must not depend on it.
    std::sort(candidates_.begin(), candidates_.end(),
              [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  }

  /// Takes the most probable ones out of a heap until they suffice: the nucleus is mostly small. The sum of what stays.
  double keep_top_p(double total) {
    const auto after = [](const Candidate& a, const Candidate& b) { return before(b, a); };
    std::make_heap(candidates_.begin(), candidates_.end(), after);
    auto heap_end = candidates_.end();
    double sum = 0;
    while (heap_end != candidates_.begin()) {
      std::pop_heap(candidates_.begin(), heap_end, after);
      sum += (--heap_end)->weight;
      if (sum >= config_.top_p * total) break;
    }
    candidates_.erase(candidates_.begin(), heap_end);
    return sum;
  }

  SamplerConfig config_;
  Random random_;
  std::vector<Candidate, PoolAllocator<Candidate>> candidates_;
};

}  // namespace ordo
