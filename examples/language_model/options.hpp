#pragma once
/// \file
/// The command line of the language model example.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../support/cli.hpp"
#include "../support/machine.hpp"
#include "../support/terminal.hpp"
#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"

namespace ordo_demo {

enum class Mixer { mamba, softmax, lstm, gru };
inline constexpr std::array<std::pair<std::string_view, Mixer>, 4> mixer_names{
    {{"mamba", Mixer::mamba}, {"softmax", Mixer::softmax}, {"lstm", Mixer::lstm}, {"gru", Mixer::gru}}};

struct Options {
  // text and results
  std::string text;  ///< empty: the default text
  std::string out = "language_model_run";
  std::string resume;  ///< empty: a new run

  // model
  std::string mixer = "mamba";
  std::vector<Mixer> pattern;  ///< the mixer of each block: `mixer`, repeated to `layers`
  ordo::Index layers = 4, dim = 128, heads = 4;

  // training
  ordo::Index block = 128, batch = 16;
  double seconds = 120;    ///< 0: no limit
  std::int64_t steps = 0;  ///< 0: no limit
  double learning_rate = 4e-3, weight_decay = 0.1, clip_norm = 1;
  std::int64_t warmup_steps = 100;
  std::int64_t evaluate_every = 0;  ///< 0: about ten times in a run
  int threads = 0;                  ///< 0: one for each core
  std::uint64_t seed = 1;

  // streaming
  std::string prompt;  ///< empty: the start of the held-out text
  std::int64_t tokens = 400;
  double temperature = 0.8;
  ordo::Index top_k = 0;  ///< 0: no limit
  double top_p = 0.95;

  std::vector<std::string> given;  ///< the names that stood on the command line

