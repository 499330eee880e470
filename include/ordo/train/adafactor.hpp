#pragma once
/// \file
/// Adafactor: second moments of a matrix as a row and a column.

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "ordo/train/clip.hpp"
#include "ordo/train/optimizer.hpp"

namespace ordo {

/// The update of Adafactor on one parameter.
struct AdafactorRule {
  struct Config {
    std::optional<double> learning_rate{};  ///< given exactly if relative_step is false
    double eps = 1e-30;                     ///< added to squared gradients
    double min_scale = 1e-3;                ///< the least scale of a parameter
    double clip_threshold = 1;
    double decay_rate = -0.8;
    std::optional<double> beta1{};  ///< absent: no first moment
    double weight_decay = 0;
    bool scale_parameter = true;
    bool relative_step = true;
    bool warmup_init = false;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("learning_rate", c.learning_rate);
      f("eps", c.eps);
      f("min_scale", c.min_scale);
      f("clip_threshold", c.clip_threshold);
      f("decay_rate", c.decay_rate);
      f("beta1", c.beta1);
      f("weight_decay", c.weight_decay);
      f("scale_parameter", c.scale_parameter);
      f("relative_step", c.relative_step);
      f("warmup_init", c.warmup_init);
    }
  };
  static constexpr const char* name = "adafactor";
  static constexpr std::array memories{"row", "column", "v", "m"};
  static constexpr std::size_t memory_count(const Config&) noexcept { return 4; }
  static constexpr bool whole_tensors = true;
  static Shape memory_shape(const Config& c, std::size_t k, const Shape& parameter) {
    if (k == 3) return c.beta1 ? parameter : Shape{0};
    const std::size_t rank = parameter.rank();
    if (k == 2) return rank < 2 ? parameter : Shape{0};
    if (rank < 2) return Shape{0};
    Shape s;
    for (std::size_t i = 0; i + 2 < rank; ++i) s.push_back(parameter[i]);
    s.push_back(parameter[k == 0 ? rank - 2 : rank - 1]);
    return s;
  }

  static void check(const Config& c) {
    const auto require = [](bool fine, const char* key, double value, const char* range) {
      detail::require_setting(fine, name, key, value, range);
    };
    if (c.relative_step && c.learning_rate)
      fail<ConfigError>("adafactor: learning_rate is given, and relative_step, which makes its own");
    if (!c.relative_step && !c.learning_rate) fail<ConfigError>("adafactor: without relative_step a learning_rate is needed");
    if (c.warmup_init && !c.relative_step) fail<ConfigError>("adafactor: warmup_init needs relative_step");
    const double rate = c.learning_rate.value_or(0);
    require(rate >= 0 && std::isfinite(rate), "learning_rate", rate, "at least 0");
    require(c.eps >= 0 && std::isfinite(c.eps), "eps", c.eps, "at least 0");
    require(c.min_scale >= 0 && std::isfinite(c.min_scale), "min_scale", c.min_scale, "at least 0");
    require(c.clip_threshold > 0, "clip_threshold", c.clip_threshold, "positive");
    require(c.decay_rate <= 0, "decay_rate", c.decay_rate, "at most 0");
    if (c.beta1) require(*c.beta1 >= 0 && *c.beta1 < 1, "beta1", *c.beta1, "in [0, 1)");
    require(c.weight_decay >= 0 && std::isfinite(c.weight_decay), "weight_decay", c.weight_decay, "at least 0");
  }

