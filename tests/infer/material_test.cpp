// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/material.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/scratch.h"
#include "tercet/crypto/certificates.h"

namespace tercet::infer {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::size_t kQueries = 3;
constexpr std::size_t kHeaderAt = 8;

MaterialHeader Header() {
  MaterialHeader header;
  header.network = "{}";
  header.suite = "lut";
  header.linear = "clear";
  header.roles = {2, 0, 1, 0};
  header.batch = 5;
  header.queries = kQueries;
  header.party = 1;
  header.plan_digest = std::string(64, 'a');
  header.session = NewMaterialSession();
  return header;
}

Bytes Secret(std::size_t query) {
  const std::string text = fmt::format("secret material of query {}", query);
  return {text.begin(), text.end()};
}

class Material : public testing::Test {
 protected:
  Material() : file_(directory_.Path() / "party1.material") {
    ::setenv("XDG_STATE_HOME", (directory_.Path() / "state").c_str(), 1);
  }
  ~Material() override { ::unsetenv("XDG_STATE_HOME"); }
  static void Fill(MaterialWriter& writer) {
    const std::string model = "shares of the model";
    writer.AddModel(Bytes(model.begin(), model.end()));
    for (std::size_t q = 0; q < kQueries; ++q) writer.AddQuery(Secret(q));
  }
  void Write(const MaterialHeader& header = Header()) const {
    MaterialWriter writer(file_, header);
    Fill(writer);
    writer.Flush();
    writer.Finish();
    writer.Keep();
  }
  std::string Content() const { return ReadAll(file_); }
  // In place: the file stays the one it was.
  void Replace(const std::string& content) const {
    std::ofstream(file_, std::ios::binary | std::ios::trunc) << content;
  }
  // This machine's record of the material.
  static fs::path Record() {
    std::vector<fs::path> records;
    for (const auto& entry : fs::directory_iterator(MaterialRecords()))
      records.push_back(entry.path());
    EXPECT_EQ(records.size(), 1u);
    return records.empty() ? fs::path() : records.front();
  }
  // With another header, whose digest is right.
  void Forge(const std::function<void(json&)>& edit) const {
    const std::string whole = Content();
    std::size_t length = 0;
    for (std::size_t i = 0; i < 8; ++i)
      length |= static_cast<std::size_t>(static_cast<std::uint8_t>(whole[kHeaderAt + i])) << 8 * i;
    auto header = json::parse(whole.substr(kHeaderAt + 8, length));
    edit(header);
    const std::string text = header.dump();
    std::string number;
    for (std::size_t i = 0; i < 8; ++i) number += static_cast<char>(text.size() >> 8 * i & 0xff);
    Replace(whole.substr(0, kHeaderAt) + number + text + crypto::Sha256Hex(text) +
            whole.substr(kHeaderAt + 8 + length + 64));
  }
  // Uses up everything.
  void UseAll() const {
    MaterialFile material(file_);
    material.Model();
    while (material.Next() < kQueries) material.Take(material.Next());
  }
  ScratchDirectory directory_;
  std::filesystem::path file_;
};

TEST_F(Material, ComesBackAsWritten) {
  const auto header = Header();
  Write(header);
  struct stat status {};
  ASSERT_EQ(::stat(file_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  MaterialFile material(file_);
  EXPECT_EQ(material.Header().network, header.network);
  EXPECT_EQ(material.Header().suite, header.suite);
  EXPECT_EQ(material.Header().linear, header.linear);
  EXPECT_EQ(material.Header().roles, header.roles);
  EXPECT_EQ(material.Header().batch, header.batch);
  EXPECT_EQ(material.Header().queries, header.queries);
  EXPECT_EQ(material.Header().party, header.party);
  EXPECT_EQ(material.Header().plan_digest, header.plan_digest);
  EXPECT_EQ(material.Header().session, header.session);
  const auto model = material.Model();
  EXPECT_EQ(std::string(model.begin(), model.end()), "shares of the model");
  for (std::size_t q = 0; q < kQueries; ++q) EXPECT_EQ(material.Take(q), Secret(q));
}

TEST_F(Material, IsUsedOnceAndLeavesNothing) {
  Write();
  {
    MaterialFile material(file_);
    EXPECT_EQ(material.Take(0), Secret(0));
    // It is gone while the taker still runs, whatever becomes of it.
    EXPECT_EQ(Content().find("secret material of query 0"), std::string::npos);
    EXPECT_NE(Content().find("secret material of query 1"), std::string::npos);
    EXPECT_NE(Content().find("shares of the model"), std::string::npos);
    ExpectConfigError([&] { material.Take(0); }, file_, "query 0 is used already");
  }
  MaterialFile material(file_);
  EXPECT_EQ(material.Next(), 1u);
  ExpectConfigError([&] { material.Take(0); }, file_, "query 0 is used already");
  EXPECT_EQ(material.Take(2), Secret(2));
  EXPECT_EQ(Content().find("secret material"), std::string::npos) << "query 1 was skipped";
  EXPECT_EQ(Content().find("shares"), std::string::npos) << "of no use without a query";
  ExpectConfigError([&] { material.Model(); }, file_, "all of its 3 queries are used up");
  ExpectConfigError([&] { material.Take(1); }, file_, "query 1 is used already");
  ExpectConfigError([&] { material.Take(3); }, file_, "all of its 3 queries are used up");
}

TEST_F(Material, IsNeverOverwritten) {
  Write();
  const std::string before = Content();
  ExpectConfigError([&] { Write(); }, file_, "exists already");
  EXPECT_EQ(Content(), before);
  ExpectConfigError([&] { MaterialWriter(directory_.Path() / "no/such", Header()); },
                    directory_.Path() / "no/such", "cannot be written");
}

// Every byte that was secret is zero in the end, whichever way the queries went.
TEST_F(Material, LeavesNoByte) {
  Write();
  std::string expected = Content();
  const auto blank = [&](const std::string& secret) {
    const auto at = expected.find(secret);
    ASSERT_NE(at, std::string::npos);
    expected.replace(at, secret.size(), secret.size(), '\0');
    // Its state, before its length.
    expected[at - 16] = 2;
  };
  blank("shares of the model");
  for (std::size_t q = 0; q < kQueries; ++q) blank(fmt::format("secret material of query {}", q));
  {
    MaterialFile material(file_);
    material.Take(0);
    material.Skip(kQueries);
    EXPECT_EQ(material.Next(), kQueries);
  }
  EXPECT_EQ(Content(), expected);
}

// A process that dies between the mark and the zeros leaves the rest to the next one.
TEST_F(Material, IsErasedAfterACrash) {
  Write();
  std::string marked = Content();
  marked[marked.find("secret material of query 1") - 16] = 1;
  Replace(marked);
  MaterialFile material(file_);
  EXPECT_EQ(material.Next(), 2u);
  EXPECT_THAT(Content(), testing::Not(testing::HasSubstr("secret material of query 0")));
  EXPECT_THAT(Content(), testing::Not(testing::HasSubstr("secret material of query 1")));
  EXPECT_EQ(material.Take(2), Secret(2));
}

TEST_F(Material, IsRemovedUnlessKept) {
  {
    MaterialWriter writer(file_, Header());
    writer.AddModel({});
    writer.AddQuery(Secret(0));
    EXPECT_THROW(writer.Flush(), InternalError);
    EXPECT_THROW(writer.Finish(), InternalError);
    ExpectConfigError([&] { MaterialFile{file_}; }, file_, "unfinished");
  }
  EXPECT_FALSE(fs::exists(file_));
  // Finished, but another party was not.
  {
    MaterialWriter writer(file_, Header());
    Fill(writer);
    writer.Flush();
    ExpectConfigError([&] { MaterialFile{file_}; }, file_, "unfinished");
    writer.Finish();
  }
  EXPECT_FALSE(fs::exists(file_));
  EXPECT_TRUE(fs::is_empty(MaterialRecords()));
}

// The fields of a header whose digest is right: each is checked when it is read.
TEST_F(Material, IsRefusedByAnyFieldOutOfRange) {
  const struct {
    const char* field;
    json value;
    const char* place;
    const char* text;
  } cases[] = {
      {"roles", {3, 0, 1, 0}, "/roles/0", "found 3, expected a party's number"},
      {"roles", {2, 0, 1, -1}, "/roles/3", "found -1, expected a party's number"},
      {"roles", {2, 0, 1'000'000'000, 0}, "/roles/2", "expected a party's number"},
      {"roles", {2, 0, 1}, "/roles", "expected four parties"},
      {"roles", {2, 0, 1, 0, 0}, "/roles", "expected four parties"},
      {"roles", "2010", "/roles", "expected four parties"},
      {"roles", {2, 0, 1, 0.5}, "/roles/3", "expected a party's number"},
      {"party", 3, "/party", "found 3, expected a party's number"},
      {"party", -1, "/party", "expected a party's number"},
      {"batch", 0, "/batch", "found 0, expected a number of images from 1 to 4096"},
      {"batch", 4097, "/batch", "expected a number of images"},
      {"batch", -1, "/batch", "expected a number of images"},
      {"batch", 1e300, "/batch", "expected a number of images"},
      {"batch", true, "/batch", "expected a number of images"},
      {"queries", 0, "/queries", "expected a number of queries"},
      {"queries", 1'000'001, "/queries", "expected a number of queries"},
      {"suite", "", "/suite", "expected a suite"},
      {"suite", std::string(1025, 'x'), "/suite", "expected a suite"},
      {"linear", "", "/linear", "expected a protocol of linear layers"},
      {"network", 7, "/network", "expected a network"},
      {"plan_digest", "abc", "/plan_digest", "expected a SHA-256"},
      {"session", std::string(33, 'a'), "/session", "expected 32 hex digits"},
      {"session", std::string(32, '/'), "/session", "expected 32 hex digits"},
  };
  Write();
  const std::string whole = Content();
  for (const auto& [field, value, place, text] : cases) {
    Replace(whole);
    Forge([&, f = field, v = value](json& header) { header[f] = v; });
    ExpectConfigError([&] { MaterialFile{file_}; }, file_.string() + " header " + place, text);
  }
  Replace(whole);
  Forge([](json& header) { header.erase("roles"); });
  ExpectConfigError([&] { MaterialFile{file_}; }, file_.string() + " header",
                    "missing key 'roles'");
  Replace(whole);
  Forge([](json& header) { header["more"] = 1; });
  ExpectConfigError([&] { MaterialFile{file_}; }, file_.string() + " header", "unknown key 'more'");
  // Fewer queries than there are, and more.
  for (const std::size_t queries : {kQueries - 1, kQueries + 1}) {
    Replace(whole);
    Forge([&](json& header) { header["queries"] = queries; });
    EXPECT_THROW(MaterialFile{file_}, ConfigError) << queries;
  }
}

// --- Copies.

TEST_F(Material, ACopyIsRefused) {
  Write();
  const auto copy = directory_.Path() / "copy";
  fs::copy_file(file_, copy);
  ExpectConfigError(
      [&] { MaterialFile{copy}; }, copy,
      "is a copy, or was moved: the material of this session was bound to " + file_.string());
  ExpectConfigError(
      [&] { MaterialFile(copy, MaterialPlace::kMoved); }, copy,
      "is a copy: the material that was bound to " + file_.string() + " is still there");
  EXPECT_EQ(MaterialFile(file_).Take(0), Secret(0));
}

TEST_F(Material, AFileKeepsItsPlaceWhenRenamed) {
  Write();
  const auto other = directory_.Path() / "other";
  fs::rename(file_, other);
  EXPECT_EQ(MaterialFile(other).Take(0), Secret(0));
}

TEST_F(Material, IsBoundToWhereItWasMoved) {
  Write();
  MaterialFile(file_).Take(0);
  const auto moved = directory_.Path() / "moved", kept = directory_.Path() / "kept";
  fs::copy_file(file_, moved);
  fs::copy_file(file_, kept);
  fs::remove(file_);
  EXPECT_EQ(MaterialFile(moved, MaterialPlace::kMoved).Take(1), Secret(1));
  EXPECT_EQ(MaterialFile(moved).Next(), 2u);
  // A copy that was kept is one of the file that was moved.
  ExpectConfigError([&] { MaterialFile{kept}; }, kept, "was bound to " + moved.string());
  fs::remove(moved);
  // And what was used is not to be had again by moving it.
  MaterialFile last(kept, MaterialPlace::kMoved);
  EXPECT_EQ(last.Next(), 2u);
  EXPECT_THAT(ReadAll(kept), testing::Not(testing::HasSubstr("secret material of query 1")));
}

// From a backup, say, onto itself.
TEST_F(Material, AnOlderStateGivesNothingBack) {
  Write();
  const std::string before = Content();
  MaterialFile(file_).Take(1);
  Replace(before);
  {
    MaterialFile material(file_);
    EXPECT_EQ(material.Next(), 2u);
    ExpectConfigError([&] { material.Take(0); }, file_, "query 0 is used already");
    EXPECT_EQ(material.Take(2), Secret(2));
  }
  Replace(before);
  MaterialFile material(file_);
  EXPECT_EQ(material.Next(), kQueries);
  EXPECT_EQ(Content().find("secret"), std::string::npos);
  EXPECT_EQ(Content().find("shares"), std::string::npos);
}

TEST_F(Material, IsRefusedOnAMachineThatDoesNotKnowIt) {
  Write();
  fs::remove(Record());
  ExpectConfigError([&] { MaterialFile{file_}; }, file_, "is not known to this machine");
  EXPECT_TRUE(fs::is_empty(MaterialRecords()));
  EXPECT_EQ(MaterialFile(file_, MaterialPlace::kMoved).Take(0), Secret(0));
  EXPECT_EQ(MaterialFile(file_).Next(), 1u);
}

TEST_F(Material, IsNotReplacedByOtherParts) {
  Write();
  Forge([](json& header) { header["batch"] = 6; });
  ExpectConfigError([&] { MaterialFile{file_}; }, file_, "is not what was made here");
}

// What belongs to another query, party or session, though nothing in it is damaged: also where no
// record tells what was made.
TEST_F(Material, APartIsForItsPlaceAlone) {
  Write();
  const std::string whole = Content();
  const std::size_t part = Secret(0).size() + 64, first = whole.find("secret material of query 0"),
                    second = whole.find("secret material of query 1");
  ASSERT_EQ(second, first + part + 16);
  std::string swapped = whole;
  swapped.replace(first, part, whole, second, part).replace(second, part, whole, first, part);
  const auto moved = [&] {
    fs::remove(Record());
    return MaterialFile(file_, MaterialPlace::kMoved);
  };
  Replace(swapped);
  for (const auto place : {MaterialPlace::kWhereMade, MaterialPlace::kMoved})
    ExpectConfigError([&] { MaterialFile(file_, place); }, file_, "is not what was made here");
  {
    auto material = moved();
    ExpectConfigError([&] { material.Take(0); }, file_, "the digest of query 0 is wrong");
    ExpectConfigError([&] { material.Take(1); }, file_, "the digest of query 1 is wrong");
    EXPECT_EQ(material.Take(2), Secret(2));
  }
  const std::vector<std::pair<const char*, json>> others{{"party", 0},
                                                         {"session", NewMaterialSession()}};
  for (const auto& [field, other] : others) {
    Replace(whole);
    Forge([&, &field = field, &other = other](json& header) { header[field] = other; });
    auto material = moved();
    ExpectConfigError([&] { material.Model(); }, file_, "digest of the model's shares is wrong");
    ExpectConfigError([&] { material.Take(0); }, file_, "the digest of query 0 is wrong");
  }
}

TEST_F(Material, ADamagedRecordIsNamed) {
  Write();
  const auto record = Record();
  const std::string whole = ReadAll(record);
  for (const std::string& text :
       {std::string("rubbish"), whole.substr(0, 20), std::string(R"({"next": 1})"),
        std::string(R"({"file": "x", "content": "y", "path": "", "next": -1})")}) {
    std::ofstream(record, std::ios::trunc) << text;
    EXPECT_THROW(
        {
          try {
            MaterialFile{file_};
          } catch (const ConfigError& e) {
            EXPECT_THAT(e.Place(), testing::HasSubstr(record.string()));
            throw;
          }
        },
        ConfigError)
        << text;
  }
  // One that has more queries than the file.
  auto more = json::parse(whole);
  more["next"] = kQueries + 1;
  std::ofstream(record, std::ios::trunc) << more.dump();
  ExpectConfigError([&] { MaterialFile{file_}; }, file_, "of which 4 are used");
}

// Two copies at once, whatever their names: the record is held as long as the file.
TEST_F(Material, TheRecordIsHeldTogetherWithTheFile) {
  Write();
  const auto record = Record();
  const auto copy = directory_.Path() / "copy";
  fs::copy_file(file_, copy);
  const MaterialFile first(file_);
  ExpectConfigError([&] { MaterialFile(copy, MaterialPlace::kMoved); }, record,
                    "in use by another process");
}

TEST_F(Material, NeedsAPlaceForItsRecord) {
  ::setenv("XDG_STATE_HOME", "/dev/null/no", 1);
  EXPECT_THROW(Write(), ConfigError);
  EXPECT_FALSE(fs::exists(file_));
  const std::string home = std::getenv("HOME") != nullptr ? std::getenv("HOME") : "";
  ::setenv("XDG_STATE_HOME", "relative", 1);
  ::setenv("HOME", directory_.Path().c_str(), 1);
  EXPECT_EQ(MaterialRecords(), directory_.Path() / ".local/state/tercet/material");
  ::unsetenv("HOME");
  ExpectConfigError([] { MaterialRecords(); }, "XDG_STATE_HOME", "neither it nor HOME");
  ::setenv("HOME", home.c_str(), 1);
}

TEST_F(Material, IsForOneProcessAndOneUser) {
  Write();
  {
    const MaterialFile first(file_);
    ExpectConfigError([&] { MaterialFile{file_}; }, file_, "in use");
  }
  ::chmod(file_.c_str(), 0640);
  ExpectConfigError([&] { MaterialFile{file_}; }, file_, "has mode 640, expected 600");
  ExpectConfigError([&] { MaterialFile{directory_.Path() / "none"}; }, directory_.Path() / "none",
                    "cannot be opened");
}

TEST_F(Material, IsRefusedWhereverItIsCutOff) {
  Write();
  const std::string whole = Content();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    Replace(whole.substr(0, size));
    EXPECT_THROW(MaterialFile{file_}, ConfigError) << size << " of " << whole.size() << " bytes";
  }
  Replace(whole + "x");
  ExpectConfigError([&] { MaterialFile{file_}; }, file_, "1 bytes after its end");
}

TEST_F(Material, IsRefusedWhereverABitIsFlipped) {
  Write();
  const std::string whole = Content(), record = ReadAll(Record());
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    Replace(damaged);
    std::ofstream(Record(), std::ios::trunc) << record;  // as if nothing had been used
    EXPECT_THROW(UseAll(), ConfigError) << "byte " << at;
  }
}

TEST_F(Material, ADamagedQueryIsSkipped) {
  Write();
  std::string damaged = Content();
  damaged[damaged.find("secret material of query 0")] ^= 1;
  Replace(damaged);
  MaterialFile material(file_);
  ExpectConfigError([&] { material.Take(0); }, file_, "digest of query 0 is wrong");
  EXPECT_EQ(material.Next(), 1u);
  EXPECT_EQ(material.Take(1), Secret(1));
}

}  // namespace
}  // namespace tercet::infer
