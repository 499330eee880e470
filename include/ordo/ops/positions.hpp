#pragma once
/// \file
/// Positions: rotary frequencies and their scalings for long contexts, sinusoids, ALiBi slopes, T5's relative buckets.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ordo/ops/embedding.hpp"
#include "ordo/ops/shape.hpp"

namespace ordo {

enum class RopeScalingType { no, linear, dynamic, yarn, llama3, longrope };
namespace detail {
inline constexpr std::array<std::string_view, 6> rope_scaling_names{"none", "linear", "dynamic", "yarn", "llama3", "longrope"};
inline constexpr std::array<std::string_view, 3> sinusoid_names{"interleaved", "halves", "tensor2tensor"};
template <class E, std::size_t N>
bool named(const std::array<std::string_view, N>& names, std::string_view name, E& value) {
  const auto at = std::find(names.begin(), names.end(), name);
  if (at == names.end()) return false;
  value = static_cast<E>(at - names.begin());
  return true;
}
}  // namespace detail
inline bool from_string(std::string_view name, RopeScalingType& value) { return detail::named(detail::rope_scaling_names, name, value); }
inline std::string to_string(RopeScalingType value) { return std::string(detail::rope_scaling_names[static_cast<std::size_t>(value)]); }

/// How the frequencies of a model trained on `original_max_length` positions are changed for longer inputs. Each type reads its own
/// fields; the names are those of published configurations, but `max_length` and `original_max_length` (max_position_embeddings).
struct RopeScaling {
  RopeScalingType type = RopeScalingType::no;
  double factor = 0;                               ///< all but longrope, where 0 is max_length / original_max_length
  Index max_length = 0, original_max_length = 0;
  double low_freq_factor = 0, high_freq_factor = 0;           ///< llama3
  double beta_fast = 32, beta_slow = 1;                       ///< yarn
  bool truncate = true;                                       ///< yarn
  std::optional<double> attention_factor;                     ///< yarn, longrope
  double mscale = 0, mscale_all_dim = 0;                      ///< yarn
  std::vector<double> short_factor, long_factor;              ///< longrope, one number a pair
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("type", s.type);
    f("factor", s.factor);
    f("max_length", s.max_length);
    f("original_max_length", s.original_max_length);
    f("low_freq_factor", s.low_freq_factor);
    f("high_freq_factor", s.high_freq_factor);
    f("beta_fast", s.beta_fast);
    f("beta_slow", s.beta_slow);
    f("truncate", s.truncate);
    f("attention_factor", s.attention_factor);
    f("mscale", s.mscale);
    f("mscale_all_dim", s.mscale_all_dim);
    f("short_factor", s.short_factor);
    f("long_factor", s.long_factor);
  }
  /// Whether the frequencies depend on how long the sequence is so far.
  bool depends_on_length() const noexcept { return type == RopeScalingType::dynamic || type == RopeScalingType::longrope; }
};

/// The angle of pair i at position p is p inv_freq[i]; sine and cosine are multiplied by attention_factor.
struct RotaryFrequencies {
  std::vector<double> inv_freq;
  double attention_factor = 1;
};

