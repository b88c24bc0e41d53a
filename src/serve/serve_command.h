// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace tercet::serve {

/// `tercet-party serve ...`, with the arguments from "serve" on: one server of a prediction
/// service, until SIGTERM or SIGINT, which drain it. Gives the exit code.
int ServeMain(int argc, char** argv);
/// `tercet-party token ...`: clients' tokens in a server's store.
int TokenMain(int argc, char** argv);

}  // namespace tercet::serve
