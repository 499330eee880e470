// AdamW against the formula in long double, its groups, and what it may allocate.

#include "ordo/train/adamw.hpp"

#include <cmath>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/train/clip.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"
#include "train/support.hpp"

using namespace ordo;

namespace {

/// Parameters of every size around the vector widths, and one that is cut into pieces.
template <class T>
struct Arrays {
  using value_type = T;
  std::vector<DynParameter<T, 2>> list;
  DynParameter<T, 1> bias, A_log;
  explicit Arrays(Random& random) {
    for (Index n = 1; n <= 35; ++n) list.push_back(uniform_parameter<T>(DynExtents<2>(1, n), 1, random));
    list.push_back(uniform_parameter<T>(DynExtents<2>(150, 257), 1, random));
    bias = uniform_parameter<T>(DynExtents<1>(7), 1, random);
    A_log = uniform_parameter<T>(DynExtents<1>(5), 1, random);
  }
  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    static const std::vector<std::string> names = [] {
      std::vector<std::string> all;
      for (int i = 0; i < 36; ++i) all.push_back("w" + std::to_string(i));
      return all;
    }();
    for (std::size_t i = 0; i < self.list.size(); ++i) f(names[i], self.list[i]);
    f("bias", self.bias);
    f("A_log", self.A_log);
  }
};

template <class T, class Model>
Gradients random_gradients(const Model& model, Random& random, double zero_below = 0) {
  Gradients g;
  for_each_leaf(model, [&](const Path&, const auto& p) {
    AnyTensor<T> values(p.shape());
    for (Index i = 0; i < values.size(); ++i) {
      const double x = random.normal();
      values.data()[i] = std::abs(x) < zero_below ? T{0} : static_cast<T>(x);
    }
    g.set(p, values);
  });
  return g;
}

/// The page's formula, literally.
struct Reference {
  std::vector<long double> p, m, v, s;
  long double weight_decay = 0;
  void step(const AdamW::Config& c, double lr, int t, const std::vector<double>& g) {
    for (std::size_t i = 0; i < p.size(); ++i) {
      p[i] = p[i] * (1 - static_cast<long double>(lr) * weight_decay);
      m[i] = c.beta1 * m[i] + (1 - static_cast<long double>(c.beta1)) * g[i];
      v[i] = c.beta2 * v[i] + (1 - static_cast<long double>(c.beta2)) * g[i] * g[i];
      long double x = v[i];
      if (c.amsgrad) x = s[i] = std::max(s[i], v[i]);
      const long double b1t = std::pow(static_cast<long double>(c.beta1), t),
                        b2t = std::pow(static_cast<long double>(c.beta2), t);
      p[i] = p[i] - lr / (1 - b1t) * m[i] / (std::sqrt(x) / std::sqrt(1 - b2t) + c.eps);
    }
  }
};

template <class T>
double worst_error(AdamW::Config c, int steps, double zero_below) {
  Random random(5);
  Arrays<T> model(random);
  AdamW optimizer(c);
  std::vector<Reference> reference;
  for_each_leaf(model, [&](const Path& path, const auto& p) {
    Reference r;
    r.p.assign(p.value().begin(), p.value().end());
    r.m = r.v = r.s = std::vector<long double>(r.p.size(), 0);
    r.weight_decay = path.name() == "bias" || path.name() == "A_log" ? 0 : c.weight_decay;
    reference.push_back(r);
  });
  for (int t = 1; t <= steps; ++t) {
    const double lr = c.learning_rate * (t % 3 == 0 ? 0.5 : 1);
    const Gradients g = random_gradients<T>(model, random, t == 1 ? 100 : zero_below);  // all zero at first
    optimizer.step(model, g, lr);
    std::size_t i = 0;
    for_each_leaf(model, [&](const Path&, const auto& p) {
      const auto values = g.of(p);
      reference[i++].step(c, lr, t, std::vector<double>(values.data(), values.data() + values.size()));
    });
  }
  double worst = 0;
  std::size_t i = 0;
  for_each_leaf(model, [&](const Path&, const auto& p) {
    for (Index k = 0; k < p.size(); ++k) {
      const double error =
          std::abs(static_cast<double>(p.value().data()[k] - reference[i].p[static_cast<std::size_t>(k)]));
      worst = std::isfinite(error) ? std::max(worst, error) : HUGE_VAL;
    }
    ++i;
  });
  return worst;
}

}  // namespace

TEST_CASE("AdamW follows its formula") {
  const bool amsgrad = GENERATE(false, true);
  const AdamW::Config c{
      .learning_rate = 0.02, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.1, .amsgrad = amsgrad};
  // Weights are about 1 and 30 steps move them by 0.02: each step rounds once or twice, which leaves some 30 half units
  // in the last place.
  CHECK(worst_error<double>(c, 30, 0.5) < 30 * 2.3e-16);
  CHECK(worst_error<float>(c, 30, 0.5) < 30 * 1.2e-7);
}

TEST_CASE("AdamW with its defaults and with the smallest betas") {
  CHECK(worst_error<double>({}, 5, 0) < 5 * 2.3e-16);
  CHECK(worst_error<double>({.beta1 = 0, .beta2 = 0}, 5, 0) < 5 * 2.3e-16);
}

