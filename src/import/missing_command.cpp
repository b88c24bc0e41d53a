// SPDX-License-Identifier: Apache-2.0
#include "import/import_command.h"

namespace tercet::importer {

void AddImportCommand(CLI::App& app, programs::Chosen& chosen) {
  programs::AddMissingCommand(app, chosen, "import", "Make a network of an ONNX model",
                              "install ONNX and protobuf (Debian: libonnx-dev, libprotobuf-dev), "
                              "configure with -DTERCET_BUILD_IMPORT=ON");
}

}  // namespace tercet::importer
