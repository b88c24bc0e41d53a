// SPDX-License-Identifier: Apache-2.0
#include "tercet/report/run_report.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <tuple>
#include <type_traits>
#include <utility>

#include "base/json.h"
#include "tercet/base/error.h"
#include "tercet/nn/run_plain.h"
#include "tercet/report/table.h"

namespace tercet::report {

using infer::kNotStarted;
using infer::kStayed;
using infer::PartyLayer;
using infer::PartyReport;
using infer::SessionReport;

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

// What JSON says of a layer, of times, and of both kinds of reports, for writing and reading: calls
// visit(key, field).
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
void VisitTimes(auto& report, auto&& visit) {
  visit("setup_s", report.setup_s);
  visit("offline_s", report.offline_s);
  visit("online_s", report.online_s);
  visit("wall_s", report.wall_s);
}
void VisitCommon(auto& report, auto&& visit) {
  visit("network", report.network);
  visit("suite", report.suite);
  visit("linear", report.linear);
  visit("link", report.link);
  visit("batch", report.batch);
  visit("images", report.images);
  visit("classes", report.classes);
  visit("kernels", report.kernels);
  visit("material", report.material);
  visit("warnings", report.warnings);
}

auto WriteInto(ordered_json& to) {
  return [&to](const char* key, const auto& field) { to[key] = field; };
}

// A negative number or a fraction would become another one without a word.
template <class Number>
Number WholeNumber(const json& value, const char* key) {
  const bool whole =
      std::is_signed_v<Number> ? value.is_number_integer() : value.is_number_unsigned();
  if (!whole || std::cmp_not_equal(value.get<std::int64_t>(), value.get<Number>()))
    throw ConfigError(key, fmt::format("found {}, expected a whole number", ValueText(value)));
  return value.get<Number>();
}

auto ReadFrom(const json& from) {
  return [&from]<class Field>(const char* key, Field& field) {
    if constexpr (std::is_integral_v<Field>) {
      field = WholeNumber<Field>(from.at(key), key);
    } else {
      from.at(key).get_to(field);
    }
  };
}

ordered_json LayersToJson(const SessionReport& report) {
  ordered_json array = ordered_json::array();
  for (const PartyLayer& layer : report.layers) VisitLayer(layer, WriteInto(array.emplace_back()));
  return array;
}

template <class Times>
ordered_json TimesToJson(const Times& report) {
  ordered_json times;
  VisitTimes(report, WriteInto(times));
  times["total_s"] = report.offline_s + report.online_s;
  return times;
}

ordered_json PartToJson(const SessionReport& report) {
  if (!report.part) return nullptr;
  const auto& [shard, all_images, job, joined] = *report.part;
  ordered_json document{{"index", shard.index},
                        {"count", shard.count},
                        {"first_image", shard.Of(all_images).first},
                        {"all_images", all_images},
                        {"job", job}};
  for (const auto& each : joined)
    document["joined"].push_back(
        {{"index", each.shard.index}, {"images", each.images}, {"time", TimesToJson(each)}});
  return document;
}

ordered_json CommonToJson(const SessionReport& report) {
  ordered_json document;
  VisitCommon(report, WriteInto(document));
  document["correct"] = OrNull(report.correct);
  document["accuracy"] = PercentOrNull(report.correct, report.images);
  document["time"] = TimesToJson(report);
  document["hops"] = {{"offline", report.offline_hops}, {"online", report.online_hops}};
  document["shard"] = PartToJson(report);
  return document;
}

infer::JobPart PartFromJson(const json& from) {
  infer::JobPart part;
  const auto read = ReadFrom(from);
  read("index", part.shard.index);
  read("count", part.shard.count);
  read("all_images", part.all_images);
  read("job", part.job);
  if (part.shard.count == 0) throw ConfigError("count", "found 0, expected a number of shards");
  for (const json& each : from.value("joined", json::array())) {
    auto& joined = part.joined.emplace_back();
    ReadFrom(each)("index", joined.shard.index);
    ReadFrom(each)("images", joined.images);
    VisitTimes(joined, ReadFrom(each.at("time")));
    joined.shard.count = from.at("joined").size();
  }
  return part;
}

std::optional<std::size_t> CountOrNull(const json& from, const char* key) {
  if (from.at(key).is_null()) return std::nullopt;
  return WholeNumber<std::size_t>(from.at(key), key);
}

void ReadCommon(const json& document, SessionReport& report) {
  VisitCommon(report, ReadFrom(document));
  VisitTimes(report, ReadFrom(document.at("time")));
  report.correct = CountOrNull(document, "correct");
  ReadFrom(document.at("hops"))("offline", report.offline_hops);
  ReadFrom(document.at("hops"))("online", report.online_hops);
  for (const json& layer : document.at("layers"))
    VisitLayer(report.layers.emplace_back(), ReadFrom(layer));
  if (const json& part = document.at("shard"); !part.is_null()) report.part = PartFromJson(part);
}

void ReadLogits(const json& from, std::vector<std::int64_t>& logits) {
  for (const json& logit : from) logits.push_back(WholeNumber<std::int64_t>(logit, "logits"));
}

// `read` takes a report from the document of a file.
template <class Report>
Report FromJson(const std::string& text, const std::string& place, const char* what,
                const std::function<void(const json&, Report&)>& read) {
  try {
    const json document = ReadJson(text, place, JsonLimits::UpTo(text.size()));
    Report report;
    ReadCommon(document, report);
    read(document, report);
    return report;
  } catch (const json::exception& e) {
    throw ConfigError(place, fmt::format("no report of {}: {}", what, e.what()));
  } catch (const ConfigError& e) {
    if (e.Place().starts_with(place)) throw;
    throw ConfigError(place, fmt::format("no report of {}: {}", what, e.what()));
  }
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

std::string Times(const SessionReport& report, bool utf8) {
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
  std::string text = table.Render(utf8) + fmt::format("Material: {}.\n", report.material);
  if (report.part && !report.part->joined.empty()) {
    double longest = 0;
    for (const auto& shard : report.part->joined) longest = std::max(longest, shard.wall_s);
    text += fmt::format("Times are sums over {} shards; the longest took {}.\n",
                        report.part->joined.size(), FormatSeconds(longest));
  }
  return text;
}

std::string AccuracyText(const SessionReport& report) {
  if (!report.correct) return "";
  return fmt::format("accuracy: {:.2f} % ({} of {} images)\n",
                     Percent(*report.correct, report.images), *report.correct, report.images);
}

const char* YesNo(bool yes) { return yes ? "yes" : "NO"; }

}  // namespace

std::optional<bool> RunReport::MatchesPlain() const {
  if (!equal) return std::nullopt;
  return *equal == images * classes;
}

void RunReport::RequireRight() const {
  if (!MatchesPlain().value_or(true))
    throw Error("the secure result differs from the plain integer network");
  if (!matches_plan.value_or(true))
    throw Error("the bytes and hops that were measured differ from the plan's (see tercet plan)");
}

RunReport Merge(const std::array<PartyReport, 3>& parties) {
  const auto started = [](const PartyReport& party) { return party.presence != kNotStarted; };
  const auto found = std::find_if(parties.begin(), parties.end(), started);
  if (found == parties.end()) throw ProtocolError("no party was started");
  const PartyReport& first = *found;
  RunReport run;
  static_cast<SessionReport&>(run) = first;
  run.logits.clear();
  run.correct.reset();
  run.warnings.clear();
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
    RequireEqual(id, "linear", party.linear, first.linear);
    RequireEqual(id, "link", party.link, first.link);
    RequireEqual(id, "batch", party.batch, first.batch);
    RequireEqual(id, "images", party.images, first.images);
    RequireEqual(id, "classes", party.classes, first.classes);
    RequireEqual(id, "shard", PartToJson(party).dump(), PartToJson(first).dump());
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
    run.correct = party.correct;
  }
  run.layers = infer::SideBySide(layers);
  if (receivers != 1)
    throw ProtocolError(fmt::format("{} parties report logits, expected one", receivers));
  return run;
}

