#pragma once
/// \file
/// Lion.

#include <array>
#include <cmath>

#include "ordo/train/optimizer.hpp"

namespace ordo {

/// The update of Lion on plain arrays.
struct LionRule {
  struct Config {
    double learning_rate = 1e-4;
    double beta1 = 0.9, beta2 = 0.99;  ///< beta1 weighs the update, beta2 the memory
    double weight_decay = 0;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("learning_rate", c.learning_rate);
      f("beta1", c.beta1);
      f("beta2", c.beta2);
      f("weight_decay", c.weight_decay);
    }
  };
  static constexpr const char* name = "lion";
  static constexpr std::array memories{"m"};
  static constexpr std::size_t memory_count(const Config&) noexcept { return 1; }

  static void check(const Config& c) {
    const auto require = [](bool fine, const char* key, double value, const char* range) {
      detail::require_setting(fine, name, key, value, range);
    };
    require(c.learning_rate >= 0 && std::isfinite(c.learning_rate), "learning_rate", c.learning_rate, "at least 0");
    require(c.beta1 >= 0 && c.beta1 <= 1, "beta1", c.beta1, "in [0, 1]");
    require(c.beta2 >= 0 && c.beta2 <= 1, "beta2", c.beta2, "in [0, 1]");
    require(c.weight_decay >= 0 && std::isfinite(c.weight_decay), "weight_decay", c.weight_decay, "at least 0");
  }

  template <class T, class Arch = simd::DefaultArch>
  static void update(const Config& c, const UpdateStep& step, T* p, const T* g, const std::array<T*, 1>& memory,
                     Index n) {
    using V = simd::Vec<T, Arch>;
    const V keep(static_cast<T>(1 - step.learning_rate * step.weight_decay)), rate(static_cast<T>(step.learning_rate));
    const V b1(static_cast<T>(c.beta1)), new1(static_cast<T>(1 - c.beta1));
    const V b2(static_cast<T>(c.beta2)), new2(static_cast<T>(1 - c.beta2)), zero(T{0});
    detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
      const V grad = load(g + i), m = load(memory[0] + i), x = simd::fma(b1, m, new1 * grad);
      const V move = simd::select(x > zero, rate, simd::select(x < zero, -rate, zero));
      store(p + i, load(p + i) * keep - move);
      store(memory[0] + i, simd::fma(b2, m, new2 * grad));
    });
  }
};

/// Lion (Chen et al. 2023, arXiv 2302.06675):
///
///     p = p (1 - lr wd) - lr sign(beta1 m + (1 - beta1) g);   m = beta2 m + (1 - beta2) g
///
/// sign(0) = 0. Agrees with lion-pytorch. Remembers one number a weight.
using Lion = Optimizer<LionRule>;

}  // namespace ordo
