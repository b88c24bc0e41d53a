// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/compile.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "base/json.h"
#include "compile/agreement.h"
#include "compile/blocks.h"
#include "compile/compare_classes.h"
#include "compile/evaluate.h"
#include "compile/quantise.h"
#include "nn/float_network_state.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/compile/announcement.h"
#include "tercet/compile/architecture.h"
#include "tercet/nn/run_plain.h"

namespace tercet::compile {
namespace {

using mpc::ActivationKind;

/// Calibration images: enough to tell 0.01 points apart, fewer for large networks, never so few
/// that chance decides.
constexpr std::size_t kMostImages = 10'000, kFewestImages = 1'000;
constexpr std::size_t kMacsPerPass = 20'000'000'000;
/// Synthetic images, which are run once.
constexpr std::size_t kMostSynthetic = 512, kFewestSynthetic = 16;
/// Images whose logits the oracle confirms after calibration.
constexpr std::size_t kConfirmed = 256;
constexpr std::size_t kConfirmedMacs = 5'000'000'000;
/// What the roundings of a layer may add to its sums, as a part of their size, where widths are
/// chosen without images, and where the search begins.
constexpr double kPrecision = 1.0 / 1024;
/// The same beyond which next to nothing of the weights is left.
constexpr double kMostError = 0.25;
/// Bits of activations beyond those asked for that are tried, and the most there may be.
constexpr unsigned kMoreActivationBits = 4, kMostActivationBits = 16;
/// Widths that are given, where only one is.
constexpr unsigned kDefaultBits = 14, kDefaultFixedBits = 28;

/// Real numbers as integers 0..max: value = alpha * q, up to what the blocks have in their biases.
struct Encoding {
  double alpha;
  Int128 max;
};

std::size_t Affordable(std::size_t macs, std::size_t fewest, std::size_t most) {
  return std::clamp(kMacsPerPass / std::max<std::size_t>(macs, 1), fewest, most);
}

void CheckOptions(const CompileOptions& options, const nn::InputSpec& input, std::size_t classes) {
  const auto check = [](const char* what, double found, double low, double high, const char* unit) {
    if (!(found >= low && found <= high))
      throw ConfigError(fmt::format("compile {}", what),
                        fmt::format("found {}, expected {} to {}{}", found, low, high, unit));
  };
  if (options.min_bits < kMinWidth || options.min_bits > options.max_bits ||
      options.max_bits > kMaxWidth) {
    throw ConfigError("compile widths",
                      fmt::format("found min_bits {} and max_bits {}, expected {} <= min_bits <= "
                                  "max_bits <= {}",
                                  options.min_bits, options.max_bits, kMinWidth, kMaxWidth));
  }
  for (const unsigned bits : {options.default_bits, options.default_fixed_bits})
    if (bits != 0) check("default_bits", bits, kMinWidth, kMaxWidth, "");
  check("activation_bits", options.activation_bits, 2, kMostActivationBits, "");
  check("head_room", options.head_room, 0, 16, " bits");
  check("norm_scale", options.norm_scale, 0, kMaxNormScale, "");
  check("max_loss", options.max_loss, 0, 100, " percent");
  check("max_noise", options.max_noise, 0, 1, "");
  check("min_agreement", options.min_agreement, 0, 100, " percent");
  if (options.measured && options.calibration == nullptr)
    throw ConfigError("compile widths",
                      "found measured widths without calibration images, expected images");
  if (options.calibration == nullptr) return;
  const files::Images& images = *options.calibration;
  if (images.shape != input.shape || images.count == 0) {
    throw ConfigError("calibration images",
                      fmt::format("found {} of {}, expected at least one of {}", images.count,
                                  mpc::ShapeText(images.shape), mpc::ShapeText(input.shape)));
  }
  if (options.labels == nullptr) return;
  if (options.labels->size() != images.count)
    throw ConfigError("calibration labels",
                      fmt::format("found {}, expected one for each of {} images",
                                  options.labels->size(), images.count));
  const auto worst = std::max_element(options.labels->begin(), options.labels->end());
  if (*worst >= classes)
    throw ConfigError("calibration labels",
                      fmt::format("found {}, expected 0 to {}", *worst, classes - 1));
}

double Percent(const std::vector<std::uint8_t>& predictions,
               const std::vector<std::uint8_t>& labels) {
  std::size_t correct = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) correct += predictions[i] == labels[i] ? 1 : 0;
  return 100.0 * static_cast<double>(correct) / static_cast<double>(labels.size());
}

std::string AgreementText(const Agreement& agreement) {
  return fmt::format(
      "{:.2f} % predicted alike ({:.2f} % otherwise beyond near ties), noise {:.2g} %",
      agreement.same, agreement.apart, 100 * agreement.noise);
}

}  // namespace

