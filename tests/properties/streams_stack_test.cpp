#include "ordo/eval/layers/stack.hpp"
#include "properties/streams.hpp"

TEMPLATE_TEST_CASE("properties: stack layers stream, and keep rows and time apart", "", float, double) {
  properties::check_streams<TestType, ordo::Family::stack>();
}
