#include "ordo/stack/encoder_decoder.hpp"

#include <array>
#include <cmath>

#include "ordo/nn/softmax/softmax_attention.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

using namespace ordo;

namespace {

using Attention = SoftmaxAttention<float>;
using Model = EncoderDecoder<Attention>;

// T5 at toy size: a relative bias that the layers of a side share, a table that all share.
Model::Config t5() {
  const Attention::Config self{.num_heads = 2, .relative_bias = true, .relative_bias_buckets = 8, .relative_bias_max_distance = 16};
  Model::Config c{.model_dim = 8, .share_embeddings = true};
  c.encoder = {.vocab_size = 11, .num_layers = 2, .block = {.mixer = self, .feed_forward = {{.ff_dim = 9}}}, .share_relative_bias = true};
  c.decoder = c.encoder;
  c.decoder.block.mixer.causal = true;
  c.decoder.block.cross_attention = {{.num_heads = 2}};
  c.decoder.tie_embeddings = true;
  return c;
}
DynTensor<std::int32_t, 2> ids(Index batch, Index length, Index step) {
  DynTensor<std::int32_t, 2> x(batch, length);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<std::int32_t>((step * i + 2) % 11);
  return x;
}
DynTensor<std::int32_t, 1> column(const DynTensor<std::int32_t, 2>& x, Index at) {
  DynTensor<std::int32_t, 1> t(x.extent(0));
  for (Index b = 0; b < x.extent(0); ++b) t(b) = x(b, at);
  return t;
}
// max|step - whole| over the logits of a token, relative to the largest of all.
double difference(const DynTensor<float, 3>& whole, Index at, const DynTensor<float, 2>& step, const std::vector<Index>& rows) {
  double largest = 1e-30, worst = 0;
  for (const float v : whole) largest = std::max(largest, std::abs(static_cast<double>(v)));
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (Index i = 0; i < step.extent(1); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(step(static_cast<Index>(r), i) - whole(rows[r], at, i))));
    }
  }
  return worst / largest;
}

}  // namespace

TEST_CASE("encoder_decoder: one table, one relative bias a side") {
  Random random(3);
  const Model model(t5(), random);
  Index tables = 0, biases = 0;
  for_each_leaf(model, [&](const Path& path, const auto&) {
    const std::string name = path.str();
    tables += name.find("embedding") != std::string::npos;
    biases += name.find("relative_bias") != std::string::npos;
    CHECK(name.find("head") == std::string::npos);
  });
  CHECK(tables == 1);
  CHECK(biases == 2);
}

TEST_CASE("encoder_decoder: a stream reads the memory that was made once, takes nothing from the system, and can change its rows") {
  Random random(3);
  const Model model(t5(), random);
  const auto source = ids(3, 7, 3), target = ids(3, 12, 5);
  AnyTensor<std::uint8_t> padding(Shape{3, 7}, std::uint8_t{1});
  padding.data()[6] = padding.data()[13] = padding.data()[12] = 0;
  const auto memory = model.remember(source, padding);
  const DynTensor<float, 3> whole = model(target, memory);

  auto state = model.initial_state(3);
  for (Index t = 0; t < 12; ++t) CHECK(difference(whole, t, model.step(column(target, t), state, memory), {0, 1, 2}) < 1e-5);

  state.reset();
  for (Index t = 0; t < 4; ++t) static_cast<void>(model.step(column(target, t), state, memory));
  const auto token = column(target, 4);
  std::size_t allocations = 0;
  {
    ordo_test::AllocationCount count;
    static_cast<void>(model.step(token, state, memory));
    allocations = count.allocations();
  }
  CHECK(allocations == 0);

  auto chosen = memory;  // a beam: rows 2, 0, 2, 1 go on
  const std::array<Index, 4> rows{2, 0, 2, 1};
  state.copy_rows(rows);
  chosen.copy_rows(rows);
  for (Index t = 5; t < 12; ++t) {
    DynTensor<std::int32_t, 1> next(4);
    for (std::size_t i = 0; i < 4; ++i) next(static_cast<Index>(i)) = target(rows[i], t);
    CHECK(difference(whole, t, model.step(next, state, chosen), {2, 0, 2, 1}) < 1e-5);
  }
}

TEST_CASE("encoder_decoder: padded places of a source are not felt") {
  Random random(3);
  const Model model(t5(), random);
  auto source = ids(1, 7, 3);
  AnyTensor<std::uint8_t> padding(Shape{1, 7}, std::uint8_t{1});
  padding.data()[5] = padding.data()[6] = 0;
  const auto target = ids(1, 4, 5);
  const DynTensor<float, 3> y = model(target, model.remember(source, padding));
  source(0, 5) = 9;
  const DynTensor<float, 3> other = model(target, model.remember(source, padding));
  CHECK(std::equal(y.begin(), y.end(), other.begin()));
  source(0, 1) = 9;
  const DynTensor<float, 3> changed = model(target, model.remember(source, padding));
  CHECK_FALSE(std::equal(y.begin(), y.end(), changed.begin()));
}

TEST_CASE("encoder_decoder: sides that do not fit") {
  Random random(3);
  auto c = t5();
  c.decoder.vocab_size = 12;
  CHECK_THROWS_AS(Model(c, random), ConfigError);
  c = t5();
  c.encoder.model_dim = 9;
  CHECK_THROWS_AS(Model(c, random), ConfigError);
  c = t5();
  c.decoder.block.mixer.causal = false;
  CHECK_THROWS_AS(Model(c, random), ConfigError);
  c = t5();
  c.encoder.block.mixer.relative_bias = false;
  CHECK_THROWS_AS(Model(c, random), ConfigError);
}
