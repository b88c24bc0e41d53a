#include "dealer/lookup.h"

#include <algorithm>
#include <type_traits>

#include "tercet/ring/kernels.h"
#include "tercet/ring/pack.h"

namespace tercet::protocols::dealer {

void CheckSpec(const mpc::ActivationSpec& spec, const std::string& suite, unsigned widest,
               unsigned widest_square) {
  const auto refuse = [&](const std::string& problem) {
    throw UnsupportedError(fmt::format("layer {}: suite {} {}", spec.layer, suite, problem));
  };
  using mpc::ActivationKind;
  const bool sign = spec.kind == ActivationKind::kSign,
             square = spec.kind == ActivationKind::kSquare;
  if ((!sign && !square && spec.kind != ActivationKind::kRelu) || (spec.pool && !sign) ||
      (sign && spec.shift > 0))
    refuse(fmt::format(
        "has no {}{}{}; it has sign, sign with max_pool2d, and relu and square with any truncation",
        mpc::ActivationName(spec.kind), spec.shift > 0 ? " with truncation" : "",
        spec.pool ? " with max_pool2d" : ""));
  const unsigned most = square ? widest_square : widest;
  if (spec.value_bits < 2 || spec.value_bits > most)
    refuse(fmt::format("takes values of 2..{} bits in {}, not {}", most,
                       mpc::ActivationName(spec.kind), spec.value_bits));
  if (spec.shift >= spec.value_bits)
    refuse(fmt::format("divides values of {} bits by 2^0..2^{}, not 2^{}", spec.value_bits,
                       spec.value_bits - 1, spec.shift));
  if (spec.pool && spec.pool->kernel > kMaxWindow)
    refuse(fmt::format("takes pools of up to {} x {}, not {}", kMaxWindow, kMaxWindow,
                       spec.pool->kernel));
}

Bytes PermutedRows(const BitFunction& f, unsigned k, std::span<const std::uint8_t> rho,
                   std::span<const std::uint8_t> flip) {
  TERCET_CHECK(f.size() == TableBytes(1, k) && flip.size() == rho.size(),
               "a function of {} bits in {} bytes, {} masks and {} flips", k, f.size(), rho.size(),
               flip.size());
  Bytes rows(TableBytes(rho.size(), k));
  std::fill(rows.begin(), rows.end(), std::uint8_t{0});
  ring::ActiveKernels().xor_permuted_rows(rows.data(), f.data(), rho.data(), flip.data(),
                                          rho.size(), k);
  return rows;
}

// 2 x 2 windows are looked up at once; larger ones row by row first, since a table doubles with
// every bit.
std::vector<OrStep> PoolSteps(const mpc::ActivationSpec& spec) {
  const auto out = spec.Out();
  const std::size_t kernel = spec.pool->kernel;
  OrStep first;
  const bool at_once = kernel <= 2;
  first.width = static_cast<unsigned>(at_once ? kernel * kernel : kernel);
  first.last = at_once;
  for (std::size_t c = 0; c < out.channels; ++c)
    for (std::size_t oy = 0; oy < out.height; ++oy)
      for (std::size_t ox = 0; ox < out.width; ++ox)
        for (std::size_t dy = 0; dy < kernel; ++dy)
          for (std::size_t dx = 0; dx < kernel; ++dx)
            first.rows.push_back(static_cast<std::uint32_t>(
                (c * spec.in.height + oy * spec.pool->stride + dy) * spec.in.width +
                ox * spec.pool->stride + dx));
  if (at_once) return {first};
  OrStep second;
  second.width = static_cast<unsigned>(kernel);
  second.rows.resize(out.Size() * kernel);
  for (std::size_t r = 0; r < second.rows.size(); ++r)
    second.rows[r] = static_cast<std::uint32_t>(r);
  return {first, second};
}

Bytes OrRows(unsigned width, std::span<const std::uint8_t> rho) {
  BitFunction any(TableBytes(1, width), 0xff);  // all but entry 0
  any[0] = 0xfe;
  return PermutedRows(any, width, rho, Bits(rho.size(), 0));
}

Bits GatherWindows(const OrStep& step, const Bits& bits, std::size_t batch) {
  Bits windows(step.OutRows() * batch);
  for (std::size_t o = 0; o < step.OutRows(); ++o) {
    std::uint8_t* out = windows.data() + o * batch;
    std::copy_n(bits.data() + step.rows[o * step.width] * batch, batch, out);
    for (unsigned i = 1; i < step.width; ++i) {
      const std::uint8_t* in = bits.data() + step.rows[o * step.width + i] * batch;
      for (std::size_t b = 0; b < batch; ++b) out[b] |= static_cast<std::uint8_t>(in[b] << i);
    }
  }
  return windows;
}

namespace {

// All ones where v is e. Entries are chosen through such masks out of rows that are read whole: D
// knows by what e is masked, so to it (and to nobody else) a branch or an address would tell.
template <ring::Word V>
V Equal(std::size_t v, std::uint8_t e) {
  return static_cast<V>(V{0} - static_cast<V>(v == e));
}

// Rows of `size` entries of `elements`, in a table without its first entry one less: that is
// `total` less all others. Sizes are types where they are known, so that the loops have no ends to
// look for.
template <ring::Word V, class Size, class Elements>
void SelectRows(Size size, Elements elements, bool has_first, const V* rows, const std::uint8_t* e,
                std::size_t count, V total, V* out) {
  if (has_first) {
    for (std::size_t i = 0; i < count; ++i, rows += size * elements, out += elements) {
      for (std::size_t j = 0; j < elements; ++j) {
        V chosen = 0;
        for (std::size_t v = 0; v < size; ++v)
          chosen = static_cast<V>(chosen | (rows[v * elements + j] & Equal<V>(v, e[i])));
        out[j] = chosen;
      }
    }
    return;
  }
  for (std::size_t i = 0; i < count; ++i, rows += size - 1) {
    V chosen = 0, sum = 0;
    for (std::size_t v = 1; v < size; ++v) {
      sum = static_cast<V>(sum + rows[v - 1]);
      chosen = static_cast<V>(chosen | (rows[v - 1] & Equal<V>(v, e[i])));
    }
    out[i] = static_cast<V>(chosen | (static_cast<V>(total - sum) & Equal<V>(0, e[i])));
  }
}

template <std::size_t n>
using Constant = std::integral_constant<std::size_t, n>;

template <ring::Word V>
void SelectRows(const ArithTable& table, const V* rows, const std::uint8_t* e, std::size_t count,
                V total, V* out) {
  const auto select = [&](auto size, auto elements) {
    SelectRows<V>(size, elements, table.first == 0, rows, e, count, total, out);
  };
  const auto with_size = [&](auto size) {
    switch (table.elements) {
      case 1:
        return select(size, Constant<1>());
      case 2:
        return select(size, Constant<2>());
      case 3:
        return select(size, Constant<3>());
      default:
        return select(std::size_t{size}, table.elements);
    }
  };
  switch (table.k) {
    case 1:
      return with_size(Constant<2>());
    case 2:
      return with_size(Constant<4>());
    case 3:
      return with_size(Constant<8>());
    case 4:
      return with_size(Constant<16>());
    case 5:
      return with_size(Constant<32>());
    default:
      return with_size(std::size_t{1} << table.k);
  }
}

// Rows with all entries are halved, as bytes, until so many are left: the upper bits of e say which
// halves stay. Eight entries are whole bytes, however wide one is.
constexpr unsigned kFoldedBits = 3;

bool Folds(const ArithTable& table) { return table.first == 0 && table.k > kFoldedBits; }

ArithTable Folded(ArithTable table) {
  table.k = kFoldedBits;
  return table;
}

// Rows of 2^k entries of `bits` bits become rows of 8.
void FoldRows(const std::uint8_t* rows, unsigned k, std::size_t bits, const std::uint8_t* e,
              std::size_t count, std::uint8_t* out) {
  const auto bytes = [=](unsigned width) { return bits << width >> 3; };
  Bytes left(bytes(k - 1));
  for (std::size_t i = 0; i < count; ++i, rows += bytes(k), out += bytes(kFoldedBits)) {
    const std::uint8_t* from = rows;
    for (unsigned width = k; width-- > kFoldedBits;) {
      const auto upper = static_cast<std::uint8_t>(0 - (e[i] >> width & 1));
      const std::size_t half = bytes(width);
      std::uint8_t* to = width > kFoldedBits ? left.data() : out;
      for (std::size_t t = 0; t < half; ++t)
        to[t] = static_cast<std::uint8_t>(from[t] ^ ((from[t] ^ from[t + half]) & upper));
      from = to;
    }
  }
}

// Indices whose entries stay in the cache; they take whole bytes.
std::size_t CachedIndices(const ArithTable& table) {
  return std::max<std::size_t>(1, kBlock / table.Dealt() / 8) * 8;
}

Bits LowBits(const std::uint8_t* e, std::size_t count) {
  Bits low(count);
  for (std::size_t i = 0; i < count; ++i) low[i] = e[i] & ring::LowMask<std::uint8_t>(kFoldedBits);
  return low;
}

}  // namespace

template <ring::Word V>
void SelectMask(const ArithTable& table, std::span<const V> masks, const Bits& e,
                std::span<V> out) {
  if (!Folds(table))
    return SelectRows<V>(table, masks.data(), e.data(), table.count, V{0}, out.data());
  const ArithTable folded = Folded(table);
  Buffer<V> rows(std::min(CachedIndices(table), table.count) * folded.Dealt());
  ForRanges(table.count, CachedIndices(table), [&](std::size_t begin, std::size_t n) {
    FoldRows(reinterpret_cast<const std::uint8_t*>(masks.data() + begin * table.Dealt()), table.k,
             table.elements * 8 * sizeof(V), e.data() + begin, n,
             reinterpret_cast<std::uint8_t*>(rows.data()));
    SelectRows<V>(folded, rows.data(), LowBits(e.data() + begin, n).data(), n, V{0},
                  out.data() + begin * table.elements);
  });
}

template <ring::Word V>
void SelectDealt(const ArithTable& table, const Bytes& dealt, const Bits& e, std::span<V> out) {
  const bool folds = Folds(table);
  const ArithTable kept = folds ? Folded(table) : table;
  const std::size_t step = CachedIndices(table), entries = kept.Dealt();
  Buffer<V> rows(std::min(step, table.count) * entries);
  Bytes packed(folds ? ring::PackedBytes(rows.size(), table.out_bits) : 0);
  ForRanges(table.count, step, [&](std::size_t begin, std::size_t n) {
    const std::span<V> part(rows.data(), n * entries);
    const std::size_t bytes = ring::PackedBytes(part.size(), table.out_bits);
    const std::size_t at = ring::PackedBytes(begin * table.Dealt(), table.out_bits);
    const std::uint8_t* index = e.data() + begin;
    Bits low;
    ByteSpan from;
    if (folds) {
      FoldRows(dealt.data() + at, table.k, table.elements * table.out_bits, index, n,
               packed.data());
      low = LowBits(index, n);
      index = low.data();
      from = ByteSpan(packed).first(bytes);
    } else {
      from = ByteSpan(dealt).subspan(at, bytes);
    }
    ring::Unpack(from, table.out_bits, part);
    // All entries of an OR, and of a sign's two, add up to one less than there are.
    SelectRows<V>(kept, rows.data(), index, n, static_cast<V>(entries),
                  out.data() + begin * table.elements);
  });
}

#define TERCET_DEALER_SELECT(V)                                                                  \
  template void SelectMask<V>(const ArithTable&, std::span<const V>, const Bits&, std::span<V>); \
  template void SelectDealt<V>(const ArithTable&, const Bytes&, const Bits&, std::span<V>);
TERCET_DEALER_SELECT(std::uint8_t)
TERCET_DEALER_SELECT(std::uint16_t)
TERCET_DEALER_SELECT(std::uint32_t)
TERCET_DEALER_SELECT(std::uint64_t)
#undef TERCET_DEALER_SELECT

}  // namespace tercet::protocols::dealer
