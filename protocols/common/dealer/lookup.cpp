// SPDX-License-Identifier: Apache-2.0
#include "common/dealer/lookup.h"

#include <algorithm>
#include <array>

#include "tercet/mpc/windows.h"
#include "tercet/ring/kernels.h"

namespace tercet::protocols::dealer {

void CheckSpec(const mpc::ActivationSpec& spec, const std::string& suite, unsigned max_compared) {
  const auto refuse = [&](const std::string& problem) { throw mpc::Refusal(spec, suite, problem); };
  using mpc::ActivationKind;
  const bool sign = spec.kind == ActivationKind::kSign,
             square = spec.kind == ActivationKind::kSquare,
             table = spec.kind == ActivationKind::kTable;
  if (spec.kind == ActivationKind::kNone || (spec.pool && !sign) || (sign && spec.shift > 0))
    refuse(
        fmt::format("has no {}{}{}; it has sign, sign with max_pool2d, and relu, square and table "
                    "with any truncation",
                    mpc::ActivationName(spec.kind), spec.shift > 0 ? " with truncation" : "",
                    spec.pool ? " with max_pool2d" : ""));
  const unsigned most = table    ? std::min(max_compared + mpc::kMaxTableBits, ring::kMaxBits)
                        : square ? max_compared
                                 : max_compared + 1;
  if (spec.value_bits < 2 || spec.value_bits > most)
    refuse(fmt::format("takes values of 2..{} bits in {}, not {}", most,
                       mpc::ActivationName(spec.kind), spec.value_bits));
  if (spec.shift >= spec.value_bits)
    refuse(fmt::format("divides values of {} bits by 2^0..2^{}, not 2^{}", spec.value_bits,
                       spec.value_bits - 1, spec.shift));
  if (table && (spec.table.size() != std::size_t{1} << spec.TableBits() ||
                spec.TableBits() != spec.value_bits - spec.shift || spec.TableBits() < 2 ||
                spec.TableBits() > mpc::kMaxTableBits || spec.shift > max_compared))
    refuse(fmt::format(
        "looks up values of 2..{} bits, divided by up to 2^{}, in tables of as many entries as "
        "they may be, not values of {} bits divided by 2^{} in {} entries",
        mpc::kMaxTableBits, max_compared, spec.value_bits, spec.shift, spec.table.size()));
  if (spec.pool && std::max(spec.pool->kernel.h, spec.pool->kernel.w) > kMaxWindow)
    refuse(fmt::format("takes pools of up to {} x {}, not {}", kMaxWindow, kMaxWindow,
                       mpc::PerAxisText(spec.pool->kernel)));
}

Bytes PermutedRows(const BitFunction& f, unsigned k, std::span<const std::uint8_t> rho,
                   std::span<const std::uint8_t> flip) {
  TERCET_CHECK(f.size() == TableBytes(1, k) && flip.size() == rho.size(),
               "a function of {} bits in {} bytes, {} masks and {} flips", k, f.size(), rho.size(),
               flip.size());
  Bytes rows(TableBytes(rho.size(), k));
  std::fill(rows.begin(), rows.end(), std::uint8_t{0});
  ring::ActiveKernels().xor_permuted_rows(rows.data(), f.data(), rho.data(), flip.data(),
                                          rho.size(), k);
  return rows;
}

// 2 x 2 windows and single rows and columns are looked up at once; larger ones row by row first,
// since a table doubles with every bit.
std::vector<OrStep> PoolSteps(const mpc::ActivationSpec& spec, bool elements) {
  const auto out = spec.Out();
  const mpc::PerAxis& kernel = spec.pool->kernel;
  OrStep first;
  const bool at_once = kernel.Area() <= 4 || kernel.h == 1 || kernel.w == 1;
  first.width = static_cast<unsigned>(at_once ? kernel.Area() : kernel.w);
  first.elements = at_once && elements;
  mpc::PoolWindows(spec).ForEach([&](std::size_t, std::size_t, std::size_t input) {
    first.rows.push_back(static_cast<std::uint32_t>(input));
  });
  if (at_once) return {first};
  OrStep second;
  second.width = static_cast<unsigned>(kernel.h);
  second.elements = elements;
  second.rows.resize(out.Size() * kernel.h);
  for (std::size_t r = 0; r < second.rows.size(); ++r)
    second.rows[r] = static_cast<std::uint32_t>(r);
  return {first, second};
}

Bytes OrRows(unsigned width, std::span<const std::uint8_t> rho) {
  BitFunction any(TableBytes(1, width), 0xff);  // all but entry 0
  any[0] = 0xfe;
  return PermutedRows(any, width, rho, Bits(rho.size(), 0));
}

Bits GatherWindows(const OrStep& step, const Bits& bits, std::size_t batch) {
  Bits windows(step.OutRows() * batch);
  for (std::size_t o = 0; o < step.OutRows(); ++o) {
    std::uint8_t* out = windows.data() + o * batch;
    std::copy_n(bits.data() + step.rows[o * step.width] * batch, batch, out);
    for (unsigned i = 1; i < step.width; ++i) {
      const std::uint8_t* in = bits.data() + step.rows[o * step.width + i] * batch;
      for (std::size_t b = 0; b < batch; ++b) out[b] |= static_cast<std::uint8_t>(in[b] << i);
    }
  }
  return windows;
}

template <ring::Word V>
void SelectEntries(const EntryTable& table, std::span<const V> shares, const Bits& e, V total,
                   std::span<V> out) {
  const std::size_t dealt = table.Dealt();
  const V* row = shares.data();
  for (std::size_t i = 0; i < table.count; ++i, row += dealt) {
    V chosen = 0, sum = 0;
    for (std::size_t v = 1; v <= dealt; ++v) {
      // All ones where v is e.
      const V mask = static_cast<V>(V{0} - static_cast<V>(v == e[i]));
      sum = static_cast<V>(sum + row[v - 1]);
      chosen = static_cast<V>(chosen | (row[v - 1] & mask));
    }
    const V first = static_cast<V>(V{0} - static_cast<V>(e[i] == 0));
    out[i] = static_cast<V>(chosen | (static_cast<V>(total - sum) & first));
  }
}

// Bit by bit of the offset, the row turns by a power of two or not.
template <ring::Word V>
void RotatedEntries(std::span<const V> f, std::uint8_t offset, V* out) {
  std::array<V, std::size_t{1} << mpc::kMaxTableBits> row, turned;
  const std::size_t size = f.size();
  std::copy(f.begin(), f.end(), row.begin());
  for (unsigned bit = 0; std::size_t{1} << bit < size; ++bit) {
    const std::size_t by = std::size_t{1} << bit;
    const V turn = static_cast<V>(V{0} - static_cast<V>(offset >> bit & 1));
    std::rotate_copy(row.begin(), row.begin() + by, row.begin() + size, turned.begin());
    for (std::size_t v = 0; v < size; ++v)
      row[v] = static_cast<V>(row[v] ^ ((row[v] ^ turned[v]) & turn));
  }
  std::copy(row.begin() + 1, row.begin() + size, out);
}

// Rows are halved until one entry is left: the bits of e say which halves stay.
template <ring::Word V>
void SelectEntry(unsigned k, std::span<const V> rows, const Bits& e, std::span<V> out) {
  Buffer<V> left(std::size_t{1} << k);
  const V* row = rows.data();
  for (std::size_t i = 0; i < e.size(); ++i, row += left.size()) {
    const V* from = row;
    for (unsigned bit = k; bit-- > 0; from = left.data()) {
      const V upper = static_cast<V>(V{0} - static_cast<V>(e[i] >> bit & 1));
      const std::size_t half = std::size_t{1} << bit;
      for (std::size_t t = 0; t < half; ++t)
        left[t] = static_cast<V>(from[t] ^ ((from[t] ^ from[t + half]) & upper));
    }
    out[i] = *from;
  }
}

#define TERCET_DEALER_SELECT(V)                                                         \
  template void SelectEntries<V>(const EntryTable&, std::span<const V>, const Bits&, V, \
                                 std::span<V>);                                         \
  template void RotatedEntries<V>(std::span<const V>, std::uint8_t, V*);                \
  template void SelectEntry<V>(unsigned, std::span<const V>, const Bits&, std::span<V>);
TERCET_DEALER_SELECT(std::uint8_t)
TERCET_DEALER_SELECT(std::uint16_t)
TERCET_DEALER_SELECT(std::uint32_t)
TERCET_DEALER_SELECT(std::uint64_t)
#undef TERCET_DEALER_SELECT

}  // namespace tercet::protocols::dealer
