// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>

namespace tercet::infer {

inline constexpr std::size_t kMaxShards = 1'000'000;

/// One of the parts into which the images of a job are cut, so that each part is a session of its
/// own. Thread safe.
struct Shard {
  std::size_t index = 0, count = 1;

  struct Range {
    std::size_t first = 0, size = 0;
  };
  /// Its part of `images` images: contiguous, in the order of the shards, and no two sizes differ
  /// by more than one, the larger ones first. Empty where there are more shards than images.
  Range Of(std::size_t images) const;
  /// "0/3" of three shards.
  std::string Text() const;
  bool operator==(const Shard&) const = default;
};

/// `text` with the shard's number in place of each "{shard}".
std::string ForShard(std::string text, std::size_t index);

/// What a session is told that takes one shard of a job. Its parties agree on shard and resumption.
struct ShardOfJob {
  Shard shard;
  /// At the owner of the images: how many there are in all shards.
  std::size_t all_images = 0;
  /// At the owners of model and images: 64 lower-case hex digits that are another for another model
  /// or other images (of all shards), and tell the other parties, who learn them, nothing else:
  /// crypto::KeyedTag.
  std::string model_tag, images_tag;
  /// To resume an interrupted job: whether this party has its results of this shard, of the job
  /// with this digest, already. Called in the thread of Session::Run once the parties agree. Where
  /// all three have them nothing is run. Empty: always run.
  std::function<bool(const std::string& job)> is_done;
};

}  // namespace tercet::infer
