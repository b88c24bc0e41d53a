#include "tercet/nn/compile.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "nn/blocks.h"
#include "nn/compare_classes.h"
#include "nn/evaluate.h"
#include "nn/float_network.h"
#include "nn/input.h"
#include "nn/quantise.h"
#include "tercet/base/error.h"
#include "tercet/nn/announcement.h"
#include "tercet/nn/architecture.h"

namespace tercet::nn {
namespace {

using mpc::ActivationKind;

/// Calibration images: enough to tell 0.01 points apart, fewer for large networks, never so few
/// that chance decides.
constexpr std::size_t kMostImages = 10'000, kFewestImages = 1'000;
constexpr std::size_t kMacsPerPass = 20'000'000'000;
/// Images whose logits the oracle confirms after calibration.
constexpr std::size_t kConfirmed = 256;
constexpr std::size_t kConfirmedMacs = 5'000'000'000;
/// Of the largest weight of a layer as wide as can be; with fewer nothing sensible is computed.
constexpr unsigned kFewestWeightBits = 4;

/// Real numbers as integers 0..max: value = alpha * q, up to what the blocks have in their biases.
struct Encoding {
  double alpha;
  Int128 max;
};

Sample TakeSample(const Images& images, const std::vector<std::uint8_t>& labels, std::size_t macs) {
  const std::size_t affordable = kMacsPerPass / std::max<std::size_t>(macs, 1);
  const std::size_t count =
      std::min(images.count, std::clamp(affordable, kFewestImages, kMostImages));
  Sample sample{{images.shape, count, {}}, {}};
  const std::size_t size = images.shape.Size();
  for (std::size_t i = 0; i < count; ++i) {
    // Spread over the whole set, which may be sorted.
    const std::size_t from = i * images.count / count;
    const auto* pixels = images.pixels.data() + from * size;
    sample.images.pixels.insert(sample.images.pixels.end(), pixels, pixels + size);
    sample.labels.push_back(labels[from]);
  }
  return sample;
}

void CheckOptions(const CompileOptions& options, const InputSpec& input, std::size_t classes) {
  const bool ordered = kMinWidth <= options.min_bits && options.min_bits <= options.max_bits &&
                       options.max_bits <= kMaxWidth;
  if (!ordered || options.default_bits < kMinWidth || options.default_bits > kMaxWidth) {
    throw ConfigError(
        "compile widths",
        fmt::format(
            "found min_bits {}, max_bits {} and default_bits {}, expected {} <= min_bits <= "
            "max_bits <= {} and default_bits in the same range",
            options.min_bits, options.max_bits, options.default_bits, kMinWidth, kMaxWidth));
  }
  if (options.max_fixed_bits < options.min_bits || options.max_fixed_bits > kMaxWidth ||
      options.default_fixed_bits < kMinWidth || options.default_fixed_bits > kMaxWidth) {
    throw ConfigError("compile widths",
                      fmt::format("found max_fixed_bits {} and default_fixed_bits {}, expected "
                                  "min_bits, {}, and {} to {}",
                                  options.max_fixed_bits, options.default_fixed_bits,
                                  options.min_bits, kMinWidth, kMaxWidth));
  }
  if (options.activation_bits < 2 || options.activation_bits > 16)
    throw ConfigError("compile activation_bits",
                      fmt::format("found {}, expected 2 to 16", options.activation_bits));
  if (options.head_room > 16)
    throw ConfigError("compile head_room",
                      fmt::format("found {}, expected 0 to 16 bits", options.head_room));
  if (options.measured && options.calibration == nullptr)
    throw ConfigError("compile widths",
                      "found measured widths without calibration images, expected images");
  if (!(options.max_loss >= 0 && options.max_loss <= 100))
    throw ConfigError("compile max_loss",
                      fmt::format("found {}, expected 0 to 100 points", options.max_loss));
  if (options.calibration == nullptr) return;
  const Images& images = *options.calibration;
  if (images.shape != input.shape || images.count == 0) {
    throw ConfigError("calibration images",
                      fmt::format("found {} of {}, expected at least one of {}", images.count,
                                  ShapeText(images.shape), ShapeText(input.shape)));
  }
  const std::size_t labels = options.labels == nullptr ? 0 : options.labels->size();
  if (labels != images.count)
    throw ConfigError(
        "calibration labels",
        fmt::format("found {}, expected one for each of {} images", labels, images.count));
  const auto worst = std::max_element(options.labels->begin(), options.labels->end());
  if (*worst >= classes)
    throw ConfigError("calibration labels",
                      fmt::format("found {}, expected 0 to {}", *worst, classes - 1));
}

/// Index of the largest logit of each image.
std::vector<std::uint8_t> FloatPredictions(const std::vector<float>& logits, std::size_t classes) {
  std::vector<std::uint8_t> predictions(logits.size() / classes);
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    const auto first = logits.begin() + static_cast<std::ptrdiff_t>(i * classes);
    predictions[i] = static_cast<std::uint8_t>(
        std::max_element(first, first + static_cast<std::ptrdiff_t>(classes)) - first);
  }
  return predictions;
}

double Percent(const std::vector<std::uint8_t>& predictions,
               const std::vector<std::uint8_t>& labels) {
  std::size_t correct = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) correct += predictions[i] == labels[i] ? 1 : 0;
  return 100.0 * static_cast<double>(correct) / static_cast<double>(labels.size());
}

}  // namespace

