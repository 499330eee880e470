#pragma once
/// \file
/// Stochastic gradient descent with momentum.

#include <array>
#include <cmath>

#include "ordo/train/optimizer.hpp"

namespace ordo {

/// The update of Sgd on plain arrays.
struct SgdRule {
  struct Config {
    double learning_rate = 1e-3;
    double momentum = 0;
    double dampening = 0;
    bool nesterov = false;
    double weight_decay = 0;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("learning_rate", c.learning_rate);
      f("momentum", c.momentum);
      f("dampening", c.dampening);
      f("nesterov", c.nesterov);
      f("weight_decay", c.weight_decay);
    }
  };
  static constexpr const char* name = "sgd";
  static constexpr std::array memories{"b"};
  static constexpr std::size_t memory_count(const Config& c) noexcept { return c.momentum > 0 ? 1 : 0; }

  static void check(const Config& c) {
    const auto require = [](bool fine, const char* key, double value, const char* range) {
      detail::require_setting(fine, name, key, value, range);
    };
    require(c.learning_rate >= 0 && std::isfinite(c.learning_rate), "learning_rate", c.learning_rate, "at least 0");
    require(c.momentum >= 0 && std::isfinite(c.momentum), "momentum", c.momentum, "at least 0");
    require(std::isfinite(c.dampening), "dampening", c.dampening, "finite");
    require(c.weight_decay >= 0 && std::isfinite(c.weight_decay), "weight_decay", c.weight_decay, "at least 0");
    if (c.nesterov) {
      require(c.momentum > 0, "momentum", c.momentum, "positive with nesterov");
      require(c.dampening == 0, "dampening", c.dampening, "0 with nesterov");
    }
  }

  template <class T, class Arch = simd::DefaultArch>
  static void update(const Config& c, const UpdateStep& step, T* p, const T* g, const std::array<T*, 1>& memory,
                     Index n) {
    using V = simd::Vec<T, Arch>;
    const bool first = step.t == 1;  // the buffer starts as the gradient itself, undampened
    const V rate(static_cast<T>(step.learning_rate)), decay(static_cast<T>(step.weight_decay));
    const V momentum(static_cast<T>(c.momentum)), fresh(static_cast<T>(first ? 1 : 1 - c.dampening));
    const V old(static_cast<T>(first ? 0 : c.momentum));
    detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
      const V weight = load(p + i);
      V grad = simd::fma(decay, weight, load(g + i));
      if (c.momentum > 0) {
        const V b = simd::fma(old, load(memory[0] + i), fresh * grad);
        store(memory[0] + i, b);
        grad = c.nesterov ? simd::fma(momentum, b, grad) : b;
      }
      store(p + i, simd::fnma(rate, grad, weight));
    });
  }
};

/// Gradient descent with momentum mu and dampening d:
///
///     g = g + wd p;   b = g at t = 1, later b = mu b + (1 - d) g;   p = p - lr (nesterov: g + mu b, else b)
///
/// momentum = 0 keeps no buffer: p = p - lr g. Agrees with torch.optim.SGD. Remembers at most one number a weight.
using Sgd = Optimizer<SgdRule>;

}  // namespace ordo
