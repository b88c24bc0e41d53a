// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <exception>
#include <functional>
#include <string>
#include <string_view>

namespace tercet::programs {

/// How a program ends.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;  ///< the run failed: network, protocol, a wrong result
inline constexpr int kExitUsage = 2;   ///< usage or bad input
inline constexpr int kExitReaderLeft = 128 + 13;  ///< all done, but stdout's reader left (SIGPIPE)

/// Why a party stopped, as text that can cross a pipe. Ordered by how likely it is to be the cause
/// rather than a consequence: a party's own error, then trouble with a peer, then a peer's word
/// that it stopped.
enum class FailureKind : std::uint8_t { kInput, kOwn, kNetwork, kAbort };

struct Failure {
  FailureKind kind = FailureKind::kOwn;
  std::string text;
};

const char* FailureKindName(FailureKind kind);
/// kOwn for an unknown name.
FailureKind FailureKindFromName(std::string_view name);

/// The kind and text of an exception of tercet/base/error.h or any other.
Failure Classify(const std::exception& error);
int ExitCode(FailureKind kind);
/// Whether a party that failed like this may merely have seen another one fail.
bool MayBeConsequence(FailureKind kind);
/// Throws the failure again as an exception that Classify gives the same kind; `who` is put before
/// the text.
[[noreturn]] void ThrowFailure(const Failure& failure, const std::string& who);

/// Prepares the process (process.h) and runs `body`; an exception becomes one line
/// "PROGRAM: error: TEXT" on stderr and its exit code. So does output that stdout did not take,
/// except that a reader who left is no reason for words.
int GuardedMain(const char* program, const std::function<int()>& body) noexcept;

}  // namespace tercet::programs
