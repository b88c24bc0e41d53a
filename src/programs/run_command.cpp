#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <exception>
#include <fstream>
#include <memory>
#include <optional>
#include <thread>

#include "programs/anonymous_file.h"
#include "programs/auto_suite.h"
#include "programs/commands.h"
#include "programs/cost_table.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/launcher.h"
#include "programs/memory_check.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/party_session.h"
#include "programs/pictures.h"
#include "programs/progress_line.h"
#include "programs/rotation.h"
#include "programs/testbed.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/crypto/certificates.h"
#include "tercet/infer/tolerance.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

// A party may load a large model while the others wait for it; one that dies meanwhile is seen at
// once.
constexpr double kConnectSeconds = 120;
constexpr auto kMemoryTimeout = std::chrono::hours(24);  // threads of one process cannot vanish

struct RunArguments {
  std::filesystem::path network, images, labels, json;
  ModelSource model;
  std::string suite = "lut", optimise = "online", link = "none", transport = "tls";
  std::size_t batch = kDefaultBatch, limit = 0, show = 0;
  double timeout_s = 30;
  double stall_timeout_s = std::chrono::duration<double>(kStallTimeout).count();
  RoleOptions roles;
  bool no_check = false;
  std::size_t ahead = 0, queries = 0;
  bool dealer_leaves = false, rotate_dealer = false;
  bool suite_given = false, batch_given = false;
  std::filesystem::path material, material_out;  // directories
  bool material_moved = false;

  bool MakesMaterial() const { return !material_out.empty(); }
  bool UsesMaterial() const { return !material.empty(); }
  infer::MaterialPlace Place() const {
    return material_moved ? infer::MaterialPlace::kMoved : infer::MaterialPlace::kWhereMade;
  }
};

// All that a run needs, loaded and checked.
struct RunInput {
  mpc::Registry registry = BuiltinProtocols();
  nn::NetworkSpec spec;
  nn::IntegerNetwork model;
  bool model_is_compiled = false;
  LabelledImages data;
  bool images_are_random = false;
  mpc::SuiteChoice suite;
  mpc::Roles roles;
  net::LinkProfile link;
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
                       net::ParseLinkProfile(arguments.link),
                       infer::ParseObjective(arguments.optimise, "--optimise"));
  arguments.suite = material.Header().suite;
  if (!arguments.batch_given) arguments.batch = material.Header().batch;
  return material.MakePlan(spec, registry);
}

// What `queries` queries of which the material is there send.
RunTotals CostWithMaterial(const infer::Plan& plan, std::size_t queries) {
  const auto total = plan.Total();
  RunTotals totals;
  totals.online_hops = total.OnlineHops();
  for (std::size_t p = 0; p < 3; ++p) totals.online_bytes[p] = queries * total.OnlineBytes()[p];
  return totals;
}

RunTotals ExpectedCost(const RunArguments& arguments, const RunInput& input,
                       const infer::Plan& plan) {
  const std::size_t images = input.data.images.count;
  if (input.material) return CostWithMaterial(plan, (images + plan.batch - 1) / plan.batch);
  if (arguments.rotate_dealer) return RotatedRunCost(plan, input.registry, input.suite, images);
  return RunCost(plan, input.registry, input.suite, images);
}

RunInput LoadInput(const RunArguments& arguments) {
  RunInput input;
  input.suite = ParseSuite(arguments.suite, input.registry);
  input.roles = arguments.roles.Resolve();
  input.link = net::ParseLinkProfile(arguments.link);
  if (!arguments.json.empty()) CheckWritable(arguments.json, "--json");
  input.spec = nn::LoadNetwork(arguments.network);
  if (arguments.MakesMaterial()) {
    // No image has a part in it.
  } else if (arguments.images.empty()) {
    input.images_are_random = true;
    input.data.images = RandomImages(input.spec.input.shape,
                                     arguments.limit > 0 ? arguments.limit : arguments.batch);
  } else {
    input.data =
        LoadLabelledImages(arguments.images, arguments.labels, arguments.limit, input.spec);
  }
  input.model_is_compiled = compile::IsCompiled(arguments.model.file);
  input.model = LoadModel(input.spec, arguments.model, input.registry,
                          [](const std::string& line) { Print("{}\n", line); });
  if (!arguments.UsesMaterial())
    ResolveAuto(input.model.net, input.registry, input.suite, input.link,
                infer::ParseObjective(arguments.optimise, "--optimise"), input.roles,
                arguments.batch);
  return input;
}

