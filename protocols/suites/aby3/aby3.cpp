#include <algorithm>

#include "common/ot3/bit_times.h"
#include "suites/aby3/adder.h"
#include "tercet/mpc/registry.h"

namespace tercet::protocols::aby3 {

namespace {

using mpc::Activation;
using mpc::ActivationKind;
using mpc::ActivationSpec;
using mpc::AnyMatrix;
using mpc::AnyShare;
using mpc::ArithShare;
using mpc::Cost;
using mpc::Roles;

/// Sizes that costs and messages have in common; public.
struct Layout {
  explicit Layout(const ActivationSpec& spec)
      : relu(spec.kind == ActivationKind::kRelu),
        square(spec.kind == ActivationKind::kSquare),
        shift(relu || square ? spec.shift : 0),
        carries{{square ? spec.value_bits : spec.value_bits - 1}},
        window(spec.pool ? spec.pool->kernel * spec.pool->kernel : 1) {
    if (shift > 0) carries.push_back({shift});
    const unsigned kept = spec.value_bits - shift;
    const bool wider = spec.out_bits > (shift > 0 ? kept : spec.ring_bits);
    if (relu && wider) wrap_bits = spec.out_bits - kept;
    whole = relu && !wider && shift == 0;
    opened_bits = whole ? std::max(spec.value_bits, spec.out_bits) : spec.value_bits;
  }

  bool relu, square;
  unsigned shift;
  std::vector<AdderShape>
      carries;             ///< out of the low n-1 bits (square: n), then of the low `shift`
  std::size_t window;      ///< elements per output
  unsigned wrap_bits = 0;  ///< ReLU: bits of the output ring above the values'; else 0
  bool whole;              ///< ReLU: a and b go as they are, as elements of the output ring
  unsigned opened_bits;    ///< of b

  /// ReLU with truncation: a carry is multiplied by the sign.
  bool TakesCarry() const { return relu && shift > 0; }
  /// Random bits per output: a mask of each bit that is opened, and the product of two.
  std::size_t RandomBits() const { return carries.size() + (TakesCarry() ? 1 : 0); }
};

/// Words in which elements are multiplied: 8- and 16-bit words would be promoted to int, which can
/// overflow.
template <Word W>
using Wide = std::conditional_t<(sizeof(W) < 4), std::uint32_t, W>;

/// `one` - v where the bit is set, else v: an XOR of a bit with another in their ring form.
template <Word V>
V Flipped(V v, V one, std::uint8_t bit) {
  const V all = static_cast<V>(V{0} - V{bit});
  return static_cast<V>((v ^ all) - all + (one & all));
}

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

/// The rows of bits, `rows` planes of them.
Planes Stack(std::span<const std::uint8_t> bits, std::size_t rows) {
  const std::size_t count = bits.size() / rows;
  Planes planes(rows, count);
  for (std::size_t row = 0; row < rows; ++row) {
    const Planes packed = FromBytes(bits.subspan(row * count, count));
    std::copy_n(packed[0], packed.Words(), planes[row]);
  }
  return planes;
}

Planes Row(const Planes& planes, std::size_t row) {
  Planes one(1, planes.Count());
  std::copy_n(planes[row], planes.Words(), one[0]);
  return one;
}

/// For one query: a random bit per output and carry, r and q, unknown to every party.
struct Aby3Correlation final : mpc::Correlation {
  Planes mask;     ///< r_i of r = r_0 ^ r_1 ^ r_2, then q_i
  AnyShare arith;  ///< r, q and r q in the output ring, below each other

  void Visit(mpc::Archive& archive) override { archive(mask)(arith); }
};

/// Sign, Sign with max-pool, ReLU, square.
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
        zero_masks_(party, Purpose("zero_masks")),
        adder_(party, roles.helper, layout_.carries, Purpose("adder")),
        zero_bits_(party, Purpose("zero_bits")),
        zero_(party, Purpose("zero")) {
    if (party.Id() != e2_) with_e1_ = party.Keys().Open(e1_, Purpose("open"));
    if (party.Id() != e1_) with_e2_ = party.Keys().Open(d_, Purpose("open"));
  }

