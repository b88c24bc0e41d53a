// SPDX-License-Identifier: Apache-2.0
// Each party in turn is killed, stopped, made to stall or to lie at fifty points of a run, from the
// first message of the setup to the last notice: the others end in time and say which party it was.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <fstream>
#include <memory>
#include <thread>

#include "base/clock.h"
#include "integration/world.h"
#include "programs/inputs.h"
#include "programs/launcher.h"
#include "tercet/base/error.h"
#include "tercet/infer/session.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/net/tcp_link.h"
#include "tercet/net/wrappers.h"

namespace tercet::integration {
namespace {

using namespace std::chrono_literals;
using net::Message;
using testing::HasSubstr;

constexpr std::size_t kPoints = 50;
constexpr std::size_t kAtOnce = 6;  // runs side by side; mostly they wait
constexpr std::size_t kImages = 3;
constexpr auto kTimeout = 2000ms, kStallTimeout = 3000ms;
constexpr auto kLimit = kStallTimeout + 2 * kTimeout + 20s;  // with time for a busy machine
constexpr long kMaxMemoryKb = 1L << 20;

enum class Fault {
  kNone,
  kKill,
  kStop,
  kStall,
  kAbort,
  // Lies: what is done to the message that is sent then.
  kFlip,
  kTruncate,
  kLengthen,
  kTag,
  kDepth,
  kPhase,
  kReplay,
  kSwap,
  kDrop,
  kFlood,
};

bool IsLie(Fault fault) { return fault >= Fault::kFlip; }

// What happens when, counted over all messages that a party sends and receives, or, for a lie,
// sends.
struct Plot {
  Fault fault = Fault::kNone;
  std::size_t when = 0;
};

// The stage of the party that misbehaves.
struct Stage {
  Plot plot;
  std::atomic<std::size_t> operations{0}, sent{0};
  infer::Session* session = nullptr;

  void Happen() const {
    switch (plot.fault) {
      case Fault::kKill:
        ::raise(SIGKILL);
        break;
      case Fault::kStop:
        ::raise(SIGSTOP);
        break;
      case Fault::kStall:
        while (true) ::pause();
      case Fault::kAbort:
        session->Stop("stopped by a signal (Terminated)");
        break;
      default:
        break;
    }
  }
};

class StagedLink final : public net::LinkWrapper {
 public:
  StagedLink(std::unique_ptr<net::Link> inner, Stage& stage)
      : LinkWrapper(std::move(inner)), stage_(stage) {}

  void Send(Message message) override {
    Count();
    const std::size_t number = stage_.sent++;
    if (held_) {
      inner_->Send(std::move(message));
      inner_->Send(*std::exchange(held_, std::nullopt));
    } else if (IsLie(stage_.plot.fault) && number == stage_.plot.when) {
      Lie(std::move(message));
    } else {
      inner_->Send(std::move(message));
    }
  }
  Message Receive(net::Phase phase) override {
    Count();
    return inner_->Receive(phase);
  }

 private:
  void Count() {
    const std::size_t number = stage_.operations++;
    if (!IsLie(stage_.plot.fault) && number == stage_.plot.when) stage_.Happen();
  }

  void Lie(Message message) {
    auto& payload = message.payload;
    switch (stage_.plot.fault) {
      case Fault::kFlip:
        if (!payload.empty()) payload[payload.size() / 2] ^= 0x10;
        break;
      case Fault::kTruncate:
        payload.resize(payload.size() / 2);
        break;
      case Fault::kLengthen:
        payload.resize(payload.size() + 1000);
        break;
      case Fault::kTag:
        message.tag ^= 0x10001;
        break;
      case Fault::kDepth:
        message.depth = 0x3fffffff;
        break;
      case Fault::kPhase:
        message.phase =
            message.phase == net::Phase::kOnline ? net::Phase::kSetup : net::Phase::kOnline;
        break;
      case Fault::kReplay:
        inner_->Send(message);
        break;
      case Fault::kSwap:
        held_ = std::move(message);
        return;
      case Fault::kDrop:
        return;
      case Fault::kFlood:
        for (int i = 0; i < 200'000; ++i) inner_->Send({message.phase, message.tag, 1, {}});
        break;
      default:
        break;
    }
    inner_->Send(std::move(message));
  }

  Stage& stage_;
  std::optional<Message> held_;
};

// How one party of a run ended.
struct End {
  int status = -1;
  long memory_kb = 0;
  std::string text;
};

// A run of three forked processes, whose party `culprit` plays the plot.
struct Play {
  int culprit = 0;
  Plot plot;
  std::array<pid_t, 3> pids{-1, -1, -1};
  std::array<End, 3> ends;
  std::array<std::filesystem::path, 3> files;
  Clock::time_point begun;

