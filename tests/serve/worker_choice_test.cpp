// SPDX-License-Identifier: Apache-2.0
#include "serve/worker_choice.h"

#include <gtest/gtest.h>

#include <map>

#include "base/scratch.h"

namespace tercet::serve {
namespace {

using Variables = std::map<std::string, std::string>;

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

std::size_t Choose(const std::string& lanes, const Variables& environment = {},
                   const service::Deployment& deployment = TwoWorkers()) {
  return ChooseWorker(lanes, deployment, [&](const char* name) {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

void Refused(const std::string& lanes, const Variables& environment, const std::string& place,
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

TEST(ChooseWorker, AsksTheEngine) {
  for (const char* lanes : {"", "auto"}) {
    EXPECT_EQ(Choose(lanes, {{"SLURM_PROCID", "0"}}), 0U);
    EXPECT_EQ(Choose(lanes, {{"SLURM_PROCID", "1"}}), 1U);
    EXPECT_EQ(Choose(lanes, {{"SLURM_PROCID", "0"}, {"OMPI_COMM_WORLD_RANK", "1"}}), 1U);
    Refused(lanes, {{"SLURM_PROCID", "2"}}, "SLURM_PROCID",
            "2 found, expected the number of a worker of the deployment, 0 to 1");
    Refused(lanes, {{"SLURM_PROCID", "x"}}, "SLURM_PROCID", "a whole number");
    Refused(lanes, {{"OTHER", "1"}}, "--lanes",
            "none of OMPI_COMM_WORLD_RANK, SLURM_PROCID and JOB_COMPLETION_INDEX");
  }
}

}  // namespace
}  // namespace tercet::serve
