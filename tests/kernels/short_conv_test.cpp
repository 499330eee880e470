// The short convolution against its formula in double, its gradients against central differences of that formula.

#include "ordo/kernels/short_conv.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "scan_support.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

namespace {

using namespace ordo;
using namespace scan_test;
using kernels::Sequences;
using kernels::ShortConvolution;
using kernels::ShortConvolutionGradients;

struct Problem {
  Index sequences, length, channels, width;
  bool with_bias, silu, with_state;
  std::vector<std::int64_t> offsets;
  Index rows;
  Doubles x, weight, bias, state, dy, dstate;

  Problem(Index B, Index L, Index E, Index W, bool has_bias, bool has_silu, bool has_state,
          std::vector<std::int64_t> cu = {})
      : sequences(cu.empty() ? B : static_cast<Index>(cu.size()) - 1),
        length(L),
        channels(E),
        width(W),
        with_bias(has_bias),
        silu(has_silu),
        with_state(has_state),
        offsets(std::move(cu)),
        rows(layout().rows()) {
    Random r(3);
    x = random(r, rows * E, -1, 1);
    weight = random(r, E * W, -1, 1);
    if (has_bias) bias = random(r, E, -1, 1);
    const Index states = sequences * E * (W - 1);
    if (has_state) state = random(r, states, -1, 1);
    dy = random(r, rows * E, -1, 1);
    dstate = random(r, states, -1, 1);
  }
  Sequences layout() const { return {sequences, length, offsets.empty() ? nullptr : offsets.data()}; }
};

struct Results {
  Doubles y, state;
};
struct Gradients {
  Doubles x, weight, bias, state;
};

Results reference(const Problem& p) {
  const Index E = p.channels, W = p.width, past = W - 1;
  Results out{Doubles(p.x.size()), Doubles(p.dstate.size())};
  for (Index s = 0; s < p.sequences; ++s) {
    const Index begin = p.layout().begin(s), end = p.layout().end(s);
    for (Index e = 0; e < E; ++e) {
      Doubles z;
      for (Index j = 0; j < past; ++j) z.push_back(p.with_state ? p.state[sz((s * E + e) * past + j)] : 0);
      for (Index t = begin; t < end; ++t) z.push_back(p.x[sz(t * E + e)]);
      for (Index t = 0; t < end - begin; ++t) {
        double y = p.with_bias ? p.bias[sz(e)] : 0;
        for (Index w = 0; w < W; ++w) y += p.weight[sz(e * W + w)] * z[sz(t + w)];
        out.y[sz((begin + t) * E + e)] = p.silu ? y / (1 + std::exp(-y)) : y;
      }
      for (Index j = 0; j < past; ++j) out.state[sz((s * E + e) * past + j)] = z[sz(end - begin + j)];
    }
  }
  return out;
}

template <class T>
struct Arguments {
  const Problem& p;
  Strided<T> x{p.rows, p.channels, p.x, 5};
  std::vector<T> weight = converted<T>(p.weight), bias = converted<T>(p.bias), state = converted<T>(p.state);

  ShortConvolution<T> conv() const {
    ShortConvolution<T> c;
    c.sequences = p.layout();
    c.channels = p.channels;
    c.width = p.width;
    c.x = x.view();
    c.weight = weight.data();
    if (p.with_bias) c.bias = bias.data();
    if (p.with_state) c.state_in = state.data();
    c.silu = p.silu;
    return c;
  }
};

template <class T>
Results forward(const Problem& p) {
  const Arguments<T> arguments{p};
  Strided<T> y(p.rows, p.channels);
  std::vector<T> state(p.dstate.size(), T(-7));
  kernels::short_conv_forward<T>(arguments.conv(), y.view(), state.data());
  REQUIRE(y.gaps_untouched());
  return {y.dense(), doubles(state)};
}

template <class T>
Gradients backward(const Problem& p) {
  const Arguments<T> arguments{p};
  const Strided<T> dy(p.rows, p.channels, p.dy);
  const std::vector<T> dstate = converted<T>(p.dstate);
  Strided<T> dx(p.rows, p.channels, 2);
  std::vector<T> dweight(p.weight.size()), dbias(sz(p.channels)), dstate_in(p.dstate.size(), T(-7));
  ShortConvolutionGradients<T> out{dx.view(), dweight.data(), dbias.data(), dstate_in.data()};
  kernels::short_conv_backward<T>(arguments.conv(), dy.view(), dstate.data(), out);
  REQUIRE(dx.gaps_untouched());
  return {dx.dense(), doubles(dweight), p.with_bias ? doubles(dbias) : Doubles{},
          p.with_state ? doubles(dstate_in) : Doubles{}};
}

Gradients numeric(Problem p) {
  const auto loss = [&p] {
    const Results r = reference(p);
    double sum = 0;
    for (std::size_t i = 0; i < r.y.size(); ++i) sum += p.dy[i] * r.y[i];
    for (std::size_t i = 0; i < r.state.size(); ++i) sum += p.dstate[i] * r.state[i];
    return sum;
  };
  Gradients g;
  g.x = central_differences(p.x, loss);
  g.weight = central_differences(p.weight, loss);
  g.bias = central_differences(p.bias, loss);
  g.state = central_differences(p.state, loss);
  return g;
}

// Widths with and without an unrolled loop, lengths around the state and the tile, channels around vectors.
std::vector<Problem> problems() {
  std::vector<Problem> all;
  for (const Index width : {1, 2, 3, 4, 5, 6, 20}) {
    for (const Index length : {1, 2, 3, 4, 5, 9}) all.emplace_back(2, length, 3, width, true, true, width % 2 == 0);
  }
  for (const Index channels : {1, 15, 17, 33})
    all.emplace_back(1, 6, channels, 4, channels % 2 == 1, channels > 15, true);
  all.emplace_back(1, 0, 5, 4, true, true, true, std::vector<std::int64_t>{0, 0, 1, 1, 8, 10, 10});
  all.emplace_back(1, 0, 2, 3, false, false, false, std::vector<std::int64_t>{0, 5, 5, 6});
  return all;
}

std::string name(const Problem& p) {
  return "S" + std::to_string(p.sequences) + " L" + std::to_string(p.length) + " E" + std::to_string(p.channels) +
         " W" + std::to_string(p.width);
}

}  // namespace

