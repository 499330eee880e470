// Matrix products on one core beside Eigen and (with ORDO_BENCH_ONEDNN) oneDNN.
//
// Names are library/type/form/MxNxK[/packed]; the letters of a form say whether A and B are taken as they are (N) or
// transposed (T): nt is y = x W^T, nn dx = dy W, tn dW = dy^T x. Counters: GFLOP/s and the fraction of the multiply-add
// peak that this run measured; for up to eight rows also GB/s of weights and the fraction of the measured bandwidth.

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC 12, of its own AVX-512 intrinsics where Eigen calls them
#endif

#include <benchmark/benchmark.h>

#include <Eigen/Core>
#include <algorithm>
#include <string>
#include <type_traits>
#include <vector>

#include "ordo/kernels/gemm.hpp"
#include "support/machine.hpp"

#if defined(ORDO_BENCH_ONEDNN)
#include <dnnl.h>
extern "C" void omp_set_num_threads(int) __attribute__((weak));
#endif

namespace {

using namespace ordo;

struct Product {
  std::string form;  // nn, nt, tn
  Index m, n, k;
  bool packed = false;
  bool a_transposed() const { return form[0] == 't'; }
  bool b_transposed() const { return form[1] == 't'; }
  std::string name() const {
    return form + "/" + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k) + (packed ? "/packed" : "");
  }
};

template <class T>
struct Operands {
  explicit Operands(const Product& p)
      : a(filled(p.m * p.k, 1)), b(filled(p.k * p.n, 2)), c(static_cast<std::size_t>(p.m * p.n)) {}
  static std::vector<T> filled(Index n, unsigned state) {
    std::vector<T> v(static_cast<std::size_t>(n));
    for (T& x : v) {
      state = state * 1664525U + 1013904223U;
      x = static_cast<T>(static_cast<double>(state >> 8) / double(1 << 23) - 1.0);
    }
    return v;
  }
  std::vector<T> a, b, c;
};

template <class T>
void report(benchmark::State& state, const Product& p) {
  const double flops = 2.0 * static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  using benchmark::Counter;
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
  state.counters["of_peak"] = Counter(flops / bench::measured_peak<T>(), Counter::kIsIterationInvariantRate);
  if (p.m > 8) return;
  const double bytes = static_cast<double>(p.n * p.k) * sizeof(T);
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsIterationInvariantRate);
  if (bytes > 1e8) {  // beyond any cache
    state.counters["of_bandwidth"] = Counter(bytes / bench::measured_bandwidth(), Counter::kIsIterationInvariantRate);
  }
}

template <class T>
void ordo_product(benchmark::State& state, const Product& p) {
  Operands<T> x(p);
  kernels::GemmArgs<T> args;
  args.m = p.m;
  args.n = p.n;
  args.k = p.k;
  args.a = p.a_transposed() ? kernels::MatrixRef<T>{x.a.data(), 1, p.m} : kernels::MatrixRef<T>{x.a.data(), p.k, 1};
  args.b = p.b_transposed() ? kernels::MatrixRef<T>{x.b.data(), 1, p.k} : kernels::MatrixRef<T>{x.b.data(), p.n, 1};
  args.c = x.c.data();
  args.c_stride = p.n;
  kernels::PackedMatrix<T> packed;
  if (p.packed) {
    packed = kernels::pack_b(args.b, p.k, p.n);
    args.packed = &packed;
  }
  for (auto _ : state) {
    kernels::gemm(args);
    benchmark::ClobberMemory();
  }
  report<T>(state, p);
}

template <class T>
void eigen_product(benchmark::State& state, const Product& p) {
  using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using Row = Eigen::Matrix<T, 1, Eigen::Dynamic>;
  Operands<T> x(p);
  const Index am = p.a_transposed() ? p.k : p.m, bk = p.b_transposed() ? p.n : p.k;
  const Eigen::Map<const Matrix> a(x.a.data(), am, p.m * p.k / am), b(x.b.data(), bk, p.k * p.n / bk);
  Eigen::Map<Matrix> c(x.c.data(), p.m, p.n);
  const Eigen::Map<const Row> row(x.a.data(), p.k);
  Eigen::Map<Row> out(x.c.data(), p.n);
  for (auto _ : state) {
    if (p.m == 1 && p.b_transposed()) {
      out.noalias() = row * b.transpose();
    } else if (p.m == 1) {
      out.noalias() = row * b;
    } else if (p.form == "nn") {
      c.noalias() = a * b;
    } else if (p.form == "nt") {
      c.noalias() = a * b.transpose();
    } else {
      c.noalias() = a.transpose() * b;
    }
    benchmark::ClobberMemory();
  }
  report<T>(state, p);
}