/// One run of the compile step.
class Compiler {
 public:
  Compiler(const FloatNetwork& network, const mpc::Oracle& oracle, const CompileOptions& options,
           CompileReport& report)
      : network_(network), oracle_(oracle), options_(options), report_(report) {}

  IntegerNetwork Run() {
    const NetworkSpec& spec = network_.Spec();
    CheckOptions(options_, spec.input, spec.Classes());
    const bool only_class = options_.only_class.value_or(spec.output == "class");
    if (!only_class && spec.output == "class")
      throw ConfigError("compile output",
                        fmt::format("found logits, expected class: more than \"output\" of network "
                                    "{} says leaves no model",
                                    spec.name));
    blocks_ = MakeBlocks(spec);
    maps_ = MakeMaps(spec, blocks_, network_.state_->layers);
    layers_ = Architecture(spec, false).layers;
    for (const Block& block : blocks_) ReportProduct(block);
    Sample sample;
    if (options_.calibration != nullptr) {
      sample = TakeSample(*options_.calibration, *options_.labels, Macs());
      RunFloat(sample);
    }
    for (std::size_t l = 0; l < layers_.size(); ++l) widths_.push_back(WidestBits(l));
    QuantiseAll();
    if (options_.calibration != nullptr) {
      ChooseWidths(sample);
    } else {
      CapLogits();
      for (std::size_t l = 0; l < layers_.size(); ++l) ReportLayer(l, BoundText(l));
      Report(fmt::format(
          "no calibration images: every layer has {} bits{}", options_.default_bits,
          AnyFixedPoint() ? fmt::format(", in fixed point {}", options_.default_fixed_bits) : ""));
    }
    IntegerNetwork result = Assemble();
    report_.logit_scale = 1 / quantised_.back().scale;
    ProveWidths(result, spec.name);
    if (options_.calibration != nullptr) Confirm(result, sample);
    if (only_class) {
      CompareClasses(result);
      ProveWidths(result, spec.name);
      Report(fmt::format("{}: {} bits for the differences of {} logits; only the class is left",
                         layers_.back().name, result.net.layers.back().value_bits, spec.Classes()));
    }
    return result;
  }

