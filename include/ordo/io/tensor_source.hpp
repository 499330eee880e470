#pragma once
/// \file
/// The tensors of a checkpoint, in one file or cut into several, and how they compare with what a model needs.

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"
#include "ordo/io/dtype.hpp"
#include "ordo/io/file.hpp"
#include "ordo/io/json.hpp"
#include "ordo/io/safetensors_file.hpp"

namespace ordo {

/// The tensors of one or several files under one set of names; a model does not care how its checkpoint was cut.
/// Move-only.
class TensorSource {
 public:
  TensorSource() = default;
  explicit TensorSource(SafetensorsFile file) { add(std::move(file)); }

  /// A name that two files have is an error.
  void add(SafetensorsFile file) {
    const std::size_t index = files_.size();
    const auto tensors = file.tensors();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (const Place* place = find_place(tensors[i].name)) {
        detail::fail_tensor(file.file_name(), tensors[i].name,
                            "expected in one file, found in " + files_[place->file].file_name() + " too");
      }
    }
    const auto middle = static_cast<std::ptrdiff_t>(places_.size());
    for (std::size_t i = 0; i < tensors.size(); ++i) places_.push_back({index, i});
    files_.push_back(std::move(file));
    std::inplace_merge(places_.begin(), places_.begin() + middle, places_.end(),
                       [&](const Place& a, const Place& b) { return tensor(a).name < tensor(b).name; });
  }

  std::size_t size() const noexcept { return places_.size(); }
  std::span<const SafetensorsFile> files() const noexcept { return files_; }
  /// Sorted.
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const Place& place : places_) all.push_back(tensor(place).name);
    return all;
  }
  const TensorInfo* find(std::string_view name) const noexcept {
    const Place* place = find_place(name);
    return place != nullptr ? &tensor(*place) : nullptr;
  }
  bool contains(std::string_view name) const noexcept { return find_place(name) != nullptr; }
  const TensorInfo& info(std::string_view name) const { return tensor(require_place(name)); }
  /// The file that holds a tensor.
  const SafetensorsFile& file_of(std::string_view name) const { return files_[require_place(name).file]; }
  /// What the source is called in messages: its file, or "FIRST and 2 more".
  std::string file_name() const {
    if (files_.empty()) return "no file";
    const std::string more = files_.size() > 1 ? " and " + std::to_string(files_.size() - 1) + " more" : "";
    return files_[0].file_name() + more;
  }

  /// As SafetensorsFile::read().
  template <StoredElement T, std::size_t N>
  void read(std::string_view name, std::span<T, N> out) const {
    file_of(name).read(name, out);
  }
  template <StoredElement T, std::size_t N>
  void read(std::string_view name, ShapeRef shape, std::span<T, N> out) const {
    file_of(name).read(name, shape, out);
  }
  template <StoredElement T>
    requires(!std::same_as<T, bool>)
  std::vector<T> read(std::string_view name) const {
    return file_of(name).template read<T>(name);
  }

 private:
  struct Place {
    std::size_t file, tensor;
  };

  const TensorInfo& tensor(const Place& place) const noexcept { return files_[place.file].tensors()[place.tensor]; }
  const Place* find_place(std::string_view name) const noexcept {
    const auto place = std::lower_bound(places_.begin(), places_.end(), name,
                                        [&](const Place& p, std::string_view n) { return tensor(p).name < n; });
    return place != places_.end() && tensor(*place).name == name ? &*place : nullptr;
  }
  const Place& require_place(std::string_view name) const {
    const Place* place = find_place(name);
    if (place == nullptr) detail::fail_tensor(file_name(), name, "expected in the file, not found");
    return *place;
  }

  std::vector<SafetensorsFile> files_;
  std::vector<Place> places_;  // sorted by name
};

namespace detail {

/// A file name of an index, checked: it may name a file in the folder or below, never one outside.
inline std::filesystem::path shard_path(const JsonRef& entry, const std::filesystem::path& folder) {
  const std::string& text = entry.as_string();
  const std::filesystem::path name(text);
  bool inside = !text.empty() && text.find('\0') == std::string::npos && name.is_relative() && !name.has_root_path();
  for (const auto& part : name) inside = inside && part != "..";
  if (!inside) entry.wrong("the name of a file in the folder of the index");
  return folder / name.lexically_normal();  // one path for all spellings of one name
}

/// Up to 20 entries, one a line, then how many more there are.
inline void append_list(std::string& text, std::string_view title, const std::vector<std::string>& lines) {
  constexpr std::size_t most = 20;
  if (lines.empty()) return;
  text += "\n  " + std::to_string(lines.size()) + " " + std::string(title) + ":";
  for (std::size_t i = 0; i < lines.size() && i < most; ++i) text += "\n    " + lines[i];
  if (lines.size() > most) text += "\n    ... and " + std::to_string(lines.size() - most) + " more";
}

}  // namespace detail

