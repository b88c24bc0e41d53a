// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "integration/world.h"
#include "programs/launcher.h"
#include "tercet/crypto/certificates.h"

namespace tercet::integration {

/// tercet-party processes with testbed files. Sockets of its own listen for parties 0 and 1, so
/// that no port is fixed.
class Testbed : public testing::Test {
 protected:
  Testbed() {
    for (std::size_t p = 0; p < 2; ++p)
      std::tie(listening_[p], ports_[p]) = programs::ListenOnLoopback();
    crypto::MakeCertificates(world_.Path() / "keys", 2, false);
    config_ = {{"parties",
                {{{"host", "127.0.0.1"}, {"port", ports_[0]}},
                 {{"host", "127.0.0.1"}, {"port", ports_[1]}},
                 {{"host", "127.0.0.1"}}}},
               {"transport", "tls"},
               {"certificates", "keys"},
               {"timeout_s", 3},
               {"connect_timeout_s", 20}};
  }

  /// Party `id` with the testbed as it stands now, this network and more arguments; nothing of its
  /// own to bring.
  Process StartBare(int id, const std::string& network, const std::vector<std::string>& more,
                    const std::function<void()>& prepare = {}) {
    const std::string testbed = fmt::format("testbed{}.json", started_++);
    world_.Write(testbed, config_.dump());
    std::vector<std::string> arguments{"--id",      std::to_string(id),
                                       "--testbed", world_.File(testbed),
                                       "--network", world_.File(network + ".json")};
    std::vector<int> fds;
    if (id < 2 && inherit_) {
      const int fd = listening_[static_cast<std::size_t>(id)].Get();
      arguments.insert(arguments.end(), {"--listen-fd", std::to_string(fd)});
      fds.push_back(fd);
    }
    arguments.insert(arguments.end(), more.begin(), more.end());
    return world_.Party(arguments, fds, prepare);
  }
  /// The same, with the images at party 1 and the model at party 2.
  Process Start(int id, const std::string& network, std::vector<std::string> more = {},
                const std::function<void()>& prepare = {}) {
    if (id == 1) more.insert(more.begin(), {"--images", world_.File("images.idx")});
    if (id == 2) more.insert(more.begin(), {"--model", world_.File(network + ".safetensors")});
    return StartBare(id, network, more, prepare);
  }

  /// Waits until the party says that it has done some images.
  static void AwaitImages(const Process& party) {
    ASSERT_TRUE(Eventually([&] {
      return party.ErrSoFar().find("images done") != std::string::npos;
    })) << party.ErrSoFar();
  }

  /// Each ends by itself with an error; at least one names the thing.
  static void ExpectAllFail(std::vector<Process> parties, const std::string& text) {
    std::string all;
    for (auto& party : parties) {
      const auto result = party.Wait(std::chrono::seconds(25));
      EXPECT_THAT(result.status, testing::AnyOf(1, 2)) << result.err;
      EXPECT_THAT(result.err, testing::HasSubstr("tercet-party: error: "));
      all += result.err;
    }
    EXPECT_THAT(all, testing::HasSubstr(text));
  }

  std::vector<Process> StartAll(const std::array<std::string, 3>& networks,
                                const std::array<std::vector<std::string>, 3>& more) {
    std::vector<Process> parties;
    for (int id = 0; id < 3; ++id)
      parties.push_back(
          Start(id, networks[static_cast<std::size_t>(id)], more[static_cast<std::size_t>(id)]));
    return parties;
  }

  World world_;
  std::array<programs::OwnedFd, 2> listening_;
  std::array<std::uint16_t, 2> ports_{};
  nlohmann::json config_;
  bool inherit_ = true;
  int started_ = 0;
};

}  // namespace tercet::integration
