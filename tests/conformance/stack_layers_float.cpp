#include "ordo/eval/layers/stack.hpp"
#include "layers.hpp"

namespace conformance {
RunFunction find_stack_layer(std::string_view name, float) { return find_layer<float, Family::stack>(name); }
}  // namespace conformance
