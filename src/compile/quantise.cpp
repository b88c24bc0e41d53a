// SPDX-License-Identifier: Apache-2.0
#include "compile/quantise.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <utility>

#include "mpc/activation_function.h"
#include "nn/convolve.h"
#include "nn/windows.h"
#include "tercet/base/error.h"

namespace tercet::compile {
namespace {

/// Weights of trained networks may be multiples of a common step already; finer grids than this are
/// not looked for.
constexpr int kFinestGrid = 512;
/// Multiples of that step that are tried to make the biases whole too.
constexpr int kMostMultiples = 64;
/// How near to integers numbers that came from floats must be to count as whole.
constexpr double kWhole = 1e-4;
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
Reach ReachOf(const nn::WindowPatterns& patterns, const W* weight, Int128 input_max) {
  const auto max = static_cast<double>(input_max);
  return {
      patterns.Sums<double>([=](std::size_t i) { return std::min<double>(weight[i], 0) * max; }),
      patterns.Sums<double>([=](std::size_t i) { return std::max<double>(weight[i], 0) * max; })};
}

bool IsWhole(double value) { return std::abs(value - std::nearbyint(value)) < kWhole; }

/// The smallest number of steps from zero to the largest value such that all values are whole
/// steps.
std::optional<int> Grid(std::span<const double> values, double largest) {
  for (int steps = 1; steps <= kFinestGrid; ++steps) {
    const double factor = steps / largest;
    if (std::all_of(values.begin(), values.end(),
                    [factor](double v) { return IsWhole(v * factor); }))
      return steps;
  }
  return std::nullopt;
}

double LargestOf(std::span<const double> values) {
  double largest = 0;
  for (const double v : values) largest = std::max(largest, std::abs(v));
  return largest;
}

/// The variance of an integer 0..max that takes all values alike.
double Variance(Int128 max) {
  const auto m = static_cast<double>(max);
  return m * (m + 2) / 12;
}

/// What an input's zero adds to the sums of one output channel.
class ZeroSums {
 public:
  ZeroSums(const nn::WindowPatterns& patterns, const mpc::LinearShape& shape, const Zero& zero,
           std::size_t channel)
      : patterns_(patterns), taps_(shape.kernel_h * shape.kernel_w), uneven_(zero.uneven) {
    if (zero.at.empty()) return;
    one_ = shape;
    one_.in.channels = shape.in.channels / shape.groups;
    one_.out_channels = one_.groups = 1;
    one_.bias_per_element = false;
    const std::size_t size = one_.in.Size();
    const auto first = zero.at.begin() + static_cast<std::ptrdiff_t>(
                                             channel / (shape.out_channels / shape.groups) * size);
    at_.assign(first, first + static_cast<std::ptrdiff_t>(size));
  }

  bool Empty() const { return at_.empty(); }
  /// Which of the sums is that of an output position.
  std::size_t Of(std::size_t position) const {
    if (Empty()) return 0;
    return uneven_ ? position : patterns_.Of(position);
  }
  std::vector<double> operator()(const std::vector<double>& weights) const {
    if (Empty()) return {0};
    std::vector<double> sums;
    if (uneven_) {
      sums = nn::Convolve(one_, weights, {}, at_, 1);
    } else {
      const std::size_t area = one_.in.height * one_.in.width;
      sums =
          patterns_.Sums<double>([&](std::size_t i) { return weights[i] * at_[i / taps_ * area]; });
    }
    for (double& sum : sums) sum = -sum;
    return sums;
  }

