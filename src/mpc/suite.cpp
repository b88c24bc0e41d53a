// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/suite.h"

#include <algorithm>

#include "mpc/tournament.h"

namespace tercet::mpc {

std::string SuiteChoice::Text() const {
  std::string text = name;
  char separator = ':';
  for (const auto& [key, value] : options) {
    text += fmt::format("{}{}={}", separator, key, value);
    separator = ',';
  }
  return text;
}

SuiteChoice ParseSuiteChoice(std::string_view text, const std::string& place) {
  SuiteChoice choice;
  const auto colon = text.find(':');
  choice.name = text.substr(0, colon);
  if (choice.name.empty())
    throw ConfigError(place, "a suite's name is expected, for example \"lut\" or \"lut:chunks=3\"");
  if (colon == std::string_view::npos) return choice;
  for (auto rest = text.substr(colon + 1);;) {
    const auto comma = rest.find(',');
    const auto item = rest.substr(0, comma);
    const auto equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0 || equals + 1 == item.size())
      throw ConfigError(
          place, fmt::format("\"{}\" in \"{}\" is not of the form option=value", item, text));
    if (!choice.options.emplace(item.substr(0, equals), item.substr(equals + 1)).second)
      throw ConfigError(
          place, fmt::format("option \"{}\" stands twice in \"{}\"", item.substr(0, equals), text));
    if (comma == std::string_view::npos) return choice;
    rest = rest.substr(comma + 1);
  }
}

UnsupportedError Refusal(const ActivationSpec& spec, const std::string& suite,
                         const std::string& problem) {
  return UnsupportedError(fmt::format("layer {}: suite {} {}", spec.layer, suite, problem));
}

namespace {

/// Whether windows can stand on a map, each with a member inside it.
bool Fits(const PoolShape& pool, const Shape3& in) {
  const auto fits = [](std::size_t kernel, std::size_t stride, std::size_t before,
                       std::size_t after, std::size_t size) {
    return kernel >= 1 && stride >= 1 && before < kernel && after < kernel &&
           kernel <= before + size + after;
  };
  const Sides& padding = pool.padding;
  return fits(pool.kernel.h, pool.stride.h, padding.top, padding.bottom, in.height) &&
         fits(pool.kernel.w, pool.stride.w, padding.left, padding.right, in.width);
}

}  // namespace

bool IsTournament(const ActivationSpec& spec) {
  return spec.kind == ActivationKind::kRelu && spec.pool.has_value();
}

unsigned Suite::NeededBits(const ActivationSpec& spec) const {
  return spec.value_bits + (IsTournament(spec) ? 1 : 0) + info_.spare_bits;
}

unsigned Suite::RingBits(const ActivationSpec& spec) const {
  const unsigned needed = NeededBits(spec);
  if (info_.rings.empty() && needed <= ring::kMaxBits) return needed;
  const auto ring = std::find_if(info_.rings.begin(), info_.rings.end(),
                                 [&](unsigned bits) { return bits >= needed; });
  if (ring == info_.rings.end())
    throw Refusal(spec, info_.name,
                  fmt::format("has no ring for values of {} bits, which needs {} bits; at most {} "
                              "bits are supported",
                              spec.value_bits, needed,
                              info_.rings.empty() ? ring::kMaxBits : info_.rings.back()));
  return *ring;
}

OptionValues Suite::Options(const SuiteChoice& choice) const {
  OptionValues values;
  for (const auto& option : info_.options) values[option.name] = option.values.front();
  for (const auto& [name, value] : choice.options) {
    const auto option =
        std::find_if(info_.options.begin(), info_.options.end(),
                     [&name = name](const SuiteOption& known) { return known.name == name; });
    const std::string place = "suite " + choice.Text();
    if (info_.options.empty())
      throw ConfigError(place, fmt::format("{} has no options", info_.name));
    if (option == info_.options.end()) {
      std::vector<std::string> names;
      for (const auto& known : info_.options) names.push_back(known.name);
      throw ConfigError(
          place, fmt::format("{}={} found; options are {}", name, value, fmt::join(names, ", ")));
    }
    if (std::find(option->values.begin(), option->values.end(), value) == option->values.end())
      throw ConfigError(place, fmt::format("{}={} found, one of {} expected", name, value,
                                           fmt::join(option->values, ", ")));
    values[name] = value;
  }
  return values;
}

SuiteChoice Suite::Choice(const SuiteVariant& variant) const {
  if (variant.options.empty()) return {info_.name, {}};
  return ParseSuiteChoice(info_.name + ":" + variant.options, "suite " + info_.name);
}

ActivationPlan Suite::Plan(const ActivationSpec& spec, const SuiteChoice& choice,
                           const Roles& roles) const {
  const OptionValues options = Options(choice);
  if (spec.value_bits < 1 || spec.ring_bits > ring::kMaxBits || spec.ring_bits < NeededBits(spec))
    throw Refusal(spec, info_.name,
                  fmt::format("needs values of 1 bit or more in a ring of value width + {} to {} "
                              "bits, got value width {} and ring {}",
                              NeededBits(spec) - spec.value_bits, ring::kMaxBits, spec.value_bits,
                              spec.ring_bits));
  if (spec.out_bits < 1 || spec.out_bits > ring::kMaxBits)
    throw Refusal(
        spec, info_.name,
        fmt::format("needs an output ring of 1 to {} bits, got {}", ring::kMaxBits, spec.out_bits));
  if (spec.pool && !Fits(*spec.pool, spec.in))
    throw UnsupportedError(
        fmt::format("layer {}: cannot pool {} windows with stride {} over maps of {} x {}; the "
                    "window must fit, padding be less than it, and the stride be at least 1",
                    spec.layer, PerAxisText(spec.pool->kernel),
                    spec.pool->stride.h == spec.pool->stride.w ? std::to_string(spec.pool->stride.h)
                                                               : PerAxisText(spec.pool->stride),
                    spec.in.height, spec.in.width));
  const auto plan = [&](const ActivationSpec& stage) { return plan_(stage, options, roles); };
  ActivationPlan planned =
      IsTournament(spec) ? PlanTournament(spec, info_.dealt_output, roles, plan) : plan(spec);
  TERCET_CHECK(!info_.exact || planned.tolerance == 0,
               "suite {}, which is exact, states a tolerance of {}", info_.name, planned.tolerance);
  return planned;
}

}  // namespace tercet::mpc
