// SPDX-License-Identifier: Apache-2.0
// What one party says in the setup against what the others were given: a peer that lies, and model
// files that say more than they may.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>

#include "integration/testbed.h"
#include "programs/auto_suite.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "tercet/base/error.h"
#include "tercet/compile/announcement.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/infer/material.h"
#include "tercet/infer/session.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/net/memory_link.h"
#include "tercet/net/wrappers.h"

namespace tercet::integration {
namespace {

using infer::SessionSettings;
using net::Phase;
using nlohmann::json;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

constexpr std::uint32_t kNetworkTag = 0xfffe'0000, kImagesTag = 0xfffe'0001, kPlanTag = 0xfffe'0002,
                        kSessionTag = 0xfffe'0003, kNextQueryTag = 0xfffe'0004,
                        kFirstQueryTag = 0xfffe'0005, kModelTagTag = 0xfffe'0006,
                        kDoneTag = 0xfffe'0008;

net::Message SetupMessage(std::uint32_t tag, const std::string& text) {
  return {Phase::kSetup, tag, 1, Bytes(text.begin(), text.end())};
}

std::string TextOf(const net::Message& message) {
  return {message.payload.begin(), message.payload.end()};
}

// Two honest parties in threads and a third that says what it likes, connected by memory. The
// helper is party 0; a model's owner who lies is party 2, an images' owner party 1.
class Liar : public testing::Test {
 protected:
  // What each honest party ended with; nothing where it is not one.
  using Ends = std::array<std::optional<programs::Failure>, 3>;

  // `lie` is the whole part of party `liar`, whose links it gets; it ends when it throws, too. Only
  // the owner of the images may send them: `lie` can expect that nothing of theirs arrives.
  Ends Run(int liar, const std::function<void(net::Links&)>& lie) {
    auto links = net::MakeMemoryLinks(std::chrono::seconds(20));
    Ends ends;
    const auto honest = [&](int id) {
      const auto p = static_cast<std::size_t>(id);
      try {
        infer::Session(SettingsOf(id), registry_).Run([&] { return std::move(links[p]); });
        ends[p] = programs::Failure{programs::FailureKind::kOwn, "it ran"};
      } catch (const std::exception& e) {
        ends[p] = programs::Classify(e);
      }
    };
    {
      std::array<std::jthread, 2> threads;
      for (int i = 1; i < 3; ++i)
        threads[static_cast<std::size_t>(i - 1)] = std::jthread(honest, (liar + i) % 3);
      auto& own = links[static_cast<std::size_t>(liar)];
      try {
        lie(own);
      } catch (const Error&) {
        // The others have hung up.
      }
      for (auto& link : own)
        if (link) link->Close();
    }
    return ends;
  }

  // A model's owner who announces `text`; both others refuse, and say `reason`, before any image is
  // shared.
  void ExpectModelRefused(const std::string& text, const std::string& reason) {
    const auto ends = Run(2, [&](net::Links& links) {
      links[1]->Receive(Phase::kSetup);  // how many images there are
      for (const std::size_t p : {0U, 1U}) links[p]->Send(SetupMessage(kNetworkTag, text));
      const auto answer = links[1]->Receive(Phase::kSetup);
      ADD_FAILURE() << "the images' owner went on with tag " << answer.tag;
    });
    ExpectBlamed(ends, {0, 1}, 2, reason);
  }

  // Waits for the next message of a peer that may leave instead of sending it.
  static void HearOrLeft(net::Link& link) {
    try {
      link.Receive(Phase::kSetup);
    } catch (const Error&) {
      // It has left.
    }
  }

  // Tells a peer, unless it has left, that the plan it sends is the liar's too.
  static void EchoPlan(net::Link& link) {
    try {
      const auto plan = link.Receive(Phase::kSetup);
      EXPECT_EQ(plan.tag, kPlanTag);
      link.Send(SetupMessage(kPlanTag, TextOf(plan)));
    } catch (const Error&) {
      // It has left.
    }
  }

