// The shim over xsimd: memory, casts, reductions, loops; on the best architecture and on the narrowest.

#include "ordo/simd/simd.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "support/catch.hpp"

using namespace ordo;

namespace {

template <class T, class A>
struct On {
  using Value = T;
  using Arch = A;
};

#if XSIMD_WITH_SSE2
using Narrow = xsimd::sse2;
#else
using Narrow = simd::DefaultArch;
#endif

/// n numbers in a block of exactly that size, so that a sanitizer sees every step over the end.
template <class T>
std::unique_ptr<T[]> exact_block(Index n, T first) {
  auto p = std::make_unique<T[]>(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i) p[static_cast<std::size_t>(i)] = first + static_cast<T>(i);
  return p;
}

}  // namespace

#define ORDO_EACH_VECTOR \
  (On<float, simd::DefaultArch>), (On<double, simd::DefaultArch>), (On<float, Narrow>), (On<double, Narrow>)

TEMPLATE_TEST_CASE("load_partial and store_partial touch n numbers", "[simd]", ORDO_EACH_VECTOR) {
  using T = typename TestType::Value;
  using A = typename TestType::Arch;
  constexpr Index w = simd::lanes<T, A>;
  for (Index n = 0; n <= w; ++n) {
    CAPTURE(n);
    const auto from = exact_block<T>(n, T(1));
    const auto v = simd::load_partial<A>(from.get(), n);
    const auto wanted = [&](Index i, T beyond) { return i < n ? T(1) + static_cast<T>(i) : beyond; };
    for (Index i = 0; i < w; ++i) CHECK(v.get(static_cast<std::size_t>(i)) == wanted(i, T(0)));

    const auto exact = exact_block<T>(n, T(0));
    simd::store_partial(exact.get(), v, n);
    for (Index i = 0; i < n; ++i) CHECK(exact[static_cast<std::size_t>(i)] == wanted(i, T(0)));

    std::vector<T> wide(static_cast<std::size_t>(w) + 1, T(-7));
    simd::store_partial(wide.data(), v, n);
    for (Index i = 0; i <= w; ++i) CHECK(wide[static_cast<std::size_t>(i)] == wanted(i, T(-7)));
  }
}

TEMPLATE_TEST_CASE("load and store need no alignment", "[simd]", ORDO_EACH_VECTOR) {
  using T = typename TestType::Value;
  using A = typename TestType::Arch;
  constexpr Index w = simd::lanes<T, A>;
  const auto x = exact_block<T>(w + 3, T(1));
  std::vector<T> y(static_cast<std::size_t>(w) + 3, T(0));
  simd::store(y.data() + 3, simd::load<A>(x.get() + 1));
  for (Index i = 0; i < w + 3; ++i) CHECK(y[static_cast<std::size_t>(i)] == (i < 3 ? T(0) : static_cast<T>(i - 1)));
}

TEMPLATE_TEST_CASE("lane_mask, select and the masks of comparisons", "[simd]", ORDO_EACH_VECTOR) {
  using T = typename TestType::Value;
  using A = typename TestType::Arch;
  using V = simd::Vec<T, A>;
  using I = simd::IntOf<T>;
  constexpr Index w = simd::lanes<T, A>;
  const auto x = exact_block<T>(w, T(1));
  const V v = simd::load<A>(x.get());
  for (Index n = 0; n <= w; ++n) {
    const auto mask = simd::lane_mask<T, A>(n);
    CHECK(simd::any(mask) == (n > 0));
    CHECK(simd::all(mask) == (n == w));
    const V kept = simd::select(mask, v, T(-1));
    const auto ints = simd::select(simd::mask_cast<I>(v <= V(static_cast<T>(n))), simd::Vec<I, A>(1), I(0));
    for (Index i = 0; i < w; ++i) {
      CHECK(kept.get(static_cast<std::size_t>(i)) == (i < n ? v.get(static_cast<std::size_t>(i)) : T(-1)));
      CHECK(ints.get(static_cast<std::size_t>(i)) == (i < n ? 1 : 0));
    }
  }
}

TEMPLATE_TEST_CASE("bitcast keeps the bits", "[simd]", ORDO_EACH_VECTOR) {
  using T = typename TestType::Value;
  using A = typename TestType::Arch;
  using I = simd::IntOf<T>;
  const simd::Vec<T, A> v(T(-1.5));
  const auto bits = simd::bitcast<I>(v);
  CHECK(bits.get(0) == std::bit_cast<I>(T(-1.5)));
  CHECK(simd::bitcast<T>(bits).get(0) == T(-1.5));
}

