#include <algorithm>

#include "aby3/adder.h"
#include "ot3/bit_times.h"
#include "tercet/mpc/suite.h"

namespace tercet::protocols::aby3 {

namespace {

using mpc::Activation;
using mpc::ActivationKind;
using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::AnyShare;
using mpc::ArithShare;
using mpc::Cost;
using mpc::Prepared;
using mpc::Roles;
using mpc::SuiteChoice;

/// Sizes that costs and messages have in common; public.
struct Layout {
  explicit Layout(const ActivationSpec& spec)
      : adder{spec.value_bits - 1},
        relu(spec.kind == ActivationKind::kRelu),
        wrap_bits(relu && spec.out_bits > spec.ring_bits ? spec.out_bits - spec.value_bits : 0),
        opened_bits(relu && wrap_bits == 0 ? std::max(spec.value_bits, spec.out_bits)
                                           : spec.value_bits),
        window(spec.pool ? spec.pool->kernel * spec.pool->kernel : 1) {}

  AdderShape adder;
  bool relu;
  unsigned wrap_bits;    ///< ReLU into a wider ring: bits above those of the values; else 0
  unsigned opened_bits;  ///< of b
  std::size_t window;    ///< elements per output

  /// Whether the leaves are products of their own, or already the carry.
  bool HasTree() const { return adder.Groups() > 1; }
};

/// Words in which elements are multiplied: 8- and 16-bit words would be promoted to int, which can
/// overflow.
template <Word W>
using Wide = std::conditional_t<(sizeof(W) < 4), std::uint32_t, W>;

template <Word W>
AnyShare ToAny(ArithShare<W> x) {
  return {AnyMatrix(std::move(x.mine), x.bits), AnyMatrix(std::move(x.next), x.bits)};
}

/// The bits of each window's members: plane k holds member k of every output. Rows of elements are
/// channel, height, width.
Planes GatherWindows(const ActivationSpec& spec, const Planes& plane, std::size_t batch) {
  const mpc::Shape3 out = spec.Out();
  const std::size_t kernel = spec.pool->kernel, stride = spec.pool->stride;
  const Buffer<std::uint8_t> bits = ToBytes(plane);
  Planes members(kernel * kernel, out.Size() * batch);
  Buffer<std::uint8_t> member(out.Size() * batch);
  for (std::size_t k = 0; k < kernel * kernel; ++k) {
    std::uint8_t* to = member.data();
    for (std::size_t c = 0; c < out.channels; ++c)
      for (std::size_t row = 0; row < out.height; ++row)
        for (std::size_t col = 0; col < out.width; ++col, to += batch) {
          const std::size_t in_row = row * stride + k / kernel, in_col = col * stride + k % kernel;
          std::copy_n(
              bits.data() + ((c * spec.in.height + in_row) * spec.in.width + in_col) * batch, batch,
              to);
        }
    const Planes packed = FromBytes(member);
    std::copy_n(packed[0], packed.Words(), members[k]);
  }
  return members;
}

/// For one query: a random bit r per output, unknown to every party.
struct Aby3Correlation final : mpc::Correlation {
  Planes mask;     ///< r_i of r = r_0 ^ r_1 ^ r_2
  AnyShare arith;  ///< r in the output ring

  void Visit(mpc::Archive& archive) override { archive(mask)(arith); }
};

/// Sign, Sign with max-pool, ReLU.
class Aby3Activation final : public Activation {
 public:
  Aby3Activation(Party& party, const ActivationSpec& spec, const Roles& roles)
      : spec_(spec),
        layout_(spec),
        d_(roles.helper),
        e1_(roles.Evaluator1()),
        e2_(roles.Evaluator2()),
        random_(party, Purpose("r")),
        convert_(party, roles.helper, Purpose("b2a")),
        adder_(party, roles.helper, layout_.adder.width, Purpose("adder")),
        zero_bits_(party, Purpose("zero_bits")),
        zero_(party, Purpose("zero")) {
    if (party.Id() != e2_) with_e1_ = party.Keys().Open(e1_, Purpose("open"));
    if (party.Id() != e1_) with_e2_ = party.Keys().Open(d_, Purpose("open"));
  }

