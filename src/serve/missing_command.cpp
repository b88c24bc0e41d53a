// SPDX-License-Identifier: Apache-2.0
#include "serve/serve_command.h"
#include "tercet/base/error.h"

namespace tercet::serve {
namespace {

[[noreturn]] int Refuse() {
  throw UnsupportedError(
      "this tercet-party was built without the prediction service: install librestinio-dev and "
      "libsqlite3-dev and build again");
}

}  // namespace

int ServeMain(int, char**) { Refuse(); }
int TokenMain(int, char**) { Refuse(); }

}  // namespace tercet::serve
