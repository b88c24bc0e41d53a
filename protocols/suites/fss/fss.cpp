// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "common/dealer/activation.h"
#include "suites/fss/layout.h"

// Activations by distributed comparison functions whose point the dealer knows; the message flow,
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

/// The comparison of a formula's numbers by distributed comparison functions (README.md, step 2),
/// as dealer::Activation wants it. D is the helper, E1 and E2 the evaluators. No message online.
class Comparison {
 public:
  static constexpr unsigned kMaxCompared = ring::kMaxBits - 1;

  Comparison(const mpc::ActivationSpec& spec, const mpc::OptionValues& options)
      : formula_(spec), layout_(MakeLayout(spec, options)), out_bits_(spec.out_bits) {}

  /// What an evaluator keeps.
  struct Material {
    Buffer<Block> roots;        ///< of its trees: chunk after chunk, comparison after comparison
    std::vector<Bytes> pieces;  ///< hash keys, then correction words
    void Visit(mpc::Archive& archive) { archive(roots)(pieces); }
  };

  bool GivesElements() const { return layout_.arithmetic; }

  /// At D, offline: a message to E1 and one to E2 for every PieceElements() elements. What the
  /// evaluators get shares of are s and carry themselves: the offsets are 0.
  template <ring::Word W>
  Bits Deal(Context& ctx, Ends& ends, std::span<const W> a, const dealer::Columns& columns) const {
    ring::DispatchWord(layout_.shapes[0].output_bits, [&]<ring::Word V>(V) {
      const std::size_t outputs = layout_.shapes[0].outputs, elements = formula_.Elements();
      Buffer<std::uint64_t> alpha(kChunk);
      Buffer<Block> roots1(kChunk), roots2(kChunk);
      // What D gives where x < alpha, and elsewhere: value by value, as a Dcf takes it.
      Buffer<V> below(kChunk * outputs), above(kChunk * outputs), entries(kChunk * elements);
      Buffer<V> bits(kChunk), none(kChunk, 0);
      const auto give = [&](std::span<const W> part, std::size_t first_element, Buffer<V>& to) {
        if (!layout_.arithmetic) {
          std::copy_n(bits.begin(), part.size(), to.begin());
          return;
        }
        formula_.Entries<W, V>(part, bits.data(), none.data(), entries.data());
        for (std::size_t i = 0; i < elements * part.size(); ++i)
          to[i] = ring::Reduce(entries[i], out_bits_);
        // Fused: the vector (s, M_i s), of the column M_i.
        const std::size_t n = part.size();
        for (std::size_t i = 0; elements < outputs && i < n; ++i) {
          const V* column = columns.Of<V>(first_element + i, a.size());
          for (std::size_t j = 0; j + 1 < outputs; ++j)
            to[(j + 1) * n + i] = ring::Reduce(ring::Times(entries[i], column[j]), out_bits_);
        }
      };
      ForRanges(a.size(), layout_.PieceElements(), [&](std::size_t piece_begin, std::size_t size) {
        // E1's message is how E2's begins: hash keys, what both need, what only E2 needs.
        Bytes piece(layout_.SharedBytes(size) + layout_.FirstBytes(size));
        ends.Coins().Fill(std::span<std::uint8_t>(piece).first(kHashKeyBytes));
        auto rest = std::span<std::uint8_t>(piece).subspan(kHashKeyBytes);
        auto first = rest.subspan(layout_.RestBytes(size));
        auto functions = Functions<V>(layout_, piece);
        ForRanges(size, kChunk, [&](std::size_t begin, std::size_t n) {
          const auto part = a.subspan(piece_begin + begin, n);
          for (std::size_t k = 0; k < functions.size(); ++k) {
            const auto& shape = layout_.shapes[k];
            for (std::size_t i = 0; i < n; ++i)
              alpha[i] = part[i] & ring::LowMask<std::uint64_t>(shape.input_bits);
            // The sign's bit is [x < alpha] ^ flip, the carry's [x < alpha].
            for (std::size_t i = 0; i < n; ++i) bits[i] = k == 0 ? formula_.Flip(part[i]) : 0;
            give(part, piece_begin + begin, above);
            for (std::size_t i = 0; i < n; ++i) bits[i] ^= 1;
            give(part, piece_begin + begin, below);
            DrawRoots(ends.WithE1(), {roots1.data(), n});
            DrawRoots(ends.WithE2(), {roots2.data(), n});
            const std::size_t values = n * shape.outputs;
            functions[k].Deal({alpha.data(), n}, {below.data(), values}, {above.data(), values},
                              {roots1.data(), n}, {roots2.data(), n},
                              Next(first, shape.FirstBytes(n)), Next(rest, shape.RestBytes(n)));
          }
        });
        const auto shared = static_cast<std::ptrdiff_t>(layout_.SharedBytes(size));
        ctx.SendBytes(ends.E1(), Bytes(piece.begin(), piece.begin() + shared));  // offline
        ctx.SendBytes(ends.E2(), std::move(piece));                              // offline
      });
    });
    return Bits(layout_.arithmetic ? 0 : a.size(), 0);
  }

