// Trains a byte-level causal language model on real text, then streams from it:
//
//     language_model [--text FILE] [--mixer mamba|softmax|lstm|gru|mamba,mamba,softmax] [--seconds 100] [--out FOLDER] [--resume FILE]
//
// The default text is the C++ of the Eigen headers. `language_model --help` lists everything.

#include "run.hpp"

namespace {

using namespace ordo_demo;

/// The options of the run that a checkpoint belongs to, for what the command line leaves open; what it contradicts is refused.
void take_over(Options& o, const Task* task) {
  const ordo::TrainingProgress saved = ordo::read_progress(o.resume);
  const ordo::JsonRef data = saved.data.named(o.resume);
  const auto integer = [&](const char* name, ordo::Index& value) {
    const auto old = data.at(name).as<ordo::Index>();
    if (o.was_given(name) && value != old) {
      ordo::fail<ordo::UsageError>("--" + std::string(name) + " is " + std::to_string(value) + ", and the run of " + in_quotes(o.resume) +
                                   " has " + std::to_string(old));
    }
    value = old;
  };
  if (o.was_given("mixer") && o.mixer != data.at("mixer").as_string()) {
    ordo::fail<ordo::UsageError>("--mixer is " + o.mixer + ", and the run of " + in_quotes(o.resume) + " has " + data.at("mixer").as_string());
  }
  o.mixer = data.at("mixer").as_string();
  integer("layers", o.layers);
  integer("dim", o.dim);
  integer("heads", o.heads);
  integer("block", o.block);
  integer("batch", o.batch);
  if (o.was_given("seed") && std::to_string(o.seed) != data.at("seed").as_string()) {
    ordo::fail<ordo::UsageError>("--seed is " + std::to_string(o.seed) + ", and the run of " + in_quotes(o.resume) + " has " +
                                 data.at("seed").as_string());
  }
  o.seed = std::stoull(data.at("seed").as_string());
  // What shapes the training may be changed on purpose; left alone, the run goes on bit for bit as it would have.
  const auto number = [&](const char* option, const char* key, double& value) {
    if (!o.was_given(option)) value = data.at(key).as_double();
  };
  number("learning-rate", "learning_rate", o.learning_rate);
  number("weight-decay", "weight_decay", o.weight_decay);
  number("clip-norm", "clip_norm", o.clip_norm);
  if (!o.was_given("warmup-steps")) o.warmup_steps = data.at("warmup_steps").as_int();
  if (!o.was_given("steps") && !o.was_given("seconds")) {
    o.steps = data.at("steps").as_int();
    o.seconds = data.at("seconds").as_double();
  }
  const std::vector<Mixer> unit = parse_pattern(o.mixer);
  o.pattern.clear();
  for (ordo::Index i = 0; i < o.layers; ++i) o.pattern.push_back(unit[static_cast<std::size_t>(i) % unit.size()]);
  if (task != nullptr && data.at("text").as_string() != std::to_string(fingerprint(task->text.bytes))) {
    ordo::fail<ordo::FileError>("the checkpoint " + in_quotes(o.resume) + " was trained on another text than " + in_quotes(task->text.source));
  }
}

int body(int argc, char** argv) {
  std::optional<Options> given = parse_options(argc, argv);
  if (!given) return 0;
  Options& o = *given;
  if (!o.resume.empty()) take_over(o, nullptr);
  if (o.threads == 0) o.threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  Task task;
  task.text = load_text(o.text);
  task.split = split_text(task.text, static_cast<std::size_t>(o.block));
  if (!o.resume.empty()) take_over(o, &task);
  prepare_folder(o.out);
  task.judged = task.split.held_out.first(std::min<std::size_t>(task.split.held_out.size(), std::size_t{1} << 17));
  std::printf("text: %s, %zu training and %zu held-out bytes\n", task.text.source.c_str(), task.split.training.size(), task.split.held_out.size());
  for (const auto& [order, bits] : {std::pair<ordo::Index, double*>{4, &task.ngram4}, {5, &task.ngram5}}) {
    ordo::NgramModel ngram(order);
    ngram.train(task.split.training);
    *bits = ngram.bits_per_byte(task.judged);
  }
  return has_feed_forward(o) ? run<HybridModel>(o, task) : run<MambaModel>(o, task);
}

}  // namespace

int main(int argc, char** argv) {
  return ordo_demo::run_program("language_model", [&] { return body(argc, argv); });
}
