// Positions: rotations, sinusoids, slopes, buckets.

#include <cmath>

#include "ops/support.hpp"
#include "ordo/ops/rotary.hpp"

using namespace ordo;

TEST_CASE("positions: rotated queries and keys meet by their distance alone") {
  for (const bool interleaved : {false, true}) {
    const auto q = test::random_tensor(1, 1, 1, 1, 10), k = test::random_tensor(2, 1, 1, 1, 10);
    const auto dot = [&](Index a, Index b) {
      const auto x = rotary(q, 8, 100, interleaved, a), y = rotary(k, 8, 100, interleaved, b);
      double sum = 0;
      for (Index i = 0; i < x.size(); ++i) sum += x.data()[i] * y.data()[i];
      return sum;
    };
    CHECK(std::abs(dot(3, 1) - dot(1002, 1000)) < 1e-11);
    CHECK(std::abs(dot(3, 1) - dot(3, 2)) > 1e-3);
    const auto x = rotary(q, 8, 100, interleaved, 5);
    CHECK(x.data()[8] == q.data()[8]);
    CHECK(x.data()[9] == q.data()[9]);
  }
}

TEST_CASE("positions: rotation has its gradient") {
  const auto x = test::random_tensor(3, 2, 3, 2, 6);
  AnyTensor<std::int32_t> positions(Shape{2, 3});
  for (Index i = 0; i < 6; ++i) positions.data()[i] = static_cast<std::int32_t>(7 * i % 5);
  RopeScaling scaling;
  scaling.type = RopeScalingType::yarn;
  scaling.factor = 4;
  scaling.original_max_length = 16;
  const RotaryTable<double> table(rotary_frequencies(4, 100, scaling), positions);
  const auto result = gradcheck([&](const auto& in) { return rotary(in, table, true); }, x);
  INFO(result.where);
  CHECK(result.error < 1e-8);
}

TEST_CASE("positions: scalings of rotary frequencies") {
  const auto plain = rotary_frequencies(8, 10000);
  CHECK(plain.inv_freq[0] == 1.0);
  CHECK(std::abs(plain.inv_freq[2] - 0.01) < 1e-15);
  RopeScaling s;
  s.type = RopeScalingType::dynamic;
  s.factor = 2;
  s.max_length = 16;
  CHECK(rotary_frequencies(8, 10000, s, 16).inv_freq == plain.inv_freq);  // no longer than trained: nothing changes
  CHECK(rotary_frequencies(8, 10000, s, 32).inv_freq[3] < plain.inv_freq[3]);
  s.type = RopeScalingType::llama3;
  CHECK_THROWS_AS(rotary_frequencies(8, 10000, s), ConfigError);  // original_max_length is missing
  s.original_max_length = 128;
  s.low_freq_factor = 1;
  s.high_freq_factor = 4;
  const auto llama = rotary_frequencies(8, 10000, s);
  CHECK(llama.inv_freq[0] == plain.inv_freq[0]);
  CHECK(llama.inv_freq[3] == plain.inv_freq[3] / 2);
  CHECK_THROWS_AS(rotary_frequencies(7, 10000), ConfigError);
}

TEST_CASE("positions: slopes of ALiBi") {
  CHECK(alibi_slopes(8) == std::vector<double>{0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625});
  const auto six = alibi_slopes(6);  // those of 4 heads, then the first and the third of 8
  CHECK(six == std::vector<double>{0.25, 0.0625, 0.015625, 0.00390625, 0.5, 0.125});
  CHECK_THROWS_AS(alibi_slopes(0), ConfigError);
}

TEST_CASE("positions: sinusoids in their layouts") {
  const auto a = sinusoidal_positions<double>(4, 5, 2), b = sinusoidal_positions<double>(4, 5, 2, SinusoidLayout::halves);
  for (Index r = 0; r < 4; ++r) {
    for (Index k = 0; k < 3; ++k) {
      CHECK(a(r, 2 * k) == b(r, k));
      CHECK(std::abs(a(r, 2 * k) - std::sin(static_cast<double>(r + 2) * std::pow(10000.0, -0.4 * static_cast<double>(k)))) < 1e-15);
      if (k < 2) CHECK(a(r, 2 * k + 1) == b(r, 3 + k));
    }
  }
  const auto t = sinusoidal_positions<double>(3, 5, 0, SinusoidLayout::tensor2tensor);
  CHECK(t(2, 4) == 0.0);
  CHECK(std::abs(t(2, 1) - std::sin(2e-4)) < 1e-15);
  CHECK_THROWS_AS(sinusoidal_positions<double>(3, 3, 0, SinusoidLayout::tensor2tensor), ConfigError);
}

TEST_CASE("positions: T5's buckets") {
  // 32 buckets up to 128, both sides: 8 exact distances, 16 is the first of the doubled ones.
  CHECK(relative_bucket(0, 32, 128, true) == 0);
  CHECK(relative_bucket(-7, 32, 128, true) == 7);
  CHECK(relative_bucket(7, 32, 128, true) == 23);
  CHECK(relative_bucket(-8, 32, 128, true) == 8);
  CHECK(relative_bucket(-16, 32, 128, true) == 10);  // 8 + log(2) / log(16) * 8, a whole number
  CHECK(relative_bucket(-15, 32, 128, true) == 9);
  CHECK(relative_bucket(-100000, 32, 128, true) == 15);
  CHECK(relative_bucket(5, 32, 128, false) == 0);
  CHECK(relative_bucket(-32, 32, 128, false) == 21);
  for (Index buckets = 2; buckets < 9; ++buckets) {
    for (Index r = -300; r <= 300; ++r) {
      for (const bool both : {false, true}) {
        const Index n = relative_bucket(r, buckets, 20, both);
        CHECK((n >= 0 && n < buckets));
      }
    }
  }
}