 private:
  void Report(const std::string& line) {
    report_.lines.push_back(line);
    Progress(line);
  }
  void Progress(const std::string& line) const {
    if (options_.progress) options_.progress(line);
  }
  void ReportLayer(std::size_t l, const std::string& more) {
    Report(fmt::format("{}: {} bits, {}", layers_[l].name, widths_[l], more));
    if (quantised_[l].weight_bits == 0)
      Report(
          fmt::format("warning: layer {}: all weights round to zero; give it more bits, or "
                      "measure its width",
                      layers_[l].name));
  }
  std::string BoundText(std::size_t l) const {
    const Interval& values = quantised_[l].values;
    return fmt::format("values from {} to {}", IntegerText(values.low), IntegerText(values.high));
  }
  void ReportProduct(const Block& block) {
    if (block.multiplied.empty()) return;
    Report(fmt::format("{}: {} multiplied out, {} MACs become {}", block.layer.name,
                       fmt::join(block.multiplied, ", "), block.macs_before,
                       block.layer.linear.Macs()));
  }

  std::size_t Macs() const {
    return std::accumulate(layers_.begin(), layers_.end(), std::size_t{0},
                           [](std::size_t sum, const PublicLayer& layer) {
                             const auto& shortcut = layer.shortcut;
                             return sum + layer.linear.Macs() +
                                    (shortcut && shortcut->linear ? shortcut->linear->Macs() : 0);
                           });
  }

  bool GivesFixedPoint(std::size_t output) const {
    if (output == 0) return false;
    const ActivationKind kind = layers_[output - 1].activation;
    return kind == ActivationKind::kRelu || kind == ActivationKind::kSquare;
  }
  /// See CompileOptions.
  bool IsFixedPoint(std::size_t l) const {
    return GivesFixedPoint(l) || GivesFixedPoint(l + 1) || layers_[l].shortcut.has_value();
  }
  bool AnyFixedPoint() const {
    for (std::size_t l = 0; l < layers_.size(); ++l)
      if (IsFixedPoint(l)) return true;
    return false;
  }
  bool IsMeasured(std::size_t l) const { return options_.measured && IsFixedPoint(l); }

  unsigned LimitBits(std::size_t l) const {
    return IsFixedPoint(l) ? options_.max_fixed_bits : options_.max_bits;
  }
  unsigned WidestBits(std::size_t l) const {
    if (options_.calibration != nullptr) return LimitBits(l);
    return IsFixedPoint(l) ? options_.default_fixed_bits : options_.default_bits;
  }

  /// Accuracy and ranges of the float network on the sample.
  void RunFloat(const Sample& sample) {
    std::map<std::size_t, std::size_t> block_of;  // layer of the JSON -> block with those values
    for (std::size_t l = 0; l < blocks_.size(); ++l) block_of[blocks_[l].value_layer] = l;
    seen_.resize(blocks_.size());
    const auto observe = [&](std::size_t layer, const std::vector<float>& values) {
      const auto block = block_of.find(layer);
      if (block == block_of.end()) return;
      RealRange& range = seen_[block->second];
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      range = {std::min<double>(range.low, *low), std::max<double>(range.high, *high)};
    };
    const std::vector<float> logits =
        network_.state_->Run(sample.images, 0, sample.images.count, observe);
    report_.float_accuracy =
        Percent(FloatPredictions(logits, network_.Spec().Classes()), sample.labels);
    Report(fmt::format("float network: {:.2f} % of {} calibration images", report_.float_accuracy,
                       sample.images.count));
  }

  /// How what leaves the input or a layer of `network` stands for real numbers.
  Encoding EncodingOf(const std::vector<QuantisedLayer>& network, std::size_t output) const {
    if (output == 0) {
      const InputSpec& input = network_.Spec().input;
      const std::int64_t max = (std::int64_t{1} << input.bits) - 1;
      return {255.0 / static_cast<double>(max) / input.scale / input.std, max};
    }
    PublicLayer layer = layers_[output - 1];
    const QuantisedLayer& quantised = network[output - 1];
    layer.shift = quantised.shift;
    double alpha = 2;  // Sign: 0 and 1 for -1 and +1
    if (GivesFixedPoint(output)) {
      alpha = std::ldexp(1 / quantised.scale, static_cast<int>(quantised.shift));
      if (layer.activation == ActivationKind::kSquare) alpha *= alpha;
    }
    if (layer.sum_pool)
      alpha /= static_cast<double>(layer.sum_pool->kernel * layer.sum_pool->kernel);
    return {alpha, OutputMax(layer, quantised.values, layer.name)};
  }

