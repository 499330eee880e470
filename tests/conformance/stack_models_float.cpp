#include "stack.hpp"

namespace conformance {
RunFunction find_stack_model_of(std::string_view name, float) { return find_stack_model_of_type<float>(name); }
}  // namespace conformance
