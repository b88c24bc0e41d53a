// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>

#include "suites/cbnn/msb.h"
#include "tercet/mpc/registry.h"
#include "tercet/mpc/windows.h"

namespace tercet::protocols::cbnn {

namespace {

using mpc::Activation;
using mpc::ActivationKind;
using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::AnyShare;
using mpc::Cost;
using mpc::Roles;

/// Machine words of 16 bits or more.
constexpr std::array<unsigned, 3> kRings{16, 32, 64};

/// The smallest that leaves room for r.
constexpr unsigned SmallestRing(unsigned value_bits) {
  return *std::find_if(kRings.begin(), kRings.end(), [&](unsigned ring_bits) {
    return value_bits + 1 + kMinMaskBits <= ring_bits;
  });
}

/// P0 of all conversions. P1, which offers the transfers, should be the party to which u is opened
/// last, so that a query's longest chain of messages runs through every layer's hops: the one
/// before the evaluator that gets the input.
int FirstParty(const Roles& roles) {
  const int input_taker = 3 - roles.helper - roles.data_owner;
  return NextParty(input_taker);
}

/// Value width of a window's sum minus 1, which lies in -1 .. kernel's area - 1.
unsigned SumBits(const mpc::PoolShape& pool) {
  return static_cast<unsigned>(std::bit_width(pool.kernel.Area() - 1)) + 1;
}

/// The sum of each window, rows being channel, height, width.
template <Word W>
Matrix<W> SumWindows(const ActivationSpec& spec, const Matrix<W>& x) {
  const std::size_t batch = x.shape()[1];
  Matrix<W> sums = xt::zeros<W>({spec.Out().Size(), batch});
  mpc::PoolWindows(spec).ForEach([&](std::size_t output, std::size_t, std::size_t input) {
    W* to = sums.data() + output * batch;
    const W* from = x.data() + input * batch;
    for (std::size_t i = 0; i < batch; ++i) to[i] += from[i];
  });
  return sums;
}

struct CbnnCorrelation final : mpc::Correlation {
  SignMask sign;
  SignMask pool;  ///< of the second Sign, where there is one

  void Visit(mpc::Archive& archive) override { archive(sign)(pool); }
};

/// s * x by two transfers side by side (Algorithm 5): s * (x_1 + x_2) from P1, s * x_0 from P2.
class BitTimesShare {
 public:
  BitTimesShare(Party& party, int p0, const std::string& purpose)
      : first_(party, p0, purpose + "/x1x2"), second_(party, NextParty(p0), purpose + "/x0") {}

  /// 3 hops, 8 * bits per element. `x` may come from a wider ring of the same word type or be
  /// reduced already.
  template <Word W>
  ArithShare<W> Run(Context& ctx, const BitShare& s, const ArithShare<W>& x) {
    const std::size_t rows = x.mine.shape()[0], cols = x.mine.shape()[1];
    Matrix<W> factor = ring::MakeMatrix<W>(0, 0);
    if (first_.AtSender(ctx)) factor = x.mine + x.next;
    if (second_.AtSender(ctx)) factor = x.next;
    // Every stage for both, so that they share the hops.
    first_.Offer(ctx, s, factor, rows, cols, x.bits);
    second_.Offer(ctx, s, factor, rows, cols, x.bits);
    first_.Forward<W>(ctx, s, rows, cols, x.bits);
    second_.Forward<W>(ctx, s, rows, cols, x.bits);
    first_.Take<W>(ctx, s, rows, cols, x.bits);
    second_.Take<W>(ctx, s, rows, cols, x.bits);
    const auto sum = first_.Finish<W>(ctx, rows, cols, x.bits);
    return Add(sum, second_.Finish<W>(ctx, rows, cols, x.bits));
  }

