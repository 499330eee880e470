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
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/core/random.hpp"
#include "ordo/io/model.hpp"
#include "ordo/train/ema.hpp"
#include "ordo/train/optimizer.hpp"

namespace ordo {

/// Where a training run stands, besides its model and optimisers.
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

/// Calls f(i, role, memory): averages are "ema", all others "optimizer", from the second of a sort on numbered.
template <class Tuple, class F>
void for_each_role(Tuple&& memories, F&& f) {
  std::size_t i = 0, averages = 0, optimizers = 0;
  const auto one = [&](auto& memory) {
    const bool average = std::is_base_of_v<Ema, std::remove_cvref_t<decltype(memory)>>;
    const std::size_t number = ++(average ? averages : optimizers);
    f(i++, std::string(average ? "ema" : "optimizer") + (number > 1 ? std::to_string(number) : ""), memory);
  };
  std::apply([&](auto&... memory) { (one(memory), ...); }, memories);
}

}  // namespace detail

/// Writes model, optimiser and progress as one safetensors file. Whenever the process is killed or the machine stops,
/// the path names either the checkpoint that was there or the complete new one: see write_file_atomically().
///
/// `memories` are all that remembers something of each parameter, as references: std::tie(adamw, muon, ema).
template <Visitable Model, class... Memories>
void save_checkpoint(const std::filesystem::path& path, const Model& model, const std::tuple<Memories&...>& memories,
                     const TrainingProgress& progress) {
  detail::CheckpointWriter writer;
  detail::for_each_tensor(model, [&](const std::string& name, const auto& leaf) {
    writer.add(detail::in_model(name), leaf.shape(), detail::leaf_values(leaf));
  });
  Json json = Json::object();
  json.set("step", progress.step);
  std::array<std::vector<std::int64_t>, sizeof...(Memories)> counts;  // lives until the file is written
  detail::for_each_role(memories, [&](std::size_t i, const std::string& role, const auto& memory) {
    if constexpr (requires { memory.swapped(); }) {
      if (memory.swapped()) fail<UsageError>("save_checkpoint: the model holds its averages; swap them back first");
    }
    json.set(role, std::string(memory.name()));
    json.set(role + "_steps", memory.steps());
    if (!memory.prepared()) return;
    counts[i] = memory.counts();
    writer.add(role + ".counts", Shape{static_cast<Index>(counts[i].size())}, std::span<const std::int64_t>(counts[i]));
    memory.visit_memories(model, [&](const Path& parameter, const char* name, const auto& values) {
      writer.add(role + "." + name + "." + parameter.str(), values.shape(),
                 std::span(values.data(), static_cast<std::size_t>(values.size())));
    });
  });
  std::map<std::string, std::array<std::uint64_t, 3>> randoms;  // lives until the file is written
  for (const auto& [name, random] : progress.randoms) {
    const auto& state = randoms[name] = random.state();
    writer.add("random." + name, Shape{3}, std::span<const std::uint64_t>(state));
  }
  Json numbers = Json::object();
  for (const auto& [key, number] : progress.numbers) numbers.set(key, number);
  json.set("numbers", std::move(numbers));
  json.set("data", progress.data);
  writer.write(path, json.dump({.non_finite = true}));
}
template <Visitable Model, class Rule>
void save_checkpoint(const std::filesystem::path& path, const Model& model, const Optimizer<Rule>& optimizer,
                     const TrainingProgress& progress) {
  save_checkpoint(path, model, std::tie(optimizer), progress);
}

/// Restores model and memories bit for bit and returns the progress. What fits neither, is damaged or is no checkpoint
/// is a FileError; everything is then untouched. The memories keep their own configurations. They have to be of the kinds
/// that were saved, in the same order.
template <Visitable Model, class... Memories>
TrainingProgress load_checkpoint(const std::filesystem::path& path, Model& model,
                                 const std::tuple<Memories&...>& memories) {
  const detail::CheckpointReader file(path);
  const TensorSource& source = file.source();
  TrainingProgress progress = file.training_progress();
  std::tuple<Memories...> restored(memories);
  std::vector<TensorSpec> expected;
  detail::expect_tensors(expected, model, detail::in_model);
  const auto stored = [&](const std::string& role) { return source.contains(role + ".counts"); };
  detail::for_each_role(restored, [&](std::size_t, const std::string& role, auto& memory) {
    if (!file.progress().find(role)) {
      fail<FileError>(source.file_name() + ": a checkpoint without " + role + ", expected " + detail::in_quotes(memory.name()));
    }
    const std::string& name = file.progress().at(role).as_string();
    if (name != memory.name()) {
      fail<FileError>(source.file_name() + ": a checkpoint whose " + role + " is " + detail::in_quotes(name) +
                      ", expected " + detail::in_quotes(memory.name()));
    }
    memory.reset();
    memory.set_steps(file.progress().at(role + "_steps").as_int());
    if (!stored(role)) return;
    memory.prepare(std::as_const(model));
    expected.push_back({role + ".counts", {static_cast<Index>(memory.counts().size())}, DtypeKind::integer});
    memory.visit_memories(model, [&](const Path& parameter, const char* kind, const auto& values) {
      const Shape shape = values.shape();
      expected.push_back({role + "." + kind + "." + parameter.str(), {shape.begin(), shape.end()}, DtypeKind::floating});
    });
  });
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
  detail::for_each_role(restored, [&](std::size_t, const std::string& role, auto& memory) {
    if (!stored(role)) return;
    std::vector<std::int64_t> counts = memory.counts();
    source.read(role + ".counts", std::span(counts));
    memory.set_counts(counts);
    memory.visit_memories(model, [&](const Path& parameter, const char* kind, auto values) {
      source.read(role + "." + kind + "." + parameter.str(),
                  std::span(values.data(), static_cast<std::size_t>(values.size())));
    });
  });
  staged.write(model);
  std::tuple<Memories&...> targets = memories;
  targets = std::move(restored);
  return progress;
}
template <Visitable Model, class Rule>
TrainingProgress load_checkpoint(const std::filesystem::path& path, Model& model, Optimizer<Rule>& optimizer) {
  return load_checkpoint(path, model, std::tie(optimizer));
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

/// The averages of an Ema as the weights of the model, and the progress: to use what was trained and averaged. Every
/// weight has to have been averaged.
template <Visitable Model>
TrainingProgress load_averages(const std::filesystem::path& path, Model& model) {
  const detail::CheckpointReader file(path);
  TrainingProgress progress = file.training_progress();
  load_model(file.source(), model,
             {.ignore = [](const std::string& name) { return !name.starts_with("ema.average."); },
              .rename = [](const std::string& name) { return "ema.average." + name; }});
  return progress;
}

/// The progress alone, with what is needed to make the model: its configuration in `data`.
inline TrainingProgress read_progress(const std::filesystem::path& path) {
  return detail::CheckpointReader(path).training_progress();
}

}  // namespace ordo
