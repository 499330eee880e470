#pragma once
/// \file
/// What is remembered of each parameter of a model over a training run: by optimisers and averages of weights.

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

#include "ordo/autograd/parameter.hpp"
#include "ordo/core/parallel.hpp"
#include "ordo/core/visit.hpp"
#include "ordo/simd/simd.hpp"

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

/// How a parameter is treated.
struct ParameterGroup {
  double weight_decay = 0;
  double learning_rate_factor = 1;  ///< times the learning rate of the step; 0: the parameter is left alone
};

/// What an update of one parameter knows besides its arrays.
struct UpdateStep {
  double learning_rate = 0;  ///< with the factor of the parameter's group
  double weight_decay = 0;
  std::int64_t t = 1;            ///< counts the updates of this parameter from 1
  const Shape* shape = nullptr;  ///< of the whole parameter
};

/// The memories of a Rule for every parameter of a model in visiting order, so that the model may move. A Rule has
///
///     struct Config { ... static void visit(Self&, F&&); };
///     static constexpr const char* name = "adamw";
///     static constexpr std::array memories{"m", "v", "s"};
///     static std::size_t memory_count(const Config&);                 // how many of them are in use
///     static void check(const Config&);                               // ConfigError
///     template <class T> static void update(const Config&, const UpdateStep&, T* p, const T* g,
///                                           const std::array<T*, memories.size()>& memory, Index n);
///
/// A memory is an array of the parameter's size, zero at first, unless the Rule says otherwise:
///
///     static Shape memory_shape(const Config&, std::size_t k, const Shape& parameter);   // Shape{0}: none
///     static double initial_value(const Config&, std::size_t k);
///
/// update() is called for pieces of an array, from several threads, unless `static constexpr bool whole_tensors = true`
/// asks for all of a parameter in one call.
template <class Rule>
class ParameterMemory {
 public:
  using Config = typename Rule::Config;
  using GroupOf = std::function<ParameterGroup(const ParameterInfo&)>;
  static constexpr std::size_t max_memories = Rule::memories.size();

