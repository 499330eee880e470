#pragma once
/// \file
/// Configurations from JSON and to JSON, by their visit.

#include <algorithm>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/core/visit.hpp"
#include "ordo/io/json.hpp"
#include "ordo/kernels/activation.hpp"

namespace ordo {

/// How the fields of an enumeration are written: functions found beside it,
///
///     bool from_string(std::string_view name, DtBcNorm& value);      // false: no such name
///     std::string to_string(DtBcNorm value);
template <class E>
concept NamedEnum = std::is_enum_v<E> && requires(std::string_view name, E& e) {
  { from_string(name, e) } -> std::convertible_to<bool>;
  { to_string(e) } -> std::convertible_to<std::string>;
};

inline bool from_string(std::string_view name, Activation& value) {
  for (std::size_t i = 0; i < detail::activation_names.size(); ++i) {
    if (detail::activation_names[i] == name) {
      value = static_cast<Activation>(i);
      return true;
    }
  }
  return false;
}

namespace detail {

template <class X>
inline constexpr bool is_optional = false;
template <class X>
inline constexpr bool is_optional<std::optional<X>> = true;
template <class X>
inline constexpr bool is_vector = false;
template <class X, class A>
inline constexpr bool is_vector<std::vector<X, A>> = true;
/// A vector whose elements have fields or names of their own, which JsonRef::as() cannot read.
template <class X>
inline constexpr bool is_nested_vector = false;
template <class X, class A>
inline constexpr bool is_nested_vector<std::vector<X, A>> = !std::is_arithmetic_v<X> && !std::is_same_v<X, std::string>;

template <Visitable C>
void read_fields(const JsonRef& json, C& config);

/// null: "none" where an enumeration has that, nothing for an optional, and else the field keeps its default.
template <class Field>
void read_field(const JsonRef& json, Field& field) {
  if constexpr (Visitable<Field>) {
    if (!json->is_null()) read_fields(json, field);
  } else if constexpr (is_optional<Field>) {
    if (json->is_null()) {
      field.reset();
    } else {
      read_field(json, field.emplace());
    }
  } else if constexpr (std::is_enum_v<Field>) {
    static_assert(NamedEnum<Field>,
                  "a configuration's enumeration needs from_string(std::string_view, E&) and to_string(E) beside it");
    if (json->is_null()) {
      from_string("none", field);
    } else if (!from_string(json.as_string(), field)) {
      fail<ConfigError>(json.path() + ": unknown name " + in_quotes(json.as_string()));
    }
  } else if constexpr (is_nested_vector<Field>) {
    if (json->is_null()) return;
    if (!json->is_array()) json.wrong("an array");
    Field all(json->size());
    for (std::size_t i = 0; i < all.size(); ++i) read_field(json.at(i), all[i]);
    field = std::move(all);
  } else {
    if (!json->is_null()) field = json.template as<Field>();
  }
}

template <Visitable C>
void read_fields(const JsonRef& json, C& config) {
  if (!json->is_object()) json.wrong("an object");
  std::vector<std::string> known;
  C::visit(config, [&](std::string_view name, auto& field) {
    known.emplace_back(name);
    if (const auto member = json.find(name)) read_field(*member, field);
  });
  std::string unknown;
  std::size_t count = 0;
  for (const auto& [key, value] : json->members()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    unknown += (count++ > 0 ? ", " : "") + in_quotes(key);
  }
  if (count == 0) return;
  std::string all;
  for (const std::string& name : known) all += (all.empty() ? "" : ", ") + name;
  fail<ConfigError>(json.path() + (json.path().empty() ? "" : ": ") + (count == 1 ? "unknown key " : "unknown keys ") +
                    unknown + "; known are " + all);
}

template <class Field>
Json write_field(const Field& field) {
  if constexpr (Visitable<const Field>) {
    Json json = Json::object();
    Field::visit(field,
                 [&](std::string_view name, const auto& inner) { json.set(std::string(name), write_field(inner)); });
    return json;
  } else if constexpr (is_optional<Field>) {
    return field ? write_field(*field) : Json();
  } else if constexpr (std::is_enum_v<Field>) {
    return Json(std::string(to_string(field)));
  } else if constexpr (is_vector<Field>) {
    Json json = Json::array();
    for (const auto& inner : field) json.push_back(write_field(inner));
    return json;
  } else {
    return Json(field);
  }
}

}  // namespace detail

/// Reads the fields of a configuration from an object; those that are absent, and those given as null, keep their
/// values. Numbers such as 4.0 are good for whole numbers. Keys that no field has are a ConfigError that names them and
/// the known ones; values of a wrong kind are a FileError with their path. On an error `config` stays as it was.
///
///     Mamba<float>::Config config;
///     read_config(Json::parse(text).named("config.json"), config);
template <Visitable C>
void read_config(const JsonRef& json, C& config) {
  C read = config;
  detail::read_fields(json, read);
  config = std::move(read);
}
template <Visitable C>
void read_config(const Json& json, C& config) {
  read_config(json.named("config"), config);
}

/// A configuration as an object that read_config() reads back to the same values.
template <Visitable C>
Json write_config(const C& config) {
  return detail::write_field(config);
}

}  // namespace ordo
