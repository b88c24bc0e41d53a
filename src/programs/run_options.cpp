// SPDX-License-Identifier: Apache-2.0
#include "programs/run_options.h"

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "programs/auto_suite.h"
#include "tercet/base/error.h"
#include "tercet/infer/material.h"
#include "tercet/infer/run_cost.h"

namespace nlohmann {

// A path is bytes, which need not be UTF-8: each becomes the character of its number.
template <>
struct adl_serializer<std::filesystem::path> {
  static void to_json(json& value, const std::filesystem::path& path) {
    std::string text;
    for (const char c : path.string()) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte < 0x80) {
        text += c;
      } else {
        text += static_cast<char>(0xc0 | byte >> 6);
        text += static_cast<char>(0x80 | (byte & 0x3f));
      }
    }
    value = text;
  }
  static void from_json(const json& value, std::filesystem::path& path) {
    const auto text = value.get<std::string>();
    std::string bytes;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if (byte < 0x80 || i + 1 == text.size()) {
        bytes += text[i];
      } else {
        bytes += static_cast<char>(byte << 6 | (static_cast<unsigned char>(text[++i]) & 0x3f));
      }
    }
    path = bytes;
  }
};

}  // namespace nlohmann

namespace tercet::programs {
namespace {

constexpr const char* kGroup = "Offline and online";

}  // namespace

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ModelSource, file, calibration_images, calibration_labels,
                                   accept_loss)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RunOptions, network, images, labels, model, suite, linear,
                                   optimise, link, batch, limit, suite_given, batch_given, ahead,
                                   in_flight, queries, helper_leaves, rotate_helper, material,
                                   material_out, material_moved)

infer::Schedule RunOptions::Schedule(infer::MaterialFile* file) const {
  if (UsesMaterial()) return infer::UseMaterial{file, ahead};
  if (MakesMaterial()) return infer::MakeMaterial{material_out, queries};
  if (helper_leaves) return infer::HelperLeaves{};
  if (rotate_helper) return infer::HelperRotates{};
  if (ahead > 0) return infer::Ahead{ahead};
  return infer::InTurn{};
}

infer::SessionSettings RunOptions::Settings(int id, const nn::NetworkSpec& spec,
                                            const mpc::SuiteChoice& choice, const mpc::Roles& roles,
                                            infer::MaterialFile* file) const {
  infer::SessionSettings settings;
  settings.id = id;
  settings.spec = spec;
  settings.suite = choice;
  settings.linear = LinearProtocol(linear);
  settings.roles = roles;
  settings.batch = batch;
  settings.link = ParseLink(link);
  settings.schedule = Schedule(file);
  settings.in_flight = in_flight;
  return settings;
}

std::optional<std::string> RunSettings::CheckMemory(const infer::Plan& plan,
                                                    const mpc::Registry& registry,
                                                    const mpc::SuiteChoice& choice,
                                                    std::size_t image_count) const {
  const auto schedule = Schedule();
  const std::size_t all_queries = MakesMaterial() ? queries : plan.Queries(image_count);
  const std::size_t held = infer::QueriesHeld(schedule, all_queries, in_flight);
  infer::MemoryNeed all;
  for (const auto& need :
       infer::RunMemory(infer::PlansOf(plan, registry, choice, plan.batch, schedule), held,
                        image_count, infer::Runners(in_flight, all_queries)))
    all += need;
  return infer::CheckMemory(all, plan.batch, held);
}

std::string ToJson(const RunOptions& options) { return nlohmann::json(options).dump(2) + "\n"; }

RunOptions RunOptionsFromJson(const std::string& text, const std::string& place) {
  try {
    return ReadJson(text, place, JsonLimits::UpTo(text.size())).get<RunOptions>();
  } catch (const nlohmann::json::exception& e) {
    throw ConfigError(place, fmt::format("no options of a run: {}", e.what()));
  }
}

CLI::Option* AddSchedule(CLI::App& app, RunOptions& options, const std::string& out_help,
                         const std::string& use_help) {
  auto* ahead = AddNumber(app, "--ahead", options.ahead, 0, kMaxQueries,
                          "Queries whose material is made while another one runs; 0: offline and "
                          "online in turn, timed apart")
                    ->group(kGroup);
  AddNumber(
      app, "--in-flight", options.in_flight, 1, infer::kMaxInFlight,
      "Queries under way at once, one a step behind the other: while one waits for the network "
      "the next computes")
      ->group(kGroup);
  auto* leaves =
      app.add_flag("--helper-leaves", options.helper_leaves,
                   "Make all material as fast as it goes; the helper leaves when it is delivered")
          ->excludes(ahead)
          ->group(kGroup);
  auto* rotates =
      app.add_flag("--rotate-helper", options.rotate_helper,
                   "Split each batch into three, one for each party as the helper, so that all "
                   "carry equal load; offline and online in turn")
          ->excludes(ahead)
          ->excludes(leaves)
          ->group(kGroup);
  auto* queries = AddNumber(app, "--queries", options.queries, 1, kMaxQueries,
                            "How many queries to make material for")
                      ->group(kGroup);
  auto* out = app.add_option("--material-out", options.material_out, out_help)
                  ->excludes(leaves)
                  ->excludes(rotates)
                  ->group(kGroup);
  queries->needs(out);
  auto* use = app.add_option("--material", options.material, use_help)
                  ->excludes(out)
                  ->excludes(leaves)
                  ->excludes(rotates)
                  ->group(kGroup);
  app.add_flag("--material-moved", options.material_moved,
               "The material was moved here and is bound to here from now on. Only where no copy "
               "of it has been used or will be: the other evaluator learns the difference of two "
               "inputs that were masked by the same query")
      ->needs(use)
      ->group(kGroup);
  return out;
}

void AddRunSettings(CLI::App& app, RunSettings& settings) {
  AddBatchAndSuite(app, settings, "Images a query",
                   "Protocols of the non-linear layers (see tercet suites); auto chooses for the "
                   "link");
  AddObjective(app, settings.optimise);
  OfferLinks(app.add_option("--link", settings.link, "Delay what is sent")->capture_default_str());
  app.add_option("--transport", settings.transport, "tls, tcp-insecure, or memory (three threads)")
      ->check(CLI::IsMember({"tls", "tcp-insecure", "memory"}))
      ->capture_default_str();
  AddReal(app, "--timeout", settings.timeout_s, 0.1, 3600, "Seconds that a party may be silent");
  AddReal(app, "--stall-timeout", settings.stall_timeout_s, 0.1, 86400,
          "Seconds that a party may send no data that another one waits for, signs of life or not; "
          "at least the silence");
  app.add_flag("--no-check", settings.no_check, "Do not compare with the plain integer network");
  settings.roles.AddTo(app);
}

void AddBatchAndSuite(CLI::App& app, RunOptions& options, const std::string& batch_help,
                      const std::string& suite_help) {
  auto* batch = AddNumber(app, "--batch", options.batch, 1, kMaxBatch, batch_help);
  auto* suite =
      OfferSuites(app.add_option("--suite", options.suite, suite_help)->capture_default_str());
  AddLinear(app, options.linear);
  app.parse_complete_callback([&options, batch, suite] {
    options.batch_given |= batch->count() > 0;
    options.suite_given |= suite->count() > 0;
  });
}

}  // namespace tercet::programs
