/// Training steps of small language models, AdamW and clipping included: tokens a second.
/// The shapes of the peers: D=128, 4 layers, L=64, B=12; one thread unless --benchmark_filter names another.

#include <benchmark/benchmark.h>

#include "ordo/ops/loss.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/nn/ssm/mamba.hpp"
#include "ordo/stack/causal_lm.hpp"
#include "ordo/train/adamw.hpp"
#include "ordo/train/clip.hpp"

namespace {

using namespace ordo;

template <class Model>
void train(benchmark::State& state, typename Model::Config config, Index batch, Index length) {
  Random random(1);
  Model model(config, random);
  AdamW optimizer({.learning_rate = 1e-3});
  DynTensor<std::int32_t, 2> tokens(batch, length), targets(batch, length);
  for (auto& t : tokens) t = static_cast<std::int32_t>(random.below(65));
  for (auto& t : targets) t = static_cast<std::int32_t>(random.below(65));
  Tape tape;
  for (auto _ : state) {
    tape.reset();
    const auto loss = cross_entropy(model(track(tape, tokens)), targets);
    Gradients g = tape.backward(loss);
    clip_grad_norm(model, g, 1.0);
    optimizer.step(model, g);
    benchmark::DoNotOptimize(loss.item());
  }
  state.SetItemsProcessed(state.iterations() * batch * length);
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(batch * length), benchmark::Counter::kIsIterationInvariantRate);
}

using Gpt = CausalLm<SoftmaxAttention<float>, Mlp<float>>;
using MambaModel = CausalLm<Mamba<float>>;

void softmax_lm(benchmark::State& state, Index dim, Index heads, Index length, Index batch) {
  train<Gpt>(state,
             {.vocab_size = 65, .model_dim = dim, .num_layers = 4, .block = {.mixer = {.num_heads = heads, .causal = true}, .feed_forward = {{.ff_dim = 4 * dim}}},
              .norm = NormKind::layer_norm, .positions = {.name = PositionKind::learned, .max_length = length}, .tie_embeddings = true},
             batch, length);
}
void mamba_lm(benchmark::State& state, Index dim, Index length, Index batch) {
  train<MambaModel>(state, {.vocab_size = 65, .model_dim = dim, .num_layers = 4, .tie_embeddings = true}, batch, length);
}

BENCHMARK_CAPTURE(softmax_lm, train/float/D128_n4_h4_L64_B12, 128, 4, 64, 12)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(mamba_lm, train/float/D128_n4_N16_L64_B12, 128, 64, 12)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(softmax_lm, train/float/D256_n4_h8_L256_B8, 256, 8, 256, 8)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(mamba_lm, train/float/D256_n4_N16_L256_B8, 256, 256, 8)->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