 private:
  const nn::WindowPatterns& patterns_;
  std::size_t taps_;
  bool uneven_;
  mpc::LinearShape one_;    // of the one channel
  std::vector<double> at_;  // of the channels that it sees
};

/// What the zero adds to each bias of a map.
std::vector<double> ZeroBias(const mpc::LinearShape& shape, const std::vector<double>& weight,
                             const Zero& zero, bool per_element) {
  const mpc::Shape3 out = shape.Out();
  const std::size_t area = out.height * out.width;
  std::vector<double> all = nn::Convolve(shape, weight, {}, zero.at, 1);
  for (double& v : all) v = -v;
  if (per_element) return all;
  std::vector<double> each(out.channels);
  for (std::size_t c = 0; c < each.size(); ++c) each[c] = all[c * area];
  return each;
}

/// A bias of one channel that some of its elements have in common.
struct Bias {
  double own = 0;
  std::size_t pattern = 0;  // index into Reach; unused by a bias of the whole channel
  std::size_t zero = 0;     // index into ZeroSums
};

/// One output channel before Sign. Integers are kept in doubles, which hold them exactly up to
/// kMaxWidth bits.
class SignChannel {
 public:
  /// `biases` is one of the whole channel, or each is of elements with the pattern given.
  SignChannel(const nn::WindowPatterns& patterns, const double* weight, std::size_t depth,
              std::vector<Bias> biases, bool per_element, const ZeroSums& zero, Int128 input_max,
              unsigned bits)
      : patterns_(patterns),
        weight_(weight, weight + depth),
        bias_(std::move(biases)),
        per_element_(per_element),
        zero_(zero),
        input_max_(input_max),
        bound_(std::exp2(bits - 1)),
        largest_(LargestOf(weight_)) {
    for (const double w : weight_) energy_ += w * w;
  }

