// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

/// The one way in which Tercet writes files. A regular file, or one that is not there yet, appears
/// whole or not at all: the content goes to a temporary file in the same directory (one without a
/// name where the system has such, so that nothing stays when the process is killed) and takes the
/// place of the old one when it is on the disk. A symbolic link is followed and stays; what it
/// leads to is replaced. Anything else (a device, a FIFO, a descriptor of this process as in
/// /dev/stdout or /dev/fd/N) is written straight; for the reader of a FIFO it waits some seconds.
/// All functions are thread safe.
///
///   WriteFile("report.json", text, FileRights::kOwner);
namespace tercet {

/// Who may read a new file. One that is replaced keeps its rights where they are narrower.
enum class FileRights : std::uint8_t {
  kUsual,  ///< as the user's umask says
  kOwner   ///< mode 0600 from the start: keys, weights, and results of people's images
};

struct Output {
  std::filesystem::path file;
  std::string_view content;
  FileRights rights = FileRights::kUsual;
  bool replace = true;  ///< false: a file that exists is an error
};

/// Writes all of the files or, as far as the system allows, none of them: nothing takes its place
/// before everything is on the disk, and what was new is removed when a later one fails.
/// ConfigError when a file cannot be written at all (its directory is missing, it is a directory,
/// it may not be written or replaced), Error when writing fails (the disk is full, a limit is
/// reached, a reader goes away or never comes); both name the file and the system's reason.
void WriteFiles(std::span<const Output> outputs);
void WriteFile(const std::filesystem::path& file, std::string_view content,
               FileRights rights = FileRights::kUsual);

/// Throws ConfigError (place: `place`, such as an option) unless WriteFile would begin to write
/// `file`; for output that comes after a long run. Leaves the file and its directory as they are
/// and does not wait for the reader of a FIFO.
void CheckWritable(const std::filesystem::path& file, const std::string& place);

/// Makes `directory`, and those above it, where it is missing, with mode 0700 from the start;
/// whether it did. ConfigError when that fails, and when others than the owner may write to one
/// that is there: they could replace what is put into it.
bool MakePrivateDirectory(const std::filesystem::path& directory);

/// What the system says about an error number of a call that writes; for messages.
std::string WriteProblem(int error_number);

}  // namespace tercet
