// SPDX-License-Identifier: Apache-2.0
#include "query_runs.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "programs/anonymous_file.h"
#include "programs/auto_suite.h"
#include "programs/options.h"
#include "programs/output.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/nn/integer_network.h"

namespace tercet::benchmarks {
namespace {

using nlohmann::json;

// Runs a program without a shell, which inherits `fd`; false when it did not exit with 0.
bool RunProgram(const std::vector<std::string>& words, int fd) {
  programs::FlushOutput();  // else the child would print what is buffered once more
  const pid_t child = fork();
  if (child == 0) {
    ::fcntl(fd, F_SETFD, 0);
    if (std::freopen("/dev/null", "w", stdout) == nullptr) _exit(127);
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(127);
    std::vector<char*> arguments;
    for (const auto& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  int status = 0;
  return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
         WEXITSTATUS(status) == 0;
}

std::string Text(const Setting& setting) {
  return fmt::format("{}, {}, link {}, batch {}", setting.network, setting.suite, setting.link,
                     setting.batch);
}

// What `tercet run` reports.
json RunOnce(const RunOptions& options, const Setting& setting, std::size_t images) {
  const programs::AnonymousFile report_file;
  const auto net = options.nets_dir + "/" + setting.network;
  const bool done = RunProgram({options.tercet,
                                "run",
                                net + ".json",
                                "--model",
                                net + ".compiled.safetensors",
                                "--images",
                                options.images,
                                "--labels",
                                options.labels,
                                "--limit",
                                std::to_string(images),
                                "--batch",
                                std::to_string(setting.batch),
                                "--suite",
                                setting.suite,
                                "--link",
                                setting.link,
                                "--transport",
                                options.transport,
                                "--json",
                                report_file.Path()},
                               report_file.Fd());
  json report;
  if (done) std::ifstream(report_file.Path()) >> report;
  if (!done) throw std::runtime_error("tercet run failed for " + Text(setting));
  if (report.at("matches_plain") != true)
    throw std::runtime_error(Text(setting) + ": a logit differs from the plain network's");
  return report;
}

}  // namespace

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return {values.front(), n % 2 != 0 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2,
          values.back()};
}

Row Measure(const RunOptions& options, const Setting& setting) {
  // One query a batch; a few queries a run, so that the first one's cold caches do not stand for
  // all.
  const std::size_t images = setting.batch * (setting.batch == 1 ? options.queries : 2);
  std::vector<double> offline, online, total, memory;
  json last;
  for (std::size_t i = 0; i <= options.repetitions; ++i) {  // the first is a warm-up
    last = RunOnce(options, setting, images);
    if (i == 0) continue;
    const double per = 1000.0 / static_cast<double>(images);
    offline.push_back(last.at("time").at("offline_s").get<double>() * per);
    online.push_back(last.at("time").at("online_s").get<double>() * per);
    total.push_back(offline.back() + online.back());
    memory.push_back(
        *std::max_element(last.at("peak_memory_mb").begin(), last.at("peak_memory_mb").end()));
  }
  const auto kilobytes = [&](const char* phase) {
    double sum = 0;
    for (const auto& bytes : last.at("bytes").at(phase)) sum += bytes.get<double>();
    return sum / static_cast<double>(images) / 1000;
  };
  Row row;
  row.setting = setting;
  row.hops = last.at("hops").at("online").get<std::uint32_t>();
  row.offline_kb = kilobytes("offline");
  row.online_kb = kilobytes("online");
  row.offline_ms = SpreadOf(offline);
  row.online_ms = SpreadOf(online);
  row.total_ms = SpreadOf(total);
  row.peak_memory_mb = SpreadOf(memory).most;
  row.kernels = last.value("kernels", "");
  row.machine = last.value("machine", "");
  return row;
}

PredictedMilliseconds PredictTime(const RunOptions& options, const Setting& setting,
                                  const PredictedMilliseconds& unshaped) {
  const auto registry = BuiltinProtocols();
  const auto suite = programs::ParseSuite(setting.suite, registry);
  const auto link = net::ParseLinkProfile(setting.link);
  const auto net = options.nets_dir + "/" + setting.network;
  auto network =
      compile::LoadCompiled(net + ".compiled.safetensors", nn::LoadNetwork(net + ".json")).net;
  programs::ResolveAuto(network, registry, suite, link, infer::Objective::kOnline, {},
                        setting.batch);
  const auto plan = infer::MakePlan(network, registry, suite, {}, setting.batch);
  const double per = 1e-6 / static_cast<double>(setting.batch);
  const auto time =
      infer::LinkTime(plan.Total(), link,
                      {std::llround(unshaped.offline / per), std::llround(unshaped.online / per)});
  return {static_cast<double>(time.offline_ns) * per, static_cast<double>(time.online_ns) * per};
}

void Predict(const RunOptions& options, std::vector<Row>& rows) {
  for (auto& row : rows) {
    if (row.setting.link == "none") continue;
    const auto unshaped = std::find_if(rows.begin(), rows.end(), [&](const Row& other) {
      return other.setting.link == "none" && other.setting.network == row.setting.network &&
             other.setting.suite == row.setting.suite && other.setting.batch == row.setting.batch;
    });
    if (unshaped == rows.end()) continue;
    const auto predicted = PredictTime(options, row.setting,
                                       {unshaped->offline_ms.median, unshaped->online_ms.median});
    row.predicted_offline_ms = predicted.offline;
    row.predicted_online_ms = predicted.online;
  }
}

}  // namespace tercet::benchmarks
