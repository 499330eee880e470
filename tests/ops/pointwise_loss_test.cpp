#include "ordo/ops/pointwise_loss.hpp"

#include <cmath>
#include <limits>

#include "ops/support.hpp"
#include "ordo/ops/loss.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

namespace {

/// `each` is f(i), and its mean and sum are those of `reduced`.
template <class Each, class Reduced, class F>
void check_loss(const Each& each, Reduced&& reduced, F&& f) {
  CHECK(difference(each, f) < 1e-14);
  double total = 0;
  for (Index i = 0; i < each.size(); ++i) total += f(i);
  CHECK(std::abs(*reduced(Reduction::sum).data() - total) < 1e-13);
  CHECK(std::abs(*reduced(Reduction::mean).data() - total / static_cast<double>(each.size())) < 1e-14);
  CHECK(std::abs(*reduced(Reduction::batch_mean).data() - total / static_cast<double>(each.extent(0))) < 1e-13);
}

}  // namespace

TEST_CASE("squared, absolute and Huber's losses, and their gradients to both sides") {
  auto x = random_tensor(1, 3, 5), t = random_tensor(2, 3, 5);
  const auto d = [&](Index i) { return x.data()[i] - t.data()[i]; };
  check_loss(mse_loss_each(x, t), [&](Reduction r) { return mse_loss(x, t, r); }, [&](Index i) { return d(i) * d(i); });
  check_loss(l1_loss_each(x, t), [&](Reduction r) { return l1_loss(x, t, r); }, [&](Index i) { return std::abs(d(i)); });
  for (const double width : {0.3, 1.0, 2.5}) {
    const auto huber = [&](Index i) {
      return std::abs(d(i)) <= width ? d(i) * d(i) / 2 : width * (std::abs(d(i)) - width / 2);
    };
    check_loss(huber_loss_each(x, t, width), [&](Reduction r) { return huber_loss(x, t, width, r); }, huber);
    check_loss(smooth_l1_loss_each(x, t, width), [&](Reduction r) { return smooth_l1_loss(x, t, width, r); },
               [&](Index i) { return huber(i) / width; });
  }
  check_gradients([](const auto& a, const auto& b) { return square(mse_loss_each(a, b)); }, x, t);
  check_gradients([](const auto& a, const auto& b) { return mse_loss(square(a), b); }, x, t);
  check_gradients([](const auto& a, const auto& b) { return square(l1_loss_each(a, b)); }, x, t);
  check_gradients([](const auto& a, const auto& b) { return square(huber_loss_each(a, b, 0.7)); }, x, t);
  check_gradients([](const auto& a, const auto& b) { return smooth_l1_loss(square(a), b, 0.7, Reduction::sum); }, x, t);

  // The fourth derivative of (x^2 - t)^2 is 24: what the losses have no derivatives of is 0, not an error.
  Tape tape;
  const auto y = track(tape, x);
  auto g = sum(mse_loss_each(square(y), t));
  for (int order = 0; order < 3; ++order) g = sum(tape.gradient(g, y));
  CHECK(difference(tape.gradient(g, y), [](Index) { return 24; }) < 1e-12);

  CHECK(error_of<ShapeError>([&] { l1_loss(x, random_tensor(1, 5)); }) == "l1_loss: x has shape [3, 5], the target [5]");
  CHECK(error_of<ConfigError>([&] { huber_loss(x, t, 0); }) == "huber_loss: delta is 0.000000, expected > 0");
  CHECK(error_of<ConfigError>([&] { smooth_l1_loss(x, t, -1); }) == "smooth_l1_loss: beta is -1.000000, expected > 0");
}

TEST_CASE("binary cross-entropy: weights, soft targets, large logits") {
  auto x = random_tensor(1, -5.0, 5.0, 4, 3), y = random_tensor(2, 0.0, 1.0, 4, 3);
  auto w = random_tensor(3, 0.5, 2.0, 4, 3);
  auto p = random_tensor(4, 0.5, 2.0, 3);
  const auto loss = [&](Index i, double weight, double positive) {
    const double s = 1 / (1 + std::exp(-x.data()[i]));
    return -weight * (positive * y.data()[i] * std::log(s) + (1 - y.data()[i]) * std::log(1 - s));
  };
  check_loss(binary_cross_entropy_with_logits_each(x, y), [&](Reduction r) { return binary_cross_entropy_with_logits(x, y, none, none, r); },
             [&](Index i) { return loss(i, 1, 1); });
  check_loss(binary_cross_entropy_with_logits_each(x, y, w, p),
             [&](Reduction r) { return binary_cross_entropy_with_logits(x, y, w, p, r); },
             [&](Index i) { return loss(i, w.data()[i], p(i % 3)); });
  check_gradients([&](const auto& a, const auto& b) { return binary_cross_entropy_with_logits(a, b, w, p); }, x, y);
  check_gradients([&](const auto& a) { return square(binary_cross_entropy_with_logits_each(a, y)); }, x);
  Tape tape;
  const auto far = track(tape, DynTensor<float, 1>(DynExtents<1>(4), {200, -200, 200, -200}));
  const auto each = binary_cross_entropy_with_logits_each(far, DynTensor<float, 1>(DynExtents<1>(4), {1, 0, 0, 1}));
  const double expected[] = {0, 0, 200, 200}, slope[] = {0, 0, 1, -1};
  CHECK(difference(each, [&](Index i) { return expected[i]; }) < 1e-7);
  CHECK(difference(tape.backward(each).of(far), [&](Index i) { return slope[i]; }) < 1e-7);
  CHECK(error_of<ShapeError>([&] { binary_cross_entropy_with_logits(x, y, p); }) ==
        "binary_cross_entropy_with_logits: logits has shape [4, 3], weight [3]");
}

