#pragma once
/// \file
/// Progress of a training run: a bar that is redrawn in place on a terminal, lines at intervals elsewhere.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "terminal.hpp"

namespace ordo_demo {

/// Text of at most N - 1 bytes, on the stack; what does not fit is cut off.
template <std::size_t N>
class FixedText {
 public:
  template <class... Args>
  explicit FixedText(const char* format, Args... args) noexcept {
    append(format, args...);
  }
  template <class... Args>
  void append(const char* format, Args... args) noexcept {
    int n = 0;
    if constexpr (sizeof...(Args) == 0) {
      n = std::snprintf(text_.data() + size_, N - size_, "%s", format);
    } else {
      n = std::snprintf(text_.data() + size_, N - size_, format, args...);
    }
    if (n > 0) size_ = std::min(size_ + static_cast<std::size_t>(n), N - 1);
  }
  const char* c_str() const noexcept { return text_.data(); }
  std::size_t size() const noexcept { return size_; }

 private:
  std::array<char, N> text_{};
  std::size_t size_ = 0;
};

/// 950, 48.2k, 1.25M
inline FixedText<16> short_count(double n) noexcept {
  if (!(n < 999.5e6)) return FixedText<16>("%.3gG", std::min(n / 1e9, 9e9));
  if (n >= 999.5e3) return FixedText<16>("%.3gM", n / 1e6);
  if (n >= 999.5) return FixedText<16>("%.3gk", n / 1e3);
  return FixedText<16>("%.0f", n);
}

/// 0:07, 12:30, 1:02:03
inline FixedText<24> clock_time(double seconds) noexcept {
  const auto s = static_cast<long long>(std::clamp(seconds, 0.0, 3.6e9) + 0.5);
  if (s < 3600) return FixedText<24>("%lld:%02lld", s / 60, s % 60);
  return FixedText<24>("%lld:%02lld:%02lld", s / 3600, s / 60 % 60, s % 60);
}

/// Shows where a run is: share done, loss (a running mean), tokens a second, time left.
///
/// The run ends after `steps` steps or `seconds` seconds, whichever comes first; 0 is no limit. update() is cheap
/// enough for every step and never allocates: a terminal is redrawn at most 10 times a second, a file gets a line
/// every 10 seconds.
class Progress {
 public:
  struct Config {
    std::int64_t steps = 0;
    double seconds = 0;
    std::int64_t first_step = 0;     ///< of a resumed run: the rate and the time left are those of this run
    double seconds_before = 0;       ///< of a resumed run: what it has used of `seconds`
    const char* loss_unit = "nats";  ///< must outlive the object
    std::FILE* out = stdout;
    bool terminal = is_terminal(stdout);
    bool utf8 = utf8_locale();
    int columns = 0;  ///< 0: those of the terminal, asked for at each redraw
    double redraw_seconds = 0.1;
    double line_seconds = 10;
    double (*now)() = nullptr;  ///< seconds of a steady clock; tests bring their own
  };

  explicit Progress(const Config& config) : config_(config), start_(now()), step_(config.first_step) {
    last_shown_ = rate_time_ = start_;
  }
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// After a step: its number (counted from 1), its loss, and the tokens that it was trained on.
  void update(std::int64_t step, double loss, std::int64_t tokens) noexcept {
    step_ = step;
    tokens_since_ += static_cast<double>(tokens);
    // The mean over about the last 50 steps, at the start over all. A loss that is not finite shows as it is.
    loss_weight_ = std::isfinite(loss) ? std::min(loss_weight_ + 1, 50.0) : 0;
    loss_ = loss_weight_ <= 1 ? loss : loss_ + (loss - loss_) / loss_weight_;
    const double time = now();
    if (time - rate_time_ >= 0.5 || (tokens_per_second_ == 0 && time > rate_time_)) {
      const double rate = tokens_since_ / (time - rate_time_);
      // Forgets with a time constant of 5 seconds, so that a machine that becomes busy shows.
      const double keep = tokens_per_second_ == 0 ? 0.0 : std::exp((rate_time_ - time) / 5);
      tokens_per_second_ = keep * tokens_per_second_ + (1 - keep) * rate;
      rate_time_ = time;
      tokens_since_ = 0;
    }
    shown_ = false;
    if (time - last_shown_ >= (config_.terminal ? config_.redraw_seconds : config_.line_seconds)) show(time);
  }

  /// Prints a line of its own above the bar.
  void message(const char* text) noexcept {
    if (drawn_) std::fputs("\r\x1b[K", config_.out);
    std::fprintf(config_.out, "%s\n", text);
    if (drawn_) show(now());
    std::fflush(config_.out);
  }

