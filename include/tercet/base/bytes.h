// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace tercet {

/// Overwrites memory with zeros, also where nothing reads it afterwards and a compiler would drop
/// an ordinary store.
inline void WipeMemory(void* memory, std::size_t bytes) noexcept {
#ifdef __APPLE__  // has none
  ::memset(memory, 0, bytes);
  asm volatile("" : : "r"(memory) : "memory");
#else
  ::explicit_bzero(memory, bytes);
#endif
}

/// For buffers that may hold shares, tables or material: what is freed is wiped first, however the
/// buffer comes to its end, so that no secret outlives its use. Leaves trivially constructible
/// elements uninitialised, so that buffers of many megabytes that are about to be overwritten are
/// not cleared first.
template <class T>
struct SecretAllocator : std::allocator<T> {
  template <class U>
  struct rebind {  // NOLINT(readability-identifier-naming): name required by the standard
    using other = SecretAllocator<U>;  // NOLINT
  };
  SecretAllocator() = default;
  template <class U>
  SecretAllocator(const SecretAllocator<U>&) noexcept {}  // NOLINT: required by the standard
  void deallocate(T* p, std::size_t count) {              // NOLINT(readability-identifier-naming)
    WipeMemory(p, count * sizeof(T));
    std::allocator<T>::deallocate(p, count);
  }
  template <class U>
  void construct(U* p) {  // NOLINT(readability-identifier-naming)
    ::new (static_cast<void*>(p)) U;
  }
  template <class U, class... Args>
  void construct(U* p, Args&&... args) {  // NOLINT(readability-identifier-naming)
    ::new (static_cast<void*>(p)) U(std::forward<Args>(args)...);
  }
};

/// A vector whose `resize` does not clear, and whose memory is wiped when it is freed.
template <class T>
using Buffer = std::vector<T, SecretAllocator<T>>;

using Bytes = Buffer<std::uint8_t>;
using ByteSpan = std::span<const std::uint8_t>;

}  // namespace tercet
