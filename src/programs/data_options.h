// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "tercet/files/data_options.h"

namespace tercet::programs {

/// The help of --images begins with it.
inline constexpr const char* kImageFormats =
    "IDX, .npy, PNG, PGM, PPM, a folder of pictures, CSV, CIFAR's .bin or bytes .u8, also .gz or "
    ".xz; - is standard input (docs/data.md)";

/// What of the options was given, and how to take it over from where they were parsed into.
using GivenDataOptions = std::vector<std::pair<
    CLI::Option*, std::function<void(files::DataOptions& to, const files::DataOptions& from)>>>;

/// --values, --layout, --transpose, --cifar100, --first-label, --label-column and --csv-header: of
/// all files of images and labels of a command.
GivenDataOptions AddDataOptions(CLI::App& app, files::DataOptions& options);
/// The words of a command line that give them, as far as they are not the defaults.
std::vector<std::string> DataWords(const files::DataOptions& options);

}  // namespace tercet::programs
