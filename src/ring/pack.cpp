// SPDX-License-Identifier: Apache-2.0
#include "tercet/ring/pack.h"

#include "tercet/base/error.h"
#include "tercet/ring/kernels.h"

namespace tercet::ring {
namespace {

template <Word W>
void CheckSizes(std::size_t count, unsigned bits, std::size_t bytes) {
  TERCET_CHECK(bits >= 1 && bits <= kWordBits<W>, "{} bits do not fit in words of {} bytes", bits,
               sizeof(W));
  TERCET_CHECK(bytes == PackedBytes(count, bits),
               "{} elements of {} bits take {} bytes, the byte string has {}", count, bits,
               PackedBytes(count, bits), bytes);
}

}  // namespace

template <Word W>
void Pack(std::span<const W> values, unsigned bits, std::span<std::uint8_t> out) {
  CheckSizes<W>(values.size(), bits, out.size());
  const Kernels& kernels = ActiveKernels();
  if constexpr (sizeof(W) == 1) {
    kernels.pack8(values.data(), values.size(), bits, out.data());
  } else if constexpr (sizeof(W) == 2) {
    kernels.pack16(values.data(), values.size(), bits, out.data());
  } else if constexpr (sizeof(W) == 4) {
    kernels.pack32(values.data(), values.size(), bits, out.data());
  } else {
    kernels.pack64(values.data(), values.size(), bits, out.data());
  }
}

template <Word W>
void Unpack(std::span<const std::uint8_t> in, unsigned bits, std::span<W> values) {
  CheckSizes<W>(values.size(), bits, in.size());
  const Kernels& kernels = ActiveKernels();
  if constexpr (sizeof(W) == 1) {
    kernels.unpack8(in.data(), values.size(), bits, values.data());
  } else if constexpr (sizeof(W) == 2) {
    kernels.unpack16(in.data(), values.size(), bits, values.data());
  } else if constexpr (sizeof(W) == 4) {
    kernels.unpack32(in.data(), values.size(), bits, values.data());
  } else {
    kernels.unpack64(in.data(), values.size(), bits, values.data());
  }
}

template void Pack(std::span<const std::uint8_t>, unsigned, std::span<std::uint8_t>);
template void Pack(std::span<const std::uint16_t>, unsigned, std::span<std::uint8_t>);
template void Pack(std::span<const std::uint32_t>, unsigned, std::span<std::uint8_t>);
template void Pack(std::span<const std::uint64_t>, unsigned, std::span<std::uint8_t>);
template void Unpack(std::span<const std::uint8_t>, unsigned, std::span<std::uint8_t>);
template void Unpack(std::span<const std::uint8_t>, unsigned, std::span<std::uint16_t>);
template void Unpack(std::span<const std::uint8_t>, unsigned, std::span<std::uint32_t>);
template void Unpack(std::span<const std::uint8_t>, unsigned, std::span<std::uint64_t>);

}  // namespace tercet::ring
