// Products against sums in a wider type, for every way that a shape can take; whatever lies beside an operand is NaN.

#include "ordo/kernels/gemm.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

namespace {

using namespace ordo;
using kernels::Activation;
using kernels::Epilogue;
using kernels::GemmArgs;
using kernels::MatrixRef;
using kernels::PackedMatrix;

template <class T>
using Wider = std::conditional_t<std::is_same_v<T, float>, double, long double>;

/// A matrix whose rows (or columns) are `gap` elements longer than they need to be; the gaps hold NaN.
template <class T>
struct Matrix {
  Index rows, cols, stride;
  bool transposed;
  std::vector<T> values;

  Matrix(Index m, Index n, bool as_transposed, Index gap, unsigned seed)
      : rows(m), cols(n), stride((as_transposed ? m : n) + gap), transposed(as_transposed) {
    const Index lines = transposed ? n : m, length = transposed ? m : n;
    // Nothing behind the last element: a sanitizer sees any read there.
    values.assign(static_cast<std::size_t>(lines == 0 || length == 0 ? 0 : (lines - 1) * stride + length),
                  std::numeric_limits<T>::quiet_NaN());
    unsigned state = seed * 2654435761U + 1U;
    for (Index i = 0; i < m; ++i) {
      for (Index j = 0; j < n; ++j) {
        state = state * 1664525U + 1013904223U;
        at(i, j) = static_cast<T>(static_cast<double>(state >> 8) / double(1 << 23) - 1.0);
      }
    }
  }
  T& at(Index i, Index j) { return values[static_cast<std::size_t>(transposed ? j * stride + i : i * stride + j)]; }
  T at(Index i, Index j) const { return const_cast<Matrix&>(*this).at(i, j); }
  MatrixRef<T> ref() const {
    return transposed ? MatrixRef<T>{values.data(), 1, stride} : MatrixRef<T>{values.data(), stride, 1};
  }
};

double activation_of(Activation kind, double x) {
  switch (kind) {
    case Activation::none: return x;
    case Activation::relu: return x > 0 ? x : 0;
    case Activation::gelu: return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
    case Activation::gelu_tanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::tanh: return std::tanh(x);
    case Activation::sigmoid: return 1 / (1 + std::exp(-x));
    default: break;
  }
  FAIL("no reference for " << to_string(kind));
  return 0;
}

struct Shape3 {
  Index m, n, k;
};

enum class Run { plain, packed, small };

/// One product checked element by element. The bound is the textbook's (k + 2) eps sum |a| |b|, so that one missing or
/// doubled term of average size is seen for any k here.
template <class T>
void check(Shape3 shape, bool ta, bool tb, bool accumulate, Run run, Activation activation = Activation::none,
           bool with_bias = false, bool with_residual = false, Index gap = 3) {
  const auto [m, n, k] = shape;
  CAPTURE(m, n, k, ta, tb, accumulate, static_cast<int>(run), to_string(activation), with_bias, with_residual, gap);
  const Matrix<T> a(m, k, ta, gap, 1), b(k, n, tb, gap, 2), bias(1, n, false, 0, 4), residual(m, n, false, gap + 1, 5);
  Matrix<T> c(m, n, false, gap + 2, 3);
  const Matrix<T> before = c;
  if (!accumulate) std::fill(c.values.begin(), c.values.end(), std::numeric_limits<T>::quiet_NaN());

  GemmArgs<T> args;
  args.m = m;
  args.n = n;
  args.k = k;
  args.a = a.ref();
  args.b = b.ref();
  args.c = c.values.data();
  args.c_stride = c.stride;
  args.accumulate = accumulate;
  args.epilogue = {with_bias ? bias.values.data() : nullptr, activation, with_residual ? residual.values.data() : nullptr,
                   residual.stride};
  PackedMatrix<T> packed;
  if (run == Run::packed) {
    packed = kernels::pack_b(args.b, k, n);
    args.packed = &packed;
    args.b = {};
  }
  if (run == Run::small) {
    kernels::gemm_small(args);
  } else {
    kernels::gemm(args);
  }

  using W = Wider<T>;
  const W eps = std::numeric_limits<T>::epsilon();
  Index wrong = 0;
  for (Index i = 0; i < m; ++i) {
    for (Index j = 0; j < n; ++j) {
      W sum = accumulate ? W(before.at(i, j)) : W(0), size = std::abs(sum);
      for (Index kk = 0; kk < k; ++kk) {
        const W term = W(a.at(i, kk)) * W(b.at(kk, j));
        sum += term;
        size += std::abs(term);
      }
      if (with_bias) {
        sum += W(bias.at(0, j));
        size += std::abs(W(bias.at(0, j)));
      }
      // |f'| <= 1.13 for all of them; 8 eps for the function itself
      W bound = W(k + 3) * eps * size;
      if (activation != Activation::none) {
        bound = W(1.2) * bound + 8 * eps * (1 + std::abs(sum));
        sum = W(activation_of(activation, static_cast<double>(sum)));
      }
      if (with_residual) {
        sum += W(residual.at(i, j));
        bound += 2 * eps * (std::abs(sum) + std::abs(W(residual.at(i, j))));
      }
      if (!(std::abs(W(c.at(i, j)) - sum) <= bound)) ++wrong;
    }
  }
  CHECK(wrong == 0);
  // The gaps of C are as they were.
  Index touched = 0;
  for (Index i = 0; i + 1 < m && n > 0; ++i) {
    for (Index j = n; j < c.stride; ++j) touched += std::isnan(c.values[static_cast<std::size_t>(i * c.stride + j)]) ? 0 : 1;
  }
  CHECK(touched == 0);
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// The product in memory of its own, C dense.
template <class T>
std::vector<T> product(const Matrix<T>& a, const Matrix<T>& b, const std::type_identity_t<PackedMatrix<T>>* packed = nullptr,
                       const std::type_identity_t<Epilogue<T>>& epilogue = {}) {
  std::vector<T> c(static_cast<std::size_t>(a.rows * b.cols));
  GemmArgs<T> args;
  args.m = a.rows;
  args.n = b.cols;
  args.k = a.cols;
  args.a = a.ref();
  args.b = b.ref();
  args.packed = packed;
  args.c = c.data();
  args.c_stride = b.cols;
  args.epilogue = epilogue;
  kernels::gemm(args);
  return c;
}

/// Restores one thread at the end of a scope.
struct Threads {
  explicit Threads(int n) { set_num_threads(n); }
  ~Threads() { set_num_threads(1); }
};

}  // namespace

TEMPLATE_TEST_CASE("gemm: all sizes around tiles and lanes, all transposes", "[gemm]", float, double) {
  const Index sizes[] = {1, 2, 3, 8, 9, 15, 17, 33, 65};
  const Index depths[] = {1, 2, 7, 16, 33, 130};
  for (Index m : sizes) {
    for (Index n : sizes) {
      for (Index k : depths) {
        for (int mode = 0; mode < 4; ++mode) {
          const bool accumulate = (m + n + k) % 2 == 0;  // each size sees both
          check<TestType>({m, n, k}, (mode & 1) != 0, (mode & 2) != 0, accumulate, Run::plain);
        }
        check<TestType>({m, n, k}, n % 2 == 0, m % 2 == 0, k % 2 == 0, Run::packed);
        check<TestType>({m, n, k}, k % 2 == 0, n % 2 == 1, m % 2 == 0, Run::small);
      }
    }
  }
}

TEMPLATE_TEST_CASE("gemm: every number of rows and of columns up to three tiles", "[gemm]", float, double) {
  for (Index few = 1; few <= 45; ++few) {
    for (Run run : {Run::plain, Run::packed}) {
      check<TestType>({few, 70, 37}, false, true, few % 2 == 0, run);
      check<TestType>({70, few, 67}, few % 3 == 0, few % 2 == 0, few % 2 == 1, run);
      check<TestType>({few, few, 19}, few % 2 == 0, few % 3 == 0, false, run);
    }
  }
}

TEMPLATE_TEST_CASE("gemm: depths beyond one block", "[gemm]", float, double) {
  for (Index k : {383, 384, 385, 767, 1000, 1537, 2050}) {
    for (int mode = 0; mode < 4; ++mode) {
      const bool ta = (mode & 1) != 0, tb = (mode & 2) != 0;
      check<TestType>({1, 40, k}, ta, tb, false, Run::plain);
      check<TestType>({5, 33, k}, ta, tb, true, Run::packed);
      check<TestType>({12, 35, k}, ta, tb, true, Run::plain);
      check<TestType>({19, 50, k}, ta, tb, mode % 2 == 0, Run::plain, Activation::none, true);
      check<TestType>({40, 3, k}, ta, tb, mode % 2 == 1, Run::plain);
      check<TestType>({29, 65, k}, ta, tb, false, Run::packed, Activation::silu, true, true);
    }
  }
}

TEMPLATE_TEST_CASE("gemm: blocks large enough to be packed, and strides that share sets of a cache", "[gemm]", float,
                   double) {
  for (int mode = 0; mode < 4; ++mode) {
    const bool ta = (mode & 1) != 0, tb = (mode & 2) != 0;
    check<TestType>({300, 530, 41}, ta, tb, mode == 1, Run::plain);
    check<TestType>({130, 129, 1024}, ta, tb, false, Run::plain, Activation::none, true, false, 0);
    check<TestType>({512, 130, 33}, ta, tb, true, Run::plain, Activation::none, false, true, 0);
    check<TestType>({150, 1024, 20}, ta, tb, false, Run::plain, Activation::none, false, false, 0);
  }
  check<TestType>({1100, 33, 200}, false, true, false, Run::packed);  // more than one block of rows
  check<TestType>({1100, 530, 200}, true, true, false, Run::plain);
}

TEMPLATE_TEST_CASE("gemm: few rows and a B beyond the caches", "[gemm]", float, double) {
  const Index n = (Index{9} << 20) / static_cast<Index>(sizeof(TestType)) / 260 + 5;
  for (Index m : {1, 2, 3, 5, 8}) {
    check<TestType>({m, n, 261}, m % 2 == 0, false, m % 2 == 1, Run::plain, Activation::relu, true, true);
  }
}

TEMPLATE_TEST_CASE("gemm: epilogues on every way", "[gemm]", float, double) {
  const Activation kinds[] = {Activation::none, Activation::relu, Activation::gelu,   Activation::gelu_tanh,
                              Activation::silu, Activation::tanh, Activation::sigmoid};
  const Shape3 shapes[] = {{1, 37, 20}, {4, 100, 33}, {8, 64, 70}, {30, 1, 17}, {33, 5, 70}, {20, 70, 65}, {31, 16, 9}};
  for (Activation kind : kinds) {
    for (int what = 0; what < 8; ++what) {
      for (const Shape3& shape : shapes) {
        const bool bias = (what & 1) != 0, residual = (what & 2) != 0, accumulate = (what & 4) != 0;
        check<TestType>(shape, what % 3 == 0, false, accumulate, Run::plain, kind, bias, residual);
        check<TestType>(shape, false, true, accumulate, Run::plain, kind, bias, residual);
        check<TestType>(shape, false, true, accumulate, Run::packed, kind, bias, residual);
        check<TestType>(shape, false, true, accumulate, Run::small, kind, bias, residual);
      }
    }
  }
}

TEMPLATE_TEST_CASE("gemm: extents of zero", "[gemm]", float, double) {
  for (Run run : {Run::plain, Run::packed, Run::small}) {
    for (bool accumulate : {false, true}) {
      check<TestType>({0, 5, 7}, false, true, accumulate, run);
      check<TestType>({5, 0, 7}, false, false, accumulate, run);
      check<TestType>({5, 7, 0}, false, false, accumulate, run);
      check<TestType>({5, 7, 0}, true, true, accumulate, run, Activation::sigmoid, true, true);
      check<TestType>({0, 0, 0}, false, false, accumulate, run);
    }
  }
}

TEMPLATE_TEST_CASE("gemm: single rows and columns, whatever stride they are given", "[gemm]", float, double) {
  using T = TestType;
  const Matrix<T> w(21, 21, false, 2, 7);
  const std::vector<T> x = Matrix<T>(1, 61, false, 0, 8).values;
  for (bool tw : {false, true}) {
    for (Index step : {1, 3}) {
      std::vector<T> row(21), col(21);
      GemmArgs<T> args;
      args.m = 1;
      args.n = args.k = 21;
      args.a = {x.data(), 1, step};  // a row, its elements `step` apart
      args.b = tw ? w.ref().transposed() : w.ref();
      args.c = row.data();
      args.c_stride = 21;
      kernels::gemm(args);
      args.m = 21;
      args.n = 1;
      args.a = tw ? w.ref() : w.ref().transposed();
      args.b = {x.data(), step, 1};  // a column
      args.c = col.data();
      args.c_stride = 1;
      kernels::gemm(args);
      for (Index j = 0; j < 21; ++j) {
        Wider<T> sum = 0;
        for (Index k = 0; k < 21; ++k) {
          sum += Wider<T>(x[static_cast<std::size_t>(k * step)]) * Wider<T>(tw ? w.at(j, k) : w.at(k, j));
        }
        const auto bound = static_cast<double>(24 * 21 * std::numeric_limits<T>::epsilon());
        CHECK(std::abs(static_cast<double>(row[static_cast<std::size_t>(j)] - static_cast<T>(sum))) <= bound);
        CHECK(std::abs(static_cast<double>(col[static_cast<std::size_t>(j)] - static_cast<T>(sum))) <= bound);
      }
    }
  }
}

TEMPLATE_TEST_CASE("gemm: a NaN stays in its row and its column", "[gemm]", float, double) {
  using T = TestType;
  for (Index m : {1, 3, 8, 20}) {
    for (bool tb : {false, true}) {
      Matrix<T> a(m, 50, false, 0, 1), b(50, 45, tb, 0, 2);
      a.at(m - 1, 49) = std::numeric_limits<T>::quiet_NaN();
      b.at(3, 17) = std::numeric_limits<T>::infinity();
      const PackedMatrix<T> packed = kernels::pack_b(b.ref(), 50, 45);
      for (const PackedMatrix<T>* p : {static_cast<const PackedMatrix<T>*>(nullptr), &packed}) {
        const std::vector<T> c = product(a, b, p);
        Index wrong = 0;
        for (Index i = 0; i < m; ++i) {
          for (Index j = 0; j < 45; ++j) {
            wrong += std::isfinite(c[static_cast<std::size_t>(i * 45 + j)]) == (i != m - 1 && j != 17) ? 0 : 1;
          }
        }
        CAPTURE(m, tb, p != nullptr);
        CHECK(wrong == 0);
      }
    }
  }
}

TEMPLATE_TEST_CASE("gemm: packed and unpacked agree to the bit where both go by tiles", "[gemm]", float, double) {
  using T = TestType;
  for (bool ta : {false, true}) {
    for (bool tb : {false, true}) {
      const Matrix<T> a(61, 900, ta, 0, 1), b(900, 75, tb, 0, 2), bias(1, 75, false, 0, 3);
      const PackedMatrix<T> packed = kernels::pack_b(b.ref(), 900, 75);
      const Epilogue<T> epilogue{bias.values.data(), Activation::silu, nullptr, 0};
      CHECK(same_bits(product(a, b), product(a, b, &packed)));
      CHECK(same_bits(product(a, b, nullptr, epilogue), product(a, b, &packed, epilogue)));
    }
  }
}

TEMPLATE_TEST_CASE("gemm: a row's bits do not depend on its neighbours", "[gemm]", float, double) {
  using T = TestType;
  const Matrix<T> a(70, 400, false, 0, 1), b(400, 90, true, 0, 2);
  const std::vector<T> all = product(a, b);
  for (Index rows : {17, 20, 33, 59}) {
    Matrix<T> part(rows, 400, false, 0, 1);
    std::copy_n(a.values.begin() + 3 * 400, rows * 400, part.values.begin());
    const std::vector<T> some = product(part, b);
    CHECK(std::memcmp(some.data(), all.data() + 3 * 90, some.size() * sizeof(T)) == 0);
  }
}

TEMPLATE_TEST_CASE("gemm: the same bits for any number of threads", "[gemm][threads]", float, double) {
  using T = TestType;
  // Shapes that are large enough to be shared on each way: rows of tiles, columns of tiles, panels, dots, swapped dots,
  // scaled rows.
  struct Case {
    Shape3 shape;
    bool ta, tb, packed;
  };
  const Case cases[] = {{{700, 150, 130}, false, true, false}, {{700, 150, 130}, false, true, true},
                        {{110, 900, 140}, true, false, false}, {{50, 1500, 160}, false, true, true},
                        {{3, 2100, 513}, false, true, true},   {{2, 2100, 513}, false, true, false},
                        {{2100, 3, 513}, false, false, false}, {{1, 2100, 1030}, false, false, false},
                        {{5, 2100, 513}, false, false, false}, {{4, 2500, 1030}, true, false, false}};
  for (const Case& which : cases) {
    const auto [m, n, k] = which.shape;
    CAPTURE(m, n, k, which.packed);
    const Matrix<T> a(m, k, which.ta, 0, 1), b(k, n, which.tb, 0, 2), bias(1, n, false, 0, 3);
    PackedMatrix<T> packed;
    if (which.packed) packed = kernels::pack_b(b.ref(), k, n);
    const Epilogue<T> epilogue{bias.values.data(), Activation::gelu_tanh, nullptr, 0};
    const std::vector<T> one = product(a, b, which.packed ? &packed : nullptr, epilogue);
    for (int threads : {2, 3, 5}) {
      const Threads scope(threads);
      CHECK(same_bits(one, product(a, b, which.packed ? &packed : nullptr, epilogue)));
    }
  }
}

TEMPLATE_TEST_CASE("gemm: nothing is allocated once the pool is warm", "[gemm]", float, double) {
  using T = TestType;
  for (const Shape3& shape : {Shape3{32, 32, 32}, Shape3{1, 300, 300}, Shape3{200, 600, 700}, Shape3{3, 100, 900}}) {
    const auto [m, n, k] = shape;
    for (int mode = 0; mode < 4; ++mode) {
      const Matrix<T> a(m, k, (mode & 1) != 0, 0, 1), b(k, n, (mode & 2) != 0, 0, 2);
      std::vector<T> c(static_cast<std::size_t>(m * n));
      GemmArgs<T> args;
      args.m = m;
      args.n = n;
      args.k = k;
      args.a = a.ref();
      args.b = b.ref();
      args.c = c.data();
      args.c_stride = n;
      kernels::gemm(args);
      const ordo_test::AllocationCount count;
      kernels::gemm(args);
      const std::size_t allocations = count.allocations();
      CAPTURE(m, n, k, mode);
      CHECK(allocations == 0);
    }
  }
}

TEMPLATE_TEST_CASE("PackedMatrix: panels, padding and sharing", "[gemm]", float, double) {
  using T = TestType;
  using Tile = kernels::RegisterTile<T>;
  const PackedMatrix<T> none;
  CHECK(none.empty());
  CHECK(none.size_bytes() == 0);
  for (bool tb : {false, true}) {
    for (Index n : {Index{1}, Tile::lanes, Tile::lanes + 1, Tile::cols, 3 * Tile::cols + 1}) {
      for (Index k : {1, 5, 30}) {
        const Matrix<T> b(k, n, tb, 2, 9);
        const PackedMatrix<T> packed(b.ref(), k, n);
        const PackedMatrix<T> copy = packed;
        CHECK(copy.panel(0) == packed.panel(0));
        CHECK(reinterpret_cast<std::uintptr_t>(packed.panel(0)) % 64 == 0);
        CHECK(packed.depth() == k);
        CHECK(packed.cols() == n);
        Index wrong = 0, elements = 0;
        for (Index j = 0; j < n; j += Tile::cols) {
          const Index width = n - j <= Tile::lanes ? Tile::lanes : Tile::cols;
          for (Index kk = 0; kk < k; ++kk) {
            for (Index jj = 0; jj < width; ++jj, ++elements) {
              const T expected = j + jj < n ? b.at(kk, j + jj) : T(0);
              wrong += packed.panel(j)[kk * width + jj] == expected ? 0 : 1;
            }
          }
        }
        CAPTURE(tb, n, k);
        CHECK(wrong == 0);
        CHECK(packed.size_bytes() == elements * static_cast<Index>(sizeof(T)));
      }
    }
  }
}

TEMPLATE_TEST_CASE("the register tile: three ways of reading A, one result", "[gemm]", float, double) {
  using T = TestType;
  using V = simd::Vec<T>;
  using Tile = kernels::RegisterTile<T>;
  constexpr auto rows = static_cast<std::size_t>(Tile::rows), vectors = static_cast<std::size_t>(Tile::vectors);
  for (Index k : {0, 1, 2, 3, 20}) {
    const Matrix<T> a(Tile::rows, k, false, 5, 1), at(Tile::rows, k, true, 5, 1), b(k, Tile::cols, false, 0, 2),
        start(Tile::rows, Tile::cols, false, 0, 3);
    std::vector<T> results[4];
    for (auto& result : results) result.resize(static_cast<std::size_t>(Tile::rows * Tile::cols));
    V acc[rows][vectors];
    kernels::tile_load(acc, start.values.data(), Tile::cols);
    kernels::tile_product(acc, k, kernels::BroadcastRows{a.values.data(), a.stride}, b.values.data(), Tile::cols);
    kernels::tile_store(acc, results[0].data(), Tile::cols);
    kernels::tile_load(acc, start.values.data(), Tile::cols);
    kernels::tile_product(acc, k, kernels::BroadcastColumns{at.values.data(), at.stride}, b.values.data(), Tile::cols);
    kernels::tile_store(acc, results[1].data(), Tile::cols);
    kernels::tile_load(acc, start.values.data(), Tile::cols);
    kernels::tile_product(acc, k, kernels::BroadcastStrided{a.values.data(), a.stride, 1}, b.values.data(), Tile::cols);
    kernels::tile_store(acc, results[2].data(), Tile::cols);
    kernels::tile_load(acc, start.values.data(), Tile::cols);
    kernels::tile_product(acc, k, kernels::BroadcastStrided{at.values.data(), 1, at.stride}, b.values.data(), Tile::cols);
    kernels::tile_store(acc, results[3].data(), Tile::cols);
    for (int i = 1; i < 4; ++i) CHECK(same_bits(results[0], results[i]));
    Index wrong = 0;
    for (Index i = 0; i < Tile::rows; ++i) {
      for (Index j = 0; j < Tile::cols; ++j) {
        Wider<T> sum = start.at(i, j);
        for (Index kk = 0; kk < k; ++kk) sum += Wider<T>(a.at(i, kk)) * Wider<T>(b.at(kk, j));
        const Wider<T> error = std::abs(Wider<T>(results[0][static_cast<std::size_t>(i * Tile::cols + j)]) - sum);
        wrong += error <= Wider<T>((k + 2) * (k + 1)) * Wider<T>(std::numeric_limits<T>::epsilon()) ? 0 : 1;
      }
    }
    CHECK(wrong == 0);
  }
}
