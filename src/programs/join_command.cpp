// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <memory>
#include <variant>
#include <vector>

#include "programs/commands.h"
#include "programs/failure.h"
#include "programs/output.h"
#include "programs/shard_options.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"
#include "tercet/report/run_report.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

struct JoinArguments {
  std::filesystem::path out;
  std::vector<std::filesystem::path> files;
};

int Join(const JoinArguments& arguments) {
  CheckWritable(arguments.out, "OUT");
  std::vector<std::pair<std::string, report::AnyReport>> reports;
  for (const auto& file : arguments.files) {
    std::error_code none;
    if (std::filesystem::equivalent(file, arguments.out, none))
      throw ConfigError("OUT", fmt::format("found {}, which is one of the reports and would be "
                                           "replaced",
                                           file.string()));
    reports.emplace_back(file.string(),
                         report::ReportFromJson(ReadTextFile(file, kShardReport), file.string()));
  }
  const auto whole = report::JoinShards(reports);
  const auto describe = [](const auto& each) {
    return report::Describe(each, report::Utf8Locale());
  };
  Print("{} shards, {} images\n\n{}", reports.size(),
        std::visit([](const auto& each) { return each.images; }, whole),
        std::visit(describe, whole));
  FlushOutput();
  WriteFile(arguments.out, std::visit([](const auto& each) { return report::ToJson(each); }, whole),
            FileRights::kOwner);
  if (const auto* run = std::get_if<report::RunReport>(&whole)) run->RequireRight();
  return kExitOk;
}

}  // namespace

void AddJoinCommand(CLI::App& app, Chosen& chosen) {
  auto* command = app.add_subcommand("join", "One report of the reports of all shards of a job");
  auto a = std::make_shared<JoinArguments>();
  command->add_option("out", a->out, "Where the joined report goes")->required();
  command
      ->add_option("files", a->files,
                   "What --json has written with --shard: by the receiver, another party or tercet "
                   "run, of every shard once")
      ->required();
  command->footer(
      "Logits, predictions, bytes and accuracy are those of all images; times are sums over the "
      "shards, hops and memory the largest. A shard that is missing, there twice, cut off or of "
      "another job is an error.\n"
      "Example:\n"
      "  tercet join all.json shard-*.json");
  command->callback([a, &chosen] { chosen = [a] { return Join(*a); }; });
}

}  // namespace tercet::programs
