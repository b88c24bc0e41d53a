// SPDX-License-Identifier: Apache-2.0
#include "conformance/harness.h"

#include <algorithm>

#include "conformance/mutants.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet {
void RegisterExampleProtocols(mpc::Registry& registry);  // generated from their folders
}  // namespace tercet

namespace tercet::conformance {

namespace {

std::uint32_t Largest(const std::array<std::uint32_t, 3>& hops) {
  return *std::max_element(hops.begin(), hops.end());
}

// What was prepared, as if it came from a file.
void PassThroughArchive(const mpc::Activation& activation,
                        std::unique_ptr<mpc::Correlation>& prepared) {
  auto read = activation.NewCorrelation();
  EXPECT_EQ(read == nullptr, prepared == nullptr);
  if (read == nullptr || prepared == nullptr) return;
  mpc::Archive written;
  prepared->Visit(written);
  mpc::Archive archive(written.Written(), "conformance test");
  read->Visit(archive);
  archive.Finish();
  prepared = std::move(read);
}

/// The linear layer that follows a fused one, at all parties.
struct NextLayer {
  explicit NextLayer(const ActivationSpec& spec)
      : shape(*spec.next),
        bits(spec.out_bits),
        weight(Random(shape.WeightCount(), 1)),
        bias(Random(shape.BiasCount(), 2)),
        weights(ShareOut(weight, shape.out_channels, shape.Depth(), bits, 3)),
        biases(ShareOut(bias, shape.BiasCount(), 1, bits, 4)) {}

  AnyShare WeightOf(int party) const { return Of(weights, party); }
  std::unique_ptr<mpc::Linear> Make(mpc::Party& party, const Layer& layer) const {
    return AllProtocols()
        .FindLinear(mpc::kReplicatedLinear)
        .plan({"next", shape, bits, layer.spec.batch}, layer.roles)
        .make(party, WeightOf(party.Id()), Of(biases, party.Id()), {});
  }

  static Values Random(std::size_t count, std::uint64_t seed) {
    std::mt19937_64 rng(seed);
    Values values(count);
    for (auto& v : values) v = static_cast<std::int64_t>(rng() >> 40);
    return values;
  }
  static AnyShare Of(const Shares& shares, int party) {
    return {shares[static_cast<std::size_t>(party)],
            shares[static_cast<std::size_t>(NextParty(party))]};
  }

