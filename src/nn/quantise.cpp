#include "nn/quantise.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "nn/windows.h"
#include "tercet/base/error.h"

namespace tercet::nn {
namespace {

/// Weights of trained networks may be multiples of a common step already; finer grids than this are
/// not looked for.
constexpr int kFinestGrid = 512;
/// Scales compared per channel.
constexpr int kCandidates = 32;

/// Rounds down, but takes what is an integer up to the rounding errors of doubles as that integer:
/// a tie x = threshold must stay one.
double FloorOfReal(double value) {
  const double nearest = std::nearbyint(value);
  const double tolerance = 1e-9 * std::max(1.0, std::abs(value));
  return std::abs(value - nearest) <= tolerance ? nearest : std::floor(value);
}

/// What the weights contribute at least and at most, for each pattern of the kernel inside the
/// input.
struct Reach {
  std::vector<double> negative, positive;
};

template <class W>
Reach ReachOf(const WindowPatterns& patterns, const W* weight, std::int64_t input_max) {
  const auto max = static_cast<double>(input_max);
  return {
      patterns.Sums<double>([=](std::size_t i) { return std::min<double>(weight[i], 0) * max; }),
      patterns.Sums<double>([=](std::size_t i) { return std::max<double>(weight[i], 0) * max; })};
}

/// One output channel before Sign. Integers are kept in doubles, which hold them exactly up to
/// kMaxWidth bits.
class SignChannel {
 public:
  /// `bias` is one value, or one for each pattern.
  SignChannel(const WindowPatterns& patterns, const double* weight, std::size_t depth,
              std::vector<double> bias, std::int64_t input_max, unsigned bits)
      : patterns_(patterns),
        weight_(weight),
        depth_(depth),
        bias_(std::move(bias)),
        input_max_(input_max),
        bound_(std::exp2(bits - 1)) {
    for (std::size_t i = 0; i < depth; ++i) {
      largest_ = std::max(largest_, std::abs(weight[i]));
      energy_ += weight[i] * weight[i];
    }
  }

  /// Leaves integer weights in weights() and biases, one for each of the given, in biases().
  void Quantise() {
    if (largest_ == 0) {
      TryScale(1);
      return;
    }
    const double most = LargestScale();
    // One more than fits the reals, as rounding may be in our favour.
    const double first_peak = std::floor(most * largest_) + 1;
    int tried = 0;
    for (double peak = first_peak; peak >= 1 && tried < kCandidates; --peak)
      if (TryScale(peak / largest_)) ++tried;
    if (const std::optional<int> grid = Grid()) {
      int fitted = 0;
      for (double steps = std::floor(most * largest_ / *grid) + 1; steps >= 1 && fitted == 0;
           --steps)
        if (TryScale(steps * *grid / largest_)) ++fitted;
    }
    // The largest weight need not become an integer when all are only a few steps long.
    if (first_peak < kCandidates) {
      for (int i = 0; i < kCandidates; ++i) TryScale(most * (kCandidates - i) / kCandidates);
    }
    // Below one half, all weights vanish and only a constant is left, which fits any width.
    if (best_weights_.empty()) TryScale(0.25 / largest_);
    TERCET_CHECK(!best_weights_.empty(), "no scale fits");
  }

  const std::vector<std::int64_t>& Weights() const { return best_weights_; }
  const std::vector<std::int64_t>& Biases() const { return best_biases_; }

 private:
  /// The extremes of the patterns that share bias `index`.
  std::pair<double, double> Extremes(const Reach& reach, std::size_t index) const {
    if (bias_.size() > 1) return {reach.negative[index], reach.positive[index]};
    return {*std::min_element(reach.negative.begin(), reach.negative.end()),
            *std::max_element(reach.positive.begin(), reach.positive.end())};
  }

  /// The largest scale for which the real layer fits the width.
  double LargestScale() const {
    const Reach reach = ReachOf(patterns_, weight_, input_max_);
    double range = 0;
    for (std::size_t i = 0; i < bias_.size(); ++i) {
      const auto [low, high] = Extremes(reach, i);
      const double bias = std::clamp(bias_[i], -high, -low);
      range = std::max({range, bias + high, -(bias + low)});
    }
    // Weights that never meet the input may have any size.
    return (bound_ - 1) / (range > 0 ? range : largest_);
  }

  /// The smallest number of steps from zero to the largest weight such that all weights are whole
  /// steps.
  std::optional<int> Grid() const {
    for (int steps = 1; steps <= kFinestGrid; ++steps) {
      const double factor = steps / largest_;
      const bool all = std::all_of(weight_, weight_ + depth_, [factor](double w) {
        return std::abs(w * factor - std::nearbyint(w * factor)) < 1e-4;
      });
      if (all) return steps;
    }
    return std::nullopt;
  }

