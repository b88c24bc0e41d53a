// SPDX-License-Identifier: Apache-2.0
#include "conformance/pinned_queries.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "conformance/harness.h"
#include "infer/run_flight.h"
#include "tercet/infer/run_cost.h"
#include "tercet/infer/secure_network.h"
#include "tercet/nn/run_plain.h"

namespace tercet::conformance {
namespace {

constexpr std::size_t kChannels = 8;
constexpr std::size_t kClasses = 4;  // where only the class leaves
constexpr unsigned kBits = 5, kClassBits = 8;

mpc::LinearShape OneWeightAChannel(const mpc::Shape3& in) {
  return {.in = in, .out_channels = in.channels, .groups = in.channels};
}

nn::PublicNetwork Network(const QueryCase& c) {
  nn::PublicNetwork net;
  net.name = "pinned";
  net.linear = c.linear;
  net.input.shape = {kChannels, c.side, c.side};
  net.input.bits = 1;
  mpc::Shape3 in = net.input.shape;
  for (std::size_t k = 0; k <= c.layers.size(); ++k) {
    nn::PublicLayer layer;
    layer.name = fmt::format("layer{}", k + 1);
    layer.type = "conv2d";
    layer.linear = OneWeightAChannel(in);
    layer.value_bits = kBits;
    const bool last = k == c.layers.size();
    if (!last) {
      layer.activation = c.layers[k].kind;
      layer.shift = c.layers[k].shift;
      if (layer.activation == ActivationKind::kTable) {
        layer.table.resize(std::size_t{1} << (kBits - layer.shift));
        for (std::size_t i = 0; i < layer.table.size(); ++i)
          layer.table[i] = static_cast<std::int64_t>(i % 2);
      }
      layer.suite = c.layers[k].suite;
      if (c.layers[k].pool > 0) layer.pool = mpc::PoolShape{c.layers[k].pool, c.layers[k].pool};
    } else if (c.ends == QueryCase::Ends::kClass) {
      // Differences of four classes, of each class a window of 2 x 2.
      layer.linear = {.in = in, .out_channels = 4 * kClasses};
      layer.value_bits = kClassBits;
      layer.activation = ActivationKind::kSign;
      layer.pool = mpc::PoolShape{2, 2};
      layer.compared_classes = kClasses;
    }
    if (last && c.outputs > 0) {
      layer.linear = {.in = {in.Size(), 1, 1}, .out_channels = c.outputs};
      layer.value_bits = kClassBits;
    }
    if (last && c.shortcut) {
      layer.shortcut.emplace();
      layer.shortcut->linear = OneWeightAChannel(net.input.shape);
    }
    in = layer.Out();
    net.layers.push_back(std::move(layer));
  }
  return net;
}

std::vector<std::int64_t> Small(std::size_t count, std::uint64_t seed, std::int64_t most) {
  std::vector<std::uint8_t> random(count);
  FillFrom(seed, random);
  std::vector<std::int64_t> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = random[i] % (2 * most + 1) - most;
  return values;
}

/// Weights that differ in all they can: zeros for the one, random ones for the other.
nn::IntegerNetwork Model(const QueryCase& c, int which) {
  nn::IntegerNetwork model{Network(c), {}};
  for (const auto& layer : model.net.layers) {
    const std::uint64_t seed = 10 * model.weights.size();
    auto& weights = model.weights.emplace_back();
    const std::int64_t most = layer.linear.Depth() == 1 ? 2 : 3;  // so that values fit
    weights.weight = Small(layer.linear.WeightCount(), seed + 1, most);
    weights.bias = Small(layer.linear.BiasCount(), seed + 2, most);
    if (layer.shortcut)
      weights.shortcut = Small(layer.shortcut->linear->WeightCount(), seed + 3, 2);
    if (which == 1) continue;
    for (auto* values : {&weights.weight, &weights.bias, &weights.shortcut})
      std::fill(values->begin(), values->end(), 0);
  }
  return model;
}

files::Images Pictures(const QueryCase& c, std::size_t count, int which) {
  files::Images images{{kChannels, c.side, c.side}, count, {}};
  images.pixels.resize(count * images.shape.Size());
  for (std::size_t i = 0; i < images.pixels.size(); ++i)
    images.pixels[i] = which == 1 ? 255 : i % 3 == 0 ? 255 : 0;
  return images;
}

bool IsPublic(const QueryCase& c) { return c.linear == mpc::kPublicLinear; }

/// What is secret, for one of the inputs, and what must come out.
struct Secrets {
  Secrets(const QueryCase& c, int receiver, int input, std::size_t count)
      : model(Model(c, IsPublic(c)                       ? 1
                       : receiver == c.roles.model_owner ? 0
                                                         : input)),
        images(Pictures(c, count, receiver == c.roles.data_owner ? 0 : input)),
        expected(nn::RunPlain(model, AllProtocols().PlainOracle(), images, 0, count)) {}

