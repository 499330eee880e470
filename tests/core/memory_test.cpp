#include <cmath>
#include <limits>
#include <vector>

#include "ordo/core/denormals.hpp"
#include "ordo/core/memory.hpp"
#include "ordo/core/parallel.hpp"
#include "support/catch.hpp"

using namespace ordo;

TEST_CASE("the pool hands a freed block out again") {
  Pool& pool = Pool::instance();
  for (std::size_t bytes : {std::size_t{1}, std::size_t{64}, std::size_t{65}, std::size_t{1000}, std::size_t{4097}, std::size_t{1} << 20}) {
    void* p = pool.allocate(bytes);
    CHECK(reinterpret_cast<std::uintptr_t>(p) % memory_alignment == 0);
    std::fill_n(static_cast<char*>(p), bytes, char{1});
    pool.deallocate(p, bytes);
    const std::size_t before = pool.stats().system_allocations;
    void* q = pool.allocate(bytes);
    CHECK(q == p);
    CHECK(pool.stats().system_allocations == before);
    pool.deallocate(q, bytes);
  }
}

TEST_CASE("every size gets a block that holds it, and not much more") {
  Pool& pool = Pool::instance();
  for (std::size_t bytes = 1; bytes < 70000; bytes = bytes * 5 / 4 + 1) {
    const std::size_t before = pool.stats().bytes_in_use;
    void* p = pool.allocate(bytes);
    const std::size_t got = pool.stats().bytes_in_use - before;
    CHECK(got >= bytes);
    CHECK(got <= bytes + bytes / 4 + 64);
    pool.deallocate(p, bytes);
  }
}

TEST_CASE("the peak is the most that was in use") {
  Pool& pool = Pool::instance();
  pool.reset_peak();
  const std::size_t before = pool.stats().bytes_in_use;
  { Scratch<float> s(10000); }
  CHECK(pool.stats().bytes_in_use == before);
  CHECK(pool.stats().peak_bytes >= before + 40000);
  pool.trim();
  CHECK(pool.stats().bytes_reserved == pool.stats().bytes_in_use);
}

TEST_CASE("storage is shared and freed with its last owner") {
  const std::size_t before = Pool::instance().stats().bytes_in_use;
  {
    Storage a(100);
    CHECK(a.unique());
    Storage b = a;
    CHECK_FALSE(a.unique());
    CHECK(b.data() == a.data());
    a = Storage();
    CHECK(b.unique());
  }
  CHECK(Pool::instance().stats().bytes_in_use == before);
  CHECK_THROWS_AS(Storage(std::numeric_limits<std::size_t>::max() / 2), UsageError);
}

TEST_CASE("denormals are flushed inside the scope and come back after it") {
  volatile float tiny = std::numeric_limits<float>::min();
  CHECK(tiny / 4 > 0);
#if defined(__SSE2__) || defined(__aarch64__)
  {
    const FlushDenormals scope;
    volatile float quarter = tiny / 4;
    CHECK(quarter == 0);
  }
#endif
  volatile float after = tiny / 4;
  CHECK(after > 0);
}

TEST_CASE("memory: scratch of parallel pieces is taken for all threads at once") {
  set_num_threads(3);
  constexpr Index n = 5000;
  const auto work = [] {
    parallel_for(3, 1, [](Index, Index) {
      const Scratch<float> first(n), second(n);
      first[0] = second[0] = 1;
    });
  };
  // Whatever threads ran, and whether they overlapped: two blocks for each of three.
  const auto before = Pool::instance().stats().system_allocations;
  Pool::instance().trim();
  work();
  CHECK(Pool::instance().stats().system_allocations == before + 6);
  for (int i = 0; i < 50; ++i) work();
  CHECK(Pool::instance().stats().system_allocations == before + 6);
  set_num_threads(1);
}
