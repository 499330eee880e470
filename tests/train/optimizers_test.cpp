// What every optimiser has to satisfy, and what is particular to some. Their formulas are held against golden cases by the
// conformance tests.

#include <cmath>
#include <functional>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/train/adafactor.hpp"
#include "ordo/train/adagrad.hpp"
#include "ordo/train/adamw.hpp"
#include "ordo/train/lion.hpp"
#include "ordo/train/muon.hpp"
#include "ordo/train/rmsprop.hpp"
#include "ordo/train/sgd.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"
#include "train/support.hpp"

using namespace ordo;

namespace {

/// Matrices of every size around the vector widths, and two that are large enough for several threads.
template <class T>
struct Matrices {
  using value_type = T;
  std::vector<DynParameter<T, 2>> list;
  explicit Matrices(std::uint64_t seed) {
    Random random(seed);
    for (Index n = 1; n <= 19; ++n) list.push_back(uniform_parameter<T>(DynExtents<2>(n % 4 + 1, n), 1, random));
    list.push_back(uniform_parameter<T>(DynExtents<2>(150, 131), 1, random));
    list.push_back(uniform_parameter<T>(DynExtents<2>(67, 260), 1, random));
  }
  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    static const std::vector<std::string> names = [] {
      std::vector<std::string> all;
      for (int i = 0; i < 21; ++i) all.push_back("w" + std::to_string(i));
      return all;
    }();
    for (std::size_t i = 0; i < self.list.size(); ++i) f(names[i], self.list[i]);
  }
};

template <class Model>
Gradients random_gradients(const Model& model, Random& random) {
  using T = typename Model::value_type;
  Gradients g;
  for_each_leaf(model, [&](const Path&, const auto& p) {
    AnyTensor<T> values(p.shape());
    for (Index i = 0; i < values.size(); ++i) values.data()[i] = static_cast<T>(random.normal());
    g.set(p, values);
  });
  return g;
}

template <class Optimizer>
std::vector<float> trained(Optimizer optimizer, int threads, std::size_t& allocations) {
  set_num_threads(threads);
  Matrices<float> model(3);
  Random random(4);
  const Gradients g = random_gradients(model, random), h = random_gradients(model, random);
  for (int t = 0; t < 2; ++t) optimizer.step(model, t == 0 ? g : h);
  ordo_test::AllocationCount count;
  for (int t = 0; t < 2; ++t) optimizer.step(model, t == 0 ? g : h, 0.01);
  allocations = count.allocations();
  set_num_threads(1);
  return ordo_test::weights_of(model);
}

template <class Optimizer>
void check_threads(const typename Optimizer::Config& config) {
  CAPTURE(Optimizer::name());
  std::size_t allocations = 0;
  const std::vector<float> one = trained(Optimizer(config), 1, allocations);
  CHECK(allocations == 0);
  const std::vector<float> two = trained(Optimizer(config), 2, allocations);
  CHECK(allocations == 0);
  CHECK(ordo_test::same_bits(one, two));
  CHECK(ordo_test::same_bits(one, trained(Optimizer(config), 3, allocations)));
  for (const float w : one) REQUIRE(std::isfinite(w));
}

struct Vectors {
  std::vector<DynParameter<double, 1>> list;
  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    for (auto& p : self.list) f("weight", p);
  }
};
struct OneMatrix {
  DynParameter<double, 2> w;
  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("w", self.w);
  }
};

/// Every weight of a vector moves as it does alone: no lane and no remainder is treated differently.
template <class Optimizer>
void check_lanes(const typename Optimizer::Config& config) {
  CAPTURE(Optimizer::name());
  constexpr Index n = 19;
  Random random(8);
  Vectors together, apart;
  together.list.push_back(uniform_parameter<double>(DynExtents<1>(n), 1, random));
  for (Index i = 0; i < n; ++i) {
    DynTensor<double, 1> one(1);
    one(0) = together.list[0].value()(i);
    apart.list.emplace_back(std::move(one));
  }
  const auto decay = [](const ParameterInfo&) { return ParameterGroup{.weight_decay = 0.03}; };
  Optimizer first(config, decay), second(config, decay);
  for (int t = 0; t < 4; ++t) {
    AnyTensor<double> all(Shape{n});
    Gradients a, b;
    for (Index i = 0; i < n; ++i) all.data()[i] = i % 5 == t ? 0 : random.normal();
    a.set(together.list[0], all);
    for (Index i = 0; i < n; ++i) b.set(apart.list[static_cast<std::size_t>(i)], AnyTensor<double>(Shape{1}, all.data()[i]));
    first.step(together, a);
    second.step(apart, b);
  }
  for (Index i = 0; i < n; ++i) {
    REQUIRE(together.list[0].value()(i) == apart.list[static_cast<std::size_t>(i)].value()(0));
  }
}

/// max |X X^T - 1| over the smaller side of a step of size 1.
double distance_from_orthogonal(Index rows, Index cols, Index steps) {
  Random random(2);
  OneMatrix model{DynParameter<double, 2>(DynExtents<2>(rows, cols))};
  Gradients g;
  AnyTensor<double> values(Shape{rows, cols});
  for (Index i = 0; i < values.size(); ++i) values.data()[i] = random.normal();
  g.set(model.w, values);
  Muon muon({.learning_rate = 1, .weight_decay = 0, .ns_steps = steps, .adjust = MuonAdjust::match_rms_adamw});
  muon.step(model, g);
  const double scale = 0.2 * std::sqrt(static_cast<double>(std::max(rows, cols)));
  double worst = 0;
  const bool wide = rows <= cols;
  for (Index i = 0; i < std::min(rows, cols); ++i) {
    for (Index j = 0; j < std::min(rows, cols); ++j) {
      double sum = 0;
      for (Index k = 0; k < std::max(rows, cols); ++k) {
        sum += wide ? model.w.value()(i, k) * model.w.value()(j, k) : model.w.value()(k, i) * model.w.value()(k, j);
      }
      worst = std::max(worst, std::abs(sum / (scale * scale) - (i == j ? 1 : 0)));
    }
  }
  return worst;
}

}  // namespace

