// The recurrent engine against a plain loop over the equations: every cell, lengths, directions, groups of rows.

#include "ordo/kernels/recurrent.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

#include "ordo/core/random.hpp"
#include "support/catch.hpp"

namespace {

using namespace ordo;
using namespace ordo::kernels;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Sizes {
  Index batch, length, input, hidden, projection = 0;
  std::vector<std::int64_t> offsets{};  // packed if not empty
  bool reverse = false, bias = true, state = true;
};

template <class Cell>
struct Weights {
  std::vector<double> x, ih, hh, bih, bhh, hr, h0, c0, peephole;
  Recurrence<double, Cell> problem;
  Weights(const Sizes& s, Cell cell) {
    Random random(3);
    const Index out = s.projection > 0 ? s.projection : s.hidden, rows = Cell::weight_blocks * s.hidden;
    const Index count = s.offsets.empty() ? s.batch : static_cast<Index>(s.offsets.size()) - 1;
    const auto fill = [&](std::vector<double>& v, Index n, double scale) {
      v.resize(static_cast<std::size_t>(n));
      for (double& e : v) e = scale * random.normal();
      return v.data();
    };
    Recurrence<double, Cell>& p = problem;
    p.sequences = {count, s.length, s.offsets.empty() ? nullptr : s.offsets.data()};
    p.reverse = s.reverse;
    p.input = s.input;
    p.hidden = s.hidden;
    p.output = out;
    p.x = fill(x, p.sequences.rows() * s.input, 1);
    p.weight_ih = fill(ih, rows * s.input, 0.5);
    p.weight_hh = fill(hh, rows * out, 0.5);
    if (s.bias) {
      p.bias_ih = fill(bih, rows, 0.5);
      p.bias_hh = fill(bhh, rows, 0.5);
    }
    if (s.projection > 0) p.weight_hr = fill(hr, out * s.hidden, 0.5);
    if (s.state) {
      p.hidden_in = fill(h0, count * out, 0.5);
      p.cell_in = fill(c0, count * s.hidden, 0.5);
    }
    if constexpr (requires { cell.peephole_i; }) {
      if (cell.coupled) {
        const double* const peepholes = fill(peephole, 3 * s.hidden, 0.5);
        cell.peephole_i = peepholes;
        cell.peephole_f = peepholes + s.hidden;
        cell.peephole_o = peepholes + 2 * s.hidden;
      }
    }
    p.cell = cell;
  }
};

// One step of one row by the equations: h [P] and c [E] become the next ones.
template <class Cell>
void reference_step(const Recurrence<double, Cell>& p, const double* x, std::vector<double>& h, std::vector<double>& c) {
  const Index e = p.hidden;
  const auto product = [&](const double* w, Index width, Index row, const double* v) {
    double s = 0;
    for (Index k = 0; k < width; ++k) s += w[row * width + k] * v[k];
    return s;
  };
  const auto of_x = [&](Index row) { return product(p.weight_ih, p.input, row, x) + (p.bias_ih ? p.bias_ih[row] : 0); };
  const auto bias_h = [&](Index row) { return p.bias_hh ? p.bias_hh[row] : 0; };
  const auto of_h = [&](Index row) { return product(p.weight_hh, p.output, row, h.data()) + bias_h(row); };
  std::vector<double> next(static_cast<std::size_t>(e));
  const auto at = [](auto& v, Index i) -> double& { return v[static_cast<std::size_t>(i)]; };
  if constexpr (requires { p.cell.relu; }) {
    for (Index j = 0; j < e; ++j) at(next, j) = p.cell.relu ? std::max(0.0, of_x(j) + of_h(j)) : std::tanh(of_x(j) + of_h(j));
  } else if constexpr (requires { p.cell.coupled; }) {
    for (Index j = 0; j < e; ++j) {
      const auto a = [&](Index gate) { return of_x(gate * e + j) + of_h(gate * e + j); };
      const auto peep = [&](const double* w, double v) { return w != nullptr ? w[j] * v : 0; };
      const double i = sigmoid(a(0) + peep(p.cell.peephole_i, at(c, j)));
      const double f = p.cell.coupled ? 1 - i : sigmoid(a(1) + peep(p.cell.peephole_f, at(c, j)));
      double v = f * at(c, j) + i * std::tanh(a(2));
      if (p.cell.clip > 0) v = std::clamp(v, -p.cell.clip, p.cell.clip);
      at(c, j) = v;
      at(next, j) = sigmoid(a(3) + peep(p.cell.peephole_o, v)) * std::tanh(v);
    }
  } else {
    std::vector<double> rh(static_cast<std::size_t>(e));
    for (Index j = 0; j < e; ++j) at(rh, j) = sigmoid(of_x(j) + of_h(j)) * at(h, j);
    for (Index j = 0; j < e; ++j) {
      const Index row = 2 * e + j;
      const double r = sigmoid(of_x(j) + of_h(j)), z = sigmoid(of_x(e + j) + of_h(e + j));
      const double n = std::tanh(of_x(row) + (p.cell.reset_after ? r * of_h(row) : product(p.weight_hh, e, row, rh.data()) + bias_h(row)));
      at(next, j) = (1 - z) * n + z * at(h, j);
    }
  }
  if (p.weight_hr == nullptr) {
    h = next;
    return;
  }
  for (Index j = 0; j < p.output; ++j) {
    const double v = product(p.weight_hr, e, j, next.data());
    at(h, j) = p.projection_clip > 0 ? std::clamp(v, -p.projection_clip, p.projection_clip) : v;
  }
}

template <class Cell>
void check(const Sizes& sizes, Cell cell = {}, double projection_clip = 0) {
  Weights<Cell> w(sizes, cell);
  auto& p = w.problem;
  p.projection_clip = projection_clip;
  const Index tokens = p.sequences.rows(), count = p.sequences.count, e = p.hidden, out = p.output;
  const auto room = [](Index n) { return std::vector<double>(static_cast<std::size_t>(n)); };
  std::vector<double> y = room(tokens * out), h = room(count * out), c = room(count * e);
  recurrent_forward(p, y.data(), h.data(), c.data());

  double worst = 0;
  for (Index s = 0; s < count; ++s) {
    std::vector<double> h_s = room(out), c_s = room(e);
    if (p.hidden_in != nullptr) h_s.assign(p.hidden_in + s * out, p.hidden_in + (s + 1) * out);
    if (p.cell_in != nullptr) c_s.assign(p.cell_in + s * e, p.cell_in + (s + 1) * e);
    for (Index t = p.sequences.begin(s); t < p.sequences.end(s); ++t) {
      const Index token = sizes.reverse ? p.sequences.begin(s) + p.sequences.end(s) - 1 - t : t;
      reference_step(p, p.x + token * p.input, h_s, c_s);
      for (Index j = 0; j < out; ++j) worst = std::max(worst, std::abs(y[static_cast<std::size_t>(token * out + j)] - h_s[static_cast<std::size_t>(j)]));
    }
    for (Index j = 0; j < out; ++j) worst = std::max(worst, std::abs(h[static_cast<std::size_t>(s * out + j)] - h_s[static_cast<std::size_t>(j)]));
    if (!Cell::has_cell) continue;
    for (Index j = 0; j < e; ++j) worst = std::max(worst, std::abs(c[static_cast<std::size_t>(s * e + j)] - c_s[static_cast<std::size_t>(j)]));
  }
  CHECK(worst < 1e-12);  // sums in another order, over at most 130 steps

  // Groups and products are shared by threads; the bits are the same.
  set_num_threads(3);
  std::vector<double> y3 = room(tokens * out), h3 = h, c3 = c;
  recurrent_forward(p, y3.data(), h3.data(), c3.data());
  set_num_threads(1);
  CHECK(y3 == y);
  CHECK(h3 == h);

  // What the backward pass needs is kept beside the same numbers.
  std::vector<double> gates = room(tokens * p.cell.gate_blocks() * e), cells = room(tokens * e), y2 = room(tokens * out), h2 = h, c2 = c;
  recurrent_forward(p, y2.data(), h2.data(), c2.data(), {gates.data(), cells.data()});
  CHECK(y2 == y);
  CHECK(h2 == h);
  CHECK(c2 == c);
}

template <class Cell>
void check_shapes(Cell cell = {}) {
  check<Cell>({.batch = 1, .length = 1, .input = 1, .hidden = 1}, cell);
  check<Cell>({.batch = 2, .length = 1, .input = 3, .hidden = 19, .bias = false, .state = false}, cell);
  check<Cell>({.batch = 3, .length = 17, .input = 5, .hidden = 9}, cell);
  check<Cell>({.batch = 1, .length = 130, .input = 3, .hidden = 4, .reverse = true}, cell);   // more than a chunk of tokens
  check<Cell>({.batch = 70, .length = 5, .input = 2, .hidden = 8, .reverse = true}, cell);    // several groups
  check<Cell>({.batch = 1, .length = 12, .input = 4, .hidden = 5, .offsets = {0, 3, 3, 10, 11, 12}}, cell);  // an empty sequence
  check<Cell>({.batch = 1, .length = 12, .input = 4, .hidden = 5, .offsets = {0, 1, 8, 12}, .reverse = true}, cell);
  std::vector<std::int64_t> many{0};
  for (Index s = 0; s < 67; ++s) many.push_back(many.back() + s * 7 % 5);
  check<Cell>({.batch = 1, .length = many.back(), .input = 2, .hidden = 3, .offsets = many}, cell);
  check<Cell>({.batch = 0, .length = 4, .input = 2, .hidden = 3}, cell);
}

}  // namespace

