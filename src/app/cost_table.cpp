#include "app/cost_table.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tercet/report/table.h"

namespace tercet::app {
namespace {

std::string ShapeText(const mpc::Shape3& shape) {
  if (shape.height == 1 && shape.width == 1) return std::to_string(shape.channels);
  return fmt::format("{}x{}x{}", shape.channels, shape.height, shape.width);
}

nlohmann::ordered_json CostToJson(const mpc::Cost& cost, std::uint32_t hops) {
  return {
      {"hops", hops}, {"offline_bytes", cost.OfflineTotal()}, {"online_bytes", cost.OnlineTotal()}};
}

}  // namespace

std::string DescribePlan(const nn::Plan& plan, bool utf8) {
  using report::Align;
  report::Table table({{"layer"},
                       {"type"},
                       {"output"},
                       {"MACs", Align::kRight},
                       {"bits", Align::kRight},
                       {"suite"},
                       {"hops", Align::kRight},
                       {"offline", Align::kRight},
                       {"online", Align::kRight}});
  auto add = [&](std::string name, std::string type, std::string output, std::string macs,
                 std::string bits, std::string suite, const mpc::Cost& cost, std::uint32_t hops) {
    table.AddRow({std::move(name), std::move(type), std::move(output), std::move(macs),
                  std::move(bits), std::move(suite), hops > 0 ? std::to_string(hops) : "",
                  report::FormatBytes(cost.OfflineTotal()),
                  report::FormatBytes(cost.OnlineTotal())});
  };
  const auto hops = plan.OnlineHops();
  add("input", "input", ShapeText(plan.network.input.shape), "", "", "", plan.input, hops[0]);
  std::uint64_t macs = 0;
  std::size_t step = 0;
  for (const auto& planned : plan.layers) {
    const auto& layer = planned.layer;
    macs += layer.linear.Macs();
    add(layer.name, layer.type, ShapeText(planned.activation.Out()),
        report::FormatCount(layer.linear.Macs()), std::to_string(layer.value_bits),
        planned.suite.Text(), planned.cost, hops[++step]);
  }
  add("output", "output", ShapeText({plan.network.Classes(), 1, 1}), "", "", "", plan.output,
      hops[step + 1]);
  table.AddRule();
  const auto total = plan.Total();
  for (std::size_t p = 0; p < 3; ++p)
    table.AddRow({fmt::format("sent by party {}", p), "", "", "", "", "", "",
                  report::FormatBytes(total.OfflineBytes()[p]),
                  report::FormatBytes(total.OnlineBytes()[p])});
  add("total", "", "", report::FormatCount(macs), "", "", total, total.OnlineHops());
  return table.Render(utf8);
}

double LinkSeconds(std::uint32_t hops, const std::array<std::uint64_t, 3>& bytes,
                   const net::LinkProfile& link) {
  double seconds = hops * link.rtt_ms / 2e3;
  if (link.mbit > 0)
    seconds +=
        static_cast<double>(*std::max_element(bytes.begin(), bytes.end())) * 8 / (link.mbit * 1e6);
  return seconds;
}

RunTotals RunCost(const nn::Plan& plan, const mpc::Registry& registry,
                  const mpc::SuiteChoice& suite, std::size_t images) {
  RunTotals totals;
  const auto add = [&](const mpc::Cost& cost, std::size_t queries) {
    for (std::size_t p = 0; p < 3; ++p) {
      totals.offline_bytes[p] += queries * cost.OfflineBytes()[p];
      totals.online_bytes[p] += queries * cost.OnlineBytes()[p];
    }
    totals.offline_hops = std::max(totals.offline_hops, cost.OfflineHops());
    totals.online_hops = std::max(totals.online_hops, cost.OnlineHops());
  };
  if (images >= plan.batch) add(plan.Total(), images / plan.batch);
  if (const std::size_t rest = images % plan.batch; rest > 0)
    add(nn::MakePlan(plan.network, registry, suite, plan.roles, rest).Total(), 1);
  return totals;
}

bool MatchesPlan(const report::RunReport& run, const RunTotals& cost) {
  return run.offline_bytes == cost.offline_bytes && run.online_bytes == cost.online_bytes &&
         run.offline_hops == cost.offline_hops && run.online_hops == cost.online_hops;
}

std::string PlanToJson(const nn::Plan& plan, const mpc::SuiteChoice& suite,
                       const net::LinkProfile& link) {
  using nlohmann::ordered_json;
  ordered_json layers = ordered_json::array();
  const auto hops = plan.OnlineHops();
  auto add = [&](const std::string& name, const std::string& type, const mpc::Cost& cost,
                 ordered_json more) {
    ordered_json layer{{"name", name}, {"type", type}};
    layer.update(more);
    layer.update(CostToJson(cost, hops[layers.size()]));
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
      {"link",
       {{"name", link.name},
        {"rtt_ms", link.rtt_ms},
        {"mbit", link.mbit},
        {"offline_s", LinkSeconds(total.OfflineHops(), total.OfflineBytes(), link)},
        {"online_s", LinkSeconds(total.OnlineHops(), total.OnlineBytes(), link)}}},
      {"layers", std::move(layers)}};
  return document.dump(2);
}

}  // namespace tercet::app
