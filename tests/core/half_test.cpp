#include "ordo/core/half.hpp"

#include <cmath>
#include <cstdint>
#include <limits>

#include "ordo/core/denormals.hpp"
#include "ordo/core/random.hpp"
#include "support/catch.hpp"

using ordo::BFloat16;
using ordo::Float16;

namespace {

// The value of a 16-bit pattern from the definition: E exponent bits, M mantissa bits.
template <int E, int M>
double value_of(unsigned bits) {
  const int exponent = static_cast<int>(bits >> M & ((1U << E) - 1)), bias = (1 << (E - 1)) - 1;
  const double mantissa = static_cast<double>(bits & ((1U << M) - 1)), sign = (bits & 0x8000U) != 0 ? -1 : 1;
  if (exponent == (1 << E) - 1) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - M);
  return sign * std::ldexp(mantissa + (1 << M), exponent - bias - M);
}

// The nearest pattern, by search over the values: ties to the even one.
template <int E, int M>
unsigned nearest(double x) {
  const unsigned sign = std::signbit(x) ? 0x8000U : 0U, infinity = ((1U << E) - 1) << M;
  x = std::fabs(x);
  unsigned low = 0, high = infinity;  // the value of low is at most x
  while (high - low > 1) {
    const unsigned middle = (low + high) / 2;
    (value_of<E, M>(middle) <= x ? low : high) = middle;
  }
  if (x >= value_of<E, M>(infinity)) return sign | infinity;
  // The step above the largest finite number counts as if one more number stood there.
  const double below = value_of<E, M>(low);
  const double above = high == infinity ? 2 * below - value_of<E, M>(low - 1) : value_of<E, M>(high);
  const double down = x - below, up = above - x;  // exact: the operands are within a factor of two or tiny
  if (down != up) return sign | (down < up ? low : high);
  return sign | ((low & 1) == 0 ? low : high);
}

template <class H, int E, int M>
void check_widening() {
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const H h = H::from_bits(static_cast<std::uint16_t>(bits));
    const double expected = value_of<E, M>(bits);
    const float wide = static_cast<float>(h);
    if (std::isnan(expected)) {
      wrong += !std::isnan(wide);
      wrong += !std::isnan(static_cast<float>(H(wide)));
    } else {
      wrong += static_cast<double>(wide) != expected || std::signbit(wide) != std::signbit(expected);
      wrong += static_cast<double>(h) != expected;
      wrong += H(wide).bits() != bits || H(expected).bits() != bits;
    }
  }
  CHECK(wrong == 0);
}

template <class H, int E, int M>
void check_narrowing() {
  ordo::Random random(7);
  int wrong = 0;
  const auto check = [&](double x) {
    wrong += H(x).bits() != nearest<E, M>(x);
    const float f = static_cast<float>(x);
    wrong += H(f).bits() != nearest<E, M>(static_cast<double>(f));
  };
  for (int i = 0; i < 100000; ++i) {
    check(random.normal());
    check(std::ldexp(random.uniform(-2, 2), static_cast<int>(random.below(60)) - 40));    // also subnormal in binary16
    check(std::ldexp(random.uniform(-2, 2), static_cast<int>(random.below(290)) - 160));  // also subnormal in bfloat16
  }
  // Around each number and each midpoint between two.
  for (unsigned bits = 0; bits + 1 < ((1U << E) - 1) << M; ++bits) {
    const double a = value_of<E, M>(bits), b = value_of<E, M>(bits + 1), middle = (a + b) / 2;
    for (const double x : {a, middle, std::nextafter(middle, a), std::nextafter(middle, b)}) {
      wrong += H(x).bits() != nearest<E, M>(x) || H(-x).bits() != nearest<E, M>(-x);
    }
    const float f = static_cast<float>(middle);  // exact
    for (const float x : {f, std::nextafter(f, 0.0F), std::nextafter(f, 1e38F)}) {
      wrong += H(x).bits() != nearest<E, M>(static_cast<double>(x));
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("binary16 and bfloat16 widen exactly and come back") {
  check_widening<Float16, 5, 10>();
  check_widening<BFloat16, 8, 7>();
}

TEST_CASE("narrowing rounds to nearest even") {
  check_narrowing<Float16, 5, 10>();
  check_narrowing<BFloat16, 8, 7>();
}

TEST_CASE("known values of the 16-bit formats") {
  CHECK(Float16(1.0F).bits() == 0x3C00);
  CHECK(Float16(-2.0).bits() == 0xC000);
  CHECK(Float16(65504.0F).bits() == 0x7BFF);
  CHECK(Float16(65519.99F).bits() == 0x7BFF);
  CHECK(Float16(65520.0F).bits() == 0x7C00);  // a tie, and infinity is the even neighbour
  CHECK(Float16(0x1p-24).bits() == 1);
  CHECK(Float16(0x1p-25).bits() == 0);
  CHECK(Float16(0x1.000002p-25F).bits() == 1);
  CHECK(Float16(-0.0F).bits() == 0x8000);
  CHECK(BFloat16(1.0F).bits() == 0x3F80);
  CHECK(BFloat16(3.3895313892515355e38F).bits() == 0x7F7F);
  CHECK(BFloat16(std::numeric_limits<float>::max()).bits() == 0x7F80);
  CHECK(BFloat16(1e300).bits() == 0x7F80);
  CHECK(static_cast<float>(BFloat16(static_cast<float>(std::sqrt(24.0)))) == 4.90625F);
  CHECK(static_cast<float>(BFloat16(static_cast<float>(std::sqrt(2560.0)))) == 50.5F);

  // Through float this double would be rounded twice, the second time down from a tie.
  const double x = 1.0 + 0x1p-11 + 0x1p-40;
  CHECK(Float16(x).bits() == 0x3C01);
  CHECK(Float16(static_cast<float>(x)).bits() == 0x3C00);

  // A NaN whose payload sits in the dropped bits must not turn into an infinity.
  const float nan = std::bit_cast<float>(0x7F800001U);
  CHECK(std::isnan(static_cast<float>(BFloat16(nan))));
  CHECK(std::isnan(static_cast<float>(Float16(nan))));

  static_assert(Float16(0.5F).bits() == 0x3800 && static_cast<float>(BFloat16::from_bits(0x4000)) == 2.0F);
}

TEST_CASE("binary16 subnormals survive the flushing of denormals") {
  const ordo::FlushDenormals flush;
  volatile std::uint16_t one = 1;
  CHECK(static_cast<float>(Float16::from_bits(one)) == 0x1p-24F);
  volatile float small = 0x1p-24F;
  CHECK(Float16(small).bits() == 1);
}
