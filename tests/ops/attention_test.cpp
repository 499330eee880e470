// attention() with every option, alone and together, against the formula one pair at a time.

#include <cmath>
#include <limits>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/ops/attention.hpp"
#include "support/catch.hpp"

namespace {

using namespace ordo;

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Case {
  Index batch = 1, queries = 1, keys = 1, heads = 1, kv_heads = 1, key_dim = 1, value_dim = 1;
  AttentionOptions options;
  Visibility visible;
  bool bias = false, relative = false, sinks = false;
  Shape bias_shape;
};

template <class T>
AnyTensor<T> filled(const Shape& shape, Random& random, double size = 1) {
  AnyTensor<T> x(shape);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<T>(size * random.normal());
  return x;
}
AnyTensor<std::int64_t> integers(const Shape& shape, Random& random, std::uint64_t below) {
  AnyTensor<std::int64_t> x(shape);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = static_cast<std::int64_t>(random.below(below));
  return x;
}
AnyTensor<std::uint8_t> bits(const Shape& shape, Random& random) {
  AnyTensor<std::uint8_t> x(shape);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = random.below(3) != 0;
  return x;
}
// n numbers that begin with 0, end with `last` and never decrease.
Packing packing(Index sequences, Index last, Random& random) {
  DynTensor<std::int64_t, 1> at(sequences + 1);
  for (Index s = 1; s < sequences; ++s) at(s) = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(last) + 1));
  at(sequences) = last;
  std::sort(at.begin(), at.end());
  return Packing(at);
}

// One of many combinations: each option is on in about one of four.
Case draw(Random& random) {
  const auto coin = [&] { return random.below(4) == 0; };
  const auto up_to = [&](Index n) { return static_cast<Index>(random.below(static_cast<std::uint64_t>(n))) + 1; };
  Case c;
  c.batch = up_to(3);
  c.queries = coin() ? 1 : up_to(coin() ? 90 : 20);
  c.keys = coin() ? c.queries : up_to(coin() ? 150 : 30);
  c.kv_heads = up_to(2);
  c.heads = c.kv_heads * up_to(3);
  c.key_dim = up_to(9);
  c.value_dim = up_to(18);
  AttentionOptions& o = c.options;
  Visibility& v = c.visible;
  const bool packed = coin();
  if (packed) {
    c.batch = 1;
    const Index sequences = up_to(4);
    v.packing = packing(sequences, c.queries, random);
    if (c.keys != c.queries || coin()) v.key_packing = packing(sequences, c.keys, random);
  }
  o.causal = random.below(2) == 0;
  if (coin()) o.scale = 0.7;
  if (o.causal && random.below(2) == 0) o.window = up_to(12);
  if (o.window > 0 && coin()) o.num_sink_tokens = up_to(4);
  if (coin()) o.window_left = up_to(12) - 1;
  if (coin()) o.window_right = up_to(6) - 1;
  if (coin()) o.logit_softcap = 1.5;
  if (coin()) {
    o.alibi_slopes = AnyTensor<double>(Shape{c.heads});
    for (Index h = 0; h < c.heads; ++h) o.alibi_slopes.data()[h] = 0.1 * static_cast<double>(h + 1);
  }
  c.relative = coin();
  o.relative_bias_max_distance = 20;
  if (coin()) o.relative_bias_bidirectional = random.below(2) == 0;
  c.bias = coin();
  c.bias_shape = coin() ? Shape{coin() ? 1 : c.heads, c.queries, c.keys} : Shape{coin() ? 1 : c.batch, coin() ? 1 : c.heads, c.queries, c.keys};
  c.sinks = coin();
  if (!c.sinks) o.softmax_one = coin();
  if (coin()) v.key_padding = bits(Shape{c.batch, c.keys}, random);
  if (coin()) v.mask = bits(coin() ? Shape{coin() ? 1 : c.heads, c.queries, c.keys} : Shape{coin() ? 1 : c.batch, coin() ? 1 : c.heads, c.queries, c.keys}, random);
  if (coin()) v.lengths = integers(Shape{c.batch}, random, static_cast<std::uint64_t>(c.keys) + 1);
  if (coin() && o.causal) v.prefix_length = integers(Shape{c.batch}, random, static_cast<std::uint64_t>(c.keys) + 1);
  if (coin()) {
    v.segments = integers(Shape{c.batch, c.queries}, random, 3);
    if (c.keys != c.queries || coin()) v.key_segments = integers(Shape{c.batch, c.keys}, random, 3);
  }
  if (coin()) {
    v.query_block_size = up_to(7);
    v.key_block_size = up_to(40);
    const Index rows = up_to(5), columns = coin() ? 3 : 2;
    v.block_list = AnyTensor<std::int64_t>(Shape{rows, columns});
    for (Index n = 0; n < rows; ++n) {
      std::int64_t* const row = v.block_list.data() + n * columns;
      if (columns == 3) row[0] = up_to(c.heads) - 1;
      row[columns - 2] = up_to((c.queries + v.query_block_size - 1) / v.query_block_size) - 1;
      row[columns - 1] = up_to((c.keys + v.key_block_size - 1) / v.key_block_size) - 1;
    }
  }
  return c;
}

