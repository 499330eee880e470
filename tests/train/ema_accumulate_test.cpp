// Averages of weights, and gradients summed over several passes.

#include <cmath>

#include "io/support.hpp"
#include "ordo/io/checkpoint.hpp"
#include "ordo/train/accumulate.hpp"
#include "ordo/train/adamw.hpp"
#include "ordo/train/ema.hpp"
#include "ordo/train/muon.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"
#include "train/support.hpp"

using namespace ordo;
using ordo_test::same_bits;
using ordo_test::squared_error;
using ordo_test::TinyModel;
using ordo_test::weights_of;

namespace {

const std::string text = ordo_test::sample_text();

auto batches() { return TextBatches(text, {.batch_size = 6, .length = 9}, Random(9, 2)); }

void train(TinyModel<float>& model, AdamW& optimizer, const TokenBatch& batch) {
  Tape tape;
  const auto loss = squared_error(model, tape, batch);
  optimizer.step(model, tape.backward(loss));
}

}  // namespace

TEST_CASE("an average of weights: copies at first, then decays, and swaps in and out") {
  Random random(1);
  TinyModel<float> model(random);
  AdamW optimizer({.learning_rate = 0.1});
  auto source = batches();
  Ema ema({.decay = 0.75});
  const auto before = weights_of(model);
  ema.swap(model);  // nothing is averaged yet
  CHECK(same_bits(before, weights_of(model)));
  std::vector<double> expected;
  for (int t = 0; t < 5; ++t) {
    train(model, optimizer, source.next());
    ema.update(model);
    const auto weights = weights_of(model);
    if (t == 0) expected.assign(weights.begin(), weights.end());
    for (std::size_t i = 0; i < weights.size(); ++i) expected[i] = 0.75 * expected[i] + 0.25 * static_cast<double>(weights[i]);
  }
  const auto own = weights_of(model);
  DynTensor<float, 3> x(DynExtents<3>(1, 2, 1), 0.5F);
  const auto y = model(x);
  {
    const EmaScope averaged(ema, model);
    CHECK(ema.swapped());
    CHECK_THROWS_AS(ema.update(model), UsageError);
    const auto average = weights_of(model);
    // Five roundings of numbers below 2.
    for (std::size_t i = 0; i < average.size(); ++i) REQUIRE(std::abs(static_cast<double>(average[i]) - expected[i]) < 5 * 1.2e-7);
    CHECK(model(x)(0, 0, 0) != y(0, 0, 0));  // what was packed of the own weights is dropped
  }
  CHECK(same_bits(own, weights_of(model)));
  CHECK(model(x)(0, 0, 0) == y(0, 0, 0));
}

TEST_CASE("what is not averaged stays in the model") {
  Random random(1);
  TinyModel<float> model(random);
  Ema ema({.decay = 0}, [](const ParameterInfo& p) { return p.name() == "weight"; });
  ema.update(model);
  model.up().weight().mutate().fill(5);
  const auto changed = weights_of(model);
  ema.swap(model);
  CHECK_FALSE(same_bits(changed, weights_of(model)));
  ema.visit_memories(model, [](const Path& path, const char*, const auto&) { CHECK(path.name() == "weight"); });
}

TEST_CASE("updates of averages allocate nothing after the first") {
  Random random(1);
  TinyModel<float> model(random);
  Ema ema;
  ema.update(model);
  ordo_test::AllocationCount count;
  ema.update(model);
  ema.swap(model);
  ema.swap(model);
  const std::size_t allocations = count.allocations();
  CHECK(allocations == 0);
}

