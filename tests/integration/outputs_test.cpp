// SPDX-License-Identifier: Apache-2.0
// Who may read what the programs write. What trains, imports and serves is looked at by its own
// tests, since not every build has it.
#include <sys/stat.h>

#include <algorithm>
#include <set>
#include <utility>

#include "integration/testbed.h"

namespace tercet::integration {
namespace {

namespace fs = std::filesystem;

// What a file's name ends with, and whether it is for its owner alone. The first that fits counts.
using Rules = std::vector<std::pair<std::string, bool>>;
constexpr bool kSecret = true, kPublic = false;

class Outputs : public Testbed {
 protected:
  std::set<std::string> Files() const {
    std::set<std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(world_.Path())) {
      const std::string name = fs::relative(entry.path(), world_.Path()).string();
      // What the children print.
      const bool printed = name.starts_with("out.") || name.starts_with("err.");
      if (entry.is_regular_file() && !printed) files.insert(name);
    }
    return files;
  }

  // Each of what is new fits a rule and has its mode, though the umask takes nothing away; each
  // rule has its file.
  void Expect(const std::set<std::string>& before, const Rules& rules) const {
    std::set<std::string> used;
    for (const auto& name : Files()) {
      if (before.contains(name)) continue;
      const auto rule = std::find_if(rules.begin(), rules.end(),
                                     [&](const auto& each) { return name.ends_with(each.first); });
      ASSERT_NE(rule, rules.end()) << name << ": say whether it is secret";
      used.insert(rule->first);
      struct stat status {};
      ASSERT_EQ(::stat(world_.File(name).c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & 0777, rule->second ? 0600U : 0666U) << name;
    }
    for (const auto& [end, secret] : rules) EXPECT_TRUE(used.contains(end)) << end;
  }

  static void TakeNothingAway() { ::umask(0); }

  void ExpectWrites(const std::vector<std::string>& arguments, const Rules& rules) const {
    SCOPED_TRACE(fmt::format("tercet {}", fmt::join(arguments, " ")));
    const auto before = Files();
    const auto result = world_.Tercet(arguments, TakeNothingAway).Wait();
    ASSERT_EQ(result.status, 0) << result.err;
    Expect(before, rules);
  }
};

TEST_F(Outputs, ThatAreSecretAreForTheirOwnerAlone) {
  const auto file = [this](const char* name) { return world_.File(name); };
  const std::string dense = file("dense.json"), weights = file("dense.safetensors");
  const auto with_images = [&](std::vector<std::string> command) {
    command.insert(command.end(),
                   {dense, "--model", weights, "--images", file("images.idx"), "--json"});
    return command;
  };
  const auto and_file = [](std::vector<std::string> command,
                           std::initializer_list<std::string> more) {
    command.insert(command.end(), more);
    return command;
  };
  ExpectWrites({"compile", dense, "--model", weights, "--out", file("compiled.safetensors")},
               {{"compiled.safetensors", kSecret}});
  ExpectWrites(and_file(with_images({"plain"}), {file("plain.json")}), {{"plain.json", kSecret}});
  for (const char* transport : {"memory", "tls"}) {
    ExpectWrites(and_file(with_images({"run"}), {file("run.json"), "--transport", transport}),
                 {{"run.json", kSecret}});
    fs::remove(file("run.json"));
  }
  ExpectWrites({"run", dense, "--model", weights, "--batch", "5", "--material-out",
                file("material"), "--queries", "2"},
               {{".material", kSecret}, {".json", kSecret}});  // and this machine's records
  ExpectWrites({"plan", dense, "--json", file("plan.json"), "--csv", file("plan.csv")},
               {{"plan.json", kPublic}, {"plan.csv", kPublic}});
  ExpectWrites({"customise", dense, "--out", file("custom.json")}, {{"custom.json", kPublic}});
  ExpectWrites({"draw-digits", file("digits.idx"), file("of-digits.idx")},
               {{"of-digits.idx", kPublic}, {"digits.idx", kPublic}});
  const Rules keys{{"-key.pem", kSecret}, {".pem", kPublic}};
  ExpectWrites({"keygen", file("all")}, keys);
  ExpectWrites({"keygen", "--party", "1", file("one")}, keys);
  ExpectWrites({"keygen", "--servers", file("servers")}, {{"-key.pem", kSecret},
                                                          {".pem", kPublic},
                                                          {"sealing.key", kSecret},
                                                          {"deployment.json", kPublic}});
  // Sealed for the servers.
  ExpectWrites({"publish", dense, "--model", weights, "--deployment",
                file("servers/deployment.json"), "--out", file("package.tercet")},
               {{"package.tercet", kPublic}});
}

TEST_F(Outputs, OfPartiesAreForTheirOwnersAlone) {
  std::vector<Process> parties;
  parties.reserve(3);
  for (int id = 0; id < 3; ++id)
    parties.push_back(Start(id, "dense", {"--json", world_.File(fmt::format("report{}.json", id))},
                            TakeNothingAway));
  for (auto& party : parties) {
    const auto result = party.Wait();
    EXPECT_EQ(result.status, 0) << result.err;
  }
  std::set<std::string> before = Files();
  std::erase_if(before, [](const std::string& name) { return name.starts_with("report"); });
  Expect(before, {{"report0.json", kSecret}, {"report1.json", kSecret}, {"report2.json", kSecret}});
}

}  // namespace
}  // namespace tercet::integration
