// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "compile/compiler.h"
#include "tercet/base/error.h"
#include "tercet/compile/announcement.h"

// The part of the compile step that chooses: which integers stand for a layer, and with how many
// bits.
namespace tercet::compile {
namespace {

/// Bits of activations beyond those asked for that are tried.
constexpr unsigned kMoreActivationBits = 4;
/// Widths that are given, where only one is.
constexpr unsigned kDefaultBits = 14, kDefaultFixedBits = 28;

}  // namespace

/// What a network may be off when the layers with `share` of the activations are chosen: errors
/// of independent roundings add up in squares.
struct Compiler::Limits {
  Agreement widest;
  double max_noise = 0, max_loss = 0;
  bool Allow(const Agreement& found, double share) const {
    const double noise = std::sqrt(widest.noise * widest.noise + share * max_noise * max_noise);
    // Sums of doubles must not decide: one image weighs far more than this.
    return found.noise <= noise + 1e-12 && found.apart <= widest.apart + share * max_loss + 1e-9;
  }
};

unsigned Compiler::GivenBits(std::size_t l) const {
  const unsigned bits = IsFixedPoint(l) ? options_.default_fixed_bits : options_.default_bits;
  return bits != 0 ? bits : IsFixedPoint(l) ? kDefaultFixedBits : kDefaultBits;
}

Encoding Compiler::EncodingOf(const std::vector<QuantisedLayer>& network,
                              std::size_t output) const {
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

RealLayer Compiler::Real(const std::vector<QuantisedLayer>& network, std::size_t l) const {
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

bool Compiler::Quantise(std::vector<QuantisedLayer>& network, std::size_t l, unsigned bits) const {
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

void Compiler::Negate(const std::vector<bool>& negated, const mpc::LinearShape& shape,
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

std::optional<std::vector<QuantisedLayer>> Compiler::Trial(std::size_t l, unsigned bits) const {
  std::vector<QuantisedLayer> trial = quantised_;
  if (!Quantise(trial, l, bits)) return std::nullopt;
  for (std::size_t next = l + 1; next < layers_.size() && GivesFixedPoint(l + 1); ++next)
    if (!Quantise(trial, next, widths_[next])) return std::nullopt;
  return trial;
}

void Compiler::QuantiseAll() {
  if (const std::optional<std::size_t> layer = QuantiseEach())
    Refuse(*layer, "no factor of its residual");
}

std::optional<std::size_t> Compiler::QuantiseEach() {
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

void Compiler::RefineActivations() {
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

unsigned Compiler::NeededBits(std::size_t l) {
  unsigned low = options_.min_bits, high = options_.max_bits;
  while (low < high) {
    const unsigned middle = (low + high) / 2;
    const bool enough = Quantise(quantised_, l, middle) && quantised_[l].error <= kPrecision &&
                        LostChannels(l).empty();
    (enough ? high : low) = enough ? middle : middle + 1;
  }
  return high;
}

std::vector<std::size_t> Compiler::LostChannels(const std::vector<QuantisedLayer>& network,
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

bool Compiler::ChannelMatters(const std::vector<Seen>& all, std::size_t l, std::size_t channel,
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

std::vector<std::size_t> Compiler::SearchOrder() const {
  std::vector<std::size_t> order(layers_.size() - 1);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
    return layers_[a].linear.Out().Size() > layers_[b].linear.Out().Size();
  });
  return order;
}

void Compiler::ChooseWidths() {
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
    ReportRange(l,
                {static_cast<std::int64_t>(seen[l].low), static_cast<std::int64_t>(seen[l].high)});
}

void Compiler::ReportRange(std::size_t l, const nn::ValueRange& range) {
  if (IsMeasured(l)) {
    widths_[l] = std::max({range.Bits() + options_.head_room, quantised_[l].shift + 1, kMinWidth});
    if (widths_[l] > kMaxWidth)
      throw ConfigError(fmt::format("network {} layer {}", network_.Spec().name, layers_[l].name),
                        fmt::format("its values need {} bits with head-room, expected at most {}",
                                    widths_[l], kMaxWidth));
  }
  const double room = range.HeadRoom(widths_[l]);
  ReportLayer(l, fmt::format("{}, seen from {} to {}, head-room {:.1f} bits; when chosen {}",
                             IsMeasured(l) ? "measured" : BoundText(l), range.low, range.high, room,
                             AgreementText(chosen_agreement_[l])));
  if (IsMeasured(l) && room < 1)
    Warn(
        fmt::format("layer {}: values not seen in calibration may not fit; ask for more "
                    "head-room",
                    layers_[l].name));
}

bool Compiler::Try(const Evaluator& evaluator, const Activations& before, std::size_t l,
                   unsigned bits, const Limits& limits, double share) {
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

void Compiler::ChooseWidth(const Evaluator& evaluator, std::size_t l, const Limits& limits,
                           double share) {
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

double Compiler::SearchMacs(std::size_t l) const {
  const unsigned candidates = widths_[l] > options_.min_bits ? widths_[l] - options_.min_bits : 0;
  return static_cast<double>(Macs() - Macs(l)) +
         static_cast<double>(std::bit_width(candidates)) * static_cast<double>(Macs(l));
}

void Compiler::TellSearch(double more) {
  search_done_ += more;
  if (options_.on_search) options_.on_search(std::min(1.0, search_done_ / search_total_));
}

void Compiler::Widen(const Evaluator& evaluator, std::size_t l, unsigned more,
                     const Limits& limits) {
  const unsigned bits = std::min(widths_[l] + more, std::max(options_.max_bits, widths_[l]));
  Try(evaluator, evaluator.Advance(quantised_, evaluator.Input(), l), l, bits, limits, 1);
}

bool Compiler::CapLogits() {
  const std::size_t last = layers_.size() - 1;
  const unsigned most = MostLogitBits(AssemblePublic());
  if (widths_[last] <= most) return false;
  auto trial = Trial(last, most);
  if (!trial) Refuse(last, "no factor of its residual");
  widths_[last] = most;
  quantised_ = std::move(*trial);
  return true;
}

}  // namespace tercet::compile
