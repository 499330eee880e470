#include "ordo/eval/layers/recurrent.hpp"
#include "properties/streams.hpp"

TEST_CASE("properties: recurrent layers stream, and keep rows and time apart, float") {
  properties::check_streams<float, ordo::Family::recurrent>();
}