TEST_CASE("several optimisers and an average are saved with a run, which goes on with the same bits") {
  const ordo_test::TemporaryFolder folder;
  struct Run {
    Random random;
    TinyModel<float> model;
    Muon muon{{}, [](const ParameterInfo& p) { return ParameterGroup{0.1, is_hidden_matrix(p) ? 1.0 : 0.0}; }};
    AdamW adamw{{}, [](const ParameterInfo& p) { return ParameterGroup{0, is_hidden_matrix(p) ? 0.0 : 1.0}; }};
    Ema ema{{.decay = 0.5}};
    explicit Run(std::uint64_t seed) : random(seed), model(random) {}
    auto memories() { return std::tie(muon, adamw, ema); }
    void step(const TokenBatch& batch) {
      Tape tape;
      const auto loss = squared_error(model, tape, batch);
      const Gradients g = tape.backward(loss);
      muon.step(model, g);
      adamw.step(model, g);
      ema.update(model);
    }
  };
  auto source = batches();
  std::vector<TokenBatch> all;
  for (int i = 0; i < 6; ++i) all.push_back(source.next());
  Run whole(1), before(1), after(7);
  for (const TokenBatch& batch : all) whole.step(batch);
  for (std::size_t i = 0; i < 3; ++i) before.step(all[i]);
  save_checkpoint(folder / "c", before.model, before.memories(), {.step = 3});
  after.step(all[5]);
  CHECK(load_checkpoint(folder / "c", after.model, after.memories()).step == 3);
  for (std::size_t i = 3; i < 6; ++i) after.step(all[i]);
  CHECK(same_bits(weights_of(whole.model), weights_of(after.model)));
  whole.ema.swap(whole.model);
  after.ema.swap(after.model);
  CHECK(same_bits(weights_of(whole.model), weights_of(after.model)));

  // Averages in the model are not its weights; another order or number of memories is another run.
  CHECK_THROWS_AS(save_checkpoint(folder / "d", after.model, after.memories(), {}), UsageError);
  after.ema.swap(after.model);
  const auto weights = weights_of(after.model);
  CHECK_THROWS_AS(load_checkpoint(folder / "c", after.model, std::tie(after.adamw, after.muon, after.ema)), FileError);
  CHECK_THROWS_AS(load_checkpoint(folder / "c", after.model, after.muon), FileError);
  CHECK(same_bits(weights, weights_of(after.model)));

  // The averages alone, to be used.
  Random random(3);
  TinyModel<double> averaged(random);
  load_averages(folder / "c", averaged);
  before.ema.swap(before.model);
  CHECK(static_cast<float>(weights_of(averaged)[5]) == weights_of(before.model)[5]);
}

TEST_CASE("accumulated gradients are those of DataParallel bit for bit") {
  Random random(1);
  TinyModel<float> model(random);
  auto source = batches();
  const TokenBatch batch = source.next();
  DataParallel parallel(3);
  const LossAndGradients expected =
      parallel.mean([&](Index shard, Tape& tape) { return squared_error(model, tape, batch.shard(shard, 3)); });
  GradientAccumulator accumulate(3);
  std::size_t allocations = 1;
  LossAndGradients found;
  for (int round = 0; round < 3; ++round) {
    CHECK(accumulate.count() == 0);
    ordo_test::AllocationCount count;
    for (Index part = 0; part < 3; ++part) {
      Tape tape;
      const auto loss = squared_error(model, tape, batch.shard(part, 3));
      accumulate.add(static_cast<double>(loss.item()), tape.backward(loss));
    }
    found = accumulate.take_mean();
    allocations = count.allocations();
  }
  CHECK(allocations == 0);  // from the system, once the pool has the blocks
  CHECK(found.loss == expected.loss);
  for_each_leaf(model, [&](const Path&, const auto& p) {
    const auto a = expected.gradients.of(p), b = found.gradients.of(p);
    CHECK(std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(float)) == 0);
  });

  CHECK_THROWS_AS(accumulate.take_sum(), UsageError);
  CHECK_THROWS_AS(GradientAccumulator(0), ConfigError);
  GradientAccumulator one(1);
  one.add(1, {});
  CHECK(one.complete());
  CHECK_THROWS_AS(one.add(1, Gradients{}), UsageError);
}