/// inv_freq[i] = base^(-2i/dim), i < dim/2, changed by `scaling`; `seq_len`: tokens so far, which only dynamic and longrope read.
///
/// linear (Chen et al. 2023, arXiv 2306.15595), dynamic NTK, yarn (Peng et al. 2023, 2309.00071), llama3 (2407.21783), longrope (Ding
/// et al. 2024, 2402.13753); agrees with transformers' modeling_rope_utils. ConfigError for a missing or impossible field.
[[gnu::cold]] inline RotaryFrequencies rotary_frequencies(Index dim, double base = 10000, const RopeScaling& scaling = {}, Index seq_len = 0) {
  using Type = RopeScalingType;
  const RopeScaling& s = scaling;
  if (dim < 0 || dim % 2 != 0) fail<ConfigError>({"rope: rope_dim ", dim, " must be even and not negative"});
  if (!(base > 0)) fail<ConfigError>("rope: rope_base must be positive");
  const auto need = [&](bool there, const char* key) {
    if (!there) fail<ConfigError>("rope_scaling: type " + to_string(s.type) + " needs a positive " + key);
  };
  if (s.type != Type::no && s.type != Type::longrope) need(s.factor > 0, "factor");
  if (s.type == Type::dynamic) need(s.max_length > 0, "max_length");
  if (s.type == Type::yarn || s.type == Type::llama3 || s.type == Type::longrope) need(s.original_max_length > 0, "original_max_length");
  const auto pairs = static_cast<std::size_t>(dim / 2);
  const double d = static_cast<double>(dim), trained = static_cast<double>(s.original_max_length);
  RotaryFrequencies f;
  f.inv_freq.resize(pairs);
  if (s.type == Type::dynamic && dim > 2) {
    const double max = static_cast<double>(s.max_length), n = std::max(static_cast<double>(seq_len), max);
    base *= std::pow(s.factor * n / max - (s.factor - 1), d / (d - 2));
  }
  for (std::size_t i = 0; i < pairs; ++i) f.inv_freq[i] = std::pow(base, -2.0 * static_cast<double>(i) / d);
  switch (s.type) {
    case Type::no:
    case Type::dynamic: break;
    case Type::linear:
      for (double& x : f.inv_freq) x /= s.factor;
      break;
    case Type::yarn: {
      const auto turning = [&](double turns) { return d * std::log(trained / (2 * std::numbers::pi * turns)) / (2 * std::log(base)); };
      double low = turning(s.beta_fast), high = turning(s.beta_slow);
      if (s.truncate) {
        low = std::floor(low);
        high = std::ceil(high);
      }
      low = std::max(low, 0.0);
      high = std::min(high, d - 1);
      const double width = high > low ? high - low : 0.001;
      for (std::size_t i = 0; i < pairs; ++i) {
        const double ramp = std::clamp((static_cast<double>(i) - low) / width, 0.0, 1.0);
        f.inv_freq[i] = f.inv_freq[i] / s.factor * ramp + f.inv_freq[i] * (1 - ramp);
      }
      const auto m = [&](double a) { return s.factor <= 1 ? 1.0 : 0.1 * a * std::log(s.factor) + 1; };
      f.attention_factor = s.attention_factor ? *s.attention_factor : s.mscale != 0 && s.mscale_all_dim != 0 ? m(s.mscale) / m(s.mscale_all_dim) : m(1);
      break;
    }
    case Type::llama3:
      need(s.low_freq_factor > 0 && s.high_freq_factor > 0, "low_freq_factor and high_freq_factor");
      for (double& x : f.inv_freq) {
        const double wave = 2 * std::numbers::pi / x;
        if (wave > trained / s.low_freq_factor) {
          x /= s.factor;
        } else if (wave >= trained / s.high_freq_factor) {
          const double e = (trained / wave - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
          x = (1 - e) * x / s.factor + e * x;
        }
      }
      break;
    case Type::longrope: {
      const std::vector<double>& e = seq_len > s.original_max_length ? s.long_factor : s.short_factor;
      if (s.long_factor.size() != pairs || s.short_factor.size() != pairs) {
        fail<ConfigError>({"rope_scaling: longrope needs short_factor and long_factor of ", pairs, " numbers, given ", s.short_factor.size(), " and ",
                          s.long_factor.size()});
      }
      for (std::size_t i = 0; i < pairs; ++i) f.inv_freq[i] /= e[i];
      if (s.factor <= 0) need(s.max_length > 0, "factor or max_length");
      const double factor = s.factor > 0 ? s.factor : static_cast<double>(s.max_length) / trained;
      f.attention_factor = s.attention_factor ? *s.attention_factor : factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(trained));
      break;
    }
  }
  return f;
}

/// One slope a head, positive: the score of a key at distance d falls by slope d. With n the largest power of two <= H: 2^(-8(h+1)/n) for
/// the first n heads, 2^(-4(2j+1)/n), j = 0.., for the others. Press et al. 2021 (arXiv 2108.12409); agrees with BLOOM.
inline std::vector<double> alibi_slopes(Index num_heads) {
  if (num_heads < 1) fail<ConfigError>({"alibi_slopes: num_heads must be at least 1, given ", num_heads});
  Index n = 1;
  while (2 * n <= num_heads) n *= 2;
  std::vector<double> slopes;
  for (Index h = 0; h < num_heads; ++h) {
    const auto exponent = h < n ? -8.0 * static_cast<double>(h + 1) : -4.0 * static_cast<double>(2 * (h - n) + 1);
    slopes.push_back(std::exp2(exponent / static_cast<double>(n)));
  }
  return slopes;
}

