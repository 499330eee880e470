#include "ordo/eval/layers/recurrent.hpp"
#include "properties/streams.hpp"

TEST_CASE("properties: recurrent layers stream, and keep rows and time apart, double") {
  properties::check_streams<double, ordo::Family::recurrent>();
}
