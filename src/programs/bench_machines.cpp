// SPDX-License-Identifier: Apache-2.0
#include "programs/bench_machines.h"

#include <string_view>
#include <vector>

#include "programs/child_program.h"
#include "programs/data_options.h"
#include "programs/failure.h"
#include "programs/launcher.h"
#include "programs/options.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::programs {
namespace {

constexpr FileKind kRunReport{"a report of `tercet run --json`", 256 << 20};

std::string ReasonOf(const ProgramEnd& end) {
  constexpr std::string_view kBegin = "tercet: error: ";
  const auto at = end.err.rfind(kBegin);
  if (at == std::string::npos)
    return end.status > 128 ? fmt::format("tercet run was killed by signal {}", end.status - 128)
                            : fmt::format("tercet run ended with status {}", end.status);
  const auto begin = at + kBegin.size();
  return end.err.substr(begin, end.err.find('\n', begin) - begin);
}

class Here : public BenchMachines {
 public:
  explicit Here(const BenchOptions& options)
      : options_(options), program_(SiblingProgram("tercet").string()) {}

  BuildIdentity Identity() const override { return OwnIdentity(); }
  std::string Transport() const override { return options_.transport; }
  mpc::Roles Roles() const override { return {}; }

  report::RunReport Run(const BenchRow& row, const BenchSubject& subject, bool check) override {
    const AnonymousFile report_file;
    const auto& from = subject.from;
    std::vector<std::string> words{program_,
                                   "run",
                                   from.file.string(),
                                   "--model",
                                   subject.compiled.Path(),
                                   "--limit",
                                   std::to_string(row.images),
                                   "--batch",
                                   std::to_string(row.batch),
                                   "--suite",
                                   row.suite,
                                   "--link",
                                   row.link,
                                   "--transport",
                                   options_.transport,
                                   "--json",
                                   report_file.Path()};
    if (!from.images.empty()) {
      words.insert(words.end(), {"--images", from.images.string()});
      for (auto& word : DataWords(options_.data)) words.push_back(std::move(word));
    }
    if (options_.WeightsArePublic()) words.emplace_back(kPublicWeights);
    for (auto& word : ScheduleOptions(row.schedule)) words.push_back(std::move(word));
    if (!check) words.emplace_back("--no-check");
    const auto end = RunProgram(words, {subject.compiled.Fd(), report_file.Fd()});
    if (end.status != kExitOk) throw Error(ReasonOf(end));
    return report::RunReportFromJson(ReadTextFile(report_file.Path(), kRunReport),
                                     "report of tercet run");
  }

 private:
  const BenchOptions& options_;
  const std::string program_;
};

}  // namespace

std::unique_ptr<BenchMachines> ThisMachine(const BenchOptions& options) {
  return std::make_unique<Here>(options);
}

}  // namespace tercet::programs
