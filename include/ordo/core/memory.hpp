#pragma once
/// \file
/// Where memory comes from: a pool that keeps its blocks. Tensors made in a forward pass, gradients, tape nodes and the
/// scratch of kernels all take from it, so that a steady training loop or stream asks the system for nothing.

#include <array>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

#include "ordo/core/error.hpp"
#include "ordo/core/extents.hpp"

namespace ordo {

/// Every block starts at a multiple of this many bytes: a cache line, and the widest vector.
inline constexpr std::size_t memory_alignment = 64;

namespace detail {
/// How many threads share the parallel_for that this thread works for; 0 outside.
inline int& region_threads() noexcept {
  thread_local int threads = 0;
  return threads;
}
}  // namespace detail

/// Keeps freed blocks by size class (four classes to an octave) and hands them out again. Thread-safe.
class Pool {
 public:
  struct Stats {
    std::size_t bytes_in_use = 0;       ///< held by live tensors, nodes and scratch
    std::size_t peak_bytes = 0;         ///< the most that bytes_in_use has been since reset_peak()
    std::size_t bytes_reserved = 0;     ///< taken from the system, in use or kept
    std::size_t system_allocations = 0;  ///< how often the system was asked
  };

  /// The pool of the process. It lives as long as the process: statics may free into it at exit.
  static Pool& instance() {
    static Pool* pool = new Pool;
    return *pool;
  }

  [[gnu::noinline]] void* allocate(std::size_t bytes) {
    const std::size_t cls = class_of(bytes);
    Bin& bin = bins_[cls];
    void* block = nullptr;
    {
      std::lock_guard lock(bin.mutex);
      if (bin.first != nullptr) {
        block = bin.first;
        bin.first = *static_cast<void**>(block);
      }
    }
    const std::size_t size = class_bytes(cls);
    if (block == nullptr) block = take(size);
    const std::size_t now = in_use_.fetch_add(size, std::memory_order_relaxed) + size;
    std::size_t peak = peak_.load(std::memory_order_relaxed);
    while (now > peak && !peak_.compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
    }
    return block;
  }

  [[gnu::noinline]] void deallocate(void* block, std::size_t bytes) noexcept {
    if (block == nullptr) return;
    const std::size_t cls = class_of(bytes);
    in_use_.fetch_sub(class_bytes(cls), std::memory_order_relaxed);
    Bin& bin = bins_[cls];
    std::lock_guard lock(bin.mutex);
    *static_cast<void**>(block) = bin.first;
    bin.first = block;
  }

  /// A block that is given back by the same thread, in the same piece of a parallel_for. The first of its size takes one
  /// for each thread from the system: how many there are later does not depend on which threads happened to overlap.
  [[gnu::noinline]] void* allocate_scratch(std::size_t bytes) {
    if (const int threads = detail::region_threads(); threads > 1) {
      const std::size_t cls = class_of(bytes);
      const std::size_t needed = ++scratch_held()[cls] * static_cast<std::size_t>(threads);
      Bin& bin = bins_[cls];
      if (needed > bin.for_scratch.load(std::memory_order_relaxed)) provide(bin, cls, needed);
    }
    return allocate(bytes);
  }
  [[gnu::noinline]] void deallocate_scratch(void* block, std::size_t bytes) noexcept {
    if (detail::region_threads() > 1) --scratch_held()[class_of(bytes)];
    deallocate(block, bytes);
  }

  /// Gives all kept blocks back to the system.
  void trim() noexcept {
    for (std::size_t cls = 0; cls < class_count; ++cls) {
      void* block = nullptr;
      {
        std::lock_guard lock(bins_[cls].mutex);
        block = std::exchange(bins_[cls].first, nullptr);
        bins_[cls].for_scratch = 0;
      }
      while (block != nullptr) {
        void* next = *static_cast<void**>(block);
        ::operator delete(block, std::align_val_t{memory_alignment});
        reserved_.fetch_sub(class_bytes(cls), std::memory_order_relaxed);
        block = next;
      }
    }
  }

  Stats stats() const noexcept {
    return {in_use_.load(), peak_.load(), reserved_.load(), system_allocations_.load()};
  }
  void reset_peak() noexcept { peak_.store(in_use_.load()); }

 private:
  // Classes: 64 bytes * {4,5,6,7}/4 * 2^octave, rounded up to multiples of 64; at most a fifth of a block is unused.
  static constexpr std::size_t class_count = 4 * 44;
  struct Bin {
    std::mutex mutex;
    void* first = nullptr;
    std::atomic<std::size_t> for_scratch{0};  ///< blocks that were taken for the threads of a parallel_for
  };