TEST_CASE("Kullback-Leibler divergence of probabilities and of their logarithms") {
  auto l = random_tensor(1, -3.0, 0.0, 2, 5), p = random_tensor(2, 0.05, 1.0, 2, 5), m = random_tensor(3, -3.0, 0.0, 2, 5);
  check_loss(kl_divergence_each(l, p), [&](Reduction r) { return kl_divergence(l, p, false, r); },
             [&](Index i) { return p.data()[i] * (std::log(p.data()[i]) - l.data()[i]); });
  check_loss(kl_divergence_each(l, m, true), [&](Reduction r) { return kl_divergence(l, m, true, r); },
             [&](Index i) { return std::exp(m.data()[i]) * (m.data()[i] - l.data()[i]); });
  check_gradients([](const auto& a, const auto& b) { return square(kl_divergence_each(a, b)); }, l, p);
  check_gradients([](const auto& a, const auto& b) { return square(kl_divergence_each(a, b, true)); }, l, m);
  // What cannot be and is not costs nothing.
  const double infinity = std::numeric_limits<double>::infinity();
  Tape tape;
  const auto q = track(tape, DynTensor<double, 1>(DynExtents<1>(2), {-infinity, 0}));
  const auto each = kl_divergence_each(q, DynTensor<double, 1>(DynExtents<1>(2), {0, 1}));
  CHECK(difference(each, [](Index) { return 0; }) == 0);
  CHECK(difference(tape.backward(each).of(q), [](Index i) { return -i; }) == 0);
  CHECK(error_of<ShapeError>([&] { kl_divergence(l, random_tensor(1, 5)); }) == "kl_divergence: log_q has shape [2, 5], p [5]");
}

TEST_CASE("likelihood of log-probabilities: weights, positions that do not count") {
  auto x = random_tensor(1, 2, 3, 4);
  const auto w = random_tensor(2, 0.5, 2.0, 4);
  const DynTensor<std::int64_t, 2> t(DynExtents<2>(2, 3), {3, -100, 0, 1, 1, -100});
  auto dirty = x;
  for (Index c = 0; c < 4; ++c) dirty(0, 1, c) = std::numeric_limits<double>::quiet_NaN();
  const auto loss = [&](Index i, bool weighted) {
    const Index c = t.data()[i];
    return c < 0 ? 0.0 : -(weighted ? w(c) : 1) * x.data()[i * 4 + c];
  };
  double plain = 0, weighted = 0;
  for (Index i = 0; i < 6; ++i) {
    plain += loss(i, false);
    weighted += loss(i, true);
  }
  CHECK(difference(nll_loss_each(dirty, t), [&](Index i) { return loss(i, false); }) < 1e-15);
  CHECK(difference(nll_loss_each(dirty, t, {}, w), [&](Index i) { return loss(i, true); }) < 1e-15);
  CHECK(std::abs(*nll_loss(dirty, t).data() - plain / 4) < 1e-14);
  CHECK(std::abs(*nll_loss(dirty, t, {}, w).data() - weighted / (w(3) + w(0) + 2 * w(1))) < 1e-14);
  CHECK(std::abs(*nll_loss(dirty, t, {.reduction = Reduction::sum}, w).data() - weighted) < 1e-14);
  CHECK(*nll_loss(x, DynTensor<int, 2>(DynExtents<2>(2, 3), 2), {.ignore_index = 2}).data() == 0);
  check_gradients([&](const auto& a) { return square(nll_loss(a, t, {}, w)); }, x);
  check_gradients([&](const auto& a) { return square(nll_loss_each(a, t)); }, x);
  Tape tape;
  const auto tracked = track(tape, dirty);
  const auto g = tape.backward(nll_loss(tracked, t)).of(tracked);
  CHECK(difference(g, [&](Index i) { return i % 4 == t.data()[i / 4] ? -0.25 : 0; }) == 0);
  CHECK(error_of<UsageError>([&] { nll_loss(x, DynTensor<int, 2>(DynExtents<2>(2, 3), 4)); }) ==
        "nll_loss: target 4 at [0, 0], expected 0 to 3, or ignore_index -100");
  CHECK(error_of<ShapeError>([&] { nll_loss(x, DynTensor<int, 1>(3)); }) ==
        "nll_loss: targets of shape [3], expected [2, 3] for log_probabilities [2, 3, 4]");
}
