#pragma once
/// \file
/// Writes safetensors files.

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"
#include "ordo/io/dtype.hpp"
#include "ordo/io/file.hpp"
#include "ordo/io/json.hpp"
#include "ordo/io/safetensors_file.hpp"

namespace ordo {

/// Collects tensors, in any order, and writes them as one file. The bytes written depend on the tensors and the
/// metadata only.
///
/// Tensors stand by descending element size, then by name (as the reference implementation orders them), and the header
/// is padded with spaces to a multiple of 8 bytes: so every tensor is aligned to its elements in a mapped file.
///
///     SafetensorsWriter writer;
///     writer.set_metadata("format", "pt");
///     writer.add<float>("weight", Shape{2, 3}, weight);
///     writer.write("model.safetensors");
class SafetensorsWriter {
 public:
  /// Replaces an earlier value of the key.
  void set_metadata(std::string key, std::string value) {
    metadata_.insert_or_assign(std::move(key), std::move(value));
  }

  /// Adds a tensor whose elements are stored already, little-endian and row-major. They are not copied: `bytes` has to
  /// live until the file is written.
  void add(std::string name, Dtype dtype, ShapeRef shape, std::span<const std::byte> bytes) {
    insert(std::move(name), dtype, shape, bytes);
  }
  /// Adds the elements of a vector, which stays here.
  void add(std::string name, Dtype dtype, ShapeRef shape, std::vector<std::byte> bytes) {
    Entry& entry = insert(std::move(name), dtype, shape, bytes);
    entry.owned = std::move(bytes);
    entry.bytes = entry.owned;
  }
  /// Adds values in their own representation. They are not copied: `values` has to live until the file is written.
  template <StoredElement T>
  void add(std::string name, ShapeRef shape, std::span<const T> values) {
    if constexpr (std::endian::native == std::endian::little) {
      insert(std::move(name), dtype_of<T>(), shape, std::as_bytes(values));
    } else {
      add(std::move(name), dtype_of<T>(), shape, encode<T>(values));
    }
  }
  /// Adds a converted copy: floating values as F16, BF16, F32 or F64, rounded once to nearest even.
  template <detail::StoredFloat T>
  void add_as(std::string name, Dtype dtype, ShapeRef shape, std::span<const T> values) {
    switch (dtype) {
      case Dtype::f16: return add(std::move(name), dtype, shape, encode<Float16>(values));
      case Dtype::bf16: return add(std::move(name), dtype, shape, encode<BFloat16>(values));
      case Dtype::f32: return add(std::move(name), dtype, shape, encode<float>(values));
      case Dtype::f64: return add(std::move(name), dtype, shape, encode<double>(values));
      default:
        fail_add(name, "expected F16, BF16, F32 or F64 for floating values, found " + std::string(to_string(dtype)));
    }
  }

  std::size_t size() const noexcept { return entries_.size(); }
  bool contains(const std::string& name) const { return entries_.contains(name); }

  /// Replaces the file at `path`, all or nothing: see write_file_atomically().
  void write(const std::filesystem::path& path) const {
    const auto order = layout();
    const std::string head = header(order);
    write_file_atomically(path, [&](FileWriter& out) {
      out.write(head);
      for (const auto* entry : order) out.write(entry->second.bytes);
    });
  }

  /// The same bytes in memory.
  std::vector<std::byte> to_bytes() const {
    const auto order = layout();
    const std::string head = header(order);
    std::vector<std::byte> all;
    const auto append = [&](std::span<const std::byte> bytes) { all.insert(all.end(), bytes.begin(), bytes.end()); };
    append(std::as_bytes(std::span(head)));
    for (const auto* entry : order) append(entry->second.bytes);
    return all;
  }

 private:
  struct Entry {
    Dtype dtype = Dtype::f32;
    std::vector<Index> shape;
    std::span<const std::byte> bytes;
    std::vector<std::byte> owned;
  };
  using Entries = std::map<std::string, Entry>;

  [[noreturn]] static void fail_add(const std::string& name, const std::string& message) {
    fail<UsageError>("safetensors: cannot add " + detail::in_quotes(name) + ": " + message);
  }

