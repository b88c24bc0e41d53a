#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

// Whole queries as a user runs them: `tercet run` with three processes, repeated, and for each
// setting the median and the spread (least to most) of the times that the run reports. Bytes and
// hops are the same in every repetition.
namespace {

using nlohmann::json;

struct Options {
  std::string tercet, images, labels, nets_dir, json_out;
  std::vector<std::string> networks{"mnistnet1", "mnistnet2", "mnistnet3"};
  std::vector<std::string> suites{"lut"};
  std::vector<std::string> links{"none"};
  std::vector<std::size_t> batches{1, 128};
  std::size_t repetitions = 7, queries = 10;
  std::string transport = "tls";
};

struct Spread {
  double least, median, most;
};

Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return {values.front(), n % 2 != 0 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2,
          values.back()};
}

json ToJson(const Spread& s) { return {{"min", s.least}, {"median", s.median}, {"max", s.most}}; }

// Runs a program without a shell; false when it did not exit with 0.
bool RunProgram(const std::vector<std::string>& words) {
  std::fflush(stdout);  // else the child would print what is buffered once more
  const pid_t child = fork();
  if (child == 0) {
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

json Measure(const Options& options, const std::string& network, const std::string& suite,
             const std::string& link, std::size_t batch) {
  // One query a batch; a few queries a run, so that the first one's cold caches do not stand for
  // all.
  const std::size_t images = batch * (batch == 1 ? options.queries : 2);
  const auto report_file =
      std::filesystem::temp_directory_path() / fmt::format("tercet-queries-{}.json", getpid());
  std::vector<double> offline, online, total, memory;
  json last;
  for (std::size_t i = 0; i <= options.repetitions; ++i) {  // the first is a warm-up
    const auto net = options.nets_dir + "/" + network;
    if (!RunProgram({options.tercet,
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
                     std::to_string(batch),
                     "--suite",
                     suite,
                     "--link",
                     link,
                     "--transport",
                     options.transport,
                     "--json",
                     report_file.string()})) {
      std::filesystem::remove(report_file);
      throw std::runtime_error(
          fmt::format("tercet run failed for {}, {}, {}, batch {}", network, suite, link, batch));
    }
    std::ifstream(report_file) >> last;
    std::filesystem::remove(report_file);
    if (last.at("matches_plain") != true)
      throw std::runtime_error(network + ": a logit differs from the plain network");
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
  return {{"network", network},
          {"suite", suite},
          {"link", link},
          {"batch", batch},
          {"images", images},
          {"hops", last.at("hops").at("online")},
          {"offline_kb", kilobytes("offline")},
          {"online_kb", kilobytes("online")},
          {"offline_ms", ToJson(SpreadOf(offline))},
          {"online_ms", ToJson(SpreadOf(online))},
          {"total_ms", ToJson(SpreadOf(total))},
          {"peak_memory_mb", SpreadOf(memory).most},
          {"kernels", last.value("kernels", "")},
          {"machine", last.value("machine", "")}};
}

std::string Cell(const json& s) {
  return fmt::format("{:.3f} ({:.3f}-{:.3f})", s.at("median").get<double>(),
                     s.at("min").get<double>(), s.at("max").get<double>());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  options.tercet = TERCET_BIN_DIR "/tercet";
  options.nets_dir = TERCET_SOURCE_DIR "/nets";
  CLI::App app{
      "Times whole queries with three processes on this machine. Prints a Markdown table: "
      "milliseconds and kilobytes per image,\n"
      "median (least-most) over the repetitions, offline and online apart, at the slowest party."};
  app.add_option("--images", options.images, "images, IDX")->required()->check(CLI::ExistingFile);
  app.add_option("--labels", options.labels, "labels, IDX")->required()->check(CLI::ExistingFile);
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
  app.add_option("--repetitions", options.repetitions, "counted runs of each setting")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--queries", options.queries, "queries in a run of batch 1")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_option("--transport", options.transport, "as tercet run")->capture_default_str();
  app.add_option("--nets", options.nets_dir, "folder of the networks and compiled models")
      ->capture_default_str();
  app.add_option("--tercet", options.tercet, "the program to time")
      ->check(CLI::ExistingFile)
      ->capture_default_str();
  app.add_option("--json", options.json_out, "also write the figures to this file");
  CLI11_PARSE(app, argc, argv);
  try {
    json rows = json::array();
    fmt::print(
        "| network | suite | link | batch | hops | offline kB | online kB | offline ms | online ms "
        "| total ms | peak MB |\n");
    fmt::print("|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (const auto& network : options.networks)
      for (const auto& suite : options.suites)
        for (const auto& link : options.links)
          for (const auto batch : options.batches) {
            rows.push_back(Measure(options, network, suite, link, batch));
            const auto& row = rows.back();
            fmt::print("| {} | {} | {} | {} | {} | {:.1f} | {:.1f} | {} | {} | {} | {:.0f} |\n",
                       network, suite, link, batch, row["hops"].get<int>(),
                       row["offline_kb"].get<double>(), row["online_kb"].get<double>(),
                       Cell(row["offline_ms"]), Cell(row["online_ms"]), Cell(row["total_ms"]),
                       row["peak_memory_mb"].get<double>());
            std::fflush(stdout);
          }
    fmt::print(
        "\nPer image. {} counted runs of each setting after a warm-up; median (least-most). {}, "
        "kernels {}, {}, transport {}.\n",
        options.repetitions, rows.front()["machine"].get<std::string>(),
        rows.front()["kernels"].get<std::string>(), TERCET_BUILD, options.transport);
    if (!options.json_out.empty()) {
      std::ofstream out(options.json_out);
      out << rows.dump(1) << '\n';
      if (!out.flush()) throw std::runtime_error(options.json_out + ": cannot be written");
    }
  } catch (const std::exception& e) {
    fmt::print(stderr, "tercet_queries: error: {}\n", e.what());
    return 1;
  }
  return 0;
}
