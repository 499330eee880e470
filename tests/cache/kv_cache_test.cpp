// The key/value cache as layers use it: windows as rings, rows of different lengths, compact states that go on.

#include <array>

#include "ordo/nn/softmax/latent_attention.hpp"
#include "ordo/nn/softmax/relative_attention.hpp"
#include "ordo/nn/softmax/softmax_attention.hpp"
#include "support/catch.hpp"

namespace {

using namespace ordo;

template <class X>
X rows_and_tokens(const X& x, Index row, Index rows, Index at, Index length) {
  X y(rows, length, x.extent(2));
  const Index width = x.extent(2);
  for (Index b = 0; b < rows; ++b) std::copy_n(x.data() + ((row + b) * x.extent(1) + at) * width, length * width, y.data() + b * length * width);
  return y;
}
double difference(const DynTensor<double, 3>& a, const DynTensor<double, 3>& b) {
  double worst = a.size() == b.size() ? 0 : HUGE_VAL;
  for (Index i = 0; worst < HUGE_VAL && i < a.size(); ++i) worst = std::max(worst, std::abs(a.data()[i] - b.data()[i]));
  return worst;
}
DynTensor<double, 3> noise(Index batch, Index length, Index width, std::uint64_t seed) {
  DynTensor<double, 3> x(batch, length, width);
  Random random(seed);
  for (double& v : x) v = random.normal();
  return x;
}

// Row 1 begins anew in the middle: from there on it is what a stream of its own would be, in pieces of every size.
template <class L>
void check_ragged(const L& layer, Index width) {
  const Index length = 30, late = 11;
  const auto x = noise(2, length, width, 5);
  for (const Index piece : {1, 4, 19}) {
    CAPTURE(piece);
    auto state = layer.initial_state(2);
    static_cast<void>(layer(rows_and_tokens(x, 0, 2, 0, late), state));
    state.reset(1);
    auto first = layer.initial_state(1), second = layer.initial_state(1);
    static_cast<void>(layer(rows_and_tokens(x, 0, 1, 0, late), first));
    for (Index at = late; at < length;) {
      const Index now = std::min(piece, length - at);
      const auto y = layer(rows_and_tokens(x, 0, 2, at, now), state);
      CHECK(difference(rows_and_tokens(y, 0, 1, 0, now), layer(rows_and_tokens(x, 0, 1, at, now), first)) < 1e-13);
      CHECK(difference(rows_and_tokens(y, 1, 1, 0, now), layer(rows_and_tokens(x, 1, 1, at, now), second)) < 1e-13);
      at += now;
    }
  }
}

// A state made compact, as files hold it, goes on as the one that was not.
template <class L>
void check_compact(const L& layer, Index width) {
  const Index length = 40;
  const auto x = noise(2, length, width, 6);
  for (const Index at : {0, 1, 3, 4, 5, 6, 7, 8, 20}) {
    for (const Index piece : {1, 5}) {
      CAPTURE(at, piece);
      auto state = layer.initial_state(2);
      for (Index t = 0; t < at; ++t) static_cast<void>(layer(rows_and_tokens(x, 0, 2, t, 1), state));
      auto compact = state;
      compact.compact();
      for (Index t = at; t + piece <= length; t += piece) {
        const auto now = rows_and_tokens(x, 0, 2, t, piece);
        CHECK(difference(layer(now, state), layer(now, compact)) < 1e-13);
      }
      // Recorded from the ring and from the compact form.
      Tape tape;
      auto a = track(tape, state), b = track(tape, compact);
      const auto last = track(tape, rows_and_tokens(x, 0, 2, length - 2, 2));
      const auto expected = layer(rows_and_tokens(x, 0, 2, length - 2, 2), state);
      const auto ya = layer(last, a), yb = layer(last, b);
      CHECK(difference(expected, to_tensor<3>(ya.var().value)) < 1e-13);
      CHECK(difference(expected, to_tensor<3>(yb.var().value)) < 1e-13);
    }
  }
}

using Attention = SoftmaxAttention<double>;

}  // namespace

