#include "ordo/io/file.hpp"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "io/support.hpp"
#include "ordo/core/random.hpp"
#include "support/catch.hpp"

using namespace ordo;
using namespace ordo_test;
namespace fs = std::filesystem;

namespace {

// A text that says how long it is and whose every byte follows from its number: half of one is never another one.
std::string make_content(std::uint64_t number, std::size_t size) {
  std::string text = std::to_string(number) + " " + std::to_string(size) + "\n";
  std::uint64_t state = number * 0x9E3779B97F4A7C15U + 1;
  for (std::size_t i = 0; i < size; ++i) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    text += static_cast<char>(state >> 56);
  }
  return text;
}

bool is_complete(const std::string& text) {
  const std::size_t space = text.find(' ');
  if (space == std::string::npos) return false;
  return text == make_content(std::stoull(text), std::stoull(text.substr(space)));
}

std::size_t size_for(std::uint64_t number) { return static_cast<std::size_t>(number * 7919 % 600000); }

mode_t mode_of(const fs::path& path) {
  struct stat status = {};
  REQUIRE(::stat(path.c_str(), &status) == 0);
  return status.st_mode & 0777U;
}

// Runs f in a child process and returns its exit status; f must not use Catch.
template <class F>
int in_child(F f) {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(f());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST_CASE("a file is mapped, or read where it cannot be") {
  const TemporaryFolder folder;
  const std::string text = make_content(1, 300000);
  write_plainly(folder / "a", text);
  const MappedFile mapped(folder / "a"), copied(folder / "a", MapMode::read);
  CHECK(mapped.is_mapped());
  CHECK_FALSE(copied.is_mapped());
  CHECK(mapped.text() == text);
  CHECK(copied.text() == text);
  CHECK(mapped.bytes().size() == text.size());

  MappedFile moved(MappedFile(folder / "a"));
  const std::byte* address = moved.bytes().data();
  MappedFile target(folder / "a", MapMode::read);
  target = std::move(moved);
  CHECK(target.bytes().data() == address);
  CHECK(target.text() == text);
  CHECK(moved.bytes().empty());  // NOLINT(bugprone-use-after-move): what a moved-from file is
  target = MappedFile(folder / "a", MapMode::read);
  CHECK(target.text() == text);
  CHECK(MappedFile().bytes().empty());

  write_plainly(folder / "empty", "");
  CHECK(MappedFile(folder / "empty").text().empty());
  CHECK(MappedFile(folder / "empty", MapMode::read).text().empty());

  // A pipe cannot be mapped and does not know its length.
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  std::thread writer([&] { write_plainly(folder / "pipe", text); });
  const MappedFile piped(folder / "pipe", MapMode::read);
  writer.join();
  CHECK(piped.text() == text);
}

TEST_CASE("a mapping outlives the replacement of its file") {
  const TemporaryFolder folder;
  write_file_atomically(folder / "a", "first");
  const MappedFile first(folder / "a");
  write_file_atomically(folder / "a", "second");
  CHECK(first.text() == "first");
  CHECK(MappedFile(folder / "a").text() == "second");
}

TEST_CASE("files that cannot be read are errors with the system's reason") {
  const TemporaryFolder folder;
  for (const MapMode mode : {MapMode::automatic, MapMode::read}) {
    CHECK(contains(file_error([&] { MappedFile(folder / "absent", mode); }), "absent: No such file or directory"));
    CHECK(contains(file_error([&] { MappedFile(folder.path(), mode); }), "it is a folder"));
    CHECK(contains(file_error([&] { MappedFile("/dev/zero", mode); }), "it is a device"));
    CHECK(contains(file_error([&] { MappedFile(folder / "absent/file", mode); }), "No such file or directory"));
  }
}

TEST_CASE("an atomic write replaces the file and leaves nothing else") {
  const TemporaryFolder folder;
  for (const std::size_t size : {0U, 1U, 65535U, 65536U, 65537U, 1000000U}) {
    const std::string text = make_content(size, size);
    write_file_atomically(folder / "a", text);
    CHECK(read_plainly(folder / "a") == text);
    // In pieces around the size of the buffer.
    write_file_atomically(folder / "b", [&](FileWriter& out) {
      std::size_t at = 0;
      for (const std::size_t piece : {1U, 65535U, 65536U, 3U, 200000U, 5U}) {
        out.write(std::string_view(text).substr(at, piece));
        at = std::min(text.size(), at + piece);
        if (out.size() != at) fail<UsageError>("size() is wrong");
      }
      out.write(std::as_bytes(std::span(text)).subspan(at));
    });
    CHECK(read_plainly(folder / "b") == text);
    detail::write_through<detail::PortableTemporary>(folder / "c", [&](FileWriter& out) { out.write(text); });
    CHECK(read_plainly(folder / "c") == text);
  }
  CHECK(folder.count() == 3);

  // A bare name stands in the current folder.
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  write_file_atomically("bare", "x");
  fs::current_path(before);
  CHECK(read_plainly(folder / "bare") == "x");
}

TEMPLATE_TEST_CASE("a write that fails leaves the old file and no other", "", detail::PosixTemporary,
                   detail::PortableTemporary) {
  const TemporaryFolder folder;
  const auto write = [](const fs::path& path, auto writer) { detail::write_through<TestType>(path, writer); };
  write_plainly(folder / "a", "old");

  SECTION("the writer throws") {
    CHECK_THROWS_AS(write(folder / "a",
                          [](FileWriter& out) {
                            out.write(std::string(200000, 'x'));
                            throw std::logic_error("writer");
                          }),
                    std::logic_error);
    CHECK(read_plainly(folder / "a") == "old");
    CHECK(folder.count() == 1);
  }
  SECTION("the disk is full") {
    // A limit on the size of files stands for it: writing beyond fails with EFBIG.
    const auto child = [&] {
      const rlimit limit{100000, 100000};
      ::setrlimit(RLIMIT_FSIZE, &limit);
      std::signal(SIGXFSZ, SIG_IGN);
      const std::string message =
          file_error([&] { write(folder / "a", [](FileWriter& out) { out.write(std::string(200000, 'x')); }); });
      return contains(message, "cannot write ") && contains(message, "File too large") ? 0 : 1;
    };
    CHECK(in_child(child) == 0);
    CHECK(read_plainly(folder / "a") == "old");
    CHECK(folder.count() == 1);
  }
  SECTION("the folder is not there") {
    CHECK(contains(file_error([&] { write(folder / "no/a", [](FileWriter&) {}); }), "No such file or directory"));
  }
  SECTION("the path is no file") {
    CHECK(contains(file_error([&] { write(folder.path(), [](FileWriter&) {}); }), "it is no name of a file"));
    CHECK(contains(file_error([&] { write(folder / "x/", [](FileWriter&) {}); }), "it is no name of a file"));
    CHECK(contains(file_error([&] { write("", [](FileWriter&) {}); }), "it is no name of a file"));
    CHECK(contains(file_error([&] { write("/dev/null", [](FileWriter&) {}); }), "it is not a regular file"));
    CHECK(fs::is_character_file("/dev/null"));
  }
}

TEST_CASE("what a crash has left is taken over") {
  const TemporaryFolder folder;
  const int status = in_child([&] {
    try {
      write_file_atomically(folder / "a", [](FileWriter& out) {
        out.write(std::string(200000, 'x'));
        ::kill(::getpid(), SIGKILL);
      });
    } catch (...) {
      return 1;
    }
    return 1;
  });
  CHECK(status == -1);  // killed
  CHECK_FALSE(fs::exists(folder / "a"));
  CHECK(folder.count() == 1);
  write_file_atomically(folder / "a", "new");
  CHECK(read_plainly(folder / "a") == "new");
  CHECK(folder.count() == 1);
}

TEST_CASE("links are followed, permissions kept, protected files refused") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "real");
  write_plainly(folder / "real/a", "old");
  REQUIRE(::chmod((folder / "real/a").c_str(), 0640) == 0);
  fs::create_symlink("real/a", folder / "link");
  write_file_atomically(folder / "link", "new");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(read_plainly(folder / "real/a") == "new");
  CHECK(mode_of(folder / "real/a") == 0640);
  CHECK(folder.count() == 2);

  // Somebody else's link under the temporary's name leads nowhere.
  write_plainly(folder / "victim", "safe");
  fs::create_symlink("victim", folder / ".b.ordo-tmp");
  CHECK(contains(file_error([&] { write_file_atomically(folder / "b", "x"); }), "cannot create "));
  CHECK(read_plainly(folder / "victim") == "safe");
  fs::create_hard_link(folder / "victim", folder / ".c.ordo-tmp");
  CHECK(contains(file_error([&] { write_file_atomically(folder / "c", "x"); }), "not a temporary of this user"));
  CHECK(read_plainly(folder / "victim") == "safe");

  if (::geteuid() != 0) {  // root may write anything
    REQUIRE(::chmod((folder / "real/a").c_str(), 0440) == 0);
    CHECK(contains(file_error([&] { write_file_atomically(folder / "real/a", "x"); }), "Permission denied"));
    CHECK(read_plainly(folder / "real/a") == "new");
  }
}

