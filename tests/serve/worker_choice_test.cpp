// SPDX-License-Identifier: Apache-2.0
#include "serve/worker_choice.h"

#include <gtest/gtest.h>

#include <map>

#include "base/scratch.h"

namespace tercet::serve {
namespace {

using Environment = std::map<std::string, std::string>;

service::Deployment Divided(const std::vector<service::Lanes>& workers) {
  service::Deployment deployment;
  deployment.lanes = 6;
  for (auto& server : deployment.servers)
    for (const auto& lanes : workers) server.workers.emplace_back().lanes = lanes;
  return deployment;
}

const service::Deployment& TwoWorkers() {
  static const service::Deployment deployment = Divided({{0, 1, 2}, {3, 4, 5}});
  return deployment;
}

std::size_t Choose(const std::string& lanes, const Environment& environment = {},
                   const service::Deployment& deployment = TwoWorkers()) {
  return ChooseWorker(lanes, deployment, [&](const char* name) {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

void Refused(const std::string& lanes, const Environment& environment, const std::string& place,
             const std::string& text) {
  ExpectConfigError([&] { Choose(lanes, environment); }, place, text);
}

TEST(ChooseWorker, TakesTheOneWithTheseLanes) {
  EXPECT_EQ(Choose("0-2"), 0U);
  EXPECT_EQ(Choose("5,3,4"), 1U);
  EXPECT_EQ(Choose("3-5", {{"SLURM_PROCID", "0"}}), 1U);  // who says it means it
  Refused("0-1", {}, "--lanes", "0-1 found, but the deployment has workers with 0-2 and 3-5");
  Refused("3-6", {}, "--lanes", "from 0 to 5");
  Refused("all", {}, "--lanes", "from 0 to 5");
}

TEST(ChooseWorker, NeedsNothingWhereThereIsOne) {
  const auto one = Divided({{0, 1, 2, 3, 4, 5}});
  EXPECT_EQ(Choose("", {}, one), 0U);
  EXPECT_EQ(Choose("", {{"SLURM_PROCID", "4"}}, one), 0U);  // the engine starts something else
  EXPECT_EQ(Choose("0-5", {}, one), 0U);
  EXPECT_EQ(Choose("auto", {{"SLURM_PROCID", "0"}}, one), 0U);
  EXPECT_THROW(Choose("auto", {{"SLURM_PROCID", "1"}}, one), ConfigError);
}

TEST(ChooseWorker, AsksTheEnvironment) {
  for (const char* variable : kRankVariables)
    for (const char* lanes : {"", "auto"}) {
      EXPECT_EQ(Choose(lanes, {{variable, "0"}}), 0U);
      EXPECT_EQ(Choose(lanes, {{variable, "1"}}), 1U);
      for (const char* wrong : {"2", "-1", "", "1x", " 1", "99999999999999999999"})
        Refused(lanes, {{variable, wrong}}, variable, "a worker of the deployment, 0 to 1");
    }
}

TEST(ChooseWorker, RefusesAnEnvironmentThatSaysNothingOrTwoThings) {
  Refused("", {}, "--lanes", "none of SLURM_PROCID, OMPI_COMM_WORLD_RANK, JOB_COMPLETION_INDEX");
  Refused("auto", {{"OTHER", "1"}}, "--lanes", "none of SLURM_PROCID");
  const Environment differ{{"SLURM_PROCID", "0"}, {"OMPI_COMM_WORLD_RANK", "1"}};
  Refused("auto", differ, "OMPI_COMM_WORLD_RANK", "1 found, but SLURM_PROCID is 0");
  Refused("", differ, "OMPI_COMM_WORLD_RANK", "1 found, but SLURM_PROCID is 0");
  const Environment agree{{"SLURM_PROCID", "1"}, {"JOB_COMPLETION_INDEX", "1"}};
  EXPECT_EQ(Choose("auto", agree), 1U);
  Refused("", agree, "--lanes", "SLURM_PROCID and JOB_COMPLETION_INDEX are both set");
}

}  // namespace
}  // namespace tercet::serve
