#include "lut/layout.h"

#include <algorithm>
#include <charconv>
#include <limits>

#include "dealer/activation.h"
#include "tercet/ring/pack.h"

namespace tercet::protocols::lut {
namespace {

using mpc::ActivationKind;
using mpc::ActivationSpec;
using mpc::SuiteChoice;

constexpr unsigned kMaxChunks = 4;      // 2 * 4 - 1 = 7 flags index the carry table
constexpr unsigned kMaxChunkWidth = 8;  // rows of 256 bits
constexpr unsigned kMaxCompared = kMaxChunks * kMaxChunkWidth;
// What form=auto takes for a hop less; an arithmetic table grows with 4^chunks ring elements.
constexpr std::size_t kMaxAutoBytes = 256;

bool Possible(unsigned bits, unsigned chunks) {
  return bits == 0
             ? chunks == 0
             : 1 <= chunks && chunks <= bits && (bits + chunks - 1) / chunks <= kMaxChunkWidth;
}

void Split(unsigned total, unsigned parts, std::vector<unsigned>& widths) {
  for (unsigned j = 0; j < parts; ++j)
    widths.push_back(total / parts + (j < total % parts ? 1 : 0));
}

// Every way to cut `bits` bits, with a boundary above the lowest `low`, into pieces as equal as
// possible on either side.
std::vector<Layout> Cuts(unsigned bits, unsigned low) {
  std::vector<Layout> all;
  for (unsigned upper = 0; upper <= kMaxChunks; ++upper)
    for (unsigned lower = 0; upper + lower <= kMaxChunks; ++lower) {
      if (!Possible(bits - low, upper) || !Possible(low, lower)) continue;
      Layout layout;
      Split(bits - low, upper, layout.chunks);
      layout.low = upper;  // all of them where low = 0
      Split(low, lower, layout.chunks);
      all.push_back(std::move(layout));
    }
  return all;
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
  if (arithmetic) return bytes;
  bytes += TableBytes(count, PackedBits());
  return HasCarry() ? bytes + TableBytes(count, CarryPackedBits()) : bytes;
}

std::size_t Layout::CompareBytes(std::size_t count) const {
  return count / kBlock * BlockBytes(kBlock) +
         (count % kBlock != 0 ? BlockBytes(count % kBlock) : 0);
}

BitFunction CarryFunction(std::size_t chunks, std::size_t from) {
  const std::size_t packed = 2 * chunks - 1;
  BitFunction table(((std::size_t{1} << packed) + 7) / 8);
  for (std::size_t v = 0; v < std::size_t{1} << packed; ++v) {
    std::size_t carry = v >> (2 * (chunks - 1)) & 1;  // greater of the least significant chunk
    for (std::size_t j = chunks - 1; j-- > from;)
      carry = (v >> (2 * j) & 1) ^ ((v >> (2 * j + 1) & 1) & carry);
    table[v / 8] |= static_cast<std::uint8_t>(carry << (v % 8));
  }
  return table;
}

Layout MakeLayout(const ActivationSpec& spec, const SuiteChoice& choice) {
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
  dealer::CheckSpec(spec, "lut", 1 + kMaxCompared, kMaxCompared);
  const Formula formula(spec);
  const auto cuts_with = [&](unsigned low) {
    auto cuts = Cuts(formula.ComparedBits(), low);
    std::erase_if(cuts,
                  [&](const Layout& cut) { return chunks != 0 && cut.chunks.size() != chunks; });
    return cuts;
  };
  auto cuts = cuts_with(formula.CarryBits());
  if (cuts.empty()) {
    cuts = cuts_with(0);
    for (auto& cut : cuts) cut.apart = true;
  }
  if (cuts.empty())
    throw UnsupportedError(
        fmt::format("layer {}: {} compared bits of values of {} bits cannot be cut into {} chunks "
                    "of 1..{} bits",
                    spec.layer, formula.ComparedBits(), spec.value_bits, chunks, kMaxChunkWidth));

  // Bytes of kBlock elements.
  const auto bytes = [&](const Layout& cut) {
    const auto table = cut.Elements(formula, kBlock, spec.out_bits);
    return cut.CompareBytes(cut.Comparisons(kBlock)) +
           (cut.arithmetic ? ring::PackedBytes(kBlock * table.Dealt(), spec.out_bits) : 0);
  };
  const auto fewest = [&](bool arithmetic, std::size_t most_chunks, std::size_t most_bytes) {
    std::optional<Layout> best;
    for (Layout cut : cuts) {
      cut.arithmetic = arithmetic;
      if (arithmetic && cut.apart) continue;
      if (cut.chunks.size() > most_chunks || bytes(cut) > kBlock * most_bytes) continue;
      if (!best || bytes(cut) < bytes(*best)) best = std::move(cut);
    }
    return best;
  };
  constexpr std::size_t kAnyBytes = std::numeric_limits<std::size_t>::max() / kBlock;
  std::optional<Layout> layout;
  if (!spec.pool && form == "arith") layout = fewest(true, kMaxChunks, kAnyBytes);
  if (!spec.pool && form == "auto")
    layout = fewest(true, spec.kind == ActivationKind::kSign ? 2 : 3, kMaxAutoBytes);
  if (!layout) layout = fewest(false, kMaxChunks, kAnyBytes);
  return *layout;
}

mpc::Cost LayoutCost(const Layout& layout, const ActivationSpec& spec, const mpc::Roles& roles) {
  const std::size_t count = spec.Elements(), comparisons = layout.Comparisons(count);
  return dealer::ActivationCost(spec, roles, layout.arithmetic, [&](mpc::Cost& cost) {
    dealer::AddDealt(cost, roles, layout.CompareBytes(comparisons));
    dealer::AddExchange(cost, roles, comparisons, layout.PackedBits());  // open_bits
    if (layout.arithmetic) {
      const auto table = layout.Elements(Formula(spec), count, spec.out_bits);
      dealer::AddDealt(cost, roles, ring::PackedBytes(count * table.Dealt(), spec.out_bits));
    }
  });
}

}  // namespace tercet::protocols::lut
