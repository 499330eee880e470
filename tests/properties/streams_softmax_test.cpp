#include "ordo/eval/layers/softmax.hpp"
#include "properties/streams.hpp"

TEMPLATE_TEST_CASE("properties: softmax layers stream, and keep rows and time apart", "", float, double) {
  properties::check_streams<TestType, ordo::Family::softmax>();
}
