// SPDX-License-Identifier: Apache-2.0
#include "programs/cost_table.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/json.h"
#include "programs/auto_suite.h"
#include "programs/options.h"
#include "tercet/base/error.h"
#include "tercet/infer/memory.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

std::string ShortShape(const mpc::Shape3& shape) {
  if (shape.height == 1 && shape.width == 1) return std::to_string(shape.channels);
  return fmt::format("{}x{}x{}", shape.channels, shape.height, shape.width);
}

// A step, or the whole plan: a line in each of the formats.
struct Row {
  infer::PlanStep step;
  infer::PredictedTime time;  // that it adds

  std::string Width() const {
    return step.layer != nullptr ? std::to_string(step.layer->layer.value_bits) : "";
  }
  std::string Suite() const { return step.layer != nullptr ? step.layer->suite.Text() : ""; }
  bool IsFused() const { return step.layer != nullptr && step.layer->fused; }
};

std::vector<Row> StepRows(const infer::Plan& plan, const Prediction* prediction) {
  std::vector<Row> rows;
  infer::PredictedTime before;
  for (auto& step : plan.Steps()) {
    const auto after = prediction ? prediction->steps[rows.size()] : before;
    rows.push_back({std::move(step),
                    {after.offline_ns - before.offline_ns, after.online_ns - before.online_ns}});
    before = after;
  }
  return rows;
}

Row TotalRow(const mpc::Cost& total, const Prediction* prediction) {
  return {{"total", "", nullptr, &total, {}, total.OnlineHops()},
          prediction ? prediction->steps.back() : infer::PredictedTime{}};
}

nlohmann::ordered_json LinkToJson(const net::LinkProfile& link) {
  return {{"name", link.name}, {"rtt_ms", link.rtt_ms}, {"mbit", link.mbit}};
}

// Reports say the logits of every image.
constexpr FileKind kReportFile{"a report of `tercet run --json`", 256 << 20};
constexpr JsonLimits kReportLimits{.values = 16 << 20, .string_length = 1 << 16};
constexpr double kMaxSeconds = 1e8;  // as nanoseconds, and some added, far below 2^63

double NumberFrom(const nlohmann::json& value, double low, double high,
                  const std::filesystem::path& file) {
  const auto number = value.get<double>();
  if (!(number >= low && number <= high))
    throw ConfigError(file.string(), fmt::format("no report of `tercet run --json`: found {}, "
                                                 "expected a number from {} to {}",
                                                 number, low, high));
  return number;
}

// What differs between a step of a plan and a report's layer, which says the first two where it is
// that of an activation.
bool IsOther(const nlohmann::json& layer, const char* key, const nlohmann::json& planned) {
  return layer.contains(key) && !layer.at(key).is_null() && layer.at(key) != planned;
}

// The computation of each step of one query as a report has it; nothing when it is of another
// network, suite, batch or link, or when `auto` chose otherwise for that link.
std::optional<std::vector<infer::PredictedTime>> MeasuredComputation(
    const infer::Plan& plan, const mpc::SuiteChoice& suite, const std::filesystem::path& file) {
  const auto report = ReadJsonFile(file, kReportFile, kReportLimits);
  try {
    if (report.at("network") != plan.network.name || report.at("suite") != suite.Text() ||
        report.at("batch") != plan.batch || report.at("link") != "none" ||
        report.value("linear", plan.linear) != plan.linear)
      return std::nullopt;
    const double images = NumberFrom(report.at("images"), 1, kMaxImages, file);
    const double queries = std::ceil(images / static_cast<double>(plan.batch));
    const auto& layers = report.at("layers");
    if (layers.size() != plan.layers.size() + 2) return std::nullopt;
    for (std::size_t k = 0; k < plan.layers.size(); ++k)
      if (IsOther(layers[k + 1], "width", plan.layers[k].layer.value_bits) ||
          IsOther(layers[k + 1], "suite", plan.layers[k].suite.Text()))
        return std::nullopt;
    std::vector<infer::PredictedTime> steps(layers.size());
    // Layers overlap at different parties, so theirs are shares of the phase's time.
    for (const bool online : {false, true}) {
      const char* key = online ? "online_s" : "offline_s";
      double sum = 0;
      for (const auto& layer : layers) sum += NumberFrom(layer.at(key), 0, kMaxSeconds, file);
      const double whole =
          NumberFrom(report.at("time").at(key), 0, kMaxSeconds, file) / queries * 1e9;
      for (std::size_t k = 0; k < layers.size(); ++k) {
        const double part = sum > 0 ? layers[k].at(key).get<double>() / sum : 0;
        (online ? steps[k].online_ns : steps[k].offline_ns) = std::llround(whole * part);
      }
    }
    return steps;
  } catch (const nlohmann::json::exception& e) {
    throw ConfigError(file.string(), fmt::format("no report of `tercet run --json`: {}", e.what()));
  }
}

}  // namespace

