#include "stack.hpp"

namespace conformance {
RunFunction find_transformer_of(std::string_view name, float) { return find_transformer_of_type<float>(name); }
}  // namespace conformance
