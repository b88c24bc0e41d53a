#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "tercet/infer/auto_plan.h"
#include "tercet/infer/material.h"
#include "tercet/nn/network.h"

/// Suite `auto` as the programs offer it: candidates of all registered private suites with what
/// they ask of a processor.
namespace tercet::programs {

/// The machine that the built-in figures are from; auto_suite.cpp says which one.
extern const infer::MachineModel kMachine;

/// The private suites with the options that can pay, in the order in which ties are broken. Every
/// private suite of the registry is among them; one without measured figures counts as `fss` does.
std::vector<infer::Candidate> AutoCandidates(const mpc::Registry& registry);

/// --optimise online|total: what `auto` makes least.
void AddObjective(CLI::App& app, std::string& objective);

/// Chooses for the layers that ask for it: those that name `auto`, and with suite `auto` those that
/// name none. Leaves a network without such layers as it is. For the model's owner, who announces
/// the network to the others.
void ResolveAuto(nn::PublicNetwork& network, const mpc::Registry& registry,
                 const mpc::SuiteChoice& suite, const net::LinkProfile& link,
                 infer::Objective objective, const mpc::Roles& roles, std::size_t batch);

/// Throws ConfigError (place: the file) unless a run with `suite` on `link` gives every layer the
/// suite that the material was made for. Layers are compared, not names: `auto` may choose
/// otherwise than it did, or as a suite that is named. Another network's material is refused too.
void CheckMaterialSuite(const infer::MaterialFile& material, const nn::NetworkSpec& spec,
                        const mpc::Registry& registry, const mpc::SuiteChoice& suite,
                        const net::LinkProfile& link, infer::Objective objective);

}  // namespace tercet::programs
