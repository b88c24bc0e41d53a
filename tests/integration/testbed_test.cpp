// SPDX-License-Identifier: Apache-2.0
// Three tercet-party processes with testbed files, right and wrong.

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/sanitizers.h"
#include "integration/testbed.h"
#include "programs/inputs.h"
#include "programs/launcher.h"
#include "tercet/compile/random_weights.h"
#include "tercet/crypto/certificates.h"
#include "tercet/files/tensor_file.h"
#include "tercet/nn/network.h"

namespace tercet::integration {
namespace {

using nlohmann::json;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

class RawClient {
 public:
  explicit RawClient(std::uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_.Get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }
  void Send(std::string_view text) {
    EXPECT_EQ(::send(fd_.Get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }

 private:
  programs::OwnedFd fd_;
};

TEST_F(Testbed, ThreePartiesAgreeAndReport) {
  auto parties = StartAll(
      {"conv", "conv", "conv"},
      {{{"--batch", "4", "--json", world_.File("p0.json")},
        {"--batch", "4", "--labels", world_.File("labels.idx"), "--json", world_.File("p1.json")},
        {"--batch", "4", "--json", world_.File("p2.json")}}});
  for (std::size_t p = 0; p < 3; ++p) {
    const auto result = parties[p].Wait();
    ASSERT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(
        result.out,
        HasSubstr("10 images in batches of 4; helper 0, data owner 1, model owner 2, receiver 1"));
    const json report = ReadJson(world_.File(fmt::format("p{}.json", p)));
    EXPECT_EQ(report.at("party"), p);
    for (std::size_t begin = 0; begin < result.err.size(); begin = result.err.find('\n', begin) + 1)
      EXPECT_EQ(result.err.find("tercet-party: ", begin), begin) << result.err;
    EXPECT_THAT(result.err, HasSubstr("tercet-party: WARNING: "));
    // Its own certificate and those of both others are valid for two days.
    EXPECT_EQ(report.at("warnings").size(), 3u);
    EXPECT_THAT(report.at("warnings").dump(),
                HasSubstr("from whoever has the key of \\\"tercet certificate authority"));
    EXPECT_EQ(report.at("images"), 10);
    EXPECT_EQ(report.at("logits").size(), p == 1 ? 40u : 0u);
    if (p == 1) {
      EXPECT_THAT(result.out, HasSubstr("accuracy: "));
    }
  }
}

// The receiver need not have the images; it compares as soon as their number is announced. What is
// wrong then is between two parties, each of which was started rightly as far as it can tell.
TEST_F(Testbed, RefusesLabelsOfAnotherCountBeforeTheFirstQuery) {
  config_["roles"] = {{"helper", 0}, {"data_owner", 1}, {"model_owner", 2}, {"receiver", 2}};
  world_.Write("few.idx", files::Idx({0x801, 3}, {0, 1, 2}));
  auto parties =
      StartAll({"dense", "dense", "dense"}, {{{}, {}, {"--labels", world_.File("few.idx")}}});
  for (std::size_t p = 0; p < 3; ++p) {
    const auto result = parties[p].Wait();
    EXPECT_EQ(result.status, 1) << result.err;
    EXPECT_THAT(result.err,
                HasSubstr("--labels: 3 labels found, 10 expected, one for each image of party 1"));
    EXPECT_THAT(result.out, testing::Not(HasSubstr("10 images in batches")));
  }
}

// A party that has both need not ask anybody.
TEST_F(Testbed, RefusesLabelsThatDoNotFitItsOwnImages) {
  world_.Write("few.idx", files::Idx({0x801, 3}, {0, 1, 2}));
  const auto result = Start(1, "dense", {"--labels", world_.File("few.idx")}).Wait();
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr(world_.File("few.idx") +
                                    ": 3 labels found, 10 expected, one for each image of " +
                                    world_.File("images.idx")));
  EXPECT_THAT(result.err, Not(HasSubstr("waiting for")));
}

// What one party is told otherwise than the others, in its testbed, network or options.
struct Disagreement {
  std::string name;
  int party = 2;
  json testbed = json::object();  // what changes in it; null removes
  std::string network = "dense";
  std::vector<std::string> more = {};
  std::string message;
};

class Disagreements : public Testbed, public testing::WithParamInterface<Disagreement> {};

TEST_P(Disagreements, AreRefused) {
  const auto& one = GetParam();
  config_["connect_timeout_s"] = 4;
  crypto::MakeCertificates(world_.Path() / "other", 2, false);
  std::vector<Process> parties;
  for (int id = 0; id < 3; ++id)
    if (id != one.party) parties.push_back(Start(id, "dense"));
  config_.merge_patch(one.testbed);
  parties.push_back(Start(one.party, one.network, one.more));
  ExpectAllFail(std::move(parties), one.message);
}

INSTANTIATE_TEST_SUITE_P(
    Testbed, Disagreements,
    testing::Values(
        Disagreement{.name = "Network", .network = "conv", .message = "network digest"},
        Disagreement{.name = "Suite", .party = 1, .more = {"--suite", "cbnn"}, .message = "suite"},
        Disagreement{.name = "Linear",
                     .party = 1,
                     .more = {"--linear", "replicated"},
                     .message = "linear layers: here replicated, there by the roles"},
        Disagreement{.name = "PublicWeights",
                     .party = 2,
                     .more = {"--public-weights"},
                     .message = "linear layers: here public, there by the roles"},
        Disagreement{.name = "Batch", .party = 0, .more = {"--batch", "3"}, .message = "batch"},
        Disagreement{.name = "Timeout",
                     .party = 1,
                     .testbed = {{"timeout_s", 7}},
                     .message = "timeout_s: here 7, there 3"},
        Disagreement{.name = "CertificateOfAnotherParty",
                     .testbed = {{"certificates", nullptr},
                                 {"tls",
                                  {{"ca", "keys/ca.pem"},
                                   {"certificate", "keys/party1.pem"},
                                   {"key", "keys/party1-key.pem"}}}},
                     .message = "certificate"},
        Disagreement{.name = "CertificateOfAnotherAuthority",
                     .testbed = {{"certificates", "other"}},
                     .message = "certificate"},
        Disagreement{.name = "NoTls",
                     .testbed = {{"certificates", nullptr}, {"transport", "tcp-insecure"}},
                     .message = "party 2"}),
    [](const auto& disagreement) { return disagreement.param.name; });

// Who connects and is no party.
struct Strangers {
  explicit Strangers(const std::array<std::uint16_t, 2>& ports)
      : garbage(ports[0]), silent(ports[0]), half(ports[1]) {
    garbage.Send("GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n");
    half.Send(std::string("\x16\x03\x01\x02\x00\x01", 6));  // a TLS record without an end
  }
  RawClient garbage, silent, half;
};

TEST_F(Testbed, StrangersDoNotKeepPartiesApart) {
  const Strangers strangers(ports_);
  for (auto& party : StartAll({"dense", "dense", "dense"}, {})) {
    const auto result = party.Wait();
    EXPECT_EQ(result.status, 0) << result.err;
  }
}

TEST_F(Testbed, SaysWhoIsMissingStrangersOrNot) {
  config_["connect_timeout_s"] = 2;
  for (const bool strangers : {false, true}) {
    std::optional<Strangers> some;
    if (strangers) some.emplace(ports_);
    std::vector<Process> parties;
    parties.push_back(Start(0, "dense"));
    parties.push_back(Start(1, "dense"));
    ExpectAllFail(std::move(parties), "party 2");
  }
}

TEST_F(Testbed, SaysThatThePortIsTaken) {
  inherit_ = false;
  auto result = Start(0, "dense").Wait();
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr(fmt::format("port {} on 127.0.0.1 is in use", ports_[0])));
}

TEST_F(Testbed, StopsWhileItWaitsForOthers) {
  auto party = Start(0, "dense");
  ASSERT_TRUE(Eventually([&] {
    return party.ErrSoFar().find("waiting for party") != std::string::npos;
  })) << party.ErrSoFar();
  ::kill(party.Pid(), SIGTERM);
  const auto result = party.Wait();
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("stopped by a signal"));
}

TEST_F(Testbed, ASignalledPartyTellsTheOthers) {
  const std::vector<std::string> slow{"--link", "rtt_ms=100", "--batch", "1"};
  auto parties = StartAll({"dense", "dense", "dense"}, {slow, slow, slow});
  ASSERT_NO_FATAL_FAILURE(AwaitImages(parties[1]));
  ::kill(parties[0].Pid(), SIGINT);
  for (std::size_t p = 0; p < 3; ++p) {
    const auto result = parties[p].Wait();
    EXPECT_EQ(result.status, 1);
    EXPECT_THAT(result.err, HasSubstr("stopped by a signal (Interrupt)"));
    if (p > 0) {
      EXPECT_THAT(result.err, HasSubstr("party 0 stopped: stopped by a signal (Interrupt)"));
      EXPECT_THAT(result.err, HasSubstr("phase, layer "));
    }
    EXPECT_THAT(result.err, Not(HasSubstr(") (")));
  }
}

// The third party hears who was given up by whom, and so does that party when it goes on.
TEST_F(Testbed, AStoppedPartyIsNamedToAll) {
  const std::vector<std::string> slow{"--link", "rtt_ms=100", "--batch", "1"};
  auto parties = StartAll({"dense", "dense", "dense"}, {slow, slow, slow});
  ASSERT_NO_FATAL_FAILURE(AwaitImages(parties[1]));
  ::kill(parties[2].Pid(), SIGSTOP);
  for (std::size_t p = 0; p < 2; ++p) {
    const auto result = parties[p].Wait();
    EXPECT_EQ(result.status, 1);
    EXPECT_THAT(result.err, HasSubstr("party 2 at 127.0.0.1"));
    EXPECT_THAT(result.err, HasSubstr("sent nothing for 3.0 s"));
    EXPECT_THAT(result.err, Not(HasSubstr(") (")));
  }
  ::kill(parties[2].Pid(), SIGCONT);
  const auto result = parties[2].Wait();
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, AnyOf(HasSubstr("party 0 stopped: party 2 at 127.0.0.1"),
                                HasSubstr("party 1 stopped: party 2 at 127.0.0.1")));
}

