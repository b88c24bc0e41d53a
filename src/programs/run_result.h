// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>

#include "tercet/files/images.h"
#include "tercet/infer/plan.h"
#include "tercet/infer/schedule.h"
#include "tercet/mpc/registry.h"
#include "tercet/nn/integer_network.h"
#include "tercet/report/run_report.h"

/// What whoever has run all three parties, and knows the model and the images, adds to their
/// report.
namespace tercet::programs {

/// The predictions, and whether bytes and hops are those of the plan.
void CompleteReport(report::RunReport& run, const infer::Plan& plan, const mpc::Registry& registry,
                    const mpc::SuiteChoice& suite, const infer::Schedule& schedule,
                    std::size_t images);

/// How many logits equal those of the network in the clear (PlainLogits), as far as the plan's
/// suites are exact.
void CompareWithPlain(report::RunReport& run, const nn::IntegerNetwork& model,
                      const infer::Plan& plan, const mpc::Registry& registry,
                      const files::Images& images,
                      const std::function<void(std::size_t done, std::size_t total)>& on_progress);

}  // namespace tercet::programs
