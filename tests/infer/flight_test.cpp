// SPDX-License-Identifier: Apache-2.0
// Queries under way at once, three parties in one process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <map>
#include <mutex>

#include "infer/run_flight.h"
#include "tercet/infer/run_cost.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet::infer {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr std::size_t kFeatures = 4;

// Two dense layers of 4 x 4, with Sign between them.
nn::IntegerNetwork Network() {
  nn::IntegerNetwork network;
  network.net.name = "dense";
  network.net.input.shape = {kFeatures, 1, 1};
  network.net.input.bits = 4;
  for (const char* name : {"fc1", "fc2"}) {
    nn::PublicLayer layer;
    layer.name = name;
    layer.type = "linear";
    layer.linear.in = {kFeatures, 1, 1};
    layer.linear.out_channels = kFeatures;
    layer.value_bits = 10;
    network.net.layers.push_back(layer);
    auto& weights = network.weights.emplace_back();
    for (std::int64_t i = 0; i < 16; ++i) weights.weight.push_back(i * 7 % 5 - 2);
    weights.bias = {1, -2, 3, 0};
  }
  network.net.layers[0].activation = mpc::ActivationKind::kSign;
  return network;
}

files::Images Pictures(std::size_t count) {
  files::Images images{{kFeatures, 1, 1}, count, {}};
  for (std::size_t i = 0; i < count * kFeatures; ++i)
    images.pixels.push_back(static_cast<std::uint8_t>(i * 37));
  return images;
}

// How much material is there at each party, of queries that are under way or wait.
class Count {
 public:
  void Add(int party, int more) {
    const std::lock_guard lock(mutex_);
    most_[party] = std::max(most_[party], now_[party] += more);
    changed_.notify_all();
  }
  bool AwaitMost(int party, int most) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 30s, [&] { return most_[party] >= most; });
  }
  int Most(int party) { return most_[party]; }
  int Now(int party) { return now_[party]; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, int> now_, most_;
};

class Counted final : public mpc::Correlation {
 public:
  Counted(Count& count, int party) : count_(count), party_(party) { count_.Add(party_, 1); }
  ~Counted() override { count_.Add(party_, -1); }
  void Visit(mpc::Archive& /*archive*/) override {}

 private:
  Count& count_;
  const int party_;
};

// Gives shares of zeros. No query goes on before those of `at_once` are under way.
class Zeros final : public mpc::Activation {
 public:
  Zeros(const mpc::ActivationSpec& spec, Count& count, int at_once)
      : spec_(spec), count_(count), at_once_(at_once) {}
  std::unique_ptr<mpc::Correlation> Prepare(mpc::Context& ctx, std::size_t /*batch*/) override {
    return std::make_unique<Counted>(count_, ctx.Id());
  }
  mpc::AnyShare Run(mpc::Context& ctx, std::unique_ptr<mpc::Correlation> /*correlation*/,
                    const mpc::AnyMatrix& z) override {
    if (!count_.AwaitMost(ctx.Id(), at_once_)) throw Error("no other query is under way");
    return ring::DispatchWord(spec_.out_bits, [&]<ring::Word W>(W) {
      const ring::Matrix<W> zero = xt::zeros<W>({spec_.Out().Size(), z.Cols()});
      return mpc::AnyShare{mpc::AnyMatrix(zero, spec_.out_bits),
                           mpc::AnyMatrix(zero, spec_.out_bits)};
    });
  }

 private:
  const mpc::ActivationSpec spec_;
  Count& count_;
  const int at_once_;
};

mpc::Registry WithZeros(Count& count, int at_once) {
  mpc::Registry registry = BuiltinProtocols();
  registry.AddSuite(
      {.name = "zeros"}, [&count, at_once](const auto& spec, const auto&, const auto&) {
        return mpc::ActivationPlan{{}, [spec, &count, at_once](mpc::Party&) {
                                     return std::make_unique<Zeros>(spec, count, at_once);
                                   }};
      });
  return registry;
}