#if defined(ORDO_BENCH_ONEDNN)
void onednn_product(benchmark::State& state, const Product& p) {
  if (omp_set_num_threads != nullptr) omp_set_num_threads(1);
  Operands<float> x(p);
  for (auto _ : state) {
    dnnl_sgemm(p.a_transposed() ? 'T' : 'N', p.b_transposed() ? 'T' : 'N', p.m, p.n, p.k, 1.0F, x.a.data(),
               p.a_transposed() ? p.m : p.k, x.b.data(), p.b_transposed() ? p.k : p.n, 0.0F, x.c.data(), p.n);
    benchmark::ClobberMemory();
  }
  report<float>(state, p);
}
#endif

template <class T>
void add(const Product& p) {
  const std::string type = std::is_same_v<T, float> ? "/float/" : "/double/";
  const auto run = [&](const std::string& library, auto f) {
    benchmark::RegisterBenchmark((library + type + p.name()).c_str(), [f, p](benchmark::State& state) { f(state, p); })
        ->MinTime(0.1);
  };
  run("gemm", ordo_product<T>);
  if (p.packed) return;
  run("eigen", eigen_product<T>);
#if defined(ORDO_BENCH_ONEDNN)
  if constexpr (std::is_same_v<T, float>) run("onednn", onednn_product);
#endif
}

template <class T>
void add_all(const std::vector<Product>& products) {
  for (Product p : products) {
    add<T>(p);
    p.packed = p.form == "nt";
    if (p.packed) add<T>(p);
  }
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::AddCustomContext("processor", bench::processor_name());
  benchmark::AddCustomContext("peak of one core, float", std::to_string(bench::measured_peak<float>() * 1e-9) + " GFLOP/s");
  benchmark::AddCustomContext("peak of one core, double", std::to_string(bench::measured_peak<double>() * 1e-9) + " GFLOP/s");
  benchmark::AddCustomContext("bandwidth of one core", std::to_string(bench::measured_bandwidth() * 1e-9) + " GB/s");

  const std::vector<Product> large{{"nt", 512, 768, 768},  {"nn", 512, 768, 768},  {"tn", 768, 768, 512},
                                   {"nt", 512, 3072, 768}, {"nt", 512, 768, 3072}, {"nt", 1024, 1024, 1024}};
  const std::vector<Product> small_model{{"nt", 768, 128, 128}, {"nt", 768, 384, 128}, {"nt", 768, 512, 128},
                                         {"nt", 768, 128, 512}, {"nn", 768, 128, 512}, {"nn", 768, 512, 128},
                                         {"tn", 128, 768, 512}, {"tn", 128, 512, 768}, {"tn", 512, 128, 768},
                                         {"tn", 128, 128, 768}, {"nt", 64, 768, 768},  {"nt", 16, 768, 768}};
  const std::vector<Product> heads{{"nn", 32, 32, 32}, {"nt", 32, 32, 32}, {"tn", 32, 32, 32},
                                   {"nt", 64, 64, 32}, {"nn", 64, 32, 64}, {"nt", 65, 33, 130}};
  std::vector<Product> few;
  for (Index m : {1, 2, 4, 8}) {
    few.push_back({"nt", m, 128, 128});
    few.push_back({"nt", m, 768, 768});
    few.push_back({"nt", m, 8192, 4096});
    few.push_back({"nn", m, 768, 768});
    if (m == 1) few.push_back({"nn", m, 8192, 4096});
  }
  for (const auto& group : {large, small_model, heads, few}) add_all<float>(group);
  add_all<double>({large[0], large[1], large[2], small_model[2], heads[1], few[1], few[2]});

  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