  bool Over() const {
    for (int p = 0; p < 3; ++p)
      if (p != culprit && pids[static_cast<std::size_t>(p)] > 0) return false;
    return true;
  }
  void Reap(int options) {
    for (std::size_t p = 0; p < 3; ++p) {
      int status = 0;
      rusage usage{};
      if (pids[p] <= 0 || ::wait4(pids[p], &status, options, &usage) != pids[p]) continue;
      pids[p] = -1;
      ends[p].status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      ends[p].memory_kb = usage.ru_maxrss;
      std::ifstream in(files[p]);
      ends[p].text = {std::istreambuf_iterator<char>(in), {}};
    }
  }
  void Kill() {
    for (const pid_t pid : pids)
      if (pid > 0) ::kill(pid, SIGKILL);
    Reap(0);
  }
};

class Stress : public testing::Test {
 protected:
  Stress() : spec_(nn::LoadNetwork(world_.File("dense.json"))) {
    programs::ModelSource source;
    source.file = world_.File("dense.safetensors");
    model_ = programs::LoadModel(spec_, source, registry_, [](const std::string&) {});
    images_ = files::LoadImages(world_.File("images.idx"), kImages, spec_.input.shape);
  }

  // Runs them all, some side by side.
  void Run(std::vector<Play>& plays) {
    std::size_t next = 0;
    std::vector<Play*> running;
    while (next < plays.size() || !running.empty()) {
      while (next < plays.size() && running.size() < kAtOnce) {
        Begin(plays[next]);
        running.push_back(&plays[next++]);
      }
      std::this_thread::sleep_for(2ms);
      std::erase_if(running, [](Play* play) {
        play->Reap(WNOHANG);
        if (!play->Over() && Clock::now() - play->begun < kLimit) return false;
        play->Kill();
        return true;
      });
    }
  }

  // The messages that each party sends and receives in a run without fault, and those that it
  // sends.
  std::array<std::array<std::size_t, 2>, 3> Counts() {
    std::vector<Play> plays(1);
    plays[0].culprit = -1;
    Run(plays);
    std::array<std::array<std::size_t, 2>, 3> counts{};
    for (std::size_t p = 0; p < 3; ++p) {
      EXPECT_EQ(plays[0].ends[p].status, 0) << plays[0].ends[p].text;
      std::istringstream(plays[0].ends[p].text) >> counts[p][0] >> counts[p][1];
      EXPECT_GT(counts[p][1], 10u);
    }
    return counts;
  }

  // `fault` at fifty points of each party's run.
  std::vector<Play> RunAll(Fault fault) {
    const auto counts = Counts();
    std::vector<Play> plays;
    for (int party = 0; party < 3; ++party) {
      const auto count = counts[static_cast<std::size_t>(party)][IsLie(fault) ? 1 : 0];
      const std::size_t points = std::min(kPoints, count);
      for (std::size_t k = 0; k < points; ++k) {
        Play play;
        play.culprit = party;
        play.plot = {fault, k * (count - 1) / (points - 1)};
        plays.push_back(std::move(play));
      }
    }
    Run(plays);
    return plays;
  }

  // Each of the others has ended by itself; with an error it names the culprit. In how many runs
  // one has.
  static std::size_t ExpectNamed(const std::vector<Play>& plays) {
    std::size_t failed = 0;
    for (const auto& play : plays) {
      bool one = false;
      for (int p = 0; p < 3; ++p) {
        if (p == play.culprit) continue;
        const End& end = play.ends[static_cast<std::size_t>(p)];
        const std::string what =
            fmt::format("party {} of a run in which party {} did {} at {}: {}", p, play.culprit,
                        static_cast<int>(play.plot.fault), play.plot.when, end.text);
        EXPECT_THAT(end.status, testing::AnyOf(0, 1)) << what;
        EXPECT_LT(end.memory_kb, kMaxMemoryKb) << what;
        if (end.status == 0) continue;
        one = true;
        EXPECT_THAT(end.text, HasSubstr(fmt::format("party {}", play.culprit))) << what;
        EXPECT_EQ(end.text.find(") ("), std::string::npos) << what;
      }
      failed += one ? 1 : 0;
    }
    return failed;
  }

