// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "programs/data_options.h"
#include "tercet/compile/compile.h"
#include "tercet/files/images.h"
#include "tercet/nn/integer_network.h"
#include "tercet/nn/network.h"
#include "tercet/nn/run_plain.h"

/// The programs' own input: models, images, and stand-ins for either.
namespace tercet::programs {

inline constexpr unsigned kDefaultBits = 14;

struct ModelSource {
  std::filesystem::path file;  ///< compiled model or float weights, or "random[:SEED]"
  std::filesystem::path calibration_images,
      calibration_labels;    ///< for float weights; labels only with images
  bool accept_loss = false;  ///< compile::CompileOptions
  files::DataOptions data;   ///< of the images and labels
};

/// The seed of a model "random" (0) or "random:SEED"; nothing where `model` names a file.
/// ConfigError (--model) for what begins so and is neither.
std::optional<std::uint64_t> RandomSeed(const std::filesystem::path& model);
/// Labels tell nothing of random weights: ConfigError (--labels) where there are any.
void CheckLabels(const std::filesystem::path& model, const std::filesystem::path& labels);
/// The float network of weights in a file, or of random ones (compile::RandomWeights).
nn::FloatNetwork LoadFloats(const nn::NetworkSpec& spec, const std::filesystem::path& model);
/// Compiles it. Random weights are not refused for what they lose; their only warning is that they
/// are random.
nn::IntegerNetwork CompileModel(const nn::NetworkSpec& spec, const std::filesystem::path& model,
                                const mpc::Registry& registry, compile::CompileOptions options);
/// The same of a float network that is there; `seed` where its weights are random.
nn::IntegerNetwork CompileModel(const nn::FloatNetwork& network, std::optional<std::uint64_t> seed,
                                const mpc::Registry& registry, compile::CompileOptions options,
                                compile::CompileReport* report);
/// Float weights are needed, and `model` is compiled: what to say then (ConfigError, --model).
[[noreturn]] void RefuseCompiled(const std::filesystem::path& model);

/// The integer network of `source`, for the architecture `spec`. Float weights are compiled, with
/// what was chosen given to `say` line by line; warnings are in the network alone. ConfigError when
/// a compiled model belongs to another architecture, and as nn says.
nn::IntegerNetwork LoadModel(const nn::NetworkSpec& spec, const ModelSource& source,
                             const mpc::Registry& registry,
                             const std::function<void(const std::string&)>& say);

/// Images with their labels, as files::LoadLabelledImages says, for the network's input and
/// classes.
using files::LabelledImages;
LabelledImages LoadLabelledImages(const std::filesystem::path& images,
                                  const std::filesystem::path& labels, std::size_t limit,
                                  const nn::NetworkSpec& spec, const files::DataOptions& options);

/// The public network with the same width for every layer, and the shifts that leave as
/// many bits as Compile does by default.
nn::PublicNetwork PlaceholderNetwork(const nn::NetworkSpec& spec, unsigned bits);
/// Random pixels from a fixed seed.
files::Images RandomImages(const mpc::Shape3& shape, std::size_t count);
/// What a .npy file of these images begins with; their pixels follow, and LoadImages reads it back.
std::string NpyHeader(const files::Images& images);

/// RunPlain on all processors, in pieces that bound the memory. `ranges`, if given, becomes the
/// values of each layer over all images. `on_progress(done, total)` counts images; calls do not
/// overlap.
std::vector<std::int64_t> PlainLogits(
    const nn::IntegerNetwork& network, const mpc::Oracle& oracle, const files::Images& images,
    std::vector<nn::ValueRange>* ranges = nullptr,
    const std::function<void(std::size_t done, std::size_t total)>& on_progress = {});
/// How many predictions equal the labels.
std::size_t CountCorrect(const std::vector<std::uint8_t>& predictions,
                         const std::vector<std::uint8_t>& labels);

}  // namespace tercet::programs