  /// At an evaluator, offline.
  Material Take(Context& ctx, Ends& ends, std::size_t count) const {
    Material material;
    material.roots.resize(count * layout_.shapes.size());
    std::span<Block> roots(material.roots);
    ForRanges(count, layout_.PieceElements(), [&](std::size_t, std::size_t size) {
      ForRanges(size, kChunk, [&](std::size_t, std::size_t n) {
        for (std::size_t k = 0; k < layout_.shapes.size(); ++k)
          DrawRoots(ends.WithDealer(), Next(roots, n));
      });
      const std::size_t own = ends.IsE2() ? layout_.FirstBytes(size) : 0;
      material.pieces.push_back(ctx.ReceiveBytes(ends.Dealer(), layout_.SharedBytes(size) + own));
    });
    return material;
  }

  /// At E1 and E2, online.
  template <ring::Word W>
  Bits CompareBits(Context& /*ctx*/, const Ends& ends, const Material& material,
                   std::span<const W> b) const {
    Bits bits(b.size(), 0);
    Evaluate<std::uint8_t>(
        ends, material, b,
        [&](std::size_t begin, std::size_t n, std::size_t k, std::span<const std::uint8_t> shares) {
          for (std::size_t i = 0; i < n; ++i)
            bits[begin + i] |= static_cast<std::uint8_t>((shares[i] & 1) << k);
        });
    return bits;
  }

  template <ring::Word W, ring::Word V>
  Buffer<V> CompareElements(Context& /*ctx*/, const Ends& ends, const Material& material,
                            std::span<const W> b) const {
    const std::size_t elements = formula_.Elements();
    Buffer<V> all(b.size() * elements);
    Evaluate<V>(
        ends, material, b,
        [&](std::size_t begin, std::size_t n, std::size_t /*k*/, std::span<const V> shares) {
          for (std::size_t j = 0; j < elements; ++j)
            std::copy_n(shares.data() + j * n, n, all.data() + j * b.size() + begin);
        });
    return all;
  }

  /// The comparison gives shares of s and of its products, which k = 1 - 2 flip multiplies.
  template <ring::Word W, ring::Word V>
  void CompareFused(Context& /*ctx*/, const Ends& ends, const Material& material,
                    std::span<const W> b, const Bits& flips, dealer::FusedSum<V>& sum) const {
    Buffer<V> dealt(layout_.shapes[0].outputs);
    Evaluate<V>(
        ends, material, b,
        [&](std::size_t begin, std::size_t n, std::size_t /*k*/, std::span<const V> shares) {
          for (std::size_t i = 0; i < n; ++i) {
            for (std::size_t j = 0; j < dealt.size(); ++j) dealt[j] = shares[j * n + i];
            const V flip = flips[begin + i], k = static_cast<V>(1 - 2 * flip);
            sum.Add(begin + i, flip, {&k, 1}, dealt.data());
          }
        });
  }

