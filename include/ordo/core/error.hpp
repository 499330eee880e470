#pragma once
/// \file
/// Errors. One family, four kinds; every message says what, where, expected and found.
///
/// Messages are listed in pieces, and put together elsewhere: checks stay a few instructions, and cheap to compile, in code
/// that is instantiated often.
///
///     if (a != b) fail<ShapeError>({"reshape: ", a, " has ", a.size(), " elements, ", b, " has ", b.size()});

#include <concepts>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <string_view>

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

class Shape;
std::string to_string(const Shape& shape);

/// A text, a number or a shape. Refers to what it was made from.
class MessagePart {
 public:
  MessagePart(const char* text) noexcept : text_(text) {}         // NOLINT(google-explicit-constructor)
  MessagePart(const std::string& text) noexcept : text_(text) {}  // NOLINT(google-explicit-constructor)
  MessagePart(std::string_view text) noexcept : text_(text) {}    // NOLINT(google-explicit-constructor)
  MessagePart(const Shape& shape) noexcept : kind_(Kind::shape), shape_(&shape) {}  // NOLINT(google-explicit-constructor)
  template <std::integral I>
  MessagePart(I number) noexcept : kind_(Kind::integer), integer_(static_cast<long long>(number)) {}  // NOLINT
  MessagePart(double number) noexcept : kind_(Kind::real), real_(number) {}  // NOLINT(google-explicit-constructor)

  [[gnu::cold]] void append_to(std::string& s) const {
    switch (kind_) {
      case Kind::text: s += text_; break;
      case Kind::integer: s += std::to_string(integer_); break;
      case Kind::real: s += std::to_string(real_); break;
      case Kind::shape: s += to_string(*shape_); break;
    }
  }

 private:
  enum class Kind : unsigned char { text, integer, real, shape } kind_ = Kind::text;
  union {
    std::string_view text_;
    long long integer_;
    double real_;
    const Shape* shape_;
  };
};

namespace detail {
[[gnu::cold, gnu::noinline]] inline std::string join(std::initializer_list<MessagePart> parts) {
  std::string s;
  for (const MessagePart& part : parts) part.append_to(s);
  return s;
}
}  // namespace detail

/// Throws E with the joined parts as its message.
template <class E>
[[noreturn, gnu::cold, gnu::noinline]] void fail(std::initializer_list<MessagePart> parts) {
  fail<E>(detail::join(parts));
}

}  // namespace ordo

/// Checks an invariant of hot code in debug builds. Redefine it to route failures elsewhere.
#ifndef ORDO_ASSERT
#include <cassert>
#define ORDO_ASSERT(condition) assert(condition)
#endif