  // Exit status 1, and the peer's name, at each of `parties` but those that another one told.
  static void ExpectBlamed(const Ends& ends, const std::vector<int>& parties, int peer,
                           const std::string& reason) {
    bool said = false;
    for (const int p : parties) {
      const auto& end = ends[static_cast<std::size_t>(p)];
      ASSERT_TRUE(end) << p;
      EXPECT_EQ(programs::ExitCode(end->kind), programs::kExitFailed) << end->text;
      if (programs::MayBeConsequence(end->kind)) continue;
      said = true;
      EXPECT_THAT(end->text, AllOf(HasSubstr(fmt::format("party {}", peer)), HasSubstr(reason)));
    }
    EXPECT_TRUE(said);
  }

  SessionSettings SettingsOf(int id) const {
    SessionSettings settings;
    settings.id = id;
    settings.spec = spec_;
    settings.suite = suite_;
    settings.roles = roles_;
    settings.batch = 2;
    settings.shard = shard_;
    if (shard_ && done_)
      settings.shard->is_done = [this, id](const auto&) {
        return done_->at(static_cast<std::size_t>(id));
      };
    if (id == roles_.model_owner) settings.model = &model_;
    if (queries_ > 0) {
      settings.schedule = infer::MakeMaterial{material_ / std::to_string(id), queries_};
    } else if (id == roles_.data_owner) {
      settings.images = &images_;
    }
    return settings;
  }

  // Plays a party that is honest but for what `lie` does to its messages, which are numbered;
  // returns how many there were.
  std::size_t RunBut(net::Links& links, int id,
                     const std::function<void(std::size_t, net::Message&)>& lie) const {
    std::atomic<std::size_t> sent{0};
    for (auto& link : links)
      if (link)
        link = net::MakeFaultyLink(std::move(link), [&](net::Message& message) {
          lie(sent++, message);
          return true;
        });
    infer::Session(SettingsOf(id), registry_).Run([&] { return std::move(links); });
    return sent;
  }

  compile::Announcement Honest() const {
    return compile::AnnouncementOf(model_.net, spec_, suite_);
  }

