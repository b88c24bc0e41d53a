// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "programs/anonymous_file.h"
#include "programs/bench_options.h"
#include "programs/bench_results.h"
#include "programs/build_identity.h"
#include "tercet/mpc/registry.h"
#include "tercet/mpc/suite.h"
#include "tercet/nn/integer_network.h"
#include "tercet/report/run_report.h"

/// Where the runs of `tercet bench` take place.
namespace tercet::programs {

/// A network of a bench, ready to run.
struct BenchSubject {
  const BenchNetwork& from;
  const nn::NetworkSpec& spec;
  const nn::IntegerNetwork& model;
  const AnonymousFile& compiled;  ///< the model as a file
};

/// One thread at a time.
class BenchMachines {
 public:
  BenchMachines() = default;
  BenchMachines(const BenchMachines&) = delete;
  BenchMachines& operator=(const BenchMachines&) = delete;
  virtual ~BenchMachines() = default;

  /// What the parties are: of them, version, commit and build are those of the figures.
  virtual BuildIdentity Identity() const = 0;
  virtual std::string Transport() const = 0;
  virtual mpc::Roles Roles() const = 0;
  /// One run of a row's setting, whose bytes and hops are compared with the plan; `check`: and the
  /// logits with the plain network. Throws Error with the run's own reason, StoppedBySignal when a
  /// signal came.
  virtual report::RunReport Run(const BenchRow& row, const BenchSubject& subject, bool check) = 0;
};

/// Three processes or threads here, as `tercet run` starts them. `options` must stay.
std::unique_ptr<BenchMachines> ThisMachine(const BenchOptions& options);

/// The parties of a testbed file, each started by `shell`, a program with its arguments, which is
/// given a login and a command for it. Asks all three what they are: ConfigError where they are not
/// of this program's version and commit, which they must be to take the same orders and to be
/// compared with its plan. `options` and `registry` must stay.
std::unique_ptr<BenchMachines> TestbedMachines(const std::filesystem::path& file,
                                               const std::string& shell,
                                               const BenchOptions& options,
                                               const mpc::Registry& registry);

}  // namespace tercet::programs
