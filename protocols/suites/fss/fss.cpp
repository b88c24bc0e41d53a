// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "common/dealer/activation.h"
#include "suites/fss/layout.h"

// Activations by distributed comparison functions whose point the helper knows; the message flow,
// the symbols and who learns what are in README.md.
namespace tercet::protocols::fss {
namespace {

using dealer::Bits;
using dealer::Context;
using dealer::Ends;
using dealer::Formula;
using dealer::ForRanges;

void DrawRoots(crypto::PrfStream& stream, std::span<Block> roots) {
  stream.Fill({reinterpret_cast<std::uint8_t*>(roots.data()), roots.size_bytes()});
}

std::span<const std::uint8_t, kHashKeyBytes> HashKey(const Bytes& piece) {
  return std::span<const std::uint8_t>(piece).first<kHashKeyBytes>();
}

template <ring::Word V>
std::vector<Dcf<V>> Functions(const Layout& layout, const Bytes& piece) {
  std::vector<Dcf<V>> functions;
  for (const auto& shape : layout.shapes) functions.emplace_back(shape, HashKey(piece));
  return functions;
}

// Takes the first `count` of what is left.
template <class T>
std::span<T> Next(std::span<T>& left, std::size_t count) {
  const auto taken = left.first(count);
  left = left.subspan(count);
  return taken;
}

/// What an evaluator keeps of functions.
struct Keys {
  Buffer<Block> roots;        ///< of its trees: chunk after chunk, function after function
  std::vector<Bytes> pieces;  ///< hash keys, then correction words
  void Visit(mpc::Archive& archive) { archive(roots)(pieces); }
};

/// At D, offline: a message to E1 and one to E2 for every PieceElements() elements.
/// give(function, begin, n, alpha, below, above) says what functions are of a chunk; vectors stand
/// value by value, as a Dcf takes them.
template <ring::Word V, class F>
void DealKeys(Context& ctx, Ends& ends, const Layout& layout, std::size_t count, F&& give) {
  const std::size_t outputs = layout.shapes[0].outputs;
  Buffer<std::uint64_t> alpha(kChunk);
  Buffer<Block> roots1(kChunk), roots2(kChunk);
  Buffer<V> below(kChunk * outputs, 0), above(kChunk * outputs, 0);
  ForRanges(count, layout.PieceElements(), [&](std::size_t piece_begin, std::size_t size) {
    // E1's message is how E2's begins: hash keys, what both need, what only E2 needs.
    Bytes piece(layout.SharedBytes(size) + layout.FirstBytes(size));
    ends.Coins().Fill(std::span<std::uint8_t>(piece).first(kHashKeyBytes));
    auto rest = std::span<std::uint8_t>(piece).subspan(kHashKeyBytes);
    auto first = rest.subspan(layout.RestBytes(size));
    auto functions = Functions<V>(layout, piece);
    ForRanges(size, kChunk, [&](std::size_t begin, std::size_t n) {
      for (std::size_t k = 0; k < functions.size(); ++k) {
        const auto& shape = layout.shapes[k];
        give(k, piece_begin + begin, n, alpha.data(), below.data(), above.data());
        DrawRoots(ends.WithE1(), {roots1.data(), n});
        DrawRoots(ends.WithE2(), {roots2.data(), n});
        const std::size_t values = n * shape.outputs;
        functions[k].Deal({alpha.data(), n}, {below.data(), values}, {above.data(), values},
                          {roots1.data(), n}, {roots2.data(), n}, Next(first, shape.FirstBytes(n)),
                          Next(rest, shape.RestBytes(n)));
      }
    });
    const auto shared = static_cast<std::ptrdiff_t>(layout.SharedBytes(size));
    ctx.SendBytes(ends.E1(), Bytes(piece.begin(), piece.begin() + shared));  // offline
    ctx.SendBytes(ends.E2(), std::move(piece));                              // offline
  });
}

/// At an evaluator, offline.
Keys TakeKeys(Context& ctx, Ends& ends, const Layout& layout, std::size_t count) {
  Keys keys;
  keys.roots.resize(count * layout.shapes.size());
  std::span<Block> roots(keys.roots);
  ForRanges(count, layout.PieceElements(), [&](std::size_t, std::size_t size) {
    ForRanges(size, kChunk, [&](std::size_t, std::size_t n) {
      for (std::size_t k = 0; k < layout.shapes.size(); ++k)
        DrawRoots(ends.WithDealer(), Next(roots, n));
    });
    const std::size_t own = ends.IsE2() ? layout.FirstBytes(size) : 0;
    keys.pieces.push_back(ctx.ReceiveBytes(ends.Dealer(), layout.SharedBytes(size) + own));
  });
  return keys;
}

/// At E1 and E2: evaluates every function of numbers[i] ^ complement; take(begin, count, function,
/// shares) gets the additive shares of a chunk, not reduced, value by value.
template <ring::Word V, ring::Word W, class F>
void EvaluateKeys(const Ends& ends, const Layout& layout, const Keys& keys,
                  std::span<const W> numbers, W complement, F&& take) {
  const auto who = ends.IsE1() ? Evaluator::kE1 : Evaluator::kE2;
  Buffer<std::uint64_t> x(kChunk);
  Buffer<V> shares(kChunk * layout.shapes[0].outputs);
  std::span<const Block> roots(keys.roots);
  dealer::CheckSize("roots", roots.size(), numbers.size() * layout.shapes.size());
  auto next_piece = keys.pieces.begin();
  ForRanges(numbers.size(), layout.PieceElements(), [&](std::size_t piece_begin, std::size_t size) {
    TERCET_CHECK(next_piece != keys.pieces.end(), "material with too few keys");
    const Bytes& piece = *next_piece++;
    dealer::CheckSize("keys", piece.size(),
                      layout.SharedBytes(size) + (ends.IsE2() ? layout.FirstBytes(size) : 0));
    ByteSpan rest = ByteSpan(piece).subspan(kHashKeyBytes);
    ByteSpan first = rest.subspan(layout.RestBytes(size));
    auto functions = Functions<V>(layout, piece);
    ForRanges(size, kChunk, [&](std::size_t begin, std::size_t n) {
      const auto part = numbers.subspan(piece_begin + begin, n);
      for (std::size_t k = 0; k < functions.size(); ++k) {
        const auto& shape = layout.shapes[k];
        for (std::size_t i = 0; i < n; ++i)
          x[i] =
              static_cast<W>(part[i] ^ complement) & ring::LowMask<std::uint64_t>(shape.input_bits);
        const std::size_t own = ends.IsE2() ? shape.FirstBytes(n) : 0;
        const std::span<V> out(shares.data(), n * shape.outputs);
        functions[k].Evaluate(who, {x.data(), n}, Next(roots, n), Next(first, own),
                              Next(rest, shape.RestBytes(n)), out);
        take(piece_begin + begin, n, k, std::span<const V>(out));
      }
    });
  });
}

void AddKeys(mpc::Cost& cost, const mpc::Roles& roles, const Layout& layout, std::size_t count) {
  ForRanges(count, layout.PieceElements(), [&](std::size_t, std::size_t size) {
    const std::uint64_t shared = layout.SharedBytes(size);
    cost.Add(mpc::Phase::kOffline,
             {{roles.helper, roles.Evaluator1(), shared},
              {roles.helper, roles.Evaluator2(), shared + layout.FirstBytes(size)}});
  });
}

/// The comparison of a formula's numbers by distributed comparison functions (README.md, step 2),
/// as dealer::Activation wants it. D is the helper, E1 and E2 the evaluators. No message online.
class Comparison {
 public:
  static constexpr unsigned kMaxCompared = ring::kMaxBits - 1;
  static constexpr bool kPoints = true;

