// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "base/engine.h"
#include "tercet/service/deployment.h"

namespace tercet::serve {

/// Which of the deployment's workers this process is. `lanes` is --lanes: lanes in text, those of
/// one worker, and the environment does not count; "auto", the worker whose number an engine says
/// (RankByEngine); or empty, the only worker, and of several the same as auto. ConfigError, which
/// names the variable or the option, for lanes of no worker, a value that is none or out of range,
/// and no answer.
std::size_t ChooseWorker(const std::string& lanes, const service::Deployment& deployment,
                         const Environment& environment);

}  // namespace tercet::serve
