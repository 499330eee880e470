// The adding problem (Hochreiter and Schmidhuber 1997) over 100 steps: two of the numbers are marked, one in each half; the last hidden
// state has to hold their sum. Predicting 1 always costs 1/6.
//
//     adding_problem --seeds 3
//
// Figure: mean squared error over 2,048 fresh sequences, after 2,500 steps.

#include "../support/recipe.hpp"
#include "ordo/nn/recurrent/lstm.hpp"
#include "ordo/ops/elementwise.hpp"
#include "ordo/ops/reduce.hpp"

namespace {

using namespace ordo_papers;

constexpr Index length = 100, hidden = 64;

struct Sums {
  DynTensor<float, 3> x;  // [B, L, 2]: the number, and whether it is marked
  DynTensor<float, 2> y;  // [B, 1]
};

Sums make_batch(Random& random, Index batch) {
  Sums b{DynTensor<float, 3>(batch, length, 2), DynTensor<float, 2>(batch, 1)};
  for (Index row = 0; row < batch; ++row) {
    for (Index i = 0; i < length; ++i) b.x(row, i, 0) = static_cast<float>(random.uniform());
    for (const Index half : {Index{0}, length / 2}) {
      const Index place = half + static_cast<Index>(random.below(length / 2));
      b.x(row, place, 1) = 1;
      b.y(row, 0) += b.x(row, place, 0);
    }
  }
  return b;
}

class Adder {
 public:
  using value_type = float;
  explicit Adder(Random& random) : lstm_({.input_dim = 2, .hidden_dim = hidden}, random), head_({hidden, 1, true}, random) {}

  template <TensorLike X>
  auto operator()(const X& x) const {
    return head_(reshape(slice(lstm_(x), 1, length - 1, 1), view(x).extent(0), hidden));
  }
  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("lstm", self.lstm_);
    f("head", self.head_);
  }

 private:
  Lstm<float> lstm_;
  Linear<float> head_;
};

double run(const Options& options, std::uint64_t seed) {
  Random random(seed);
  Adder model(random);
  std::printf("seed %llu: %lld parameters\n", static_cast<unsigned long long>(seed), static_cast<long long>(num_parameters(model)));
  Random data = random.split(1), test = random.split(2);
  DataParallel parallel(2);
  const auto error = [&](Index sequences) {
    const Sums b = make_batch(test, sequences);
    return static_cast<double>(*mean(square(sub(model(b.x), b.y))).data());
  };
  Trainer trainer(options, false, 250);
  trainer.run(
      model,
      [&] {
        const Sums batch = make_batch(data, options.batch);
        return parallel.mean([&](Index shard, Tape& tape) {
          const Index begin = options.batch * shard / 2, end = options.batch * (shard + 1) / 2;
          return mean(square(sub(model(track(tape, rows(batch.x, begin, end))), rows(batch.y, begin, end))));
        });
      },
      [&] { return "squared error " + figures({error(512)}); });
  const double final_error = error(2048);
  std::printf("seed %llu: squared error %.5f after %lld steps, %.0f s\n", static_cast<unsigned long long>(seed), final_error,
              static_cast<long long>(options.steps), trainer.seconds());
  return final_error;
}

int body(int argc, char** argv) {
  Options o;
  o.steps = 2500;
  o.learning_rate = 1e-2;
  ordo_demo::CommandLine cli("adding_problem", "Trains an Lstm to add two marked numbers among 100.");
  o.declare(cli);
  if (!cli.parse(argc, argv)) {
    std::fputs(cli.help(100).c_str(), stdout);
    return 0;
  }
  set_num_threads(o.threads);
  double worst = 0;
  for (int i = 0; i < o.seeds; ++i) worst = std::max(worst, run(o, o.seed + static_cast<std::uint64_t>(i)));
  std::printf("adding problem, Lstm of %lld: worst squared error of %d seeds %.5f after %lld steps\n", static_cast<long long>(hidden),
              o.seeds, worst, static_cast<long long>(o.steps));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return ordo_demo::run_program("adding_problem", [&] { return body(argc, argv); });
}
