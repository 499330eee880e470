#pragma once
/// \file
/// Counter-based random numbers: number i of a stream is a function of (seed, stream, i) alone, the same on every platform
/// and for any number of threads.

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "ordo/core/extents.hpp"

namespace ordo {

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the Random123 test vectors hold).
/// Normal numbers come from the inverse distribution function (Wichura 1988, AS 241), whose polynomials are evaluated with
/// explicit fused multiply-adds, so that no compiler may contract them differently.
class Random {
 public:
  explicit Random(std::uint64_t seed = 0, std::uint64_t stream = 0) noexcept : seed_(seed), stream_(stream) {}

  /// An independent generator; the same `index` gives the same one.
  Random split(std::uint64_t index) const noexcept {
    const auto b = block(seed_, {static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32),
                                 static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32) ^ 0x5bd1e995U});
    return Random(join(b[0], b[1]), join(b[2], b[3]));
  }

  /// 32 random bits.
  std::uint32_t bits() noexcept {
    const std::uint64_t index = position_++;
    if (index / 4 != cached_ || !filled_) {
      cached_ = index / 4;
      filled_ = true;
      buffer_ = block(seed_, {static_cast<std::uint32_t>(cached_), static_cast<std::uint32_t>(cached_ >> 32),
                              static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)});
    }
    return buffer_[index % 4];
  }

  /// Uniform on (0, 1), a multiple of 2^-53 plus half of it: never 0 or 1.
  double uniform() noexcept {
    const std::uint64_t hi = bits(), lo = bits();
    return (static_cast<double>((hi << 32 | lo) >> 12) + 0.5) * 0x1p-52;
  }
  double uniform(double low, double high) noexcept { return std::fma(high - low, uniform(), low); }

  /// Standard normal.
  double normal() noexcept { return inverse_normal(uniform()); }

  /// Uniform on 0..n-1, without bias (Lemire 2019). n >= 1.
  std::uint64_t below(std::uint64_t n) noexcept {
    if (n <= 0xffffffffU) {
      const auto m32 = static_cast<std::uint32_t>(n);
      std::uint64_t product = std::uint64_t{bits()} * m32;
      const std::uint32_t reject = (0U - m32) % m32;
      while (static_cast<std::uint32_t>(product) < reject) product = std::uint64_t{bits()} * m32;
      return product >> 32;
    }
    const std::uint64_t mask = ~std::uint64_t{0} >> std::countl_zero(n - 1);
    for (;;) {
      const std::uint64_t hi = bits(), x = (hi << 32 | bits()) & mask;
      if (x < n) return x;
    }
  }

  /// What a checkpoint has to keep: {seed, stream, position}.
  std::array<std::uint64_t, 3> state() const noexcept { return {seed_, stream_, position_}; }
  static Random from_state(const std::array<std::uint64_t, 3>& state) noexcept {
    Random r(state[0], state[1]);
    r.position_ = state[2];
    return r;
  }

  using Block = std::array<std::uint32_t, 4>;
  /// Ten rounds of Philox on one counter.
  static Block block(std::uint64_t key, Block c) noexcept {
    auto k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9U, k1 += 0xBB67AE85U) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * c[0], p1 = std::uint64_t{0xCD9E8D57U} * c[2];
      c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<std::uint32_t>(p1),
           static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<std::uint32_t>(p0)};
    }
    return c;
  }

  /// The x with P(standard normal <= x) = p, relative error about 1e-16 (AS 241, PPND16).
  static double inverse_normal(double p) noexcept {
    const double q = p - 0.5;
    if (std::abs(q) <= 0.425) {
      const double r = std::fma(-q, q, 0.180625);
      return q * horner(r, {2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4,
                            4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3,
                            1.3314166789178437745e2, 3.3871328727963666080e0}) /
             horner(r, {5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4,
                        2.1213794301586595867e4, 5.3941960214247511077e3, 6.8718700749205790830e2,
                        4.2313330701600911252e1, 1.0});
    }
    double r = std::sqrt(-natural_log(q < 0 ? p : 1.0 - p));
    if (r <= 5.0) {
      r -= 1.6;
      r = horner(r, {7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1,
                     1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0,
                     4.63033784615654529590e0, 1.42343711074968357734e0}) /
          horner(r, {1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2,
                     1.48103976427480074590e-1, 6.89767334985100004550e-1, 1.67638483018380384940e0,
                     2.05319162663775882187e0, 1.0});
    } else {
      r -= 5.0;
      r = horner(r, {2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3,
                     2.65321895265761230930e-2, 2.96560571828504891230e-1, 1.78482653991729133580e0,
                     5.46378491116411436990e0, 6.65790464350110377720e0}) /
          horner(r, {2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5,
                     7.86869131145613259100e-4, 1.48753612908506148525e-2, 1.36929880922735805310e-1,
                     5.99832206555887937690e-1, 1.0});
    }
    return q < 0 ? -r : r;
  }

 private:
  static double horner(double x, const std::array<double, 8>& c) noexcept {
    double y = c[0];
    for (std::size_t i = 1; i < c.size(); ++i) y = std::fma(y, x, c[i]);
    return y;
  }
  /// log of a normal positive number by the series of atanh: the C library's differs between platforms in the last bit.
  static double natural_log(double x) noexcept {
    int exponent = 0;
    double m = std::frexp(x, &exponent);
    if (m < 0.70710678118654752440) {
      m *= 2;
      --exponent;
    }
    const double s = (m - 1) / (m + 1), z = s * s;
    double sum = 0;
    for (int k = 23; k >= 1; k -= 2) sum = std::fma(sum, z, 1.0 / k);
    return std::fma(static_cast<double>(exponent), 0.69314718055994530942, 2 * s * sum);
  }
  static std::uint64_t join(std::uint32_t lo, std::uint32_t hi) noexcept { return std::uint64_t{hi} << 32 | lo; }

  std::uint64_t seed_, stream_, position_ = 0, cached_ = 0;
  bool filled_ = false;
  Block buffer_{};
};

}  // namespace ordo
