// SPDX-License-Identifier: Apache-2.0
// `tercet bench` over the machines of a testbed.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <utility>
#include <vector>

#include "base/json.h"
#include "programs/auto_suite.h"
#include "programs/bench_machines.h"
#include "programs/bench_order.h"
#include "programs/inputs.h"
#include "programs/launcher.h"
#include "programs/options.h"
#include "programs/run_result.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/infer/testbed.h"

namespace tercet::programs {
namespace {

namespace fs = std::filesystem;

constexpr FileKind kNetworkFile{"a network's JSON", 16 << 20};
constexpr FileKind kModelFile{"a compiled model", std::uint64_t{1} << 32};

// The program of the shell's first word, as a shell would find it.
std::string FindProgram(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* const path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "");
  for (std::string folder; std::getline(folders, folder, ':');) {
    auto program = (fs::path(folder.empty() ? "." : folder) / name).string();
    if (::access(program.c_str(), X_OK) == 0) return program;
  }
  throw ConfigError("--remote-shell", fmt::format("there is no program {}", Printable(name)));
}

std::vector<std::string> ShellWords(const std::string& shell) {
  std::vector<std::string> words;
  std::istringstream stream(shell);
  for (std::string word; stream >> word;) words.push_back(std::move(word));
  if (words.empty()) throw ConfigError("--remote-shell", "found blanks, expected a program");
  words[0] = FindProgram(words[0]);
  return words;
}

// What three parties say of one thing, once where they agree.
std::string Together(const std::array<std::string, 3>& texts) {
  if (texts[0] == texts[1] && texts[0] == texts[2]) return texts[0];
  return fmt::format("party 0: {}; party 1: {}; party 2: {}", texts[0], texts[1], texts[2]);
}

RunOptions RunOptionsOf(const BenchRow& row, const BenchOptions& bench) {
  RunOptions options;
  CLI::App schedule;
  AddSchedule(schedule, options, "", "");
  auto words = ScheduleOptions(row.schedule);
  std::reverse(words.begin(), words.end());  // as CLI11 wants them
  schedule.parse(words);
  options.suite = row.suite;
  options.link = row.link;
  options.batch = row.batch;
  if (bench.WeightsArePublic()) options.linear = mpc::kPublicLinear;
  return options;
}

class Testbed : public BenchMachines {
 public:
  Testbed(const fs::path& file, const std::string& shell, const BenchOptions& options,
          const mpc::Registry& registry)
      : options_(options),
        registry_(registry),
        testbed_(infer::LoadBenchTestbed(file)),
        shell_(ShellWords(shell)) {
    std::array<std::string, 3> builds, machines;
    const auto own = OwnIdentity();
    const std::string order = DescribeOrder();
    const auto texts = LaunchElsewhere({Command(0, order), Command(1, order), Command(2, order)});
    for (std::size_t p = 0; p < 3; ++p) {
      const auto place = fmt::format("party {} at {}", p, testbed_.logins[p].login);
      const auto other = IdentityFromJson(texts[p], place);
      if (other.version != own.version || other.commit != own.commit)
        throw ConfigError(place, fmt::format("runs tercet {} ({}), expected {} ({}), which this is",
                                             other.version, other.commit, own.version, own.commit));
      builds[p] = other.build;
      machines[p] = other.machine;
    }
    identity_ = {own.version, own.commit, Together(builds), Together(machines) + ", a testbed"};
  }

  BuildIdentity Identity() const override { return identity_; }
  std::string Transport() const override { return testbed_.tls ? "tls" : "tcp-insecure"; }
  mpc::Roles Roles() const override { return testbed_.roles; }

  report::RunReport Run(const BenchRow& row, const BenchSubject& subject, bool check) override {
    const auto images = ImagesOf(row, subject);
    const auto run = RunOptionsOf(row, options_);
    std::array<ShellCommand, 3> commands;
    for (int id = 0; id < 3; ++id) {
      BenchFiles files{ReadTextFile(subject.from.file, kNetworkFile), {}, {}};
      if (id == testbed_.roles.model_owner)
        files.model = ReadTextFile(subject.compiled.Path(), kModelFile);
      if (id == testbed_.roles.data_owner) {
        files.images = NpyHeader(images);
        files.images.append(images.pixels.begin(), images.pixels.end());
      }
      commands[static_cast<std::size_t>(id)] = Command(id, RunOrder(run, files));
    }
    const auto texts = LaunchElsewhere(std::move(commands));
    std::array<infer::PartyReport, 3> reports;
    for (std::size_t p = 0; p < 3; ++p)
      reports[p] = report::PartyReportFromJson(texts[p], fmt::format("report of party {}", p));
    report::RunReport report = report::Merge(reports);
    Compare(report, run, subject, images, check);
    return report;
  }

 private:
  ShellCommand Command(int id, std::string order) const {
    const auto& login = testbed_.logins[static_cast<std::size_t>(id)];
    ShellCommand command{shell_, std::move(order)};
    command.words.push_back(login.login);
    command.words.push_back(login.command);
    return command;
  }

  files::Images ImagesOf(const BenchRow& row, const BenchSubject& subject) const {
    const auto& shape = subject.spec.input.shape;
    if (subject.from.images.empty()) return RandomImages(shape, row.images);
    return LoadLabelledImages(subject.from.images, {}, row.images, subject.spec, options_.data)
        .images;
  }

  // With what this program makes of the same model and images.
  void Compare(report::RunReport& report, const RunOptions& run, const BenchSubject& subject,
               const files::Images& images, bool check) const {
    auto model = subject.model;
    model.net.linear = LinearProtocol(run.linear);
    const auto suite = ParseSuite(run.suite, registry_);
    ResolveAuto(model.net, registry_, suite, ParseLink(run.link),
                infer::ParseObjective(run.optimise, "--optimise"), testbed_.roles, run.batch);
    const auto plan = infer::MakePlan(model.net, registry_, suite, testbed_.roles,
                                      std::min(run.batch, images.count));
    CompleteReport(report, plan, registry_, suite, run.Schedule(), images.count);
    if (check) CompareWithPlain(report, model, plan, registry_, images, {});
    report.RequireRight();
  }

  const BenchOptions& options_;
  const mpc::Registry& registry_;
  const infer::BenchTestbed testbed_;
  const std::vector<std::string> shell_;
  BuildIdentity identity_;
};

}  // namespace

std::unique_ptr<BenchMachines> TestbedMachines(const fs::path& file, const std::string& shell,
                                               const BenchOptions& options,
                                               const mpc::Registry& registry) {
  return std::make_unique<Testbed>(file, shell, options, registry);
}

}  // namespace tercet::programs
