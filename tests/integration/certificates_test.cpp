// SPDX-License-Identifier: Apache-2.0
// Three organisations, each with a directory and a key of its own: what docs/certificates.md tells
// them to type works, and what it says is refused is refused.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "crypto/certificates_internal.h"
#include "integration/world.h"
#include "programs/launcher.h"
#include "tercet/crypto/certificates.h"

namespace tercet::integration {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// The commands of one "```sh party N" block.
struct Block {
  std::size_t party = 0;
  std::string text;
};

/// A document's command blocks by heading, and its JSON blocks.
struct Document {
  std::map<std::string, std::vector<Block>> sections;
  std::vector<std::string> json;
};

Document ReadDocument(const std::string& file) {
  std::ifstream stream(file);
  Document document;
  std::string heading, line, text, fence;
  while (std::getline(stream, line)) {
    if (fence.empty()) {
      if (line.starts_with("## ")) heading = line.substr(3);
      if (line.starts_with("```")) fence = line.substr(3);
      text.clear();
    } else if (line == "```") {
      if (fence == "json") document.json.push_back(text);
      if (fence.starts_with("sh party "))
        document.sections[heading].push_back({std::stoul(fence.substr(9)), text});
      fence.clear();
    } else {
      text += line + "\n";
    }
  }
  return document;
}

class Organisations : public testing::Test {
 protected:
  Organisations() : document_(ReadDocument(TERCET_SOURCE_DIR "/docs/certificates.md")) {
    for (std::size_t p = 0; p < 2; ++p)
      std::tie(listening_[p], ports_[p]) = programs::ListenOnLoopback();
    fs::create_directory(world_.Path() / "bin");
    fs::create_symlink(TERCET_BIN_DIR "/tercet", world_.Path() / "bin/tercet");
    // The real program, and the socket that listens for this party already.
    world_.Write("bin/tercet-party", "#!/bin/sh\nexec " TERCET_BIN_DIR
                                     "/tercet-party \"$@\" ${LISTEN_FD:+--listen-fd $LISTEN_FD}\n");
    fs::permissions(world_.Path() / "bin/tercet-party", fs::perms::owner_all);
    for (std::size_t p = 0; p < 3; ++p) {
      fs::create_directory(Home(p));
      fs::copy_file(world_.File("dense.json"), Home(p) / "network.json");
    }
    fs::copy_file(world_.File("images.idx"), Home(1) / "images.idx");
    fs::copy_file(world_.File("dense.safetensors"), Home(2) / "model.safetensors");
    testbed_ = json::parse(document_.json.at(0));
    for (std::size_t p = 0; p < 3; ++p) {
      testbed_["parties"][p]["host"] = "127.0.0.1";
      if (p < 2) testbed_["parties"][p]["port"] = ports_[p];
    }
    testbed_["timeout_s"] = 10;
    testbed_["connect_timeout_s"] = 20;
  }

  fs::path Home(std::size_t party) const {
    return world_.Path() / fmt::format("organisation{}", party);
  }

  Process Type(std::size_t party, const std::string& text) {
    std::vector<std::string> command{"/usr/bin/env",
                                     fmt::format("PATH={}:/usr/bin:/bin", world_.File("bin"))};
    std::vector<int> fds;
    if (party < 2) {
      fds.push_back(listening_[party].Get());
      command.push_back(fmt::format("LISTEN_FD={}", fds[0]));
    }
    command.insert(command.end(),
                   {"/bin/sh", "-e", "-c", fmt::format("cd {}\n{}", Home(party).string(), text)});
    return {world_.Path(), command, fds};
  }

  std::string TypeAndWait(std::size_t party, const std::string& text) {
    const auto result = Type(party, text).Wait();
    EXPECT_EQ(result.status, 0) << text << result.err;
    return result.out;
  }

  /// One after the other.
  void TypeSection(const std::string& heading) {
    ASSERT_TRUE(document_.sections.contains(heading)) << heading;
    for (const auto& block : document_.sections.at(heading)) TypeAndWait(block.party, block.text);
  }

