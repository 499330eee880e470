#include "../../examples/support/progress.hpp"

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "support.hpp"
#include "support/allocation_counter.hpp"
#include "support/catch.hpp"

using namespace ordo_demo;
using demo_test::contains;

namespace {

double fake_time = 0;

/// A run with a clock of its own, whose output is kept.
class Run {
 public:
  explicit Run(Progress::Config config) : out_(std::tmpfile()) {
    REQUIRE(out_ != nullptr);
    fake_time = 1000;
    config.out = out_;
    config.now = [] { return fake_time; };
    config.loss_unit = "bits/byte";
    progress.emplace(config);
  }
  ~Run() {
    progress.reset();  // writes its last state
    std::fclose(out_);
  }
  std::string text() {
    std::fflush(out_);
    std::rewind(out_);
    std::string all;
    for (int c; (c = std::fgetc(out_)) != EOF;) all += static_cast<char>(c);
    return all;
  }
  std::optional<Progress> progress;

 private:
  std::FILE* out_;
};

Progress::Config terminal(int columns, bool utf8 = false) {
  Progress::Config config;
  config.terminal = true;
  config.columns = columns;
  config.utf8 = utf8;
  return config;
}

Progress::Config file() {
  Progress::Config config;
  config.terminal = false;
  return config;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts{""};
  for (const char c : text) {
    if (c == separator)
      parts.emplace_back();
    else
      parts.back() += c;
  }
  return parts;
}

/// Characters that take a column: not escape sequences, and one for each UTF-8 sequence.
std::size_t columns_of(const std::string& text) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\x1b') {
      while (i < text.size() && text[i] != 'K') ++i;
      continue;
    }
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80 && text[i] != '\n') ++count;
  }
  return count;
}

}  // namespace

TEST_CASE("progress: counts and times as people write them") {
  const auto count = [](double n) { return std::string(short_count(n).c_str()); };
  CHECK(count(0) == "0");
  CHECK(count(999.4) == "999");
  CHECK(count(999.6) == "1k");
  CHECK(count(48213) == "48.2k");
  CHECK(count(999.6e3) == "1M");
  CHECK(count(1.254e6) == "1.25M");
  CHECK(count(5e9) == "5G");
  CHECK(count(std::numeric_limits<double>::infinity()).size() < 10);
  CHECK(count(std::numeric_limits<double>::quiet_NaN()).size() < 10);
  const auto time = [](double s) { return std::string(clock_time(s).c_str()); };
  CHECK(time(0) == "0:00");
  CHECK(time(-5) == "0:00");
  CHECK(time(7.4) == "0:07");
  CHECK(time(59.6) == "1:00");
  CHECK(time(3599) == "59:59");
  CHECK(time(3723) == "1:02:03");
  CHECK(time(1e300) == "1000000:00:00");
}

