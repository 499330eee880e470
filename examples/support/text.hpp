#pragma once
/// \file
/// The text that an example trains on: a file of the user, or C++ that is surely there: the headers of Eigen.

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "cli.hpp"
#include "files.hpp"
#include "ordo/core/error.hpp"

namespace ordo_demo {

struct Text {
  std::vector<std::uint8_t> bytes;
  std::string source;      ///< for a report: where the bytes are from
  bool truncated = false;  ///< there was more than the limit
};

/// Bytes to learn from and bytes to judge by.
struct TextSplit {
  std::span<const std::uint8_t> training, held_out;
};

inline constexpr std::size_t default_text_limit = std::size_t{64} << 20;

namespace text_detail {

/// Appends at most `limit` bytes of a file; returns false when there were more.
inline bool append_file(const std::filesystem::path& path, std::size_t limit, std::vector<std::uint8_t>& bytes) {
  const auto failed = [&](const char* why) {
    ordo::fail<ordo::FileError>("cannot read the text " + in_quotes(path.string()) + ": " + why);
  };
  File file(std::fopen(path.string().c_str(), "rb"));
  if (!file) failed(std::strerror(errno));
  std::array<std::uint8_t, 1 << 16> block;
  for (;;) {
    errno = 0;
    const std::size_t got = std::fread(block.data(), 1, block.size(), file.get());
    if (got == 0 && std::ferror(file.get()) != 0) failed(std::strerror(errno));
    if (got == 0) return true;
    const std::size_t wanted = std::min(got, limit);
    bytes.insert(bytes.end(), block.begin(), block.begin() + static_cast<std::ptrdiff_t>(wanted));
    limit -= wanted;
    if (wanted < got) return false;
  }
}

}  // namespace text_detail

/// Why the bytes are no text, as the end of a sentence; empty when they look like text in some 8-bit encoding.
inline std::string why_not_text(std::span<const std::uint8_t> bytes) {
  if (bytes.size() >= 2 && ((bytes[0] == 0xFF && bytes[1] == 0xFE) || (bytes[0] == 0xFE && bytes[1] == 0xFF))) {
    return "it is UTF-16; convert it to UTF-8";
  }
  std::size_t controls = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::uint8_t b = bytes[i];
    if (b == 0) return "it is a binary file (a zero byte at position " + std::to_string(i) + ")";
    const bool layout = (b >= 7 && b <= 13) || b == 27;  // bell .. carriage return, escape
    if ((b < 32 && !layout) || b == 127) ++controls;
  }
  if (100 * controls > bytes.size()) return "it is a binary file (one control character in 100 bytes or more)";
  return {};
}

/// Reads a text file, at most `limit` bytes of it.
/// \throws ordo::FileError when it is missing, a folder, unreadable, empty, one byte long, or binary.
inline Text load_text_file(const std::string& path, std::size_t limit = default_text_limit) {
  const auto failed = [&](const std::string& why) {
    ordo::fail<ordo::FileError>("cannot use the text " + in_quotes(path) + ": " + why);
  };
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) failed("there is no such file");
  if (error) failed(error.message());
  if (std::filesystem::is_directory(status)) failed("it is a folder, not a file");
  Text text;
  text.source = path;
  text.truncated = !text_detail::append_file(path, limit, text.bytes);
  if (text.bytes.empty()) failed("the file is empty");
  if (text.bytes.size() == 1) failed("it has a single byte, so there is nothing to predict");
  if (const std::string why = why_not_text(text.bytes); !why.empty()) failed(why);
  return text;
}

/// Folders that may hold the Eigen headers, the most likely first. The build may name one: ORDO_DEFAULT_TEXT_FOLDER.
inline std::vector<std::string> default_text_folders() {
  return {
#if defined(ORDO_DEFAULT_TEXT_FOLDER)
    ORDO_DEFAULT_TEXT_FOLDER,
#endif
        "/usr/include/eigen3", "/usr/local/include/eigen3", "/opt/homebrew/include/eigen3", "/opt/local/include/eigen3"
  };
}

/// The files of folder/Eigen and below, concatenated in the order of their paths, at most `limit` bytes.
/// \throws ordo::FileError when none of the folders has them, with what to do.
inline Text load_default_text(std::size_t limit = default_text_limit,
                              const std::vector<std::string>& folders = default_text_folders()) {
  namespace fs = std::filesystem;
  for (const std::string& folder : folders) {
    const fs::path root = fs::path(folder) / "Eigen";
    std::error_code error;
    if (!fs::is_directory(root, error)) continue;
    std::vector<fs::path> paths;
    for (fs::recursive_directory_iterator it(root, fs::directory_options::skip_permission_denied, error), end;
         !error && it != end; it.increment(error)) {
      if (it->is_regular_file(error)) paths.push_back(it->path());
    }
    // By the bytes of the whole path: the same order on every machine, whatever its locale.
    std::sort(paths.begin(), paths.end(),
              [](const fs::path& a, const fs::path& b) { return a.generic_string() < b.generic_string(); });
    Text text;
    std::size_t files = 0;
    for (const fs::path& path : paths) {
      if (text.bytes.size() == limit) text.truncated = true;
      if (text.truncated) break;
      text.truncated = !text_detail::append_file(path, limit - text.bytes.size(), text.bytes);
      ++files;
    }
    if (text.bytes.size() < 2) continue;
    text.source = std::to_string(files) + " headers of Eigen in " + root.string();
    return text;
  }
  std::string looked;
  for (const std::string& folder : folders) looked += (looked.empty() ? "" : ", ") + folder;
  ordo::fail<ordo::FileError>("there is no default text, because the headers of Eigen are not in any of " + looked +
                              "; name a text with --text FILE");
}

/// The text of `path`, or the default text when it is empty.
inline Text load_text(const std::string& path, std::size_t limit = default_text_limit) {
  return path.empty() ? load_default_text(limit) : load_text_file(path, limit);
}

/// The last tenth is held out, in one piece: a model that is scored on it has never seen its neighbourhood. (Of the
/// default text these are whole files, so held-out figures are those of new files.)
/// \throws ordo::FileError unless both parts have at least `block` + 1 bytes.
inline TextSplit split_text(const Text& text, std::size_t block) {
  const std::span<const std::uint8_t> all(text.bytes);
  const std::size_t training = all.size() * 9 / 10, held_out = all.size() - training;
  if (held_out < block + 1 || training < block + 1) {
    ordo::fail<ordo::FileError>("the text " + in_quotes(text.source) + " is too short: it has " +
                                std::to_string(all.size()) + " bytes, and blocks of " + std::to_string(block) +
                                " need about " + std::to_string(10 * (block + 1)) + " (a tenth is held out)");
  }
  return {all.first(training), all.last(held_out)};
}

/// A 64-bit fingerprint (FNV-1a): a resumed run compares it to see that it goes on with the same text.
inline std::uint64_t fingerprint(std::span<const std::uint8_t> bytes) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const std::uint8_t b : bytes) hash = (hash ^ b) * 0x100000001b3u;
  return hash;
}

}  // namespace ordo_demo
