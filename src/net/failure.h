// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tercet::net {

/// Why a link no longer works. Kept as text, so that every thread that meets it throws an exception
/// of its own.
struct Failure {
  enum class Kind { kNone, kNetwork, kAbort, kOther };
  Kind kind = Kind::kNone;
  std::string text;
  bool is_goodbye = false;    ///< the peer was done, as far as it knows: no reason to stop others
  bool is_dismissal = false;  ///< the peer has met a newer process of this party instead

  explicit operator bool() const { return kind != Kind::kNone; }
  /// Throws NetworkError, AbortError or (kOther) InternalError.
  [[noreturn]] void Throw() const;
  /// The exception that is being handled.
  static Failure Current();
};

/// Text from a peer made fit for a message: at most `limit` bytes, everything but printable ASCII
/// replaced.
std::string CleanText(std::string_view text, std::size_t limit);

}  // namespace tercet::net
