#pragma once
// The two source files of the decoding family.

#include "report.hpp"

namespace conformance {

std::optional<Runner> find_search(std::string_view name);

// Integers have to be equal: compares, and says where they are not.
inline void compare_integers(const Case& c, const std::string& name, const AnyTensor<std::int32_t>& actual, Report& report) {
  const AnyTensor<std::int32_t> expected = c.read<std::int32_t>(name);
  if (!(expected.shape() == actual.shape())) {
    report.add(name, HUGE_VAL, 0.5);
    report.fail_with(name + ": expected shape " + ordo::to_string(expected.shape()) + ", computed " + ordo::to_string(actual.shape()));
    return;
  }
  int wrong = 0;
  for (Index i = 0; i < actual.size(); ++i) wrong += expected.data()[i] != actual.data()[i];
  report.add(name, wrong, 0.5);
}

}  // namespace conformance
