#pragma once
/// \file
/// Adam, with the decay of weights in the gradient or apart from it.

#include <array>
#include <cmath>

#include "ordo/train/optimizer.hpp"

namespace ordo {

/// The update of Adam (decoupled: of AdamW) on plain arrays; see Adam and AdamW.
template <bool Decoupled>
struct AdamFamilyRule {
  struct Config {
    double learning_rate = 1e-3;
    double beta1 = 0.9, beta2 = 0.999;
    double eps = 1e-8;
    double weight_decay = Decoupled ? 0.01 : 0;
    bool amsgrad = false;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("learning_rate", c.learning_rate);
      f("beta1", c.beta1);
      f("beta2", c.beta2);
      f("eps", c.eps);
      f("weight_decay", c.weight_decay);
      f("amsgrad", c.amsgrad);
    }
  };
  static constexpr const char* name = Decoupled ? "adamw" : "adam";
  static constexpr std::array memories{"m", "v", "s"};
  static constexpr std::size_t memory_count(const Config& c) noexcept { return c.amsgrad ? 3 : 2; }

  static void check(const Config& c) {
    const auto require = [](bool fine, const char* key, double value, const char* range) {
      detail::require_setting(fine, name, key, value, range);
    };
    require(c.learning_rate >= 0 && std::isfinite(c.learning_rate), "learning_rate", c.learning_rate, "at least 0");
    require(c.beta1 >= 0 && c.beta1 < 1, "beta1", c.beta1, "in [0, 1)");
    require(c.beta2 >= 0 && c.beta2 < 1, "beta2", c.beta2, "in [0, 1)");
    require(c.eps >= 0 && std::isfinite(c.eps), "eps", c.eps, "at least 0");
    require(c.weight_decay >= 0 && std::isfinite(c.weight_decay), "weight_decay", c.weight_decay, "at least 0");
  }

  template <class T, class Arch = simd::DefaultArch>
  static void update(const Config& c, const UpdateStep& step, T* p, const T* g, const std::array<T*, 3>& memory,
                     Index n) {
    using V = simd::Vec<T, Arch>;
    const double t = static_cast<double>(step.t);
    const V b1(static_cast<T>(c.beta1)), b2(static_cast<T>(c.beta2));
    const V new1(static_cast<T>(1 - c.beta1)), new2(static_cast<T>(1 - c.beta2)), eps(static_cast<T>(c.eps));
    const V decay(static_cast<T>(Decoupled ? 1 - step.learning_rate * step.weight_decay : step.weight_decay));
    const V rate(static_cast<T>(step.learning_rate / (1 - std::pow(c.beta1, t))));
    const V root(static_cast<T>(1 / std::sqrt(1 - std::pow(c.beta2, t))));
    detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
      V weight = load(p + i), grad = load(g + i);
      if constexpr (Decoupled) {
        weight = weight * decay;
      } else {
        grad = simd::fma(decay, weight, grad);
      }
      const V m = simd::fma(b1, load(memory[0] + i), new1 * grad);
      const V v = simd::fma(b2, load(memory[1] + i), new2 * (grad * grad));
      store(memory[0] + i, m);
      store(memory[1] + i, v);
      V x = v;
      if (c.amsgrad) {
        x = simd::max(load(memory[2] + i), v);
        store(memory[2] + i, x);
      }
      store(p + i, simd::fnma(rate, m / simd::fma(simd::sqrt(x), root, eps), weight));
    });
  }
};

using AdamRule = AdamFamilyRule<false>;
using AdamWRule = AdamFamilyRule<true>;

/// Adam (Kingma and Ba 2015, arXiv 1412.6980), t = 1, 2, ...:
///
///     g = g + wd p;   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
///     p = p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
///
/// With amsgrad v in the last line is the largest so far, s = max(s, v). Agrees with torch.optim.Adam. Remembers 2 (3)
/// numbers a weight.
using Adam = Optimizer<AdamRule>;

}  // namespace ordo