  std::unique_ptr<mpc::Correlation> Prepare(Context& ctx, std::size_t batch) override {
    auto correlation = std::make_unique<Aby3Correlation>();
    const std::size_t rows = spec_.Out().Size();
    const std::size_t masks = layout_.carries.size();
    mpc::BitShare bits = random_.DrawBits(masks * rows * batch);
    correlation->mask = Stack(bits.mine, masks);
    if (layout_.TakesCarry()) AppendProduct(ctx, bits);  // 1 hop
    correlation->arith = ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      return ToAny(ot3::BitToArith<V>(ctx, convert_, bits, layout_.RandomBits() * rows, batch,
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

    Opened opened = ring::DispatchWord(
        spec_.ring_bits, [&]<Word W>(W) { return OpenMasked<W>(ctx, z.As<W>()); });  // 1 hop

    Planes bits = adder_.Leaves(ctx, opened.input, count);
    if (adder_.HasTree()) adder_.SendLeaves(ctx, std::move(bits));  // 1 hop
    if (layout_.wrap_bits > 0) SendWrap(ctx, opened.wrap);          // the same hop
    if (adder_.HasTree()) adder_.ReceiveLeaves(ctx);
    if (layout_.wrap_bits > 0) AddWrap(ctx, opened.wrap, opened.x);
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
    if (layout_.relu) product = SendProduct(ctx, correlation->arith, opened.x);  // the same hop
    const Planes known = ReceiveFromAll(ctx, mine);
    if (layout_.relu) ReceiveProduct(ctx, product);
    Buffer<std::uint8_t> e = ToBytes(known), f;
    if (layout_.shift > 0) f = ToBytes(Row(known, 1));
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
      return ToAny(std::move(s));
    });
  }

 private:
  /// What the first hop gives: z = a + b, a at D, b at E1 and E2.
  struct Opened {
    AdderInput input;
    Planes top;  ///< the top bit of a at D, of b at E1
    AnyShare x;  ///< ReLU, square: the parts of a and b in the output ring, b's being share D+2
    /// ReLU into a wider ring: shares D and D+1 of a's top bit, at E1 and E2 times that of b.
    AnyShare wrap;
  };

  std::string Purpose(const char* step) const {
    return fmt::format("{}/aby3/{}", spec_.layer, step);
  }