  /// The runs of "Pin them", side by side; `more` follows each command.
  std::array<Result, 3> RunAll(const std::string& more = "") {
    const auto& blocks = document_.sections.at("Pin them");
    std::vector<Process> parties;
    for (const auto& block : blocks) {
      std::string text = block.text;
      EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
      text.pop_back();
      parties.push_back(Type(block.party, text + " " + more));
    }
    std::array<Result, 3> results;
    for (std::size_t k = 0; k < parties.size(); ++k)
      results[blocks[k].party] = parties[k].Wait(std::chrono::seconds(40));
    return results;
  }

  void ExpectRuns(const std::string& more = "") {
    for (const auto& result : RunAll(more)) EXPECT_EQ(result.status, 0) << result.err;
  }

  void WriteTestbed(std::size_t party) {
    std::ofstream(Home(party) / "testbed.json") << testbed_.dump(2);
  }
  void WriteTestbeds() {
    for (std::size_t p = 0; p < 3; ++p) WriteTestbed(p);
  }

  /// What `tercet certificate` or `keygen` printed.
  static std::string FingerprintIn(const std::string& text) {
    std::smatch match;
    EXPECT_TRUE(std::regex_search(text, match, std::regex("sha256:[0-9a-f]{64}"))) << text;
    return match.str();
  }
  std::string FingerprintOf(std::size_t party, const std::string& directory = "keys") {
    return FingerprintIn(
        TypeAndWait(party, fmt::format("tercet certificate {}/party{}.pem", directory, party)));
  }

  /// Everybody has a key, valid for so many days, and all testbeds pin the fingerprints.
  void Pin(const crypto::Validity& validity = {}) {
    for (std::size_t p = 0; p < 3; ++p) {
      const auto made =
          crypto::MakePartyCertificateValid(Home(p) / "keys", static_cast<int>(p), validity, false);
      testbed_["parties"][p]["fingerprint"] = made.fingerprint.Text();
    }
    WriteTestbeds();
  }

