// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace tercet::programs {

/// How a program ended.
struct ProgramEnd {
  int status = 0;   ///< exit status, or 128 + signal
  std::string err;  ///< the end of what it wrote to stderr
};

/// Runs a program without a shell and waits for it. It inherits `descriptors` (AnonymousFile), what
/// it prints on stdout is lost, and it is killed when this process ends. Where `stop_asked` is
/// given, it is called now and then, and the program is sent SIGINT once it says true. Throws Error
/// when it cannot be started.
ProgramEnd RunProgram(std::vector<std::string> words, const std::vector<int>& descriptors,
                      const std::function<bool()>& stop_asked = {});

}  // namespace tercet::programs
