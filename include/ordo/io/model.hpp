#pragma once
/// \file
/// Weights of models and tensors of states: saving, and strict loading.

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/autograd/parameter.hpp"
#include "ordo/core/visit.hpp"
#include "ordo/io/safetensors.hpp"
#include "ordo/io/tensor_source.hpp"

namespace ordo {

using Metadata = std::map<std::string, std::string>;

namespace detail {

/// A leaf of a model or state: a Parameter, or a tensor.
template <class Leaf>
using LeafValue = typename std::remove_cvref_t<Leaf>::value_type;

template <class Leaf>
bool leaf_present(const Leaf& leaf) {
  if constexpr (is_parameter<Leaf>) {
    return leaf.present();
  } else {
    return true;
  }
}
template <class Leaf>
std::span<const LeafValue<Leaf>> leaf_values(const Leaf& leaf) {
  if constexpr (is_parameter<Leaf>) {
    return {leaf.value().data(), static_cast<std::size_t>(leaf.size())};
  } else {
    return {leaf.data(), static_cast<std::size_t>(leaf.size())};
  }
}
template <class Leaf>
LeafValue<Leaf>* leaf_write(Leaf& leaf) {
  if constexpr (is_parameter<Leaf>) {
    return leaf.mutate().data();
  } else {
    return leaf.data();
  }
}
template <class T>
constexpr DtypeKind kind_for() {
  return std::is_floating_point_v<T> ? DtypeKind::floating : DtypeKind::integer;
}

/// Calls f(name, leaf) for all present leaves.
template <class M, class F>
void for_each_tensor(M& m, F&& f) {
  for_each_leaf(m, [&](const Path& path, auto& leaf) {
    if (leaf_present(leaf)) f(path.str(), leaf);
  });
}

template <class M>
void add_tensors(SafetensorsWriter& writer, const std::string& prefix, const M& m) {
  for_each_tensor(m, [&](const std::string& name, const auto& leaf) {
    using T = LeafValue<decltype(leaf)>;
    writer.add<T>(prefix + name, leaf.shape(), leaf_values(leaf));
  });
}

template <class M, class Rename>
void expect_tensors(std::vector<TensorSpec>& specs, const M& m, Rename rename) {
  for_each_tensor(m, [&](const std::string& name, const auto& leaf) {
    const Shape shape = leaf.shape();
    specs.push_back({rename(name), {shape.begin(), shape.end()}, kind_for<LeafValue<decltype(leaf)>>()});
  });
}

/// Values that were read and converted, to be copied where nothing can fail any more.
class StagedTensors {
 public:
  template <class M, class Rename>
  void read(const TensorSource& source, M& m, Rename rename) {
    for_each_tensor(m, [&](const std::string& name, auto& leaf) { read_one(source, rename(name), leaf); });
  }
  /// In the order in which they were read.
  template <class M>
  void write(M& m) {
    for_each_leaf(m, [&](const Path&, auto& leaf) {
      if (leaf_present(leaf)) write_one(leaf);
    });
  }
  template <class Leaf>
  void read_one(const TensorSource& source, const std::string& name, const Leaf& leaf) {
    using T = LeafValue<Leaf>;
    const auto n = static_cast<std::size_t>(leaf.size());
    Storage block(n * sizeof(T));
    source.read(name, std::span<T>(static_cast<T*>(block.data()), n));
    blocks_.push_back(std::move(block));
  }
  template <class Leaf>
  void write_one(Leaf& leaf) noexcept {
    using T = LeafValue<Leaf>;
    std::copy_n(static_cast<const T*>(blocks_[next_].data()), leaf.size(), leaf_write(leaf));
    blocks_[next_++] = Storage();
  }

 private:
  std::vector<Storage> blocks_;
  std::size_t next_ = 0;
};

}  // namespace detail

/// Writes all parameters of a model (or tensors of a state) under the names of its visit, in their own type, as one
/// safetensors file: all or nothing, as write_file_atomically().
template <Visitable M>
void save_model(const std::filesystem::path& path, const M& model, const Metadata& metadata = {}) {
  SafetensorsWriter writer;
  for (const auto& [key, value] : metadata) writer.set_metadata(key, value);
  detail::add_tensors(writer, "", model);
  writer.write(path);
}

/// The same with all floating values as F16, BF16, F32 or F64, each rounded once to nearest even; other tensors stay as
/// they are. What is read back is converted to the model's type. Holds the converted values until the file is written.
///
///     save_model("model.safetensors", model, Dtype::bf16);
template <Visitable M>
void save_model(const std::filesystem::path& path, const M& model, Dtype dtype, const Metadata& metadata = {}) {
  SafetensorsWriter writer;
  for (const auto& [key, value] : metadata) writer.set_metadata(key, value);
  detail::for_each_tensor(model, [&](const std::string& name, const auto& leaf) {
    using T = detail::LeafValue<decltype(leaf)>;
    if constexpr (std::is_floating_point_v<T>) {
      writer.add_as<T>(name, dtype, leaf.shape(), detail::leaf_values(leaf));
    } else {
      writer.add<T>(name, leaf.shape(), detail::leaf_values(leaf));
    }
  });
  writer.write(path);
}

struct LoadOptions {
  /// Names in the file that may be there though the model does not use them.
  std::function<bool(const std::string&)> ignore{};
  /// The name that a parameter of the model has in the file.
  std::function<std::string(const std::string&)> rename{};
};

/// Gives a model the values of a source, converted to its types. Strict: missing, extra, misshaped and mistyped tensors
/// are one FileError that lists them all. All or nothing: on an error the model is untouched.
template <Visitable M>
void load_model(const TensorSource& source, M& model, const LoadOptions& options = {}) {
  const auto rename = [&](const std::string& name) { return options.rename ? options.rename(name) : name; };
  std::vector<TensorSpec> expected;
  detail::expect_tensors(expected, model, rename);
  LoadReport(std::move(expected), tensor_specs(source), [&](const std::string& name) {
    return options.ignore && options.ignore(name);
  }).require_match(source.file_name());
  detail::StagedTensors staged;
  staged.read(source, model, rename);
  staged.write(model);
}
/// From a file, an index or a folder: see load_sharded().
template <Visitable M>
void load_model(const std::filesystem::path& path, M& model, const LoadOptions& options = {}) {
  load_model(load_sharded(path), model, options);
}

}  // namespace ordo
