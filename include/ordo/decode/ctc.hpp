#pragma once
/// \file
/// Decoding of connectionist temporal classification: labels from frames.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ordo/core/tensor.hpp"
#include "ordo/decode/log_probability.hpp"

namespace ordo {

namespace detail {
template <class T>
void check_ctc(const char* name, const DynTensor<T, 2>& logits, std::int32_t blank) {
  if (blank < 0 || blank >= logits.extent(1)) {
    fail<UsageError>(std::string(name) + ": the blank " + std::to_string(blank) + " is not among " + std::to_string(logits.extent(1)) +
                     " labels");
  }
}
/// log(exp(a) + exp(b)).
inline double log_add(double a, double b) noexcept {
  const double most = std::max(a, b);
  return most == -std::numeric_limits<double>::infinity() ? most : most + std::log1p(std::exp(-std::abs(a - b)));
}
/// Log probabilities of the paths to a label sequence, by whether their last frame is a blank.
struct CtcEnds {
  double blank = -std::numeric_limits<double>::infinity(), label = blank;
  double all() const noexcept { return log_add(blank, label); }
};
}  // namespace detail

/// The best path (Graves et al. 2006): the likeliest label of each frame, equal neighbours made one, blanks removed.
/// logits: [L, V].
template <class T>
std::vector<std::int32_t> ctc_greedy(const DynTensor<T, 2>& logits, std::int32_t blank) {
  detail::check_ctc("ctc_greedy", logits, blank);
  std::vector<std::int32_t> labels;
  std::int32_t last = blank;
  for (Index t = 0; t < logits.extent(0); ++t) {
    const T* row = logits.data() + t * logits.extent(1);
    const auto label = static_cast<std::int32_t>(std::max_element(row, row + logits.extent(1)) - row);
    if (label != blank && label != last) labels.push_back(label);
    last = label;
  }
  return labels;
}

struct CtcResult {
  std::vector<std::int32_t> labels;
  double score = 0;  ///< log probability, as far as the beam kept it
};

/// Prefix beam search (Hannun et al. 2014, arXiv 1408.2873): adds up the paths of each label sequence, and keeps after every
/// frame the num_beams most probable ones. logits: [L, V]. O(L num_beams V log(num_beams V)). Agrees with awni/speech's
/// ctc_decoder.
template <class T>
CtcResult ctc_beam_search(const DynTensor<T, 2>& logits, std::int32_t blank, Index num_beams) {
  detail::check_ctc("ctc_beam_search", logits, blank);
  if (num_beams < 1) fail<ConfigError>("ctc_beam_search: num_beams must be at least 1, given " + std::to_string(num_beams));
  using detail::CtcEnds;
  using Prefix = std::pair<std::vector<std::int32_t>, CtcEnds>;
  std::vector<Prefix> beam(1);
  beam[0].second.blank = 0;
  const Index vocab = logits.extent(1);
  for (Index t = 0; t < logits.extent(0); ++t) {
    const T* row = logits.data() + t * vocab;
    const double normalizer = detail::log_sum_exp(row, vocab);
    std::map<std::vector<std::int32_t>, CtcEnds> next;
    const auto add = [](double& to, double log_p) { to = detail::log_add(to, log_p); };
    for (const auto& [prefix, ends] : beam) {
      const double all = ends.all();
      for (Index v = 0; v < vocab; ++v) {
        const double log_p = static_cast<double>(row[v]) - normalizer;
        if (v == blank) {
          add(next[prefix].blank, all + log_p);
          continue;
        }
        const bool repeats = !prefix.empty() && prefix.back() == v;
        std::vector<std::int32_t> longer = prefix;
        longer.push_back(static_cast<std::int32_t>(v));
        add(next[longer].label, (repeats ? ends.blank : all) + log_p);
        if (repeats) add(next[prefix].label, ends.label + log_p);
      }
    }
    beam.assign(next.begin(), next.end());
    const auto end = beam.begin() + std::min<std::ptrdiff_t>(num_beams, static_cast<std::ptrdiff_t>(beam.size()));
    std::partial_sort(beam.begin(), end, beam.end(), [](const Prefix& a, const Prefix& b) {
      const double pa = a.second.all(), pb = b.second.all();
      return pa != pb ? pa > pb : a.first < b.first;
    });
    beam.erase(end, beam.end());
  }
  return {beam[0].first, beam[0].second.all()};
}

}  // namespace ordo