  /// Rounds with the given scale and, if the result fits, keeps it where it is the closest so far.
  /// Whether it fits.
  bool TryScale(double scale) {
    std::vector<double> weights(depth_);
    double error = 0;
    for (std::size_t i = 0; i < depth_; ++i) {
      weights[i] = std::nearbyint(weight_[i] * scale);
      const double miss = weights[i] / scale - weight_[i];
      error += miss * miss;
    }
    const Reach reach = ReachOf(patterns_, weights.data(), input_max_);
    std::vector<double> biases(bias_.size());
    for (std::size_t i = 0; i < bias_.size(); ++i) {
      const auto [low, high] = Extremes(reach, i);
      biases[i] = std::clamp(FloorOfReal(bias_[i] * scale), -high - 1, -low);
      if (biases[i] + low < -bound_ || biases[i] + high > bound_ - 1) return false;
    }
    // Differences at the level of the doubles' own errors do not count: the first, largest scale
    // stays.
    if (best_weights_.empty() || error < best_error_ - 1e-12 * energy_) {
      best_error_ = error;
      best_weights_.assign(weights.begin(), weights.end());
      best_biases_.assign(biases.begin(), biases.end());
    }
    return true;
  }

  const WindowPatterns& patterns_;
  const double* weight_;
  std::size_t depth_;
  std::vector<double> bias_;
  std::int64_t input_max_;
  double bound_;  // 2^(bits-1)
  double largest_ = 0, energy_ = 0, best_error_ = 0;
  std::vector<std::int64_t> best_weights_, best_biases_;
};

void CheckWidth(unsigned bits) {
  TERCET_CHECK(bits >= kMinWidth && bits <= kMaxWidth, "got a width of {} bits, expected {} to {}",
               bits, kMinWidth, kMaxWidth);
}

/// Proves with integers what the search found with doubles.
void Prove(const RealLayer& layer, unsigned bits, QuantisedLayer& result) {
  result.values = ValueInterval(layer.shape, result.weights, layer.input_max, "quantised layer");
  TERCET_CHECK(Fits(result.values, bits), "the quantised layer does not fit {} bits", bits);
}

}  // namespace

QuantisedLayer QuantiseForSign(const RealLayer& layer, unsigned bits) {
  CheckWidth(bits);
  const mpc::LinearShape& shape = layer.shape;
  const WindowPatterns patterns(shape);
  const std::size_t depth = shape.Depth();
  const std::size_t area = shape.Out().height * shape.Out().width;
  QuantisedLayer result;
  for (std::size_t c = 0; c < shape.out_channels; ++c) {
    std::vector<double> bias(shape.bias_per_element ? patterns.Count() : 1, layer.bias[c]);
    if (shape.bias_per_element) {
      // Elements with the same part of the kernel inside the input have the same bias.
      for (std::size_t position = 0; position < area; ++position)
        bias[patterns.Of(position)] = layer.bias[c * area + position];
    }
    SignChannel channel(patterns, layer.weight.data() + c * depth, depth, std::move(bias),
                        layer.input_max, bits);
    channel.Quantise();
    result.weights.weight.insert(result.weights.weight.end(), channel.Weights().begin(),
                                 channel.Weights().end());
    if (shape.bias_per_element) {
      for (std::size_t position = 0; position < area; ++position)
        result.weights.bias.push_back(channel.Biases()[patterns.Of(position)]);
    } else {
      result.weights.bias.push_back(channel.Biases().front());
    }
  }
  Prove(layer, bits, result);
  return result;
}

QuantisedLayer QuantiseLogits(const RealLayer& layer, unsigned bits) {
  CheckWidth(bits);
  const mpc::LinearShape& shape = layer.shape;
  const WindowPatterns patterns(shape);
  const std::size_t area = shape.Out().height * shape.Out().width;
  double range = 0;
  for (std::size_t c = 0; c < shape.out_channels; ++c) {
    const Reach reach = ReachOf(patterns, layer.weight.data() + c * shape.Depth(), layer.input_max);
    for (std::size_t position = 0; position < area; ++position) {
      const double bias = layer.bias[shape.bias_per_element ? c * area + position : c];
      const std::size_t pattern = patterns.Of(position);
      range = std::max({range, bias + reach.positive[pattern], -(bias + reach.negative[pattern])});
    }
  }
  const auto rounded = [](const std::vector<double>& values, double scale) {
    std::vector<std::int64_t> integers(values.size());
    std::transform(values.begin(), values.end(), integers.begin(), [scale](double v) {
      return static_cast<std::int64_t>(std::nearbyint(v * scale));
    });
    return integers;
  };
  QuantisedLayer result;
  result.scale = range > 0 ? (std::exp2(bits - 1) - 1) / range : 1;
  // Rounding may exceed the width of the reals a little; towards zero everything rounds to zero.
  for (;; result.scale *= 1 - 1.0 / 256) {
    result.weights.weight = rounded(layer.weight, result.scale);
    result.weights.bias = rounded(layer.bias, result.scale);
    result.values = ValueInterval(shape, result.weights, layer.input_max, "quantised layer");
    if (Fits(result.values, bits)) break;
  }
  return result;
}

}  // namespace tercet::nn
