#pragma once
/// \file
/// Files: mapping one read-only, and replacing one so that no crash can leave half of it.

#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ordo/core/error.hpp"

#if defined(__unix__) || defined(__APPLE__)
#define ORDO_HAS_POSIX_FILES 1
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace ordo {

namespace detail {

/// "cannot open model.safetensors: No such file or directory"
[[noreturn]] inline void fail_system(const std::string& action, const std::filesystem::path& path, int error) {
  fail<FileError>("cannot " + action + " " + path.string() + ": " + std::generic_category().message(error));
}

/// Reads to the end with the C library only; grows by what is really there.
inline std::vector<std::byte> read_whole_file(const std::filesystem::path& path) {
  errno = 0;
  std::FILE* file = std::fopen(path.string().c_str(), "rb");
  if (file == nullptr) fail_system("open", path, errno);
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> closer(file, [](std::FILE* f) { return std::fclose(f); });
  std::vector<std::byte> bytes;
  std::size_t filled = 0;
  for (;;) {
    if (filled == bytes.size()) bytes.resize(filled + filled / 2 + 65536);
    errno = 0;
    const std::size_t count = std::fread(bytes.data() + filled, 1, bytes.size() - filled, file);
    filled += count;
    if (count == 0) {
      if (std::ferror(file) != 0) fail_system("read", path, errno);
      break;
    }
  }
  bytes.resize(filled);
  return bytes;
}

}  // namespace detail

/// How MappedFile gets at the bytes.
enum class MapMode {
  automatic,  ///< memory-mapped where the system and the file allow, else read
  read,       ///< a copy in memory: later changes to the file cannot be seen
};

/// A whole file as bytes that cannot be written to. The mapping costs no memory until pages are touched, and shares
/// them with other processes. Files that cannot be mapped (pipes, some network and kernel file systems) are read
/// instead; an empty file is legal. Move-only; a move keeps the address of the bytes.
///
/// A mapped file that another program shortens in place kills readers (SIGBUS), as with every mapping; files that are
/// replaced by rename, as write_file_atomically() does, are safe.
class MappedFile {
 public:
  MappedFile() noexcept = default;

  explicit MappedFile(const std::filesystem::path& path, MapMode mode = MapMode::automatic) {
#if defined(ORDO_HAS_POSIX_FILES)
    if (mode == MapMode::automatic && map(path)) return;
#else
    static_cast<void>(mode);
#endif
    // Pipes may be read, devices may have no end.
    std::error_code ignored;
    const auto status = std::filesystem::status(path, ignored);
    if (std::filesystem::is_directory(status)) fail<FileError>("cannot read " + path.string() + ": it is a folder");
    if (std::filesystem::is_character_file(status) || std::filesystem::is_block_file(status)) {
      fail<FileError>("cannot read " + path.string() + ": it is a device");
    }
    copy_ = detail::read_whole_file(path);
    data_ = copy_.data();
    size_ = copy_.size();
  }

  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        mapped_(std::exchange(other.mapped_, false)),
        copy_(std::move(other.copy_)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    MappedFile taken(std::move(other));
    std::swap(data_, taken.data_);
    std::swap(size_, taken.size_);
    std::swap(mapped_, taken.mapped_);
    std::swap(copy_, taken.copy_);
    return *this;
  }
  ~MappedFile() {
#if defined(ORDO_HAS_POSIX_FILES)
    if (mapped_) ::munmap(const_cast<std::byte*>(data_), size_);
#endif
  }

  std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  std::string_view text() const noexcept { return {reinterpret_cast<const char*>(data_), size_}; }
  std::size_t size() const noexcept { return size_; }
  bool is_mapped() const noexcept { return mapped_; }

 private:
#if defined(ORDO_HAS_POSIX_FILES)
  /// False: the file is there but cannot be mapped.
  bool map(const std::filesystem::path& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) detail::fail_system("open", path, errno);
    struct stat status = {};
    bool done = false;
    // Kernel files say that they have no bytes and then give some: those are read.
    if (::fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0 &&
        static_cast<std::uintmax_t>(status.st_size) <= SIZE_MAX) {
      const auto size = static_cast<std::size_t>(status.st_size);
      void* const data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
      if (data != MAP_FAILED) {
        data_ = static_cast<const std::byte*>(data);
        size_ = size;
        mapped_ = done = true;
      }
    }
    ::close(fd);
    return done;
  }
#endif

  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  bool mapped_ = false;
  std::vector<std::byte> copy_;
};