 private:
  void Begin(Play& play) {
    std::array<programs::OwnedFd, 2> listening;
    std::array<net::Endpoint, 3> endpoints;
    for (std::size_t p = 0; p < 2; ++p) {
      endpoints[p].host = "127.0.0.1";
      std::tie(listening[p], endpoints[p].port) = programs::ListenOnLoopback();
    }
    play.begun = Clock::now();
    for (int id = 0; id < 3; ++id) {
      const auto p = static_cast<std::size_t>(id);
      play.files[p] = world_.Path() / fmt::format("end{}", files_++);
      play.pids[p] = ::fork();
      TERCET_CHECK(play.pids[p] >= 0, "fork failed");
      if (play.pids[p] != 0) continue;
      Stage stage;
      if (id == play.culprit) stage.plot = play.plot;
      ::_exit(Child(id, endpoints, p < 2 ? listening[p].Get() : -1, stage, play.files[p]));
    }
  }

  int Child(int id, const std::array<net::Endpoint, 3>& endpoints, int listening, Stage& stage,
            const std::filesystem::path& file) {
    std::signal(SIGPIPE, SIG_IGN);
    infer::SessionSettings settings;
    settings.id = id;
    settings.spec = spec_;
    settings.suite = mpc::ParseSuiteChoice("lut", "suite");
    settings.stall_timeout = kStallTimeout;
    if (id == settings.roles.model_owner) settings.model = &model_;
    if (id == settings.roles.data_owner) settings.images = &images_;
    net::TcpOptions tcp;
    tcp.party = id;
    tcp.endpoints = endpoints;
    if (listening >= 0) tcp.listen_fd = listening;
    tcp.timeout = kTimeout;
    tcp.stall_timeout = kStallTimeout;
    tcp.connect_timeout = 15s;
    std::string text;
    int status = 0;
    try {
      infer::Session session(settings, registry_);
      stage.session = &session;
      session.Run([&] {
        auto links = net::ConnectTcp(tcp);
        for (auto& link : links)
          if (link) link = std::make_unique<StagedLink>(std::move(link), stage);
        return links;
      });
      text = fmt::format("{} {}", stage.operations.load(), stage.sent.load());
    } catch (const std::exception& e) {
      text = e.what();
      status = 1;
    }
    std::ofstream(file) << text;
    return status;
  }

  World world_;
  mpc::Registry registry_ = BuiltinProtocols();
  nn::NetworkSpec spec_;
  nn::IntegerNetwork model_;
  files::Images images_;
  int files_ = 0;
};

// What comes after the culprit's last messages may be too late to be noticed.
void ExpectNearlyAll(std::size_t failed, std::size_t plays) { EXPECT_GE(failed * 10, plays * 9); }

TEST_F(Stress, Killed) {
  const auto plays = RunAll(Fault::kKill);
  ExpectNearlyAll(ExpectNamed(plays), plays.size());
}

TEST_F(Stress, Stopped) {
  const auto plays = RunAll(Fault::kStop);
  ExpectNearlyAll(ExpectNamed(plays), plays.size());
}

TEST_F(Stress, Stalled) {
  const auto plays = RunAll(Fault::kStall);
  ExpectNearlyAll(ExpectNamed(plays), plays.size());
}

TEST_F(Stress, AskedToStop) {
  const auto plays = RunAll(Fault::kAbort);
  ExpectNearlyAll(ExpectNamed(plays), plays.size());
  for (const auto& play : plays)
    for (std::size_t p = 0; p < 3; ++p)
      if (play.ends[p].status == 1) {
        EXPECT_THAT(play.ends[p].text, HasSubstr("stopped by a signal (Terminated)"));
      }
}

// Lies about length and order are noticed, and so is what does not come.
TEST_F(Stress, LiesOfForm) {
  for (const Fault fault : {Fault::kLengthen, Fault::kTag, Fault::kPhase, Fault::kDrop}) {
    const auto plays = RunAll(fault);
    ExpectNearlyAll(ExpectNamed(plays), plays.size());
  }
}

// Messages without content are alike, and those of two queries have the same tags, so that one too
// many, or two that change places, need not be noticed. The result may be wrong then, as after any
// other deviation (README); nothing grows, and nobody waits for ever.
TEST_F(Stress, LiesOfOrder) {
  for (const Fault fault : {Fault::kReplay, Fault::kSwap, Fault::kFlood, Fault::kDepth}) {
    const auto plays = RunAll(fault);
    EXPECT_GT(ExpectNamed(plays), plays.size() / 4);
  }
}

// A share that is another one looks like any other: a party that deviates can make the result wrong
// (README). Nothing worse happens.
TEST_F(Stress, LiesOfContent) {
  const auto flipped = RunAll(Fault::kFlip);
  const std::size_t noticed = ExpectNamed(flipped);
  RecordProperty("flips", fmt::format("{} of {} noticed", noticed, flipped.size()));
  EXPECT_LT(noticed, flipped.size());
  EXPECT_GT(ExpectNamed(RunAll(Fault::kTruncate)), 0u);  // of messages with content
}

}  // namespace
}  // namespace tercet::integration
