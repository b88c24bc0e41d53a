// SPDX-License-Identifier: Apache-2.0
#include "base/engine.h"

#include <gtest/gtest.h>

#include <map>

#include "base/scratch.h"

namespace tercet {
namespace {

std::optional<EngineRank> Rank(const std::map<std::string, std::string>& variables) {
  return RankByEngine([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(RankByEngine, IsOfTheFirstEngineThatSaysOne) {
  EXPECT_FALSE(Rank({}));
  EXPECT_FALSE(Rank({{"SLURM_NTASKS", "3"}}));
  auto rank = Rank({{"JOB_COMPLETION_INDEX", "4"}});
  EXPECT_EQ(rank->index, 4U);
  EXPECT_EQ(rank->count, std::nullopt);
  rank = Rank({{"JOB_COMPLETION_INDEX", "4"}, {"SLURM_PROCID", "1"}});
  EXPECT_EQ(rank->index, 1U);
  EXPECT_EQ(rank->count, std::nullopt);
  EXPECT_STREQ(rank->count_variable, "SLURM_NTASKS");
  rank = Rank({{"SLURM_PROCID", "1"},
               {"SLURM_NTASKS", "2"},
               {"OMPI_COMM_WORLD_RANK", "6"},
               {"OMPI_COMM_WORLD_SIZE", "7"}});
  EXPECT_STREQ(rank->index_variable, "OMPI_COMM_WORLD_RANK");
  EXPECT_EQ(rank->index, 6U);
  EXPECT_EQ(rank->count, 7U);
}

TEST(RankByEngine, RefusesWhatIsNoWholeNumber) {
  for (const char* wrong : {"-1", "", "1x", " 1", "99999999999999999999"}) {
    ExpectConfigError(
        [&] {
          Rank({{"OMPI_COMM_WORLD_RANK", wrong}});
        },
        "OMPI_COMM_WORLD_RANK", "a whole number expected");
    ExpectConfigError(
        [&] {
          Rank({{"SLURM_PROCID", "1"}, {"SLURM_NTASKS", wrong}});
        },
        "SLURM_NTASKS", "a whole number expected");
  }
}

}  // namespace
}  // namespace tercet