  Prepared Prepare(Context& ctx, std::size_t batch, const AnyMatrix* /*z*/) override {
    auto correlation = std::make_unique<Aby3Correlation>();
    const std::size_t rows = spec_.Out().Size();
    const mpc::BitShare r = random_.DrawBits(rows * batch);
    correlation->mask = FromBytes(r.mine);
    correlation->arith = ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      return ToAny(ot3::BitToArith<V>(ctx, convert_, r, rows, batch, spec_.out_bits));  // 3 hops
    });
    return {std::move(correlation), {}};
  }

  std::unique_ptr<mpc::Correlation> NewCorrelation() const override {
    return std::make_unique<Aby3Correlation>();
  }

  AnyShare Run(Context& ctx, Prepared prepared, const AnyMatrix& z) override {
    const auto* correlation = dynamic_cast<const Aby3Correlation*>(prepared.correlation.get());
    TERCET_CHECK(correlation != nullptr, "layer {}: not prepared by this suite", spec_.layer);
    TERCET_CHECK(z.Bits() == spec_.ring_bits && z.Rows() == spec_.in.Size(),
                 "layer {}: got {} features of {} bits, expected {} of {} bits", spec_.layer,
                 z.Rows(), z.Bits(), spec_.in.Size(), spec_.ring_bits);
    TERCET_CHECK(correlation->mask.Count() == spec_.Out().Size() * z.Cols(),
                 "layer {}: prepared for {} outputs, got {}", spec_.layer,
                 correlation->mask.Count(), spec_.Out().Size() * z.Cols());
    const std::size_t batch = z.Cols(), count = z.Rows() * batch;

    Opened opened = ring::DispatchWord(
        spec_.ring_bits, [&]<Word W>(W) { return OpenMasked<W>(ctx, z.As<W>()); });  // 1 hop

    Planes leaves = adder_.Leaves(ctx, opened.input, count);
    Planes msb(1, count);
    if (layout_.HasTree()) {
      adder_.SendLeaves(ctx, std::move(leaves));  // 1 hop
    } else if (leaves.Rows() > 0) {
      msb = std::move(leaves);
    } else {  // values of one bit have no carry
      std::fill(msb.All().begin(), msb.All().end(), 0);
    }
    if (layout_.wrap_bits > 0) SendWrap(ctx, opened.wrap);  // the same hop
    if (layout_.HasTree()) adder_.ReceiveLeaves(ctx);
    if (layout_.wrap_bits > 0) AddWrap(ctx, opened.wrap, opened.x);
    if (layout_.HasTree()) msb = adder_.Carry(ctx, opened.input);
    if (opened.top.Rows() > 0) msb ^= opened.top;

    if (spec_.pool) msb = Pool(ctx, std::move(msb), batch);

    // s = 1 ^ msb = e ^ r, where e is opened.
    msb ^= correlation->mask;
    const Planes mine = SendToAll(ctx, zero_bits_, std::move(msb));  // 1 hop, 6 bits
    AnyShare product;
    if (layout_.relu) product = SendProduct(ctx, correlation->arith, opened.x);  // the same hop
    Buffer<std::uint8_t> e = ToBytes(ReceiveFromAll(ctx, mine));
    if (layout_.relu) ReceiveProduct(ctx, product);
    for (auto& bit : e) bit ^= 1;

    // s y = e y + (1 - 2e) r y, with y = 1 for Sign and x for ReLU. Local.
    return ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      const AnyShare& ry = layout_.relu ? product : correlation->arith;
      ArithShare<V> s{ry.mine.As<V>(), ry.next.As<V>(), spec_.out_bits};
      Select<V>(s.mine, e, ctx.Is(0), opened.x.mine);
      Select<V>(s.next, e, ctx.Is(2), opened.x.next);
      return ToAny(std::move(s));
    });
  }

 private:
  /// What the first hop gives: z = a + b, a at D, b at E1 and E2.
  struct Opened {
    AdderInput input;
    Planes top;  ///< the top bit of a at D, of b at E1
    AnyShare x;  ///< ReLU: a + b in the output ring, b being share D+2
    /// ReLU into a wider ring: shares D and D+1 of a's top bit, at E1 and E2 times that of b.
    AnyShare wrap;
  };

  std::string Purpose(const char* step) const {
    return fmt::format("{}/aby3/{}", spec_.layer, step);
  }

  /// 1 hop: E1 and E2 exchange opened_bits; D sends a row of bits for each row it shares, and
  /// out_bits for ReLU.
  template <Word W>
  Opened OpenMasked(Context& ctx, const Matrix<W>& z) {
    const std::size_t rows = z.shape()[0], cols = z.shape()[1];
    const AdderShape& shape = adder_.Shape();
    Opened opened;
    // Both holders of a key draw in this order: the mask of z, the share of a's bits, that of a.
    Matrix<W> mine = z;
    if (with_e1_) {
      if (ctx.Is(d_)) {
        mine -= with_e1_->Draw<W>(rows, cols);
      } else {
        mine += with_e1_->Draw<W>(rows, cols);
      }
    }
    if (with_e2_) {
      if (ctx.Is(d_)) {
        mine -= with_e2_->Draw<W>(rows, cols);
      } else {
        mine += with_e2_->Draw<W>(rows, cols);
      }
    }
    Planes drawn;
    if (with_e1_) {
      drawn = Planes(shape.SharedRows(), rows * cols);
      with_e1_->Draw(drawn.All());
    }

    if (ctx.Is(d_)) {
      const Planes bits = Slice(std::span<const W>(mine.data(), mine.size()), spec_.value_bits);
      Planes masked = SharedRows(shape, bits);
      masked ^= drawn;
      if (shape.width > 0) ctx.SendBytes(e2_, Pack(masked));  // 1 hop, 1 bit a row
      opened.input.a = {std::move(masked), std::move(drawn)};
      opened.top = TopRow(bits);
    } else {
      const int peer = ctx.Is(e1_) ? e2_ : e1_;
      ctx.Send(peer, mine, layout_.opened_bits);  // the same hop, opened_bits, each way
      mine += ctx.Receive<W>(peer, rows, cols, layout_.opened_bits);  // b
      opened.input.b = Slice(std::span<const W>(mine.data(), mine.size()), spec_.value_bits);
      if (ctx.Is(e1_)) {
        opened.input.a.mine = std::move(drawn);
        opened.top = TopRow(opened.input.b);
      } else if (shape.width > 0) {
        const std::size_t bytes = ring::PackedBytes(shape.SharedRows() * rows * cols, 1);
        opened.input.a.next = Unpack(ctx.ReceiveBytes(d_, bytes), shape.SharedRows(), rows * cols);
      }
    }
    if (layout_.relu)
      ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) { ShareOpened<W, V>(ctx, mine, opened); });
    return opened;
  }

  Planes TopRow(const Planes& bits) const {
    Planes top(1, bits.Count());
    std::copy_n(bits[spec_.value_bits - 1], bits.Words(), top[0]);
    return top;
  }

  /// ReLU: a + b as a replicated share, where b is share D+2 and D splits a between the others.
  /// `part` is a at D, b at the others. In the first hop, out_bits from D to E2, and wrap_bits.
  ///
  /// Into a wider ring a and b go as signed numbers, of which z = a + b + 2^n a_top b_top wherever
  /// z >= 0: then the low n-1 bits carry exactly if one top bit is set, which that carry cancels.
  /// Where z < 0 the result is 0 whatever stands here.
  template <Word W, Word V>
  void ShareOpened(Context& ctx, const Matrix<W>& part, Opened& opened) {
    const std::size_t rows = part.shape()[0], cols = part.shape()[1];
    auto wide = ring::MakeMatrix<V>(rows, cols);
    for (std::size_t i = 0; i < part.size(); ++i)
      wide.data()[i] = layout_.wrap_bits == 0
                           ? static_cast<V>(part.data()[i])
                           : static_cast<V>(ring::Decode(part.data()[i], spec_.value_bits));
    const auto share = [&](Matrix<V> value, unsigned bits) {
      AnyShare split;  // of `value` at D
      if (ctx.Is(e2_)) {
        split.next = AnyMatrix(ctx.Receive<V>(d_, rows, cols, bits), spec_.out_bits);
        return split;
      }
      Matrix<V> drawn = with_e1_->Draw<V>(rows, cols);
      if (ctx.Is(d_)) {
        value -= drawn;
        ctx.Send(e2_, value, bits);  // masked by the key of D and E1
        split.mine = AnyMatrix(std::move(value), spec_.out_bits);
        split.next = AnyMatrix(std::move(drawn), spec_.out_bits);
      } else {
        split.mine = AnyMatrix(std::move(drawn), spec_.out_bits);
      }
      return split;
    };
    opened.x = share(wide, spec_.out_bits);
    if (layout_.wrap_bits > 0) {
      auto top = ring::MakeMatrix<V>(rows, cols);
      for (std::size_t i = 0; i < top.size(); ++i)
        top.data()[i] = static_cast<V>(part.data()[i] >> (spec_.value_bits - 1) & 1);
      opened.wrap = share(top, layout_.wrap_bits);
      if (!ctx.Is(d_)) {
        auto& half = (ctx.Is(e1_) ? opened.wrap.mine : opened.wrap.next).As<V>();
        for (std::size_t i = 0; i < top.size(); ++i)
          half.data()[i] &= static_cast<V>(V{0} - top.data()[i]);  // times b_top
      }
    }
    if (!ctx.Is(d_))
      (ctx.Is(e1_) ? opened.x.next : opened.x.mine) = AnyMatrix(std::move(wide), spec_.out_bits);
  }

  /// The additive share of a_top b_top at E1 and E2 becomes a replicated one, D's shares drawn from
  /// its keys. 1 hop, wrap_bits each way between E1 and E2.
  void SendWrap(Context& ctx, AnyShare& wrap) {
    ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      const std::size_t rows = wrap.mine.Empty() ? wrap.next.Rows() : wrap.mine.Rows();
      const std::size_t cols = wrap.mine.Empty() ? wrap.next.Cols() : wrap.mine.Cols();
      AnyMatrix with_e1, with_e2;
      if (with_e1_) with_e1 = AnyMatrix(with_e1_->Draw<V>(rows, cols), spec_.out_bits);
      if (with_e2_) with_e2 = AnyMatrix(with_e2_->Draw<V>(rows, cols), spec_.out_bits);
      if (ctx.Is(d_)) {
        wrap = {std::move(with_e2), std::move(with_e1)};
        return;
      }
      AnyMatrix third = ctx.Is(e1_) ? std::move(wrap.mine) : std::move(wrap.next);
      third.As<V>() -= (ctx.Is(e1_) ? with_e1 : with_e2).template As<V>();
      ctx.Send(ctx.Is(e1_) ? e2_ : e1_, third.As<V>(), layout_.wrap_bits);
      wrap = ctx.Is(e1_) ? AnyShare{std::move(with_e1), std::move(third)}
                         : AnyShare{std::move(third), std::move(with_e2)};
    });
  }

  /// x += 2^n a_top b_top.
  void AddWrap(Context& ctx, AnyShare& wrap, AnyShare& x) const {
    ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      if (!ctx.Is(d_)) {
        auto& third = (ctx.Is(e1_) ? wrap.next : wrap.mine).As<V>();
        third += ctx.Receive<V>(ctx.Is(e1_) ? e2_ : e1_, third.shape()[0], third.shape()[1],
                                layout_.wrap_bits);
      }
      const auto add = [&](AnyMatrix& half, const AnyMatrix& carry) {
        V* to = half.As<V>().data();
        const Matrix<V>& from = carry.As<V>();
        for (std::size_t i = 0; i < from.size(); ++i)
          to[i] += static_cast<V>(from.data()[i] << spec_.value_bits);
      };
      add(x.mine, wrap.mine);
      add(x.next, wrap.next);
    });
  }

  /// Additive share of r * x, masked, to the party before. 1 hop, out_bits.
  AnyShare SendProduct(Context& ctx, const AnyShare& r, const AnyShare& x) {
    return ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      const auto &r0 = r.mine.As<V>(), &r1 = r.next.As<V>();
      const auto &x0 = x.mine.As<V>(), &x1 = x.next.As<V>();
      Matrix<V> share = zero_.Draw<V>(r0.shape()[0], r0.shape()[1]);
      for (std::size_t i = 0; i < share.size(); ++i) {
        const Wide<V> p = r0.data()[i], q = r1.data()[i], u = x0.data()[i], v = x1.data()[i];
        share.data()[i] += static_cast<V>(p * (u + v) + q * u);
      }
      ctx.Send(ctx.Prev(), share, spec_.out_bits);
      return AnyShare{AnyMatrix(std::move(share), spec_.out_bits), {}};
    });
  }

  void ReceiveProduct(Context& ctx, AnyShare& product) const {
    ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      const auto& mine = product.mine.As<V>();
      product.next =
          AnyMatrix(ctx.Receive<V>(ctx.Next(), mine.shape()[0], mine.shape()[1], spec_.out_bits),
                    spec_.out_bits);
    });
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

  /// One half of the share: v, a half of r y, becomes e y + (1 - 2e) v. For Sign y = 1, which is
  /// share 0 alone; for ReLU it is `x`.
  template <Word V>
  void Select(Matrix<V>& half, const Buffer<std::uint8_t>& e, bool zeroth,
              const AnyMatrix& x) const {
    const V* factor = layout_.relu ? x.As<V>().data() : nullptr;
    V* v = half.data();
    for (std::size_t i = 0; i < e.size(); ++i) {
      const V all = static_cast<V>(V{0} - V{e[i]});  // all bits set where e = 1
      const V y = factor != nullptr ? factor[i] : static_cast<V>(zeroth);
      v[i] = static_cast<V>((v[i] ^ all) - all + (y & all));
    }
  }

  ActivationSpec spec_;
  Layout layout_;
  int d_, e1_, e2_;
  mpc::RandomSharing random_;
  ot3::BitTimes convert_;
  Adder adder_;
  ZeroBits zero_bits_;
  mpc::ZeroSharing zero_;
  std::optional<crypto::PrfStream> with_e1_, with_e2_;
};

