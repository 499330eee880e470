#include "ordo/eval/ngram.hpp"

#include <cmath>
#include <map>
#include <random>
#include <set>
#include <string_view>

#include "support/catch.hpp"

using Catch::Matchers::WithinAbs;
using Catch::Matchers::WithinRel;
using Bytes = std::vector<std::uint8_t>;

namespace {

Bytes bytes_of(std::string_view s) { return Bytes(s.begin(), s.end()); }

/// Text with structure: each byte depends on the two before it, with noise.
Bytes markov_text(std::size_t n, unsigned seed, unsigned alphabet = 256) {
  std::mt19937 random(seed);
  Bytes text(n);
  for (std::size_t i = 0; i < n; ++i) {
    const unsigned a = i > 0 ? text[i - 1] : 0u, b = i > 1 ? text[i - 2] : 0u;
    const unsigned noise =
        random() % 4 == 0 ? static_cast<unsigned>(random() % alphabet) : static_cast<unsigned>(random() % 2);
    text[i] = static_cast<std::uint8_t>((7 * a + 3 * b + noise) % alphabet);
  }
  return text;
}

/// The formula of the class comment, on standard maps.
class NaiveModel {
 public:
  NaiveModel(std::size_t order, const Bytes& text) : order_(order) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      for (std::size_t k = 0; k < order && k <= i; ++k) {
        ++counts_[Bytes(text.begin() + static_cast<std::ptrdiff_t>(i - k),
                        text.begin() + static_cast<std::ptrdiff_t>(i))][text[i]];
      }
    }
  }
  double probability(Bytes h, std::uint8_t b) const {
    if (h.size() > order_ - 1) h.erase(h.begin(), h.end() - static_cast<std::ptrdiff_t>(order_ - 1));
    const double below = h.empty() ? 1.0 / 256 : probability(Bytes(h.begin() + 1, h.end()), b);
    const auto found = counts_.find(h);
    if (found == counts_.end()) return below;
    double all = 0;
    for (const auto& [byte, count] : found->second) all += count;
    const auto event = found->second.find(b);
    const double seen = event == found->second.end() ? 0 : event->second;
    const auto t = static_cast<double>(found->second.size());
    return (seen + t * below) / (all + t);
  }

 private:
  std::size_t order_;
  std::map<Bytes, std::map<std::uint8_t, int>> counts_;
};

double sum_over_bytes(const ordo::NgramModel& model, const Bytes& context) {
  double sum = 0;
  for (ordo::Index b = 0; b < model.alphabet(); ++b) sum += model.probability(context, static_cast<std::uint8_t>(b));
  return sum;
}

