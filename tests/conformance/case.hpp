#pragma once
// A conformance case: one safetensors file with inputs, weights, states, expected outputs and gradients. What it may hold
// is said in the file format's description; this reads it strictly.

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ordo/core/any_tensor.hpp"
#include "ordo/io/config.hpp"
#include "ordo/io/json.hpp"
#include "ordo/io/tensor_source.hpp"

namespace conformance {

using namespace ordo;

enum class RunMode { whole, chunked, step, backward };
inline constexpr std::array<std::string_view, 4> mode_names{"whole", "chunked", "step", "backward"};
inline constexpr std::string_view to_string(RunMode mode) { return mode_names[static_cast<std::size_t>(mode)]; }

// The lengths of the pieces that a sequence is cut into.
inline std::vector<Index> pieces(RunMode mode, Index length) {
  if (mode == RunMode::step) return std::vector<Index>(static_cast<std::size_t>(length), 1);
  if (mode != RunMode::chunked) return {length};
  std::vector<Index> cut;
  for (const Index piece : {Index{1}, Index{7}, Index{16}, length}) {
    const Index part = std::min(piece, length);
    if (part > 0) cut.push_back(part);
    length -= part;
  }
  return cut;
}

class Case {
 public:
  // A file, or the case.safetensors of a checkpoint folder.
  explicit Case(const std::filesystem::path& path) : source_(SafetensorsFile(path)) {
    if (metadata("format") != "ordo-conformance-1")
      fail<FileError>("metadata: format is \"" + metadata("format") + "\", expected ordo-conformance-1");
    name_ = metadata("name");
    config_ = Json::parse(metadata("config"), "config");
    const Json modes = Json::parse(metadata("modes"), "modes");
    for (const std::string& mode : modes.named("modes").as<std::vector<std::string>>()) {
      const auto known = std::find(mode_names.begin(), mode_names.end(), mode);
      if (known == mode_names.end()) fail<FileError>("metadata: unknown mode \"" + mode + "\"");
      modes_.push_back(static_cast<RunMode>(known - mode_names.begin()));
    }
    if (modes_.empty()) fail<FileError>("metadata: no modes");
    const Json tolerances = Json::parse(metadata("tolerance"), "tolerance");
    const JsonRef tolerance = tolerances.named("tolerance");
    float64_ = tolerance.get_or("float64", 1e-9);
    float32_ = tolerance.get_or("float32", 1e-5);
    grad_float32_ = tolerance.get_or("grad_float32", 1e-4);
  }

  const std::string& name() const noexcept { return name_; }
  const std::vector<RunMode>& modes() const noexcept { return modes_; }
  JsonRef config() const { return config_.named("config"); }
  const TensorSource& source() const noexcept { return source_; }

  template <class T>
  double tolerance(bool gradient) const noexcept {
    if constexpr (sizeof(T) == 8) return float64_;
    return gradient ? grad_float32_ : float32_;
  }

  bool has(std::string_view tensor) const noexcept { return source_.contains(tensor); }
  // What follows "prefix." in the names that begin so, sorted.
  std::vector<std::string> names(std::string_view prefix) const {
    std::vector<std::string> all;
    for (const std::string& name : source_.names()) {
      if (name.size() > prefix.size() && name.starts_with(prefix) && name[prefix.size()] == '.')
        all.push_back(name.substr(prefix.size() + 1));
    }
    return all;
  }
  bool is_integer(std::string_view tensor) const { return kind_of(source_.info(tensor).dtype) == DtypeKind::integer; }
  Shape shape(std::string_view tensor) const {
    const auto& extents = source_.info(tensor).shape;
    if (extents.size() > 6) fail<FileError>(std::string(tensor) + ": rank " + std::to_string(extents.size()));
    Shape shape;
    for (const Index e : extents) shape.push_back(e);
    return shape;
  }
  // Floating tensors convert; integers and BOOL are read as integers.
  template <class T>
  AnyTensor<T> read(std::string_view tensor) const {
    AnyTensor<T> x(shape(tensor));
    source_.read(tensor, std::span<T>(x.data(), static_cast<std::size_t>(x.size())));
    return x;
  }
  // Absent if the file has no such tensor.
  template <class T>
  AnyTensor<T> read_if(std::string_view tensor) const {
    return has(tensor) ? read<T>(tensor) : AnyTensor<T>{};
  }
  template <class T, std::size_t R>
  DynTensor<T, R> tensor(std::string_view name) const {
    return to_tensor<R>(read<T>(name));
  }
  // A failure unless every input.* is among the known ones.
  void require_inputs(std::initializer_list<std::string_view> known) const {
    for (const std::string& name : names("input")) {
      if (std::find(known.begin(), known.end(), name) == known.end())
        fail<FileError>("unknown tensor input." + name);
    }
  }

 private:
  const std::string& metadata(const std::string& key) const {
    const auto& all = source_.files()[0].metadata();
    const auto found = all.find(key);
    if (found == all.end()) fail<FileError>("metadata: \"" + key + "\" is missing");
    return found->second;
  }

  TensorSource source_;
  std::string name_;
  Json config_;
  std::vector<RunMode> modes_;
  double float64_ = 0, float32_ = 0, grad_float32_ = 0;
};

}  // namespace conformance
