#include "ordo/eval/layers/recurrent.hpp"
#include "properties/training.hpp"

TEST_CASE("properties: gradients of recurrent layers agree with differences") {
  properties::check_gradients<ordo::Family::recurrent>();
}
