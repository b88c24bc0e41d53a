// SPDX-License-Identifier: Apache-2.0
#include "integration/world.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "programs/inputs.h"
#include "tercet/base/error.h"
#include "tercet/compile/random_weights.h"
#include "tercet/files/tensor_file.h"
#include "tercet/nn/network.h"

namespace tercet::integration {
namespace fs = std::filesystem;

namespace {

constexpr auto kLook = std::chrono::milliseconds(5);

constexpr const char* kDense = R"({
  "name": "Dense",
  "input": {"shape": [1, 8, 8], "scale": 255, "mean": 0.0, "std": 1.0, "bits": 4},
  "layers": [
    {"name": "fc1", "type": "linear", "out_features": 12},
    {"name": "bn1", "type": "batch_norm"},
    {"name": "act1", "type": "sign"},
    {"name": "fc2", "type": "linear", "out_features": 7},
    {"name": "act2", "type": "sign"},
    {"name": "fc3", "type": "linear", "out_features": 4}
  ],
  "output": "logits"
})";

constexpr const char* kConv = R"({
  "name": "Conv",
  "input": {"shape": [1, 8, 8], "scale": 255, "mean": 0.0, "std": 1.0, "bits": 4},
  "layers": [
    {"name": "conv1", "type": "conv2d", "out_channels": 3, "kernel": 3, "stride": 1, "padding": 1},
    {"name": "bn1", "type": "batch_norm"},
    {"name": "act1", "type": "sign"},
    {"name": "pool1", "type": "max_pool2d", "kernel": 2, "stride": 2},
    {"name": "fc1", "type": "linear", "out_features": 4}
  ],
  "output": "logits"
})";

// What can be read of a file that may not be there yet, or not any more: a process may end while
// its file in /proc is read.
std::string ReadSoFar(const fs::path& file) {
  const std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

}  // namespace

nlohmann::json ReadJson(const fs::path& file) { return nlohmann::json::parse(ReadAll(file)); }

Process::Process(const fs::path& scratch, const std::vector<std::string>& command,
                 const std::vector<int>& fds, const std::function<void()>& prepare) {
  static std::atomic<int> number{0};
  const int n = number++;
  out_ = scratch / fmt::format("out.{}", n);
  err_ = scratch / fmt::format("err.{}", n);
  const std::string temporary = "TMPDIR=" + (scratch / "tmp").string();
  std::vector<std::string> words = command;
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (!std::string_view(*entry).starts_with("TMPDIR=")) environment.push_back(*entry);
  environment.push_back(const_cast<char*>(temporary.c_str()));
  environment.push_back(nullptr);
  pid_ = ::fork();
  TERCET_CHECK(pid_ >= 0, "fork failed");
  if (pid_ == 0) {
    const int out = ::open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int err = ::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(err, STDERR_FILENO);
    for (const int fd : fds) ::fcntl(fd, F_SETFD, 0);
    for (const int each : {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGPIPE, SIGXFSZ})
      ::signal(each, SIG_DFL);
    if (prepare) prepare();
    ::execve(argv[0], argv.data(), environment.data());
    ::_exit(127);
  }
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      out_(std::move(other.out_)),
      err_(std::move(other.err_)) {}

Process::~Process() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

Result Process::Wait(std::chrono::milliseconds limit) {
  Result result;
  int status = 0;
  const bool ended = Eventually([&] { return ::waitpid(pid_, &status, WNOHANG) == pid_; }, limit);
  if (!ended) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  } else {
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  pid_ = -1;
  result.out = ReadSoFar(out_);
  result.err = ReadSoFar(err_);
  return result;
}

std::string Process::OutSoFar() const { return ReadSoFar(out_); }

std::string Process::ErrSoFar() const { return ReadSoFar(err_); }

bool Eventually(const std::function<bool()>& condition, std::chrono::milliseconds limit) {
  const auto deadline = Clock::now() + limit;
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(kLook);
  }
  return true;
}

std::vector<pid_t> ProcessesWith(const std::string& text) {
  std::vector<pid_t> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string command = ReadSoFar(entry.path() / "cmdline");
    for (char& c : command)
      if (c == '\0') c = ' ';
    if (command.find(text) != std::string::npos)
      found.push_back(static_cast<pid_t>(std::stol(name)));
  }
  return found;
}

std::vector<std::uint8_t> IdxImages(std::uint32_t count, std::uint32_t height,
                                    std::uint32_t width) {
  return files::Idx({0x803, count, height, width},
                    programs::RandomImages({1, height, width}, count).pixels);
}

World::World() {
  fs::create_directory(Path() / "tmp");
  // Of this process and of those that it starts.
  ::setenv("XDG_STATE_HOME", (Path() / "state").c_str(), 1);
  for (const auto& [name, text] : {std::pair{"dense", kDense}, {"conv", kConv}}) {
    Write(fmt::format("{}.json", name), text);
    const auto spec = nn::ParseNetwork(text, name);
    files::SaveTensors(compile::RandomWeights(spec, 11),
                       Path() / fmt::format("{}.safetensors", name));
  }
  Write("images.idx", IdxImages(kImages, 8, 8));
  Write("labels.idx", files::Idx({0x801, kImages}, {0, 1, 2, 3, 0, 1, 2, 3, 0, 1}));
}

Process World::Tercet(std::vector<std::string> arguments,
                      const std::function<void()>& prepare) const {
  arguments.insert(arguments.begin(), TERCET_BIN_DIR "/tercet");
  return {Path(), arguments, {}, prepare};
}

Process World::Party(std::vector<std::string> arguments, const std::vector<int>& fds,
                     const std::function<void()>& prepare) const {
  arguments.insert(arguments.begin(), TERCET_BIN_DIR "/tercet-party");
  return {Path(), arguments, fds, prepare};
}

Process World::Run(const std::string& network, const std::vector<std::string>& more,
                   const std::function<void()>& prepare) const {
  std::vector<std::string> arguments{
      "run",      File(network + ".json"), "--model",  File(network + ".safetensors"),
      "--images", File("images.idx"),      "--labels", File("labels.idx")};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Tercet(arguments, prepare);
}

void World::ExpectClean() const {
  EXPECT_TRUE(fs::is_empty(Path() / "tmp")) << "something is left in the temporary directory";
  EXPECT_TRUE(
      Eventually([&] { return ProcessesWith(Path().string()).empty(); }, std::chrono::seconds(5)))
      << "a process is left";
}

}  // namespace tercet::integration
