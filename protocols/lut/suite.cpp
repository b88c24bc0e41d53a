#include <algorithm>
#include <optional>

#include "lut/steps.h"
#include "tercet/ring/kernels.h"

// Sign by three-party 1-out-of-N oblivious transfer with shared output; the message flow, the
// symbols and who learns what are in README.md. The dealer invariant: every share that the helper D
// holds is drawn from the keys it has with E1 and E2, so it receives nothing online and all it
// sends is independent of the inputs.
namespace tercet::protocols::lut {
namespace {

using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::AnyShare;
using mpc::Context;
using mpc::Matrix;
using mpc::Party;
using mpc::Prepared;
using mpc::Roles;
using mpc::SuiteChoice;

// What an evaluator keeps of one OR step.
struct StepMaterial {
  Bits rho;         // its mask of the window's bits
  Bytes bits;       // its share of the bit tables (steps before the last)
  AnyMatrix masks;  // E1, last step: its shares of the entries, one column
  Bytes dealt;      // E2, last step: its shares of the entries, packed
};

struct Material final : mpc::Correlation {
  AnyMatrix open_mask;  // E1: F(k_{D+1}), E2: F(k_D); D, where its share is not known offline: the
                        // share to be
  Bits rho;             // its mask of the comparison's flags
  Bytes tables;         // E1: masks, E2: masked tables
  StepMaterial arith;   // layout.arithmetic: entries of s
  std::vector<StepMaterial> steps;
  std::size_t batch = 0;
};

void XorInto(Bits& x, const Bits& y) {
  // Plain pointers: bytes may alias the vectors themselves, which would keep the loop scalar.
  std::uint8_t* to = x.data();
  const std::uint8_t* from = y.data();
  for (std::size_t i = 0, n = x.size(); i < n; ++i) to[i] ^= from[i];
}

class LutActivation final : public mpc::Activation {
 public:
  LutActivation(Party& party, const ActivationSpec& spec, const SuiteChoice& choice,
                const Roles& roles)
      : spec_(spec),
        layout_(MakeLayout(spec, choice)),
        dealer_(roles.helper),
        e1_(roles.Evaluator1()),
        e2_(roles.Evaluator2()) {
    if (party.Id() != e2_) with_e1_ = party.Keys().Open(e1_, spec.layer + "/lut");
    if (party.Id() != e1_) with_e2_ = party.Keys().Open(dealer_, spec.layer + "/lut");
    if (!spec.dealt && party.Id() == dealer_)
      own_ = party.Keys().Open(dealer_, spec.layer + "/lut/redeal");
  }

  Prepared Prepare(Context& ctx, std::size_t batch, const AnyMatrix* z) override {
    return ring::DispatchWord(spec_.ring_bits, [&](auto word) {
      using W = decltype(word);
      return ctx.Is(dealer_) ? PrepareDealer<W>(ctx, batch, z) : PrepareEvaluator<W>(ctx, batch);
    });
  }

  AnyShare Run(Context& ctx, Prepared prepared, const AnyMatrix& z) override {
    auto& material = static_cast<Material&>(*prepared.correlation);
    return ring::DispatchWord(spec_.ring_bits, [&](auto word) {
      using W = decltype(word);
      if (!ctx.Is(dealer_))
        return RunEvaluator<W>(ctx, material, std::move(prepared.known), z.As<W>());
      if (!spec_.dealt) {
        // D's share of z came online: it becomes the drawn share by handing the difference to E1,
        // masked by a key E1 lacks.
        const Matrix<W> difference = z.As<W>() - material.open_mask.As<W>();
        ctx.Send(e1_, difference, spec_.value_bits);  // 1 hop, n bits
      }
      return std::move(prepared.known);
    });
  }

 private:
  // Masks of PackedBits() or `width` bits, one a byte.
  static Bits DrawSmall(crypto::PrfStream& stream, std::size_t count, unsigned width) {
    Bits bits(count);
    stream.Fill(bits);
    const auto low = ring::LowMask<std::uint8_t>(width);
    for (auto& b : bits) b &= low;
    return bits;
  }
  Bits DrawBoth(std::size_t count, unsigned width) {
    Bits rho = DrawSmall(*with_e1_, count, width);
    XorInto(rho, DrawSmall(*with_e2_, count, width));
    return rho;
  }

  ArithTable CarryArith(std::size_t count) const {
    return {count, layout_.PackedBits(), 0, spec_.out_bits};
  }
  ArithTable OrArith(const OrStep& step, std::size_t count) const {
    return {count, step.width, 1, spec_.out_bits};
  }

