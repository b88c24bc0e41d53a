#include "dealer/steps.h"
#include "lut/steps.h"

// Sign by three-party 1-out-of-N oblivious transfer with shared output; the message flow, the
// symbols and who learns what are in README.md. The dealer invariant: every share that the helper D
// holds is drawn from the keys it has with E1 and E2, so it receives nothing online and all it
// sends is independent of the inputs.
namespace tercet::protocols::lut {
namespace {

using dealer::ArithTable;
using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::AnyShare;
using mpc::Context;
using mpc::Matrix;
using mpc::Party;
using mpc::Prepared;
using mpc::Roles;
using mpc::SuiteChoice;

struct Material final : mpc::Correlation {
  AnyMatrix open_mask;    // at D, where its share is not known offline: the share to be
  Bits rho;               // mask of the comparison's flags
  Bytes tables;           // E1: masks, E2: masked tables
  dealer::Entries arith;  // layout.arithmetic: entries of s
  std::vector<dealer::OrMaterial> steps;

  void Visit(mpc::Archive& archive) override { archive(open_mask)(rho)(tables)(arith)(steps); }
};

class LutActivation final : public mpc::Activation {
 public:
  LutActivation(Party& party, const ActivationSpec& spec, const SuiteChoice& choice,
                const Roles& roles)
      : spec_(spec), layout_(MakeLayout(spec, choice)), ends_(party, spec, "lut", roles) {}

  Prepared Prepare(Context& ctx, std::size_t batch, const AnyMatrix* z) override {
    auto material = std::make_unique<Material>();
    if (ends_.IsDealer()) {
      ring::DispatchWord(spec_.ring_bits, [&]<ring::Word W>(W) {
        const auto a = dealer::DealMasked<W>(ends_, spec_, batch, z, material->open_mask);
        DealComparison<W>(ctx, {a.data(), a.size()});
      });
      dealer::DealOrSteps(ctx, ends_, layout_.steps, spec_, batch);
    } else {
      TakeComparison(ctx, *material, batch);
      material->steps = dealer::TakeOrSteps(ctx, ends_, layout_.steps, spec_, batch);
    }
    Prepared prepared;
    prepared.known = dealer::DrawOutput(ends_, spec_, batch);
    prepared.correlation = std::move(material);
    return prepared;
  }

  std::unique_ptr<mpc::Correlation> NewCorrelation() const override {
    return std::make_unique<Material>();
  }

  AnyShare Run(Context& ctx, Prepared prepared, const AnyMatrix& z) override {
    auto& material = static_cast<Material&>(*prepared.correlation);
    if (ends_.IsDealer()) {
      if (!spec_.dealt) dealer::SendDifference(ctx, ends_, spec_, material.open_mask, z);
      return std::move(prepared.known);
    }
    return ring::DispatchWord(spec_.ring_bits, [&]<ring::Word W>(W) {
      return RunEvaluator<W>(ctx, material, std::move(prepared.known), z.As<W>());
    });
  }

 private:
  ArithTable CarryArith(std::size_t count) const {
    return {count, layout_.PackedBits(), 0, spec_.out_bits};
  }

  template <ring::Word W>
  void DealComparison(Context& ctx, std::span<const W> a) {
    const Bits rho = dealer::DrawRho(ends_, a.size(), layout_.PackedBits());
    ctx.SendBytes(ends_.E2(),
                  DealCompare<W>(layout_, spec_.value_bits, a, rho, ends_.WithE1()));  // offline
    if (!layout_.arithmetic) return;
    const Bytes rows = CarryRows<W>(layout_, spec_.value_bits, a, rho);
    ctx.SendBytes(ends_.E2(), ring::DispatchWord(spec_.out_bits, [&]<ring::Word V>(V) {
                    return dealer::DealArith<V>(CarryArith(a.size()), rows, ends_.WithE1());
                  }));  // offline
  }

