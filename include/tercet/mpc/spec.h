// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tercet/base/party_id.h"

/// Shapes of layers, public to all parties.
namespace tercet::mpc {

/// Channels, height, width of one image's activations; a vector of n features is {n, 1, 1}.
struct Shape3 {
  std::size_t channels = 0, height = 1, width = 1;
  std::size_t Size() const { return channels * height * width; }
  bool operator==(const Shape3&) const = default;
};

/// "1 x 28 x 28". Thread safe.
std::string ShapeText(const Shape3& shape);

/// Something of the rows and of the columns of a map; one number stands for both.
struct PerAxis {
  std::size_t h = 1, w = 1;
  // NOLINTNEXTLINE(google-explicit-constructor): most networks have one number.
  constexpr PerAxis(std::size_t both) : h(both), w(both) {}
  constexpr PerAxis(std::size_t rows, std::size_t columns) : h(rows), w(columns) {}
  constexpr std::size_t Area() const { return h * w; }
  bool operator==(const PerAxis&) const = default;
};
/// "3 x 5". Thread safe.
std::string PerAxisText(const PerAxis& sizes);

/// Positions around a map, on each side; one number stands for all.
struct Sides {
  std::size_t top = 0, left = 0, bottom = 0, right = 0;
  // NOLINTNEXTLINE(google-explicit-constructor): most networks have one number.
  constexpr Sides(std::size_t all = 0) : top(all), left(all), bottom(all), right(all) {}
  constexpr Sides(std::size_t top_rows, std::size_t left_columns, std::size_t bottom_rows,
                  std::size_t right_columns)
      : top(top_rows), left(left_columns), bottom(bottom_rows), right(right_columns) {}
  constexpr std::size_t Rows() const { return top + bottom; }
  constexpr std::size_t Columns() const { return left + right; }
  constexpr bool None() const { return Rows() + Columns() == 0; }
  bool operator==(const Sides&) const = default;
};

/// Where a window of `kernel` stands on a map with positions around it, and moves on by `stride`.
/// The kernel fits.
constexpr Shape3 Slide(const Shape3& in, const PerAxis& kernel, const PerAxis& stride,
                       const Sides& padding, std::size_t channels) {
  return {channels, (in.height + padding.Rows() - kernel.h) / stride.h + 1,
          (in.width + padding.Columns() - kernel.w) / stride.w + 1};
}

/// A linear map: a convolution in general; a fully connected layer is a convolution over a
/// {features, 1, 1} input with a 1 x 1 kernel. Weights are stored as PyTorch does, out_channels x
/// (in_channels / groups) x kernel_h x kernel_w.
struct LinearShape {
  Shape3 in;
  std::size_t out_channels = 0;
  std::size_t kernel_h = 1, kernel_w = 1;
  PerAxis stride = 1;
  Sides padding = 0;
  std::size_t groups = 1;
  /// The bias has one value per output element instead of one per output channel.
  bool bias_per_element = false;

  Shape3 Out() const { return Slide(in, {kernel_h, kernel_w}, stride, padding, out_channels); }
  std::size_t Depth() const { return in.channels / groups * kernel_h * kernel_w; }
  std::size_t WeightCount() const { return out_channels * Depth(); }
  std::size_t BiasCount() const { return bias_per_element ? Out().Size() : out_channels; }
  std::size_t Macs() const { return Out().Size() * Depth(); }
  bool IsFullyConnected() const {
    return in.Size() == in.channels && kernel_h == 1 && kernel_w == 1 && stride == 1 &&
           padding.None() && groups == 1;
  }
  bool operator==(const LinearShape&) const = default;
};

/// Functions of one value z. In fixed point ReLU and square end with a division by 2^shift, rounded
/// down, which is exact: sign gives [z >= 0], relu max(z, 0) >> shift, square (z >> shift)^2. A
/// table gives its entry for z >> shift, whatever function that is.
enum class ActivationKind : std::uint8_t { kNone, kSign, kRelu, kSquare, kTable };
const char* ActivationName(ActivationKind kind);  ///< "none", "sign", "relu", "square", "table"
/// The widest index of a table: z >> shift has 2 to as many bits.
inline constexpr unsigned kMaxTableBits = 8;

/// Max-pool over windows. Positions around the map are less than all values: a window there has
/// only members inside it, and at least one.
struct PoolShape {
  PerAxis kernel = 2, stride = 2;
  Sides padding = 0;
  bool operator==(const PoolShape&) const = default;
};

/// What follows a linear map: an activation and perhaps a max-pool.
struct ActivationSpec {
  std::string layer;  ///< unique name of the layer within the network, e.g. "act1"
  ActivationKind kind = ActivationKind::kSign;
  unsigned shift = 0;             ///< of all but sign, less than value_bits
  Shape3 in;                      ///< shape of what enters the activation
  std::optional<PoolShape> pool;  ///< max-pool of the activation's output
  unsigned value_bits = 0;  ///< proven: values enter with -2^(value_bits-1) <= z < 2^(value_bits-1)
  unsigned ring_bits = 0;   ///< ring of the incoming shares; at least value_bits
  unsigned out_bits = 0;    ///< ring of the outgoing shares
  /// The helper knows its share of z offline: all shares that it holds are drawn from keys.
  bool dealt = true;
  std::size_t batch = 1;
  /// Of a table, 2^(value_bits - shift) entries of 0 or more: that for z >> shift =
  /// -2^(value_bits-shift-1) first. Public, as all of this is.
  std::vector<std::int64_t> table{};
  /// The fully connected map that takes in the output, and is alone in that: a suite may fuse the
  /// layer with it (ActivationPlan::fused).
  std::optional<LinearShape> next{};
  /// Where one evaluator alone multiplies what comes online (LinearPlan::multiplier): the other
  /// one, whose share of z is known offline as the helper's is.
  std::optional<PartyId> known_at{};
  /// Where one evaluator alone needs the output: that one. The half that the helper does not have
  /// need not reach the other one, and the half that this one has in common with the helper may be
  /// 0.
  std::optional<PartyId> only_to{};
  /// Both evaluators have the same share of z, and z is that plus the helper's: nothing is left to
  /// open. For suites that take it so (SuiteInfo::takes_opened).
  bool opened = false;

  /// Bits of a table's index.
  unsigned TableBits() const {
    return table.empty() ? 0 : static_cast<unsigned>(std::bit_width(table.size())) - 1;
  }
  /// The table's entry for a value; bits above the index do not count.
  std::int64_t Entry(std::int64_t z) const {
    const auto index = static_cast<std::uint64_t>(z >> shift) + table.size() / 2;
    return table[index % table.size()];
  }

  Shape3 Out() const {
    if (!pool) return in;
    return Slide(in, pool->kernel, pool->stride, pool->padding, in.channels);
  }
  /// Bits, sign included, that hold every value of the output.
  unsigned OutputBits() const;
  /// Replaces values by the activation's results, in the clear and without max-pool.
  void Apply(std::span<std::int64_t> z) const;
  std::size_t Elements() const { return in.Size() * batch; }
  std::size_t Outputs() const { return Out().Size() * batch; }
};

}  // namespace tercet::mpc
