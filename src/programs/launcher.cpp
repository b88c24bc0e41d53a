// SPDX-License-Identifier: Apache-2.0
#include "programs/launcher.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>
#include <asio/read_until.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>
#include <asio/write.hpp>
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

#include "base/clock.h"
#include "base/json.h"
#include "programs/anonymous_file.h"
#include "programs/events.h"
#include "programs/failure.h"
#include "tercet/base/error.h"
#include "tercet/report/run_report.h"

namespace tercet::programs {
namespace {

// How long the other parties get to say their own reason, and to stop when asked.
constexpr auto kGrace = std::chrono::seconds(2);
constexpr auto kStopTime = std::chrono::seconds(3);
// How long it may take to say that a signal ended the run, if nobody reads it.
constexpr auto kEndTime = std::chrono::seconds(1);
// Of one event: a report with the logits of all images; less from another machine, which may say
// anything.
constexpr std::size_t kMaxEventBytes = std::size_t{4} << 30, kMaxEventBytesElsewhere = 256 << 20;

std::pair<OwnedFd, OwnedFd> MakePipe() {
  std::array<int, 2> ends{};
  if (::pipe(ends.data()) != 0)
    throw Error(fmt::format("cannot make a pipe: {}", std::strerror(errno)));
  for (const int fd : ends) ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  return {OwnedFd(ends[0]), OwnedFd(ends[1])};
}

// A party that is to be started here, or through a shell elsewhere.
struct ChildStart {
  std::vector<std::string> words;
  std::vector<int> inherited;
  bool elsewhere = false;
  std::string order;  // on its standard input
};

class Child {
 public:
  Child(asio::io_context& io, int id, ChildStart start)
      : id_(id), elsewhere_(start.elsewhere), pipe_(io), orders_(io) {
    auto [read_end, write_end] = MakePipe();
    auto& words = start.words;
    std::array<OwnedFd, 2> orders;
    if (elsewhere_) {
      order_ = std::move(start.order);
      std::tie(orders[0], orders[1]) = MakePipe();
      errors_.emplace();
    } else {
      words.insert(words.end(), {"--report-fd", std::to_string(write_end.Get())});
      start.inherited.push_back(write_end.Get());
    }
    // Everything is allocated before the fork; the child only makes calls that are safe there.
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (auto& word : words) argv.push_back(word.data());
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
      if (elsewhere_ &&
          (::dup2(orders[0].Get(), STDIN_FILENO) < 0 ||
           ::dup2(write_end.Get(), STDOUT_FILENO) < 0 || ::dup2(errors_->Fd(), STDERR_FILENO) < 0))
        ::_exit(127);
      for (const int fd : start.inherited) ::fcntl(fd, F_SETFD, 0);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    pipe_.assign(read_end.Release());
    Read();
    if (!elsewhere_) return;
    orders_.assign(orders[1].Release());
    // It stays open: its end tells the party that nobody waits for it any more. One that does not
    // read has a reason of its own, which is the one that counts.
    asio::async_write(orders_, asio::buffer(order_), [](std::error_code, std::size_t) {});
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (reaped_) return;
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }

  bool Reaped() const { return reaped_; }
  std::size_t Done() const { return progress_.done; }
  std::size_t Total() const { return progress_.total; }
  const std::optional<std::string>& Report() const { return report_; }
  const std::optional<Failure>& Failed() const { return failure_; }

  void Signal(int number) {
    if (reaped_) return;
    stopped_by_launcher_ = true;
    // Signals end the shell alone, so the party is asked first.
    if (elsewhere_ && orders_.is_open()) {
      orders_.close();
    } else {
      ::kill(pid_, number);
    }
  }

  void TryReap() {
    if (reaped_ || pipe_.is_open()) return;  // it may have said why it ended
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) != pid_) return;
    reaped_ = true;
    if (failure_ || stopped_by_launcher_) return;
    if (report_ && WIFEXITED(status) && WEXITSTATUS(status) == kExitOk) return;
    failure_ = {FailureKind::kOwn, HowItEnded(status)};
  }

