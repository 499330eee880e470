// The attention engine in parts: keys split among tasks, partial results merged, one query at a time, several threads.
// In float: the same code runs in double, which attention_score_test.cpp and attention_tile_test.cpp cover.

#include <cstring>

#include "kernels/attention_support.hpp"
#include "ordo/core/parallel.hpp"

using namespace attention_test;

TEMPLATE_TEST_CASE("attention: many keys are split into parts", "", float) {
  for (const Index queries : {Index{1}, Index{2}, Index{40}}) {
    CAPTURE(queries);
    const Shape s{1, queries, 5000, 2, 1, 8, 12};
    const Index at = s.keys - s.queries;
    check(
        Problem<TestType>(s), Causal{at}, NoScore{}, [at](Index, Index, Index i, Index j) { return j <= i + at; },
        plain_score());
    Problem<TestType> p(s);
    p.sinks = {TestType(7), TestType(9)};
    check(
        p, Window{at, 3000}, NoScore{},
        [at](Index, Index, Index i, Index j) { return j <= i + at && j > i + at - 3000; }, plain_score());
  }
}

TEMPLATE_TEST_CASE("attention: parts of the keys merge by log-sum-exp", "", float) {
  const Shape s{2, 37, 60, 4, 2, 8, 20};
  const Problem<TestType> p(s);
  const Index cuts[] = {0, 7, 7, 48, 60};  // one part is empty
  std::vector<TestType> o, lse;
  for (int n = 0; n < 4; ++n) {
    const auto mask = [&](Index, Index, Index i, Index j) { return j >= cuts[n] && j < cuts[n + 1] && i % 5 != 3; };
    const Forward<TestType> f = run_forward(p, mask, NoScore{});
    for (const double x : f.o.values()) o.push_back(static_cast<TestType>(x));
    lse.insert(lse.end(), f.lse.begin(), f.lse.end());
  }
  Forward<TestType> got{
      Heads<TestType>(s.batch, s.queries, s.heads, s.value_dim), std::vector<TestType>(lse.size() / 4), {}};
  attention_merge(4, s.batch, s.queries, s.heads, s.value_dim, o.data(), lse.data(), got.o.view(), got.lse.data());
  const Reference want = reference(
      p, [](Index, Index, Index i, Index) { return i % 5 != 3; }, plain_score());
  CHECK(distance(got.o.values(), want.o) <= forward_tolerance<TestType>);
  CHECK(distance(as_doubles(got.lse), want.lse) <= 4 * forward_tolerance<TestType>);
}

TEMPLATE_TEST_CASE("attention: one query at a time is all at once", "", float) {
  const Shape s{2, 30, 30, 6, 2, 24, 20};
  const Problem<TestType> p(s);
  const Forward<TestType> whole = run_forward(p, Causal{0}, NoScore{});
  double worst = 0.0;
  for (Index i = 0; i < s.queries; ++i) {
    AttentionInputs<TestType> in = p.inputs();
    in.queries = 1;
    in.keys = i + 1;
    in.q.data += i * in.q.row_stride;
    Heads<TestType> o(s.batch, 1, s.heads, s.value_dim);
    attention_forward<TestType>(in, {o.view()}, Causal{i}, NoScore{});
    for (Index b = 0; b < s.batch; ++b) {
      for (Index h = 0; h < s.heads; ++h) {
        for (Index c = 0; c < s.value_dim; ++c) {
          worst = std::max(worst, std::abs(static_cast<double>(o.at(b, 0, h, c) - whole.o.at(b, i, h, c))));
        }
      }
    }
  }
  CHECK(worst <= 2 * forward_tolerance<TestType>);
}

TEMPLATE_TEST_CASE("attention: the same bits for any number of threads", "", float) {
  const Shape all[] = {{2, 150, 150, 4, 2, 16, 16}, {1, 1, 4096, 4, 2, 16, 16}, {1, 60, 4096, 1, 1, 16, 16}};
  for (const Shape& s : all) {
    CAPTURE(s.queries, s.keys);
    Problem<TestType> p(s);
    p.sinks.assign(static_cast<std::size_t>(s.heads), TestType(0.5));
    const Causal mask{s.keys - s.queries};
    const auto run = [&](int threads) {
      ordo::set_num_threads(threads);
      const Forward<TestType> f = run_forward(p, mask, NoScore{});
      const Backward<TestType> g = run_backward(p, f, mask, NoScore{});
      ordo::set_num_threads(1);
      std::vector<double> bits = f.o.values();
      for (const auto& more : {as_doubles(f.lse), g.dq.values(), g.dk.values(), g.dv.values(), as_doubles(g.d_sinks)}) {
        bits.insert(bits.end(), more.begin(), more.end());
      }
      return bits;
    };
    const std::vector<double> one = run(1);
    for (const int threads : {2, 3}) {
      const std::vector<double> many = run(threads);
      REQUIRE(one.size() == many.size());
      CHECK(std::memcmp(one.data(), many.data(), one.size() * sizeof(double)) == 0);
    }
  }
}
