#pragma once
/// \file
/// Log probabilities of tokens: of one position, of the most probable tokens, of whole texts.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "ordo/core/tensor.hpp"

namespace ordo {

namespace detail {
template <class T>
double log_sum_exp(const T* x, Index n) noexcept {
  double most = -std::numeric_limits<double>::infinity(), sum = 0;
  for (Index i = 0; i < n; ++i) most = std::max(most, static_cast<double>(x[i]));
  if (!std::isfinite(most)) return most;
  for (Index i = 0; i < n; ++i) sum += std::exp(static_cast<double>(x[i]) - most);
  return most + std::log(sum);
}
}  // namespace detail

/// log softmax(logits)[token], in double.
template <class T>
double log_probability(std::span<const T> logits, std::int32_t token) {
  if (token < 0 || static_cast<std::size_t>(token) >= logits.size()) {
    fail<UsageError>("log_probability: token " + std::to_string(token) + " of a vocabulary of " + std::to_string(logits.size()));
  }
  return static_cast<double>(logits[static_cast<std::size_t>(token)]) -
         detail::log_sum_exp(logits.data(), static_cast<Index>(logits.size()));
}

struct TokenLogProbability {
  std::int32_t token = 0;
  double log_probability = 0;
};

/// The k most probable tokens, best first, of equal ones the lower first; all if there are fewer.
template <class T>
std::vector<TokenLogProbability> top_log_probabilities(std::span<const T> logits, Index k) {
  if (k < 0) fail<UsageError>("top_log_probabilities: k is " + std::to_string(k));
  std::vector<TokenLogProbability> all(logits.size());
  const double normalizer = detail::log_sum_exp(logits.data(), static_cast<Index>(logits.size()));
  for (std::size_t i = 0; i < all.size(); ++i) {
    all[i] = {static_cast<std::int32_t>(i), static_cast<double>(logits[i]) - normalizer};
  }
  const auto end = all.begin() + std::min<std::ptrdiff_t>(k, static_cast<std::ptrdiff_t>(all.size()));
  std::partial_sort(all.begin(), end, all.end(), [](const TokenLogProbability& a, const TokenLogProbability& b) {
    return a.log_probability > b.log_probability || (a.log_probability == b.log_probability && a.token < b.token);
  });
  all.erase(end, all.end());
  return all;
}

/// log p(tokens[b, i + 1] | tokens[b, ..i]) for texts [B, L]: [B, L - 1]. The model reads `chunk` tokens at a time, which
/// bounds the memory that logits take.
///
///     const auto scores = log_probabilities(model, tokens);
template <class Model>
DynTensor<double, 2> log_probabilities(const Model& model, const DynTensor<std::int32_t, 2>& tokens, Index chunk = 256) {
  const Index batch = tokens.extent(0), length = tokens.extent(1);
  if (length < 1 || chunk < 1) {
    fail<UsageError>("log_probabilities: texts of " + std::to_string(length) + " tokens in chunks of " + std::to_string(chunk) +
                     ", expected at least 1 of both");
  }
  DynTensor<double, 2> scores(DynExtents<2>(batch, length - 1), uninitialized);
  auto state = model.initial_state(batch);
  for (Index begin = 0; begin + 1 < length; begin += chunk) {
    const Index n = std::min(chunk, length - 1 - begin);
    DynTensor<std::int32_t, 2> part(DynExtents<2>(batch, n), uninitialized);
    for (Index b = 0; b < batch; ++b) std::copy_n(tokens.data() + b * length + begin, n, part.data() + b * n);
    const auto logits = model(part, state);
    using T = typename std::remove_cvref_t<decltype(logits)>::value_type;
    const Index vocab = logits.extent(2);
    for (Index b = 0; b < batch; ++b) {
      for (Index i = 0; i < n; ++i) {
        const std::span<const T> row(logits.data() + (b * n + i) * vocab, static_cast<std::size_t>(vocab));
        scores(b, begin + i) = log_probability(row, tokens(b, begin + i + 1));
      }
    }
  }
  return scores;
}

}  // namespace ordo