 private:
  std::string HowItEnded(int status) const {
    if (WIFSIGNALED(status))
      return fmt::format("was killed by signal {} ({})", WTERMSIG(status),
                         ::strsignal(WTERMSIG(status)));
    if (!elsewhere_ && WEXITSTATUS(status) == 127) return "could not be started";
    std::string said = elsewhere_ ? errors_->End() : std::string();
    while (said.ends_with('\n')) said.pop_back();
    return fmt::format("ended with exit status {} and without a report{}{}", WEXITSTATUS(status),
                       said.empty() ? "" : ": ", Printable(said.substr(said.rfind('\n') + 1)));
  }

  void Read() {
    asio::async_read_until(
        pipe_, asio::dynamic_buffer(text_, elsewhere_ ? kMaxEventBytesElsewhere : kMaxEventBytes),
        '\n', [this](std::error_code end, std::size_t size) {
          if (end) {
            pipe_.close();
            return;
          }
          Take(EventFromLine(text_.substr(0, size - 1),
                             fmt::format("what party {} said, {}", id_,
                                         Printable(std::string_view(text_).substr(0, 40)))));
          text_.erase(0, size);
          Read();
        });
  }

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
  bool elsewhere_;
  pid_t pid_ = -1;
  asio::posix::stream_descriptor pipe_, orders_;
  std::string order_;
  std::optional<AnonymousFile> errors_;  // of the shell
  std::string text_;
  bool reaped_ = false;
  bool stopped_by_launcher_ = false;
  ProgressEvent progress_;
  std::optional<std::string> report_;
  std::optional<Failure> failure_;
};

// The processes of one run, and what becomes of them.
class Launch {
 public:
  Launch(std::array<std::optional<ChildStart>, 3> starts,
         std::function<void(std::size_t done, std::size_t total)> on_progress)
      : on_progress_(std::move(on_progress)) {
    for (int id = 0; id < 3; ++id) {
      const auto p = static_cast<std::size_t>(id);
      if (starts[p]) children_[p] = std::make_unique<Child>(io_, id, std::move(*starts[p]));
    }
    // Not before, so that no child has the handlers of its launcher.
    const sigset_t watched = StopSignals();
    for (const int number : kStopSignals)
      if (sigismember(&watched, number) == 1) stop_signals_.add(number);
    stop_signals_.async_wait([this](std::error_code, int number) {
      caught_ = number;
      StopWithin(Clock::duration::zero());
    });
    AwaitDeath();
  }

  // What the parties that were started report.
  std::array<std::optional<std::string>, 3> Run() {
    while (!AllReaped()) {
      io_.run_one();
      Look();
    }
    StopWatching();
    if (caught_ != 0) {
      const std::string reason = SignalText(caught_);
      EndSoon(kEndTime, reason);
      throw StoppedBySignal(reason);
    }
    if (cause_) ThrowFailure(cause_->second, fmt::format("party {}", cause_->first));
    std::array<std::optional<std::string>, 3> reports;
    for (std::size_t p = 0; p < 3; ++p)
      if (children_[p]) reports[p] = children_[p]->Report();
    return reports;
  }

 private:
  void AwaitDeath() {
    deaths_.async_wait([this](std::error_code error, int) {
      if (!error) AwaitDeath();
    });
  }

