// A program outside Ordo's tree: makes a small model, saves it, loads it back, and streams from what it loaded.

#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <vector>

#include <ordo/ordo.hpp>

namespace {

/// The token with the largest of `vocab` logits.
std::int32_t largest(const float* logits, ordo::Index vocab) {
  ordo::Index best = 0;
  for (ordo::Index i = 1; i < vocab; ++i) {
    if (logits[i] > logits[best]) best = i;
  }
  return static_cast<std::int32_t>(best);
}

int run() {
  using namespace ordo;
  using Model = CausalLm<Mamba<float>>;
  Model::Config config;
  config.vocab_size = 32;
  config.model_dim = 16;
  config.num_layers = 2;
  config.tie_embeddings = false;  // a tied head of random weights mostly repeats its input
  Random random(1);
  const Model made(config, random);
  const std::filesystem::path path = "consumer.safetensors";
  save_model(path, made);

  Random other(2);
  Model model(config, other);
  load_model(path, model);

  std::vector<std::int32_t> text{1, 2, 3};
  const std::size_t prompt = text.size();
  auto state = model.initial_state(1);
  Sampler sampler({.temperature = 0, .top_k = 0, .top_p = 1, .seed = 0});
  std::vector<std::int32_t> streamed;
  generate(model, state, text, {.max_new_tokens = 24, .end_tokens = {}, .prefill_chunk = 2}, sampler,
           [&](std::int32_t token) {
             streamed.push_back(token);
             return true;
           });

  // The same tokens from the model that was saved, which sees the whole sequence at once.
  text.insert(text.end(), streamed.begin(), streamed.end());
  DynTensor<std::int32_t, 2> tokens(1, static_cast<Index>(text.size()));
  for (std::size_t i = 0; i < text.size(); ++i) tokens(0, static_cast<Index>(i)) = text[i];
  const auto logits = made(tokens);
  for (std::size_t i = prompt; i < text.size(); ++i) {
    const auto expected =
        largest(logits.data() + static_cast<Index>(i - 1) * config.vocab_size, config.vocab_size);
    if (text[i] != expected) {
      std::fprintf(stderr, "token %zu is %d when streamed, %d in the whole sequence\n", i, static_cast<int>(text[i]),
                   static_cast<int>(expected));
      return 1;
    }
  }
  if (streamed.size() != 24) {
    std::fprintf(stderr, "%zu tokens, not 24\n", streamed.size());
    return 1;
  }
  std::printf("ordo %d.%d.%d streamed %zu tokens of a loaded model\n", version.major_number, version.minor_number,
              version.patch_number, streamed.size());
  return 0;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "consumer: %s\n", e.what());
    return 1;
  }
}
