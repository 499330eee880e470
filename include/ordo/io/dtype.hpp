#pragma once
/// \file
/// The element types that a safetensors file can hold, and the conversion of stored elements to C++ types.

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"
#include "ordo/core/half.hpp"

namespace ordo {

/// The element type of a stored tensor. What the format calls "BOOL" is `boolean`; all others have the format's
/// letters.
enum class Dtype : unsigned char {
  boolean,
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  u64,
  i64,
  f16,
  bf16,
  f32,
  f64,
  // These are recognised and their bytes can be had, but nothing converts them.
  c64,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz
};

/// What a tensor's elements are, as far as a model cares.
enum class DtypeKind : unsigned char { any, floating, integer, boolean, other };

namespace detail {

struct DtypeRow {
  std::string_view name;
  std::size_t bytes;
  DtypeKind kind;
};

inline constexpr std::array<DtypeRow, 19> dtype_table{{{"BOOL", 1, DtypeKind::boolean},
                                                       {"U8", 1, DtypeKind::integer},
                                                       {"I8", 1, DtypeKind::integer},
                                                       {"U16", 2, DtypeKind::integer},
                                                       {"I16", 2, DtypeKind::integer},
                                                       {"U32", 4, DtypeKind::integer},
                                                       {"I32", 4, DtypeKind::integer},
                                                       {"U64", 8, DtypeKind::integer},
                                                       {"I64", 8, DtypeKind::integer},
                                                       {"F16", 2, DtypeKind::floating},
                                                       {"BF16", 2, DtypeKind::floating},
                                                       {"F32", 4, DtypeKind::floating},
                                                       {"F64", 8, DtypeKind::floating},
                                                       {"C64", 8, DtypeKind::other},
                                                       {"F8_E4M3", 1, DtypeKind::other},
                                                       {"F8_E5M2", 1, DtypeKind::other},
                                                       {"F8_E8M0", 1, DtypeKind::other},
                                                       {"F8_E4M3FNUZ", 1, DtypeKind::other},
                                                       {"F8_E5M2FNUZ", 1, DtypeKind::other}}};
static_assert(static_cast<std::size_t>(Dtype::f8_e5m2fnuz) + 1 == dtype_table.size());

constexpr const DtypeRow& row(Dtype dtype) noexcept { return dtype_table[static_cast<std::size_t>(dtype)]; }

}  // namespace detail

/// "BF16"
constexpr std::string_view to_string(Dtype dtype) noexcept { return detail::row(dtype).name; }
/// Bytes of one element.
constexpr std::size_t size_of(Dtype dtype) noexcept { return detail::row(dtype).bytes; }
constexpr DtypeKind kind_of(Dtype dtype) noexcept { return detail::row(dtype).kind; }

constexpr std::optional<Dtype> parse_dtype(std::string_view name) noexcept {
  for (std::size_t i = 0; i < detail::dtype_table.size(); ++i) {
    if (detail::dtype_table[i].name == name) return static_cast<Dtype>(i);
  }
  return std::nullopt;
}

namespace detail {

template <class T>
concept StoredFloat =
    std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, Float16> || std::same_as<T, BFloat16>;
/// The integer types proper: neither bool nor a character type other than signed and unsigned char.
template <class T>
concept StoredInteger =
    std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, char> && !std::same_as<T, wchar_t> &&
    !std::same_as<T, char8_t> && !std::same_as<T, char16_t> && !std::same_as<T, char32_t>;

}  // namespace detail

/// What a tensor can be read into and written from.
template <class T>
concept StoredElement = detail::StoredFloat<T> || detail::StoredInteger<T> || std::same_as<T, bool>;

/// The Dtype with exactly the representation of T.
template <StoredElement T>
constexpr Dtype dtype_of() noexcept {
  if constexpr (std::same_as<T, bool>) {
    return Dtype::boolean;
  } else if constexpr (std::same_as<T, Float16>) {
    return Dtype::f16;
  } else if constexpr (std::same_as<T, BFloat16>) {
    return Dtype::bf16;
  } else if constexpr (std::floating_point<T>) {
    return sizeof(T) == 4 ? Dtype::f32 : Dtype::f64;
  } else {
    constexpr bool with_sign = std::is_signed_v<T>;
    switch (sizeof(T)) {
      case 1: return with_sign ? Dtype::i8 : Dtype::u8;
      case 2: return with_sign ? Dtype::i16 : Dtype::u16;
      case 4: return with_sign ? Dtype::i32 : Dtype::u32;
      default: return with_sign ? Dtype::i64 : Dtype::u64;
    }
  }
}

/// The extents of a tensor of any rank, borrowed: from a Shape, a std::vector, a std::span or a braced list.
class ShapeRef {
 public:
  ShapeRef(std::span<const Index> extents) noexcept : extents_(extents) {}     // NOLINT(*-explicit-*)
  ShapeRef(const std::vector<Index>& extents) noexcept : extents_(extents) {}  // NOLINT(*-explicit-*)
  ShapeRef(std::initializer_list<Index> extents) noexcept : extents_(extents.begin(), extents.size()) {}
  // Shape::size() is a number of elements, so a span must not be left to ask for it.
  ShapeRef(const Shape& shape) noexcept : extents_(shape.begin(), shape.rank()) {}  // NOLINT(*-explicit-*)

  operator std::span<const Index>() const noexcept { return extents_; }  // NOLINT(*-explicit-*)

 private:
  std::span<const Index> extents_;
};

/// "[2, 3]"
inline std::string to_string(std::span<const Index> shape) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) text += (axis > 0 ? ", " : "") + std::to_string(shape[axis]);
  return text + "]";
}

