#include "ordo/eval/layers/softmax.hpp"
#include "properties/training.hpp"

TEMPLATE_TEST_CASE("properties: training softmax layers takes nothing from the system and does not depend on threads", "", float,
                   double) {
  properties::check_training<TestType, ordo::Family::softmax>();
}
