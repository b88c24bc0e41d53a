// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>
#include <string>

#include "base/engine.h"
#include "programs/inputs.h"
#include "tercet/base/file_reader.h"
#include "tercet/infer/party_report.h"
#include "tercet/infer/shard.h"

/// --shard and --resume of `tercet run` and `tercet-party`.
namespace tercet::programs {

/// A report that may be there already.
inline constexpr FileKind kShardReport{"a report of a shard", std::uint64_t{4} << 30};

struct ShardOptions {
  std::optional<infer::Shard> shard;
  bool by_environment = false;  ///< every process has the same command line
  bool resume = false;

  std::size_t Index() const { return shard ? shard->index : 0; }
  /// `file` with the shard's number for "{shard}". ConfigError (--json) for one name for all where
  /// each process must have its own.
  std::filesystem::path ReportOf(const std::filesystem::path& file) const;
};

/// "I/N", or "auto" or "auto/N": the worker's number and how many there are, as an engine says
/// (RankByEngine; indexed jobs of Kubernetes do not say N). ConfigError (--shard) for anything
/// else, where nobody has told, and where the environment says another N.
ShardOptions ParseShard(const std::string& text, const Environment& environment);

/// Adds both. --resume needs `json`; material in files excludes shards.
void AddShard(CLI::App& app, ShardOptions& options, CLI::Option* json);

/// Keeps the images and labels of one shard. ConfigError (--shard) where there are more shards than
/// images.
void TakeShard(LabelledImages& data, const infer::Shard& shard);
/// SHA-256 in hex of shape, number and pixels.
std::string ImagesDigest(const files::Images& images);
/// "shard 1/3: images 4 to 6 of 10".
std::string ShardText(const infer::Shard& shard, std::size_t all_images);

/// Whether the report says as much of `part` as one of this run would: the same job, all logits
/// where `has_logits`, and with `labels`, where there are any, the accuracy over them.
bool IsDone(const infer::SessionReport& report, const infer::JobPart& part, bool has_logits,
            const std::vector<std::uint8_t>& labels);

}  // namespace tercet::programs
