#include "core_layers.hpp"

namespace conformance {
RunFunction find_core_layer(std::string_view name, float) { return find_layer<float, Family::core>(name); }
}  // namespace conformance
