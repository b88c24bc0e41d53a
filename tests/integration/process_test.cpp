// SPDX-License-Identifier: Apache-2.0
// What programs make of the process they are given: output that is full, closed or never read,
// signals that are ignored, limits.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/sanitizers.h"
#include "integration/testbed.h"
#include "programs/failure.h"

namespace tercet::integration {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// A pipe whose ends children do not get by themselves.
struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
    read = programs::OwnedFd(ends[0]);
    write = programs::OwnedFd(ends[1]);
  }
  // From now on who writes waits for ever.
  void Fill() const {
    const std::array<char, 512> rubbish{};
    ::fcntl(write.Get(), F_SETFL, O_NONBLOCK);
    while (::write(write.Get(), rubbish.data(), rubbish.size()) > 0 ||
           ::write(write.Get(), rubbish.data(), 1) > 0) {
    }
    ::fcntl(write.Get(), F_SETFL, 0);
  }
  // Whether there was something to read, which is gone then.
  bool Drain() const {
    std::array<char, 65536> buffer{};
    ::fcntl(read.Get(), F_SETFL, O_NONBLOCK);
    return ::read(read.Get(), buffer.data(), buffer.size()) > 0;
  }
  programs::OwnedFd read, write;
};

const auto kOntoFull = [] { ::dup2(::open("/dev/full", O_WRONLY), STDOUT_FILENO); };
const auto kCloseAll = [] {
  for (int fd = 0; fd < 3; ++fd) ::close(fd);
};
const std::vector<std::string> kLongLink{"--link", "rtt_ms=120", "--batch", "1"};

