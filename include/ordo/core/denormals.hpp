#pragma once
/// \file
/// Denormal numbers make a decaying state fifty times slower once a stream goes silent; flush them while streaming.

#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
#endif
#include <cstdint>

namespace ordo {

/// While it lives, this thread's arithmetic takes denormal inputs as zero and writes denormal results as zero
/// (x86: FTZ and DAZ; AArch64: FZ; elsewhere nothing happens). The old mode comes back at the end of the scope.
class FlushDenormals {
 public:
#if defined(__SSE2__) || defined(_M_X64)
  FlushDenormals() noexcept : old_(_mm_getcsr()) { _mm_setcsr(static_cast<unsigned>(old_) | 0x8040U); }
  ~FlushDenormals() { _mm_setcsr(static_cast<unsigned>(old_)); }
#elif defined(__aarch64__)
  FlushDenormals() noexcept {
    asm volatile("mrs %0, fpcr" : "=r"(old_));
    asm volatile("msr fpcr, %0" : : "r"(old_ | (std::uint64_t{1} << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" : : "r"(old_)); }
#else
  FlushDenormals() noexcept = default;
  ~FlushDenormals() {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  [[maybe_unused]] std::uint64_t old_ = 0;
};

}  // namespace ordo
