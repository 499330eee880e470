#pragma once
/// \file
/// Batches of text for language models.

#include <algorithm>
#include <cstdint>
#include <ranges>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "ordo/core/random.hpp"
#include "ordo/core/tensor.hpp"

namespace ordo {

/// Tokens and what follows each of them, both [B, L].
struct TokenBatch {
  DynTensor<std::int32_t, 2> tokens, targets;

  /// Rows [begin, end) of both.
  TokenBatch rows(Index begin, Index end) const {
    const Index batch = tokens.extent(0), length = tokens.extent(1);
    if (begin < 0 || end < begin || end > batch) {
      fail<ShapeError>({"batch: rows ", begin, " to ", end, " of ", batch});
    }
    TokenBatch part{DynTensor<std::int32_t, 2>(end - begin, length), DynTensor<std::int32_t, 2>(end - begin, length)};
    std::copy_n(tokens.data() + begin * length, (end - begin) * length, part.tokens.data());
    std::copy_n(targets.data() + begin * length, (end - begin) * length, part.targets.data());
    return part;
  }
  /// Shard i of n of nearly equal size.
  TokenBatch shard(Index i, Index n) const { return rows(tokens.extent(0) * i / n, tokens.extent(0) * (i + 1) / n); }
};

struct BatchConfig {
  Index batch_size = 1;
  Index length = 1;  ///< tokens of a window
  template <class Self, class F>
  static void visit(Self& c, F&& f) {
    f("batch_size", c.batch_size);
    f("length", c.length);
  }
};

/// Random windows of a text, with replacement: window w holds L tokens from a uniform place on, its targets the L
/// tokens one further. The text is borrowed. Elements of one byte are tokens 0..255. random() is the whole position:
/// after seek(random) the same batches follow.
///
///     TextBatches batches(text, {.batch_size = 12, .length = 64}, Random(seed, 1));
template <class Token>
class TextBatches {
  static_assert(std::is_same_v<Token, std::int32_t> || sizeof(Token) == 1,
                "TextBatches: bytes or std::int32_t token ids");

 public:
  using Config = BatchConfig;

  TextBatches(std::span<const Token> text, const Config& config, Random random)
      : text_(text), config_(config), random_(random) {
    if (config.batch_size < 1 || config.length < 1) {
      fail<ConfigError>({"batches: batch_size and length must be at least 1, given ", config.batch_size, " and ", config.length});
    }
    if (static_cast<Index>(text.size()) <= config.length) {
      fail<ConfigError>({"batches: a text of ", text.size(), " tokens; windows of ", config.length, " and their targets need at least ", config.length + 1});
    }
  }

  TokenBatch next() {
    const Index batch = config_.batch_size, length = config_.length;
    TokenBatch b{DynTensor<std::int32_t, 2>(DynExtents<2>(batch, length), uninitialized),
                 DynTensor<std::int32_t, 2>(DynExtents<2>(batch, length), uninitialized)};
    const std::uint64_t places = text_.size() - static_cast<std::size_t>(length);
    for (Index row = 0; row < batch; ++row) {
      const Token* window = text_.data() + random_.below(places);
      for (Index i = 0; i < length; ++i) {
        b.tokens(row, i) = id(window[i]);
        b.targets(row, i) = id(window[i + 1]);
      }
    }
    return b;
  }

  const Random& random() const noexcept { return random_; }
  void seek(const Random& random) noexcept { random_ = random; }
  const Config& config() const noexcept { return config_; }

 private:
  static std::int32_t id(Token t) noexcept {
    if constexpr (sizeof(Token) == 1) {
      return static_cast<std::int32_t>(static_cast<unsigned char>(t));
    } else {
      return t;
    }
  }

  std::span<const Token> text_;
  Config config_;
  Random random_;
};

template <std::ranges::contiguous_range Text>
TextBatches(const Text&, BatchConfig, Random) -> TextBatches<std::remove_cv_t<std::ranges::range_value_t<Text>>>;

}  // namespace ordo
