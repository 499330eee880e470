#pragma once
/// \file
/// The two 16-bit formats that weights are stored in: IEEE 754 binary16 and bfloat16. They are storage only: arithmetic
/// goes through float. Widening is exact; narrowing rounds to nearest, ties to even, once (also from double).

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace ordo {

namespace detail {

template <class F>
struct FloatBits;
template <>
struct FloatBits<float> {
  using Bits = std::uint32_t;
  static constexpr int exponent = 8, mantissa = 23;
};
template <>
struct FloatBits<double> {
  using Bits = std::uint64_t;
  static constexpr int exponent = 11, mantissa = 52;
};

/// m / 2^shift, to nearest even. m has at most `digits` bits; shift >= 1.
template <class Bits>
constexpr Bits shift_round_even(Bits m, int shift, int digits) noexcept {
  if (shift > digits) return 0;  // below half of the last place
  const Bits half = Bits{1} << (shift - 1), quotient = m >> shift, rest = m & (2 * half - 1);
  return quotient + static_cast<Bits>(rest > half || (rest == half && (quotient & 1) != 0));
}

/// The bits of x in a format of one sign bit, E exponent bits and M mantissa bits. A NaN stays one (and becomes quiet);
/// what is too large becomes infinite; small numbers become subnormal, then zero, with their sign.
template <int E, int M, class F>
constexpr std::uint16_t narrow_bits(F x) noexcept {
  static_assert(1 + E + M == 16);
  using Source = FloatBits<F>;
  using Bits = typename Source::Bits;
  constexpr Bits one = 1;
  constexpr Bits mantissa_mask = (one << Source::mantissa) - 1, source_infinity = ((one << Source::exponent) - 1)
                                                                                  << Source::mantissa;
  constexpr Bits infinity = ((one << E) - 1) << M;
  constexpr int rebias = ((1 << (E - 1)) - 1) - ((1 << (Source::exponent - 1)) - 1);
  constexpr int drop = Source::mantissa - M;

  const Bits bits = std::bit_cast<Bits>(x);
  const Bits sign = (bits >> (Source::exponent + Source::mantissa)) << 15;
  const Bits magnitude = bits & (source_infinity | mantissa_mask);
  if (magnitude >= source_infinity) {
    const Bits payload = magnitude & mantissa_mask;
    const Bits nan = payload == 0 ? 0 : (one << (M - 1)) | (payload >> drop);
    return static_cast<std::uint16_t>(sign | infinity | nan);
  }
  // The magnitude is m * 2^(e - bias - mantissa bits) with e >= 1: a subnormal source has e = 1 and no hidden bit.
  Bits m = magnitude & mantissa_mask;
  int e = static_cast<int>(magnitude >> Source::mantissa);
  if (e == 0) {
    e = 1;
  } else {
    m |= one << Source::mantissa;
  }
  const int target = e + rebias;
  Bits result = 0;
  if (target < 1) {
    result = shift_round_even<Bits>(m, drop + 1 - target, Source::mantissa + 1);
  } else {
    // The hidden bit adds 1 to the exponent; a carry out of the mantissa adds another.
    result = shift_round_even<Bits>(m, drop, Source::mantissa + 1) + (static_cast<Bits>(target - 1) << M);
    if (result > infinity) result = infinity;
  }
  return static_cast<std::uint16_t>(sign | result);
}

}  // namespace detail

/// bfloat16: the upper half of a float. 8 significant bits, the range of float.
class BFloat16 {
 public:
  BFloat16() = default;
  explicit constexpr BFloat16(float x) noexcept : bits_(detail::narrow_bits<8, 7>(x)) {}
  explicit constexpr BFloat16(double x) noexcept : bits_(detail::narrow_bits<8, 7>(x)) {}
  static constexpr BFloat16 from_bits(std::uint16_t bits) noexcept {
    BFloat16 x{};
    x.bits_ = bits;
    return x;
  }
  constexpr std::uint16_t bits() const noexcept { return bits_; }

  explicit constexpr operator float() const noexcept { return std::bit_cast<float>(std::uint32_t{bits_} << 16); }
  explicit constexpr operator double() const noexcept { return static_cast<double>(static_cast<float>(*this)); }

 private:
  std::uint16_t bits_;
};

/// IEEE 754 binary16 ("half"). 11 significant bits, largest finite 65504, smallest 2^-24.
class Float16 {
 public:
  Float16() = default;
  explicit constexpr Float16(float x) noexcept : bits_(detail::narrow_bits<5, 10>(x)) {}
  explicit constexpr Float16(double x) noexcept : bits_(detail::narrow_bits<5, 10>(x)) {}
  static constexpr Float16 from_bits(std::uint16_t bits) noexcept {
    Float16 x{};
    x.bits_ = bits;
    return x;
  }
  constexpr std::uint16_t bits() const noexcept { return bits_; }

  explicit constexpr operator float() const noexcept {
    const std::uint32_t sign = std::uint32_t{bits_ & 0x8000U} << 16, magnitude = bits_ & 0x7fffU;
    // Subnormals go through an integer: a shifted bit pattern would be a subnormal float, which FlushDenormals makes
    // zero.
    const std::uint32_t small =
        std::bit_cast<std::uint32_t>(static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24F);
    const std::uint32_t normal = (magnitude << 13) + (magnitude < 0x7c00U ? 112U << 23 : 224U << 23);
    return std::bit_cast<float>(sign | (magnitude < 0x400U ? small : normal));
  }
  explicit constexpr operator double() const noexcept { return static_cast<double>(static_cast<float>(*this)); }

 private:
  std::uint16_t bits_;
};

static_assert(sizeof(BFloat16) == 2 && sizeof(Float16) == 2);
static_assert(std::is_trivially_copyable_v<BFloat16> && std::is_trivially_copyable_v<Float16>);
static_assert(std::numeric_limits<float>::is_iec559 && std::numeric_limits<double>::is_iec559);

}  // namespace ordo
