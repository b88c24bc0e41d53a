// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "programs/anonymous_file.h"
#include "programs/auto_suite.h"
#include "programs/build_identity.h"
#include "programs/commands.h"
#include "programs/cost_table.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/launcher.h"
#include "programs/memory_run.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/pictures.h"
#include "programs/progress_line.h"
#include "programs/run_options.h"
#include "programs/run_result.h"
#include "programs/shard_options.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/crypto/certificates.h"
#include "tercet/infer/session.h"
#include "tercet/infer/testbed.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

// A party may load a large model while the others wait for it; one that dies meanwhile is seen at
// once.
constexpr double kConnectSeconds = 120;

struct RunArguments : RunSettings {
  std::filesystem::path json;
  std::size_t show = 0;
  ShardOptions shard;
};

// All that a run needs, loaded and checked.
struct RunInput {
  mpc::Registry registry = BuiltinProtocols();
  nn::NetworkSpec spec;
  nn::IntegerNetwork model;
  LabelledImages data;
  bool images_are_random = false;
  mpc::SuiteChoice suite;
  mpc::Roles roles;
  net::LinkProfile link;
  std::optional<infer::JobPart> part;   // of what job the images are a shard
  std::optional<infer::Plan> material;  // the plan of material that is there
  // A party without a part in this run.
  std::optional<int> Absent() const {
    if (material && !material->HelperActsOnline()) return roles.helper;
    return std::nullopt;
  }
};

std::filesystem::path MaterialOf(const std::filesystem::path& directory, int party) {
  return directory / fmt::format("party{}.material", party);
}

// The plan that the material in a directory was made for. The suite becomes the material's, which
// one that was given must amount to, and so does a batch that was not given.
infer::Plan PlanOfMaterial(RunArguments& arguments, const mpc::Registry& registry) {
  // That of an evaluator: the helper may have none.
  const int party = arguments.roles.Resolve().Evaluator1();
  const infer::MaterialFile material(MaterialOf(arguments.material, party), arguments.Place());
  const auto spec = nn::LoadNetwork(arguments.network);
  if (arguments.suite_given)
    CheckMaterialSuite(material, spec, registry, ParseSuite(arguments.suite, registry),
                       ParseLink(arguments.link),
                       infer::ParseObjective(arguments.optimise, "--optimise"));
  arguments.suite = material.Header().suite;
  TakeLinear(arguments.linear, material);
  if (!arguments.batch_given) arguments.batch = material.Header().batch;
  return material.MakePlan(spec, registry);
}

// What is the same in all shards of a job.
std::string JobDigest(const RunArguments& arguments, const RunInput& input) {
  return crypto::Sha256Hex(fmt::format(
      "{} shards\nnetwork {}\nsuite {}\nlinear {}\nroles {}\nlink rtt_ms={},mbit={}\nbatch {}\nin "
      "flight {}\n"
      "material {}\n"
      "transport {}\nchecked {}\nmodel {}\nimages {}\n",
      arguments.shard.shard->count, input.spec.Digest(), input.suite.Text(), arguments.linear,
      mpc::RolesText(input.roles), input.link.rtt_ms, input.link.mbit, arguments.batch,
      arguments.in_flight, infer::ScheduleText(arguments.Schedule()), arguments.transport,
      !arguments.no_check, compile::CompiledDigest(input.model), ImagesDigest(input.data.images)));
}

RunInput LoadInput(const RunArguments& arguments) {
  RunInput input;
  input.suite = ParseSuite(arguments.suite, input.registry);
  input.roles = arguments.roles.Resolve();
  input.link = ParseLink(arguments.link);
  const auto json = arguments.shard.ReportOf(arguments.json);
  if (!json.empty()) CheckWritable(json, "--json");
  CheckLabels(arguments.model.file, arguments.labels);
  input.spec = nn::LoadNetwork(arguments.network);
  if (arguments.MakesMaterial()) {
    // No image has a part in it.
  } else if (arguments.images.empty()) {
    input.images_are_random = true;
    input.data.images = RandomImages(input.spec.input.shape,
                                     arguments.limit > 0 ? arguments.limit : arguments.batch);
  } else {
    input.data = LoadLabelledImages(arguments.images, arguments.labels, arguments.limit, input.spec,
                                    arguments.model.data);
  }
  input.model = LoadModel(input.spec, arguments.model, input.registry,
                          [](const std::string& line) { Print("{}\n", line); });
  input.model.net.linear = LinearProtocol(arguments.linear);
  if (!arguments.UsesMaterial())
    ResolveAuto(input.model.net, input.registry, input.suite, input.link,
                infer::ParseObjective(arguments.optimise, "--optimise"), input.roles,
                arguments.batch);
  if (arguments.shard.shard) {
    const std::size_t all = input.data.images.count;
    input.part = {*arguments.shard.shard, all, JobDigest(arguments, input), {}};
    TakeShard(input.data, *arguments.shard.shard);
  }
  return input;
}

