// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tercet/files/images.h"

namespace tercet::programs {

/// The first `count` images as small pictures of text, side by side, with the label (where there is
/// one) and the predicted class under each. Channels are averaged.
std::string DrawPictures(const files::Images& images, std::size_t count,
                         const std::vector<std::uint8_t>& labels,
                         const std::vector<std::uint8_t>& predictions, bool utf8);

}  // namespace tercet::programs
