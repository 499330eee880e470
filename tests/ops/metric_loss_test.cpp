#include "ordo/ops/metric_loss.hpp"

#include <cmath>
#include <limits>

#include "ops/support.hpp"

using namespace ordo;  // NOLINT
using test::check_gradients;
using test::difference;
using test::error_of;
using test::random_tensor;

TEST_CASE("cosine embedding and margin ranking") {
  auto a = random_tensor(1, 4, 5), b = random_tensor(2, 4, 5);
  const std::vector<int> t{1, -1, -1, 1};
  for (const double margin : {-0.9, 0.0}) {
    const auto expected = [&](Index r) {
      double ab = 0, aa = 0, bb = 0;
      for (Index i = 0; i < 5; ++i) {
        ab += a(r, i) * b(r, i);
        aa += a(r, i) * a(r, i);
        bb += b(r, i) * b(r, i);
      }
      const double cosine = ab / std::sqrt((aa + 1e-12) * (bb + 1e-12));
      return t[static_cast<std::size_t>(r)] == 1 ? 1 - cosine : std::max(0.0, cosine - margin);
    };
    CHECK(difference(cosine_embedding_loss_each(a, b, t, margin), expected) < 1e-14);
    double total = 0;
    for (Index r = 0; r < 4; ++r) total += expected(r);
    CHECK(std::abs(*cosine_embedding_loss(a, b, t, margin).data() - total / 4) < 1e-14);
    check_gradients([&](const auto& x, const auto& y) { return square(cosine_embedding_loss_each(x, y, t, margin)); }, a, b);
  }
  auto p = random_tensor(3, 4), q = random_tensor(4, 4);
  CHECK(difference(margin_ranking_loss_each(p, q, t, 0.5), [&](Index i) {
          return std::max(0.0, -t[static_cast<std::size_t>(i)] * (p(i) - q(i)) + 0.5);
        }) < 1e-15);
  check_gradients([&](const auto& x, const auto& y) { return square(margin_ranking_loss_each(square(x), y, t, 0.5)); }, p, q);
  CHECK(error_of<UsageError>([&] { margin_ranking_loss(p, q, std::vector<int>{1, 0, 1, 1}); }) ==
        "margin_ranking_loss: target 0 at place 1, expected 1 or -1");
  CHECK(error_of<ShapeError>([&] { cosine_embedding_loss(a, b, std::vector<int>{1}); }) ==
        "cosine_embedding_loss: the target has shape [1], expected [4]");
  CHECK(error_of<ShapeError>([&] { cosine_embedding_loss(a, p, t); }) == "cosine_embedding_loss: x1 has shape [4, 5], x2 [4]");
}

TEST_CASE("triplets: distances of every p, swapped or not") {
  auto a = random_tensor(1, 6, 5), p = random_tensor(2, 6, 5), n = random_tensor(3, 6, 5);
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double order : {1.0, 2.0, 3.0, infinity}) {
    const auto distance = [&](const auto& x, const auto& y, Index r) {
      double total = 0;
      for (Index i = 0; i < 5; ++i) {
        const double d = std::abs(x(r, i) - y(r, i) + 0.01);
        total = std::isinf(order) ? std::max(total, d) : total + std::pow(d, order);
      }
      return std::isinf(order) ? total : std::pow(total, 1 / order);
    };
    for (const bool swap : {false, true}) {
      const TripletParameters parameters{.margin = 1.5, .p = order, .eps = 0.01, .swap = swap};
      CAPTURE(order, swap);
      CHECK(difference(triplet_loss_each(a, p, n, parameters), [&](Index r) {
              double far = distance(a, n, r);
              if (swap) far = std::min(far, distance(p, n, r));
              return std::max(0.0, distance(a, p, r) - far + 1.5);
            }) < 1e-14);
      check_gradients([&](const auto& x, const auto& y, const auto& z) { return square(triplet_loss_each(x, y, z, parameters)); }, a, p, n);
    }
  }
  check_gradients([&](const auto& y) { return triplet_loss(a, y, n, {.swap = true}); }, p);
  CHECK(error_of<ConfigError>([&] { triplet_loss(a, p, n, {.p = 0.5}); }) == "triplet_loss: p is 0.500000, expected at least 1");
}

TEST_CASE("InfoNCE: candidates of the whole batch, hard negatives, both directions") {
  auto a = random_tensor(1, 4, 3), p = random_tensor(2, 4, 3);
  auto n = random_tensor(3, 2, 4, 3);
  for (const Similarity similarity : {Similarity::cosine, Similarity::dot}) {
    const auto score = [&](const double* x, const double* y) {
      double xy = 0, xx = 0, yy = 0;
      for (Index i = 0; i < 3; ++i) {
        xy += x[i] * y[i];
        xx += x[i] * x[i];
        yy += y[i] * y[i];
      }
      return 3 * (similarity == Similarity::dot ? xy : xy / std::sqrt(xx * yy));
    };
    // The mean over i of -log softmax at (i, i); `more` other candidates.
    const auto direction = [&](const auto& from, const auto& to, const double* more, Index count) {
      double loss = 0;
      for (Index i = 0; i < 4; ++i) {
        double total = 0;
        for (Index j = 0; j < 4; ++j) total += std::exp(score(from.data() + 3 * i, to.data() + 3 * j));
        for (Index j = 0; j < count; ++j) total += std::exp(score(from.data() + 3 * i, more + 3 * j));
        loss += (std::log(total) - score(from.data() + 3 * i, to.data() + 3 * i)) / 4;
      }
      return loss;
    };
    const InfoNceParameters one{3, similarity, false}, both{3, similarity, true};
    const double forth = direction(a, p, nullptr, 0), back = direction(p, a, nullptr, 0), hard = direction(a, p, n.data(), 8);
    CHECK(std::abs(*info_nce_loss(a, p, none, one).data() - forth) < 1e-13);
    CHECK(std::abs(*info_nce_loss(a, p, none, both).data() - (forth + back) / 2) < 1e-13);
    CHECK(std::abs(*info_nce_loss(a, p, n, one).data() - hard) < 1e-13);
    CHECK(std::abs(*info_nce_loss(a, p, n, both).data() - (hard + back) / 2) < 1e-13);
    check_gradients([&](const auto& x, const auto& y) { return info_nce_loss(x, y, none, both); }, a, p);
    check_gradients([&](const auto& x, const auto& y, const auto& z) { return info_nce_loss(x, y, z, one); }, a, p, n);
  }
  CHECK(error_of<ShapeError>([&] { info_nce_loss(a, p, random_tensor(1, 2, 3, 3)); }) ==
        "info_nce_loss: negatives have shape [2, 3, 3], expected [M, 4, 3]");
}
