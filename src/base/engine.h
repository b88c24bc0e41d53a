// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>

/// Engines that start processes say in the environment which of them each is.
namespace tercet {

/// Finds a variable of the environment; null where there is none.
using Environment = std::function<const char*(const char* name)>;

/// What an engine says.
struct EngineRank {
  const char* index_variable = nullptr;
  const char* count_variable = nullptr;  ///< null: the engine has none
  std::size_t index = 0;
  std::optional<std::size_t> count;  ///< of processes
};

/// Of Open MPI, Slurm and Kubernetes (indexed jobs) the first whose variable is set: mpirun may run
/// in a job of Slurm, and either in a container. Nothing where none is. ConfigError (the variable)
/// for a value that is no whole number.
std::optional<EngineRank> RankByEngine(const Environment& environment);

/// "OMPI_COMM_WORLD_RANK, SLURM_PROCID and JOB_COMPLETION_INDEX".
std::string EngineVariables();

}  // namespace tercet
