#include "ordo/eval/layers/ssm.hpp"
#include "layers.hpp"

namespace conformance {
RunFunction find_ssm_layer(std::string_view name, double) { return find_layer<double, Family::ssm>(name); }
}  // namespace conformance
