// SPDX-License-Identifier: Apache-2.0
// Lanes of three servers over memory, asked by clients.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <future>
#include <initializer_list>
#include <iostream>
#include <map>
#include <set>
#include <thread>

#include "service/small_service.h"
#include "tercet/client/query.h"
#include "tercet/net/wrappers.h"
#include "tercet/nn/run_plain.h"
#include "tercet/service/lane.h"

namespace tercet::client {
namespace {

using service::Outcome;
using service::Refusal;

// Longer than anything here takes: no wait has no end.
constexpr std::chrono::seconds kPatience{60};

// What becomes of a query.
class Pending {
 public:
  explicit Pending(std::future<Outcome> outcome) : outcome_(std::move(outcome)) {}
  Outcome Get() {
    if (outcome_.wait_for(kPatience) == std::future_status::ready) return outcome_.get();
    ADD_FAILURE() << "a query has no outcome";
    return {};
  }

 private:
  std::future<Outcome> outcome_;
};

// All three servers' sides of one lane.
class Lane {
 public:
  Lane(
      const service::SmallDeployment& world, const std::vector<Bytes>& packages, std::size_t lane,
      const std::array<std::size_t, 3>& offered,
      const std::function<void(int, net::Links&)>& wrap = [](int, net::Links&) {},
      const std::function<void(service::LaneSettings&)>& tune = [](service::LaneSettings&) {})
      : world_(world), roles_(service::RolesOf(lane)) {
    auto links = net::MakeMemoryLinks();
    for (int id = 0; id < 3; ++id) wrap(id, links[static_cast<std::size_t>(id)]);
    for (int id = 0; id < 3; ++id) {
      const auto i = static_cast<std::size_t>(id);
      Server& server = servers_[i];
      service::Models models;
      for (std::size_t m = 0; m < offered[i]; ++m)
        models.push_back(std::make_shared<service::ServedModel>(service::ReadPackage(
            packages[m], world.deployment, id, world.keys[i], service::Protocols(), "p")));
      infos_.clear();
      for (const auto& model : models)
        infos_.push_back(service::InfoOf(*model, service::Protocols()));
      server.gate = std::make_unique<service::Gate>(
          world.deployment, id, crypto::SealingKey(world.keys[i].Secret()),
          [&server](const service::QueryId& query, std::uint64_t) {
            return server.seen.insert(query).second;
          });
      service::LaneSettings settings;
      settings.id = id;
      settings.lane = lane;
      settings.max_batch = 8;
      tune(settings);
      server.models = std::move(models);
      server.session = std::make_unique<service::LaneSession>(
          settings,
          [&server] {
            const std::lock_guard lock(server.mutex);
            return server.models;
          },
          service::Protocols(), *server.gate, server.queries);
      server.session->on_batch = [&server](const service::BatchDone& done) {
        const std::lock_guard lock(server.mutex);
        server.sizes.push_back(done.size);
      };
      server.session->on_models = [&server](const std::vector<crypto::Digest>& digests) {
        const std::lock_guard lock(server.mutex);
        server.common = digests;
        ++server.agreements;
        server.changed.notify_all();
      };
      server.thread = std::thread([&server, mine = std::move(links[i])]() mutable {
        try {
          server.session->Run(std::move(mine));
        } catch (const Error& e) {
          server.error = e.what();
        }
        // Whoever waits for this server learns that nothing more comes.
        {
          const std::lock_guard lock(server.mutex);
          server.ended = true;
          server.changed.notify_all();
        }
        server.queries.FailAll();
      });
    }
    for (auto& server : servers_)
      common_.push_back(AwaitModels(server, [](auto&) { return true; }));
  }
  ~Lane() { End(); }

