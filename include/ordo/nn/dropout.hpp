#pragma once
/// \file
/// Dropout: on in training, off elsewhere.

#include "ordo/nn/layer.hpp"
#include "ordo/ops/dropout.hpp"

namespace ordo {

/// Sets elements to 0 with probability `rate` and divides the others by 1 - rate while a call is recorded; elsewhere the identity.   x, y: any
/// shape.
///
/// A model in training is one that is fed tracked tensors, and there the caller gives the random numbers beside them: the layer is const and
/// has none of its own.
///
///     y = dropout(layer(x), random);      // tracked: drops; plain: y = layer(x), and random is left alone
template <class T = float>
class Dropout {
 public:
  using value_type = T;
  struct Config {
    double rate = 0;
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("rate", c.rate);
    }
  };

  Dropout() = default;
  [[gnu::cold]] explicit Dropout(const Config& config) : rate_(config.rate) {
    if (!(rate_ >= 0 && rate_ < 1)) fail<ConfigError>({"dropout: rate is ", rate_, ", expected 0 <= rate < 1"});
  }
  [[gnu::cold]] Dropout(const Config& config, Random&) : Dropout(config) {}

  template <TensorLike X>
  X operator()(const X& x, Random& random) const {
    if constexpr (detail::is_tracked<X>) {
      if (rate_ > 0) return dropout(x, rate_, random);
    }
    return x;
  }

  template <class Self, class F>
  static void visit(Self&, F&&) {}

 private:
  double rate_ = 0;
};

}  // namespace ordo