  mpc::LinearShape shape;
  unsigned bits;
  Values weight, bias;
  Shares weights, biases;
};

std::uint64_t Sum(const std::array<std::uint64_t, 3>& bytes) {
  return bytes[0] + bytes[1] + bytes[2];
}

// Halves that one evaluator alone needs are given to the other one, zeros become matrices of them.
void FillIn(const Layer& layer, Query& query) {
  const auto& spec = layer.spec;
  if (!spec.only_to || !layer.suite->Info().dealt_output) return;
  const PartyId other = layer.roles.OtherEvaluator(*spec.only_to);
  const auto third = [&](PartyId party) -> AnyMatrix& {
    auto& x = query.output[static_cast<std::size_t>(party)];
    return party == layer.roles.Evaluator1() ? x.next : x.mine;
  };
  EXPECT_TRUE(third(other).Empty()) << "party " << other << " needs nothing";
  third(other) = third(*spec.only_to);
  for (auto* shares : {&query.output, &query.known})
    for (auto& share : *shares)
      for (AnyMatrix* half : {&share.mine, &share.next})
        if (half->IsZero())
          *half = ring::DispatchWord(spec.out_bits, [&]<mpc::Word W>(W) {
            return AnyMatrix(mpc::Matrix<W>(xt::zeros<W>({spec.Out().Size(), spec.batch})),
                             spec.out_bits);
          });
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Subject& subject) {
  return out << subject.choice << ", helper " << subject.helper;
}

std::string SubjectName(const testing::TestParamInfo<Subject>& info) {
  std::string name = info.param.choice + "_helper" + std::to_string(info.param.helper);
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
}

const mpc::Registry& AllProtocols() {
  static const mpc::Registry registry = [] {
    mpc::Registry all = BuiltinProtocols();
    RegisterExampleProtocols(all);
    return all;
  }();
  return registry;
}

const mpc::Registry& Mutants() {
  static const mpc::Registry registry = [] {
    mpc::Registry all = BuiltinProtocols();
    for (const auto& suite : all.SuiteNames())
      RegisterMutants(all, AllProtocols().FindSuite(suite));
    return all;
  }();
  return registry;
}

const mpc::Suite& FindSuite(const std::string& name) {
  const auto names = AllProtocols().SuiteNames();
  const bool listed = std::find(names.begin(), names.end(), name) != names.end();
  return (listed ? AllProtocols() : Mutants()).FindSuite(name);
}

std::vector<std::string> PrivateSuites() {
  const mpc::Registry registry = BuiltinProtocols();
  std::vector<std::string> names = registry.SuiteNames();
  std::erase_if(names,
                [&](const auto& name) { return !registry.FindSuite(name).Info().is_private; });
  return names;
}

std::vector<Subject> Subjects() {
  std::vector<Subject> subjects;
  for (const auto& name : AllProtocols().SuiteNames()) {
    const auto& suite = AllProtocols().FindSuite(name);
    for (const auto& variant : suite.Info().variants)
      for (int helper : {0, 1, 2}) subjects.push_back({suite.Choice(variant).Text(), helper});
  }
  return subjects;
}

mpc::Roles RolesWith(int helper) {
  return {.helper = helper,
          .data_owner = NextParty(helper),
          .model_owner = PrevParty(helper),
          .receiver = NextParty(helper)};
}

std::optional<Layer> MakeLayer(const Subject& subject, ActivationSpec spec) {
  if (spec.kind == ActivationKind::kTable) {
    std::mt19937_64 rng(spec.value_bits);
    spec.table.resize(std::size_t{1} << (spec.value_bits - spec.shift));
    for (auto& entry : spec.table) entry = static_cast<std::int64_t>(rng() >> 40);
  }
  const auto choice = mpc::ParseSuiteChoice(subject.choice, "conformance test");
  const auto& suite = FindSuite(choice.name);
  const auto roles = RolesWith(subject.helper);
  try {
    spec.ring_bits = suite.RingBits(spec);
    return Layer{&suite, choice, roles, spec, suite.Plan(spec, choice, roles)};
  } catch (const UnsupportedError& e) {
    EXPECT_NE(std::string(e.what()).find(spec.layer), std::string::npos) << e.what();
    return std::nullopt;
  }
}

Layer WithMultiplier(const Layer& layer, PartyId multiplier, bool known, bool only) {
  ActivationSpec spec = layer.spec;
  if (known && spec.dealt) spec.known_at = layer.roles.OtherEvaluator(multiplier);
  if (only) spec.only_to = multiplier;
  return {layer.suite, layer.choice, layer.roles, spec,
          layer.suite->Plan(spec, layer.choice, layer.roles)};
}

Layer WithOpened(const Layer& layer) {
  ActivationSpec spec = layer.spec;
  spec.opened = true;
  return {layer.suite, layer.choice, layer.roles, spec,
          layer.suite->Plan(spec, layer.choice, layer.roles)};
}

Shares Joined(const Shares& shares, const mpc::Roles& roles) {
  Shares joined = shares;
  auto& one = joined[static_cast<std::size_t>(roles.Evaluator1())];
  auto& other = joined[static_cast<std::size_t>(roles.Evaluator2())];
  ring::DispatchWord(one.Bits(), [&]<mpc::Word W>(W) { one.As<W>() += other.As<W>(); });
  other = one;
  return joined;
}

Shares ShareOut(const Values& values, std::size_t rows, std::size_t cols, unsigned bits,
                std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  return ring::DispatchWord(bits, [&]<mpc::Word W>(W) {
    std::array<mpc::Matrix<W>, 3> z;
    for (auto& part : z) part = ring::MakeMatrix<W>(rows, cols);
    TERCET_CHECK(values.size() == rows * cols, "{} values for {} x {}", values.size(), rows, cols);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::uint64_t p = rng(), q = rng();
      const std::uint64_t above = bits < 64 ? rng() << bits : 0;
      z[0].data()[i] = static_cast<W>(p);
      z[1].data()[i] = static_cast<W>(q);
      z[2].data()[i] = static_cast<W>(static_cast<std::uint64_t>(values[i]) - p - q + above);
    }
    return Shares{AnyMatrix(z[0], bits), AnyMatrix(z[1], bits), AnyMatrix(z[2], bits)};
  });
}

std::vector<std::uint64_t> Elements(const AnyMatrix& m) {
  return ring::DispatchWord(m.Bits(), [&]<mpc::Word W>(W) {
    std::vector<std::uint64_t> values;
    for (const W v : m.As<W>()) values.push_back(ring::Reduce(v, m.Bits()));
    return values;
  });
}

std::vector<std::uint64_t> Open(const std::array<AnyShare, 3>& x) {
  std::vector<std::uint64_t> sum = Elements(x[0].mine);
  for (std::size_t p = 0; p < 3; ++p) {
    const auto mine = Elements(x[p].mine);
    EXPECT_EQ(mine, Elements(x[(p + 2) % 3].next)) << "copies of share " << p;
    if (p == 0) continue;
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += mine[i];
  }
  for (auto& v : sum) v = ring::Reduce(v, x[0].mine.Bits());
  return sum;
}

std::vector<std::uint64_t> OpenAdditive(const std::array<AnyMatrix, 3>& x) {
  std::vector<std::uint64_t> sum = Elements(x[0]);
  for (const std::size_t p : {1u, 2u}) {
    const auto part = Elements(x[p]);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += part[i];
  }
  for (auto& v : sum) v = ring::Reduce(v, x[0].Bits());
  return sum;
}

std::optional<std::string> Fused(const std::string& choice) {
  auto fused = mpc::ParseSuiteChoice(choice, "conformance test");
  const auto& options = FindSuite(fused.name).Info().options;
  if (std::none_of(options.begin(), options.end(),
                   [](const auto& option) { return option.name == "fuse"; }))
    return std::nullopt;
  fused.options["fuse"] = "yes";
  return fused.Text();
}

std::vector<std::uint64_t> Expected(const ActivationSpec& spec, const Values& z) {
  std::vector<std::uint64_t> expected;
  Values values = AllProtocols().PlainOracle().Activate(spec, z);
  if (spec.next) {
    const NextLayer next(spec);
    values =
        AllProtocols().PlainOracle().Linear(next.shape, next.weight, next.bias, values, spec.batch);
  }
  for (const std::int64_t v : values)
    expected.push_back(ring::Encode<std::uint64_t>(v, spec.out_bits));
  return expected;
}

Session RunLayer(const Layer& layer, const std::vector<Shares>& queries, const Options& options) {
  Session session;
  session.queries.resize(queries.size());
  std::optional<NextLayer> next;
  if (layer.plan.fused) next.emplace(layer.spec);
  std::array<std::shared_ptr<net::Recorder>, 3> recorders;
  mpc::LocalOptions local;
  if (options.pinned != nullptr) local = options.pinned->Options(1);
  local.ledger = options.ledger;
  if (options.record) {
    for (auto& recorder : recorders) recorder = std::make_shared<net::Recorder>();
    local.wrap = [&](std::unique_ptr<net::Link> link, int owner) {
      return net::MakeRecordingLink(std::move(link), recorders[static_cast<std::size_t>(owner)]);
    };
  }
  mpc::RunParties(
      [&](mpc::Party& party) {
        const auto id = static_cast<std::size_t>(party.Id());
        const auto activation = layer.plan.make(party);
        std::unique_ptr<mpc::Linear> linear;
        if (next) {
          linear = next->Make(party, layer);
          mpc::FusedOf(*activation).Fuse(mpc::FusedColumns(next->WeightOf(party.Id())));
        }
        const mpc::Cost nothing;
        const auto depths = [&](Phase phase) {
          return mpc::DepthsAt(party.Id(), phase, {&nothing, &layer.plan.cost});
        };
        const auto planned_offline = depths(Phase::kOffline),
                   planned_online = depths(Phase::kOnline);
        std::vector<std::unique_ptr<mpc::Correlation>> prepared;
        for (std::size_t q = 0; q < queries.size(); ++q) {
          mpc::Context offline(party, Phase::kOffline, &planned_offline);
          offline.Enter(1, layer.spec.layer);
          const bool knows = party.Id() == layer.roles.helper ? layer.spec.dealt
                                                              : layer.spec.known_at == party.Id();
          prepared.push_back(mpc::PrepareAny(*activation, offline, layer.spec.batch,
                                             knows ? &queries[q][id] : nullptr));
          offline.Leave();
          if (options.archive) PassThroughArchive(*activation, prepared.back());
          session.queries[q].known[id] = mpc::KnownOf(prepared.back().get());
          session.queries[q].offline_hops[id] = offline.Depth();
        }
        for (std::size_t q = 0; q < queries.size(); ++q) {
          mpc::Context online(party, Phase::kOnline, &planned_online);
          online.Enter(1, layer.spec.layer);
          auto& query = session.queries[q];
          if (next) {
            const AnyShare known = query.known[id];
            AnyMatrix z = linear->Prepare(online, layer.spec.batch, known);
            const AnyShare halves =
                mpc::FusedOf(*activation)
                    .RunFused(online, std::move(prepared[q]), queries[q][id], z);
            query.next[id] = linear->Run(online, std::move(z), mpc::KnownHalves(known), halves);
          } else {
            query.output[id] = activation->Run(online, std::move(prepared[q]), queries[q][id]);
          }
          online.Leave();
          session.queries[q].online_hops[id] = online.Depth();
        }
        session.offline_bytes[id] = party.Meter().Total(Phase::kOffline).sent_bytes;
        session.online_bytes[id] = party.Meter().Total(Phase::kOnline).sent_bytes;
      },
      local);
  for (auto& query : session.queries) FillIn(layer, query);
  for (std::size_t id = 0; options.record && id < 3; ++id) {
    session.views[id] = recorders[id]->Take();
    std::erase_if(session.views[id],
                  [](const net::Recorded& r) { return r.message.phase == Phase::kSetup; });
  }
  return session;
}

void CheckSession(const Layer& layer, const Session& session) {
  const mpc::Cost& cost = layer.plan.cost;
  const std::size_t count = session.queries.size();
  for (std::size_t p = 0; p < 3; ++p) {
    EXPECT_EQ(Sum(session.offline_bytes[p]), count * cost.OfflineBytes()[p])
        << "offline, sent by party " << p;
    EXPECT_EQ(Sum(session.online_bytes[p]), count * cost.OnlineBytes()[p])
        << "online, sent by party " << p;
  }
  for (const auto& query : session.queries) {
    EXPECT_EQ(Largest(query.offline_hops), cost.OfflineHops()) << "offline hops";
    EXPECT_EQ(Largest(query.online_hops), cost.OnlineHops()) << "online hops";
    for (std::size_t p = 0; p < 3 && !layer.plan.fused; ++p) {
      const auto& [mine, next] = query.output[p];
      for (const auto* half : {&mine, &next}) {
        ASSERT_EQ(half->Bits(), layer.spec.out_bits);
        ASSERT_EQ(half->Rows(), layer.spec.Out().Size());
        ASSERT_EQ(half->Cols(), layer.spec.batch);
      }
      const auto& known = query.known[p];
      if (!known.mine.Empty()) {
        EXPECT_EQ(Elements(known.mine), Elements(mine)) << "known offline at party " << p;
      }
      if (!known.next.Empty()) {
        EXPECT_EQ(Elements(known.next), Elements(next)) << "known offline at party " << p;
      }
    }
  }
  if (!layer.suite->Info().dealt_output) return;
  const auto helper = static_cast<std::size_t>(layer.roles.helper);
  for (const auto& query : session.queries) {
    EXPECT_FALSE(query.known[helper].mine.Empty())
        << "the helper's share is drawn, so it is known offline";
    EXPECT_FALSE(query.known[helper].next.Empty())
        << "the helper's share is drawn, so it is known offline";
  }
  for (const auto* bytes : {&session.offline_bytes, &session.online_bytes})
    for (std::size_t p = 0; p < 3; ++p)
      EXPECT_EQ((*bytes)[p][helper], 0u) << "party " << p << " sends to the helper";
  if (layer.spec.dealt) {
    EXPECT_EQ(Sum(session.online_bytes[helper]), 0u) << "the helper may be away";
  }
}

void ExpectOutput(const Layer& layer, const Query& query, const Values& z) {
  if (!layer.plan.fused) return ExpectOutput(layer, query.output, z);
  EXPECT_EQ(OpenAdditive(query.next), Expected(layer.spec, z));
}

void ExpectOutput(const Layer& layer, const std::array<AnyShare, 3>& output, const Values& z) {
  const auto found = Open(output), expected = Expected(layer.spec, z);
  if (layer.plan.tolerance == 0) {
    EXPECT_EQ(found, expected);
    return;
  }
  ASSERT_EQ(found.size(), expected.size());
  const unsigned bits = layer.spec.out_bits;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const std::int64_t off = ring::Decode(found[i] - expected[i], bits);
    EXPECT_LE(static_cast<std::uint64_t>(off < 0 ? -off : off), layer.plan.tolerance)
        << "element " << i << " of value " << (i < z.size() ? z[i] : 0);
  }
}

