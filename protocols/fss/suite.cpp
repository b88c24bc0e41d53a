#include <algorithm>

#include "dealer/steps.h"
#include "fss/layout.h"

// Sign by a distributed comparison function whose point the dealer knows; the message flow, the
// symbols and who learns what are in README.md. The dealer invariant: every share that the helper D
// holds is drawn from the keys it has with E1 and E2, so it receives nothing online and all it
// sends is independent of the inputs.
namespace tercet::protocols::fss {
namespace {

using dealer::Bits;
using dealer::Ends;
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
  AnyMatrix open_mask;        // at D, where its share is not known offline: the share to be
  Buffer<Block> roots;        // of the evaluator's trees
  std::vector<Bytes> pieces;  // hash keys, then correction words
  std::vector<dealer::OrMaterial> steps;

  void Visit(mpc::Archive& archive) override { archive(open_mask)(roots)(pieces)(steps); }
};

void DrawRoots(crypto::PrfStream& stream, std::span<Block> roots) {
  stream.Fill({reinterpret_cast<std::uint8_t*>(roots.data()), roots.size_bytes()});
}

std::span<const std::uint8_t, kHashKeyBytes> HashKey(const Bytes& piece) {
  return std::span<const std::uint8_t>(piece).first<kHashKeyBytes>();
}

class FssActivation final : public mpc::Activation {
 public:
  FssActivation(Party& party, const ActivationSpec& spec, const SuiteChoice& choice,
                const Roles& roles)
      : spec_(spec), layout_(MakeLayout(spec, choice)), ends_(party, spec, "fss", roles) {}

