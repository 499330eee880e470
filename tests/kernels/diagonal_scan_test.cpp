// The diagonal scan against its recurrence, real and complex, and its gradients against central differences.

#include "ordo/kernels/diagonal_scan.hpp"

#include <complex>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "scan_support.hpp"
#include "support/catch.hpp"

namespace {

using namespace ordo;
using namespace scan_test;
using kernels::DiagonalScan;
using kernels::DiagonalScanGradients;
using kernels::Rows;
using kernels::Sequences;

template <class T>
struct Traits {
  using Real = T;
  static constexpr Index parts = 1;
};
template <class R>
struct Traits<std::complex<R>> {
  using Real = R;
  static constexpr Index parts = 2;
};

/// Everything is kept as doubles, a complex number as two.
struct Problem {
  Index batch, length, channels, parts;
  bool with_state;
  std::vector<std::int64_t> offsets;
  Doubles a, b, state, dy, dstate;

  Problem(Index B, Index L, Index E, Index number_parts, bool has_state, std::vector<std::int64_t> cu = {})
      : batch(cu.empty() ? B : static_cast<Index>(cu.size()) - 1),
        length(L),
        channels(E),
        parts(number_parts),
        with_state(has_state),
        offsets(std::move(cu)) {
    Random r(7);
    const Index n = layout().rows() * E * parts;
    a = random(r, n, -1.1, 1.1);
    // Zero, tiny and large decays: no logarithm or quotient of decays would survive them.
    for (std::size_t i = 0; i < a.size(); i += 11) a[i] = i % 2 == 0 ? 0 : 0x1p-100;
    b = random(r, n, -1, 1);
    dy = random(r, n, -1, 1);
    dstate = random(r, batch * E * parts, -1, 1);
    if (has_state) state = random(r, batch * E * parts, -1, 1);
  }
  Sequences layout() const { return {batch, length, offsets.empty() ? nullptr : offsets.data()}; }
};

struct Results {
  Doubles y, state;
};

Results reference(const Problem& p) {
  using C = std::complex<double>;
  const Index E = p.channels, P = p.parts;
  const auto at = [P](const Doubles& x, Index i) { return P == 1 ? C(x[sz(i)]) : C(x[sz(2 * i)], x[sz(2 * i + 1)]); };
  Results out{Doubles(p.a.size()), Doubles(p.dstate.size())};
  const auto put = [P](Doubles& x, Index i, C v) {
    x[sz(P * i)] = v.real();
    if (P == 2) x[sz(2 * i + 1)] = v.imag();
  };
  for (Index s = 0; s < p.batch; ++s) {
    for (Index e = 0; e < E; ++e) {
      C h = p.with_state ? at(p.state, s * E + e) : C(0);
      for (Index t = p.layout().begin(s); t < p.layout().end(s); ++t) {
        h = at(p.a, t * E + e) * h + at(p.b, t * E + e);
        put(out.y, t * E + e, h);
      }
      put(out.state, s * E + e, h);
    }
  }
  return out;
}

template <class T>
std::vector<T> numbers(const Doubles& x) {
  using R = typename Traits<T>::Real;
  std::vector<T> out;
  for (std::size_t i = 0; i < x.size(); i += sz(Traits<T>::parts)) {
    if constexpr (std::is_floating_point_v<T>) {
      out.push_back(static_cast<T>(x[i]));
    } else {
      out.emplace_back(static_cast<R>(x[i]), static_cast<R>(x[i + 1]));
    }
  }
  return out;
}
template <class T>
Doubles parts_of(const std::vector<T>& x) {
  Doubles out;
  for (const T& v : x) {
    out.push_back(static_cast<double>(std::real(v)));
    if (Traits<T>::parts == 2) out.push_back(static_cast<double>(std::imag(v)));
  }
  return out;
}

struct Run {
  Results forward;
  Doubles da, db, dstate;
};

template <class T>
Run run(const Problem& p) {
  const auto a = numbers<T>(p.a), b = numbers<T>(p.b), dy = numbers<T>(p.dy), dstate = numbers<T>(p.dstate);
  auto state = numbers<T>(p.state);
  const Index E = p.channels;
  DiagonalScan<T> in;
  in.shape = {p.layout(), E, 1, 1};
  in.a = {a.data(), E};
  in.b = {b.data(), E};
  if (p.with_state) in.state_in = state.data();
  std::vector<T> y(a.size()), state_out(dstate.size()), da(a.size()), db(a.size()), dstate_in(dstate.size());
  kernels::diagonal_scan_forward<T>(in, {y.data(), E}, state_out.data());
  DiagonalScanGradients<T> out{{da.data(), E}, {db.data(), E}, dstate_in.data()};
  kernels::diagonal_scan_backward<T>(in, Rows<const T>(y.data(), E), Rows<const T>(dy.data(), E), dstate.data(), out);
  return {{parts_of(y), parts_of(state_out)}, parts_of(da), parts_of(db), parts_of(dstate_in)};
}

template <class T>
void check(const Problem& original, double tolerance) {
  Problem p = original;
  CAPTURE(p.batch, p.length, p.channels, p.parts, p.with_state);
  const Results expected = reference(p);
  const Run got = run<T>(p);
  CHECK(difference(got.forward.y, expected.y) < tolerance);
  CHECK(difference(got.forward.state, expected.state) < tolerance);
  const auto loss = [&p] {
    const Results r = reference(p);
    double sum = 0;
    for (std::size_t i = 0; i < r.y.size(); ++i) sum += p.dy[i] * r.y[i];
    for (std::size_t i = 0; i < r.state.size(); ++i) sum += p.dstate[i] * r.state[i];
    return sum;
  };
  // The loss is linear in b and state, and in each single a: the differences are exact but for rounding.
  const double gradient_tolerance = std::max(tolerance, 1e-9);
  CHECK(difference(got.da, central_differences(p.a, loss)) < gradient_tolerance);
  CHECK(difference(got.db, central_differences(p.b, loss)) < gradient_tolerance);
  if (p.with_state) CHECK(difference(got.dstate, central_differences(p.state, loss)) < gradient_tolerance);
}

}  // namespace

