// SPDX-License-Identifier: Apache-2.0
#include "net/resolver.h"

#include <gtest/gtest.h>

#include <asio/executor_work_guard.hpp>
#include <memory>
#include <optional>

namespace tercet::net {
namespace {

class ResolverTest : public testing::Test {
 protected:
  // Runs until the look-up has come to something.
  std::error_code Find(const std::string& host, std::uint16_t port) {
    std::optional<std::error_code> result;
    resolver_.Resolve(host, port, false,
                      [&](const std::error_code& error, const Resolver::Addresses& addresses) {
                        result = error;
                        found_ = addresses;
                      });
    while (!result) io_.run_one();
    return *result;
  }

  asio::io_context io_;
  asio::executor_work_guard<asio::io_context::executor_type> work_ = asio::make_work_guard(io_);
  Resolver resolver_{io_};
  Resolver::Addresses found_;
};

TEST_F(ResolverTest, FindsEachAddressOnce) {
  EXPECT_FALSE(Find("localhost", 80));
  ASSERT_FALSE(found_.empty());
  for (std::size_t i = 0; i < found_.size(); ++i) {
    EXPECT_TRUE(found_[i].address().is_loopback());
    EXPECT_EQ(found_[i].port(), 80);
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(found_[i], found_[j]);
  }
}

TEST_F(ResolverTest, SaysWhyNot) {
  EXPECT_TRUE(Find("no host has a name with spaces", 80));
  EXPECT_TRUE(found_.empty());
}

// What is cancelled is not called, and what it holds is released at once; the resolver may go
// before its look-ups have come to something.
TEST_F(ResolverTest, NobodyWaitsForWhatIsCancelled) {
  const auto held = std::make_shared<int>(1);
  for (const bool destroy : {false, true}) {
    auto resolver = std::make_unique<Resolver>(io_);
    for (int i = 0; i < 20; ++i)
      resolver->Resolve("localhost", 80, false,
                        [held](const std::error_code&, const Resolver::Addresses&) {
                          ADD_FAILURE() << "called";
                        });
    EXPECT_EQ(held.use_count(), 21);
    destroy ? resolver.reset() : resolver->Cancel();
    EXPECT_EQ(held.use_count(), 1);
    EXPECT_FALSE(Find("localhost", 80));
  }
}

}  // namespace
}  // namespace tercet::net
