// The attention engine: fractions of the measured FMA peak (prefill, training) and of the bandwidth (decoding), beside
// the same in plain Eigen, which keeps the matrix of scores.
//
// Flops are counted for all pairs, B H Lq Lk (4 forward, 10 backward) head_dim: a causal case that skips what it may
// shows up to twice the fraction.

#include <benchmark/benchmark.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/kernels/attention_standard.hpp"
#include "ordo/kernels/attention_tile.hpp"
#include "support/machine.hpp"

#include <Eigen/Core>  // last: simd.hpp has silenced GCC 12's warnings about its own AVX-512 intrinsics

namespace {

using namespace ordo::kernels;
using ordo::Index;

struct Shape {
  Index batch, queries, keys, heads, kv_heads, dim;
};

std::string to_string(const Shape& s) {
  std::string name = "B" + std::to_string(s.batch) + "_L" + std::to_string(s.queries);
  if (s.queries != s.keys) name += "x" + std::to_string(s.keys);
  return name + "_H" + std::to_string(s.heads) + ":" + std::to_string(s.kv_heads) + "_K" + std::to_string(s.dim);
}

template <class T>
class Case {
 public:
  explicit Case(const Shape& shape) : s(shape) {
    ordo::Random random(1);
    const auto fill = [&](std::vector<T>& x, Index rows, Index heads) {
      x.resize(static_cast<std::size_t>(s.batch * rows * heads * s.dim));
      for (T& e : x) e = static_cast<T>(random.normal());
    };
    fill(q, s.queries, s.heads);
    fill(d_o, s.queries, s.heads);
    fill(k, s.keys, s.kv_heads);
    fill(v, s.keys, s.kv_heads);
    o = dq = q;
    dk = dv = k;
    statistics.resize(static_cast<std::size_t>(2 * s.batch * s.heads * s.queries));
  }
  AttentionInputs<T> inputs() const {
    return {s.batch,
            s.queries,
            s.keys,
            s.heads,
            s.kv_heads,
            s.dim,
            s.dim,
            queries(q),
            keys(k),
            keys(v),
            static_cast<T>(1.0 / std::sqrt(static_cast<double>(s.dim))),
            nullptr};
  }
  template <class M, class S = NoScore>
  void forward(const M& mask, bool training, const S& score = {}) {
    attention_forward<T>(inputs(), {queries(o), nullptr, training ? statistics.data() : nullptr}, mask, score);
  }
  template <class M, class S = NoScore>
  void backward(const M& mask, const S& score = {}) {
    const std::vector<T>& old = o;
    AttentionGradients<T> grad;
    grad.o = queries(old);
    grad.statistics = statistics.data();
    grad.d_o = queries(std::as_const(d_o));
    grad.dq = queries(dq);
    grad.dk = keys(dk);
    grad.dv = keys(dv);
    attention_backward<T>(inputs(), grad, mask, score);
  }
  /// One head after the other, scores and all.
  void forward_eigen(bool causal) {
    using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using Rows = Eigen::Map<const Matrix, 0, Eigen::OuterStride<>>;
    const T scale = inputs().scale;
    for (Index b = 0; b < s.batch; ++b) {
      for (Index h = 0; h < s.heads; ++h) {
        const Index g = h * s.kv_heads / s.heads;
        const Rows qh(queries(q).at(b, 0, h), s.queries, s.dim, Eigen::OuterStride<>(s.heads * s.dim));
        const Rows kh(keys(k).at(b, 0, g), s.keys, s.dim, Eigen::OuterStride<>(s.kv_heads * s.dim));
        const Rows vh(keys(v).at(b, 0, g), s.keys, s.dim, Eigen::OuterStride<>(s.kv_heads * s.dim));
        Eigen::Map<Matrix, 0, Eigen::OuterStride<>> oh(o.data() + (b * s.queries * s.heads + h) * s.dim, s.queries,
                                                       s.dim, Eigen::OuterStride<>(s.heads * s.dim));
        scores.resize(s.queries, s.keys);
        scores.noalias() = scale * (qh * kh.transpose());
        for (Index i = 0; i < s.queries; ++i) {
          const Index seen = causal ? i + 1 + s.keys - s.queries : s.keys;
          auto row = scores.row(i).head(seen).array();
          row = (row - row.maxCoeff()).exp();
          row /= row.sum();
          scores.row(i).tail(s.keys - seen).setZero();
        }
        oh.noalias() = scores * vh;
      }
    }
  }
  double pairs() const { return static_cast<double>(s.batch * s.heads * s.queries * s.keys * s.dim); }
  double cache_bytes() const { return static_cast<double>(2 * s.batch * s.keys * s.kv_heads * s.dim) * sizeof(T); }

  Shape s;