/// One run of the compile step.
class Compiler {
 public:
  Compiler(const nn::FloatNetwork& network, const mpc::Oracle& oracle,
           const CompileOptions& options, CompileReport& report)
      : network_(network), oracle_(oracle), options_(options), report_(report) {}

  nn::IntegerNetwork Run() {
    const nn::NetworkSpec& spec = network_.Spec();
    CheckOptions(options_, spec.input, spec.Classes());
    const bool only_class = options_.only_class.value_or(spec.output == "class");
    if (!only_class && spec.output == "class")
      throw ConfigError("compile output",
                        fmt::format("found logits, expected class: more than \"output\" of network "
                                    "{} says leaves no model",
                                    spec.name));
    blocks_ = MakeBlocks(spec);
    maps_ = MakeMaps(spec, blocks_, network_.state_->layers, options_.norm_scale);
    layers_ = Architecture(spec, false).layers;
    for (const Block& block : blocks_) ReportProduct(block);
    for (const std::string& remark : nn::Remarks(spec)) Warn(remark);
    TakeImages();
    QuantiseAll();
    if (reference_ && AnyFixedPoint()) RefineActivations();
    CheckWeights();
    if (options_.calibration != nullptr) {
      ChooseWidths();
    } else {
      CapLogits();
      for (std::size_t l = 0; l < layers_.size(); ++l) ReportLayer(l, BoundText(l));
    }
    CheckWeights();
    if (reference_) CheckAgreement();
    if (extreme_reference_) CheckExtremes();
    nn::IntegerNetwork result = Assemble();
    report_.logit_scale = 1 / quantised_.back().scale;
    ProveWidths(result, spec.name);
    if (options_.calibration != nullptr) Confirm(result);
    if (only_class) {
      CompareClasses(result);
      ProveWidths(result, spec.name);
      Report(fmt::format("{}: {} bits for the differences of {} logits; only the class is left",
                         layers_.back().name, result.net.layers.back().value_bits, spec.Classes()));
    }
    result.warnings = warnings_;
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
  void Warn(const std::string& text) {
    warnings_.push_back(text);
    Report(kWarningLine + text);
  }
  /// What the network may lose only where that is asked for.
  void Lose(const std::string& place, const std::string& problem, const std::string& remedy) {
    if (!options_.accept_loss)
      throw ConfigError(fmt::format("network {}{}", network_.Spec().name, place),
                        fmt::format("{}; {}, or accept the loss (--accept-loss)", problem, remedy));
    Warn(fmt::format("{}{}", place.empty() ? "" : place.substr(1) + ": ", problem));
  }
  void ReportLayer(std::size_t l, const std::string& more) {
    Report(fmt::format("{}: {} bits, {}", layers_[l].name, widths_[l], more));
  }
  std::string BoundText(std::size_t l) const {
    const Interval& values = quantised_[l].values;
    return fmt::format("values from {} to {}{}", IntegerText(values.low), IntegerText(values.high),
                       quantised_[l].error == 0 ? ", exact weights"
                                                : fmt::format(", rounding {:.2g} % of the sums",
                                                              100 * quantised_[l].error));
  }
  void ReportProduct(const Block& block) {
    if (block.multiplied.empty()) return;
    Report(fmt::format("{}: {} multiplied out, {} MACs become {}", block.layer.name,
                       fmt::join(block.multiplied, ", "), block.macs_before,
                       block.layer.linear.Macs()));
  }

  std::size_t Macs(std::size_t from = 0) const {
    return std::accumulate(layers_.begin() + static_cast<std::ptrdiff_t>(from), layers_.end(),
                           std::size_t{0}, [](std::size_t sum, const nn::PublicLayer& layer) {
                             const auto& shortcut = layer.shortcut;
                             return sum + layer.linear.Macs() +
                                    (shortcut && shortcut->linear ? shortcut->linear->Macs() : 0);
                           });
  }

  const mpc::ActivationFunction& FunctionOf(std::size_t l) const {
    return mpc::FunctionOf(layers_[l].activation);
  }
  bool LooksUp(std::size_t l) const { return FunctionOf(l).Shift() == mpc::ShiftRule::kIndexes; }
  bool GivesFixedPoint(std::size_t output) const {
    return output > 0 && FunctionOf(output - 1).FixedPoint();
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
  /// What is looked up must be in the table.
  bool IsMeasured(std::size_t l) const {
    return options_.measured && IsFixedPoint(l) && !LooksUp(l);
  }
  /// Whether no image is asked what width a layer needs.
  bool WidthsGiven() const {
    return options_.calibration == nullptr &&
           (options_.default_bits != 0 || options_.default_fixed_bits != 0);
  }
  unsigned GivenBits(std::size_t l) const {
    const unsigned bits = IsFixedPoint(l) ? options_.default_fixed_bits : options_.default_bits;
    return bits != 0 ? bits : IsFixedPoint(l) ? kDefaultFixedBits : kDefaultBits;
  }

  /// Images to measure on, and what the float network makes of them.
  void TakeImages() {
    if (WidthsGiven()) return;
    if (const files::Images* given = options_.calibration; given != nullptr) {
      const std::vector<std::size_t> drawn =
          Draw(given->count, Affordable(Macs(), kFewestImages, kMostImages));
      images_ = Chosen(*given, drawn);
      report_.images = images_.count;
      if (options_.labels != nullptr)
        for (const std::size_t index : drawn) labels_.push_back((*options_.labels)[index]);
      Report(images_.count == given->count
                 ? fmt::format("{} calibration images, all of them used", images_.count)
                 : fmt::format("{} of {} calibration images used, drawn at random", images_.count,
                               given->count));
    } else {
      images_ = SyntheticImages(network_.Spec().input.shape,
                                Affordable(8 * Macs(), kFewestSynthetic, kMostSynthetic));
      Report(
          fmt::format("no calibration images: each layer gets the width that its weights and "
                      "inputs need, compared on {} synthetic images",
                      images_.count));
    }
    reference_ = RunFloat(images_, float_seen_);
    if (!labels_.empty()) {
      report_.float_accuracy = Percent(reference_->Predictions(), labels_);
      Report(fmt::format("float network: {:.2f} % of {} calibration images", report_.float_accuracy,
                         images_.count));
    }
    if (options_.calibration == nullptr) {
      extremes_ = ExtremeImages(network_.Spec().input.shape);
      extreme_reference_ = RunFloat(extremes_, extreme_seen_);
    }
    CheckImages();
    WarnOfMissingClasses();
  }

  Reference RunFloat(const files::Images& images, std::vector<Seen>& seen) const {
    // Layer of the JSON -> blocks with those values.
    std::multimap<std::size_t, std::size_t> blocks_of;
    for (std::size_t l = 0; l < blocks_.size(); ++l) blocks_of.emplace(blocks_[l].value_layer, l);
    seen.resize(blocks_.size());
    const auto observe = [&](std::size_t layer, const std::vector<float>& values) {
      if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
        throw ConfigError(
            fmt::format("network {} layer {}", network_.Spec().name,
                        network_.Spec().layers[layer].name),
            "its output in float arithmetic overflows to infinity or is no number; use smaller "
            "weights or another scale of the input");
      // A max-pool before the activation leaves fewer than the block's linear map gives.
      const std::size_t count = values.size() / network_.Spec().layers[layer].out.Size();
      const auto [first, last] = blocks_of.equal_range(layer);
      for (auto block = first; block != last; ++block) {
        const std::optional<ClipPart>& clip = blocks_[block->second].clip;
        if (!clip) {
          seen[block->second].Add(values, count);
          continue;
        }
        std::vector<float> parts(values);
        for (float& v : parts) v = static_cast<float>(clip->Value(v));
        seen[block->second].Add(parts, count);
      }
    };
    const std::vector<float> logits = network_.state_->Run(images, 0, images.count, observe);
    return {logits, network_.Spec().Classes(), reference_ ? &*reference_ : nullptr};
  }

  /// Images on which a layer gives always the same tell nothing of the width that it needs.
  void CheckImages() {
    if (options_.calibration == nullptr) return;
    for (std::size_t l = 0; l < layers_.size(); ++l)
      if (!float_seen_[l].Varies(layers_[l].activation) && complained_of_images_.insert(l).second)
        Lose(" layer " + layers_[l].name,
             fmt::format("its output is the same for all {} calibration images, so they tell "
                         "nothing of its width",
                         images_.count),
             "give more and other images, or none");
  }

  /// Of what classes there is no example.
  void WarnOfMissingClasses() {
    if (options_.calibration == nullptr || network_.Spec().Classes() < 2) return;
    const std::vector<std::uint8_t>& classes =
        labels_.empty() ? reference_->Predictions() : labels_;
    std::vector<std::size_t> missing;
    for (std::size_t c = 0; c < network_.Spec().Classes(); ++c)
      if (std::find(classes.begin(), classes.end(), c) == classes.end()) missing.push_back(c);
    if (missing.empty()) return;
    Warn(fmt::format("no calibration image is {} class{} {}: the widths were chosen without any",
                     labels_.empty() ? "predicted as" : "of", missing.size() > 1 ? "es" : "",
                     fmt::join(missing, ", ")));
  }

  /// How what leaves the input or a layer of `network` stands for real numbers.
  Encoding EncodingOf(const std::vector<QuantisedLayer>& network, std::size_t output) const {
    if (output == 0) {
      const nn::InputSpec& input = network_.Spec().input;
      const std::int64_t max = (std::int64_t{1} << input.bits) - 1;
      return {255.0 / static_cast<double>(max) / input.scale / input.std, max};
    }
    nn::PublicLayer layer = layers_[output - 1];
    const QuantisedLayer& quantised = network[output - 1];
    layer.shift = quantised.shift;
    const double step = std::ldexp(1 / quantised.scale, static_cast<int>(quantised.shift));
    double alpha = FunctionOf(output - 1).Unit(step, blocks_[output - 1].encoding.unit);
    if (layer.sum_pool)
      alpha /= static_cast<double>(layer.sum_pool->Divisor(layer.Activation(1).Out()));
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
    const auto zero_of = [](const Offset& offset, double alpha) {
      Zero zero{offset.beta, offset.uneven};
      for (double& v : zero.at) v /= -alpha;
      return zero;
    };
    RealLayer real{maps.map.shape, scaled(maps.map.weight, input.alpha), maps.map.bias,
                   input.max,      zero_of(maps.offset, input.alpha),    std::nullopt};
    if (const auto& shortcut = layers_[l].shortcut) {
      const Encoding from = EncodingOf(network, shortcut->from);
      RealSummand summand;
      summand.input_max = from.max;
      summand.factor = from.alpha;
      summand.zero = zero_of(maps.shortcut_offset, from.alpha);
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
    if (FunctionOf(l).ScaleFree() && !real.summand && !IsMeasured(l)) {
      network[l] = QuantiseForSign(real, bits);
      Negate(maps_[l].negated, layers_[l].linear, network[l]);
      return true;
    }
    FixedPointTarget target;
    target.activation = layers_[l].activation;
    target.activation_bits = activation_bits_;
    target.table_bits = layers_[l].Activation(1).TableBits();
    target.input_scale = blocks_[l].encoding.input_scale;
    if (!float_seen_.empty()) target.seen = {float_seen_[l].low, float_seen_[l].high};
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
    Negate(maps_[l].negated, layers_[l].linear, network[l]);
    return true;
  }

  /// Of channels that give -x for the Sign x, the bit that says v >= 0 is turned: -v - 1 is 0 or
  /// more where v is not.
  static void Negate(const std::vector<bool>& negated, const mpc::LinearShape& shape,
                     QuantisedLayer& layer) {
    if (negated.empty()) return;
    nn::LayerWeights& weights = layer.weights;
    for (std::size_t i = 0; i < weights.weight.size(); ++i)
      if (negated[i / shape.Depth()]) weights.weight[i] = -weights.weight[i];
    const std::size_t each = weights.bias.size() / negated.size();
    for (std::size_t i = 0; i < weights.bias.size(); ++i)
      if (negated[i / each]) weights.bias[i] = -weights.bias[i] - 1;
    // As -v - 1 has the other sign's bounds.
    layer.values = {std::min(layer.values.low, -layer.values.high - 1),
                    std::max(layer.values.high, -layer.values.low - 1)};
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

  /// The widest that the layers may be, each with the width that it is given or that it needs.
  void QuantiseAll() {
    if (const std::optional<std::size_t> layer = QuantiseEach())
      Refuse(*layer, "no factor of its residual");
  }
  /// The layer that does not fit, if there is one.
  std::optional<std::size_t> QuantiseEach() {
    quantised_.assign(layers_.size(), {});
    widths_.clear();
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      widths_.push_back(WidthsGiven() ? GivenBits(l) : NeededBits(l));
      while (!Quantise(quantised_, l, widths_[l])) {
        if (widths_[l] == kMaxWidth) return l;
        ++widths_[l];
      }
    }
    return std::nullopt;
  }

  /// More bits of what leaves ReLU and square, where those asked for make more noise than narrower
  /// widths shall; as many as make the least.
  void RefineActivations() {
    const Evaluator evaluator(layers_, network_.Spec().input, images_);
    const auto noise = [&] {
      return reference_->Compare(evaluator.Logits(quantised_, evaluator.Input())).noise;
    };
    double least = noise();
    const unsigned asked = activation_bits_;
    auto best = std::tuple(activation_bits_, quantised_, widths_);
    for (unsigned more = 1; more <= kMoreActivationBits && least > options_.max_noise / 2 &&
                            asked + more <= kMostActivationBits;
         ++more) {
      activation_bits_ = asked + more;
      if (QuantiseEach()) break;
      const double found = noise();
      Progress(fmt::format("activations of {} bits: noise {:.2g} %", asked + more, 100 * found));
      if (found >= least) continue;
      least = found;
      best = std::tuple(activation_bits_, quantised_, widths_);
    }
    std::tie(activation_bits_, quantised_, widths_) = std::move(best);
    if (activation_bits_ != asked)
      Report(fmt::format("activations keep {} bits, as {} are too few for this network",
                         activation_bits_, asked));
  }

  /// The fewest bits with which a layer's sums are precise, as far as there are.
  unsigned NeededBits(std::size_t l) {
    unsigned low = options_.min_bits, high = options_.max_bits;
    while (low < high) {
      const unsigned middle = (low + high) / 2;
      const bool enough = Quantise(quantised_, l, middle) && quantised_[l].error <= kPrecision &&
                          LostChannels(l).empty();
      (enough ? high : low) = enough ? middle : middle + 1;
    }
    return high;
  }

  /// Output channels without weights that the float network has a use for.
  std::vector<std::size_t> LostChannels(std::size_t l) const { return LostChannels(quantised_, l); }
  std::vector<std::size_t> LostChannels(const std::vector<QuantisedLayer>& network,
                                        std::size_t l) const {
    std::vector<std::size_t> lost = network[l].lost;
    if (!float_seen_.empty())
      std::erase_if(lost, [&](std::size_t channel) {
        const double scale = network[l].scale;
        return !ChannelMatters(float_seen_, l, channel, scale) &&
               (extreme_seen_.empty() || !ChannelMatters(extreme_seen_, l, channel, scale));
      });
    return lost;
  }
  bool ChannelMatters(const std::vector<Seen>& all, std::size_t l, std::size_t channel,
                      double scale) const {
    const Seen& seen = all[l];
    const std::size_t channels = layers_[l].linear.out_channels;
    if (!seen.ChannelVaries(layers_[l].activation, channel, channels)) return false;
    // What does not come to half an integer could not be seen either.
    if (FunctionOf(l).ScaleFree()) return true;
    const std::size_t area = seen.lows.size() / channels;
    for (std::size_t e = channel * area; e < (channel + 1) * area; ++e)
      if ((seen.highs[e] - seen.lows[e]) * scale >= 0.5) return true;
    return false;
  }

  void CheckWeights() {
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const std::vector<std::size_t> lost = LostChannels(l);
      const std::size_t channels = layers_[l].linear.out_channels;
      const bool little = quantised_[l].error > kMostError;
      if (lost.empty() && !little) continue;
      if (!complained_of_weights_.insert(l).second) continue;
      Lose(" layer " + layers_[l].name,
           lost.size() == channels
               ? fmt::format("all weights round to zero with {} bits", widths_[l])
           : !lost.empty()
               ? fmt::format("all weights of {} of {} output channels round to zero with {} bits",
                             lost.size(), channels, widths_[l])
               : fmt::format("next to nothing of its weights is left with {} bits", widths_[l]),
           Remedy(l));
    }
  }
  std::string Remedy(std::size_t l) const {
    if (widths_[l] < kMaxWidth) return "allow it more bits (--max-bits)";
    return options_.measured ? "the layers have too different scales"
                             : "its values have too large a bound: measure the widths on images "
                               "instead of proving them (--widths measured)";
  }
  [[noreturn]] void Refuse(std::size_t l, const std::string& what) const {
    if (LooksUp(l)) {
      const double half = static_cast<double>(layers_[l].table.size()) / 2;
      const double step = blocks_[l].encoding.input_scale;
      const RealRange values = ProvenRange(Real(quantised_, l));
      throw ConfigError(
          fmt::format("network {} layer {}", network_.Spec().name, layers_[l].name),
          fmt::format("found values from {:.4g} to {:.4g} over all images, which its table of "
                      "{:.4g} to {:.4g} does not hold; expected a larger input_scale, more values "
                      "or smaller weights, or a table before it that saturates earlier",
                      values.low, values.high, (-half - 0.5) * step, (half - 0.5) * step));
    }
    throw ConfigError(
        fmt::format("network {} layer {}", network_.Spec().name, layers_[l].name),
        fmt::format("found values of so large a bound that {} is left with {} bits; {}", what,
                    kMaxWidth,
                    options_.measured ? "the layers have too different scales"
                                      : "measure the widths instead of proving them"));
  }

  /// What the chosen integers make of the images, beside the float network.
  void CheckAgreement() {
    const Evaluator evaluator(layers_, network_.Spec().input, images_);
    std::vector<Seen> seen;
    const std::vector<double> logits = evaluator.Logits(quantised_, evaluator.Input(), &seen);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const ActivationKind activation = layers_[l].activation;
      if (seen[l].Varies(activation, quantised_[l].shift) || !float_seen_[l].Varies(activation))
        continue;
      if (complained_of_weights_.insert(l).second)
        Lose(" layer " + layers_[l].name,
             fmt::format("with {} bits its output is the same for all {} images", widths_[l],
                         images_.count),
             Remedy(l));
    }
    const Agreement found = reference_->Compare(logits);
    report_.agreement = found.same;
    report_.noise = found.noise;
    const char* what = options_.calibration != nullptr ? "calibration" : "synthetic";
    const auto predictions = nn::Predictions(logits, network_.Spec().Classes());
    if (!labels_.empty()) {
      report_.integer_accuracy = Percent(predictions, labels_);
      Report(
          fmt::format("accuracy on the {} calibration images: float network {:.2f} %, integer "
                      "network {:.2f} %",
                      images_.count, report_.float_accuracy, report_.integer_accuracy));
    }
    Report(fmt::format("integer and float network on {} {} images: {}", images_.count, what,
                       AgreementText(found)));
    const double most = std::max(100 - options_.min_agreement, options_.max_loss);
    CheckPredictions(predictions, found, most);
    if (found.apart <= most) return;
    const std::size_t worst = static_cast<std::size_t>(
        std::max_element(quantised_.begin(), quantised_.end(),
                         [](const auto& a, const auto& b) { return a.error < b.error; }) -
        quantised_.begin());
    const bool rounded = quantised_[worst].error > 2 * kPrecision;
    Lose(rounded ? " layer " + layers_[worst].name : "",
         fmt::format("the integer network predicts {:.1f} % of {} {} images otherwise than the "
                     "float network (near ties not counted), expected at most {:.1f} %{}",
                     found.apart, images_.count, what, most,
                     rounded ? fmt::format("; most is lost in this layer of {} bits, whose sums "
                                           "are {:.1f} % off",
                                           widths_[worst], 100 * quantised_[worst].error)
                             : ""),
         options_.calibration == nullptr ? "give training images to choose the widths with"
         : rounded && widths_[worst] == options_.max_bits && options_.max_bits < kMaxWidth
             ? "allow more bits (--max-bits)"
             : fmt::format("keep more of the float network (--max-noise, --max-loss{})",
                           AnyFixedPoint() ? ", --activation-bits" : ""));
  }

  /// What a sample does not show: it may not use all that the widths have room for. No value is too
  /// large for its width, which is proven.
  void CheckExtremes() {
    const Evaluator evaluator(layers_, network_.Spec().input, extremes_);
    const Agreement found =
        extreme_reference_->Compare(evaluator.Logits(quantised_, evaluator.Input()));
    if (found.apart <= std::max(100 - options_.min_agreement, options_.max_loss)) return;
    Warn(
        fmt::format("the integer network predicts {:.0f} of {} extreme images (black, white and "
                    "checkerboards) otherwise than the float network: unlike the synthetic images, "
                    "they need more than it keeps; give training images to choose the widths with",
                    found.apart * static_cast<double>(extremes_.count) / 100, extremes_.count));
  }

  /// What near ties, which the agreement leaves out, could hide: `most` percent may be lost.
  void CheckPredictions(const std::vector<std::uint8_t>& predictions, const Agreement& found,
                        double most) {
    const auto constant = [](const std::vector<std::uint8_t>& classes) {
      return std::adjacent_find(classes.begin(), classes.end(), std::not_equal_to<>()) ==
             classes.end();
    };
    const char* remedy = "give other images, or keep more of the float network (--max-noise)";
    if (constant(predictions) && !constant(reference_->Predictions()))
      Lose("",
           fmt::format("the integer network predicts class {} for all {} images, the float network "
                       "does not",
                       predictions.front(), images_.count),
           remedy);
    else if (const double lost = report_.float_accuracy - report_.integer_accuracy;
             !labels_.empty() && lost > most)
      Lose("",
           fmt::format("the integer network is {:.2f} points less accurate than the float network "
                       "on {} images, expected at most {:.1f}",
                       lost, images_.count, most),
           remedy);
    else if (found.apart <= most && 100 - found.same > 2 * most + 1)
      Warn(
          fmt::format("{:.1f} % of the predictions differ from the float network's, nearly all of "
                      "them on images whose largest logits are close",
                      100 - found.same));
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

  /// What a network may be off when the layers with `share` of the activations are chosen: errors
  /// of independent roundings add up in squares.
  struct Limits {
    Agreement widest;
    double max_noise = 0, max_loss = 0;
    bool Allow(const Agreement& found, double share) const {
      const double noise = std::sqrt(widest.noise * widest.noise + share * max_noise * max_noise);
      // Sums of doubles must not decide: one image weighs far more than this.
      return found.noise <= noise + 1e-12 && found.apart <= widest.apart + share * max_loss + 1e-9;
    }
  };

  void ChooseWidths() {
    const Evaluator evaluator(layers_, network_.Spec().input, images_);
    const Limits limits{reference_->Compare(evaluator.Logits(quantised_, evaluator.Input())),
                        options_.max_noise, options_.max_loss};
    Report(
        fmt::format("widest, {} bits: {}", fmt::join(widths_, ", "), AgreementText(limits.widest)));

    chosen_agreement_.assign(layers_.size(), limits.widest);
    double elements = 0, share = 0;
    search_done_ = search_total_ = 0;
    for (const std::size_t l : SearchOrder()) {
      elements += static_cast<double>(layers_[l].linear.Out().Size());
      search_total_ += SearchMacs(l);
    }
    search_total_ += SearchMacs(layers_.size() - 1);
    for (const std::size_t l : SearchOrder()) {
      share += static_cast<double>(layers_[l].linear.Out().Size()) / elements;
      ChooseWidth(evaluator, l, limits, share);
    }
    const std::size_t last = layers_.size() - 1;
    ChooseWidth(evaluator, last, limits, 1);
    // There are only a few logits, so some room costs next to nothing.
    Widen(evaluator, last, 2, limits);
    CapLogits();

    std::vector<Seen> seen;
    evaluator.Logits(quantised_, evaluator.Input(), &seen);
    for (std::size_t l = 0; l < layers_.size(); ++l)
      ReportRange(
          l, {static_cast<std::int64_t>(seen[l].low), static_cast<std::int64_t>(seen[l].high)});
  }

  /// Reports the range seen; a measured width is that of the range, with head-room.
  void ReportRange(std::size_t l, const nn::ValueRange& range) {
    if (IsMeasured(l)) {
      widths_[l] =
          std::max({range.Bits() + options_.head_room, quantised_[l].shift + 1, kMinWidth});
      if (widths_[l] > kMaxWidth)
        throw ConfigError(fmt::format("network {} layer {}", network_.Spec().name, layers_[l].name),
                          fmt::format("its values need {} bits with head-room, expected at most {}",
                                      widths_[l], kMaxWidth));
    }
    const double room = range.HeadRoom(widths_[l]);
    ReportLayer(l, fmt::format("{}, seen from {} to {}, head-room {:.1f} bits; when chosen {}",
                               IsMeasured(l) ? "measured" : BoundText(l), range.low, range.high,
                               room, AgreementText(chosen_agreement_[l])));
    if (IsMeasured(l) && room < 1)
      Warn(
          fmt::format("layer {}: values not seen in calibration may not fit; ask for more "
                      "head-room",
                      layers_[l].name));
  }

  /// Layer l with other bits, if those are enough.
  bool Try(const Evaluator& evaluator, const Activations& before, std::size_t l, unsigned bits,
           const Limits& limits, double share) {
    auto trial = Trial(l, bits);
    if (!trial || !LostChannels(*trial, l).empty() || (*trial)[l].error > kMostError) return false;
    const Agreement found = reference_->Compare(evaluator.Logits(*trial, before));
    Progress(fmt::format("{}: with {} bits {}", layers_[l].name, bits, AgreementText(found)));
    if (!limits.Allow(found, share)) return false;
    widths_[l] = bits;
    quantised_ = std::move(*trial);
    chosen_agreement_[l] = found;
    return true;
  }

  /// Finds a small width of layer l, those of the others fixed, that `limits` allow, as they do the
  /// present one.
  void ChooseWidth(const Evaluator& evaluator, std::size_t l, const Limits& limits, double share) {
    const double all = search_done_ + SearchMacs(l);
    const Activations before = evaluator.Advance(quantised_, evaluator.Input(), l);
    TellSearch(static_cast<double>(Macs() - Macs(l)));
    unsigned low = options_.min_bits;  // widths below are not asked for; widths_[l] is known to do
    while (low < widths_[l]) {
      const unsigned middle = (low + widths_[l]) / 2;
      if (!Try(evaluator, before, l, middle, limits, share)) low = middle + 1;
      TellSearch(static_cast<double>(Macs(l)));
    }
    TellSearch(all - search_done_);
  }

  /// At most what ChooseWidth multiplies for an image.
  double SearchMacs(std::size_t l) const {
    const unsigned candidates = widths_[l] > options_.min_bits ? widths_[l] - options_.min_bits : 0;
    return static_cast<double>(Macs() - Macs(l)) +
           static_cast<double>(std::bit_width(candidates)) * static_cast<double>(Macs(l));
  }
  void TellSearch(double more) {
    search_done_ += more;
    if (options_.on_search) options_.on_search(std::min(1.0, search_done_ / search_total_));
  }

  void Widen(const Evaluator& evaluator, std::size_t l, unsigned more, const Limits& limits) {
    const unsigned bits = std::min(widths_[l] + more, std::max(options_.max_bits, widths_[l]));
    Try(evaluator, evaluator.Advance(quantised_, evaluator.Input(), l), l, bits, limits, 1);
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

  nn::PublicNetwork AssemblePublic() const {
    nn::PublicNetwork network = Architecture(network_.Spec(), false);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      nn::PublicLayer& layer = network.layers[l];
      layer.value_bits = widths_[l];
      layer.shift = quantised_[l].shift;
      layer.proven = !IsMeasured(l);
    }
    return network;
  }

  nn::IntegerNetwork Assemble() const {
    nn::IntegerNetwork result{AssemblePublic(), {}};
    for (const QuantisedLayer& layer : quantised_) result.weights.push_back(layer.weights);
    return result;
  }

  /// The calibration computed with floating point; the oracle must agree.
  void Confirm(const nn::IntegerNetwork& result) const {
    const std::size_t affordable =
        std::clamp<std::size_t>(kConfirmedMacs / std::max<std::size_t>(Macs(), 1), 1, kConfirmed);
    std::vector<std::size_t> first(std::min(affordable, images_.count));
    std::iota(first.begin(), first.end(), std::size_t{0});
    const files::Images part = Chosen(images_, first);
    const std::size_t classes = network_.Spec().Classes();
    const Evaluator evaluator(layers_, network_.Spec().input, part);
    TERCET_CHECK(nn::Predictions(evaluator.Logits(quantised_, evaluator.Input()), classes) ==
                     nn::Predictions(nn::RunPlain(result, oracle_, part, 0, part.count), classes),
                 "calibration and oracle do not agree on {} images", part.count);
  }

  const nn::FloatNetwork& network_;
  const mpc::Oracle& oracle_;
  const CompileOptions& options_;
  CompileReport& report_;
  std::vector<Block> blocks_;
  std::vector<BlockMaps> maps_;
  std::vector<nn::PublicLayer> layers_;
  files::Images images_;                // to measure on; none where the widths are given
  std::vector<std::uint8_t> labels_;    // of those images, or none
  std::optional<Reference> reference_;  // the float network on them
  std::vector<Seen> float_seen_;        // each layer's values in it
  // The same of extreme images, where there are no calibration images.
  files::Images extremes_;
  std::optional<Reference> extreme_reference_;
  std::vector<Seen> extreme_seen_;
  unsigned activation_bits_ = options_.activation_bits;
  std::vector<unsigned> widths_;
  std::vector<QuantisedLayer> quantised_;
  std::vector<Agreement> chosen_agreement_;
  double search_done_ = 0, search_total_ = 0;  // multiplications of an image
  std::vector<std::string> warnings_;
  // Layers that have their warning.
  std::set<std::size_t> complained_of_images_, complained_of_weights_;
};

nn::IntegerNetwork Compile(const nn::FloatNetwork& network, const mpc::Oracle& oracle,
                           const CompileOptions& options, CompileReport* report) {
  CompileReport unused;
  CompileReport& filled = report == nullptr ? unused : *report;
  filled = {};
  return Compiler(network, oracle, options, filled).Run();
}

}  // namespace tercet::compile
