// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <utility>
#include <variant>
#include <xtensor/xtensor.hpp>

#include "tercet/base/bytes.h"
#include "tercet/ring/word.h"

namespace tercet::ring {

/// Values of one layer for a whole batch, row-major: rows = features (C*H*W, in that order),
/// columns = images of the batch. The batch runs innermost, so every kernel vectorises over it.
/// Wiped when it is freed.
template <Word W>
using Matrix = xt::xtensor<W, 2, xt::layout_type::row_major, SecretAllocator<W>>;

/// An uninitialised matrix.
template <Word W>
Matrix<W> MakeMatrix(std::size_t rows, std::size_t cols) {
  return Matrix<W>::from_shape({rows, cols});
}

/// The product of words modulo 2^width: 16-bit words would be promoted to int, which can overflow.
template <Word W>
constexpr W Times(W x, W y) {
  return static_cast<W>(std::uint64_t{x} * y);
}

/// Elementwise product.
template <Word W>
Matrix<W> Times(const Matrix<W>& x, const Matrix<W>& y) {
  TERCET_CHECK(x.shape() == y.shape(), "elementwise product of matrices of different shapes");
  auto z = MakeMatrix<W>(x.shape()[0], x.shape()[1]);
  for (std::size_t i = 0; i < z.size(); ++i) z.data()[i] = Times(x.data()[i], y.data()[i]);
  return z;
}

/// A matrix over Z_{2^bits} whose word type is chosen at run time; what passes between layers.
class AnyMatrix {
 public:
  AnyMatrix() = default;
  template <Word W>
  AnyMatrix(Matrix<W> values, unsigned bits) : bits_(bits), values_(std::move(values)) {
    TERCET_CHECK(WordBytes(bits) == sizeof(W), "{} bits do not live in words of {} bytes", bits,
                 sizeof(W));
  }

  /// All zero, known as such to whoever sees it (public); takes no storage.
  static AnyMatrix Zero(unsigned bits) {
    AnyMatrix m;
    m.bits_ = bits;
    m.zero_ = true;
    return m;
  }

  unsigned Bits() const { return bits_; }
  std::size_t Rows() const {
    return std::visit([](const auto& m) { return m.shape()[0]; }, values_);
  }
  std::size_t Cols() const {
    return std::visit([](const auto& m) { return m.shape()[1]; }, values_);
  }
  /// Nothing is known of it (default constructed).
  bool Empty() const { return bits_ == 0; }
  bool IsZero() const { return zero_; }

  /// The same values modulo 2^bits, bits at most Bits(): shares in a ring are shares in every
  /// narrower one. What is not known stays so.
  AnyMatrix ToRing(unsigned bits) const {
    if (Empty()) return {};
    TERCET_CHECK(bits <= bits_, "a ring of {} bits is not within one of {}", bits, bits_);
    if (zero_) return Zero(bits);
    return DispatchWord(bits, [&]<Word W>(W) {
      return std::visit([&](const auto& m) { return AnyMatrix(Matrix<W>(xt::cast<W>(m)), bits); },
                        values_);
    });
  }

  /// The values as words of type W; throws InternalError when they are of another type.
  template <Word W>
  const Matrix<W>& As() const {
    const auto* m = std::get_if<Matrix<W>>(&values_);
    TERCET_CHECK(m != nullptr, "matrix of {} bits read as words of {} bytes", bits_, sizeof(W));
    return *m;
  }
  template <Word W>
  Matrix<W>& As() {
    return const_cast<Matrix<W>&>(std::as_const(*this).As<W>());
  }

 private:
  unsigned bits_ = 0;
  bool zero_ = false;
  std::variant<Matrix<std::uint8_t>, Matrix<std::uint16_t>, Matrix<std::uint32_t>,
               Matrix<std::uint64_t>>
      values_;
};

}  // namespace tercet::ring