namespace detail {

/// a * b, nothing when it exceeds an Index. Neither is negative.
constexpr std::optional<Index> checked_product(Index a, Index b) noexcept {
  constexpr Index most = PTRDIFF_MAX;
  if (a != 0 && b > most / a) return std::nullopt;
  return a * b;
}

/// The number of elements, nothing when it or a partial product of the extents exceeds an Index.
constexpr std::optional<Index> checked_size(std::span<const Index> shape) noexcept {
  std::optional<Index> size = 1;
  for (const Index extent : shape) {
    size = checked_product(*size, extent);
    if (!size) break;
  }
  return size;
}

/// Stored elements are little-endian and may stand at any address.
template <class T>
T load_little(const std::byte* p) noexcept {
  std::array<std::byte, sizeof(T)> bytes;
  std::memcpy(bytes.data(), p, sizeof(T));
  if constexpr (std::endian::native == std::endian::big) std::reverse(bytes.begin(), bytes.end());
  return std::bit_cast<T>(bytes);
}

template <class T>
void store_little(std::byte* p, T value) noexcept {
  auto bytes = std::bit_cast<std::array<std::byte, sizeof(T)>>(value);
  if constexpr (std::endian::native == std::endian::big) std::reverse(bytes.begin(), bytes.end());
  std::memcpy(p, bytes.data(), sizeof(T));
}

/// One floating value in another format, rounded once.
template <StoredFloat To, StoredFloat From>
constexpr To convert_float(From x) noexcept {
  if constexpr (std::same_as<To, From>) {
    return x;
  } else if constexpr (std::same_as<From, double>) {
    return static_cast<To>(x);
  } else {
    return static_cast<To>(static_cast<float>(x));  // both 16-bit formats are subsets of float
  }
}

/// Calls f.operator()<Stored>() with the C++ type that is stored as `dtype`. False: no such type (C64, the 8-bit
/// floats).
template <class F>
bool with_stored_type(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::boolean: f.template operator()<bool>(); return true;
    case Dtype::u8: f.template operator()<std::uint8_t>(); return true;
    case Dtype::i8: f.template operator()<std::int8_t>(); return true;
    case Dtype::u16: f.template operator()<std::uint16_t>(); return true;
    case Dtype::i16: f.template operator()<std::int16_t>(); return true;
    case Dtype::u32: f.template operator()<std::uint32_t>(); return true;
    case Dtype::i32: f.template operator()<std::int32_t>(); return true;
    case Dtype::u64: f.template operator()<std::uint64_t>(); return true;
    case Dtype::i64: f.template operator()<std::int64_t>(); return true;
    case Dtype::f16: f.template operator()<Float16>(); return true;
    case Dtype::bf16: f.template operator()<BFloat16>(); return true;
    case Dtype::f32: f.template operator()<float>(); return true;
    case Dtype::f64: f.template operator()<double>(); return true;
    default: return false;
  }
}

/// What came of a conversion: done, or the first element that does not fit, or a dtype that cannot become a T.
struct Conversion {
  enum class Outcome : unsigned char { done, wrong_dtype, wrong_value } outcome = Outcome::done;
  std::size_t index = 0;   // of the element that does not fit
  std::string value = "";  // that element
};

/// Reads out.size() elements stored as `dtype` at `data`. Floating to floating: exact when widening, rounded to nearest
/// when narrowing. Integers to integers when every value fits. BOOL (bytes 0 and 1 only) to bool and to integers.
template <StoredElement T>
Conversion read_elements(Dtype dtype, const std::byte* data, std::span<T> out) {
  using enum Conversion::Outcome;
  Conversion result;
  const auto convert = [&]<class Stored>() {
    if constexpr (std::same_as<Stored, bool>) {
      if constexpr (StoredFloat<T>) {
        result.outcome = wrong_dtype;
      } else {
        for (std::size_t i = 0; i < out.size(); ++i) {
          const auto byte = std::to_integer<unsigned>(data[i]);
          if (byte > 1) {
            result = {wrong_value, i, std::to_string(byte)};
            return;
          }
          out[i] = static_cast<T>(byte);
        }
      }
    } else if constexpr (std::same_as<Stored, T> && std::endian::native == std::endian::little) {
      if (!out.empty()) std::memcpy(out.data(), data, out.size_bytes());
    } else if constexpr (StoredFloat<Stored> && StoredFloat<T>) {
      for (std::size_t i = 0; i < out.size(); ++i) {
        out[i] = convert_float<T>(load_little<Stored>(data + i * sizeof(Stored)));
      }
    } else if constexpr (StoredInteger<Stored> && StoredInteger<T>) {
      for (std::size_t i = 0; i < out.size(); ++i) {
        const auto value = load_little<Stored>(data + i * sizeof(Stored));
        if (!std::in_range<T>(value)) {
          result = {wrong_value, i, std::to_string(value)};
          return;
        }
        out[i] = static_cast<T>(value);
      }
    } else {
      result.outcome = wrong_dtype;
    }
  };
  if (!with_stored_type(dtype, convert)) result.outcome = wrong_dtype;
  return result;
}

/// For messages: what read_elements() takes for a T.
template <StoredElement T>
constexpr std::string_view readable_as() noexcept {
  if constexpr (StoredFloat<T>) {
    return "a floating dtype (F16, BF16, F32, F64)";
  } else if constexpr (std::same_as<T, bool>) {
    return "BOOL";
  } else {
    return "an integer dtype or BOOL";
  }
}

}  // namespace detail
}  // namespace ordo