class HeldQueries : public testing::TestWithParam<std::pair<Schedule, std::size_t>> {};
INSTANTIATE_TEST_SUITE_P(Schedules, HeldQueries,
                         testing::Values(std::pair(Schedule(InTurn{}), std::size_t{1}),
                                         std::pair(Schedule(InTurn{}), std::size_t{4}),
                                         std::pair(Schedule(Ahead{2}), std::size_t{1}),
                                         std::pair(Schedule(Ahead{2}), std::size_t{4}),
                                         std::pair(Schedule(Ahead{6}), std::size_t{4})));

TEST_P(HeldQueries, AreAtLeastThoseInFlightAndNeverMoreThanAreCounted) {
  const auto& [schedule, in_flight] = GetParam();
  Count count;
  const auto registry = WithZeros(count, static_cast<int>(in_flight));
  const auto network = Network();
  const auto images = Pictures(40);
  const std::vector<Plan> plans{MakePlan(network.net, registry, {"zeros", {}}, {}, 2)};
  const FlightRun run{.model = network,
                      .images = images,
                      .plans = plans,
                      .registry = registry,
                      .roles = plans[0].roles,
                      .schedule = schedule,
                      .in_flight = in_flight};
  run.Over(net::MakeMemoryLinks()).ThrowIfAny();
  for (int party = 0; party < 3; ++party) {
    EXPECT_GE(count.Most(party), static_cast<int>(in_flight));
    EXPECT_LE(count.Most(party), static_cast<int>(QueriesHeld(schedule, 20, in_flight)));
    EXPECT_EQ(count.Now(party), 0);
  }
}

TEST(QueriesHeldTest, AreThoseInFlightAndThoseAhead) {
  EXPECT_EQ(QueriesHeld(InTurn{}, 20, 4), 4u);
  EXPECT_EQ(QueriesHeld(InTurn{}, 3, 8), 3u);
  EXPECT_EQ(QueriesHeld(Ahead{2}, 20, 1), 4u);   // one runs, two wait, one is being made
  EXPECT_EQ(QueriesHeld(Ahead{2}, 20, 4), 8u);   // at two runners of the four
  EXPECT_EQ(QueriesHeld(Ahead{6}, 40, 4), 14u);  // at all of them
  EXPECT_EQ(QueriesHeld(HelperLeaves{}, 20, 4), 20u);
  for (std::size_t ahead = 0; ahead < 9; ++ahead) {
    std::size_t sum = 0;
    for (std::size_t r = 0; r < 4; ++r) sum += QueriesAhead(Ahead{ahead}, 20, r, 4);
    EXPECT_EQ(sum, ahead);
  }
}

// The layers add up to the plan's costs, whatever the number of tracks.
TEST(FlightTest, CostsWhatThePlanSays) {
  const auto registry = BuiltinProtocols();
  const auto network = Network();
  const auto images = Pictures(7);
  for (const char* suite : {"lut", "fss", "aby3", "cbnn", "lut:fuse=yes"})
    for (const Schedule& schedule : {Schedule(InTurn{}), Schedule(HelperRotates{})}) {
      const auto choice = mpc::ParseSuiteChoice(suite, "test");
      const auto plan = MakePlan(network.net, registry, choice, {}, 3);
      const auto plans = PlansOf(plan, registry, choice, 3, schedule);
      const auto cost = RunCost(plan, registry, choice, images.count, schedule);
      std::vector<std::int64_t> logits;
      for (const std::size_t in_flight : {1, 2, 64}) {
        const FlightRun run{.model = network,
                            .images = images,
                            .plans = plans,
                            .registry = registry,
                            .roles = plan.roles,
                            .schedule = schedule,
                            .in_flight = in_flight};
        const auto ends = run.Over(net::MakeMemoryLinks());
        ends.ThrowIfAny();
        for (std::size_t p = 0; p < 3; ++p) {
          std::uint64_t offline = 0, online = 0;
          for (const auto& layer : ends.layers[p]) {
            offline += layer.offline_bytes;
            online += layer.online_bytes;
          }
          EXPECT_EQ(offline, cost.offline_bytes[p]) << suite << ", " << in_flight << " in flight";
          EXPECT_EQ(online, cost.online_bytes[p]) << suite << ", " << in_flight << " in flight";
        }
        const auto& found = ends.outcomes[static_cast<std::size_t>(plan.roles.receiver)].logits;
        EXPECT_EQ(found.size(), images.count * kFeatures);
        if (in_flight == 1) logits = found;
        EXPECT_EQ(found, logits) << suite << ", " << in_flight << " in flight";
      }
    }
}

