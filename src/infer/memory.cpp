// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

namespace tercet::infer {
namespace {

using Sizes = std::array<std::uint64_t, 3>;

constexpr std::uint64_t kProcess = std::uint64_t{24} << 20;  // code, libraries, TLS, small buffers
constexpr std::uint64_t kQueue = std::uint64_t{256} << 20;   // what waits to be sent or received

// Payload that each party receives.
Sizes Received(const mpc::Cost& cost, mpc::Phase phase) {
  Sizes bytes{};
  for (const auto& round : cost.Rounds(phase))
    for (const auto& message : round) bytes[static_cast<std::size_t>(message.to)] += message.bytes;
  return bytes;
}

std::uint64_t Words(std::uint64_t count, unsigned bits) {
  return count * ring::WordBytes(std::max(bits, 1U));
}

std::uint64_t Weights(const PlannedLayer& planned) {
  std::uint64_t weights = planned.layer.linear.WeightCount();
  if (planned.layer.shortcut && planned.layer.shortcut->linear)
    weights += planned.layer.shortcut->linear->WeightCount();
  return weights;
}

// Shares of weights as they are kept, and the two forms in which the linear map uses them; the
// owner has the integers besides, and where it multiplies in the clear, the weights as words.
std::uint64_t Model(const PlannedLayer& planned, bool owner) {
  const unsigned kept = owner && planned.multiplier ? 5 : 4;
  return Words(kept * Weights(planned), planned.activation.ring_bits) +
         (owner ? Weights(planned) * sizeof(std::int64_t) : 0);
}

// What the helper deals to a party.
std::uint64_t Dealt(const Plan& plan, const PlannedLayer& planned, std::size_t party) {
  if (!planned.dealt_output) return 0;
  std::uint64_t bytes = 0;
  for (const auto& round : planned.cost.Rounds(mpc::Phase::kOffline))
    for (const auto& message : round)
      if (message.from == plan.roles.helper && message.to == static_cast<int>(party))
        bytes += message.bytes;
  return bytes;
}

// What a party keeps of a layer between the phases.
Sizes Material(const Plan& plan, const PlannedLayer& planned) {
  const auto& spec = planned.activation;
  const std::uint64_t in = spec.in.Size() * plan.batch, out = spec.Out().Size() * plan.batch;
  const std::uint64_t common = Words(in, spec.ring_bits) + Words(2 * out, spec.out_bits);
  const Sizes received = Received(planned.cost, mpc::Phase::kOffline);
  // An evaluator that draws its part of a table from keys keeps as much as the other one receives.
  const std::uint64_t most = *std::max_element(received.begin(), received.end());
  Sizes bytes{};
  for (std::size_t p = 0; p < 3; ++p) {
    bytes[p] = common;
    // Elements of a fused layer, nearly all of it, are unpacked to words.
    if (planned.Activates() && static_cast<int>(p) != plan.roles.helper)
      bytes[p] += most + most / (planned.fused ? 1 : 4) + Words(in, spec.ring_bits);
    if (planned.Activates() && static_cast<int>(p) == plan.roles.helper) bytes[p] += received[p];
  }
  return bytes;
}

// What a layer needs while it runs, in either phase.
std::uint64_t Working(const Plan& plan, const PlannedLayer& planned) {
  const auto& spec = planned.activation;
  const auto& shape = planned.layer.linear;
  const std::uint64_t padded = shape.in.channels * (shape.in.height + shape.padding.Rows()) *
                               (shape.in.width + shape.padding.Columns()) * plan.batch;
  const std::uint64_t in = shape.in.Size() * plan.batch, values = spec.in.Size() * plan.batch,
                      out = spec.Out().Size() * plan.batch;
  return Words(2 * in + padded + 3 * values, spec.ring_bits) + 4 * values +
         Words(3 * out, spec.out_bits);
}

// All but images, and what waits to be sent or received.
Sizes Held(const Plan& plan, std::size_t queries, std::size_t running) {
  const Sizes material = EstimateMaterial(plan);
  Sizes model{}, bytes{};
  std::uint64_t working = 0;
  for (const auto& planned : plan.layers) {
    for (std::size_t p = 0; p < 3; ++p)
      model[p] += Model(planned, static_cast<int>(p) == plan.roles.model_owner);
    working = std::max(working, Working(plan, planned));
  }
  for (std::size_t p = 0; p < 3; ++p)
    bytes[p] = kProcess + model[p] + queries * material[p] + running * working;
  return bytes;
}

std::optional<std::uint64_t> NumberIn(const char* file, const std::string& key) {
  std::ifstream in(file);
  std::string name;
  std::uint64_t number = 0;
  if (key.empty()) return in >> number ? std::optional(number) : std::nullopt;
  for (std::string line; std::getline(in, line);)
    if (line.starts_with(key)) return std::strtoull(line.c_str() + key.size(), nullptr, 10);
  return std::nullopt;
}

std::uint64_t Left(std::uint64_t limit, std::uint64_t used) {
  return limit > used ? limit - used : 0;
}

}  // namespace

Sizes EstimateMaterial(const Plan& plan) {
  Sizes material{};
  material.fill(Words(2 * plan.network.input.shape.Size() * plan.batch, plan.input_bits));
  for (const auto& planned : plan.layers) {
    const Sizes kept = Material(plan, planned);
    for (std::size_t p = 0; p < 3; ++p) material[p] += kept[p];
  }
  return material;
}

Sizes EstimateMemory(const Plan& plan, std::size_t queries, std::size_t images,
                     std::size_t running) {
  const std::uint64_t pixels = plan.network.input.shape.Size();
  const auto total = plan.Total();
  const Sizes received = Received(total, mpc::Phase::kOffline);
  const Sizes online = Received(total, mpc::Phase::kOnline);
  Sizes bytes = Held(plan, queries, running);
  for (std::size_t p = 0; p < 3; ++p) {
    bytes[p] += std::min(kQueue, running * ((total.OfflineBytes()[p] + received[p]) / 4)) +
                std::min(kQueue, running * online[p]);
    if (static_cast<int>(p) == plan.roles.data_owner)
      bytes[p] += images * pixels + running * 2 * sizeof(std::int64_t) * pixels * plan.batch;
  }
  return bytes;
}

Sizes LeastMemory(const Plan& plan) {
  Sizes bytes{};
  const Sizes held = Held(plan, 1, 1);
  for (std::size_t p = 0; p < 3; ++p) {
    for (const auto& planned : plan.layers)
      bytes[p] +=
          Words(2 * Weights(planned), planned.activation.ring_bits) + Dealt(plan, planned, p);
    bytes[p] = std::max(bytes[p], held[p] / 2);
  }
  return bytes;
}

std::optional<AvailableMemory> MemoryAvailable() {
  std::optional<AvailableMemory> least;
  const auto consider = [&](std::uint64_t bytes, const char* limit) {
    if (!least || bytes < least->bytes) least = AvailableMemory{bytes, limit};
  };
  if (const auto kib = NumberIn("/proc/meminfo", "MemAvailable:"))
    consider(*kib * 1024, "the machine's available memory");
  for (const auto& [limit_file, used_file] :
       {std::pair{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
        std::pair{"/sys/fs/cgroup/memory/memory.limit_in_bytes",
                  "/sys/fs/cgroup/memory/memory.usage_in_bytes"}}) {
    const auto limit = NumberIn(limit_file, ""), used = NumberIn(used_file, "");
    if (limit && used) consider(Left(*limit, *used), "the limit of its control group");
  }
  rlimit space{};
  if (::getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY)
    consider(Left(space.rlim_cur, NumberIn("/proc/self/status", "VmSize:").value_or(0) * 1024),
             "the limit of its address space (ulimit -v)");
  return least;
}

std::string MemoryText(std::uint64_t bytes) {
  if (bytes < 1'000'000'000) return fmt::format("about {} MB", (bytes + 999'999) / 1'000'000);
  return fmt::format("about {:.1f} GB", static_cast<double>(bytes) / 1e9);
}

}  // namespace tercet::infer