 private:
  BitTimes first_, second_;
};

/// Sign (Algorithm 4), Sign with max-pool, and ReLU (Algorithm 5).
class CbnnActivation final : public Activation {
 public:
  CbnnActivation(Party& party, const ActivationSpec& spec, const Roles& roles)
      : spec_(spec), reshare_(party, Purpose("reshare")) {
    const int p0 = FirstParty(roles);
    msb_.emplace(party, p0, spec.ring_bits, spec.value_bits, Purpose("msb"));
    if (spec.kind == ActivationKind::kRelu) {
      relu_.emplace(party, p0, Purpose("relu"));
    } else {
      to_arith_.emplace(party, p0, Purpose("b2a"));
    }
    if (spec.pool) {
      pool_bits_ = SumBits(*spec.pool);
      pool_msb_.emplace(party, p0, SmallestRing(pool_bits_), pool_bits_, Purpose("pool_msb"));
      pool_to_arith_.emplace(party, p0, Purpose("pool_b2a"));
    }
  }

  std::unique_ptr<mpc::Correlation> Prepare(Context& ctx, std::size_t batch) override {
    auto correlation = std::make_unique<CbnnCorrelation>();
    correlation->sign = msb_->Prepare(ctx, spec_.in.Size(), batch);
    if (spec_.pool) correlation->pool = pool_msb_->Prepare(ctx, spec_.Out().Size(), batch);
    return correlation;
  }

  std::unique_ptr<mpc::Correlation> NewCorrelation() const override {
    return std::make_unique<CbnnCorrelation>();
  }

  AnyShare Run(Context& ctx, std::unique_ptr<mpc::Correlation> prepared,
               const AnyMatrix& z) override {
    const auto* correlation = dynamic_cast<const CbnnCorrelation*>(prepared.get());
    TERCET_CHECK(correlation != nullptr, "layer {}: not prepared by this suite", spec_.layer);
    TERCET_CHECK(z.Bits() == spec_.ring_bits && z.Rows() == spec_.in.Size(),
                 "layer {}: got {} features of {} bits, expected {} of {} bits", spec_.layer,
                 z.Rows(), z.Bits(), spec_.in.Size(), spec_.ring_bits);
    TERCET_CHECK(correlation->sign.beta.mine.size() == z.Rows() * z.Cols(),
                 "layer {}: prepared for {} elements, got {}", spec_.layer,
                 correlation->sign.beta.mine.size(), z.Rows() * z.Cols());
    return ring::DispatchWord(spec_.ring_bits,
                              [&]<Word W>(W) { return RunAs<W>(ctx, *correlation, z.As<W>()); });
  }

 private:
  std::string Purpose(const char* step) const {
    return fmt::format("{}/cbnn/{}", spec_.layer, step);
  }

  template <Word W>
  AnyShare RunAs(Context& ctx, const CbnnCorrelation& correlation, const Matrix<W>& z) {
    const ArithShare<W> x =
        Reshare(ctx, reshare_, mpc::AdditiveShare<W>{z, spec_.ring_bits});  // 1 hop
    const BitShare msb = msb_->Run(ctx, correlation.sign, x);               // 2 hops
    const BitShare sign = XorPublic(ctx.Id(), msb, 1);
    if (spec_.kind == ActivationKind::kRelu) return Relu(ctx, sign, x);
    if (spec_.pool) return PoolSigns(ctx, correlation.pool, sign, z.shape()[1]);
    return ToArith(ctx, *to_arith_, sign, spec_.in.Size(), z.shape()[1]);
  }

  AnyShare ToArith(Context& ctx, BitTimes& convert, const BitShare& bits, std::size_t rows,
                   std::size_t cols) {
    return ring::DispatchWord(spec_.out_bits, [&]<Word W>(W) {
      return ot3::ToAny(BitToArith<W>(ctx, convert, bits, rows, cols, spec_.out_bits));  // 3 hops
    });
  }

  template <Word W>
  AnyShare Relu(Context& ctx, const BitShare& sign, const ArithShare<W>& x) {
    return ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      const ArithShare<V> low{xt::cast<V>(x.mine), xt::cast<V>(x.next), spec_.out_bits};
      return ot3::ToAny(relu_->Run(ctx, sign, low));  // 3 hops
    });
  }