/// Where write_file_atomically() lets its writer write. Buffered; every failure is a FileError.
class FileWriter {
 public:
  using Put = void (*)(void* target, const std::byte* data, std::size_t size);

  FileWriter(Put put, void* target) : put_(put), target_(target) { buffer_.reserve(capacity); }

  void write(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const std::byte*>(data);
    if (buffer_.size() + size > capacity) flush();
    if (size > capacity) {
      put_(target_, bytes, size);
    } else if (size > 0) {
      buffer_.insert(buffer_.end(), bytes, bytes + size);
    }
    size_ += size;
  }
  void write(std::string_view text) { write(text.data(), text.size()); }
  void write(std::span<const std::byte> bytes) { write(bytes.data(), bytes.size()); }

  /// Bytes written so far.
  std::uint64_t size() const noexcept { return size_; }

  void flush() {
    if (!buffer_.empty()) put_(target_, buffer_.data(), buffer_.size());
    buffer_.clear();
  }

 private:
  static constexpr std::size_t capacity = 65536;
  Put put_;
  void* target_;
  std::vector<std::byte> buffer_;
  std::uint64_t size_ = 0;
};

namespace detail {

/// The file that `path` means, through symbolic links: replacing the link itself would cut it off from its file.
inline std::filesystem::path resolve_target(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (path.filename().empty() || std::filesystem::is_directory(status)) {
    fail<FileError>("cannot write " + (path.empty() ? std::string("\"\"") : path.string()) +
                    ": it is no name of a file");
  }
  if (!std::filesystem::exists(status)) return path;
  if (!std::filesystem::is_regular_file(status))
    fail<FileError>("cannot write " + path.string() + ": it is not a regular file");
  const auto target = std::filesystem::canonical(path, error);
  return error ? path : target;
}

/// The temporary of a target stands beside it, so that the rename stays within one file system.
inline std::filesystem::path temporary_of(const std::filesystem::path& target) {
  return target.parent_path() / ("." + target.filename().string() + ".ordo-tmp");
}

/// The temporary file with the C library only: the target is complete or untouched as far as the system orders its
/// writes.
class PortableTemporary {
 public:
  explicit PortableTemporary(const std::filesystem::path& path)
      : target_(resolve_target(path)), path_(temporary_of(target_)) {
    errno = 0;
    file_ = std::fopen(path_.string().c_str(), "wb");
    if (file_ == nullptr) fail_system("create", path_, errno);
  }
  PortableTemporary(const PortableTemporary&) = delete;
  PortableTemporary& operator=(const PortableTemporary&) = delete;
  ~PortableTemporary() {
    if (file_ != nullptr) std::fclose(file_);
    std::error_code ignored;
    if (!done_) std::filesystem::remove(path_, ignored);
  }

  void write(const std::byte* data, std::size_t size) {
    errno = 0;
    if (std::fwrite(data, 1, size, file_) != size) fail_system("write", path_, errno);
  }

  void commit() {
    errno = 0;
    if (std::fclose(std::exchange(file_, nullptr)) != 0) fail_system("write", path_, errno);
    std::error_code error;
    std::filesystem::rename(path_, target_, error);
    if (error) fail_system("replace", target_, error.value());
    done_ = true;
  }

 private:
  std::filesystem::path target_, path_;
  std::FILE* file_ = nullptr;
  bool done_ = false;
};

#if defined(ORDO_HAS_POSIX_FILES)

/// The temporary file. There is one name for each target, and whoever writes holds a lock on the file of that name:
/// writers of one target take turns, and what a crash has left behind (its lock died with it) is simply used again.
class PosixTemporary {
 public:
  explicit PosixTemporary(const std::filesystem::path& path)
      : target_(resolve_target(path)), path_(temporary_of(target_)) {
    // A rename would replace a write-protected file without asking.
    if (::access(target_.c_str(), W_OK) != 0 && errno != ENOENT) fail_system("write", target_, errno);
    for (int attempts = 0;;) {
      // No link is followed: in a folder that others can write to, it might lead anywhere.
      fd_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
      if (fd_ < 0) fail_here("create", path_);
      lock();
      struct stat mine = {}, named = {};
      if (::fstat(fd_, &mine) != 0) fail_here("inspect", path_);
      // While this writer waited, the one before may have renamed the file to the target: that one must not be touched.
      if (::lstat(path_.c_str(), &named) == 0 && named.st_dev == mine.st_dev && named.st_ino == mine.st_ino) {
        if (!S_ISREG(mine.st_mode) || mine.st_uid != ::geteuid() || mine.st_nlink != 1) {
          ::close(fd_);
          fail<FileError>("cannot write " + path_.string() + ": it is not a temporary of this user");
        }
        owned_ = true;
        break;
      }
      ::close(std::exchange(fd_, -1));
      if (++attempts == most_attempts) {
        fail<FileError>("cannot write " + path_.string() + ": the name does not stay with its file");
      }
    }
    if (::ftruncate(fd_, 0) != 0) fail_here("write", path_);
  }
  PosixTemporary(const PosixTemporary&) = delete;
  PosixTemporary& operator=(const PosixTemporary&) = delete;
  ~PosixTemporary() {
    if (owned_) ::unlink(path_.c_str());  // before the lock goes
    if (fd_ >= 0) ::close(fd_);
  }