TEST_CASE("what is decayed by default") {
  const auto decayed = [](std::string_view path, Shape shape) { return decays({path, shape}); };
  CHECK(decayed("backbone.layers.0.mixer.in_proj.weight", {8, 4}));
  CHECK(decayed("backbone.embeddings.weight", {256, 4}));
  CHECK(decayed("mixer.conv1d.weight", {8, 1, 4}));
  CHECK(decayed("w", {2, 2}));
  CHECK_FALSE(decayed("mixer.conv1d.bias", {8}));
  CHECK_FALSE(decayed("mixer.A_log", {8, 16}));
  CHECK_FALSE(decayed("A_log", {8, 16}));
  CHECK_FALSE(decayed("mixer.D", {8, 2}));
  CHECK_FALSE(decayed("mixer.dt_bias", {2, 8}));
  CHECK_FALSE(decayed("bias_ih_l0", {2, 8}));
  CHECK_FALSE(decayed("backbone.norm_f.weight", {8}));
  CHECK_FALSE(decayed("mixer.q_norm.weight", {4, 8}));
}

TEST_CASE("groups: factors and frozen parameters") {
  Random random(1);
  Arrays<double> model(random);
  const std::vector<double> before = ordo_test::weights_of(model);
  AdamW optimizer({.learning_rate = 0.1, .eps = 0}, [](const ParameterInfo& p) {
    return ParameterGroup{.weight_decay = 0,
                          .learning_rate_factor = p.path == "bias"    ? 0
                                                  : p.path == "A_log" ? 0.25
                                                                      : 1};
  });
  optimizer.step(model, random_gradients<double>(model, random));
  // The first step moves by the learning rate, whatever the gradient is.
  CHECK(model.bias.value()(2) == before[before.size() - 12 + 2]);
  CHECK(std::abs(std::abs(model.A_log.value()(1) - before[before.size() - 5 + 1]) - 0.025) < 1e-15);
  CHECK(std::abs(std::abs(model.list[0].value()(0, 0) - before[0]) - 0.1) < 1e-15);
}

TEST_CASE("a parameter without gradient stays, undecayed, and its clock stands still") {
  Random random(1);
  Arrays<double> model(random), other(random);
  AdamW optimizer({.weight_decay = 1});
  Gradients g;
  g.set(model.bias, AnyTensor<double>(Shape{7}, 1.0));
  const auto before = ordo_test::weights_of(model);
  optimizer.step(model, g);
  optimizer.step(model, g);
  auto after = ordo_test::weights_of(model);
  CHECK(std::equal(before.begin(), before.end() - 12, after.begin()));
  CHECK(optimizer.counts().at(36) == 2);
  CHECK(optimizer.counts().at(0) == 0);
  CHECK(optimizer.steps() == 2);
}

TEST_CASE("the state goes with the optimiser: models may move, copies are independent") {
  Random random(3), gradients(4);
  Arrays<float> a(random);
  Arrays<float> b = a;
  AdamW first({.learning_rate = 0.1});
  Random g1 = gradients, g2 = gradients;
  for (int t = 0; t < 2; ++t) first.step(a, random_gradients<float>(a, g1));
  AdamW second({.learning_rate = 0.1});
  second.step(b, random_gradients<float>(b, g2));
  AdamW copy = second;
  Arrays<float> c = b;
  copy.step(c, random_gradients<float>(c, gradients));  // must not touch what `second` remembers
  auto moved = std::make_unique<Arrays<float>>(std::move(b));
  second.step(*moved, random_gradients<float>(*moved, g2));
  CHECK(ordo_test::same_bits(ordo_test::weights_of(a), ordo_test::weights_of(*moved)));
}

TEST_CASE("wrong configurations and foreign models") {
  CHECK_THROWS_AS(AdamW({.beta1 = 1}), ConfigError);
  CHECK_THROWS_AS(AdamW({.beta2 = -0.1}), ConfigError);
  CHECK_THROWS_AS(AdamW({.learning_rate = NAN}), ConfigError);
  Random random(3);
  ordo_test::TinyModel<float> small(random, 3), large(random, 4);
  AdamW optimizer;
  optimizer.step(small, Gradients{});
  CHECK_THROWS_AS(optimizer.step(large, Gradients{}), UsageError);
}

TEST_CASE("the same bits for any number of threads, and nothing from the system") {
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    Random random(3);
    Arrays<float> model(random);
    AdamW optimizer({.learning_rate = 0.1, .amsgrad = true});
    Gradients g = random_gradients<float>(model, random);
    for (int t = 0; t < 3; ++t) {
      clip_grad_norm(model, g, 1);
      optimizer.step(model, g);
    }
    ordo_test::AllocationCount count;
    for (int t = 0; t < 3; ++t) {
      clip_grad_norm(model, g, 1);
      optimizer.step(model, g, 0.01);
    }
    const std::size_t allocations = count.allocations();
    CHECK(allocations == 0);
    results.push_back(ordo_test::weights_of(model));
  }
  set_num_threads(1);
  CHECK(ordo_test::same_bits(results[0], results[1]));
  CHECK(ordo_test::same_bits(results[0], results[2]));
}

TEST_CASE("an update drops what was packed") {
  Random random(2);
  ordo_test::TinyModel<float> model(random);
  DynTensor<float, 3> x(DynExtents<3>(1, 2, 1), 0.5F);
  const auto before = model(x);
  Gradients g;
  g.set(model.down().weight(), AnyTensor<float>(model.down().weight().shape(), 1.0F));
  AdamW optimizer({.learning_rate = 0.5});
  optimizer.step(model, g);
  const auto after = model(x);
  CHECK(std::abs(after(0, 0, 0) - before(0, 0, 0)) > 0.05F);
}
