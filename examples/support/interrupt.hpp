#pragma once
/// \file
/// Ctrl-C as a request: the first one sets a flag that the program looks at, the second ends the program at once.

#include <atomic>
#include <csignal>

namespace ordo_demo {

/// While an object lives, SIGINT and SIGTERM set a flag. The next such signal has its usual effect. One at a time.
///
///     InterruptGuard interrupt;
///     while (!done && !interrupt.requested()) train_one_step();
///     save();
class InterruptGuard {
 public:
  InterruptGuard() noexcept {
    signal_ = 0;
    for (int i = 0; i < 2; ++i) install(signals[i], previous_[i]);
  }
  ~InterruptGuard() {
    for (int i = 0; i < 2; ++i) restore(signals[i], previous_[i]);
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  bool requested() const noexcept { return signal_ != 0; }
  /// The signal that came, or 0. Programs that stop because of it return 128 + signal(), as shells do.
  int signal() const noexcept { return signal_; }

 private:
  static constexpr int signals[2] = {SIGINT, SIGTERM};
  static inline std::atomic<int> signal_{0};
  static_assert(std::atomic<int>::is_always_lock_free, "a signal handler may only touch lock-free atomics");

  static void handle(int signal) noexcept {
    if (signal_.exchange(signal) == 0) return;
    std::signal(signal, SIG_DFL);
    std::raise(signal);  // blocked until this handler returns, then ends the program
  }

#if defined(SA_RESTART)
  using Previous = struct sigaction;
  static void install(int signal, Previous& previous) noexcept {
    struct sigaction action {};
    action.sa_handler = handle;
    sigemptyset(&action.sa_mask);
    action.sa_flags = SA_RESTART;  // a checkpoint that is being written is not cut short
    sigaction(signal, &action, &previous);
  }
  static void restore(int signal, const Previous& previous) noexcept { sigaction(signal, &previous, nullptr); }
#else
  using Previous = void (*)(int);
  static void install(int signal, Previous& previous) noexcept { previous = std::signal(signal, handle); }
  static void restore(int signal, const Previous& previous) noexcept { std::signal(signal, previous); }
#endif

  Previous previous_[2]{};
};

}  // namespace ordo_demo