// Where a query stands among the keys of its sequence, and which those are.
struct Place {
  Index first = 0, last = 0, position = 0;
};
Place place(const Case& c, Index i) {
  if (!c.visible.packing.packed()) return {0, c.keys, i + c.keys - c.queries};
  const auto q = c.visible.packing.sequences("test", 1, c.queries);
  const auto k = (c.visible.key_packing.packed() ? c.visible.key_packing : c.visible.packing).sequences("test", 1, c.keys);
  Index s = 0;
  while (i >= q.end(s)) ++s;
  return {k.begin(s), k.end(s), i - q.begin(s) + (k.end(s) - k.begin(s)) - (q.end(s) - q.begin(s))};
}
Index pair_index(const Shape& s, const Case& c, Index b, Index h, Index i, Index j) {
  const bool three = s.rank() == 3;
  const Index heads = s[three ? 0 : 1], batch = three ? 1 : s[0];
  return (((batch == 1 ? 0 : b) * heads + (heads == 1 ? 0 : h)) * c.queries + i) * c.keys + j;
}
bool visible(const Case& c, Index b, Index h, Index i, Index j) {
  const AttentionOptions& o = c.options;
  const Visibility& v = c.visible;
  const Place at = place(c, i);
  if (j < at.first || j >= at.last) return false;
  const Index a = at.position, p = j - at.first;
  if (o.causal) {
    const bool near = p <= a && (o.window == 0 || a - p < o.window || p < o.num_sink_tokens);
    if (!near && !(v.prefix_length.present() && p < v.prefix_length.data()[b])) return false;
  }
  if (o.window_left && a - p > *o.window_left) return false;
  if (o.window_right && p - a > *o.window_right) return false;
  if (v.key_padding.present() && v.key_padding.data()[b * c.keys + j] == 0) return false;
  if (v.mask.present() && v.mask.data()[pair_index(v.mask.shape(), c, b, h, i, j)] == 0) return false;
  if (v.lengths.present() && j >= v.lengths.data()[b]) return false;
  if (v.segments.present()) {
    const auto& of_keys = v.key_segments.present() ? v.key_segments : v.segments;
    if (v.segments.data()[b * c.queries + i] != of_keys.data()[b * c.keys + j]) return false;
  }
  if (v.block_list.present()) {
    const Index columns = v.block_list.extent(1);
    for (Index n = 0; n < v.block_list.extent(0); ++n) {
      const std::int64_t* const row = v.block_list.data() + n * columns;
      if ((columns == 2 || row[0] == h) && row[columns - 2] == i / v.query_block_size && row[columns - 1] == j / v.key_block_size) return true;
    }
    return false;
  }
  return true;
}

template <class T>
struct Results {
  AnyTensor<T> y, lse, dq, dk, dv, d_bias, d_relative, d_sinks;
};

