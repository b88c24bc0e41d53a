// SPDX-License-Identifier: Apache-2.0
#include "common/dealer/steps.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "tercet/mpc/registry.h"
#include "tercet/ring/kernels.h"
#include "tercet/ring/pack.h"

namespace tercet::protocols::dealer {
namespace {

void XorInto(Bits& x, const Bits& y) {
  // Plain pointers: bytes may alias the vectors themselves, which would keep the loop scalar.
  std::uint8_t* to = x.data();
  const std::uint8_t* from = y.data();
  for (std::size_t i = 0, n = x.size(); i < n; ++i) to[i] ^= from[i];
}

}  // namespace

Ends::Ends(mpc::Party& party, const mpc::ActivationSpec& spec, const std::string& suite,
           const mpc::Roles& roles)
    : id_(party.Id()), dealer_(roles.helper), e1_(roles.Evaluator1()), e2_(roles.Evaluator2()) {
  const std::string purpose = spec.layer + "/" + suite;
  if (!IsE2()) with_e1_ = party.Keys().Open(e1_, purpose);
  if (!IsE1()) with_e2_ = party.Keys().Open(dealer_, purpose);
  if (IsDealer()) coins_ = party.Keys().OpenCoins(purpose);
  if (!spec.dealt && !spec.opened && IsDealer())
    unshared_ = party.Keys().Open(dealer_, purpose + "/redeal");
}

void SendDifference(Context& ctx, const Ends& ends, const mpc::ActivationSpec& spec,
                    const AnyMatrix& redealt, const AnyMatrix& z) {
  ring::DispatchWord(spec.ring_bits, [&]<ring::Word W>(W) {
    const Matrix<W> difference = z.As<W>() - redealt.As<W>();
    const std::span<const W> values(difference.data(), difference.size());
    SendPieces(ctx, ends.E1(), values, spec.value_bits);                   // 1 hop, n bits
    if (spec.opened) SendPieces(ctx, ends.E2(), values, spec.value_bits);  // the same hop
  });
}

AnyMatrix PrepareOpenMask(Context& ctx, Ends& ends, const mpc::ActivationSpec& spec,
                          std::size_t batch, const AnyMatrix* z) {
  if (spec.opened && spec.dealt) return {};
  return ring::DispatchWord(spec.ring_bits, [&]<ring::Word W>(W) {
    auto mask = ends.WithDealer().Draw<W>(spec.in.Size(), batch);
    if (spec.opened) return AnyMatrix();  // what D draws its share from
    if (spec.known_at == ends.Me()) {
      TERCET_CHECK(z != nullptr, "layer {}: this share must be known offline", spec.layer);
      mask += z->As<W>();
      SendPieces(ctx, ends.Peer(), std::span<const W>(mask.data(), mask.size()),
                 spec.value_bits);  // offline, n bits
      return AnyMatrix();
    }
    if (spec.known_at)
      ReceiveAddPieces(ctx, ends.Peer(), std::span<W>(mask.data(), mask.size()), spec.value_bits);
    return AnyMatrix(std::move(mask), spec.ring_bits);
  });
}

Bits DrawBits(crypto::PrfStream& stream, std::size_t count, unsigned width) {
  Bits bits(count);
  stream.Fill(bits);
  const auto low = ring::LowMask<std::uint8_t>(width);
  for (auto& b : bits) b &= low;
  return bits;
}

Bits DrawRho(Ends& ends, std::size_t count, unsigned width) {
  Bits rho = DrawBits(ends.WithE1(), count, width);
  XorInto(rho, DrawBits(ends.WithE2(), count, width));
  return rho;
}

Bits OpenBits(Context& ctx, const Ends& ends, Bits own, const Bits& mask, unsigned width) {
  std::vector<Bits> plane;
  plane.push_back(std::move(own));
  return std::move(OpenPlanes(ctx, ends, std::move(plane), {&mask, 1}, {&width, 1}).front());
}

std::vector<Bits> OpenPlanes(Context& ctx, const Ends& ends, std::vector<Bits> own,
                             std::span<const Bits> masks, std::span<const unsigned> widths) {
  CheckSize("planes", own.size(), widths.size());
  bool begun = false;
  for (std::size_t p = 0; p < own.size(); ++p) {
    CheckSize("a mask", masks[p].size(), own[p].size());
    XorInto(own[p], masks[p]);
    ForRanges(own[p].size(), kExchangeElements, [&](std::size_t begin, std::size_t n) {
      ctx.Send(ends.Peer(), std::span<const std::uint8_t>(own[p]).subspan(begin, n), widths[p],
               begun);  // 1 hop
      begun = true;
    });
  }
  Bits other;
  for (std::size_t p = 0; p < own.size(); ++p) {
    other.resize(own[p].size());
    ForRanges(other.size(), kExchangeElements, [&](std::size_t begin, std::size_t n) {
      ctx.Receive(ends.Peer(), std::span<std::uint8_t>(other).subspan(begin, n), widths[p]);
    });
    XorInto(own[p], other);
  }
  return own;
}

AnyMatrix TakeElements(Context& ctx, Ends& ends, std::size_t count, std::size_t dealt,
                       unsigned bits) {
  return ring::DispatchWord(bits, [&]<ring::Word V>(V) {
    auto shares = ring::MakeMatrix<V>(count * dealt, 1);
    ForRanges(count, PieceElements(dealt * bits), [&](std::size_t begin, std::size_t n) {
      const std::span<V> piece(shares.data() + begin * dealt, n * dealt);
      if (ends.IsE1()) {
        ends.WithE1().Draw(piece);
      } else {
        ctx.Receive(ends.Dealer(), piece, bits);
      }
    });
    return AnyMatrix(std::move(shares), bits);
  });
}

std::size_t DealtOfOr(const OrStep& last, const mpc::ActivationSpec& spec) {
  return ((std::size_t{1} << last.width) - 1) * (1 + FanOut(spec));
}

Bits DealOrSteps(Context& ctx, Ends& ends, const std::vector<OrStep>& steps, const Bits& offsets,
                 const mpc::ActivationSpec& spec, std::size_t batch, const Columns& columns,
                 bool entries) {
  Bits rho;
  for (const auto& step : steps) {
    const std::size_t outputs = step.OutRows() * batch;
    rho = DrawRho(ends, outputs, step.width);
    if (&step == &steps.front()) XorInto(rho, GatherWindows(step, offsets, batch));
    const auto rows = [&](std::size_t begin, std::size_t n) {
      return OrRows(step.width, std::span<const std::uint8_t>(rho).subspan(begin, n));
    };
    if (step.elements && !entries) break;
    if (step.elements) {
      const EntryTable table{outputs, step.width, spec.out_bits};
      ring::DispatchWord(spec.out_bits, [&]<ring::Word V>(V) {
        DealElements<V>(ctx, ends, outputs, DealtOfOr(step, spec), spec.out_bits,
                        [&](std::size_t begin, std::size_t n, V* values) {
                          const Bytes bits = rows(begin, n);
                          for (std::size_t i = 0; i < n; ++i) {
                            const V* column = columns.Of<V>(begin + i, outputs);
                            for (std::size_t v = 1; v <= table.Dealt(); ++v) {
                              const std::size_t at = (i << table.width) + v;
                              values = WithProducts(static_cast<V>(bits[at / 8] >> at % 8 & 1),
                                                    column, columns.FanOut(), values);
                            }
                          }
                        });
      });
      continue;
    }
    ForRanges(outputs, PieceElements(std::size_t{1} << step.width),
              [&](std::size_t begin, std::size_t n) {
                Bytes table = rows(begin, n), mask(table.size());
                ends.WithE1().Fill(mask);
                XorInto(table, mask);
                ctx.SendBytes(ends.E2(), std::move(table));  // offline
              });
  }
  return rho;
}

std::vector<LookupMaterial> TakeOrSteps(Context& ctx, Ends& ends, const std::vector<OrStep>& steps,
                                        const mpc::ActivationSpec& spec, std::size_t batch,
                                        bool entries) {
  std::vector<LookupMaterial> all;
  for (const auto& step : steps) {
    const std::size_t outputs = step.OutRows() * batch;
    const std::size_t piece = PieceElements(std::size_t{1} << step.width);
    LookupMaterial taken;
    taken.mask = DrawBits(ends.WithDealer(), outputs, step.width);
    if (step.elements) {
      if (entries)
        taken.entries = TakeElements(ctx, ends, outputs, DealtOfOr(step, spec), spec.out_bits);
    } else if (ends.IsE1()) {
      taken.bits.resize(TableBytes(outputs, step.width));
      ForRanges(outputs, piece, [&](std::size_t begin, std::size_t n) {
        ends.WithE1().Fill(std::span<std::uint8_t>(taken.bits)
                               .subspan(TableBytes(begin, step.width), TableBytes(n, step.width)));
      });
    } else {
      taken.bits = TakePieces(ctx, ends, outputs, piece,
                              [&](std::size_t n) { return TableBytes(n, step.width); });
    }
    all.push_back(std::move(taken));
  }
  return all;
}

Bits OpenWindows(Context& ctx, const Ends& ends, const std::vector<OrStep>& steps,
                 const std::vector<LookupMaterial>& material, Bits bits, std::size_t batch) {
  TERCET_CHECK(steps.size() == material.size(), "{} OR steps, material of {}", steps.size(),
               material.size());
  for (std::size_t k = 0; k < steps.size(); ++k) {
    const auto& step = steps[k];
    Bits window = OpenBits(ctx, ends, GatherWindows(step, bits, batch), material[k].mask,
                           step.width);  // 1 hop
    if (step.elements) return window;
    CheckSize("a table's bits", material[k].bits.size(), TableBytes(window.size(), step.width));
    bits.assign(window.size(), 0);
    ring::ActiveKernels().select_bits(bits.data(), material[k].bits.data(), window.data(),
                                      window.size(), step.width, 0);
  }
  return bits;
}

template <ring::Word V>
Matrix<V> RunOrSteps(Context& ctx, const Ends& ends, const std::vector<OrStep>& steps,
                     const std::vector<LookupMaterial>& material, Bits bits,
                     const mpc::ActivationSpec& spec, std::size_t batch) {
  const Bits window = OpenWindows(ctx, ends, steps, material, std::move(bits), batch);
  auto out = ring::MakeMatrix<V>(spec.Out().Size(), batch);
  const EntryTable table{window.size(), steps.back().width, spec.out_bits};
  const auto& entries = material.back().entries.As<V>();
  CheckSize("a table's entries", entries.size(), table.count * table.Dealt());
  SelectEntries<V>(table, {entries.data(), entries.size()}, window,
                   ends.IsE2() ? static_cast<V>(table.Dealt()) : V{0}, {out.data(), out.size()});
  return out;
}

// The entries x_v for v = 0, 1, ... add up to 2^width - 1, so
//
//     OR = x_e = [e = 0] (2^width - 1) + sum_{v > 0} ([e = v] - [e = 0]) x_v.
template <ring::Word V>
void AddFusedOrs(const OrStep& last, const LookupMaterial& material, const Bits& windows,
                 const mpc::ActivationSpec& spec, FusedSum<V>& sum) {
  const std::size_t dealt = DealtOfOr(last, spec);
  const auto& entries = material.entries.As<V>();
  CheckSize("a table's entries", entries.size(), windows.size() * dealt);
  Buffer<V> k((std::size_t{1} << last.width) - 1);
  for (std::size_t i = 0; i < windows.size(); ++i) {
    const V none = static_cast<V>(windows[i] == 0);
    for (std::size_t v = 0; v < k.size(); ++v)
      k[v] = static_cast<V>(static_cast<V>(windows[i] == v + 1) - none);
    sum.Add(i, ring::Times(none, static_cast<V>(k.size())), k, entries.data() + i * dealt);
  }
}

#define TERCET_DEALER_OR(V)                                                           \
  template Matrix<V> RunOrSteps<V>(Context&, const Ends&, const std::vector<OrStep>&, \
                                   const std::vector<LookupMaterial>&, Bits,          \
                                   const mpc::ActivationSpec&, std::size_t);          \
  template void AddFusedOrs<V>(const OrStep&, const LookupMaterial&, const Bits&,     \
                               const mpc::ActivationSpec&, FusedSum<V>&);
TERCET_DEALER_OR(std::uint8_t)
TERCET_DEALER_OR(std::uint16_t)
TERCET_DEALER_OR(std::uint32_t)
TERCET_DEALER_OR(std::uint64_t)
#undef TERCET_DEALER_OR

template <ring::Word W>
void DealTable(Context& ctx, Ends& ends, const mpc::ActivationSpec& spec, std::span<const W> a) {
  const EntryTable table{a.size(), spec.TableBits(), spec.out_bits};
  Bits offsets(a.size());
  if (spec.shift == 0) {
    std::transform(a.begin(), a.end(), offsets.begin(),
                   [](W own) { return static_cast<std::uint8_t>(own); });
  } else {
    const Bits mask1 = DrawBits(ends.WithE1(), a.size(), table.width),
               mask2 = DrawBits(ends.WithE2(), a.size(), table.width);
    for (std::size_t i = 0; i < a.size(); ++i)
      offsets[i] = static_cast<std::uint8_t>(0 - mask1[i] - mask2[i]);
  }
  ring::DispatchWord(spec.out_bits, [&]<ring::Word V>(V) {
    Buffer<V> function(spec.table.size());
    for (std::size_t v = 0; v < function.size(); ++v)
      function[v] = static_cast<V>(spec.table[(v + function.size() / 2) % function.size()]);
    DealElements<V>(ctx, ends, table.count, table.Dealt(), spec.out_bits,
                    [&](std::size_t begin, std::size_t n, V* values) {
                      for (std::size_t i = 0; i < n; ++i, values += table.Dealt())
                        RotatedEntries<V>(function, offsets[begin + i], values);
                    });
  });
}

LookupMaterial TakeTable(Context& ctx, Ends& ends, const mpc::ActivationSpec& spec,
                         std::size_t count) {
  const EntryTable table{count, spec.TableBits(), spec.out_bits};
  LookupMaterial material;
  if (spec.shift > 0) material.mask = DrawBits(ends.WithDealer(), count, table.width);
  material.entries = TakeElements(ctx, ends, count, table.Dealt(), spec.out_bits);
  return material;
}

template <ring::Word V>
void RunTable(Context& ctx, const Ends& ends, const mpc::ActivationSpec& spec,
              const LookupMaterial& material, Bits index, std::span<V> out) {
  const EntryTable table{index.size(), spec.TableBits(), spec.out_bits};
  if (spec.shift > 0) {
    CheckSize("a mask", material.mask.size(), index.size());
    for (std::size_t i = 0; i < index.size(); ++i)
      index[i] = static_cast<std::uint8_t>(index[i] + material.mask[i]);
    ExchangeAdd(ctx, ends, std::span<std::uint8_t>(index), table.width);  // 1 hop, m bits
  }
  for (auto& e : index) e &= ring::LowMask<std::uint8_t>(table.width);
  const auto& entries = material.entries.As<V>();
  CheckSize("a table's entries", entries.size(), table.count * table.Dealt());
  const auto sum = std::accumulate(spec.table.begin(), spec.table.end(), std::int64_t{0});
  SelectEntries<V>(table, {entries.data(), entries.size()}, index,
                   ends.IsE2() ? static_cast<V>(sum) : V{0}, out);
}

#define TERCET_DEALER_TABLE(V)                                                                 \
  template void DealTable<V>(Context&, Ends&, const mpc::ActivationSpec&, std::span<const V>); \
  template void RunTable<V>(Context&, const Ends&, const mpc::ActivationSpec&,                 \
                            const LookupMaterial&, Bits, std::span<V>);
TERCET_DEALER_TABLE(std::uint8_t)
TERCET_DEALER_TABLE(std::uint16_t)
TERCET_DEALER_TABLE(std::uint32_t)
TERCET_DEALER_TABLE(std::uint64_t)
#undef TERCET_DEALER_TABLE

AnyShare DrawOutput(Ends& ends, const mpc::ActivationSpec& spec, std::size_t batch) {
  return ring::DispatchWord(spec.out_bits, [&]<ring::Word V>(V) {
    const auto draw = [&](int evaluator, crypto::PrfStream& stream) {
      if (spec.only_to == evaluator) return AnyMatrix::Zero(spec.out_bits);
      return AnyMatrix(stream.Draw<V>(spec.Out().Size(), batch), spec.out_bits);
    };
    AnyShare known;
    if (!ends.IsE1()) (ends.IsDealer() ? known.mine : known.next) = draw(ends.E2(), ends.WithE2());
    if (!ends.IsE2()) (ends.IsDealer() ? known.next : known.mine) = draw(ends.E1(), ends.WithE1());
    return known;
  });
}

void AddExchange(mpc::Cost& cost, const mpc::Roles& roles, std::size_t count, unsigned bits) {
  AddExchanges(cost, roles, count, {&bits, 1});
}

void AddExchanges(mpc::Cost& cost, const mpc::Roles& roles, std::size_t count,
                  std::span<const unsigned> widths) {
  const int e1 = roles.Evaluator1(), e2 = roles.Evaluator2();
  mpc::Round round;
  for (const unsigned width : widths)
    ForRanges(width > 0 ? count : 0, kExchangeElements, [&](std::size_t, std::size_t n) {
      const std::uint64_t bytes = ring::PackedBytes(n, width);
      round.insert(round.end(), {{e1, e2, bytes}, {e2, e1, bytes}});
    });
  if (!round.empty()) cost.Add(mpc::Phase::kOnline, std::move(round));
}

void AddPieces(mpc::Cost& cost, mpc::Phase phase, const mpc::Roles& roles, PartyId from,
               std::size_t count, unsigned bits) {
  mpc::Round round;
  ForRanges(count, kExchangeElements, [&](std::size_t, std::size_t n) {
    round.push_back({from, roles.OtherEvaluator(from), ring::PackedBytes(n, bits)});
  });
  cost.Add(phase, std::move(round));
}

void AddOpenMasked(mpc::Cost& cost, const mpc::ActivationSpec& spec, const mpc::Roles& roles) {
  if (!spec.dealt) {
    mpc::Round difference;
    for (const PartyId to : {roles.Evaluator1(), roles.Evaluator2()})
      if (spec.opened || to == roles.Evaluator1())
        ForRanges(spec.Elements(), kExchangeElements, [&](std::size_t, std::size_t n) {
          difference.push_back({roles.helper, to, ring::PackedBytes(n, spec.value_bits)});
        });
    cost.Add(mpc::Phase::kOnline, std::move(difference));
  }
  if (spec.opened) return;
  if (!spec.known_at) {
    AddExchange(cost, roles, spec.Elements(), spec.value_bits);
    return;
  }
  const PartyId known = *spec.known_at, other = roles.OtherEvaluator(known);
  AddPieces(cost, mpc::Phase::kOffline, roles, known, spec.Elements(), spec.value_bits);
  AddPieces(cost, mpc::Phase::kOnline, roles, other, spec.Elements(), spec.value_bits);
}

void AddReshare(mpc::Cost& cost, const mpc::ActivationSpec& spec, const mpc::Roles& roles) {
  if (!spec.only_to) {
    AddExchange(cost, roles, spec.Outputs(), spec.out_bits);
    return;
  }
  AddPieces(cost, mpc::Phase::kOnline, roles, roles.OtherEvaluator(*spec.only_to), spec.Outputs(),
            spec.out_bits);
}

void AddOrSteps(mpc::Cost& cost, const std::vector<OrStep>& steps, const mpc::ActivationSpec& spec,
                const mpc::Roles& roles, bool entries) {
  for (const auto& step : steps) {
    const std::size_t outputs = step.OutRows() * spec.batch;
    if (step.elements) {
      if (entries) AddElements(cost, roles, outputs, DealtOfOr(step, spec), spec.out_bits);
    } else {
      ForRanges(
          outputs, PieceElements(std::size_t{1} << step.width),
          [&](std::size_t, std::size_t n) { AddDealt(cost, roles, TableBytes(n, step.width)); });
    }
    AddExchange(cost, roles, outputs, step.width);
  }
}

void AddTable(mpc::Cost& cost, const mpc::ActivationSpec& spec, const mpc::Roles& roles) {
  const EntryTable table{spec.Elements(), spec.TableBits(), spec.out_bits};
  AddElements(cost, roles, table.count, table.Dealt(), spec.out_bits);
  if (spec.shift > 0) AddExchange(cost, roles, table.count, table.width);
}

void AddElements(mpc::Cost& cost, const mpc::Roles& roles, std::size_t count, std::size_t dealt,
                 unsigned bits) {
  ForRanges(count, PieceElements(dealt * bits), [&](std::size_t, std::size_t n) {
    AddDealt(cost, roles, ring::PackedBytes(n * dealt, bits));
  });
}

void AddDealt(mpc::Cost& cost, const mpc::Roles& roles, std::uint64_t bytes) {
  cost.Add(mpc::Phase::kOffline, {{roles.helper, roles.Evaluator2(), bytes}});
}

void Register(mpc::Registry& registry);
void Register(mpc::Registry& /*registry*/) {}  // steps of suites with a dealer: no suite to add

}  // namespace tercet::protocols::dealer
