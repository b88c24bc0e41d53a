// SPDX-License-Identifier: Apache-2.0
// Times whole queries: one table of networks x suites x links x batch sizes, and hops by the clock.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

#include "programs/failure.h"
#include "programs/options.h"
#include "programs/output.h"
#include "query_report.h"
#include "query_runs.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"

namespace {

using namespace tercet::benchmarks;
using namespace tercet::programs;

struct Options {
  RunOptions run;
  std::vector<std::string> networks{"mnistnet1", "mnistnet2", "mnistnet3"};
  std::vector<std::string> suites{"lut"};
  std::vector<std::string> links{"none"};
  std::vector<std::size_t> batches{1, 128};
  std::vector<double> round_trips;
  std::string markdown, csv, json;
};

void MeasureTable(const Options& options) {
  std::vector<Row> rows;
  for (const auto& network : options.networks)
    for (const auto& suite : options.suites)
      for (const auto& link : options.links)
        for (const auto batch : options.batches) {
          PrintProgress(fmt::format("{}, {}, {}, batch {}\n", network, suite, link, batch));
          rows.push_back(Measure(options.run, {network, suite, link, batch}));
        }
  Predict(options.run, rows);
  const std::string table = ToMarkdown(rows) + "\n" + Conditions(options.run, rows) + "\n";
  Print("{}", table);
  const std::vector<std::pair<std::string, std::string>> files{
      {options.markdown, table}, {options.csv, ToCsv(rows)}, {options.json, ToJson(rows)}};
  std::vector<tercet::Output> outputs;
  for (const auto& [file, text] : files)
    if (!file.empty()) outputs.push_back({file, text});
  tercet::WriteFiles(outputs);
}

// The growth of the online time with the round trip, by least squares: half a round trip a hop.
void MeasureSlope(const Options& options) {
  Print("| network | suite | hops counted | hops by the clock |\n|---|---|---|---|\n");
  for (const auto& network : options.networks)
    for (const auto& suite : options.suites) {
      double n = 0, x = 0, y = 0, xx = 0, xy = 0;
      std::uint32_t hops = 0;
      for (const double rtt : options.round_trips) {
        const auto row = Measure(options.run, {network, suite, fmt::format("rtt_ms={}", rtt), 1});
        const double ms = row.online_ms.median;
        n += 1, x += rtt, y += ms, xx += rtt * rtt, xy += rtt * ms;
        hops = row.hops;
      }
      Print("| {} | `{}` | {} | {:.3f} |\n", network, suite, hops,
            2 * (n * xy - x * y) / (n * xx - x * x));
      FlushOutput();
    }
}

int Main(int argc, char** argv) {
  Options options;
  options.run.tercet = TERCET_BIN_DIR "/tercet";
  options.run.nets_dir = TERCET_SOURCE_DIR "/nets";
  CLI::App app{
      "Times whole queries with three processes on this machine. Prints a Markdown table: "
      "milliseconds and kilobytes per image,\n"
      "median (least-most) over the repetitions, offline and online apart, at the slowest party. "
      "With link none among the links, times\n"
      "on the others are predicted from it. scripts/plot draws the CSV or JSON."};
  app.add_option("--images", options.run.images, "images, IDX")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--labels", options.run.labels, "labels, IDX")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--networks", options.networks, "networks of the nets folder")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--suites", options.suites, "suites, separated by ;")
      ->delimiter(';')
      ->capture_default_str();
  app.add_option("--links", options.links, "link profiles, separated by ;")
      ->delimiter(';')
      ->capture_default_str();
  app.add_option("--batches", options.batches, "batch sizes")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--slope", options.round_trips,
                 "instead of the table: round trips in ms over which the growth of the online time "
                 "is measured, e.g. 40,80,160")
      ->delimiter(',')
      ->check(CLI::Range(0.1, 10'000.0));
  app.add_option("--repetitions", options.run.repetitions, "counted runs of each setting")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--queries", options.run.queries, "queries in a run of batch 1")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--transport", options.run.transport, "as tercet run")->capture_default_str();
  app.add_option("--nets", options.run.nets_dir, "folder of the networks and compiled models")
      ->capture_default_str();
  app.add_option("--tercet", options.run.tercet, "the program to time")
      ->check(CLI::ExistingFile)
      ->capture_default_str();
  app.add_option("--markdown", options.markdown, "also write the table to this file");
  app.add_option("--csv", options.csv, "also write the figures to this file");
  app.add_option("--json", options.json, "also write the figures to this file");
  return ParseAndRun(app, argc, argv, [&] {
    for (const auto& [option, file] : {std::pair{"--markdown", options.markdown},
                                       {"--csv", options.csv},
                                       {"--json", options.json}})
      if (!file.empty()) tercet::CheckWritable(file, option);
    if (options.round_trips.empty()) {
      MeasureTable(options);
    } else if (options.round_trips.size() == 1) {
      throw tercet::ConfigError("--slope", "at least two round trips are expected");
    } else {
      MeasureSlope(options);
    }
    return kExitOk;
  });
}

}  // namespace

int main(int argc, char** argv) {
  return GuardedMain("tercet_queries", [&] { return Main(argc, argv); });
}