  /// Offline: r q below r and q. 1 hop, 3 bits an output.
  void AppendProduct(Context& ctx, mpc::BitShare& bits) {
    const PlaneShare rows{Stack(bits.mine, 2), Stack(bits.next, 2)};
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

  /// 1 hop: E1 and E2 exchange opened_bits; D sends a row of bits for each row it shares, and
  /// out_bits for ReLU and square.
  template <Word W>
  Opened OpenMasked(Context& ctx, const Matrix<W>& z) {
    const std::size_t rows = z.shape()[0], cols = z.shape()[1];
    const AdderShape& shape = adder_.Widest();
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
      if (!layout_.square) opened.top = Row(bits, spec_.value_bits - 1);
    } else {
      const int peer = ctx.Is(e1_) ? e2_ : e1_;
      ctx.Send(peer, mine, layout_.opened_bits);  // the same hop, opened_bits, each way
      mine += ctx.Receive<W>(peer, rows, cols, layout_.opened_bits);  // b
      opened.input.b = Slice(std::span<const W>(mine.data(), mine.size()), spec_.value_bits);
      const std::size_t top = spec_.value_bits - 1;
      if (ctx.Is(e1_) && !layout_.square) opened.top = Row(opened.input.b, top);
      for (std::size_t w = 0; layout_.square && w < opened.input.b.Words(); ++w)
        opened.input.b[top][w] = ~opened.input.b[top][w];  // b + 2^(n-1)
      if (ctx.Is(e1_)) {
        opened.input.a.mine = std::move(drawn);
      } else if (shape.width > 0) {
        const std::size_t bytes = ring::PackedBytes(shape.SharedRows() * rows * cols, 1);
        opened.input.a.next = Unpack(ctx.ReceiveBytes(d_, bytes), shape.SharedRows(), rows * cols);
      }
    }
    if (layout_.relu || layout_.square)
      ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) { ShareOpened<W, V>(ctx, mine, opened); });
    return opened;
  }

  /// ReLU and square: the parts of a and b as a replicated share, where b's is share D+2 and D
  /// splits a's between the others. `part` is a at D, b at the others. In the first hop, out_bits
  /// from D to E2, and wrap_bits.
  ///
  /// ReLU into a wider ring, or with truncation: a and b go as signed numbers, rounded down, of
  /// which z >> f = (a >> f) + (b >> f) + c_f + 2^(n-f) a_top b_top wherever z >= 0, c_f being the
  /// carry out of the low f bits: then the low n-1 bits carry exactly if one top bit is set, which
  /// that carry cancels. Where z < 0 the result is 0 whatever stands here. Square: b is a signed
  /// number and a is not, and z >> f = (a >> f) + (b >> f) + c_f - 2^(n-f) w, where w is the carry
  /// of a and b + 2^(n-1) out of n bits.
  template <Word W, Word V>
  void ShareOpened(Context& ctx, const Matrix<W>& part, Opened& opened) {
    const std::size_t rows = part.shape()[0], cols = part.shape()[1];
    const unsigned n = spec_.value_bits;
    const bool is_signed = !layout_.square || !ctx.Is(d_);
    auto wide = ring::MakeMatrix<V>(rows, cols);
    for (std::size_t i = 0; i < part.size(); ++i) {
      const W from = part.data()[i];
      wide.data()[i] = layout_.whole ? static_cast<V>(from)
                       : is_signed   ? static_cast<V>(ring::Decode(from, n) >> layout_.shift)
                                     : static_cast<V>(ring::Reduce(from, n) >> layout_.shift);
    }
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

  /// x += 2^(n-f) a_top b_top.
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
          to[i] += static_cast<V>(from.data()[i] << (spec_.value_bits - layout_.shift));
      };
      add(x.mine, wrap.mine);
      add(x.next, wrap.next);
    });
  }

  /// Additive share of r * x, masked, to the party before; of r the first rows, as many as x has. 1
  /// hop, out_bits.
  AnyShare SendProduct(Context& ctx, const AnyShare& r, const AnyShare& x) {
    return ring::DispatchWord(spec_.out_bits, [&]<Word V>(V) {
      const auto &r0 = r.mine.As<V>(), &r1 = r.next.As<V>();
      const auto &x0 = x.mine.As<V>(), &x1 = x.next.As<V>();
      Matrix<V> share = zero_.Draw<V>(x0.shape()[0], x0.shape()[1]);
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
      v[i] = Flipped<V>(v[i], factor != nullptr ? factor[i] : static_cast<V>(zeroth), e[i]);
    }
  }

  /// One half of the share: += s c, with s = e ^ r and c = f ^ q. `r` begins those of r, q, r q.
  template <Word V>
  static void AddCarry(Matrix<V>& half, const Buffer<std::uint8_t>& e,
                       const Buffer<std::uint8_t>& f, bool zeroth, const V* r) {
    const V *q = r + half.size(), *rq = q + half.size();
    V* to = half.data();
    for (std::size_t i = 0; i < half.size(); ++i) {
      const V rc = Flipped<V>(rq[i], r[i], f[i]);
      const V c = Flipped<V>(q[i], V{zeroth}, f[i]);
      to[i] = static_cast<V>(to[i] + Flipped<V>(rc, c, e[i]));
    }
  }

  /// One half of the share: += 2^power c, with c = f ^ q, or -= it.
  template <Word V>
  void AddBit(Matrix<V>& half, const Buffer<std::uint8_t>& f, bool zeroth, const V* q,
              unsigned power, bool minus) const {
    if (power >= spec_.out_bits) return;
    V* to = half.data();
    for (std::size_t i = 0; i < half.size(); ++i) {
      const V c = Flipped<V>(q[i], V{zeroth}, f[i]);
      const V term = static_cast<V>(Wide<V>{c} << power);
      to[i] = static_cast<V>(minus ? to[i] - term : to[i] + term);
    }
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
    AnyShare product = SendProduct(ctx, x, x);
    ReceiveProduct(ctx, product);
    return product;
  }

  ActivationSpec spec_;
  Layout layout_;
  int d_, e1_, e2_;
  mpc::RandomSharing random_;
  ot3::BitTimes convert_;
  ZeroBits zero_masks_;  // offline
  Adder adder_;
  ZeroBits zero_bits_;
  mpc::ZeroSharing zero_;
  std::optional<crypto::PrfStream> with_e1_, with_e2_;
};

