#pragma once
/// \file
/// Errors. One family, four kinds; every message says what, where, expected and found.

#include <stdexcept>
#include <string>

#if !defined(__cpp_exceptions)
#include <cstdio>
#include <cstdlib>
#endif

namespace ordo {

/// The root of everything that Ordo throws.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A tensor has a shape that an op or layer cannot take.
class ShapeError : public Error {
 public:
  using Error::Error;
};

/// A configuration value is missing, unknown, or out of its range.
class ConfigError : public Error {
 public:
  using Error::Error;
};

/// A file is missing, malformed, or does not fit the model.
class FileError : public Error {
 public:
  using Error::Error;
};

/// A call that its object cannot serve now: a freed tape, an exhausted cache, a second derivative that does not exist.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// Throws E(message); a build without exceptions prints the same message and aborts.
template <class E>
[[noreturn]] void fail(const std::string& message) {
#if defined(__cpp_exceptions)
  throw E(message);
#else
  std::fprintf(stderr, "ordo: %s\n", message.c_str());
  std::abort();
#endif
}

}  // namespace ordo

/// Checks an invariant of hot code in debug builds. Redefine it to route failures elsewhere.
#ifndef ORDO_ASSERT
#include <cassert>
#define ORDO_ASSERT(condition) assert(condition)
#endif