  /// Leaves integer weights in Weights() and biases, one for each of the given, in Biases().
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
    if (const std::optional<int> grid = Grid(weight_, largest_)) {
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
  /// Whether some input makes the Sign another one, in real numbers.
  bool IsOpen() const { return open_; }
  bool IsLost() const {
    return open_ && std::all_of(best_weights_.begin(), best_weights_.end(),
                                [](std::int64_t w) { return w == 0; });
  }
  /// The energy of rounding, as a part of the weights'.
  double Error() const {
    // Numbers that came from floats are whole steps up to their own rounding.
    const double error = best_error_ / energy_;
    return error < kWhole * kWhole ? 0 : error;
  }

 private:
  /// The extremes of the patterns that share a bias.
  std::pair<double, double> Extremes(const Reach& reach, const Bias& bias) const {
    if (per_element_) return {reach.negative[bias.pattern], reach.positive[bias.pattern]};
    return {*std::min_element(reach.negative.begin(), reach.negative.end()),
            *std::max_element(reach.positive.begin(), reach.positive.end())};
  }

  /// The largest scale for which the real layer fits the width.
  double LargestScale() {
    const Reach reach = ReachOf(patterns_, weight_.data(), input_max_);
    const std::vector<double> zero = zero_(weight_);
    double range = 0;
    for (const Bias& bias : bias_) {
      const auto [low, high] = Extremes(reach, bias);
      const double all = bias.own + zero[bias.zero];
      open_ = open_ || (all + low < 0 && all + high >= 0);
      const double kept = std::clamp(all, -high, -low);
      range = std::max({range, kept + high, -(kept + low)});
    }
    // Weights that never meet the input may have any size.
    return (bound_ - 1) / (range > 0 ? range : largest_);
  }

  /// Rounds with the given scale and, if the result fits, keeps it where it is the closest so far.
  /// Whether it fits.
  bool TryScale(double scale) {
    std::vector<double> weights(weight_.size());
    double error = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      weights[i] = std::nearbyint(weight_[i] * scale);
      const double miss = weights[i] / scale - weight_[i];
      error += miss * miss;
    }
    const Reach reach = ReachOf(patterns_, weights.data(), input_max_);
    const std::vector<double> zero = zero_(weights);
    std::vector<double> biases(bias_.size());
    for (std::size_t i = 0; i < bias_.size(); ++i) {
      const auto [low, high] = Extremes(reach, bias_[i]);
      const double all = bias_[i].own * scale + zero[bias_[i].zero];
      biases[i] = std::clamp(FloorOfReal(all), -high - 1, -low);
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

  const nn::WindowPatterns& patterns_;
  std::vector<double> weight_;
  std::vector<Bias> bias_;
  bool per_element_;
  const ZeroSums& zero_;
  Int128 input_max_;
  double bound_;  // 2^(bits-1)
  double largest_;
  double energy_ = 0, best_error_ = 0;
  bool open_ = false;
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

/// The elements of one channel, sorted into groups that have all parts of their bias in common.
struct Groups {
  std::vector<Bias> biases;
  std::vector<std::size_t> of;  // each bias's group

  /// One bias for all.
  explicit Groups(double own) : biases{{own}}, of{0} {}

  Groups(const nn::WindowPatterns& patterns, const ZeroSums& zero, const double* own,
         std::size_t area) {
    std::map<std::tuple<double, std::size_t, std::size_t>, std::size_t> known;
    for (std::size_t position = 0; position < area; ++position) {
      const Bias bias{own[position], patterns.Of(position), zero.Of(position)};
      const auto [group, is_new] =
          known.emplace(std::tuple(bias.own, bias.pattern, bias.zero), biases.size());
      if (is_new) biases.push_back(bias);
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
  const nn::WindowPatterns patterns(*summand.shape);
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

/// The biases of the whole sum in real numbers, what the zeros add included, for the weights given.
std::vector<double> WholeBias(const RealLayer& layer, std::vector<double> bias,
                              const std::vector<double>& weight,
                              const std::vector<double>& shortcut, double factor) {
  const bool per_element = layer.shape.bias_per_element;
  const auto add = [&](const std::vector<double>& more) {
    for (std::size_t i = 0; i < bias.size(); ++i) bias[i] += more[i];
  };
  if (!layer.zero.at.empty()) add(ZeroBias(layer.shape, weight, layer.zero, per_element));
  if (!layer.summand || layer.summand->zero.at.empty()) return bias;
  const RealSummand& summand = *layer.summand;
  if (summand.shape) {
    add(ZeroBias(*summand.shape, shortcut, summand.zero, per_element));
  } else {
    const std::size_t each = summand.zero.at.size() / bias.size();
    for (std::size_t i = 0; i < bias.size(); ++i) bias[i] -= factor * summand.zero.at[i * each];
  }
  return bias;
}

/// The values of the real layer over all inputs.
RealInterval ValuesOf(const RealLayer& layer) {
  const mpc::LinearShape& shape = layer.shape;
  const nn::WindowPatterns patterns(shape);
  const std::size_t area = shape.Out().height * shape.Out().width;
  const std::vector<double> biases =
      WholeBias(layer, layer.bias, layer.weight,
                layer.summand ? layer.summand->weight : std::vector<double>{},
                layer.summand ? layer.summand->factor : 0);
  RealInterval total;
  for (std::size_t c = 0; c < shape.out_channels; ++c) {
    const Reach reach = ReachOf(patterns, layer.weight.data() + c * shape.Depth(), layer.input_max);
    for (std::size_t position = 0; position < area; ++position) {
      const double bias = biases[shape.bias_per_element ? c * area + position : c];
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

std::vector<double> Scaled(std::vector<double> values, double scale) {
  for (double& v : values) v *= scale;
  return values;
}

std::vector<double> Rounded(std::vector<double> values) {
  for (double& v : values) v = std::nearbyint(v);
  return values;
}

std::vector<std::int64_t> ToIntegers(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

double SquaredDistance(const std::vector<double>& x, const std::vector<double>& y) {
  double sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += (x[i] - y[i]) * (x[i] - y[i]);
  return sum;
}

/// The shift that leaves as many bits of the largest value as the target says.
unsigned ShiftFor(const FixedPointTarget& target, double low, double high, unsigned bits) {
  const mpc::ActivationFunction& function = mpc::FunctionOf(target.activation);
  if (function.Shift() == mpc::ShiftRule::kNone) return 0;
  if (function.Shift() == mpc::ShiftRule::kIndexes) return bits - target.table_bits;
  const double largest = function.Size(low, high);
  const unsigned kept = function.KeptBits(target.activation_bits);
  const unsigned used =
      largest < 1 ? 0 : static_cast<unsigned>(std::ilogb(std::floor(largest))) + 1;
  return used <= kept ? 0 : std::min(used - kept, bits - 1);
}

/// A layer's numbers in one scale.
struct InScale {
  std::vector<double> weight, bias, shortcut;
};

/// What rounding adds to the sums, as a share of them, where inputs are spread evenly. `factor` is
/// the summand's, where it has no map.
double RoundingError(const RealLayer& layer, const InScale& real, const InScale& rounded,
                     double factor) {
  const auto elements = static_cast<double>(layer.shape.Out().Size());
  const double outputs = elements / static_cast<double>(layer.shape.out_channels);
  const auto energy = [&](const std::vector<double>& w, const std::vector<double>& from,
                          Int128 input_max) {
    return SquaredDistance(w, from) * outputs * Variance(input_max);
  };
  double error =
      energy(rounded.weight, real.weight, layer.input_max) +
      SquaredDistance(rounded.bias, real.bias) * elements / static_cast<double>(real.bias.size());
  double size = energy(std::vector<double>(real.weight.size()), real.weight, layer.input_max);
  if (!real.shortcut.empty()) {
    error += energy(rounded.shortcut, real.shortcut, layer.summand->input_max);
    size +=
        energy(std::vector<double>(real.shortcut.size()), real.shortcut, layer.summand->input_max);
  } else if (layer.summand) {
    size += elements * factor * factor * Variance(layer.summand->input_max);
  }
  const double share = size > 0 ? std::sqrt(error / size) : 0;
  return share < kWhole ? 0 : share;
}

/// The channels of which rounding leaves no weight.
std::vector<std::size_t> LostChannels(const std::vector<double>& weight,
                                      const std::vector<double>& rounded, std::size_t depth) {
  std::vector<std::size_t> lost;
  for (std::size_t c = 0; c * depth < weight.size(); ++c) {
    const auto all_zero = [&](const std::vector<double>& values) {
      const auto first = values.begin() + static_cast<std::ptrdiff_t>(c * depth);
      return std::all_of(first, first + static_cast<std::ptrdiff_t>(depth),
                         [](double v) { return v == 0; });
    };
    if (all_zero(rounded) && !all_zero(weight)) lost.push_back(c);
  }
  return lost;
}

Interval ValuesOf(const RealLayer& layer, const nn::LayerWeights& weights) {
  const char* where = "quantised layer";
  const Interval values = ValueInterval(layer.shape, weights, layer.input_max, where);
  if (!layer.summand) return values;
  return Sum(values,
             ShortcutInterval({0, layer.summand->shape}, weights.shortcut, layer.summand->input_max,
                              where),
             where);
}

/// The layer's integers in one scale. `exact` takes whether they are the real numbers themselves;
/// nothing when a summand's factor would be less than 1.
std::optional<QuantisedLayer> WithScale(const RealLayer& layer, double scale, unsigned bits,
                                        const FixedPointTarget& target, bool* exact = nullptr) {
  QuantisedLayer result;
  result.scale = scale;
  const RealSummand* summand = layer.summand ? &*layer.summand : nullptr;
  const bool mapped = summand != nullptr && summand->shape;
  double factor = 0;
  if (summand != nullptr && !mapped) {
    factor = FloorOfReal(summand->factor * scale);
    if (factor < 1) return std::nullopt;
    result.weights.shortcut = {static_cast<std::int64_t>(factor)};
    result.scale = factor / summand->factor;
  }
  InScale real, rounded;
  real.weight = Scaled(layer.weight, result.scale);
  if (mapped) real.shortcut = Scaled(summand->weight, result.scale);
  rounded.weight = Rounded(real.weight);
  rounded.shortcut = Rounded(real.shortcut);
  real.bias =
      WholeBias(layer, Scaled(layer.bias, result.scale), rounded.weight, rounded.shortcut, factor);
  rounded.bias = Rounded(real.bias);
  if (exact != nullptr)
    *exact = std::all_of(real.bias.begin(), real.bias.end(), IsWhole) &&
             std::all_of(real.weight.begin(), real.weight.end(), IsWhole) &&
             std::all_of(real.shortcut.begin(), real.shortcut.end(), IsWhole);
  result.error = RoundingError(layer, real, rounded, factor);
  result.lost = LostChannels(real.weight, rounded.weight, layer.shape.Depth());
  result.weights.weight = ToIntegers(rounded.weight);
  result.weights.bias = ToIntegers(rounded.bias);
  if (mapped) result.weights.shortcut = ToIntegers(rounded.shortcut);
  result.values = ValuesOf(layer, result.weights);
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
    for (std::int64_t& b : result.weights.bias) b += half;
    result.values.low += half;
    result.values.high += half;
  }
  return result;
}

/// The smallest scale that makes all integers exact, bias and all, and fits; else the largest that
/// makes the weights exact.
std::optional<QuantisedLayer> OnGrid(const RealLayer& layer, double most, unsigned bits,
                                     const FixedPointTarget& target) {
  std::vector<double> values = layer.weight;
  if (layer.summand) {
    const RealSummand& summand = *layer.summand;
    values.insert(values.end(), summand.weight.begin(), summand.weight.end());
    if (!summand.shape) values.push_back(summand.factor);
  }
  const double largest = LargestOf(values);
  if (largest == 0) return std::nullopt;
  const std::optional<int> grid = Grid(values, largest);
  if (!grid) return std::nullopt;
  const double step = *grid / largest;
  const auto fits = [&](const std::optional<QuantisedLayer>& found) {
    return found && (!target.proven || Fits(found->values, bits));
  };
  const auto multiples = static_cast<int>(std::min<double>(most / step + 1, kMostMultiples));
  for (int k = 1; k <= multiples; ++k) {
    bool exact = false;
    auto found = WithScale(layer, k * step, bits, target, &exact);
    if (exact && fits(found)) return found;
  }
  for (double k = std::floor(most / step + 1); k >= 1; k = std::floor(k * (1 - 1.0 / 256)))
    if (auto found = WithScale(layer, k * step, bits, target); fits(found)) return found;
  return std::nullopt;
}

}  // namespace

RealRange ProvenRange(const RealLayer& layer) {
  const RealInterval values = ValuesOf(layer);
  return {values.low, values.high};
}

QuantisedLayer QuantiseForSign(const RealLayer& layer, unsigned bits) {
  CheckWidth(bits);
  TERCET_CHECK(!layer.summand, "a sum has one scale for all channels");
  const mpc::LinearShape& shape = layer.shape;
  const nn::WindowPatterns patterns(shape);
  const std::size_t depth = shape.Depth();
  const std::size_t area = shape.Out().height * shape.Out().width;
  QuantisedLayer result;
  double error = 0;
  std::size_t open = 0;
  for (std::size_t c = 0; c < shape.out_channels; ++c) {
    const double* weight = layer.weight.data() + c * depth;
    const ZeroSums zero(patterns, shape, layer.zero, c);
    const bool each = shape.bias_per_element;
    const Groups groups =
        each ? Groups(patterns, zero, layer.bias.data() + c * area, area) : Groups(layer.bias[c]);
    SignChannel channel(patterns, weight, depth, groups.biases, each, zero, layer.input_max, bits);
    channel.Quantise();
    result.weights.weight.insert(result.weights.weight.end(), channel.Weights().begin(),
                                 channel.Weights().end());
    for (const std::size_t group : groups.of)
      result.weights.bias.push_back(channel.Biases()[group]);
    if (channel.IsLost()) result.lost.push_back(c);
    if (!channel.IsOpen()) continue;
    ++open;
    error += channel.Error();
  }
  if (open > 0) result.error = std::sqrt(error / static_cast<double>(open));
  Prove(layer, bits, result);
  return result;
}

std::optional<QuantisedLayer> QuantiseFixedPoint(const RealLayer& layer, unsigned bits,
                                                 const FixedPointTarget& target) {
  CheckWidth(bits);
  TERCET_CHECK(target.proven || target.seen, "values that are not proven must have been seen");
  if (mpc::FunctionOf(target.activation).Shift() == mpc::ShiftRule::kIndexes) {
    if (bits < target.table_bits) return std::nullopt;
    const double scale =
        std::ldexp(1 / target.input_scale, static_cast<int>(bits - target.table_bits));
    auto found = WithScale(layer, scale, bits, target);
    return found && Fits(found->values, bits) ? found : std::nullopt;
  }
  double range = 0;
  if (target.proven) {
    range = ValuesOf(layer).Size();
  } else {
    // What rounding adds to the values seen must not take a bit of its own.
    range = std::max(target.seen->high, -target.seen->low) * std::exp2(target.head_room) *
            (1 + kRoundingRoom);
  }
  if (range <= 0) range = std::exp2(bits - 1) - 1;  // a scale of 1
  const double most = (std::exp2(bits - 1) - 1) / range;
  std::optional<QuantisedLayer> on_grid = OnGrid(layer, most, bits, target);
  if (on_grid && on_grid->error == 0) return on_grid;
  // Rounding may exceed the width of the reals a little; towards zero everything rounds to zero.
  for (double scale = most;; scale *= 1 - 1.0 / 256) {
    auto found = WithScale(layer, scale, bits, target);
    if (!found) return std::nullopt;
    if (target.proven && !Fits(found->values, bits)) continue;
    return on_grid && on_grid->error <= found->error ? on_grid : found;
  }
}

}  // namespace tercet::compile
