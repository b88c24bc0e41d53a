// SPDX-License-Identifier: Apache-2.0
#include "tercet/report/run_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/json.h"
#include "tercet/base/error.h"
#include "tercet/report/table.h"

namespace tercet::report {

using infer::kNotStarted;
using infer::kStayed;
using infer::PartyLayer;
using infer::PartyReport;

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

template <class T>
ordered_json OrNull(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

void RequireEqual(int party, const char* what, const auto& found, const auto& expected) {
  if (found != expected)
    throw ProtocolError(
        fmt::format("the reports do not fit together: party {} reports {} \"{}\", expected \"{}\"",
                    party, what, found, expected));
}

double Percent(std::size_t part, std::size_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
}

ordered_json PercentOrNull(const std::optional<std::size_t>& part, std::size_t whole) {
  return part ? ordered_json(Percent(*part, whole)) : ordered_json(nullptr);
}

// A row for each image.
ordered_json Rows(const std::vector<std::int64_t>& logits, std::size_t classes) {
  ordered_json rows = ordered_json::array();
  for (std::size_t i = 0; i + classes <= logits.size() && classes > 0; i += classes) {
    const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(i);
    rows.push_back(std::vector<std::int64_t>(begin, begin + static_cast<std::ptrdiff_t>(classes)));
  }
  return rows;
}

// What JSON says of a layer, and of a party before and after its times and layers, in the order of
// the file: calls visit(key, field).
void VisitLayer(auto& layer, auto&& visit) {
  visit("name", layer.name);
  visit("type", layer.type);
  visit("suite", layer.suite);
  visit("width", layer.width);
  visit("hops", layer.online_hops);
  visit("offline_hops", layer.offline_hops);
  visit("offline_bytes", layer.offline_bytes);
  visit("online_bytes", layer.online_bytes);
  visit("offline_s", layer.offline_s);
  visit("online_s", layer.online_s);
}
void VisitHead(auto& report, auto&& visit) {
  visit("party", report.party);
  visit("network", report.network);
  visit("suite", report.suite);
  visit("link", report.link);
  visit("batch", report.batch);
  visit("images", report.images);
  visit("classes", report.classes);
}
void VisitRest(auto& report, auto&& visit) {
  visit("logits", report.logits);
  visit("peak_memory_mb", report.peak_memory_mb);
  visit("kernels", report.kernels);
  visit("material", report.material);
  visit("presence", report.presence);
  visit("warnings", report.warnings);
}

auto WriteInto(ordered_json& to) {
  return [&to](const char* key, const auto& field) { to[key] = field; };
}
auto ReadFrom(const json& from) {
  return [&from](const char* key, auto& field) { from.at(key).get_to(field); };
}

ordered_json LayersToJson(const std::vector<PartyLayer>& layers) {
  ordered_json array = ordered_json::array();
  for (const PartyLayer& layer : layers) VisitLayer(layer, WriteInto(array.emplace_back()));
  return array;
}

template <class Report>
ordered_json TimesToJson(const Report& report) {
  return {{"setup_s", report.setup_s},
          {"offline_s", report.offline_s},
          {"online_s", report.online_s},
          {"total_s", report.offline_s + report.online_s},
          {"wall_s", report.wall_s}};
}

// One value a line becomes long with thousands of images, so arrays of numbers stay on one line.
std::string Layout(const ordered_json& document) {
  std::string text = "{\n";
  std::size_t left = document.size();
  for (const auto& [key, value] : document.items()) {
    text += "  " + ordered_json(key).dump() + ": ";
    if (key == "layers" || key == "logits") {
      text += "[";
      for (std::size_t i = 0; i < value.size(); ++i)
        text += (i > 0 ? ",\n    " : "\n    ") + value[i].dump();
      text += value.empty() ? "]" : "\n  ]";
    } else {
      text += value.dump();
    }
    text += --left > 0 ? ",\n" : "\n";
  }
  return text + "}\n";
}

std::vector<Table::Column> LayerColumns(bool one_party) {
  return {{"layer", Align::kLeft},
          {"type", Align::kLeft},
          {"bits", Align::kRight},
          {"suite", Align::kLeft},
          {"hops", Align::kRight},
          {one_party ? "offline, sent" : "offline", Align::kRight},
          {one_party ? "online, sent" : "online", Align::kRight},
          {"online time", Align::kRight}};
}

template <class Layer>
void AddLayers(Table& table, const std::vector<Layer>& layers) {
  for (const auto& layer : layers) {
    table.AddRow({layer.name, layer.type, layer.width > 0 ? std::to_string(layer.width) : "",
                  layer.suite, layer.online_hops > 0 ? std::to_string(layer.online_hops) : "",
                  FormatBytes(layer.offline_bytes), FormatBytes(layer.online_bytes),
                  FormatSeconds(layer.online_s)});
  }
  table.AddRule();
}

template <class Report>
std::string Times(const Report& report, bool utf8) {
  const auto& [setup_s, offline_s, online_s, wall_s] =
      std::tie(report.setup_s, report.offline_s, report.online_s, report.wall_s);
  const double each = report.images > 0 ? 1.0 / static_cast<double>(report.images) : 0;
  Table table({{"phase", Align::kLeft}, {"time", Align::kRight}, {"per image", Align::kRight}});
  table.AddRow({"setup", FormatSeconds(setup_s), ""});
  table.AddRow({"offline", FormatSeconds(offline_s), FormatSeconds(offline_s * each)});
  table.AddRow({"online", FormatSeconds(online_s), FormatSeconds(online_s * each)});
  table.AddRow({"offline + online", FormatSeconds(offline_s + online_s),
                FormatSeconds((offline_s + online_s) * each)});
  table.AddRow({"wall clock", FormatSeconds(wall_s), FormatSeconds(wall_s * each)});
  return table.Render(utf8) + fmt::format("Material: {}.\n", report.material);
}

const char* YesNo(bool yes) { return yes ? "yes" : "NO"; }

}  // namespace

double RunReport::Accuracy() const { return Percent(correct.value_or(0), images); }

std::optional<bool> RunReport::MatchesPlain() const {
  if (!equal) return std::nullopt;
  return *equal == images * classes;
}

RunReport Merge(const std::array<PartyReport, 3>& parties) {
  const auto started = [](const PartyReport& party) { return party.presence != kNotStarted; };
  const auto found = std::find_if(parties.begin(), parties.end(), started);
  if (found == parties.end()) throw ProtocolError("no party was started");
  const PartyReport& first = *found;
  RunReport run;
  run.material = first.material;
  run.network = first.network;
  run.suite = first.suite;
  run.link = first.link;
  run.kernels = first.kernels;
  run.batch = first.batch;
  run.images = first.images;
  run.classes = first.classes;
  std::vector<std::vector<PartyLayer>> layers;
  int receivers = 0;
  for (std::size_t p = 0; p < 3; ++p) {
    const PartyReport& party = parties[p];
    const int id = static_cast<int>(p);
    RequireEqual(id, "party", party.party, id);
    run.presence[p] = party.presence;
    if (!started(party)) continue;
    RequireEqual(id, "material", party.material, first.material);
    RequireEqual(id, "network", party.network, first.network);
    RequireEqual(id, "suite", party.suite, first.suite);
    RequireEqual(id, "link", party.link, first.link);
    RequireEqual(id, "batch", party.batch, first.batch);
    RequireEqual(id, "images", party.images, first.images);
    RequireEqual(id, "classes", party.classes, first.classes);
    RequireEqual(id, "layers", party.layers.size(), first.layers.size());
    run.setup_s = std::max(run.setup_s, party.setup_s);
    run.offline_s = std::max(run.offline_s, party.offline_s);
    run.online_s = std::max(run.online_s, party.online_s);
    run.wall_s = std::max(run.wall_s, party.wall_s);
    run.offline_hops = std::max(run.offline_hops, party.offline_hops);
    run.online_hops = std::max(run.online_hops, party.online_hops);
    run.offline_bytes[p] = party.OfflineBytes();
    run.online_bytes[p] = party.OnlineBytes();
    run.peak_memory_mb[p] = party.peak_memory_mb;
    for (std::size_t k = 0; k < first.layers.size(); ++k)
      RequireEqual(id, "layer", party.layers[k].name, first.layers[k].name);
    layers.push_back(party.layers);
    if (party.logits.empty()) continue;
    ++receivers;
    if (party.logits.size() != party.images * party.classes)
      throw ProtocolError(fmt::format("party {} reports {} logits, expected {} images x {} classes",
                                      id, party.logits.size(), party.images, party.classes));
    run.logits = party.logits;
  }
  run.layers = infer::SideBySide(layers);
  if (receivers != 1)
    throw ProtocolError(fmt::format("{} parties report logits, expected one", receivers));
  return run;
}

std::string ToJson(const PartyReport& report) {
  ordered_json document;
  VisitHead(report, WriteInto(document));
  document["time"] = TimesToJson(report);
  document["hops"] = {{"offline", report.offline_hops}, {"online", report.online_hops}};
  document["bytes"] = {{"offline", report.OfflineBytes()}, {"online", report.OnlineBytes()}};
  document["layers"] = LayersToJson(report.layers);
  VisitRest(report, WriteInto(document));
  return Layout(document);
}

PartyReport PartyReportFromJson(const std::string& text, const std::string& place) {
  try {
    const json document = ReadJson(text, place, JsonLimits::UpTo(text.size()));
    PartyReport report;
    VisitHead(report, ReadFrom(document));
    const json& time = document.at("time");
    time.at("setup_s").get_to(report.setup_s);
    time.at("offline_s").get_to(report.offline_s);
    time.at("online_s").get_to(report.online_s);
    time.at("wall_s").get_to(report.wall_s);
    document.at("hops").at("offline").get_to(report.offline_hops);
    document.at("hops").at("online").get_to(report.online_hops);
    for (const json& layer : document.at("layers"))
      VisitLayer(report.layers.emplace_back(), ReadFrom(layer));
    VisitRest(report, ReadFrom(document));
    return report;
  } catch (const json::exception& e) {
    throw ConfigError(place, fmt::format("no report of a party: {}", e.what()));
  }
}

std::string ToJson(const RunReport& report) {
  ordered_json suites = ordered_json::object();
  for (const PartyLayer& layer : report.layers)
    if (!layer.suite.empty()) suites[layer.name] = layer.suite;
  return Layout({{"network", report.network},
                 {"suite", report.suite},
                 {"suite_per_layer", std::move(suites)},
                 {"link", report.link},
                 {"transport", report.transport},
                 {"batch", report.batch},
                 {"images", report.images},
                 {"correct", OrNull(report.correct)},
                 {"accuracy", PercentOrNull(report.correct, report.images)},
                 {"matches_plain", OrNull(report.MatchesPlain())},
                 {"tolerance", report.tolerance},
                 {"matches_plan", OrNull(report.matches_plan)},
                 {"time", TimesToJson(report)},
                 {"hops", {{"offline", report.offline_hops}, {"online", report.online_hops}}},
                 {"bytes", {{"offline", report.offline_bytes}, {"online", report.online_bytes}}},
                 {"layers", LayersToJson(report.layers)},
                 {"predictions", report.predictions},
                 {"logits", Rows(report.logits, report.classes)},
                 {"warnings", report.warnings},
                 {"peak_memory_mb", report.peak_memory_mb},
                 {"machine", report.machine},
                 {"kernels", report.kernels},
                 {"material", report.material},
                 {"presence", report.presence}});
}

std::string ToJson(const PlainReport& report) {
  ordered_json layers = ordered_json::array();
  for (const PlainLayer& layer : report.layers) {
    layers.push_back({{"name", layer.name},
                      {"type", layer.type},
                      {"width", layer.width},
                      {"proven", layer.proven},
                      {"low", layer.low},
                      {"high", layer.high}});
  }
  return Layout({{"network", report.network},
                 {"images", report.images},
                 {"correct", OrNull(report.correct)},
                 {"accuracy", PercentOrNull(report.correct, report.images)},
                 {"float_correct", OrNull(report.float_correct)},
                 {"float_accuracy", PercentOrNull(report.float_correct, report.images)},
                 {"same_as_float", OrNull(report.same_as_float)},
                 {"time", {{"total_s", report.total_s}}},
                 {"layers", std::move(layers)},
                 {"predictions", report.predictions},
                 {"logits", Rows(report.logits, report.classes)},
                 {"warnings", report.warnings},
                 {"machine", report.machine}});
}

std::string Describe(const RunReport& report, bool utf8) {
  Table layers(LayerColumns(false));
  AddLayers(layers, report.layers);
  std::uint64_t offline = 0, online = 0;
  for (std::size_t p = 0; p < 3; ++p) {
    offline += report.offline_bytes[p];
    online += report.online_bytes[p];
    layers.AddRow({fmt::format("sent by party {}", p), "", "", "", "",
                   FormatBytes(report.offline_bytes[p]), FormatBytes(report.online_bytes[p]), ""});
  }
  layers.AddRow({"total", "", "", "", std::to_string(report.online_hops), FormatBytes(offline),
                 FormatBytes(online), FormatSeconds(report.online_s)});
  std::string text = layers.Render(utf8);
  text += fmt::format(
      "Bytes: payload of all {} images; hops: of one batch of {}; offline hops: {}.\n\n",
      report.images, report.batch, report.offline_hops);
  text += Times(report, utf8);
  for (std::size_t p = 0; p < 3; ++p)
    if (report.presence[p] != kStayed)
      text += fmt::format("Party {}: {}.\n", p, report.presence[p]);
  text += "\n";
  if (report.correct)
    text += fmt::format("accuracy: {:.2f} % ({} of {} images)\n", report.Accuracy(),
                        *report.correct, report.images);
  if (report.matches_plan)
    text += fmt::format("bytes and hops are what the plan says: {}\n", YesNo(*report.matches_plan));
  if (report.equal)
    text +=
        fmt::format("every logit {} the plain integer network{}: {} ({} of {})\n",
                    report.tolerance == 0 ? "equals" : "is that of",
                    report.tolerance == 0 ? "" : fmt::format(", give or take {}", report.tolerance),
                    YesNo(*report.MatchesPlain()), *report.equal, report.images * report.classes);
  return text;
}

std::string Describe(const PartyReport& report, bool utf8) {
  Table layers(LayerColumns(true));
  AddLayers(layers, report.layers);
  layers.AddRow({"total", "", "", "", std::to_string(report.online_hops),
                 FormatBytes(report.OfflineBytes()), FormatBytes(report.OnlineBytes()),
                 FormatSeconds(report.online_s)});
  std::string text = layers.Render(utf8) + "\n" + Times(report, utf8);
  if (report.presence != kStayed) text += fmt::format("This party {}.\n", report.presence);
  return text;
}

}  // namespace tercet::report