  template <ring::Word W>
  Prepared PrepareDealer(Context& ctx, std::size_t batch, const AnyMatrix* z) {
    const std::size_t rows = spec_.in.Size(), count = rows * batch;
    Prepared prepared;
    Matrix<W> a;
    if (spec_.dealt) {
      TERCET_CHECK(z != nullptr, "layer {}: the dealer's share must be known offline", spec_.layer);
      a = z->As<W>();
    } else {
      auto material = std::make_unique<Material>();
      a = own_->Draw<W>(rows, batch);
      material->open_mask = AnyMatrix(a, spec_.ring_bits);
      prepared.correlation = std::move(material);
    }
    // open_masked: a = z_D - F(k_{D+1}) - F(k_D)
    a -= with_e1_->Draw<W>(rows, batch);
    a -= with_e2_->Draw<W>(rows, batch);
    const std::span<const W> values(a.data(), a.size());
    const Bits rho = DrawBoth(count, layout_.PackedBits());
    ctx.SendBytes(e2_,
                  DealCompare<W>(layout_, spec_.value_bits, values, rho, *with_e1_));  // offline
    return ring::DispatchWord(spec_.out_bits, [&](auto out_word) {
      using V = decltype(out_word);
      if (layout_.arithmetic)
        ctx.SendBytes(
            e2_, DealArith<V>(CarryArith(count),
                              CarryRows<W>(layout_, spec_.value_bits, values, rho), *with_e1_));
      for (const auto& step : layout_.steps) {
        const std::size_t outputs = step.OutRows() * batch;
        const Bits step_rho = DrawBoth(outputs, step.width);
        Bytes table = OrRows(step.width, step_rho);
        if (step.last) {
          table = DealArith<V>(OrArith(step, outputs), table, *with_e1_);
        } else {
          Bytes mask(table.size());
          with_e1_->Fill(mask);
          XorInto(table, mask);
        }
        ctx.SendBytes(e2_, std::move(table));  // offline
      }
      // The output's shares that D holds, x_D and x_{D+1}, are drawn.
      prepared.known.mine = AnyMatrix(with_e2_->Draw<V>(spec_.Out().Size(), batch), spec_.out_bits);
      prepared.known.next = AnyMatrix(with_e1_->Draw<V>(spec_.Out().Size(), batch), spec_.out_bits);
      return std::move(prepared);
    });
  }

  template <ring::Word W>
  Prepared PrepareEvaluator(Context& ctx, std::size_t batch) {
    const bool first = ctx.Is(e1_);
    auto& stream = first ? *with_e1_ : *with_e2_;
    const std::size_t rows = spec_.in.Size(), count = rows * batch;
    auto material = std::make_unique<Material>();
    material->batch = batch;
    material->open_mask = AnyMatrix(stream.Draw<W>(rows, batch), spec_.ring_bits);
    material->rho = DrawSmall(stream, count, layout_.PackedBits());
    material->tables = first ? DrawCompareMasks(layout_, count, stream)
                             : ctx.ReceiveBytes(dealer_, layout_.CompareBytes(count));
    if (layout_.arithmetic) material->arith = TakeArith(ctx, CarryArith(count), stream);
    for (const auto& step : layout_.steps) {
      const std::size_t outputs = step.OutRows() * batch;
      Bits step_rho = DrawSmall(stream, outputs, step.width);
      StepMaterial taken;
      if (step.last) {
        taken = TakeArith(ctx, OrArith(step, outputs), stream);
      } else if (first) {
        taken.bits.resize(TableBytes(outputs, step.width));
        stream.Fill(taken.bits);
      } else {
        taken.bits = ctx.ReceiveBytes(dealer_, TableBytes(outputs, step.width));
      }
      taken.rho = std::move(step_rho);
      material->steps.push_back(std::move(taken));
    }
    Prepared prepared;
    auto& known = first ? prepared.known.mine : prepared.known.next;
    known = ring::DispatchWord(spec_.out_bits, [&](auto out_word) {
      return AnyMatrix(stream.template Draw<decltype(out_word)>(spec_.Out().Size(), batch),
                       spec_.out_bits);
    });
    prepared.correlation = std::move(material);
    return prepared;
  }

