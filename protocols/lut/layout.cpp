#include "lut/layout.h"

#include <algorithm>
#include <charconv>

#include "dealer/steps.h"
#include "tercet/ring/pack.h"

namespace tercet::protocols::lut {
namespace {

using mpc::ActivationSpec;
using mpc::SuiteChoice;

constexpr unsigned kMaxChunks = 4;      // 2 * 4 - 1 = 7 flags index the carry table
constexpr unsigned kMaxChunkWidth = 8;  // rows of 256 bits

std::vector<unsigned> Split(unsigned total, unsigned parts) {
  std::vector<unsigned> widths(parts);
  for (unsigned j = 0; j < parts; ++j) widths[j] = total / parts + (j < total % parts ? 1 : 0);
  return widths;
}

bool Possible(unsigned low_bits, unsigned chunks) {
  return chunks <= low_bits && (low_bits + chunks - 1) / chunks <= kMaxChunkWidth;
}

unsigned NumberOption(const SuiteChoice& choice, const std::string& value) {
  unsigned number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < 1 ||
      number > kMaxChunks)
    throw ConfigError("suite " + choice.Text(),
                      fmt::format("chunks={} found, 1..{} expected", value, kMaxChunks));
  return number;
}

}  // namespace

std::size_t Layout::BlockBytes(std::size_t count) const {
  std::size_t bytes = 0;
  for (std::size_t j = 0; j < chunks.size(); ++j)
    bytes += TableBytes(count, chunks[j]) * (j + 1 < chunks.size() ? 2 : 1);
  return arithmetic ? bytes : bytes + TableBytes(count, PackedBits());
}

std::size_t Layout::CompareBytes(std::size_t count) const {
  return count / kBlock * BlockBytes(kBlock) +
         (count % kBlock != 0 ? BlockBytes(count % kBlock) : 0);
}

std::vector<std::uint8_t> CarryTable(std::size_t chunks) {
  const std::size_t packed = 2 * chunks - 1;
  std::vector<std::uint8_t> table(((std::size_t{1} << packed) + 7) / 8);
  for (std::size_t v = 0; v < std::size_t{1} << packed; ++v) {
    std::size_t carry = v >> (2 * (chunks - 1)) & 1;  // greater of the least significant chunk
    for (std::size_t j = chunks - 1; j-- > 0;)
      carry = (v >> (2 * j) & 1) ^ ((v >> (2 * j + 1) & 1) & carry);
    table[v / 8] |= static_cast<std::uint8_t>(carry << (v % 8));
  }
  return table;
}

Layout MakeLayout(const ActivationSpec& spec, const SuiteChoice& choice) {
  if (spec.kind != mpc::ActivationKind::kSign)
    throw UnsupportedError(
        fmt::format("layer {}: suite lut has no {}; it has sign, and sign with max_pool2d",
                    spec.layer, mpc::ActivationName(spec.kind)));
  if (spec.value_bits < 2 || spec.value_bits > 1 + kMaxChunks * kMaxChunkWidth)
    throw UnsupportedError(fmt::format("layer {}: suite lut takes values of 2..{} bits, not {}",
                                       spec.layer, 1 + kMaxChunks * kMaxChunkWidth,
                                       spec.value_bits));
  if (spec.pool && spec.pool->kernel > dealer::kMaxWindow)
    throw UnsupportedError(fmt::format("layer {}: suite lut takes pools of up to {} x {}, not {}",
                                       spec.layer, dealer::kMaxWindow, dealer::kMaxWindow,
                                       spec.pool->kernel));
  unsigned chunks = 0;
  std::string form = "auto";
  for (const auto& [key, value] : choice.options) {
    if (key == "chunks" && value != "auto") {
      chunks = NumberOption(choice, value);
    } else if (key == "form" && (value == "arith" || value == "bit" || value == "auto")) {
      form = value;
    } else if (key != "chunks") {
      throw ConfigError(
          "suite " + choice.Text(),
          fmt::format("{}={} found; options are chunks=1..{}|auto and form=arith|bit|auto", key,
                      value, kMaxChunks));
    }
  }
  const unsigned low_bits = spec.value_bits - 1;
  Layout layout;
  // With an arithmetic table a layer takes 3 hops; it grows with 4^chunks ring elements, so only up
  // to 2 are worth it.
  const bool can_arith =
      !spec.pool &&
      (chunks != 0 ? Possible(low_bits, chunks) : Possible(low_bits, 1) || Possible(low_bits, 2));
  layout.arithmetic =
      !spec.pool && (form == "arith" || (form == "auto" && can_arith && chunks <= 2));
  if (!layout.arithmetic) layout.steps = dealer::PoolSteps(spec);
  const auto bytes_with = [&](unsigned q) {
    Layout candidate{Split(low_bits, q), layout.arithmetic, {}};
    return candidate.CompareBytes(kBlock) +
           (layout.arithmetic ? ring::PackedBytes(kBlock << candidate.PackedBits(), spec.out_bits)
                              : 0);
  };
  unsigned best = 0;
  for (unsigned q = 1; q <= kMaxChunks; ++q)
    if (Possible(low_bits, q) &&
        (chunks == 0 ? best == 0 || bytes_with(q) < bytes_with(best) : q == chunks))
      best = q;
  if (best == 0)
    throw UnsupportedError(
        fmt::format("layer {}: values of {} bits cannot be cut into {} chunks of 1..{} bits",
                    spec.layer, spec.value_bits, chunks, kMaxChunkWidth));
  layout.chunks = Split(low_bits, best);
  return layout;
}

mpc::Cost LayoutCost(const Layout& layout, const ActivationSpec& spec, const mpc::Roles& roles) {
  const std::size_t count = spec.Elements();
  mpc::Cost cost;
  dealer::AddOpenMasked(cost, spec, roles);
  dealer::AddDealt(cost, roles, layout.CompareBytes(count));
  dealer::AddExchange(cost, roles, count, layout.PackedBits());  // open_bits
  if (layout.arithmetic)
    dealer::AddDealt(cost, roles, ring::PackedBytes(count << layout.PackedBits(), spec.out_bits));
  dealer::AddOrSteps(cost, layout.steps, spec, roles);
  dealer::AddExchange(cost, roles, spec.Outputs(), spec.out_bits);  // reshare_evaluators
  return cost;
}

}  // namespace tercet::protocols::lut
