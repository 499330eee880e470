#pragma once
/// \file
/// Published checkpoints: a folder with config.json and safetensors files as Hugging Face writes them.

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/io/config.hpp"
#include "ordo/io/model.hpp"
#include "ordo/core/names.hpp"

namespace ordo {

namespace detail {

/// Reads the keys that a configuration has and leaves all others alone: config.json is written by many versions of many programs. "auto" is
/// as good as null.
template <Visitable C>
void read_known_fields(const JsonRef& json, C& config) {
  if (!json->is_object()) json.wrong("an object");
  C::visit(config, [&](std::string_view name, auto& field) {
    using Field = std::remove_cvref_t<decltype(field)>;
    const auto member = json.find(name);
    if (!member || (*member)->is_null()) return;
    if constexpr (is_optional<Field>) {
      if constexpr (Visitable<typename Field::value_type>) {
        read_known_fields(*member, field.emplace());
      } else {
        if (!((*member)->is_string() && member->as_string() == "auto")) read_field(*member, field);
      }
    } else {
      read_field(*member, field);
    }
  });
}

/// The tensors of a file and the leaves of a model that lie in each, in their order.
struct FileTensors {
  struct Part {
    FilePlace place;
    Shape shape;
    std::size_t leaf;
  };
  std::map<std::string, std::vector<Part>> by_name;

  template <class M>
  FileTensors(const M& model, const NameMap& names) {
    std::size_t leaf = 0;
    for_each_tensor(model, [&](const std::string& name, const auto& p) {
      FilePlace place = names(name);
      auto& parts = by_name[place.name];
      parts.push_back({std::move(place), p.shape(), leaf++});
      std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.place.part < b.place.part; });
    });
    for (const auto& [name, parts] : by_name) {
      if (parts.size() != parts[0].place.parts) {
        fail<UsageError>({"names: ", name, " is made of ", parts[0].place.parts, " parameters, the model gives it ", parts.size()});
      }
    }
  }
  /// The parts one after the other along the first axis.
  static Shape joined(const std::vector<Part>& parts) {
    Shape shape = parts[0].shape;
    for (std::size_t i = 1; i < parts.size(); ++i) shape[0] += parts[i].shape[0];
    return shape;
  }
  static bool transposed(const std::vector<Part>& parts) { return parts[0].place.transposed && parts[0].shape.rank() == 2; }
  /// As it stands in the file.
  static Shape stored(const std::vector<Part>& parts) {
    Shape shape = joined(parts);
    if (transposed(parts)) std::swap(shape[0], shape[1]);
    return shape;
  }
};

/// [n, m] to [m, n].
template <class T>
AnyTensor<T> transposed(const AnyTensor<T>& x) {
  const Index n = x.extent(0), m = x.extent(1);
  AnyTensor<T> y(Shape{m, n});
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j < m; ++j) y.data()[j * n + i] = x.data()[i * m + j];
  }
  return y;
}

}  // namespace detail

/// A value for each parameter, in the tensors and layout of a file: `value(parameter)` gives an AnyTensor of the parameter's shape, or an
/// absent one for zeros. For weights that others read, and for gradients to compare with theirs.
template <class T, class M, class F>
std::map<std::string, AnyTensor<T>> in_file_layout(const M& model, const NameMap& names, F&& value) {
  std::vector<AnyTensor<T>> values;
  detail::for_each_tensor(model, [&](const std::string&, const auto& p) { values.push_back(value(p)); });
  std::map<std::string, AnyTensor<T>> tensors;
  for (const auto& [name, parts] : detail::FileTensors(model, names).by_name) {
    AnyTensor<T> whole(detail::FileTensors::joined(parts), T{0});
    T* to = whole.data();
    for (const auto& part : parts) {
      const AnyTensor<T>& x = values[part.leaf];
      if (x.present()) std::copy_n(x.data(), x.size(), to);
      to += part.shape.size();
    }
    tensors[name] = detail::FileTensors::transposed(parts) ? detail::transposed(whole) : whole;
  }
  return tensors;
}

