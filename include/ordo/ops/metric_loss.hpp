#pragma once
/// \file
/// Losses that compare vectors with each other: cosine embedding, margin ranking, triplets, InfoNCE. Made of ops; they can be
/// differentiated any number of times. `..._each` does not reduce.

#include <cmath>
#include <cstdint>
#include <numeric>

#include "ordo/ops/loss.hpp"
#include "ordo/ops/matmul.hpp"
#include "ordo/ops/norm.hpp"
#include "ordo/ops/select.hpp"

namespace ordo {

namespace detail {

/// Targets of 1 and -1 as a mask: true = 1.
template <class Y>
AnyTensor<std::uint8_t> hold_signs(const char* op, const Y& target, const Shape& expected) {
  const AnyTensor<Index> signs = hold_indices(target);
  if (!(signs.shape() == expected)) {
    fail<ShapeError>({op, ": the target has shape ", signs.shape(), ", expected ", expected});
  }
  AnyTensor<std::uint8_t> positive(signs.shape());
  for (Index i = 0; i < signs.size(); ++i) {
    const Index s = signs.data()[i];
    if (s != 1 && s != -1) fail<UsageError>({op, ": target ", s, " at place ", i, ", expected 1 or -1"});
    positive.data()[i] = s == 1;
  }
  return positive;
}

/// (sum_i |a_i - b_i + eps|^p)^(1/p) along the last axis.
template <class A, class B>
auto pairwise_distance(const A& a, const B& b, double p, double eps) {
  const auto d = affine(sub(a, b), 1, eps);
  if (p == 1) return sum(abs(d), -1);
  if (p == 2) return sqrt(sum(square(d), -1));
  if (std::isinf(p)) return max(abs(d), -1);
  return pow(sum(pow(abs(d), p), -1), 1 / p);
}

}  // namespace detail

/// With cos the cosine between the rows of x1 and x2: 1 - cos where the target is 1, max(0, cos - margin) where it is -1.
///
/// x1, x2: [n, D], target: [n] integers 1 and -1; each: [n]. Squared lengths get 1e-12 more. Agrees with
/// torch.nn.functional.cosine_embedding_loss.
template <TensorLike A, TensorLike B, TensorLike Y>
auto cosine_embedding_loss_each(const A& x1, const B& x2, const Y& target, double margin = 0) {
  constexpr const char* op = "cosine_embedding_loss";
  detail::require_same_shape(op, "x1", x1, "x2", x2);
  const auto cosine = sum(mul(l2_norm(x1, 1e-12), l2_norm(x2, 1e-12)), -1);
  const auto positive = detail::hold_signs(op, target, detail::shape_of(cosine));
  return detail::choose(positive, target, affine(cosine, -1, 1), relu(affine(cosine, 1, -margin)));
}
template <TensorLike A, TensorLike B, TensorLike Y>
auto cosine_embedding_loss(const A& x1, const B& x2, const Y& target, double margin = 0, Reduction reduction = Reduction::mean) {
  return detail::reduced(cosine_embedding_loss_each(x1, x2, target, margin), reduction);
}

/// max(0, -target (x1 - x2) + margin): x1 should be the larger one where the target is 1, the smaller one where it is -1.
///
/// x1, x2, target: one shape. Agrees with torch.nn.functional.margin_ranking_loss.
template <TensorLike A, TensorLike B, TensorLike Y>
auto margin_ranking_loss_each(const A& x1, const B& x2, const Y& target, double margin = 0) {
  constexpr const char* op = "margin_ranking_loss";
  detail::require_same_shape(op, "x1", x1, "x2", x2);
  const auto first = detail::hold_signs(op, target, detail::shape_of(x1));
  return relu(affine(detail::choose(first, target, sub(x2, x1), sub(x1, x2)), 1, margin));
}
template <TensorLike A, TensorLike B, TensorLike Y>
auto margin_ranking_loss(const A& x1, const B& x2, const Y& target, double margin = 0, Reduction reduction = Reduction::mean) {
  return detail::reduced(margin_ranking_loss_each(x1, x2, target, margin), reduction);
}

struct TripletParameters {
  double margin = 1;
  double p = 2;       ///< of the distance (sum_i |a_i - b_i + eps|^p)^(1/p); at least 1, infinity too
  double eps = 1e-6;  ///< added to every difference, with its sign
  bool swap = false;  ///< the negative is compared with the nearer of anchor and positive
  Reduction reduction = Reduction::mean;
};

/// max(0, distance(anchor, positive) - distance(anchor, negative) + margin) of each row.
///
/// anchor, positive, negative: [n, D]; each: [n]. Balntas et al. 2016; agrees with torch.nn.functional.triplet_margin_loss.
template <TensorLike A, TensorLike P, TensorLike N>
auto triplet_loss_each(const A& anchor, const P& positive, const N& negative, const TripletParameters& parameters = {}) {
  constexpr const char* op = "triplet_loss";
  detail::require_same_shape(op, "anchor", anchor, "positive", positive);
  detail::require_same_shape(op, "anchor", anchor, "negative", negative);
  const double p = parameters.p, eps = parameters.eps;
  if (!(p >= 1)) fail<ConfigError>({op, ": p is ", p, ", expected at least 1"});
  const auto near = detail::pairwise_distance(anchor, positive, p, eps);
  const auto far = detail::pairwise_distance(anchor, negative, p, eps);
  const auto hinge = [&](const auto& distance) { return relu(affine(sub(near, distance), 1, parameters.margin)); };
  if (parameters.swap) return hinge(minimum(far, detail::pairwise_distance(positive, negative, p, eps)));
  return hinge(far);
}
template <TensorLike A, TensorLike P, TensorLike N>
auto triplet_loss(const A& anchor, const P& positive, const N& negative, const TripletParameters& parameters = {}) {
  return detail::reduced(triplet_loss_each(anchor, positive, negative, parameters), parameters.reduction);
}

enum class Similarity : unsigned char {
  cosine,  ///< a.b / (max(|a|, 1e-12) max(|b|, 1e-12))
  dot,     ///< a.b
};
struct InfoNceParameters {
  double scale = 20;  ///< multiplies the similarity: 1 / temperature
  Similarity similarity = Similarity::cosine;
  bool symmetric = false;  ///< the mean of the losses from anchors to positives and from positives to anchors
};

/// The mean over i of logsumexp_j S[i, j] - S[i, i], S[i, j] = scale similarity(anchors_i, candidate_j): every positive and negative of
/// the batch is a candidate of every anchor.
///
/// anchors, positives: [n, D]; negatives: [M, n, D] (M for each row) or none. Oord et al. 2018 (arXiv 1807.03748); agrees with
/// sentence-transformers' MultipleNegativesRankingLoss.
template <TensorLike A, TensorLike P, class N = None>
auto info_nce_loss(const A& anchors, const P& positives, const N& negatives = none, const InfoNceParameters& parameters = {}) {
  constexpr const char* op = "info_nce_loss";
  detail::require_same_shape(op, "anchors", anchors, "positives", positives);
  const Shape shape = detail::shape_of(anchors);
  if (shape.rank() != 2) fail<ShapeError>({op, ": anchors have shape ", shape, ", expected [n, D]"});
  const auto direction = [&](const auto& x) {
    return parameters.similarity == Similarity::cosine ? l2_norm(x, 1e-12, L2Eps::max) : affine(x, 1);
  };
  const auto candidates = detail::if_given(direction(positives), negatives, [&](const auto& all, const auto& more) {
    const Shape s = detail::shape_of(more);
    if (s.rank() != 3 || s[1] != shape[0] || s[2] != shape[1]) {
      fail<ShapeError>({op, ": negatives have shape ", s, ", expected [M, ", shape[0], ", ", shape[1], "]"});
    }
    return concat(0, all, direction(reshape(more, s[0] * s[1], s[2])));
  });
  const auto scores = affine(matmul(direction(anchors), candidates, false, true), parameters.scale);
  DynTensor<Index, 1> own(shape[0]);
  std::iota(own.begin(), own.end(), Index{0});
  const auto forth = cross_entropy(scores, own);
  if (!parameters.symmetric) return forth;
  return affine(add(forth, cross_entropy(transpose(slice(scores, 1, 0, shape[0]), 0, 1), own)), 0.5);
}

}  // namespace ordo
