#pragma once
/// \file
/// AdamW.

#include "ordo/train/adam.hpp"

namespace ordo {

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), t = 1, 2, ...:
///
///     p = p (1 - lr wd);   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
///     p = p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
///
/// With amsgrad v in the last line is the largest so far, s = max(s, v). Agrees with torch.optim.AdamW.
///
///     AdamW optimizer({.learning_rate = 3e-3});                       // decays matrices only, see decays()
///     optimizer.step(model, gradients, schedule(t));
///
///     AdamW custom({}, [](const ParameterInfo& p) {                   // groups of one's own
///       return ParameterGroup{.weight_decay = decays(p) ? 0.1 : 0,
///                             .learning_rate_factor = p.path.starts_with("lm_head") ? 0.5 : 1};
///     });
using AdamW = Optimizer<AdamWRule>;

}  // namespace ordo
