#pragma once
/// \file
/// All of Ordo. One header a layer is there for programs that need less: ordo/nn/ssm/mamba.hpp, ordo/nn/softmax/softmax_attention.hpp.

#include "ordo/version.hpp"

#include "ordo/core/denormals.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/core/random.hpp"
#include "ordo/core/tensor.hpp"

#include "ordo/autograd/gradcheck.hpp"
#include "ordo/autograd/state.hpp"
#include "ordo/autograd/tape.hpp"

#include "ordo/ops/activation.hpp"
#include "ordo/ops/attention.hpp"
#include "ordo/ops/elementwise.hpp"
#include "ordo/ops/embedding.hpp"
#include "ordo/ops/loss.hpp"
#include "ordo/ops/matmul.hpp"
#include "ordo/ops/norm.hpp"
#include "ordo/ops/reduce.hpp"
#include "ordo/ops/rotary.hpp"
#include "ordo/ops/selective_scan.hpp"
#include "ordo/ops/shape.hpp"
#include "ordo/ops/short_conv.hpp"
#include "ordo/ops/softmax.hpp"

#include "ordo/nn/embedding.hpp"
#include "ordo/nn/feed_forward.hpp"
#include "ordo/nn/linear.hpp"
#include "ordo/nn/norm.hpp"
#include "ordo/nn/one_of.hpp"
#include "ordo/nn/short_conv.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/nn/ssm/mamba.hpp"

#include "ordo/stack/block.hpp"
#include "ordo/stack/causal_lm.hpp"

#include "ordo/decode/generate.hpp"
#include "ordo/decode/sample.hpp"

#include "ordo/train/adamw.hpp"
#include "ordo/train/batches.hpp"
#include "ordo/train/clip.hpp"
#include "ordo/train/data_parallel.hpp"
#include "ordo/train/schedule.hpp"

#include "ordo/io/checkpoint.hpp"
#include "ordo/io/config.hpp"
#include "ordo/io/json.hpp"
#include "ordo/io/model.hpp"
#include "ordo/io/safetensors.hpp"

#include "ordo/eval/ngram.hpp"
