// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace tercet::programs {

/// What the system calls the processor; "unknown processor" where it does not say.
std::string ProcessorName();
/// The processor and its threads, for reports.
std::string MachineText();

/// What figures are of, so that they can be told from others.
struct BuildIdentity {
  std::string version, commit, build;  ///< of Tercet; compiler and kind of build
  std::string machine;                 ///< MachineText
};

/// That of this program, here.
BuildIdentity OwnIdentity();

/// JSON text, and back: ConfigError (`place`) for what is none.
std::string ToJson(const BuildIdentity& identity);
BuildIdentity IdentityFromJson(const std::string& text, const std::string& place);

}  // namespace tercet::programs
