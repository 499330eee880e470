#include "ordo/eval/layers/softmax.hpp"
#include "properties/training.hpp"

TEST_CASE("properties: gradients of softmax layers agree with differences") {
  properties::check_gradients<ordo::Family::softmax>();
}