  void End() {
    for (auto& server : servers_) {
      server.queries.Close();
      server.session->Stop("test ends");
    }
    AwaitEnd();
  }
  // Until the sessions have ended by themselves. Nothing here can end one that does not, so the
  // program ends.
  void AwaitEnd(std::initializer_list<int> which = {0, 1, 2}) {
    for (const int id : which) {
      auto& server = servers_[static_cast<std::size_t>(id)];
      if (!server.thread.joinable()) continue;
      if (!Await(server, [&] { return server.ended; })) {
        std::cerr << "server " << id << " does not end\n";
        std::abort();
      }
      server.thread.join();
    }
  }

  struct Server;
  // Puts in or takes out a package at some servers.
  void Change(const std::vector<int>& where, const Bytes& package, bool in) {
    for (const int id : where) {
      auto& server = servers_[static_cast<std::size_t>(id)];
      auto model = std::make_shared<service::ServedModel>(service::ReadPackage(
          package, world_.deployment, id, world_.keys[static_cast<std::size_t>(id)],
          service::Protocols(), "p"));
      {
        const std::lock_guard lock(server.mutex);
        std::erase_if(server.models, [&](const auto& other) {
          return other->header.digest == model->header.digest;
        });
        if (in) server.models.push_back(model);
      }
      server.session->Changed();
    }
  }
  // Until a server's session has agreed on models that are as expected, or has ended; how many it
  // has then.
  template <class Done>
  static std::size_t AwaitModels(Server& server, Done done) {
    EXPECT_TRUE(Await(server, [&] {
      return server.ended || (server.agreements > 0 && done(server.common));
    })) << "the models are not agreed on";
    const std::lock_guard lock(server.mutex);
    return server.common.size();
  }
  void AwaitModels(std::size_t count) {
    for (auto& server : servers_)
      AwaitModels(server, [count](const auto& common) { return common.size() == count; });
  }

  // A query of this lane.
  Query Ask(const service::ModelInfo& info, const files::Images& images, std::size_t first,
            std::size_t count) const {
    while (true) {
      Query query(world_.deployment, info, images, first, count);
      if (service::RolesOf(query.Request().head.lane).helper == roles_.helper) return query;
    }
  }
  Server& E1() { return servers_[static_cast<std::size_t>(roles_.Evaluator1())]; }
  // Until E1 has material for so many batches.
  void AwaitMaterial(std::size_t batches) {
    const auto& stock = E1().session->Material();
    const auto last = std::chrono::steady_clock::now() + kPatience;
    const auto over = [&] {
      const std::lock_guard lock(E1().mutex);
      return E1().ended || std::chrono::steady_clock::now() > last;
    };
    std::size_t found = stock.batches;
    for (; found != batches && !over(); found = stock.batches)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(found, batches);
  }
  // As a server takes it from a client.
  Pending Send(const service::SealedPair& request, const service::ModelInfo& info) {
    auto promise = std::make_shared<std::promise<Outcome>>();
    Pending pending(promise->get_future());
    Refusal why = Refusal::kNone;
    auto& server = servers_[static_cast<std::size_t>(roles_.Evaluator1())];
    auto share = server.gate->Open(request.head, request.e1, info.input.shape.Size(),
                                   info.input_bits, service::NowMs(), why);
    if (!share) {
      promise->set_value({Outcome::Kind::kRefused, why, {}, {}});
      return pending;
    }
    const auto done = [promise](Outcome outcome) { promise->set_value(std::move(outcome)); };
    EXPECT_TRUE(server.queries.Put({request.head, std::move(*share), request.e2, done}));
    const std::lock_guard lock(server.mutex);
    if (server.ended) server.queries.FailAll();
    return pending;
  }
  std::vector<std::int64_t> Open(const Query& query, Outcome outcome) const {
    EXPECT_EQ(outcome.kind, Outcome::Kind::kAnswered);
    return query.Open({query.Request().head, std::move(outcome.e1), std::move(outcome.e2)});
  }