  /// Shows the last state and ends the line. Further calls do nothing.
  void finish() noexcept {
    if (finished_) return;
    if (!shown_) show(now());
    finished_ = true;
    if (drawn_) std::fputs("\n", config_.out);
    std::fflush(config_.out);
  }

  double tokens_per_second() const noexcept { return tokens_per_second_; }
  double mean_loss() const noexcept { return loss_; }

 private:
  double now() const noexcept {
    if (config_.now != nullptr) return config_.now();
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  /// The share of the run that is done (of whichever limit is nearer), and the seconds left; -1 when unknown.
  void estimate(double time, double& share, double& left) const noexcept {
    const double elapsed = time - start_;
    share = left = -1;
    if (config_.steps > 0) {
      const auto done = static_cast<double>(step_), all = static_cast<double>(config_.steps);
      const double here = done - static_cast<double>(config_.first_step);
      share = done / all;
      if (here > 0) left = elapsed / here * (all - done);
    }
    if (config_.seconds > 0) {
      const double used = config_.seconds_before + elapsed;
      const double remaining = std::max(0.0, config_.seconds - used);
      if (left < 0 || remaining < left) {
        left = remaining;
        share = used / config_.seconds;
      }
    }
    if (share >= 0) share = std::clamp(share, 0.0, 1.0);
  }

  void show(double time) noexcept {
    last_shown_ = time;
    shown_ = true;
    double share = 0, left = 0;
    estimate(time, share, left);

    FixedText<64> step("step %lld", static_cast<long long>(step_));
    if (config_.steps > 0) step.append("/%lld", static_cast<long long>(config_.steps));
    const FixedText<64> loss("loss %.3f %s", loss_, config_.loss_unit);
    const FixedText<64> rate("%s tokens/s", short_count(tokens_per_second_).c_str());
    const FixedText<64> remaining = left < 0 ? FixedText<64>("%s", clock_time(time - start_).c_str())
                                             : FixedText<64>("%s left", clock_time(left).c_str());
    if (!config_.terminal) {
      std::fprintf(config_.out, "%s  %s  %s  %s\n", step.c_str(), loss.c_str(), rate.c_str(), remaining.c_str());
      std::fflush(config_.out);
      return;
    }

    // One column stays free: some terminals wrap when the last is written.
    const int width = (config_.columns > 0 ? config_.columns : terminal_columns(config_.out)) - 1;
    const FixedText<64> percent = share < 0 ? FixedText<64>("") : FixedText<64>("%3.0f%%", 100 * share);
    // The parts in the order in which they stand, and how early each is dropped when the line is too narrow.
    const FixedText<64>* parts[] = {&percent, &loss, &rate, &remaining, &step};
    const int rank[] = {1, 0, 3, 2, 4};
    bool used[5];
    int length = 0;
    for (int keep = 5; keep > 0; --keep) {
      length = 0;
      for (int i = 0; i < 5; ++i) {
        used[i] = rank[i] < keep && parts[i]->size() > 0;
        if (used[i]) length += static_cast<int>(parts[i]->size()) + (length > 0 ? 2 : 0);
      }
      if (length + (keep == 5 && share >= 0 ? 10 : 0) <= width) break;  // the bar goes before the number of steps
    }
    const int bar = share < 0 || width - length - 2 < 8 ? 0 : std::min(width - length - 2, 40);

    FixedText<512> line("\r");
    bool any = false;
    for (int i = 0; i < 5; ++i) {
      if (!used[i]) continue;
      line.append("%s%.*s", any ? "  " : "", std::max(width, 0), parts[i]->c_str());
      any = true;
      if (i == 0 && bar > 0) append_bar(line, share, bar);
    }
    std::fprintf(config_.out, "%s\x1b[K", line.c_str());
    std::fflush(config_.out);
    drawn_ = true;
  }

  void append_bar(FixedText<512>& line, double share, int width) const noexcept {
    const int full = static_cast<int>(share * width + 0.5);
    line.append("  ");
    for (int i = 0; i < width; ++i) {
      line.append(config_.utf8 ? (i < full ? "\u2501" : "\u2508") : (i < full ? "#" : "."));
    }
  }

  Config config_;
  double start_, last_shown_ = 0, rate_time_ = 0;
  double tokens_since_ = 0, tokens_per_second_ = 0;
  double loss_ = 0, loss_weight_ = 0;
  std::int64_t step_;
  bool shown_ = true, drawn_ = false, finished_ = false;
};

}  // namespace ordo_demo