  /// Layer l on the integers that the layers before it in `network` give.
  RealLayer Real(const std::vector<QuantisedLayer>& network, std::size_t l) const {
    const BlockMaps& maps = maps_[l];
    const auto scaled = [](std::vector<double> values, double factor) {
      for (double& v : values) v *= factor;
      return values;
    };
    const Encoding input = EncodingOf(network, l);
    RealLayer real{maps.map.shape, scaled(maps.map.weight, input.alpha), maps.map.bias, input.max,
                   std::nullopt};
    if (const auto& shortcut = layers_[l].shortcut) {
      const Encoding from = EncodingOf(network, shortcut->from);
      RealSummand summand;
      summand.input_max = from.max;
      summand.factor = from.alpha;
      if (maps.shortcut) {
        summand.shape = maps.shortcut->shape;
        summand.weight = scaled(maps.shortcut->weight, from.alpha);
      }
      real.summand = std::move(summand);
    }
    return real;
  }

  /// Quantises layer l of `network`, of which the layers before are quantised. False when it needs
  /// more bits.
  bool Quantise(std::vector<QuantisedLayer>& network, std::size_t l, unsigned bits) const {
    const RealLayer real = Real(network, l);
    if (layers_[l].activation == ActivationKind::kSign && !real.summand && !IsMeasured(l)) {
      network[l] = QuantiseForSign(real, bits);
      return true;
    }
    FixedPointTarget target;
    target.activation = layers_[l].activation;
    target.activation_bits = options_.activation_bits;
    if (!seen_.empty()) target.seen = seen_[l];
    target.proven = !IsMeasured(l);
    target.head_room = options_.head_room;
    std::optional<QuantisedLayer> found = QuantiseFixedPoint(real, bits, target);
    if (!found) return false;
    if (IsMeasured(l)) {
      const Int128 half = Int128{1} << (bits - 1);
      found->values = {-half, half - 1};
      // Bounds are not known; doubles are checked against the oracle in the end.
      found->exact_bits = std::numeric_limits<double>::digits;
    }
    network[l] = std::move(*found);
    return true;
  }

  /// Layer l with other bits, and those after it that its scale reaches. Nothing when one of them
  /// does not fit.
  std::optional<std::vector<QuantisedLayer>> Trial(std::size_t l, unsigned bits) const {
    std::vector<QuantisedLayer> trial = quantised_;
    if (!Quantise(trial, l, bits)) return std::nullopt;
    for (std::size_t next = l + 1; next < layers_.size() && GivesFixedPoint(l + 1); ++next)
      if (!Quantise(trial, next, widths_[next])) return std::nullopt;
    return trial;
  }

