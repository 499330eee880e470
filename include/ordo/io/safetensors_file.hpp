#pragma once
/// \file
/// A strict, memory-mapped reader of safetensors files.
///
/// A file is N (8 bytes, little-endian), N bytes of JSON, then the data of the tensors without holes. Files are
/// untrusted: every number is checked before it is used, what is allocated is bounded by the size of the file, and what
/// is not exactly right is a FileError that names the file and the place.

#include <algorithm>
#include <array>
#include <concepts>
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
#include "ordo/io/json_reader.hpp"

namespace ordo {

/// One tensor of a file. `bytes` lives as long as the file object.
struct TensorInfo {
  std::string name;
  Dtype dtype = Dtype::f32;
  std::vector<Index> shape;
  std::span<const std::byte> bytes;

  std::size_t size() const noexcept { return bytes.size() / size_of(dtype); }
  /// "F32 [2, 3]"
  std::string describe() const { return std::string(to_string(dtype)) + " " + to_string(shape); }
};

struct SafetensorsOptions {
  /// Some files in the wild carry bytes after the last tensor. They are an error unless this is set, which ignores
  /// them: a wrong length is also what a damaged or badly merged file looks like.
  bool allow_trailing_bytes = false;
  MapMode map = MapMode::automatic;
};

namespace detail {

inline constexpr std::uint64_t safetensors_max_header = 100'000'000;
inline constexpr std::size_t safetensors_max_rank = 64;

[[noreturn]] inline void fail_tensor(const std::string& file, std::string_view tensor, const std::string& message) {
  fail<FileError>(file + ": tensor " + in_quotes(tensor) + ": " + message);
}

/// Converts a stored tensor into `out`; see read_elements().
template <StoredElement T>
void read_tensor(const std::string& file, const TensorInfo& tensor, std::span<T> out) {
  if (tensor.size() != out.size()) {
    fail_tensor(file, tensor.name,
                "expected " + std::to_string(out.size()) + " elements, found " + tensor.describe() + ", which has " +
                    std::to_string(tensor.size()));
  }
  const Conversion result = read_elements(tensor.dtype, tensor.bytes.data(), out);
  if (result.outcome == Conversion::Outcome::wrong_dtype) {
    fail_tensor(file, tensor.name, "expected " + std::string(readable_as<T>()) + ", found " + tensor.describe());
  }
  if (result.outcome == Conversion::Outcome::wrong_value) {
    fail_tensor(file, tensor.name,
                "expected values that fit " + std::string(to_string(dtype_of<T>())) + ", found " + result.value +
                    " at element " + std::to_string(result.index) + " of " + tensor.describe());
  }
}

inline void require_shape(const std::string& file, const TensorInfo& tensor, std::span<const Index> shape) {
  if (!std::ranges::equal(tensor.shape, shape)) {
    fail_tensor(file, tensor.name, "expected the shape " + to_string(shape) + ", found " + tensor.describe());
  }
}

/// Reads the header straight from the text: no JSON values are built, so that memory stays in proportion to it.
class SafetensorsHeader {
 public:
  SafetensorsHeader(std::string_view header, std::span<const std::byte> data, const std::string& file)
      : in_(header, file + ", header"), data_(data), file_(file) {}

  void read(std::vector<TensorInfo>& tensors, std::map<std::string, std::string>& metadata) {
    std::string key;
    bool has_metadata = false;
    in_.begin_object();
    while (in_.next_key(key)) {
      if (key == "__metadata__") {
        if (std::exchange(has_metadata, true)) in_.fail_at(in_.key_offset(), "expected \"__metadata__\" once");
        read_metadata(metadata);
      } else {
        key_offsets_.push_back(in_.key_offset());
        tensors.push_back(read_entry(std::move(key)));
      }
    }
    in_.finish();
    sort_by_name(tensors);
  }

 private:
  void read_metadata(std::map<std::string, std::string>& metadata) {
    std::string key, value;
    in_.begin_object();
    while (in_.next_key(key)) {
      const std::size_t offset = in_.key_offset();
      in_.read_string(value);
      if (!metadata.emplace(key, value).second)
        in_.fail_at(offset, "expected each key of the metadata once, found " + in_quotes(key) + " again");
    }
  }

