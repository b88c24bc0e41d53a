// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>

namespace tercet::serve {

/// How much of something clients may hold at once, in all and each. Thread safe. What is held may
/// outlive it.
class Bounds {
 public:
  Bounds(std::size_t total, std::size_t each) : state_(std::make_shared<State>(total, each)) {}

  /// Holds `amount` for `key` until the last copy of what it gives is gone; null where that would
  /// be too much.
  std::shared_ptr<const void> Take(const std::string& key, std::size_t amount) {
    return state_->Take(state_, key, amount);
  }
  std::size_t Held() const {
    const std::lock_guard lock(state_->mutex);
    return state_->held;
  }

 private:
  struct State {
    State(std::size_t total_, std::size_t each_) : total(total_), each(each_) {}
    static std::shared_ptr<const void> Take(const std::shared_ptr<State>& self,
                                            const std::string& key, std::size_t amount);
    void GiveBack(const std::string& key, std::size_t amount);

    const std::size_t total, each;
    std::mutex mutex;
    std::size_t held = 0;
    std::map<std::string, std::size_t> held_by;
  };
  std::shared_ptr<State> state_;
};

}  // namespace tercet::serve
