// SPDX-License-Identifier: Apache-2.0
#include "serve/bounds.h"

#include <algorithm>

namespace tercet::serve {

std::shared_ptr<const void> Bounds::State::Take(const std::shared_ptr<State>& self,
                                                const std::string& key, std::size_t amount) {
  struct Hold {
    std::shared_ptr<State> state;
    std::string key;
    std::size_t amount;
    ~Hold() {
      if (state) state->GiveBack(key, amount);
    }
  };
  auto hold = std::make_shared<Hold>(Hold{nullptr, key, amount});
  const std::lock_guard lock(self->mutex);
  if (amount > self->total - self->held) return nullptr;
  const auto mine = self->held_by.find(key);
  const std::size_t before = mine == self->held_by.end() ? 0 : mine->second;
  if (amount > self->each - std::min(self->each, before)) return nullptr;
  self->held_by[key] = before + amount;
  self->held += amount;
  hold->state = self;
  return hold;
}

void Bounds::State::GiveBack(const std::string& key, std::size_t amount) {
  const std::lock_guard lock(mutex);
  held -= amount;
  const auto mine = held_by.find(key);
  mine->second -= amount;
  if (mine->second == 0) held_by.erase(mine);
}

}  // namespace tercet::serve
