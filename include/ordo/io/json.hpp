#pragma once
/// \file
/// JSON values: configurations, metadata, indexes, checkpoints' side data. Strict (RFC 8259): no comments, no trailing
/// commas, no duplicate keys, UTF-8 checked, depth bounded. Objects keep the order of their keys.

#include <algorithm>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "ordo/core/error.hpp"
#include "ordo/io/json_reader.hpp"

namespace ordo {

class JsonRef;

struct JsonStyle {
  /// Spaces a level; 0 writes one line without spaces.
  int indent = 0;
  /// Write the bare tokens NaN, Infinity and -Infinity, which are no JSON; without it such a number is an error.
  bool non_finite = false;
};

/// A JSON value. Numbers that were written as integers stay exact 64-bit integers (signed or unsigned); all others are
/// doubles, which are written so that reading gives the same bits. `1` and `1.0` are different values and equally good
/// as `as_int`.
///
///     Json config = Json::parse(text, "config.json");
///     Index heads = config.named("config.json").at("num_attention_heads").as_int();
///
/// The accessors of JsonRef name the path of what they could not find or use.
class Json {
 public:
  using Member = std::pair<std::string, Json>;

  Json() noexcept = default;
  Json(std::nullptr_t) noexcept {}              // NOLINT(google-explicit-constructor): a Json says the same
  Json(bool value) noexcept : value_(value) {}  // NOLINT(google-explicit-constructor)
  template <std::integral I>
    requires(!std::same_as<I, bool>)
  Json(I value) noexcept {  // NOLINT(google-explicit-constructor)
    if (std::in_range<std::int64_t>(value)) {
      value_ = static_cast<std::int64_t>(value);
    } else {
      value_ = static_cast<std::uint64_t>(value);
    }
  }
  template <std::floating_point F>
  Json(F value) noexcept : value_(static_cast<double>(value)) {}  // NOLINT(google-explicit-constructor)
  Json(std::string value) : value_(std::move(value)) {}           // NOLINT(google-explicit-constructor)
  Json(std::string_view value) : value_(std::string(value)) {}    // NOLINT(google-explicit-constructor)
  Json(const char* value) : value_(std::string(value)) {}         // NOLINT(google-explicit-constructor)
  template <class P>
  Json(P*) = delete;  // would be a bool

  static Json array() { return Json(Value(std::vector<Json>())); }
  template <class Range>
  static Json array_of(const Range& range) {
    Json all = array();
    for (const auto& item : range) all.push_back(Json(item));
    return all;
  }
  static Json object() { return Json(Value(Object())); }

  /// Reads one value; only white space may stand around it. `name` is what messages call the text.
  static Json parse(std::string_view text, std::string name = "JSON", JsonOptions options = {}) {
    JsonReader in(text, std::move(name), options);
    Json value = read(in);
    in.finish();
    return value;
  }
  /// Reads the next value of a reader.
  static Json read(JsonReader& in);

  JsonKind kind() const noexcept {
    constexpr JsonKind kinds[] = {JsonKind::null, JsonKind::boolean, JsonKind::integer, JsonKind::integer,
                                  JsonKind::real, JsonKind::string,  JsonKind::array,   JsonKind::object};
    return kinds[value_.index()];
  }
  bool is_null() const noexcept { return kind() == JsonKind::null; }
  bool is_bool() const noexcept { return kind() == JsonKind::boolean; }
  bool is_number() const noexcept { return kind() == JsonKind::integer || kind() == JsonKind::real; }
  bool is_string() const noexcept { return kind() == JsonKind::string; }
  bool is_array() const noexcept { return kind() == JsonKind::array; }
  bool is_object() const noexcept { return kind() == JsonKind::object; }

  /// This value as the root of paths in messages, "name: a.b[3]: expected ...". The Json has to outlive what is made
  /// from it.
  JsonRef named(std::string_view name) const;

  /// The accessors of JsonRef, for a value without a name.
  JsonRef at(std::string_view key) const;
  JsonRef at(std::size_t index) const;
  std::int64_t as_int() const;
  std::uint64_t as_uint() const;
  double as_double() const;
  bool as_bool() const;
  const std::string& as_string() const;

  /// The value of a key, nullptr when this is no object or has no such key. O(log n).
  const Json* find(std::string_view key) const noexcept {
    const auto* object = std::get_if<Object>(&value_);
    if (object == nullptr) return nullptr;
    const auto place = object->place(key);
    return object->holds(place, key) ? &object->members[*place].second : nullptr;
  }
  Json* find(std::string_view key) noexcept { return const_cast<Json*>(std::as_const(*this).find(key)); }

  /// Adds or replaces a member; null turns into an object first.
  Json& set(std::string key, Json value);
  /// Adds an element; null turns into an array first.
  Json& push_back(Json value);

