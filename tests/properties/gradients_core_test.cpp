#include "ordo/eval/layers/core.hpp"
#include "properties/training.hpp"

TEST_CASE("properties: gradients of core layers agree with differences") {
  properties::check_gradients<ordo::Family::core>();
}
