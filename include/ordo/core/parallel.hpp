#pragma once
/// \file
/// parallel_for: the only way in which Ordo uses threads.
///
/// ORDO_PARALLEL_BACKEND chooses at compile time: 1 a small thread pool of our own (default), 2 OpenMP, 0 serial.
/// Pieces are cut by the grain alone, never by the number of threads, so results do not depend on it.

#ifndef ORDO_PARALLEL_BACKEND
#define ORDO_PARALLEL_BACKEND 1
#endif

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <type_traits>
#include <utility>

#include "ordo/core/extents.hpp"
#include "ordo/core/memory.hpp"

#if ORDO_PARALLEL_BACKEND == 1
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>
#elif ORDO_PARALLEL_BACKEND == 2
#include <omp.h>
#endif

namespace ordo {

namespace detail {

/// A reference to a callable void(Index); does not allocate.
class PieceFunction {
 public:
  template <class F>
  explicit PieceFunction(F& f) noexcept
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* o, Index i) { (*static_cast<F*>(o))(i); }) {}
  void operator()(Index i) const { call_(object_, i); }

 private:
  void* object_;
  void (*call_)(void*, Index);
};

inline bool inside_parallel() noexcept { return region_threads() > 0; }

#if ORDO_PARALLEL_BACKEND == 1
/// Workers that sleep between jobs. One job at a time; a second caller runs its pieces itself.
class ThreadPool {
 public:
  static ThreadPool& instance() {
    static ThreadPool pool;
    return pool;
  }

  void resize(int threads) {
    std::lock_guard job(job_mutex_);
    stop();
    threads_ = std::max(1, threads);
    for (int i = 1; i < threads_; ++i) workers_.emplace_back([this] { work(); });
  }
  int size() const noexcept { return threads_; }

  void run(Index pieces, PieceFunction f) {
    std::unique_lock job(job_mutex_, std::try_to_lock);
    if (!job.owns_lock() || workers_.empty()) {
      for (Index i = 0; i < pieces; ++i) f(i);
      return;
    }
    {
      std::lock_guard lock(mutex_);
      function_ = &f;
      pieces_ = pieces;
      next_.store(0, std::memory_order_relaxed);
      running_ = static_cast<int>(workers_.size());
      error_ = nullptr;
      ++generation_;
    }
    start_.notify_all();
    take_pieces(f, pieces);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

  ~ThreadPool() { stop(); }

 private:
  ThreadPool() = default;

  void take_pieces(const PieceFunction& f, Index pieces) {
    region_threads() = threads_;
    for (Index i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < pieces;) {
#if defined(__cpp_exceptions)
      try {
        f(i);
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
        next_.store(pieces, std::memory_order_relaxed);
      }
#else
      f(i);
#endif
    }
    region_threads() = 0;
  }
  void work() {
    std::uint64_t seen = 0;
    for (;;) {
      const PieceFunction* f = nullptr;
      Index pieces = 0;
      {
        std::unique_lock lock(mutex_);
        start_.wait(lock, [&] { return stopping_ || generation_ != seen; });
        if (stopping_) return;
        seen = generation_;
        f = function_;
        pieces = pieces_;
      }
      take_pieces(*f, pieces);
      std::lock_guard lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }
  void stop() {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    start_.notify_all();
    for (auto& worker : workers_) worker.join();
    workers_.clear();
    stopping_ = false;
    generation_ = 0;
  }

  std::vector<std::thread> workers_;
  int threads_ = 1;
  std::mutex job_mutex_, mutex_;
  std::condition_variable start_, done_;
  std::uint64_t generation_ = 0;
  const PieceFunction* function_ = nullptr;
  Index pieces_ = 0;
  std::atomic<Index> next_{0};
  int running_ = 0;
  bool stopping_ = false;
  std::exception_ptr error_;
};
#elif ORDO_PARALLEL_BACKEND == 2
inline int& openmp_threads() noexcept {
  static int threads = 1;
  return threads;
}
#endif

[[gnu::noinline]] inline void run_pieces(Index pieces, PieceFunction f) {  // rare, and called in many places
  if (pieces <= 1 || inside_parallel()) {
    for (Index i = 0; i < pieces; ++i) f(i);
    return;
  }
#if ORDO_PARALLEL_BACKEND == 1
  ThreadPool::instance().run(pieces, f);
#elif ORDO_PARALLEL_BACKEND == 2
  std::exception_ptr error;
#pragma omp parallel for schedule(dynamic, 1) num_threads(openmp_threads())
  for (Index i = 0; i < pieces; ++i) {
    region_threads() = openmp_threads();
    try {
      f(i);
    } catch (...) {
#pragma omp critical(ordo_parallel_error)
      error = std::current_exception();
    }
    region_threads() = 0;
  }
  if (error) std::rethrow_exception(error);
#else
  for (Index i = 0; i < pieces; ++i) f(i);
#endif
}

}  // namespace detail

/// How many threads parallel_for may use. One until set: a library does not take cores that nobody gave it.
inline void set_num_threads(int threads) {
#if ORDO_PARALLEL_BACKEND == 1
  detail::ThreadPool::instance().resize(threads);
#elif ORDO_PARALLEL_BACKEND == 2
  detail::openmp_threads() = std::max(1, threads);
#else
  static_cast<void>(threads);
#endif
}

inline int num_threads() noexcept {
#if ORDO_PARALLEL_BACKEND == 1
  return detail::ThreadPool::instance().size();
#elif ORDO_PARALLEL_BACKEND == 2
  return detail::openmp_threads();
#else
  return 1;
#endif
}

/// Calls f(begin, end) for the pieces [0, grain), [grain, 2 grain), ... of [0, n), in any order and on any thread.
/// An exception of a piece reaches the caller. Nested calls run in the thread that makes them.
template <class F>
void parallel_for(Index n, Index grain, F&& f) {
  if (n <= 0) return;
  grain = std::max<Index>(grain, 1);
  if (n <= grain) {
    f(Index{0}, n);
    return;
  }
  auto piece = [&](Index i) { f(i * grain, std::min(n, (i + 1) * grain)); };
  detail::run_pieces((n + grain - 1) / grain, detail::PieceFunction(piece));
}

}  // namespace ordo
