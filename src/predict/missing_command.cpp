// SPDX-License-Identifier: Apache-2.0
#include "predict/predict_command.h"

namespace tercet::client {
namespace {

constexpr const char* kRemedy = "install libcurl4-openssl-dev";

}  // namespace

void AddPredictCommand(CLI::App& app, programs::Chosen& chosen) {
  programs::AddMissingCommand(app, chosen, "predict", "Ask a prediction service", kRemedy);
}
void AddLoadCommand(CLI::App& app, programs::Chosen& chosen) {
  programs::AddMissingCommand(app, chosen, "load", "Measure a prediction service", kRemedy);
}

}  // namespace tercet::client
