// What the attention engine promises about NaN, empty rows, large scores and gradients.
// In float: the same code runs in double, which attention_score_test.cpp and attention_tile_test.cpp cover.

#include "kernels/attention_support.hpp"

using namespace attention_test;

namespace {

bool all_finite(const std::vector<double>& x) {
  return std::all_of(x.begin(), x.end(), [](double v) { return std::isfinite(v); });
}

/// Keys and values that no query of the row sees become NaN.
template <class T>
void spoil(Problem<T>& p, const Allowed& allowed) {
  const Shape& s = p.shape;
  const Index group = s.heads / s.kv_heads;
  for (Index b = 0; b < s.batch; ++b) {
    for (Index g = 0; g < s.kv_heads; ++g) {
      for (Index j = 0; j < s.keys; ++j) {
        bool seen = false;
        for (Index h = g * group; h < (g + 1) * group; ++h) {
          for (Index i = 0; i < s.queries; ++i) seen |= allowed(b, h, i, j);
        }
        if (seen) continue;
        for (Index c = 0; c < s.key_dim; ++c) p.k.at(b, j, g, c) = not_a_number<T>;
        for (Index c = 0; c < s.value_dim; ++c) p.v.at(b, j, g, c) = not_a_number<T>;
      }
    }
  }
}

template <class T, class M>
void check_spoilt(const Shape& s, const M& mask, const Allowed& allowed) {
  Problem<T> p(s);
  spoil(p, allowed);
  check(p, mask, NoScore{}, allowed, plain_score());
}

}  // namespace

TEMPLATE_TEST_CASE("attention: NaN behind the mask is not felt", "", float) {
  for (const Index queries : {Index{37}, Index{5}, Index{1}}) {
    CAPTURE(queries);
    const Shape s{2, queries, 53, 6, 2, 24, 20};
    const Index lengths[] = {31, 17};
    check_spoilt<TestType>(s, KeyLengths{lengths}, [&](Index b, Index, Index, Index j) { return j < lengths[b]; });
    // Not at the end, so that tiles hold NaN between keys that are seen.
    const auto odd = [](Index, Index, Index, Index j) { return j % 3 == 1; };
    check_spoilt<TestType>(s, odd, odd);
    check_spoilt<TestType>(s, Window{-20, 5}, [](Index, Index, Index i, Index j) { return j <= i - 20 && j > i - 25; });
  }
}

