#pragma once
/// \file
/// Training checkpoints: everything that a run needs to go on with the same bits, in one file.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/io/model.hpp"
#include "ordo/train/optimizer.hpp"

namespace ordo {

/// Where a training run stands, besides its model and optimiser.
struct TrainingProgress {
  Index step = 0;
  std::map<std::string, Random> randoms{};  ///< generators at their positions: batches, dropout, sampling
  std::map<std::string, double> numbers{};
  Json data{};  ///< anything else: the configuration of the model, the loss so far
};

namespace detail {

inline constexpr const char* checkpoint_format = "ordo-checkpoint";

/// A hash that finds damage, not malice: four lanes of xxHash's round (Collet), eight bytes at a time.
class Checksum {
 public:
  void add(std::span<const std::byte> bytes) noexcept {
    std::size_t i = 0;
    for (; i + 32 <= bytes.size(); i += 32) {
      for (std::size_t k = 0; k < 4; ++k) mix(k, load_little<std::uint64_t>(bytes.data() + i + 8 * k));
    }
    for (std::size_t k = 0; i < bytes.size(); i += 8, k = (k + 1) % 4) {
      std::uint64_t word = 0;
      for (std::size_t b = 0; b < 8 && i + b < bytes.size(); ++b)
        word |= std::to_integer<std::uint64_t>(bytes[i + b]) << (8 * b);
      mix(k, word);
    }
    mix(0, bytes.size());
  }
  void add(std::string_view text) noexcept { add(std::as_bytes(std::span(text))); }
  std::uint64_t value() const noexcept {
    std::uint64_t h = 0;
    for (const std::uint64_t lane : lanes_) h = (h ^ lane ^ lane >> 29) * prime1 + prime2;
    return h ^ h >> 32;
  }

 private:
  static constexpr std::uint64_t prime1 = 0x9E3779B185EBCA87U, prime2 = 0xC2B2AE3D27D4EB4FU;
  void mix(std::size_t lane, std::uint64_t word) noexcept {
    lanes_[lane] = std::rotl(lanes_[lane] + word * prime2, 31) * prime1;
  }
  std::array<std::uint64_t, 4> lanes_{1, 2, 3, 4};
};

inline std::uint64_t checksum_of(std::string_view name, std::span<const std::byte> bytes) noexcept {
  Checksum sum;
  sum.add(name);
  sum.add(bytes);
  return sum.value();
}

/// Collects the tensors of a checkpoint and their checksum, which does not depend on their order.
class CheckpointWriter {
 public:
  template <class T>
  void add(const std::string& name, ShapeRef shape, std::span<const T> values) {
    if constexpr (std::endian::native == std::endian::little) {
      sum_ += checksum_of(name, std::as_bytes(values));
      writer_.add<T>(name, shape, values);
    } else {  // the sum is of the bytes in the file
      std::vector<std::byte> bytes(values.size_bytes());
      for (std::size_t i = 0; i < values.size(); ++i) store_little(bytes.data() + i * sizeof(T), values[i]);
      sum_ += checksum_of(name, bytes);
      writer_.add(name, dtype_of<T>(), shape, std::move(bytes));
    }
  }
  void write(const std::filesystem::path& path, const std::string& progress) {
    writer_.set_metadata("format", checkpoint_format);
    writer_.set_metadata("version", "1");
    writer_.set_metadata("progress", progress);
    writer_.set_metadata("checksum",
                         std::to_string(sum_ + checksum_of("progress", std::as_bytes(std::span(progress)))));
    writer_.write(path);
  }

 private:
  SafetensorsWriter writer_;
  std::uint64_t sum_ = 0;
};

/// A checkpoint file, opened and checked.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& path) : name_(path.string()) {
    SafetensorsFile file(path);
    const auto& metadata = file.metadata();
    const auto value = [&](const char* key) -> const std::string& {
      const auto it = metadata.find(key);
      if (it == metadata.end())
        fail<FileError>(name_ + ": no training checkpoint: its metadata have no " + in_quotes(key));
      return it->second;
    };
    if (value("format") != checkpoint_format) {
      fail<FileError>(name_ + ": no training checkpoint: its format is " + in_quotes(value("format")));
    }
    if (value("version") != "1")
      fail<FileError>(name_ + ": a checkpoint of version " + printable(value("version")) + ", expected 1");
    const std::string& progress = value("progress");
    std::uint64_t sum = checksum_of("progress", std::as_bytes(std::span(progress)));
    for (const TensorInfo& tensor : file.tensors()) sum += checksum_of(tensor.name, tensor.bytes);
    if (std::to_string(sum) != value("checksum")) {
      fail<FileError>(name_ + ": the file is damaged: its checksum does not fit its contents");
    }
    progress_ = Json::parse(progress, name_ + " (progress)", {.non_finite = true});
    source_.add(std::move(file));
  }

  const TensorSource& source() const noexcept { return source_; }
  JsonRef progress() const { return progress_.named(name_ + " (progress)"); }

  TrainingProgress training_progress() const {
    TrainingProgress p;
    const JsonRef json = progress();
    p.step = json.at("step").as<Index>();
    p.data = *json.at("data");
    const JsonRef numbers = json.at("numbers");
    for (const auto& [key, number] : numbers->members()) p.numbers[key] = numbers.at(key).as_double();
    for (const std::string& name : source_.names()) {
      if (!name.starts_with("random.")) continue;
      std::array<std::uint64_t, 3> state{};
      source_.read(name, Shape{3}, std::span(state));
      p.randoms.insert_or_assign(name.substr(7), Random::from_state(state));
    }
    return p;
  }

