// SPDX-License-Identifier: Apache-2.0
#include "programs/party_run.h"

#include <unistd.h>

#include <chrono>
#include <utility>

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include "base/clock.h"
#include "programs/auto_suite.h"
#include "programs/cost_table.h"
#include "programs/inputs.h"
#include "programs/options.h"
#include "programs/output.h"
#include "programs/process.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/infer/testbed.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/net/tcp_link.h"
#include "tercet/nn/data_options.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

// From when it is asked to stop to the end: enough for the peers to be told.
constexpr auto kStopGrace = std::chrono::milliseconds(1500);

void CheckOwner(bool given, bool owner, const char* option, int id, const char* what) {
  if (owner && !given)
    throw ConfigError(option, fmt::format("party {} owns {}, so it must be given", id, what));
  if (!owner && given)
    throw ConfigError(option, fmt::format("party {} does not own {}; leave it out", id, what));
}

// One party's part in a run, from its arguments to its report.
class PartyRun {
 public:
  // Loads and checks what this party brings, before anybody else is asked.
  PartyRun(const PartyArguments& arguments, EventPipe* launcher)
      : arguments_(arguments), launcher_(launcher), id_(*arguments.id) {
    StartLog();
    if (!json_.empty()) CheckWritable(json_, "--json");
    testbed_ = infer::LoadTestbed(arguments_.testbed, id_, arguments_.shard.Index());
    if (testbed_.tls) WarnOfExpiry(infer::CheckOwnCertificate(*testbed_.tls, id_, Now()));
    if (arguments_.UsesMaterial()) OpenMaterial();
    settings_ = arguments_.Settings(id_, nn::LoadNetwork(arguments_.network),
                                    ParseSuite(arguments_.suite, registry_), testbed_.roles,
                                    material_ ? &*material_ : nullptr);
    settings_.stall_timeout = testbed_.stall_timeout;
    if (material_) UseMaterial();
    if (arguments_.MakesMaterial()) CheckMaterialOut();
    if (arguments_.shard.shard) UseShard();
    CheckOwners();
    LoadInput();
    SetCallbacks();
  }
  // `settings_` refers to the rest.
  PartyRun(const PartyRun&) = delete;
  PartyRun& operator=(const PartyRun&) = delete;

  int Run(PartyProcess& process) {
    net::TcpOptions tcp = Connection();
    infer::Session session(settings_, registry_);
    process.Attach(&session);
    infer::PartyReport report;
    try {
      tcp.interrupted = [&] { return session.Stopped(); };
      report = session.Run([&] { return net::ConnectTcp(tcp); });
      report.warnings = std::move(warnings_);
      if (!data_.labels.empty() && report.presence != infer::kWasDone)
        report.correct = CountCorrect(nn::Predictions(report.logits, report.classes), data_.labels);
    } catch (...) {
      process.Detach();
      throw;
    }
    process.Detach();
    Tell(report);
    return kExitOk;
  }

 private:
  bool OwnsModel() const { return id_ == testbed_.roles.model_owner && !material_; }
  bool OwnsImages() const {
    return id_ == testbed_.roles.data_owner && !arguments_.MakesMaterial();
  }
  bool Receives() const { return id_ == testbed_.roles.receiver; }
  bool GivesLabels() const { return !arguments_.labels.empty(); }
  infer::Objective Objective() const {
    return infer::ParseObjective(arguments_.optimise, "--optimise");
  }

  void StartLog() const {
    if (launcher_ != nullptr) {
      spdlog::set_level(spdlog::level::err);
    } else {
      spdlog::set_default_logger(spdlog::stderr_color_mt("party"));
      spdlog::set_pattern(Named(fmt::format("%T party {}: %v", id_)));
    }
  }

  void Warn(const std::string& text) {
    if (launcher_ == nullptr) PrintWarning(text);
    warnings_.push_back(text);
  }
  // The certificates of `tercet run` live as long as the run: nobody renews them.
  void WarnOfExpiry(const crypto::Certificate& certificate) {
    if (launcher_ != nullptr) return;
    if (const auto warning = crypto::ExpiryWarning(certificate, Now())) Warn(*warning);
  }

  void OpenMaterial() {
    if (id_ == testbed_.roles.helper && !std::filesystem::exists(arguments_.material))
      throw ConfigError(
          "--material",
          fmt::format(
              "{} is not there; where party {}, the helper, has no part in the online phase, "
              "it has no material: start the other two alone",
              arguments_.material.string(), id_));
    material_.emplace(arguments_.material, arguments_.Place());
  }

  // Takes the suite from the material, and the batch where it was not given, and compares the rest.
  void UseMaterial() {
    const auto asked = settings_.suite;
    settings_.suite = mpc::ParseSuiteChoice(material_->Header().suite, material_->File().string());
    std::string linear = arguments_.linear;
    TakeLinear(linear, *material_);
    settings_.linear = LinearProtocol(linear);
    if (!arguments_.batch_given) settings_.batch = material_->Header().batch;
    CheckMaterial(*material_, settings_);
    if (arguments_.suite_given)
      CheckMaterialSuite(*material_, settings_.spec, registry_, asked, settings_.link, Objective());
    helper_acts_ = material_->MakePlan(settings_.spec, registry_).HelperActsOnline();
    if (!helper_acts_ && id_ == settings_.roles.helper)
      throw ConfigError("--material",
                        fmt::format("party {}, the helper, has no part in the online phase of this "
                                    "plan; start the other two alone",
                                    id_));
    if (!arguments_.model.file.empty())
      throw ConfigError("--model", "the material holds the shares of its model; leave it out");
  }

