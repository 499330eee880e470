// Tiny Shakespeare, characters: the small budget of nanoGPT (4 layers, 4 heads, 128 wide, blocks of 64, batches of 12, 2,000 steps),
// with softmax attention, Mamba, Lstm and Gru at about the same number of parameters.
//
//     tiny_shakespeare --data tinyshakespeare.txt --mixer softmax
//     tiny_shakespeare --data tinyshakespeare.txt --mixer mamba
//     tiny_shakespeare --data tinyshakespeare.txt --mixer lstm
//     tiny_shakespeare --data tinyshakespeare.txt --mixer gru
//
// The first 90% of the characters train, the rest is held out. The figure is the mean of -ln p over all consecutive windows of 64
// held-out characters, each from an empty context. nanoGPT's own figure for attention in this budget is 1.88 nats a character.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "../../support/cli.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/nn/recurrent/recurrent_mixer.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/nn/ssm/mamba.hpp"
#include "ordo/ops/loss.hpp"
#include "ordo/stack/causal_lm.hpp"
#include "ordo/train/adamw.hpp"
#include "ordo/train/batches.hpp"
#include "ordo/train/clip.hpp"
#include "ordo/train/data_parallel.hpp"
#include "ordo/train/schedule.hpp"

namespace {

using namespace ordo;

constexpr Index block = 64, batch_size = 12, dim = 128;

struct Options {
  std::string data, mixer = "mamba";
  Index steps = 2000;
  double learning_rate = 4e-3;
  std::uint64_t seed = 1;
  int threads = 2;
};

struct Corpus {
  std::vector<std::int32_t> training, held_out;
  Index vocab_size = 0;
};

/// Characters numbered by code point (the text is ASCII), cut 90 to 10.
Corpus read_corpus(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (path.empty() || !file) fail<FileError>("--data " + ordo_demo::in_quotes(path) + ": cannot be read; give the path of tinyshakespeare.txt");
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  std::vector<std::int32_t> number(256, -1);
  for (const char c : text) number[static_cast<unsigned char>(c)] = 0;
  Corpus corpus;
  for (auto& n : number) {
    if (n == 0) n = static_cast<std::int32_t>(corpus.vocab_size++);
  }
  std::vector<std::int32_t> ids;
  for (const char c : text) ids.push_back(number[static_cast<unsigned char>(c)]);
  const auto cut = static_cast<std::ptrdiff_t>(ids.size() / 10 * 9 + ids.size() % 10 * 9 / 10);
  corpus.training.assign(ids.begin(), ids.begin() + cut);
  corpus.held_out.assign(ids.begin() + cut, ids.end());
  if (static_cast<Index>(corpus.held_out.size()) <= block) {
    fail<FileError>("--data " + ordo_demo::in_quotes(path) + ": too short, " + std::to_string(text.size()) + " characters");
  }
  return corpus;
}

/// Mean of -ln p over all consecutive windows.
template <class Model>
double held_out_loss(const Model& model, const std::vector<std::int32_t>& text) {
  const Index windows = (static_cast<Index>(text.size()) - 1) / block, at_once = 64;
  const Index groups = (windows + at_once - 1) / at_once;
  std::vector<double> sums(static_cast<std::size_t>(groups));
  parallel_for(groups, 1, [&](Index first, Index last) {
    for (Index group = first; group < last; ++group) {
      const Index begin = group * at_once, count = std::min(at_once, windows - begin);
      DynTensor<std::int32_t, 2> tokens(count, block), targets(count, block);
      std::copy_n(text.begin() + begin * block, count * block, tokens.begin());
      std::copy_n(text.begin() + begin * block + 1, count * block, targets.begin());
      const auto mean = cross_entropy(model(tokens), targets);
      sums[static_cast<std::size_t>(group)] = static_cast<double>(*mean.data()) * static_cast<double>(count);
    }
  });
  double sum = 0;
  for (double s : sums) sum += s;
  return sum / static_cast<double>(windows);
}

template <class Model>
void run(const Options& options, const Corpus& corpus, const typename Model::Config& config) {
  Random random(options.seed);
  Model model(config, random);
  std::printf("%s: %lld parameters, %lld training and %lld held-out characters of %lld kinds\n", options.mixer.c_str(),
              static_cast<long long>(num_parameters(model)), static_cast<long long>(corpus.training.size()),
              static_cast<long long>(corpus.held_out.size()), static_cast<long long>(corpus.vocab_size));
  AdamW optimizer({.beta2 = 0.99, .weight_decay = 0.1});
  const CosineSchedule schedule{.learning_rate = options.learning_rate, .total_steps = options.steps, .warmup_steps = 100};
  TextBatches batches(corpus.training, {.batch_size = batch_size, .length = block}, random.split(1));
  DataParallel parallel(2);  // fixed, so that the result does not depend on the number of threads
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  double recent = 0;
  for (Index step = 0; step < options.steps; ++step) {
    const TokenBatch batch = batches.next();
    auto [loss, gradients] = parallel.mean([&](Index shard, Tape& tape) {
      const TokenBatch part = batch.shard(shard, parallel.shards());
      return cross_entropy(model(track(tape, part.tokens)), part.targets);
    });
    clip_grad_norm(model, gradients, 1.0);
    optimizer.step(model, gradients, schedule(step));
    recent += loss / 100;
    if (step % 100 == 99) {
      std::printf("step %5lld  training %.4f  %.0f s\n", static_cast<long long>(step + 1), recent, seconds());
      std::fflush(stdout);
      recent = 0;
    }
  }
  const double trained = seconds();
  const double loss = held_out_loss(model, corpus.held_out);
  std::printf("%s, seed %llu: held out %.4f nats a character after %lld steps; %.1f s on %d threads, %.0f tokens/s\n",
              options.mixer.c_str(), static_cast<unsigned long long>(options.seed), loss, static_cast<long long>(options.steps),
              trained, num_threads(), static_cast<double>(options.steps * batch_size * block) / trained);
}

int body(int argc, char** argv) {
  Options o;
  ordo_demo::CommandLine cli("tiny_shakespeare", "Trains a character model in nanoGPT's small budget.");
  cli.option("data", "FILE", o.data, "the text, tinyshakespeare.txt");
  cli.option("mixer", "softmax|mamba|lstm|gru", o.mixer, "the mixer of each layer");
  cli.option("steps", "N", o.steps, 1, 1000000, "training steps");
  cli.option("learning-rate", "X", o.learning_rate, 1e-6, 1, "peak of the schedule");
  cli.option("seed", "N", o.seed, 0, UINT64_MAX, "initial weights and batches");
  cli.option("threads", "N", o.threads, 1, 64, "threads");
  if (!cli.parse(argc, argv)) {
    std::fputs(cli.help(100).c_str(), stdout);
    return 0;
  }
  set_num_threads(o.threads);
  const Corpus corpus = read_corpus(o.data);
  if (o.mixer == "softmax") {
    // Learned positions, LayerNorm with gain alone, MLP of 4 dim with the exact GELU, no biases, tied head; all matrices N(0, 0.02^2).
    run<CausalLm<SoftmaxAttention<float>, Mlp<float>>>(
        o, corpus,
        {.vocab_size = corpus.vocab_size, .model_dim = dim, .num_layers = 4,
         .block = {.mixer = {.num_heads = 4, .causal = true}, .feed_forward = {{.ff_dim = 4 * dim, .bias = false}}},
         .norm = NormKind::layer_norm, .norm_bias = false, .positions = {.name = PositionKind::learned, .max_length = block},
         .init_deviation = 0.02, .tie_embeddings = true});
  } else if (o.mixer == "mamba") {
    run<CausalLm<Mamba<float>>>(o, corpus, {.vocab_size = corpus.vocab_size, .model_dim = dim, .num_layers = 7, .tie_embeddings = true});
  } else if (o.mixer == "lstm") {
    run<CausalLm<RecurrentMixer<Lstm<float>>, Mlp<float>>>(
        o, corpus, {.vocab_size = corpus.vocab_size, .model_dim = dim, .num_layers = 3, .block = {.feed_forward = {{.ff_dim = 4 * dim}}},
                    .tie_embeddings = true});
  } else if (o.mixer == "gru") {
    run<CausalLm<RecurrentMixer<Gru<float>>>>(
        o, corpus, {.vocab_size = corpus.vocab_size, .model_dim = dim, .num_layers = 8, .tie_embeddings = true});
  } else {
    fail<UsageError>("--mixer must be softmax, mamba, lstm or gru, not " + ordo_demo::in_quotes(o.mixer));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return ordo_demo::run_program("tiny_shakespeare", [&] { return body(argc, argv); });
}
