#pragma once
// Ops of several tensors: each argument is tracked or not, absent if the file has none, and compared afterwards.

#include "report.hpp"
#include "ordo/ops/shape.hpp"

namespace conformance {

template <class T, std::size_t R>
Tracked<DynTensor<T, R>> as_tracked(const Var<T>& v) {
  return Tracked<DynTensor<T, R>>(v);
}

// The floating tensors of a call, as Vars: one compiled call serves every choice of them, plain and recorded.
template <class T>
class OpArguments {
 public:
  OpArguments(const Case& c, RunMode mode, Report& report) : case_(c), report_(report), backward_(mode == RunMode::backward) {
    if (mode != RunMode::whole && mode != RunMode::backward) fail<UsageError>("this op is not cut along the sequence");
  }
  bool backward() const noexcept { return backward_; }
  Tape& tape() noexcept { return tape_; }

  Var<T> input(const std::string& name, bool required = false) { return tensor("input." + name, "grad_input." + name, required); }
  Var<T> parameter(const std::string& name) { return tensor("param." + name, "grad_param." + name, true); }

  // Compares outputs under their names and, backward, the gradients of all arguments.
  void compare(std::initializer_list<std::pair<const char*, Var<T>>> outputs) {
    std::vector<Tape::Seed> seeds;
    for (const auto& [name, y] : outputs) {
      report_.compare(std::string("output.") + name, y.value);
      const std::string upstream = std::string("grad_output.") + name;
      if (!backward_ || !case_.has(upstream)) continue;
      with_any_rank(y.shape().rank(), [&]<std::size_t R>() { seeds.push_back(Tape::Seed::of(as_tracked<T, R>(y), case_.template read<T>(upstream))); });
    }
    if (!backward_) return;
    const Gradients gradients = tape_.backward(seeds);
    for (const auto& [name, v] : arguments_) {
      with_any_rank(v.shape().rank(), [&]<std::size_t R>() { report_.compare(name, gradients.of(as_tracked<T, R>(v))); });
    }
  }

 private:
  template <class F>
  static void with_any_rank(std::size_t rank, F&& f) {
    if (rank == 5) return f.template operator()<5>();
    with_rank(rank, f);
  }
  Var<T> tensor(const std::string& name, const std::string& gradient, bool required) {
    AnyTensor<T> value = case_.read_if<T>(name);
    if (!value.present()) {
      if (required) fail<FileError>("missing tensor " + name);
      return {};
    }
    if (!backward_) return Var<T>{std::move(value)};
    Var<T> v{std::move(value), &tape_, tape_.new_slot()};
    arguments_.emplace_back(gradient, v);
    return v;
  }

  const Case& case_;
  Report& report_;
  bool backward_;
  Tape tape_;
  std::vector<std::pair<std::string, Var<T>>> arguments_;
};

}  // namespace conformance
