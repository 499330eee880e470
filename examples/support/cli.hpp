#pragma once
/// \file
/// Command lines of the examples: a table of options bound to variables, from which parsing, checks and --help follow.
///
///     CommandLine line("greet", "Greets people.");
///     line.group("What to say");
///     line.option("name", "NAME", name, "whom to greet");
///     line.option("times", "N", times, 1, 100, "how often");
///     if (!line.parse(argc, argv)) { std::fputs(line.help().c_str(), stdout); return 0; }
///
/// A wrong command line throws ordo::UsageError with one sentence; run_program() prints it and returns 2.

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "ordo/core/error.hpp"

namespace ordo_demo {

/// Text from outside, fit for a sentence: in quotes, unprintable bytes as \xHH, at most 60 bytes of it.
inline std::string in_quotes(std::string_view text) {
  constexpr std::size_t longest = 60;
  std::string out = "'";
  for (const char c : text.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 32 && byte != 127) {  // bytes of UTF-8 pass
      out += c;
    } else {
      constexpr char digits[] = "0123456789abcdef";
      out += {'\\', 'x', digits[byte / 16], digits[byte % 16]};
    }
  }
  return out + (text.size() > longest ? "...'" : "'");
}

/// A number as people write it: 16 or 0.001, never 16.000000.
template <class T>
std::string shown(T value) {
  if constexpr (std::integral<T>) {
    return std::to_string(value);
  } else {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.6g", static_cast<double>(value));
    return buffer;
  }
}

/// Edits (insert, delete, replace, swap of neighbours) from a to b: the restricted Damerau-Levenshtein distance.
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::swap(before_last, last);
    std::swap(last, row);
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] != b[j - 1] ? 1u : 0u)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
  }
  return row[b.size()];
}

/// The name that `word` was most likely meant to be: the only one it starts, or the nearest within a third of its
/// length; empty when there is none.
inline std::string closest(std::string_view word, const std::vector<std::string>& names) {
  if (word.size() >= 2) {
    const auto starts = [word](const std::string& name) { return name.starts_with(word); };
    if (std::count_if(names.begin(), names.end(), starts) == 1)
      return *std::find_if(names.begin(), names.end(), starts);
  }
  std::string best;
  std::size_t fewest = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& name : names) {
    const std::size_t edits = edit_distance(word.substr(0, 64), name);
    if (edits < fewest && edits < name.size()) {
      fewest = edits;
      best = name;
    }
  }
  return best;
}

/// The options of a program. Variables are bound by reference and keep their value when their option is not given: what
/// they hold when they are bound is the default that --help shows.
class CommandLine {
 public:
  CommandLine(std::string program, std::string summary) : program_(std::move(program)), summary_(std::move(summary)) {}

  /// Starts a titled group in --help.
  void group(std::string title) { rows_.push_back({.title = std::move(title)}); }

  /// Adds a line to the end of --help.
  void footer(std::string text) { footer_ += text + "\n"; }

  /// --name TEXT
  void option(std::string name, std::string value, std::string& target, std::string help) {
    add({.name = std::move(name),
         .value = value,
         .help = std::move(help),
         .kind = value,
         .default_value = target,
         .assign = [&target](std::string_view text) { target = text; }});
  }

  /// --name NUMBER, a whole number or a real one, from `low` to `high`.
  template <class T>
    requires(std::integral<T> || std::floating_point<T>)
  void option(std::string name, std::string value, T& target, std::type_identity_t<T> low, std::type_identity_t<T> high,
              std::string help) {
    const std::string range = "from " + shown(low) + " to " + shown(high);
    const std::string kind = (std::integral<T> ? "a whole number " : "a number ") + range;
    add({.name = name,
         .value = std::move(value),
         .help = std::move(help),
         .kind = kind,
         .default_value = shown(target),
         .assign = [=, &target](std::string_view text) {
           T number{};
           const Reading reading = read(text, number);
           if (reading == Reading::none)
             ordo::fail<ordo::UsageError>("--" + name + " needs " + kind + ", not " + in_quotes(text));
           if (reading == Reading::too_large || number < low || number > high) {
             ordo::fail<ordo::UsageError>("--" + name + " must be " + range + ", not " +
                                          std::string(text.substr(0, 40)));
           }
           target = number;
         }});
  }

  /// --name, without a value
  void flag(std::string name, bool& target, std::string help) {
    add({.name = std::move(name), .help = std::move(help), .assign = [&target](std::string_view) { target = true; }});
  }

