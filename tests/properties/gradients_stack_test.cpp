#include "ordo/eval/layers/stack.hpp"
#include "properties/training.hpp"

TEST_CASE("properties: gradients of stack layers agree with differences") {
  properties::check_gradients<ordo::Family::stack>();
}
