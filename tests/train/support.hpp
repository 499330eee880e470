#pragma once
// A small model for the tests of training: y = down(tanh(up(x))), with a parameter of each sort that weight decay
// treats apart.

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "ordo/nn/linear.hpp"
#include "ordo/ops/elementwise.hpp"
#include "ordo/ops/reduce.hpp"
#include "ordo/train/batches.hpp"

namespace ordo_test {

using ordo::Index;

/// Fed with the bytes of a batch as numbers; learns to predict the next byte as a number. It trains, which is all that
/// matters.
template <class T>
class TinyModel {
 public:
  using value_type = T;

  explicit TinyModel(ordo::Random& random, Index width = 24)
      : up_({1, width, true, ordo::Activation::tanh}, random), down_({width, 1, true}, random) {}

  template <ordo::TensorLike X>
  auto operator()(const X& x) const {
    return down_(up_(x));
  }
  ordo::Linear<T>& up() { return up_; }
  ordo::Linear<T>& down() { return down_; }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    f("up", self.up_);
    f("down", self.down_);
  }

 private:
  ordo::Linear<T> up_, down_;
};

template <class T>
ordo::DynTensor<T, 3> numbers_of(const ordo::DynTensor<std::int32_t, 2>& tokens) {
  ordo::DynTensor<T, 3> x(tokens.extent(0), tokens.extent(1), 1);
  for (Index i = 0; i < tokens.size(); ++i) x.data()[i] = static_cast<T>(tokens.data()[i] - 90) / T{32};
  return x;
}

template <class T>
auto squared_error(const TinyModel<T>& model, ordo::Tape& tape, const ordo::TokenBatch& batch) {
  return ordo::mean(
      ordo::square(ordo::sub(model(ordo::track(tape, numbers_of<T>(batch.tokens))), numbers_of<T>(batch.targets))));
}

/// All numbers of a model, one after the other.
template <class Model>
std::vector<typename Model::value_type> weights_of(const Model& model) {
  std::vector<typename Model::value_type> all;
  ordo::for_each_leaf(
      model, [&](const ordo::Path&, const auto& p) { all.insert(all.end(), p.value().begin(), p.value().end()); });
  return all;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

inline std::string sample_text() {
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += "for (int i = " + std::to_string(i * 7919 % 1000) + "; i < n; ++i) sum += x[i];\n";
  return text;
}

}  // namespace ordo_test
