// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "common/ot3/bit_times.h"
#include "suites/aby3/products.h"
#include "tercet/mpc/registry.h"
#include "tercet/mpc/windows.h"

// Activations by bit decomposition; the message flow, the symbols and who learns what are in
// README.md.
namespace tercet::protocols::aby3 {

namespace {

using mpc::ArithShare;

/// The bits of each window's members: plane k holds member k of every output. Rows of elements are
/// channel, height, width.
Planes GatherWindows(const ActivationSpec& spec, const Planes& plane, std::size_t batch) {
  const std::size_t outputs = spec.Out().Size() * batch;
  const std::size_t count = spec.pool->kernel.Area();
  const Buffer<std::uint8_t> bits = ToBytes(plane);
  Buffer<std::uint8_t> gathered(count * outputs);
  mpc::PoolWindows(spec).ForEach([&](std::size_t output, std::size_t member, std::size_t input) {
    std::copy_n(bits.data() + input * batch, batch,
                gathered.data() + member * outputs + output * batch);
  });
  return mpc::FromBytes(gathered, count);
}

/// For one query: a random bit per output and carry, r and q, unknown to every party.
struct Aby3Correlation final : mpc::Correlation {
  Planes mask;     ///< r_i of r = r_0 ^ r_1 ^ r_2, then q_i
  AnyShare arith;  ///< r, q and r q in the output ring, below each other

  void Visit(mpc::Archive& archive) override { archive(mask)(arith); }
};

/// Sign, Sign with max-pool, ReLU, square.
class Aby3Activation final : public mpc::Activation {
 public:
  Aby3Activation(Party& party, const ActivationSpec& spec, const Roles& roles)
      : spec_(spec),
        layout_(spec),
        random_(party, Purpose("r")),
        convert_(party, roles.helper, Purpose("b2a")),
        zero_masks_(party, Purpose("zero_masks")),
        adder_(party, roles.helper, layout_.carries, Purpose("adder")),
        zero_bits_(party, Purpose("zero_bits")),
        zero_(party, Purpose("zero")),
        opening_(party, spec_, layout_, roles, Purpose("open")) {}

  std::unique_ptr<mpc::Correlation> Prepare(Context& ctx, std::size_t batch) override {
    auto correlation = std::make_unique<Aby3Correlation>();
    const std::size_t rows = spec_.Out().Size();
    const std::size_t masks = layout_.carries.size();
    mpc::BitShare bits = random_.DrawBits(masks * rows * batch);
    correlation->mask = mpc::FromBytes(bits.mine, masks);
    if (layout_.TakesCarry()) AppendProduct(ctx, bits);  // 1 hop
    correlation->arith = ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      return ot3::ToAny(ot3::BitToArith<V>(ctx, convert_, bits, layout_.RandomBits() * rows, batch,
                                           spec_.out_bits));  // 3 hops
    });
    return correlation;
  }

  std::unique_ptr<mpc::Correlation> NewCorrelation() const override {
    return std::make_unique<Aby3Correlation>();
  }