std::array<report::PartyReport, 3> RunInProcesses(const RunArguments& arguments,
                                                  const RunInput& input, ProgressLine& progress) {
  const auto program = SiblingProgram("tercet-party");
  const SignalWatch signals;
  LaunchSettings launch;
  launch.program = program;
  launch.on_progress = [&](std::size_t done, std::size_t total) { progress.Show(done, total); };

  // Keys, the model and the images go from hand to hand, each party's to that party alone, so that
  // nothing of them stays however this process ends.
  std::vector<AnonymousFile> files;
  const auto give = [&](int id, AnonymousFile file) {
    launch.inherited[static_cast<std::size_t>(id)].push_back(file.Fd());
    return files.emplace_back(std::move(file)).Path();
  };
  std::array<std::optional<net::TlsFiles>, 3> tls;
  if (arguments.transport == "tls") {
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
  }
  std::array<net::Endpoint, 3> endpoints;
  for (std::size_t p = 0; p < 3; ++p) {
    endpoints[p].host = "127.0.0.1";
    if (p < 2) std::tie(launch.listening[p], endpoints[p].port) = ListenOnLoopback();
  }
  launch.absent = input.Absent();
  for (int id = 0; id < 3; ++id) {
    const auto p = static_cast<std::size_t>(id);
    const std::string testbed =
        TestbedToJson(endpoints, tls[p], input.roles, arguments.timeout_s,
                      std::max(arguments.timeout_s, arguments.stall_timeout_s),
                      std::max(arguments.timeout_s, kConnectSeconds));
    auto& list = launch.arguments[p];
    list = {"--testbed", give(id, AnonymousFile(testbed)), "--network", arguments.network.string(),
            "--batch",   std::to_string(arguments.batch),  "--link",    arguments.link};
    if (id == input.roles.model_owner) list.insert(list.end(), {"--optimise", arguments.optimise});
    if (arguments.UsesMaterial()) {
      list.insert(list.end(), {"--material", MaterialOf(arguments.material, id).string()});
      if (arguments.material_moved) list.emplace_back("--material-moved");
    } else {
      list.insert(list.end(), {"--suite", arguments.suite});
    }
    if (arguments.MakesMaterial()) {
      list.insert(list.end(), {"--material-out", MaterialOf(arguments.material_out, id).string(),
                               "--queries", std::to_string(arguments.queries)});
    }
    if (arguments.dealer_leaves) {
      list.emplace_back("--dealer-leaves");
    } else if (arguments.rotate_dealer) {
      list.emplace_back("--rotate-dealer");
    } else {
      list.insert(list.end(), {"--ahead", std::to_string(arguments.ahead)});
    }
  }

  std::filesystem::path model = arguments.model.file, images = arguments.images;
  if (!input.model_is_compiled && !arguments.UsesMaterial()) {
    model = give(input.roles.model_owner, AnonymousFile());
    compile::SaveCompiled(input.model, model);
  }
  if (input.images_are_random)
    images = give(input.roles.data_owner, AnonymousFile(ImagesToNpy(input.data.images)));
  auto& model_owner = launch.arguments[static_cast<std::size_t>(input.roles.model_owner)];
  if (!arguments.UsesMaterial()) model_owner.insert(model_owner.end(), {"--model", model.string()});
  auto& data_owner = launch.arguments[static_cast<std::size_t>(input.roles.data_owner)];
  if (!arguments.MakesMaterial())
    data_owner.insert(data_owner.end(), {"--images", images.string(), "--limit",
                                         std::to_string(input.data.images.count)});
  return LaunchParties(std::move(launch), signals);
}

