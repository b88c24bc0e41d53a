// SPDX-License-Identifier: Apache-2.0
#include "suites/lut/layout.h"

#include <algorithm>
#include <array>
#include <bit>
#include <iterator>
#include <limits>
#include <numeric>

#include "common/dealer/activation.h"
#include "tercet/ring/pack.h"

namespace tercet::protocols::lut {
namespace {

using mpc::ActivationSpec;

// That are opened, or D's own part beside them: as many as 5 chunks have.
constexpr unsigned kMaxFlags = 8;
constexpr unsigned kMaxChunks = 5;
// 7 opened flags; the elements dealt double with each chunk.
constexpr unsigned kMaxArithChunks = 4;
// Rows of 256 bits.
constexpr unsigned kMaxChunkWidth = 8;
// 7 opened flags, of groups as of the chunks of each.
constexpr std::size_t kMaxGroups = 4;
constexpr std::size_t kMaxGroupChunks = 4;
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

// The ways to make groups of the chunks of `bits` bits, larger ones first.
void AddGroupings(unsigned bits, std::size_t most, std::vector<std::size_t> begun,
                  std::vector<std::vector<std::size_t>>& all) {
  const auto chunks =
      static_cast<unsigned>(std::accumulate(begun.begin(), begun.end(), std::size_t{0}));
  if (Possible(bits, chunks)) all.push_back(begun);
  if (chunks >= bits || begun.size() == kMaxGroups) return;
  begun.push_back(0);
  for (std::size_t size = 1; size <= most; ++size) {
    begun.back() = size;
    AddGroupings(bits, size, begun, all);
  }
}

// Cuts as equal as possible on either side of a boundary above the lowest `low` bits, with every
// grouping.
std::vector<Layout> Trees(unsigned bits, unsigned low) {
  std::vector<std::vector<std::size_t>> upper, lower;
  AddGroupings(bits - low, kMaxGroupChunks, {}, upper);
  AddGroupings(low, kMaxGroupChunks, {}, lower);
  std::vector<Layout> all;
  for (const auto& first : upper)
    for (const auto& second : lower) {
      Layout layout;
      layout.groups = first;
      layout.groups.insert(layout.groups.end(), second.begin(), second.end());
      if (layout.groups.empty() || layout.groups.size() > kMaxGroups) continue;
      layout.low = first.size();
      const auto split = [&](unsigned total, const std::vector<std::size_t>& groups) {
        if (total == 0) return;
        const auto parts = std::accumulate(groups.begin(), groups.end(), std::size_t{0});
        Split(total, static_cast<unsigned>(parts), layout.chunks);
      };
      split(bits - low, first);
      split(low, second);
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
    if (j + 1 < Parts()) equal |= 1U << Equal(j);
  }
  return sum;
}

dealer::Carries Layout::Carries() const {
  dealer::Carries carries;
  carries.s = CarryOf(0, Parts(), true);
  if (!HasCarry()) return carries;
  carries.carry = CarryOf(low, Parts(), true);
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

Plane GroupPlane(std::size_t chunks, bool equal) {
  Plane plane;
  if (chunks == 1) return plane;
  Layout group;
  group.chunks.assign(chunks, 1);
  plane.opened = group.OpenedBits() + (equal ? 1 : 0);
  // What is opened next is to have no part that D alone knows.
  plane.polynomials.push_back(PolynomialOf(group.CarryOf(0, chunks, false), 0, false, plane.dealt));
  if (!equal) return plane;
  unsigned all = 0;
  for (std::size_t j = 0; j < chunks; ++j) all |= 1U << group.Equal(j);
  plane.polynomials.push_back(
      PolynomialOf({static_cast<dealer::Monomial>(all)}, 0, false, plane.dealt));
  return plane;
}

namespace {

// The plane of the parts.
Plane LastPlane(const Layout& layout) {
  Plane plane;
  plane.opened = layout.OpenedBits();
  if (layout.arithmetic) return plane;
  const std::size_t end = layout.Parts(), low = layout.low;
  const auto add = [&](const dealer::Sum& products, dealer::Monomial own, bool known) {
    plane.polynomials.push_back(PolynomialOf(products, own, known, plane.dealt));
  };
  if (!layout.product) {
    add(layout.CarryOf(0, end, false), 0, true);
    if (layout.HasCarry()) add(layout.CarryOf(low, end, false), 0, true);
    return plane;
  }
  // s * carry = (own + upper + all_equal) * carry, as s = own + upper + all_equal * carry.
  const dealer::Sum carry = layout.CarryOf(low, end, true);
  dealer::Sum upper = layout.UpperAndEqual();
  upper.push_back(kOwn);
  add(layout.CarryOf(0, end, true), kOwn, true);
  add(dealer::Product(upper, carry), kOwn, true);
  // Of the carry E1 and E2 take a part that D does not know, so they have shares of all of it.
  add(carry, kOwn, false);
  return plane;
}

// How many bits are dealt for the planes that there are; it does not depend on widths.
std::size_t DealtOfGroup(std::size_t chunks, bool equal) {
  using Sizes = std::array<std::array<std::size_t, 2>, kMaxGroupChunks + 1>;
  static const Sizes sizes = [] {
    Sizes all{};
    for (std::size_t k = 1; k < all.size(); ++k)
      for (const bool with : {false, true}) all[k][with ? 1 : 0] = GroupPlane(k, with).dealt.size();
    return all;
  }();
  return sizes.at(chunks)[equal ? 1 : 0];
}
std::size_t DealtOfParts(std::size_t parts, std::size_t low, bool product) {
  using Sizes = std::array<std::array<std::array<std::size_t, 2>, kMaxChunks + 1>, kMaxChunks + 1>;
  static const Sizes sizes = [] {
    Sizes all{};
    for (std::size_t q = 1; q < all.size(); ++q)
      for (std::size_t l = 0; l <= q; ++l)
        for (const bool with : {false, true}) {
          Layout layout;
          layout.chunks.assign(q, 1);
          layout.low = l;
          layout.product = with;
          if (with && (l == q || layout.OpenedBits() >= kMaxFlags)) continue;
          all[q][l][with ? 1 : 0] = LastPlane(layout).dealt.size();
        }
    return all;
  }();
  return sizes.at(parts).at(low)[product ? 1 : 0];
}

}  // namespace

std::vector<Plane> Layout::Planes() const {
  std::vector<Plane> planes;
  for (std::size_t g = 0; g < groups.size(); ++g)
    planes.push_back(GroupPlane(groups[g], g + 1 < groups.size()));
  planes.push_back(LastPlane(*this));
  return planes;
}

std::vector<PlaneSize> Layout::Sizes() const {
  std::vector<PlaneSize> sizes;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    const bool equal = g + 1 < groups.size();
    const auto opened = static_cast<unsigned>(2 * groups[g]) - (equal ? 1 : 2);
    sizes.push_back({groups[g] == 1 ? 0 : opened, DealtOfGroup(groups[g], equal)});
  }
  sizes.push_back({OpenedBits(), arithmetic ? 0 : DealtOfParts(Parts(), low, product)});
  return sizes;
}

std::size_t Layout::CompareBytes(std::size_t count) const {
  const auto sizes = Sizes();
  const auto block = [&](std::size_t n) {
    std::size_t bytes = 0;
    for (const unsigned width : chunks) bytes += (n * RowBits(width) + 7) / 8;
    for (const auto& plane : sizes)
      for (std::size_t k = 0; k < plane.DealtBytes(); ++k)
        bytes += ring::PackedBytes(n, BitsOfByte(plane.dealt, k));
    return bytes;
  };
  return count / kBlock * block(kBlock) + block(count % kBlock);
}

std::size_t Layout::ElementBytes() const {
  std::size_t bytes = 0;
  for (const auto& plane : Sizes()) bytes += plane.DealtBytes();
  for (const unsigned width : chunks) bytes += RowBytes(width);
  return bytes;
}

namespace {

/// Looks for a layer's layout with the fewest bytes.
class Search {
 public:
  Search(const ActivationSpec& spec, const Formula& formula)
      : formula_(formula), out_bits_(spec.out_bits) {
    for (const bool product : {false, true})
      selection_[product ? 1 : 0] =
          dealer::SelectionExpansion(formula, spec.out_bits, product).DealtBytes(kBlock);
  }