Results<double> naive(const Case& c, const AnyTensor<double>& q, const AnyTensor<double>& k, const AnyTensor<double>& v, const AnyTensor<double>& bias,
                      const AnyTensor<double>& relative, const AnyTensor<double>& sinks, const AnyTensor<double>& dy, const AnyTensor<double>& dl) {
  Results<double> r{AnyTensor<double>(dy.shape(), 0.0), AnyTensor<double>(dl.shape(), 0.0), AnyTensor<double>(q.shape(), 0.0), AnyTensor<double>(k.shape(), 0.0),
                    AnyTensor<double>(v.shape(), 0.0), {}, {}, {}};
  if (bias.present()) r.d_bias = AnyTensor<double>(bias.shape(), 0.0);
  if (relative.present()) r.d_relative = AnyTensor<double>(relative.shape(), 0.0);
  if (sinks.present()) r.d_sinks = AnyTensor<double>(sinks.shape(), 0.0);
  const AttentionOptions& o = c.options;
  const double scale = o.scale != 0 ? o.scale : 1 / std::sqrt(static_cast<double>(c.key_dim));
  const bool both_sides = o.relative_bias_bidirectional.value_or(!o.causal);
  std::vector<double> s(static_cast<std::size_t>(c.keys)), capped(s), p(s);
  for (Index b = 0; b < c.batch; ++b) {
    for (Index h = 0; h < c.heads; ++h) {
      const Index g = h / (c.heads / c.kv_heads);
      const double sink = sinks.present() ? sinks.data()[h] : o.softmax_one ? 0.0 : -infinity;
      for (Index i = 0; i < c.queries; ++i) {
        const Place at = place(c, i);
        const double* const qi = q.data() + ((b * c.queries + i) * c.heads + h) * c.key_dim;
        const auto key = [&](const AnyTensor<double>& x, Index j) { return x.data() + ((b * c.keys + j) * c.kv_heads + g) * x.extent(3); };
        double max = sink;
        for (Index j = 0; j < c.keys; ++j) {
          const auto n = static_cast<std::size_t>(j);
          s[n] = -infinity;
          if (!visible(c, b, h, i, j)) continue;
          double t = 0;
          for (Index x = 0; x < c.key_dim; ++x) t += qi[x] * key(k, j)[x];
          t *= scale;
          if (o.logit_softcap > 0) t = o.logit_softcap * std::tanh(t / o.logit_softcap);
          capped[n] = t;
          const Index distance = j - at.first - at.position;
          if (o.alibi_slopes.present()) t -= o.alibi_slopes.data()[h] * std::abs(static_cast<double>(distance));
          if (relative.present()) t += relative.data()[relative_bucket(distance, relative.extent(0), o.relative_bias_max_distance, both_sides) * c.heads + h];
          if (bias.present()) t += bias.data()[pair_index(bias.shape(), c, b, h, i, j)];
          s[n] = t;
          max = std::max(max, t);
        }
        const Index row = (b * c.heads + h) * c.queries + i;
        if (max == -infinity) {
          r.lse.data()[row] = -infinity;
          continue;
        }
        double sum = std::exp(sink - max);
        for (Index j = 0; j < c.keys; ++j) sum += std::exp(s[static_cast<std::size_t>(j)] - max);
        const double lse = max + std::log(sum);
        r.lse.data()[row] = lse;
        const Index out = ((b * c.queries + i) * c.heads + h) * c.value_dim;
        for (Index j = 0; j < c.keys; ++j) {
          const double w = p[static_cast<std::size_t>(j)] = std::exp(s[static_cast<std::size_t>(j)] - lse);
          for (Index x = 0; x < c.value_dim; ++x) r.y.data()[out + x] += w * key(v, j)[x];
        }
        double t = -dl.data()[row];
        for (Index x = 0; x < c.value_dim; ++x) t += dy.data()[out + x] * r.y.data()[out + x];
        if (sinks.present()) r.d_sinks.data()[h] -= std::exp(sink - lse) * t;
        for (Index j = 0; j < c.keys; ++j) {
          const auto n = static_cast<std::size_t>(j);
          if (p[n] == 0) continue;
          double ds = -t;
          for (Index x = 0; x < c.value_dim; ++x) {
            ds += dy.data()[out + x] * key(v, j)[x];
            r.dv.data()[((b * c.keys + j) * c.kv_heads + g) * c.value_dim + x] += p[n] * dy.data()[out + x];
          }
          ds *= p[n];
          const Index distance = j - at.first - at.position;
          if (bias.present()) r.d_bias.data()[pair_index(bias.shape(), c, b, h, i, j)] += ds;
          if (relative.present()) r.d_relative.data()[relative_bucket(distance, relative.extent(0), o.relative_bias_max_distance, both_sides) * c.heads + h] += ds;
          if (o.logit_softcap > 0) ds *= 1 - capped[n] / o.logit_softcap * (capped[n] / o.logit_softcap);
          for (Index x = 0; x < c.key_dim; ++x) {
            r.dq.data()[((b * c.queries + i) * c.heads + h) * c.key_dim + x] += scale * ds * key(k, j)[x];
            r.dk.data()[((b * c.keys + j) * c.kv_heads + g) * c.key_dim + x] += scale * ds * qi[x];
          }
        }
      }
    }
  }
  return r;
}

