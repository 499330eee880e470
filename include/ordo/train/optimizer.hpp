#pragma once
/// \file
/// What all optimisers share: which parameters exist, how each is treated, and what is remembered of it. An optimiser
/// is a Rule that updates plain arrays; everything else is here.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/autograd/tape.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/core/visit.hpp"

namespace ordo {

/// A parameter as the choice of its group sees it.
struct ParameterInfo {
  std::string_view path;  ///< "backbone.layers.0.mixer.in_proj.weight"
  Shape shape;
  /// The last part of the path.
  std::string_view name() const noexcept {
    const auto dot = path.rfind('.');
    return dot == std::string_view::npos ? path : path.substr(dot + 1);
  }
};

/// How an optimiser treats a parameter.
struct ParameterGroup {
  double weight_decay = 0;
  double learning_rate_factor = 1;  ///< times the learning rate of the step; 0: the parameter is frozen
};

/// Whether a parameter is decayed unless the user says otherwise: matrices, embeddings, position tables and convolution
/// kernels are (rank >= 2); norms, biases, and the dynamics of state-space layers (`A_log`, `D`, `dt_bias`) never.
inline bool decays(const ParameterInfo& p) {
  if (p.shape.rank() < 2) return false;
  const std::string_view name = p.name();
  if (name == "A_log" || name == "D" || name.starts_with("bias") || name.ends_with("bias")) return false;
  return p.path.find("norm") == std::string_view::npos;
}

/// What an update of one step knows besides the arrays.
struct UpdateStep {
  double learning_rate = 0;  ///< with the factor of the parameter's group
  double weight_decay = 0;
  std::int64_t t = 1;  ///< counts the updates of this parameter from 1
};

/// An optimiser: remembers, for each parameter of a model in visiting order, what its Rule needs (so the model may
/// move), and updates those for which there is a gradient. A Rule has
///
///     struct Config { double learning_rate, weight_decay; ... static void visit(Self&, F&&); };
///     static constexpr const char* name = "adamw";
///     static constexpr std::array memories{"m", "v", "s"};                  // arrays of the parameter's size, zero at
///     first static std::size_t memory_count(const Config&);                       // how many of them are in use
///     template <class T> static void update(const Config&, const UpdateStep&, T* p, const T* g, const std::array<T*,
///     N>& memory, Index n);
///
/// with an elementwise update: it may be called for pieces of an array, from several threads. The results do not depend
/// on their number. After the first step nothing is taken from the system.
template <class Rule>
class Optimizer {
 public:
  using Config = typename Rule::Config;
  using GroupOf = std::function<ParameterGroup(const ParameterInfo&)>;
  static constexpr std::size_t max_memories = Rule::memories.size();

  Optimizer() : Optimizer(Config{}) {}
  /// Weights for which decays() holds are decayed by config.weight_decay.
  explicit Optimizer(const Config& config)
      : Optimizer(config, [decay = config.weight_decay](const ParameterInfo& p) {
          return ParameterGroup{decays(p) ? decay : 0, 1};
        }) {}
  /// `group_of` is asked once for each parameter, at the first step.
  Optimizer(const Config& config, GroupOf group_of) : config_(config), group_of_(std::move(group_of)) {
    Rule::check(config_);
  }

  /// One update with the configured learning rate.
  template <Visitable Model>
  void step(Model& model, const Gradients& gradients) {
    step(model, gradients, config_.learning_rate);
  }
  /// One update. Parameters without a gradient stay as they are, undecayed.
  template <Visitable Model>
  void step(Model& model, const Gradients& gradients, double learning_rate) {
    prepare(model);
    std::apply([](auto&... list) { (list.clear(), ...); }, pieces_);
    std::size_t i = 0;
    for_each_parameter(model, [&](const Path&, auto& p) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      Slot& slot = slots_[i++];
      const AnyTensor<T> g = gradients.of(p);
      if (!g.present() || slot.group.learning_rate_factor == 0) return;
      const UpdateStep update{learning_rate * slot.group.learning_rate_factor, slot.group.weight_decay, ++slot.steps};
      Piece<T> piece{update, p.mutate().data(), g.data(), {}, 0};
      for (std::size_t k = 0; k < memory_count(); ++k) piece.memory[k] = reinterpret_cast<T*>(slot.memory[k].data());
      for (Index begin = 0; begin < p.size(); begin += piece_size) {
        Piece<T> part = piece;
        part.p += begin;
        part.g += begin;
        for (std::size_t k = 0; k < memory_count(); ++k) part.memory[k] += begin;
        part.n = std::min(piece_size, p.size() - begin);
        std::get<PieceList<T>>(pieces_).push_back(part);
      }
    });
    std::apply([this](auto&... list) { (run(list), ...); }, pieces_);
    ++steps_;
  }