TEST_CASE("kv cache: where a ring keeps what") {
  const CacheWindow keep{4, 2};  // window 4, the first 2 tokens stay
  CHECK(keep.count(3) == 3);
  CHECK(keep.count(5) == 5);
  CHECK(keep.count(6) == 5);  // the next query sees 3 of the past and the 2 first
  CHECK(keep.position(9, 0) == 0);
  CHECK(keep.position(9, 1) == 1);
  CHECK(keep.position(9, 2) == 6);
  CHECK(keep.position(9, 4) == 8);
  for (Index t = 1; t < 30; ++t) {
    for (Index n = 0; n < keep.count(t); ++n) {
      const Index p = keep.position(t, n);
      CHECK(keep.slot(p) < keep.capacity());
      CHECK(keep.held(t, keep.slot(p)) == p);
    }
  }
}

TEST_CASE("kv cache: rows of different lengths") {
  Random random(1);
  check_ragged(Attention({.model_dim = 6, .num_heads = 2, .head_dim = 4, .causal = true, .alibi = true, .rope_base = 100}, random), 6);
  check_ragged(Attention({.model_dim = 6, .num_heads = 2, .head_dim = 4, .causal = true, .window = 5, .num_sink_tokens = 2, .alibi = true, .rope_base = 100}, random), 6);
  check_ragged(Attention({.model_dim = 6, .num_heads = 2, .causal = true, .window = 3, .relative_bias = true, .relative_bias_buckets = 4}, random), 6);
  check_ragged(Attention({.model_dim = 6, .num_heads = 2, .causal = true, .window = 100, .num_sink_tokens = 1}, random), 6);
  check_ragged(LatentAttention<double>({.model_dim = 6, .num_heads = 2, .head_dim = 3, .rope_dim = 4, .value_head_dim = 2, .kv_low_rank_dim = 3}, random), 6);
  check_ragged(TransformerXlAttention<double>({.model_dim = 6, .num_heads = 2}, random), 6);
  check_ragged(ShawRelativeAttention<double>({.model_dim = 6, .num_heads = 2, .causal = true, .max_distance = 4}, random), 6);
}

TEST_CASE("kv cache: a compact state goes on") {
  Random random(2);
  check_compact(Attention({.model_dim = 6, .num_heads = 2, .head_dim = 4, .causal = true, .rope_base = 100}, random), 6);
  check_compact(Attention({.model_dim = 6, .num_heads = 2, .head_dim = 4, .causal = true, .window = 5, .num_sink_tokens = 2, .alibi = true, .rope_base = 100}, random), 6);
  check_compact(Attention({.model_dim = 6, .num_heads = 2, .causal = true, .window = 1}, random), 6);
  check_compact(Attention({.model_dim = 6, .num_heads = 2, .causal = true, .window = 4, .relative_bias = true, .relative_bias_buckets = 4}, random), 6);
  check_compact(LatentAttention<double>({.model_dim = 6, .num_heads = 2, .head_dim = 3, .rope_dim = 4, .value_head_dim = 2, .kv_low_rank_dim = 3}, random), 6);
  check_compact(TransformerXlAttention<double>({.model_dim = 6, .num_heads = 2}, random), 6);
}

TEST_CASE("kv cache: a window remembers no more than it needs") {
  Random random(3);
  const Attention layer({.model_dim = 6, .num_heads = 2, .causal = true, .window = 5, .num_sink_tokens = 2}, random);
  auto state = layer.initial_state(1);
  const auto x = noise(1, 100, 6, 7);
  for (Index t = 0; t < 100; ++t) static_cast<void>(layer(rows_and_tokens(x, 0, 1, t, 1), state));
  CHECK(state.cache.keys.extent(1) == 7);
  state.compact();
  CHECK(state.cache.keys.extent(1) == 6);
  CHECK(state.cache.length(0) == 100);
}
