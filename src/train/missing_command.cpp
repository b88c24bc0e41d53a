// SPDX-License-Identifier: Apache-2.0
#include "train/train_command.h"

namespace tercet::train {

void AddTrainCommand(CLI::App& app, programs::Chosen& chosen) {
  programs::AddMissingCommand(app, chosen, "train", "Train a network in the clear",
                              "install libtorch (Debian: libtorch-dev; elsewhere set Torch_DIR), "
                              "configure with -DTERCET_BUILD_TRAIN=ON");
}

}  // namespace tercet::train
