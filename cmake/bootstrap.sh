#!/bin/sh
# Installs what Ordo's build needs and the system lacks: a C++20 compiler, CMake, Ninja, xsimd, Eigen, Catch2 and Google
# Benchmark. On Debian and its relatives it uses apt-get, as root or through sudo; elsewhere it says what to install.
set -eu

missing=      # what lacks, for people
packages=     # the Debian packages that bring it

need() {  # need DESCRIPTION PACKAGE
  missing="$missing
  $1"
  packages="$packages $2"
}

accepts() {  # accepts STAGE TEXT: does the compiler take this C++, up to -E (preprocessing) or -fsyntax-only?
  [ -n "$compiler" ] && printf '%s\n' "$2" | "$compiler" -std=c++20 "$1" -x c++ \
    -isystem /usr/include/eigen3 -isystem /usr/local/include/eigen3 - >/dev/null 2>&1
}

at_least() {  # at_least VERSION LEAST, both MAJOR.MINOR...
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -t. -k1,1n -k2,2n | head -n 1)" = "$2" ]
}

look() {
  missing=
  packages=

  compiler=
  for candidate in ${CXX:-c++ g++ clang++}; do
    if command -v "$candidate" >/dev/null 2>&1; then
      compiler=$candidate
      if accepts -fsyntax-only '#include <concepts>
                   #include <span>
                   template <std::integral T> T twice(T x) { return 2 * x; }'; then
        break
      fi
      compiler=
    fi
  done
  [ -n "$compiler" ] || need "a C++20 compiler: g++ 10 or later, or clang++ 14 or later" g++

  cmake_version=$(cmake --version 2>/dev/null | sed -n 's/^cmake version //p') || :
  { [ -n "$cmake_version" ] && at_least "$cmake_version" 3.25; } || need "CMake 3.25 or later" cmake
  command -v ninja >/dev/null 2>&1 || command -v ninja-build >/dev/null 2>&1 || need "Ninja" ninja-build

  accepts -E '#include <xsimd/xsimd.hpp>
              #if XSIMD_VERSION_MAJOR * 100 + XSIMD_VERSION_MINOR < 801
              #error
              #endif' || need "xsimd 8.1 or later" libxsimd-dev
  accepts -E '#include <Eigen/Core>
              #if !EIGEN_VERSION_AT_LEAST(3, 4, 0)
              #error
              #endif' || need "Eigen 3.4 or later" libeigen3-dev
  accepts -E '#if !__has_include(<catch2/catch_all.hpp>) && !__has_include(<catch2/catch.hpp>)
              #error
              #endif' || need "Catch2 version 2 or 3 (tests)" catch2
  accepts -E '#if !__has_include(<benchmark/benchmark.h>)
              #error
              #endif' || need "Google Benchmark (benchmarks)" libbenchmark-dev
}

look
if [ -z "$missing" ]; then
  echo "bootstrap: nothing to install"
  exit 0
fi
echo "bootstrap: this system lacks or does not show:$missing"

if ! command -v apt-get >/dev/null 2>&1; then
  echo "bootstrap: no apt-get here; please install these with your system's package manager" >&2
  exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
  as_root=sudo
  if ! command -v sudo >/dev/null 2>&1; then
    echo "bootstrap: neither root nor sudo; please run as root: apt-get install$packages" >&2
    exit 1
  fi
fi

echo "bootstrap: installing with ${as_root:+$as_root }apt-get:$packages"
apt() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 "$@" </dev/null
}
apt update || echo "bootstrap: could not refresh the package lists; trying with the old ones" >&2
# shellcheck disable=SC2086  # a list of words
apt install --no-install-recommends $packages

look
if [ -n "$missing" ]; then
  echo "bootstrap: installed, but this system's packages still do not bring:$missing" >&2
  exit 1
fi
echo "bootstrap: done"
