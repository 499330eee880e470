// Induction heads with extrapolation of length (Gu and Dao 2023, section 4.1.2): somewhere in random tokens stands a trigger, and
// where the trigger comes again, at the end, the token that followed it is asked for. Trained at length 64, tested at up to 4,096:
// Mamba's state carries over, softmax attention with learned positions knows the places it was trained on.
//
//     induction_heads --seeds 3
//     induction_heads --mixer softmax --seeds 3
//
// Figures: accuracy over 512 fresh sequences of 64 and 256 tokens, 128 of 1,024 and 4,096, read as streams. 15 tokens: chance is 0.067.

#include <array>

#include "../support/recipe.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/nn/ssm/mamba.hpp"

namespace {

using namespace ordo_papers;

constexpr Index train_length = 64, vocab = 16, dim = 64, longest = 4096;
constexpr std::int32_t trigger = 15;
constexpr std::array<Index, 4> test_lengths{64, 256, 1024, longest};

LabelledTokens make_batch(Random& random, Index batch, Index length) {
  LabelledTokens b(batch, length, 1);
  for (Index row = 0; row < batch; ++row) {
    for (Index i = 0; i < length; ++i) b.tokens(row, i) = static_cast<std::int32_t>(random.below(15));
    const auto place = static_cast<Index>(random.below(static_cast<std::uint64_t>(length - 4)));
    b.tokens(row, place) = trigger;
    b.tokens(row, length - 1) = trigger;
    b.targets(row, 0) = b.tokens(row, place + 1);
  }
  return b;
}

/// Of several groups of sequences, one a thread.
template <class Model>
double accuracy(const Model& model, Random& random, Index sequences, Index length) {
  constexpr Index group = 16;
  const LabelledTokens b = make_batch(random, sequences, length);
  std::vector<double> right(static_cast<std::size_t>((sequences + group - 1) / group));
  parallel_for(sequences, group, [&](Index begin, Index end) {
    const auto logits = model.streamed(rows(b.tokens, begin, end), 1, 256);
    right[static_cast<std::size_t>(begin / group)] = accuracy_of(logits, rows(b.targets, begin, end)) * static_cast<double>(end - begin);
  });
  double sum = 0;
  for (const double r : right) sum += r;
  return sum / static_cast<double>(sequences);
}

template <class Mixer>
std::vector<double> run(const Options& options, std::uint64_t seed, bool cosine, Index positions) {
  Random random(seed);
  typename CausalLm<Mixer>::Config config{.vocab_size = vocab, .model_dim = dim, .num_layers = 2};
  if constexpr (std::is_same_v<Mixer, SoftmaxAttention<float>>) {
    config.block.mixer.causal = true;
    config.positions = {.name = PositionKind::learned, .max_length = positions};
  }
  TokenModel<Mixer> model(config, random);
  std::printf("seed %llu: %lld parameters\n", static_cast<unsigned long long>(seed), static_cast<long long>(num_parameters(model)));
  Random data = random.split(1), test = random.split(2);
  DataParallel parallel(2);
  Trainer trainer(options, cosine, 500);
  trainer.run(
      model, [&] { return step_on(parallel, model, make_batch(data, options.batch, train_length)); },
      [&] { return "accuracy at 64, 256: " + figures({accuracy(model, test, 128, 64), accuracy(model, test, 128, 256)}); });
  std::vector<double> all;
  for (const Index length : test_lengths) all.push_back(accuracy(model, test, length <= 256 ? 512 : 128, length));
  std::printf("seed %llu: accuracy at 64, 256, 1024, 4096: %s; %lld steps, %.0f s\n", static_cast<unsigned long long>(seed),
              figures(all).c_str(), static_cast<long long>(options.steps), trainer.seconds());
  return all;
}

int body(int argc, char** argv) {
  Options o;
  std::string mixer = "mamba";
  o.steps = 5000;
  o.batch = 32;
  o.learning_rate = 2e-3;
  ordo_demo::CommandLine cli("induction_heads", "Trains two mixers to recall what followed a trigger, and tests them on longer sequences.");
  cli.option("mixer", "mamba|softmax", mixer, "the mixer of both layers");
  o.declare(cli);
  if (!cli.parse(argc, argv)) {
    std::fputs(cli.help(100).c_str(), stdout);
    return 0;
  }
  if (mixer != "mamba" && mixer != "softmax") fail<UsageError>("--mixer must be mamba or softmax, not " + ordo_demo::in_quotes(mixer));
  const bool softmax = mixer == "softmax";
  if (softmax) {  // a cosine over 3,000 steps of 64 sequences; Mamba has a constant rate
    if (!cli.given("steps")) o.steps = 3000;
    if (!cli.given("batch")) o.batch = 64;
    if (!cli.given("learning-rate")) o.learning_rate = 1e-3;
  }
  set_num_threads(o.threads);
  std::vector<double> worst(test_lengths.size(), 1);
  for (int i = 0; i < o.seeds; ++i) {
    const std::uint64_t seed = o.seed + static_cast<std::uint64_t>(i);
    const std::vector<double> all = softmax ? run<SoftmaxAttention<float>>(o, seed, true, longest) : run<Mamba<float>>(o, seed, false, 0);
    for (std::size_t k = 0; k < worst.size(); ++k) worst[k] = std::min(worst[k], all[k]);
  }
  std::printf("induction heads, %s: worst of %d seeds at 64, 256, 1024, 4096: %s\n", mixer.c_str(), o.seeds, figures(worst).c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return ordo_demo::run_program("induction_heads", [&] { return body(argc, argv); });
}
