// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>

#include "tercet/files/data_options.h"

namespace tercet::files {

/// How configuration files and command lines write the settings that have names.
NLOHMANN_JSON_SERIALIZE_ENUM(Values, {{Values::kAuto, "auto"},
                                      {Values::kPixels, "pixels"},
                                      {Values::kScaled, "scaled"},
                                      {Values::kNormalised, "normalised"}})
NLOHMANN_JSON_SERIALIZE_ENUM(Layout, {{Layout::kNchw, "nchw"}, {Layout::kNhwc, "nhwc"}})
NLOHMANN_JSON_SERIALIZE_ENUM(CifarKind, {{CifarKind::kCifar10, nullptr},
                                         {CifarKind::kCifar100Fine, "fine"},
                                         {CifarKind::kCifar100Coarse, "coarse"}})

/// The keys values, layout, transpose, cifar100, first_label, label_column and csv_header of an
/// object that has been checked by a schema; what is missing stays as it is.
void ReadDataOptions(const nlohmann::json& object, DataOptions& options);
/// The same keys, of what is not the default. Scale, mean and std are the network's.
nlohmann::ordered_json DescribeDataOptions(const DataOptions& options);

}  // namespace tercet::files
