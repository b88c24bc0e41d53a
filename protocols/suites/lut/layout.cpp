// SPDX-License-Identifier: Apache-2.0
#include "suites/lut/layout.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "common/dealer/activation.h"
#include "tercet/ring/pack.h"

namespace tercet::protocols::lut {
namespace {

using mpc::ActivationSpec;

constexpr unsigned kMaxFlags = 8;   // that are opened, or D's own part beside them
constexpr unsigned kMaxChunks = 5;  // 8 opened flags
constexpr unsigned kMaxArithChunks =
    4;                                  // 7 opened flags; the elements dealt double with each chunk
constexpr unsigned kMaxChunkWidth = 8;  // rows of 256 bits
// What form=auto takes for a hop less; of ReLU, whose other form is smaller, no more than this.
constexpr std::size_t kMaxAutoBytes = 256;
constexpr std::size_t kMaxAutoBytesOfRelu = 192;

bool Possible(unsigned bits, unsigned chunks) {
  return bits == 0
             ? chunks == 0
             : 1 <= chunks && chunks <= bits && (bits + chunks - 1) / chunks <= kMaxChunkWidth;
}

void Split(unsigned total, unsigned parts, std::vector<unsigned>& widths) {
  for (unsigned j = 0; j < parts; ++j)
    widths.push_back(total / parts + (j < total % parts ? 1 : 0));
}

// Every way to cut `bits` bits, with a boundary above the lowest `low`, into pieces as equal as
// possible on either side.
std::vector<Layout> Cuts(unsigned bits, unsigned low) {
  std::vector<Layout> all;
  for (unsigned upper = 0; upper <= kMaxChunks; ++upper)
    for (unsigned lower = 0; upper + lower <= kMaxChunks; ++lower) {
      if (!Possible(bits - low, upper) || !Possible(low, lower)) continue;
      Layout layout;
      Split(bits - low, upper, layout.chunks);
      layout.low = upper;  // all of them where low = 0
      Split(low, lower, layout.chunks);
      all.push_back(std::move(layout));
    }
  return all;
}

// A sum of products as a polynomial in opened bits. `dealt` gets what it needs and has not yet. The
// constant coefficient is the offset, or where D is not to know it (`known` is false) a term. `own`
// is no flag: neither opened nor shared.
BitPolynomial PolynomialOf(const dealer::Sum& products, dealer::Monomial own, bool known,
                           std::vector<DealtBit>& dealt) {
  using dealer::Monomial;
  BitPolynomial polynomial;
  if (known) polynomial.offset = products;
  dealer::Sum opened;
  for (const Monomial p : products) opened.push_back(static_cast<Monomial>(p & ~own));
  for (const Monomial u : dealer::Closure(opened)) {
    if (u == 0 && known) continue;
    // In the product of (c_i ^ rho_i) over p, what multiplies the c_i of u.
    dealer::Sum coefficient;
    bool shared = true;  // E1 and E2 have shares of 1 and of each mask
    for (const Monomial p : products) {
      if ((p & u) != u) continue;
      const auto rest = static_cast<Monomial>(p & ~u);
      coefficient.push_back(rest);
      shared = shared && std::popcount(rest) <= 1 && (rest & own) == 0;
    }
    if (!shared) {
      std::sort(coefficient.begin(), coefficient.end());
      const auto at = std::find(dealt.begin(), dealt.end(), coefficient);
      const auto index = static_cast<std::size_t>(at - dealt.begin());
      if (at == dealt.end()) dealt.push_back(coefficient);
      polynomial.terms.push_back({u, BitPolynomial::Source::kDealt, index});
      continue;
    }
    for (const Monomial r : coefficient)
      polynomial.terms.push_back(
          {u, r == 0 ? BitPolynomial::Source::kOne : BitPolynomial::Source::kMask,
           static_cast<std::size_t>(r == 0 ? 0 : std::countr_zero(r))});
  }
  return polynomial;
}

}  // namespace

dealer::Sum Layout::CarryOf(std::size_t first, std::size_t end, bool linear) const {
  dealer::Sum sum;
  unsigned equal = 0;
  for (std::size_t j = first; j < end; ++j) {
    if (linear || j > first) sum.push_back(static_cast<dealer::Monomial>(equal | 1U << Greater(j)));
    if (j + 1 < chunks.size()) equal |= 1U << Equal(j);
  }
  return sum;
}

dealer::Carries Layout::Carries() const {
  dealer::Carries carries;
  carries.s = CarryOf(0, chunks.size(), true);
  if (!HasCarry()) return carries;
  carries.carry = CarryOf(low, chunks.size(), true);
  // s is upper + all_equal * carry, so s * carry = (upper + all_equal) * carry.
  carries.both = dealer::Product(UpperAndEqual(), carries.carry);
  return carries;
}

dealer::Sum Layout::UpperAndEqual() const {
  dealer::Sum sum = CarryOf(0, low, true);
  unsigned all_equal = 0;
  for (std::size_t j = 0; j < low; ++j) all_equal |= 1U << Equal(j);
  sum.push_back(static_cast<dealer::Monomial>(all_equal));
  return sum;
}

std::vector<BitPolynomial> Layout::Polynomials(std::vector<DealtBit>& dealt) const {
  std::vector<BitPolynomial> polynomials;
  const std::size_t end = chunks.size();
  if (!product) {
    polynomials.push_back(PolynomialOf(CarryOf(0, end, false), 0, true, dealt));
    if (HasCarry()) polynomials.push_back(PolynomialOf(CarryOf(low, end, false), 0, true, dealt));
    return polynomials;
  }
  // s * carry = (own + upper + all_equal) * carry, as s = own + upper + all_equal * carry.
  const dealer::Sum carry = CarryOf(low, end, true);
  dealer::Sum upper = UpperAndEqual();
  upper.push_back(kOwn);
  polynomials.push_back(PolynomialOf(CarryOf(0, end, true), kOwn, true, dealt));
  polynomials.push_back(PolynomialOf(dealer::Product(upper, carry), kOwn, true, dealt));
  // Of the carry E1 and E2 take a part that D does not know, so they have shares of all of it.
  polynomials.push_back(PolynomialOf(carry, kOwn, false, dealt));
  return polynomials;
}

std::size_t Layout::DealtBits() const {
  std::vector<DealtBit> dealt;
  if (!arithmetic) Polynomials(dealt);
  return dealt.size();
}

std::size_t Layout::CompareBytes(std::size_t count) const {
  const std::size_t dealt = DealtBits();
  const auto block = [&](std::size_t n) {
    std::size_t bytes = 0;
    for (const unsigned width : chunks) bytes += (n * RowBits(width) + 7) / 8;
    for (std::size_t k = 0; 8 * k < dealt; ++k) bytes += ring::PackedBytes(n, BitsOfByte(dealt, k));
    return bytes;
  };
  return count / kBlock * block(kBlock) + block(count % kBlock);
}

std::size_t Layout::ElementBytes() const {
  std::size_t bytes = (DealtBits() + 7) / 8;
  for (const unsigned width : chunks) bytes += RowBytes(width);
  return bytes;
}

Layout MakeLayout(const ActivationSpec& spec, const mpc::OptionValues& options) {
  const std::string &form = options.at("form"), &pieces = options.at("chunks");
  const std::size_t chunks = pieces == "auto" ? 0 : std::stoul(pieces);
  const Formula formula(spec);
  const auto cuts_with = [&](unsigned low) {
    auto cuts = Cuts(formula.ComparedBits(), low);
    std::erase_if(cuts,
                  [&](const Layout& cut) { return chunks != 0 && cut.chunks.size() != chunks; });
    return cuts;
  };
  const auto cuts = cuts_with(formula.CarryBits());
  if (cuts.empty())
    throw UnsupportedError(fmt::format(
        "layer {}: {} compared bits of values of {} bits cannot be cut into {} chunks of 1..{} "
        "bits{}",
        spec.layer, formula.ComparedBits(), spec.value_bits, chunks, kMaxChunkWidth,
        formula.CarryBits() > 0 ? fmt::format(", one of which ends at bit {}", spec.shift) : ""));

  // Bytes of kBlock elements, in this step alone.
  const auto bytes = [&](const Layout& cut) {
    const auto elements = cut.arithmetic
                              ? dealer::Expansion(formula, cut.Carries(), spec.out_bits)
                              : dealer::SelectionExpansion(formula, spec.out_bits, cut.product);
    return cut.CompareBytes(kBlock) + elements.DealtBytes(kBlock) +
           2 * ring::PackedBytes(kBlock, cut.OpenedBits());
  };
  const auto fewest = [&](bool arithmetic, std::size_t most_chunks, std::size_t most_bytes) {
    std::optional<Layout> best;
    const auto consider = [&](const Layout& cut) {
      if (cut.chunks.size() > most_chunks || bytes(cut) > kBlock * most_bytes) return;
      if (!best || bytes(cut) < bytes(*best)) best = cut;
    };
    for (Layout cut : cuts) {
      cut.arithmetic = arithmetic;
      consider(cut);
      cut.product = true;
      if (!arithmetic && formula.TakesProduct() && cut.OpenedBits() < kMaxFlags) consider(cut);
    }
    return best;
  };
  constexpr std::size_t kAnyBytes = std::numeric_limits<std::size_t>::max() / kBlock;
  std::optional<Layout> layout;
  if (!spec.pool && form == "arith") layout = fewest(true, kMaxArithChunks, kAnyBytes);
  if (!spec.pool && form == "auto")
    layout = fewest(true, kMaxArithChunks,
                    spec.kind == mpc::ActivationKind::kRelu ? kMaxAutoBytesOfRelu : kMaxAutoBytes);
  if (!layout) layout = fewest(false, kMaxChunks, kAnyBytes);
  return *layout;
}

}  // namespace tercet::protocols::lut