std::vector<std::string> With(std::vector<std::string> words,
                              const std::vector<std::string>& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(Stdout, ThatIsFullIsAnError) {
  const World world;
  const std::vector<std::vector<std::string>> commands{
      {"plain", world.File("dense.json"), "--model", world.File("dense.safetensors"), "--images",
       world.File("images.idx")},
      {"plan", world.File("dense.json")},
      {"keygen", world.File("keys")},
      {"suites"},
      {"run", "--help"},
      {"--version"}};
  for (const auto& command : commands) {
    const auto result = world.Tercet(command, kOntoFull).Wait();
    EXPECT_EQ(result.status, 1) << command[0];
    EXPECT_EQ(result.err, "tercet: error: stdout: cannot be written: No space left on device\n");
  }
  const auto party = world.Party({"--help"}, {}, kOntoFull).Wait();
  EXPECT_EQ(party.status, 1);
  EXPECT_THAT(party.err, HasSubstr("tercet-party: error: stdout: cannot be written"));
  // An error of the command itself goes first.
  EXPECT_EQ(world.Tercet({"plan", world.File("none.json")}, kOntoFull).Wait().status, 2);
}

TEST(Stdout, WhoseReaderLeftEndsQuietly) {
  const World world;
  Pipe pipe;
  pipe.read.Reset();
  const auto onto_pipe = [&] { ::dup2(pipe.write.Get(), STDOUT_FILENO); };
  const auto plan = world.Tercet({"plan", world.File("dense.json")}, onto_pipe).Wait();
  EXPECT_EQ(plan.status, programs::kExitReaderLeft);
  EXPECT_EQ(plan.err, "");
  // What was asked for is done all the same.
  const auto run = world.Run("dense", {"--json", world.File("out.json")}, onto_pipe).Wait();
  EXPECT_EQ(run.status, programs::kExitReaderLeft);
  EXPECT_EQ(run.err, "");
  EXPECT_TRUE(std::filesystem::exists(world.File("out.json")));
  world.ExpectClean();
}

TEST(Stderr, ThatNobodyReadsStopsNoRun) {
  for (const bool reader_left : {false, true}) {
    const World world;
    Pipe pipe;
    if (reader_left) {
      pipe.read.Reset();
    } else {
      pipe.Fill();
    }
    // Long enough to say how far it is.
    const auto result = world
                            .Run("dense", With({"--limit", "3"}, kLongLink),
                                 [&] { ::dup2(pipe.write.Get(), STDERR_FILENO); })
                            .Wait();
    EXPECT_EQ(result.status, 0);
    world.ExpectClean();
  }
}

TEST(Results, AreForTheirOwnerAlone) {
  const World world;
  const auto target = world.File("target.json"), link = world.File("link.json");
  std::filesystem::create_symlink("target.json", link);
  ASSERT_EQ(world.Run("dense", {"--transport", "memory", "--json", link}).Wait().status, 0);
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  struct stat status {};
  ASSERT_EQ(::stat(target.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600U);
}

TEST(Results, GoDownAPipeThatIsNamed) {
  const World world;
  ASSERT_EQ(::mkfifo(world.File("fifo").c_str(), 0600), 0);
  auto process = world.Tercet({"plan", world.File("dense.json"), "--json", world.File("fifo")});
  const auto plans = ReadJson(world.File("fifo"));
  EXPECT_FALSE(plans.at("plans").empty());
  EXPECT_EQ(process.Wait().status, 0);
  EXPECT_TRUE(std::filesystem::is_fifo(world.File("fifo")));
  // The report follows what is printed.
  const auto both =
      world.Tercet({"plan", world.File("dense.json"), "--suite", "lut", "--csv", "/dev/stdout"})
          .Wait();
  EXPECT_EQ(both.status, 0) << both.err;
  EXPECT_LT(both.out.find("On link none"), both.out.find("network,suite,batch"));
}

TEST(Results, OfANamedPipeThatNobodyReadsArePrintedAllTheSame) {
  const World world;
  ASSERT_EQ(::mkfifo(world.File("fifo").c_str(), 0600), 0);
  const auto result = world.Run("dense", {"--json", world.File("fifo")}).Wait();
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.out, HasSubstr("accuracy"));
  EXPECT_THAT(result.err, HasSubstr("tercet: error: " + world.File("fifo") +
                                    ": cannot be written: it is a FIFO that nobody has opened"));
}

// What was computed is not lost with the file that does not take it.
TEST(Results, ArePrintedWhenTheirFileIsFull) {
  const World world;
  std::string full = "/dev/full";
  if (::geteuid() == 0) {  // who could destroy it
    full = world.File("full");
    if (::mknod(full.c_str(), S_IFCHR | 0666, ::makedev(1, 7)) != 0 ||
        !std::ofstream(full).is_open())
      GTEST_SKIP() << "no devices can be made";
  }
  const auto result = world.Run("dense", {"--json", full}).Wait();
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.out, HasSubstr("accuracy"));
  EXPECT_EQ(result.err, fmt::format("tercet: error: {}: cannot be written: No space left on "
                                    "device\n",
                                    full));
  EXPECT_TRUE(std::filesystem::is_character_file(full));
}

TEST(Limits, OfAFilesSizeAreErrors) {
  const World world;
  const auto result =
      world
          .Tercet({"draw-digits", world.File("digits.idx"), world.File("classes.idx")},
                  [] {
                    const rlimit small{1024, 1024};
                    ::setrlimit(RLIMIT_FSIZE, &small);
                  })
          .Wait();
  EXPECT_EQ(result.status, 1);
  EXPECT_THAT(result.err, AllOf(HasSubstr("digits.idx: cannot be written: File too large"),
                                HasSubstr("ulimit -f")));
  EXPECT_FALSE(std::filesystem::exists(world.File("digits.idx")));
  EXPECT_FALSE(std::filesystem::exists(world.File("classes.idx")));
}

TEST(Signals, OfChildrenThatTheParentIgnoresOrBlocksAreSeen) {
  const World world;
  const auto ignore = [] { ::signal(SIGCHLD, SIG_IGN); };
  const auto block = [] {
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGCHLD);
    ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  };
  for (const std::function<void()>& prepare : {std::function<void()>(ignore), {block}}) {
    const auto result = world.Run("dense", {}, prepare).Wait();
    EXPECT_EQ(result.status, 0) << result.err;
    world.ExpectClean();
  }
}

