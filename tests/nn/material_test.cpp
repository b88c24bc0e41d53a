#include "tercet/nn/material.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "nn/scratch.h"

namespace tercet::nn {
namespace {

constexpr std::size_t kQueries = 3;

MaterialHeader Header() {
  MaterialHeader header;
  header.network = "{}";
  header.suite = "lut";
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
  Material() : file_(directory_.Path() / "party1.material") {}
  void Write(const MaterialHeader& header = Header()) const {
    MaterialWriter writer(file_, header);
    const std::string model = "shares of the model";
    writer.AddModel(Bytes(model.begin(), model.end()));
    for (std::size_t q = 0; q < kQueries; ++q) writer.AddQuery(Secret(q));
    writer.Finish();
  }
  std::string Content() const {
    std::ifstream stream(file_, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  void Replace(const std::string& content) const {
    std::ofstream(file_, std::ios::binary | std::ios::trunc) << content;
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
    ExpectConfigError([&] { material.Take(0); }, file_, "query 0 is used already");
  }
  MaterialFile material(file_);
  EXPECT_EQ(material.Next(), 1u);
  ExpectConfigError([&] { material.Take(0); }, file_, "query 0 is used already");
  EXPECT_EQ(material.Take(2), Secret(2));
  EXPECT_EQ(Content().find("secret material"), std::string::npos) << "query 1 was skipped";
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

TEST_F(Material, IsRemovedUnlessFinished) {
  {
    MaterialWriter writer(file_, Header());
    writer.AddQuery(Secret(0));
    EXPECT_THROW(writer.Finish(), InternalError);
    ExpectConfigError([&] { MaterialFile{file_}; }, file_, "unfinished");
  }
  EXPECT_FALSE(std::filesystem::exists(file_));
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
  const std::string whole = Content();
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    Replace(damaged);
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
}  // namespace tercet::nn