  /// Reads the arguments; of an option given twice the last one counts. Returns false when --help was among them.
  /// \throws ordo::UsageError with one sentence about the first thing that is wrong.
  [[nodiscard]] bool parse(int argc, const char* const* argv) {
    const std::vector<std::string_view> arguments(argv + std::min(argc, 1), argv + argc);
    for (const std::string_view argument : arguments) {
      if (argument == "--help" || argument == "-h") return false;
    }
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      const std::string_view argument = arguments[i];
      if (!argument.starts_with("--") || argument == "--") refuse(argument);
      const std::size_t equals = argument.find('=');
      const bool attached = equals != std::string_view::npos;
      const std::string_view name = argument.substr(2, attached ? equals - 2 : equals);
      Row* row = find(name);
      if (row == nullptr) unknown("--", name);
      row->given = true;
      if (row->value.empty()) {
        if (attached) ordo::fail<ordo::UsageError>("--" + row->name + " takes no value");
        row->assign({});
      } else if (attached) {
        row->assign(argument.substr(equals + 1));
      } else {
        if (i + 1 == arguments.size() || is_option(arguments[i + 1])) {
          ordo::fail<ordo::UsageError>("--" + row->name + " needs a value: " + row->kind);
        }
        row->assign(arguments[++i]);
      }
    }
    return true;
  }

  /// True when the option stood on the command line that parse() read.
  bool given(std::string_view name) const {
    for (const Row& row : rows_) {
      if (row.name == name) return row.given;
    }
    ordo::fail<ordo::UsageError>("command line: there is no option --" + std::string(name));
  }

  /// The names of all options, without dashes, in order.
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const Row& row : rows_) {
      if (!row.name.empty()) all.push_back(row.name);
    }
    return all;
  }

  /// The text of --help, wrapped to `columns`.
  std::string help(int columns = 80) const {
    std::string out = "usage: " + program_ + " [options]\n\n";
    const auto width = static_cast<std::size_t>(std::clamp(columns, 40, 110));
    append_wrapped(out, summary_, 0, 0, width);
    std::size_t indent = 0;
    for (const Row& row : rows_) indent = std::max(indent, usage(row).size() + 4);
    indent = std::min(indent, width / 2);
    for (const Row& row : rows_) {
      if (!row.title.empty()) {
        out += "\n" + row.title + "\n";
        continue;
      }
      append_row(out, usage(row), full_help(row), indent, width);
    }
    out += "\n";
    append_row(out, "-h, --help", "show this text", indent, width);
    if (!footer_.empty()) out += "\n" + footer_;
    return out;
  }

 private:
  struct Row {
    std::string title = {};  // of a group; then nothing else is set
    std::string name = {}, value = {}, help = {}, kind = {}, default_value = {};
    std::function<void(std::string_view)> assign = {};
    bool given = false;
  };
  enum class Reading { none, number, too_large };

  void add(Row row) { rows_.push_back(std::move(row)); }

  Row* find(std::string_view name) {
    for (Row& row : rows_) {
      if (!row.name.empty() && row.name == name) return &row;
    }
    return nullptr;
  }

  bool is_option(std::string_view argument) {
    if (!argument.starts_with("--")) return false;
    return find(argument.substr(2, argument.find('=') - 2)) != nullptr;
  }

  [[noreturn]] void refuse(std::string_view argument) {
    if (argument.size() > 2 && argument[0] == '-' && std::isalpha(static_cast<unsigned char>(argument[1])) != 0) {
      unknown("-", argument.substr(1, argument.find('=') - 1));
    }
    ordo::fail<ordo::UsageError>("unexpected argument " + in_quotes(argument) + "; every option starts with --");
  }

  [[noreturn]] void unknown(std::string_view dashes, std::string_view name) {
    std::vector<std::string> known = names();
    known.push_back("help");
    if (name == "help") ordo::fail<ordo::UsageError>("--help takes no value");
    const std::string meant = closest(name, known);
    ordo::fail<ordo::UsageError>("unknown option " + in_quotes(std::string(dashes) + std::string(name)) +
                                 (meant.empty() ? "; --help lists the options" : "; did you mean --" + meant + "?"));
  }

  template <class T>
  static Reading read(std::string_view text, T& number) {
    if constexpr (std::integral<T>) {
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
      if (end != text.data() + text.size() || text.empty()) return Reading::none;
      if (error == std::errc::result_out_of_range) return Reading::too_large;
      return error == std::errc{} ? Reading::number : Reading::none;
    } else {
      // strtod, not from_chars: not every standard library has that for floating point. It would take more than
      // decimal numbers, so the characters are checked first.
      if (text.empty() || text.find_first_not_of("0123456789+-.eE") != std::string_view::npos) return Reading::none;
      const std::string copy(text);
      char* end = nullptr;
      const double value = std::strtod(copy.c_str(), &end);
      if (end != copy.c_str() + copy.size()) return Reading::none;
      if (!std::isfinite(value)) return Reading::too_large;
      number = static_cast<T>(value);
      return Reading::number;
    }
  }

  static std::string usage(const Row& row) {
    return row.title.empty() ? "--" + row.name + (row.value.empty() ? "" : " " + row.value) : std::string();
  }

  static std::string full_help(const Row& row) {
    return row.default_value.empty() ? row.help : row.help + " (default " + row.default_value + ")";
  }

  static void append_row(std::string& out, const std::string& left, const std::string& right, std::size_t indent,
                         std::size_t width) {
    out += "  " + left;
    std::size_t column = left.size() + 2;
    if (column + 2 > indent) {
      out += "\n";
      column = 0;
    }
    out.append(indent - column, ' ');
    append_wrapped(out, right, indent, indent, width);
  }

  /// Appends words from `column` on; further lines start at `indent`.
  static void append_wrapped(std::string& out, std::string_view text, std::size_t column, std::size_t indent,
                             std::size_t width) {
    bool first = true;
    while (!text.empty()) {
      const std::string_view word = text.substr(0, text.find(' '));
      text.remove_prefix(std::min(text.size(), word.size() + 1));
      if (!first && column + 1 + word.size() > width) {
        out += '\n';
        out.append(indent, ' ');
        column = indent;
        first = true;
      }
      if (!first) out += " ";
      out += word;
      column += word.size() + (first ? 0u : 1u);
      first = false;
    }
    out += "\n";
  }

  std::string program_, summary_, footer_;
  std::vector<Row> rows_;
};

/// Runs the body of main: its result, or 2 after one sentence on stderr when it throws.
template <class F>
int run_program(const char* program, F&& body) {
  const auto say = [program](const char* sentence) {
    std::fflush(stdout);
    std::fprintf(stderr, "%s: %s\n", program, sentence);
    return 2;
  };
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return say("not enough memory");
  } catch (const std::exception& e) {
    return say(e.what());
  }
}

}  // namespace ordo_demo