  World world_;
  Document document_;
  std::array<programs::OwnedFd, 2> listening_;
  std::array<std::uint16_t, 2> ports_{};
  json testbed_;
};

TEST_F(Organisations, TypeWhatTheDocumentSays) {
  TypeSection("Make a key");
  for (std::size_t p = 0; p < 3; ++p) {
    std::set<std::string> files;
    for (const auto& entry : fs::directory_iterator(Home(p) / "keys"))
      files.insert(entry.path().filename().string());
    EXPECT_EQ(files, (std::set<std::string>{fmt::format("party{}.pem", p),
                                            fmt::format("party{}-key.pem", p)}));
  }
  TypeSection("Exchange fingerprints");
  for (std::size_t p = 0; p < 3; ++p) testbed_["parties"][p]["fingerprint"] = FingerprintOf(p);
  WriteTestbeds();
  ExpectRuns();

  const std::string before = TypeAndWait(1, "cat keys/party1.pem");
  TypeSection("Renew a certificate");
  EXPECT_NE(TypeAndWait(1, "cat keys/party1.pem"), before);
  ExpectRuns();

  TypeSection("Replace a key");
  const std::string old_key = FingerprintOf(1), new_key = FingerprintOf(1, "keys-new");
  EXPECT_NE(old_key, new_key);
  testbed_["parties"][1]["fingerprint"] = {old_key, new_key};
  WriteTestbeds();
  ExpectRuns();
  testbed_["certificates"] = "keys-new";
  WriteTestbed(1);
  ExpectRuns();
  testbed_["certificates"] = "keys";
  testbed_["parties"][1]["fingerprint"] = new_key;
  WriteTestbed(0);
  WriteTestbed(2);
  ExpectRuns();
}

TEST_F(Organisations, RefuseAKeyThatIsNotPinned) {
  Pin();
  const auto pinned = FingerprintOf(1);
  const auto thief = crypto::MakePartyCertificate(Home(1) / "stolen", 1, 30, false);
  testbed_["connect_timeout_s"] = 2;
  WriteTestbeds();
  testbed_["certificates"] = "stolen";
  testbed_["parties"][1].erase("fingerprint");
  WriteTestbed(1);
  const auto results = RunAll();
  for (const auto& result : results) EXPECT_EQ(result.status, 1) << result.err;
  // Party 1 connects to party 0, and party 2 to party 1.
  for (const std::size_t p : {0U, 2U})
    EXPECT_THAT(results[p].err, AllOf(HasSubstr("party 1"), HasSubstr(thief.fingerprint.Text()),
                                      HasSubstr(pinned), HasSubstr("on the phone")))
        << p;
  EXPECT_THAT(results[1].err, HasSubstr("refused our certificate"));
}

TEST_F(Organisations, TakeNoAuthoritysWordForAKey) {
  // Each has an authority of its own that has signed.
  for (std::size_t p = 0; p < 3; ++p) {
    crypto::MakeCertificates(Home(p) / "keys", 30, false);
    testbed_["parties"][p]["fingerprint"] = FingerprintOf(p);
  }
  WriteTestbeds();
  ExpectRuns();  // who signed does not matter
  testbed_["connect_timeout_s"] = 2;
  testbed_["parties"][2]["fingerprint"] = "sha256:" + std::string(64, 'a');
  WriteTestbed(0);
  testbed_["parties"][2].erase("fingerprint");
  WriteTestbed(2);
  for (const auto& result : RunAll()) EXPECT_EQ(result.status, 1) << result.err;
}

TEST_F(Organisations, PinCertificateFiles) {
  Pin();
  for (std::size_t p = 0; p < 3; ++p) {
    testbed_["parties"][p].erase("fingerprint");
    testbed_["parties"][p]["certificate"] = fmt::format("keys/party{}.pem", p);
    for (std::size_t other = 0; other < 3; ++other)
      if (other != p)
        fs::copy_file(Home(p) / fmt::format("keys/party{}.pem", p),
                      Home(other) / fmt::format("keys/party{}.pem", p));
  }
  WriteTestbeds();
  ExpectRuns();
  // The files of the others hold the old certificate, of the same key.
  TypeAndWait(1, "tercet keygen --party 1 --renew keys");
  ExpectRuns();
  // A file that was exchanged on its way is noticed by the fingerprint beside it.
  testbed_["parties"][1]["fingerprint"] = FingerprintOf(1);
  const auto forged = crypto::MakePartyCertificate(world_.Path() / "forged", 1, 30, false);
  fs::copy_file(world_.Path() / "forged/party1.pem", Home(0) / "keys/party1.pem",
                fs::copy_options::overwrite_existing);
  WriteTestbed(0);
  const auto result =
      Type(0, "tercet-party --id 0 --testbed testbed.json --network network.json").Wait();
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, AllOf(HasSubstr("testbed.json /parties/1/certificate: "),
                                HasSubstr(forged.fingerprint.Text())));
}

TEST_F(Organisations, AreWarnedBeforeACertificateExpires) {
  Pin({-1, 15});
  for (const auto& result : RunAll()) {
    EXPECT_EQ(result.status, 0) << result.err;
    EXPECT_THAT(result.err, Not(HasSubstr("expires")));
  }
  TypeAndWait(1, "tercet keygen --party 1 --renew keys --days 13");
  const auto results = RunAll("--json report.json");
  for (std::size_t p = 0; p < 3; ++p) {
    EXPECT_EQ(results[p].status, 0) << results[p].err;
    EXPECT_THAT(results[p].err,
                AllOf(HasSubstr("WARNING: the certificate of \"tercet party 1\" expires on "),
                      HasSubstr("tercet keygen --party 1 --renew"),
                      Not(HasSubstr("\"tercet party 2\" expires"))));
    const json report = ReadJson(Home(p) / "report.json");
    ASSERT_EQ(report.at("warnings").size(), 1u);
    EXPECT_THAT(report.at("warnings")[0].get<std::string>(), HasSubstr("expires on "));
  }
}

