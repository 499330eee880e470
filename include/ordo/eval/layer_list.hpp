#pragma once
/// \file
/// The layer list: the one place that names every layer. Property tests, conformance, benchmarks and documentation loop over it, so
/// that a new layer gets all of them from one line in its family's file (eval/layers).

#include "ordo/eval/layers/core.hpp"
#include "ordo/eval/layers/recurrent.hpp"
#include "ordo/eval/layers/softmax.hpp"
#include "ordo/eval/layers/ssm.hpp"
#include "ordo/eval/layers/stack.hpp"

namespace ordo {

/// Calls f(LayerEntry<Layer>) for every layer over the scalar type T.
template <class T, class F>
void for_each_layer(F&& f) {
  using enum Family;
  for_each_layer<T, core, ssm, softmax, recurrent, stack>(f);
}

}  // namespace ordo
