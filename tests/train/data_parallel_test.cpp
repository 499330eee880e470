// Shards: the same bits for any number of threads, equal to one pass over the whole batch, and steady memory.

#include "ordo/train/data_parallel.hpp"

#include <cmath>

#include "ordo/train/adamw.hpp"
#include "ordo/train/clip.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"
#include "train/support.hpp"

using namespace ordo;
using ordo_test::TinyModel;

namespace {

const std::string text = ordo_test::sample_text();

TextBatches<char> make_batches() { return TextBatches(text, {.batch_size = 12, .length = 16}, Random(7, 1)); }

template <class T>
std::vector<T> train(int threads, Index shards, int steps, std::vector<double>* losses = nullptr) {
  set_num_threads(threads);
  Random random(1);
  TinyModel<T> model(random);
  auto batches = make_batches();
  DataParallel parallel(shards);
  AdamW optimizer({.learning_rate = 0.01});
  for (int t = 0; t < steps; ++t) {
    const TokenBatch batch = batches.next();
    auto [loss, gradients] = parallel.mean([&](Index shard, Tape& tape) {
      return ordo_test::squared_error(model, tape, batch.shard(shard, parallel.shards()));
    });
    clip_grad_norm(model, gradients, 1);
    optimizer.step(model, gradients);
    if (losses != nullptr) losses->push_back(loss);
  }
  set_num_threads(1);
  return ordo_test::weights_of(model);
}

}  // namespace

TEST_CASE("training gives the same bits for 1, 2 and 3 threads") {
  std::vector<double> losses[3];
  const auto one = train<float>(1, 4, 8, &losses[0]);
  CHECK(ordo_test::same_bits(one, train<float>(2, 4, 8, &losses[1])));
  CHECK(ordo_test::same_bits(one, train<float>(3, 4, 8, &losses[2])));
  CHECK(losses[0] == losses[1]);
  CHECK(losses[0] == losses[2]);
  CHECK(losses[0].back() < losses[0].front());
}

TEST_CASE("shards together are the whole batch") {
  const auto whole = train<double>(1, 1, 4);
  const auto cut = train<double>(2, 4, 4);
  double worst = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) worst = std::max(worst, std::abs(whole[i] - cut[i]));
  CHECK(worst < 1e-12);  // the order of sums differs; Adam divides by gradients' sizes, which magnifies it a little
}

TEST_CASE("sums, and gradients that f makes itself") {
  Random random(1);
  TinyModel<double> model(random);
  DataParallel parallel(3);
  const auto total = parallel.sum([&](Index shard, Tape&) {
    LossAndGradients r;
    r.loss = static_cast<double>(shard + 1);
    if (shard > 0)
      r.gradients.set(model.up().bias(), AnyTensor<double>(model.up().bias().shape(), static_cast<double>(shard)));
    return r;
  });
  CHECK(total.loss == 6);
  CHECK(total.gradients.of(model.up().bias()).data()[3] == 3);
  CHECK_FALSE(total.gradients.of(model.down().bias()).present());
  CHECK_THROWS_AS(DataParallel(0), ConfigError);
}

TEST_CASE("an error of a shard reaches the caller, and the next step is whole") {
  Random random(1);
  TinyModel<float> model(random);
  auto batches = make_batches();
  const TokenBatch batch = batches.next();
  DataParallel parallel(4);
  const auto run = [&](bool broken) {
    return parallel.sum([&](Index shard, Tape& tape) {
      auto loss = ordo_test::squared_error(model, tape, batch.shard(shard, 4));
      if (broken && shard == 2) fail<UsageError>("shard 2");
      return loss;
    });
  };
  const double before = run(false).loss;
  for (const int threads : {1, 2}) {
    set_num_threads(threads);
    CHECK_THROWS_AS(run(true), UsageError);
    CHECK(run(false).loss == before);
  }
  set_num_threads(1);
}

TEST_CASE("a steady training step takes nothing from the system") {
  Random random(1);
  TinyModel<float> model(random);
  auto batches = make_batches();
  DataParallel parallel(4);
  AdamW optimizer;
  const auto step = [&] {
    const TokenBatch batch = batches.next();
    auto [loss, gradients] = parallel.mean(
        [&](Index shard, Tape& tape) { return ordo_test::squared_error(model, tape, batch.shard(shard, 4)); });
    clip_grad_norm(model, gradients, 1);
    optimizer.step(model, gradients);
  };
  for (int t = 0; t < 3; ++t) step();
  ordo_test::AllocationCount count;
  for (int t = 0; t < 5; ++t) step();
  const std::size_t allocations = count.allocations();
  CHECK(allocations == 0);
}