  Comparison(const mpc::ActivationSpec& spec, const mpc::OptionValues& options)
      : formula_(spec),
        layout_(MakeLayout(spec, options)),
        points_(PointLayout(spec)),
        compared_(Compared(formula_, spec.out_bits)),
        out_bits_(spec.out_bits) {}

  /// What an evaluator keeps.
  struct Material {
    Keys keys, points;
    mpc::AnyMatrix constants;  ///< of elements that are not compared
    void Visit(mpc::Archive& archive) { archive(keys)(points)(constants); }
  };

  bool GivesElements() const { return layout_.arithmetic; }
  bool GivesProduct() const { return false; }
  bool GivesPoints() const { return points_.has_value(); }

  /// At D, offline. What the evaluators get shares of are s and carry themselves: the offsets are
  /// 0.
  template <ring::Word W>
  Bits Deal(Context& ctx, Ends& ends, std::span<const W> a, const dealer::Columns& columns) const {
    ring::DispatchWord(layout_.shapes[0].output_bits, [&]<ring::Word V>(V) {
      const std::size_t outputs = layout_.shapes[0].outputs, elements = compared_.size();
      Buffer<V> entries(kChunk * elements), bits(kChunk), none(kChunk, 0);
      // What D gives for these bits.
      const auto give = [&](std::size_t begin, std::size_t n, V* to) {
        if (!layout_.arithmetic) {
          std::copy_n(bits.begin(), n, to);
          return;
        }
        for (std::size_t j = 0; j < elements; ++j)
          formula_.Entries<W, V>(compared_[j], a.subspan(begin, n), bits.data(), none.data(),
                                 entries.data() + j * n);
        for (std::size_t i = 0; i < elements * n; ++i) to[i] = ring::Reduce(entries[i], out_bits_);
        // Fused: the vector (s, M_i s), of the column M_i.
        for (std::size_t i = 0; elements < outputs && i < n; ++i)
          GiveProducts(entries[i], columns.Of<V>(begin + i, a.size()), i, n, to);
      };
      DealKeys<V>(ctx, ends, layout_, a.size(),
                  [&](std::size_t k, std::size_t begin, std::size_t n, std::uint64_t* alpha,
                      V* below, V* above) {
                    const auto part = a.subspan(begin, n);
                    const auto low = ring::LowMask<std::uint64_t>(layout_.shapes[k].input_bits);
                    for (std::size_t i = 0; i < n; ++i) alpha[i] = part[i] & low;
                    // The sign's bit is [x < alpha] ^ flip, the carry's [x < alpha].
                    for (std::size_t i = 0; i < n; ++i)
                      bits[i] = k == 0 ? formula_.Flip(part[i]) : 0;
                    give(begin, n, above);
                    for (std::size_t i = 0; i < n; ++i) bits[i] ^= 1;
                    give(begin, n, below);
                  });
      if (HasConstant())
        dealer::DealElements<V>(ctx, ends, a.size(), 1, out_bits_,
                                [&](std::size_t begin, std::size_t n, V* values) {
                                  const Buffer<V> zero(n, 0);
                                  formula_.Entries<W, V>(kConstant, a.subspan(begin, n),
                                                         zero.data(), zero.data(), values);
                                });
    });
    return Bits(layout_.arithmetic ? 0 : a.size(), 0);
  }