// Whether the report of this shard is there, right and whole.
bool IsDoneAlready(const RunArguments& arguments, const RunInput& input) {
  const auto file = arguments.shard.ReportOf(arguments.json);
  if (!std::filesystem::exists(file)) return false;
  try {
    const auto run = report::RunReportFromJson(ReadTextFile(file, kShardReport), file.string());
    run.RequireRight();
    return IsDone(run, *input.part, true, input.data.labels);
  } catch (const Error& e) {
    PrintWarning(fmt::format("not the report of this shard, so it is made anew: {}", e.what()));
    return false;
  }
}

// Keys, the model and the images go from hand to hand, each party's to that party alone, so that
// nothing of them stays however this process ends: `give` puts a file into the hands of a party and
// tells its name there.
using Give = std::function<std::string(int id, AnonymousFile file)>;

std::array<std::optional<net::TlsFiles>, 3> GiveCertificates(const Give& give) {
  std::array<std::optional<net::TlsFiles>, 3> tls;
  crypto::MakeCertificates(
      1, [&](std::optional<int> party, std::string_view certificate, std::string_view key) {
        for (int id = 0; id < 3; ++id) {
          auto& own = tls[static_cast<std::size_t>(id)];
          if (!party) {
            own = {give(id, AnonymousFile(certificate)), {}, {}};
          } else if (party == id) {
            own->certificate = give(id, AnonymousFile(certificate));
            own->key = give(id, AnonymousFile(key));
          }
        }
      });
  return tls;
}

AnonymousFile FileOf(const files::Images& images) {
  AnonymousFile file(NpyHeader(images));
  WriteFile(file.Path(),
            {reinterpret_cast<const char*>(images.pixels.data()), images.pixels.size()});
  return file;
}

std::array<infer::PartyReport, 3> RunInProcesses(const RunArguments& arguments,
                                                 const RunInput& input, ProgressLine& progress) {
  const auto program = SiblingProgram("tercet-party");
  LaunchSettings launch;
  launch.program = program;
  launch.on_progress = [&](std::size_t done, std::size_t total) { progress.Show(done, total); };

  std::vector<AnonymousFile> files;
  const Give give = [&](int id, AnonymousFile file) {
    launch.inherited[static_cast<std::size_t>(id)].push_back(file.Fd());
    return files.emplace_back(std::move(file)).Path();
  };
  std::array<std::optional<net::TlsFiles>, 3> tls;
  if (arguments.transport == "tls") tls = GiveCertificates(give);
  std::array<net::Endpoint, 3> endpoints;
  for (std::size_t p = 0; p < 3; ++p) {
    endpoints[p].host = "127.0.0.1";
    if (p < 2) std::tie(launch.listening[p], endpoints[p].port) = ListenOnLoopback();
  }
  launch.absent = input.Absent();
  for (int id = 0; id < 3; ++id) {
    const auto p = static_cast<std::size_t>(id);
    const std::string testbed =
        infer::TestbedToJson(endpoints, tls[p], input.roles, arguments.timeout_s,
                             std::max(arguments.timeout_s, arguments.stall_timeout_s),
                             std::max(arguments.timeout_s, kConnectSeconds));
    RunOptions own = arguments;
    own.batch_given = true;
    own.suite_given = false;
    own.images.clear();
    own.labels.clear();
    own.model = {};
    if (arguments.UsesMaterial()) own.material = MaterialOf(arguments.material, id);
    if (arguments.MakesMaterial()) own.material_out = MaterialOf(arguments.material_out, id);
    // What is loaded is handed over, so that no file is read, unpacked or compiled twice.
    own.limit = 0;
    if (id == input.roles.model_owner && !arguments.UsesMaterial()) {
      own.model.file = give(id, AnonymousFile());
      compile::SaveCompiled(input.model, own.model.file);
    }
    if (id == input.roles.data_owner && !arguments.MakesMaterial())
      own.images = give(id, FileOf(input.data.images));
    launch.arguments[p] = {"--testbed", give(id, AnonymousFile(testbed)),
                           "--network", own.network.string(),
                           "--options", give(id, AnonymousFile(ToJson(own)))};
  }
  return LaunchParties(std::move(launch));
}