template <class T>
AnyTensor<T> converted(const AnyTensor<double>& x) {
  if (!x.present()) return {};
  AnyTensor<T> y(x.shape());
  for (Index i = 0; i < x.size(); ++i) y.data()[i] = static_cast<T>(x.data()[i]);
  return y;
}
// The largest difference, relative to the largest finite number and at least to 1; infinite where only one is infinite.
template <class T>
double difference(const AnyTensor<double>& expected, const AnyTensor<T>& actual) {
  if (!(expected.shape() == actual.shape())) return infinity;
  double largest = 1, worst = 0;
  for (Index i = 0; i < expected.size(); ++i) {
    const double e = expected.data()[i], a = static_cast<double>(actual.data()[i]);
    if (e == a) continue;
    if (!std::isfinite(e) || !std::isfinite(a)) return infinity;
    largest = std::max(largest, std::abs(e));
    worst = std::max(worst, std::abs(e - a));
  }
  return worst / largest;
}

template <class T, std::size_t R>
AnyTensor<T> gradient(const Gradients& gradients, const Var<T>& v) {
  AnyTensor<T> g = gradients.of(Tracked<DynTensor<T, R>>(v));
  return g.present() ? g : AnyTensor<T>(v.shape(), T{0});
}

}  // namespace

TEMPLATE_TEST_CASE("attention op: options alone and together agree with the formula", "", float, double) {
  using T = TestType;
  const double tolerance = sizeof(T) == 4 ? 2e-5 : 1e-12;
  Random random(2024);
  for (int round = 0; round < 400; ++round) {
    CAPTURE(round);
    const Case c = draw(random);
    const auto q = filled<double>(Shape{c.batch, c.queries, c.heads, c.key_dim}, random), k = filled<double>(Shape{c.batch, c.keys, c.kv_heads, c.key_dim}, random);
    const auto v = filled<double>(Shape{c.batch, c.keys, c.kv_heads, c.value_dim}, random);
    AnyTensor<double> bias, relative, sinks;
    if (c.bias) {
      bias = filled<double>(c.bias_shape, random);
      for (Index i = 0; i < bias.size(); i += 5) bias.data()[i] = -infinity;
    }
    if (c.relative) relative = filled<double>(Shape{8, c.heads}, random);
    if (c.sinks) sinks = filled<double>(Shape{c.heads}, random);
    const auto dy = filled<double>(Shape{c.batch, c.queries, c.heads, c.value_dim}, random), dl = filled<double>(Shape{c.batch, c.heads, c.queries}, random);
    const Results<double> expected = naive(c, q, k, v, bias, relative, sinks, dy, dl);

    Tape tape;
    const auto var = [&tape](const AnyTensor<double>& x) { return x.present() ? Var<T>{converted<T>(x), &tape, tape.new_slot()} : Var<T>{}; };
    const Var<T> tq = var(q), tk = var(k), tv = var(v), tb = var(bias), tr = var(relative), ts = var(sinks);
    const auto [y, lse] = attention_with_log_sum_exp(tq, tk, tv, c.options, c.visible, tb, tr, ts);
    CHECK(difference(expected.y, y.value) <= tolerance);
    CHECK(difference(expected.lse, lse.value) <= tolerance);
    const Gradients g = tape.backward(std::vector<Tape::Seed>{Tape::Seed::of(Tracked<DynTensor<T, 4>>(y), converted<T>(dy)),
                                                              Tape::Seed::of(Tracked<DynTensor<T, 3>>(lse), converted<T>(dl))});
    CHECK(difference(expected.dq, gradient<T, 4>(g, tq)) <= tolerance);
    CHECK(difference(expected.dk, gradient<T, 4>(g, tk)) <= tolerance);
    CHECK(difference(expected.dv, gradient<T, 4>(g, tv)) <= tolerance);
    if (c.bias) CHECK(difference(expected.d_bias, c.bias_shape.rank() == 3 ? gradient<T, 3>(g, tb) : gradient<T, 4>(g, tb)) <= tolerance);
    if (c.relative) CHECK(difference(expected.d_relative, gradient<T, 2>(g, tr)) <= tolerance);
    if (c.sinks) CHECK(difference(expected.d_sinks, gradient<T, 1>(g, ts)) <= tolerance);

    // Nothing recorded: few queries then take the way of decoding.
    const auto [plain, plain_lse] = attention_with_log_sum_exp(Var<T>{converted<T>(q)}, Var<T>{converted<T>(k)}, Var<T>{converted<T>(v)}, c.options, c.visible,
                                                               Var<T>{converted<T>(bias)}, Var<T>{converted<T>(relative)}, Var<T>{converted<T>(sinks)});
    CHECK(difference(expected.y, plain.value) <= tolerance);
    CHECK(difference(expected.lse, plain_lse.value) <= tolerance);
  }
}

