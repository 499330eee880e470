#include "ordo/eval/layers/core.hpp"
#include "properties/streams.hpp"

TEMPLATE_TEST_CASE("properties: core layers stream, and keep rows and time apart", "", float, double) {
  properties::check_streams<TestType, ordo::Family::core>();
}
