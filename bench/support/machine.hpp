#pragma once
/// \file
/// What this machine can do, measured in the run that reports fractions of it.

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "ordo/simd/simd.hpp"

namespace ordo::bench {

inline double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The processor's name as the system gives it.
inline std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(std::min(line.size(), line.find(':') + 2));
  }
  return "unknown processor";
}

namespace detail {

template <class V, std::size_t... I>
[[gnu::noinline]] typename V::value_type multiply_adds(Index n, typename V::value_type x, std::index_sequence<I...>) {
  using T = typename V::value_type;
  V acc[sizeof...(I)] = {V(static_cast<T>(I))...};
  const V factor(x), term(T(1) - x);
  for (Index i = 0; i < n; ++i) ((acc[I] = simd::fma(acc[I], factor, term)), ...);
  V sum(T(0));
  ((sum = sum + acc[I]), ...);
  return simd::hsum(sum);
}

template <class V, std::size_t... I>
[[gnu::noinline]] float sum_of(const float* p, std::size_t n, std::index_sequence<I...>) {
  asm volatile("" : : "r"(p) : "memory");  // or the compiler sees that every call gives the same
  V acc[sizeof...(I)] = {V(static_cast<float>(I) * 0.0F)...};
  for (const float* end = p + n; p != end; p += sizeof...(I) * V::size) {
    ((acc[I] = acc[I] + V::load_aligned(p + I * V::size)), ...);
  }
  V sum(0.0F);
  ((sum = sum + acc[I]), ...);
  return simd::hsum(sum);
}

inline void keep(double value) {
  [[maybe_unused]] static volatile double sink;
  sink = value;
}

}  // namespace detail

/// FLOP/s of one core: independent multiply-adds on registers only, the best of several windows of `window` seconds.
template <class T, class Arch = simd::DefaultArch>
double measure_peak(double window = 0.02, int windows = 9) {
  using V = simd::Vec<T, Arch>;
  constexpr std::size_t chains = sizeof(V) == 64 ? 24 : 12;  // two pipes x five cycles at least, and registers to spare
  constexpr double flops = 2.0 * chains * static_cast<double>(V::size);
  volatile T factor = T(0.5);
  Index n = 1000;
  double best = 0;
  for (int i = 0; i < windows;) {
    const double start = seconds_now();
    detail::keep(static_cast<double>(detail::multiply_adds<V>(n, factor, std::make_index_sequence<chains>{})));
    const double taken = seconds_now() - start;
    if (taken < window / 2) {
      n *= 2;
      continue;
    }
    best = std::max(best, flops * static_cast<double>(n) / taken);
    ++i;
  }
  return best;
}

/// measure_peak, once in a run.
template <class T, class Arch = simd::DefaultArch>
double measured_peak() {
  static const double peak = measure_peak<T, Arch>();
  return peak;
}

/// Bytes per second that one core reads from `bytes` of memory, the best of several passes. Far beyond the caches by
/// default; with a smaller number, the bandwidth of the cache that holds it.
inline double measure_bandwidth(std::size_t bytes = std::size_t{512} << 20, int passes = 7) {
  using V = simd::Vec<float>;
  constexpr std::size_t unroll = 8, step = unroll * V::size;
  const std::size_t n = bytes / sizeof(float) / step * step;
  const auto free_block = [](float* p) { ::operator delete(p, std::align_val_t{4096}); };
  std::unique_ptr<float, decltype(free_block)> block(
      static_cast<float*>(::operator new(n * sizeof(float), std::align_val_t{4096})), free_block);
  std::fill(block.get(), block.get() + n, 1.0F);
  const std::size_t repeats = std::max<std::size_t>(1, (std::size_t{64} << 20) / bytes);
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    float sum = 0;
    const double start = seconds_now();
    for (std::size_t r = 0; r < repeats; ++r) {
      sum += detail::sum_of<V>(block.get(), n, std::make_index_sequence<unroll>{});
    }
    const double taken = seconds_now() - start;
    detail::keep(static_cast<double>(sum));
    best = std::max(best, static_cast<double>(n * sizeof(float) * repeats) / taken);
  }
  return best;
}

/// Bytes per second that one core reads from memory, measured once in a run.
inline double measured_bandwidth() {
  static const double bandwidth = measure_bandwidth();
  return bandwidth;
}

}  // namespace ordo::bench