  void CheckMaterialOut() const {
    if (arguments_.queries == 0)
      throw ConfigError("--queries", "must be given with --material-out");
    CheckWritable(arguments_.material_out, "--material-out");
    if (std::filesystem::exists(arguments_.material_out))
      throw ConfigError("--material-out",
                        fmt::format("{} exists already; material is never overwritten",
                                    arguments_.material_out.string()));
    if (!arguments_.images.empty())
      throw ConfigError("--images", "material is made without images; leave it out");
    if (GivesLabels())
      throw ConfigError("--labels", "material is made without images; leave it out");
  }

  void CheckOwners() const {
    CheckOwner(!arguments_.model.file.empty(), OwnsModel(), "--model", id_, "the model");
    CheckOwner(!arguments_.images.empty(), OwnsImages(), "--images", id_, "the images");
    if (GivesLabels() && !Receives())
      throw ConfigError(
          "--labels",
          fmt::format("party {} does not receive the result (party {} does); leave it out", id_,
                      testbed_.roles.receiver));
  }

  void LoadInput() {
    if (OwnsModel()) {
      model_ = LoadModel(settings_.spec, arguments_.model, registry_,
                         [](const std::string& line) { spdlog::info(line); });
      model_->net.linear = settings_.linear;
      for (const auto& warning : model_->warnings) Warn(warning);
      ResolveAuto(model_->net, registry_, settings_.suite, settings_.link, Objective(),
                  settings_.roles, settings_.batch);
      settings_.model = &*model_;
      if (settings_.shard)
        settings_.shard->model_tag = TagOf("model " + compile::CompiledDigest(*model_));
    }
    const auto& a = arguments_;
    const auto options = nn::WithInput(a.model.data, settings_.spec.input);
    // Who owns the images and learns the result takes labels that the images' own files hold, too.
    if (OwnsImages() && Receives()) {
      data_ = LoadLabelledImages(a.images, a.labels, a.limit, settings_.spec, a.model.data);
    } else if (OwnsImages()) {
      data_.images = files::LoadImages(a.images, a.limit, settings_.spec.input.shape, options);
    } else if (GivesLabels()) {
      data_.labels = files::LoadLabels(a.labels, a.limit, settings_.spec.Classes(), options);
    }
    if (!OwnsImages()) return;
    if (const auto warning = files::RangeWarning(data_.images)) Warn(*warning);
    settings_.images = &data_.images;
    if (!settings_.shard) return;
    settings_.shard->all_images = data_.images.count;
    settings_.shard->images_tag = TagOf("images " + ImagesDigest(data_.images));
    TakeShard(data_, settings_.shard->shard);
  }

  // The others learn whether two shards have the same model and images, and cannot tell by guessing
  // which those are.
  std::string TagOf(const std::string& text) const {
    return crypto::KeyedTag(testbed_.tls->key, text);
  }

  void UseShard() {
    if (!testbed_.tls)
      throw ConfigError("--shard",
                        "needs the transport tls, since the owners of model and images "
                        "mark them with their key");
    settings_.shard = {.shard = *arguments_.shard.shard};
    if (arguments_.shard.resume)
      settings_.shard->is_done = [this](const std::string& job) { return HasReportOf(job); };
  }

  bool HasReportOf(const std::string& job) const {
    if (!std::filesystem::exists(json_)) return false;
    try {
      const auto report =
          report::PartyReportFromJson(ReadTextFile(json_, kShardReport), json_.string());
      return report.party == id_ && IsDone(report, {settings_.shard->shard, all_images_, job, {}},
                                           Receives(), data_.labels);
    } catch (const ConfigError& e) {
      spdlog::info("no report of this shard, so it is made anew: {}", e.what());
      return false;
    }
  }

  net::TcpOptions Connection() {
    net::TcpOptions tcp = testbed_.Tcp(id_);
    if (arguments_.listen_fd >= 0) tcp.listen_fd = arguments_.listen_fd;
    if (!helper_acts_) tcp.absent = testbed_.roles.helper;
    tcp.agreement = infer::Agreement(settings_);
    tcp.on_wait = [](const std::string& line) { spdlog::info(line); };
    tcp.on_peer = [this](int, const crypto::Certificate& certificate) {
      WarnOfExpiry(certificate);
    };
    tcp.on_warning = settings_.on_warning;
    if (!testbed_.tls)
      Warn("transport tcp-insecure: nothing is encrypted, and nobody proves who they are");
    return tcp;
  }

