// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "tercet/infer/plan.h"

namespace tercet::infer {

/// About how many bytes each party's process needs at most: shares of the model, material of
/// `queries` queries at once, activations and messages of the `running` that are under way, and
/// `images` images at their owner. Public like the plan. Of MnistNet1 and 3, LeNet and CifarNet2 in
/// batches of 8 to 1024 over loopback, a party needed 0.45 to 1.3 times as much; a helper that has
/// no part online 0.2 to 0.55 times, since its queue, which slow links fill, is counted.
std::array<std::uint64_t, 3> EstimateMemory(const Plan& plan, std::size_t queries,
                                            std::size_t images, std::size_t running = 1);

/// The part of that that is one query's material: about what each party keeps of it until the query
/// runs.
std::array<std::uint64_t, 3> EstimateMaterial(const Plan& plan);

/// How many bytes each party's process needs at the least, once its images are loaded: shares of
/// the model and what the helper deals to an evaluator, which is kept as it is, are exact; of the
/// whole estimate without what waits to be sent or received, which links may take at once, parties
/// needed more than half. Of material one query's alone counts: the online part may use up what is
/// ahead as fast as it is dealt.
std::array<std::uint64_t, 3> LeastMemory(const Plan& plan);

/// What this process may still take, and what says so: "the machine's available memory", "the
/// limit of its control group", "the limit of its address space (ulimit -v)".
struct AvailableMemory {
  std::uint64_t bytes = 0;
  std::string limit;
};
/// The least of the limits that this system tells; nothing where it tells none.
std::optional<AvailableMemory> MemoryAvailable();

/// "about 1.2 GB": for messages.
std::string MemoryText(std::uint64_t bytes);

}  // namespace tercet::infer
