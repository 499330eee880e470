#include "core_layers.hpp"

namespace conformance {
RunFunction find_core_layer(std::string_view name, double) { return find_layer<double, Family::core>(name); }
}  // namespace conformance