TEST(Signals, ThatNohupIgnoresStayIgnored) {
  const World world;
  auto process =
      world.Run("dense", With({"--limit", "3"}, kLongLink), [] { ::signal(SIGHUP, SIG_IGN); });
  ASSERT_TRUE(Eventually([&] { return process.ErrSoFar().find("images/s") != std::string::npos; }));
  for (const pid_t pid : ProcessesWith(world.Path().string())) ::kill(pid, SIGHUP);
  const auto result = process.Wait();
  EXPECT_EQ(result.status, 0) << result.err;
  world.ExpectClean();
}

// Keys, model and images of a run have no names, so there is nothing to clean up.
TEST(KilledLauncher, LeavesNoFileAndNoProcess) {
  const World world;
  const auto parties = [&] { return ProcessesWith(world.Path().string()).size(); };
  const std::vector<std::function<bool(Process&)>> points{
      [](Process&) { return true; }, [&](Process&) { return parties() >= 2; },
      [&](Process&) { return parties() >= 4; },
      [](Process& process) {
        return process.OutSoFar().find("in batches of") != std::string::npos;
      },
      [](Process& process) { return process.ErrSoFar().find("images/s") != std::string::npos; }};
  for (std::size_t i = 0; i < points.size(); ++i) {
    // Float weights are compiled and the images drawn here, so that both are handed over, too.
    auto process = world.Tercet(With({"run", world.File("dense.json"), "--model",
                                      world.File("dense.safetensors"), "--limit", "20"},
                                     kLongLink));
    ASSERT_TRUE(Eventually([&] { return points[i](process); })) << i << process.ErrSoFar();
    ::kill(process.Pid(), SIGKILL);
    EXPECT_EQ(process.Wait().status, 128 + SIGKILL);
    world.ExpectClean();
  }
}

TEST(ClosedDescriptors, AreNoneOfTheFilesThatARunOpens) {
  const World world;
  const std::vector<std::string> model{"run", world.File("dense.json"), "--model",
                                       world.File("dense.safetensors")};
  const auto made = world
                        .Tercet(With(model, {"--material-out", world.File("material"), "--queries",
                                             "3", "--batch", "4"}),
                                kCloseAll)
                        .Wait();
  EXPECT_EQ(made.status, 0);
  const auto used = world.Run("dense", {"--material", world.File("material")}, kCloseAll).Wait();
  EXPECT_EQ(used.status, 0);
  world.ExpectClean();
}

// ThreadSanitizer keeps a signal back until the write that blocks has returned.
#if TERCET_THREAD_SANITIZER
constexpr bool kSignalsArrive = false;
#else
constexpr bool kSignalsArrive = true;
#endif

// While it waits for its parties, and when all that is left is to print.
TEST(Launcher, ThatNobodyReadsStopsWhenAsked) {
  if (!kSignalsArrive) GTEST_SKIP() << "signals do not interrupt writes here";
  const World world;
  const auto parties = [&] { return ProcessesWith(world.Path().string()).size() - 1; };
  for (const bool in_the_end : {false, true}) {
    Pipe pipe;
    auto process = world.Run("dense", With({"--limit", "3"}, kLongLink), [&] {
      ::dup2(pipe.write.Get(), STDOUT_FILENO);
      ::dup2(pipe.write.Get(), STDERR_FILENO);
    });
    ASSERT_TRUE(Eventually([&] { return pipe.Drain(); }));
    pipe.Fill();
    ASSERT_TRUE(Eventually([&] { return parties() == 3; }));
    if (in_the_end) {
      ASSERT_TRUE(Eventually([&] { return parties() == 0; }));
    }
    ::kill(process.Pid(), SIGTERM);
    EXPECT_THAT(process.Wait(std::chrono::seconds(20)).status, testing::AnyOf(1, 128 + SIGTERM));
    world.ExpectClean();
  }
}