 private:
  std::string name_;
  TensorSource source_;
  Json progress_;
};

inline std::string in_model(const std::string& name) { return "model." + name; }

}  // namespace detail

/// Writes model, optimiser and progress as one safetensors file. Whenever the process is killed or the machine stops,
/// the path names either the checkpoint that was there or the complete new one: see write_file_atomically().
template <Visitable Model, class Rule>
void save_checkpoint(const std::filesystem::path& path, const Model& model, const Optimizer<Rule>& optimizer,
                     const TrainingProgress& progress) {
  detail::CheckpointWriter writer;
  detail::for_each_tensor(model, [&](const std::string& name, const auto& leaf) {
    writer.add(detail::in_model(name), leaf.shape(), detail::leaf_values(leaf));
  });
  const std::vector<std::int64_t> counts = optimizer.counts();
  if (optimizer.prepared()) {
    writer.add("optimizer.counts", Shape{static_cast<Index>(counts.size())}, std::span(counts));
    optimizer.visit_memories(model, [&](const Path& parameter, const char* memory, const auto& values) {
      writer.add(std::string("optimizer.") + memory + "." + parameter.str(), values.shape(),
                 std::span(values.data(), static_cast<std::size_t>(values.size())));
    });
  }
  std::map<std::string, std::array<std::uint64_t, 3>> randoms;  // lives until the file is written
  for (const auto& [name, random] : progress.randoms) {
    const auto& state = randoms[name] = random.state();
    writer.add("random." + name, Shape{3}, std::span<const std::uint64_t>(state));
  }
  Json json = Json::object();
  json.set("step", progress.step);
  json.set("optimizer", std::string(Optimizer<Rule>::name()));
  json.set("optimizer_steps", optimizer.steps());
  Json numbers = Json::object();
  for (const auto& [key, number] : progress.numbers) numbers.set(key, number);
  json.set("numbers", std::move(numbers));
  json.set("data", progress.data);
  writer.write(path, json.dump({.non_finite = true}));
}

/// Restores model and optimiser bit for bit and returns the progress. What fits neither, is damaged or is no checkpoint
/// is a FileError; model and optimiser are then untouched. The optimiser keeps its own configuration.
template <Visitable Model, class Rule>
TrainingProgress load_checkpoint(const std::filesystem::path& path, Model& model, Optimizer<Rule>& optimizer) {
  const detail::CheckpointReader file(path);
  const TensorSource& source = file.source();
  TrainingProgress progress = file.training_progress();
  const std::string& rule = file.progress().at("optimizer").as_string();
  if (rule != Optimizer<Rule>::name()) {
    fail<FileError>(source.file_name() + ": a checkpoint of the optimiser " + detail::in_quotes(rule) + ", expected " +
                    detail::in_quotes(Optimizer<Rule>::name()));
  }

  Optimizer<Rule> restored = optimizer;
  restored.reset();
  restored.set_steps(file.progress().at("optimizer_steps").as_int());
  const bool stepped = source.contains("optimizer.counts");
  if (stepped) restored.prepare(std::as_const(model));

  std::vector<TensorSpec> expected;
  detail::expect_tensors(expected, model, detail::in_model);
  std::vector<std::int64_t> counts = restored.counts();
  const auto memory_name = [](const Path& parameter, const char* memory) {
    return std::string("optimizer.") + memory + "." + parameter.str();
  };
  if (stepped) {
    expected.push_back({"optimizer.counts", {static_cast<Index>(counts.size())}, DtypeKind::integer});
    restored.visit_memories(model, [&](const Path& parameter, const char* memory, const auto& values) {
      const Shape shape = values.shape();
      expected.push_back({memory_name(parameter, memory), {shape.begin(), shape.end()}, DtypeKind::floating});
    });
  }
  LoadReport(std::move(expected), tensor_specs(source), [](const std::string& name) {
    return name.starts_with("random.");
  }).require_match(source.file_name());

  // Other types could be converted, but the run would not go on with the same bits.
  detail::for_each_tensor(model, [&](const std::string& name, const auto& leaf) {
    const auto needed = dtype_of<detail::LeafValue<decltype(leaf)>>();
    const auto found = source.info(detail::in_model(name)).dtype;
    if (found != needed) {
      fail<FileError>(source.file_name() + ": " + name + " is stored as " + std::string(to_string(found)) +
                      ", a run that goes on needs " + std::string(to_string(needed)));
    }
  });
  detail::StagedTensors staged;
  staged.read(source, model, detail::in_model);
  if (stepped) {
    source.read("optimizer.counts", std::span(counts));
    restored.set_counts(counts);
    restored.visit_memories(model, [&](const Path& parameter, const char* memory, auto values) {
      source.read(memory_name(parameter, memory), std::span(values.data(), static_cast<std::size_t>(values.size())));
    });
  }
  staged.write(model);
  optimizer = std::move(restored);
  return progress;
}

/// Only the weights, converted to the model's type, and the progress: to use what was trained.
template <Visitable Model>
TrainingProgress load_checkpoint(const std::filesystem::path& path, Model& model) {
  const detail::CheckpointReader file(path);
  TrainingProgress progress = file.training_progress();
  load_model(
      file.source(), model,
      {.ignore = [](const std::string& name) { return !name.starts_with("model."); }, .rename = detail::in_model});
  return progress;
}

/// The progress alone, with what is needed to make the model: its configuration in `data`.
inline TrainingProgress read_progress(const std::filesystem::path& path) {
  return detail::CheckpointReader(path).training_progress();
}

}  // namespace ordo