  /// The elements of an array, the members of an object in the order of insertion; empty for every other kind.
  const std::vector<Json>& items() const noexcept {
    static const std::vector<Json> nothing;
    const auto* array = std::get_if<std::vector<Json>>(&value_);
    return array != nullptr ? *array : nothing;
  }
  const std::vector<Member>& members() const noexcept {
    static const std::vector<Member> nothing;
    const auto* object = std::get_if<Object>(&value_);
    return object != nullptr ? object->members : nothing;
  }
  std::size_t size() const noexcept { return items().size() + members().size(); }

  std::string dump(JsonStyle style = {}) const {
    std::string out;
    write(out, style, 0);
    return out;
  }

  /// Appends `text` as a JSON string. What is not UTF-8 is a FileError: nobody could read it back.
  static void write_string(std::string& out, std::string_view text);

  /// Members compare without regard to their order; 1 and 1.0 differ.
  friend bool operator==(const Json& a, const Json& b) { return a.value_ == b.value_; }

 private:
  friend class JsonRef;

  struct Object {
    std::vector<Member> members;
    std::vector<std::size_t>
        order;  // places in `members`, sorted by key: lookups stay fast on any input, unlike a hash table

    /// Where the key stands in `order`, or would have to be inserted.
    std::vector<std::size_t>::const_iterator place(std::string_view key) const noexcept {
      return std::lower_bound(order.begin(), order.end(), key,
                              [&](std::size_t i, std::string_view k) { return members[i].first < k; });
    }
    bool holds(std::vector<std::size_t>::const_iterator place, std::string_view key) const noexcept {
      return place != order.end() && members[*place].first == key;
    }
    friend bool operator==(const Object& a, const Object& b) {
      return std::equal(a.order.begin(), a.order.end(), b.order.begin(), b.order.end(),
                        [&](std::size_t i, std::size_t j) { return a.members[i] == b.members[j]; });
    }
  };
  using Value =
      std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, std::vector<Json>, Object>;

  explicit Json(Value value) : value_(std::move(value)) {}

  /// For messages: `the string "abc"`.
  std::string describe() const;
  void write(std::string& out, const JsonStyle& style, int level) const;
  static void write_double(std::string& out, double value, const JsonStyle& style);
  static void new_line(std::string& out, const JsonStyle& style, int level) {
    if (style.indent <= 0) return;
    out += '\n';
    out.append(static_cast<std::size_t>(style.indent) * static_cast<std::size_t>(level), ' ');
  }

  Value value_;
};

/// A Json with the path that leads to it. Every accessor that fails throws a FileError "config.json:
/// rope_scaling.factor: expected a number, found the string "yarn"". Borrows: the Json has to live longer.
class JsonRef {
 public:
  JsonRef(const Json& value, std::string_view name) : value_(&value), path_(name) {}

  const Json& value() const noexcept { return *value_; }
  const Json& operator*() const noexcept { return *value_; }
  const Json* operator->() const noexcept { return value_; }
  /// "config.json: rope_scaling.factor"
  const std::string& path() const noexcept { return path_; }

  /// A member that has to be there.
  JsonRef at(std::string_view key) const {
    require(value_->is_object(), "an object");
    const Json* found = value_->find(key);
    if (found == nullptr) fail<FileError>(child(key) + ": missing");
    return JsonRef(*found, child(key), false);
  }
  /// An element of an array.
  JsonRef at(std::size_t index) const {
    require(value_->is_array(), "an array");
    const std::string path = path_ + (root_ && !path_.empty() ? ": [" : "[") + std::to_string(index) + "]";
    if (index >= value_->size())
      fail<FileError>(path + ": missing, the array has " + std::to_string(value_->size()) + " elements");
    return JsonRef(value_->items()[index], path, false);
  }
  /// A member that may be absent.
  std::optional<JsonRef> find(std::string_view key) const {
    require(value_->is_object(), "an object");
    const Json* found = value_->find(key);
    if (found == nullptr) return std::nullopt;
    return JsonRef(*found, child(key), false);
  }
  /// A member as T; `fallback` when it is absent or null.
  template <class T>
  T get_or(std::string_view key, T fallback) const {
    const auto found = find(key);
    return found && !(*found)->is_null() ? found->template as<T>() : std::move(fallback);
  }

