#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tercet/mpc/suite.h"
#include "tercet/nn/integer_network.h"
#include "tercet/nn/run_plain.h"
#include "tercet/nn/tensor_file.h"

namespace tercet::nn {

/// The float network with its trained weights, for calibration and comparison. Weights and names as
/// in a PyTorch state_dict.
class FloatNetwork {
 public:
  /// Checks that every tensor exists, has the right shape and holds no NaN or infinity, and that
  /// none is left over; ConfigError "FILE tensor NAME: found, expected", with all tensors that do
  /// not fit. A prefix that all tensors and no layer have ("module.", "model.") is left away,
  /// PyTorch's num_batches_tracked are passed over, and other types of numbers become floats.
  FloatNetwork(NetworkSpec spec, const TensorFile& tensors, std::string file);
  /// Is given every layer's output, front to back, for some images at a time, in their order: the
  /// layer's index and the values, features x images, row-major.
  using LayerVisitor = std::function<void(std::size_t layer, const std::vector<float>& output)>;
  /// Logits of images [first, first + count), image after image. Inputs are quantised as InputSpec
  /// says. Thread safe; `visit` is called in the caller's thread.
  std::vector<float> Run(const Images& images, std::size_t first, std::size_t count,
                         const LayerVisitor& visit = nullptr) const;
  const NetworkSpec& Spec() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
  friend class Compiler;
};

/// A *fixed-point* layer is one before ReLU or square, one that
/// takes what leaves such a layer, or one with a residual; all others are before Sign or last, on
/// bits or pixels.
struct CompileOptions {
  /// Images and labels to choose the widths with (training images, never test images). Without them
  /// every layer gets `default_bits`, fixed-point layers `default_fixed_bits`.
  const Images* calibration = nullptr;
  const std::vector<std::uint8_t>* labels = nullptr;
  unsigned default_bits = 14, default_fixed_bits = 28;
  /// The range of the search; fixed-point layers may have up to `max_fixed_bits`.
  unsigned min_bits = 6, max_bits = 20, max_fixed_bits = 32;
  /// Accuracy on the calibration images may fall by at most this much (percentage points) below
  /// that of the widest network.
  double max_loss = 0.1;
  /// Of the largest value that leaves a ReLU on the calibration images (without them: of the
  /// bound). A square's input keeps 3/4 as many, so that what leaves has 1.5 times as many.
  unsigned activation_bits = 8;
  /// The widths of fixed-point layers hold the values seen on the calibration images and
  /// `head_room` bits more, instead of a proven bound, which grows beyond use in deep networks.
  bool measured = false;
  unsigned head_room = 2;
  /// Only the class leaves the network, not the logits; by default as the JSON's "output" says.
  std::optional<bool> only_class;
  std::function<void(const std::string&)> progress;
};

struct CompileReport {
  double float_accuracy = 0,
         integer_accuracy = 0;  ///< on the calibration images, percent; 0 without them
  /// A logit of the float network is about integer * logit_scale. Of weights, so for their owner
  /// alone; it is in no file and no message.
  double logit_scale = 1;
  /// What was chosen and why, for the user: what was multiplied out, and each layer's width, bound,
  /// range on the calibration images and head-room.
  std::vector<std::string> lines;
};

/// JSON network + float weights -> integers with a width per layer that is proven (or measured, by
/// option). `report` may be null. Thread safe; the options' progress is called in the caller's
/// thread. With calibration images it takes up to 10,000 of them, spread over the whole set (fewer,
/// at least 1,000, for large networks), and searches the layers with most activations first, which
/// may lose most; the oracle confirms the result.
///
///   Compile(FloatNetwork(spec, LoadTensors(file), file), oracle, {.calibration = &images, .labels
///   = &labels}, &report)
///
/// Before Sign, BN becomes the bias, for every sign of gamma, and each channel has a scale of its
/// own. Before ReLU and square BN is folded into the weights, and all channels have one scale, so
/// that what leaves is q times a real number; the division by 2^shift that ends them keeps q small.
/// {-1,+1} activations become {0,1} (padding stays exact: the bias is then per element). Linear
/// layers with nothing between are multiplied out, average pools become sums, an add becomes the
/// shortcut of the layer before it, and when only the class is wanted the last layer compares all
/// pairs of logits (ties go to the lower class, as in Predictions).
///
/// Throws UnsupportedError with the layer's name and what is supported; ConfigError for options and
/// for a layer whose values need more than 32 bits.
IntegerNetwork Compile(const FloatNetwork& network, const mpc::Oracle& oracle,
                       const CompileOptions& options, CompileReport* report);

}  // namespace tercet::nn
