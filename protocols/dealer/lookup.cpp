#include "dealer/lookup.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "tercet/ring/kernels.h"
#include "tercet/ring/pack.h"

namespace tercet::protocols::dealer {

// 2 x 2 windows are looked up at once; larger ones row by row first, since a table doubles with
// every bit.
std::vector<OrStep> PoolSteps(const mpc::ActivationSpec& spec) {
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

Bytes OrRows(unsigned width, const Bits& rho) {
  Bytes rows(TableBytes(rho.size(), width));
  std::fill(rows.begin(), rows.end(), std::uint8_t{0});
  std::array<std::uint8_t, 32> any;  // OR as a table of 2^width bits: all but entry 0
  any.fill(0xff);
  any[0] = 0xfe;
  const Bits flip(rho.size(), 0);
  ring::ActiveKernels().xor_permuted_rows(rows.data(), any.data(), rho.data(), flip.data(),
                                          rho.size(), width);
  return rows;
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
Bytes DealArith(const ArithTable& table, const Bytes& rows, crypto::PrfStream& with_e1) {
  const std::size_t entries = table.Entries();
  Buffer<V> values(table.count * entries);
  with_e1.Draw(std::span<V>(values));
  const unsigned bits = std::min(8u, 1u << table.k);  // of a row that lie in one byte
  for (std::size_t i = 0; i < table.count; ++i) {
    const std::size_t row = i << table.k;
    V* value = values.data() + i * entries;
    for (std::size_t v = 0; v < std::size_t{1} << table.k; v += bits) {
      const unsigned byte = rows[(row + v) / 8] >> (row + v) % 8;
      for (std::size_t j = v == 0 ? table.first : 0; j < bits; ++j)
        value[v + j - table.first] = static_cast<V>((byte >> j & 1u) - value[v + j - table.first]);
    }
  }
  Bytes packed(ring::PackedBytes(values.size(), table.out_bits));
  ring::Pack(std::span<const V>(values), table.out_bits, std::span<std::uint8_t>(packed));
  return packed;
}

template <ring::Word V>
ring::Matrix<V> SelectMask(const ArithTable& table, std::span<const V> masks, const Bits& e,
                           std::size_t rows) {
  auto out = ring::MakeMatrix<V>(rows, table.count / rows);
  const std::size_t entries = table.Entries();
  for (std::size_t i = 0; i < table.count; ++i) {
    const V* mask = masks.data() + i * entries;
    V value = 0;
    if (e[i] >= table.first) {  // e is masked by rho: no secret
      value = mask[e[i] - table.first];
    } else {
      for (std::size_t j = 0; j < entries; ++j) value = static_cast<V>(value - mask[j]);
    }
    out.data()[i] = value;
  }
  return out;
}

template <ring::Word V>
ring::Matrix<V> SelectDealt(const ArithTable& table, const Bytes& dealt, const Bits& e,
                            std::size_t rows) {
  auto out = ring::MakeMatrix<V>(rows, table.count / rows);
  const std::size_t entries = table.Entries();
  const unsigned bits = table.out_bits;
  const std::uint8_t* packed = dealt.data();
  const std::size_t bytes = dealt.size();
  // One unaligned load serves where an element and the 7 bits before it fit in 8 bytes.
  const auto entry = [=, &dealt](std::size_t index) {
    const std::size_t at = index * bits;
    if (bits > 57 || at / 8 + 8 > bytes) [[unlikely]]
      return static_cast<V>(ring::UnpackOne(ByteSpan(dealt), bits, index));
    std::uint64_t word;
    std::memcpy(&word, packed + at / 8, sizeof word);
    if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
    return static_cast<V>(word >> at % 8 & ring::LowMask<std::uint64_t>(bits));
  };
  for (std::size_t i = 0; i < table.count; ++i) {
    V value = 0;
    if (e[i] >= table.first) {
      value = entry(i * entries + e[i] - table.first);
    } else {
      // The sum of all entries of an OR: all but one are 1.
      value = static_cast<V>(entries);
      for (std::size_t j = 0; j < entries; ++j)
        value = static_cast<V>(value - entry(i * entries + j));
    }
    out.data()[i] = value;
  }
  return out;
}

#define TERCET_DEALER_ARITH(V)                                                               \
  template Bytes DealArith<V>(const ArithTable&, const Bytes&, crypto::PrfStream&);          \
  template ring::Matrix<V> SelectMask<V>(const ArithTable&, std::span<const V>, const Bits&, \
                                         std::size_t);                                       \
  template ring::Matrix<V> SelectDealt<V>(const ArithTable&, const Bytes&, const Bits&,      \
                                          std::size_t);
TERCET_DEALER_ARITH(std::uint8_t)
TERCET_DEALER_ARITH(std::uint16_t)
TERCET_DEALER_ARITH(std::uint32_t)
TERCET_DEALER_ARITH(std::uint64_t)
#undef TERCET_DEALER_ARITH

}  // namespace tercet::protocols::dealer