  StepMaterial TakeArith(Context& ctx, const ArithTable& table, crypto::PrfStream& stream) const {
    StepMaterial taken;
    const std::size_t entries = table.count * table.Entries();
    if (ctx.Is(e2_)) {
      taken.dealt = ctx.ReceiveBytes(dealer_, ring::PackedBytes(entries, table.out_bits));
    } else {
      taken.masks = ring::DispatchWord(table.out_bits, [&](auto word) {
        return AnyMatrix(stream.template Draw<decltype(word)>(entries, 1), table.out_bits);
      });
    }
    return taken;
  }

  // Both evaluators send their half masked and XOR: e = value ^ rho. 1 hop, 2 * width bits.
  Bits OpenBits(Context& ctx, Bits own, const Bits& rho, unsigned width) const {
    XorInto(own, rho);
    const int peer = ctx.Is(e1_) ? e2_ : e1_;
    ctx.Send(peer, std::span<const std::uint8_t>(own), width);  // 1 hop, width bits
    Bits other(own.size());
    ctx.Receive(peer, std::span<std::uint8_t>(other), width);
    XorInto(other, own);
    return other;
  }

  template <ring::Word V>
  Matrix<V> Select(Context& ctx, const ArithTable& table, const StepMaterial& material,
                   const Bits& e) const {
    const std::size_t rows = spec_.Out().Size();
    if (ctx.Is(e2_)) return SelectDealt<V>(table, material.dealt, e, rows);
    const auto& masks = material.masks.As<V>();
    return SelectMask<V>(table, std::span<const V>(masks.data(), masks.size()), e, rows);
  }

  template <ring::Word W>
  AnyShare RunEvaluator(Context& ctx, Material& material, AnyShare share,
                        const Matrix<W>& z) const {
    const bool first = ctx.Is(e1_);
    const int peer = first ? e2_ : e1_;
    const unsigned n = spec_.value_bits;
    const std::size_t rows = spec_.in.Size(), batch = material.batch;

    // Step 1, open_masked: b = z_E1 + F(k_{D+1}) + z_E2 + F(k_D).
    auto& b = material.open_mask.As<W>();
    b += z;
    if (!spec_.dealt && first) b += ctx.Receive<W>(dealer_, rows, batch, n);
    ctx.Send(peer, b, n);  // 1 hop, n bits
    b += ctx.Receive<W>(peer, rows, batch, n);
    const std::span<const W> values(b.data(), b.size());

    // Step 2: flags (greater, equal) of a_low against ~b_low, chunk by chunk, XOR-shared. No
    // message.
    Bits flags = LookUpFlags<W>(layout_, n, values, material.tables);

    // Step 3, open_bits: the flags under D's mask; one more lookup gives s without b's top bit.
    const Bits e =
        OpenBits(ctx, std::move(flags), material.rho, layout_.PackedBits());  // 1 hop, 2q - 1 bits
    return ring::DispatchWord(spec_.out_bits, [&](auto out_word) {
      using V = decltype(out_word);
      Matrix<V> s;
      if (layout_.arithmetic) {
        s = Select<V>(ctx, CarryArith(values.size()), material.arith, e);
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
        for (std::size_t k = 0; k < layout_.steps.size(); ++k) {
          const auto& step = layout_.steps[k];
          const auto& taken = material.steps[k];
          const Bits window =
              OpenBits(ctx, GatherWindows(step, bits, batch), taken.rho, step.width);  // 1 hop
          if (step.last) {
            s = Select<V>(ctx, OrArith(step, window.size()), taken, window);
          } else {
            bits.assign(window.size(), 0);
            ring::ActiveKernels().select_bits(bits.data(), taken.bits.data(), window.data(),
                                              window.size(), step.width, 0);
          }
        }
      }

      // Step 4, reshare_evaluators: x_{D+2} = (s_1 - x_{D+1}) + (s_2 - x_D).
      s -= (first ? share.mine : share.next).As<V>();
      ctx.Send(peer, s, spec_.out_bits);  // 1 hop, l' bits
      s += ctx.Receive<V>(peer, s.shape()[0], s.shape()[1], spec_.out_bits);
      (first ? share.next : share.mine) = AnyMatrix(std::move(s), spec_.out_bits);
      return std::move(share);
    });
  }

  ActivationSpec spec_;
  Layout layout_;
  int dealer_, e1_, e2_;
  std::optional<crypto::PrfStream> with_e1_, with_e2_;  // of k_{D+1} and of k_D
  std::optional<crypto::PrfStream> own_;                // D's draws that nobody follows
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
