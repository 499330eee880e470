#pragma once
/// \file
/// State-space layers of the layer list.

#include "ordo/eval/layers/entry.hpp"
#include "ordo/models/mamba.hpp"
#include "ordo/nn/ssm/mamba.hpp"

namespace ordo {

template <>
struct LayersOf<Family::ssm> {
  // Odd sizes, and sizes beyond one vector: tails and full vectors are both reached.
  template <class T, class F>
  static void list(F& f) {
    using detail::list_layer;
    list_layer<Mamba<T>>(f, "mamba", Family::ssm, {{.model_dim = 5, .state_dim = 3},
                                              {.model_dim = 4, .inner_dim = 17, .state_dim = 4, .conv_width = 3, .dt_rank = 3, .conv_bias = false, .proj_bias = true, .dt_b_c_norm = DtBcNorm::rms},
                                              {.model_dim = 3, .inner_dim = 5, .state_dim = 2, .conv_width = 1, .dt_rank = 2, .dt_b_c_norm = DtBcNorm::rms_weightless}});
    list_layer<MambaBlock<T>>(f, "mamba_block", Family::ssm, {{.mixer = {.model_dim = 5, .state_dim = 3}}});
  }
};

}  // namespace ordo
