// SPDX-License-Identifier: Apache-2.0
#include "integration/world.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "programs/inputs.h"
#include "tercet/base/error.h"
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

std::string BigEndian(std::uint32_t value) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(value >> shift & 0xff);
  return text;
}

// What is there of a file that may not be there yet, or not any more.
// What can be read: a process may end while its file in /proc is.
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
  const auto deadline = std::chrono::steady_clock::now() + limit;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
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

std::string IdxImages(std::size_t count, std::size_t height, std::size_t width) {
  const auto images = programs::RandomImages({1, height, width}, count);
  std::string file = BigEndian(0x803) + BigEndian(static_cast<std::uint32_t>(count)) +
                     BigEndian(static_cast<std::uint32_t>(height)) +
                     BigEndian(static_cast<std::uint32_t>(width));
  return file.append(images.pixels.begin(), images.pixels.end());
}

std::string IdxLabels(const std::vector<std::uint8_t>& labels) {
  std::string file = BigEndian(0x801) + BigEndian(static_cast<std::uint32_t>(labels.size()));
  return file.append(labels.begin(), labels.end());
}

World::World() {
  std::string pattern = (fs::temp_directory_path() / "tercet-integration-XXXXXX").string();
  TERCET_CHECK(::mkdtemp(pattern.data()) != nullptr, "cannot make {}", pattern);
  path_ = pattern;
  fs::create_directory(path_ / "tmp");
  // Of this process and of those that it starts.
  ::setenv("XDG_STATE_HOME", (path_ / "state").c_str(), 1);
  for (const auto& [name, text] : {std::pair{"dense", kDense}, {"conv", kConv}}) {
    Write(fmt::format("{}.json", name), text);
    const auto spec = nn::ParseNetwork(text, name);
    files::SaveTensors(programs::PlaceholderWeights(spec, 11),
                       path_ / fmt::format("{}.safetensors", name));
  }
  Write("images.idx", IdxImages(kImages, 8, 8));
  Write("labels.idx", IdxLabels({0, 1, 2, 3, 0, 1, 2, 3, 0, 1}));
}

World::~World() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

void World::Write(const std::string& name, const std::string& content) const {
  std::ofstream stream(path_ / name, std::ios::binary);
  stream << content;
  TERCET_CHECK(stream.good(), "cannot write {}", name);
}

Process World::Tercet(std::vector<std::string> arguments,
                      const std::function<void()>& prepare) const {
  arguments.insert(arguments.begin(), TERCET_BIN_DIR "/tercet");
  return {path_, arguments, {}, prepare};
}

Process World::Party(std::vector<std::string> arguments, const std::vector<int>& fds,
                     const std::function<void()>& prepare) const {
  arguments.insert(arguments.begin(), TERCET_BIN_DIR "/tercet-party");
  return {path_, arguments, fds, prepare};
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
  EXPECT_TRUE(fs::is_empty(path_ / "tmp")) << "something is left in the temporary directory";
  EXPECT_TRUE(
      Eventually([&] { return ProcessesWith(path_.string()).empty(); }, std::chrono::seconds(5)))
      << "a process is left";
}

}  // namespace tercet::integration
