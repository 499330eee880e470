#include "ordo/eval/layers/softmax.hpp"
#include "layers.hpp"

namespace conformance {
RunFunction find_softmax_layer(std::string_view name, float) { return find_layer<float, Family::softmax>(name); }
}  // namespace conformance
