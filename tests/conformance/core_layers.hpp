#pragma once
// Core layers that are compiled apart from the others of their family (core_convs.cpp, core_feed_forwards.cpp): the family is too much
// for one source file.

#include "layers.hpp"
#include "ordo/eval/layers/core.hpp"

namespace conformance {

extern template void run_layer<ShortConv<float>>(const Case&, RunMode, Report&);
extern template void run_layer<ShortConv<double>>(const Case&, RunMode, Report&);
extern template void run_layer<Conv1d<float>>(const Case&, RunMode, Report&);
extern template void run_layer<Conv1d<double>>(const Case&, RunMode, Report&);
extern template void run_layer<ConvTranspose1d<float>>(const Case&, RunMode, Report&);
extern template void run_layer<ConvTranspose1d<double>>(const Case&, RunMode, Report&);
extern template void run_layer<CausalConv1d<float>>(const Case&, RunMode, Report&);
extern template void run_layer<CausalConv1d<double>>(const Case&, RunMode, Report&);

extern template void run_layer<Mlp<float>>(const Case&, RunMode, Report&);
extern template void run_layer<Mlp<double>>(const Case&, RunMode, Report&);
extern template void run_layer<SwiGlu<float>>(const Case&, RunMode, Report&);
extern template void run_layer<SwiGlu<double>>(const Case&, RunMode, Report&);
extern template void run_layer<GeGlu<float>>(const Case&, RunMode, Report&);
extern template void run_layer<GeGlu<double>>(const Case&, RunMode, Report&);
extern template void run_layer<ReGlu<float>>(const Case&, RunMode, Report&);
extern template void run_layer<ReGlu<double>>(const Case&, RunMode, Report&);

}  // namespace conformance