  struct Server {
    std::unique_ptr<service::Gate> gate;
    std::set<service::QueryId> seen;
    service::WaitingQueries queries{1000};
    std::unique_ptr<service::LaneSession> session;
    std::mutex mutex;
    std::condition_variable changed;
    service::Models models;
    std::vector<crypto::Digest> common;
    std::size_t agreements = 0;
    bool ended = false;
    std::vector<std::size_t> sizes;  // of its batches
    std::thread thread;
    std::string error;
  };
  // Whether it comes to be within kPatience.
  template <class Done>
  static bool Await(Server& server, Done done) {
    std::unique_lock lock(server.mutex);
    return server.changed.wait_for(lock, kPatience, done);
  }
  const service::SmallDeployment& world_;
  const mpc::Roles roles_;
  std::array<Server, 3> servers_;
  std::vector<std::size_t> common_;
  std::vector<service::ModelInfo> infos_;  // of server 2
};

class Lanes : public testing::TestWithParam<std::size_t> {
 protected:
  void AskAndCheck(Lane& lane, std::size_t images) const {
    const Query query = lane.Ask(lane.infos_[0], images_, 0, images);
    EXPECT_EQ(lane.Open(query, lane.Send(query.Request(), lane.infos_[0]).Get()),
              Plain(0, 0, images));
  }
  std::vector<std::int64_t> Plain(std::size_t model, std::size_t first, std::size_t count) const {
    return nn::RunPlain(models_[model], compile::Oracle(), images_, first, count);
  }
  service::SmallDeployment world_;
  std::vector<nn::IntegerNetwork> models_{service::SmallModel(7), service::SmallModel(8)};
  std::vector<Bytes> packages_{service::SmallPackage(models_[0], world_.deployment, "a"),
                               service::SmallPackage(models_[1], world_.deployment, "b", "aby3")};
  files::Images images_ = compile::RandomImages({1, 4, 4}, 60, 4);
};

TEST_P(Lanes, AnswersEqualThePlainIntegers) {
  Lane lane(world_, packages_, GetParam(), {2, 2, 2});
  EXPECT_THAT(lane.common_, testing::Each(2U));
  // Many at once, of both models and several sizes, so that they come in batches.
  struct Asked {
    Query query;
    Pending outcome;
    std::size_t model, first, count;
  };
  std::vector<Asked> asked;
  for (std::size_t i = 0; i < 24; ++i) {
    const std::size_t model = i % 2, first = 2 * i, count = 1 + i % 3;
    Query query = lane.Ask(lane.infos_[model], images_, first, count);
    auto outcome = lane.Send(query.Request(), lane.infos_[model]);
    asked.push_back({std::move(query), std::move(outcome), model, first, count});
  }
  for (auto& one : asked)
    EXPECT_EQ(lane.Open(one.query, one.outcome.Get()), Plain(one.model, one.first, one.count));
  // And one after the other.
  for (std::size_t i = 0; i < 5; ++i) {
    const Query query = lane.Ask(lane.infos_[0], images_, i, 1);
    EXPECT_EQ(lane.Open(query, lane.Send(query.Request(), lane.infos_[0]).Get()), Plain(0, i, 1));
  }
  lane.End();
  // Who is still running when the first stops hears it from that one.
  for (const auto& server : lane.servers_)
    EXPECT_THAT(server.error, testing::AnyOf("", testing::HasSubstr("stopped: test ends")));
}
INSTANTIATE_TEST_SUITE_P(Helpers, Lanes, testing::Values(0, 1, 2));

using OneLane = Lanes;
INSTANTIATE_TEST_SUITE_P(Helper, OneLane, testing::Values(0));

TEST_P(OneLane, ServesWhatAllThreeHave) {
  Lane lane(world_, packages_, GetParam(), {2, 1, 2});
  EXPECT_THAT(lane.common_, testing::Each(1U));
  const Query query = lane.Ask(lane.infos_[1], images_, 0, 1);
  EXPECT_EQ(lane.Send(query.Request(), lane.infos_[1]).Get().kind, Outcome::Kind::kUnavailable);
}

TEST_P(Lanes, ModelsComeAndGoWhileOthersAreAsked) {
  Lane lane(world_, packages_, GetParam(), {1, 1, 2});  // server 2 has both, and infos_ too
  const auto& a = lane.infos_[0];
  const auto& b = lane.infos_[1];
  const auto ask = [&](const service::ModelInfo& info, std::size_t model, std::size_t first) {
    const Query query = lane.Ask(info, images_, first, 1);
    EXPECT_EQ(lane.Open(query, lane.Send(query.Request(), info).Get()), Plain(model, first, 1));
  };
  const auto gone = [&](const service::ModelInfo& info) {
    const Query query = lane.Ask(info, images_, 0, 1);
    EXPECT_EQ(lane.Send(query.Request(), info).Get().kind, Outcome::Kind::kUnavailable);
  };
  ask(a, 0, 0);
  gone(b);
  lane.Change({0}, packages_[1], true);
  ask(a, 0, 1);
  lane.Change({1}, packages_[1], true);
  lane.AwaitModels(2);
  for (std::size_t i = 0; i < 4; ++i) {
    ask(a, 0, i);
    ask(b, 1, i);
  }
  // Gone at one server: nobody is asked about it any more, whatever material waits for it.
  lane.Change({lane.roles_.helper}, packages_[0], false);
  lane.AwaitModels(1);
  gone(a);
  ask(b, 1, 4);
  // Back again, as a new one.
  lane.Change({lane.roles_.helper}, packages_[0], true);
  lane.AwaitModels(2);
  ask(a, 0, 5);
  ask(b, 1, 6);
  for (const auto& server : lane.servers_) EXPECT_EQ(server.error, "");
}

TEST_P(Lanes, ABatchUsesALargerSizeThatIsInStock) {
  Lane lane(world_, packages_, GetParam(), {1, 1, 1});
  AskAndCheck(lane, 7);
  lane.AwaitMaterial(4);  // two of one image, two of eight
  AskAndCheck(lane, 3);
  lane.AwaitMaterial(6);
  AskAndCheck(lane, 3);
  AskAndCheck(lane, 1);
  lane.End();
  EXPECT_EQ(lane.E1().sizes, (std::vector<std::size_t>{8, 8, 4, 1}));
}

// After the first order of material, has that of another size dropped, which nobody has ordered.
class DropsWhatIsNotThere final : public net::LinkWrapper {
 public:
  using net::LinkWrapper::LinkWrapper;
  void Send(net::Message message) override {
    const bool order = !lied_ && message.phase == net::Phase::kSetup && message.payload.size() == 8;
    auto drop = message;
    net::LinkWrapper::Send(std::move(message));
    if (!order) return;
    lied_ = true;
    drop.tag = 0xfffe'2007;
    drop.payload[4] = 4;
    net::LinkWrapper::Send(std::move(drop));
  }