/// Where the sines and cosines of sinusoidal positions stand.
enum class SinusoidLayout { interleaved, halves, tensor2tensor };
inline bool from_string(std::string_view name, SinusoidLayout& value) { return detail::named(detail::sinusoid_names, name, value); }
inline std::string to_string(SinusoidLayout value) { return std::string(detail::sinusoid_names[static_cast<std::size_t>(value)]); }

/// [length, model_dim]: row r for the position p = first + r, columns sin(p w_k) and cos(p w_k), w_k = 10000^(-2k/D).
///
/// `interleaved`: sine, cosine, sine, ... (Vaswani et al. 2017); `halves`: ceil(D/2) sines, then the cosines (Marian); `tensor2tensor`:
/// w_k = 10000^(-k/(h-1)), h = floor(D/2) sines, h cosines, and a column of zeros if D is odd. first may be negative.
template <class T = float>
DynTensor<T, 2> sinusoidal_positions(Index length, Index model_dim, Index first = 0, SinusoidLayout layout = SinusoidLayout::interleaved) {
  if (length < 0 || model_dim < 1) fail<ConfigError>({"sinusoidal_positions: length ", length, ", model_dim ", model_dim});
  const bool t2t = layout == SinusoidLayout::tensor2tensor;
  if (t2t && model_dim < 4) fail<ConfigError>({"sinusoidal_positions: tensor2tensor needs model_dim of at least 4, given ", model_dim});
  DynTensor<T, 2> y(length, model_dim);
  const Index sines = t2t ? model_dim / 2 : (model_dim + 1) / 2;
  const double step = t2t ? 1 / static_cast<double>(sines - 1) : 2 / static_cast<double>(model_dim);
  const bool interleaved = layout == SinusoidLayout::interleaved;
  for (Index k = 0; k < sines; ++k) {
    const double w = std::pow(10000.0, -static_cast<double>(k) * step);
    const Index sine = interleaved ? 2 * k : k, cosine = interleaved ? 2 * k + 1 : sines + k;
    for (Index r = 0; r < length; ++r) {
      const double angle = static_cast<double>(first + r) * w;
      y(r, sine) = static_cast<T>(std::sin(angle));
      if (cosine < model_dim) y(r, cosine) = static_cast<T>(std::cos(angle));
    }
  }
  return y;
}

/// T5's bucket of r = key position - query position: distances are told apart one by one, then logarithmically up to max_distance.
/// `bidirectional`: half of the buckets for keys behind the query; else those all fall into bucket 0.
inline Index relative_bucket(Index r, Index buckets, Index max_distance, bool bidirectional) {
  const Index size = bidirectional ? buckets / 2 : buckets, base = bidirectional && r > 0 ? size : 0;
  const Index n = bidirectional ? std::abs(r) : std::max<Index>(-r, 0), exact = size / 2;
  if (n < exact) return base + n;
  if (exact == 0 || max_distance <= exact) return base + size - 1;
  const double e = static_cast<double>(exact);
  const double place = std::log(static_cast<double>(n) / e) / std::log(static_cast<double>(max_distance) / e) * static_cast<double>(size - exact);
  // 1e-9: places on a power of the base are whole numbers, whatever the logarithms round to.
  return base + std::min(size - 1, exact + static_cast<Index>(std::floor(place + 1e-9)));
}

/// Buckets [Lq, Lk] of query i at position i + first and key j at position j.
inline DynTensor<std::int32_t, 2> relative_buckets(Index queries, Index keys, Index buckets = 32, Index max_distance = 128, bool bidirectional = true,
                                                   Index first = 0) {
  DynTensor<std::int32_t, 2> y(queries, keys);
  for (Index i = 0; i < queries; ++i) {
    for (Index j = 0; j < keys; ++j) y(i, j) = static_cast<std::int32_t>(relative_bucket(j - i - first, buckets, max_distance, bidirectional));
  }
  return y;
}

/// bias[h, i, j] = weight[bucket(j - i - first), h], [H, Lq, Lk], from a table weight [buckets, H]. Raffel et al. 2019 (arXiv 1910.10683);
/// agrees with transformers' T5Attention. attention() takes the table itself, and then nothing of size Lq Lk is made.
template <TensorLike W>
auto t5_relative_bias(const W& weight, Index queries, Index keys, Index max_distance = 128, bool bidirectional = true, Index first = 0) {
  const Index buckets = detail::shape_of(weight)[0];
  return transpose(transpose(embedding(weight, relative_buckets(queries, keys, buckets, max_distance, bidirectional, first)), 1, 2), 0, 1);
}

}  // namespace ordo