TEMPLATE_TEST_CASE("reductions see every lane", "[simd]", ORDO_EACH_VECTOR) {
  using T = typename TestType::Value;
  using A = typename TestType::Arch;
  constexpr Index w = simd::lanes<T, A>;
  for (Index at = 0; at < w; ++at) {
    auto x = exact_block<T>(w, T(1));
    CHECK(simd::hsum(simd::load<A>(x.get())) == static_cast<T>(w * (w + 1) / 2));
    x[static_cast<std::size_t>(at)] = T(100);
    CHECK(simd::hmax(simd::load<A>(x.get())) == T(100));
    x[static_cast<std::size_t>(at)] = T(-100);
    CHECK(simd::hmin(simd::load<A>(x.get())) == T(-100));
  }
  const T infinity = std::numeric_limits<T>::infinity();
  CHECK(simd::hmax(simd::Vec<T, A>(-infinity)) == -infinity);
}

TEMPLATE_TEST_CASE("fma, fms and fnma round once where has_fma says so", "[simd]", ORDO_EACH_VECTOR) {
  using T = typename TestType::Value;
  using A = typename TestType::Arch;
  using V = simd::Vec<T, A>;
  const T e = std::numeric_limits<T>::epsilon();
  const volatile T factor = 1 + e;  // factor^2 = 1 + 2 e + e^2
  const V x(static_cast<T>(factor));
  const V product(1 + 2 * e);
  CHECK(simd::fma(V(T(2)), V(T(3)), V(T(4))).get(0) == 10);
  CHECK(simd::fms(V(T(2)), V(T(3)), V(T(4))).get(0) == 2);
  CHECK(simd::fnma(V(T(2)), V(T(3)), V(T(4))).get(0) == -2);
  CHECK(simd::fma(V(T(2)), T(3), T(4)).get(0) == 10);
  CHECK(simd::fma(T(2), T(3), V(T(4))).get(0) == 10);
  if constexpr (simd::has_fma<A>) {
    CHECK(simd::fma(x, x, -product).get(0) == e * e);
    CHECK(simd::fms(x, x, product).get(0) == e * e);
    CHECK(simd::fnma(x, x, product).get(0) == -(e * e));
  }
}

TEMPLATE_TEST_CASE("max, min, abs and sqrt", "[simd]", ORDO_EACH_VECTOR) {
  using T = typename TestType::Value;
  using A = typename TestType::Arch;
  using V = simd::Vec<T, A>;
  CHECK(simd::max(V(T(2)), V(T(3))).get(0) == 3);
  CHECK(simd::max(V(T(2)), T(1)).get(0) == 2);
  CHECK(simd::min(T(2), V(T(3))).get(0) == 2);
  CHECK(simd::abs(V(T(-2))).get(0) == 2);
  CHECK(simd::sqrt(V(T(2))).get(0) == std::sqrt(T(2)));
}

TEMPLATE_TEST_CASE("transform covers every length", "[simd]", ORDO_EACH_VECTOR) {
  using T = typename TestType::Value;
  using A = typename TestType::Arch;
  constexpr Index w = simd::lanes<T, A>;
  for (Index n = 0; n <= 2 * w + 1; ++n) {
    CAPTURE(n);
    const auto a = exact_block<T>(n, T(1));
    const auto b = exact_block<T>(n, T(10));
    const auto c = exact_block<T>(n, T(100));
    std::vector<T> y(static_cast<std::size_t>(n) + 2, T(-7));
    const auto check = [&](auto wanted) {
      CHECK(y.front() == T(-7));
      CHECK(y.back() == T(-7));
      for (Index i = 0; i < n; ++i) CHECK(y[static_cast<std::size_t>(i) + 1] == wanted(static_cast<T>(i)));
    };
    simd::transform<A>(a.get(), y.data() + 1, n, [](auto v) { return v + v; });
    check([](T i) { return 2 * (i + 1); });
    simd::transform<A>(a.get(), b.get(), y.data() + 1, n, [](auto v, auto u) { return u - v; });
    check([](T) { return T(9); });
    simd::transform<A>(a.get(), b.get(), c.get(), y.data() + 1, n, [](auto v, auto u, auto t) { return t - u + v; });
    check([](T i) { return 91 + i; });
    simd::transform<A>(y.data() + 1, y.data() + 1, n, [](auto v) { return v + v; });  // in place
    check([](T i) { return 182 + 2 * i; });
  }
}

TEMPLATE_TEST_CASE("for_lanes covers every length once", "[simd]", ORDO_EACH_VECTOR) {
  using T = typename TestType::Value;
  using A = typename TestType::Arch;
  constexpr Index w = simd::lanes<T, A>;
  for (Index n = 0; n <= 2 * w + 1; ++n) {
    Index next = 0;
    simd::for_lanes<T, A>(n, [&](Index i, Index count) {
      CHECK(i == next);
      CHECK(count > 0);
      CHECK(count <= w);
      next = i + count;
    });
    CHECK(next == n);
  }
}