Prediction Predict(const infer::Plan& plan, const mpc::SuiteChoice& suite,
                   const mpc::Registry& registry, const net::LinkProfile& link,
                   const std::vector<std::filesystem::path>& reports) {
  for (const auto& file : reports)
    if (const auto computation = MeasuredComputation(plan, suite, file))
      return {link, infer::StepTimes(plan, *computation, link), true};
  const auto model = infer::ModelledComputation(plan, infer::AutoCandidates(registry), kMachine);
  return {link, infer::StepTimes(plan, model, infer::WithMessageTime(link, kMachine)), false};
}

void CheckMeasured(const std::filesystem::path& report, const nn::PublicNetwork& network,
                   const std::vector<mpc::SuiteChoice>& suites,
                   const std::vector<std::size_t>& batches) {
  const auto document = ReadJsonFile(report, kReportFile, kReportLimits);
  const auto refuse = [&](const std::string& what, const auto& found, const auto& expected) {
    throw ConfigError("--measured", fmt::format("{} has {} {}, the plan {}", report.string(), what,
                                                found, expected));
  };
  try {
    const auto name = document.at("network").get<std::string>();
    if (name != network.name) refuse("network", name, network.name);
    const auto link = document.at("link").get<std::string>();
    if (link != "none") refuse("link", link, "needs one of link none");
    const auto suite = document.at("suite").get<std::string>();
    std::vector<std::string> texts;
    for (const auto& choice : suites) texts.push_back(choice.Text());
    if (std::find(texts.begin(), texts.end(), suite) == texts.end())
      refuse("suite", suite, fmt::format("{}", fmt::join(texts, ", ")));
    const auto batch = document.at("batch").get<std::size_t>();
    if (std::find(batches.begin(), batches.end(), batch) == batches.end())
      refuse("batch", batch, fmt::format("{}", fmt::join(batches, ", ")));
    const auto& layers = document.at("layers");
    if (layers.size() != network.layers.size() + 2)
      refuse("steps:", layers.size(), network.layers.size() + 2);
    for (std::size_t k = 0; k < network.layers.size(); ++k)
      if (IsOther(layers[k + 1], "width", network.layers[k].value_bits))
        refuse(fmt::format("at layer {} the width", network.layers[k].name),
               ValueText(layers[k + 1].at("width")), network.layers[k].value_bits);
  } catch (const nlohmann::json::exception& e) {
    throw ConfigError(report.string(),
                      fmt::format("no report of `tercet run --json`: {}", e.what()));
  }
}

std::string DescribePlan(const infer::Plan& plan, const Prediction* prediction, bool utf8) {
  using report::Align;
  std::vector<report::Table::Column> columns{{"layer"},
                                             {"type"},
                                             {"output"},
                                             {"MACs", Align::kRight},
                                             {"bits", Align::kRight},
                                             {"suite"},
                                             {"hops", Align::kRight},
                                             {"offline", Align::kRight},
                                             {"online", Align::kRight}};
  if (prediction != nullptr) {
    columns.push_back({"offline time", Align::kRight});
    columns.push_back({"online time", Align::kRight});
  }
  report::Table table(columns);
  const auto add = [&](const Row& row, const std::string& output, std::uint64_t macs) {
    const auto& [step, time] = row;
    std::vector<std::string> cells{step.name,
                                   step.type,
                                   output,
                                   macs > 0 ? report::FormatCount(macs) : "",
                                   row.Width(),
                                   row.Suite() + (row.IsFused() ? " (fused)" : ""),
                                   step.hops > 0 ? std::to_string(step.hops) : "",
                                   report::FormatBytes(step.cost->OfflineTotal()),
                                   report::FormatBytes(step.cost->OnlineTotal())};
    if (prediction != nullptr) {
      cells.push_back(report::FormatSeconds(time.OfflineSeconds()));
      cells.push_back(report::FormatSeconds(time.OnlineSeconds()));
    }
    table.AddRow(std::move(cells));
  };
  std::uint64_t macs = 0;
  for (const auto& row : StepRows(plan, prediction)) {
    const auto* layer = row.step.layer;
    const std::uint64_t own = layer != nullptr ? layer->layer.linear.Macs() : 0;
    macs += own;
    add(row, ShortShape(row.step.out), own);
  }
  table.AddRule();
  const auto total = plan.Total();
  for (std::size_t p = 0; p < 3; ++p) {
    std::vector<std::string> cells(columns.size());
    cells[0] = fmt::format("sent by party {}", p);
    cells[7] = report::FormatBytes(total.OfflineBytes()[p]);
    cells[8] = report::FormatBytes(total.OnlineBytes()[p]);
    table.AddRow(std::move(cells));
  }
  add(TotalRow(total, prediction), "", macs);
  const auto memory = infer::EstimateMemory(plan, 1, plan.batch);
  return table.Render(utf8) +
         fmt::format(
             "Memory, offline and online in turn: {} at party 0, {} at party 1, {} at party "
             "2.\n",
             infer::MemoryText(memory[0]), infer::MemoryText(memory[1]),
             infer::MemoryText(memory[2]));
}