  const Config& config() const noexcept { return config_; }
  /// How many steps were made.
  std::int64_t steps() const noexcept { return steps_; }
  /// How a parameter is treated; i in visiting order, after the first step.
  const ParameterGroup& group(std::size_t i) const { return slots_.at(i).group; }
  /// Forgets everything but the configuration.
  void reset() noexcept {
    slots_.clear();
    steps_ = 0;
  }

  // ---- for saving and restoring ----

  static constexpr const char* name() noexcept { return Rule::name; }
  bool prepared() const noexcept { return !slots_.empty(); }
  std::size_t memory_count() const noexcept { return Rule::memory_count(config_); }
  void set_steps(std::int64_t steps) noexcept { steps_ = steps; }
  /// Makes the memories for a model, all zero, and asks for the groups, if that was not done yet.
  template <Visitable Model>
  void prepare(const Model& model) {
    if (prepared()) {
      std::size_t i = 0;
      for_each_parameter(model, [&](const Path& path, const auto& p) {
        if (i >= slots_.size() || !(slots_[i].shape == p.shape())) {
          fail<UsageError>(std::string(Rule::name) + ": this optimiser belongs to another model, as " + path.str() +
                           " shows");
        }
        ++i;
      });
      if (i != slots_.size()) fail<UsageError>(std::string(Rule::name) + ": this optimiser belongs to a larger model");
      return;
    }
    std::vector<Slot> slots;
    for_each_parameter(model, [&](const Path& path, const auto& p) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      Slot slot;
      slot.shape = p.shape();
      const std::string text = path.str();
      slot.group = group_of_({text, p.shape()});
      for (std::size_t k = 0; k < memory_count(); ++k)
        slot.memory[k] = DynTensor<std::byte, 1>(p.size() * static_cast<Index>(sizeof(T)));
      slots.push_back(std::move(slot));
    });
    slots_ = std::move(slots);
  }
  /// Calls f(path of the parameter, name of the memory, AnyTensor<T> that borrows it) for every memory.
  template <Visitable Model, class F>
  void visit_memories(const Model& model, F&& f) const {
    std::size_t i = 0;
    for_each_parameter(model, [&](const Path& path, const auto& p) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      const Slot& slot = slots_.at(i++);
      for (std::size_t k = 0; k < memory_count(); ++k) {
        f(path, Rule::memories[k], AnyTensor<T>::borrow(reinterpret_cast<const T*>(slot.memory[k].data()), p.shape()));
      }
    });
  }
  /// The number of updates of every parameter, in visiting order.
  std::vector<std::int64_t> counts() const {
    std::vector<std::int64_t> all;
    for (const Slot& slot : slots_) all.push_back(slot.steps);
    return all;
  }
  void set_counts(std::span<const std::int64_t> counts) {
    for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].steps = counts[i];
  }

 private:
  struct Slot {
    Shape shape;
    ParameterGroup group;
    std::int64_t steps = 0;
    std::array<DynTensor<std::byte, 1>, max_memories> memory;  // bytes of numbers of the parameter's type
  };
  template <class T>
  struct Piece {
    UpdateStep step;
    T* p;
    const T* g;
    std::array<T*, max_memories> memory;
    Index n;
  };
  template <class T>
  using PieceList = std::vector<Piece<T>, PoolAllocator<Piece<T>>>;
  static constexpr Index piece_size = 16384;

  template <class Model, class F>
  static void for_each_parameter(Model& model, F&& f) {
    for_each_leaf(model, [&](const Path& path, auto& leaf) {
      if constexpr (is_parameter<std::remove_cvref_t<decltype(leaf)>>) {
        if (leaf.present()) f(path, leaf);
      }
    });
  }
  template <class T>
  void run(const PieceList<T>& list) const {
    // Small parameters (biases, norms) are many: eight to a piece of work.
    parallel_for(static_cast<Index>(list.size()), 8, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const Piece<T>& piece = list[static_cast<std::size_t>(i)];
        Rule::update(config_, piece.step, piece.p, piece.g, piece.memory, piece.n);
      }
    });
  }

  Config config_;
  GroupOf group_of_;
  std::vector<Slot> slots_;
  std::int64_t steps_ = 0;
  std::tuple<PieceList<float>, PieceList<double>> pieces_;
};

}  // namespace ordo
