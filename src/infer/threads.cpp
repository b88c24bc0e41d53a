// SPDX-License-Identifier: Apache-2.0
#include "infer/threads.h"

#include <thread>
#include <vector>

#include "tercet/base/error.h"

namespace tercet::infer {

void FirstError::Guard(const std::function<void()>& work) {
  try {
    work();
  } catch (const std::exception& e) {
    {
      const std::lock_guard lock(mutex_);
      if (cause_) return;
      cause_ = std::current_exception();
    }
    abort_(ErrorText(e));
  }
}

void FirstError::ThrowIfAny() const {
  const std::lock_guard lock(mutex_);
  if (cause_) std::rethrow_exception(cause_);
}

void InThreads(std::size_t count, FirstError& error, const std::function<void(std::size_t)>& work) {
  std::vector<std::jthread> threads;
  error.Guard([&] {
    for (std::size_t i = 1; i < count; ++i)
      threads.emplace_back([&, i] { error.Guard([&, i] { work(i); }); });
    if (count > 0) work(0);
  });
  threads.clear();  // waits for them
  error.ThrowIfAny();
}

}  // namespace tercet::infer