  nn::IntegerNetwork model;
  files::Images images;
  std::vector<std::int64_t> expected;
};

/// Both inputs, made once: runs are many.
using Pair = std::array<Secrets, 2>;

std::function<bool(const Received&)> Result(const QueryCase& c, int receiver) {
  if (receiver != c.roles.receiver) return nullptr;
  return
      [output = c.layers.size() + 2](const Received& message) { return message.Layer() == output; };
}

// Of a public model: its weights, and what says that all were told the same.
std::function<bool(const Received&)> Announced(const QueryCase& c) {
  if (!IsPublic(c)) return nullptr;
  return [](const Received& message) { return message.phase == net::Phase::kSetup; };
}

// Of clients outside: the evaluators' shares of a query, of which the receiver's does not depend on
// the input.
std::array<mpc::AnyMatrix, 3> SharesOf(const infer::Plan& plan,
                                       const std::vector<std::int64_t>& pixels, int receiver) {
  std::array<mpc::AnyMatrix, 3> shares;
  const std::size_t rows = plan.network.input.shape.Size(), cols = pixels.size() / rows;
  const int fixed = receiver == plan.roles.helper ? plan.roles.Evaluator1() : receiver;
  const int other = 3 - plan.roles.helper - fixed;
  ring::DispatchWord(plan.input_bits, [&]<ring::Word W>(W) {
    auto drawn = ring::MakeMatrix<W>(rows, cols), rest = ring::MakeMatrix<W>(rows, cols);
    FillFrom(5, {reinterpret_cast<std::uint8_t*>(drawn.data()), drawn.size() * sizeof(W)});
    for (std::size_t i = 0; i < pixels.size(); ++i)
      rest.data()[i] = static_cast<W>(static_cast<W>(pixels[i]) - drawn.data()[i]);
    shares[static_cast<std::size_t>(fixed)] = {std::move(drawn), plan.input_bits};
    shares[static_cast<std::size_t>(other)] = {std::move(rest), plan.input_bits};
  });
  return shares;
}

// What the client adds up: logits, image after image.
std::vector<std::int64_t> Sum(const infer::Plan& plan,
                              const std::array<mpc::AnyMatrix, 3>& results) {
  const auto& e1 = results[static_cast<std::size_t>(plan.roles.Evaluator1())];
  const auto& e2 = results[static_cast<std::size_t>(plan.roles.Evaluator2())];
  return ring::DispatchWord(plan.output_bits, [&]<ring::Word W>(W) {
    std::vector<std::int64_t> sums;
    for (std::size_t b = 0; b < e1.Cols(); ++b)
      for (std::size_t c = 0; c < e1.Rows(); ++c) {
        const W sum = static_cast<W>(e1.As<W>()(c, b) + e2.As<W>()(c, b));
        sums.push_back(ring::Decode(ring::Reduce(sum, plan.output_bits), plan.output_bits));
      }
    return sums;
  });
}

mpc::SuiteChoice Choice(const QueryCase& c) { return mpc::ParseSuiteChoice(c.suite, "test"); }

}  // namespace

void PrintTo(const QueryCase& c, std::ostream* out) {
  *out << c.suite << ", roles " << c.roles.helper << c.roles.data_owner << c.roles.model_owner
       << c.roles.receiver;
  for (const auto& layer : c.layers)
    *out << ", " << mpc::ActivationName(layer.kind)
         << (layer.shift > 0 ? fmt::format(" >> {}", layer.shift) : "")
         << (layer.pool > 0 ? fmt::format(" pool {}", layer.pool) : "")
         << (layer.suite.empty() ? "" : " by " + layer.suite);
  if (c.ends == QueryCase::Ends::kClass) *out << ", class";
  if (c.shortcut) *out << ", shortcut";
  if (c.outputs > 0) *out << ", " << c.outputs << " logits";
  if (!c.linear.empty()) *out << ", linear " << c.linear;
}

Scenario QueryScenario(const QueryCase& c, int receiver) {
  const std::size_t count = c.batch * c.queries;
  auto secrets = std::make_shared<const Pair>(
      Pair{Secrets(c, receiver, 0, count), Secrets(c, receiver, 1, count)});
  auto plan = std::make_shared<const infer::Plan>(
      infer::MakePlan(Network(c), Mutants(), Choice(c), c.roles, c.batch));
  const auto run = [c, secrets, plan, receiver](PinnedSession& session, int input) {
    const Secrets& secret = (*secrets)[static_cast<std::size_t>(input)];
    const bool for_clients = c.roles.AreForClients();
    std::vector<std::array<mpc::AnyMatrix, 3>> shares(c.queries), results(c.queries);
    for (std::size_t q = 0; for_clients && q < c.queries; ++q)
      shares[q] = SharesOf(
          *plan, nn::QuantiseInput(plan->network.input, secret.images, q * c.batch, c.batch),
          receiver);
    mpc::RunParties(
        [&](mpc::Party& party) {
          infer::SecureNetwork net(party, *plan, Mutants());
          net.ShareModel(party.Id() == c.roles.model_owner ? &secret.model : nullptr);
          std::vector<infer::SecureNetwork::Query> prepared;
          for (std::size_t q = 0; q < c.queries; ++q) prepared.push_back(net.Prepare(c.batch));
          std::vector<std::int64_t> logits;
          for (std::size_t q = 0; q < c.queries; ++q) {
            const auto id = static_cast<std::size_t>(party.Id());
            if (for_clients) {
              results[q][id] = net.RunForClients(std::move(prepared[q]), std::move(shares[q][id]));
              continue;
            }
            const auto pixels =
                nn::QuantiseInput(plan->network.input, secret.images, q * c.batch, c.batch);
            const auto part = net.Run(std::move(prepared[q]),
                                      party.Id() == c.roles.data_owner ? &pixels : nullptr);
            logits.insert(logits.end(), part.begin(), part.end());
          }
          if (party.Id() == c.roles.receiver)
            TERCET_CHECK(logits == secret.expected, "the result is wrong");
        },
        session.Options(plan->layers.size()));
    std::vector<std::int64_t> sums;
    for (const auto& result : results) {
      if (!for_clients) break;
      const auto part = Sum(*plan, result);
      sums.insert(sums.end(), part.begin(), part.end());
    }
    TERCET_CHECK(!for_clients || sums == secret.expected, "the result is wrong");
  };
  return {run, Result(c, receiver), Announced(c)};
}

namespace {

// The plans of a query, and how a session runs them.
std::vector<infer::Plan> PlansOf(const QueryCase& c, const Side& side) {
  return infer::PlansOf(infer::MakePlan(Network(c), Mutants(), Choice(c), c.roles, c.batch),
                        Mutants(), Choice(c), c.batch, side.schedule);
}

void RunSideBySide(const QueryCase& c, const Side& side, const Secrets& secret,
                   const std::vector<infer::Plan>& plans, std::array<net::Links, 3> links,
                   const infer::Flight::MakeParty& make) {
  const infer::FlightRun run{.model = secret.model,
                             .images = secret.images,
                             .plans = plans,
                             .registry = Mutants(),
                             .roles = c.roles,
                             .schedule = side.schedule,
                             .in_flight = side.in_flight,
                             .make = make};
  const auto ends = run.Over(std::move(links));
  ends.ThrowIfAny();
  TERCET_CHECK(ends.outcomes[static_cast<std::size_t>(c.roles.receiver)].logits == secret.expected,
               "the result is wrong");
}

}  // namespace

Scenario SideBySideScenario(const QueryCase& c, const Side& side, int receiver) {
  const std::size_t count = c.batch * c.queries;
  auto secrets = std::make_shared<const Pair>(
      Pair{Secrets(c, receiver, 0, count), Secrets(c, receiver, 1, count)});
  auto plans = std::make_shared<const std::vector<infer::Plan>>(PlansOf(c, side));
  const auto run = [c, side, secrets, plans](PinnedSession& session, int input) {
    RunSideBySide(c, side, (*secrets)[static_cast<std::size_t>(input)], *plans,
                  net::MakeMemoryLinks(),
                  [&](std::size_t track, int id, net::Links links, std::size_t layers) {
                    return session.MakeParty(id, std::move(links), layers, track);
                  });
  };
  return {run, Result(c, receiver), Announced(c)};
}

std::vector<Bytes> KeysAgreed(const QueryCase& c, const Side& side) {
  const auto recorder = std::make_shared<net::Recorder>();
  auto links = net::MakeMemoryLinks();
  for (auto& own : links)
    for (auto& link : own)
      if (link) link = net::MakeRecordingLink(std::move(link), recorder);
  RunSideBySide(c, side, Secrets(c, 0, 1, c.batch * c.queries), PlansOf(c, side), std::move(links),
                infer::Flight::AgreeKeys);
  std::vector<Bytes> keys;
  for (auto& seen : recorder->Take())
    if (seen.sent && seen.message.phase == net::Phase::kSetup &&
        seen.message.payload.size() == crypto::PrfKey::kBytes)
      keys.push_back(std::move(seen.message.payload));
  return keys;
}

std::vector<std::string> FindingsOfAll(const std::function<Scenario(int receiver)>& scenario) {
  std::vector<std::string> findings;
  for (const int receiver : {2, 1, 0})  // E2 first, to whom most leaks leak
    if (findings.empty())
      for (auto& finding : Findings(scenario(receiver), receiver))
        findings.push_back(fmt::format("party {}: {}", receiver, std::move(finding)));
  return findings;
}

std::vector<std::string> FindingsOfMutant(const std::string& name) {
  // One has a wrong mask of tables alone.
  const bool table = name == "lut_bare_index", fused = name.find("products") != std::string::npos;
  const bool pooled = name == "lut_bare_or";        // one of windows
  const bool product = name == "lut_bare_product";  // one of what ReLU selects by
  const char* options = fused                               ? ":chunks=2,fuse=yes"
                        : pooled || product                 ? ":form=bit"
                        : name == "lut_bare_parts"          ? ":form=tree"
                        : name.starts_with("lut")           ? ":chunks=2"
                        : name.starts_with("fss_bare_bits") ? ":form=bit"
                                                            : "";
  const QueryLayer mutant{.kind = table     ? ActivationKind::kTable
                                  : product ? ActivationKind::kRelu
                                            : ActivationKind::kSign,
                          .suite = name + options,
                          .pool = pooled ? 2U : 0U,
                          .shift = table || product ? 2U : 0U};
  // Of one image alone, a top bit that only a carry covers may have no affine relation.
  const QueryCase c{.layers = {{ActivationKind::kSign, "aby3"}, mutant},
                    .side = pooled ? 2U : 1U,
                    .batch = 2,
                    .outputs = fused ? 2U : 0U};
  return FindingsOfAll([&](int receiver) { return QueryScenario(c, receiver); });
}

void ExpectEveryDrawIsMissed(const std::function<Scenario(int receiver)>& make,
                             std::size_t at_least) {
  std::size_t draws = 0;
  for (const int receiver : {0, 1, 2}) {
    const Scenario scenario = make(receiver);
    PinnedSession session(receiver, 0);
    scenario.run(session, 0);
    const auto view = session.View();
    for (const auto& [draw, size] : session.Draws()) {
      const std::string what =
          fmt::format("party {}, {} from block {}", receiver, std::get<1>(draw), std::get<2>(draw));
      const Varied varied{{draw, {}}};
      PinnedSession other(receiver, 0, 1, &varied);
      scenario.run(other, 0);
      if (view == other.View()) continue;
      EXPECT_FALSE(Findings(scenario, receiver, &draw).empty()) << what;
      ++draws;
    }
  }
  EXPECT_GE(draws, at_least);
}

}  // namespace tercet::conformance
