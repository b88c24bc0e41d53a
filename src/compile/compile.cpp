// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/compile.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "base/json.h"
#include "compile/compare_classes.h"
#include "compile/compiler.h"
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

}  // namespace

std::string AgreementText(const Agreement& agreement) {
  return fmt::format(
      "{:.2f} % predicted alike ({:.2f} % otherwise beyond near ties), noise {:.2g} %",
      agreement.same, agreement.apart, 100 * agreement.noise);
}

nn::IntegerNetwork Compiler::Run() {
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

void Compiler::Lose(const std::string& place, const std::string& problem,
                    const std::string& remedy) {
  if (!options_.accept_loss)
    throw ConfigError(fmt::format("network {}{}", network_.Spec().name, place),
                      fmt::format("{}; {}, or accept the loss (--accept-loss)", problem, remedy));
  Warn(fmt::format("{}{}", place.empty() ? "" : place.substr(1) + ": ", problem));
}

void Compiler::ReportLayer(std::size_t l, const std::string& more) {
  Report(fmt::format("{}: {} bits, {}", layers_[l].name, widths_[l], more));
}

std::string Compiler::BoundText(std::size_t l) const {
  const Interval& values = quantised_[l].values;
  return fmt::format("values from {} to {}{}", IntegerText(values.low), IntegerText(values.high),
                     quantised_[l].error == 0 ? ", exact weights"
                                              : fmt::format(", rounding {:.2g} % of the sums",
                                                            100 * quantised_[l].error));
}

void Compiler::ReportProduct(const Block& block) {
  if (block.multiplied.empty()) return;
  Report(fmt::format("{}: {} multiplied out, {} MACs become {}", block.layer.name,
                     fmt::join(block.multiplied, ", "), block.macs_before,
                     block.layer.linear.Macs()));
}

std::size_t Compiler::Macs(std::size_t from) const {
  return std::accumulate(layers_.begin() + static_cast<std::ptrdiff_t>(from), layers_.end(),
                         std::size_t{0}, [](std::size_t sum, const nn::PublicLayer& layer) {
                           const auto& shortcut = layer.shortcut;
                           return sum + layer.linear.Macs() +
                                  (shortcut && shortcut->linear ? shortcut->linear->Macs() : 0);
                         });
}

bool Compiler::AnyFixedPoint() const {
  for (std::size_t l = 0; l < layers_.size(); ++l)
    if (IsFixedPoint(l)) return true;
  return false;
}

void Compiler::TakeImages() {
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

Reference Compiler::RunFloat(const files::Images& images, std::vector<Seen>& seen) const {
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

void Compiler::CheckImages() {
  if (options_.calibration == nullptr) return;
  for (std::size_t l = 0; l < layers_.size(); ++l)
    if (!float_seen_[l].Varies(layers_[l].activation) && complained_of_images_.insert(l).second)
      Lose(" layer " + layers_[l].name,
           fmt::format("its output is the same for all {} calibration images, so they tell "
                       "nothing of its width",
                       images_.count),
           "give more and other images, or none");
}

void Compiler::WarnOfMissingClasses() {
  if (options_.calibration == nullptr || network_.Spec().Classes() < 2) return;
  const std::vector<std::uint8_t>& classes = labels_.empty() ? reference_->Predictions() : labels_;
  std::vector<std::size_t> missing;
  for (std::size_t c = 0; c < network_.Spec().Classes(); ++c)
    if (std::find(classes.begin(), classes.end(), c) == classes.end()) missing.push_back(c);
  if (missing.empty()) return;
  Warn(fmt::format("no calibration image is {} class{} {}: the widths were chosen without any",
                   labels_.empty() ? "predicted as" : "of", missing.size() > 1 ? "es" : "",
                   fmt::join(missing, ", ")));
}

void Compiler::CheckWeights() {
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const std::vector<std::size_t> lost = LostChannels(l);
    const std::size_t channels = layers_[l].linear.out_channels;
    const bool little = quantised_[l].error > kMostError;
    if (lost.empty() && !little) continue;
    if (!complained_of_weights_.insert(l).second) continue;
    Lose(" layer " + layers_[l].name,
         lost.size() == channels ? fmt::format("all weights round to zero with {} bits", widths_[l])
         : !lost.empty()
             ? fmt::format("all weights of {} of {} output channels round to zero with {} bits",
                           lost.size(), channels, widths_[l])
             : fmt::format("next to nothing of its weights is left with {} bits", widths_[l]),
         Remedy(l));
  }
}

std::string Compiler::Remedy(std::size_t l) const {
  if (widths_[l] < kMaxWidth) return "allow it more bits (--max-bits)";
  return options_.measured ? "the layers have too different scales"
                           : "its values have too large a bound: measure the widths on images "
                             "instead of proving them (--widths measured)";
}

void Compiler::Refuse(std::size_t l, const std::string& what) const {
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
  throw ConfigError(fmt::format("network {} layer {}", network_.Spec().name, layers_[l].name),
                    fmt::format("found values of so large a bound that {} is left with {} bits; {}",
                                what, kMaxWidth,
                                options_.measured ? "the layers have too different scales"
                                                  : "measure the widths instead of proving them"));
}

void Compiler::CheckAgreement() {
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

void Compiler::CheckExtremes() {
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

void Compiler::CheckPredictions(const std::vector<std::uint8_t>& predictions,
                                const Agreement& found, double most) {
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

nn::PublicNetwork Compiler::AssemblePublic() const {
  nn::PublicNetwork network = Architecture(network_.Spec(), false);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    nn::PublicLayer& layer = network.layers[l];
    layer.value_bits = widths_[l];
    layer.shift = quantised_[l].shift;
    layer.proven = !IsMeasured(l);
  }
  return network;
}

nn::IntegerNetwork Compiler::Assemble() const {
  nn::IntegerNetwork result{AssemblePublic(), {}};
  for (const QuantisedLayer& layer : quantised_) result.weights.push_back(layer.weights);
  return result;
}

void Compiler::Confirm(const nn::IntegerNetwork& result) const {
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

nn::IntegerNetwork Compile(const nn::FloatNetwork& network, const mpc::Oracle& oracle,
                           const CompileOptions& options, CompileReport* report) {
  CompileReport unused;
  CompileReport& filled = report == nullptr ? unused : *report;
  filled = {};
  return Compiler(network, oracle, options, filled).Run();
}

}  // namespace tercet::compile
