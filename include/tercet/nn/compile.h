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
  /// none is left over; ConfigError "FILE tensor NAME: found, expected".
  FloatNetwork(NetworkSpec spec, const TensorFile& tensors, std::string file);
  /// Logits of images [first, first + count), image after image. Inputs are quantised as InputSpec
  /// says.
  std::vector<float> Run(const Images& images, std::size_t first, std::size_t count) const;
  const NetworkSpec& Spec() const;

 private:
  struct State;
  std::shared_ptr<const State> state_;
  friend class Compiler;
};

struct CompileOptions {
  /// Images and labels to choose the widths with (training images, never test images). Without them
  /// every layer gets `default_bits`.
  const Images* calibration = nullptr;
  const std::vector<std::uint8_t>* labels = nullptr;
  unsigned default_bits = 14;
  unsigned min_bits = 6, max_bits = 20;
  /// Accuracy on the calibration images may fall by at most this much (percentage points) below
  /// that of the widest network.
  double max_loss = 0.1;
  std::function<void(const std::string&)> progress;
};

struct CompileReport {
  double float_accuracy = 0,
         integer_accuracy = 0;     ///< on the calibration images, percent; 0 without them
  std::vector<std::string> lines;  ///< what was chosen and why, for the user
};

/// JSON network + float weights -> integers with a proven width per layer. `report` may be null.
/// Thread safe; the options' progress is called in the caller's thread. With calibration images it
/// takes up to 10,000 of them, spread over the whole set (fewer, at least 1,000, for large
/// networks), and searches the layers with most activations first, which may lose most; the oracle
/// confirms the result.
///
///   Compile(FloatNetwork(spec, LoadTensors(file), file), oracle, {.calibration = &images, .labels
///   = &labels}, &report)
///
/// BN before Sign becomes the bias, for every sign of gamma (g' < 0 negates the channel's weights,
/// g' = 0 gives the constant Sign(b')); BN after the last layer is folded into weights and bias;
/// {-1,+1} activations become {0,1} (padding stays exact: the bias is then per element); each
/// channel before Sign has a scale of its own. Throws ConfigError / UnsupportedError with the
/// layer's name.
IntegerNetwork Compile(const FloatNetwork& network, const mpc::Oracle& oracle,
                       const CompileOptions& options, CompileReport* report);

}  // namespace tercet::nn