  void TakeComparison(Context& ctx, Material& material, std::size_t batch) {
    const std::size_t count = spec_.in.Size() * batch;
    material.open_mask = dealer::DrawOpenMask(ends_, spec_, batch);
    material.rho = dealer::DrawBits(ends_.WithDealer(), count, layout_.PackedBits());
    material.tables = ends_.IsE1() ? DrawCompareMasks(layout_, count, ends_.WithE1())
                                   : ctx.ReceiveBytes(ends_.Dealer(), layout_.CompareBytes(count));
    if (layout_.arithmetic) material.arith = dealer::TakeEntries(ctx, ends_, CarryArith(count));
  }

  template <ring::Word W>
  AnyShare RunEvaluator(Context& ctx, Material& material, AnyShare share,
                        const Matrix<W>& z) const {
    const bool first = ends_.IsE1();
    const unsigned n = spec_.value_bits;
    const std::size_t rows = z.shape()[0], batch = z.shape()[1];

    // Step 1, open_masked: z = a + b.
    auto& b = material.open_mask.As<W>();
    dealer::OpenMasked<W>(ctx, ends_, spec_, b, z);  // 1 hop, n bits
    const std::span<const W> values(b.data(), b.size());

    // Step 2: flags (greater, equal) of a_low against ~b_low, chunk by chunk, XOR-shared. No
    // message.
    Bits flags = LookUpFlags<W>(layout_, n, values, material.tables);

    // Step 3, open_bits: the flags under D's mask; one more lookup gives s without b's top bit.
    const Bits e = dealer::OpenBits(ctx, ends_, std::move(flags), material.rho,
                                    layout_.PackedBits());  // 1 hop, 2q - 1 bits
    return ring::DispatchWord(spec_.out_bits, [&]<ring::Word V>(V) {
      Matrix<V> s;
      if (layout_.arithmetic) {
        s = dealer::SelectEntries<V>(ends_, CarryArith(values.size()), material.arith, e, rows);
        // Where b's top bit is set the sign flips: s becomes 1 - s.
        for (std::size_t i = 0; i < values.size(); ++i) {
          const auto flip = static_cast<V>(values[i] >> (n - 1) & 1);
          V& share_of_s = s.data()[i];
          share_of_s = static_cast<V>((V{1} - 2 * flip) * share_of_s + (first ? flip : V{0}));
        }
      } else {
        Bits bits = LookUpCarry(layout_, e, material.tables);
        if (first)
          for (std::size_t i = 0; i < values.size(); ++i)
            bits[i] ^= static_cast<std::uint8_t>(values[i] >> (n - 1) & 1);
        s = dealer::RunOrSteps<V>(ctx, ends_, layout_.steps, material.steps, std::move(bits), spec_,
                                  batch);  // 1 hop a step
      }
      // Step 4, reshare_evaluators.
      return dealer::ReshareEvaluators<V>(ctx, ends_, std::move(share), std::move(s),
                                          spec_.out_bits);  // 1 hop, l' bits
    });
  }

  ActivationSpec spec_;
  Layout layout_;
  dealer::Ends ends_;
};

class LutSuite final : public mpc::Suite {
 public:
  const mpc::SuiteInfo& Info() const override {
    static const mpc::SuiteInfo info{
        .name = "lut",
        .summary =
            "lookup tables by three-party 1-out-of-N oblivious transfer with shared output; 3 hops "
            "per Sign",
        .is_private = true,
        .leaks = "",
        .dealt_output = true,
        .options = {"chunks: pieces that values are compared in, 1..4 or auto (fewest bytes)",
                    "form: arith (3 hops), bit (4 hops, fewer bytes with 3 or more chunks) or "
                    "auto; layers with max-pool always use bit"}};
    return info;
  }
  void Check(const ActivationSpec& spec, const SuiteChoice& choice) const override {
    MakeLayout(spec, choice);
  }
  mpc::Cost Costs(const ActivationSpec& spec, const SuiteChoice& choice,
                  const Roles& roles) const override {
    return LayoutCost(MakeLayout(spec, choice), spec, roles);
  }
  std::unique_ptr<mpc::Activation> Create(Party& party, const ActivationSpec& spec,
                                          const SuiteChoice& choice,
                                          const Roles& roles) const override {
    return std::make_unique<LutActivation>(party, spec, choice, roles);
  }
};

}  // namespace

void Register(mpc::Registry& registry) { registry.AddSuite(std::make_unique<LutSuite>()); }

}  // namespace tercet::protocols::lut
