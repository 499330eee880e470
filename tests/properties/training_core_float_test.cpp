#include "ordo/eval/layers/core.hpp"
#include "properties/training.hpp"

TEST_CASE("properties: training core layers in float takes nothing from the system and does not depend on threads") {
  properties::check_training<float, ordo::Family::core>();
}
