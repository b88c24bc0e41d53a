// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <functional>
#include <string>

#include "tercet/service/deployment.h"

namespace tercet::serve {

/// Where engines that start processes say which one this is: Slurm, Open MPI, and Kubernetes.
inline constexpr std::array<const char*, 3> kRankVariables{"SLURM_PROCID", "OMPI_COMM_WORLD_RANK",
                                                           "JOB_COMPLETION_INDEX"};

/// Which of the deployment's workers this process is. `lanes` is --lanes: lanes in text, those of
/// one worker, and the environment does not count; "auto", the worker that the environment names;
/// or empty, the only worker, and of several the one that a single variable names. `environment`
/// gives a variable's value or null. ConfigError, which names the variable or the option, for lanes
/// of no worker, a value that is none or out of range, variables that differ, and no answer.
std::size_t ChooseWorker(const std::string& lanes, const service::Deployment& deployment,
                         const std::function<const char*(const char*)>& environment);

}  // namespace tercet::serve
