#include "ordo/eval/layers/stack.hpp"
#include "layers.hpp"

namespace conformance {
RunFunction find_stack_layer(std::string_view name, double) { return find_layer<double, Family::stack>(name); }
}  // namespace conformance