  ParameterMemory(const Config& config, GroupOf group_of) : config_(config), group_of_(std::move(group_of)) {
    Rule::check(config_);
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
  /// Makes the memories for a model as they are at first, and asks for the groups, if that was not done yet.
  template <Visitable Model>
  void prepare(const Model& model) {
    if (prepared()) {
      std::size_t i = 0;
      for_each_parameter(model, [&](const Path& path, const auto& p) {
        if (i >= slots_.size() || !(slots_[i].shape == p.shape())) {
          fail<UsageError>(std::string(Rule::name) + ": this belongs to another model, as " + path.str() + " shows");
        }
        ++i;
      });
      if (i != slots_.size()) fail<UsageError>(std::string(Rule::name) + ": this belongs to a larger model");
      return;
    }
    std::vector<Slot> slots;
    for_each_parameter(model, [&](const Path& path, const auto& p) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      Slot slot;
      slot.shape = p.shape();
      const std::string text = path.str();
      slot.group = group_of_({text, p.shape()});
      if (slot.group.learning_rate_factor != 0) {
        if constexpr (requires { Rule::check_parameter(ParameterInfo{}); }) Rule::check_parameter({text, p.shape()});
        for (std::size_t k = 0; k < memory_count(); ++k) {
          slot.memory[k] = DynTensor<std::byte, 1>(memory_shape(k, slot.shape).size() * static_cast<Index>(sizeof(T)));
          if constexpr (requires { Rule::initial_value(config_, k); }) {
            std::fill_n(memory_of<T>(slot, k), memory_shape(k, slot.shape).size(),
                        static_cast<T>(Rule::initial_value(config_, k)));
          }
        }
      }
      slots.push_back(std::move(slot));
    });
    slots_ = std::move(slots);
  }
  /// Calls f(path of the parameter, name of the memory, AnyTensor<T> that borrows it) for every memory there is.
  template <Visitable Model, class F>
  void visit_memories(const Model& model, F&& f) const {
    std::size_t i = 0;
    for_each_parameter(model, [&](const Path& path, const auto& p) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      const Slot& slot = slots_.at(i++);
      for (std::size_t k = 0; k < memory_count(); ++k) {
        if (slot.memory[k].size() == 0) continue;
        f(path, Rule::memories[k], AnyTensor<T>::borrow(memory_of<T>(slot, k), memory_shape(k, slot.shape)));
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

 protected:
  struct Slot {
    Shape shape;
    ParameterGroup group;
    std::int64_t steps = 0;
    std::array<DynTensor<std::byte, 1>, max_memories> memory;  // bytes of numbers of the parameter's type
  };

  /// One step of every parameter for which arrays_of(p) gives {T* p, const T* g} that are not null. After the first
  /// step nothing is taken from the system.
  template <Visitable Model, class ArraysOf>
  void update_all(Model& model, double learning_rate, ArraysOf&& arrays_of) {
    prepare(std::as_const(model));
    std::apply([](auto&... list) { (list.clear(), ...); }, pieces_);
    std::size_t i = 0;
    for_each_parameter(model, [&](const Path&, auto& p) {
      using T = typename std::remove_cvref_t<decltype(p)>::value_type;
      Slot& slot = slots_[i++];
      if (slot.group.learning_rate_factor == 0) return;
      const std::pair<T*, const T*> arrays = arrays_of(p);
      if (arrays.first == nullptr) return;
      const Index size = p.size(), piece_size = whole_tensors ? std::max<Index>(size, 1) : 16384;
      Piece<T> piece{{learning_rate * slot.group.learning_rate_factor, slot.group.weight_decay, ++slot.steps, &slot.shape},
                     arrays.first, arrays.second, {}, 0};
      for (std::size_t k = 0; k < memory_count(); ++k) piece.memory[k] = memory_of<T>(slot, k);
      for (Index begin = 0; begin < size; begin += piece_size) {
        Piece<T> part = piece;
        part.p += begin;
        if (part.g != nullptr) part.g += begin;
        for (std::size_t k = 0; k < memory_count(); ++k) part.memory[k] += begin;
        part.n = std::min(piece_size, size - begin);
        std::get<PieceList<T>>(pieces_).push_back(part);
      }
    });
    std::apply([this](auto&... list) { (run(list), ...); }, pieces_);
    ++steps_;
  }
  template <class Model, class F>
  static void for_each_parameter(Model& model, F&& f) {
    for_each_leaf(model, [&](const Path& path, auto& leaf) {
      if constexpr (is_parameter<std::remove_cvref_t<decltype(leaf)>>) {
        if (leaf.present()) f(path, leaf);
      }
    });
  }
  template <class T>
  static T* memory_of(const Slot& slot, std::size_t k) noexcept {
    return reinterpret_cast<T*>(const_cast<std::byte*>(slot.memory[k].data()));
  }
  Slot& slot(std::size_t i) { return slots_.at(i); }

 private:
  static constexpr bool whole_tensors = [] {
    if constexpr (requires { Rule::whole_tensors; }) return Rule::whole_tensors;
    return false;
  }();
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

  Shape memory_shape(std::size_t k, const Shape& parameter) const {
    if constexpr (requires { Rule::memory_shape(config_, k, parameter); }) {
      return Rule::memory_shape(config_, k, parameter);
    } else {
      return parameter;
    }
  }
  template <class T>
  void run(const PieceList<T>& list) const {
    // Small parameters (biases, norms) are many: eight to a piece of work.
    parallel_for(static_cast<Index>(list.size()), whole_tensors ? 1 : 8, [&](Index begin, Index end) {
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

namespace detail {

/// at(i, load, store) for whole vectors and then for the rest: how an elementwise update is written once.
template <class T, class Arch, class F>
[[gnu::always_inline]] inline void update_elements(Index n, F&& at) {
  constexpr Index width = simd::lanes<T, Arch>;
  using V = simd::Vec<T, Arch>;
  Index i = 0;
  for (; i + width <= n; i += width) {
    at(
        i, [](const T* a) { return simd::load<Arch>(a); }, [](T* a, const V& v) { simd::store(a, v); });
  }
  if (const Index rest = n - i; rest > 0) {
    at(
        i, [rest](const T* a) { return simd::load_partial<Arch>(a, rest); },
        [rest](T* a, const V& v) { simd::store_partial(a, v, rest); });
  }
}

/// A ConfigError unless `fine`: "adamw: beta1 must be in [0, 1), given 2.000000".
inline void require_setting(bool fine, const char* owner, const char* key, double value, const char* range) {
  if (!fine)
    fail<ConfigError>(std::string(owner) + ": " + key + " must be " + range + ", given " + std::to_string(value));
}

}  // namespace detail

}  // namespace ordo