std::array<report::PartyReport, 3> RunInThreads(const RunArguments& arguments,
                                                const RunInput& input, ProgressLine& progress) {
  auto links = net::MakeMemoryLinks(kMemoryTimeout);
  std::array<report::PartyReport, 3> reports;
  std::array<std::optional<Failure>, 3> failures;
  auto run = [&](int id) {
    const auto p = static_cast<std::size_t>(id);
    PartySettings settings;
    settings.id = id;
    settings.spec = input.spec;
    settings.suite = input.suite;
    settings.roles = input.roles;
    settings.batch = arguments.batch;
    settings.link = input.link;
    settings.ahead = arguments.ahead;
    settings.dealer_leaves = arguments.dealer_leaves;
    settings.rotate_dealer = arguments.rotate_dealer;
    settings.queries = arguments.queries;
    if (id == input.roles.model_owner && !arguments.UsesMaterial()) settings.model = &input.model;
    if (id == input.roles.data_owner && !arguments.MakesMaterial())
      settings.images = &input.data.images;
    if (id == input.roles.receiver)
      settings.on_progress = [&](std::size_t done, std::size_t total) {
        progress.Show(done, total);
      };
    try {
      std::optional<infer::MaterialFile> material;
      if (arguments.UsesMaterial())
        settings.material =
            &material.emplace(MaterialOf(arguments.material, id), arguments.Place());
      if (arguments.MakesMaterial()) settings.material_out = MaterialOf(arguments.material_out, id);
      reports[p] = PartySession(settings, input.registry).Run([&] { return std::move(links[p]); });
    } catch (const std::exception& e) {
      failures[p] = Classify(e);
      // One that fails before its session has its links would leave the others waiting for it.
      for (const auto& link : links[p])
        if (link) link->Abort(e.what());
    }
  };
  if (const auto absent = input.Absent()) {
    const auto p = static_cast<std::size_t>(*absent);
    reports[p].party = *absent;
    reports[p].presence = report::kNotStarted;
    links[p] = {};
    for (auto& others : links) others[p] = nullptr;
  }
  {
    std::array<std::jthread, 3> threads;
    for (int id = 0; id < 3; ++id)
      if (id != input.Absent()) threads[static_cast<std::size_t>(id)] = std::jthread(run, id);
  }
  const auto cause =
      std::min_element(failures.begin(), failures.end(),
                       [](const auto& a, const auto& b) { return a && (!b || a->kind < b->kind); });
  if (*cause) ThrowFailure(**cause, fmt::format("party {}", cause - failures.begin()));
  return reports;
}

std::array<report::PartyReport, 3> RunParties(const RunArguments& arguments,
                                              const RunInput& input) {
  ProgressLine progress;
  return arguments.transport == "memory" ? RunInThreads(arguments, input, progress)
                                         : RunInProcesses(arguments, input, progress);
}

// All parties are on this machine.
std::optional<std::string> CheckMemoryOfAll(const RunArguments& arguments, const RunInput& input,
                                            const infer::Plan& plan, const MaterialHeld& held,
                                            std::size_t images) {
  const auto needed = RunMemory(
      arguments.rotate_dealer ? RotatedPlans(plan, input.registry, input.suite) : std::vector{plan},
      held, images);
  return CheckMemory(needed[0] + needed[1] + needed[2], plan.batch, held);
}

// Only the offline phase, to files.
int MakeMaterial(const RunArguments& arguments) {
  if (arguments.queries == 0) throw ConfigError("--queries", "must be given with --material-out");
  const RunInput input = LoadInput(arguments);
  std::error_code error;
  if (std::filesystem::create_directory(arguments.material_out, error))
    std::filesystem::permissions(arguments.material_out, std::filesystem::perms::owner_all);
  const auto plan =
      infer::MakePlan(input.model.net, input.registry, input.suite, input.roles, arguments.batch);
  for (const auto& warning : input.model.warnings) PrintWarning(warning);
  for (const auto& warning : plan.Warnings(input.registry)) PrintWarning(warning);
  if (const auto warning = CheckMemoryOfAll(arguments, input, plan, {}, 0)) PrintWarning(*warning);
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
  const MaterialHeld held{(images.count + batch - 1) / batch, arguments.ahead,
                          arguments.dealer_leaves};
  if (const auto warning = CheckMemoryOfAll(arguments, input, plan, held, images.count))
    warnings.push_back(*warning);
  for (const auto& warning : warnings) PrintWarning(warning);
  Print("{}: {} {}images in batches of {}, suite {}, link {}, transport {}; {}{}\n",
        input.spec.name, images.count, input.images_are_random ? "random " : "", batch,
        input.suite.Text(), input.link.name, arguments.transport, RolesText(input.roles),
        arguments.rotate_dealer ? ", the helper's role rotates" : "");
  FlushOutput();

  report::RunReport run = report::Merge(RunParties(arguments, input));
  run.transport = arguments.transport;
  run.machine = MachineText();
  run.warnings = warnings;
  run.predictions = nn::Predictions(run.logits, run.classes);
  run.matches_plan = MatchesPlan(run, ExpectedCost(arguments, input, plan));
  if (!input.data.labels.empty()) run.correct = CountCorrect(run.predictions, input.data.labels);
  if (!arguments.no_check) {
    ProgressLine progress("images checked");
    const auto plain =
        PlainLogits(input.model, input.registry.PlainOracle(), images, nullptr,
                    [&](std::size_t done, std::size_t total) { progress.Show(done, total); });
    TERCET_CHECK(plain.size() == run.logits.size(), "{} logits in the clear, {} from the run",
                 plain.size(), run.logits.size());
    run.tolerance = infer::ResultTolerance(input.model, plan);
    std::size_t equal = 0;
    for (std::size_t i = 0; i < plain.size(); ++i) {
      const auto [low, high] = std::minmax(plain[i], run.logits[i]);
      equal += static_cast<std::uint64_t>(high) - static_cast<std::uint64_t>(low) <= run.tolerance;
    }
    run.equal = equal;
  }

  const bool utf8 = report::Utf8Locale();
  if (arguments.show > 0)
    Print("\n{}", DrawPictures(images, arguments.show, input.data.labels, run.predictions, utf8));
  Print("\n{}", report::Describe(run, utf8));
  FlushOutput();
  if (!arguments.json.empty()) WriteFile(arguments.json, report::ToJson(run), FileRights::kOwner);
  if (!run.MatchesPlain().value_or(true))
    throw Error("the secure result differs from the plain integer network");
  if (!*run.matches_plan)
    throw Error("the bytes and hops that were measured differ from the plan's (see tercet plan)");
  return kExitOk;
}

}  // namespace

