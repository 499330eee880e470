#pragma once
/// \file
/// A strict pull reader of JSON (RFC 8259). It builds nothing: io/json.hpp makes values with it, and the safetensors
/// reader takes its headers from it directly, so that what a file can make the process allocate is bounded by the
/// file's size.

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ordo/core/error.hpp"

namespace ordo {

struct JsonOptions {
  /// Accept what Python and Hugging Face write for numbers that are not finite: the bare tokens `Infinity`, `-Infinity`
  /// and `NaN`, and (in Json::parse) the object `{"__float__": "Infinity"}`.
  bool non_finite = false;
  /// How many arrays and objects may stand inside one another. Readers recurse; this bounds the stack.
  std::size_t max_depth = 128;
};

/// What a value is. An `integer` was written without point and exponent and fits in 64 bits; every other number is
/// `real`.
enum class JsonKind : unsigned char { null, boolean, integer, real, string, array, object };

namespace detail {

/// The length of the well-formed UTF-8 sequence that starts at text[at], 0 when there is none: overlong forms,
/// surrogates and what is above U+10FFFF are ill-formed (Unicode 15, table 3-7).
inline std::size_t utf8_sequence(std::string_view text, std::size_t at) noexcept {
  const auto byte = [&](std::size_t i) { return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0U; };
  const auto within = [&](std::size_t i, unsigned low, unsigned high) { return byte(i) >= low && byte(i) <= high; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return at < text.size() ? 1 : 0;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return within(1, 0x80, 0xBF) ? 2 : 0;
  if (lead < 0xF0) {
    const unsigned low = lead == 0xE0 ? 0xA0 : 0x80, high = lead == 0xED ? 0x9F : 0xBF;
    return within(1, low, high) && within(2, 0x80, 0xBF) ? 3 : 0;
  }
  if (lead > 0xF4) return 0;
  const unsigned low = lead == 0xF0 ? 0x90 : 0x80, high = lead == 0xF4 ? 0x8F : 0xBF;
  return within(1, low, high) && within(2, 0x80, 0xBF) && within(3, 0x80, 0xBF) ? 4 : 0;
}

/// The first byte of `text` that is not part of well-formed UTF-8, or npos.
inline std::size_t find_invalid_utf8(std::string_view text) noexcept {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_sequence(text, at);
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

inline void append_utf8(std::string& out, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xC0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xE0 | code >> 12);
    } else {
      put(0xF0 | code >> 18);
      put(0x80 | (code >> 12 & 0x3F));
    }
    put(0x80 | (code >> 6 & 0x3F));
  }
  put(0x80 | (code & 0x3F));
}

inline std::string hex_byte(unsigned char byte) {
  constexpr std::string_view digits = "0123456789abcdef";
  return std::string("0x") + digits[byte >> 4] + digits[byte & 15];
}

/// Text out of a file as messages show it: at most 120 bytes, nothing that could upset a terminal.
inline std::string printable(std::string_view text) {
  constexpr std::size_t longest = 120;
  std::string out;
  std::size_t at = 0;
  while (at < text.size() && at < longest) {
    const std::size_t length = utf8_sequence(text, at);
    const auto byte = static_cast<unsigned char>(text[at]);
    // U+0080..U+009F, which are C2 80..9F, control terminals too.
    const bool c1 = length == 2 && byte == 0xC2 && static_cast<unsigned char>(text[at + 1]) < 0xA0;
    if (length == 0 || byte < 0x20 || byte == 0x7F || c1) {
      out += "\\x" + hex_byte(byte).substr(2);
      ++at;
    } else {
      if (byte == '"' || byte == '\\') out += '\\';
      out += text.substr(at, length);
      at += length;
    }
  }
  return at < text.size() ? out + "..." : out;
}

inline std::string in_quotes(std::string_view text) { return '"' + printable(text) + '"'; }

}  // namespace detail

/// One number of a JSON text. Integers are exact over the whole range of both 64-bit types.
struct JsonNumber {
  enum class Form : unsigned char { signed_integer, unsigned_integer, real };
  Form form = Form::real;            ///< unsigned_integer only above the largest std::int64_t
  std::int64_t signed_value = 0;     ///< valid for signed_integer
  std::uint64_t unsigned_value = 0;  ///< valid for unsigned_integer
  double real = 0;                   ///< always the nearest double
};

/// Walks over a JSON text, value by value. Every error is a FileError that names the place and what was expected there.
///
///     JsonReader in(text, "config.json");
///     in.begin_object();
///     while (in.next_key(key)) { ... in.read_number() ... }
///     in.finish();
class JsonReader {
 public:
  /// `text` has to outlive the reader; `name` is what messages call it.
  explicit JsonReader(std::string_view text, std::string name = "JSON", JsonOptions options = {})
      : text_(text), name_(std::move(name)), options_(options) {}

  const JsonOptions& options() const noexcept { return options_; }