  /// A whole number in the range of std::int64_t; `3.0` and `3e2` are whole.
  std::int64_t as_int() const { return whole<std::int64_t>(); }
  std::uint64_t as_uint() const { return whole<std::uint64_t>(); }
  /// A number; integers beyond 2^53 are rounded.
  double as_double() const {
    if (const auto* real = get<double>()) return *real;
    if (const auto* integer = get<std::int64_t>()) return static_cast<double>(*integer);
    if (const auto* integer = get<std::uint64_t>()) return static_cast<double>(*integer);
    wrong("a number");
  }
  bool as_bool() const {
    if (const auto* value = get<bool>()) return *value;
    wrong("true or false");
  }
  const std::string& as_string() const {
    if (const auto* value = get<std::string>()) return *value;
    wrong("a string");
  }
  /// bool, an integer type (range checked), float or double (rounded), std::string, or a std::vector of these.
  template <class T>
  T as() const {
    if constexpr (std::same_as<T, bool>) {
      return as_bool();
    } else if constexpr (std::integral<T>) {
      return whole<T>();
    } else if constexpr (std::floating_point<T>) {
      return static_cast<T>(as_double());
    } else if constexpr (std::convertible_to<const std::string&, T>) {
      return as_string();
    } else {
      require(value_->is_array(), "an array");
      T all;
      all.reserve(value_->size());
      for (std::size_t i = 0; i < value_->size(); ++i) all.push_back(at(i).template as<typename T::value_type>());
      return all;
    }
  }

  /// Throws a FileError about this value: "path: expected `expected`, found ...".
  [[noreturn]] void wrong(std::string_view expected) const {
    fail<FileError>(path_ + (path_.empty() ? "" : ": ") + "expected " + std::string(expected) + ", found " +
                    value_->describe());
  }

 private:
  JsonRef(const Json& value, std::string path, bool root) : value_(&value), path_(std::move(path)), root_(root) {}

  template <class T>
  const T* get() const noexcept {
    return std::get_if<T>(&value_->value_);
  }

  void require(bool fine, std::string_view expected) const {
    if (!fine) wrong(expected);
  }

  std::string child(std::string_view key) const {
    const bool plain = !key.empty() && key.size() <= 120 && std::all_of(key.begin(), key.end(), [](char c) {
      return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == '-';
    });
    std::string path = path_ + (root_ && !path_.empty() ? ": " : "");
    if (!plain) return path + "[" + detail::in_quotes(key) + "]";
    return path + (root_ ? "" : ".") + std::string(key);
  }

  template <class I>
  I whole() const {
    if (const auto* integer = get<std::int64_t>()) {
      if (std::in_range<I>(*integer)) return static_cast<I>(*integer);
    } else if (const auto* large = get<std::uint64_t>()) {
      if (std::in_range<I>(*large)) return static_cast<I>(*large);
    } else if (const auto* real = get<double>()) {
      // Both limits are exact doubles: the lowest value, and one above the largest.
      constexpr double low = static_cast<double>(std::numeric_limits<I>::min());
      constexpr double above = 2.0 * static_cast<double>(std::numeric_limits<I>::max() / 2 + 1);
      if (*real >= low && *real < above && std::trunc(*real) == *real) return static_cast<I>(*real);
    }
    if (!value_->is_number()) wrong("a whole number");
    wrong("a whole number from " + std::to_string(std::numeric_limits<I>::min()) + " to " +
          std::to_string(std::numeric_limits<I>::max()));
  }

  const Json* value_;
  std::string path_;
  bool root_ = true;
};

inline JsonRef Json::named(std::string_view name) const { return JsonRef(*this, name); }
inline JsonRef Json::at(std::string_view key) const { return named("").at(key); }
inline JsonRef Json::at(std::size_t index) const { return named("").at(index); }
inline std::int64_t Json::as_int() const { return named("").as_int(); }
inline std::uint64_t Json::as_uint() const { return named("").as_uint(); }
inline double Json::as_double() const { return named("").as_double(); }
inline bool Json::as_bool() const { return named("").as_bool(); }
inline const std::string& Json::as_string() const { return named("").as_string(); }

inline Json Json::read(JsonReader& in) {
  switch (in.peek()) {
    case JsonKind::null: in.read_null(); return Json();
    case JsonKind::boolean: return Json(in.read_bool());
    case JsonKind::integer:
    case JsonKind::real: {
      const JsonNumber number = in.read_number();
      if (number.form == JsonNumber::Form::signed_integer) return Json(number.signed_value);
      if (number.form == JsonNumber::Form::unsigned_integer) return Json(number.unsigned_value);
      return Json(number.real);
    }
    case JsonKind::string: {
      std::string text;
      in.read_string(text);
      return Json(std::move(text));
    }
    case JsonKind::array: {
      std::vector<Json> items;
      in.begin_array();
      while (in.next_item()) items.push_back(read(in));
      return Json(Value(std::move(items)));
    }
    case JsonKind::object: break;
  }
  Object object;
  std::vector<std::size_t> offsets;
  std::string key;
  in.begin_object();
  while (in.next_key(key)) {
    offsets.push_back(in.key_offset());
    Json value = read(in);
    object.members.emplace_back(std::move(key), std::move(value));
  }
  const auto& members = object.members;
  auto& order = object.order;
  order.resize(members.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) {
    const int compared = members[i].first.compare(members[j].first);
    return compared != 0 ? compared < 0 : i < j;
  });
  std::size_t duplicate = members.size();
  for (std::size_t i = 1; i < order.size(); ++i) {
    if (members[order[i - 1]].first == members[order[i]].first) duplicate = std::min(duplicate, order[i]);
  }
  if (duplicate != members.size()) {
    in.fail_at(offsets[duplicate],
               "expected each key once in an object, found " + detail::in_quotes(members[duplicate].first) + " again");
  }
  if (in.options().non_finite && members.size() == 1 && members[0].first == "__float__" &&
      members[0].second.is_string()) {
    const std::string& text = members[0].second.as_string();
    using Limits = std::numeric_limits<double>;
    if (text == "Infinity") return Json(Limits::infinity());
    if (text == "-Infinity") return Json(-Limits::infinity());
    if (text == "NaN") return Json(Limits::quiet_NaN());
  }
  return Json(Value(std::move(object)));
}