std::array<infer::PartyReport, 3> RunInThreads(const RunArguments& arguments, const RunInput& input,
                                               ProgressLine& progress) {
  std::array<std::optional<infer::MaterialFile>, 3> material;
  MemoryRun run;
  run.settings = [&](int id) {
    auto& own_material = material[static_cast<std::size_t>(id)];
    RunOptions own = arguments;
    if (arguments.UsesMaterial())
      own_material.emplace(MaterialOf(arguments.material, id), arguments.Place());
    if (arguments.MakesMaterial()) own.material_out = MaterialOf(arguments.material_out, id);
    auto settings = own.Settings(id, input.spec, input.suite, input.roles,
                                 own_material ? &*own_material : nullptr);
    if (id == input.roles.model_owner && !arguments.UsesMaterial()) settings.model = &input.model;
    if (id == input.roles.data_owner && !arguments.MakesMaterial())
      settings.images = &input.data.images;
    if (id == input.roles.receiver)
      settings.on_progress = [&](std::size_t done, std::size_t total) {
        progress.Show(done, total);
      };
    return settings;
  };
  run.absent = input.Absent();
  return RunInMemory(run, input.registry);
}

std::array<infer::PartyReport, 3> RunParties(const RunArguments& arguments, const RunInput& input) {
  ProgressLine progress;
  return arguments.transport == "memory" ? RunInThreads(arguments, input, progress)
                                         : RunInProcesses(arguments, input, progress);
}

// Only the offline phase, to files.
int MakeMaterial(const RunArguments& arguments) {
  if (arguments.queries == 0) throw ConfigError("--queries", "must be given with --material-out");
  const RunInput input = LoadInput(arguments);
  MakePrivateDirectory(arguments.material_out);
  const auto plan =
      infer::MakePlan(input.model.net, input.registry, input.suite, input.roles, arguments.batch);
  for (const auto& warning : input.model.warnings) PrintWarning(warning);
  for (const auto& warning : plan.Warnings(input.registry)) PrintWarning(warning);
  if (const auto warning =
          arguments.CheckMemory(plan, input.registry, input.suite, input.data.images.count))
    PrintWarning(*warning);
  const auto parties = RunParties(arguments, input);
  double offline_s = 0;
  for (const auto& party : parties) offline_s = std::max(offline_s, party.offline_s);
  Print("material for {} queries of {} images each, suite {}, made in {}:\n", arguments.queries,
        arguments.batch, input.suite.Text(), report::FormatSeconds(offline_s));
  for (const auto& party : parties) {
    if (party.party == input.roles.helper && !plan.HelperActsOnline()) {
      Print("  no file for party {}, the helper: it has no part in what follows; it sent {}\n",
            party.party, report::FormatBytes(party.OfflineBytes()));
      continue;
    }
    const auto file = MaterialOf(arguments.material_out, party.party);
    Print("  {}: {}; party {} sent {}\n", file.string(),
          report::FormatBytes(std::filesystem::file_size(file)), party.party,
          report::FormatBytes(party.OfflineBytes()));
  }
  return kExitOk;
}