  AnyShare Run(Context& ctx, std::unique_ptr<mpc::Correlation> prepared,
               const AnyMatrix& z) override {
    const auto* correlation = dynamic_cast<const Aby3Correlation*>(prepared.get());
    TERCET_CHECK(correlation != nullptr, "layer {}: not prepared by this suite", spec_.layer);
    TERCET_CHECK(z.Bits() == spec_.ring_bits && z.Rows() == spec_.in.Size(),
                 "layer {}: got {} features of {} bits, expected {} of {} bits", spec_.layer,
                 z.Rows(), z.Bits(), spec_.in.Size(), spec_.ring_bits);
    TERCET_CHECK(correlation->mask.Count() == spec_.Out().Size() * z.Cols(),
                 "layer {}: prepared for {} outputs, got {}", spec_.layer,
                 correlation->mask.Count(), spec_.Out().Size() * z.Cols());
    const auto fits = [&](const AnyMatrix& half) {
      return half.Rows() == layout_.RandomBits() * spec_.Out().Size() && half.Cols() == z.Cols();
    };
    TERCET_CHECK(correlation->mask.Rows() == layout_.carries.size() &&
                     fits(correlation->arith.mine) && fits(correlation->arith.next),
                 "layer {}: prepared for another activation", spec_.layer);
    const std::size_t batch = z.Cols(), count = z.Rows() * batch;

    Opened opened = opening_.Open(ctx, z);  // 1 hop
    Planes bits = adder_.Leaves(ctx, opened.input, count);
    if (adder_.HasTree()) adder_.SendLeaves(ctx, std::move(bits));   // 1 hop
    if (layout_.wrap_bits > 0) opening_.SendWrap(ctx, opened.wrap);  // the same hop
    if (adder_.HasTree()) adder_.ReceiveLeaves(ctx);
    if (layout_.wrap_bits > 0) opening_.AddWrap(ctx, opened.wrap, opened.x);
    if (adder_.HasTree()) bits = adder_.Carries(ctx, opened.input);
    if (bits.Rows() == 0) {  // values of one bit have no carry
      bits = Planes(1, count);
      std::fill(bits.All().begin(), bits.All().end(), 0);
    }
    // The carry into the top bit becomes that bit of z; square takes the carry above it.
    for (std::size_t w = 0; opened.top.Rows() > 0 && w < bits.Words(); ++w)
      bits[0][w] ^= opened.top[0][w];

    if (spec_.pool) bits = Pool(ctx, std::move(bits), batch);

    // Each bit is opened under its mask, and is then known as e ^ r.
    bits ^= correlation->mask;
    const Planes mine = SendToAll(ctx, zero_bits_, std::move(bits));  // 1 hop, 6 bits each
    AnyShare product;
    if (layout_.relu)
      product = SendProduct(ctx, zero_, correlation->arith, opened.x);  // the same hop
    const Planes known = ReceiveFromAll(ctx, mine);
    if (layout_.relu) ReceiveProduct(ctx, product);
    Buffer<std::uint8_t> e = ToBytes(known), f;
    if (layout_.shift > 0) f = ToBytes(mpc::Row(known, 1));
    if (layout_.square) return Square(ctx, e, f, correlation->arith, std::move(opened.x));
    for (auto& bit : e) bit ^= 1;  // s = 1 ^ msb

    // s y = e y + (1 - 2e) r y, with y = 1 for Sign and x for ReLU. Local.
    return ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      const AnyShare& ry = layout_.relu ? product : correlation->arith;
      ArithShare<V> s{ry.mine.As<V>(), ry.next.As<V>(), spec_.out_bits};
      Select<V>(s.mine, e, ctx.Is(0), opened.x.mine);
      Select<V>(s.next, e, ctx.Is(2), opened.x.next);
      if (layout_.TakesCarry()) {
        AddCarry<V>(s.mine, e, f, ctx.Is(0), correlation->arith.mine.As<V>().data());
        AddCarry<V>(s.next, e, f, ctx.Is(2), correlation->arith.next.As<V>().data());
      }
      return ot3::ToAny(std::move(s));
    });
  }

 private:
  std::string Purpose(const char* step) const {
    return fmt::format("{}/aby3/{}", spec_.layer, step);
  }

  /// Offline: r q below r and q. 1 hop, 3 bits an output.
  void AppendProduct(Context& ctx, mpc::BitShare& bits) {
    const PlaneShare rows{mpc::FromBytes(bits.mine, 2), mpc::FromBytes(bits.next, 2)};
    Planes product(1, rows.mine.Count());
    std::fill(product.All().begin(), product.All().end(), 0);
    XorProduct(product[0], rows[0], rows[1], product.Words());
    const PlaneShare both = Reshare(ctx, zero_masks_, std::move(product));
    const auto append = [](Buffer<std::uint8_t>& to, const Buffer<std::uint8_t>& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    append(bits.mine, ToBytes(both.mine));
    append(bits.next, ToBytes(both.next));
  }

  /// Additive share of [z < 0] per element -> of [all of the window's z < 0].
  Planes Pool(Context& ctx, Planes msb, std::size_t batch) {
    if (layout_.window == 1) return GatherWindows(spec_, msb, batch);
    const PlaneShare bits = Reshare(ctx, zero_bits_, std::move(msb));  // 1 hop, 3 bits
    const PlaneShare members{GatherWindows(spec_, bits.mine, batch),
                             GatherWindows(spec_, bits.next, batch)};
    std::vector<BitRef> terms;
    for (std::size_t k = 0; k < layout_.window; ++k) terms.push_back(members[k]);
    return AndTree(ctx, zero_bits_, std::move(terms), members.mine.Count());
  }

  /// y^2 of y = x + c_f - 2^(n-f) w, with w = e ^ r and c_f = f ^ q. 1 hop, 3 * out_bits.
  AnyShare Square(Context& ctx, const Buffer<std::uint8_t>& e, const Buffer<std::uint8_t>& f,
                  const AnyShare& masks, AnyShare x) {
    ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      const auto add = [&](Matrix<V>& half, const Matrix<V>& random, bool zeroth) {
        AddBit<V>(half, e, zeroth, random.data(), spec_.value_bits - layout_.shift, true);
        if (layout_.shift > 0) AddBit<V>(half, f, zeroth, random.data() + half.size(), 0, false);
      };
      add(x.mine.As<V>(), masks.mine.As<V>(), ctx.Is(0));
      add(x.next.As<V>(), masks.next.As<V>(), ctx.Is(2));
    });
    AnyShare product = SendProduct(ctx, zero_, x, x);
    ReceiveProduct(ctx, product);
    return product;
  }

  ActivationSpec spec_;
  Layout layout_;
  mpc::RandomSharing random_;
  ot3::BitTimes convert_;
  ZeroBits zero_masks_;  // offline
  Adder adder_;
  ZeroBits zero_bits_;
  mpc::ZeroSharing zero_;
  Opening opening_;
};

mpc::ActivationPlan Plan(const ActivationSpec& spec, const mpc::OptionValues& /*options*/,
                         const Roles& roles) {
  Check(spec);
  return {CostOf(spec, roles),
          [=](Party& party) { return std::make_unique<Aby3Activation>(party, spec, roles); }};
}

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) {
  registry.AddSuite(
      {.name = "aby3",
       .summary = "bit decomposition by a Boolean adder (ABY3: Mohassel and Rindal, CCS 2018)",
       .takes_opened = true,
       .variants = {{"", {{{3, 21}, {33, 56}}}}}},
      Plan);
}

}  // namespace tercet::protocols::aby3