  TensorInfo read_entry(std::string name) {
    enum Field : std::size_t { dtype, shape, offsets, field_count };
    constexpr std::array<std::string_view, field_count> fields{"dtype", "shape", "data_offsets"};
    std::array<bool, field_count> seen{};
    TensorInfo tensor;
    std::array<Index, 2> place{};
    const std::size_t start = in_.key_offset();
    std::string key;
    in_.begin_object();
    while (in_.next_key(key)) {
      const auto field = static_cast<std::size_t>(std::find(fields.begin(), fields.end(), key) - fields.begin());
      if (field == field_count || seen[field]) {
        in_.fail_at(in_.key_offset(), "expected dtype, shape and data_offsets once each, found " + in_quotes(key) +
                                          (field == field_count ? "" : " again"));
      }
      seen[field] = true;
      if (field == dtype) {
        tensor.dtype = read_dtype();
      } else if (field == shape) {
        in_.begin_array();
        while (in_.next_item()) {
          if (tensor.shape.size() == safetensors_max_rank) in_.fail_at(in_.offset(), "expected at most 64 axes");
          tensor.shape.push_back(read_count("an extent"));
        }
      } else {
        in_.begin_array();
        for (Index& bound : place) {
          const std::size_t offset = in_.offset();
          if (!in_.next_item()) in_.fail_at(offset, "expected two data_offsets");
          bound = read_count("an offset");
        }
        const std::size_t offset = in_.offset();
        if (in_.next_item()) in_.fail_at(offset, "expected two data_offsets");
      }
    }
    for (std::size_t field = 0; field < field_count; ++field) {
      if (!seen[field])
        in_.fail_at(start, "expected dtype, shape and data_offsets, found no " + std::string(fields[field]));
    }
    tensor.name = std::move(name);
    place_data(tensor, place[0], place[1]);
    return tensor;
  }

  Dtype read_dtype() {
    std::string name;
    const std::size_t offset = in_.offset();
    in_.read_string(name);
    if (const auto dtype = parse_dtype(name)) return *dtype;
    if (name == "F4" || name == "F6_E2M3" || name == "F6_E3M2") {
      in_.fail_at(offset, "expected a dtype of whole bytes, found " + name +
                              ": elements smaller than a byte are not supported");
    }
    std::string known;
    for (const DtypeRow& row : dtype_table) known += (known.empty() ? "" : ", ") + std::string(row.name);
    in_.fail_at(offset, "expected a dtype (" + known + "), found " + in_quotes(name));
  }

  Index read_count(const char* what) {
    const std::size_t offset = in_.offset();
    const JsonNumber number = in_.read_number();
    if (number.form != JsonNumber::Form::signed_integer || number.signed_value < 0 ||
        !std::in_range<Index>(number.signed_value)) {
      in_.fail_at(offset,
                  std::string("expected ") + what + ", a whole number from 0 to " + std::to_string(PTRDIFF_MAX));
    }
    return static_cast<Index>(number.signed_value);
  }

  void place_data(TensorInfo& tensor, Index begin, Index end) const {
    const auto count = checked_size(tensor.shape);
    const auto bytes = count ? checked_product(*count, static_cast<Index>(size_of(tensor.dtype))) : std::nullopt;
    const auto offsets = [&] { return "data_offsets [" + std::to_string(begin) + ", " + std::to_string(end) + "]"; };
    if (!bytes) fail_tensor(file_, tensor.name, "expected a size that fits in 63 bits, found " + tensor.describe());
    if (begin > end) fail_tensor(file_, tensor.name, "expected " + offsets() + " in order");
    if (end - begin != *bytes) {
      fail_tensor(file_, tensor.name,
                  "expected " + std::to_string(*bytes) + " bytes for " + tensor.describe() + ", found " + offsets());
    }
    if (static_cast<std::uint64_t>(end) > data_.size()) {
      fail_tensor(file_, tensor.name,
                  "expected " + offsets() + " within the " + std::to_string(data_.size()) +
                      " bytes of data: is the file cut off?");
    }
    tensor.bytes = data_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(*bytes));
  }

  void sort_by_name(std::vector<TensorInfo>& tensors) {
    std::vector<std::size_t> order(tensors.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) {
      const int compared = tensors[i].name.compare(tensors[j].name);
      return compared != 0 ? compared < 0 : i < j;
    });
    std::vector<TensorInfo> sorted;
    sorted.reserve(tensors.size());
    for (const std::size_t i : order) {
      if (!sorted.empty() && sorted.back().name == tensors[i].name) {
        in_.fail_at(key_offsets_[i], "expected each tensor once, found " + in_quotes(tensors[i].name) + " again");
      }
      sorted.push_back(std::move(tensors[i]));
    }
    tensors = std::move(sorted);
  }

  JsonReader in_;
  std::span<const std::byte> data_;
  const std::string& file_;
  std::vector<std::size_t> key_offsets_;
};

/// The tensors have to cover the data from its first byte to its last, without holes and overlaps.
inline void require_contiguous(const std::string& file, std::span<const TensorInfo> tensors,
                               std::span<const std::byte> data, bool allow_trailing_bytes) {
  std::vector<const TensorInfo*> order;
  order.reserve(tensors.size());
  for (const TensorInfo& tensor : tensors) order.push_back(&tensor);
  const auto begin = [&](const TensorInfo* t) { return static_cast<std::size_t>(t->bytes.data() - data.data()); };
  std::sort(order.begin(), order.end(), [&](const TensorInfo* a, const TensorInfo* b) {
    // An empty tensor stands before the one that starts at the same place.
    return std::pair(begin(a), a->bytes.size()) < std::pair(begin(b), b->bytes.size());
  });
  std::size_t end = 0;
  for (const TensorInfo* tensor : order) {
    if (begin(tensor) != end) {
      fail_tensor(file, tensor->name,
                  "expected data from byte " + std::to_string(end) + " on, where the tensor before it ends, found " +
                      std::to_string(begin(tensor)) + (begin(tensor) > end ? " (a hole)" : " (an overlap)"));
    }
    end += tensor->bytes.size();
  }
  if (end != data.size() && !allow_trailing_bytes) {
    fail<FileError>(file + ": expected the end of the file after the last tensor, found " +
                    std::to_string(data.size() - end) +
                    " more bytes (SafetensorsOptions::allow_trailing_bytes ignores them)");
  }
}

}  // namespace detail

