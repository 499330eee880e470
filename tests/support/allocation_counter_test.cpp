#include "support/allocation_counter.hpp"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "support/catch.hpp"

using ordo_test::AllocationCount;

namespace {

// The compiler may remove a pair of new and delete that it can see through; it cannot see through this.
std::atomic<void*> sink{nullptr};
template <class T>
T* keep(T* p) {
  sink = p;
  return p;
}

struct alignas(128) Wide {
  double values[16];
};

}  // namespace

TEST_CASE("allocation counter: every form of operator new is counted once") {
  AllocationCount count;

  SECTION("nothing") {
    count.restart();
    const auto made = count.since();
    CHECK(made.allocations == 0);
    CHECK(made.deallocations == 0);
    CHECK(made.bytes == 0);
  }
  SECTION("plain") {
    count.restart();
    delete keep(new int(1));
    const auto made = count.since();
    CHECK(made.allocations == 1);
    CHECK(made.deallocations == 1);
    CHECK(made.bytes == sizeof(int));
  }
  SECTION("array") {
    count.restart();
    delete[] keep(new double[10]);
    const auto made = count.since();
    CHECK(made.allocations == 1);
    CHECK(made.deallocations == 1);
    CHECK(made.bytes == 10 * sizeof(double));
  }
  SECTION("nothrow") {
    count.restart();
    delete keep(new (std::nothrow) int(1));
    delete[] keep(new (std::nothrow) int[3]);
    const auto made = count.since();
    CHECK(made.allocations == 2);
    CHECK(made.deallocations == 2);
  }
  SECTION("aligned") {
    count.restart();
    Wide* one = keep(new Wide);
    Wide* many = keep(new Wide[3]);
    Wide* quiet = keep(new (std::nothrow) Wide);
    const auto made = count.since();
    const auto misplaced = (reinterpret_cast<std::uintptr_t>(one) | reinterpret_cast<std::uintptr_t>(many) |
                            reinterpret_cast<std::uintptr_t>(quiet)) %
                           alignof(Wide);
    count.restart();
    delete one;
    delete[] many;
    delete quiet;
    const auto freed = count.since();
    CHECK(misplaced == 0);
    CHECK(made.allocations == 3);
    CHECK(made.bytes == 5 * sizeof(Wide));
    CHECK(freed.deallocations == 3);
  }
  SECTION("containers and shared pointers") {
    count.restart();
    std::vector<int> v;
    v.reserve(100);
    keep(v.data());
    auto p = std::make_shared<int>(1);
    keep(p.get());
    const auto made = count.since();
    CHECK(made.allocations == 2);
  }
  SECTION("deleting null is no deallocation") {
    count.restart();
    int* volatile none = nullptr;
    delete none;
    const auto made = count.since();
    CHECK(made.deallocations == 0);
  }
}

TEST_CASE("allocation counter: a failed allocation throws or returns null and is not counted") {
  if (!ordo_test::counts_malloc()) return;  // a sanitizer ends the program at such a request
  AllocationCount count;
  const volatile std::size_t absurd = PTRDIFF_MAX;
  const bool quiet = ::operator new(absurd, std::nothrow) ==
                     nullptr&& ::operator new(absurd, std::align_val_t{64}, std::nothrow) == nullptr;
  bool threw = false;
  try {
    keep(::operator new(absurd));
  } catch (const std::bad_alloc&) {
    threw = true;
  }
  const auto made = count.since();
  CHECK(quiet);
  CHECK(threw);
  CHECK(made.bytes < 100'000);  // the exceptions' own memory
}

TEST_CASE("allocation counter: zero bytes give distinct pointers") {
  void* a = ::operator new(0);
  void* b = ::operator new(0);
  CHECK(a != nullptr);
  CHECK(a != b);
  ::operator delete(a);
  ::operator delete(b);
}

TEST_CASE("allocation counter: malloc and its relatives are counted where that is possible") {
  if (!ordo_test::counts_malloc()) return;
  AllocationCount count;
  void* a = std::malloc(10);
  sink = a;
  void* b = std::calloc(4, 8);
  sink = b;
  void* c = std::aligned_alloc(64, 128);
  sink = c;
  void* d = nullptr;
  const int status = posix_memalign(&d, 64, 100);
  auto made = count.since();
  REQUIRE(status == 0);
  CHECK(made.allocations == 4);
  CHECK(made.bytes == 10 + 32 + 128 + 100);
  CHECK(reinterpret_cast<std::uintptr_t>(c) % 64 == 0);
  CHECK(reinterpret_cast<std::uintptr_t>(d) % 64 == 0);
  int dirty = 0;
  for (int i = 0; i < 32; ++i) dirty |= static_cast<unsigned char*>(b)[i];
  CHECK(dirty == 0);

  count.restart();
  a = std::realloc(a, 1000);
  sink = a;
  made = count.since();
  CHECK(made.allocations == 1);
  CHECK(made.deallocations == 1);

  void* e = nullptr;
  const volatile std::size_t bad_alignment = 3;
  CHECK(posix_memalign(&e, bad_alignment, 100) != 0);
  std::free(a);
  std::free(b);
  std::free(c);
  std::free(d);
}

TEST_CASE("allocation counter: counts of several threads add up") {
  constexpr std::size_t threads = 4, each = 1000;
  AllocationCount count;
  {
    std::vector<std::thread> pool;
    pool.reserve(threads);
    for (std::size_t t = 0; t < threads; ++t) {
      pool.emplace_back([] {
        for (std::size_t i = 0; i < each; ++i) delete keep(new int(1));
      });
    }
    for (std::thread& t : pool) t.join();
  }
  const auto made = count.since();
  CHECK(made.allocations >= threads * each);
  // What is over belongs to the threads: the vector, and for each its closure and the bookkeeping of its stack.
  CHECK(made.allocations <= threads * each + 1 + 8 * threads);
}
