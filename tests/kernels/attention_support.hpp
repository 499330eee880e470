#pragma once
// What the tests of the attention engine share: arrays with strides and with NaN in their gaps, and the naive formula
// in double, forward and backward, one pair at a time.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/kernels/attention_tile.hpp"
#include "support/catch.hpp"

namespace attention_test {

using ordo::Index;
using namespace ordo::kernels;

inline constexpr double infinity = std::numeric_limits<double>::infinity();
template <class T>
inline constexpr T not_a_number = std::numeric_limits<T>::quiet_NaN();

struct Shape {
  Index batch, queries, keys, heads, kv_heads, key_dim, value_dim;
};

/// A [B, L, H, dim] array whose rows and heads are further apart than they need be; NaN in between.
template <class T>
class Heads {
 public:
  Heads(Index batch, Index length, Index heads, Index dim, Index gap = 3)
      : batch_(batch), length_(length), heads_(heads), dim_(dim), gap_(gap) {
    head_stride_ = dim + gap;
    row_stride_ = heads * head_stride_ + gap;
    batch_stride_ = (length + gap) * row_stride_;
    data_.assign(static_cast<std::size_t>(batch * batch_stride_), not_a_number<T>);
    each([](T& x) { x = T(0); });
  }
  void randomize(ordo::Random& random, double size = 1.0) {
    each([&](T& x) { x = static_cast<T>(size * (2.0 * random.uniform() - 1.0)); });
  }
  template <class F>
  void each(F&& f) {
    for (Index b = 0; b < batch_; ++b) {
      for (Index i = 0; i < length_; ++i) {
        for (Index h = 0; h < heads_; ++h) {
          for (Index c = 0; c < dim_; ++c) f(at(b, i, h, c));
        }
      }
    }
  }
  T& at(Index b, Index i, Index h, Index c) {
    return data_[static_cast<std::size_t>(b * batch_stride_ + i * row_stride_ + h * head_stride_ + c)];
  }
  T at(Index b, Index i, Index h, Index c) const {
    return data_[static_cast<std::size_t>(b * batch_stride_ + i * row_stride_ + h * head_stride_ + c)];
  }
  HeadsView<T> view() { return {data_.data(), batch_stride_, row_stride_, head_stride_}; }
  HeadsView<const T> view() const { return {data_.data(), batch_stride_, row_stride_, head_stride_}; }

  /// True if nothing but the elements has been written.
  bool gaps_untouched() const {
    std::vector<T> copy = data_;
    for (Index b = 0; b < batch_; ++b) {
      for (Index i = 0; i < length_; ++i) {
        for (Index h = 0; h < heads_; ++h) {
          std::fill_n(
              copy.begin() + static_cast<std::ptrdiff_t>(b * batch_stride_ + i * row_stride_ + h * head_stride_), dim_,
              not_a_number<T>);
        }
      }
    }
    return std::all_of(copy.begin(), copy.end(), [](T x) { return x != x; });
  }
  std::vector<double> values() const {
    std::vector<double> all;
    const_cast<Heads*>(this)->each([&](T& x) { all.push_back(static_cast<double>(x)); });
    return all;
  }

 private:
  Index batch_, length_, heads_, dim_, gap_;
  Index head_stride_, row_stride_, batch_stride_;
  std::vector<T> data_;
};

template <class T>
struct Problem {
  Shape shape;
  Heads<T> q, k, v, d_o;
  std::vector<T> d_lse, sinks;
  T scale;

