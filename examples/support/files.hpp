#pragma once
/// \file
/// Files and folders of the examples. Every failure is an ordo::FileError with one sentence.

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

#include "cli.hpp"
#include "ordo/core/error.hpp"

namespace ordo_demo {

struct CloseFile {
  void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

/// Writes a whole file: under a temporary name first, so that an old one is replaced by a complete one or not at all.
inline void write_file(const std::filesystem::path& path, std::string_view contents) {
  std::filesystem::path temporary = path;
  temporary += ".new";
  const auto failed = [&](const char* why) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    ordo::fail<ordo::FileError>("cannot write " + in_quotes(path.string()) + ": " + why);
  };
  File file(std::fopen(temporary.string().c_str(), "wb"));
  if (!file) failed(std::strerror(errno));
  if (std::fwrite(contents.data(), 1, contents.size(), file.get()) != contents.size()) failed(std::strerror(errno));
  if (std::fclose(file.release()) != 0) failed(std::strerror(errno));
  std::error_code error;
  std::filesystem::rename(temporary, path, error);
  if (error) failed(error.message().c_str());
}

/// Makes sure that `path` is a folder in which files can be made, creating it and its parents where missing.
/// To be called before the work whose results go there.
inline void prepare_folder(const std::filesystem::path& path) {
  const auto failed = [&](const std::string& why) {
    ordo::fail<ordo::FileError>("cannot use " + in_quotes(path.string()) + " as a folder for results: " + why);
  };
  if (path.empty()) failed("the name is empty");
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!std::filesystem::is_directory(path)) failed(error ? error.message() : "it is not a folder");
  const std::filesystem::path probe = path / ".write-test";
  File file(std::fopen(probe.string().c_str(), "wb"));
  if (!file) failed(std::strerror(errno));
  file.reset();
  std::filesystem::remove(probe, error);
}

}  // namespace ordo_demo
