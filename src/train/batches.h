// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tercet/files/data_options.h"
#include "tercet/nn/network.h"

namespace tercet::train {

/// A labelled data set in memory.
struct DataSet {
  torch::Tensor pixels;  ///< uint8, N x C x H x W
  torch::Tensor labels;  ///< int64, N

  std::size_t Size() const { return static_cast<std::size_t>(pixels.size(0)); }
};

/// Reads images and labels for a network as files::LoadLabelledImages says; ConfigError also when
/// there are no labels. `on_warning`, if any, is told what files::RangeWarning says of them.
DataSet LoadDataSet(const nn::NetworkSpec& spec, const std::filesystem::path& images,
                    const std::filesystem::path& labels, const files::DataOptions& options,
                    const std::function<void(const std::string&)>& on_warning);

/// Real inputs (float) of pixels 0..255 (float, fractions allowed), rounded as nn::InputSpec says.
torch::Tensor QuantizeInput(const torch::Tensor& pixels, const nn::InputSpec& input);

/// Moves every image of a float batch N x C x H x W at random: shift, rotation, scale, shear and a
/// smooth local distortion, all proportional to `strength`; empty space fills with 0. Draws from
/// libtorch's global CPU generator on every device.
torch::Tensor Distort(const torch::Tensor& pixels, double strength);

/// Mirrors every other image, at random, left to right, and shifts every one by up to
/// round(4 x strength) pixels in both directions; empty space fills with 0. Draws as Distort does.
torch::Tensor FlipAndCrop(const torch::Tensor& pixels, double strength);

}  // namespace tercet::train
