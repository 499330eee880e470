#pragma once
/// \file
/// An interpolated byte n-gram: the baseline that a trained language model has to beat on the same bytes.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"

namespace ordo {

namespace detail {

/// Counts of packed byte strings: open addressing, linear probing, at most half full, at most `limit` strings.
class NgramTable {
 public:
  struct Slot {
    std::uint64_t key = 0;
    std::uint32_t count = 0;     // 0 marks a free slot
    std::uint32_t distinct = 0;  // of a context: how many different bytes followed it
  };

  const Slot* find(std::uint64_t key) const noexcept {
    if (slots_.empty()) return nullptr;
    const Slot& slot = slots_[probe(key)];
    return slot.count == 0 ? nullptr : &slot;
  }

  /// Adds one to the count of `key`. Returns its slot, or null when the key is new and the table has reached `limit`.
  Slot* increment(std::uint64_t key, std::size_t limit) {
    if (slots_.empty()) resize(64);
    std::size_t at = probe(key);
    if (slots_[at].count == 0) {
      if (size_ >= limit) return nullptr;
      if (2 * (size_ + 1) > slots_.size()) {
        resize(2 * slots_.size());
        at = probe(key);
      }
      slots_[at].key = key;
      ++size_;
    }
    ++slots_[at].count;
    return &slots_[at];
  }

  std::size_t size() const noexcept { return size_; }
  std::size_t size_bytes() const noexcept { return slots_.size() * sizeof(Slot); }

