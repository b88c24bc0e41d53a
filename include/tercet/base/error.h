// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <exception>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

namespace tercet {

/// Base of every exception that the library throws on purpose. A message says what was expected,
/// what came and where; it never holds a secret value. Destructors do not throw.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A file or option of the user's is wrong. `place` names it: "nets/a.json /layers/3/kernel",
/// "model.safetensors tensor conv1.weight", "--batch".
class ConfigError : public Error {
 public:
  ConfigError(std::string place, const std::string& problem)
      : Error(fmt::format("{}: {}", place, problem)), place_(std::move(place)) {}
  const std::string& Place() const { return place_; }

 private:
  std::string place_;
};

/// A peer died, fell silent, was refused or could not be reached. The message names peer, phase,
/// layer.
class NetworkError : public Error {
 public:
  using Error::Error;
};

/// A peer stopped on purpose and said why. The message carries its party number and reason.
class AbortError : public NetworkError {
 public:
  using NetworkError::NetworkError;
};

/// A peer sent something that the protocol does not allow at this point (length, tag, digest).
class ProtocolError : public Error {
 public:
  using Error::Error;
};

/// A suite, layer or option combination that does not exist; the message lists what does.
class UnsupportedError : public Error {
 public:
  using Error::Error;
};

/// Broken precondition inside the library; stays on in Release.
class InternalError : public Error {
 public:
  using Error::Error;
};

/// What to tell of any exception. std::bad_alloc itself says nothing to a reader.
inline std::string ErrorText(const std::exception& error) {
  return dynamic_cast<const std::bad_alloc*>(&error) != nullptr ? "out of memory" : error.what();
}

}  // namespace tercet

#ifndef __FILE_NAME__  // GCC before 12 has no short form
#define __FILE_NAME__ __FILE__
#endif

/// Checks a precondition in every build type: TERCET_CHECK(a == b, "got {}, expected {}", a, b).
#define TERCET_CHECK(condition, ...)                                                    \
  do {                                                                                  \
    if (!(condition)) [[unlikely]]                                                      \
      throw ::tercet::InternalError(::fmt::format("{}:{}: ", __FILE_NAME__, __LINE__) + \
                                    ::fmt::format(__VA_ARGS__));                        \
  } while (false)
