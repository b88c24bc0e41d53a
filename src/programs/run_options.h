// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>

#include "base/clock.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "tercet/infer/plan.h"
#include "tercet/infer/schedule.h"
#include "tercet/infer/session.h"
#include "tercet/infer/testbed.h"

namespace tercet::programs {

/// What a run is told, on the command lines of `tercet run` and of `tercet-party`, and by the first
/// to the second.
struct RunOptions {
  std::filesystem::path network, images, labels;
  ModelSource model;
  std::string suite = "lut", linear = kByRoles, optimise = "online", link = "none";
  std::size_t batch = kDefaultBatch, limit = 0;
  bool suite_given = false, batch_given = false;
  std::size_t ahead = 0, in_flight = 1, queries = 0;
  bool helper_leaves = false, rotate_helper = false;
  /// A party's files; directories of all three for `tercet run`.
  std::filesystem::path material, material_out;
  bool material_moved = false;

  bool MakesMaterial() const { return !material_out.empty(); }
  bool UsesMaterial() const { return !material.empty(); }
  infer::MaterialPlace Place() const {
    return material_moved ? infer::MaterialPlace::kMoved : infer::MaterialPlace::kWhereMade;
  }
  /// `file`: the party's material, where it uses some; null where only costs are asked for.
  infer::Schedule Schedule(infer::MaterialFile* file = nullptr) const;
  /// What a session needs of all this; model, images and callbacks are the caller's.
  infer::SessionSettings Settings(int id, const nn::NetworkSpec& spec,
                                  const mpc::SuiteChoice& choice, const mpc::Roles& roles,
                                  infer::MaterialFile* file) const;
};

/// JSON text of all fields, and back. Reading throws ConfigError (`place`).
std::string ToJson(const RunOptions& options);
RunOptions RunOptionsFromJson(const std::string& text, const std::string& place);

/// --ahead, --helper-leaves, --rotate-helper, --queries, --material-out, --material and
/// --material-moved, which exclude each other as the alternatives of infer::Schedule do, and
/// --in-flight. Returns --material-out.
CLI::Option* AddSchedule(CLI::App& app, RunOptions& options, const std::string& out_help,
                         const std::string& use_help);

/// What a run of all three parties on this machine is told besides.
struct RunSettings : RunOptions {
  std::string transport = "tls";
  double timeout_s = 30;
  double stall_timeout_s = Seconds(infer::kStallTimeout);
  bool no_check = false;
  RoleOptions roles;

  /// What the machine's memory is asked for: a warning where it is scarce, an Error where it is not
  /// there.
  std::optional<std::string> CheckMemory(const infer::Plan& plan, const mpc::Registry& registry,
                                         const mpc::SuiteChoice& choice,
                                         std::size_t image_count) const;
};

/// The options of all that but the schedule.
void AddRunSettings(CLI::App& app, RunSettings& settings);

/// --batch, --suite and --linear; remembers whether the first two were given.
void AddBatchAndSuite(CLI::App& app, RunOptions& options, const std::string& batch_help,
                      const std::string& suite_help);

}  // namespace tercet::programs
