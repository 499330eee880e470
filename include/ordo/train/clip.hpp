#pragma once
/// \file
/// Clipping of gradients.

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "ordo/autograd/tape.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/core/visit.hpp"

namespace ordo {

namespace detail {

/// What an element adds to a norm: |g|^norm_type, and |g| itself for the largest.
template <class T, class Term, class Join>
double fold(const T* g, Index n, Term term, Join join) noexcept {
  // A fixed number of partial results: the compiler can use vectors, and every build adds in the same order.
  constexpr Index lanes = 16;
  std::array<double, lanes> part{};
  Index i = 0;
  for (; i + lanes <= n; i += lanes) {
    for (Index k = 0; k < lanes; ++k) {
      auto& p = part[static_cast<std::size_t>(k)];
      p = join(p, term(static_cast<double>(g[i + k])));
    }
  }
  for (Index k = 0; i < n; ++i, ++k) {
    auto& p = part[static_cast<std::size_t>(k)];
    p = join(p, term(static_cast<double>(g[i])));
  }
  for (std::size_t half = lanes / 2; half > 0; half /= 2) {
    for (std::size_t k = 0; k < half; ++k) part[k] = join(part[k], part[k + half]);
  }
  return part[0];
}

template <class T>
double norm_part(const T* g, Index n, double norm_type) noexcept {
  const auto plus = [](double a, double b) { return a + b; };
  if (norm_type == 2)
    return fold(
        g, n, [](double x) { return x * x; }, plus);
  if (norm_type == 1)
    return fold(
        g, n, [](double x) { return std::abs(x); }, plus);
  if (std::isinf(norm_type)) {
    // A NaN must win: std::max would lose it.
    return fold(
        g, n, [](double x) { return std::abs(x); }, [](double a, double b) { return a < b || std::isnan(b) ? b : a; });
  }
  return fold(
      g, n, [norm_type](double x) { return std::pow(std::abs(x), norm_type); }, plus);
}

}  // namespace detail

/// The norm of the gradients of all parameters together, (sum |g|^norm_type)^(1/norm_type); infinite norm_type: the
/// largest |g|. Adds in double, in visiting order, in pieces of fixed size.
template <Visitable Model>
double grad_norm(const Model& model, const Gradients& gradients, double norm_type = 2) {
  if (!(norm_type > 0)) fail<ConfigError>({"grad_norm: norm_type must be positive, given ", norm_type});
  constexpr Index piece = 32768;
  double total = 0;
  std::vector<double, PoolAllocator<double>> parts;
  for_each_leaf(model, [&](const Path&, const auto& p) {
    if constexpr (is_parameter<std::remove_cvref_t<decltype(p)>>) {
      const auto g = gradients.of(p);
      if (!g.present()) return;
      parts.assign(static_cast<std::size_t>((g.size() + piece - 1) / piece), 0.0);
      parallel_for(g.size(), piece, [&](Index begin, Index end) {
        parts[static_cast<std::size_t>(begin / piece)] = detail::norm_part(g.data() + begin, end - begin, norm_type);
      });
      for (const double part : parts) {
        if (std::isinf(norm_type)) {
          total = total < part || std::isnan(part) ? part : total;
        } else {
          total += part;
        }
      }
    }
  });
  if (norm_type == 1 || std::isinf(norm_type)) return total;
  return norm_type == 2 ? std::sqrt(total) : std::pow(total, 1 / norm_type);
}

/// Scales all gradients by min(1, max_norm / (N + 1e-6)), N their norm, and returns N as it was. Gradients below the
/// limit stay exactly as they are, and so do all when N is not finite: the caller decides about such a step. Agrees
/// with torch's clip_grad_norm_.
template <Visitable Model>
double clip_grad_norm(const Model& model, Gradients& gradients, double max_norm, double norm_type = 2) {
  if (!(max_norm >= 0))
    fail<ConfigError>({"clip_grad_norm: max_norm must not be negative, given ", max_norm});
  const double norm = grad_norm(model, gradients, norm_type);
  const double factor = max_norm / (norm + 1e-6);
  if (!std::isfinite(norm) || factor >= 1) return norm;
  for_each_leaf(model, [&](const Path&, const auto& p) {
    if constexpr (is_parameter<std::remove_cvref_t<decltype(p)>>) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      AnyTensor<T> g = gradients.mutate(p);
      T* values = g.data();
      parallel_for(g.size(), 32768, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) values[i] *= static_cast<T>(factor);
      });
    }
  });
  return norm;
}

/// Cuts every gradient to [-max_value, max_value]. Agrees with torch's clip_grad_value_; a NaN stays one.
template <Visitable Model>
void clip_grad_value(const Model& model, Gradients& gradients, double max_value) {
  if (!(max_value >= 0))
    fail<ConfigError>("clip_grad_value: max_value must not be negative, given " + std::to_string(max_value));
  for_each_leaf(model, [&](const Path&, const auto& p) {
    if constexpr (is_parameter<std::remove_cvref_t<decltype(p)>>) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      AnyTensor<T> g = gradients.mutate(p);
      T* values = g.data();
      const T most = static_cast<T>(max_value);
      parallel_for(g.size(), 32768, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) values[i] = values[i] > most ? most : values[i] < -most ? -most : values[i];
      });
    }
  });
}

}  // namespace ordo
