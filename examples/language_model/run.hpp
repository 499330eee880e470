#pragma once
// Trains a byte-level language model and streams from it. A template over the model: one .cpp file instantiates each kind.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "../support/files.hpp"
#include "../support/interrupt.hpp"
#include "../support/progress.hpp"
#include "../support/svg.hpp"
#include "../support/text.hpp"
#include "options.hpp"
#include "ordo/core/denormals.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/decode/generate.hpp"
#include "ordo/eval/ngram.hpp"
#include "ordo/io/checkpoint.hpp"
#include "ordo/io/model.hpp"
#include "ordo/nn/recurrent/recurrent_mixer.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "ordo/nn/ssm/mamba.hpp"
#include "ordo/ops/loss.hpp"
#include "ordo/stack/causal_lm.hpp"
#include "ordo/train/adamw.hpp"
#include "ordo/train/batches.hpp"
#include "ordo/train/clip.hpp"
#include "ordo/train/data_parallel.hpp"
#include "support/allocation_counter.hpp"

namespace ordo_demo {

using Lstm = ordo::RecurrentMixer<ordo::Lstm<float>>;
using Gru = ordo::RecurrentMixer<ordo::Gru<float>>;
using Mixers = ordo::OneOf<ordo::Mamba<float>, ordo::SoftmaxAttention<float>, Lstm, Gru>;
/// Mamba alone, and patterns with others, which have a feed-forward in every block.
using MambaModel = ordo::CausalLm<Mixers>;
using HybridModel = ordo::CausalLm<Mixers, ordo::SwiGlu<float>>;

/// The bytes, and what an n-gram model makes of them.
struct Task {
  Text text;
  TextSplit split;
  std::span<const std::uint8_t> judged;  ///< of the held-out bytes, the first part: what all figures refer to
  double ngram4 = 0, ngram5 = 0;         ///< bits per byte
};

template <class Model>
int run(const Options& options, const Task& task);
extern template int run<MambaModel>(const Options&, const Task&);
extern template int run<HybridModel>(const Options&, const Task&);

/// Mean bits per byte of `text`, read as several streams side by side. A stream of Mamba, Lstm and Gru keeps its state from block to block; with
/// attention, whose rotary positions have seen no more than a block, each block starts half a block back and only its new half counts.
template <class Model>
double bits_per_byte(const Model& model, std::span<const std::uint8_t> text, ordo::Index block, bool carry_state) {
  using namespace ordo;
  const auto size = static_cast<Index>(text.size());
  const Index rows = std::clamp<Index>((size - 1) / block, 1, 32), length = (size - 1) / rows;
  const Index advance = carry_state ? block : std::max<Index>(block / 2, 1);
  const Index shards = std::min<Index>(rows, 4);
  std::vector<double> nats(static_cast<std::size_t>(shards)), counts(static_cast<std::size_t>(shards));
  parallel_for(shards, 1, [&](Index first, Index last) {
    for (Index shard = first; shard < last; ++shard) {
      const Index from = rows * shard / shards, batch = rows * (shard + 1) / shards - from;
      auto state = model.initial_state(batch);
      for (Index at = 0; at < length; at += advance) {
        const Index begin = carry_state ? at : std::max<Index>(0, at + advance - block);
        const Index end = std::min(length, at + advance), skip = at - begin;
        DynTensor<std::int32_t, 2> tokens(batch, end - begin), targets(batch, end - begin);
        for (Index b = 0; b < batch; ++b) {
          for (Index i = begin; i < end; ++i) {
            const auto place = static_cast<std::size_t>((from + b) * length + i);
            tokens(b, i - begin) = text[place];
            targets(b, i - begin) = i < at ? -100 : text[place + 1];
          }
        }
        const auto loss = carry_state ? cross_entropy(model(tokens, state), targets) : cross_entropy(model(tokens), targets);
        const double n = static_cast<double>(batch * (end - begin - skip));
        nats[static_cast<std::size_t>(shard)] += static_cast<double>(*loss.data()) * n;
        counts[static_cast<std::size_t>(shard)] += n;
      }
    }
  });
  double sum = 0, count = 0;
  for (std::size_t i = 0; i < nats.size(); ++i) {
    sum += nats[i];
    count += counts[i];
  }
  return sum / count / std::numbers::ln2;
}

template <class Model>
typename Model::Config model_config(const Options& o) {
  typename Model::Config c;
  c.vocab_size = 256;
  c.model_dim = o.dim;
  c.num_layers = o.layers;
  c.tie_embeddings = true;
  for (const Mixer mixer : o.pattern) {
    switch (mixer) {
      case Mixer::mamba: c.layers.push_back({.mixer = ordo::Mamba<float>::Config{}}); break;
      case Mixer::softmax:
        c.layers.push_back({.mixer = ordo::SoftmaxAttention<float>::Config{
            .num_heads = o.heads, .causal = true, .rope_base = 10000, .cache_reserve = o.block + static_cast<ordo::Index>(o.tokens)}});
        break;
      case Mixer::lstm: c.layers.push_back({.mixer = Lstm::Config{}}); break;
      case Mixer::gru: c.layers.push_back({.mixer = Gru::Config{}}); break;
    }
  }
  if constexpr (std::is_same_v<Model, HybridModel>) {
    for (auto& layer : c.layers) layer.feed_forward = {{.ff_dim = (8 * o.dim / 3 + 7) / 8 * 8}};
  }
  return c;
}

/// What a checkpoint keeps of the options: enough to build the same model and to refuse another text.
inline ordo::Json describe(const Options& o, const Task& task) {
  ordo::Json json = ordo::Json::object();
  json.set("mixer", o.mixer);
  json.set("layers", o.layers);
  json.set("dim", o.dim);
  json.set("heads", o.heads);
  json.set("block", o.block);
  json.set("batch", o.batch);
  json.set("seed", std::to_string(o.seed));
  json.set("learning_rate", o.learning_rate);
  json.set("weight_decay", o.weight_decay);
  json.set("clip_norm", o.clip_norm);
  json.set("warmup_steps", o.warmup_steps);
  json.set("steps", o.steps);
  json.set("seconds", o.seconds);
  json.set("text", std::to_string(fingerprint(task.text.bytes)));
  return json;
}

/// Text for a terminal: control bytes, which could steer it, become question marks.
inline std::string printable(std::string text) {
  for (char& c : text) {
    if ((static_cast<unsigned char>(c) < 32 && c != '\n' && c != '\t') || c == 127) c = '?';
  }
  return text;
}

/// Streams from a prompt, byte by byte, and reports what a byte costs.
template <class Model>
void stream(const Model& model, const Options& o, const Task& task) {
  using namespace ordo;
  std::vector<std::int32_t> prompt;
  if (o.prompt.empty()) {
    const auto n = std::min<std::size_t>(task.split.held_out.size(), static_cast<std::size_t>(o.block) / 2);
    prompt.assign(task.split.held_out.begin(), task.split.held_out.begin() + static_cast<std::ptrdiff_t>(n));
  } else {
    for (const char c : o.prompt) prompt.push_back(static_cast<unsigned char>(c));
  }
  std::string out;
  for (const std::int32_t t : prompt) out += static_cast<char>(t);
  std::printf("\n--- streamed from a prompt of %zu bytes ---\n%s", prompt.size(), printable(out).c_str());
  std::fflush(stdout);
  const FlushDenormals flush;
  auto state = model.initial_state(1);
  Sampler sampler({.temperature = o.temperature, .top_k = o.top_k, .top_p = o.top_p, .seed = o.seed});
  using Clock = std::chrono::steady_clock;
  std::vector<double> microseconds;
  microseconds.reserve(static_cast<std::size_t>(o.tokens));
  std::string generated;
  generated.reserve(static_cast<std::size_t>(o.tokens));
  auto last = Clock::now();
  std::optional<ordo_test::AllocationCount> count;
  std::size_t allocations = 0;
  generate(model, state, prompt, {.max_new_tokens = o.tokens}, sampler, [&](std::int32_t token) {
    const auto now = Clock::now();
    // The first bytes warm the caches of scratch; from then on nothing may be allocated.
    if (count) allocations = count->allocations();
    if (generated.size() == 8) count.emplace();
    microseconds.push_back(std::chrono::duration<double, std::micro>(now - last).count());
    generated += static_cast<char>(token);
    last = Clock::now();
    return true;
  });
  std::fputs(printable(generated).c_str(), stdout);
  if (microseconds.size() > 1) {
    microseconds.erase(microseconds.begin());  // the prompt
    std::sort(microseconds.begin(), microseconds.end());
    std::printf("\n---\n%zu bytes streamed: median %.1f us a byte (99%% within %.1f us), %zu heap allocations after the first 9 bytes, state of %zu bytes\n",
                generated.size(), microseconds[microseconds.size() / 2], microseconds[microseconds.size() * 99 / 100], allocations,
                state.size_bytes());
  }
}

template <class Model>
int run(const Options& o, const Task& task) {
  using namespace ordo;
  namespace fs = std::filesystem;
  using Clock = std::chrono::steady_clock;
  const bool carry = !has_mixer(o, Mixer::softmax);
  set_num_threads(o.threads);
  Random random(o.seed);
  Model model(model_config<Model>(o), random);
  AdamW optimizer({.beta2 = 0.99, .weight_decay = o.weight_decay});
  TextBatches batches(task.split.training, {.batch_size = o.batch, .length = o.block}, random.split(1));
  const fs::path checkpoint = fs::path(o.out) / "checkpoint.safetensors";

  TrainingProgress progress;
  progress.data = describe(o, task);
  LossCurve curve;
  if (!o.resume.empty()) {
    progress = load_checkpoint(o.resume, model, optimizer);
    batches.seek(progress.randoms.at("batches"));
  }
  double total_steps = progress.numbers.contains("total_steps") ? progress.numbers["total_steps"] : static_cast<double>(o.steps);
  const double seconds_before = progress.numbers.contains("seconds") ? progress.numbers["seconds"] : 0;
  if (!o.resume.empty() && o.was_given("steps")) total_steps = static_cast<double>(o.steps);
  std::printf("model: %s, %lld layers of %lld, %lld parameters; %d threads\n", o.mixer.c_str(), static_cast<long long>(o.layers),
              static_cast<long long>(o.dim), static_cast<long long>(num_parameters(model)), num_threads());

  const auto start = Clock::now();
  const auto elapsed = [&] { return seconds_before + std::chrono::duration<double>(Clock::now() - start).count(); };
  const Index first = progress.step;
  Progress bar({.steps = static_cast<std::int64_t>(total_steps), .seconds = total_steps > 0 ? 0 : o.seconds, .first_step = first,
                .seconds_before = seconds_before, .loss_unit = "bits/byte"});
  const InterruptGuard interrupt;
  DataParallel parallel(std::min<Index>(o.batch, 4));  // fixed: the result does not depend on the number of threads
  const auto save = [&] {
    progress.numbers["total_steps"] = total_steps;
    progress.numbers["seconds"] = elapsed();
    progress.randoms.insert_or_assign("batches", batches.random());
    save_checkpoint(checkpoint, model, optimizer, progress);
  };
  // A budget in seconds becomes one in steps as soon as the speed is known; so a resumed run has the same schedule.
  constexpr Index probe_steps = 12;
  bool stopped = false;
  double evaluation_seconds = 0;
  Index next_evaluation = 0;
  while (total_steps <= 0 || static_cast<double>(progress.step) < total_steps) {
    if (interrupt.requested()) {
      stopped = true;
      break;
    }
    const double rate = [&] {
      const double warm = std::min(1.0, static_cast<double>(progress.step + 1) / static_cast<double>(std::max<std::int64_t>(o.warmup_steps, 1)));
      const double t = total_steps > 0 ? static_cast<double>(progress.step) / total_steps : 0;
      return o.learning_rate * warm * (0.1 + 0.45 * (1 + std::cos(std::numbers::pi * t)));
    }();
    const TokenBatch batch = batches.next();
    auto [loss, gradients] = parallel.sum([&](Index shard, Tape& tape) {
      const TokenBatch part = batch.shard(shard, parallel.shards());
      const double share = static_cast<double>(part.tokens.extent(0)) / static_cast<double>(o.batch);
      return affine(cross_entropy(model(track(tape, part.tokens)), part.targets), share);
    });
    if (!std::isfinite(loss)) fail<UsageError>("the loss is no longer finite after step " + std::to_string(progress.step) + "; lower --learning-rate");
    if (o.clip_norm > 0) clip_grad_norm(model, gradients, o.clip_norm);
    optimizer.step(model, gradients, rate);
    ++progress.step;
    bar.update(progress.step, loss / std::numbers::ln2, o.batch * o.block);
    curve.training.push_back({static_cast<double>(progress.step), loss / std::numbers::ln2});
    if (total_steps <= 0 && progress.step == first + probe_steps) {
      const double per_step = (elapsed() - seconds_before) / static_cast<double>(probe_steps);
      total_steps = std::max(static_cast<double>(progress.step), std::floor(o.seconds / per_step));
    }
    if (total_steps > 0) {
      const auto every = o.evaluate_every > 0 ? o.evaluate_every : std::max<std::int64_t>(static_cast<std::int64_t>(total_steps / 8), 1);
      if (next_evaluation == 0) next_evaluation = progress.step / every * every + every;
      if (progress.step >= next_evaluation) {
        const auto before = Clock::now();
        next_evaluation += every;
        const auto part = task.judged.first(std::min<std::size_t>(task.judged.size(), 16384));
        const double bits = bits_per_byte(model, part, o.block, carry);
        curve.held_out.push_back({static_cast<double>(progress.step), bits});
        save();
        evaluation_seconds += std::chrono::duration<double>(Clock::now() - before).count();
      }
      // A machine that slows down must not hold its user up.
      if (o.seconds > 0 && o.steps == 0 && elapsed() - evaluation_seconds > 1.15 * o.seconds) break;
    }
  }
  bar.finish();
  save();
  if (stopped) {
    std::printf("\nstopped at step %lld; the checkpoint is %s\nresume with: language_model --resume %s%s%s%s%s\n", static_cast<long long>(progress.step),
                checkpoint.string().c_str(), checkpoint.string().c_str(), o.text.empty() ? "" : " --text ", o.text.c_str(),
                o.was_given("out") ? " --out " : "", o.was_given("out") ? o.out.c_str() : "");
    return 128 + interrupt.signal();
  }

  // From here on with what is in the file: what was saved is what is judged and what streams.
  Random other(o.seed + 1);
  Model loaded(model_config<Model>(o), other);
  load_checkpoint(checkpoint, loaded);
  const double bits = bits_per_byte(loaded, task.judged, o.block, carry);
  curve.held_out.push_back({static_cast<double>(progress.step), bits});
  curve.title = "Byte-level language model, " + o.mixer;
  curve.lines = {{"4-gram", task.ngram4}, {"5-gram", task.ngram5}};
  write_loss_curve(fs::path(o.out) / "loss.svg", curve);
  std::printf("\nheld out, %zu bytes:  model %.3f bits per byte;  interpolated 4-gram %.3f, 5-gram %.3f  (%s)\n", task.judged.size(), bits,
              task.ngram4, task.ngram5, bits < std::min(task.ngram4, task.ngram5) ? "the model is ahead of both" : "the n-gram is ahead");
  std::printf("%lld steps of %lld bytes in %.0f s; checkpoint and loss curve in %s\n", static_cast<long long>(progress.step),
              static_cast<long long>(o.batch * o.block), elapsed(), o.out.c_str());
  stream(loaded, o, task);
  return 0;
}

}  // namespace ordo_demo
