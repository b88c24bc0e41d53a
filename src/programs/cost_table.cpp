// SPDX-License-Identifier: Apache-2.0
#include "programs/cost_table.h"

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

nlohmann::ordered_json CostToJson(const mpc::Cost& cost, std::uint32_t hops) {
  return {
      {"hops", hops}, {"offline_bytes", cost.OfflineTotal()}, {"online_bytes", cost.OnlineTotal()}};
}

double Seconds(std::int64_t ns) { return static_cast<double>(ns) / 1e9; }

// What step `k` adds.
infer::PredictedTime Growth(const Prediction& prediction, std::size_t k) {
  infer::PredictedTime time = prediction.steps[k];
  if (k > 0) {
    time.offline_ns -= prediction.steps[k - 1].offline_ns;
    time.online_ns -= prediction.steps[k - 1].online_ns;
  }
  return time;
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

// The computation of each step of one query as a report has it; nothing when it is of another
// network, suite, batch or link.
std::optional<std::vector<infer::PredictedTime>> MeasuredComputation(
    const infer::Plan& plan, const mpc::SuiteChoice& suite, const std::filesystem::path& file) {
  const auto report = ReadJsonFile(file, kReportFile, kReportLimits);
  try {
    if (report.at("network") != plan.network.name || report.at("suite") != suite.Text() ||
        report.at("batch") != plan.batch || report.at("link") != "none")
      return std::nullopt;
    const double images = NumberFrom(report.at("images"), 1, kMaxImages, file);
    const double queries = std::ceil(images / static_cast<double>(plan.batch));
    const auto& layers = report.at("layers");
    if (layers.size() != plan.layers.size() + 2) return std::nullopt;
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
  const auto add_row = [&](std::vector<std::string> cells, const infer::PredictedTime* time) {
    if (prediction != nullptr) {
      cells.push_back(time == nullptr ? "" : report::FormatSeconds(Seconds(time->offline_ns)));
      cells.push_back(time == nullptr ? "" : report::FormatSeconds(Seconds(time->online_ns)));
    }
    table.AddRow(std::move(cells));
  };
  std::size_t row = 0;
  auto add = [&](std::string name, std::string type, std::string output, std::string macs,
                 std::string bits, std::string suite, const mpc::Cost& cost, std::uint32_t hops) {
    infer::PredictedTime time;
    if (prediction != nullptr)
      time = row < prediction->steps.size() ? Growth(*prediction, row) : prediction->steps.back();
    ++row;
    add_row({std::move(name), std::move(type), std::move(output), std::move(macs), std::move(bits),
             std::move(suite), hops > 0 ? std::to_string(hops) : "",
             report::FormatBytes(cost.OfflineTotal()), report::FormatBytes(cost.OnlineTotal())},
            &time);
  };
  const auto hops = plan.OnlineHops();
  add("input", "input", ShortShape(plan.network.input.shape), "", "", "", plan.input, hops[0]);
  std::uint64_t macs = 0;
  std::size_t step = 0;
  for (const auto& planned : plan.layers) {
    const auto& layer = planned.layer;
    macs += layer.linear.Macs();
    add(layer.name, layer.type, ShortShape(planned.activation.Out()),
        report::FormatCount(layer.linear.Macs()), std::to_string(layer.value_bits),
        planned.suite.Text(), planned.cost, hops[++step]);
  }
  add("output", "output", ShortShape({plan.network.Classes(), 1, 1}), "", "", "", plan.output,
      hops[step + 1]);
  table.AddRule();
  const auto total = plan.Total();
  for (std::size_t p = 0; p < 3; ++p)
    add_row(
        {fmt::format("sent by party {}", p), "", "", "", "", "", "",
         report::FormatBytes(total.OfflineBytes()[p]), report::FormatBytes(total.OnlineBytes()[p])},
        nullptr);
  add("total", "", "", report::FormatCount(macs), "", "", total, total.OnlineHops());
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
  const auto hops = plan.OnlineHops();
  auto add = [&](const std::string& name, const std::string& type, const mpc::Cost& cost,
                 const ordered_json& more) {
    ordered_json layer{{"name", name}, {"type", type}};
    layer.update(more);
    layer.update(CostToJson(cost, hops[layers.size()]));
    const auto time = Growth(prediction, layers.size());
    layer["offline_s"] = Seconds(time.offline_ns);
    layer["online_s"] = Seconds(time.online_ns);
    layers.push_back(std::move(layer));
  };
  add("input", "input", plan.input, ordered_json::object());
  for (const auto& planned : plan.layers) {
    const auto out = planned.activation.Out();
    add(planned.layer.name, planned.layer.type, planned.cost,
        {{"output", {out.channels, out.height, out.width}},
         {"macs", planned.layer.linear.Macs()},
         {"width", planned.layer.value_bits},
         {"suite", planned.suite.Text()}});
  }
  add("output", "output", plan.output, ordered_json::object());
  const auto total = plan.Total();
  const ordered_json document{
      {"network", plan.network.name},
      {"suite", suite.Text()},
      {"batch", plan.batch},
      {"hops", {{"offline", total.OfflineHops()}, {"online", total.OnlineHops()}}},
      {"bytes", {{"offline", total.OfflineBytes()}, {"online", total.OnlineBytes()}}},
      {"memory_bytes", infer::EstimateMemory(plan, 1, plan.batch)},
      {"link",
       {{"name", prediction.link.name},
        {"rtt_ms", prediction.link.rtt_ms},
        {"mbit", prediction.link.mbit}}},
      {"predicted",
       {{"offline_s", Seconds(prediction.steps.back().offline_ns)},
        {"online_s", Seconds(prediction.steps.back().online_ns)},
        {"computation", prediction.measured ? "measured" : "by the built-in model"}}},
      {"layers", std::move(layers)},
      {"warnings", warnings}};
  return document.dump(2);
}

std::string PlanCsvHead() {
  return "network,suite,batch,link,layer,width,choice,hops,offline_bytes,online_bytes,offline_s,"
         "online_s\n";
}

std::string PlanToCsv(const infer::Plan& plan, const mpc::SuiteChoice& suite,
                      const Prediction& prediction) {
  std::string text;
  const auto add = [&](const std::string& layer, const std::string& width,
                       const std::string& choice, const mpc::Cost& cost, std::uint32_t hops,
                       const infer::PredictedTime& time) {
    // Options of a suite hold commas.
    text += fmt::format("\"{}\",\"{}\",{},\"{}\",\"{}\",{},\"{}\",{},{},{},{:.9f},{:.9f}\n",
                        plan.network.name, suite.Text(), plan.batch, prediction.link.name, layer,
                        width, choice, hops, cost.OfflineTotal(), cost.OnlineTotal(),
                        Seconds(time.offline_ns), Seconds(time.online_ns));
  };
  const auto hops = plan.OnlineHops();
  std::size_t step = 0;
  add("input", "", "", plan.input, hops[0], Growth(prediction, 0));
  for (const auto& planned : plan.layers) {
    ++step;
    add(planned.layer.name, std::to_string(planned.layer.value_bits), planned.suite.Text(),
        planned.cost, hops[step], Growth(prediction, step));
  }
  add("output", "", "", plan.output, hops[step + 1], Growth(prediction, step + 1));
  const auto total = plan.Total();
  add("total", "", "", total, total.OnlineHops(), prediction.steps.back());
  return text;
}

}  // namespace tercet::programs
