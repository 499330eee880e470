#pragma once
/// \file
/// Choosing the next token from its logits.

#include <cstdint>
#include <span>
#include <string>

#include "ordo/core/random.hpp"
#include "ordo/core/tensor.hpp"
#include "ordo/decode/logits.hpp"

namespace ordo {

/// Draws tokens: the logits as LogitsProcessor edits them, then one token in proportion to exp(logit). O(V), with top_p
/// O(V + n log V) for a nucleus of n tokens (Holtzman et al. 2020, arXiv 1904.09751). Nothing is allocated after the
/// first call.
///
/// A logit of -infinity forbids its token. Of equal logits the lower token comes first. Logits with a NaN or +infinity,
/// or none that is allowed, are a UsageError: there is nothing to choose.
class Sampler {
 public:
  Sampler() : Sampler(SamplerConfig{}) {}
  explicit Sampler(const SamplerConfig& config) : processor_(config), random_(config.seed) {}

  /// The token for the logits of one position: rank 1, or several axes of which only the last is not 1.
  template <TensorLike X>
  std::int32_t operator()(const X& logits, const DecodeContext& context = {}) {
    const auto v = view(logits);
    const Index vocab = v.shape().back();
    if (v.size() != vocab)
      fail<ShapeError>("sampler: logits of shape " + to_string(v.shape()) + ", expected those of one position");
    return draw(std::span<const value_type_of<X>>(v.data(), static_cast<std::size_t>(vocab)), context);
  }

  const SamplerConfig& config() const noexcept { return processor_.config(); }
  bool uses_history() const noexcept { return processor_.uses_history(); }
  /// The position in the stream of random numbers, to be saved and set.
  const Random& random() const noexcept { return random_; }
  void seek(const Random& random) noexcept { random_ = random; }

 private:
  template <class T>
  std::int32_t draw(std::span<const T> logits, const DecodeContext& context) {
    const auto [candidates, total] = processor_.candidates(logits, context);
    if (candidates.empty()) fail<UsageError>("sampler: no token is allowed, of " + std::to_string(logits.size()));
    if (config().temperature == 0) return candidates[0].token;
    const double u = random_.uniform() * total;
    double sum = 0;
    std::int32_t chosen = candidates[0].token;
    for (const auto& c : candidates) {
      if (c.weight == 0) continue;
      chosen = c.token;  // of the last one rounding may leave u beyond the sum
      if (u < (sum += c.weight)) break;
    }
    return chosen;
  }

  LogitsProcessor processor_;
  Random random_;
};

}  // namespace ordo
