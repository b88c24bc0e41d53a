// SPDX-License-Identifier: Apache-2.0
#include "programs/output.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <iostream>

namespace tercet::programs {
namespace {

// What a descriptor that poll() calls writable takes without waiting (POSIX: PIPE_BUF).
constexpr std::size_t kNoWaitBytes = 512;

std::atomic<int> first_error{0};
std::atomic<const char*> program{"tercet"};

void PrintToStderr(std::string_view kind, std::string_view text) {
  const std::string line = Named(fmt::format("{}: {}\n", kind, text));
  static_cast<void>(std::fwrite(line.data(), 1, line.size(), stderr));
}

void Remember(int error_number) {
  int none = 0;
  first_error.compare_exchange_strong(none, error_number);
}

}  // namespace

void PrintText(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) Remember(errno);
}

void FlushOutput() {
  if (std::fflush(stdout) != 0) Remember(errno);
}

void Say(const std::string& line) {
  Print("{}\n", line);
  FlushOutput();
}

int FinishOutput() noexcept {
  FlushOutput();
  // What others printed, as libraries, has left no error number.
  if (!std::cout.flush() || std::ferror(stdout) != 0) Remember(EIO);
  // Some file systems tell only when a descriptor is closed that they could not keep its data.
  const int copy = ::dup(STDOUT_FILENO);
  if (copy >= 0 && ::close(copy) != 0) Remember(errno);
  return first_error;
}

void NameProgram(const char* name) noexcept { program = name; }

std::string Named(std::string_view text) { return fmt::format("{}: {}", program.load(), text); }

void PrintError(std::string_view text) { PrintToStderr("error", text); }

void PrintWarning(std::string_view text) { PrintToStderr("WARNING", text); }

void PrintProgress(std::string_view text) noexcept {
  while (!text.empty()) {
    pollfd ready{STDERR_FILENO, POLLOUT, 0};
    if (::poll(&ready, 1, 0) != 1 || (ready.revents & POLLOUT) == 0) return;
    const auto count = ::write(STDERR_FILENO, text.data(), std::min(text.size(), kNoWaitBytes));
    if (count < 0) return;
    text.remove_prefix(static_cast<std::size_t>(count));
  }
}

}  // namespace tercet::programs
