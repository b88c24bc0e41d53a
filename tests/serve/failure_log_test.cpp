// SPDX-License-Identifier: Apache-2.0
#include "serve/failure_log.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace tercet::serve {
namespace {

TEST(FailureLog, LeavesOutLinesAndCountsThem) {
  std::vector<std::string> lines;
  Clock::time_point now;
  FailureLog log([&](const std::string& line) { lines.push_back(line); }, [&] { return now; });
  for (std::size_t i = 0; i < FailureLog::kLines + 100; ++i) log.Say("full");
  EXPECT_EQ(lines, std::vector<std::string>(FailureLog::kLines, "full"));
  now += FailureLog::kWhile - Clock::duration(1);
  log.Say("full");
  EXPECT_EQ(lines.size(), FailureLog::kLines);
  now += Clock::duration(1);
  log.Say("full");
  log.Say("other");
  ASSERT_EQ(lines.size(), FailureLog::kLines + 2);
  EXPECT_EQ(lines[FailureLog::kLines], "full (101 such lines were left out before)");
  EXPECT_EQ(lines[FailureLog::kLines + 1], "other");
}

}  // namespace
}  // namespace tercet::serve