TEST_CASE("progress: plain lines at intervals when it is no terminal") {
  Progress::Config config = file();
  config.steps = 1000;
  Run run(config);
  for (int i = 1; i <= 1000; ++i) {
    fake_time += 0.05;
    run.progress->update(i, 2.5, 2048);
  }
  run.progress->finish();
  run.progress->finish();
  const std::string text = run.text();
  CHECK(text.find('\r') == std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
  const auto lines = split(text, '\n');
  REQUIRE(lines.back().empty());
  // 50 seconds: a line every 10, each within a step of its time, and the last state if no line has shown it.
  CHECK(lines.size() - 1 >= 5);
  CHECK(lines.size() - 1 <= 6);
  CHECK(lines[lines.size() - 2] == "step 1000/1000  loss 2.500 bits/byte  41k tokens/s  0:00 left");
  CHECK(contains(lines[0], "step 200/1000") != contains(lines[0], "step 201/1000"));
  CHECK(contains(lines[0], "0:40 left"));
}

TEST_CASE("progress: a terminal is redrawn in place, at most ten times a second") {
  Progress::Config config = terminal(100);
  config.steps = 2000;
  Run run(config);
  for (int i = 1; i <= 2000; ++i) {
    fake_time += 0.002;
    run.progress->update(i, 2.5, 100);
  }
  run.progress->finish();
  const std::string text = run.text();
  const auto drawn = split(text, '\r');
  CHECK(drawn.size() - 1 >= 35);  // 4 seconds
  CHECK(drawn.size() - 1 <= 42);
  CHECK(split(text, '\n').size() == 2);
  CHECK(contains(drawn.back(), "100%  ####"));
  CHECK(contains(drawn.back(), "step 2000/2000"));
  const int half_way = std::stoi(drawn[drawn.size() / 2]);
  CHECK(half_way >= 45);
  CHECK(half_way <= 55);
}

TEST_CASE("progress: never wider than the terminal, whatever its width") {
  for (const bool utf8 : {false, true}) {
    for (int columns = 1; columns <= 160; ++columns) {
      CAPTURE(columns, utf8);
      Progress::Config config = terminal(columns, utf8);
      config.steps = 100000;
      config.seconds = 1e6;
      Run run(config);
      for (int i = 1; i <= 3; ++i) {
        fake_time += 0.5;
        run.progress->update(40000 + i, 12.3456, 20000);
      }
      run.progress->finish();
      std::size_t widest = 0;
      for (const std::string& part : split(run.text(), '\r')) widest = std::max(widest, columns_of(part));
      REQUIRE(widest <= static_cast<std::size_t>(std::max(columns - 1, 0)));
      if (columns > 25) REQUIRE(contains(run.text(), "loss 12.346"));
      if (columns >= 80) REQUIRE(contains(run.text(), utf8 ? "\u2501" : "#"));
      if (columns >= 100) REQUIRE(contains(run.text(), "step 40003/100000"));
    }
  }
}

TEST_CASE("progress: time left is that of the limit that comes first") {
  const auto last_line = [](Progress::Config config, int steps, double seconds_a_step) {
    Run run(config);
    for (int i = 1; i <= steps; ++i) {
      fake_time += seconds_a_step;
      run.progress->update(config.first_step + i, 1, 10);
    }
    run.progress->finish();
    const auto lines = split(run.text(), '\n');
    return lines[lines.size() - 2];
  };
  Progress::Config config = file();
  config.seconds = 100;
  CHECK(contains(last_line(config, 40, 1), "1:00 left"));
  config.steps = 50;  // at a second each, they end first
  CHECK(contains(last_line(config, 40, 1), "0:10 left"));
  config.steps = 1000;
  CHECK(contains(last_line(config, 40, 1), "1:00 left"));

  // A resumed run: 500 steps and 30 seconds were before.
  config.first_step = 500;
  config.seconds_before = 30;
  CHECK(contains(last_line(config, 40, 1), "step 540/1000"));
  CHECK(contains(last_line(config, 40, 1), "0:30 left"));
  config.seconds = 0;
  CHECK(contains(last_line(config, 40, 1), "7:40 left"));  // 460 steps of a second

  Progress::Config endless = file();
  CHECK(contains(last_line(endless, 40, 1), "tokens/s  0:40"));  // no limit: the time gone
}

TEST_CASE("progress: the loss is a mean over recent steps, and a loss that is no number shows") {
  Run run(file());
  run.progress->update(1, 4, 1);
  CHECK(run.progress->mean_loss() == 4);
  run.progress->update(2, 2, 1);
  CHECK(run.progress->mean_loss() == 3);
  for (int i = 0; i < 1000; ++i) run.progress->update(3 + i, 1, 1);
  CHECK(std::abs(run.progress->mean_loss() - 1) < 1e-6);
  run.progress->update(2000, std::numeric_limits<double>::quiet_NaN(), 1);
  CHECK(std::isnan(run.progress->mean_loss()));
  run.progress->update(2001, 5, 1);
  CHECK(run.progress->mean_loss() == 5);
}

TEST_CASE("progress: tokens a second follow a change of speed") {
  Run run(file());
  int step = 0;
  for (int i = 0; i < 600; ++i) {
    fake_time += 0.1;
    run.progress->update(++step, 1, 1000);
  }
  CHECK(std::abs(run.progress->tokens_per_second() / 10000 - 1) < 1e-3);
  for (int i = 0; i < 300; ++i) {  // half as fast, for six time constants
    fake_time += 0.2;
    run.progress->update(++step, 1, 1000);
  }
  CHECK(std::abs(run.progress->tokens_per_second() / 5000 - 1) < 0.01);
}

TEST_CASE("progress: messages stand on lines of their own") {
  Progress::Config config = terminal(60);
  config.steps = 10;
  Run run(config);
  run.progress->message("before the first step");
  fake_time += 1;
  run.progress->update(1, 2, 10);
  run.progress->message("held out 2.345");
  run.progress->finish();
  const std::string text = run.text();
  CHECK(text.find("before the first step\n") == 0);
  CHECK(contains(text, "\r\x1b[Kheld out 2.345\n\r"));
  CHECK(text.back() == '\n');

  Run silent(config);  // nothing happened: nothing is shown
  silent.progress->finish();
  CHECK(silent.text().empty());
}

TEST_CASE("progress: updates allocate nothing") {
  for (const bool is_terminal : {false, true}) {
    Progress::Config config = is_terminal ? terminal(0, true) : file();
    config.steps = 1000;
    config.line_seconds = 0.5;
    Run run(config);
    fake_time += 1;
    run.progress->update(1, 2, 10);  // the stream gets its buffer
    const ordo_test::AllocationCount count;
    for (int i = 2; i <= 500; ++i) {
      fake_time += 0.3;
      run.progress->update(i, 2, 10);
      if (i % 100 == 0) run.progress->message("a message");
    }
    const std::size_t allocations = count.allocations();
    CHECK(allocations == 0);
  }
}

TEST_CASE("terminal: a file is none, and has no width") {
  std::FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  CHECK_FALSE(is_terminal(file));
  CHECK_FALSE(is_terminal(nullptr));
  CHECK(terminal_columns(file, 77) == 77);
  CHECK(terminal_columns(nullptr, 66) == 66);
  std::fclose(file);
}