  void write(const std::byte* data, std::size_t size) {
    while (size > 0) {
      const ssize_t count = ::write(fd_, data, size < largest_write ? size : largest_write);
      if (count < 0) {
        if (errno == EINTR) continue;
        fail_here("write", path_);
      }
      data += count;
      size -= static_cast<std::size_t>(count);
    }
  }

  /// The order makes it safe: the bytes are on the disk before the name changes, the name before the caller goes on.
  /// The lock is held until the name is the target's.
  void commit() {
    struct stat old = {};  // a file that is replaced keeps its permissions
    if (::stat(target_.c_str(), &old) == 0 && ::fchmod(fd_, old.st_mode & 0777U) != 0)
      fail_here("set the permissions of", path_);
    if (sync(fd_) != 0) fail_here("write", path_);
    if (::rename(path_.c_str(), target_.c_str()) != 0) fail_here("replace", target_);
    owned_ = false;
    const auto folder = target_.parent_path().empty() ? std::filesystem::path(".") : target_.parent_path();
    const int fd = ::open(folder.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;  // a folder that may be written but not read: nothing more can be done
    const int result = ::fsync(fd), error = errno;
    ::close(fd);
    // Some file systems do not sync folders, and say so by EINVAL.
    if (result != 0 && error != EINVAL && error != ENOTSUP) fail_system("sync the folder of", target_, error);
  }

 private:
  static constexpr int most_attempts =
      10000;  // each one waits for another writer: only a broken file system gets there
  static constexpr std::size_t largest_write = std::size_t{1} << 30;  // Linux and macOS refuse or cut 2 GiB

  [[noreturn]] void fail_here(const char* action, const std::filesystem::path& path) {
    const int error = errno;
    if (owned_) ::unlink(path_.c_str());  // a constructor that throws has no destructor
    owned_ = false;
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
    fail_system(action, path, error);
  }

  /// On a file system without locks writers of the same target have to keep apart by themselves.
  void lock() const noexcept {
    while (::flock(fd_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }

  static int sync(int fd) noexcept {
#if defined(F_FULLFSYNC)
    if (::fcntl(fd, F_FULLFSYNC) == 0) return 0;  // macOS: fsync leaves the bytes in the drive's cache
#endif
    int result = ::fsync(fd);
    while (result != 0 && errno == EINTR) result = ::fsync(fd);
    return result;
  }

  std::filesystem::path target_, path_;
  int fd_ = -1;
  bool owned_ = false;
};

using Temporary = PosixTemporary;
#else
using Temporary = PortableTemporary;
#endif

template <class Temp, class Writer>
void write_through(const std::filesystem::path& path, Writer&& writer) {
  Temp temporary(path);
  FileWriter out(
      [](void* target, const std::byte* data, std::size_t size) { static_cast<Temp*>(target)->write(data, size); },
      &temporary);
  writer(out);
  out.flush();
  temporary.commit();
}

}  // namespace detail

/// Replaces `path` by what `writer(FileWriter&)` writes. At any moment, and whenever the process is killed or the
/// machine stops, the path names either the old file or the complete new one: the bytes go to a temporary file in the
/// same folder, are synced, and take the name by rename; then the folder is synced. When the writer throws, the old
/// file stays.
///
/// A crash can leave the temporary `.NAME.ordo-tmp` behind; it is harmless, and the next write to the same path takes
/// it over. Writers of one path, in one process or in several, take turns. Symbolic links are followed, permissions are
/// kept.
template <class Writer>
  requires std::invocable<Writer&, FileWriter&>
void write_file_atomically(const std::filesystem::path& path, Writer&& writer) {
  detail::write_through<detail::Temporary>(path, writer);
}

/// The same with the contents at hand.
inline void write_file_atomically(const std::filesystem::path& path, std::string_view contents) {
  write_file_atomically(path, [&](FileWriter& out) { out.write(contents); });
}

}  // namespace ordo
