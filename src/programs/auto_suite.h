// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "tercet/infer/auto_plan.h"
#include "tercet/infer/material.h"
#include "tercet/nn/network.h"

/// Suite `auto` as the programs offer it.
namespace tercet::programs {

/// The machine that the figures of built-in suites are from (mpc::ComputeFigures); the time of a
/// message is that of single images.
extern const infer::MachineModel kMachine;

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