  /// max = Sign(sum of the window's bits - 1).
  AnyShare PoolSigns(Context& ctx, const SignMask& mask, const BitShare& sign, std::size_t batch) {
    const unsigned bits = SmallestRing(pool_bits_);
    const BitShare msb = ring::DispatchWord(bits, [&]<Word W>(W) {
      const auto s = BitToArith<W>(ctx, *to_arith_, sign, spec_.in.Size(), batch, bits);  // 3 hops
      const ArithShare<W> sums{SumWindows(spec_, s.mine), SumWindows(spec_, s.next), bits};
      return pool_msb_->Run(ctx, mask, AddPublic(ctx.Id(), sums, static_cast<W>(-1)));  // 2 hops
    });
    return ToArith(ctx, *pool_to_arith_, XorPublic(ctx.Id(), msb, 1), spec_.Out().Size(), batch);
  }

  ActivationSpec spec_;
  mpc::ZeroSharing reshare_;
  std::optional<MsbExtraction> msb_, pool_msb_;
  std::optional<BitTimes> to_arith_, pool_to_arith_;
  std::optional<BitTimesShare> relu_;
  unsigned pool_bits_ = 0;
};

void Check(const ActivationSpec& spec) {
  const bool has = spec.kind == ActivationKind::kSign ||
                   (spec.kind == ActivationKind::kRelu && !spec.pool && spec.shift == 0);
  if (!has)
    throw mpc::Refusal(
        spec, "cbnn",
        fmt::format("has no {}{}{}; supported: sign, sign with max-pool, relu without truncation",
                    mpc::ActivationName(spec.kind),
                    spec.shift > 0 ? fmt::format(" with truncation by {} bits", spec.shift) : "",
                    spec.pool ? " with max-pool" : ""));
  if (spec.kind == ActivationKind::kRelu && spec.out_bits > spec.ring_bits)
    throw mpc::Refusal(
        spec, "cbnn",
        fmt::format(
            "cannot widen relu from {} to {} bits; supported: output ring of at most {} bits",
            spec.ring_bits, spec.out_bits, spec.ring_bits));
}

Cost CostOf(const ActivationSpec& spec, const Roles& roles) {
  const int p0 = FirstParty(roles);
  const std::size_t elements = spec.Elements();
  Cost cost;
  cost.Add(mpc::Phase::kOnline, mpc::ReshareRound(ring::PackedBytes(elements, spec.ring_bits)));
  MsbExtraction::AddCost(p0, elements, spec.ring_bits, cost);
  const auto add_conversion = [&](int first, std::size_t count, unsigned bits) {
    BitTimes::AddCost(first, count, bits, mpc::Phase::kOnline, cost);
  };
  if (spec.kind == ActivationKind::kRelu) {
    // Two conversions side by side.
    auto rounds = BitTimes::Rounds(p0, elements, spec.out_bits);
    const auto second = BitTimes::Rounds(NextParty(p0), elements, spec.out_bits);
    for (std::size_t r = 0; r < rounds.size(); ++r) {
      rounds[r].insert(rounds[r].end(), second[r].begin(), second[r].end());
      cost.Add(mpc::Phase::kOnline, std::move(rounds[r]));
    }
  } else if (spec.pool) {
    const unsigned bits = SmallestRing(SumBits(*spec.pool));
    add_conversion(p0, elements, bits);
    MsbExtraction::AddCost(p0, spec.Outputs(), bits, cost);
    add_conversion(p0, spec.Outputs(), spec.out_bits);
  } else {
    add_conversion(p0, elements, spec.out_bits);
  }
  return cost;
}

mpc::ActivationPlan Plan(const ActivationSpec& spec, const mpc::OptionValues& /*options*/,
                         const Roles& roles) {
  Check(spec);
  return {CostOf(spec, roles),
          [=](Party& party) { return std::make_unique<CbnnActivation>(party, spec, roles); }};
}

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) {
  registry.AddSuite({.name = "cbnn",
                     .summary = "CBNN (Dong et al., arXiv 2412.16449), Algorithms 1 and 3 to 5, "
                                "with Algorithm 3 repaired",
                     .is_private = false,
                     .leaks = "for every value x that enters Sign or ReLU, and every window sum of "
                              "a max-pool, all three parties see |2x + 1| * r with a random r: its "
                              "size shows the magnitude of x, its divisors narrow x further; the "
                              "sign stays hidden",
                     .spare_bits = 1 + kMinMaskBits,
                     .rings = {kRings.begin(), kRings.end()}},
                    Plan);
}

}  // namespace tercet::protocols::cbnn
