// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>

#include "base/int128.h"
#include "tercet/mpc/spec.h"

namespace tercet::mpc {

/// What a layer does with its shift.
enum class ShiftRule : std::uint8_t {
  kNone,     ///< it has none
  kDivides,  ///< the values are divided by 2^shift, rounded down: any from 0 to value_bits - 1
  kIndexes,  ///< it leaves the index of the layer's table, in which all values must be proven to
             ///< lie
};

/// A function of one integer that suites compute, as all others must know it: those that choose
/// widths, prove bounds, evaluate in the clear or plan. One object a kind, all in
/// activation_function.cpp. Stateless; thread safe.
class ActivationFunction {
 public:
  struct Facts {
    const char* name;
    ShiftRule shift = ShiftRule::kNone;
    /// The largest result of a window is that of its largest value.
    bool monotone = false;
    /// Depends on the value's sign alone, so that a factor per channel changes nothing.
    bool scale_free = false;
  };

  explicit ActivationFunction(const Facts& facts) : facts_(facts) {}
  ActivationFunction(const ActivationFunction&) = delete;
  ActivationFunction& operator=(const ActivationFunction&) = delete;
  virtual ~ActivationFunction() = default;

  const char* Name() const { return facts_.name; }
  ShiftRule Shift() const { return facts_.shift; }
  bool Monotone() const { return facts_.monotone; }
  bool ScaleFree() const { return facts_.scale_free; }
  /// Whether what leaves it has a scale that follows from the layer's.
  bool FixedPoint() const { return facts_.shift != ShiftRule::kNone; }

  /// Replaces values by their results, without max-pool. Floating-point numbers stand for integers,
  /// or where the shift is 0 for any real number.
  virtual void Apply(const ActivationSpec& spec, std::span<std::int64_t> z) const = 0;
  virtual void Apply(const ActivationSpec& spec, std::span<float> z) const = 0;
  virtual void Apply(const ActivationSpec& spec, std::span<double> z) const = 0;

  /// Bits, sign included, that hold every result.
  virtual unsigned OutputBits(const ActivationSpec& spec) const = 0;
  /// The largest result for values from `low` to `high`; ConfigError (`where`) beyond 127 bits.
  virtual Int128 Largest(const ActivationSpec& spec, Int128 low, Int128 high,
                         const std::string& where) const = 0;
  /// By how much a result may be off, at most, where the value is off by `off`.
  virtual Int128 Deviation(const ActivationSpec& spec, Int128 off) const = 0;

  /// Of functions that divide. The size of values from `low` to `high`, as the shift depends on it.
  virtual double Size(double low, double high) const { return std::max(high, -low); }
  /// How many bits of the largest size the shift leaves where a ReLU's has `activation_bits`.
  virtual unsigned KeptBits(unsigned activation_bits) const { return activation_bits; }
  /// The real number that 1 stands for in the results where it stands for `step` in the divided
  /// values; `given` is what the layer says of itself.
  virtual double Unit(double /*step*/, double given) const { return given; }

 private:
  Facts facts_;
};

/// Lives as long as the program.
const ActivationFunction& FunctionOf(ActivationKind kind);

}  // namespace tercet::mpc