void AddRunCommand(CLI::App& app, Chosen& chosen) {
  auto* command =
      app.add_subcommand("run", "Secure inference by three party processes on this machine");
  auto a = std::make_shared<RunArguments>();
  command->add_option("network", a->network, "Architecture (nets/*.json)")->required();
  command->add_option("--model", a->model.file, "Compiled model or float weights (.safetensors)")
      ->required();
  auto* images = command->add_option(
      "--images", a->images,
      "IDX, .npy, CIFAR-10 .bin or bytes .u8, also .gz or .xz; without it, random images");
  command->add_option("--labels", a->labels, "Their labels, for the accuracy")->needs(images);
  AddNumber(*command, "--limit", a->limit, 1, kMaxImages, "Use the first N images only");
  auto* batch = AddNumber(*command, "--batch", a->batch, 1, kMaxBatch, "Images a query");
  auto* suite = command
                    ->add_option("--suite", a->suite,
                                 "Protocols of the non-linear layers (see tercet suites); auto "
                                 "chooses for the link")
                    ->capture_default_str();
  AddObjective(*command, a->optimise);
  command->add_option("--link", a->link, "Delay what is sent: none, lan, wan or rtt_ms=X,mbit=Y")
      ->capture_default_str();
  command->add_option("--transport", a->transport, "tls, tcp-insecure, or memory (three threads)")
      ->check(CLI::IsMember({"tls", "tcp-insecure", "memory"}))
      ->capture_default_str();
  AddReal(*command, "--timeout", a->timeout_s, 0.1, 3600, "Seconds that a party may be silent");
  AddReal(*command, "--stall-timeout", a->stall_timeout_s, 0.1, 86400,
          "Seconds that a party may send no data that another one waits for, signs of life or not; "
          "at least the silence");
  AddCalibration(*command, a->model);
  AddNumber(*command, "--show", a->show, 0, 1000,
            "Print the first N images as pictures, with true and predicted class");
  command->add_flag("--no-check", a->no_check, "Do not compare with the plain integer network");
  command->add_option("--json", a->json, "Write the report");
  a->roles.AddTo(*command);
  AddMaterialOptions(*command, a->ahead, a->dealer_leaves, a->rotate_dealer, a->queries);
  auto* out = command
                  ->add_option("--material-out", a->material_out,
                               "Make material for --queries queries, a file a party in this "
                               "directory, and stop. As secret as keys, and never to be copied: "
                               "see --material")
                  ->excludes(images)
                  ->excludes("--rotate-dealer")
                  ->group("Offline and online");
  auto* use =
      command
          ->add_option("--material", a->material,
                       "Use the material in this directory: no offline messages. Each query "
                       "is used once; copies are refused, since a query used from two "
                       "copies gives the difference of the two inputs away")
          ->excludes(out)
          ->excludes("--dealer-leaves")
          ->excludes("--rotate-dealer")
          ->group("Offline and online");
  AddMaterialMoved(*command, a->material_moved)->needs(use);
  command->footer(
      "Example:\n"
      "  tercet run nets/mnistnet1.json --model nets/mnistnet1.safetensors --images "
      "t10k-images-idx3-ubyte.gz\n"
      "         --labels t10k-labels-idx1-ubyte.gz --limit 1000 --link lan --show 6");
  command->callback([a, batch, suite, &chosen] {
    a->batch_given = batch->count() > 0;
    a->suite_given = suite->count() > 0;
    chosen = [a] { return Run(*a); };
  });
}

}  // namespace tercet::programs