TEST_CASE("attention op: parts of the keys, merged, are attention to all of them") {
  Random random(3);
  const Index parts = 3, length = 5, keys = 12;
  const auto q = filled<double>(Shape{2, length, 2, 4}, random), k = filled<double>(Shape{2, keys, 2, 4}, random), v = filled<double>(Shape{2, keys, 2, 3}, random);
  AnyTensor<double> outputs(Shape{parts, 2, length, 2, 3}), sums(Shape{parts, 2, 2, length});
  for (Index p = 0; p < parts; ++p) {
    Visibility visible;
    visible.key_padding = AnyTensor<std::uint8_t>(Shape{2, keys}, std::uint8_t{0});
    // The first row's last part is empty.
    for (Index b = 0; b < 2; ++b) {
      for (Index j = 0; j < keys; ++j) visible.key_padding.data()[b * keys + j] = (b == 0 ? j % 2 : j % parts) == p;
    }
    const auto [y, lse] = attention_with_log_sum_exp(Var<double>{q}, Var<double>{k}, Var<double>{v}, AttentionOptions{}, visible);
    std::copy_n(y.value.data(), y.value.size(), outputs.data() + p * y.value.size());
    std::copy_n(lse.value.data(), lse.value.size(), sums.data() + p * lse.value.size());
  }
  const auto [whole, whole_lse] = attention_with_log_sum_exp(Var<double>{q}, Var<double>{k}, Var<double>{v}, AttentionOptions{});
  const auto [y, lse] = merge_attention(Var<double>{outputs}, Var<double>{sums});
  CHECK(difference(whole.value, y.value) <= 1e-14);
  CHECK(difference(whole_lse.value, lse.value) <= 1e-14);
}

