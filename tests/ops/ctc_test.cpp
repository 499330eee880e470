// CTC against a sum over all alignments, one by one.
#include "ordo/ops/ctc.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "ops/support.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/ops/loss.hpp"

using namespace ordo;  // NOLINT
using test::difference;
using test::error_of;
using test::random_tensor;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// What a path of classes spells: repeats fall together, blanks fall out.
std::vector<Index> spelled(const std::vector<Index>& path, Index blank) {
  std::vector<Index> labels;
  for (std::size_t t = 0; t < path.size(); ++t) {
    if (path[t] != blank && (t == 0 || path[t] != path[t - 1])) labels.push_back(path[t]);
  }
  return labels;
}
/// -log of the sum of the probabilities of all paths of `frames` frames that spell the labels.
template <class X>
double naive(const X& logits, Index row, Index frames, const std::vector<Index>& labels, Index blank) {
  const Index classes = logits.extent(2);
  const auto l = log_softmax(logits);
  std::vector<Index> path(static_cast<std::size_t>(frames), 0);
  double total = 0;
  for (;;) {
    if (spelled(path, blank) == labels) {
      double p = 0;
      for (Index t = 0; t < frames; ++t) p += static_cast<double>(l(row, t, path[static_cast<std::size_t>(t)]));
      total += std::exp(p);
    }
    std::size_t t = 0;
    while (t < path.size() && ++path[t] == classes) path[t++] = 0;
    if (t == path.size()) break;
  }
  return -std::log(total);
}

struct Batch {
  DynTensor<std::int64_t, 2> targets{DynExtents<2>(4, 3), {1, 2, 1, 2, 2, 99, 99, 99, 99, 3, 3, 3}};
  std::vector<std::int64_t> frames{5, 4, 3, 4}, labels{3, 2, 0, 3};  // the last: no alignment
  std::vector<Index> of(Index row) const {
    return {targets.data() + row * 3, targets.data() + row * 3 + labels[static_cast<std::size_t>(row)]};
  }
};

}  // namespace

TEMPLATE_TEST_CASE("CTC against the sum over all alignments", "", float, double) {
  const double tolerance = std::is_same_v<TestType, float> ? 2e-6 : 1e-13;
  const auto x = random_tensor<TestType>(1, 4, 5, 4);
  const Batch b;
  const auto each = ctc_loss_each(x, b.targets, b.frames, b.labels);
  double sum = 0, mean = 0;
  for (Index r = 0; r < 3; ++r) {
    const double expected = naive(x, r, b.frames[static_cast<std::size_t>(r)], b.of(r), 0);
    CHECK(std::abs(static_cast<double>(each(r)) - expected) < tolerance * expected);
    sum += expected;
    mean += expected / static_cast<double>(std::max<std::int64_t>(b.labels[static_cast<std::size_t>(r)], 1)) / 4;
  }
  CHECK(static_cast<double>(each(3)) == infinity);
  CHECK(static_cast<double>(*ctc_loss(x, b.targets, b.frames, b.labels).data()) == infinity);
  const CtcParameters zero{.zero_infinity = true};
  CHECK(std::abs(static_cast<double>(*ctc_loss(x, b.targets, b.frames, b.labels, zero).data()) - mean) < tolerance * mean);
  CHECK(std::abs(static_cast<double>(*ctc_loss(x, b.targets, b.frames, b.labels, {.zero_infinity = true, .reduction = Reduction::sum}).data()) -
                 sum) < tolerance * sum);

  // The blank may be any class.
  for (const Index blank : {1, 3}) {
    DynTensor<std::int64_t, 2> targets(DynExtents<2>(4, 2), {0, 2, 2, 2, 0, 0, 2, 0});
    const std::vector<std::int64_t> frames{5, 5, 4, 2}, labels{2, 2, 1, 2};
    const auto losses = ctc_loss_each(x, targets, frames, labels, {.blank = blank});
    for (Index r = 0; r < 4; ++r) {
      const auto at = static_cast<std::size_t>(r);
      const double expected = naive(x, r, frames[at], {targets.data() + 2 * r, targets.data() + 2 * r + labels[at]}, blank);
      CHECK(std::abs(static_cast<double>(losses(r)) - expected) < tolerance * expected);
    }
  }
}