  void QuantiseAll() {
    quantised_.resize(layers_.size());
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      while (!Quantise(quantised_, l, widths_[l])) {
        if (widths_[l] == kMaxWidth) Refuse(l, "no factor of its residual");
        ++widths_[l];
      }
      if (widths_[l] == kMaxWidth &&
          quantised_[l].weight_bits.value_or(kFewestWeightBits) < kFewestWeightBits)
        Refuse(l, "next to nothing of its weights");
    }
  }
  [[noreturn]] void Refuse(std::size_t l, const std::string& what) const {
    throw ConfigError(
        fmt::format("network {} layer {}", network_.Spec().name, layers_[l].name),
        fmt::format("found values of so large a bound that {} is left with {} bits; {}", what,
                    kMaxWidth,
                    options_.measured ? "the layers have too different scales"
                                      : "measure the widths instead of proving them"));
  }

  /// All layers but the last, those with most activations first: their widths cost most, so they
  /// may lose most.
  std::vector<std::size_t> SearchOrder() const {
    std::vector<std::size_t> order(layers_.size() - 1);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
      return layers_[a].linear.Out().Size() > layers_[b].linear.Out().Size();
    });
    return order;
  }

  void ChooseWidths(const Sample& sample) {
    const Evaluator evaluator(layers_, network_.Spec().input, sample);
    const double widest = evaluator.Accuracy(quantised_, evaluator.Input());
    const std::string widths =
        AnyFixedPoint()
            ? fmt::format("{} bits (in fixed point {})", options_.max_bits, options_.max_fixed_bits)
            : fmt::format("{} bits", options_.max_bits);
    Report(fmt::format("{} in every layer: {:.2f} %", widths, widest));

    double elements = 0, share = 0;
    for (const std::size_t l : SearchOrder())
      elements += static_cast<double>(layers_[l].linear.Out().Size());
    double accuracy = widest;
    for (const std::size_t l : SearchOrder()) {
      share += static_cast<double>(layers_[l].linear.Out().Size()) / elements;
      accuracy = ChooseWidth(evaluator, l, widest - options_.max_loss * share, accuracy);
    }
    const std::size_t last = layers_.size() - 1;
    accuracy = ChooseWidth(evaluator, last, widest - options_.max_loss, accuracy);
    // There are only a few logits, so some room costs next to nothing.
    accuracy = Widen(evaluator, last, 2, widest - options_.max_loss, accuracy);
    if (CapLogits()) accuracy = evaluator.Accuracy(quantised_, evaluator.Input());

    std::vector<ValueRange> ranges;
    evaluator.Accuracy(quantised_, evaluator.Input(), &ranges);
    for (std::size_t l = 0; l < layers_.size(); ++l) ReportRange(l, ranges[l]);
    report_.integer_accuracy = accuracy;
    Report(fmt::format(
        "chosen widths: {:.2f} %, a loss of {:.2f} points against {} and of {:.2f} against the "
        "float network",
        accuracy, widest - accuracy, widths, report_.float_accuracy - accuracy));
  }

  /// Reports the range seen; a measured width is that of the range, with head-room.
  void ReportRange(std::size_t l, const ValueRange& range) {
    if (IsMeasured(l)) {
      widths_[l] =
          std::max({range.Bits() + options_.head_room, quantised_[l].shift + 1, kMinWidth});
      if (widths_[l] > kMaxWidth)
        throw ConfigError(fmt::format("network {} layer {}", network_.Spec().name, layers_[l].name),
                          fmt::format("its values need {} bits with head-room, expected at most {}",
                                      widths_[l], kMaxWidth));
    }
    const double room = range.HeadRoom(widths_[l]);
    ReportLayer(l,
                fmt::format("{}, seen from {} to {}, head-room {:.1f} bits, {:.2f} % when chosen",
                            IsMeasured(l) ? "measured" : BoundText(l), range.low, range.high, room,
                            chosen_accuracy_[l]));
    if (IsMeasured(l) && room < 1)
      Report(
          fmt::format("warning: layer {}: values not seen in calibration may not fit; ask for "
                      "more head-room",
                      layers_[l].name));
  }

  // Comparing with `floor`, sums of doubles must not decide: one image weighs far more than this.
  static bool Reaches(double accuracy, double floor) { return accuracy >= floor - 1e-9; }

  /// Finds a small width of layer l, those of the others fixed, with at least the accuracy `floor`,
  /// which the present one has. The accuracy then.
  double ChooseWidth(const Evaluator& evaluator, std::size_t l, double floor, double accuracy) {
    const Activations before = evaluator.Advance(quantised_, evaluator.Input(), l);
    unsigned low = options_.min_bits;  // widths below are not asked for; widths_[l] is known to do
    while (low < widths_[l]) {
      const unsigned middle = (low + widths_[l]) / 2;
      auto trial = Trial(l, middle);
      const double found = trial ? evaluator.Accuracy(*trial, before) : 0;
      Progress(fmt::format("{}: {} bits would give {:.2f} %", layers_[l].name, middle, found));
      if (trial && Reaches(found, floor)) {
        widths_[l] = middle;
        quantised_ = std::move(*trial);
        accuracy = found;
      } else {
        low = middle + 1;
      }
    }
    chosen_accuracy_.resize(layers_.size());
    chosen_accuracy_[l] = accuracy;
    return accuracy;
  }

  double Widen(const Evaluator& evaluator, std::size_t l, unsigned more, double floor,
               double accuracy) {
    const unsigned bits = std::min(widths_[l] + more, LimitBits(l));
    auto trial = Trial(l, bits);
    if (!trial) return accuracy;
    const double found =
        evaluator.Accuracy(*trial, evaluator.Advance(quantised_, evaluator.Input(), l));
    if (!Reaches(found, floor)) return accuracy;
    widths_[l] = bits;
    quantised_ = std::move(*trial);
    chosen_accuracy_[l] = found;
    return found;
  }

  /// Narrows logits that are wider than the architecture can need, which no other party would
  /// accept. Whether that was so.
  bool CapLogits() {
    const std::size_t last = layers_.size() - 1;
    const unsigned most = MostLogitBits(AssemblePublic());
    if (widths_[last] <= most) return false;
    auto trial = Trial(last, most);
    if (!trial) Refuse(last, "no factor of its residual");
    widths_[last] = most;
    quantised_ = std::move(*trial);
    return true;
  }

  PublicNetwork AssemblePublic() const {
    PublicNetwork network = Architecture(network_.Spec(), false);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      PublicLayer& layer = network.layers[l];
      layer.value_bits = widths_[l];
      layer.shift = quantised_[l].shift;
      layer.proven = !IsMeasured(l);
    }
    return network;
  }

  IntegerNetwork Assemble() const {
    IntegerNetwork result{AssemblePublic(), {}};
    for (const QuantisedLayer& layer : quantised_) result.weights.push_back(layer.weights);
    return result;
  }

  /// The calibration computed with floating point; the oracle must agree.
  void Confirm(const IntegerNetwork& result, const Sample& sample) const {
    const std::size_t affordable =
        std::clamp<std::size_t>(kConfirmedMacs / std::max<std::size_t>(Macs(), 1), 1, kConfirmed);
    const std::size_t count = std::min(affordable, sample.images.count);
    Sample part{{sample.images.shape, count, {}}, {}};
    part.images.pixels.assign(sample.images.pixels.begin(),
                              sample.images.pixels.begin() +
                                  static_cast<std::ptrdiff_t>(count * sample.images.shape.Size()));
    // Taking the oracle's predictions as labels, all must be found again.
    part.labels =
        Predictions(RunPlain(result, oracle_, part.images, 0, count), result.net.Classes());
    const Evaluator evaluator(layers_, network_.Spec().input, part);
    const double agreement = evaluator.Accuracy(quantised_, evaluator.Input());
    TERCET_CHECK(agreement == 100, "calibration and oracle agree on {} % of {} images only",
                 agreement, count);
  }

  const FloatNetwork& network_;
  const mpc::Oracle& oracle_;
  const CompileOptions& options_;
  CompileReport& report_;
  std::vector<Block> blocks_;
  std::vector<BlockMaps> maps_;
  std::vector<PublicLayer> layers_;
  std::vector<RealRange>
      seen_;  // of each layer's values in the float network; empty without sample
  std::vector<unsigned> widths_;
  std::vector<QuantisedLayer> quantised_;
  std::vector<double> chosen_accuracy_;
};

IntegerNetwork Compile(const FloatNetwork& network, const mpc::Oracle& oracle,
                       const CompileOptions& options, CompileReport* report) {
  CompileReport unused;
  CompileReport& filled = report == nullptr ? unused : *report;
  filled = {};
  return Compiler(network, oracle, options, filled).Run();
}

}  // namespace tercet::nn