 private:
  template <class X>
  auto queries(X& x) const {
    return dense_heads(x.data(), s.queries, s.heads, s.dim);
  }
  template <class X>
  auto keys(X& x) const {
    return dense_heads(x.data(), s.keys, s.kv_heads, s.dim);
  }

  std::vector<T> q, k, v, o, d_o, dq, dk, dv, statistics;
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> scores;
};

template <class T>
void count_flops(benchmark::State& state, const Case<T>& c, double flops_per_pair) {
  using benchmark::Counter;
  const double flops = flops_per_pair * c.pairs();
  state.counters["FLOP/s"] = Counter(flops, Counter::kIsIterationInvariantRate);
  state.counters["peak%"] = Counter(100 * flops / ordo::bench::measured_peak<T>(), Counter::kIsIterationInvariantRate);
  state.SetItemsProcessed(state.iterations() * c.s.batch * c.s.queries);
}

template <class T, class Run>
void add(const std::string& what, const Shape& shape, double flops_per_pair, Run run) {
  const std::string name = "attention/" + what + "/" + (sizeof(T) == 4 ? "float" : "double") + "/" +
                           ordo::simd::DefaultArch::name() + "/" + to_string(shape);
  benchmark::RegisterBenchmark(name.c_str(), [shape, flops_per_pair, run](benchmark::State& state) {
    Case<T> c(shape);
    c.forward(Causal{shape.keys - shape.queries}, true);
    for (auto _ : state) {
      run(c);
      benchmark::ClobberMemory();
    }
    count_flops(state, c, flops_per_pair);
  });
}

template <class T>
void add_decode(const Shape& shape) {
  const std::string name = "attention/decode/" + std::string(sizeof(T) == 4 ? "float" : "double") + "/" +
                           ordo::simd::DefaultArch::name() + "/" + to_string(shape);
  benchmark::RegisterBenchmark(name.c_str(), [shape](benchmark::State& state) {
    Case<T> c(shape);
    for (auto _ : state) {
      c.forward(Causal{shape.keys - shape.queries}, false);
      benchmark::ClobberMemory();
    }
    using benchmark::Counter;
    state.counters["bytes/s"] = Counter(c.cache_bytes(), Counter::kIsIterationInvariantRate);
    state.counters["bandwidth%"] =
        Counter(100 * c.cache_bytes() / ordo::bench::measured_bandwidth(), Counter::kIsIterationInvariantRate);
    state.SetItemsProcessed(state.iterations() * shape.batch * shape.queries);
  });
}

template <class T>
void add_all() {
  const Shape shapes[] = {{1, 4096, 4096, 8, 8, 64}, {1, 1024, 1024, 8, 2, 128}, {12, 64, 64, 4, 4, 32}};
  for (const Shape& s : shapes) {
    add<T>("forward", s, 4, [](Case<T>& c) { c.forward(NoMask{}, true); });
    add<T>("forward_causal", s, 4, [](Case<T>& c) { c.forward(Causal{0}, true); });
    add<T>("backward_causal", s, 10, [](Case<T>& c) { c.backward(Causal{0}); });
    add<T>("forward_backward", s, 14, [](Case<T>& c) {
      c.forward(NoMask{}, true);
      c.backward(NoMask{});
    });
    add<T>("eigen_forward", s, 4, [](Case<T>& c) { c.forward_eigen(false); });
    add<T>("eigen_forward_causal", s, 4, [](Case<T>& c) { c.forward_eigen(true); });
  }
  // The policies of the ops: options chosen at run time.
  const Shape long_one{1, 4096, 4096, 8, 8, 64};
  add<T>("standard_forward", long_one, 4, [](Case<T>& c) { c.forward(StandardMask<T>{}, true, StandardScore<T>{}); });
  add<T>("standard_forward_backward", long_one, 14, [](Case<T>& c) {
    c.forward(StandardMask<T>{}, true, StandardScore<T>{});
    c.backward(StandardMask<T>{}, StandardScore<T>{});
  });
  add<T>("standard_forward_softcap", long_one, 4, [](Case<T>& c) {
    StandardScore<T> score;
    score.cap = T(30);
    c.forward(StandardMask<T>{}, true, score);
  });
  add<T>("forward_window_256", {1, 4096, 4096, 8, 8, 64}, 4, [](Case<T>& c) { c.forward(Window{0, 256}, true); });
  for (const Index kv_heads : {Index{8}, Index{2}, Index{1}}) {
    for (const Index keys : {Index{64}, Index{1024}, Index{32768}}) add_decode<T>({1, 1, keys, 8, kv_heads, 64});
  }
}

[[maybe_unused]] const bool registered = [] {
  add_all<float>();
  add_all<double>();
  return true;
}();

}  // namespace
