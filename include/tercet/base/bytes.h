#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace tercet {

/// Leaves trivially constructible elements uninitialised, so that buffers of many megabytes that
/// are about to be overwritten are not cleared first.
template <class T>
struct DefaultInitAllocator : std::allocator<T> {
  template <class U>
  struct rebind {  // NOLINT(readability-identifier-naming): name required by the standard
    using other = DefaultInitAllocator<U>;  // NOLINT
  };
  template <class U>
  void construct(U* p) {  // NOLINT(readability-identifier-naming)
    ::new (static_cast<void*>(p)) U;
  }
  template <class U, class... Args>
  void construct(U* p, Args&&... args) {  // NOLINT(readability-identifier-naming)
    ::new (static_cast<void*>(p)) U(std::forward<Args>(args)...);
  }
};

/// A vector whose `resize` does not clear.
template <class T>
using Buffer = std::vector<T, DefaultInitAllocator<T>>;

using Bytes = Buffer<std::uint8_t>;
using ByteSpan = std::span<const std::uint8_t>;

}  // namespace tercet