  explicit Problem(const Shape& s, std::uint64_t seed = 1, double size = 1.0)
      : shape(s),
        q(s.batch, s.queries, s.heads, s.key_dim),
        k(s.batch, s.keys, s.kv_heads, s.key_dim),
        v(s.batch, s.keys, s.kv_heads, s.value_dim),
        d_o(s.batch, s.queries, s.heads, s.value_dim),
        scale(static_cast<T>(1.0 / std::sqrt(static_cast<double>(s.key_dim)))) {
    ordo::Random random(seed);
    q.randomize(random, size);
    k.randomize(random, size);
    v.randomize(random);
    d_o.randomize(random);
    for (Index i = 0; i < s.batch * s.heads * s.queries; ++i) {
      d_lse.push_back(static_cast<T>(2.0 * random.uniform() - 1.0));
    }
  }
  Index rows() const { return shape.batch * shape.heads * shape.queries; }
  AttentionInputs<T> inputs() const {
    return {shape.batch,    shape.queries, shape.keys,      shape.heads,
            shape.kv_heads, shape.key_dim, shape.value_dim, q.view(),
            k.view(),       v.view(),      scale,           sinks.empty() ? nullptr : sinks.data()};
  }
};

template <class T>
struct Forward {
  Heads<T> o;
  std::vector<T> lse, statistics;
};

/// With statistics (for a backward pass) tiles of queries are used even for few rows.
template <class T, class M, class S>
Forward<T> run_forward(const Problem<T>& p, const M& mask, const S& score, bool with_statistics = true) {
  const Shape& s = p.shape;
  const auto rows = static_cast<std::size_t>(p.rows());
  Forward<T> f{Heads<T>(s.batch, s.queries, s.heads, s.value_dim), std::vector<T>(rows, T(7)),
               std::vector<T>(2 * rows, T(7))};
  f.o.each([](T& x) { x = T(7); });
  attention_forward<T>(p.inputs(), {f.o.view(), f.lse.data(), with_statistics ? f.statistics.data() : nullptr}, mask,
                       score);
  return f;
}

template <class T>
struct Backward {
  Heads<T> dq, dk, dv;
  std::vector<T> d_sinks;
};

template <class T, class M, class S>
Backward<T> run_backward(const Problem<T>& p, const Forward<T>& f, const M& mask, const S& score,
                         bool with_lse = true) {
  const Shape& s = p.shape;
  Backward<T> g{Heads<T>(s.batch, s.queries, s.heads, s.key_dim), Heads<T>(s.batch, s.keys, s.kv_heads, s.key_dim),
                Heads<T>(s.batch, s.keys, s.kv_heads, s.value_dim),
                std::vector<T>(static_cast<std::size_t>(s.heads), T(0))};
  for (Heads<T>* h : {&g.dq, &g.dk, &g.dv}) h->each([](T& x) { x = T(7); });
  AttentionGradients<T> grad;
  grad.o = f.o.view();
  grad.statistics = f.statistics.data();
  grad.d_o = p.d_o.view();
  grad.d_lse = with_lse ? p.d_lse.data() : nullptr;
  grad.dq = g.dq.view();
  grad.dk = g.dk.view();
  grad.dv = g.dv.view();
  grad.d_sinks = g.d_sinks.data();
  attention_backward<T>(p.inputs(), grad, mask, score);
  return g;
}

/// t and dt/ds of a score.
struct Scored {
  double t, slope;
};
using Allowed = std::function<bool(Index, Index, Index, Index)>;
using ScoreOf = std::function<Scored(double, Index, Index, Index, Index)>;
inline ScoreOf plain_score() {
  return [](double s, Index, Index, Index, Index) { return Scored{s, 1.0}; };
}

struct Reference {
  std::vector<double> o, lse, dq, dk, dv, d_sinks;
};

/// The formula. Hidden pairs are never looked at.
template <class T>
Reference reference(const Problem<T>& p, const Allowed& allowed, const ScoreOf& score, bool with_lse = true) {
  const Shape& s = p.shape;
  Heads<double> o(s.batch, s.queries, s.heads, s.value_dim), dq(s.batch, s.queries, s.heads, s.key_dim);
  Heads<double> dk(s.batch, s.keys, s.kv_heads, s.key_dim), dv(s.batch, s.keys, s.kv_heads, s.value_dim);
  std::vector<double> lse, d_sinks(static_cast<std::size_t>(s.heads), 0.0);
  const auto scale = static_cast<double>(p.scale);
  for (Index b = 0; b < s.batch; ++b) {
    for (Index h = 0; h < s.heads; ++h) {
      const Index g = h / (s.heads / s.kv_heads);
      for (Index i = 0; i < s.queries; ++i) {
        std::vector<Index> seen;
        std::vector<double> t, slope;
        double max = p.sinks.empty() ? -infinity : static_cast<double>(p.sinks[static_cast<std::size_t>(h)]);
        for (Index j = 0; j < s.keys; ++j) {
          if (!allowed(b, h, i, j)) continue;
          double dot = 0.0;
          for (Index c = 0; c < s.key_dim; ++c) {
            dot += static_cast<double>(p.q.at(b, i, h, c)) * static_cast<double>(p.k.at(b, j, g, c));
          }
          const Scored now = score(scale * dot, b, h, i, j);
          seen.push_back(j);
          t.push_back(now.t);
          slope.push_back(now.slope);
          max = std::max(max, now.t);
        }
        double sum = p.sinks.empty() ? 0.0 : std::exp(static_cast<double>(p.sinks[static_cast<std::size_t>(h)]) - max);
        for (const double x : t) sum += std::exp(x - max);
        lse.push_back(sum > 0.0 ? max + std::log(sum) : -infinity);
        for (std::size_t n = 0; n < seen.size(); ++n) {
          const double weight = std::exp(t[n] - max) / sum;
          for (Index c = 0; c < s.value_dim; ++c)
            o.at(b, i, h, c) += weight * static_cast<double>(p.v.at(b, seen[n], g, c));
        }
        double delta = with_lse ? -static_cast<double>(p.d_lse[lse.size() - 1]) : 0.0;
        for (Index c = 0; c < s.value_dim; ++c) delta += o.at(b, i, h, c) * static_cast<double>(p.d_o.at(b, i, h, c));
        if (!p.sinks.empty()) {
          const auto z = static_cast<double>(p.sinks[static_cast<std::size_t>(h)]);
          d_sinks[static_cast<std::size_t>(h)] -= std::exp(z - lse.back()) * delta;
        }
        for (std::size_t n = 0; n < seen.size(); ++n) {
          const double weight = std::exp(t[n] - max) / sum;
          double dp = 0.0;
          for (Index c = 0; c < s.value_dim; ++c) {
            const auto d = static_cast<double>(p.d_o.at(b, i, h, c));
            dp += d * static_cast<double>(p.v.at(b, seen[n], g, c));
            dv.at(b, seen[n], g, c) += weight * d;
          }
          const double ds = weight * (dp - delta) * slope[n] * scale;
          for (Index c = 0; c < s.key_dim; ++c) {
            dq.at(b, i, h, c) += ds * static_cast<double>(p.k.at(b, seen[n], g, c));
            dk.at(b, seen[n], g, c) += ds * static_cast<double>(p.q.at(b, i, h, c));
          }
        }
      }
    }
  }
  return {o.values(), lse, dq.values(), dk.values(), dv.values(), d_sinks};
}

template <class X>
std::vector<double> as_doubles(const std::vector<X>& x) {
  return {x.begin(), x.end()};
}

/// The largest |a - b|; infinite for NaN on one side, equal infinities are equal.
inline double distance(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double worst = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    const double d = std::abs(a[i] - b[i]);
    worst = std::max(worst, d == d ? d : infinity);
  }
  return worst;
}