  /// Of `cuts`, in form `arith` or not, with at most so many parts and bytes an element.
  std::optional<Layout> Fewest(const std::vector<Layout>& cuts, bool arithmetic,
                               std::size_t most_parts, std::size_t most_bytes) const {
    std::optional<Layout> best;
    std::size_t best_bytes = kBlock * most_bytes + 1;
    const auto consider = [&](const Layout& cut) {
      if (cut.Parts() > most_parts) return;
      const std::size_t bytes = Bytes(cut);
      if (bytes >= best_bytes) return;
      best = cut;
      best_bytes = bytes;
    };
    for (Layout cut : cuts) {
      cut.arithmetic = arithmetic;
      consider(cut);
      cut.product = true;
      if (!arithmetic && formula_.TakesProduct() && cut.OpenedBits() < kMaxFlags) consider(cut);
    }
    return best;
  }
  static constexpr std::size_t kAnyBytes = std::numeric_limits<std::size_t>::max() / kBlock - 1;

 private:
  // Of kBlock elements, in this step alone.
  std::size_t Bytes(const Layout& cut) const {
    std::size_t bytes = cut.CompareBytes(kBlock);
    for (const auto& plane : cut.Sizes()) bytes += 2 * ring::PackedBytes(kBlock, plane.opened);
    return bytes + (cut.arithmetic
                        ? dealer::Expansion(formula_, cut.Carries(), out_bits_).DealtBytes(kBlock)
                        : selection_[cut.product ? 1 : 0]);
  }

