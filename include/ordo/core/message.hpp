#pragma once
/// \file
/// Error messages from pieces. The place that fails only lists them, and the string is put together elsewhere: checks
/// stay a few instructions, and cheap to compile, in code that is instantiated often.
///
///     if (a != b) fail<ShapeError>({"reshape: ", a, " has ", a.size(), " elements, ", b, " has ", b.size()});

#include <concepts>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"

namespace ordo {

/// A text, a number or a shape. Refers to what it was made from.
class MessagePart {
 public:
  MessagePart(const char* text) noexcept : text_(text) {}         // NOLINT(google-explicit-constructor)
  MessagePart(const std::string& text) noexcept : text_(text) {}  // NOLINT(google-explicit-constructor)
  MessagePart(std::string_view text) noexcept : text_(text) {}    // NOLINT(google-explicit-constructor)
  MessagePart(const Shape& shape) noexcept
      : kind_(Kind::shape), shape_(&shape) {}  // NOLINT(google-explicit-constructor)
  template <std::integral I>
  MessagePart(I number) noexcept : kind_(Kind::integer), integer_(static_cast<long long>(number)) {}  // NOLINT
  MessagePart(double number) noexcept : kind_(Kind::real), real_(number) {}  // NOLINT(google-explicit-constructor)

  void append_to(std::string& s) const {
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
