#include "ordo/eval/layers/ssm.hpp"
#include "properties/training.hpp"

TEST_CASE("properties: gradients of ssm layers agree with differences") {
  properties::check_gradients<ordo::Family::ssm>();
}
