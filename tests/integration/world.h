// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/scratch.h"
#include "files/idx.h"
#include "tercet/files/images.h"
#include "tercet/files/tensor_file.h"
#include "tercet/nn/network.h"

/// What the tests of whole processes share: a scratch directory with small networks, weights and
/// images, where programs keep their state too, and processes with a deadline.
namespace tercet::integration {

/// How a process ended.
struct Result {
  /// Exit status; 128 + signal where it was killed; -1 when it outlived the deadline and was killed
  /// here.
  int status = -1;
  std::string out, err;
};

/// A child process whose output goes to files and whose temporary directory is the scratch
/// directory's.
class Process {
 public:
  /// `fds` stay open in the child, and `prepare` runs there last: it may only make calls that are
  /// safe after a fork. Signals have their default actions.
  Process(const std::filesystem::path& scratch, const std::vector<std::string>& command,
          const std::vector<int>& fds = {}, const std::function<void()>& prepare = {});
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  /// Kills it if it still runs.
  ~Process();

  pid_t Pid() const { return pid_; }
  Result Wait(std::chrono::milliseconds limit = std::chrono::seconds(60));
  /// What it has written to stdout and stderr so far.
  std::string OutSoFar() const;
  std::string ErrSoFar() const;

 private:
  pid_t pid_ = -1;
  std::filesystem::path out_, err_;
};

/// Looks every few milliseconds until `condition` holds; false when it did not within `limit`.
bool Eventually(const std::function<bool()>& condition,
                std::chrono::milliseconds limit = std::chrono::seconds(30));

/// Processes whose command line holds `text` (of this machine, by /proc).
std::vector<pid_t> ProcessesWith(const std::string& text);

class World {
 public:
  static constexpr std::size_t kImages = 10;

  World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  const std::filesystem::path& Path() const { return scratch_.Path(); }
  std::string File(const std::string& name) const { return (Path() / name).string(); }
  void Write(const std::string& name, const std::string& content) const {
    scratch_.Write(name, content);
  }
  void Write(const std::string& name, const std::vector<std::uint8_t>& content) const {
    scratch_.Write(name, content);
  }

  /// bin/tercet and bin/tercet-party with these arguments.
  Process Tercet(std::vector<std::string> arguments,
                 const std::function<void()>& prepare = {}) const;
  Process Party(std::vector<std::string> arguments, const std::vector<int>& fds = {},
                const std::function<void()>& prepare = {}) const;
  /// `run` of the small network "dense" or "conv" with the ten images, their labels and more
  /// arguments.
  Process Run(const std::string& network, const std::vector<std::string>& more,
              const std::function<void()>& prepare = {}) const;

  /// Expects that nothing is left: no file in the temporary directory and no process that knows
  /// this world.
  void ExpectClean() const;

 private:
  ScratchDirectory scratch_;
};

nlohmann::json ReadJson(const std::filesystem::path& file);

/// An IDX file of pixels from a fixed seed.
std::vector<std::uint8_t> IdxImages(std::uint32_t count, std::uint32_t height, std::uint32_t width);

}  // namespace tercet::integration