template <class E, class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const E& e) {
    return e.what();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("ngram: untrained is uniform") {
  for (const ordo::Index alphabet : {1, 2, 65, 256}) {
    const ordo::NgramModel model(4, alphabet);
    const double p = 1.0 / static_cast<double>(alphabet);
    CHECK_THAT(model.probability({}, 0), WithinAbs(p, 1e-15));
    CHECK_THAT(model.probability(Bytes{0, 0, 0, 0}, static_cast<std::uint8_t>(alphabet - 1)), WithinAbs(p, 1e-15));
    CHECK_THAT(model.bits_per_byte(Bytes(10, 0)), WithinAbs(std::log2(static_cast<double>(alphabet)), 1e-12));
  }
}

TEST_CASE("ngram: a small example by hand") {
  // "abac" with a = 0, b = 1, c = 2 in an alphabet of 4.
  // Empty context: counts 2 1 1 0, so c = 4, t = 3: p(b) = (count + 3/4) / 7.
  // After a: b once, c once, so c = 2, t = 2. After b: a once, so c = t = 1. After c: nothing.
  ordo::NgramModel model(2, 4);
  model.train(Bytes{0, 1, 0, 2});
  const Bytes none, a{0}, b{1}, c{2};
  CHECK_THAT(model.probability(none, 0), WithinAbs(2.75 / 7, 1e-15));
  CHECK_THAT(model.probability(none, 1), WithinAbs(1.75 / 7, 1e-15));
  CHECK_THAT(model.probability(none, 3), WithinAbs(0.75 / 7, 1e-15));
  CHECK_THAT(model.probability(a, 0), WithinAbs(5.5 / 28, 1e-15));
  CHECK_THAT(model.probability(a, 1), WithinAbs(0.375, 1e-15));
  CHECK_THAT(model.probability(a, 2), WithinAbs(0.375, 1e-15));
  CHECK_THAT(model.probability(a, 3), WithinAbs(1.5 / 28, 1e-15));
  CHECK_THAT(model.probability(b, 0), WithinAbs((1 + 2.75 / 7) / 2, 1e-15));
  CHECK_THAT(model.probability(c, 1), WithinAbs(1.75 / 7, 1e-15));
  CHECK_THAT(model.probability(Bytes{3, 3, 0}, 1), WithinAbs(0.375, 1e-15));  // the last order - 1 bytes count
  CHECK_THAT(model.bits_per_byte(Bytes{0, 1}), WithinAbs(-(std::log2(2.75 / 7) + std::log2(0.375)) / 2, 1e-14));
}

TEST_CASE("ngram: equals the formula on maps, for every order") {
  const Bytes text = markov_text(3000, 1, 20), probe = markov_text(200, 2, 20);
  for (std::size_t order = 1; order <= 8; ++order) {
    CAPTURE(order);
    ordo::NgramModel model(static_cast<ordo::Index>(order));
    model.train(text);
    const NaiveModel naive(order, text);
    double bits = 0;
    for (std::size_t i = 0; i < probe.size(); ++i) {
      const Bytes before(probe.begin(), probe.begin() + static_cast<std::ptrdiff_t>(i));
      const double expected = naive.probability(before, probe[i]);
      REQUIRE_THAT(model.probability(before, probe[i]), WithinRel(expected, 1e-13));
      bits -= std::log2(expected);
    }
    CHECK_THAT(model.bits_per_byte(probe), WithinRel(bits / static_cast<double>(probe.size()), 1e-12));
  }
}

TEST_CASE("ngram: probabilities sum to one after seen, unseen and short contexts") {
  for (const ordo::Index order : {1, 4, 8}) {
    for (const std::size_t limit : {std::size_t{1} << 20, std::size_t{50}}) {
      ordo::NgramModel model(order, 256, limit);
      const Bytes text = markov_text(20000, 3);
      model.train(text);
      const std::span<const std::uint8_t> all(text);
      for (std::size_t i = 0; i < 300; ++i) {
        const auto context = all.subspan(17 * i, i % 9);
        REQUIRE_THAT(sum_over_bytes(model, Bytes(context.begin(), context.end())), WithinAbs(1, 1e-12));
      }
      CHECK_THAT(sum_over_bytes(model, bytes_of("never seen")), WithinAbs(1, 1e-12));
    }
  }
}

TEST_CASE("ngram: zero and high bytes are bytes like others") {
  ordo::NgramModel model(8);
  const Bytes text{0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0};
  model.train(text);
  const NaiveModel naive(8, text);
  for (const std::size_t k : {0u, 1u, 3u, 7u}) {
    for (const std::uint8_t fill : {std::uint8_t{0}, std::uint8_t{255}}) {
      const Bytes context(k, fill);
      for (const std::uint8_t b : {std::uint8_t{0}, std::uint8_t{255}, std::uint8_t{1}}) {
        CHECK_THAT(model.probability(context, b), WithinRel(naive.probability(context, b), 1e-13));
      }
    }
  }
}

TEST_CASE("ngram: learns what can be learnt and no more") {
  Bytes cycle(10000);
  for (std::size_t i = 0; i < cycle.size(); ++i) cycle[i] = static_cast<std::uint8_t>(i % 7);
  ordo::NgramModel sure(4);
  sure.train(cycle);
  CHECK(sure.bits_per_byte(cycle) < 0.01);

  std::mt19937 random(5);
  Bytes noise(50000), other(5000);
  for (std::uint8_t& b : noise) b = static_cast<std::uint8_t>(random() % 256);
  for (std::uint8_t& b : other) b = static_cast<std::uint8_t>(random() % 256);
  ordo::NgramModel lost(4);
  lost.train(noise);
  const double bits = lost.bits_per_byte(other);
  CHECK(bits > 7.9);  // below 8 would be luck: the bytes are independent
  CHECK(bits < 9.0);

  ordo::NgramModel two(2), three(3);
  const Bytes text = markov_text(50000, 7, 64), held_out = markov_text(5000, 8, 64);
  two.train(text);
  three.train(text);
  CHECK(three.bits_per_byte(held_out) < two.bits_per_byte(held_out) - 1);  // the text has two bytes of memory
}

TEST_CASE("ngram: several trainings add up, and no context reaches across them") {
  ordo::NgramModel model(3);
  model.train(bytes_of("abcab"));
  model.train({});
  model.train(bytes_of("cab"));
  // After "ab": c once, in the first text; "ab" at its end is not followed by the second text's c.
  ordo::NgramModel joined(3);
  joined.train(bytes_of("abcabcab"));
  CHECK(joined.probability(bytes_of("ab"), 'c') > model.probability(bytes_of("ab"), 'c'));
  CHECK_THAT(model.probability({}, 'a'), WithinAbs(joined.probability({}, 'a'), 1e-15));
}

TEST_CASE("ngram: max_ngrams bounds the memory") {
  std::mt19937 random(9);
  Bytes noise(100000);
  for (std::uint8_t& b : noise) b = static_cast<std::uint8_t>(random() % 256);
  ordo::NgramModel model(4, 256, 1000);
  model.train(noise);
  CHECK(model.distinct(1) == 256);
  CHECK(model.distinct(2) == 1000);
  CHECK(model.distinct(4) == 1000);
  CHECK(model.size_bytes() <= 4 * 2 * 2048 * 16);
  CHECK(std::isfinite(model.bits_per_byte(noise)));
  CHECK_THAT(sum_over_bytes(model, Bytes(noise.end() - 3, noise.end())), WithinAbs(1, 1e-12));

  // What was counted before the limit was reached goes on being counted.
  ordo::NgramModel small(2, 256, 2);
  small.train(bytes_of("abababababab"));
  CHECK(small.probability(bytes_of("a"), 'b') > 0.7);
}

TEST_CASE("ngram: errors say what was wrong") {
  using ordo::NgramModel;
  CHECK(message_of<ordo::ConfigError>([] { NgramModel(0); }) == "ngram: order must be from 1 to 8, not 0");
  CHECK(message_of<ordo::ConfigError>([] { NgramModel(9); }) == "ngram: order must be from 1 to 8, not 9");
  CHECK(message_of<ordo::ConfigError>([] { NgramModel(4, 0); }) == "ngram: alphabet must be from 1 to 256, not 0");
  CHECK(message_of<ordo::ConfigError>([] { NgramModel(4, 257); }) == "ngram: alphabet must be from 1 to 256, not 257");
  CHECK(message_of<ordo::ConfigError>([] { NgramModel(4, 256, 0); }) == "ngram: max_ngrams must be at least 1");

  NgramModel model(2, 4);
  CHECK(message_of<ordo::UsageError>([&] {
          model.train(Bytes{1, 4});
        }) == "ngram: byte 4 at position 1 is outside the alphabet of 4");
  CHECK_THAT(model.probability({}, 1), WithinAbs(0.25, 1e-15));  // nothing was counted
  CHECK_THROWS_AS(model.probability({}, 4), ordo::UsageError);
  CHECK_THROWS_AS(model.bits_per_byte(Bytes{9}), ordo::UsageError);
  CHECK(message_of<ordo::UsageError>([&] { return model.bits_per_byte({}); }) ==
        "ngram: bits_per_byte of an empty text");
}