TEST_CASE("writers of one file take turns and readers see complete files") {
  const TemporaryFolder folder;
  const fs::path path = folder / "shared";
  write_file_atomically(path, make_content(0, 0));
  std::atomic<int> running{4}, incomplete{0};
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < 25; ++i)
        write_file_atomically(path, make_content(t * 100 + i, size_for(t * 100 + i)));
      --running;
    });
  }
  while (running > 0) incomplete += !is_complete(std::string(MappedFile(path).text()));
  for (auto& thread : threads) thread.join();
  CHECK(incomplete == 0);
  CHECK(folder.count() == 1);
}

TEST_CASE("kill -9 at any moment leaves a complete file") {
  const TemporaryFolder folder;
  const fs::path path = folder / "checkpoint";
  Random random(5);
  int incomplete = 0, interrupted = 0;
  std::uint64_t next = 0;
  write_file_atomically(path, make_content(0, size_for(0)));
  for (int round = 0; round < 50; ++round) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      for (std::uint64_t number = next;; ++number) write_file_atomically(path, make_content(number, size_for(number)));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(15000)));
    REQUIRE(::kill(child, SIGKILL) == 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    const std::string text(MappedFile(path).text());
    incomplete += !is_complete(text);
    interrupted += folder.count() == 2;
    next = std::stoull(text) + 1;
  }
  CHECK(incomplete == 0);
  // Most of the time of a write goes by while the temporary is there: kills that never meet one would prove nothing.
  CHECK(interrupted > 0);
  write_file_atomically(path, "last");
  CHECK(folder.count() == 1);
}