  Entry& insert(std::string name, Dtype dtype, std::span<const Index> shape, std::span<const std::byte> bytes) {
    if (name == "__metadata__") fail_add(name, "the format reserves this name");
    if (detail::find_invalid_utf8(name) != std::string_view::npos) fail_add(name, "the name is not UTF-8");
    if (shape.size() > detail::safetensors_max_rank) fail_add(name, "expected at most 64 axes");
    for (const Index extent : shape) {
      if (extent < 0) fail_add(name, "negative extent in " + to_string(shape));
    }
    const auto count = detail::checked_size(shape);
    const auto size = count ? detail::checked_product(*count, static_cast<Index>(size_of(dtype))) : std::nullopt;
    if (!size || static_cast<std::size_t>(*size) != bytes.size()) {
      fail_add(name, "expected " + (size ? std::to_string(*size) : std::string("fewer than 2^63")) + " bytes for " +
                         std::string(to_string(dtype)) + " " + to_string(shape) + ", found " +
                         std::to_string(bytes.size()));
    }
    const auto [place, is_new] = entries_.try_emplace(std::move(name));
    if (!is_new) fail_add(place->first, "there is a tensor of this name");
    Entry& entry = place->second;
    entry.dtype = dtype;
    entry.shape.assign(shape.begin(), shape.end());
    entry.bytes = bytes;
    return entry;
  }

  template <class Stored, class T>
  static std::vector<std::byte> encode(std::span<const T> values) {
    std::vector<std::byte> bytes(values.size() * sizeof(Stored));
    for (std::size_t i = 0; i < values.size(); ++i) {
      if constexpr (detail::StoredFloat<T>) {
        detail::store_little(bytes.data() + i * sizeof(Stored), detail::convert_float<Stored>(values[i]));
      } else {
        detail::store_little(bytes.data() + i * sizeof(Stored), values[i]);
      }
    }
    return bytes;
  }

  std::vector<const Entries::value_type*> layout() const {
    std::vector<const Entries::value_type*> order;
    for (const auto& entry : entries_) order.push_back(&entry);
    std::stable_sort(order.begin(), order.end(),
                     [](const auto* a, const auto* b) { return size_of(a->second.dtype) > size_of(b->second.dtype); });
    return order;
  }

  /// The length and the header text.
  std::string header(const std::vector<const Entries::value_type*>& order) const {
    std::string text(8, '\0');
    text += '{';
    if (!metadata_.empty()) {
      text += "\"__metadata__\":{";
      bool first = true;
      for (const auto& [key, value] : metadata_) {
        if (!std::exchange(first, false)) text += ',';
        Json::write_string(text, key);
        text += ':';
        Json::write_string(text, value);
      }
      text += '}';
    }
    std::size_t offset = 0;
    for (const auto* item : order) {
      const auto& [name, entry] = *item;
      if (text.back() != '{' || text.size() != 9) text += ',';
      Json::write_string(text, name);
      text += ":{\"dtype\":\"" + std::string(to_string(entry.dtype)) + "\",\"shape\":[";
      for (std::size_t axis = 0; axis < entry.shape.size(); ++axis)
        text += (axis > 0 ? "," : "") + std::to_string(entry.shape[axis]);
      text += "],\"data_offsets\":[" + std::to_string(offset) + ",";
      offset += entry.bytes.size();
      text += std::to_string(offset) + "]}";
    }
    text += '}';
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = text.size() - 8;
    if (length > detail::safetensors_max_header) {
      fail<FileError>("safetensors: the header would have " + std::to_string(length) + " bytes, at most " +
                      std::to_string(detail::safetensors_max_header) + " are allowed");
    }
    std::array<std::byte, 8> bytes{};
    detail::store_little(bytes.data(), length);
    for (std::size_t i = 0; i < bytes.size(); ++i) text[i] = static_cast<char>(bytes[i]);
    return text;
  }

  std::map<std::string, std::string> metadata_;
  Entries entries_;
};

}  // namespace ordo
