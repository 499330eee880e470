#pragma once
/// \file
/// What is known about the machine that a program runs on.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <string>

#include "files.hpp"

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

namespace ordo_demo {

/// Bytes of memory that this process may use: those of the machine, or of its container when that has fewer; 0 when
/// unknown.
inline std::uint64_t memory_bytes() {
  std::uint64_t bytes = 0;
#if defined(_SC_PHYS_PAGES) && defined(_SC_PAGESIZE)
  const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page > 0) bytes = static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page);
#endif
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const File file(std::fopen(path, "r"));
    unsigned long long limit = 0;
    if (file && std::fscanf(file.get(), "%llu", &limit) == 1 && limit > 0) {
      bytes = bytes == 0 ? limit : std::min<std::uint64_t>(bytes, limit);
    }
  }
  return bytes;
}

/// 12 kB, 3.4 GB
inline std::string shown_bytes(double bytes) {
  const char* const units[] = {"bytes", "kB", "MB", "GB", "TB", "PB"};
  std::size_t unit = 0;
  while (bytes >= 999.5 && unit + 1 < std::size(units)) bytes /= 1000, ++unit;
  char buffer[64];
  std::snprintf(buffer, sizeof buffer, unit > 0 && bytes < 9.95 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
  return buffer;
}

}  // namespace ordo_demo