// Of several queries a helper deals one whole before it begins another, whose evaluators go on
// then.
TEST(FlightTest, AHelperDealsOneQueryAfterTheOther) {
  const auto registry = BuiltinProtocols();
  const auto network = Network();
  const auto images = Pictures(8);
  const std::vector<Plan> plans{
      MakePlan(network.net, registry, mpc::ParseSuiteChoice("lut:chunks=3", "test"), {}, 1)};
  std::mutex mutex;
  std::map<int, std::vector<std::uint32_t>> parts;  // of messages, by receiver
  auto links = net::MakeMemoryLinks();
  for (const std::size_t to : {1U, 2U})
    links[0][to] = net::MakeFaultyLink(std::move(links[0][to]), [&, to](const net::Message& m) {
      if (m.phase != net::Phase::kOffline) return true;
      {
        const std::lock_guard lock(mutex);
        parts[static_cast<int>(to)].push_back(m.depth >> 24);
      }
      std::this_thread::sleep_for(1ms);
      return true;
    });
  const FlightRun run{.model = network,
                      .images = images,
                      .plans = plans,
                      .registry = registry,
                      .roles = plans[0].roles,
                      .in_flight = 4};
  run.Over(std::move(links)).ThrowIfAny();
  std::size_t most = 0;
  for (const auto& [to, sent] : parts) {
    const std::size_t each = sent.size() / images.count;
    most = std::max(most, each);
    for (std::size_t i = 0; i < sent.size(); ++i)
      EXPECT_EQ(sent[i], sent[i / each * each]) << "message " << i << " to party " << to;
  }
  EXPECT_GE(most, 2u);
}

// One query of three gets no further, while links and the other queries do.
TEST(FlightTest, AMessageThatIsLostEndsAll) {
  const auto registry = BuiltinProtocols();
  const auto network = Network();
  const auto images = Pictures(9);
  const std::vector<Plan> plans{MakePlan(network.net, registry, {"aby3", {}}, {}, 1)};
  for (const Schedule& schedule : {Schedule(InTurn{}), Schedule(Ahead{3})}) {
    const FlightRun run{
        .model = network,
        .images = images,
        .plans = plans,
        .registry = registry,
        .roles = plans[0].roles,
        .schedule = schedule,
        .in_flight = 3,
        .make = [](std::size_t track, int id, net::Links links, std::size_t layers) {
          if (id == 1 && track == 2)
            links[2] = net::MakeFaultyLink(std::move(links[2]), [](const net::Message& message) {
              return message.phase != net::Phase::kOnline;
            });
          return Flight::AgreeKeys(track, id, std::move(links), layers);
        }};
    const auto ends = run.Over(net::MakeMemoryLinks(500ms));
    for (std::size_t p = 0; p < 3; ++p) {
      ASSERT_TRUE(ends.errors[p]) << p;
      EXPECT_THAT([&] { std::rethrow_exception(ends.errors[p]); },
                  testing::ThrowsMessage<NetworkError>(HasSubstr("online message")))
          << p;
    }
  }
}

}  // namespace
}  // namespace tercet::infer
