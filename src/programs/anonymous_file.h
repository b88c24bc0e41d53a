// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "programs/owned_fd.h"

namespace tercet::programs {

/// A file without a name in any directory, mode 0600, in memory where the system has such: for keys
/// and whatever else must not outlive the processes that know it, however they end. A child reads
/// it under the same path when it inherits the descriptor, which is close-on-exec otherwise.
class AnonymousFile {
 public:
  /// Throws Error when there is no room.
  explicit AnonymousFile(std::string_view content = {});
  int Fd() const { return fd_.Get(); }
  /// "/proc/self/fd/N". What is written there (tercet/base/file_writer.h) goes to the file's end.
  std::string Path() const;
  /// The last of what a child has written into it, at most 64 KiB.
  std::string End() const;

 private:
  OwnedFd fd_;
};

}  // namespace tercet::programs
