#include "programs/memory_check.h"

#include <algorithm>

#include "tercet/base/error.h"
#include "tercet/infer/memory.h"

namespace tercet::programs {
namespace {

constexpr std::uint64_t kEstimateFactor = 2;  // by which the estimate may be too large

}  // namespace

std::size_t MaterialHeld::Count() const {
  if (dealer_leaves) return queries;
  return ahead == 0 ? 1 : std::min(queries, ahead + 2);  // one runs and one is being made
}

std::array<std::uint64_t, 3> RunMemory(const std::vector<infer::Plan>& plans,
                                       const MaterialHeld& held, std::size_t images) {
  std::array<std::uint64_t, 3> sum{};
  for (const auto& plan : plans) {
    const auto bytes = infer::EstimateMemory(plan, held.Count(), images);
    for (std::size_t p = 0; p < 3; ++p) sum[p] += bytes[p];
  }
  return sum;
}

std::optional<std::string> CheckMemory(std::uint64_t needed, std::size_t batch,
                                       const MaterialHeld& held) {
  const auto available = infer::MemoryAvailable();
  if (!available || needed <= available->bytes) return std::nullopt;
  const std::size_t count = held.Count();
  auto text = fmt::format(
      "batches of {} images{} need {} of memory, and {} leaves {}; take smaller "
      "batches",
      batch, count > 1 ? fmt::format(", with material of {} at once,", count) : "",
      infer::MemoryText(needed), available->limit, infer::MemoryText(available->bytes));
  if (needed / kEstimateFactor > available->bytes) throw Error(text);
  return text;
}

}  // namespace tercet::programs