inline Json& Json::set(std::string key, Json value) {
  if (is_null()) value_ = Object();
  auto* object = std::get_if<Object>(&value_);
  if (object == nullptr) fail<UsageError>("json: set() on " + describe() + ", which is no object");
  const auto place = object->place(key);
  if (object->holds(place, key)) {
    object->members[*place].second = std::move(value);
  } else {
    object->order.insert(place, object->members.size());
    object->members.emplace_back(std::move(key), std::move(value));
  }
  return *this;
}

inline Json& Json::push_back(Json value) {
  if (is_null()) value_ = std::vector<Json>();
  auto* array = std::get_if<std::vector<Json>>(&value_);
  if (array == nullptr) fail<UsageError>("json: push_back() on " + describe() + ", which is no array");
  array->push_back(std::move(value));
  return *this;
}

inline std::string Json::describe() const {
  switch (kind()) {
    case JsonKind::array: return "an array of " + std::to_string(size());
    case JsonKind::object: return "an object";
    case JsonKind::string: return "the string " + detail::in_quotes(*std::get_if<std::string>(&value_));
    case JsonKind::integer:
    case JsonKind::real: return "the number " + dump({.indent = 0, .non_finite = true});
    default: return dump();
  }
}

inline void Json::write_string(std::string& out, std::string_view text) {
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    const std::size_t length = detail::utf8_sequence(text, at);
    if (length == 0)
      fail<FileError>("json: cannot write the string " + detail::in_quotes(text) + ", which is not UTF-8");
    if (c == '"' || c == '\\') {
      (out += '\\') += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00" + detail::hex_byte(static_cast<unsigned char>(c)).substr(2);
    } else {
      out.append(text, at, length);
    }
    at += length;
  }
  out += '"';
}

inline void Json::write_double(std::string& out, double value, const JsonStyle& style) {
  if (!std::isfinite(value)) {
    if (!style.non_finite) fail<FileError>("json: cannot write a number that is not finite");
    out += std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
    return;
  }
  char digits[32];  // the longest shortest form is 24 characters: -1.7976931348623157e+308
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  const std::string_view text(digits, static_cast<std::size_t>(end - digits));
  out += text;
  if (text.find_first_of(".e") == std::string_view::npos) out += ".0";  // or it would be read as an integer
}

inline void Json::write(std::string& out, const JsonStyle& style, int level) const {
  const auto separate = [&](bool& first) {
    if (!first) out += ',';
    first = false;
    new_line(out, style, level + 1);
  };
  bool first = true;
  switch (value_.index()) {
    case 0: out += "null"; return;
    case 1: out += *std::get_if<bool>(&value_) ? "true" : "false"; return;
    case 2: out += std::to_string(*std::get_if<std::int64_t>(&value_)); return;
    case 3: out += std::to_string(*std::get_if<std::uint64_t>(&value_)); return;
    case 4: write_double(out, *std::get_if<double>(&value_), style); return;
    case 5: write_string(out, *std::get_if<std::string>(&value_)); return;
    case 6:
      out += '[';
      for (const Json& item : items()) {
        separate(first);
        item.write(out, style, level + 1);
      }
      if (!first) new_line(out, style, level);
      out += ']';
      return;
    default:
      out += '{';
      for (const auto& [key, value] : members()) {
        separate(first);
        write_string(out, key);
        out += style.indent > 0 ? ": " : ":";
        value.write(out, style, level + 1);
      }
      if (!first) new_line(out, style, level);
      out += '}';
  }
}

}  // namespace ordo
