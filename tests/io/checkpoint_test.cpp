// Training checkpoints: a run that is resumed goes on with the same bits; damage is found; kill -9 leaves a good file.

#include "ordo/io/checkpoint.hpp"

#include <sys/wait.h>
#include <unistd.h>
#include <csignal>
#include <limits>

#include "io/support.hpp"
#include "ordo/io/config.hpp"
#include "ordo/train/adamw.hpp"
#include "ordo/train/clip.hpp"
#include "ordo/train/data_parallel.hpp"
#include "ordo/train/schedule.hpp"
#include "support/catch.hpp"
#include "train/support.hpp"

using namespace ordo;
using ordo_test::contains;
using ordo_test::file_error;
using ordo_test::TinyModel;
using ordo_test::weights_of;

namespace {

const std::string text = ordo_test::sample_text();

/// One training run with all that a checkpoint has to keep.
struct Run {
  explicit Run(std::uint64_t seed, AdamW::Config config = {.learning_rate = 0.01, .amsgrad = true})
      : random(seed), model(random), optimizer(config) {}

  void train(int steps) {
    for (int i = 0; i < steps; ++i, ++step) {
      const TokenBatch batch = batches.next();
      auto [value, gradients] = parallel.mean([&](Index shard, Tape& tape) {
        return ordo_test::squared_error(model, tape, batch.shard(shard, parallel.shards()));
      });
      clip_grad_norm(model, gradients, 0.5);
      optimizer.step(model, gradients, schedule(step));
      loss = value;
    }
  }
  void save(const std::filesystem::path& path) const {
    TrainingProgress p;
    p.step = step;
    p.randoms.emplace("batches", batches.random());
    p.numbers["loss"] = loss;
    p.data = write_config(schedule);
    save_checkpoint(path, model, optimizer, p);
  }
  void load(const std::filesystem::path& path) {
    const TrainingProgress p = load_checkpoint(path, model, optimizer);
    step = p.step;
    batches.seek(p.randoms.at("batches"));
    loss = p.numbers.at("loss");
    read_config(p.data, schedule);
  }

  Random random;
  TinyModel<float> model;
  AdamW optimizer;
  TextBatches<char> batches = TextBatches(text, {.batch_size = 4, .length = 12}, Random(9, 2));
  DataParallel parallel{2};
  CosineSchedule schedule{.learning_rate = 0.02, .total_steps = 6, .warmup_steps = 2};
  Index step = 0;
  double loss = 0;
};

void check_resume(int first, int second) {
  const ordo_test::TemporaryFolder folder;
  Run whole(1);
  whole.train(first + second);

  Run before(1);
  before.train(first);
  before.save(folder / "c.safetensors");
  Run after(555);  // other weights, other everything
  after.schedule = {};
  if (first > 0) after.train(1);  // and memories of its own, to be replaced
  after.load(folder / "c.safetensors");
  CHECK(after.step == first);
  CHECK(after.optimizer.steps() == first);
  after.train(second);
  CHECK(ordo_test::same_bits(weights_of(whole.model), weights_of(after.model)));
  CHECK(whole.loss == after.loss);
}

}  // namespace

TEST_CASE("a resumed run goes on with the same bits") {
  check_resume(3, 3);
  check_resume(0, 4);  // saved before the first step
  set_num_threads(2);
  check_resume(5, 1);
  set_num_threads(1);
}

TEST_CASE("the weights alone, converted, and the progress alone") {
  const ordo_test::TemporaryFolder folder;
  Run run(1);
  run.train(2);
  run.save(folder / "c.safetensors");
  Random random(3);
  TinyModel<double> wide(random);
  CHECK(load_checkpoint(folder / "c.safetensors", wide).step == 2);
  CHECK(static_cast<float>(weights_of(wide)[5]) == weights_of(run.model)[5]);
  const TrainingProgress p = read_progress(folder / "c.safetensors");
  CHECK(p.step == 2);
  CHECK(p.numbers.at("loss") == run.loss);
  CHECK(p.data.at("warmup_steps").as_int() == 2);
  CHECK(p.randoms.at("batches").state() == run.batches.random().state());
}

TEST_CASE("numbers that are not finite survive") {
  const ordo_test::TemporaryFolder folder;
  Run run(1);
  TrainingProgress p;
  p.numbers = {{"best", std::numeric_limits<double>::infinity()}, {"third", 1.0 / 3}};
  save_checkpoint(folder / "c", run.model, run.optimizer, p);
  const TrainingProgress back = read_progress(folder / "c");
  CHECK(back.numbers == p.numbers);
}