 private:
  bool lied_ = false;
};

TEST_P(OneLane, NobodyWaitsForMaterialThatIsNotOrdered) {
  const auto roles = service::RolesOf(GetParam());
  Lane lane(world_, packages_, GetParam(), {1, 1, 1}, [&](int id, net::Links& links) {
    if (id != roles.Evaluator1()) return;
    auto& link = links[static_cast<std::size_t>(roles.Evaluator2())];
    link = std::make_unique<DropsWhatIsNotThere>(std::move(link));
  });
  auto& e2 = lane.servers_[static_cast<std::size_t>(roles.Evaluator2())];
  lane.AwaitEnd({roles.Evaluator2()});
  EXPECT_THAT(e2.error, testing::HasSubstr("batches of 4 is to be used or dropped, and none is "));
  lane.End();
}

TEST_P(OneLane, WhatHasMaterialGoesFirst) {
  for (const std::size_t count : {2, 4}) {
    Lane lane(
        world_, packages_, GetParam(), {1, 1, 1}, [](int, net::Links&) {},
        [count](service::LaneSettings& settings) {
          settings.max_batch = count;
          settings.max_wait = std::chrono::hours(1);
        });
    lane.AwaitMaterial(2);  // of one image
    std::vector<Query> queries;
    std::vector<Pending> outcomes;
    for (std::size_t i = 0; i < count; ++i) {
      queries.push_back(lane.Ask(lane.infos_[0], images_, i, 1));
      outcomes.push_back(lane.Send(queries[i].Request(), lane.infos_[0]));
    }
    EXPECT_EQ(lane.Open(queries[0], outcomes[0].Get()), Plain(0, 0, 1));
    lane.E1().queries.Close();
    for (std::size_t i = 1; i < count; ++i)
      EXPECT_EQ(lane.Open(queries[i], outcomes[i].Get()), Plain(0, i, 1));
    lane.End();
    EXPECT_EQ(lane.E1().sizes.front(), 1U);
    if (count == 2) {
      EXPECT_EQ(lane.E1().sizes, (std::vector<std::size_t>{1, 1}));
    }
  }
}

TEST_P(Lanes, MaterialStaysWithinItsStock) {
  const auto most = [&](std::uint64_t stock) {
    Lane lane(
        world_, packages_, GetParam(), {1, 1, 1}, [](int, net::Links&) {},
        [&](service::LaneSettings& settings) { settings.stock = stock; });
    std::uint64_t found = 0;
    for (std::size_t i = 0; i < 24; ++i) {
      AskAndCheck(lane, 1 + i % 8);
      for (const auto& server : lane.servers_)
        found = std::max<std::uint64_t>(found, server.session->Material().bytes);
    }
    for (const auto& server : lane.servers_) EXPECT_EQ(server.error, "");
    return found;
  };
  const std::uint64_t all = most(std::uint64_t{1} << 30);
  EXPECT_LE(most(all / 2), all * 3 / 4);  // beside the batch for which it is made
  EXPECT_LE(most(0), all / 2);
}

TEST_P(OneLane, AnE1ThatOrdersTooMuchMaterialIsLeft) {
  Lane lane(
      world_, packages_, GetParam(), {1, 1, 1}, [](int, net::Links&) {},
      [](service::LaneSettings& settings) {
        const bool e1 = settings.id == service::RolesOf(settings.lane).Evaluator1();
        settings.stock = std::uint64_t{1} << (e1 ? 30 : 10);
      });
  lane.AwaitEnd();
  EXPECT_THAT(lane.E1().error, testing::HasSubstr("is ordered and not used"));
}

// E2's part is its own business: E1 cannot know whether it is right, and neither changes it.
TEST_P(OneLane, E2RefusesWhatIsNotForItAndTheOthersOfTheBatchGoOn) {
  Lane lane(world_, packages_, GetParam(), {1, 1, 1});
  const auto& model = lane.infos_[0];
  const Query good = lane.Ask(model, images_, 0, 2), bad = lane.Ask(model, images_, 2, 1),
              swapped = lane.Ask(model, images_, 3, 1), again = lane.Ask(model, images_, 4, 1);
  auto request = bad.Request();
  request.e2 = request.e1;  // sealed to the wrong server
  auto bad_outcome = lane.Send(request, model);
  auto good_outcome = lane.Send(good.Request(), model);
  request = swapped.Request();
  request.e2 = good.Request().e2;  // another client's part
  auto swapped_outcome = lane.Send(request, model);
  const auto refused = bad_outcome.Get();
  EXPECT_EQ(refused.kind, Outcome::Kind::kRefused);
  EXPECT_EQ(refused.refusal, Refusal::kSeal);
  EXPECT_TRUE(refused.e1.empty());
  EXPECT_EQ(swapped_outcome.Get().refusal, Refusal::kSeal);
  EXPECT_EQ(lane.Open(good, good_outcome.Get()), Plain(0, 0, 2));
  // A number twice: at E1, and where E1 has forgotten it at E2.
  EXPECT_EQ(lane.Open(again, lane.Send(again.Request(), model).Get()), Plain(0, 4, 1));
  EXPECT_EQ(lane.Send(again.Request(), model).Get().refusal, Refusal::kReplay);
  lane.servers_[static_cast<std::size_t>(lane.roles_.Evaluator1())].seen.clear();
  EXPECT_EQ(lane.Send(again.Request(), model).Get().refusal, Refusal::kReplay);
}

// What a server receives while two images are asked about in turn, by peer and bit: how often it is
// set for the one and for the other image.
class Views {
 public:
  static constexpr int kQueries = 150;  // of each image

