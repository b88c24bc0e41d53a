// SPDX-License-Identifier: Apache-2.0
#include "programs/failure.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "programs/output.h"
#include "programs/process.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"

namespace tercet::programs {
namespace {

constexpr std::array<std::pair<FailureKind, const char*>, 4> kNames{
    {{FailureKind::kInput, "input"},
     {FailureKind::kOwn, "own"},
     {FailureKind::kNetwork, "network"},
     {FailureKind::kAbort, "abort"}}};

}  // namespace

const char* FailureKindName(FailureKind kind) {
  for (const auto& [each, name] : kNames)
    if (each == kind) return name;
  return "own";
}

FailureKind FailureKindFromName(std::string_view name) {
  for (const auto& [kind, each] : kNames)
    if (each == name) return kind;
  return FailureKind::kOwn;
}

Failure Classify(const std::exception& error) {
  auto kind = FailureKind::kOwn;
  if (dynamic_cast<const AbortError*>(&error) != nullptr) {
    kind = FailureKind::kAbort;
  } else if (dynamic_cast<const NetworkError*>(&error) != nullptr) {
    kind = FailureKind::kNetwork;
  } else if (dynamic_cast<const ConfigError*>(&error) != nullptr ||
             dynamic_cast<const UnsupportedError*>(&error) != nullptr) {
    kind = FailureKind::kInput;
  }
  return {kind, ErrorText(error)};
}

int ExitCode(FailureKind kind) { return kind == FailureKind::kInput ? kExitUsage : kExitFailed; }

bool MayBeConsequence(FailureKind kind) {
  return kind == FailureKind::kNetwork || kind == FailureKind::kAbort;
}

void ThrowFailure(const Failure& failure, const std::string& who) {
  const std::string text = fmt::format("{}: {}", who, failure.text);
  switch (failure.kind) {
    case FailureKind::kInput:
      throw ConfigError(who, failure.text);
    case FailureKind::kNetwork:
      throw NetworkError(text);
    case FailureKind::kAbort:
      throw AbortError(text);
    default:
      throw Error(text);
  }
}

int GuardedMain(const char* program, const std::function<int()>& body) noexcept {
#ifdef __GLIBC__
  // A query's buffers have the sizes of the query before it. Giving them back to the system in
  // between costs more, in page faults, than all cryptography.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
  NameProgram(program);
  const auto print = [](std::string text) {
    std::replace(text.begin(), text.end(), '\n', ' ');
    FlushOutput();
    PrintError(text);
  };
  int status = kExitFailed;
  try {
    PrepareProcess();
    status = body();
  } catch (const std::exception& e) {
    const Failure failure = Classify(e);
    print(failure.text);
    status = ExitCode(failure.kind);
  } catch (...) {
    print("unknown exception");
  }
  const int problem = FinishOutput();
  if (problem == 0 || status != kExitOk) return status;
  if (problem == EPIPE) return kExitReaderLeft;
  print("stdout: cannot be written: " + WriteProblem(problem));
  return kExitFailed;
}

}  // namespace tercet::programs
