#include "../../examples/support/interrupt.hpp"

#include "support/catch.hpp"

#if __has_include(<sys/wait.h>)
#include <sys/wait.h>
#include <unistd.h>
#define ORDO_TEST_CAN_FORK 1
#endif

using ordo_demo::InterruptGuard;

TEST_CASE("interrupt: the first signal is a request") {
  for (const int signal : {SIGINT, SIGTERM}) {
    InterruptGuard guard;
    CHECK_FALSE(guard.requested());
    CHECK(guard.signal() == 0);
    std::raise(signal);
    CHECK(guard.requested());
    CHECK(guard.signal() == signal);
  }
  InterruptGuard fresh;  // a new one starts without a request
  CHECK_FALSE(fresh.requested());
}

TEST_CASE("interrupt: what was installed before is restored") {
  static volatile std::sig_atomic_t seen = 0;
  const auto before = std::signal(SIGINT, [](int) { seen = 1; });
  {
    InterruptGuard guard;
    std::raise(SIGINT);
    CHECK(seen == 0);
    CHECK(guard.requested());
  }
  std::raise(SIGINT);
  CHECK(seen == 1);
  std::signal(SIGINT, before);
}

#if defined(ORDO_TEST_CAN_FORK)
namespace {

/// The wait status of a child that runs f and then leaves with code 7.
template <class F>
int status_of_child(F&& f) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGINT, SIG_DFL);
    std::signal(SIGTERM, SIG_DFL);
    f();
    _exit(7);
  }
  int status = -1;
  REQUIRE(child > 0);
  REQUIRE(waitpid(child, &status, 0) == child);
  return status;
}

}  // namespace

TEST_CASE("interrupt: the second signal ends the program at once, as that signal does") {
  for (const int first : {SIGINT, SIGTERM}) {
    for (const int second : {SIGINT, SIGTERM}) {
      const int status = status_of_child([&] {
        InterruptGuard guard;
        std::raise(first);
        std::raise(second);
      });
      CHECK(WIFSIGNALED(status));
      CHECK(WTERMSIG(status) == second);
    }
  }
  const int once = status_of_child([] {
    InterruptGuard guard;
    std::raise(SIGINT);
  });
  CHECK(WIFEXITED(once));
  CHECK(WEXITSTATUS(once) == 7);
}

TEST_CASE("interrupt: a system call that waits goes on after the signal") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const int status = status_of_child([&] {
    InterruptGuard guard;
    const pid_t parent = getpid();
    if (fork() == 0) {  // signals its parent, which is reading, and then lets it read
      usleep(20000);
      kill(parent, SIGINT);
      usleep(20000);
      const char byte = 'x';
      _exit(write(ends[1], &byte, 1) == 1 ? 0 : 1);
    }
    char byte = 0;
    const bool whole = read(ends[0], &byte, 1) == 1 && byte == 'x';
    _exit(whole && guard.requested() ? 3 : 4);
  });
  close(ends[0]);
  close(ends[1]);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 3);
}
#endif
