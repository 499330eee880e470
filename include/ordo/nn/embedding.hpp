#pragma once
/// \file
/// Embedding: a row of a table for each token.

#include "ordo/nn/layer.hpp"
#include "ordo/ops/embedding.hpp"
#include "ordo/ops/matmul.hpp"

namespace ordo {

/// y = scale * weight[ids].   ids: [...] integers in 0..vocab_size-1 (others throw), y: [..., model_dim].
///
/// The row `padding_index` (-1: none) is looked up like any other and gets gradient 0. Starts N(0, 0.02^2).
/// Agrees with torch.nn.functional.embedding.
template <class T = float>
class Embedding {
 public:
  using value_type = T;
  struct Config {
    Index vocab_size = 0, model_dim = 0;
    Index padding_index = -1;
    double scale = 1;
    double init_deviation = 0.02;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("vocab_size", c.vocab_size);
      f("model_dim", c.model_dim);
      f("padding_index", c.padding_index);
      f("scale", c.scale);
    }
  };

  Embedding() = default;
  [[gnu::cold]] Embedding(const Config& config, Random& random) : config_(config) {
    detail::require_at_least("embedding", "vocab_size", config.vocab_size, 1);
    detail::require_at_least("embedding", "model_dim", config.model_dim, 1);
    weight_ = normal_parameter<T>(DynExtents<2>(config.vocab_size, config.model_dim), config.init_deviation, random);
  }

  template <TensorLike Ids>
  auto operator()(const Ids& ids) const {
    return embedding(weight_, ids, config_.scale, config_.padding_index);
  }
  /// x weight^T: the table as the head of a language model (tied weights).
  template <TensorLike X>
  auto logits(const X& x) const {
    return linear(x, weight_, none);
  }

  const DynParameter<T, 2>& weight() const noexcept { return weight_; }
  DynParameter<T, 2>& weight() noexcept { return weight_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("weight", self.weight_);
  }

 private:
  Config config_;
  DynParameter<T, 2> weight_;
};

}  // namespace ordo
