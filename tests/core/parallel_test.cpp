#include <atomic>
#include <stdexcept>
#include <thread>
#include <vector>

#include "ordo/core/parallel.hpp"
#include "support/catch.hpp"

using namespace ordo;

TEST_CASE("parallel_for visits everything once, in pieces cut by the grain alone") {
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    for (Index n : {0, 1, 7, 64, 1000}) {
      for (Index grain : {0, 1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<std::size_t>(n));
        std::atomic<bool> aligned{true};
        parallel_for(n, grain, [&](Index begin, Index end) {
          const Index g = grain < 1 ? 1 : grain;
          if (begin % g != 0 || (end != n && end - begin != g)) aligned = false;
          for (Index i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
        });
        CHECK(aligned);
        bool once = true;
        for (const auto& s : seen) once = once && s == 1;
        CHECK(once);
      }
    }
  }
  set_num_threads(1);
}

TEST_CASE("an exception of a piece reaches the caller, and the pool works on") {
  set_num_threads(3);
  for (int round = 0; round < 20; ++round) {
    CHECK_THROWS_AS(parallel_for(100, 1, [](Index i, Index) { if (i == 57) throw std::runtime_error("57"); }), std::runtime_error);
    std::atomic<Index> sum{0};
    parallel_for(100, 1, [&](Index i, Index) { sum += i; });
    CHECK(sum == 4950);
  }
  set_num_threads(1);
}

TEST_CASE("nested and concurrent calls work") {
  set_num_threads(3);
  std::atomic<int> count{0};
  parallel_for(10, 1, [&](Index, Index) { parallel_for(10, 1, [&](Index, Index) { ++count; }); });
  CHECK(count == 100);
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) parallel_for(20, 1, [&](Index, Index) { ++count; });
    });
  }
  for (auto& c : callers) c.join();
  CHECK(count == 100 + 4 * 50 * 20);
  set_num_threads(1);
}
