// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

/// The helper's role rotates over the images of a batch: they are split into three groups, and
/// group g is computed with helper (roles.helper + g) mod 3, the other roles being the same. What
/// dealing costs is then spread over the parties.
namespace tercet::infer {

inline constexpr std::size_t kGroups = 3;

/// Images [first, first + count) of a batch.
struct GroupRange {
  std::size_t first = 0, count = 0;
};
/// Group `group` of a batch of `images`. The groups follow each other, and their sizes differ by at
/// most one, the first being the largest: with fewer than three images the last ones are empty.
inline GroupRange GroupOf(std::size_t images, std::size_t group) {
  const std::size_t each = images / kGroups, larger = images % kGroups;
  return {group * each + std::min(group, larger), each + (group < larger ? 1 : 0)};
}

}  // namespace tercet::infer
