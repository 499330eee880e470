#include "ordo/eval/layers/softmax.hpp"
#include "layers.hpp"

namespace conformance {
RunFunction find_softmax_layer(std::string_view name, double) { return find_layer<double, Family::softmax>(name); }
}  // namespace conformance
