#pragma once
/// \file
/// Muon: momentum, orthogonalised.

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "ordo/kernels/gemm.hpp"
#include "ordo/train/clip.hpp"
#include "ordo/train/optimizer.hpp"

namespace ordo {

/// How Muon scales the orthogonalised step of a matrix of r rows and c columns.
enum class MuonAdjust {
  original,         ///< sqrt(max(1, r / c))
  match_rms_adamw,  ///< 0.2 sqrt(max(r, c)): the size of AdamW's steps, so that learning rates can be shared
};
inline bool from_string(std::string_view name, MuonAdjust& value) {
  if (name != "original" && name != "match_rms_adamw") return false;
  value = name == "original" ? MuonAdjust::original : MuonAdjust::match_rms_adamw;
  return true;
}
inline std::string to_string(MuonAdjust value) {
  return value == MuonAdjust::original ? "original" : "match_rms_adamw";
}

/// The matrices inside a network, which Muon is meant for: rank 2, no embedding and no output head.
inline bool is_hidden_matrix(const ParameterInfo& p) {
  const auto within = [&](std::string_view part) { return p.path.find(part) != std::string_view::npos; };
  return p.shape.rank() == 2 && decays(p) && !within("embed") && !within("lm_head");
}

/// The update of Muon on one matrix.
struct MuonRule {
  struct Config {
    double learning_rate = 1e-3;
    double weight_decay = 0.1;
    double momentum = 0.95;
    bool nesterov = true;
    std::vector<double> ns_coefficients{3.4445, -4.775, 2.0315};
    double eps = 1e-7;
    Index ns_steps = 5;
    MuonAdjust adjust = MuonAdjust::original;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("learning_rate", c.learning_rate);
      f("weight_decay", c.weight_decay);
      f("momentum", c.momentum);
      f("nesterov", c.nesterov);
      f("ns_coefficients", c.ns_coefficients);
      f("eps", c.eps);
      f("ns_steps", c.ns_steps);
      f("adjust", c.adjust);
    }
  };
  static constexpr const char* name = "muon";
  static constexpr std::array memories{"m"};
  static constexpr std::size_t memory_count(const Config&) noexcept { return 1; }
  static constexpr bool whole_tensors = true;

  static void check(const Config& c) {
    const auto require = [](bool fine, const char* key, double value, const char* range) {
      detail::require_setting(fine, name, key, value, range);
    };
    require(c.learning_rate >= 0 && std::isfinite(c.learning_rate), "learning_rate", c.learning_rate, "at least 0");
    require(c.weight_decay >= 0 && std::isfinite(c.weight_decay), "weight_decay", c.weight_decay, "at least 0");
    require(c.momentum >= 0 && c.momentum < 1, "momentum", c.momentum, "in [0, 1)");
    require(c.eps > 0 && std::isfinite(c.eps), "eps", c.eps, "positive");
    require(c.ns_steps >= 0 && c.ns_steps < 100, "ns_steps", static_cast<double>(c.ns_steps), "from 0 to 99");
    require(c.ns_coefficients.size() == 3, "the number of ns_coefficients",
            static_cast<double>(c.ns_coefficients.size()), "3");
  }
  static void check_parameter(const ParameterInfo& p) {
    if (p.shape.rank() != 2) {
      fail<ShapeError>("muon: " + std::string(p.path) + " has shape " + to_string(p.shape) +
                       ", expected a matrix; leave it to another optimiser by a group with learning_rate_factor 0");
    }
  }