  // From here on a signal ends the process; one that came before is seen here, so none is lost.
  void StopWatching() {
    const sigset_t watched = StopSignals();
    sigset_t before;
    ::pthread_sigmask(SIG_BLOCK, &watched, &before);
    io_.poll();
    stop_signals_.clear();
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  bool AllReaped() const {
    return std::all_of(children_.begin(), children_.end(),
                       [](const auto& child) { return !child || child->Reaped(); });
  }

  void Look() {
    std::size_t done = std::numeric_limits<std::size_t>::max(), total = 0;
    for (int id = 0; id < 3; ++id) {
      const auto p = static_cast<std::size_t>(id);
      if (!children_[p]) continue;
      auto& child = *children_[p];
      done = std::min(done, child.Done());
      total = std::max(total, child.Total());
      child.TryReap();
      if (child.Failed() && !std::exchange(considered_[p], true)) Consider(id, *child.Failed());
    }
    if (on_progress_ && done > shown_) on_progress_(shown_ = done, total);
  }

  void Consider(int id, const Failure& failure) {
    // Kinds are ordered by how likely they are the cause; the first of a kind counts.
    if (!cause_ || failure.kind < cause_->second.kind) cause_ = {id, failure};
    StopWithin(MayBeConsequence(failure.kind) ? kGrace : Clock::duration::zero());
  }

  // All children must go: gently, then not.
  void StopWithin(Clock::duration time) {
    const auto at = Clock::now() + time;
    if (asked_ || at > ask_at_) return;
    ask_at_ = at;
    timer_.expires_at(at);
    timer_.async_wait([this](std::error_code sooner) {
      if (sooner || std::exchange(asked_, true)) return;
      SignalAll(SIGTERM);
      timer_.expires_after(kStopTime);
      timer_.async_wait([this](std::error_code) { SignalAll(SIGKILL); });
    });
  }

  void SignalAll(int number) {
    for (const auto& child : children_)
      if (child) child->Signal(number);
  }

  std::function<void(std::size_t done, std::size_t total)> on_progress_;
  asio::io_context io_{1};
  std::array<std::unique_ptr<Child>, 3> children_;  // null: not started
  asio::signal_set stop_signals_{io_}, deaths_{io_, SIGCHLD};
  asio::steady_timer timer_{io_};
  Clock::time_point ask_at_ = Clock::time_point::max();
  bool asked_ = false;
  int caught_ = 0;
  std::optional<std::pair<int, Failure>> cause_;  // the best guess so far
  std::array<bool, 3> considered_{};
  std::size_t shown_ = 0;
};

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

std::array<infer::PartyReport, 3> LaunchParties(LaunchSettings settings) {
  std::array<std::optional<ChildStart>, 3> starts;
  for (std::size_t p = 0; p < 3; ++p) {
    if (static_cast<int>(p) == settings.absent) continue;
    auto& start = starts[p].emplace();
    start.words = std::move(settings.arguments[p]);
    start.words.insert(start.words.begin(), {settings.program.string(), "--id", std::to_string(p)});
    start.inherited = std::move(settings.inherited[p]);
    const int listening = settings.listening[p].Get();
    if (listening < 0) continue;
    start.words.insert(start.words.end(), {"--listen-fd", std::to_string(listening)});
    start.inherited.push_back(listening);
  }
  Launch launch(std::move(starts), settings.on_progress);
  for (auto& listening : settings.listening) listening.Reset();
  const auto texts = launch.Run();
  std::array<infer::PartyReport, 3> reports;
  for (std::size_t p = 0; p < 3; ++p) {
    if (texts[p]) {
      reports[p] = report::PartyReportFromJson(*texts[p], fmt::format("report of party {}", p));
    } else {
      reports[p].party = static_cast<int>(p);
      reports[p].presence = infer::kNotStarted;
    }
  }
  return reports;
}

std::array<std::string, 3> LaunchElsewhere(std::array<ShellCommand, 3> commands) {
  std::array<std::optional<ChildStart>, 3> starts;
  for (std::size_t p = 0; p < 3; ++p)
    starts[p] = {std::move(commands[p].words), {}, true, std::move(commands[p].order)};
  const auto texts = Launch(std::move(starts), {}).Run();
  return {*texts[0], *texts[1], *texts[2]};
}

std::filesystem::path ProgramFolder() {
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
  return self.parent_path();
}

std::filesystem::path SiblingProgram(const std::string& name) {
  auto program = ProgramFolder() / name;
  if (!program.has_parent_path() || ::access(program.c_str(), X_OK) != 0)
    throw ConfigError(program.string(),
                      fmt::format("the program {} is expected beside tercet", name));
  return program;
}

}  // namespace tercet::programs
