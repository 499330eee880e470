#pragma once
/// \file
/// Speculative decoding: which drafted tokens a larger model keeps.

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "ordo/core/tensor.hpp"

namespace ordo {

template <class T>
struct SpeculativeResult {
  Index accepted = 0;                  ///< drafted tokens that are kept, k
  DynTensor<T, 1> next_probabilities;  ///< [V]: what the next token is drawn from
};

/// Token i of a draft, drawn from q_i, is accepted if uniform_i <= p_i / q_i at it; k counts those before the first
/// rejection. The next token comes from max(p_k - q_k, 0), normalised, or from p_D if all D were accepted: together the
/// tokens are distributed as the large model's (Leviathan et al. 2023, arXiv 2211.17192). Agrees with transformers'
/// _speculative_sampling.
///
/// target: [D + 1, V] probabilities p of the large model, draft: [D, V] probabilities q, uniform: [D] on [0, 1).
template <class T>
SpeculativeResult<T> speculative_verify(const DynTensor<T, 2>& target, const DynTensor<T, 2>& draft,
                                        std::span<const std::int32_t> draft_tokens, std::span<const T> uniform) {
  const Index drafted = draft.extent(0), vocab = draft.extent(1);
  if (target.extent(0) != drafted + 1 || target.extent(1) != vocab || static_cast<Index>(draft_tokens.size()) != drafted ||
      static_cast<Index>(uniform.size()) != drafted) {
    fail<ShapeError>("speculative_verify: target " + to_string(target.shape()) + ", draft " + to_string(draft.shape()) + ", " +
                     std::to_string(draft_tokens.size()) + " tokens and " + std::to_string(uniform.size()) +
                     " draws, expected [D + 1, V], [D, V], D and D");
  }
  SpeculativeResult<T> result{0, DynTensor<T, 1>(vocab)};
  for (Index i = 0; i < drafted; ++i) {
    const std::int32_t token = draft_tokens[static_cast<std::size_t>(i)];
    if (token < 0 || token >= vocab) {
      fail<UsageError>("speculative_verify: token " + std::to_string(token) + " of a vocabulary of " + std::to_string(vocab));
    }
    // As a ratio, since q may be 0 only where the token was not drawn from it: then p / q accepts.
    if (!(uniform[static_cast<std::size_t>(i)] <= target(i, token) / draft(i, token))) break;
    ++result.accepted;
  }
  const T* p = target.data() + result.accepted * vocab;
  T* next = result.next_probabilities.data();
  if (result.accepted == drafted) {
    std::copy_n(p, vocab, next);
    return result;
  }
  const T* q = draft.data() + result.accepted * vocab;
  T total = 0;
  for (Index v = 0; v < vocab; ++v) total += next[v] = std::max(p[v] - q[v], T{0});
  if (!(total > 0)) {  // p = q but for rounding
    std::copy_n(p, vocab, next);
    return result;
  }
  for (Index v = 0; v < vocab; ++v) next[v] /= total;
  return result;
}

}  // namespace ordo
