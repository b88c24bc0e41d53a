#include "nn/quantise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "nn/windows.h"
#include "tercet/base/error.h"

namespace tercet::nn {
namespace {

/// Weights of trained networks may be multiples of a common step already; finer grids than this are
/// not looked for.
constexpr int kFinestGrid = 512;
/// How much larger than the float network's, relatively, measured values are taken to be.
constexpr double kRoundingRoom = 1.0 / 16;
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
Reach ReachOf(const WindowPatterns& patterns, const W* weight, Int128 input_max) {
  const auto max = static_cast<double>(input_max);
  return {
      patterns.Sums<double>([=](std::size_t i) { return std::min<double>(weight[i], 0) * max; }),
      patterns.Sums<double>([=](std::size_t i) { return std::max<double>(weight[i], 0) * max; })};
}

/// One output channel before Sign. Integers are kept in doubles, which hold them exactly up to
/// kMaxWidth bits.
class SignChannel {
 public:
  /// `bias` is one value for all patterns, and then `pattern` is empty; or each is of elements with
  /// the pattern given.
  SignChannel(const WindowPatterns& patterns, const double* weight, std::size_t depth,
              std::vector<double> bias, std::vector<std::size_t> pattern, Int128 input_max,
              unsigned bits)
      : patterns_(patterns),
        weight_(weight),
        depth_(depth),
        bias_(std::move(bias)),
        pattern_(std::move(pattern)),
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
    if (!pattern_.empty())
      return {reach.negative[pattern_[index]], reach.positive[pattern_[index]]};
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
  std::vector<std::size_t> pattern_;
  Int128 input_max_;
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
  result.exact_bits = bits;
}

/// The elements of one channel, sorted into groups that have pattern and bias in common.
struct Groups {
  std::vector<double> bias;
  std::vector<std::size_t> pattern;
  std::vector<std::size_t> of;  // each element's group

