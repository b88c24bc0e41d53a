#include "lut/layout.h"

#include <algorithm>
#include <charconv>

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

// 2 x 2 windows are looked up at once; larger ones row by row first, since a table doubles with
// every bit.
std::vector<OrStep> PoolSteps(const ActivationSpec& spec) {
  if (!spec.pool) {
    OrStep step;
    step.rows.resize(spec.in.Size());
    for (std::size_t r = 0; r < step.rows.size(); ++r) step.rows[r] = static_cast<std::uint32_t>(r);
    return {step};
  }
  const auto out = spec.Out();
  const std::size_t kernel = spec.pool->kernel;
  OrStep first;
  const bool at_once = kernel <= 2;
  first.width = static_cast<unsigned>(at_once ? kernel * kernel : kernel);
  first.last = at_once;
  for (std::size_t c = 0; c < out.channels; ++c)
    for (std::size_t oy = 0; oy < out.height; ++oy)
      for (std::size_t ox = 0; ox < out.width; ++ox)
        for (std::size_t dy = 0; dy < kernel; ++dy)
          for (std::size_t dx = 0; dx < kernel; ++dx)
            first.rows.push_back(static_cast<std::uint32_t>(
                (c * spec.in.height + oy * spec.pool->stride + dy) * spec.in.width +
                ox * spec.pool->stride + dx));
  if (at_once) return {first};
  OrStep second;
  second.width = static_cast<unsigned>(kernel);
  second.rows.resize(out.Size() * kernel);
  for (std::size_t r = 0; r < second.rows.size(); ++r)
    second.rows[r] = static_cast<std::uint32_t>(r);
  return {first, second};
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
  if (spec.pool && spec.pool->kernel > kMaxChunkWidth)
    throw UnsupportedError(fmt::format("layer {}: suite lut takes pools of up to {} x {}, not {}",
                                       spec.layer, kMaxChunkWidth, kMaxChunkWidth,
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
  if (!layout.arithmetic) layout.steps = PoolSteps(spec);
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
  const int dealer = roles.helper, e1 = roles.Evaluator1(), e2 = roles.Evaluator2();
  const std::size_t count = spec.Elements();
  mpc::Cost cost;
  const auto deal = [&](std::uint64_t bytes) {
    cost.Add(mpc::Phase::kOffline, {{dealer, e2, bytes}});
  };
  const auto exchange = [&](std::size_t elements, unsigned bits) {
    const std::uint64_t bytes = ring::PackedBytes(elements, bits);
    cost.Add(mpc::Phase::kOnline, {{e1, e2, bytes}, {e2, e1, bytes}});
  };
  if (!spec.dealt)
    cost.Add(mpc::Phase::kOnline, {{dealer, e1, ring::PackedBytes(count, spec.value_bits)}});
  deal(layout.CompareBytes(count));
  exchange(count, spec.value_bits);      // open_masked
  exchange(count, layout.PackedBits());  // open_bits
  if (layout.arithmetic) deal(ring::PackedBytes(count << layout.PackedBits(), spec.out_bits));
  for (const auto& step : layout.steps) {
    const std::size_t outputs = step.OutRows() * spec.batch;
    deal(step.last
             ? ring::PackedBytes(outputs * ((std::size_t{1} << step.width) - 1), spec.out_bits)
             : TableBytes(outputs, step.width));
    exchange(outputs, step.width);
  }
  exchange(spec.Outputs(), spec.out_bits);  // reshare_evaluators
  return cost;
}

}  // namespace tercet::protocols::lut
