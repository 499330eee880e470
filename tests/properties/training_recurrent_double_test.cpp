#include "ordo/eval/layers/recurrent.hpp"
#include "properties/training.hpp"

TEST_CASE("properties: training recurrent layers takes nothing from the system and does not depend on threads, double") {
  properties::check_training<double, ordo::Family::recurrent>();
}
