#pragma once
/// \file
/// The version of Ordo. These three numbers are its only source: CMake and pkg-config read them from here.

#define ORDO_VERSION_MAJOR 0
#define ORDO_VERSION_MINOR 1
#define ORDO_VERSION_PATCH 0

#include <compare>

namespace ordo {

/// A semantic version: until 1.0 a new minor number may break programs, a new patch number never does.
struct Version {
  int major_number;
  int minor_number;
  int patch_number;

  friend constexpr auto operator<=>(const Version&, const Version&) = default;
};

/// The version of the headers that this program was compiled with.
inline constexpr Version version{ORDO_VERSION_MAJOR, ORDO_VERSION_MINOR, ORDO_VERSION_PATCH};

}  // namespace ordo
