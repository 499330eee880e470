#pragma once
/// \file
/// Adagrad and Adadelta.

#include <array>
#include <cmath>

#include "ordo/train/optimizer.hpp"

namespace ordo {

/// The update of Adagrad on plain arrays.
struct AdagradRule {
  struct Config {
    double learning_rate = 0.01;
    double learning_rate_decay = 0;
    double initial_accumulator = 0;
    double eps = 1e-10;
    double weight_decay = 0;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("learning_rate", c.learning_rate);
      f("learning_rate_decay", c.learning_rate_decay);
      f("initial_accumulator", c.initial_accumulator);
      f("eps", c.eps);
      f("weight_decay", c.weight_decay);
    }
  };
  static constexpr const char* name = "adagrad";
  static constexpr std::array memories{"s"};
  static constexpr std::size_t memory_count(const Config&) noexcept { return 1; }
  static double initial_value(const Config& c, std::size_t) noexcept { return c.initial_accumulator; }

  static void check(const Config& c) {
    const auto require = [](const char* key, double value) {
      detail::require_setting(value >= 0 && std::isfinite(value), name, key, value, "at least 0");
    };
    require("learning_rate", c.learning_rate);
    require("learning_rate_decay", c.learning_rate_decay);
    require("initial_accumulator", c.initial_accumulator);
    require("eps", c.eps);
    require("weight_decay", c.weight_decay);
  }

  template <class T, class Arch = simd::DefaultArch>
  static void update(const Config& c, const UpdateStep& step, T* p, const T* g, const std::array<T*, 1>& memory,
                     Index n) {
    using V = simd::Vec<T, Arch>;
    const V rate(static_cast<T>(step.learning_rate / (1 + static_cast<double>(step.t - 1) * c.learning_rate_decay)));
    const V decay(static_cast<T>(step.weight_decay)), eps(static_cast<T>(c.eps));
    detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
      const V weight = load(p + i), grad = simd::fma(decay, weight, load(g + i));
      const V s = simd::fma(grad, grad, load(memory[0] + i));
      store(memory[0] + i, s);
      store(p + i, simd::fnma(rate, grad / (simd::sqrt(s) + eps), weight));
    });
  }
};

/// Adagrad (Duchi, Hazan and Singer 2011), t = 1, 2, ...:
///
///     g = g + wd p;   s = s + g^2;   p = p - lr / (1 + (t - 1) learning_rate_decay) g / (sqrt(s) + eps)
///
/// s starts at initial_accumulator. Agrees with torch.optim.Adagrad. Remembers one number a weight.
using Adagrad = Optimizer<AdagradRule>;

/// The update of Adadelta on plain arrays.
struct AdadeltaRule {
  struct Config {
    double learning_rate = 1;
    double rho = 0.9;
    double eps = 1e-6;
    double weight_decay = 0;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("learning_rate", c.learning_rate);
      f("rho", c.rho);
      f("eps", c.eps);
      f("weight_decay", c.weight_decay);
    }
  };
  static constexpr const char* name = "adadelta";
  static constexpr std::array memories{"v", "u"};
  static constexpr std::size_t memory_count(const Config&) noexcept { return 2; }

  static void check(const Config& c) {
    const auto require = [](bool fine, const char* key, double value, const char* range) {
      detail::require_setting(fine, name, key, value, range);
    };
    require(c.learning_rate >= 0 && std::isfinite(c.learning_rate), "learning_rate", c.learning_rate, "at least 0");
    require(c.rho >= 0 && c.rho <= 1, "rho", c.rho, "in [0, 1]");
    require(c.eps >= 0 && std::isfinite(c.eps), "eps", c.eps, "at least 0");
    require(c.weight_decay >= 0 && std::isfinite(c.weight_decay), "weight_decay", c.weight_decay, "at least 0");
  }

  template <class T, class Arch = simd::DefaultArch>
  static void update(const Config& c, const UpdateStep& step, T* p, const T* g, const std::array<T*, 2>& memory,
                     Index n) {
    using V = simd::Vec<T, Arch>;
    const V rate(static_cast<T>(step.learning_rate)), decay(static_cast<T>(step.weight_decay));
    const V rho(static_cast<T>(c.rho)), fresh(static_cast<T>(1 - c.rho)), eps(static_cast<T>(c.eps));
    detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
      const V weight = load(p + i), grad = simd::fma(decay, weight, load(g + i)), u = load(memory[1] + i);
      const V v = simd::fma(rho, load(memory[0] + i), fresh * (grad * grad));
      const V d = simd::sqrt(u + eps) / simd::sqrt(v + eps) * grad;
      store(memory[0] + i, v);
      store(memory[1] + i, simd::fma(rho, u, fresh * (d * d)));
      store(p + i, simd::fnma(rate, d, weight));
    });
  }
};

/// Adadelta (Zeiler 2012, arXiv 1212.5701):
///
///     g = g + wd p;   v = rho v + (1 - rho) g^2;   d = sqrt(u + eps) / sqrt(v + eps) g
///     u = rho u + (1 - rho) d^2;   p = p - lr d
///
/// Agrees with torch.optim.Adadelta. Remembers two numbers a weight.
using Adadelta = Optimizer<AdadeltaRule>;

}  // namespace ordo