  /// At an evaluator, offline.
  Material Take(Context& ctx, Ends& ends, std::size_t count) const {
    Material material{TakeKeys(ctx, ends, layout_, count), {}, {}};
    if (HasConstant()) material.constants = dealer::TakeElements(ctx, ends, count, 1, out_bits_);
    return material;
  }

  /// At E1 and E2, online.
  template <ring::Word W>
  Bits CompareBits(Context& /*ctx*/, const Ends& ends, const Material& material,
                   std::span<const W> b) const {
    Bits bits(b.size(), 0);
    EvaluateKeys<std::uint8_t>(
        ends, layout_, material.keys, b, formula_.Complement<W>(),
        [&](std::size_t begin, std::size_t n, std::size_t k, std::span<const std::uint8_t> shares) {
          for (std::size_t i = 0; i < n; ++i)
            bits[begin + i] |= static_cast<std::uint8_t>((shares[i] & 1) << k);
        });
    return bits;
  }

  template <ring::Word W, ring::Word V>
  Buffer<V> CompareElements(Context& /*ctx*/, const Ends& ends, const Material& material,
                            std::span<const W> b) const {
    const std::size_t elements = formula_.Elements(false), count = b.size();
    Buffer<V> all(count * (compared_.size() + (HasConstant() ? 1 : 0)));
    EvaluateKeys<V>(
        ends, layout_, material.keys, b, formula_.Complement<W>(),
        [&](std::size_t begin, std::size_t n, std::size_t /*k*/, std::span<const V> shares) {
          for (std::size_t j = 0; j < compared_.size(); ++j) {
            const std::size_t row = std::min(compared_[j], elements);  // the wrap comes last
            std::copy_n(shares.data() + j * n, n, all.data() + row * count + begin);
          }
        });
    if (HasConstant()) {
      const auto& constants = material.constants.As<V>();
      dealer::CheckSize("constants", constants.size(), count);
      std::copy_n(constants.data(), count, all.data() + kConstant * count);
    }
    return all;
  }

  /// The comparison gives shares of s and of its products, which k = 1 - 2 flip multiplies.
  template <ring::Word W, ring::Word V>
  void CompareFused(Context& /*ctx*/, const Ends& ends, const Material& material,
                    std::span<const W> b, const Bits& flips, dealer::FusedSum<V>& sum) const {
    EvaluateKeys<V>(
        ends, layout_, material.keys, b, formula_.Complement<W>(),
        [&](std::size_t begin, std::size_t n, std::size_t /*k*/, std::span<const V> shares) {
          Add(
              begin, n, shares, sum, [&](std::size_t i) { return V{flips[i]}; },
              [&](std::size_t i) { return static_cast<V>(1 - 2 * flips[i]); });
        });
  }

