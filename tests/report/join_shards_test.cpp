// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "tercet/base/error.h"
#include "tercet/report/run_report.h"

namespace tercet::report {
namespace {

using infer::PartyReport;
using nlohmann::json;
using testing::HasSubstr;

using Reports = std::vector<std::pair<std::string, AnyReport>>;

// Seven images of two classes in three shards of three, two and two.
template <class Report>
Report ShardReport(std::size_t index) {
  Report report;
  report.network = "Small";
  report.suite = "lut";
  report.link = "none";
  report.material = "in turn";
  report.part = {{index, 3}, 7, "0123456789abcdef", {}};
  const auto [first, size] = report.part->shard.Of(7);
  report.images = report.batch = size;
  report.classes = 2;
  report.setup_s = 1;
  report.offline_s = 2;
  report.online_s = 3;
  report.wall_s = 4 + static_cast<double>(index);
  report.online_hops = 5;
  report.layers = {{"input", "input", "", 0, 0, 1, 0, 10 * size, 0, 0.25},
                   {"fc1", "linear+sign", "lut", 9, 1, 4, 100 * size, 20 * size, 0.5, 0.5}};
  for (std::size_t i = first; i < first + size; ++i) {
    report.logits.push_back(static_cast<std::int64_t>(i));
    report.logits.push_back(3);
  }
  report.correct = size - 1;
  report.kernels = index == 0 ? "avx2" : "portable";
  report.warnings = {"a certificate expires"};
  return report;
}

RunReport RunShard(std::size_t index) {
  auto report = ShardReport<RunReport>(index);
  report.transport = "tls";
  report.machine = "a machine";
  report.presence.fill(infer::kStayed);
  report.offline_bytes = {100 * report.images, 0, 0};
  report.online_bytes = {0, 30 * report.images, 7};
  report.peak_memory_mb = {1, 2, 3 + static_cast<double>(index)};
  report.equal = 2 * report.images;
  report.matches_plan = true;
  report.predictions = std::vector<std::uint8_t>(report.images, 1);
  return report;
}

PartyReport PartyShard(std::size_t index) {
  auto report = ShardReport<PartyReport>(index);
  report.party = 1;
  report.peak_memory_mb = 10 + static_cast<double>(index);
  return report;
}

// As if each had been read from its file.
template <class Report>
Reports Files(const std::vector<Report>& reports) {
  Reports files;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const std::string name = "file" + std::to_string(i);
    files.emplace_back(name, ReportFromJson(ToJson(reports[i]), name));
  }
  return files;
}

void ExpectRefused(const Reports& reports, const std::string& place, const std::string& text) {
  try {
    JoinShards(reports);
    ADD_FAILURE() << "joined, expected: " << text;
  } catch (const ConfigError& e) {
    EXPECT_EQ(e.Place(), place);
    EXPECT_THAT(e.what(), HasSubstr(text));
  }
}

TEST(JoinShards, OfWholeRunsInAnyOrder) {
  const auto whole =
      std::get<RunReport>(JoinShards(Files<RunReport>({RunShard(2), RunShard(0), RunShard(1)})));
  EXPECT_EQ(whole.images, 7u);
  EXPECT_EQ(whole.batch, 3u);
  EXPECT_EQ(whole.logits, (std::vector<std::int64_t>{0, 3, 1, 3, 2, 3, 3, 3, 4, 3, 5, 3, 6, 3}));
  EXPECT_EQ(whole.predictions, (std::vector<std::uint8_t>{1, 1, 1, 0, 0, 0, 0}));
  EXPECT_EQ(whole.correct, 4u);
  EXPECT_EQ(whole.equal, 14u);
  EXPECT_TRUE(*whole.matches_plan);
  EXPECT_EQ(whole.offline_bytes, (std::array<std::uint64_t, 3>{700, 0, 0}));
  EXPECT_EQ(whole.online_bytes, (std::array<std::uint64_t, 3>{0, 210, 21}));
  EXPECT_EQ(whole.layers.at(1).offline_bytes, 700u);
  EXPECT_EQ(whole.layers.at(1).online_hops, 4u);
  EXPECT_DOUBLE_EQ(whole.layers.at(1).online_s, 1.5);
  EXPECT_EQ(whole.online_hops, 5u);
  EXPECT_DOUBLE_EQ(whole.offline_s, 6);
  EXPECT_DOUBLE_EQ(whole.wall_s, 15);
  EXPECT_DOUBLE_EQ(whole.peak_memory_mb[2], 5);
  EXPECT_EQ(whole.kernels, "avx2; portable");
  EXPECT_EQ(whole.machine, "a machine");
  EXPECT_EQ(whole.warnings, std::vector<std::string>{"a certificate expires"});
  EXPECT_THAT(Describe(whole, false),
              HasSubstr("Times are sums over 3 shards; the longest took 6.00 s."));
  const json document = json::parse(ToJson(whole));
  EXPECT_EQ(document.at("shard").at("joined").size(), 3u);
  EXPECT_EQ(document.at("shard").at("joined").at(1).at("images"), 2);
  EXPECT_EQ(ToJson(RunReportFromJson(ToJson(whole), "joined")), ToJson(whole));
}

TEST(JoinShards, OfOneParty) {
  const auto whole = std::get<PartyReport>(
      JoinShards(Files<PartyReport>({PartyShard(0), PartyShard(1), PartyShard(2)})));
  EXPECT_EQ(whole.party, 1);
  EXPECT_EQ(whole.logits.size(), 14u);
  EXPECT_EQ(whole.OnlineBytes(), 210u);
  EXPECT_DOUBLE_EQ(whole.peak_memory_mb, 12);
  EXPECT_THAT(Describe(whole, false), HasSubstr("accuracy: 57.14 % (4 of 7 images)"));
}

TEST(JoinShards, WhatOneShardDoesNotKnowIsUnknown) {
  auto unlabelled = RunShard(1);
  unlabelled.correct.reset();
  unlabelled.equal.reset();
  const auto whole =
      std::get<RunReport>(JoinShards(Files<RunReport>({RunShard(0), unlabelled, RunShard(2)})));
  EXPECT_FALSE(whole.correct || whole.equal);
}

TEST(JoinShards, NamesMissingAndDoubleShards) {
  ExpectRefused(Files<RunReport>({RunShard(1)}), "shards", "no report of 0/3, 2/3");
  ExpectRefused(Files<RunReport>({RunShard(0), RunShard(1), RunShard(0)}), "file2",
                "has shard 0/3, which file0 has too");
}

TEST(JoinShards, NamesReportsThatDoNotFit) {
  const auto with = [](const std::function<void(RunReport&)>& change) {
    auto report = RunShard(1);
    change(report);
    return Files<RunReport>({RunShard(0), report, RunShard(2)});
  };
  const auto refused = [&](const std::function<void(RunReport&)>& change, const std::string& text) {
    ExpectRefused(with(change), "file1", text);
  };
  refused([](auto& r) { r.network = "Other"; }, "network \"Other\" found, \"Small\" expected");
  refused([](auto& r) { r.suite = "fss"; }, "suite");
  refused([](auto& r) { r.link = "wan"; }, "link");
  refused([](auto& r) { r.part->job = "fedcba9876543210"; },
          "another model, other images or other settings than file0: job fedcba987654 found, "
          "0123456789ab expected");
  refused([](auto& r) { r.part->all_images = 8; }, "has 2 images, 3 expected of shard 1/3 of 8");
  refused([](auto& r) { r.part = {{1, 3}, 6, r.part->job, {}}; }, "number of images");
  refused([](auto& r) { r.part = {{1, 4}, 7, r.part->job, {}}; }, "number of shards");
  refused([](auto& r) { r.part->shard.index = 3; }, "which there cannot be");
  refused([](auto& r) { r.logits.resize(2); },
          "is cut off: 2 logits found, 2 expected for each of 2 images");
  refused([](auto& r) { r.layers.pop_back(); }, "layers");
  refused([](auto& r) { r.layers.at(1).name = "fc2"; }, "layer");
  refused([](auto& r) { r.part.reset(); }, "is no report of a shard");
  refused([](auto& r) { r.part->joined.push_back({}); }, "is no report of a shard");
  auto mixed = with([](auto&) {});
  mixed[1].second = PartyShard(1);
  ExpectRefused(mixed, "file1", "is a report of one party, unlike file0");
  auto other = PartyShard(1);
  other.party = 2;
  ExpectRefused(Files<PartyReport>({PartyShard(0), other}), "file1", "party");
  other = PartyShard(1);
  other.logits.clear();
  ExpectRefused(Files<PartyReport>({PartyShard(0), other}), "file1", "is cut off");
}

TEST(ReportFromJson, SaysWhereAFileIsCutOffOrChanged) {
  const std::string good = ToJson(RunShard(0));
  for (std::size_t size = 0; size + 3 < good.size(); size += 97)
    EXPECT_THROW(ReportFromJson(good.substr(0, size), "file"), ConfigError) << size;
  for (const auto& [pointer, value] : {std::pair<std::string, json>{"/images", -1},
                                       {"/batch", 1.5},
                                       {"/logits/0/0", 0.5},
                                       {"/shard/count", -2},
                                       {"/shard/count", 0},
                                       {"/hops/online", 4294967296},
                                       {"/time/wall_s", "long"}}) {
    json document = json::parse(good);
    document[json::json_pointer(pointer)] = value;
    try {
      ReportFromJson(document.dump(), "file");
      ADD_FAILURE() << pointer;
    } catch (const ConfigError& e) {
      EXPECT_EQ(e.Place(), "file");
    }
  }
}

}  // namespace
}  // namespace tercet::report
