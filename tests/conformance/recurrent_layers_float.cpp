#include "ordo/eval/layers/recurrent.hpp"
#include "layers.hpp"

namespace conformance {
RunFunction find_recurrent_layer(std::string_view name, float) { return find_layer<float, Family::recurrent>(name); }
}  // namespace conformance
