// SPDX-License-Identifier: Apache-2.0
#include "train/batches.h"

#include <cmath>
#include <cstdint>
#include <utility>

#include "tercet/base/error.h"
#include "tercet/files/images.h"
#include "tercet/nn/data_options.h"

namespace tercet::train {
namespace {

using torch::Tensor;

// Ranges at strength 1.
constexpr double kShiftPixels = 2.0;
constexpr double kRotationRadians = 0.2;
constexpr double kScale = 0.12;
constexpr double kShear = 0.15;
constexpr double kDistortionPixels = 0.8;  // standard deviation at the points of a coarse grid
constexpr std::int64_t kDistortionGrid = 5;
constexpr double kCropPixels = 4;

Tensor Uniform(std::int64_t count, double range) {
  return torch::rand({count}).mul_(2 * range).sub_(range);
}

}  // namespace

DataSet LoadDataSet(const nn::NetworkSpec& spec, const std::filesystem::path& images,
                    const std::filesystem::path& labels, const files::DataOptions& options,
                    const std::function<void(const std::string&)>& on_warning) {
  files::LabelledImages loaded = files::LoadLabelledImages(
      images, labels, 0, spec.input.shape, spec.Classes(), nn::WithInput(options, spec.input));
  if (loaded.labels.empty())
    throw ConfigError(images.string(),
                      "holds images without labels, expected a file of labels too");
  if (const auto warning = files::RangeWarning(loaded.images); warning && on_warning)
    on_warning(fmt::format("{}: {}", images.string(), *warning));
  DataSet data;
  data.pixels = torch::from_blob(loaded.images.pixels.data(),
                                 {static_cast<std::int64_t>(loaded.images.count),
                                  static_cast<std::int64_t>(loaded.images.shape.channels),
                                  static_cast<std::int64_t>(loaded.images.shape.height),
                                  static_cast<std::int64_t>(loaded.images.shape.width)},
                                 torch::kUInt8)
                    .clone();
  const std::vector<std::int64_t> wide(loaded.labels.begin(), loaded.labels.end());
  data.labels = torch::tensor(wide, torch::kInt64);
  return data;
}

Tensor QuantizeInput(const Tensor& pixels, const nn::InputSpec& input) {
  const double top = std::exp2(input.bits) - 1;
  return pixels.mul(top / 255)
      .round_()
      .mul_(255 / top / input.scale)
      .sub_(input.mean)
      .div_(input.std);
}

Tensor Distort(const Tensor& pixels, double strength) {
  if (strength <= 0) return pixels;
  const std::int64_t count = pixels.size(0);
  const std::int64_t height = pixels.size(2);
  const std::int64_t width = pixels.size(3);
  // Coordinates of affine_grid run from -1 to 1, so a pixel is 2 / size.
  const Tensor angle = Uniform(count, kRotationRadians * strength);
  const Tensor shear = Uniform(count, kShear * strength);
  const Tensor scale_x = Uniform(count, kScale * strength).add_(1);
  const Tensor scale_y = Uniform(count, kScale * strength).add_(1);
  const Tensor shift_x = Uniform(count, 2 * kShiftPixels * strength / static_cast<double>(width));
  const Tensor shift_y = Uniform(count, 2 * kShiftPixels * strength / static_cast<double>(height));
  const Tensor row_x =
      torch::stack({angle.cos() * scale_x, shear - angle.sin() * scale_y, shift_x}, 1);
  const Tensor row_y = torch::stack({angle.sin() * scale_x, angle.cos() * scale_y, shift_y}, 1);
  Tensor grid = at::affine_grid_generator(torch::stack({row_x, row_y}, 1), pixels.sizes(),
                                          /*align_corners=*/false);
  const Tensor coarse =
      torch::randn({count, 2, kDistortionGrid, kDistortionGrid}) * (kDistortionPixels * strength);
  const Tensor fine =
      at::upsample_bicubic2d(coarse, {height, width}, /*align_corners=*/false, {}, {});
  grid.select(3, 0).add_(fine.select(1, 0), 2.0 / static_cast<double>(width));
  grid.select(3, 1).add_(fine.select(1, 1), 2.0 / static_cast<double>(height));
  // Bilinear, zeros outside.
  return at::grid_sampler(pixels, grid.to(pixels.device()), /*interpolation_mode=*/0,
                          /*padding_mode=*/0,
                          /*align_corners=*/false);
}

Tensor FlipAndCrop(const Tensor& pixels, double strength) {
  const std::int64_t count = pixels.size(0);
  const std::int64_t shift = std::llround(kCropPixels * strength);
  const auto index = [&](std::int64_t size, torch::IntArrayRef shape) {
    return torch::arange(size).view(shape);
  };
  const Tensor flips = torch::randint(2, {count, 1, 1, 1}, torch::kInt64);
  const Tensor rows = torch::randint(2 * shift + 1, {count, 1, 1, 1}, torch::kInt64) +
                      index(pixels.size(2), {1, 1, -1, 1});
  const Tensor forwards = index(pixels.size(3), {1, 1, 1, -1});
  const Tensor columns = torch::randint(2 * shift + 1, {count, 1, 1, 1}, torch::kInt64) +
                         torch::where(flips.eq(1), forwards.flip(3), forwards);
  const Tensor padded = torch::constant_pad_nd(pixels, {shift, shift, shift, shift});
  const auto there = [&](const Tensor& t) { return t.to(pixels.device()); };
  return padded.index({there(index(count, {-1, 1, 1, 1})),
                       there(index(pixels.size(1), {1, -1, 1, 1})), there(rows), there(columns)});
}

}  // namespace tercet::train
