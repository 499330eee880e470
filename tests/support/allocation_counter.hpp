#pragma once
/// \file
/// Counts heap allocations. A program that links allocation_counter.cpp has its global operator new and delete (every
/// form) replaced by counting ones; with glibc and without a sanitizer also malloc and its relatives, so that
/// libraries that go round operator new (Eigen does) are seen too.

#include <cstddef>

namespace ordo_test {

/// Counts of the whole process, all threads together, since it started.
struct AllocationTotals {
  std::size_t allocations = 0;
  std::size_t deallocations = 0;
  std::size_t bytes = 0;  ///< asked for
};
AllocationTotals allocation_totals() noexcept;

/// True when malloc, calloc, realloc, aligned_alloc, ... are counted, not operator new alone.
bool counts_malloc() noexcept;

/// What was allocated, by any thread, since this object was made or restarted. Read it before an assertion, not inside:
/// the macros of a test framework allocate.
///
///     AllocationCount count;
///     layer.step(x, state);
///     const std::size_t allocations = count.allocations();
///     REQUIRE(allocations == 0);
class AllocationCount {
 public:
  AllocationCount() noexcept : start_(allocation_totals()) {}
  AllocationTotals since() const noexcept {
    const AllocationTotals now = allocation_totals();
    return {now.allocations - start_.allocations, now.deallocations - start_.deallocations, now.bytes - start_.bytes};
  }
  std::size_t allocations() const noexcept { return since().allocations; }
  void restart() noexcept { start_ = allocation_totals(); }

 private:
  AllocationTotals start_;
};

}  // namespace ordo_test