mpc::Round ReshareRound(std::uint64_t bytes) {
  return {{0, 2, bytes}, {1, 0, bytes}, {2, 1, bytes}};
}

class Aby3Suite final : public mpc::Suite {
 public:
  const mpc::SuiteInfo& Info() const override {
    static const mpc::SuiteInfo info{
        .name = "aby3",
        .summary = "bit decomposition by a Boolean adder (ABY3: Mohassel and Rindal, CCS 2018)",
        .is_private = true,
        .leaks = "",
        .dealt_output = false,
        .options = {}};
    return info;
  }

  void Check(const ActivationSpec& spec, const SuiteChoice& choice) const override {
    if (!choice.options.empty()) throw ConfigError("suite " + choice.Text(), "aby3 has no options");
    const auto refuse = [&](const std::string& problem) {
      throw UnsupportedError(fmt::format("layer {}: suite aby3 {}", spec.layer, problem));
    };
    const bool has = spec.kind == ActivationKind::kSign ||
                     (spec.kind == ActivationKind::kRelu && !spec.pool && spec.shift == 0);
    if (!has)
      refuse(
          fmt::format("has no {}{}{}; supported: sign, sign with max-pool, relu without truncation",
                      mpc::ActivationName(spec.kind),
                      spec.shift > 0 ? fmt::format(" with truncation by {} bits", spec.shift) : "",
                      spec.pool ? " with max-pool" : ""));
    if (spec.value_bits < 1 || spec.ring_bits < spec.value_bits || spec.ring_bits > ring::kMaxBits)
      refuse(
          fmt::format("needs values of 1 bit or more in a ring of that width to {} bits, got "
                      "value width {} and ring {}",
                      ring::kMaxBits, spec.value_bits, spec.ring_bits));
    if (spec.out_bits < 1 || spec.out_bits > ring::kMaxBits)
      refuse(fmt::format("needs an output ring of 1 to {} bits, got {}", ring::kMaxBits,
                         spec.out_bits));
    if (spec.pool && (spec.pool->kernel < 1 || spec.pool->stride < 1 ||
                      spec.pool->kernel > spec.in.height || spec.pool->kernel > spec.in.width))
      refuse(
          fmt::format("cannot pool {0} x {0} windows with stride {1} over maps of {2} x {3}; "
                      "the window must fit and the stride be at least 1",
                      spec.pool->kernel, spec.pool->stride, spec.in.height, spec.in.width));
  }