/// One safetensors file. Opening reads and checks the header; the data are touched when they are read. Move-only.
///
///     SafetensorsFile file("model.safetensors");
///     std::vector<float> weight = file.read<float>("lm_head.weight");
///
/// What opening checks: at least 8 bytes; N <= 100,000,000 and within the file; the header is UTF-8 JSON that starts
/// with '{', padded by white space at most; no key twice; `__metadata__` maps strings to strings; each entry has dtype,
/// shape and data_offsets and nothing else; known dtypes of whole bytes; sizes without overflow; shape x dtype =
/// length; the data of all tensors are contiguous and fill the file. Scalars (shape []) and tensors without elements
/// are legal.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path, SafetensorsOptions options = {})
      : name_(path.string()), mapping_(path, options.map) {
    open(mapping_.bytes(), options);
  }

  /// A file that is in memory already, and stays there as long as this object; `name` is for messages.
  static SafetensorsFile from_bytes(std::span<const std::byte> bytes, std::string name = "safetensors",
                                    SafetensorsOptions options = {}) {
    SafetensorsFile file;
    file.name_ = std::move(name);
    file.open(bytes, options);
    return file;
  }

  /// The path, as messages show it.
  const std::string& file_name() const noexcept { return name_; }
  const std::map<std::string, std::string>& metadata() const noexcept { return metadata_; }

  /// Sorted by name.
  std::span<const TensorInfo> tensors() const noexcept { return tensors_; }
  std::size_t size() const noexcept { return tensors_.size(); }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const TensorInfo& tensor : tensors_) all.push_back(tensor.name);
    return all;
  }

  /// nullptr when there is no such tensor.
  const TensorInfo* find(std::string_view name) const noexcept {
    const auto place = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                        [](const TensorInfo& tensor, std::string_view n) { return tensor.name < n; });
    return place != tensors_.end() && place->name == name ? &*place : nullptr;
  }
  bool contains(std::string_view name) const noexcept { return find(name) != nullptr; }
  const TensorInfo& info(std::string_view name) const {
    const TensorInfo* tensor = find(name);
    if (tensor == nullptr) detail::fail_tensor(name_, name, "expected in the file, not found");
    return *tensor;
  }

  /// Reads all elements, converted. F16, BF16, F32, F64 to each other: widening is exact, narrowing rounds to nearest
  /// even (too large becomes infinite). Integers to integers: each value has to fit. BOOL to bool and integers. All
  /// else is an error. On an error `out` may hold some of the elements.
  template <StoredElement T, std::size_t N>
  void read(std::string_view name, std::span<T, N> out) const {
    detail::read_tensor(name_, info(name), std::span<T>(out));
  }
  /// The same with the shape that the file has to have.
  template <StoredElement T, std::size_t N>
  void read(std::string_view name, ShapeRef shape, std::span<T, N> out) const {
    detail::require_shape(name_, info(name), shape);
    read(name, out);
  }
  template <StoredElement T>
    requires(!std::same_as<T, bool>)
  std::vector<T> read(std::string_view name) const {
    std::vector<T> all(info(name).size());
    read(name, std::span<T>(all));
    return all;
  }

 private:
  SafetensorsFile() = default;

  void open(std::span<const std::byte> bytes, const SafetensorsOptions& options) {
    if (bytes.size() < 8) {
      fail<FileError>(name_ + ": expected a safetensors file of at least 8 bytes, found " +
                      std::to_string(bytes.size()));
    }
    const auto length = detail::load_little<std::uint64_t>(bytes.data());
    if (length > detail::safetensors_max_header) {
      fail<FileError>(name_ + ": expected a header of at most " + std::to_string(detail::safetensors_max_header) +
                      " bytes, found a length of " + std::to_string(length) + ": is it a safetensors file?");
    }
    if (length > bytes.size() - 8) {
      fail<FileError>(name_ + ": expected a header of " + std::to_string(length) + " bytes, found " +
                      std::to_string(bytes.size() - 8) + ": is the file cut off?");
    }
    const auto header_bytes = bytes.subspan(8, static_cast<std::size_t>(length));
    const std::string_view header(reinterpret_cast<const char*>(header_bytes.data()), header_bytes.size());
    if (!header.starts_with('{'))
      fail<FileError>(name_ + ": expected a header that starts with '{': is it a safetensors file?");
    const auto data = bytes.subspan(8 + header.size());
    detail::SafetensorsHeader(header, data, name_).read(tensors_, metadata_);
    detail::require_contiguous(name_, tensors_, data, options.allow_trailing_bytes);
  }

  std::string name_;
  MappedFile mapping_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace ordo