TEMPLATE_TEST_CASE("attention: a NaN is felt by the queries that see it, and by no other", "", float) {
  for (const bool in_key : {false, true}) {
    CAPTURE(in_key);
    const Shape s{1, 64, 64, 2, 1, 16, 16};
    Problem<TestType> p(s);
    (in_key ? p.k : p.v).at(0, 20, 0, 3) = not_a_number<TestType>;
    const Forward<TestType> f = run_forward(p, Causal{0}, NoScore{});
    for (Index i = 0; i < s.queries; ++i) {
      for (Index h = 0; h < s.heads; ++h) {
        CAPTURE(i, h);
        CHECK(std::isnan(f.o.at(0, i, h, 3)) == (i >= 20));
        CHECK(std::isnan(f.o.at(0, i, h, 4)) == (in_key && i >= 20));
      }
    }
    // Its rows have NaN gradients, those before it the gradients that they have without it.
    Problem<TestType> clean(s);
    const Backward<TestType> got = run_backward(p, f, Causal{0}, NoScore{});
    const Backward<TestType> want = run_backward(clean, run_forward(clean, Causal{0}, NoScore{}), Causal{0}, NoScore{});
    for (Index i = 0; i < s.queries; ++i) {
      for (Index h = 0; h < s.heads; ++h) {
        CAPTURE(i, h);
        if (i < 20) {
          CHECK(got.dq.at(0, i, h, 5) == want.dq.at(0, i, h, 5));
        } else {
          CHECK(std::isnan(got.dq.at(0, i, h, 3)));
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("attention: NaN keys behind a bias of -inf, under a softcap", "", float) {
  for (const Index queries : {Index{37}, Index{1}}) {
    const Shape s{1, queries, 53, 2, 1, 24, 20};
    Problem<TestType> p(s);
    std::vector<TestType> bias(static_cast<std::size_t>(s.keys), TestType(0));
    for (std::size_t j = 0; j < bias.size(); j += 2) bias[j] = -std::numeric_limits<TestType>::infinity();
    const Allowed odd = [](Index, Index, Index, Index j) { return j % 2 == 1; };
    spoil(p, odd);
    const Then score{Softcap<TestType>{TestType(2)}, ScoreBias<TestType>{bias.data(), 0, 0, 0, nullptr, 0, 0, 0}};
    check(p, NoMask{}, score, odd, [](double x, Index, Index, Index, Index) {
      const double y = std::tanh(x / 2.0);
      return Scored{2.0 * y, 1.0 - y * y};
    });
  }
}

TEMPLATE_TEST_CASE("attention: queries that see nothing give zeros", "", float) {
  for (const Index queries : {Index{70}, Index{2}}) {
    const Shape s{1, queries, 40, 2, 2, 8, 8};
    Problem<TestType> p(s);
    // What they hold does not matter, and does not reach the keys' gradients.
    for (Index i = 0; i < queries; i += 2) {
      for (Index c = 0; c < s.key_dim; ++c) p.q.at(0, i, 0, c) = not_a_number<TestType>;
    }
    const auto mask = [](Index, Index h, Index i, Index) { return h == 1 || i % 2 == 1; };
    const Forward<TestType> f = run_forward(p, mask, NoScore{});
    const Backward<TestType> g = run_backward(p, f, mask, NoScore{});
    for (Index i = 0; i < queries; i += 2) {
      CHECK(f.lse[static_cast<std::size_t>(i)] == -std::numeric_limits<TestType>::infinity());
      for (Index c = 0; c < s.value_dim; ++c) CHECK(f.o.at(0, i, 0, c) == TestType(0));
      for (Index c = 0; c < s.key_dim; ++c) CHECK(g.dq.at(0, i, 0, c) == TestType(0));
    }
    CHECK(all_finite(g.dk.values()));
    CHECK(all_finite(g.dv.values()));
    CHECK(all_finite(f.o.values()));
  }
}

TEMPLATE_TEST_CASE("attention: no keys, no queries, no batch", "", float) {
  for (const Index queries : {Index{1}, Index{40}}) {
    const Shape s{2, queries, 0, 2, 1, 8, 8};
    const Problem<TestType> p(s);
    const Forward<TestType> f = run_forward(p, Causal{-queries}, NoScore{});
    CHECK(largest(f.o.values()) == 0.0);
    CHECK(f.lse.front() == -std::numeric_limits<TestType>::infinity());
    CHECK(largest(run_backward(p, f, Causal{-queries}, NoScore{}).dq.values()) == 0.0);
  }
  const Problem<TestType> none({2, 0, 30, 2, 1, 8, 8});
  const Forward<TestType> f = run_forward(none, NoMask{}, NoScore{});
  const Backward<TestType> g = run_backward(none, f, NoMask{}, NoScore{});
  CHECK(largest(g.dk.values()) == 0.0);
  CHECK(largest(g.dv.values()) == 0.0);
  const Problem<TestType> empty({0, 3, 3, 2, 1, 8, 8});
  static_cast<void>(run_backward(empty, run_forward(empty, NoMask{}, NoScore{}), NoMask{}, NoScore{}));
}

TEMPLATE_TEST_CASE("attention: one key: o is its value, and ds is exactly 0", "", float) {
  const Shape s{1, 40, 1, 2, 2, 24, 20};
  const Problem<TestType> p(s);
  const Forward<TestType> f = run_forward(p, NoMask{}, NoScore{});
  for (Index i = 0; i < s.queries; ++i) {
    for (Index c = 0; c < s.value_dim; ++c) CHECK(f.o.at(0, i, 1, c) == p.v.at(0, 0, 1, c));
  }
  const Backward<TestType> g = run_backward(p, f, NoMask{}, NoScore{}, false);
  CHECK(largest(g.dq.values()) == 0.0);
  CHECK(largest(g.dk.values()) == 0.0);
}

TEMPLATE_TEST_CASE("attention: large scores", "", float) {
  for (const Index queries : {Index{37}, Index{1}}) {
    for (const double size : {100.0, 1e6}) {  // scores of about 1e4 and 1e12
      CAPTURE(queries, size);
      const Shape s{1, queries, 200, 2, 1, 16, 8};
      const Problem<TestType> p(s, 5, size);
      const Reference want = reference(
          p, [](Index, Index, Index, Index) { return true; }, plain_score());
      // A score's error is some units of its last place, so weights of keys closer than that are unknown.
      const double unit = sizeof(TestType) == 4 ? 1e-6 : 1e-15;
      for (const bool with_statistics : {false, true}) {
        const Forward<TestType> f = run_forward(p, NoMask{}, NoScore{}, with_statistics);
        CHECK(all_finite(f.o.values()));
        CHECK(distance(as_doubles(f.lse), want.lse) <= 4 * unit * largest(want.lse));
        if (size == 100.0) CHECK(distance(f.o.values(), want.o) <= 20 * unit * largest(want.lse));
      }
      CHECK(all_finite(run_backward(p, run_forward(p, NoMask{}, NoScore{}), NoMask{}, NoScore{}).dq.values()));
    }
  }
}

TEST_CASE("attention: where one large score wins, float gradients keep their last places") {
  // lse is about 2e4, its last place 2e-3: exp(score - lse) would be wrong by that much.
  const Shape s{1, 20, 20, 1, 1, 4, 8};
  Problem<float> p(s);
  for (Index i = 0; i < s.queries; ++i) {
    for (Index c = 0; c < s.key_dim; ++c) {
      p.q.at(0, i, 0, c) = 100.0F + static_cast<float>(i);
      p.k.at(0, i, 0, c) = 100.3F + 7.0F * static_cast<float>(i);  // differences of scores: more than 1e3
    }
  }
  const Allowed all = [](Index, Index, Index, Index) { return true; };
  const auto check_policy = [&](const auto& score) {
    const Reference want = reference(p, all, plain_score());
    const Backward<float> g = run_backward(p, run_forward(p, NoMask{}, score), NoMask{}, score, false);
    CHECK(distance(g.dv.values(), want.dv) <= 1e-6 * largest(want.dv));
    CHECK(largest(g.dq.values()) == 0.0);  // o is one value exactly, so ds = 0 exactly
  };
  check_policy(NoScore{});
  check_policy(ScoreFunction{[](float x, Index, Index, Index, Index) { return x; },
                             [](float, Index, Index, Index, Index) { return 1.0F; }});
}

TEST_CASE("attention: gradients against central differences") {
  const Shape s{1, 9, 9, 4, 2, 5, 3};
  Problem<double> p(s);
  for (Index h = 0; h < s.heads; ++h) p.sinks.push_back(0.25 * static_cast<double>(h) - 0.5);
  const double slopes[] = {0.5, 0.25, 0.125, 0.0625};
  const Then score{Softcap<double>{1.5}, Alibi<double>{slopes, 0}};
  const Causal mask{0};
  const auto loss = [&] {
    const Forward<double> f = run_forward(p, mask, score);
    const std::vector<double> o = f.o.values(), d = p.d_o.values();
    double sum = 0.0;
    for (std::size_t n = 0; n < o.size(); ++n) sum += o[n] * d[n];
    for (std::size_t n = 0; n < f.lse.size(); ++n) sum += f.lse[n] * p.d_lse[n];
    return sum;
  };
  const Backward<double> g = run_backward(p, run_forward(p, mask, score), mask, score);
  const auto differences = [&](double& x) {
    constexpr double h = 1e-5;
    const double kept = x;
    x = kept + h;
    const double up = loss();
    x = kept - h;
    const double down = loss();
    x = kept;
    return (up - down) / (2 * h);
  };
  const auto compare = [&](Heads<double>& x, const Heads<double>& dx) {
    std::vector<double> want;
    x.each([&](double& e) { want.push_back(differences(e)); });
    CHECK(distance(dx.values(), want) <= 1e-6 * largest(want));
  };
  compare(p.q, g.dq);
  compare(p.k, g.dk);
  compare(p.v, g.dv);
  std::vector<double> want;
  for (double& z : p.sinks) want.push_back(differences(z));
  CHECK(distance(g.d_sinks, want) <= 1e-6 * largest(want));
}
