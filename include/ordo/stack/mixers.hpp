#pragma once
/// \file
/// AnyMixer: the mixers that a block is described with by name.

#include "ordo/nn/one_of.hpp"
#include "ordo/nn/recurrent/gru.hpp"
#include "ordo/nn/recurrent/lstm.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/nn/ssm/mamba.hpp"

namespace ordo {

/// softmax_attention, mamba, lstm or gru, chosen by the configuration's `name`: hybrid stacks from one description.
template <class T = float>
using AnyMixer = OneOf<SoftmaxAttention<T>, Mamba<T>, Lstm<T>, Gru<T>>;

}  // namespace ordo
