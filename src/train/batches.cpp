#include "train/batches.h"

#include <cmath>
#include <cstdint>
#include <utility>

#include "tercet/base/error.h"
#include "tercet/nn/images.h"

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

Tensor Uniform(std::int64_t count, double range) {
  return torch::rand({count}).mul_(2 * range).sub_(range);
}

}  // namespace

DataSet LoadDataSet(const nn::NetworkSpec& spec, const std::filesystem::path& images,
                    const std::filesystem::path& labels) {
  nn::Images loaded = nn::LoadImages(images, 0, spec.input.shape);
  const std::vector<std::uint8_t> found = nn::LoadLabels(labels, 0, spec.Classes());
  if (found.size() != loaded.count) {
    throw ConfigError(labels.string(), fmt::format("holds {} labels, but {} holds {} images",
                                                   found.size(), images.string(), loaded.count));
  }
  DataSet data;
  data.pixels = torch::from_blob(loaded.pixels.data(),
                                 {static_cast<std::int64_t>(loaded.count),
                                  static_cast<std::int64_t>(loaded.shape.channels),
                                  static_cast<std::int64_t>(loaded.shape.height),
                                  static_cast<std::int64_t>(loaded.shape.width)},
                                 torch::kUInt8)
                    .clone();
  const std::vector<std::int64_t> wide(found.begin(), found.end());
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

Tensor Augment(const Tensor& pixels, double strength) {
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
  return at::grid_sampler(pixels, grid, /*interpolation_mode=*/0, /*padding_mode=*/0,
                          /*align_corners=*/false);
}

}  // namespace tercet::train
