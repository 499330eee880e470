#include "ordo/eval/layers/stack.hpp"
#include "properties/training.hpp"

TEST_CASE("properties: training float stacks takes nothing from the system and does not depend on threads") {
  properties::check_training<float, ordo::Family::stack>();
}
