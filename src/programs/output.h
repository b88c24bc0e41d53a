// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

/// What the programs print. None of these throws because of stdout or stderr: a run must not end
/// because nobody reads what it says. Thread safe.
namespace tercet::programs {

/// On stdout. What cannot be written is remembered for FinishOutput.
void PrintText(std::string_view text);
template <class... T>
void Print(fmt::format_string<T...> format, T&&... arguments) {
  PrintText(fmt::format(format, std::forward<T>(arguments)...));
}
/// Hands what was printed so far to the system, before something that takes long.
void FlushOutput();
/// A line that is seen at once.
void Say(const std::string& line);

/// Hands everything to the system at the end of a program. Returns 0, or the error number of the
/// first write to stdout that failed.
int FinishOutput() noexcept;

/// The program that prints: every line on stderr but those of progress begins with it. GuardedMain
/// says it; `name` must stay.
void NameProgram(const char* name) noexcept;
/// "PROGRAM: TEXT".
std::string Named(std::string_view text);
/// A line "PROGRAM: error: TEXT" or "PROGRAM: WARNING: TEXT" on stderr, whatever it takes.
void PrintError(std::string_view text);
void PrintWarning(std::string_view text);
/// Text on stderr that may as well be lost: how far something is. Never waits for its reader.
void PrintProgress(std::string_view text) noexcept;

}  // namespace tercet::programs