  template <class T, class Arch = simd::DefaultArch>
  static void update(const Config& c, const UpdateStep& step, T* p, const T* g, const std::array<T*, 4>& memory,
                     Index n) {
    using V = simd::Vec<T, Arch>;
    const double t = static_cast<double>(step.t), size = static_cast<double>(n);
    const auto rms = [&](const T* x) { return std::sqrt(detail::norm_part(x, n, 2) / size); };
    double rate = step.learning_rate;
    if (c.relative_step) rate *= std::min(c.warmup_init ? 1e-6 * t : 1e-2, 1 / std::sqrt(t));
    if (c.scale_parameter) rate *= std::max(c.min_scale, rms(p));
    const double beta2 = 1 - std::pow(t, c.decay_rate);

    const Scratch<T> u(n);
    if (step.shape->rank() >= 2) {
      const std::size_t rank = step.shape->rank();
      const Index rows = (*step.shape)[rank - 2], cols = (*step.shape)[rank - 1];
      for (Index i = 0; i * rows * cols < n; ++i) {
        const Index at = i * rows * cols;
        update_matrix<T, Arch>(c, beta2, g + at, u.data() + at, memory[0] + i * rows, memory[1] + i * cols, rows, cols);
      }
    } else {
      const V b2(static_cast<T>(beta2)), fresh(static_cast<T>(1 - beta2)), eps(static_cast<T>(c.eps));
      detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
        const V grad = load(g + i), v = simd::fma(b2, load(memory[2] + i), fresh * simd::fma(grad, grad, eps));
        store(memory[2] + i, v);
        store(u.data() + i, grad / simd::sqrt(v));
      });
    }

    const V scale(static_cast<T>(rate / std::max(1.0, rms(u.data()) / c.clip_threshold)));
    const V keep(static_cast<T>(1 - step.weight_decay * rate));
    const double beta1 = c.beta1.value_or(0);
    const V b1(static_cast<T>(beta1)), new1(static_cast<T>(1 - beta1));
    detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
      V move = load(u.data() + i) * scale;
      if (c.beta1) {
        move = simd::fma(b1, load(memory[3] + i), new1 * move);
        store(memory[3] + i, move);
      }
      store(p + i, simd::fms(load(p + i), keep, move));
    });
  }

 private:
  /// One matrix: its means of squares by rows and by columns, and u = g / sqrt(R / mean(R)) / sqrt(C).
  template <class T, class Arch>
  static void update_matrix(const Config& c, double beta2, const T* g, T* u, T* row, T* column, Index rows, Index cols) {
    using V = simd::Vec<T, Arch>;
    const Scratch<T> sums(cols);
    std::fill_n(sums.data(), cols, T{0});
    double mean = 0;
    for (Index r = 0; r < rows; ++r) {
      const T* in = g + r * cols;
      const V eps(static_cast<T>(c.eps));
      detail::update_elements<T, Arch>(cols, [&](Index i, auto load, auto store) {
        const V grad = load(in + i);
        store(sums.data() + i, load(sums.data() + i) + simd::fma(grad, grad, eps));
      });
      const double q = detail::norm_part(in, cols, 2) / static_cast<double>(cols) + c.eps;
      row[r] = static_cast<T>(beta2 * static_cast<double>(row[r]) + (1 - beta2) * q);
      mean += static_cast<double>(row[r]);
    }
    mean /= static_cast<double>(rows);
    const V b2(static_cast<T>(beta2)), fresh(static_cast<T>((1 - beta2) / static_cast<double>(rows)));
    detail::update_elements<T, Arch>(cols, [&](Index i, auto load, auto store) {
      const V mean_square = simd::fma(b2, load(column + i), fresh * load(sums.data() + i));
      store(column + i, mean_square);
      store(sums.data() + i, V(T{1}) / simd::sqrt(mean_square));
    });
    for (Index r = 0; r < rows; ++r) {
      const V factor(static_cast<T>(std::sqrt(mean / static_cast<double>(row[r]))));
      detail::update_elements<T, Arch>(cols, [&](Index i, auto load, auto store) {
        store(u + r * cols + i, load(g + r * cols + i) * factor * load(sums.data() + i));
      });
    }
  }
};

/// Adafactor (Shazeer and Stern 2018, arXiv 1804.04235), t = 1, 2, ..., rms(x) over a whole tensor:
///
///     rate = r max(min_scale, rms(p)) (scale_parameter; else r),   r = lr, with relative_step min(0.01, 1 / sqrt(t))
///     beta2 = 1 - t^decay_rate;   q = g^2 + eps
///     R = beta2 R + (1 - beta2) mean of q along rows;   C likewise along columns;   u = g / sqrt(R / mean(R)) / sqrt(C)
///     u = u / max(1, rms(u) / clip_threshold) rate;   beta1: m = beta1 m + (1 - beta1) u, u = m
///     p = p - wd rate p - u
///
/// Vectors keep all of their second moments. More than two axes are matrices over the last two. warmup_init: r = min(1e-6
/// t, 1 / sqrt(t)). With relative_step the learning rate of step() is a factor (1 if none is given). Agrees with
/// transformers' Adafactor. Remembers rows + columns numbers a matrix, and one a weight with beta1.
using Adafactor = Optimizer<AdafactorRule>;

}  // namespace ordo