  void AddCost(mpc::Cost& cost, const mpc::ActivationSpec& spec, const mpc::Roles& roles) const {
    ForRanges(spec.Elements(), layout_.PieceElements(), [&](std::size_t, std::size_t count) {
      const std::uint64_t shared = layout_.SharedBytes(count);
      cost.Add(mpc::Phase::kOffline,
               {{roles.helper, roles.Evaluator1(), shared},
                {roles.helper, roles.Evaluator2(), shared + layout_.FirstBytes(count)}});
    });
  }

 private:
  /// At E1 and E2: evaluates every comparison; take(begin, count, comparison, shares) gets the
  /// additive shares of a chunk, not reduced, value by value.
  template <ring::Word V, ring::Word W, class F>
  void Evaluate(const Ends& ends, const Material& material, std::span<const W> b, F&& take) const {
    const auto who = ends.IsE1() ? Evaluator::kE1 : Evaluator::kE2;
    const W complement = formula_.Complement<W>();
    Buffer<std::uint64_t> x(kChunk);
    Buffer<V> shares(kChunk * layout_.shapes[0].outputs);
    std::span<const Block> roots(material.roots);
    dealer::CheckSize("roots", roots.size(), b.size() * layout_.shapes.size());
    auto next_piece = material.pieces.begin();
    ForRanges(b.size(), layout_.PieceElements(), [&](std::size_t piece_begin, std::size_t size) {
      TERCET_CHECK(next_piece != material.pieces.end(), "material with too few keys");
      const Bytes& piece = *next_piece++;
      dealer::CheckSize("keys", piece.size(),
                        layout_.SharedBytes(size) + (ends.IsE2() ? layout_.FirstBytes(size) : 0));
      ByteSpan rest = ByteSpan(piece).subspan(kHashKeyBytes);
      ByteSpan first = rest.subspan(layout_.RestBytes(size));
      auto functions = Functions<V>(layout_, piece);
      ForRanges(size, kChunk, [&](std::size_t begin, std::size_t n) {
        const auto part = b.subspan(piece_begin + begin, n);
        for (std::size_t k = 0; k < functions.size(); ++k) {
          const auto& shape = layout_.shapes[k];
          for (std::size_t i = 0; i < n; ++i)
            x[i] = static_cast<W>(part[i] ^ complement) &
                   ring::LowMask<std::uint64_t>(shape.input_bits);
          const std::size_t own = ends.IsE2() ? shape.FirstBytes(n) : 0;
          const std::span<V> out(shares.data(), n * shape.outputs);
          functions[k].Evaluate(who, {x.data(), n}, Next(roots, n), Next(first, own),
                                Next(rest, shape.RestBytes(n)), out);
          take(piece_begin + begin, n, k, std::span<const V>(out));
        }
      });
    });
  }

  Formula formula_;
  Layout layout_;
  unsigned out_bits_;
};

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) {
  dealer::AddSuite<Comparison>(
      registry,
      {.name = "fss",
       .summary = "distributed comparison functions with a point known to the dealer; 2 hops per "
                  "activation, the fewest, or 3 with truncation, for more bytes offline",
       .options = {{.name = "form",
                    .values = {"auto", "arith", "bit"},
                    .meaning = "arith (2 hops) or bit (3 hops, fewer bytes); layers with max-pool "
                               "or truncation always use bit"}},
       .variants = {{"", {{{157, 51}, {420, 154}}}},
                    {"form=bit", {{{157, 51}, {420, 154}}}},
                    {"fuse=yes", {{{157, 51}, {420, 154}}}}}});
}

}  // namespace tercet::protocols::fss
