// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "base/clock.h"
#include "programs/certificate_text.h"

namespace tercet::programs {
namespace {

constexpr std::size_t kGroupDigits = 4;

// The digits of a fingerprint in groups, to be read to somebody.
std::string Grouped(const crypto::Fingerprint& fingerprint) {
  const std::string text = fingerprint.Text();
  std::string grouped;
  for (std::size_t at = text.find(':') + 1; at < text.size(); at += kGroupDigits) {
    if (!grouped.empty()) grouped += ' ';
    grouped.append(text, at, kGroupDigits);
  }
  return grouped;
}

}  // namespace

std::string Describe(const crypto::Certificate& certificate) {
  const auto now = Now();
  std::string state;
  if (now > certificate.not_after) {
    state = "EXPIRED";
  } else if (now < certificate.not_before) {
    state = "NOT YET VALID";
  } else {
    state = fmt::format(
        "{} days left",
        std::chrono::duration_cast<std::chrono::days>(certificate.not_after - now).count());
  }
  return fmt::format(
      "  name         {} ({})\n"
      "  valid        {} to {}: {}\n"
      "  signed by    {}\n"
      "  fingerprint  {}\n"
      "  to read out  {}\n",
      certificate.name,
      certificate.party ? fmt::format("party {}", *certificate.party) : "no party's",
      crypto::DateText(certificate.not_before), crypto::DateText(certificate.not_after), state,
      certificate.self_signed ? "itself; peers know it by its fingerprint" : certificate.issuer,
      certificate.fingerprint.Text(), Grouped(certificate.fingerprint));
}

}  // namespace tercet::programs
