#include "ordo/eval/layers/ssm.hpp"
#include "properties/streams.hpp"

TEMPLATE_TEST_CASE("properties: ssm layers stream, and keep rows and time apart", "", float, double) {
  properties::check_streams<TestType, ordo::Family::ssm>();
}
