#include "stack.hpp"

namespace conformance {
RunFunction find_transformer_of(std::string_view name, double) { return find_transformer_of_type<double>(name); }
}  // namespace conformance