  Prepared Prepare(Context& ctx, std::size_t batch, const AnyMatrix* z) override {
    auto material = std::make_unique<Material>();
    if (ends_.IsDealer()) {
      ring::DispatchWord(spec_.ring_bits, [&]<ring::Word W>(W) {
        const auto a = dealer::DealMasked<W>(ends_, spec_, batch, z, material->open_mask);
        DealComparisons<W>(ctx, {a.data(), a.size()});
      });
      dealer::DealOrSteps(ctx, ends_, layout_.steps, spec_, batch);
    } else {
      material->open_mask = dealer::DrawOpenMask(ends_, spec_, batch);
      TakeComparisons(ctx, *material, spec_.in.Size() * batch);
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
  // D compares with a_low; flip = a_top ^ 1 makes [x < a_low] ^ flip the sign but for b's top bit.
  template <ring::Word W>
  void DealComparisons(Context& ctx, std::span<const W> a) {
    const auto& shape = layout_.shape;
    Buffer<std::uint64_t> alpha(kChunk);
    Bits flip(kChunk);
    Buffer<Block> roots1(kChunk), roots2(kChunk);
    ForRanges(a.size(), layout_.PieceElements(), [&](std::size_t piece_begin, std::size_t size) {
      // E1's message is how E2's begins: hash keys, what both need, what only E2 needs.
      Bytes piece(layout_.SharedBytes(size) + shape.FirstBytes(size));
      crypto::RandomBytes(std::span<std::uint8_t>(piece).first(kHashKeyBytes));
      auto rest = std::span<std::uint8_t>(piece).subspan(kHashKeyBytes);
      auto first = rest.subspan(shape.RestBytes(size));
      ring::DispatchWord(shape.output_bits, [&]<ring::Word V>(V) {
        Dcf<V> dcf(shape, HashKey(piece));
        ForRanges(size, kChunk, [&](std::size_t begin, std::size_t n) {
          const W* values = a.data() + piece_begin + begin;
          for (std::size_t i = 0; i < n; ++i) {
            alpha[i] = values[i] & ring::LowMask<std::uint64_t>(shape.input_bits);
            flip[i] = static_cast<std::uint8_t>(~(values[i] >> shape.input_bits) & 1);
          }
          DrawRoots(ends_.WithE1(), {roots1.data(), n});
          DrawRoots(ends_.WithE2(), {roots2.data(), n});
          dcf.Deal({alpha.data(), n}, {flip.data(), n}, {roots1.data(), n}, {roots2.data(), n},
                   first.first(shape.FirstBytes(n)), rest.first(shape.RestBytes(n)));
          first = first.subspan(shape.FirstBytes(n));
          rest = rest.subspan(shape.RestBytes(n));
        });
      });
      const auto shared = static_cast<std::ptrdiff_t>(layout_.SharedBytes(size));
      ctx.SendBytes(ends_.E1(), Bytes(piece.begin(), piece.begin() + shared));  // offline
      ctx.SendBytes(ends_.E2(), std::move(piece));                              // offline
    });
  }

  void TakeComparisons(Context& ctx, Material& material, std::size_t count) {
    material.roots.resize(count);
    ForRanges(count, layout_.PieceElements(), [&](std::size_t piece_begin, std::size_t size) {
      ForRanges(size, kChunk, [&](std::size_t begin, std::size_t n) {
        DrawRoots(ends_.WithDealer(), {material.roots.data() + piece_begin + begin, n});
      });
      const std::size_t own = ends_.IsE2() ? layout_.shape.FirstBytes(size) : 0;
      material.pieces.push_back(ctx.ReceiveBytes(ends_.Dealer(), layout_.SharedBytes(size) + own));
    });
  }

  // Shares of [~b_low < a_low] ^ a_top ^ 1. No message.
  template <ring::Word W, ring::Word V>
  void Compare(const Material& material, std::span<const W> b, std::span<V> out) const {
    const auto& shape = layout_.shape;
    const auto who = ends_.IsE1() ? Evaluator::kE1 : Evaluator::kE2;
    Buffer<std::uint64_t> x(kChunk);
    std::size_t next_piece = 0;
    ForRanges(b.size(), layout_.PieceElements(), [&](std::size_t piece_begin, std::size_t size) {
      const Bytes& piece = material.pieces[next_piece++];
      ByteSpan rest = ByteSpan(piece).subspan(kHashKeyBytes);
      ByteSpan first = rest.subspan(shape.RestBytes(size));
      Dcf<V> dcf(shape, HashKey(piece));
      ForRanges(size, kChunk, [&](std::size_t begin, std::size_t n) {
        const std::size_t at = piece_begin + begin;
        for (std::size_t i = 0; i < n; ++i)
          x[i] = ~std::uint64_t{b[at + i]} & ring::LowMask<std::uint64_t>(shape.input_bits);
        const std::size_t own = ends_.IsE2() ? shape.FirstBytes(n) : 0;
        dcf.Evaluate(who, {x.data(), n}, {material.roots.data() + at, n}, first.first(own),
                     rest.first(shape.RestBytes(n)), out.subspan(at, n));
        first = first.subspan(own);
        rest = rest.subspan(shape.RestBytes(n));
      });
    });
  }

  template <ring::Word W>
  AnyShare RunEvaluator(Context& ctx, Material& material, AnyShare share,
                        const Matrix<W>& z) const {
    const std::size_t rows = z.shape()[0], batch = z.shape()[1];
    const unsigned top = spec_.value_bits - 1;
    const bool first = ends_.IsE1();

    // Step 1, open_masked: z = a + b.
    auto& b = material.open_mask.As<W>();
    dealer::OpenMasked<W>(ctx, ends_, spec_, b, z);  // 1 hop, n bits
    const std::span<const W> values(b.data(), b.size());

    return ring::DispatchWord(spec_.out_bits, [&]<ring::Word V>(V) {
      // Step 2: the comparison, and b's top bit, which both evaluators know.
      auto s = ring::MakeMatrix<V>(rows, batch);
      if (layout_.arithmetic) {
        Compare<W, V>(material, values, {s.data(), s.size()});
        for (std::size_t i = 0; i < values.size(); ++i) {  // s becomes 1 - s where it is set
          const auto flip = static_cast<V>(values[i] >> top & 1);
          s.data()[i] = static_cast<V>((V{1} - 2 * flip) * s.data()[i] + (first ? flip : V{0}));
        }
      } else {
        Bits bits(values.size());
        Compare<W, std::uint8_t>(material, values, bits);
        for (std::size_t i = 0; i < bits.size(); ++i)
          bits[i] = (bits[i] ^ static_cast<std::uint8_t>(first ? values[i] >> top : 0)) & 1;
        s = dealer::RunOrSteps<V>(ctx, ends_, layout_.steps, material.steps, std::move(bits), spec_,
                                  batch);  // 1 hop a step
      }
      // Step 3, reshare_evaluators.
      return dealer::ReshareEvaluators<V>(ctx, ends_, std::move(share), std::move(s),
                                          spec_.out_bits);  // 1 hop, l' bits
    });
  }

  ActivationSpec spec_;
  Layout layout_;
  Ends ends_;
};

class FssSuite final : public mpc::Suite {
 public:
  const mpc::SuiteInfo& Info() const override {
    static const mpc::SuiteInfo info{
        .name = "fss",
        .summary =
            "distributed comparison functions with a point known to the dealer; 2 hops per Sign, "
            "the fewest, for more bytes offline",
        .is_private = true,
        .leaks = "",
        .dealt_output = true,
        .options = {"form: arith (2 hops), bit (3 hops, fewer bytes) or auto; layers with max-pool "
                    "always use bit"}};
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
    return std::make_unique<FssActivation>(party, spec, choice, roles);
  }
};

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) { registry.AddSuite(std::make_unique<FssSuite>()); }

}  // namespace tercet::protocols::fss
