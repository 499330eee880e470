#pragma once
/// \file
/// RMSprop.

#include <array>
#include <cmath>

#include "ordo/train/optimizer.hpp"

namespace ordo {

/// The update of RmsProp on plain arrays.
struct RmsPropRule {
  struct Config {
    double learning_rate = 0.01;
    double alpha = 0.99;
    double eps = 1e-8;
    double weight_decay = 0;
    double momentum = 0;
    bool centered = false;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("learning_rate", c.learning_rate);
      f("alpha", c.alpha);
      f("eps", c.eps);
      f("weight_decay", c.weight_decay);
      f("momentum", c.momentum);
      f("centered", c.centered);
    }
  };
  static constexpr const char* name = "rmsprop";
  static constexpr std::array memories{"v", "a", "b"};
  static constexpr std::size_t memory_count(const Config&) noexcept { return 3; }
  static Shape memory_shape(const Config& c, std::size_t k, const Shape& parameter) {
    const bool used = k == 0 || (k == 1 && c.centered) || (k == 2 && c.momentum > 0);
    return used ? parameter : Shape{0};
  }

  static void check(const Config& c) {
    const auto require = [](bool fine, const char* key, double value, const char* range) {
      detail::require_setting(fine, name, key, value, range);
    };
    require(c.learning_rate >= 0 && std::isfinite(c.learning_rate), "learning_rate", c.learning_rate, "at least 0");
    require(c.alpha >= 0 && c.alpha < 1, "alpha", c.alpha, "in [0, 1)");
    require(c.eps >= 0 && std::isfinite(c.eps), "eps", c.eps, "at least 0");
    require(c.weight_decay >= 0 && std::isfinite(c.weight_decay), "weight_decay", c.weight_decay, "at least 0");
    require(c.momentum >= 0 && std::isfinite(c.momentum), "momentum", c.momentum, "at least 0");
  }

  template <class T, class Arch = simd::DefaultArch>
  static void update(const Config& c, const UpdateStep& step, T* p, const T* g, const std::array<T*, 3>& memory,
                     Index n) {
    using V = simd::Vec<T, Arch>;
    const V rate(static_cast<T>(step.learning_rate)), decay(static_cast<T>(step.weight_decay));
    const V alpha(static_cast<T>(c.alpha)), fresh(static_cast<T>(1 - c.alpha)), eps(static_cast<T>(c.eps));
    const V momentum(static_cast<T>(c.momentum)), zero(T{0});
    detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
      const V weight = load(p + i), grad = simd::fma(decay, weight, load(g + i));
      const V v = simd::fma(alpha, load(memory[0] + i), fresh * (grad * grad));
      store(memory[0] + i, v);
      V square = v;
      if (c.centered) {
        const V a = simd::fma(alpha, load(memory[1] + i), fresh * grad);
        store(memory[1] + i, a);
        square = simd::max(simd::fnma(a, a, v), zero);  // a variance, but for rounding
      }
      V direction = grad / (simd::sqrt(square) + eps);
      if (c.momentum > 0) {
        direction = simd::fma(momentum, load(memory[2] + i), direction);
        store(memory[2] + i, direction);
      }
      store(p + i, simd::fnma(rate, direction, weight));
    });
  }
};

/// RMSprop (Tieleman and Hinton 2012; Graves 2013, arXiv 1308.0850, with `centered`):
///
///     g = g + wd p;   v = alpha v + (1 - alpha) g^2;   centered: a = alpha a + (1 - alpha) g
///     d = g / (sqrt(v - a^2 if centered else v) + eps);   momentum mu > 0: b = mu b + d, d = b;   p = p - lr d
///
/// No bias correction. Agrees with torch.optim.RMSprop. Remembers 1 to 3 numbers a weight.
using RmsProp = Optimizer<RmsPropRule>;

}  // namespace ordo
