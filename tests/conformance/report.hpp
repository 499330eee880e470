#pragma once
// What one mode of a case gave: each tensor compared, the worst of them, and what was never compared.

#include <cmath>
#include <set>
#include <string>

#include "case.hpp"

namespace conformance {

// max|difference| / max(largest finite |expected|, 1e-6); equal infinities are equal, any NaN is infinitely wrong.
template <class T>
double relative_error(const double* expected, const T* actual, Index n) {
  double largest = 1e-6, difference = 0;
  for (Index i = 0; i < n; ++i) {
    const double e = expected[i], a = static_cast<double>(actual[i]);
    if (std::isnan(e) || std::isnan(a)) return HUGE_VAL;
    if (std::isfinite(e)) largest = std::max(largest, std::abs(e));
    if (e != a) difference = std::max(difference, std::abs(e - a));
  }
  return difference / largest;
}

class Report {
 public:
  explicit Report(const Case& c) : case_(c) {}

  // Compares if the file has the tensor. An absent gradient is zero: the loss does not depend on it.
  template <class T>
  void compare(const std::string& name, const AnyTensor<T>& actual) {
    if (!case_.has(name)) return;
    const AnyTensor<double> expected = case_.read<double>(name);
    const bool gradient = name.starts_with("grad_");
    AnyTensor<T> given = actual;
    if (!given.present() && gradient) given = AnyTensor<T>(expected.shape(), T{0});
    compared_.insert(name);
    if (!given.present() || !(given.shape() == expected.shape())) {
      fail_with(name + ": expected shape " + ordo::to_string(expected.shape()) + ", computed " +
                (given.present() ? ordo::to_string(given.shape()) : "nothing"));
      return;
    }
    add(name, relative_error(expected.data(), given.data(), expected.size()), case_.tolerance<T>(gradient));
  }
  // Counts and ids: equal or infinitely wrong.
  template <class X>
  void compare_integers(const std::string& name, const X& actual) {
    if (!case_.has(name)) return;
    const AnyTensor<std::int64_t> expected = case_.read<std::int64_t>(name);
    const bool equal = expected.size() == actual.size() && std::equal(actual.data(), actual.data() + actual.size(), expected.data());
    add(name, equal ? 0 : HUGE_VAL, 1);
  }
  // A result whose expected value the caller has made (masked, or integers).
  void add(const std::string& name, double error, double tolerance) {
    compared_.insert(name);
    const double ratio = error / tolerance;
    if (where_.empty() || !(ratio <= worst_ratio_)) {
      worst_ratio_ = ratio;
      error_ = error;
      where_ = name;
    }
    if (!(error <= tolerance)) ok_ = false;
  }
  // A result that only another mode computes (the loss of a checkpoint).
  void leave_out(const std::string& name) { compared_.insert(name); }
  void fail_with(const std::string& message) {
    ok_ = false;
    messages_ += (messages_.empty() ? "" : "; ") + message;
  }
  // Whatever the file expects of this mode has to have been compared.
  void finish(RunMode mode) {
    const bool backward = mode == RunMode::backward;
    for (const char* prefix : {"output", "state_out", "grad_input", "grad_param", "grad_state_in"}) {
      if (std::string_view(prefix).starts_with("grad_") != backward) continue;
      for (const std::string& rest : case_.names(prefix)) {
        const std::string name = std::string(prefix) + "." + rest;
        if (!compared_.contains(name)) fail_with(name + ": nothing of this name was computed");
      }
    }
    if (where_.empty() && ok_) fail_with("the file has nothing to compare in this mode");
  }

  bool ok() const noexcept { return ok_; }
  double error() const noexcept { return error_; }
  const std::string& where() const noexcept { return where_; }
  const std::string& messages() const noexcept { return messages_; }

 private:
  const Case& case_;
  std::set<std::string> compared_;
  bool ok_ = true;
  double error_ = 0, worst_ratio_ = 0;
  std::string where_, messages_;
};

using RunFunction = void (*)(const Case&, RunMode, Report&);
// How a name is run in each scalar type.
struct Runner {
  RunFunction float32 = nullptr, float64 = nullptr;
};
// Checkpoints: the folder, its config.json, and its case.
using CheckpointFunction = void (*)(const std::filesystem::path&, const Json&, const Case&, RunMode, Report&);

// Each is defined in a source file of its own: the layers of a family over a scalar type are much to compile.
RunFunction find_core_layer(std::string_view name, float);
RunFunction find_core_layer(std::string_view name, double);
RunFunction find_ssm_layer(std::string_view name, float);
RunFunction find_ssm_layer(std::string_view name, double);
RunFunction find_softmax_layer(std::string_view name, float);
RunFunction find_softmax_layer(std::string_view name, double);
RunFunction find_recurrent_layer(std::string_view name, float);
RunFunction find_recurrent_layer(std::string_view name, double);
RunFunction find_stack_layer(std::string_view name, float);
RunFunction find_stack_layer(std::string_view name, double);
std::optional<Runner> find_op(std::string_view name);
std::optional<Runner> find_core_op(std::string_view name);
std::optional<Runner> find_position_op(std::string_view name);
std::optional<Runner> find_softmax_op(std::string_view name);
std::optional<Runner> find_recurrent_cell(std::string_view name);
std::optional<Runner> find_stack_model(std::string_view name);
std::optional<Runner> find_loss(std::string_view name);
std::optional<Runner> find_element_loss(std::string_view name);
std::optional<Runner> find_vector_loss(std::string_view name);
std::optional<Runner> find_optimizer(std::string_view name);
std::optional<Runner> find_decoding(std::string_view name);
CheckpointFunction find_checkpoint(std::string_view model_type, float);
CheckpointFunction find_checkpoint(std::string_view model_type, double);

template <class F>
void with_rank(std::size_t rank, F&& f) {
  switch (rank) {
    case 1: return f.template operator()<1>();
    case 2: return f.template operator()<2>();
    case 3: return f.template operator()<3>();
    case 4: return f.template operator()<4>();
    default: fail<FileError>("a tensor of rank " + std::to_string(rank) + " is not supported here");
  }
}

}  // namespace conformance