class PartyProcess : public Testbed {
 protected:
  // Parties 1 and 2 as usual, and party 0 so that it cannot print. Waits until its peers say that
  // all are connected.
  std::vector<Process> StartWithMute(const std::vector<std::string>& common,
                                     const std::vector<std::string>& more,
                                     const std::function<void()>& mute) {
    std::vector<Process> parties;
    parties.push_back(Start(0, "dense", With(common, more), mute));
    for (int id = 1; id < 3; ++id) parties.push_back(Start(id, "dense", common));
    EXPECT_TRUE(Eventually([&] {
      return parties[1].OutSoFar().find("cost of one") != std::string::npos;
    })) << parties[1].ErrSoFar();
    return parties;
  }
  static void ExpectToldOfSignal(Process& party) {
    const auto result = party.Wait(std::chrono::seconds(20));
    EXPECT_EQ(result.status, 1);
    EXPECT_THAT(result.err, HasSubstr("stopped by a signal"));
  }
};

TEST_F(PartyProcess, WithoutOpenDescriptorsKeepsItsLogOutOfTheMaterial) {
  std::vector<Process> parties;
  const auto file = [&](int id) { return world_.File(fmt::format("{}.material", id)); };
  for (int id = 0; id < 3; ++id) {
    std::vector<std::string> more{"--material-out", file(id), "--queries", "1", "--batch", "10"};
    if (id == 2) more.insert(more.begin(), {"--model", world_.File("dense.safetensors")});
    parties.push_back(StartBare(id, "dense", more, kCloseAll));
  }
  for (auto& party : parties) EXPECT_EQ(party.Wait().status, 0);
  parties.clear();
  for (int id = 1; id < 3; ++id) {
    std::vector<std::string> more{"--material", file(id)};
    if (id == 1) more.insert(more.begin(), {"--images", world_.File("images.idx")});
    parties.push_back(StartBare(id, "dense", more));
  }
  for (auto& party : parties) {
    const auto result = party.Wait();
    EXPECT_EQ(result.status, 0) << result.err;
  }
}

TEST_F(PartyProcess, RunsOnWhenItsLogCannotBeWritten) {
  Pipe pipe;
  pipe.read.Reset();
  std::vector<Process> parties;
  parties.reserve(3);
  const std::array<std::function<void()>, 3> logs{
      [] { ::dup2(::open("/dev/full", O_WRONLY), STDERR_FILENO); },
      [&] { ::dup2(pipe.write.Get(), STDERR_FILENO); }, std::function<void()>()};
  for (int id = 0; id < 3; ++id)
    parties.push_back(Start(id, "dense", kLongLink, logs[static_cast<std::size_t>(id)]));
  for (auto& party : parties) {
    const auto result = party.Wait();
    EXPECT_EQ(result.status, 0) << result.err;
  }
}

TEST_F(PartyProcess, ThatWaitsForItsReaderStopsWhenAsked) {
  if (!kSignalsArrive) GTEST_SKIP() << "signals do not interrupt writes here";
  for (const int number : {SIGINT, SIGTERM}) {
    Pipe pipe;
    pipe.Fill();
    auto parties = StartWithMute(kLongLink, {}, [&] { ::dup2(pipe.write.Get(), STDOUT_FILENO); });
    ::kill(parties[0].Pid(), number);
    for (auto& party : parties) ExpectToldOfSignal(party);
  }
}

// As the one before, when all that is left is to print the results.
TEST_F(PartyProcess, ThatWaitsForItsReaderInTheEndStopsWhenAsked) {
  if (!kSignalsArrive) GTEST_SKIP() << "signals do not interrupt writes here";
  Pipe pipe;
  auto parties = StartWithMute({"--link", "rtt_ms=20"}, {"--json", world_.File("out.json")},
                               [&] { ::dup2(pipe.write.Get(), STDOUT_FILENO); });
  ASSERT_TRUE(Eventually([&] { return pipe.Drain(); }));
  pipe.Fill();
  for (std::size_t p = 1; p < 3; ++p) EXPECT_EQ(parties[p].Wait().status, 0);
  ::kill(parties[0].Pid(), SIGTERM);
  ExpectToldOfSignal(parties[0]);
  EXPECT_FALSE(std::filesystem::exists(world_.File("out.json")));
}

}  // namespace
}  // namespace tercet::integration