  void SetCallbacks() {
    settings_.on_warning = [this](const std::string& text) { Warn(text); };
    settings_.on_images = [this](std::size_t count) {
      all_images_ = count;
      if (data_.labels.empty() || OwnsImages()) return;
      // Each party's own arguments are right by themselves, so this is no wrong usage of this one.
      if (data_.labels.size() != count)
        throw ProtocolError(
            fmt::format("--labels: {} labels found, {} expected, one for each image of party {}",
                        data_.labels.size(), count, settings_.roles.data_owner));
      if (settings_.shard) TakeShard(data_, settings_.shard->shard);
    };
    settings_.on_plan = [this](const infer::Plan& plan, std::size_t count) {
      if (launcher_ == nullptr) ShowPlan(plan, count);
    };
    settings_.on_delivered = [](std::size_t queries) {
      spdlog::info("the material of all {} queries is delivered; the helper is not needed any more",
                   queries);
    };
    settings_.on_progress = [this](std::size_t done, std::size_t total) {
      ShowProgress(done, total);
    };
  }

  void ShowPlan(const infer::Plan& plan, std::size_t count) {
    if (!std::exchange(warned_of_plan_, true)) {
      for (const auto& warning : plan.Warnings(registry_)) Warn(warning);
      start_ = Clock::now();
    }
    const bool rotates = arguments_.rotate_helper;
    if (settings_.shard) Print("{}\n", ShardText(settings_.shard->shard, all_images_));
    Print("{} images in {} of {}; {}; cost of one {}:\n\n{}\n", count,
          rotates ? "groups" : "batches", plan.batch, mpc::RolesText(plan.roles),
          rotates ? "group" : "batch", DescribePlan(plan, nullptr, report::Utf8Locale()));
    if (arguments_.MakesMaterial() && id_ == plan.roles.helper && !plan.HelperActsOnline())
      Print("This party, the helper, has no part online: it writes no file.\n");
    FlushOutput();
  }

  void ShowProgress(std::size_t done, std::size_t total) {
    if (launcher_ != nullptr) {
      launcher_->Send(ProgressEvent{done, total});
      return;
    }
    const auto now = Clock::now();
    if (now - last_progress_ < std::chrono::seconds(1)) return;
    last_progress_ = now;
    const double left =
        Seconds(now - start_) * static_cast<double>(total - done) / static_cast<double>(done);
    spdlog::info("{} of {} images done{}", done, total,
                 done > 0 ? fmt::format(", {} left", report::FormatSeconds(left)) : "");
  }

  void Tell(const infer::PartyReport& report) const {
    if (launcher_ != nullptr) {
      launcher_->Send(ReportEvent{report::ToJson(report)});
      return;
    }
    if (report.presence == infer::kWasDone) {
      Print("{}: done already by all parties, see {}\n",
            ShardText(settings_.shard->shard, all_images_), json_.string());
      return;
    }
    Print("{}", report::Describe(report, report::Utf8Locale()));
    if (Receives() && !arguments_.MakesMaterial() && data_.labels.empty())
      Print("\npredictions: {}\n", fmt::join(nn::Predictions(report.logits, report.classes), " "));
    // Last, so that a disk that is full does not lose what has been computed.
    FlushOutput();
    if (!json_.empty()) WriteFile(json_, report::ToJson(report), FileRights::kOwner);
  }

  const PartyArguments& arguments_;
  EventPipe* const launcher_;  // null: this party speaks to a terminal
  const int id_;
  const std::filesystem::path json_ = arguments_.shard.ReportOf(arguments_.json);
  std::size_t all_images_ = 0;
  const mpc::Registry registry_ = BuiltinProtocols();
  std::vector<std::string> warnings_;
  infer::Testbed testbed_;
  std::optional<infer::MaterialFile> material_;
  bool helper_acts_ = true;
  std::optional<nn::IntegerNetwork> model_;
  LabelledImages data_;
  infer::SessionSettings settings_;
  bool warned_of_plan_ = false;
  Clock::time_point start_ = Clock::now(), last_progress_ = start_;
};

}  // namespace

void PartyProcess::Attach(infer::Session* session) {
  const std::lock_guard lock(mutex_);
  session_ = session;
}

void PartyProcess::Detach() {
  const std::lock_guard lock(mutex_);
  session_ = nullptr;
  done_ = true;
}

void PartyProcess::Stop(const std::string& reason) {
  if (!asked_.exchange(true)) EndSoon(kStopGrace, reason);
  const std::lock_guard lock(mutex_);
  if (done_) return;
  if (session_ != nullptr) {
    session_->Stop(reason);
    return;
  }
  // Nobody is there yet who would have to be told, and reading files cannot be cut short.
  Tell({FailureKind::kOwn, reason});
  ::_exit(kExitFailed);
}

void PartyProcess::Tell(const Failure& failure) {
  if (launcher_ != nullptr) {
    launcher_->Send(failure);
  } else {
    PrintError(failure.text);
  }
}

int RunParty(const PartyArguments& arguments, EventPipe* launcher, PartyProcess& process) {
  return PartyRun(arguments, launcher).Run(process);
}

}  // namespace tercet::programs