/// Opens a checkpoint: a `.safetensors` file; an index (`*.json`) with `{"weight_map": {tensor: file}}`; or a folder
/// that has `model.safetensors` or else `model.safetensors.index.json`, as Hugging Face writes them. The index and the
/// files have to agree: each tensor in the file that the index names, no tensor that the index does not name.
inline TensorSource load_sharded(const std::filesystem::path& path, SafetensorsOptions options = {}) {
  std::filesystem::path file = path;
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    file = path / "model.safetensors";
    if (!std::filesystem::exists(file, ignored)) {
      file = path / "model.safetensors.index.json";
      if (!std::filesystem::exists(file, ignored)) {
        fail<FileError>(path.string() +
                        ": expected model.safetensors or model.safetensors.index.json in the folder, found neither");
      }
    }
  }
  if (file.extension() != ".json") return TensorSource(SafetensorsFile(file, options));

  const MappedFile text(file);
  const Json index = Json::parse(text.text(), file.string(), {.non_finite = true});
  const JsonRef map = index.named(file.string()).at("weight_map");
  if (!map->is_object() || map->size() == 0) map.wrong("an object that maps names of tensors to names of files");
  std::map<std::filesystem::path, std::vector<std::string_view>> shards;
  for (const auto& [tensor, name] : map->members()) {
    shards[detail::shard_path(map.at(tensor), file.parent_path())].push_back(tensor);
  }
  TensorSource source;
  std::vector<std::string> missing, extra;
  for (auto& [shard, tensors] : shards) {
    SafetensorsFile opened(shard, options);
    std::sort(tensors.begin(), tensors.end());
    for (const std::string_view tensor : tensors) {
      if (!opened.contains(tensor)) missing.push_back(detail::in_quotes(tensor) + " in " + shard.string());
    }
    for (const TensorInfo& tensor : opened.tensors()) {
      if (!std::binary_search(tensors.begin(), tensors.end(), std::string_view(tensor.name))) {
        extra.push_back(detail::in_quotes(tensor.name) + " in " + shard.string());
      }
    }
    if (missing.empty() && extra.empty()) source.add(std::move(opened));
  }
  if (!missing.empty() || !extra.empty()) {
    std::string message = file.string() + ": the index and its files disagree";
    detail::append_list(message, "tensors that the index places where they are not", missing);
    detail::append_list(message, "tensors that the index does not place there", extra);
    fail<FileError>(message);
  }
  return source;
}

/// What a model needs of a file, or what a file has: a name, a shape, and what kind of elements.
struct TensorSpec {
  std::string name;
  std::vector<Index> shape;
  DtypeKind kind = DtypeKind::any;
};

/// What a file or source has, for LoadReport.
template <class Source>
std::vector<TensorSpec> tensor_specs(const Source& source) {
  std::vector<TensorSpec> specs;
  for (const std::string& name : source.names()) {
    const TensorInfo& info = source.info(name);
    specs.push_back({name, info.shape, kind_of(info.dtype)});
  }
  return specs;
}

/// How a file differs from a model. Loading is all or nothing: compare first, then read.
///
///     LoadReport(expected, tensor_specs(source)).require_match(source.file_name());
class LoadReport {
 public:
  /// `ignored(name)` true: the file may have this tensor though the model does not use it.
  template <std::predicate<const std::string&> Ignored>
  LoadReport(std::vector<TensorSpec> model, std::vector<TensorSpec> file, Ignored ignored) {
    const auto by_name = [](const TensorSpec& a, const TensorSpec& b) { return a.name < b.name; };
    std::stable_sort(model.begin(), model.end(), by_name);
    std::stable_sort(file.begin(), file.end(), by_name);
    for (std::size_t i = 1; i < model.size(); ++i) {
      // Two parameters of one name would be given the same values in silence.
      if (model[i].name == model[i - 1].name)
        fail<UsageError>("load: the model names " + detail::in_quotes(model[i].name) + " twice");
    }
    auto found = file.begin();
    const auto take_extra = [&] {
      if (!ignored(std::as_const(found->name)))
        extra_.push_back(detail::printable(found->name) + " " + to_string(found->shape));
      ++found;
    };
    for (const TensorSpec& needed : model) {
      while (found != file.end() && found->name < needed.name) take_extra();
      if (found == file.end() || found->name != needed.name) {
        missing_.push_back(needed.name + " " + to_string(needed.shape));
        continue;
      }
      const std::string& name = needed.name;
      if (found->shape != needed.shape) {
        misshaped_.push_back(name + ": file has " + to_string(found->shape) + ", model needs " +
                             to_string(needed.shape));
      } else if (needed.kind != DtypeKind::any && found->kind != DtypeKind::any && found->kind != needed.kind) {
        mistyped_.push_back(name + ": file has " + kind_name(found->kind) + ", model needs " + kind_name(needed.kind));
      }
      ++found;
    }
    while (found != file.end()) take_extra();
  }
  LoadReport(std::vector<TensorSpec> model, std::vector<TensorSpec> file)
      : LoadReport(std::move(model), std::move(file), [](const std::string&) { return false; }) {}

  bool matches() const noexcept {
    return missing_.empty() && extra_.empty() && misshaped_.empty() && mistyped_.empty();
  }

  /// One line for each tensor, sorted by name.
  const std::vector<std::string>& missing() const noexcept { return missing_; }
  const std::vector<std::string>& extra() const noexcept { return extra_; }
  const std::vector<std::string>& misshaped() const noexcept { return misshaped_; }
  const std::vector<std::string>& mistyped() const noexcept { return mistyped_; }

  /// At most 20 names of each sort, and how many more.
  std::string message(const std::string& file_name) const {
    std::string text = file_name + ": the file does not fit the model";
    detail::append_list(text, "missing (the model needs them, the file has no such name)", missing_);
    detail::append_list(text, "extra (the file has them, the model does not use them)", extra_);
    detail::append_list(text, "misshaped", misshaped_);
    detail::append_list(text, "of another kind", mistyped_);
    return text;
  }

  /// Throws one FileError that lists everything, unless all is well.
  void require_match(const std::string& file_name) const {
    if (!matches()) fail<FileError>(message(file_name));
  }

 private:
  static std::string kind_name(DtypeKind kind) {
    switch (kind) {
      case DtypeKind::floating: return "floating-point numbers";
      case DtypeKind::integer: return "integers";
      case DtypeKind::boolean: return "booleans";
      default: return "elements that cannot be converted";
    }
  }

  std::vector<std::string> missing_, extra_, misshaped_, mistyped_;
};

}  // namespace ordo
