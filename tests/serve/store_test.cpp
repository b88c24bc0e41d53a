// SPDX-License-Identifier: Apache-2.0
#include "serve/store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/scratch.h"

namespace tercet::serve {
namespace {

using Admission = Store::Admission;
constexpr std::uint64_t kNow = 1'800'000'000'000;

class Stores : public testing::Test {
 protected:
  std::string Add(Store& store, const Allowance& allowance) {
    auto token = Store::NewToken();
    store.AddToken(allowance, token);
    return token;
  }
  ScratchDirectory scratch_;
};

TEST_F(Stores, KnowTokensByTheirHash) {
  Store store(scratch_.Path());
  const auto token = Add(store, {.name = "alice"});
  EXPECT_EQ(store.Admit(token, 5, kNow), Admission::kAdmitted);
  EXPECT_EQ(store.Admit("", 1, kNow), Admission::kUnknown);
  EXPECT_EQ(store.Admit(token + "0", 1, kNow), Admission::kUnknown);
  EXPECT_EQ(store.HolderOf(token), Store::Holder::kClient);
  EXPECT_EQ(store.HolderOf("none"), Store::Holder::kUnknown);
  EXPECT_EQ(store.HolderOf(Add(store, {.name = "op", .is_operator = true})),
            Store::Holder::kOperator);
  ExpectConfigError([&] { store.AddToken({.name = "alice"}, "other"); }, "--add", "is there");
  EXPECT_EQ(store.Tokens().at(0).used, 5U);
  for (const auto& file : std::filesystem::directory_iterator(scratch_.Path())) {
    std::ifstream stream(file.path(), std::ios::binary);
    const std::string bytes(std::istreambuf_iterator<char>(stream), {});
    EXPECT_EQ(bytes.find(token), std::string::npos) << file.path();
    struct stat status {};
    ASSERT_EQ(::stat(file.path().c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0077U, 0U) << file.path();
  }
  EXPECT_TRUE(store.RemoveToken("alice"));
  EXPECT_FALSE(store.RemoveToken("alice"));
  EXPECT_EQ(store.Admit(token, 1, kNow), Admission::kUnknown);
}

TEST_F(Stores, CountTheTotal) {
  Store store(scratch_.Path());
  const auto token = Add(store, {.name = "alice", .total = 10});
  EXPECT_EQ(store.Admit(token, 11, kNow), Admission::kSpent);
  EXPECT_EQ(store.Admit(token, 8, kNow), Admission::kAdmitted);
  EXPECT_EQ(store.Admit(token, 3, kNow), Admission::kSpent);
  EXPECT_EQ(store.Admit(token, 2, kNow), Admission::kAdmitted);
  EXPECT_EQ(store.Admit(token, 1, kNow), Admission::kSpent);
}

TEST_F(Stores, HoldTheRate) {
  Store store(scratch_.Path());
  const auto token = Add(store, {.name = "alice", .rate = 2});
  std::uint64_t admitted = 0;
  while (store.Admit(token, 1, kNow) == Admission::kAdmitted) ++admitted;
  EXPECT_EQ(admitted, 20U);  // what ten seconds give
  EXPECT_EQ(store.Admit(token, 1, kNow + 499), Admission::kTooFast);
  EXPECT_EQ(store.Admit(token, 1, kNow + 500), Admission::kAdmitted);
  EXPECT_EQ(store.Admit(token, 1, kNow + 500), Admission::kTooFast);
  EXPECT_EQ(store.Admit(token, 1, kNow - 1'000'000), Admission::kTooFast);  // a clock put back
}

TEST_F(Stores, SeeANumberOnce) {
  Store store(scratch_.Path());
  const service::QueryId id{1}, other{2};
  EXPECT_TRUE(store.Remember(id, kNow + 1000, kNow));
  EXPECT_FALSE(store.Remember(id, kNow + 1000, kNow));
  EXPECT_TRUE(store.Remember(other, kNow + 100'000, kNow));
  // Forgotten when its time lets it pass no more; not before.
  EXPECT_FALSE(store.Remember(other, kNow + 100'000, kNow + 50'000));
  EXPECT_TRUE(store.Remember(id, kNow + 1000, kNow + 70'000));
}

// What was counted and seen is there after kill -9, without a word of farewell.
TEST_F(Stores, SurviveBeingKilled) {
  const auto token = Store::NewToken();
  const service::QueryId id{7};
  const pid_t child = ::fork();
  if (child == 0) {
    Store store(scratch_.Path());
    store.AddToken({.name = "alice", .total = 10}, token);
    store.Admit(token, 9, kNow);
    store.Remember(id, kNow + 1000, kNow);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  Store store(scratch_.Path());
  EXPECT_EQ(store.Admit(token, 2, kNow), Admission::kSpent);
  EXPECT_EQ(store.Admit(token, 1, kNow), Admission::kAdmitted);
  EXPECT_FALSE(store.Remember(id, kNow + 1000, kNow));
}

TEST_F(Stores, ThatAreNoneAreRefusedByName) {
  scratch_.Write("service.db", std::string(5000, 'x'));
  ExpectConfigError([&] { Store store(scratch_.Path()); },
                    (scratch_.Path() / "service.db").string(), "is no store");
}

TEST(StoreLock, KeepsOthersFromServing) {
  const ScratchDirectory scratch;
  {
    const StoreLock mine(scratch.Path());
    ExpectConfigError([&] { const StoreLock other(scratch.Path()); },
                      (scratch.Path() / "serve.lock").string(), "another process serves");
    Store store(scratch.Path());  // tokens may be changed meanwhile
  }
  EXPECT_NO_THROW(const StoreLock again(scratch.Path()));
  ExpectConfigError([&] { const StoreLock other(scratch.Path() / "none"); },
                    (scratch.Path() / "none/serve.lock").string(), "cannot be opened");
}

}  // namespace
}  // namespace tercet::serve