int Run(RunArguments arguments) {
  if (arguments.MakesMaterial()) return MakeMaterial(arguments);
  std::optional<infer::Plan> material;
  if (arguments.UsesMaterial()) material = PlanOfMaterial(arguments, BuiltinProtocols());
  RunInput input = LoadInput(arguments);
  input.material = std::move(material);
  if (arguments.shard.resume && IsDoneAlready(arguments, input)) {
    Print("{}: done already, see {}\n", ShardText(input.part->shard, input.part->all_images),
          arguments.shard.ReportOf(arguments.json).string());
    return kExitOk;
  }
  const auto& images = input.data.images;
  const auto plan = input.material
                        ? *input.material
                        : infer::MakePlan(input.model.net, input.registry, input.suite, input.roles,
                                          std::min(arguments.batch, images.count));
  const std::size_t batch = plan.batch;
  auto warnings = input.model.warnings;
  for (auto& warning : plan.Warnings(input.registry)) warnings.push_back(std::move(warning));
  if (arguments.transport == "tcp-insecure")
    warnings.emplace_back(
        "transport tcp-insecure: nothing is encrypted, and nobody proves who they are");
  if (const auto warning =
          arguments.CheckMemory(plan, input.registry, input.suite, input.data.images.count))
    warnings.push_back(*warning);
  if (const auto warning = files::RangeWarning(images)) warnings.push_back(*warning);
  for (const auto& warning : warnings) PrintWarning(warning);
  if (input.part) Print("{}\n", ShardText(input.part->shard, input.part->all_images));
  Print(
      "{}: {} {}images in batches of {}, suite {}, linear layers {}, link {}, transport {}; {}{}\n",
      input.spec.name, images.count, input.images_are_random ? "random " : "", batch,
      input.suite.Text(), plan.linear, input.link.name, arguments.transport,
      mpc::RolesText(input.roles), arguments.rotate_helper ? ", the helper's role rotates" : "");
  FlushOutput();

  report::RunReport run = report::Merge(RunParties(arguments, input));
  run.transport = arguments.transport;
  run.machine = MachineText();
  run.warnings = warnings;
  run.part = input.part;
  CompleteReport(run, plan, input.registry, input.suite, arguments.Schedule(), images.count);
  if (!input.data.labels.empty()) run.correct = CountCorrect(run.predictions, input.data.labels);
  if (!arguments.no_check) {
    ProgressLine progress("images checked");
    CompareWithPlain(run, input.model, plan, input.registry, images,
                     [&](std::size_t done, std::size_t total) { progress.Show(done, total); });
  }

  const bool utf8 = report::Utf8Locale();
  if (arguments.show > 0)
    Print("\n{}", DrawPictures(images, arguments.show, input.data.labels, run.predictions, utf8));
  Print("\n{}", report::Describe(run, utf8));
  FlushOutput();
  if (!arguments.json.empty())
    WriteFile(arguments.shard.ReportOf(arguments.json), report::ToJson(run), FileRights::kOwner);
  run.RequireRight();
  return kExitOk;
}

}  // namespace

void AddRunCommand(CLI::App& app, Chosen& chosen) {
  auto* command =
      app.add_subcommand("run", "Secure inference by three party processes on this machine");
  auto a = std::make_shared<RunArguments>();
  command->add_option("network", a->network, "Architecture (nets/*.json)")->required();
  command
      ->add_option("--model", a->model.file,
                   "Compiled model or float weights (.safetensors), or random[:SEED]: what an "
                   "architecture costs")
      ->required();
  auto* images = command->add_option("--images", a->images,
                                     fmt::format("{}; without it, random images", kImageFormats));
  command->add_option("--labels", a->labels, "Their labels, for the accuracy")->needs(images);
  AddNumber(*command, "--limit", a->limit, 1, kMaxImages, "Use the first N images only");
  AddRunSettings(*command, *a);
  AddCalibration(*command, a->model);
  AddDataOptions(*command, a->model.data);
  AddNumber(*command, "--show", a->show, 0, 1000,
            "Print the first N images as pictures, with true and predicted class");
  auto* json = command->add_option("--json", a->json, "Write the report");
  AddSchedule(*command, *a,
              "Make material for --queries queries, a file a party in this directory, and stop. As "
              "secret as keys, and never to be copied: see --material",
              "Use the material in this directory: no offline messages. Each query is used once; "
              "copies are refused, since a query used from two copies gives the difference of the "
              "two inputs away")
      ->excludes(images);
  AddShard(*command, a->shard, json);
  command->footer(
      "Example:\n"
      "  tercet run nets/mnistnet1.json --model nets/mnistnet1.safetensors --images "
      "t10k-images-idx3-ubyte.gz\n"
      "         --labels t10k-labels-idx1-ubyte.gz --limit 1000 --link lan --show 6");
  command->callback([a, &chosen] { chosen = [a] { return Run(*a); }; });
}

}  // namespace tercet::programs
