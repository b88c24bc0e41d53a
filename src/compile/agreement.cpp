// SPDX-License-Identifier: Apache-2.0
#include "compile/agreement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "tercet/base/error.h"
#include "tercet/nn/run_plain.h"

namespace tercet::compile {
namespace {

constexpr std::uint64_t kSeed = 10;
/// Points between which smooth images are interpolated, along each side.
constexpr std::size_t kPoints = 5;

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// From 0 to 1, the same on every machine (unlike the distributions of <random>).
double Uniform(std::mt19937_64& rng) { return static_cast<double>(rng() >> 11) * 0x1p-53; }

/// A point on a line of `size` pixels between those that are interpolated.
struct Between {
  std::size_t low, high;
  double share;  // of the high one
  Between(std::size_t at, std::size_t size) {
    const double place =
        size > 1 ? static_cast<double>(at * (kPoints - 1)) / static_cast<double>(size - 1) : 0;
    low = std::min(static_cast<std::size_t>(place), kPoints - 2);
    high = low + 1;
    share = place - static_cast<double>(low);
  }
};

void AppendSmooth(std::size_t height, std::size_t width, std::mt19937_64& rng,
                  std::vector<std::uint8_t>& pixels) {
  std::vector<double> points(kPoints * kPoints);
  for (double& point : points) point = Uniform(rng);
  const double contrast = 1 + 3 * Uniform(rng), middle = Uniform(rng);
  for (std::size_t y = 0; y < height; ++y) {
    const Between rows(y, height);
    for (std::size_t x = 0; x < width; ++x) {
      const Between columns(x, width);
      const auto in_row = [&](std::size_t row) {
        const double* first = points.data() + row * kPoints;
        return (1 - columns.share) * first[columns.low] + columns.share * first[columns.high];
      };
      const double value = (1 - rows.share) * in_row(rows.low) + rows.share * in_row(rows.high);
      const double stretched = (value - middle) * contrast + middle;
      pixels.push_back(static_cast<std::uint8_t>(std::clamp(stretched, 0.0, 1.0) * 255));
    }
  }
}

}  // namespace

Reference::Reference(const std::vector<float>& logits, std::size_t classes,
                     const Reference* typical)
    : classes_(classes),
      logits_(logits.begin(), logits.end()),
      predictions_(nn::Predictions(logits_, classes)),
      seconds_(predictions_.size()),
      margins_(predictions_.size()) {
  TERCET_CHECK(!predictions_.empty(), "no images to compare on");
  mean_ =
      std::accumulate(logits_.begin(), logits_.end(), 0.0) / static_cast<double>(logits_.size());
  for (std::size_t i = 0; i < margins_.size(); ++i) {
    const double* row = logits_.data() + i * classes;
    if (classes == 1) {
      margins_[i] = std::abs(row[0] - mean_);
      continue;
    }
    seconds_[i] = predictions_[i] == 0 ? 1 : 0;
    for (std::size_t c = 0; c < classes; ++c)
      if (c != predictions_[i] && row[c] > row[seconds_[i]]) seconds_[i] = c;
    margins_[i] = row[predictions_[i]] - row[seconds_[i]];
  }
  typical_ = typical != nullptr ? typical->typical_ : Median(margins_);
}

Agreement Reference::Compare(const std::vector<double>& logits) const {
  const std::size_t images = predictions_.size();
  TERCET_CHECK(logits.size() == logits_.size(), "{} logits, expected {}", logits.size(),
               logits_.size());
  const std::vector<std::uint8_t> found = nn::Predictions(logits, classes_);
  std::vector<double> errors(images);
  std::size_t same = 0, apart = 0;
  for (std::size_t i = 0; i < images; ++i) {
    const double* want = logits_.data() + i * classes_;
    const double* got = logits.data() + i * classes_;
    const std::size_t first = predictions_[i];
    const double margin = classes_ == 1 ? margins_[i] : got[first] - got[seconds_[i]];
    const double error =
        classes_ == 1 ? std::abs(got[0] - want[0]) : std::abs(margin - margins_[i]);
    errors[i] = error == 0        ? 0
                : margins_[i] > 0 ? error / margins_[i]
                                  : std::numeric_limits<double>::infinity();
    if (found[i] == first)
      ++same;
    else if (want[first] - want[found[i]] > kNearTie * typical_)
      ++apart;
  }
  const auto percent = [&](std::size_t part) {
    return 100.0 * static_cast<double>(part) / static_cast<double>(images);
  };
  return {percent(same), percent(apart), Median(std::move(errors))};
}

std::vector<std::size_t> Draw(std::size_t images, std::size_t count) {
  std::vector<std::size_t> indices(images);
  std::iota(indices.begin(), indices.end(), std::size_t{0});
  if (count >= images) return indices;
  std::mt19937_64 rng(kSeed);
  for (std::size_t i = 0; i < count; ++i) std::swap(indices[i], indices[i + rng() % (images - i)]);
  indices.resize(count);
  std::sort(indices.begin(), indices.end());
  return indices;
}

files::Images Chosen(const files::Images& images, const std::vector<std::size_t>& indices) {
  files::Images chosen{images.shape, indices.size(), {}};
  const std::size_t size = images.shape.Size();
  chosen.pixels.reserve(indices.size() * size);
  for (const std::size_t index : indices) {
    const auto from = images.pixels.begin() + static_cast<std::ptrdiff_t>(index * size);
    chosen.pixels.insert(chosen.pixels.end(), from, from + static_cast<std::ptrdiff_t>(size));
  }
  return chosen;
}

files::Images SyntheticImages(const mpc::Shape3& shape, std::size_t count) {
  files::Images images{shape, count, {}};
  images.pixels.reserve(shape.Size() * count);
  std::mt19937_64 rng(kSeed);
  // Features without a place may be those of a signal.
  const mpc::Shape3 maps =
      shape.height * shape.width > 1 ? shape : mpc::Shape3{1, 1, shape.channels};
  for (std::size_t i = 0; i < count; ++i) {
    if (i % 2 == 0) {
      for (std::size_t p = 0; p < shape.Size(); ++p)
        images.pixels.push_back(static_cast<std::uint8_t>(rng() >> 56));
    } else {
      for (std::size_t c = 0; c < maps.channels; ++c)
        AppendSmooth(maps.height, maps.width, rng, images.pixels);
    }
  }
  return images;
}

files::Images ExtremeImages(const mpc::Shape3& shape) {
  files::Images images{shape, 4, {}};
  for (std::size_t i = 0; i < images.count; ++i)
    for (std::size_t c = 0; c < shape.channels; ++c)
      for (std::size_t y = 0; y < shape.height; ++y)
        for (std::size_t x = 0; x < shape.width; ++x)
          images.pixels.push_back((i < 2 ? i : c + y + x + i) % 2 == 1 ? 255 : 0);
  return images;
}

}  // namespace tercet::compile