TEST_CASE("files that do not fit leave model and optimiser untouched") {
  const ordo_test::TemporaryFolder folder;
  Run run(1);
  run.train(2);
  run.save(folder / "good");
  const std::string good = ordo_test::read_plainly(folder / "good");

  Run other(2);
  other.train(1);
  const auto weights = weights_of(other.model);
  const auto refused = [&](const std::string& contents) {
    ordo_test::write_plainly(folder / "bad", contents);
    const std::string error = file_error([&] { other.load(folder / "bad"); });
    REQUIRE(ordo_test::same_bits(weights, weights_of(other.model)));
    REQUIRE(other.optimizer.steps() == 1);
    return error;
  };

  SECTION("cut off anywhere") {
    for (std::size_t n = 0; n < good.size(); n += 37) REQUIRE_FALSE(refused(good.substr(0, n)).empty());
  }
  SECTION("any bit turned") {
    for (std::size_t i = 0; i < good.size(); i += 11) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
      CAPTURE(i);
      REQUIRE_FALSE(refused(bad).empty());
    }
  }
  SECTION("a model file, an empty file, no file") {
    save_model(folder / "model", run.model);
    CHECK(contains(refused(ordo_test::read_plainly(folder / "model")), "no training checkpoint"));
    CHECK_FALSE(refused("").empty());
    CHECK_FALSE(refused("hello, this is no checkpoint").empty());
    CHECK(contains(file_error([&] { other.load(folder / "absent"); }), "absent"));
  }
  SECTION("a larger model") {
    Random random(1);
    TinyModel<float> large(random, 25);
    AdamW optimizer;
    const std::string error = file_error([&] { load_checkpoint(folder / "good", large, optimizer); });
    CHECK(contains(error, "model.up.weight: file has [24, 1], model needs [25, 1]"));
    CHECK(contains(error, "optimizer.m.up.weight"));
    CHECK_FALSE(optimizer.prepared());
  }
  SECTION("an optimiser that remembers something else") {
    Run plain(1, {.amsgrad = false});
    CHECK(contains(file_error([&] { plain.load(folder / "good"); }), "optimizer.s.up.weight"));
  }
  SECTION("another scalar type: the run would not go on with the same bits") {
    Random random(1);
    TinyModel<double> wide(random);
    AdamW optimizer({.amsgrad = true});
    CHECK(contains(file_error([&] { load_checkpoint(folder / "good", wide, optimizer); }), "stored as F32"));
  }
}

TEST_CASE("killed at any moment, a run leaves a checkpoint that loads") {
  const ordo_test::TemporaryFolder folder;
  const auto path = folder / "c.safetensors";
  Run run(1);
  // All weights and memories are the number of the step: a mixture of two checkpoints would show.
  const auto set_all = [](Run& r, Index step) {
    for_each_leaf(r.model, [&](const Path&, auto& p) { p.mutate().fill(static_cast<float>(step)); });
    r.optimizer.prepare(r.model);
    r.optimizer.visit_memories(r.model,
                               [&](const Path&, const char*, auto values) { values.fill(static_cast<float>(step)); });
    r.step = step;
  };
  set_all(run, 0);
  run.save(path);
  Random delays(4);
  Index last = 0;
  for (int round = 0; round < 25; ++round) {
    int pipe_ends[2];
    REQUIRE(::pipe(pipe_ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (Index step = last + 1;; ++step) {
        set_all(run, step);
        run.save(path);
        if (::write(pipe_ends[1], "x", 1) != 1) ::_exit(1);
      }
    }
    ::close(pipe_ends[1]);
    char signal = 0;
    CHECK(::read(pipe_ends[0], &signal, 1) == 1);  // one is written; the next is under way
    ::usleep(static_cast<useconds_t>(delays.below(3000)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    ::close(pipe_ends[0]);
    CHECK(WIFSIGNALED(status));

    Run loaded(2);
    loaded.load(path);
    REQUIRE(loaded.step > last);
    last = loaded.step;
    for (const float w : weights_of(loaded.model)) REQUIRE(w == static_cast<float>(last));
    loaded.optimizer.visit_memories(loaded.model, [&](const Path&, const char*, const auto& values) {
      for (Index i = 0; i < values.size(); ++i) REQUIRE(values.data()[i] == static_cast<float>(last));
    });
  }
  CHECK(folder.count() <= 2);  // the checkpoint, and at most one temporary of the last kill
}