  void Add(std::size_t image, const std::vector<net::Recorded>& messages) {
    std::map<int, std::size_t> bits;
    for (const auto& [sent, peer, message] : messages) {
      if (sent || message.phase != net::Phase::kOnline) continue;
      for (const std::uint8_t byte : message.payload)
        for (int bit = 0; bit < 8; ++bit) ones_[{peer, bits[peer]++}][image] += byte >> bit & 1;
    }
  }
  // Of two counts of fair coins, off by more than 6 standard deviations once in 5 * 10^8.
  int BitsThatDiffer() const {
    return static_cast<int>(std::count_if(ones_.begin(), ones_.end(), [](const auto& bit) {
      return std::abs(bit.second[0] - bit.second[1]) > 6 * std::sqrt(kQueries / 2.0);
    }));
  }
  std::size_t Bits() const { return ones_.size(); }

 private:
  std::map<std::pair<int, std::size_t>, std::array<int, 2>> ones_;
};

// A server that sends others what it should not gets to see the same, whatever is asked: no bit of
// what it receives is set more often for one image than for another. That this would show is shown
// by an honest server that forgets one mask: it sends a byte of the image as it is.
TEST_P(OneLane, AServerThatDeviatesSeesNothingOfAnImage) {
  const auto roles = service::RolesOf(GetParam());
  ASSERT_NE(images_.pixels[0], images_.pixels[images_.shape.Size()]);
  for (const int deviates : {roles.Evaluator1(), roles.Evaluator2()}) {
    for (const bool leak : {false, true}) {
      const auto view = std::make_shared<net::Recorder>();
      const auto spoil = [](net::Message& message) {
        if (message.phase == net::Phase::kOnline)
          for (auto& byte : message.payload) byte ^= 0x5a;
        return true;
      };
      std::atomic<std::size_t> image = 0;
      const auto forget = [&](net::Message& message) {
        if (message.phase == net::Phase::kOnline && !message.payload.empty())
          message.payload[0] = images_.pixels[image * images_.shape.Size()];
        return true;
      };
      Lane lane(world_, packages_, GetParam(), {1, 1, 1}, [&](int id, net::Links& links) {
        for (auto& link : links) {
          if (!link) continue;
          if (id == deviates)
            link = net::MakeRecordingLink(net::MakeFaultyLink(std::move(link), spoil), view);
          else if (leak && id != roles.helper && link->Peer() == deviates)
            link = net::MakeFaultyLink(std::move(link), forget);
        }
      });
      Views views;
      int wrong = 0;
      for (int i = 0; i < 2 * Views::kQueries; ++i) {
        image = static_cast<std::size_t>(i % 2);
        const Query query = lane.Ask(lane.infos_[0], images_, image, 1);
        view->Take();
        const auto logits = lane.Open(query, lane.Send(query.Request(), lane.infos_[0]).Get());
        wrong += logits != Plain(0, image, 1);
        views.Add(image, view->Take());
      }
      EXPECT_GT(wrong, Views::kQueries);  // it has deviated
      EXPECT_GT(views.Bits(), 100U);
      EXPECT_EQ(views.BitsThatDiffer() > 0, leak);
    }
  }
}

TEST_P(OneLane, WhoWaitsIsToldWhenAServerGoes) {
  Lane lane(world_, packages_, GetParam(), {1, 1, 1});
  lane.servers_[static_cast<std::size_t>(lane.roles_.helper)].session->Stop("gone");
  lane.AwaitEnd();
  EXPECT_THAT(lane.E1().error, testing::HasSubstr("gone"));
  const Query query = lane.Ask(lane.infos_[0], images_, 0, 1);
  EXPECT_EQ(lane.Send(query.Request(), lane.infos_[0]).Get().kind, Outcome::Kind::kUnavailable);
}

TEST(Waiting, BatchesAreOfOneModelAndAtMostSoManyImages) {
  service::WaitingQueries queries(10);
  std::vector<Outcome::Kind> told;
  const auto put = [&](std::uint8_t model, std::uint32_t images) {
    service::QueryHead head;
    head.model[0] = model;
    head.images = images;
    return queries.Put(
        {head, {}, {}, [&](const Outcome& outcome) { told.push_back(outcome.kind); }});
  };
  using std::chrono::microseconds, std::chrono::milliseconds;
  EXPECT_TRUE(queries.Take(4, microseconds(0), milliseconds(1)).empty());
  EXPECT_TRUE(put(1, 3));
  EXPECT_TRUE(put(2, 1));
  EXPECT_TRUE(put(1, 2));
  EXPECT_TRUE(put(1, 1));
  EXPECT_FALSE(put(1, 4));  // 7 wait, and 10 may
  auto batch = queries.Take(4, microseconds(0), milliseconds(1));
  ASSERT_EQ(batch.size(), 2U);
  EXPECT_EQ(batch[0].head.images + batch[1].head.images, 4U);
  batch = queries.Take(4, microseconds(0), milliseconds(1));
  ASSERT_EQ(batch.size(), 1U);
  EXPECT_EQ(batch[0].head.model[0], 2);
  queries.Close();
  EXPECT_FALSE(put(1, 1));
  queries.FailAll();
  EXPECT_EQ(told, (std::vector{Outcome::Kind::kUnavailable}));
}

TEST(Waiting, BatchesOfSeveralSessionsBeginApart) {
  service::WaitingQueries queries(10, 2);
  const auto put = [&] {
    service::QueryHead head;
    head.images = 1;
    ASSERT_TRUE(queries.Put({head, {}, {}, [](const Outcome&) {}}));
  };
  const auto take = [&] {
    return queries.Take(3, std::chrono::microseconds(0), std::chrono::seconds(60)).size();
  };
  put();
  EXPECT_EQ(take(), 1U);
  queries.Ended(36'000);
  put();
  EXPECT_EQ(take(), 1U);  // nobody is busy
  put();
  auto next = std::async(std::launch::async, take);
  EXPECT_EQ(next.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  put();
  put();
  EXPECT_EQ(next.wait_for(kPatience), std::future_status::ready);
  queries.Close();  // ends it in any case
  EXPECT_EQ(next.get(), 3U);
}

TEST(Waiting, ABatchIsThePartThatIsSaidAndOneQueryAtLeast) {
  service::WaitingQueries queries(10);
  for (int i = 0; i < 3; ++i) {
    service::QueryHead head;
    head.images = 2;
    ASSERT_TRUE(queries.Put({head, {}, {}, [](const Outcome&) {}}));
  }
  std::vector<std::size_t> waiting;
  const auto take = [&](std::size_t part) {
    return queries
        .Take(5, std::chrono::microseconds(0), std::chrono::seconds(60),
              [&](const crypto::Digest&, std::size_t images) {
                waiting.push_back(images);
                return part;
              })
        .size();
  };
  EXPECT_EQ(take(5), 2U);
  EXPECT_EQ(take(1), 1U);
  EXPECT_EQ(waiting, (std::vector<std::size_t>{5, 2}));
}

}  // namespace
}  // namespace tercet::client