  /// What the next value is; numbers give `real` here, before they are read. An error when no value follows.
  JsonKind peek() {
    skip_space();
    switch (at_ < text_.size() ? text_[at_] : '\0') {
      case '{': return JsonKind::object;
      case '[': return JsonKind::array;
      case '"': return JsonKind::string;
      case 't':
      case 'f': return JsonKind::boolean;
      case 'n': return JsonKind::null;
      case 'I':
      case 'N':
        if (options_.non_finite) return JsonKind::real;
        unexpected("a value (NaN and Infinity are no JSON)");
      case '-': return JsonKind::real;
      case '\xEF': unexpected(at_ == 0 ? "a value without a byte order mark" : "a value");
      default:
        if (is_digit()) return JsonKind::real;
        unexpected("a value");
    }
  }

  void read_null() {
    require(JsonKind::null, "null");
    read_word("null");
  }

  bool read_bool() {
    require(JsonKind::boolean, "true or false");
    const bool value = text_[at_] == 't';
    read_word(value ? "true" : "false");
    return value;
  }

  JsonNumber read_number() {
    require(JsonKind::real, "a number");
    const std::size_t begin = at_;
    JsonNumber number;
    const bool negative = accept('-');
    if (options_.non_finite && at_ < text_.size() && (text_[at_] == 'I' || (text_[at_] == 'N' && !negative))) {
      const bool infinite = text_[at_] == 'I';
      read_word(infinite ? "Infinity" : "NaN");
      using Limits = std::numeric_limits<double>;
      number.real = infinite ? (negative ? -Limits::infinity() : Limits::infinity()) : Limits::quiet_NaN();
      return number;
    }
    bool integral = true;
    if (accept('0')) {
      if (is_digit()) fail_at(at_ - 1, "expected a number without leading zeros");
    } else {
      skip_digits("a digit");
    }
    if (accept('.')) {
      integral = false;
      skip_digits("a digit after the decimal point");
    }
    if (accept('e') || accept('E')) {
      integral = false;
      if (!accept('+')) accept('-');
      skip_digits("a digit of the exponent");
    }
    const char *first = text_.data() + begin, *last = text_.data() + at_;
    const auto [end, error] = std::from_chars(first, last, number.real);
    if (error == std::errc::result_out_of_range) {
      if (!underflows({first, last})) fail_at(begin, "expected a number that a double can hold");
      number.real = negative ? -0.0 : 0.0;
    }
    if (!integral) return number;
    if (std::from_chars(first, last, number.signed_value).ec == std::errc{}) {
      // "-0" stays a real: an integer would lose the sign.
      if (number.signed_value != 0 || !negative) number.form = JsonNumber::Form::signed_integer;
    } else if (!negative && std::from_chars(first, last, number.unsigned_value).ec == std::errc{}) {
      number.form = JsonNumber::Form::unsigned_integer;
    }
    return number;
  }

  /// Replaces `out`.
  void read_string(std::string& out) {
    require(JsonKind::string, "a string");
    out.clear();
    const std::size_t opening = at_++;
    for (;;) {
      const std::size_t run = at_;
      while (at_ < text_.size() && is_plain(text_[at_])) ++at_;
      out.append(text_, run, at_ - run);
      if (at_ == text_.size()) fail_at(opening, "expected a closing quote for the string that starts here");
      const char c = text_[at_];
      if (c == '"') break;
      if (c == '\\') {
        read_escape(out);
      } else if (static_cast<unsigned char>(c) < 0x20) {
        unexpected("an escape in place of the control character in a string");
      } else {
        const std::size_t length = detail::utf8_sequence(text_, at_);
        if (length == 0) unexpected("valid UTF-8");
        out.append(text_, at_, length);
        at_ += length;
      }
    }
    ++at_;
  }

  void begin_object() { begin(JsonKind::object, "an object"); }
  void begin_array() { begin(JsonKind::array, "an array"); }

  /// Reads the next key, up to and with its colon. False: the object has ended.
  bool next_key(std::string& key) {
    if (!next('}', "a comma or '}'")) return false;
    if (at_ == text_.size() || text_[at_] != '"') unexpected("a key in quotes");
    key_offset_ = at_;
    read_string(key);
    skip_space();
    if (!accept(':')) unexpected("':' after a key");
    return true;
  }

  /// True: another element follows. False: the array has ended.
  bool next_item() { return next(']', "a comma or ']'"); }

  /// Where the last key started, for fail_at().
  std::size_t key_offset() const noexcept { return key_offset_; }
  /// Where the next value starts.
  std::size_t offset() {
    skip_space();
    return at_;
  }

  /// Call it after the last value: only white space may follow.
  void finish() {
    skip_space();
    if (at_ != text_.size()) unexpected("the end of the text");
  }

