#include "stack.hpp"

namespace conformance {
RunFunction find_stack_model_of(std::string_view name, double) { return find_stack_model_of_type<double>(name); }
}  // namespace conformance
