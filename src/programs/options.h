// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tercet/infer/material.h"
#include "tercet/infer/session.h"
#include "tercet/mpc/suite.h"
#include "tercet/net/wrappers.h"

/// What the commands' options have in common. Every wrong value is a ConfigError whose place is the
/// option.
namespace tercet::programs {

struct ModelSource;

inline constexpr std::size_t kDefaultBatch = 128;
using infer::kMaxBatch;
using infer::kMaxImages;
using infer::kMaxQueries;

/// A word of a command line; of an option under its former name, which goes on to be taken and
/// which no help and no shell shows, that option's name.
std::string PresentName(const std::string& word);

/// A whole number from `min` to `max`; `value` holds the default and is written when the option is
/// given.
CLI::Option* AddNumber(CLI::App& app, const std::string& name, std::size_t& value, std::size_t min,
                       std::size_t max, const std::string& help);
/// Entries of a list: `text` is split at ',' and ';', but "key=value" continues an entry with
/// options that has not this key: "lut:form=bit,chunk=2,fss" has two, "rtt_ms=40,rtt_ms=80" too.
std::vector<std::string> SplitList(const std::string& text);
/// A list, written as SplitList says, or one entry each time that the option is given; what was in
/// `values` is its default.
CLI::Option* AddList(CLI::App& app, const std::string& name, std::vector<std::string>& values,
                     const std::string& help);
/// The same of whole numbers from `min` to `max`.
CLI::Option* AddNumbers(CLI::App& app, const std::string& name, std::vector<std::size_t>& values,
                        std::size_t min, std::size_t max, const std::string& help);
/// A number from `min` to `max`.
CLI::Option* AddReal(CLI::App& app, const std::string& name, double& value, double min, double max,
                     const std::string& help);
/// A party's number, 0, 1 or 2.
CLI::Option* AddParty(CLI::App& app, const std::string& name, std::optional<int>& value,
                      const std::string& help);

/// --helper, --data-owner, --model-owner, --receiver. What is not given follows from the helper.
struct RoleOptions {
  std::optional<int> helper, data_owner, model_owner, receiver;
  void AddTo(CLI::App& app);
  mpc::Roles Resolve() const;
};
/// Images to compile float weights with, and --accept-loss.
void AddCalibration(CLI::App& app, ModelSource& model);

inline constexpr const char* kPublicWeights = "--public-weights";
/// --linear: the protocol of the linear layers, kByRoles by default; and --public-weights, which is
/// mpc::kPublicLinear.
inline constexpr const char* kByRoles = "auto";
void AddLinear(CLI::App& app, std::string& linear);
/// What nn::PublicNetwork::linear says for it.
std::string LinearProtocol(const std::string& linear);
/// That of the material, which one that was given must be.
void TakeLinear(std::string& linear, const infer::MaterialFile& material);

/// A suite of the registry, or `auto`, of this option.
mpc::SuiteChoice ParseSuite(const std::string& text, const mpc::Registry& registry,
                            const char* option = "--suite");
/// A link, as net::ParseLinkProfile says, of this option.
net::LinkProfile ParseLink(const std::string& text, const char* option = "--link");
/// What --help and shells offer for these two: the names, which are not all values.
CLI::Option* OfferSuites(CLI::Option* option);
CLI::Option* OfferLinks(CLI::Option* option);

/// Parses the command line and runs the chosen command: its exit code. Help and version print to
/// stdout and give 0, a wrong command line throws ConfigError.
int ParseAndRun(CLI::App& app, int argc, char** argv, const std::function<int()>& run);

}  // namespace tercet::programs
