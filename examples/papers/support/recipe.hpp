#pragma once
/// \file
/// What the small synthetic tasks share: a stack of mixers with a head that is asked at the last positions only, batches
/// made anew for every step, a training loop, and figures over several seeds.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "../../support/cli.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/nn/linear.hpp"
#include "ordo/ops/loss.hpp"
#include "ordo/ops/shape.hpp"
#include "ordo/stack/causal_lm.hpp"
#include "ordo/train/adam.hpp"
#include "ordo/train/clip.hpp"
#include "ordo/train/data_parallel.hpp"
#include "ordo/train/schedule.hpp"

namespace ordo_papers {

using namespace ordo;

/// Options that every program has.
struct Options {
  Index steps = 0, batch = 64;
  double learning_rate = 0, beta2 = 0.999;
  std::uint64_t seed = 1;
  int seeds = 1, threads = 2;

  void declare(ordo_demo::CommandLine& cli) {
    cli.option("steps", "N", steps, 1, 1000000, "training steps");
    cli.option("batch", "N", batch, 2, 4096, "sequences of a step");
    cli.option("learning-rate", "X", learning_rate, 1e-6, 1, "learning rate, the peak where it has a schedule");
    cli.option("beta2", "X", beta2, 0, 0.999999, "how slowly Adam forgets squares of gradients");
    cli.option("seed", "N", seed, 0, 1U << 30, "the first seed, of initial weights and data");
    cli.option("seeds", "N", seeds, 1, 100, "how many seeds are run, one after the other");
    cli.option("threads", "N", threads, 1, 64, "threads; the figures do not depend on them");
  }
};

/// Sequences of tokens and what is asked at their last places.
struct LabelledTokens {
  DynTensor<std::int32_t, 2> tokens;   // [B, L]
  DynTensor<std::int32_t, 2> targets;  // [B, M]: of the last M places
  LabelledTokens(Index batch, Index length, Index asked) : tokens(batch, length), targets(batch, asked) {}
};

/// A stack of mixers without position encoding (unless its configuration asks for it), and an untied head with a bias.
template <class Mixer>
class TokenModel {
 public:
  using value_type = typename Mixer::value_type;
  using Backbone = CausalLm<Mixer>;

  TokenModel(typename Backbone::Config config, Random& random)
      : backbone_(without_head(config), random), head_({config.model_dim, config.vocab_size, true}, random) {}

  /// Logits at the last `asked` places: [B, L] -> [B, asked, vocab_size].
  template <TensorLike Tokens>
  auto operator()(const Tokens& tokens, Index asked) const {
    const Index length = view(tokens).extent(1);
    return head_(slice(backbone_.hidden(tokens), 1, length - asked, asked));
  }
  /// The same, read as a stream in pieces: memory does not grow with the length but for what the state remembers.
  DynTensor<value_type, 3> streamed(const DynTensor<std::int32_t, 2>& tokens, Index asked, Index piece) const {
    const Index batch = tokens.extent(0), length = tokens.extent(1);
    auto state = backbone_.initial_state(batch);
    const auto read = [&](Index begin, Index end) {
      DynTensor<std::int32_t, 2> part(batch, end - begin);
      for (Index b = 0; b < batch; ++b) std::copy_n(tokens.data() + b * length + begin, end - begin, part.data() + b * (end - begin));
      return backbone_.hidden(part, state);
    };
    for (Index begin = 0; begin < length - asked; begin += piece) read(begin, std::min(begin + piece, length - asked));
    return head_(read(length - asked, length));
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("model", self.backbone_);
    f("head", self.head_);
  }

 private:
  static typename Backbone::Config& without_head(typename Backbone::Config& config) {
    config.tie_embeddings = true;
    return config;
  }
  Backbone backbone_;
  Linear<value_type> head_;
};

/// Rows [begin, end) of a tensor whose first axis is the batch.
template <TensorLike X>
X rows(const X& x, Index begin, Index end) {
  auto extents = x.extents().to_array();
  const Index row = x.size() / extents[0];
  extents[0] = end - begin;
  X part{typename X::extents_type(extents)};
  std::copy_n(x.data() + begin * row, part.size(), part.data());
  return part;
}

/// Trains by Adam with clipping at 1, at a constant rate or along a cosine. `one_step()` gives the loss and the gradients
/// of a step, `evaluate()` every so many steps what is to be said about the model.
class Trainer {
 public:
  Trainer(const Options& options, bool cosine, Index every) : options_(options), cosine_(cosine), every_(every) {}

  template <class Model, class Step, class Evaluate>
  void run(Model& model, Step&& one_step, Evaluate&& evaluate) {
    Adam optimizer({.beta2 = options_.beta2});
    const CosineSchedule schedule{.learning_rate = options_.learning_rate, .total_steps = options_.steps, .warmup_steps = 100};
    const auto start = std::chrono::steady_clock::now();
    double recent = 0;
    Index counted = 0;
    for (Index step = 0; step < options_.steps; ++step) {
      auto [loss, gradients] = one_step();
      clip_grad_norm(model, gradients, 1.0);
      optimizer.step(model, gradients, cosine_ ? schedule(step) : options_.learning_rate);
      recent += loss;
      ++counted;
      if ((step + 1) % every_ != 0 || step + 1 == options_.steps) continue;
      seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      std::printf("  step %5lld  training loss %.4f  %s  %.0f s\n", static_cast<long long>(step + 1),
                  recent / static_cast<double>(counted), evaluate().c_str(), seconds_);
      std::fflush(stdout);
      recent = 0;
      counted = 0;
    }
    seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  double seconds() const noexcept { return seconds_; }

 private:
  Options options_;
  bool cosine_;
  Index every_;
  double seconds_ = 0;
};

/// One training step of a token model: two shards, so that the result does not depend on the number of threads.
template <class Model>
LossAndGradients step_on(DataParallel& parallel, const Model& model, const LabelledTokens& batch) {
  const Index n = batch.tokens.extent(0), asked = batch.targets.extent(1);
  return parallel.mean([&](Index shard, Tape& tape) {
    const Index begin = n * shard / parallel.shards(), end = n * (shard + 1) / parallel.shards();
    return cross_entropy(model(track(tape, rows(batch.tokens, begin, end)), asked), rows(batch.targets, begin, end));
  });
}

/// The share of asked places at which the largest logit is that of the target.
template <class T>
double accuracy_of(const DynTensor<T, 3>& logits, const DynTensor<std::int32_t, 2>& targets) {
  const Index vocab = logits.extent(2);
  Index right = 0;
  for (Index i = 0; i < targets.size(); ++i) {
    const T* row = logits.data() + i * vocab;
    right += std::max_element(row, row + vocab) - row == targets.data()[i];
  }
  return static_cast<double>(right) / static_cast<double>(targets.size());
}

/// "0.9998, 1.0000, 1.0000"
inline std::string figures(const std::vector<double>& values) {
  std::string all;
  for (const double v : values) {
    char text[32];
    std::snprintf(text, sizeof text, "%s%.4f", all.empty() ? "" : ", ", v);
    all += text;
  }
  return all;
}

}  // namespace ordo_papers
