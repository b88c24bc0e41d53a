// SPDX-License-Identifier: Apache-2.0
#include "programs/process.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>

#include "programs/core_dumps.h"
#include "programs/failure.h"
#include "programs/output.h"
#include "tercet/base/error.h"

namespace tercet::programs {

void PrepareProcess() {
  ForbidCoreDumps();
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0 || errno != EBADF) continue;
    // The lowest free number is this one.
    if (::open("/dev/null", O_RDWR) != fd)
      throw Error(fmt::format("descriptor {} is closed, and /dev/null cannot be opened instead: {}",
                              fd, std::strerror(errno)));
  }
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  std::signal(SIGCHLD, SIG_DFL);
  sigset_t of_children;
  sigemptyset(&of_children);
  sigaddset(&of_children, SIGCHLD);
  ::pthread_sigmask(SIG_UNBLOCK, &of_children, nullptr);
}

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : kStopSignals) {
    struct sigaction action {};
    if (::sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_IGN)
      sigaddset(&signals, number);
  }
  return signals;
}

std::string SignalText(int number) {
  return fmt::format("stopped by a signal ({})", ::strsignal(number));
}

void EndSoon(std::chrono::milliseconds grace, const std::string& reason) {
  const auto end = [line = Named("error: " + reason + "\n")] {
    PrintProgress(line);
    ::_exit(kExitFailed);
  };
  try {
    std::thread([grace, end] {
      std::this_thread::sleep_for(grace);
      end();
    }).detach();
  } catch (const std::system_error&) {
    end();  // no thread is to be had
  }
}

}  // namespace tercet::programs