  /// True when the option stood on the command line. A resumed run takes its model from the checkpoint, and compares.
  bool was_given(std::string_view name) const { return std::find(given.begin(), given.end(), name) != given.end(); }
};

/// "mamba", "softmax", "lstm", "gru" or a pattern of them, such as "mamba,mamba,softmax".
/// \throws ordo::UsageError naming the part that is no mixer.
inline std::vector<Mixer> parse_pattern(std::string_view text) {
  std::vector<Mixer> pattern;
  for (;;) {
    const std::string_view name = text.substr(0, text.find(','));
    const auto known = std::find_if(mixer_names.begin(), mixer_names.end(), [&](const auto& entry) { return entry.first == name; });
    if (known != mixer_names.end()) {
      pattern.push_back(known->second);
    } else if (name.empty()) {
      ordo::fail<ordo::UsageError>("--mixer needs the name of a mixer before and after each comma");
    } else {
      const std::string meant = closest(name, {"mamba", "softmax", "lstm", "gru"});
      ordo::fail<ordo::UsageError>("--mixer knows mamba, softmax, lstm and gru, not " + in_quotes(name) +
                                   (meant.empty() ? "" : "; did you mean " + meant + "?"));
    }
    if (name.size() == text.size()) return pattern;
    text.remove_prefix(name.size() + 1);
  }
}

inline bool has_mixer(const Options& o, Mixer mixer) { return std::find(o.pattern.begin(), o.pattern.end(), mixer) != o.pattern.end(); }
/// Mamba blocks need no feed-forward; a pattern with another mixer has one in every block.
inline bool has_feed_forward(const Options& o) {
  return std::any_of(o.pattern.begin(), o.pattern.end(), [](Mixer mixer) { return mixer != Mixer::mamba; });
}

/// About how many parameters the model has: exact in the matrices, a token embedding of 256 that is also the head.
inline double estimated_parameters(const Options& o) {
  const auto dim = static_cast<double>(o.dim);
  double count = 256 * dim;
  const bool feed_forward = has_feed_forward(o);
  for (const Mixer mixer : o.pattern) {
    count += mixer == Mixer::mamba ? 6.25 * dim * dim + 112 * dim : (mixer == Mixer::softmax ? 4 : mixer == Mixer::lstm ? 8 : 6) * dim * dim;
    if (feed_forward) count += 8 * dim * dim;
  }
  return count;
}

/// A lower bound, roughly, of the memory that training takes: weights, gradients and two moments, and what the forward
/// pass keeps for the backward pass. It is there to refuse what cannot be, not to plan.
inline double estimated_bytes(const Options& o) {
  const double tokens = static_cast<double>(o.batch) * static_cast<double>(o.block);
  const double kept_per_token = static_cast<double>(o.layers) * 8 * static_cast<double>(o.dim) + 256;
  return 4 * (4 * estimated_parameters(o) + tokens * kept_per_token);
}

/// Checks what concerns several options, and fills in `pattern` and the limits of the run. `memory` is what the machine
/// has, 0 when unknown.
/// \throws ordo::UsageError with one sentence.
inline void complete_options(Options& o, std::uint64_t memory = memory_bytes()) {
  const auto wrong = [](const std::string& sentence) { ordo::fail<ordo::UsageError>(sentence); };
  for (const auto& [name, value] : {std::pair{"text", &o.text}, {"out", &o.out}, {"resume", &o.resume}}) {
    if (o.was_given(name) && value->empty()) wrong("--" + std::string(name) + " needs a name after it, not ''");
  }
  const std::vector<Mixer> unit = parse_pattern(o.mixer);
  const auto length = static_cast<ordo::Index>(unit.size());
  if (length > 1 && !o.was_given("layers")) o.layers = length;
  if (length > 256) wrong("--mixer names " + std::to_string(length) + " blocks, and at most 256 are possible");
  if (o.layers % length != 0) {
    wrong("--layers must be a multiple of " + std::to_string(length) + ", the length of the --mixer pattern, not " +
          std::to_string(o.layers));
  }
  o.pattern.clear();
  for (ordo::Index i = 0; i < o.layers; ++i) o.pattern.push_back(unit[static_cast<std::size_t>(i % length)]);

  if (has_mixer(o, Mixer::softmax)) {
    if (o.dim % o.heads != 0) {
      wrong("--dim must be a multiple of --heads, and " + std::to_string(o.dim) + " is no multiple of " +
            std::to_string(o.heads));
    }
    if (o.dim / o.heads % 2 != 0) {
      wrong("--dim / --heads is the width of a head and must be even, and " + std::to_string(o.dim) + " / " +
            std::to_string(o.heads) + " is " + std::to_string(o.dim / o.heads));
    }
  }

  if (o.was_given("steps") && o.steps > 0 && !o.was_given("seconds")) o.seconds = 0;
  if (o.steps == 0 && o.seconds <= 0) wrong("--steps and --seconds are both 0, so the training would never end");

  const double needed = estimated_bytes(o);
  if (memory > 0 && needed > static_cast<double>(memory)) {
    wrong("a model of this size needs about " + shown_bytes(needed) + " of memory to train and there are " +
          shown_bytes(static_cast<double>(memory)) + "; choose a smaller --dim, --layers, --batch or --block");
  }
}

/// Reads the command line. Prints the help to `out` and returns nothing when it was asked for.
/// \throws ordo::UsageError with one sentence about the first thing that is wrong.
inline std::optional<Options> parse_options(int argc, const char* const* argv, std::FILE* out = stdout) {
  Options o;
  CommandLine line("language_model",
                   "Trains a byte-level language model on a text, compares it with a byte n-gram on a held-out tenth, "
                   "saves it, loads it back and streams from it.");
  line.group("Text and results");
  line.option("text", "FILE", o.text, "the text to learn (default: the headers of Eigen)");
  line.option("out", "FOLDER", o.out, "where the checkpoint and the loss curve go");
  line.option("resume", "FILE", o.resume, "go on with the run that saved this checkpoint");
  line.group("Model");
  line.option("mixer", "LIST", o.mixer,
              "mamba, softmax, lstm, gru, or the mixers of successive blocks: mamba,mamba,softmax is repeated to --layers");
  line.option("layers", "N", o.layers, 1, 256, "number of blocks; a pattern alone gives its length");
  line.option("dim", "N", o.dim, 8, 8192, "width of the model");
  line.option("heads", "N", o.heads, 1, 256, "attention heads of softmax blocks");
  line.group("Training");
  line.option("seconds", "S", o.seconds, 0, 604800,
              "time to train; 0 is no limit, which is the default when --steps is given");
  line.option("steps", "N", o.steps, 0, 1'000'000'000, "steps to train; 0 is no limit");
  line.option("block", "N", o.block, 2, 65536, "bytes in each row of a batch");
  line.option("batch", "N", o.batch, 1, 4096, "rows in each step");
  line.option("learning-rate", "R", o.learning_rate, 1e-7, 1, "highest learning rate, after the warm-up");
  line.option("warmup-steps", "N", o.warmup_steps, 0, 1'000'000, "steps over which the learning rate rises");
  line.option("weight-decay", "R", o.weight_decay, 0, 10, "decay of the matrices, times the learning rate");
  line.option("clip-norm", "R", o.clip_norm, 0, 1e6, "largest norm of the gradients; 0 is no limit");
  line.option("evaluate-every", "N", o.evaluate_every, 0, 1'000'000'000,
              "steps between held-out scores; 0 is about ten in all");
  line.option("threads", "N", o.threads, 0, 1024, "threads; 0 is one for each core");
  line.option("seed", "N", o.seed, 0, UINT64_MAX, "seed of the weights, the batches and the sampling");
  line.group("Streaming");
  line.option("prompt", "TEXT", o.prompt, "what to continue (default: the start of the held-out text)");
  line.option("tokens", "N", o.tokens, 0, 10'000'000, "bytes to write");
  line.option("temperature", "R", o.temperature, 0, 100, "of the sampling; 0 always takes the likeliest byte");
  line.option("top-k", "N", o.top_k, 0, 256, "sample from the N likeliest bytes; 0 is all");
  line.option("top-p", "R", o.top_p, 0.001, 1,
              "sample from the likeliest bytes, as many as reach this probability together");
  line.footer("Ctrl-C saves and says how to go on.");

  if (!line.parse(argc, argv)) {
    const std::string help = line.help(terminal_columns(out));
    std::fputs(help.c_str(), out);
    return std::nullopt;
  }
  for (const std::string& name : line.names()) {
    if (line.given(name)) o.given.push_back(name);
  }
  complete_options(o);
  return o;
}

}  // namespace ordo_demo