TEST_CASE("short convolution: forward is the formula") {
  for (const Problem& p : problems()) {
    CAPTURE(name(p));
    const Results expected = reference(p), in_double = forward<double>(p), in_float = forward<float>(p);
    CHECK(difference(in_double.y, expected.y) < 1e-14);
    CHECK(in_double.state == expected.state);
    CHECK(difference(in_float.y, expected.y) < 1e-6);
    CHECK(in_float.state == expected.state);
  }
}

TEST_CASE("short convolution: gradients are central differences") {
  for (const Problem& p : problems()) {
    CAPTURE(name(p));
    const Gradients got = backward<double>(p), expected = numeric(p), in_float = backward<float>(p);
    CHECK(difference(got.x, expected.x) < 1e-9);
    CHECK(difference(got.weight, expected.weight) < 1e-9);
    CHECK(difference(got.bias, expected.bias) < 1e-9);
    CHECK(difference(got.state, expected.state) < 1e-9);
    CHECK(difference(in_float.x, got.x) < 3e-6);
    CHECK(difference(in_float.weight, got.weight) < 3e-6);
    CHECK(difference(in_float.state, got.state) < 3e-6);
  }
}

TEST_CASE("short convolution: long rows in several pieces and channel blocks, any number of threads") {
  // 1100 channels are three blocks, 150 rows two pieces of the sums with a boundary inside a sequence.
  const Problem p(2, 75, 1100, 4, true, true, true);
  const Results one = forward<float>(p), expected = reference(p);
  const Gradients g = backward<float>(p), exact = backward<double>(p);
  CHECK(difference(one.y, expected.y) < 1e-6);
  CHECK(difference(g.x, exact.x) < 3e-6);
  CHECK(difference(g.weight, exact.weight) < 3e-6);
  CHECK(difference(g.bias, exact.bias) < 3e-6);
  set_num_threads(3);
  const Results many = forward<float>(p);
  const Gradients g_many = backward<float>(p);
  set_num_threads(1);
  CHECK(many.y == one.y);
  CHECK(g_many.x == g.x);
  CHECK(g_many.weight == g.weight);
  CHECK(g_many.bias == g.bias);
}

TEST_CASE("short convolution: pieces of the sums are exact across their boundaries") {
  // One sequence over two pieces, narrow enough for differences.
  const Problem p(1, 130, 2, 4, true, true, true);
  const Gradients got = backward<double>(p), expected = numeric(p);
  CHECK(difference(got.x, expected.x) < 1e-9);
  CHECK(difference(got.weight, expected.weight) < 1e-9);
  CHECK(difference(got.state, expected.state) < 1e-9);
}

TEST_CASE("short convolution: whole, in chunks and step by step, the state updated in place") {
  for (const Index width : {1, 2, 4, 5}) {
    const Problem p(1, 23, 35, width, true, true, true);
    const Results whole = forward<float>(p);
    for (const Index chunk : {1, 2, 3, 4, 7}) {
      CAPTURE(width, chunk);
      const Arguments<float> arguments{p};
      Strided<float> y(p.rows, p.channels);
      std::vector<float> state = arguments.state;
      for (Index t = 0; t < p.length; t += chunk) {
        auto conv = arguments.conv();
        conv.sequences.length = std::min(chunk, p.length - t);
        conv.x.data = arguments.x.view()[t];
        conv.state_in = state.empty() ? nullptr : state.data();
        kernels::short_conv_forward<float>(conv, {y.view()[t], y.stride}, state.data());
      }
      CHECK(difference(y.dense(), whole.y) <
            1e-6);  // a step adds in the same order, but without fma where there is none
      CHECK(doubles(state) == whole.state);
    }
  }
}

TEST_CASE("short convolution: an empty sequence passes its state and the state's gradient through") {
  const Problem p(1, 0, 7, 4, true, true, true, {0, 3, 3, 5});
  const Results r = forward<double>(p);
  const Gradients g = backward<double>(p);
  const auto row = [](const Doubles& x) { return Doubles(x.begin() + 21, x.begin() + 42); };
  CHECK(row(r.state) == row(p.state));
  CHECK(row(g.state) == row(p.dstate));
}

TEST_CASE("short convolution: a step allocates nothing") {
  const Problem p(3, 1, 100, 4, true, true, true);
  const Arguments<float> arguments{p};
  const auto conv = arguments.conv();
  Strided<float> y(p.rows, p.channels);
  std::vector<float> state(p.dstate.size());
  ordo_test::AllocationCount count;
  kernels::short_conv_forward<float>(conv, y.view(), state.data());
  const std::size_t allocations = count.allocations();
  CHECK(allocations == 0);
}
