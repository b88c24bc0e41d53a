// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "train/train.h"

namespace tercet::train {

/// ConfigError (place: the option of the command line) for the first option that is missing, out of
/// range or at odds with another one, and for a file that cannot be written.
void CheckOptions(const TrainOptions& options);

}  // namespace tercet::train
