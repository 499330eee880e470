#pragma once
/// \file
/// What all optimisers share: which parameters exist, how each is treated, and what is remembered of it. An optimiser
/// is a Rule that updates plain arrays; everything else is here and in ParameterMemory.

#include <optional>
#include <string_view>
#include <type_traits>
#include <utility>

#include "ordo/autograd/tape.hpp"
#include "ordo/train/parameter_memory.hpp"

namespace ordo {

/// Whether a parameter is decayed unless the user says otherwise: matrices, embeddings, position tables and convolution
/// kernels are (rank >= 2); norms, biases, and the dynamics of state-space layers (`A_log`, `D`, `dt_bias`) never.
inline bool decays(const ParameterInfo& p) {
  if (p.shape.rank() < 2) return false;
  const std::string_view name = p.name();
  if (name == "A_log" || name == "D" || name.starts_with("bias") || name.ends_with("bias")) return false;
  return p.path.find("norm") == std::string_view::npos;
}

/// An optimiser: updates those parameters of a model for which there is a gradient. Its Rule is what ParameterMemory
/// says, with `learning_rate` and `weight_decay` in the configuration. The results do not depend on the number of
/// threads. After the first step nothing is taken from the system.
///
/// Two optimisers may share a model, each leaving the other's parameters alone:
///
///     Muon muon({.learning_rate = 0.02}, [](const ParameterInfo& p) { return ParameterGroup{0.1, is_hidden_matrix(p) ? 1.0 : 0.0}; });
///     AdamW adamw({}, [](const ParameterInfo& p) { return ParameterGroup{0, is_hidden_matrix(p) ? 0.0 : 1.0}; });
template <class Rule>
class Optimizer : public ParameterMemory<Rule> {
  using Memory = ParameterMemory<Rule>;

 public:
  using typename Memory::Config;
  using typename Memory::GroupOf;

  Optimizer() : Optimizer(Config{}) {}
  /// Weights for which decays() holds are decayed by config.weight_decay.
  explicit Optimizer(const Config& config)
      : Optimizer(config, [decay = config.weight_decay](const ParameterInfo& p) {
          return ParameterGroup{decays(p) ? decay : 0, 1};
        }) {}
  /// `group_of` is asked once for each parameter, at the first step.
  Optimizer(const Config& config, GroupOf group_of) : Memory(config, std::move(group_of)) {}

  /// One update with the configured learning rate.
  template <Visitable Model>
  void step(Model& model, const Gradients& gradients) {
    if constexpr (std::is_same_v<decltype(Config::learning_rate), std::optional<double>>) {
      step(model, gradients, this->config().learning_rate.value_or(1));
    } else {
      step(model, gradients, this->config().learning_rate);
    }
  }
  /// One update. Parameters without a gradient stay as they are, undecayed.
  template <Visitable Model>
  void step(Model& model, const Gradients& gradients, double learning_rate) {
    this->update_all(model, learning_rate, [&](auto& p) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      const AnyTensor<T> g = gradients.of(p);
      return g.present() ? std::pair<T*, const T*>(p.mutate().data(), g.data()) : std::pair<T*, const T*>();
    });
  }
};

}  // namespace ordo