inline double largest(const std::vector<double>& a) {
  double most = 0.0;
  for (const double x : a) most = std::max(most, std::abs(x));
  return most;
}

/// Float: 2e-6 is a few units in the last place of the sums of some 50 products of size 1. Double: the same margin.
template <class T>
inline constexpr double forward_tolerance = sizeof(T) == 4 ? 2e-6 : 1e-13;
/// Of the largest gradient. Float: lse is a float, so p is known to |lse| 2^-24.
template <class T>
inline constexpr double backward_tolerance = sizeof(T) == 4 ? 2e-5 : 1e-12;

/// Forward and backward against the formula.
template <class T, class M, class S>
void check(const Problem<T>& p, const M& mask, const S& score, const Allowed& allowed, const ScoreOf& score_of) {
  const Reference want = reference(p, allowed, score_of);
  for (const bool with_statistics : {false, true}) {
    const Forward<T> f = run_forward(p, mask, score, with_statistics);
    CHECK(distance(f.o.values(), want.o) <= forward_tolerance<T>);
    CHECK(distance(as_doubles(f.lse), want.lse) <= 4 * forward_tolerance<T>);
    CHECK(f.o.gaps_untouched());
  }
  const Forward<T> f = run_forward(p, mask, score);
  const Backward<T> g = run_backward(p, f, mask, score);
  CHECK(distance(g.dq.values(), want.dq) <= backward_tolerance<T> * std::max(largest(want.dq), 1e-3));
  CHECK(distance(g.dk.values(), want.dk) <= backward_tolerance<T> * std::max(largest(want.dk), 1e-3));
  CHECK(distance(g.dv.values(), want.dv) <= backward_tolerance<T> * std::max(largest(want.dv), 1e-3));
  if (!p.sinks.empty()) {
    CHECK(distance(as_doubles(g.d_sinks), want.d_sinks) <=
          backward_tolerance<T> * std::max(largest(want.d_sinks), 1e-3));
  }
  CHECK(g.dq.gaps_untouched());
  CHECK(g.dk.gaps_untouched());
  CHECK(g.dv.gaps_untouched());
}

}  // namespace attention_test