 private:
  /// Where `key` is, or the free slot where it belongs.
  std::size_t probe(std::uint64_t key) const noexcept {
    auto at = static_cast<std::size_t>((key * 0x9E3779B97F4A7C15u) >> shift_);
    while (slots_[at].count != 0 && slots_[at].key != key) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  void resize(std::size_t capacity) {  // a power of two
    std::vector<Slot> old(capacity);
    old.swap(slots_);
    shift_ = 64;
    for (std::size_t c = capacity; c > 1; c /= 2) --shift_;
    for (const Slot& slot : old) {
      if (slot.count != 0) slots_[probe(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
  int shift_ = 64;
};

}  // namespace detail

/// Byte n-gram of order n: a byte is predicted from the n-1 bytes before it, by Witten-Bell interpolation.
/// (Data compression counts the context: its "order-4 model" is NgramModel(5) here.)
///
///     p(b | h) = (c(h b) + t(h) p(b | h')) / (c(h) + t(h))
///
/// h: the last k bytes, k = n-1 .. 0; h': h without its oldest byte; c(h b): how often b followed h in the training
/// bytes; c(h): the sum of that over b; t(h): how many different bytes followed h. Below the empty context stands
/// 1 / alphabet. A context that was never seen passes on p(b | h'), so an untrained model is uniform, and the
/// probabilities of all bytes sum to one after any context.
///
/// Nothing is fitted on the bytes that are scored. Bytes at the start of a text use the contexts that exist.
///
/// Time: O(n) a byte, for training and for scoring. Memory: at most 64 bytes for each distinct string of every length
/// 1..n, and at most `max_ngrams` of them a length: further ones are left out of the counts, which keeps the
/// probabilities normalised.
/// Source: Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", TR-10-98, 1998,
/// section 2.5; Witten and Bell, "The zero-frequency problem", 1991 (method C).
class NgramModel {
 public:
  static constexpr Index max_order = 8;  ///< a string of this many bytes is a 64-bit key

  /// \throws ConfigError when order is outside 1..8, alphabet outside 1..256, or max_ngrams is 0.
  explicit NgramModel(Index order, Index alphabet = 256, std::size_t max_ngrams = std::size_t{1} << 21)
      : alphabet_(alphabet), max_ngrams_(max_ngrams) {
    if (order < 1 || order > max_order) {
      fail<ConfigError>("ngram: order must be from 1 to " + std::to_string(max_order) + ", not " +
                        std::to_string(order));
    }
    if (alphabet < 1 || alphabet > 256) {
      fail<ConfigError>("ngram: alphabet must be from 1 to 256, not " + std::to_string(alphabet));
    }
    if (max_ngrams == 0) fail<ConfigError>("ngram: max_ngrams must be at least 1");
    levels_.resize(static_cast<std::size_t>(order));
  }

  Index order() const noexcept { return static_cast<Index>(levels_.size()); }
  Index alphabet() const noexcept { return alphabet_; }

  /// Adds the counts of `text`. Texts of several calls are separate: no context reaches from one into the next.
  /// \throws UsageError when a byte is outside the alphabet (nothing is counted then), or after 2^32 - 1 bytes in all.
  void train(std::span<const std::uint8_t> text) {
    check_alphabet(text);
    if (text.size() > max_bytes - trained_) {
      fail<UsageError>("ngram: more than " + std::to_string(max_bytes) + " training bytes");
    }
    trained_ += text.size();
    std::uint64_t before = 0;  // the bytes before the current one, the newest in the low byte
    for (std::size_t i = 0; i < text.size(); ++i) {
      for (std::size_t k = 0; k < levels_.size() && k <= i; ++k) {
        Level& level = levels_[k];
        const std::uint64_t context = last(before, k);
        const auto* event = level.events.increment(context << 8 | text[i], max_ngrams_);
        if (event == nullptr) continue;
        auto* counts = level.contexts.increment(context, max_ngrams_);  // fits: never more contexts than events
        if (event->count == 1) ++counts->distinct;
      }
      before = before << 8 | text[i];
    }
  }

  /// p(byte | context); of the context only the last order - 1 bytes count, and it may be shorter.
  double probability(std::span<const std::uint8_t> context, std::uint8_t byte) const {
    check_alphabet({&byte, 1});
    std::uint64_t before = 0;
    for (const std::uint8_t b : context) before = before << 8 | b;
    return probability(before, context.size(), byte);
  }

  /// Mean of -log2 p(byte | the bytes before it in `text`).
  /// \throws UsageError when the text is empty or has a byte outside the alphabet.
  double bits_per_byte(std::span<const std::uint8_t> text) const {
    if (text.empty()) fail<UsageError>("ngram: bits_per_byte of an empty text");
    check_alphabet(text);
    double bits = 0;
    std::uint64_t before = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
      bits -= std::log2(probability(before, i, text[i]));
      before = before << 8 | text[i];
    }
    return bits / static_cast<double>(text.size());
  }

  /// Distinct strings of `length` bytes (1..order) that are counted.
  std::size_t distinct(Index length) const { return levels_.at(static_cast<std::size_t>(length - 1)).events.size(); }

  std::size_t size_bytes() const noexcept {
    std::size_t bytes = 0;
    for (const Level& level : levels_) bytes += level.contexts.size_bytes() + level.events.size_bytes();
    return bytes;
  }

 private:
  static constexpr std::size_t max_bytes = 0xFFFFFFFFu;  // a count has 32 bits

  struct Level {  // contexts of k bytes
    detail::NgramTable contexts, events;
  };

  static std::uint64_t last(std::uint64_t before, std::size_t k) noexcept {
    return before & ((std::uint64_t{1} << (8 * k)) - 1);  // k <= 7
  }

  double probability(std::uint64_t before, std::size_t known, std::uint8_t byte) const noexcept {
    double p = 1.0 / static_cast<double>(alphabet_);
    for (std::size_t k = 0; k < levels_.size() && k <= known; ++k) {
      const std::uint64_t context = last(before, k);
      const auto* counts = levels_[k].contexts.find(context);
      if (counts == nullptr) break;  // then no longer one was seen (or max_ngrams left it out: still normalised)
      const auto* event = levels_[k].events.find(context << 8 | byte);
      const double seen = event == nullptr ? 0.0 : event->count;
      const double distinct = counts->distinct;
      p = (seen + distinct * p) / (counts->count + distinct);
    }
    return p;
  }

  void check_alphabet(std::span<const std::uint8_t> text) const {
    if (alphabet_ == 256) return;
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] < alphabet_) continue;
      fail<UsageError>("ngram: byte " + std::to_string(text[i]) + " at position " + std::to_string(i) +
                       " is outside the alphabet of " + std::to_string(alphabet_));
    }
  }

  std::vector<Level> levels_;
  Index alphabet_;
  std::size_t max_ngrams_;
  std::size_t trained_ = 0;
};

}  // namespace ordo
