#include "ordo/eval/layers/ssm.hpp"
#include "properties/training.hpp"

TEMPLATE_TEST_CASE("properties: training ssm layers takes nothing from the system and does not depend on threads", "", float,
                   double) {
  properties::check_training<TestType, ordo::Family::ssm>();
}