// Its peers, connected already, hear why it goes while it waits for another one.
TEST_F(Testbed, APartyThatLeavesWhileItWaitsSaysWhy) {
  config_["connect_timeout_s"] = 6;
  auto zero = Start(0, "dense");
  auto two = Start(2, "dense");
  ASSERT_TRUE(Eventually([&] {
    const auto text = zero.ErrSoFar();
    return text.find("waiting for party 1") != std::string::npos &&
           text.rfind("waiting for party 2") < text.rfind("waiting for party 1");
  })) << zero.ErrSoFar();
  ::kill(two.Pid(), SIGTERM);
  EXPECT_THAT(two.Wait().err, HasSubstr("error: stopped by a signal (Terminated)"));
  const auto result = zero.Wait();
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, HasSubstr("party 2 did not connect"));
  EXPECT_THAT(result.err, HasSubstr("party 2 left: stopped by a signal (Terminated)"));
}

// A limit that no estimate keeps: refused before anything is shared, and the others are told.
TEST_F(Testbed, SaysThatMemoryDoesNotSuffice) {
#if TERCET_ADDRESS_SANITIZER || TERCET_THREAD_SANITIZER
  GTEST_SKIP() << "a sanitizer takes more address space than any limit leaves";
#endif
  // Address space is taken by libraries and threads long before it is used.
  const auto limit = [] {
    const rlimit space{700'000'000, 700'000'000};
    ::setrlimit(RLIMIT_AS, &space);
  };
  std::vector<Process> parties;
  world_.Write("large.json", R"({
    "name": "Large",
    "input": {"shape": [3, 120, 120], "scale": 255, "mean": 0.0, "std": 1.0, "bits": 4},
    "layers": [
      {"name": "conv1", "type": "conv2d", "out_channels": 8, "kernel": 5, "stride": 2},
      {"name": "act1", "type": "sign"},
      {"name": "pool1", "type": "max_pool2d", "kernel": 2, "stride": 2},
      {"name": "fc1", "type": "linear", "out_features": 4}
    ],
    "output": "logits"
  })");
  const auto spec = nn::LoadNetwork(world_.File("large.json"));
  files::SaveTensors(compile::RandomWeights(spec, 11), world_.File("large.safetensors"));
  const auto images = programs::RandomImages(spec.input.shape, 1024);
  world_.Write("large.npy",
               programs::NpyHeader(images).append(images.pixels.begin(), images.pixels.end()));
  const std::vector<std::string> batch{"--batch", "1024"};
  std::vector<std::string> more = batch;
  more.insert(more.end(), {"--images", world_.File("large.npy")});
  parties.push_back(StartBare(1, "large", more, limit));
  more = batch;
  more.insert(more.end(), {"--model", world_.File("large.safetensors")});
  parties.push_back(StartBare(2, "large", more));
  parties.push_back(StartBare(0, "large", batch));
  std::string told;
  for (auto& party : parties) {
    const auto result = party.Wait();
    EXPECT_EQ(result.status, 1) << result.err;
    EXPECT_THAT(result.err, HasSubstr("batches of 1024 images"));
    EXPECT_THAT(result.err, HasSubstr("the limit of its address space (ulimit -v) leaves"));
    told += result.err;
  }
  EXPECT_THAT(told, HasSubstr("party 1 stopped: batches of 1024 images"));
}

TEST_F(Testbed, FilesBelongToTheirOwners) {
  auto refused = [](Process process, const std::string& text) {
    const auto result = process.Wait();
    EXPECT_EQ(result.status, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr(text));
  };
  refused(Start(0, "dense", {"--model", world_.File("dense.safetensors")}),
          "--model: party 0 does not own the model");
  refused(Start(0, "dense", {"--labels", world_.File("labels.idx")}),
          "--labels: party 0 does not receive the result");
  config_["roles"] = {{"helper", 2}, {"data_owner", 1}, {"model_owner", 0}, {"receiver", 1}};
  refused(Start(0, "dense"), "--model: party 0 owns the model");
}

}  // namespace
}  // namespace tercet::integration
