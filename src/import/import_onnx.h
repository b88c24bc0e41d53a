// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "tercet/files/tensor_file.h"
#include "tercet/nn/network.h"

/// Networks that other programs wrote. This header needs none of ONNX's.
namespace tercet::importer {

struct ImportOptions {
  std::string name;  ///< of the network; empty: made of the file's name
  /// How bytes become the model's input. An empty shape is taken from the model; a model whose
  /// input is [N, features] or has sides of no fixed size may need one.
  nn::InputSpec input;
  /// Layers of which the weights are latent: 1 where they are 0 or more and -1 where they are less.
  std::set<std::string> binarise;
};

struct ImportedNetwork {
  std::string architecture;        ///< JSON, as nets/network.schema.json describes it
  files::TensorFile weights;       ///< as nn::FloatNetwork takes them for it
  std::vector<std::string> notes;  ///< what the user should know, a line each
};

/// Reads an ONNX model (operator set 6 or newer, one input and one output) whose graph is a chain
/// of layers, with shortcuts into sums and convolutions; docs/importing.md has the table of
/// operators. What depends on constants alone is computed; weights may be in other files of the
/// model's folder.
///
/// Layers are called as their nodes where these names are unique. What comes back has passed
/// nn::ParseNetwork and nn::FloatNetwork. ConfigError for everything that a network cannot say:
/// place "FILE node OPERATOR 'NAME'", "FILE tensor NAME", "FILE input NAME" or "FILE". Thread safe.
ImportedNetwork ImportOnnx(const std::filesystem::path& file, const ImportOptions& options);
/// The same from memory; `file` stands for the file in messages and for an empty name.
ImportedNetwork ParseOnnx(const std::vector<std::uint8_t>& bytes, const std::filesystem::path& file,
                          const ImportOptions& options);

}  // namespace tercet::importer