  static std::array<std::uint16_t, class_count>& scratch_held() noexcept {
    thread_local std::array<std::uint16_t, class_count> held{};
    return held;
  }
  void provide(Bin& bin, std::size_t cls, std::size_t needed) {
    const std::size_t size = class_bytes(cls);
    std::lock_guard lock(bin.mutex);
    for (std::size_t n = bin.for_scratch.load(std::memory_order_relaxed); n < needed; ++n) {
      void* const block = take(size);
      *static_cast<void**>(block) = bin.first;
      bin.first = block;
      bin.for_scratch.store(n + 1, std::memory_order_relaxed);
    }
  }
  void* take(std::size_t size) {
    void* const block = ::operator new(size, std::align_val_t{memory_alignment});
    reserved_.fetch_add(size, std::memory_order_relaxed);
    system_allocations_.fetch_add(1, std::memory_order_relaxed);
    return block;
  }

  static constexpr std::size_t class_bytes(std::size_t cls) noexcept {
    const std::size_t bytes = ((cls % 4 + 4) << (cls / 4)) * (memory_alignment / 4);
    return (bytes + memory_alignment - 1) / memory_alignment * memory_alignment;
  }
  static std::size_t class_of(std::size_t bytes) {
    const std::size_t quarter = memory_alignment / 4;
    const std::size_t units = bytes == 0 ? 4 : (bytes - 1) / quarter + 1;  // in quarters of a line
    if (units <= 4) return 0;
    const auto octave = static_cast<std::size_t>(std::bit_width(units - 1)) - 3;
    const std::size_t mantissa = ((units - 1) >> octave) + 1;  // 5..8
    const std::size_t cls = octave * 4 + mantissa - 4;
    if (cls >= class_count) fail<UsageError>({"memory: a request of ", bytes, " bytes is too large"});
    return cls;
  }

  std::array<Bin, class_count> bins_;
  std::atomic<std::size_t> in_use_{0}, peak_{0}, reserved_{0}, system_allocations_{0};
};

/// Shared ownership of one block of the pool.
class Storage {
 public:
  Storage() noexcept = default;
  explicit Storage(std::size_t bytes) : header_(bytes == 0 ? nullptr : make(bytes)) {}
  Storage(const Storage& other) noexcept : header_(other.header_) {
    if (header_) header_->count.fetch_add(1, std::memory_order_relaxed);
  }
  Storage(Storage&& other) noexcept : header_(std::exchange(other.header_, nullptr)) {}
  Storage& operator=(Storage other) noexcept {
    std::swap(header_, other.header_);
    return *this;
  }
  ~Storage() {
    if (header_) release(header_);
  }

  explicit operator bool() const noexcept { return header_ != nullptr; }
  void* data() const noexcept { return header_ ? reinterpret_cast<std::byte*>(header_) + sizeof(Header) : nullptr; }
  bool unique() const noexcept { return header_ && header_->count.load(std::memory_order_acquire) == 1; }

 private:
  struct alignas(memory_alignment) Header {
    std::atomic<std::size_t> count;
    std::size_t bytes;
  };
  // Not inlined: tensors die in very many places.
  [[gnu::noinline]] static void release(Header* header) noexcept {
    if (header->count.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    const std::size_t bytes = header->bytes;
    header->~Header();
    Pool::instance().deallocate(header, bytes);
  }
  [[gnu::noinline]] static Header* make(std::size_t bytes) {
    if (bytes > std::numeric_limits<std::size_t>::max() / 4) fail<UsageError>("memory: a tensor is too large");
    const std::size_t all = bytes + sizeof(Header);
    return new (Pool::instance().allocate(all)) Header{{1}, all};
  }
  Header* header_ = nullptr;
};

/// A kernel's temporary buffer: n uninitialised elements from the pool, 64-byte aligned, given back at the end of the scope.
template <class T>
class Scratch {
  static_assert(std::is_trivially_copyable_v<T>, "Scratch holds plain numbers");

 public:
  explicit Scratch(Index n) : bytes_(static_cast<std::size_t>(n) * sizeof(T)) {
    data_ = static_cast<T*>(Pool::instance().allocate_scratch(bytes_));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { Pool::instance().deallocate_scratch(data_, bytes_); }
  T* data() const noexcept { return data_; }
  T& operator[](Index i) const noexcept { return data_[i]; }

 private:
  std::size_t bytes_;
  T* data_;
};

/// Lets standard containers take their memory from the pool.
template <class T>
struct PoolAllocator {
  using value_type = T;
  PoolAllocator() noexcept = default;
  template <class U>
  PoolAllocator(const PoolAllocator<U>&) noexcept {}  // NOLINT(google-explicit-constructor): as std::allocator
  T* allocate(std::size_t n) { return static_cast<T*>(Pool::instance().allocate(n * sizeof(T))); }
  void deallocate(T* p, std::size_t n) noexcept { Pool::instance().deallocate(p, n * sizeof(T)); }
  friend bool operator==(const PoolAllocator&, const PoolAllocator&) noexcept { return true; }
};

}  // namespace ordo
