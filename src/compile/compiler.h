// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "compile/agreement.h"
#include "compile/blocks.h"
#include "compile/evaluate.h"
#include "compile/quantise.h"
#include "tercet/compile/compile.h"

namespace tercet::compile {

/// What the roundings of a layer may add to its sums, as a part of their size, where widths are
/// chosen without images, and where the search begins.
inline constexpr double kPrecision = 1.0 / 1024;
/// The same beyond which next to nothing of the weights is left.
inline constexpr double kMostError = 0.25;
/// The most bits of activations.
inline constexpr unsigned kMostActivationBits = 16;

/// Real numbers as integers 0..max: value = alpha * q, up to what the blocks have in their biases.
struct Encoding {
  double alpha;
  Int128 max;
};

/// For reports.
std::string AgreementText(const Agreement& agreement);

/// One run of the compile step. Its methods are defined in compile.cpp, or in the file that a
/// section names.
class Compiler {
 public:
  Compiler(const nn::FloatNetwork& network, const mpc::Oracle& oracle,
           const CompileOptions& options, CompileReport& report)
      : network_(network), oracle_(oracle), options_(options), report_(report) {}

  nn::IntegerNetwork Run();

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
  void Lose(const std::string& place, const std::string& problem, const std::string& remedy);
  void ReportLayer(std::size_t l, const std::string& more);
  std::string BoundText(std::size_t l) const;
  void ReportProduct(const Block& block);

  std::size_t Macs(std::size_t from = 0) const;

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
  bool AnyFixedPoint() const;
  /// What is looked up must be in the table.
  bool IsMeasured(std::size_t l) const {
    return options_.measured && IsFixedPoint(l) && !LooksUp(l);
  }
  /// Whether no image is asked what width a layer needs.
  bool WidthsGiven() const {
    return options_.calibration == nullptr &&
           (options_.default_bits != 0 || options_.default_fixed_bits != 0);
  }

  /// Images to measure on, and what the float network makes of them.
  void TakeImages();

  Reference RunFloat(const files::Images& images, std::vector<Seen>& seen) const;

  /// Images on which a layer gives always the same tell nothing of the width that it needs.
  void CheckImages();

  /// Of what classes there is no example.
  void WarnOfMissingClasses();

  void CheckWeights();
  std::string Remedy(std::size_t l) const;
  [[noreturn]] void Refuse(std::size_t l, const std::string& what) const;

  /// What the chosen integers make of the images, beside the float network.
  void CheckAgreement();

  /// What a sample does not show: it may not use all that the widths have room for. No value is too
  /// large for its width, which is proven.
  void CheckExtremes();

  /// What near ties, which the agreement leaves out, could hide: `most` percent may be lost.
  void CheckPredictions(const std::vector<std::uint8_t>& predictions, const Agreement& found,
                        double most);

  nn::PublicNetwork AssemblePublic() const;

  nn::IntegerNetwork Assemble() const;

  /// The calibration computed with floating point; the oracle must agree.
  void Confirm(const nn::IntegerNetwork& result) const;

  // choose_widths.cpp: which integers stand for a layer, and with how many bits.

  struct Limits;
  unsigned GivenBits(std::size_t l) const;
  /// How what leaves the input or a layer of `network` stands for real numbers.
  Encoding EncodingOf(const std::vector<QuantisedLayer>& network, std::size_t output) const;
  /// Layer l on the integers that the layers before it in `network` give.
  RealLayer Real(const std::vector<QuantisedLayer>& network, std::size_t l) const;
  /// Quantises layer l of `network`, of which the layers before are quantised. False when it needs
  /// more bits.
  bool Quantise(std::vector<QuantisedLayer>& network, std::size_t l, unsigned bits) const;
  /// Of channels that give -x for the Sign x, the bit that says v >= 0 is turned: -v - 1 is 0 or
  /// more where v is not.
  static void Negate(const std::vector<bool>& negated, const mpc::LinearShape& shape,
                     QuantisedLayer& layer);
  /// Layer l with other bits, and those after it that its scale reaches. Nothing when one of them
  /// does not fit.
  std::optional<std::vector<QuantisedLayer>> Trial(std::size_t l, unsigned bits) const;
  /// The widest that the layers may be, each with the width that it is given or that it needs.
  void QuantiseAll();
  /// The layer that does not fit, if there is one.
  std::optional<std::size_t> QuantiseEach();
  /// More bits of what leaves ReLU and square, where those asked for make more noise than narrower
  /// widths shall; as many as make the least.
  void RefineActivations();
  /// The fewest bits with which a layer's sums are precise, as far as there are.
  unsigned NeededBits(std::size_t l);
  /// Output channels without weights that the float network has a use for.
  std::vector<std::size_t> LostChannels(std::size_t l) const { return LostChannels(quantised_, l); }
  std::vector<std::size_t> LostChannels(const std::vector<QuantisedLayer>& network,
                                        std::size_t l) const;
  bool ChannelMatters(const std::vector<Seen>& all, std::size_t l, std::size_t channel,
                      double scale) const;
  /// All layers but the last, those with most activations first: their widths cost most, so they
  /// may lose most.
  std::vector<std::size_t> SearchOrder() const;
  void ChooseWidths();
  /// Reports the range seen; a measured width is that of the range, with head-room.
  void ReportRange(std::size_t l, const nn::ValueRange& range);
  /// Layer l with other bits, if those are enough.
  bool Try(const Evaluator& evaluator, const Activations& before, std::size_t l, unsigned bits,
           const Limits& limits, double share);
  /// Finds a small width of layer l, those of the others fixed, that `limits` allow, as they do the
  /// present one.
  void ChooseWidth(const Evaluator& evaluator, std::size_t l, const Limits& limits, double share);
  /// At most what ChooseWidth multiplies for an image.
  double SearchMacs(std::size_t l) const;
  void TellSearch(double more);
  void Widen(const Evaluator& evaluator, std::size_t l, unsigned more, const Limits& limits);
  /// Narrows logits that are wider than the architecture can need, which no other party would
  /// accept. Whether that was so.
  bool CapLogits();

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

}  // namespace tercet::compile