TEST_CASE("recurrent: every cell agrees with its equations") {
  SECTION("rnn, tanh") { check_shapes<RnnCell<double>>(); }
  SECTION("rnn, relu") { check_shapes<RnnCell<double>>({true}); }
  SECTION("lstm") { check_shapes<LstmCell<double>>(); }
  SECTION("lstm, coupled, peepholes, clip") {
    LstmCell<double> cell;
    cell.coupled = true;
    cell.clip = 0.4;
    check_shapes<LstmCell<double>>(cell);
  }
  SECTION("gru, reset after") { check_shapes<GruCell<double>>({true}); }
  SECTION("gru, reset before") { check_shapes<GruCell<double>>({false}); }
}

TEST_CASE("recurrent: the projection is what is fed back, clipped") {
  check<LstmCell<double>>({.batch = 3, .length = 11, .input = 5, .hidden = 9, .projection = 4});
  check<LstmCell<double>>({.batch = 33, .length = 6, .input = 5, .hidden = 9, .projection = 4, .reverse = true}, {}, 0.3);
}

TEMPLATE_TEST_CASE("recurrent: sigmoid and tanh of gates are within a few units of the last place of 1", "", float, double) {
  using T = TestType;
  using V = simd::Vec<T>;
  const double unit = std::numeric_limits<T>::epsilon();
  double worst_sigmoid = 0, worst_tanh = 0, worst_small = 0;
  for (double x = -120; x <= 120; x += x > -12 && x < 12 ? 0.0009765625 : 0.25) {
    const T at = static_cast<T>(x);
    const double s = static_cast<double>(kernels::detail::gate_sigmoid(V(at)).get(0)), t = static_cast<double>(kernels::detail::gate_tanh(V(at)).get(0));
    worst_sigmoid = std::max(worst_sigmoid, std::abs(s - sigmoid(static_cast<double>(at))));
    worst_tanh = std::max(worst_tanh, std::abs(t - std::tanh(static_cast<double>(at))));
    REQUIRE(s >= 0);
    REQUIRE(s <= 1);
    REQUIRE(std::abs(t) <= 1);  // or cells could grow
    const T tiny = static_cast<T>(x * 1e-6);
    const double small = static_cast<double>(kernels::detail::gate_tanh(V(tiny)).get(0));
    if (tiny != 0) worst_small = std::max(worst_small, std::abs(small / std::tanh(static_cast<double>(tiny)) - 1));
  }
  CHECK(worst_sigmoid <= unit);
  CHECK(worst_tanh <= 2 * unit);
  CHECK(worst_small <= 4 * unit);  // relative: small states keep their digits
  const T nan = std::numeric_limits<T>::quiet_NaN();
  CHECK(std::isnan(kernels::detail::gate_sigmoid(V(nan)).get(0)));
  CHECK(std::isnan(kernels::detail::gate_tanh(V(nan)).get(0)));
}
