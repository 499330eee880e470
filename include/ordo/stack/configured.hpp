#pragma once
/// \file
/// Configured: a layer or model under another configuration.

#include "ordo/core/random.hpp"

namespace ordo {

/// Base, made from a configuration of its own: `Spec::expand()` gives Base's. How the named architectures are written: no layer twice.
template <class Base, class Spec>
class Configured : public Base {
 public:
  using Config = Spec;
  Configured() = default;
  Configured(const Spec& config, Random& random) : Base(config.expand(), random) {}
};

}  // namespace ordo