  Cost Costs(const ActivationSpec& spec, const SuiteChoice& choice,
             const Roles& roles) const override {
    Check(spec, choice);
    const Layout layout(spec);
    const int d = roles.helper, e1 = roles.Evaluator1(), e2 = roles.Evaluator2();
    const std::size_t count = spec.Elements(), outputs = spec.Outputs();
    Cost cost;
    ot3::BitTimes::AddCost(d, outputs, spec.out_bits, mpc::Phase::kOffline, cost);

    const auto add = [&](mpc::Round round) { cost.Add(mpc::Phase::kOnline, std::move(round)); };
    const std::uint64_t opened = ring::PackedBytes(count, layout.opened_bits);
    mpc::Round first{{e1, e2, opened}, {e2, e1, opened}};
    if (layout.adder.width > 0)
      first.push_back({d, e2, ring::PackedBytes(count * layout.adder.SharedRows(), 1)});
    const std::uint64_t wrap = ring::PackedBytes(count, layout.wrap_bits);
    if (layout.relu) first.push_back({d, e2, ring::PackedBytes(count, spec.out_bits)});
    if (layout.wrap_bits > 0) first.push_back({d, e2, wrap});
    add(std::move(first));
    mpc::Round second;
    const auto exchange = [&](std::uint64_t bytes) {
      second.push_back({e1, e2, bytes});
      second.push_back({e2, e1, bytes});
    };
    if (layout.HasTree()) exchange(ring::PackedBytes(count * layout.adder.LeafRows(), 1));
    if (layout.wrap_bits > 0) exchange(wrap);
    if (!second.empty()) add(std::move(second));
    if (layout.HasTree()) {
      for (const std::size_t rows : layout.adder.Levels())
        add(ReshareRound(ring::PackedBytes(count * rows, 1)));
    }
    if (layout.window > 1) {
      add(ReshareRound(ring::PackedBytes(count, 1)));
      for (const std::size_t rows : AndTreeLevels(layout.window))
        add(ReshareRound(ring::PackedBytes(outputs * rows, 1)));
    }
    mpc::Round open;
    for (int from : {0, 1, 2})
      for (int to : {0, 1, 2})
        if (from != to) open.push_back({from, to, ring::PackedBytes(outputs, 1)});
    if (layout.relu)
      for (const auto& message : ReshareRound(ring::PackedBytes(count, spec.out_bits)))
        open.push_back(message);
    add(std::move(open));
    return cost;
  }

  std::unique_ptr<Activation> Create(Party& party, const ActivationSpec& spec,
                                     const SuiteChoice& choice, const Roles& roles) const override {
    Check(spec, choice);
    return std::make_unique<Aby3Activation>(party, spec, roles);
  }
};

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) { registry.AddSuite(std::make_unique<Aby3Suite>()); }

}  // namespace tercet::protocols::aby3
