// SPDX-License-Identifier: Apache-2.0
#include "programs/child_program.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

#include "programs/anonymous_file.h"
#include "programs/output.h"
#include "tercet/base/error.h"

#ifdef __linux__
#include <sys/prctl.h>
#endif

namespace tercet::programs {
namespace {

constexpr auto kPause = std::chrono::milliseconds(5);

// The child's status when it has ended.
int Wait(pid_t child, const std::string& program, const std::function<bool()>& stop_asked) {
  bool told = false;
  while (true) {
    const bool watches = stop_asked && !told;
    int status = 0;
    const pid_t ended = ::waitpid(child, &status, watches ? WNOHANG : 0);
    if (ended == child) return status;
    if (ended < 0 && errno != EINTR)
      throw Error(fmt::format("cannot wait for {}: {}", program, std::strerror(errno)));
    if (!watches) continue;
    if (stop_asked()) {
      told = true;
      ::kill(child, SIGINT);
    } else {
      std::this_thread::sleep_for(kPause);
    }
  }
}

}  // namespace

ProgramEnd RunProgram(std::vector<std::string> words, const std::vector<int>& descriptors,
                      const std::function<bool()>& stop_asked) {
  FlushOutput();
  const AnonymousFile err;
  // Everything is allocated before the fork; the child only makes calls that are safe there.
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) throw Error(fmt::format("cannot start {}: {}", words[0], std::strerror(errno)));
  if (child == 0) {
#ifdef __linux__
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
#else
    static_cast<void>(parent);
#endif
    const int null = ::open("/dev/null", O_WRONLY);
    if (null < 0 || ::dup2(null, STDOUT_FILENO) < 0 || ::dup2(err.Fd(), STDERR_FILENO) < 0)
      ::_exit(127);
    for (const int descriptor : descriptors) ::fcntl(descriptor, F_SETFD, 0);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  const int status = Wait(child, words[0], stop_asked);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), err.End()};
}

}  // namespace tercet::programs
