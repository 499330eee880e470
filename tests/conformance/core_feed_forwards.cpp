// Feed-forwards of the layer list.

#include "core_layers.hpp"

namespace conformance {
template void run_layer<Mlp<float>>(const Case&, RunMode, Report&);
template void run_layer<Mlp<double>>(const Case&, RunMode, Report&);
template void run_layer<SwiGlu<float>>(const Case&, RunMode, Report&);
template void run_layer<SwiGlu<double>>(const Case&, RunMode, Report&);
template void run_layer<GeGlu<float>>(const Case&, RunMode, Report&);
template void run_layer<GeGlu<double>>(const Case&, RunMode, Report&);
template void run_layer<ReGlu<float>>(const Case&, RunMode, Report&);
template void run_layer<ReGlu<double>>(const Case&, RunMode, Report&);
}  // namespace conformance