void CheckAgainstOracle(const Layer& layer, const Values& z, std::uint64_t seed) {
  if (layer.suite->Info().dealt_output && !layer.spec.known_at && !layer.spec.only_to &&
      !layer.spec.opened && (layer.spec.dealt || !layer.plan.fused)) {
    const PartyId multiplier = seed % 2 == 0 ? layer.roles.Evaluator1() : layer.roles.Evaluator2();
    CheckAgainstOracle(WithMultiplier(layer, multiplier, seed % 3 != 0 || layer.plan.fused,
                                      !layer.plan.fused && (seed % 3 != 1 || !layer.spec.dealt)),
                       z, seed);
  }
  const auto& spec = layer.spec;
  if (layer.suite->Info().takes_opened && !spec.opened && !spec.known_at && !spec.only_to &&
      !layer.plan.fused)
    CheckAgainstOracle(WithOpened(layer), z, seed);
  SCOPED_TRACE(fmt::format(
      "{} of {} bits in a ring of {} to {}, shift {}, {}, {} x {} x {}, batch {}{}{}{}{}{}",
      mpc::ActivationName(spec.kind), spec.value_bits, spec.ring_bits, spec.out_bits, spec.shift,
      spec.pool ? fmt::format("pool {}/{}", spec.pool->kernel.h, spec.pool->stride.h) : "no pool",
      spec.in.channels, spec.in.height, spec.in.width, spec.batch, spec.dealt ? ", dealt" : "",
      spec.opened ? ", opened" : "",
      spec.known_at ? fmt::format(", known at {}", *spec.known_at) : "",
      spec.only_to ? fmt::format(", only to {}", *spec.only_to) : "",
      layer.plan.fused ? fmt::format(", fused with {} outputs", spec.next->out_channels) : ""));
  const auto shares = ShareOut(z, spec.in.Size(), spec.batch, spec.ring_bits, seed);
  const auto session = RunLayer(layer, {spec.opened ? Joined(shares, layer.roles) : shares});
  CheckSession(layer, session);
  if (testing::Test::HasFatalFailure()) return;
  ExpectOutput(layer, session.queries[0], z);
}

Values Repeat(const Values& values, std::size_t count) {
  Values all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = values[i % values.size()];
  return all;
}

Values WholeRing(unsigned bits) {
  Values values;
  for (std::int64_t v = -(std::int64_t{1} << (bits - 1)); v < std::int64_t{1} << (bits - 1); ++v)
    values.push_back(v);
  return values;
}

Values BordersAndRandom(unsigned bits, std::uint64_t seed) {
  // In words, since 2^63 is no value of 64 bits.
  const std::uint64_t end = std::uint64_t{1} << (bits - 1);
  const std::int64_t low = ring::Decode(end, bits), high = -(low + 1);
  Values values{0, -1, high, low};
  for (unsigned bit = 0; bit + 1 < bits; ++bit)
    for (std::int64_t offset : {-1, 0, 1})
      for (std::int64_t power : {std::int64_t{1} << bit, -(std::int64_t{1} << bit)})
        if (low <= power + offset && power + offset <= high) values.push_back(power + offset);
  std::mt19937_64 rng(seed);
  for (std::size_t i = values.size(); i > 0; --i) values.push_back(ring::Decode(rng() - end, bits));
  return values;
}

}  // namespace tercet::conformance
