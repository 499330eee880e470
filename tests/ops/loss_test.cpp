#include "ordo/ops/loss.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "ops/support.hpp"
#include "ordo/core/parallel.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

namespace {

using Ids = DynTensor<std::int64_t, 2>;
constexpr double infinity = std::numeric_limits<double>::infinity();

/// The loss of every position and the mean, from the definition, in long double.
struct Naive {
  std::vector<double> each;
  double mean = 0, sum = 0;

  template <class X>
  Naive(const X& x, const Ids* targets, const X* probabilities, const CrossEntropyParameters& p,
        const std::vector<double>& w) {
    const Index n = x.extent(X::rank() - 1), rows = x.size() / n;
    long double losses = 0, weights = 0, z = 0, kept = 0;
    for (Index r = 0; r < rows; ++r) {
      const Index t = targets != nullptr ? targets->data()[r] : -1;
      each.push_back(0);
      if (targets != nullptr && t == p.ignore_index) continue;
      long double largest = -infinity, total = 0;
      for (Index c = 0; c < n; ++c) largest = std::max<long double>(largest, x.data()[r * n + c]);
      for (Index c = 0; c < n; ++c) total += std::exp(x.data()[r * n + c] - largest);
      const long double lse = largest + std::log(total);
      long double loss = 0;
      for (Index c = 0; c < n; ++c) {
        const long double q = targets != nullptr ? static_cast<long double>(c == t) : probabilities->data()[r * n + c];
        const long double even = p.label_smoothing / static_cast<long double>(n);
        const long double coefficient = w[static_cast<std::size_t>(c)] * ((1 - p.label_smoothing) * q + even);
        if (coefficient != 0) loss += coefficient * (lse - x.data()[r * n + c]);
      }
      losses += loss;
      weights += targets != nullptr ? w[static_cast<std::size_t>(t)] : 1;
      kept += 1;
      z += p.z_loss * lse * lse;
      each.back() = static_cast<double>(loss + p.z_loss * lse * lse);
    }
    sum = static_cast<double>(losses + z);
    mean = static_cast<double>(losses / weights + z / kept);
  }
};

Ids random_targets(Index batch, Index length, Index classes, std::int64_t ignore) {
  Ids t(batch, length);
  Random random(5);
  Index i = 0;
  for (auto& v : t)
    v = ++i % 4 == 0 ? ignore : static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(classes)));
  return t;
}

template <class T, class W>
void check_all(const DynTensor<T, 3>& x, const Ids* targets, const DynTensor<T, 3>* q, CrossEntropyParameters p,
               const W& weight) {
  const double tolerance = std::is_same_v<T, float> ? 3e-6 : 1e-14;
  std::vector<double> w(static_cast<std::size_t>(x.extent(2)), 1.0);
  if constexpr (!std::is_same_v<W, None>) w.assign(weight.begin(), weight.end());
  const Naive naive(x, targets, q, p, w);
  const auto call = [&](auto each) {
    if constexpr (decltype(each)::value) {
      return targets != nullptr ? cross_entropy_each(x, *targets, p, weight) : cross_entropy_each(x, *q, p, weight);
    } else {
      return targets != nullptr ? cross_entropy(x, *targets, p, weight) : cross_entropy(x, *q, p, weight);
    }
  };
  const auto each = call(std::true_type{});
  CHECK(each.shape() == Shape{x.extent(0), x.extent(1)});
  CHECK(difference(each, [&](Index i) { return naive.each[static_cast<std::size_t>(i)]; }) < tolerance);
  const auto mean = call(std::false_type{});
  CHECK(mean.rank() == 0);
  CHECK(difference(mean, [&](Index) { return naive.mean; }) < tolerance);
  p.reduction = Reduction::sum;
  CHECK(difference(call(std::false_type{}), [&](Index) { return naive.sum; }) < tolerance);
}

template <class T>
DynTensor<T, 3> random_probabilities(Index batch, Index length, Index classes) {
  return softmax(random_tensor<T>(9, batch, length, classes));
}

}  // namespace