bool MatchesPlan(const report::RunReport& run, const infer::RunTotals& cost) {
  return run.offline_bytes == cost.offline_bytes && run.online_bytes == cost.online_bytes &&
         run.offline_hops == cost.offline_hops && run.online_hops == cost.online_hops;
}

std::string PlanToJson(const infer::Plan& plan, const mpc::SuiteChoice& suite,
                       const Prediction& prediction, const std::vector<std::string>& warnings) {
  using nlohmann::ordered_json;
  ordered_json layers = ordered_json::array();
  for (const auto& [step, time] : StepRows(plan, &prediction)) {
    ordered_json layer{{"name", step.name}, {"type", step.type}};
    if (const auto* planned = step.layer) {
      layer.update({{"output", {step.out.channels, step.out.height, step.out.width}},
                    {"macs", planned->layer.linear.Macs()},
                    {"width", planned->layer.value_bits},
                    {"suite", planned->suite.Text()},
                    {"fused", planned->fused}});
    }
    layer.update({{"hops", step.hops},
                  {"offline_bytes", step.cost->OfflineTotal()},
                  {"online_bytes", step.cost->OnlineTotal()},
                  {"offline_s", time.OfflineSeconds()},
                  {"online_s", time.OnlineSeconds()}});
    layers.push_back(std::move(layer));
  }
  const auto total = plan.Total();
  const ordered_json document{
      {"network", plan.network.name},
      {"suite", suite.Text()},
      {"linear", plan.linear},
      {"batch", plan.batch},
      {"hops", {{"offline", total.OfflineHops()}, {"online", total.OnlineHops()}}},
      {"bytes", {{"offline", total.OfflineBytes()}, {"online", total.OnlineBytes()}}},
      {"memory_bytes", infer::EstimateMemory(plan, 1, plan.batch)},
      {"link", LinkToJson(prediction.link)},
      {"predicted",
       {{"offline_s", prediction.steps.back().OfflineSeconds()},
        {"online_s", prediction.steps.back().OnlineSeconds()},
        {"computation", prediction.measured ? "measured" : "by the built-in model"}}},
      {"layers", std::move(layers)},
      {"warnings", warnings}};
  return document.dump(2);
}

std::string NoPlanToJson(const nn::PublicNetwork& network, const mpc::SuiteChoice& suite,
                         std::size_t batch, const net::LinkProfile& link, const std::string& why) {
  return nlohmann::ordered_json{{"network", network.name},
                                {"suite", suite.Text()},
                                {"batch", batch},
                                {"link", LinkToJson(link)},
                                {"not_supported", why}}
      .dump(2);
}

std::string NoPlanToCsv(const nn::PublicNetwork& network, const mpc::SuiteChoice& suite,
                        std::size_t batch, const net::LinkProfile& link, const std::string& why) {
  std::string quoted = why;
  for (std::size_t at = 0; (at = quoted.find('"', at)) != std::string::npos; at += 2)
    quoted.insert(at, 1, '"');
  return fmt::format("\"{}\",\"{}\",{},\"{}\",\"not supported: {}\",,,,,,,\n", network.name,
                     suite.Text(), batch, link.name, quoted);
}

std::string PlanCsvHead() {
  return "network,suite,batch,link,layer,width,choice,hops,offline_bytes,online_bytes,offline_s,"
         "online_s\n";
}

std::string PlanToCsv(const infer::Plan& plan, const mpc::SuiteChoice& suite,
                      const Prediction& prediction) {
  const auto total = plan.Total();
  auto rows = StepRows(plan, &prediction);
  rows.push_back(TotalRow(total, &prediction));
  std::string text;
  for (const auto& row : rows) {
    const auto& [step, time] = row;
    // Options of a suite hold commas.
    text += fmt::format("\"{}\",\"{}\",{},\"{}\",\"{}\",{},\"{}\",{},{},{},{:.9f},{:.9f}\n",
                        plan.network.name, suite.Text(), plan.batch, prediction.link.name,
                        step.name, row.Width(), row.Suite(), step.hops, step.cost->OfflineTotal(),
                        step.cost->OnlineTotal(), time.OfflineSeconds(), time.OnlineSeconds());
  }
  return text;
}

}  // namespace tercet::programs
