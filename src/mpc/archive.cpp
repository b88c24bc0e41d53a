// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/archive.h"

#include <algorithm>
#include <array>

#include "base/endian.h"

namespace tercet::mpc {

Archive::Archive(ByteSpan data, std::string place)
    : reading_(true), place_(std::move(place)), data_(data) {}

Archive& Archive::operator()(AnyMatrix& matrix) {
  // 0 bits: nothing known.
  std::uint32_t bits = matrix.Bits();
  (*this)(bits);
  std::uint8_t zero = matrix.IsZero() ? 1 : 0;
  (*this)(zero);
  if (bits > ring::kMaxBits || zero > 1) Fail("no matrix");
  if (bits == 0 || zero == 1) {
    if (reading_) matrix = bits == 0 ? AnyMatrix() : AnyMatrix::Zero(bits);
    return *this;
  }
  ring::DispatchWord(bits, [&]<Word W>(W) {
    std::uint64_t rows = reading_ ? 0 : matrix.Rows(), cols = reading_ ? 0 : matrix.Cols();
    (*this)(rows)(cols);
    if (reading_) {
      if (cols != 0 && rows > Left() / sizeof(W) / cols) Fail("a matrix larger than what is left");
      matrix = AnyMatrix(ring::MakeMatrix<W>(rows, cols), bits);
    }
    auto& values = matrix.As<W>();
    Raw({reinterpret_cast<std::uint8_t*>(values.data()), values.size() * sizeof(W)});
  });
  return *this;
}

void Archive::Finish() const {
  if (reading_ && Left() != 0) Fail(fmt::format("{} bytes more than its fields", Left()));
}

void Archive::Fail(const std::string& problem) const {
  throw ConfigError(place_, fmt::format("found {} at byte {}", problem, at_));
}

void Archive::Number(std::uint64_t& value) {
  std::array<std::uint8_t, 8> bytes{};
  if (!reading_) ToLittleEndian(value, bytes);
  Raw(bytes);
  value = FromLittleEndian(bytes);
}

void Archive::Raw(std::span<std::uint8_t> bytes) {
  if (!reading_) {
    written_.insert(written_.end(), bytes.begin(), bytes.end());
    return;
  }
  if (bytes.size() > Left()) Fail("its end, where more is expected,");
  std::copy_n(data_.begin() + static_cast<std::ptrdiff_t>(at_), bytes.size(), bytes.begin());
  at_ += bytes.size();
}

}  // namespace tercet::mpc
