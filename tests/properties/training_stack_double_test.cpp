#include "ordo/eval/layers/stack.hpp"
#include "properties/training.hpp"

TEST_CASE("properties: training double stacks takes nothing from the system and does not depend on threads") {
  properties::check_training<double, ordo::Family::stack>();
}