TEST_CASE("the same bits for any number of threads, and nothing from the system") {
  check_threads<Sgd>({.learning_rate = 0.1, .momentum = 0.9, .nesterov = true});
  check_threads<Adam>({.learning_rate = 0.1});
  check_threads<RmsProp>({.momentum = 0.5, .centered = true});
  check_threads<Adagrad>({.initial_accumulator = 0.1});
  check_threads<Adadelta>({});
  check_threads<Lion>({});
  check_threads<Adafactor>({.beta1 = 0.9});
  check_threads<Muon>({.learning_rate = 0.1});
}

TEST_CASE("every lane and the remainder of a vector are treated alike") {
  check_lanes<Sgd>({.learning_rate = 0.1, .momentum = 0.9, .dampening = 0.2});
  check_lanes<Adam>({.learning_rate = 0.1, .amsgrad = true});
  check_lanes<AdamW>({.learning_rate = 0.1, .amsgrad = true});
  check_lanes<RmsProp>({.momentum = 0.5, .centered = true});
  check_lanes<Adagrad>({.learning_rate_decay = 0.1, .initial_accumulator = 0.1});
  check_lanes<Adadelta>({});
  check_lanes<Lion>({.learning_rate = 0.1});
}

TEST_CASE("Muon's steps are nearly orthogonal, tall or wide") {
  // Five steps of the quintic leave singular values between 0.68 and 1.13 (Jordan 2024): squares are within 0.54 of 1.
  CHECK(distance_from_orthogonal(12, 40, 5) < 0.54);
  CHECK(distance_from_orthogonal(40, 12, 5) < 0.54);
  CHECK(distance_from_orthogonal(40, 12, 0) > 0.54);  // the measure can tell
}

TEST_CASE("Muon takes matrices only, and shares a model with another optimiser") {
  Random random(1);
  ordo_test::TinyModel<float> model(random);
  Gradients g = random_gradients(model, random);
  Muon alone;
  CHECK_THROWS_AS(alone.step(model, g), ShapeError);
  const auto before = ordo_test::weights_of(model);
  Muon muon({}, [](const ParameterInfo& p) { return ParameterGroup{0.1, is_hidden_matrix(p) ? 1.0 : 0.0}; });
  muon.step(model, g);
  const auto half = ordo_test::weights_of(model);
  AdamW adamw({}, [](const ParameterInfo& p) { return ParameterGroup{0, is_hidden_matrix(p) ? 0.0 : 1.0}; });
  adamw.step(model, g);
  const auto after = ordo_test::weights_of(model);
  std::size_t i = 0;
  for_each_leaf(model, [&](const Path& path, const auto& p) {
    for (Index k = 0; k < p.size(); ++k, ++i) {
      const bool matrix = path.name() == "weight";
      REQUIRE((before[i] != half[i]) == matrix);
      REQUIRE((half[i] != after[i]) == !matrix);
    }
  });
  // What an optimiser leaves alone costs it no memory.
  muon.visit_memories(model, [](const Path& path, const char*, const auto&) { CHECK(path.name() == "weight"); });
  CHECK(is_hidden_matrix({"backbone.layers.0.mixer.in_proj.weight", Shape{4, 4}}));
  CHECK_FALSE(is_hidden_matrix({"backbone.embeddings.weight", Shape{4, 4}}));
  CHECK_FALSE(is_hidden_matrix({"lm_head.weight", Shape{4, 4}}));
  CHECK_FALSE(is_hidden_matrix({"mixer.A_log", Shape{4, 4}}));
}

TEST_CASE("Adafactor remembers a row and a column of a matrix") {
  Matrices<float> model(3);
  Random random(4);
  Adafactor optimizer;
  optimizer.step(model, random_gradients(model, random));
  Index numbers = 0;
  optimizer.visit_memories(model, [&](const Path&, const char*, const auto& m) { numbers += m.size(); });
  Index sides = 0;
  for (const auto& p : model.list) sides += p.value().extent(0) + p.value().extent(1);
  CHECK(numbers == sides);
}

TEST_CASE("wrong configurations") {
  CHECK_THROWS_AS(Sgd({.nesterov = true}), ConfigError);
  CHECK_THROWS_AS(Sgd({.momentum = 0.9, .dampening = 0.1, .nesterov = true}), ConfigError);
  CHECK_THROWS_AS(Sgd({.learning_rate = NAN}), ConfigError);
  CHECK_THROWS_AS(RmsProp({.alpha = 1}), ConfigError);
  CHECK_THROWS_AS(Adagrad({.eps = -1}), ConfigError);
  CHECK_THROWS_AS(Adadelta({.rho = 2}), ConfigError);
  CHECK_THROWS_AS(Lion({.beta2 = -1}), ConfigError);
  CHECK_THROWS_AS(Adafactor({.learning_rate = 0.1}), ConfigError);
  CHECK_THROWS_AS(Adafactor({.relative_step = false}), ConfigError);
  CHECK_THROWS_AS(Muon({.ns_coefficients = {1, 2}}), ConfigError);
}
