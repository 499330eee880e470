// Convolutions of the layer list.

#include "core_layers.hpp"

namespace conformance {
template void run_layer<ShortConv<float>>(const Case&, RunMode, Report&);
template void run_layer<ShortConv<double>>(const Case&, RunMode, Report&);
template void run_layer<Conv1d<float>>(const Case&, RunMode, Report&);
template void run_layer<Conv1d<double>>(const Case&, RunMode, Report&);
template void run_layer<ConvTranspose1d<float>>(const Case&, RunMode, Report&);
template void run_layer<ConvTranspose1d<double>>(const Case&, RunMode, Report&);
template void run_layer<CausalConv1d<float>>(const Case&, RunMode, Report&);
template void run_layer<CausalConv1d<double>>(const Case&, RunMode, Report&);
}  // namespace conformance