std::string ToJson(const PartyReport& report) {
  ordered_json document{{"party", report.party}};
  document.update(CommonToJson(report));
  document["bytes"] = {{"offline", report.OfflineBytes()}, {"online", report.OnlineBytes()}};
  document["layers"] = LayersToJson(report);
  document["logits"] = report.logits;
  document["peak_memory_mb"] = report.peak_memory_mb;
  document["presence"] = report.presence;
  return Layout(document);
}

PartyReport PartyReportFromJson(const std::string& text, const std::string& place) {
  return FromJson<PartyReport>(text, place, "a party",
                               [](const json& document, PartyReport& report) {
                                 ReadFrom(document)("party", report.party);
                                 ReadLogits(document.at("logits"), report.logits);
                                 document.at("peak_memory_mb").get_to(report.peak_memory_mb);
                                 document.at("presence").get_to(report.presence);
                               });
}

std::string ToJson(const RunReport& report) {
  ordered_json document = CommonToJson(report), suites = ordered_json::object();
  for (const PartyLayer& layer : report.layers)
    if (!layer.suite.empty()) suites[layer.name] = layer.suite;
  document["suite_per_layer"] = std::move(suites);
  document["transport"] = report.transport;
  document["equal"] = OrNull(report.equal);
  document["matches_plain"] = OrNull(report.MatchesPlain());
  document["tolerance"] = report.tolerance;
  document["matches_plan"] = OrNull(report.matches_plan);
  document["bytes"] = {{"offline", report.offline_bytes}, {"online", report.online_bytes}};
  document["layers"] = LayersToJson(report);
  document["predictions"] = report.predictions;
  document["logits"] = Rows(report.logits, report.classes);
  document["peak_memory_mb"] = report.peak_memory_mb;
  document["machine"] = report.machine;
  document["presence"] = report.presence;
  return Layout(document);
}

RunReport RunReportFromJson(const std::string& text, const std::string& place) {
  return FromJson<RunReport>(text, place, "a run", [](const json& document, RunReport& report) {
    document.at("transport").get_to(report.transport);
    report.equal = CountOrNull(document, "equal");
    ReadFrom(document)("tolerance", report.tolerance);
    if (const json& matches = document.at("matches_plan"); !matches.is_null())
      report.matches_plan = matches.get<bool>();
    document.at("bytes").at("offline").get_to(report.offline_bytes);
    document.at("bytes").at("online").get_to(report.online_bytes);
    for (const json& row : document.at("logits")) ReadLogits(row, report.logits);
    if (report.classes > 0) report.predictions = nn::Predictions(report.logits, report.classes);
    document.at("peak_memory_mb").get_to(report.peak_memory_mb);
    document.at("machine").get_to(report.machine);
    document.at("presence").get_to(report.presence);
  });
}

AnyReport ReportFromJson(const std::string& text, const std::string& place) {
  // A run's has no party; what else is wrong says whichever reads it.
  const json document = ReadJson(text, place, JsonLimits::UpTo(text.size()));
  if (document.is_object() && document.contains("transport")) return RunReportFromJson(text, place);
  return PartyReportFromJson(text, place);
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
  text += AccuracyText(report);
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
  if (report.correct) text += fmt::format("\n{}", AccuracyText(report));
  return text;
}

}  // namespace tercet::report
