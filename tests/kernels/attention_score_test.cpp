// Score policies of the attention engine, and sinks, against the naive formula in double.

#include "kernels/attention_support.hpp"

using namespace attention_test;

namespace {

const Shape shapes[] = {
    {2, 37, 53, 6, 2, 24, 20}, {2, 1, 53, 6, 2, 24, 20}, {1, 70, 33, 3, 1, 8, 33}, {2, 9, 9, 4, 2, 5, 3}};

Allowed causal(const Shape& s) {
  const Index at = s.keys - s.queries;
  return [at](Index, Index, Index i, Index j) { return j <= i + at; };
}

template <class T>
std::vector<T> slopes(Index heads) {
  std::vector<T> m;
  for (Index h = 0; h < heads; ++h) m.push_back(static_cast<T>(std::exp2(-8.0 * static_cast<double>(h + 1) / 6.0)));
  return m;
}

}  // namespace

TEMPLATE_TEST_CASE("attention: ALiBi", "", float, double) {
  for (const Shape& s : shapes) {
    CAPTURE(s.queries, s.keys);
    const Index at = s.keys - s.queries;
    const std::vector<TestType> m = slopes<TestType>(s.heads);
    const ScoreOf score = [&](double x, Index, Index h, Index i, Index j) {
      return Scored{x - static_cast<double>(m[static_cast<std::size_t>(h)]) * std::abs(static_cast<double>(i + at - j)),
                    1.0};
    };
    check(Problem<TestType>(s), Causal{at}, Alibi<TestType>{m.data(), at}, causal(s), score);
    check(
        Problem<TestType>(s), NoMask{}, Alibi<TestType>{m.data(), at}, [](Index, Index, Index, Index) { return true; },
        score);
  }
}

TEMPLATE_TEST_CASE("attention: softcap", "", float, double) {
  for (const Shape& s : shapes) {
    CAPTURE(s.queries, s.keys);
    const ScoreOf score = [](double x, Index, Index, Index, Index) {
      const double y = std::tanh(x / 1.5);
      return Scored{1.5 * y, 1.0 - y * y};
    };
    check(Problem<TestType>(s), Causal{s.keys - s.queries}, Softcap<TestType>{TestType(1.5)}, causal(s), score);
  }
}

TEMPLATE_TEST_CASE("attention: softcap, then ALiBi, then a function", "", float, double) {
  for (const Shape& s : shapes) {
    CAPTURE(s.queries, s.keys);
    const Index at = s.keys - s.queries;
    const std::vector<TestType> m = slopes<TestType>(s.heads);
    const auto f = [](TestType x, Index b, Index h, Index i, Index j) {
      return x * (x < TestType(-1) ? TestType(1) : TestType(0.5)) + TestType((b + h + i * j) % 3) / TestType(4);
    };
    const auto df = [](TestType x, Index, Index, Index, Index) {
      return x < TestType(-1) ? TestType(1) : TestType(0.5);
    };
    const ScoreOf score = [&](double x, Index b, Index h, Index i, Index j) {
      const double y = std::tanh(x / 1.5);
      const double z =
          1.5 * y - static_cast<double>(m[static_cast<std::size_t>(h)]) * std::abs(static_cast<double>(i + at - j));
      const double slope = z < -1.0 ? 1.0 : 0.5;
      return Scored{z * slope + static_cast<double>((b + h + i * j) % 3) / 4.0, (1.0 - y * y) * slope};
    };
    check(Problem<TestType>(s), Causal{at},
          Then{Then{Softcap<TestType>{TestType(1.5)}, Alibi<TestType>{m.data(), at}}, ScoreFunction{f, df}}, causal(s),
          score);
  }
}

TEMPLATE_TEST_CASE("attention: additive bias with -inf, and its gradient", "", float, double) {
  for (const Shape& s : shapes) {
    CAPTURE(s.queries, s.keys);
    std::vector<TestType> bias;  // [H, Lq, Lk], for all rows of the batch
    ordo::Random random(3);
    for (Index n = 0; n < s.heads * s.queries * s.keys; ++n) {
      const double x = random.uniform();
      bias.push_back(x < 0.2 ? -std::numeric_limits<TestType>::infinity() : static_cast<TestType>(x));
    }
    const auto at = [&](Index h, Index i, Index j) {
      return static_cast<double>(bias[static_cast<std::size_t>((h * s.queries + i) * s.keys + j)]);
    };
    const Allowed allowed = [&](Index, Index h, Index i, Index j) { return at(h, i, j) > -infinity; };
    const ScoreOf score = [&](double x, Index, Index h, Index i, Index j) { return Scored{x + at(h, i, j), 1.0}; };
    std::vector<TestType> gradients(static_cast<std::size_t>(s.batch * s.heads * s.queries * s.keys), TestType(0));
    ScoreBias<TestType> policy{bias.data(),      0,       s.queries * s.keys, s.keys,
                               gradients.data(), s.heads, s.queries,          s.keys};
    const Problem<TestType> p(s);
    check(p, NoMask{}, policy, allowed, score);

    // dt = p (dp - delta), from the reference's parts: the bias of one pair moves lse by p, so sum_j dt = d_lse.
    const Forward<TestType> f = run_forward(p, NoMask{}, policy);
    for (Index b = 0; b < s.batch; ++b) {
      for (Index h = 0; h < s.heads; ++h) {
        for (Index i = 0; i < s.queries; ++i) {
          const auto row = static_cast<std::size_t>((b * s.heads + h) * s.queries + i);
          double sum = 0.0, worst = 0.0;
          for (Index j = 0; j < s.keys; ++j) {
            const double got =
                static_cast<double>(gradients[row * static_cast<std::size_t>(s.keys) + static_cast<std::size_t>(j)]);
            sum += got;
            if (at(h, i, j) == -infinity) {
              CHECK(got == 0.0);
              continue;
            }
            double t = at(h, i, j), dp = 0.0, delta = -static_cast<double>(p.d_lse[row]);
            const Index g = h / (s.heads / s.kv_heads);
            for (Index c = 0; c < s.key_dim; ++c) {
              t += static_cast<double>(p.scale) * static_cast<double>(p.q.at(b, i, h, c)) *
                   static_cast<double>(p.k.at(b, j, g, c));
            }
            for (Index c = 0; c < s.value_dim; ++c) {
              const auto d = static_cast<double>(p.d_o.at(b, i, h, c));
              dp += d * static_cast<double>(p.v.at(b, j, g, c));
              delta += d * static_cast<double>(f.o.at(b, i, h, c));
            }
            worst = std::max(worst, std::abs(got - std::exp(t - static_cast<double>(f.lse[row])) * (dp - delta)));
          }
          CHECK(worst <= backward_tolerance<TestType>);
          if (f.lse[row] > -std::numeric_limits<TestType>::infinity()) {
            CHECK(std::abs(sum - static_cast<double>(p.d_lse[row])) <= 10 * backward_tolerance<TestType>);
          }
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("attention: sinks", "", float, double) {
  for (const Shape& s : shapes) {
    CAPTURE(s.queries, s.keys);
    Problem<TestType> p(s);
    for (Index h = 0; h < s.heads; ++h) p.sinks.push_back(static_cast<TestType>(static_cast<double>(h) / 2.0 - 1.0));
    // With more queries than keys the first queries see the sink only: o = 0, lse = z.
    check(p, Causal{s.keys - s.queries}, NoScore{}, causal(s), plain_score());
  }
}