  const mpc::Registry registry_ = BuiltinProtocols();
  const nn::NetworkSpec spec_ = nn::LoadNetwork(TERCET_SOURCE_DIR "/nets/mnistnet1.json");
  const nn::IntegerNetwork model_ =
      compile::LoadCompiled(TERCET_SOURCE_DIR "/nets/mnistnet1.compiled.safetensors", spec_);
  const files::Images images_ = programs::RandomImages(spec_.input.shape, 2);
  mpc::SuiteChoice suite_ = mpc::ParseSuiteChoice("lut", "test");
  std::optional<infer::ShardOfJob> shard_;
  std::optional<std::array<bool, 3>> done_;  // where they resume
  std::size_t queries_ = 0;  // where not 0, material for them is made, in this directory
  std::filesystem::path material_;
  mpc::Roles roles_{.helper = 0, .data_owner = 1, .model_owner = 2, .receiver = 2};
};

// An identity in place of the network: its "logits" would be the pixels.
TEST_F(Liar, CannotMakeAnotherNetworkOfItsOwn) {
  json identity = {{"name", spec_.name},
                   {"spec_digest", spec_.Digest()},
                   {"logit_scale", 1.0},
                   {"input",
                    {{"shape", {1, 28, 28}},
                     {"scale", spec_.input.scale},
                     {"mean", spec_.input.mean},
                     {"std", spec_.input.std},
                     {"bits", spec_.input.bits}}},
                   {"layers",
                    {{{"name", "fc1"},
                      {"type", "linear"},
                      {"linear",
                       {{"in", {784, 1, 1}},
                        {"out_channels", 784},
                        {"kernel", {1, 1}},
                        {"stride", 1},
                        {"padding", 0},
                        {"groups", 1},
                        {"bias_per_element", false}}},
                      {"activation", "none"},
                      {"pool", nullptr},
                      {"value_bits", 12},
                      {"suite", ""}}}}};
  ExpectModelRefused(identity.dump(), "/layers/0: unknown key 'activation'");
  // Sizes that no memory holds.
  identity["layers"][0]["linear"]["out_channels"] = 2'147'483'647;
  ExpectModelRefused(identity.dump(), "/layers/0: unknown key 'activation'");
  // The same in what may be announced: one layer as wide as pixels need.
  compile::Announcement one = Honest();
  one.layers.resize(1);
  one.layers[0].value_bits = 12;
  ExpectModelRefused(compile::AnnouncementToJson(one),
                     "/layers: found 1 elements, expected 3, one for each layer of network "
                     "\"MnistNet1\"");
}

TEST_F(Liar, CannotAnnounceWhatDoesNotFit) {
  const auto refused = [&](const std::function<void(compile::Announcement&)>& change,
                           const std::string& reason) {
    compile::Announcement announcement = Honest();
    change(announcement);
    ExpectModelRefused(compile::AnnouncementToJson(announcement), reason);
  };
  refused([](auto& a) { a.spec_digest[0] = a.spec_digest[0] == '0' ? '1' : '0'; },
          "compiled for another architecture");
  // As many bits of the images as 32-bit logits hold.
  refused([](auto& a) { a.layers.back().value_bits = 32; }, "/layers/2/value_bits: found 32");
  refused([](auto& a) { a.layers[0].shift = 1; }, "/layers/0/shift");
  ExpectModelRefused("", "no valid JSON");
  ExpectModelRefused("{", "no valid JSON");
  ExpectModelRefused(std::string(1'000, '['), "model");
  ExpectModelRefused(std::string(100'000, '['), "model");
}

// What a party takes is bounded by what its own network needs.
TEST_F(Liar, CannotSendMoreThanTheNetworkTakes) {
  const auto most = compile::MostAnnouncementBytes(spec_);
  const auto text = compile::AnnouncementToJson(Honest());
  ExpectModelRefused(text + std::string(most + 1 - text.size(), ' '),
                     fmt::format("sent {} bytes where the model's widths of at most {} bytes was "
                                 "expected",
                                 most + 1, most));
  const auto ends = Run(0, [&](net::Links& links) {
    links[1]->Receive(Phase::kSetup);  // how many images there are
    links[2]->Receive(Phase::kSetup);  // the announcement
    for (const std::size_t p : {1U, 2U})
      links[p]->Send(SetupMessage(kPlanTag, std::string(1U << 20, 'a')));
    for (const std::size_t p : {1U, 2U}) HearOrLeft(*links[p]);
  });
  ExpectBlamed(ends, {1, 2}, 0, "with 1048576 bytes where its plan's digest of at most");
}

// A party that counts a chain of messages shorter or longer than it is: whoever hears it first
// says so, whichever message it is.
TEST_F(Liar, CannotCountHopsOtherwise) {
  for (const char* suite : {"lut", "aby3"}) {
    suite_ = mpc::ParseSuiteChoice(suite, "test");
    for (const int liar : {0, 1, 2}) {
      const auto play = [&](std::size_t when, std::uint32_t more) {
        std::size_t count = 0;
        const auto ends = Run(liar, [&](net::Links& links) {
          std::size_t number = 0;  // of messages of a phase that has a plan
          RunBut(links, liar, [&](std::size_t, net::Message& message) {
            if (message.phase == Phase::kSetup) return;
            if (number++ == when) message.depth += more;
            count = number;
          });
        });
        if (when < count) {
          ExpectBlamed(ends, {(liar + 1) % 3, (liar + 2) % 3}, liar, "that ends a chain of");
        } else {
          for (const int i : {1, 2})
            EXPECT_EQ(ends[static_cast<std::size_t>((liar + i) % 3)]->text, "it ran");
        }
        return count;
      };
      const auto count = play(1000, 0);
      ASSERT_GT(count, 2U);
      for (std::size_t when = 0; when < count; ++when)
        for (const std::uint32_t more : {-1U, 1U}) play(when, more);
    }
  }
}

TEST_F(Liar, CannotChooseSuitesUnasked) {
  const auto refused = [&](const std::string& suite, const std::string& reason) {
    compile::Announcement announcement = Honest();
    for (auto& layer : announcement.layers) layer.suite = layer.shift == 0 ? suite : "";
    announcement.layers.back().suite = "";
    ExpectModelRefused(compile::AnnouncementToJson(announcement), reason);
  };
  refused("cbnn", "/layers/0/suite: found cbnn for layer fc1, expected none");
  refused("fss", "--suite says lut");
  suite_ = mpc::ParseSuiteChoice("auto", "test");
  refused("cbnn", "found cbnn, which is NOT private");
  refused("fss:form=wrong", "party 2 announced a model that this party refuses");
  refused("lutt", "found lutt, expected one of");
  refused("", "found none, expected one");
}

// With every party's own word a suite that is not private is used, as before.
TEST_F(Liar, IsNoneWhoUsesTheSuiteThatAllName) {
  suite_ = mpc::ParseSuiteChoice("cbnn", "test");
  const auto ends = Run(2, [&](net::Links& links) {
    const auto report =
        infer::Session(SettingsOf(2), registry_).Run([&] { return std::move(links); });
    EXPECT_EQ(report.logits.size(), 20U);
  });
  EXPECT_EQ(ends[0]->text, "it ran");
  EXPECT_EQ(ends[1]->text, "it ran");
}

TEST_F(Liar, CannotTellTheOthersDifferentThings) {
  const auto ends = Run(2, [&](net::Links& links) {
    links[1]->Receive(Phase::kSetup);  // how many images there are
    compile::Announcement announcement = Honest();
    links[0]->Send(SetupMessage(kNetworkTag, compile::AnnouncementToJson(announcement)));
    ++announcement.layers[0].value_bits;
    links[1]->Send(SetupMessage(kNetworkTag, compile::AnnouncementToJson(announcement)));
    for (const std::size_t p : {0U, 1U}) EchoPlan(*links[p]);
    HearOrLeft(*links[1]);
  });
  // They cannot know which of the others it was, but that it may be the liar.
  for (const std::size_t p : {0U, 1U}) {
    EXPECT_EQ(programs::ExitCode(ends[p]->kind), programs::kExitFailed);
    EXPECT_THAT(ends[p]->text,
                HasSubstr("says that party 2 announced to it widths of the model other than"));
  }
}

TEST_F(Liar, CannotTellTheOthersDifferentNumbersOfImages) {
  const auto ends = Run(1, [&](net::Links& links) {
    links[0]->Send(SetupMessage(kImagesTag, "3"));
    links[2]->Send(SetupMessage(kImagesTag, "4"));
    links[2]->Receive(Phase::kSetup);  // the announcement
    for (const std::size_t p : {0U, 2U}) EchoPlan(*links[p]);
    HearOrLeft(*links[0]);
  });
  const auto named = HasSubstr("says that party 1 announced to it a number of images other than");
  EXPECT_THAT(ends[2]->text, named);
  // Party 0 hears party 1 first, which cannot go on when party 2 has ended.
  EXPECT_THAT(ends[0]->text, AnyOf(named, HasSubstr("party 1 closed the link")));
}

// Whoever announced it knows that the other does not use it.
TEST_F(Liar, CannotUseOtherWidthsThanItWasTold) {
  const auto ends = Run(0, [&](net::Links& links) {
    const auto images = TextOf(links[1]->Receive(Phase::kSetup));
    const auto plan = links[2]->Receive(Phase::kSetup);  // the announcement
    for (const std::size_t p : {1U, 2U})
      links[p]->Send(SetupMessage(kPlanTag, images + "\n" + TextOf(plan) + "\n\n"));
    // One may have refused, and left, before the other has sent its plan.
    for (const std::size_t p : {1U, 2U}) HearOrLeft(*links[p]);
  });
  for (const std::size_t p : {1U, 2U})
    EXPECT_THAT(ends[p]->text,
                AnyOf(HasSubstr("party 0 says that party 2 announced to it widths"),
                      HasSubstr("party 0 says that it was told widths of the model other than")));
}

// Files of two numbers would never fit together.
TEST_F(Liar, CannotNumberASessionTwice) {
  queries_ = 1;
  const World world;
  material_ = world.Path();
  const auto ends = Run(2, [&](net::Links& links) {
    for (const std::size_t p : {0U, 1U}) {
      links[p]->Send(SetupMessage(kNetworkTag, compile::AnnouncementToJson(Honest())));
      links[p]->Send(SetupMessage(kSessionTag, std::string(32, p == 0 ? 'a' : 'b')));
    }
    for (const std::size_t p : {0U, 1U}) EchoPlan(*links[p]);
    HearOrLeft(*links[1]);
  });
  for (const std::size_t p : {0U, 1U})
    EXPECT_THAT(ends[p]->text, HasSubstr("announced to it a session's number other than"));
  EXPECT_FALSE(std::filesystem::exists(material_ / "1"));
}

TEST_F(Liar, CannotAnnounceAWrongNumberOfImages) {
  for (const char* count : {"", "0", "-1", "1000000001", "99999999999999999", "2 ", "0x2"}) {
    const auto ends = Run(1, [&](net::Links& links) {
      for (const std::size_t p : {0U, 2U}) links[p]->Send(SetupMessage(kImagesTag, count));
      links[0]->Receive(Phase::kSetup);
    });
    ExpectBlamed(ends, {0, 2}, 1, "");
  }
}

// The second of two shards of three images; the owners' tags are the same here.
class ShardLiar : public Liar {
 protected:
  ShardLiar() {
    const std::string tag(64, 'a');
    shard_ = infer::ShardOfJob{{0, 2}, 3, tag, tag, {}};
  }
  // A model's owner that is honest but for message `number` of tag `tag` to either peer.
  Ends LieAt(std::uint32_t tag, std::size_t number, const std::string& text) {
    std::size_t seen = 0;
    return Run(2, [&](net::Links& links) {
      RunBut(links, 2, [&](std::size_t, net::Message& message) {
        if (message.phase == Phase::kSetup && message.tag == tag && seen++ == number)
          message = SetupMessage(tag, text);
      });
    });
  }
};

TEST_F(ShardLiar, CannotTellATagThatIsNone) {
  for (const auto& text : {std::string("0x"), std::string(64, 'G'), std::string(65, 'a')})
    ExpectBlamed(LieAt(kModelTagTag, 0, text), {0}, 2, "a tag of the model");
}

TEST_F(ShardLiar, CannotTellTwoTags) {
  const auto ends = LieAt(kModelTagTag, 1, std::string(64, 'b'));
  for (const int p : {0, 1}) {
    ASSERT_TRUE(ends[static_cast<std::size_t>(p)]);
    EXPECT_NE(ends[static_cast<std::size_t>(p)]->text, "it ran");
  }
}

TEST_F(ShardLiar, SaysYesOrNo) {
  done_ = {true, true, true};
  ExpectBlamed(LieAt(kDoneTag, 0, "yess"), {0}, 2, "whether it has its results already");
}

TEST_F(ShardLiar, NothingRunsWhereAllAreDoneAndAllWhereOneIsNot) {
  for (const bool last : {true, false}) {
    done_ = {true, true, last};
    const auto ends = Run(2, [&](net::Links& links) {
      const auto report =
          infer::Session(SettingsOf(2), registry_).Run([&] { return std::move(links); });
      EXPECT_STREQ(report.presence.c_str(), last ? infer::kWasDone : infer::kStayed);
    });
    for (const int p : {0, 1}) EXPECT_EQ(ends[static_cast<std::size_t>(p)]->text, "it ran");
  }
}

// Every item that parties compare when they greet each other, and what it tells a peer.
TEST(Agreement, EveryItemIsListedWithWhatItTells) {
  const std::map<std::string, std::string> tells{
      {"protocol version", "the version of the program"},
      {"network digest", "whether both have the same JSON"},
      {"suite", "this party's --suite"},
      {"linear layers", "an option"},
      {"batches in flight", "an option"},
      {"roles", "the testbed's roles"},
      {"rotation of the helper", "an option"},
      {"batch", "an option"},
      {"shard", "an option"},
      {"resume", "an option"},
      {"link", "an option"},
      {"material", "whether material is made or used, and which random session made it"}};
  SessionSettings settings;
  settings.spec = nn::LoadNetwork(TERCET_SOURCE_DIR "/nets/mnistnet1.json");
  for (const auto& [name, value] : infer::Agreement(settings))
    EXPECT_TRUE(tells.contains(name)) << name << " is told to peers; say what it tells";
}

// Peers that use material of their own.
class MaterialLiar : public Testbed {
 protected:
  void Make() const {
    const auto made =
        world_
            .Tercet({"run", world_.File("conv.json"), "--model", world_.File("conv.safetensors"),
                     "--transport", "memory", "--batch", "2", "--material-out",
                     world_.File("material"), "--queries", "2"})
            .Wait();
    ASSERT_EQ(made.status, 0) << made.err;
  }
  std::string File(int id) const {
    return world_.File(fmt::format("material/party{}.material", id));
  }
  // What party `id`, 1 or 2, ends with when the other one does `lie`. Party 1 owns the images.
  programs::Failure RunAgainst(int id, const std::function<void(net::Link&)>& lie) const {
    const auto registry = BuiltinProtocols();
    infer::MaterialFile material(File(id));
    const auto images = programs::RandomImages({1, 8, 8}, 2);
    SessionSettings settings;
    settings.id = id;
    settings.spec = nn::LoadNetwork(world_.File("conv.json"));
    settings.suite = mpc::ParseSuiteChoice("lut", "test");
    settings.batch = 2;
    settings.schedule = infer::UseMaterial{&material};
    if (id == 1) settings.images = &images;
    auto links = net::MakeMemoryLinks(std::chrono::seconds(20));
    for (auto& each : links) each[0] = nullptr;
    const auto own = static_cast<std::size_t>(id);
    std::jthread liar([&] {
      try {
        lie(*links[3 - own][own]);
      } catch (const Error&) {
        // The other has hung up.
      }
    });
    try {
      infer::Session(settings, registry).Run([&] { return std::move(links[own]); });
    } catch (const std::exception& e) {
      return programs::Classify(e);
    }
    return {programs::FailureKind::kInput, "it ran"};
  }
  static void Echo(net::Link& link, std::uint32_t tag) {
    link.Send(SetupMessage(tag, TextOf(link.Receive(Phase::kSetup))));
  }
  // What party 1 ends with when party 2 says that its next unused query is what `next` makes of
  // party 1's own words, and the query with which all begin `first`.
  programs::Failure Run(const std::function<std::string(const std::string& words)>& next,
                        const std::string& first = "") const {
    return RunAgainst(1, [&](net::Link& link) {
      link.Receive(Phase::kSetup);  // how many images there are
      Echo(link, kPlanTag);
      link.Send(SetupMessage(kNextQueryTag, next(TextOf(link.Receive(Phase::kSetup)))));
      link.Receive(Phase::kSetup);
      link.Send(SetupMessage(kFirstQueryTag, first));
      link.Receive(Phase::kSetup);
    });
  }
};

// What this party has would do for its own user.
TEST_F(MaterialLiar, IsBlamedForTooManyImages) {
  Make();
  const auto run = [&](const char* images, const std::string& next, bool aborts) {
    return RunAgainst(2, [=](net::Link& link) {
      link.Send(SetupMessage(kImagesTag, images));
      Echo(link, kPlanTag);
      const auto words = TextOf(link.Receive(Phase::kSetup));
      link.Send(SetupMessage(kNextQueryTag, words.substr(0, 33) + next));
      if (aborts) {
        link.Abort("its own reason");
        return;
      }
      link.Send(SetupMessage(kFirstQueryTag, "1"));
      while (true) link.Receive(Phase::kSetup);
    });
  };
  // The owner has as little.
  auto failure = run("1000", "0", true);
  EXPECT_EQ(programs::ExitCode(failure.kind), programs::kExitFailed) << failure.text;
  EXPECT_THAT(failure.text, AllOf(HasSubstr("party 1"), HasSubstr("its own reason")));
  infer::MaterialFile(File(2)).Skip(1);
  failure = run("4", "0", false);
  EXPECT_EQ(programs::ExitCode(failure.kind), programs::kExitFailed) << failure.text;
  EXPECT_THAT(failure.text,
              AllOf(HasSubstr("party 1 announced too many images"), HasSubstr(File(2)),
                    HasSubstr("holds 1 unused queries of 2 images, 2 are needed")));
  // Whatever the owner has, this is of no use to anybody.
  infer::MaterialFile(File(2)).Skip(2);
  failure = run("2", "1", false);
  EXPECT_EQ(programs::ExitCode(failure.kind), programs::kExitUsage) << failure.text;
  EXPECT_THAT(failure.text, HasSubstr("all of its 2 queries are used up"));
}

TEST_F(MaterialLiar, IsBlamedForItsOwnWords) {
  Make();
  const auto blamed = [&](const std::string& reason,
                          const std::function<std::string(const std::string&)>& next) {
    const auto failure = Run(next);
    EXPECT_EQ(programs::ExitCode(failure.kind), programs::kExitFailed) << failure.text;
    EXPECT_THAT(failure.text, AllOf(HasSubstr("party 2"), HasSubstr(reason)));
  };
  const auto session = [](const std::string& words) { return words.substr(0, 32); };
  blamed("has used 4294967295", [&](const auto& w) { return session(w) + " 4294967295"; });
  blamed("next query was expected", [&](const auto& w) { return session(w) + " 99999999999"; });
  blamed("next query was expected", [&](const auto& w) { return session(w) + " x"; });
  blamed("next query was expected", [&](const auto& w) { return session(w) + "00"; });
  blamed("next query was expected", [&](const auto& w) { return session(w) + " "; });
  blamed("next query was expected", [](const auto&) { return std::string(); });
  blamed("material of session aaaa", [](const auto&) { return std::string(32, 'a') + " 0"; });
  for (const char* first : {"1", "", "00"})
    EXPECT_THAT(Run([](const auto& words) { return words; }, first).text,
                HasSubstr("party 2 begins with another query of the material than query 0"));
  // None of that has used anything up.
  EXPECT_EQ(infer::MaterialFile(File(1)).Next(), 0U);
  // What a peer may have used is not used again, whether it told the truth or not.
  blamed("has used 2 queries of the 2", [&](const auto& w) { return session(w) + " 2"; });
  EXPECT_EQ(infer::MaterialFile(File(1)).Next(), 2U);
}

// Model files that say more than a model may; the owner's own program refuses them.
class ModelFile : public Testbed {
 protected:
  ModelFile() {
    spec_ = nn::LoadNetwork(world_.File("dense.json"));
    const auto registry = BuiltinProtocols();
    compile::SaveCompiled(programs::LoadModel(spec_, {world_.File("dense.safetensors"), {}, {}},
                                              registry, [](const std::string&) {}),
                          File());
  }
  std::string File() const { return world_.File("model.safetensors"); }
  void Change(
      const std::function<void(files::TensorFile& file, json& announcement)>& change) const {
    files::TensorFile file = files::LoadTensors(File());
    json announcement = json::parse(file.metadata.at("tercet.network"));
    file.metadata["tercet.network"] = "";
    change(file, announcement);
    if (file.metadata["tercet.network"].empty())
      file.metadata["tercet.network"] = announcement.dump();
    file.metadata["tercet.sha256"] = files::ContentDigest(file, "tercet.sha256");
    files::SaveTensors(file, File());
  }
  // By `run`, `plan` and `plain`, with status 2; by a party, whose peers end with 1.
  void ExpectRefused(const std::string& reason) {
    const std::string network = world_.File("dense.json"), images = world_.File("images.idx");
    for (const auto& arguments : std::vector<std::vector<std::string>>{
             {"run", network, "--images", images, "--suite", "lut"},
             {"plan", network, "--suite", "lut"},
             {"plain", network, "--images", images}}) {
      auto more = arguments;
      more.insert(more.end(), {"--model", File()});
      const auto result = world_.Tercet(more).Wait();
      EXPECT_EQ(result.status, 2) << arguments[0] << result.out;
      EXPECT_THAT(result.err, HasSubstr(reason)) << arguments[0];
    }
    const auto result = StartBare(2, "dense", {"--model", File()}).Wait();
    EXPECT_EQ(result.status, 2) << result.out;
    EXPECT_THAT(result.err, HasSubstr(reason));
  }

  nn::NetworkSpec spec_;
};

TEST_F(ModelFile, ChoosesNoSuite) {
  Change([](files::TensorFile&, json& a) { a["layers"][0]["suite"] = "cbnn"; });
  ExpectRefused("/layers/0/suite: found cbnn for layer fc1, expected none");
}

TEST_F(ModelFile, SaysNoArchitecture) {
  Change([this](files::TensorFile& file, json& a) {
    file.metadata["tercet.format"] = "1";
    a = {{"name", "Dense"}, {"spec_digest", spec_.Digest()}, {"logit_scale", 1.0}};
  });
  ExpectRefused("found tercet.format '1', expected '2'");
  Change([](files::TensorFile& file, json&) { file.metadata["tercet.format"] = "2"; });
  ExpectRefused("unknown key 'logit_scale'");
}

TEST_F(ModelFile, HasTheTensorsOfTheArchitecture) {
  Change([](files::TensorFile& file, json&) {
    file.tensors["fc1.weight"] = files::TensorData::FromIntegers(
        {64, 64}, std::vector<std::int64_t>(64 * 64), files::DType::kI8);
  });
  ExpectRefused("tensor fc1.weight: found shape [64, 64], expected [12, 64]");
}

// The class tells the receiver less than the logits that the network file says, so a model may say
// so of its own accord; more it may not, nor is it compiled.
TEST_F(ModelFile, MayGiveLessThanTheNetworkSays) {
  const std::string network = world_.File("dense.json"), floats = world_.File("dense.safetensors");
  const auto compile = [&](const std::string& json_file, const std::string& output) {
    return world_
        .Tercet({"compile", json_file, "--model", floats, "--output", output, "--out", File()})
        .Wait();
  };
  ASSERT_EQ(compile(network, "class").status, 0);
  const auto run = world_
                       .Tercet({"run", network, "--model", File(), "--images",
                                world_.File("images.idx"), "--json", world_.File("out.json")})
                       .Wait();
  EXPECT_EQ(run.status, 0) << run.err;
  const json report = ReadJson(world_.File("out.json"));
  for (const auto& logits : report.at("logits"))
    EXPECT_THAT(logits.get<std::vector<int>>(), testing::Each(AnyOf(0, 1)));

  json only_class = ReadJson(network);
  only_class["output"] = "class";
  world_.Write("class.json", only_class.dump());
  const auto refused = compile(world_.File("class.json"), "logits");
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("found logits, expected class"));
  ASSERT_EQ(compile(world_.File("class.json"), "class").status, 0);
  spec_ = nn::LoadNetwork(world_.File("class.json"));
  world_.Write("dense.json", only_class.dump());
  Change([](files::TensorFile&, json& a) { a["only_class"] = false; });
  ExpectRefused("/only_class: found false, expected true");
}

// Real processes: the owner's announcement is read by two programs that were given other things.
TEST_F(ModelFile, OfAnotherArchitectureEndsAllParties) {
  Change([](files::TensorFile&, json& a) { a["layers"].erase(0); });
  ExpectRefused("/layers: found 2 elements, expected 3");
}

}  // namespace
}  // namespace tercet::integration
