#pragma once
/// \file
/// What a layer is. A layer owns parameters, is constant while it runs, and is written once for plain and tracked tensors.
///
///     layer(x)                 [B, L, D] -> [B, L, D]      the whole sequence
///     layer(x, state)          the same, continuing a stream: any cut into pieces gives the same numbers
///     layer.step(x_t, state)   [B, D] -> [B, D]            one token; allocates nothing from the system
///     layer.initial_state(B)   what a fresh stream of B rows remembers

#include <concepts>
#include <string>
#include <type_traits>
#include <utility>

#include "ordo/autograd/apply.hpp"
#include "ordo/autograd/state.hpp"
#include "ordo/core/random.hpp"
#include "ordo/core/visit.hpp"
#include "ordo/ops/shape.hpp"

namespace ordo {

/// Works on each token alone: feed-forwards, norms, linear maps.
template <class L>
concept TokenLayer = requires(const L& layer, const DynTensor<typename L::value_type, 3>& x) {
  typename L::value_type;
  { layer(x) };
};

/// A causal sequence layer: the three forms of call above, with one state.
template <class L>
concept SequenceLayer = requires(const L& layer, const DynTensor<typename L::value_type, 3>& x,
                                 const DynTensor<typename L::value_type, 2>& x_t,
                                 typename L::template State<Mode::plain>& state) {
  typename L::value_type;
  { layer(x) };
  { layer(x, state) };
  { layer.step(x_t, state) };
  { layer.initial_state(Index{1}) } -> std::same_as<typename L::template State<Mode::plain>>;
};

/// The number of weights of a layer or model.
template <Visitable M>
Index num_parameters(const M& model) {
  Index n = 0;
  for_each_leaf(model, [&](const Path&, const auto& p) { n += p.size(); });
  return n;
}

// ---- configurations ----

namespace detail {

/// ConfigError unless `value` >= `least`.
[[gnu::noinline]] inline void require_at_least(const char* layer, const char* key, Index value, Index least) {
  if (value < least) {
    fail<ConfigError>({layer, ": ", key, " must be at least ", least, ", given ", value});
  }
}

/// ConfigError unless `value` is a multiple of `parts`, which is at least 1.
inline void require_divisible(const char* layer, const char* key, Index value, Index parts, const char* parts_key = "num_groups") {
  require_at_least(layer, parts_key, parts, 1);
  if (value % parts != 0) {
    fail<ConfigError>(std::string(layer) + ": " + key + " must be a multiple of " + parts_key + " (" + std::to_string(parts) +
                      "), given " + std::to_string(value));
  }
}

}  // namespace detail

// ---- initial values ----

namespace detail {
// Once for each scalar type, not for each rank; not hot.
template <class T>
[[gnu::cold, gnu::noinline]] void fill_uniform(T* values, Index n, double bound, Random& random) {
  for (Index i = 0; i < n; ++i) values[i] = static_cast<T>(random.uniform(-bound, bound));
}
template <class T>
[[gnu::cold, gnu::noinline]] void fill_normal(T* values, Index n, double deviation, Random& random) {
  for (Index i = 0; i < n; ++i) values[i] = static_cast<T>(deviation * random.normal());
}
}  // namespace detail

/// Fills a parameter with uniform numbers on (-bound, bound).
template <class T, class E>
Parameter<T, E> uniform_parameter(const E& extents, double bound, Random& random) {
  Parameter<T, E> p(extents);
  detail::fill_uniform(p.mutate().data(), p.size(), bound, random);
  return p;
}
/// Fills a parameter with normal numbers of the given standard deviation.
template <class T, class E>
Parameter<T, E> normal_parameter(const E& extents, double deviation, Random& random) {
  Parameter<T, E> p(extents);
  detail::fill_normal(p.mutate().data(), p.size(), deviation, random);
  return p;
}
/// Fills a parameter with one number.
template <class T, class E>
Parameter<T, E> constant_parameter(const E& extents, double value) {
  return Parameter<T, E>(Tensor<T, E>(extents, static_cast<T>(value)));
}

namespace detail {
/// [B, D] as [B, 1, D], and back: a step is a sequence of one token.
template <TensorLike X>
auto one_token(const X& x) {
  static_assert(rank_of<X> == 2, "step takes one token of every row: [B, D]");
  const auto v = view(x);
  return reshape(x, v.extent(0), Index{1}, v.extent(1));
}
template <TensorLike Y>
auto only_token(const Y& y) {
  const auto v = view(y);
  return reshape(y, v.extent(0), v.extent(2));
}
}  // namespace detail

}  // namespace ordo