  Groups(const WindowPatterns& patterns, const double* biases, std::size_t area) {
    std::map<std::pair<std::size_t, double>, std::size_t> known;
    for (std::size_t position = 0; position < area; ++position) {
      const std::pair key{patterns.Of(position), biases[position]};
      const auto [group, is_new] = known.emplace(key, bias.size());
      if (is_new) {
        pattern.push_back(key.first);
        bias.push_back(key.second);
      }
      of.push_back(group->second);
    }
  }
};

/// Sums of real numbers' intervals.
struct RealInterval {
  double low = 0, high = 0;
  double Size() const { return std::max(high, -low); }
};

RealInterval SummandInterval(const RealSummand& summand) {
  const auto max = static_cast<double>(summand.input_max);
  if (!summand.shape) return {0, summand.factor * max};
  RealInterval total;
  const WindowPatterns patterns(*summand.shape);
  const std::size_t depth = summand.shape->Depth();
  for (std::size_t c = 0; c < summand.shape->out_channels; ++c) {
    const Reach reach = ReachOf(patterns, summand.weight.data() + c * depth, summand.input_max);
    total.low =
        std::min(total.low, *std::min_element(reach.negative.begin(), reach.negative.end()));
    total.high =
        std::max(total.high, *std::max_element(reach.positive.begin(), reach.positive.end()));
  }
  return total;
}

/// The values of the real layer over all inputs.
RealInterval ValuesOf(const RealLayer& layer) {
  const mpc::LinearShape& shape = layer.shape;
  const WindowPatterns patterns(shape);
  const std::size_t area = shape.Out().height * shape.Out().width;
  RealInterval total;
  for (std::size_t c = 0; c < shape.out_channels; ++c) {
    const Reach reach = ReachOf(patterns, layer.weight.data() + c * shape.Depth(), layer.input_max);
    for (std::size_t position = 0; position < area; ++position) {
      const double bias = layer.bias[shape.bias_per_element ? c * area + position : c];
      const std::size_t pattern = patterns.Of(position);
      total.low = std::min(total.low, bias + reach.negative[pattern]);
      total.high = std::max(total.high, bias + reach.positive[pattern]);
    }
  }
  if (layer.summand) {
    const RealInterval more = SummandInterval(*layer.summand);
    total.low += more.low;
    total.high += more.high;
  }
  return total;
}

std::vector<std::int64_t> Rounded(const std::vector<double>& values, double scale) {
  std::vector<std::int64_t> integers(values.size());
  std::transform(values.begin(), values.end(), integers.begin(), [scale](double v) {
    return static_cast<std::int64_t>(std::nearbyint(v * scale));
  });
  return integers;
}

/// The shift that leaves as many bits of the largest value as the target says.
unsigned ShiftFor(const FixedPointTarget& target, double low, double high, unsigned bits) {
  const bool squares = target.activation == mpc::ActivationKind::kSquare;
  if (!squares && target.activation != mpc::ActivationKind::kRelu) return 0;
  const double largest = squares ? std::max(high, -low) : high;
  const unsigned kept =
      squares ? std::max(2U, target.activation_bits * 3 / 4) : target.activation_bits;
  const unsigned used =
      largest < 1 ? 0 : static_cast<unsigned>(std::ilogb(std::floor(largest))) + 1;
  return used <= kept ? 0 : std::min(used - kept, bits - 1);
}

std::optional<unsigned> WeightBits(const std::vector<double>& real,
                                   const std::vector<std::int64_t>& integer) {
  if (std::all_of(real.begin(), real.end(), [](double v) { return v == 0; })) return std::nullopt;
  std::uint64_t all = 0;
  for (const std::int64_t v : integer) all |= static_cast<std::uint64_t>(v < 0 ? -v : v);
  return static_cast<unsigned>(std::bit_width(all));
}

}  // namespace

QuantisedLayer QuantiseForSign(const RealLayer& layer, unsigned bits) {
  CheckWidth(bits);
  TERCET_CHECK(!layer.summand, "a sum has one scale for all channels");
  const mpc::LinearShape& shape = layer.shape;
  const WindowPatterns patterns(shape);
  const std::size_t depth = shape.Depth();
  const std::size_t area = shape.Out().height * shape.Out().width;
  QuantisedLayer result;
  for (std::size_t c = 0; c < shape.out_channels; ++c) {
    const double* weight = layer.weight.data() + c * depth;
    const auto append = [](std::vector<std::int64_t>& to, const std::vector<std::int64_t>& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    if (!shape.bias_per_element) {
      SignChannel channel(patterns, weight, depth, {layer.bias[c]}, {}, layer.input_max, bits);
      channel.Quantise();
      append(result.weights.weight, channel.Weights());
      append(result.weights.bias, channel.Biases());
      continue;
    }
    const Groups groups(patterns, layer.bias.data() + c * area, area);
    SignChannel channel(patterns, weight, depth, groups.bias, groups.pattern, layer.input_max,
                        bits);
    channel.Quantise();
    append(result.weights.weight, channel.Weights());
    for (const std::size_t group : groups.of)
      result.weights.bias.push_back(channel.Biases()[group]);
  }
  Prove(layer, bits, result);
  return result;
}

std::optional<QuantisedLayer> QuantiseFixedPoint(const RealLayer& layer, unsigned bits,
                                                 const FixedPointTarget& target) {
  CheckWidth(bits);
  TERCET_CHECK(target.proven || target.seen, "values that are not proven must have been seen");
  double range = 0;
  if (target.proven) {
    range = ValuesOf(layer).Size();
  } else {
    // What rounding adds to the values seen must not take a bit of its own.
    range = std::max(target.seen->high, -target.seen->low) * std::exp2(target.head_room) *
            (1 + kRoundingRoom);
  }
  const bool has_factor = layer.summand && !layer.summand->shape;
  if (range <= 0) range = std::exp2(bits - 1) - 1;  // a scale of 1
  QuantisedLayer result;
  // Rounding may exceed the width of the reals a little; towards zero everything rounds to zero.
  for (double scale = (std::exp2(bits - 1) - 1) / range;; scale *= 1 - 1.0 / 256) {
    result.scale = scale;
    if (has_factor) {
      const double factor = std::floor(layer.summand->factor * scale);
      if (factor < 1) return std::nullopt;
      result.weights.shortcut = {static_cast<std::int64_t>(factor)};
      result.scale = factor / layer.summand->factor;
    }
    result.weights.weight = Rounded(layer.weight, result.scale);
    result.weights.bias = Rounded(layer.bias, result.scale);
    result.values = ValueInterval(layer.shape, result.weights, layer.input_max, "quantised layer");
    if (layer.summand) {
      if (layer.summand->shape)
        result.weights.shortcut = Rounded(layer.summand->weight, result.scale);
      const Shortcut shortcut{0, layer.summand->shape};
      result.values = Sum(result.values,
                          ShortcutInterval(shortcut, result.weights.shortcut,
                                           layer.summand->input_max, "quantised layer"),
                          "quantised layer");
    }
    result.exact_bits = BitsOf(result.values) + (layer.summand ? 1 : 0);
    double low = static_cast<double>(result.values.low);
    double high = static_cast<double>(result.values.high);
    if (target.seen) {
      low = std::max(low, target.seen->low * result.scale);
      high = std::min(high, target.seen->high * result.scale);
    }
    result.shift = ShiftFor(target, low, high, bits);
    if (result.shift > 0) {
      const std::int64_t half = std::int64_t{1} << (result.shift - 1);
      for (std::int64_t& bias : result.weights.bias) bias += half;
      result.values.low += half;
      result.values.high += half;
    }
    if (!target.proven || Fits(result.values, bits)) break;
  }
  result.weight_bits = WeightBits(layer.weight, result.weights.weight);
  return result;
}

}  // namespace tercet::nn
