// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>

#include "programs/anonymous_file.h"
#include "programs/auto_suite.h"
#include "programs/build_identity.h"
#include "programs/child_program.h"
#include "programs/failure.h"
#include "programs/inputs.h"
#include "programs/memory_run.h"
#include "programs/run_options.h"
#include "programs/run_result.h"
#include "python/module.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/report/run_report.h"

namespace tercet::python {
namespace {

using programs::AnonymousFile;
using programs::RunSettings;

constexpr FileKind kReport{"a report", std::uint64_t{4} << 30};
constexpr const char* kErrorLine = "tercet: error: ";

// Three threads of this process, as `tercet run --transport memory` has them.
report::RunReport RunInMemory(const Plan& plan, const files::Images& images,
                              const RunSettings& settings, Signals& signals) {
  const auto& registry = Protocols();
  const auto suite = programs::ParseSuite(settings.suite, registry);
  const auto roles = settings.roles.Resolve();
  auto model = plan.model;
  model.net.linear = programs::LinearProtocol(settings.linear);
  programs::ResolveAuto(model.net, registry, suite, programs::ParseLink(settings.link),
                        infer::ParseObjective(settings.optimise, "--optimise"), roles,
                        settings.batch);
  const auto planned =
      infer::MakePlan(model.net, registry, suite, roles, std::min(settings.batch, images.count));
  auto warnings = model.warnings;
  for (auto& warning : planned.Warnings(registry)) warnings.push_back(std::move(warning));
  if (const auto warning = settings.CheckMemory(planned, registry, suite, images.count))
    warnings.push_back(*warning);

  programs::MemoryRun parties;
  parties.settings = [&](int id) {
    auto own = settings.Settings(id, plan.network->spec, suite, roles, nullptr);
    if (id == roles.model_owner) own.model = &model;
    if (id == roles.data_owner) own.images = &images;
    return own;
  };
  parties.stop_asked = [&]() -> std::optional<std::string> {
    if (!signals.Raised()) return std::nullopt;
    return "interrupted";
  };
  report::RunReport run = report::Merge(programs::RunInMemory(parties, registry));
  run.transport = settings.transport;
  run.machine = programs::MachineText();
  run.warnings = std::move(warnings);
  programs::CompleteReport(run, planned, registry, suite, settings.Schedule(), images.count);
  if (!settings.no_check)
    programs::CompareWithPlain(run, model, planned, registry, images,
                               [&](std::size_t, std::size_t) { signals.Check(); });
  run.RequireRight();
  return run;
}

// What `tercet run` says went wrong.
[[noreturn]] void ThrowEnd(const programs::ProgramEnd& end, const std::string& program) {
  const auto at = end.err.rfind(kErrorLine);
  if (at == std::string::npos)
    throw Error(fmt::format("{} ended with exit status {}", program, end.status));
  std::string text = end.err.substr(at + std::string_view(kErrorLine).size());
  text.resize(std::min(text.find('\n'), text.size()));
  if (end.status != programs::kExitUsage) throw Error(text);
  const auto colon = text.find(": ");
  if (colon == std::string::npos) throw UnsupportedError(text);
  throw ConfigError(text.substr(0, colon), text.substr(colon + 2));
}

// `tercet run` with three processes. Whatever it is given has no name in any directory.
report::RunReport RunInProcesses(const Plan& plan, const files::Images& images,
                                 const std::string& program, const Words& words, Signals& signals) {
  const AnonymousFile network(plan.network->architecture), model, report;
  compile::SaveCompiled(plan.model, model.Path());
  const AnonymousFile pictures(programs::NpyHeader(images));
  WriteFile(pictures.Path(),
            {reinterpret_cast<const char*>(images.pixels.data()), images.pixels.size()});
  Words line{program,    "run",           network.Path(), "--model",    model.Path(),
             "--images", pictures.Path(), "--json",       report.Path()};
  line.insert(line.end(), words.begin(), words.end());
  const auto end =
      programs::RunProgram(line, {network.Fd(), model.Fd(), pictures.Fd(), report.Fd()},
                           [&] { return signals.Raised(); });
  signals.Check();
  if (end.status != 0) ThrowEnd(end, program);
  return report::RunReportFromJson(ReadTextFile(report.Path(), kReport), program);
}

py::tuple Run(const Plan& plan, const Source& source, const std::string& program,
              const Words& words, bool with_report) {
  RunSettings settings;
  ParseSettings("run", words, [&](CLI::App& app) {
    programs::AddRunSettings(app, settings);
    programs::AddSchedule(app, settings, "", "");
  });
  const auto images = TakeImages(source, plan.network->spec.input);
  const auto run = WithoutLock([&](Signals& signals) {
    return settings.transport == "memory" ? RunInMemory(plan, images, settings, signals)
                                          : RunInProcesses(plan, images, program, words, signals);
  });
  return py::make_tuple(LogitArray(run.logits, run.classes), run.warnings,
                        with_report ? report::ToJson(run) : "");
}

}  // namespace

void BindRun(py::class_<Plan, std::shared_ptr<Plan>>& plan) { plan.def("run", &Run); }

}  // namespace tercet::python
