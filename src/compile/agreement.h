// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tercet/files/images.h"

/// How near an integer network is to its float network, on images. All functions are thread safe.
namespace tercet::compile {

/// Of the typical margin of a float network's images: margins below are near ties, where rounding
/// alone may decide.
inline constexpr double kNearTie = 1.0 / 16;

struct Agreement {
  double same = 100;  ///< percent of the images with the same prediction
  double apart = 0;   ///< percent with another one, near ties not counted
  /// By how much the margins differ, as a part of what they are in the float network: the median
  /// over the images.
  double noise = 0;
};

/// A float network's logits. The *margin* of an image is the difference of its two largest logits;
/// the typical one is the median. Of a network with one output, margins are distances from the
/// mean.
class Reference {
 public:
  /// Image after image; at least one image. Near ties are those of `typical`, else its own.
  Reference(const std::vector<float>& logits, std::size_t classes,
            const Reference* typical = nullptr);

  const std::vector<std::uint8_t>& Predictions() const { return predictions_; }
  Agreement Compare(const std::vector<double>& logits) const;

 private:
  std::size_t classes_;
  std::vector<double> logits_;
  std::vector<std::uint8_t> predictions_;
  std::vector<std::size_t> seconds_;  // classes of the second largest logits
  std::vector<double> margins_;
  double typical_ = 0, mean_ = 0;
};

/// `count` of the images, drawn at random with a fixed seed, in their order; all where there are
/// no more. Their indices.
std::vector<std::size_t> Draw(std::size_t images, std::size_t count);
/// Those images, and their labels or whatever goes with them.
files::Images Chosen(const files::Images& images, const std::vector<std::size_t>& indices);

/// Images for where there are none, from a fixed seed: noise, and maps that change smoothly, some
/// of them cut off at black or white.
files::Images SyntheticImages(const mpc::Shape3& shape, std::size_t count);
/// Images at the ends of what there can be: all black, all white, and both checkerboards of them.
files::Images ExtremeImages(const mpc::Shape3& shape);

}  // namespace tercet::compile
