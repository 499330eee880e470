#include "ordo/eval/layers/recurrent.hpp"
#include "layers.hpp"

namespace conformance {
RunFunction find_recurrent_layer(std::string_view name, double) { return find_layer<double, Family::recurrent>(name); }
}  // namespace conformance