TEST_CASE("attention op: what does not fit is named") {
  const DynTensor<float, 4> q(2, 3, 4, 5), k(2, 7, 2, 5), v(2, 7, 2, 6);
  const auto message = [&](const AttentionOptions& options, const Visibility& visible) {
    try {
      static_cast<void>(attention(q, k, v, options, visible));
    } catch (const std::exception& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(message({}, {}).empty());
  Visibility visible;
  visible.key_padding = AnyTensor<std::uint8_t>(Shape{2, 3}, std::uint8_t{1});
  CHECK(message({}, visible).find("key_padding has shape [2, 3], expected [2, 7]") != std::string::npos);
  visible = {};
  visible.mask = AnyTensor<std::uint8_t>(Shape{2, 3, 7}, std::uint8_t{1});  // a batch axis without a head axis
  CHECK(message({}, visible).find("mask has shape [2, 3, 7]") != std::string::npos);
  visible = {};
  visible.segments = AnyTensor<std::int64_t>(Shape{2, 3}, std::int64_t{0});
  CHECK(message({}, visible).find("segments without key_segments") != std::string::npos);
  AttentionOptions options;
  options.window = 2;
  CHECK(message(options, {}).find("window needs causal") != std::string::npos);
  CHECK_THROWS_AS(attention(q, k, q, AttentionOptions{}), ShapeError);
}

TEST_CASE("attention op: a lambda as a mask, two as a score policy") {
  Random random(5);
  const Index length = 70;
  const auto q = filled<double>(Shape{2, length, 2, 4}, random), k = filled<double>(Shape{2, length, 1, 4}, random), v = filled<double>(Shape{2, length, 1, 3}, random);
  const auto dy = filled<double>(Shape{2, length, 2, 3}, random);
  // Every third key of the past, and scores as with ALiBi, said in two ways.
  Visibility visible;
  visible.mask = AnyTensor<std::uint8_t>(Shape{1, length, length});
  for (Index n = 0; n < length * length; ++n) visible.mask.data()[n] = n % length <= n / length && (n / length - n % length) % 3 == 0;
  AttentionOptions options;
  options.alibi_slopes = AnyTensor<double>(Shape{2}, 0.25);
  const auto mask = [](Index, Index, Index i, Index j) { return j <= i && (i - j) % 3 == 0; };
  const auto f = [](double s, Index, Index, Index i, Index j) { return s - 0.25 * static_cast<double>(std::abs(i - j)); };
  const auto df = [](double, Index, Index, Index, Index) { return 1.0; };
  const auto run = [&](auto&& call) {
    Tape tape;
    const auto var = [&tape](const AnyTensor<double>& x) { return Tracked<DynTensor<double, 4>>(Var<double>{x, &tape, tape.new_slot()}); };
    const auto tq = var(q), tk = var(k), tv = var(v);
    const auto y = call(tq, tk, tv);
    const Gradients g = tape.backward(std::vector<Tape::Seed>{Tape::Seed::of(y, dy)});
    return std::array<AnyTensor<double>, 4>{y.var().value, g.of(tq), g.of(tk), g.of(tv)};
  };
  const auto one = run([&](const auto&... x) { return attention(x..., options, visible); });
  const auto two = run([&](const auto&... x) { return attention_with(x..., mask, kernels::ScoreFunction{f, df}); });
  for (std::size_t n = 0; n < one.size(); ++n) CHECK(difference(one[n], two[n]) <= 1e-13);
}

TEST_CASE("attention op: nothing to attend to, and nobody who attends") {
  for (const bool causal : {false, true}) {
    for (const auto& [batch, queries, keys] : {std::array<Index, 3>{1, 3, 0}, {1, 1, 0}, {1, 0, 5}, {0, 3, 5}}) {
      CAPTURE(causal, batch, queries, keys);
      Tape tape;
      const auto q = track(tape, DynTensor<float, 4>(batch, queries, Index{2}, Index{4})), k = track(tape, DynTensor<float, 4>(batch, keys, Index{2}, Index{4}));
      const auto v = track(tape, DynTensor<float, 4>(batch, keys, Index{2}, Index{3}));
      const auto y = attention(q, k, v, causal);
      CHECK(y.extent(1) == queries);
      const auto g = tape.backward(y);
      const AnyTensor<float> dq = g.of(q), dv = g.of(v);
      for (Index i = 0; i < y.size(); ++i) CHECK(y.data()[i] == 0.0f);
      for (Index i = 0; i < dq.size(); ++i) CHECK(dq.data()[i] == 0.0f);
      for (Index i = 0; i < dv.size(); ++i) CHECK(dv.data()[i] == 0.0f);
    }
  }
}