void Check(const ActivationSpec& spec) {
  const bool fixed_point =
      spec.kind == ActivationKind::kRelu || spec.kind == ActivationKind::kSquare;
  if (spec.kind != ActivationKind::kSign && (!fixed_point || spec.pool))
    throw mpc::Refusal(
        spec, "aby3",
        fmt::format("has no {}{}; supported: sign, sign with max-pool, relu, square",
                    mpc::ActivationName(spec.kind), spec.pool ? " with max-pool" : ""));
  if (fixed_point && spec.shift >= spec.value_bits)
    throw mpc::Refusal(
        spec, "aby3",
        fmt::format("cannot truncate values of {} bits by {}", spec.value_bits, spec.shift));
}

Cost CostOf(const ActivationSpec& spec, const Roles& roles) {
  const Layout layout(spec);
  const int d = roles.helper, e1 = roles.Evaluator1(), e2 = roles.Evaluator2();
  const std::size_t count = spec.Elements(), outputs = spec.Outputs();
  Cost cost;
  if (layout.TakesCarry())
    cost.Add(mpc::Phase::kOffline, mpc::ReshareRound(ring::PackedBytes(outputs, 1)));
  ot3::BitTimes::AddCost(d, layout.RandomBits() * outputs, spec.out_bits, mpc::Phase::kOffline,
                         cost);

  const auto add = [&](mpc::Round round) { cost.Add(mpc::Phase::kOnline, std::move(round)); };
  const std::uint64_t opened = ring::PackedBytes(count, layout.opened_bits);
  mpc::Round first{{e1, e2, opened}, {e2, e1, opened}};
  const AdderShape& widest = layout.carries.front();
  if (widest.width > 0) first.push_back({d, e2, ring::PackedBytes(count * widest.SharedRows(), 1)});
  const std::uint64_t wrap = ring::PackedBytes(count, layout.wrap_bits);
  if (layout.relu || layout.square)
    first.push_back({d, e2, ring::PackedBytes(count, spec.out_bits)});
  if (layout.wrap_bits > 0) first.push_back({d, e2, wrap});
  add(std::move(first));
  mpc::Round second;
  const auto exchange = [&](std::uint64_t bytes) {
    second.push_back({e1, e2, bytes});
    second.push_back({e2, e1, bytes});
  };
  const bool has_tree = Adder::HasTree(layout.carries);
  if (has_tree) exchange(ring::PackedBytes(count * Adder::LeafRows(layout.carries), 1));
  if (layout.wrap_bits > 0) exchange(wrap);
  if (!second.empty()) add(std::move(second));
  if (has_tree) {
    for (const std::size_t rows : Adder::Levels(layout.carries))
      add(mpc::ReshareRound(ring::PackedBytes(count * rows, 1)));
  }
  if (layout.window > 1) {
    add(mpc::ReshareRound(ring::PackedBytes(count, 1)));
    for (const std::size_t rows : AndTreeLevels(layout.window))
      add(mpc::ReshareRound(ring::PackedBytes(outputs * rows, 1)));
  }
  mpc::Round open = mpc::OpenRound(ring::PackedBytes(layout.carries.size() * outputs, 1));
  if (layout.relu)
    for (const auto& message : mpc::ReshareRound(ring::PackedBytes(count, spec.out_bits)))
      open.push_back(message);
  add(std::move(open));
  if (layout.square) add(mpc::ReshareRound(ring::PackedBytes(count, spec.out_bits)));
  return cost;
}

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
       .variants = {{"", {{{3, 21}, {33, 56}}}}}},
      Plan);
}

}  // namespace tercet::protocols::aby3