TEMPLATE_TEST_CASE("cross-entropy against the definition", "", float, double) {
  using T = TestType;
  for (Index n : {1, 2, 5, 16, 33, 257}) {
    for (double reach : {3.0, 250.0}) {
      const auto x = random_tensor<T>(1, -reach, reach, 3, 7, n);
      const auto w = random_tensor<T>(2, 0.2, 2.0, n);
      const auto q = random_probabilities<T>(3, 7, n);
      const DynTensor<T, 3>* const no_q = nullptr;
      CAPTURE(n, reach);
      for (double smoothing : {0.0, 0.1}) {
        const Ids far = random_targets(3, 7, n, -100), inside = random_targets(3, 7, n, 0);
        check_all(x, &far, no_q, {-100, smoothing, 0}, none);
        check_all(x, &far, no_q, {-100, smoothing, 1e-3}, none);
        check_all(x, &far, no_q, {-100, smoothing, 0}, w);
        if (n > 1) check_all(x, &inside, no_q, {0, smoothing, 0.01}, none);
        if (n > 1) check_all(x, &inside, no_q, {0, smoothing, 0}, w);
        check_all(x, static_cast<const Ids*>(nullptr), &q, {-100, smoothing, 0}, none);
        check_all(x, static_cast<const Ids*>(nullptr), &q, {-100, smoothing, 0}, w);
      }
    }
  }
}

TEST_CASE("derivatives of cross-entropy, first and second") {
  auto x = random_tensor(1, 2, 3, 5);
  const auto w = random_tensor(2, 0.2, 2.0, 5);
  const auto q = random_probabilities<double>(2, 3, 5);
  const Ids t = random_targets(2, 3, 5, -100);
  for (double smoothing : {0.0, 0.2}) {
    for (Reduction reduction : {Reduction::mean, Reduction::sum}) {
      for (double z : {0.0, 0.05}) {
        const CrossEntropyParameters p{-100, smoothing, z, reduction};
        CAPTURE(smoothing, z);
        check_gradients([&](const auto& a) { return square(cross_entropy(a, t, p)); }, x);
        check_gradients([&](const auto& a) { return square(cross_entropy_each(a, t, p)); }, x);
      }
      const CrossEntropyParameters p{-100, smoothing, 0, reduction};
      check_gradients([&](const auto& a) { return square(cross_entropy(a, t, p, w)); }, x);
      check_gradients([&](const auto& a) { return square(cross_entropy(a, q, p, w)); }, x);
      check_gradients([&](const auto& a) { return cross_entropy_each(a, q, p); }, x);
    }
  }
}

TEST_CASE("cross-entropy: ignored rows and large or masked logits") {
  auto x = random_tensor(1, 2, 3, 5);
  Ids t(2, 3);
  t.fill(-100);
  t(1, 2) = 4;
  for (Index c = 0; c < 5; ++c)
    x(0, 0, c) = std::numeric_limits<double>::quiet_NaN();  // of a position that does not count
  x(1, 2, 0) = -infinity;                                   // a class that cannot be
  Tape tape;
  const auto tracked = track(tape, x);
  const auto loss = cross_entropy(tracked, t);
  double total = 0;
  for (Index c = 1; c < 5; ++c) total += std::exp(x(1, 2, c));
  CHECK(std::abs(loss.item() - (std::log(total) - x(1, 2, 4))) < 1e-14);
  const auto g = tape.backward(loss).of(tracked);
  CHECK(difference(g, [&](Index i) {
          if (i < 25) return 0.0;
          const Index c = i - 25;
          return std::exp(x(1, 2, c)) / total - (c == 4 ? 1 : 0);
        }) < 1e-14);
  for (Index i = 0; i < 26; ++i) CHECK(g.data()[i] == 0);

  // Nothing counts: the loss and its gradient are 0, not NaN.
  t.fill(-100);
  Tape other;
  const auto again = track(other, random_tensor(1, 2, 3, 5));
  const auto nothing = cross_entropy(again, t, {.z_loss = 0.1});
  CHECK(nothing.item() == 0);
  const auto h = other.backward(nothing).of(again);
  CHECK(difference(h, [](Index) { return 0; }) == 0);

  // Probabilities of 0 where a logit is -inf.
  const DynTensor<double, 1> z(DynExtents<1>(3), {0, -infinity, 0}), p(DynExtents<1>(3), {0.5, 0, 0.5});
  CHECK(std::abs(*cross_entropy(z, p).data() - std::log(2)) < 1e-15);
}