TEST_F(Organisations, DoNotStartWithACertificateThatIsNotTheirs) {
  Pin();
  const auto expect = [&](const std::string& text) {
    const auto result =
        Type(0, "tercet-party --id 0 --testbed testbed.json --network network.json").Wait();
    EXPECT_EQ(result.status, 2);
    EXPECT_THAT(result.err, HasSubstr(text));
  };
  fs::remove_all(Home(0) / "keys");
  crypto::MakePartyCertificateValid(Home(0) / "keys", 0, {-9, -2}, false);
  expect("keys/party0.pem: has expired on ");
  fs::remove_all(Home(0) / "keys");
  crypto::MakePartyCertificateValid(Home(0) / "keys", 0, {2, 9}, false);
  expect("keys/party0.pem: is valid from ");
  fs::remove_all(Home(0) / "keys");
  crypto::MakePartyCertificate(Home(0) / "keys", 0, 30, false);
  expect("which the testbed does not pin for this party 0");
  crypto::MakePartyCertificate(Home(0) / "keys", 1, 30, false);
  fs::rename(Home(0) / "keys/party1.pem", Home(0) / "keys/party0.pem");
  expect("is a certificate of \"tercet party 1\", expected party 0");
  // With the key of another organisation, but the right name.
  testbed_["parties"][0].erase("fingerprint");
  testbed_["parties"][2]["fingerprint"] =
      crypto::MakePartyCertificate(Home(0) / "keys", 0, 30, true).fingerprint.Text();
  WriteTestbed(0);
  expect("has the key that is pinned for party 2");
}

TEST_F(Organisations, KeepTheirKeysToThemselves) {
  TypeAndWait(1, "mkdir -m 777 open");
  const auto refused = Type(1, "tercet keygen --party 1 open").Wait();
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("open: has mode 777, so others than its owner may replace"));
  TypeAndWait(1, "chmod 755 open");
  const auto warned = Type(1, "tercet keygen --party 1 open").Wait();
  EXPECT_EQ(warned.status, 0);
  EXPECT_THAT(warned.err, HasSubstr("tercet: WARNING: others may look into open"));
  TypeAndWait(1, "chmod 700 open");
  EXPECT_EQ(Type(1, "tercet keygen --party 1 --renew open").Wait().err, "");
}

TEST_F(Organisations, KeepTheirKeysUnlessTold) {
  Pin();
  const auto key = TypeAndWait(1, "cat keys/party1-key.pem");
  const auto again = Type(1, "tercet keygen --party 1 keys").Wait();
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.err, AllOf(HasSubstr("party1.pem: exists already"), HasSubstr("--force"),
                               HasSubstr("--renew")));
  EXPECT_EQ(TypeAndWait(1, "cat keys/party1-key.pem"), key);
  EXPECT_THAT(TypeAndWait(1, "tercet keygen --party 1 --force keys"),
              AllOf(HasSubstr("Give the others keys/party1.pem"), HasSubstr("sha256:")));
  EXPECT_NE(TypeAndWait(1, "cat keys/party1-key.pem"), key);
  EXPECT_THAT(TypeAndWait(1, "tercet keygen everything"), HasSubstr("can be all three parties"));
  for (const auto& [command, text] : std::map<std::string, std::string>{
           {"tercet keygen --renew keys", "--party"},
           {"tercet keygen --party 3 keys", "--party"},
           {"tercet keygen --party 1 keys --days 3651", "3650"},
           {"tercet certificate keys/party1-key.pem", "party1-key.pem: holds no certificate"}}) {
    const auto result = Type(1, command).Wait();
    EXPECT_EQ(result.status, 2) << command;
    EXPECT_THAT(result.err, HasSubstr(text)) << command;
  }
}

}  // namespace
}  // namespace tercet::integration
