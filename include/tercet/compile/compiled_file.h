// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "tercet/nn/integer_network.h"

namespace tercet::compile {

/// A compiled model is a safetensors file: integer tensors "conv1.weight", "conv1.bias" (and
/// "conv1.shortcut") in the smallest signed type that holds them, and the model's Announcement as
/// JSON in the metadata ("tercet.network", "tercet.format" = "2"), with the ContentDigest of all of
/// it ("tercet.sha256"); "tercet.warnings" is an array of texts, if there are any. All else follows
/// from the architecture that it is loaded for. Loading compares the digest and proves the widths
/// again: ConfigError says that the file is damaged, and names the layer whose bound does not hold,
/// a missing tensor or a wrong shape, and what NetworkOf refuses.
void SaveCompiled(const nn::IntegerNetwork& network, const std::filesystem::path& file);
nn::IntegerNetwork LoadCompiled(const std::filesystem::path& file, const nn::NetworkSpec& spec);
/// The digest that SaveCompiled writes, in hex. Thread safe.
std::string CompiledDigest(const nn::IntegerNetwork& network);
/// Whether the file is a compiled model (has any of the metadata above) rather than float weights.
bool IsCompiled(const std::filesystem::path& file);

}  // namespace tercet::compile