  void AddCost(mpc::Cost& cost, const mpc::ActivationSpec& spec, const mpc::Roles& roles) const {
    AddKeys(cost, roles, layout_, spec.Elements());
    if (HasConstant()) dealer::AddElements(cost, roles, spec.Elements(), 1, out_bits_);
  }

  /// At D, offline: for each window the vector (1, M_i) at rho, and 0 elsewhere.
  void DealPoints(Context& ctx, Ends& ends, const Bits& rho, const dealer::Columns& columns) const {
    ring::DispatchWord(out_bits_, [&]<ring::Word V>(V) {
      DealKeys<V>(ctx, ends, *points_, rho.size(),
                  [&](std::size_t /*k*/, std::size_t begin, std::size_t n, std::uint64_t* alpha,
                      V* /*below*/, V* above) {
                    std::copy_n(rho.begin() + static_cast<std::ptrdiff_t>(begin), n, alpha);
                    for (std::size_t i = 0; i < n; ++i) {
                      above[i] = V{1};
                      GiveProducts(V{1}, columns.Of<V>(begin + i, rho.size()), i, n, above);
                    }
                  });
    });
  }
  void TakePoints(Context& ctx, Ends& ends, std::size_t count, Material& material) const {
    material.points = TakeKeys(ctx, ends, *points_, count);
  }
  /// OR = 1 - [e = rho].
  template <ring::Word V>
  void AddPoints(const Ends& ends, const Material& material, const Bits& windows,
                 dealer::FusedSum<V>& sum) const {
    EvaluateKeys<V>(
        ends, *points_, material.points, std::span<const std::uint8_t>(windows), std::uint8_t{0},
        [&](std::size_t begin, std::size_t n, std::size_t /*k*/, std::span<const V> shares) {
          Add(
              begin, n, shares, sum, [](std::size_t) { return V{1}; },
              [](std::size_t) { return static_cast<V>(-1); });
        });
  }
  void AddPointCost(mpc::Cost& cost, const mpc::ActivationSpec& spec,
                    const mpc::Roles& roles) const {
    AddKeys(cost, roles, *points_, spec.Outputs());
  }

 private:
  /// The element of ReLU that does not depend on the comparison.
  static constexpr std::size_t kConstant = 2;
  bool HasConstant() const { return layout_.arithmetic && formula_.Elements(false) > kConstant; }
  /// Element i of n: x's products with a column, after x itself.
  template <ring::Word V>
  void GiveProducts(V x, const V* column, std::size_t i, std::size_t n, V* to) const {
    for (std::size_t j = 0; j < formula_.FanOut(); ++j)
      to[(j + 1) * n + i] = ring::Reduce(ring::Times(x, column[j]), out_bits_);
  }
  /// constant(i) + k(i) x_i, of shares of x and its products.
  template <ring::Word V, class Constant, class K>
  void Add(std::size_t begin, std::size_t n, std::span<const V> shares, dealer::FusedSum<V>& sum,
           Constant&& constant, K&& factor) const {
    Buffer<V> dealt(1 + formula_.FanOut());
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < dealt.size(); ++j) dealt[j] = shares[j * n + i];
      const V k = factor(begin + i);
      sum.Add(begin + i, constant(begin + i), {&k, 1}, dealt.data());
    }
  }

  Formula formula_;
  Layout layout_;
  std::optional<Layout> points_;
  std::vector<std::size_t> compared_;
  unsigned out_bits_;
};

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) {
  dealer::AddSuite<Comparison>(
      registry,
      {.name = "fss",
       .summary = "distributed comparison functions with a point known to the helper; 2 hops per "
                  "activation, the fewest (3 with truncation where both evaluators multiply), for "
                  "more bytes offline",
       .options = {{.name = "form",
                    .values = {"auto", "arith", "bit"},
                    .meaning =
                        "arith (2 hops) or bit (2 hops, or 3 where both evaluators multiply; "
                        "fewer bytes); truncation and a max-pool of signs are always by "
                        "bits, with bit also the last step of the max-pool"}},
       .variants = {{"", {{{157, 51}, {420, 154}}}},
                    {"form=bit", {{{157, 51}, {420, 154}}}},
                    {"fuse=yes", {{{157, 51}, {420, 154}, {23.5, 20}}}}}});
}

}  // namespace tercet::protocols::fss
