// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "tercet/base/error.h"
#include "tercet/report/run_report.h"
#include "tercet/report/table.h"

namespace tercet::report {
namespace {

using infer::kHasLeft;
using infer::kNotStarted;
using infer::kStayed;
using infer::PartyReport;
using nlohmann::json;
using testing::HasSubstr;

// A run of two layers, five images of two classes; party 1 receives.
std::array<PartyReport, 3> Parties() {
  std::array<PartyReport, 3> parties;
  for (int p = 0; p < 3; ++p) {
    PartyReport& report = parties[static_cast<std::size_t>(p)];
    const auto n = static_cast<unsigned>(p);
    report.party = p;
    report.network = "Small";
    report.suite = "lut";
    report.link = "none";
    report.batch = 4;
    report.images = 5;
    report.classes = 2;
    report.setup_s = 0.5 + p;
    report.offline_s = 2 - p;
    report.online_s = 1 + 0.25 * (p == 1);
    report.offline_hops = 1 + n;
    report.online_hops = 5 - n;
    report.layers = {{"input", "input", "", 0, 0, 1, 0, 10 + n, 0, 0.1},
                     {"fc1", "linear+sign", "lut", 9, 1, 3, 100 + n, 20 + n, 0.5, 0.2 + p},
                     {"output", "output", "", 0, 0, 1, 0, 7, 0, 0.1}};
    report.peak_memory_mb = 10.0 + p;
    report.kernels = "portable";
    report.warnings = {"a certificate expires"};
  }
  parties[1].logits = {1, -2, 3, 4, 0, 0, -5, -6, 7, 8};
  return parties;
}

TEST(Merge, AddsBytesAndTakesTheLargestOfHopsAndTimes) {
  const RunReport run = Merge(Parties());
  EXPECT_EQ(run.offline_bytes, (std::array<std::uint64_t, 3>{100, 101, 102}));
  EXPECT_EQ(run.online_bytes, (std::array<std::uint64_t, 3>{37, 39, 41}));
  EXPECT_EQ(run.offline_hops, 3u);
  EXPECT_EQ(run.online_hops, 5u);
  EXPECT_DOUBLE_EQ(run.setup_s, 2.5);
  EXPECT_DOUBLE_EQ(run.offline_s, 2);
  EXPECT_DOUBLE_EQ(run.online_s, 1.25);
  ASSERT_EQ(run.layers.size(), 3u);
  EXPECT_EQ(run.layers[1].name, "fc1");
  EXPECT_EQ(run.layers[1].offline_bytes, 303u);
  EXPECT_EQ(run.layers[1].online_bytes, 63u);
  EXPECT_DOUBLE_EQ(run.layers[1].online_s, 2.2);
  EXPECT_EQ(run.logits.size(), 10u);
  EXPECT_FALSE(run.MatchesPlain().has_value());
}

TEST(Merge, APartyMayNotBeStartedOrMayLeave) {
  auto parties = Parties();
  for (auto& party : parties) {
    party.material = "from a file";
    party.wall_s = 3 + party.party;
  }
  parties[0] = {};
  parties[0].presence = kNotStarted;
  parties[2].presence = kHasLeft;
  const RunReport run = Merge(parties);
  EXPECT_EQ(run.network, "Small");
  EXPECT_EQ(run.material, "from a file");
  EXPECT_DOUBLE_EQ(run.wall_s, 5);
  EXPECT_EQ(run.online_bytes, (std::array<std::uint64_t, 3>{0, 39, 41}));
  const json document = json::parse(ToJson(run));
  EXPECT_EQ(document.at("presence"), json({kNotStarted, kStayed, kHasLeft}));
  EXPECT_EQ(document.at("material"), "from a file");
  EXPECT_DOUBLE_EQ(document.at("time").at("wall_s"), 5);
  const std::string text = Describe(run, false);
  EXPECT_THAT(text, HasSubstr("Party 0: not started."));
  EXPECT_THAT(text, HasSubstr("Party 2: left when all material was delivered."));
  parties[1].material = "in turn";
  EXPECT_THROW(Merge(parties), ProtocolError);
  const PartyReport back = PartyReportFromJson(ToJson(parties[2]), "report");
  EXPECT_EQ(back.material, "from a file");
  EXPECT_EQ(back.presence, kHasLeft);
  EXPECT_EQ(back.warnings, std::vector<std::string>{"a certificate expires"});
  EXPECT_DOUBLE_EQ(back.wall_s, 5);
}

TEST(Merge, HopsOfLayersAddUpThoughPartiesHearAtDifferentTimes) {
  auto parties = Parties();
  // Party 0 hears of the input only through the first layer; together they need 1 + 3 + 1 hops.
  const std::uint32_t growth[3][3] = {{0, 4, 1}, {0, 3, 2}, {1, 3, 0}};
  for (std::size_t p = 0; p < 3; ++p) {
    parties[p].online_hops = 5 - (p == 2);
    for (std::size_t k = 0; k < 3; ++k) parties[p].layers[k].online_hops = growth[p][k];
  }
  const RunReport run = Merge(parties);
  EXPECT_EQ(run.online_hops, 5u);
  EXPECT_EQ(run.layers[0].online_hops, 1u);
  EXPECT_EQ(run.layers[1].online_hops, 3u);
  EXPECT_EQ(run.layers[2].online_hops, 1u);
}

TEST(Merge, RefusesReportsOfDifferentRuns) {
  auto parties = Parties();
  parties[2].suite = "cbnn";
  EXPECT_THROW(Merge(parties), ProtocolError);
  parties = Parties();
  parties[2].layers[1].name = "fc2";
  EXPECT_THROW(Merge(parties), ProtocolError);
  parties = Parties();
  parties[1].party = 2;
  EXPECT_THROW(Merge(parties), ProtocolError);
}

TEST(Merge, WantsLogitsOfEveryImageFromOneParty) {
  auto parties = Parties();
  parties[1].logits.pop_back();
  EXPECT_THROW(Merge(parties), ProtocolError);
  parties[1].logits.clear();
  EXPECT_THROW(Merge(parties), ProtocolError);
  parties = Parties();
  parties[0].logits = parties[1].logits;
  EXPECT_THROW(Merge(parties), ProtocolError);
}

TEST(PartyReportJson, ComesBackEqual) {
  const PartyReport report = Parties()[1];
  const std::string text = ToJson(report);
  const PartyReport back = PartyReportFromJson(text, "there");
  EXPECT_EQ(ToJson(back), text);
  EXPECT_EQ(back.logits, report.logits);
  EXPECT_EQ(back.layers.at(1).online_bytes, report.layers.at(1).online_bytes);
}

TEST(PartyReportJson, SaysWhereTextIsNoReport) {
  for (const std::string text : {"", "[]", "{\"party\": 1}", "{\"party\": \"x\"}"}) {
    try {
      PartyReportFromJson(text, "pipe of party 1");
      ADD_FAILURE() << "no error for " << text;
    } catch (const ConfigError& e) {
      EXPECT_EQ(e.Place(), "pipe of party 1");
    }
  }
}

TEST(RunReportJson, HasTheDocumentedKeys) {
  RunReport run = Merge(Parties());
  run.correct = 4;
  run.equal = 10;
  run.predictions = {0, 1, 0, 0, 1};
  const json document = json::parse(ToJson(run));
  for (const char* key :
       {"network", "suite", "link", "batch", "images", "correct", "accuracy", "matches_plain",
        "time", "hops", "bytes", "layers", "predictions", "logits"})
    EXPECT_TRUE(document.contains(key)) << key;
  for (const char* key : {"setup_s", "offline_s", "online_s", "total_s"})
    EXPECT_TRUE(document.at("time").contains(key)) << key;
  EXPECT_DOUBLE_EQ(document.at("time").at("total_s"), 3.25);
  EXPECT_EQ(document.at("hops").at("online"), 5);
  EXPECT_EQ(document.at("bytes").at("online"), (json{37, 39, 41}));
  EXPECT_EQ(document.at("matches_plain"), true);
  EXPECT_DOUBLE_EQ(document.at("accuracy"), 80.0);
  ASSERT_EQ(document.at("logits").size(), 5u);
  EXPECT_EQ(document.at("logits").at(1), (json{3, 4}));
  for (const char* key :
       {"name", "type", "suite", "width", "hops", "offline_bytes", "online_bytes", "online_s"})
    EXPECT_TRUE(document.at("layers").at(1).contains(key)) << key;
}

TEST(RunReportJson, WhatIsUnknownIsNull) {
  const json document = json::parse(ToJson(Merge(Parties())));
  EXPECT_TRUE(document.at("correct").is_null());
  EXPECT_TRUE(document.at("accuracy").is_null());
  EXPECT_TRUE(document.at("matches_plain").is_null());
}

TEST(DescribeRun, SaysWithinWhatTheLogitsAreEqual) {
  RunReport run = Merge(Parties());
  run.equal = 10;
  run.tolerance = 3;
  EXPECT_THAT(Describe(run, false),
              HasSubstr("every logit is that of the plain integer network, give or take 3: yes"));
  EXPECT_EQ(json::parse(ToJson(run)).at("tolerance"), 3);
}

TEST(DescribeRun, SaysWhetherTheLogitsAreEqual) {
  RunReport run = Merge(Parties());
  run.equal = 10;
  EXPECT_THAT(Describe(run, false),
              HasSubstr("every logit equals the plain integer network: yes (10 of 10)"));
  run.equal = 9;
  EXPECT_THAT(Describe(run, false),
              HasSubstr("every logit equals the plain integer network: NO (9 of 10)"));
}

TEST(TableText, AlignsColumns) {
  Table table({{"name", Align::kLeft}, {"n", Align::kRight}});
  table.AddRow({"a", "1"});
  table.AddRule();
  table.AddRow({"größer", "234"});
  EXPECT_EQ(table.Render(false),
            "name   |   n\n"
            "-------+----\n"
            "a      |   1\n"
            "-------+----\n"
            "größer | 234\n");
  EXPECT_THROW(table.AddRow({"one cell"}), InternalError);
}

TEST(TableText, BreaksCellsWhereItIsWiderThanTheTerminal) {
  Table table({{"layer"}, {"type"}, {"online time", Align::kRight}});
  table.AddRow({"conv1", "conv2d+batch_norm+größer", "40.1 ms"});
  table.AddRow({"sent by party 0", "", "0 s"});
  EXPECT_EQ(table.Render(false, 31),
            "layer    | type     |    online\n"
            "         |          |      time\n"
            "---------+----------+----------\n"
            "conv1    | conv2d+  |   40.1 ms\n"
            "         | batch_   |\n"
            "         | norm+    |\n"
            "         | größer   |\n"
            "sent by  |          |       0 s\n"
            "party 0  |          |\n");
  EXPECT_EQ(table.Render(false, 56), table.Render(false, 1000));
  EXPECT_NE(table.Render(false, 55), table.Render(false, 1000));
  // Numbers, and words, stay whole.
  EXPECT_EQ(table.Render(false, 1),
            "layer|type   | online\n"
            "     |       |   time\n"
            "-----+-------+-------\n"
            "conv1|conv2d+|40.1 ms\n"
            "     |batch_ |\n"
            "     |norm+  |\n"
            "     |größer |\n"
            "sent |       |    0 s\n"
            "by   |       |\n"
            "party|       |\n"
            "0    |       |\n");
}

TEST(Units, KeepThreeDigits) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(999), "999 B");
  EXPECT_EQ(FormatBytes(1000), "1.00 kB");
  EXPECT_EQ(FormatBytes(999'499), "999 kB");
  EXPECT_EQ(FormatBytes(999'500), "1.00 MB");
  EXPECT_EQ(FormatBytes(45'600'000), "45.6 MB");
  EXPECT_EQ(FormatSeconds(0), "0 s");
  EXPECT_EQ(FormatSeconds(0.0000123), "12.3 us");
  EXPECT_EQ(FormatSeconds(0.5), "500 ms");
  EXPECT_EQ(FormatSeconds(0.9999), "1.00 s");
  EXPECT_EQ(FormatSeconds(725), "12 min 5 s");
  EXPECT_EQ(FormatCount(7), "7");
  EXPECT_EQ(FormatCount(123), "123");
  EXPECT_EQ(FormatCount(1234567), "1 234 567");
}

}  // namespace
}  // namespace tercet::report