/// load_model() for files of other names and layouts: strict, all or nothing.
template <Visitable M>
void load_named(const TensorSource& source, M& model, const NameMap& names, const std::function<bool(const std::string&)>& ignore = {}) {
  using T = typename M::value_type;
  const detail::FileTensors tensors(model, names);
  std::vector<TensorSpec> expected;
  for (const auto& [name, parts] : tensors.by_name) {
    const Shape shape = detail::FileTensors::stored(parts);
    expected.push_back({name, {shape.begin(), shape.end()}, DtypeKind::floating});
  }
  LoadReport(std::move(expected), tensor_specs(source), [&](const std::string& name) {
    return ignore && ignore(name);
  }).require_match(source.file_name());
  std::vector<AnyTensor<T>> values;
  for (const auto& [name, parts] : tensors.by_name) {
    AnyTensor<T> whole(detail::FileTensors::stored(parts));
    source.read(name, std::span<T>(whole.data(), static_cast<std::size_t>(whole.size())));
    if (detail::FileTensors::transposed(parts)) whole = detail::transposed(whole);
    const T* from = whole.data();
    for (const auto& part : parts) {
      if (values.size() <= part.leaf) values.resize(part.leaf + 1);
      values[part.leaf] = AnyTensor<T>(part.shape);
      std::copy_n(from, part.shape.size(), values[part.leaf].data());
      from += part.shape.size();
    }
  }
  std::size_t leaf = 0;
  detail::for_each_tensor(model, [&](const std::string&, auto& p) {
    const AnyTensor<T> value = std::move(values[leaf++]);
    std::copy_n(value.data(), value.size(), p.mutate().data());
  });
}

/// The counterpart of load_named(): weights as other programs expect them, one safetensors file, all or nothing.
template <Visitable M>
void save_named(const std::filesystem::path& path, const M& model, const NameMap& names, const Metadata& metadata = {}) {
  using T = typename M::value_type;
  const auto tensors = in_file_layout<T>(model, names, [](const auto& p) { return p.any(); });
  SafetensorsWriter writer;
  for (const auto& [key, value] : metadata) writer.set_metadata(key, value);
  for (const auto& [name, x] : tensors) writer.add<T>(name, x.shape(), std::span<const T>(x.data(), static_cast<std::size_t>(x.size())));
  writer.write(path);
}

/// A model that was read from a folder.
template <class Model>
struct Pretrained {
  Model model;
  typename Model::Config config;
  NameMap names;         ///< of its tensors in the files
  bool has_head = true;  ///< false: a base model, whose results are hidden(), not logits
};

/// Reads config.json and the weights of a folder. Model: Gpt2<T>, Llama<T>, MambaHub<T>.
///
/// Strict: tensors that the model does not use are an error, but those that published files are known to carry. FileError, ConfigError.
template <class Model>
Pretrained<Model> load_pretrained(const std::filesystem::path& folder) {
  using Config = typename Model::Config;
  const MappedFile text(folder / "config.json");
  const Json json = Json::parse(text.text(), "config.json", {.non_finite = true});
  Pretrained<Model> p;
  Config& config = p.config;
  detail::read_known_fields(json.named("config.json"), config);
  if (config.architectures.empty()) fail<ConfigError>("config.json: architectures is missing");
  const std::string& architecture = config.architectures[0];
  if (architecture != Config::head_class && architecture != Config::base_class) {
    fail<ConfigError>({"config.json: unknown architecture \"", architecture, "\", expected ", Config::head_class, " or ", Config::base_class});
  }
  p.has_head = architecture == Config::head_class;

  const TensorSource source = load_sharded(folder);
  const auto fits = [&](const NameMap& names, const std::string& prefix) { return source.contains(prefix + names("embedding.weight").name); };
  NameMap names = Config::names();
  if constexpr (requires { Config::older_names(); }) {
    if (fits(Config::older_names(), "") || fits(Config::older_names(), Config::prefix)) names = Config::older_names();
  }
  p.names = names.with_prefix(fits(names, Config::prefix) ? Config::prefix : "", "head");
  const std::string head = p.names("head.weight").name;
  config.head_in_file = p.has_head && source.contains(head);
  if (p.has_head && !config.head_in_file && !config.tie_word_embeddings) {
    fail<FileError>({source.file_name(), ": ", head, " is missing, and the embedding is not tied"});
  }
  Random random(1);
  p.model = Model(config, random);
  load_named(source, p.model, p.names, [&](const std::string& name) {
    if (!p.has_head && name == head) return true;
    std::string_view own = name;
    if (own.starts_with(Config::prefix)) own.remove_prefix(std::string_view(Config::prefix).size());
    return Config::ignored(own);
  });
  return p;
}

}  // namespace ordo
