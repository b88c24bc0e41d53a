// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/shard.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

namespace tercet::infer {

Shard::Range Shard::Of(std::size_t images) const {
  const std::size_t size = images / count, larger = images % count;
  return {index * size + std::min(index, larger), size + (index < larger ? 1 : 0)};
}

std::string Shard::Text() const { return fmt::format("{}/{}", index, count); }

std::string ForShard(std::string text, std::size_t index) {
  constexpr std::string_view kPlace = "{shard}";
  const std::string number = std::to_string(index);
  for (std::size_t at = text.find(kPlace); at != std::string::npos;
       at = text.find(kPlace, at + number.size()))
    text.replace(at, kPlace.size(), number);
  return text;
}

}  // namespace tercet::infer
