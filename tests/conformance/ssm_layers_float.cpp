#include "ordo/eval/layers/ssm.hpp"
#include "layers.hpp"

namespace conformance {
RunFunction find_ssm_layer(std::string_view name, float) { return find_layer<float, Family::ssm>(name); }
}  // namespace conformance