TEST_CASE("cross-entropy: targets of any integer type, tracked or not") {
  const auto x = random_tensor<float>(2, 3, 5);
  const std::vector<std::uint8_t> bytes{4, 0, 2};
  const DynTensor<std::int32_t, 1> ints(DynExtents<1>(3), {4, 0, 2});
  const float expected = *cross_entropy(x, ints).data();
  CHECK(*cross_entropy(x, bytes).data() == expected);
  Tape tape;
  const auto loss = cross_entropy(x, track(tape, ints));
  static_assert(std::is_same_v<std::remove_const_t<decltype(loss)>, Tracked<DynTensor<float, 0>>>);
  CHECK(loss.item() == expected);
  CHECK(cross_entropy(track(tape, x), bytes).item() == expected);
}

TEST_CASE("cross-entropy: results do not depend on the number of threads, and gradients are plain memory") {
  const auto x = random_tensor<float>(1, 40, 30, 65);
  const Ids t = random_targets(40, 30, 65, -100);
  const auto gradient = [&] {
    Tape tape;
    const auto tracked = track(tape, x);
    return tape.backward(cross_entropy(tracked, t, {.label_smoothing = 0.1, .z_loss = 1e-4})).of(tracked);
  };
  const auto one_thread = gradient();
  set_num_threads(2);
  const auto two_threads = gradient();
  set_num_threads(1);
  CHECK(difference(two_threads, [&](Index i) { return one_thread.data()[i]; }) == 0);
}

TEST_CASE("cross-entropy says what is wrong") {
  const auto x = random_tensor(1, 2, 3, 5);
  const Ids t = random_targets(2, 3, 5, -100);
  Ids bad = t;
  bad(1, 2) = 5;
  CHECK(error_of<UsageError>([&] { cross_entropy(x, bad); }) ==
        "cross_entropy: target 5 at [1, 2], expected 0 to 4, or ignore_index -100");
  bad(0, 1) = -1;
  CHECK(error_of<UsageError>([&] { cross_entropy_each(x, bad); }) ==
        "cross_entropy: target -1 at [0, 1], expected 0 to 4, or ignore_index -100");
  const Ids narrow(2, 2);
  CHECK(error_of<ShapeError>([&] { cross_entropy(x, narrow); }) ==
        "cross_entropy: targets of shape [2, 2], expected [2, 3] for logits [2, 3, 5]");
  CHECK(error_of<ShapeError>([&] { cross_entropy(x, random_tensor(1, 2, 3, 4)); }) ==
        "cross_entropy: targets of shape [2, 3, 4], expected [2, 3, 5] for logits [2, 3, 5]");
  CHECK(error_of<ShapeError>([&] { cross_entropy(x, t, {}, random_tensor(1, 4)); }) ==
        "cross_entropy: class weights of shape [4], expected [5]");
  CHECK(error_of<ConfigError>([&] { cross_entropy(x, t, {.label_smoothing = 1}); }) ==
        "cross_entropy: label_smoothing is 1.000000, expected 0 <= s < 1");
  CHECK(error_of<ConfigError>([&] { cross_entropy(x, t, {.z_loss = -1}); }) ==
        "cross_entropy: z_loss is -1.000000, expected >= 0");
  CHECK(error_of<ConfigError>([&] { cross_entropy(x, t, {.z_loss = 1}, random_tensor(1, 5)); }) ==
        "cross_entropy: z_loss goes with index targets and without class weights");
  CHECK(error_of<ShapeError>([&] { cross_entropy(DynTensor<double, 2>(3, 0), DynTensor<int, 1>(3)); }) ==
        "cross_entropy: logits of shape [3, 0]; expected [..., V]");
}