  template <class T, class Arch = simd::DefaultArch>
  static void update(const Config& c, const UpdateStep& step, T* p, const T* g, const std::array<T*, 1>& memory,
                     Index n) {
    using V = simd::Vec<T, Arch>;
    const Index rows = (*step.shape)[0], cols = (*step.shape)[1];
    const V mu(static_cast<T>(c.momentum)), fresh(static_cast<T>(1 - c.momentum));
    const Scratch<T> x(n), next(n);
    detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
      const V grad = load(g + i), m = simd::fma(mu, load(memory[0] + i), fresh * grad);
      store(memory[0] + i, m);
      store(x.data() + i, c.nesterov ? simd::fma(mu, m, fresh * grad) : m);
    });
    const T* direction = orthogonalize<T, Arch>(c, x.data(), next.data(), rows, cols);
    const double r = static_cast<double>(rows), k = static_cast<double>(cols);
    const double scale =
        c.adjust == MuonAdjust::original ? std::sqrt(std::max(1.0, r / k)) : 0.2 * std::sqrt(std::max(r, k));
    const V keep(static_cast<T>(1 - step.learning_rate * step.weight_decay));
    const V rate(static_cast<T>(step.learning_rate * scale));
    detail::update_elements<T, Arch>(n, [&](Index i, auto load, auto store) {
      store(p + i, simd::fnma(rate, load(direction + i), load(p + i) * keep));
    });
  }

 private:
  /// Newton-Schulz steps that push all singular values of x towards 1; the result lies in one of the two buffers. They
  /// work on the Gram matrix of the smaller side: A = X X^T, X <- (a + b A + c A A) X, or with X^T X from the right.
  template <class T, class Arch>
  static const T* orthogonalize(const Config& c, T* x, T* next, Index rows, Index cols) {
    const double norm = std::sqrt(detail::norm_part(x, rows * cols, 2));
    const auto scale = static_cast<T>(1 / std::max(norm, c.eps));
    simd::transform<Arch>(x, x, rows * cols, [&](const auto& v) { return v * std::remove_cvref_t<decltype(v)>(scale); });
    const bool wide = rows <= cols;
    const Index side = wide ? rows : cols, other = wide ? cols : rows;
    const T a = static_cast<T>(c.ns_coefficients[0]), b = static_cast<T>(c.ns_coefficients[1]),
            d = static_cast<T>(c.ns_coefficients[2]);
    const Scratch<T> gram(side * side), polynomial(side * side);
    const auto multiply = [](kernels::MatrixRef<T> left, kernels::MatrixRef<T> right, T* out, Index m, Index n, Index k) {
      kernels::GemmArgs<T, Arch> args{};
      args.m = m;
      args.n = n;
      args.k = k;
      args.a = left;
      args.b = right;
      args.c = out;
      args.c_stride = n;
      kernels::gemm(args);
    };
    for (Index i = 0; i < c.ns_steps; ++i) {
      const kernels::MatrixRef<T> whole{x, cols, 1}, transposed{x, 1, cols};
      multiply(wide ? whole : transposed, wide ? transposed : whole, gram.data(), side, side, other);
      const kernels::MatrixRef<T> square{gram.data(), side, 1};
      multiply(square, square, polynomial.data(), side, side, side);
      for (Index row = 0; row < side; ++row) {
        T* out = polynomial.data() + row * side;
        const T* in = gram.data() + row * side;
        for (Index col = 0; col < side; ++col) out[col] = b * in[col] + d * out[col];
        out[row] += a;
      }
      const kernels::MatrixRef<T> factor{polynomial.data(), side, 1};
      if (wide) {
        multiply(factor, whole, next, rows, cols, rows);
      } else {
        multiply(whole, factor, next, rows, cols, cols);
      }
      std::swap(x, next);
    }
    return x;
  }
};

/// Muon (Jordan et al. 2024) for a matrix of r rows and c columns, mu = momentum:
///
///     m = mu m + (1 - mu) g;   u = (1 - mu) g + mu m if nesterov else m;   X = u / max(|u|_F, eps)
///     ns_steps times: A = X X^T, X = a X + (b A + c A A) X;   p = p (1 - lr wd) - lr k X
///
/// k as `adjust` says. Every parameter that it updates has to be a matrix, see is_hidden_matrix(); the others are left to
/// another optimiser, whose group for them is not 0. Agrees with torch.optim.Muon, except that the iteration runs in the
/// type of the weights, not in bfloat16. Remembers one number a weight; a step costs about
/// ns_steps * (4 r c s + 2 s^3) operations, s = min(r, c).
using Muon = Optimizer<MuonRule>;

}  // namespace ordo
