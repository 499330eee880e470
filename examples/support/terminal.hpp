#pragma once
/// \file
/// What is known about the terminal that a program writes to.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if __has_include(<sys/ioctl.h>) && __has_include(<unistd.h>)
#include <sys/ioctl.h>
#include <unistd.h>
#define ORDO_DEMO_HAS_TTY 1
#endif

namespace ordo_demo {

/// True when `stream` is a terminal on which a line can be redrawn.
inline bool is_terminal(std::FILE* stream) noexcept {
#if defined(ORDO_DEMO_HAS_TTY)
  if (stream == nullptr || isatty(fileno(stream)) == 0) return false;
  const char* term = std::getenv("TERM");
  return term != nullptr && *term != '\0' && std::strcmp(term, "dumb") != 0;
#else
  (void)stream;
  return false;
#endif
}

/// Width of the terminal behind `stream` in columns; `otherwise` when it is none or does not tell.
inline int terminal_columns(std::FILE* stream, int otherwise = 80) noexcept {
#if defined(ORDO_DEMO_HAS_TTY)
  winsize size{};
  if (stream != nullptr && ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
#else
  (void)stream;
#endif
  return otherwise;
}

/// True when the locale that the environment names is UTF-8.
inline bool utf8_locale() noexcept {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const char* value = std::getenv(name);
    if (value == nullptr || *value == '\0') continue;
    return std::strstr(value, "UTF-8") != nullptr || std::strstr(value, "utf8") != nullptr ||
           std::strstr(value, "utf-8") != nullptr;
  }
  return false;
}

}  // namespace ordo_demo
