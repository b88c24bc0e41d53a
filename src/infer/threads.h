// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <string>

namespace tercet::infer {

/// The first error of threads that work together: the cause of those that come after it. Thread
/// safe.
class FirstError {
 public:
  /// `abort` is called with the error's text, once, so that whatever waits stops; it must not
  /// throw.
  explicit FirstError(std::function<void(const std::string& reason)> abort)
      : abort_(std::move(abort)) {}
  /// Does `work`, whose error is kept here.
  void Guard(const std::function<void()>& work);
  void ThrowIfAny() const;

 private:
  const std::function<void(const std::string&)> abort_;
  mutable std::mutex mutex_;
  std::exception_ptr cause_;
};

/// Does `work(0)` to `work(count - 1)` side by side, the first one in the caller's thread, and
/// waits for all. Throws the first error.
void InThreads(std::size_t count, FirstError& error, const std::function<void(std::size_t)>& work);

}  // namespace tercet::infer