TEST_CASE("derivatives of CTC; frames and rows that do not count") {
  auto x = random_tensor(1, 4, 5, 4);
  const Batch b;
  const CtcParameters zero{.zero_infinity = true};
  const auto result = gradcheck([&](const auto& a) { return square(ctc_loss_each(a, b.targets, b.frames, b.labels, zero)); }, x);
  INFO(result.where);
  CHECK(result.error < 1e-8);
  auto dirty = x;
  for (Index r = 0; r < 3; ++r) {
    for (Index t = b.frames[static_cast<std::size_t>(r)]; t < 5; ++t) {
      for (Index c = 0; c < 4; ++c) dirty(r, t, c) = std::numeric_limits<double>::quiet_NaN();
    }
  }
  Tape tape;
  const auto tracked = track(tape, dirty);
  const auto g = tape.backward(ctc_loss(tracked, b.targets, b.frames, b.labels)).of(tracked);
  for (Index i = 0; i < g.size(); ++i) {
    const Index r = i / 20, t = i / 4 % 5;
    if (r == 3 || t >= b.frames[static_cast<std::size_t>(r)]) CHECK(g.data()[i] == 0);
    CHECK(std::isfinite(g.data()[i]));
  }
  Tape second;
  const auto again = track(second, x);
  CHECK(error_of<UsageError>([&] { second.gradient(ctc_loss(again, b.targets, b.frames, b.labels), again); }) ==
        "ctc_loss: this fused op has no second derivative");
}

TEST_CASE("CTC: long rows, peaked logits, threads") {
  // Certain of one path: the loss is that of the path, however far the others are.
  DynTensor<float, 3> x(Index{1}, Index{200}, Index{5});
  DynTensor<int, 2> targets(Index{1}, Index{50});
  for (Index u = 0; u < 50; ++u) targets(0, u) = static_cast<int>(1 + u % 4);
  for (Index t = 0; t < 200; ++t) x(0, t, t % 4 < 2 ? targets(0, t / 4) : 0) = 250;
  Tape tape;
  const auto tracked = track(tape, x);
  const auto loss = ctc_loss(tracked, targets, std::vector<int>{200}, std::vector<int>{50}, {.reduction = Reduction::sum});
  CHECK(loss.item() == 0);
  CHECK(difference(tape.backward(loss).of(tracked), [](Index) { return 0; }) == 0);

  const auto y = random_tensor<float>(2, 6, 130, 30);
  DynTensor<int, 2> labels(Index{6}, Index{30});
  Random random(3);
  for (int& l : labels) l = static_cast<int>(1 + random.below(29));
  const std::vector<int> frames{130, 120, 110, 100, 90, 65}, lengths{30, 29, 25, 20, 1, 0};
  const auto gradient = [&] {
    Tape t;
    const auto z = track(t, y);
    return t.backward(ctc_loss(z, labels, frames, lengths)).of(z);
  };
  const auto one = gradient();
  set_num_threads(2);
  const auto two = gradient();
  set_num_threads(1);
  CHECK(difference(two, [&](Index i) { return one.data()[i]; }) == 0);
  // Each frame's gradient adds up to 0: softmax and posterior both are distributions.
  for (Index r = 0; r < 6; ++r) {
    for (Index t = 0; t < 130; ++t) {
      float total = 0;
      for (Index c = 0; c < 30; ++c) total += one.data()[(r * 130 + t) * 30 + c];
      CHECK(std::abs(total) < 1e-7F);
    }
  }
}

TEST_CASE("CTC says what is wrong") {
  const auto x = random_tensor(1, 1, 4, 3);
  const auto call = [&](const DynTensor<int, 2>& t, const std::vector<int>& frames, const std::vector<int>& labels, Index blank = 0) {
    ctc_loss(x, t, frames, labels, {.blank = blank});
  };
  const DynTensor<int, 2> t(DynExtents<2>(1, 2), {1, 2});
  CHECK(error_of<UsageError>([&] { call(t, {4}, {2}, 1); }) == "ctc_loss: target 1 at [0, 0], expected 0 to 2 but the blank 1");
  CHECK(error_of<UsageError>([&] { call(t, {5}, {2}); }) == "ctc_loss: input_lengths[0] is 5, expected 0 to 4");
  CHECK(error_of<UsageError>([&] { call(t, {4}, {3}); }) == "ctc_loss: target_lengths[0] is 3, expected 0 to 2");
  CHECK(error_of<ShapeError>([&] { call(t, {4, 4}, {2}); }) == "ctc_loss: input_lengths has shape [2], expected [1]");
  CHECK(error_of<ConfigError>([&] { call(t, {4}, {2}, 3); }) == "ctc_loss: blank is 3, expected 0 to 2");
  CHECK(error_of<ShapeError>([&] { call(DynTensor<int, 2>(2, 2), {4}, {2}); }) ==
        "ctc_loss: targets of shape [2, 2], expected [1, U]");
}