  /// "name, line 3, column 7 (byte 41): message". Lines and columns count from 1, columns and offsets in bytes.
  [[noreturn]] void fail_at(std::size_t offset, const std::string& message) const {
    std::size_t line = 1, start = 0;
    for (std::size_t i = 0; i < offset && i < text_.size(); ++i) {
      if (text_[i] == '\n') {
        ++line;
        start = i + 1;
      }
    }
    fail<FileError>(name_ + ", line " + std::to_string(line) + ", column " + std::to_string(offset - start + 1) +
                    " (byte " + std::to_string(offset) + "): " + message);
  }

 private:
  [[noreturn]] void unexpected(const std::string& expected) const {
    std::string found = "the end of the text";
    if (at_ < text_.size()) {
      const char c = text_[at_];
      found =
          c >= ' ' && c <= '~' ? std::string("'") + c + "'" : "byte " + detail::hex_byte(static_cast<unsigned char>(c));
    }
    fail_at(at_, "expected " + expected + ", found " + found);
  }

  void require(JsonKind kind, const char* expected) {
    if (peek() != kind) unexpected(expected);
  }

  void begin(JsonKind kind, const char* expected) {
    require(kind, expected);
    if (open_.size() == options_.max_depth) {
      fail_at(at_, "expected at most " + std::to_string(options_.max_depth) + " arrays and objects inside one another");
    }
    ++at_;
    open_.push_back(State::empty);
  }

  bool next(char closing, const char* expected) {
    ORDO_ASSERT(!open_.empty());
    skip_space();
    if (accept(closing)) {
      open_.pop_back();
      return false;
    }
    if (open_.back() == State::filled) {
      if (!accept(',')) unexpected(expected);
      skip_space();
    }
    open_.back() = State::filled;
    return true;
  }

  void skip_space() noexcept {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
      ++at_;
  }

  bool accept(char c) noexcept {
    const bool found = at_ < text_.size() && text_[at_] == c;
    at_ += found;
    return found;
  }

  bool is_digit() const noexcept { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; }
  static bool is_plain(char c) noexcept { return c >= ' ' && c < '\x7F' && c != '"' && c != '\\'; }

  void skip_digits(const char* expected) {
    if (!is_digit()) unexpected(expected);
    while (is_digit()) ++at_;
  }

  void read_word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) unexpected(std::string(word));
    at_ += word.size();
  }

  void read_escape(std::string& out) {
    const std::size_t escape = at_++;
    const char c = at_ < text_.size() ? text_[at_++] : '\0';
    switch (c) {
      case '"':
      case '\\':
      case '/': out += c; return;
      case 'b': out += '\b'; return;
      case 'f': out += '\f'; return;
      case 'n': out += '\n'; return;
      case 'r': out += '\r'; return;
      case 't': out += '\t'; return;
      case 'u': break;
      default: fail_at(escape, "expected one of the escapes \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u");
    }
    std::uint32_t code = read_hex(escape);
    if (code >= 0xDC00 && code <= 0xDFFF) fail_at(escape, "expected a high surrogate before this low one");
    if (code >= 0xD800 && code <= 0xDBFF) {
      if (text_.substr(at_, 2) != "\\u") fail_at(escape, "expected a low surrogate after this high one");
      at_ += 2;
      const std::uint32_t low = read_hex(at_ - 2);
      if (low < 0xDC00 || low > 0xDFFF) fail_at(escape, "expected a low surrogate after this high one");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    detail::append_utf8(out, code);
  }

  std::uint32_t read_hex(std::size_t escape) {
    std::uint32_t code = 0;
    const char *first = text_.data() + at_, *last = first + (text_.size() - at_ < 4 ? text_.size() - at_ : 4);
    const auto [end, error] = std::from_chars(first, last, code, 16);
    if (error != std::errc{} || end - first != 4) fail_at(escape, "expected four hexadecimal digits after \\u");
    at_ += 4;
    return code;
  }

  /// Of a number that from_chars finds out of range: is it too small (and not too large)?
  static bool underflows(std::string_view token) noexcept {
    // The power of ten of the first digit that is not 0, by position; the exponent decides by its sign if it is huge.
    const std::size_t e = token.find_first_of("eE"), point = token.substr(0, e).find('.');
    const std::string_view mantissa = token.substr(0, e);
    const std::size_t digit = mantissa.find_first_of("123456789");
    if (digit == std::string_view::npos) return true;
    const auto integer_end = static_cast<std::int64_t>(point == std::string_view::npos ? mantissa.size() : point);
    const std::int64_t power = integer_end - static_cast<std::int64_t>(digit);
    if (e == std::string_view::npos) return power < 0;
    const std::string_view digits = token.substr(e + 1 + (token[e + 1] == '+'));
    std::int64_t exponent = 0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), exponent).ec != std::errc{})
      return digits[0] == '-';
    return exponent < -power;
  }

  enum class State : unsigned char { empty, filled };

  std::string_view text_;
  std::string name_;
  JsonOptions options_;
  std::size_t at_ = 0, key_offset_ = 0;
  std::vector<State> open_;
};

}  // namespace ordo
