// SPDX-License-Identifier: Apache-2.0
#include "programs/launcher.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <limits>
#include <optional>

#ifdef __linux__
#include <sys/prctl.h>
#endif
#ifdef __APPLE__
#include <mach-o/dyld.h>
#endif

#include "programs/events.h"
#include "programs/failure.h"
#include "tercet/base/error.h"

namespace tercet::programs {
namespace {

using Clock = std::chrono::steady_clock;

// How long the other parties get to say their own reason, to stop when asked, and between looks at
// processes that have closed their pipe.
constexpr auto kGrace = std::chrono::seconds(2);
constexpr auto kStopTime = std::chrono::seconds(3);
constexpr auto kReapInterval = std::chrono::milliseconds(5);
// How long it may take to say that a signal ended the run, if nobody reads it.
constexpr auto kEndTime = std::chrono::seconds(1);

std::atomic<int> signal_pipe{-1};
std::atomic<int> signal_caught{0};

extern "C" void OnSignal(int number) {
  const int saved = errno;
  signal_caught = number;
  const char byte = 0;
  if (::write(signal_pipe, &byte, 1) < 0) {
    // The pipe is full, so it is readable, which is all that matters.
  }
  errno = saved;
}

std::pair<OwnedFd, OwnedFd> MakePipe() {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0)
    throw Error(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  for (const int fd : ends) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  return {OwnedFd(ends[0]), OwnedFd(ends[1])};
}

class Child {
 public:
  Child(int id, const std::filesystem::path& program, std::vector<std::string> arguments,
        const OwnedFd& listening, std::vector<int> inherited)
      : id_(id) {
    auto [read_end, write_end] = MakePipe();
    arguments.insert(arguments.begin(), {program.string(), "--id", std::to_string(id),
                                         "--report-fd", std::to_string(write_end.Get())});
    if (listening.Get() >= 0) {
      arguments.emplace_back("--listen-fd");
      arguments.push_back(std::to_string(listening.Get()));
      inherited.push_back(listening.Get());
    }
    inherited.push_back(write_end.Get());
    // Everything is allocated before the fork; the child only makes calls that are safe there.
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (auto& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    const pid_t launcher = ::getpid();
    pid_ = ::fork();
    if (pid_ < 0) throw Error(fmt::format("cannot start party {}: {}", id, std::strerror(errno)));
    if (pid_ == 0) {
#ifdef __linux__
      // A launcher that is killed takes its parties with it.
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      if (::getppid() != launcher) ::_exit(kExitFailed);
#else
      static_cast<void>(launcher);
#endif
      for (const int fd : inherited) ::fcntl(fd, F_SETFD, 0);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    pipe_ = std::move(read_end);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (reaped_) return;
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  int PipeFd() const { return pipe_.Get(); }
  bool Reaped() const { return reaped_; }
  std::size_t Done() const { return progress_.done; }
  std::size_t Total() const { return progress_.total; }
  const std::optional<std::string>& Report() const { return report_; }
  const std::optional<Failure>& Failed() const { return failure_; }

  void Signal(int number) {
    if (reaped_) return;
    stopped_by_launcher_ = true;
    ::kill(pid_, number);
  }

  // Takes what is in the pipe; at its end, closes it.
  void Read() {
    std::array<char, 65536> buffer{};
    const ssize_t count = ::read(pipe_.Get(), buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) return;
    if (count <= 0) {
      pipe_.Reset();
      return;
    }
    text_.append(buffer.data(), static_cast<std::size_t>(count));
    for (auto end = text_.find('\n'); end != std::string::npos; end = text_.find('\n')) {
      Take(EventFromLine(text_.substr(0, end), fmt::format("pipe of party {}", id_)));
      text_.erase(0, end + 1);
    }
  }

  void TryReap() {
    if (reaped_ || pipe_.Get() >= 0) return;
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return;
    reaped_ = true;
    if (failure_ || stopped_by_launcher_) return;
    if (WIFSIGNALED(status)) {
      failure_ = {FailureKind::kOwn, fmt::format("was killed by signal {} ({})", WTERMSIG(status),
                                                 ::strsignal(WTERMSIG(status)))};
    } else if (WEXITSTATUS(status) == 127) {
      failure_ = {FailureKind::kOwn, "could not be started"};
    } else if (!report_ || WEXITSTATUS(status) != kExitOk) {
      failure_ = {FailureKind::kOwn, fmt::format("ended with exit status {} and without a report",
                                                 WEXITSTATUS(status))};
    }
  }

 private:
  void Take(Event event) {
    if (const auto* progress = std::get_if<ProgressEvent>(&event)) {
      progress_ = *progress;
    } else if (auto* report = std::get_if<ReportEvent>(&event)) {
      report_ = std::move(report->json);
    } else if (!failure_ && !stopped_by_launcher_) {
      failure_ = std::get<Failure>(std::move(event));
    }
  }

  int id_;
  pid_t pid_ = -1;
  OwnedFd pipe_;
  std::string text_;
  bool reaped_ = false;
  bool stopped_by_launcher_ = false;
  ProgressEvent progress_;
  std::optional<std::string> report_;
  std::optional<Failure> failure_;
};

// By party number; null: not started.
using Children = std::array<std::unique_ptr<Child>, 3>;

// Decides when children must go: gently, then not.
class Stopper {
 public:
  void Ask(Clock::time_point at) {
    if (!ask_ || at < *ask_) ask_ = at;
  }
  void Act(const Children& children) {
    const auto now = Clock::now();
    if (ask_ && !asked_ && now >= *ask_) {
      SignalAll(children, SIGTERM);
      asked_ = true;
      kill_ = now + kStopTime;
    }
    if (kill_ && now >= *kill_) {
      SignalAll(children, SIGKILL);
      kill_.reset();
    }
  }
  // Milliseconds until there is something to do.
  int Timeout(int otherwise) const {
    const auto next = asked_ ? kill_ : ask_;
    if (!next) return otherwise;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now()).count();
    return static_cast<int>(std::clamp<std::int64_t>(left, 0, otherwise));
  }

 private:
  static void SignalAll(const Children& children, int number) {
    for (const auto& child : children)
      if (child) child->Signal(number);
  }

  std::optional<Clock::time_point> ask_, kill_;
  bool asked_ = false;
};

void ReadEvents(const Children& children, const SignalWatch& signals, bool watch_signals,
                int timeout_ms) {
  std::vector<pollfd> fds;
  std::vector<Child*> readers;
  for (const auto& child : children) {
    if (child && child->PipeFd() >= 0) {
      fds.push_back({child->PipeFd(), POLLIN, 0});
      readers.push_back(child.get());
    }
  }
  if (watch_signals) fds.push_back({signals.Fd(), POLLIN, 0});
  if (::poll(fds.data(), fds.size(), timeout_ms) <= 0) return;
  for (std::size_t i = 0; i < readers.size(); ++i)
    if (fds[i].revents != 0) readers[i]->Read();
}

}  // namespace

std::pair<OwnedFd, std::uint16_t> ListenOnLoopback() {
  OwnedFd fd(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* general = reinterpret_cast<sockaddr*>(&address);
  if (fd.Get() < 0 || ::fcntl(fd.Get(), F_SETFD, FD_CLOEXEC) != 0 ||
      ::bind(fd.Get(), general, size) != 0 || ::listen(fd.Get(), 8) != 0 ||
      ::getsockname(fd.Get(), general, &size) != 0)
    throw NetworkError(fmt::format("cannot listen on 127.0.0.1: {}", std::strerror(errno)));
  return {std::move(fd), ntohs(address.sin_port)};
}

SignalWatch::SignalWatch() {
  TERCET_CHECK(signal_pipe == -1, "signals are watched already");
  std::tie(read_, write_) = MakePipe();
  ::fcntl(write_.Get(), F_SETFL, O_NONBLOCK);
  signal_caught = 0;
  signal_pipe = write_.Get();
  struct sigaction action {};
  action.sa_handler = OnSignal;
  const sigset_t watched = StopSignals();
  for (std::size_t i = 0; i < kStopSignals.size(); ++i) {
    ::sigaction(kStopSignals[i], nullptr, &before_[i]);
    if (sigismember(&watched, kStopSignals[i]) == 1) ::sigaction(kStopSignals[i], &action, nullptr);
  }
}

SignalWatch::~SignalWatch() {
  for (std::size_t i = 0; i < kStopSignals.size(); ++i)
    ::sigaction(kStopSignals[i], &before_[i], nullptr);
  signal_pipe = -1;
}

int SignalWatch::Caught() const { return signal_caught; }

void SignalWatch::ThrowIfCaught() const {
  if (Caught() == 0) return;
  const std::string reason = SignalText(Caught());
  EndSoon(kEndTime, reason);
  throw Error(reason);
}

std::array<infer::PartyReport, 3> LaunchParties(LaunchSettings settings,
                                                const SignalWatch& signals) {
  signals.ThrowIfCaught();
  Children children;
  for (int id = 0; id < 3; ++id) {
    const auto p = static_cast<std::size_t>(id);
    if (id == settings.absent) continue;
    children[p] = std::make_unique<Child>(id, settings.program, std::move(settings.arguments[p]),
                                          settings.listening[p], settings.inherited[p]);
    settings.listening[p].Reset();
  }

  Stopper stopper;
  std::optional<std::pair<int, Failure>> cause;  // the best guess so far
  auto consider = [&](int id, const Failure& failure) {
    // Kinds are ordered by how likely they are the cause; the first of a kind counts.
    if (!cause || failure.kind < cause->second.kind) cause = {id, failure};
    const auto now = Clock::now();
    stopper.Ask(MayBeConsequence(failure.kind) ? now + kGrace : now);
  };
  std::array<bool, 3> considered{};
  std::size_t shown = 0;
  bool stopped = false;
  const auto all = [&](auto what) { return std::all_of(children.begin(), children.end(), what); };
  while (!all([](const auto& child) { return !child || child->Reaped(); })) {
    const bool closed = std::any_of(children.begin(), children.end(), [](const auto& child) {
      return child && child->PipeFd() < 0 && !child->Reaped();
    });
    ReadEvents(children, signals, !stopped,
               stopper.Timeout(closed ? static_cast<int>(kReapInterval.count()) : 1000));
    std::size_t done = std::numeric_limits<std::size_t>::max(), total = 0;
    for (int id = 0; id < 3; ++id) {
      if (id == settings.absent) continue;
      auto& child = *children[static_cast<std::size_t>(id)];
      done = std::min(done, child.Done());
      total = std::max(total, child.Total());
      child.TryReap();
      if (!child.Failed() || std::exchange(considered[static_cast<std::size_t>(id)], true))
        continue;
      consider(id, *child.Failed());
    }
    if (signals.Caught() != 0 && !std::exchange(stopped, true)) stopper.Ask(Clock::now());
    stopper.Act(children);
    if (settings.on_progress && done > shown) settings.on_progress(shown = done, total);
  }
  signals.ThrowIfCaught();
  if (cause) ThrowFailure(cause->second, fmt::format("party {}", cause->first));

  std::array<infer::PartyReport, 3> reports;
  for (std::size_t p = 0; p < 3; ++p) {
    if (!children[p]) {
      reports[p].party = static_cast<int>(p);
      reports[p].presence = infer::kNotStarted;
      continue;
    }
    reports[p] =
        report::PartyReportFromJson(*children[p]->Report(), fmt::format("report of party {}", p));
  }
  return reports;
}

std::filesystem::path SiblingProgram(const std::string& name) {
  std::error_code error;
#ifdef __APPLE__
  std::array<char, 4096> buffer{};
  auto size = static_cast<std::uint32_t>(buffer.size());
  const auto self = _NSGetExecutablePath(buffer.data(), &size) == 0
                        ? std::filesystem::canonical(buffer.data(), error)
                        : std::filesystem::path();
#else
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
#endif
  auto program = self.parent_path() / name;
  if (error || ::access(program.c_str(), X_OK) != 0)
    throw ConfigError(program.string(),
                      fmt::format("the program {} is expected beside tercet", name));
  return program;
}

}  // namespace tercet::programs
