#pragma once
// What the property tests share: inputs for any layer of the layer list, and comparisons.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "ordo/eval/layers/entry.hpp"
#include "support/catch.hpp"

namespace properties {

using namespace ordo;

// Relative to the largest value of a tensor: room for sums in another order, nothing else.
template <class T>
inline constexpr double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-11;

template <class Config>
Index input_width(const Config& c) {
  if constexpr (requires { c.in_dim; }) {
    return c.in_dim;
  } else if constexpr (requires { c.input_dim; }) {
    return c.input_dim;
  } else if constexpr (requires { c.mixer.model_dim; }) {
    return c.mixer.model_dim;
  } else if constexpr (requires { c.model_dim; }) {
    return c.model_dim;
  } else {
    return c.inner_dim;
  }
}

// Random tokens [batch, length] or vectors [batch, length, width].
template <class L>
auto make_input(const typename L::Config& config, Index batch, Index length, std::uint64_t seed) {
  Random random(seed);
  if constexpr (TokenIdLayer<L>) {
    DynTensor<std::int32_t, 2> ids(batch, length);
    for (auto& id : ids) id = static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(config.vocab_size)));
    return ids;
  } else {
    DynTensor<typename L::value_type, 3> x(batch, length, input_width(config));
    for (auto& v : x) v = static_cast<typename L::value_type>(random.normal());
    return x;
  }
}

// The block [first_row, first_row + rows) x [at, at + length) of an input or output.
template <class X>
X block(const X& x, Index first_row, Index rows, Index at, Index length) {
  auto extents = x.extents().to_array();
  const Index width = X::rank() > 2 ? extents.back() : 1, whole = extents[1];
  extents[0] = rows;
  extents[1] = length;
  X y(typename X::extents_type(extents), uninitialized);
  for (Index b = 0; b < rows; ++b)
    std::copy_n(x.data() + ((first_row + b) * whole + at) * width, length * width, y.data() + b * length * width);
  return y;
}
template <class X>
X tokens(const X& x, Index at, Index length) {
  return block(x, 0, x.extent(0), at, length);
}
template <class X>
X row(const X& x, Index which) {
  return block(x, which, 1, 0, x.extent(1));
}
// Token `at` of every row, [B] or [B, D].
template <class X>
auto token(const X& x, Index at) {
  using T = typename X::value_type;
  const X one = tokens(x, at, 1);
  DynTensor<T, X::rank() - 1> y;
  if constexpr (X::rank() == 2) {
    y = DynTensor<T, 1>(x.extent(0));
  } else {
    y = DynTensor<T, 2>(x.extent(0), x.extent(2));
  }
  std::copy_n(one.data(), one.size(), y.data());
  return y;
}

// max|a - b| / max|a|; infinite for other sizes and for NaN.
template <class A, class B>
double difference(const A& a, const B& b) {
  if (a.size() != b.size()) return HUGE_VAL;
  double largest = 1e-30, worst = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double x = static_cast<double>(a.data()[i]), d = std::abs(x - static_cast<double>(b.data()[i]));
    if (std::isnan(d)) return HUGE_VAL;
    largest = std::max(largest, std::abs(x));
    worst = std::max(worst, d);
  }
  return worst / largest;
}
template <class A, class B>
bool same_bits(const A& a, const B& b) {
  return a.size() == b.size() && std::equal(a.data(), a.data() + a.size(), b.data());
}

// The rows [B, D] of single steps side by side, as [B, L, D].
template <class T>
void put_token(DynTensor<T, 3>& y, Index at, const DynTensor<T, 2>& y_t) {
  const Index width = y_t.extent(1);
  for (Index b = 0; b < y_t.extent(0); ++b)
    std::copy_n(y_t.data() + b * width, width, y.data() + (b * y.extent(1) + at) * width);
}

// Calls f(layer, config) for all configurations of the layers of some families.
template <class T, Family... families, class F>
void for_each_made_layer(F&& f) {
  for_each_layer<T, families...>([&]<class L>(const LayerEntry<L>& entry) {
    for (std::size_t i = 0; i < entry.configs.size(); ++i) {
      INFO(entry.name << ", configuration " << i);
      Random random(7 + i);
      L layer(entry.configs[i], random);
      f(layer, entry.configs[i]);
    }
  });
}

}  // namespace properties
