#include "allocation_counter.hpp"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <new>

// A sanitizer brings a malloc of its own, which must not be replaced; operator new may be.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ORDO_TEST_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define ORDO_TEST_SANITIZED 1
#endif
#endif

#if defined(__GLIBC__) && !defined(ORDO_TEST_SANITIZED)
#define ORDO_TEST_COUNTS_MALLOC 1
extern "C" {  // the allocator itself, under the names by which glibc exports it
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);
}
#endif

namespace ordo_test {
namespace {

// Constant-initialised: allocations happen before any constructor runs.
constinit std::atomic<std::size_t> allocations{0}, deallocations{0}, bytes_asked{0};

void* counted(void* block, std::size_t bytes) noexcept {
  if (block != nullptr) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    bytes_asked.fetch_add(bytes, std::memory_order_relaxed);
  }
  return block;
}

#if defined(ORDO_TEST_COUNTS_MALLOC)
void* take(std::size_t bytes) noexcept { return counted(__libc_malloc(bytes), bytes); }
void* take_aligned(std::size_t bytes, std::size_t alignment) noexcept {
  return counted(__libc_memalign(alignment, bytes), bytes);
}
void give(void* block) noexcept {
  if (block == nullptr) return;
  deallocations.fetch_add(1, std::memory_order_relaxed);
  __libc_free(block);
}
void give_aligned(void* block) noexcept { give(block); }
#else
void* take(std::size_t bytes) noexcept { return counted(std::malloc(bytes), bytes); }
void give(void* block) noexcept {
  if (block == nullptr) return;
  deallocations.fetch_add(1, std::memory_order_relaxed);
  std::free(block);
}
#if defined(_WIN32)
void* take_aligned(std::size_t bytes, std::size_t alignment) noexcept {
  return counted(_aligned_malloc(bytes, alignment), bytes);
}
void give_aligned(void* block) noexcept {
  if (block == nullptr) return;
  deallocations.fetch_add(1, std::memory_order_relaxed);
  _aligned_free(block);
}
#else
void* take_aligned(std::size_t bytes, std::size_t alignment) noexcept {
  void* block = nullptr;
  if (alignment < sizeof(void*)) alignment = sizeof(void*);
  if (posix_memalign(&block, alignment, bytes) != 0) block = nullptr;
  return counted(block, bytes);
}
void give_aligned(void* block) noexcept { give(block); }
#endif
#endif

// What operator new must do: never null for zero bytes, and the new-handler before giving up.
template <class Take>
void* take_or_handle(std::size_t bytes, Take take_bytes) {
  if (bytes == 0) bytes = 1;
  for (;;) {
    if (void* block = take_bytes(bytes)) return block;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
  }
}

void* new_block(std::size_t bytes) { return take_or_handle(bytes, take); }
void* new_block(std::size_t bytes, std::align_val_t alignment) {
  return take_or_handle(bytes,
                        [alignment](std::size_t n) { return take_aligned(n, static_cast<std::size_t>(alignment)); });
}

template <class... Args>
void* new_or_null(Args... args) noexcept {
  try {
    return new_block(args...);
  } catch (...) {
    return nullptr;
  }
}

}  // namespace

AllocationTotals allocation_totals() noexcept {
  return {allocations.load(std::memory_order_relaxed), deallocations.load(std::memory_order_relaxed),
          bytes_asked.load(std::memory_order_relaxed)};
}

bool counts_malloc() noexcept {
#if defined(ORDO_TEST_COUNTS_MALLOC)
  return true;
#else
  return false;
#endif
}

}  // namespace ordo_test

using namespace ordo_test;

void* operator new(std::size_t n) { return new_block(n); }
void* operator new[](std::size_t n) { return new_block(n); }
void* operator new(std::size_t n, std::align_val_t a) { return new_block(n, a); }
void* operator new[](std::size_t n, std::align_val_t a) { return new_block(n, a); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept { return new_or_null(n); }
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept { return new_or_null(n); }
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return new_or_null(n, a); }
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept { return new_or_null(n, a); }

void operator delete(void* p) noexcept { give(p); }
void operator delete[](void* p) noexcept { give(p); }
void operator delete(void* p, std::size_t) noexcept { give(p); }
void operator delete[](void* p, std::size_t) noexcept { give(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { give(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { give(p); }
void operator delete(void* p, std::align_val_t) noexcept { give_aligned(p); }
void operator delete[](void* p, std::align_val_t) noexcept { give_aligned(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { give_aligned(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { give_aligned(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { give_aligned(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept { give_aligned(p); }

#if defined(ORDO_TEST_COUNTS_MALLOC)
extern "C" {
void* malloc(std::size_t n) noexcept { return take(n); }
void* calloc(std::size_t n, std::size_t size) noexcept { return counted(__libc_calloc(n, size), n * size); }
void* realloc(void* p, std::size_t n) noexcept {  // one allocation and, of an old block, one deallocation
  if (p != nullptr) deallocations.fetch_add(1, std::memory_order_relaxed);
  return counted(__libc_realloc(p, n), n);
}
void* memalign(std::size_t alignment, std::size_t n) noexcept { return take_aligned(n, alignment); }
void* aligned_alloc(std::size_t alignment, std::size_t n) noexcept { return take_aligned(n, alignment); }
int posix_memalign(void** block, std::size_t alignment, std::size_t n) noexcept {
  if (alignment < sizeof(void*) || (alignment & (alignment - 1)) != 0) return EINVAL;
  void* taken = take_aligned(n, alignment);
  if (taken == nullptr) return ENOMEM;
  *block = taken;
  return 0;
}
void free(void* p) noexcept { give(p); }
}
#endif