  const Formula& formula_;
  unsigned out_bits_;
  std::array<std::size_t, 2> selection_{};
};

}  // namespace

Layout MakeLayout(const ActivationSpec& spec, const mpc::OptionValues& options) {
  const std::string &form = options.at("form"), &pieces = options.at("chunks");
  const std::size_t chunks = pieces == "auto" ? 0 : std::stoul(pieces);
  const Formula formula(spec);
  auto cuts = Cuts(formula.ComparedBits(), formula.CarryBits());
  if (form == "tree") {
    auto trees = Trees(formula.ComparedBits(), formula.CarryBits());
    std::move(trees.begin(), trees.end(), std::back_inserter(cuts));
  }
  std::erase_if(cuts,
                [&](const Layout& cut) { return chunks != 0 && cut.chunks.size() != chunks; });
  if (cuts.empty())
    throw UnsupportedError(fmt::format(
        "layer {}: {} compared bits of values of {} bits cannot be cut into {} chunks of 1..{} "
        "bits{}",
        spec.layer, formula.ComparedBits(), spec.value_bits, chunks, kMaxChunkWidth,
        formula.CarryBits() > 0 ? fmt::format(", one of which ends at bit {}", spec.shift) : ""));

  const Search search(spec, formula);
  std::optional<Layout> layout;
  if (!spec.pool && form == "arith")
    layout = search.Fewest(cuts, true, kMaxArithChunks, Search::kAnyBytes);
  if (!spec.pool && form == "auto")
    layout = search.Fewest(
        cuts, true, kMaxArithChunks,
        spec.kind == mpc::ActivationKind::kRelu ? kMaxAutoBytesOfRelu : kMaxAutoBytes);
  if (!layout) layout = search.Fewest(cuts, false, kMaxChunks, Search::kAnyBytes);
  return *layout;
}

}  // namespace tercet::protocols::lut