TEMPLATE_TEST_CASE("diagonal scan: the recurrence and its gradients", "", float, double, std::complex<float>,
                   std::complex<double>) {
  const double tolerance = std::is_same_v<typename Traits<TestType>::Real, float> ? 1e-5 : 1e-13;
  const Index parts = Traits<TestType>::parts;
  for (const Index channels : {1, 3, 15, 17, 33}) {
    check<TestType>(Problem(2, 7, channels, parts, true), tolerance);
    check<TestType>(Problem(1, 1, channels, parts, false), tolerance);
  }
  check<TestType>(Problem(1, 21, 5, parts, false), tolerance);
  check<TestType>(Problem(1, 0, 18, parts, true, {0, 0, 5, 5, 6, 13}), tolerance);
}

TEST_CASE("diagonal scan: whole, in chunks and step by step; the same bits for any number of threads") {
  const Problem p(1, 29, 135, 1, true);
  const Run whole = run<float>(p);
  const auto a = numbers<float>(p.a), b = numbers<float>(p.b);
  for (const Index chunk : {1, 2, 3, 5, 16}) {
    auto state = numbers<float>(p.state);
    std::vector<float> y(a.size());
    for (Index t = 0; t < p.length; t += chunk) {
      DiagonalScan<float> in;
      in.shape = {{1, std::min(chunk, p.length - t), nullptr}, p.channels, 1, 1};
      in.a = {a.data() + t * p.channels, p.channels};
      in.b = {b.data() + t * p.channels, p.channels};
      in.state_in = state.data();
      kernels::diagonal_scan_forward<float>(in, {y.data() + t * p.channels, p.channels}, state.data());
    }
    CHECK(parts_of(y) == whole.forward.y);
    CHECK(parts_of(state) == whole.forward.state);
  }
  set_num_threads(3);
  const Run many = run<float>(p);
  set_num_threads(1);
  CHECK(many.forward.y == whole.forward.y);
  CHECK(many.da == whole.da);
}

TEST_CASE("diagonal scan: nothing leaks from long decays") {
  // 400 rows of decays near one: the error of the float scan stays that of its rounding.
  Problem p(1, 400, 17, 1, true);
  for (std::size_t i = 0; i < p.a.size(); ++i) p.a[i] = 1 - 0x1p-12;
  CHECK(difference(run<float>(p).forward.y, reference(p).y) < 1e-5);
}
