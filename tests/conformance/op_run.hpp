#pragma once
// Runs an op or a loss on the tensors of a case. They are Vars, whose rank is dynamic: one compiled call serves every rank and every
// choice of optional arguments, plain or recorded.
//
//     OpRun<T> run(c, mode, report);
//     const Var<T> x = run.input("x"), mask = run.optional("mask");
//     run.output("y", f(x, mask));
//     run.finish();

#include <utility>

#include "ordo/autograd/apply.hpp"
#include "ordo/core/visit.hpp"
#include "report.hpp"

namespace conformance {

// f(v as a tracked tensor), whatever its rank.
template <class T, class F>
void with_tracked(const Var<T>& v, F&& f) {
  [&]<std::size_t... R>(std::index_sequence<R...>) {
    ((v.shape().rank() == R ? f(Tracked<DynTensor<T, R>>(v)) : void()), ...);
  }(std::make_index_sequence<max_rank + 1>{});
}
template <class T>
AnyTensor<T> gradient_of(const Gradients& gradients, const Var<T>& v) {
  AnyTensor<T> g;
  with_tracked(v, [&](const auto& x) { g = gradients.of(x); });
  return g;
}

template <class T>
class OpRun {
 public:
  OpRun(const Case& c, RunMode mode, Report& report) : case_(c), report_(report), backward_(mode == RunMode::backward) {
    if (mode != RunMode::whole && !backward_) fail<UsageError>("this op is not cut along the sequence");
  }

  // A tensor with a gradient. Optional ones are absent if the file has none.
  Var<T> input(const std::string& name) { return differentiable("input." + name, true); }
  Var<T> optional(const std::string& name) { return differentiable("input." + name, false); }
  Var<T> parameter(const std::string& name, bool required = true) { return differentiable("param." + name, required); }
  Var<T> state(const std::string& name, bool required = true) { return differentiable("state_in." + name, required); }
  // One without.
  template <class I = T>
  Var<I> constant(const std::string& name, bool required = true) {
    AnyTensor<I> value = read<I>("input." + name, required);
    return value.present() ? Var<I>{std::move(value), tape(), -1} : Var<I>{};
  }

  void output(const std::string& name, const Var<T>& y) { result("output." + name, "grad_output." + name, y); }
  void state_out(const std::string& name, const Var<T>& s) { result("state_out." + name, "grad_state_out." + name, s); }

  // Runs the backward pass if asked to. What the file has and nobody has asked for is an error. A layer's parameters are those that it
  // visits.
  void finish() { finish_with(NoLayer{}); }
  template <class L>
  void finish_with(const L& layer) {
    for_each_leaf(layer, [&](const Path& path, const auto&) { known_.insert("param." + path.str()); });
    for (const char* prefix : {"input", "param", "state_in"}) {
      for (const std::string& rest : case_.names(prefix)) {
        const std::string name = std::string(prefix) + "." + rest;
        if (!known_.contains(name)) fail<FileError>("unknown tensor " + name);
      }
    }
    if (!backward_) return;
    const Gradients gradients = tape_.backward(seeds_);
    for (const auto& [name, v] : differentiable_) report_.compare("grad_" + name, gradient_of(gradients, v));
    for_each_leaf(layer, [&](const Path& path, const auto& p) { report_.compare("grad_param." + path.str(), gradients.of(p)); });
  }

 private:
  struct NoLayer {
    template <class Self, class F>
    static void visit(Self&, F&&) {}
  };
  Tape* tape() noexcept { return backward_ ? &tape_ : nullptr; }
  template <class I>
  AnyTensor<I> read(const std::string& name, bool required) {
    known_.insert(name);
    AnyTensor<I> value = case_.read_if<I>(name);
    if (required && !value.present()) fail<FileError>("missing tensor " + name);
    return value;
  }
  Var<T> differentiable(const std::string& name, bool required) {
    AnyTensor<T> value = read<T>(name, required);
    if (!value.present()) return {};
    if (!backward_) return Var<T>{std::move(value)};
    Var<T> v{std::move(value), &tape_, tape_.new_slot()};
    differentiable_.emplace_back(name, v);
    return v;
  }
  void result(const std::string& name, const std::string& upstream, const Var<T>& y) {
    report_.compare(name, y.value);
    if (!backward_ || !case_.has(upstream)) return;
    with_tracked(y, [&](const auto& x) { seeds_.push_back(Tape::Seed::of(x, case_.read<T>(upstream))); });
  }

  const Case& case_;
  Report& report_;
  bool backward_;
  Tape tape_;
  std::set<std::string> known_;
  std::vector<std::pair<std::string, Var<T>>> differentiable_;
  std::vector<Tape::Seed> seeds_;
};

}  // namespace conformance
