// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "tercet/base/bytes.h"
#include "tercet/mpc/archive.h"
#include "tercet/mpc/share.h"

/// Bit-sliced bits: 64 gates a machine word.
namespace tercet::mpc {

/// A matrix of bits: each row (plane) holds one bit of each of `Count()` elements, element e in bit
/// e % 64 of word e / 64. Bits of the last word that belong to no element are arbitrary; they are
/// cut off when packed. Not thread safe.
class Planes {
 public:
  Planes() = default;
  Planes(std::size_t rows, std::size_t count);

  std::size_t Rows() const { return rows_; }
  std::size_t Count() const { return count_; }
  std::size_t Words() const { return words_; }  ///< of a row
  std::uint64_t* operator[](std::size_t row) { return data_.data() + row * words_; }
  const std::uint64_t* operator[](std::size_t row) const { return data_.data() + row * words_; }
  std::span<std::uint64_t> All() { return data_; }

  void Visit(Archive& archive) {
    archive(rows_)(count_)(words_)(data_);
    if (words_ != count_ / 64 + (count_ % 64 != 0) ||
        (words_ == 0 ? !data_.empty()
                     : data_.size() / words_ != rows_ || data_.size() % words_ != 0))
      archive.Refuse("planes of another size than their bits");
  }

  Planes& operator^=(const Planes& other);  ///< Throws InternalError when sizes differ.

 private:
  std::size_t rows_ = 0, count_ = 0, words_ = 0;
  Buffer<std::uint64_t> data_;
};

/// Bits 0..rows-1 of each value, one plane each.
template <Word W>
Planes Slice(std::span<const W> values, unsigned rows);
/// `rows` planes, one after the other, of bytes that are 0 or 1; and one plane back.
Planes FromBytes(std::span<const std::uint8_t> bits, std::size_t rows = 1);
Buffer<std::uint8_t> ToBytes(const Planes& plane);

/// One row by itself.
Planes Row(const Planes& planes, std::size_t row);

/// The rows end to end, bit by bit: ceil(rows * count / 8) bytes, the bits past the last one zero.
Bytes Pack(const Planes& planes);
/// The inverse. Throws InternalError when `in` is of another size.
Planes Unpack(ByteSpan in, std::size_t rows, std::size_t count);

}  // namespace tercet::mpc
