// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "programs/auto_suite.h"
#include "programs/cost_table.h"
#include "programs/inputs.h"
#include "programs/plan_settings.h"
#include "python/module.h"
#include "tercet/base/error.h"
#include "tercet/compile/compiled_file.h"

namespace tercet::python {
namespace {

py::array_t<std::int64_t> PlainLogits(const Plan& plan, const Source& source) {
  const auto images = TakeImages(source, plan.network->spec.input);
  const auto logits = WithoutLock([&](Signals& signals) {
    return programs::PlainLogits(plan.model, Protocols().PlainOracle(), images, nullptr,
                                 [&](std::size_t, std::size_t) { signals.Check(); });
  });
  return LogitArray(logits, plan.model.net.Classes());
}

// What `tercet plan --csv` writes.
std::string CostsCsv(const Plan& plan, const Words& words) {
  programs::PlanSettings settings;
  ParseSettings("plan", words, [&](CLI::App& app) { programs::AddPlanSettings(app, settings); });
  const py::gil_scoped_release release;
  const auto& registry = Protocols();
  const auto roles = settings.roles.Resolve();
  const auto suites = settings.Suites(registry);
  const auto objective = infer::ParseObjective(settings.optimise, "--optimise");
  auto asked = plan.model.net;
  asked.linear = programs::LinearProtocol(settings.linear);
  for (const auto& report : settings.measured)
    programs::CheckMeasured(report, asked, suites, settings.batches);
  std::string csv = programs::PlanCsvHead();
  for (const auto batch : settings.batches)
    for (const auto& text : settings.links) {
      const auto link = programs::ParseLink(text);
      for (const auto& suite : suites) {
        auto network = asked;
        try {
          programs::ResolveAuto(network, registry, suite, link, objective, roles, batch);
          const auto made = infer::MakePlan(network, registry, suite, roles, batch);
          csv += programs::PlanToCsv(
              made, suite, programs::Predict(made, suite, registry, link, settings.measured));
        } catch (const UnsupportedError& e) {
          csv += programs::NoPlanToCsv(network, suite, batch, link, e.what());
        }
      }
    }
  return csv;
}

py::list Widths(const Plan& plan) {
  py::list rows;
  for (const auto& layer : plan.model.net.layers)
    rows.append(py::make_tuple(layer.name, layer.type, layer.value_bits, layer.proven));
  return rows;
}

std::vector<std::string> Warnings(const Plan& plan) {
  auto warnings = plan.model.warnings;
  for (const auto& layer : plan.model.net.layers)
    if (!layer.proven) warnings.push_back(infer::NotProvenText(layer));
  return warnings;
}

py::object Report(const Plan& plan) {
  using py::literals::operator""_a;
  if (!plan.report) return py::none();
  const auto& report = *plan.report;
  return py::dict("images"_a = report.images, "float_accuracy"_a = report.float_accuracy,
                  "integer_accuracy"_a = report.integer_accuracy, "agreement"_a = report.agreement,
                  "noise"_a = 100 * report.noise, "logit_scale"_a = report.logit_scale,
                  "lines"_a = report.lines);
}

}  // namespace

void BindPlan(py::module_& module) {
  py::class_<Plan, std::shared_ptr<Plan>> plan(module, "Plan");
  plan.def_property_readonly(
          "network", [](const Plan& p) { return std::const_pointer_cast<Network>(p.network); })
      .def_property_readonly("warnings", &Warnings)
      .def_property_readonly("widths", &Widths)
      .def_property_readonly("only_class", [](const Plan& p) { return p.model.net.OnlyClass(); })
      .def_property_readonly("report", &Report)
      .def("plain", &PlainLogits)
      .def("costs_csv", &CostsCsv)
      .def("save", [](const Plan& p, const std::filesystem::path& file) {
        compile::SaveCompiled(p.model, file);
      });
  BindRun(plan);
}

}  // namespace tercet::python
