// SPDX-License-Identifier: Apache-2.0
#include "mpc/activation_function.h"

#include <array>
#include <cmath>
#include <concepts>

namespace tercet::mpc {
namespace {

/// z / 2^shift, rounded down.
template <class T>
class Divide {
 public:
  explicit Divide(unsigned shift)
      : shift_(shift), factor_(std::ldexp(1.0F, -static_cast<int>(shift))) {}
  T operator()(T z) const {
    if constexpr (std::floating_point<T>) {
      return shift_ == 0 ? z : std::floor(z * static_cast<T>(factor_));
    } else {
      return z >> shift_;
    }
  }

 private:
  unsigned shift_;
  float factor_;  // a power of two, exact
};

/// Applies what `Function::On<T>(spec)` gives, a function of one number in T.
template <class Function>
class Applied : public ActivationFunction {
 public:
  using ActivationFunction::ActivationFunction;
  void Apply(const ActivationSpec& spec, std::span<std::int64_t> z) const final { Each(spec, z); }
  void Apply(const ActivationSpec& spec, std::span<float> z) const final { Each(spec, z); }
  void Apply(const ActivationSpec& spec, std::span<double> z) const final { Each(spec, z); }

 private:
  template <class T>
  static void Each(const ActivationSpec& spec, std::span<T> z) {
    const auto function = Function::template On<T>(spec);
    for (T& v : z) v = function(v);
  }
};

class None final : public Applied<None> {
 public:
  None() : Applied({.name = "none", .monotone = true}) {}
  template <class T>
  static auto On(const ActivationSpec& /*spec*/) {
    return [](T z) { return z; };
  }
  unsigned OutputBits(const ActivationSpec& spec) const override { return spec.value_bits; }
  Int128 Largest(const ActivationSpec& /*spec*/, Int128 /*low*/, Int128 high,
                 const std::string& /*where*/) const override {
    return high;
  }
  Int128 Deviation(const ActivationSpec& /*spec*/, Int128 off) const override { return off; }
};

class Sign final : public Applied<Sign> {
 public:
  Sign() : Applied({.name = "sign", .monotone = true, .scale_free = true}) {}
  template <class T>
  static auto On(const ActivationSpec& /*spec*/) {
    return [](T z) { return z >= 0 ? T{1} : T{0}; };
  }
  unsigned OutputBits(const ActivationSpec& /*spec*/) const override { return 2; }
  Int128 Largest(const ActivationSpec& /*spec*/, Int128 /*low*/, Int128 /*high*/,
                 const std::string& /*where*/) const override {
    return 1;
  }
  Int128 Deviation(const ActivationSpec& /*spec*/, Int128 off) const override {
    return std::min<Int128>(off, 1);
  }
};

/// What a quotient is off by where the value is off by `off`.
Int128 QuotientDeviation(const ActivationSpec& spec, Int128 off) {
  return (off + (Int128{1} << spec.shift) - 1) >> spec.shift;
}

class Relu final : public Applied<Relu> {
 public:
  Relu() : Applied({.name = "relu", .shift = ShiftRule::kDivides, .monotone = true}) {}
  template <class T>
  static auto On(const ActivationSpec& spec) {
    return [divide = Divide<T>(spec.shift)](T z) { return divide(std::max(z, T{0})); };
  }
  unsigned OutputBits(const ActivationSpec& spec) const override {
    return spec.value_bits - spec.shift;
  }
  Int128 Largest(const ActivationSpec& spec, Int128 /*low*/, Int128 high,
                 const std::string& /*where*/) const override {
    return std::max<Int128>(high, 0) >> spec.shift;
  }
  Int128 Deviation(const ActivationSpec& spec, Int128 off) const override {
    return QuotientDeviation(spec, off);
  }
  double Size(double /*low*/, double high) const override { return high; }
  double Unit(double step, double /*given*/) const override { return step; }
};

class Square final : public Applied<Square> {
 public:
  Square() : Applied({.name = "square", .shift = ShiftRule::kDivides}) {}
  template <class T>
  static auto On(const ActivationSpec& spec) {
    return [divide = Divide<T>(spec.shift)](T z) {
      const T root = divide(z);
      if constexpr (std::floating_point<T>) {
        return root * root;
      } else {
        // Unsigned, since squares of more than 32 bits wrap as they do in a ring of 64.
        const auto bits = static_cast<std::uint64_t>(root);
        return static_cast<T>(bits * bits);
      }
    };
  }
  unsigned OutputBits(const ActivationSpec& spec) const override {
    return 2 * (spec.value_bits - spec.shift);
  }
  Int128 Largest(const ActivationSpec& spec, Int128 low, Int128 high,
                 const std::string& where) const override {
    low >>= spec.shift;
    high >>= spec.shift;
    return std::max(Product(low, low, where), Product(high, high, where));
  }
  Int128 Deviation(const ActivationSpec& spec, Int128 off) const override {
    const Int128 quotient = QuotientDeviation(spec, off);
    return quotient * ((Int128{1} << (spec.value_bits - spec.shift)) + quotient);
  }
  // The square has 1.5 times as many bits.
  unsigned KeptBits(unsigned activation_bits) const override {
    return std::max(2U, activation_bits * 3 / 4);
  }
  double Unit(double step, double /*given*/) const override { return step * step; }
};

class Table final : public Applied<Table> {
 public:
  Table() : Applied({.name = "table", .shift = ShiftRule::kIndexes}) {}
  template <class T>
  static auto On(const ActivationSpec& spec) {
    return [&spec](T z) { return static_cast<T>(spec.Entry(static_cast<std::int64_t>(z))); };
  }
  unsigned OutputBits(const ActivationSpec& spec) const override {
    return static_cast<unsigned>(std::bit_width(static_cast<std::uint64_t>(Most(spec)))) + 1;
  }
  Int128 Largest(const ActivationSpec& spec, Int128 /*low*/, Int128 /*high*/,
                 const std::string& /*where*/) const override {
    return Most(spec);
  }
  Int128 Deviation(const ActivationSpec& spec, Int128 off) const override {
    const std::int64_t least = *std::min_element(spec.table.begin(), spec.table.end());
    return off == 0 ? 0 : Int128{Most(spec) - least};
  }

 private:
  static std::int64_t Most(const ActivationSpec& spec) {
    return *std::max_element(spec.table.begin(), spec.table.end());
  }
};

}  // namespace

const ActivationFunction& FunctionOf(ActivationKind kind) {
  static const None none;
  static const Sign sign;
  static const Relu relu;
  static const Square square;
  static const Table table;
  static const std::array<const ActivationFunction*, 5> functions{&none, &sign, &relu, &square,
                                                                  &table};
  return *functions.at(static_cast<std::size_t>(kind));
}

const char* ActivationName(ActivationKind kind) { return FunctionOf(kind).Name(); }

unsigned ActivationSpec::OutputBits() const { return FunctionOf(kind).OutputBits(*this); }

void ActivationSpec::Apply(std::span<std::int64_t> z) const { FunctionOf(kind).Apply(*this, z); }

}  // namespace tercet::mpc
