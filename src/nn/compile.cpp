#include "tercet/nn/compile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>

#include "nn/convolve.h"
#include "nn/float_network.h"
#include "nn/input.h"
#include "nn/quantise.h"
#include "nn/windows.h"
#include "tercet/base/error.h"

namespace tercet::nn {
namespace {

using mpc::ActivationKind;

constexpr char kSupported[] =
    "it supports blocks of conv2d or linear, then batch_norm (optional), sign, max_pool2d "
    "(optional), with flatten between blocks, and a last conv2d or linear with batch_norm "
    "(optional)";

constexpr std::size_t kBatch = 32;

/// Calibration images: enough to tell 0.01 points apart, fewer for large networks, never so few
/// that chance decides.
constexpr std::size_t kMostImages = 10'000, kFewestImages = 1'000;
constexpr std::size_t kMacsPerPass = 20'000'000'000;
/// Images whose logits the oracle confirms after calibration.
constexpr std::size_t kConfirmed = 256;

/// The layers of the JSON that make one layer of the integer network.
struct Block {
  PublicLayer layer;  // without its width
  std::size_t linear = 0;
  const LayerSpec* norm = nullptr;  // null without batch_norm
  std::size_t norm_index = 0;
  const LayerSpec* sign = nullptr;
};

/// Sorts the layers of the JSON into blocks.
class BlockReader {
 public:
  explicit BlockReader(const NetworkSpec& spec) {
    for (index_ = 0; index_ < spec.layers.size(); ++index_) Visit(spec.layers[index_]);
    if (blocks_.empty() || blocks_.back().sign != nullptr) {
      throw UnsupportedError(fmt::format(
          "layer {}: the compile step needs a conv2d or linear layer without activation at "
          "the end; {}",
          spec.layers.back().name, kSupported));
    }
  }
  std::vector<Block> Take() { return std::move(blocks_); }

 private:
  [[noreturn]] void Refuse(const LayerSpec& layer, const std::string& where) const {
    throw UnsupportedError(fmt::format("layer {}: the compile step does not support {} {}; {}",
                                       layer.name, LayerTypeName(layer.type), where, kSupported));
  }

  void Visit(const LayerSpec& layer) {
    // What the open block already has decides what may come.
    Block* block = blocks_.empty() ? nullptr : &blocks_.back();
    switch (layer.type) {
      case LayerType::kConv2d:
      case LayerType::kLinear:
        if (block != nullptr && block->sign == nullptr)
          Refuse(layer, fmt::format("after {} without a sign between", block->layer.name));
        blocks_.emplace_back();
        blocks_.back().linear = index_;
        blocks_.back().layer.name = layer.name;
        blocks_.back().layer.linear = LinearShapeOf(layer);
        break;
      case LayerType::kBatchNorm:
        if (block == nullptr || block->sign != nullptr || block->norm != nullptr || flattened_)
          Refuse(layer, "that does not directly follow conv2d or linear");
        block->norm = &layer;
        block->norm_index = index_;
        break;
      case LayerType::kSign:
        if (block == nullptr || block->sign != nullptr || flattened_)
          Refuse(layer, "that does not follow conv2d, linear or their batch_norm");
        block->sign = &layer;
        block->layer.activation = ActivationKind::kSign;
        SetSuite(*block, layer);
        break;
      case LayerType::kMaxPool2d:
        if (block == nullptr || block->sign == nullptr || block->layer.pool || flattened_)
          Refuse(layer, "that does not directly follow sign");
        block->layer.pool = mpc::PoolShape{layer.kernel, layer.stride};
        SetSuite(*block, layer);
        break;
      case LayerType::kFlatten:
        // Features keep their order, so the next layer's shape says it all.
        flattened_ = block != nullptr && layer.in != layer.out;
        return;
      default:
        Refuse(layer, "layers");
    }
    flattened_ = false;
    std::string& type = blocks_.back().layer.type;
    if (!type.empty()) type += '+';
    type += LayerTypeName(layer.type);
  }

  static void SetSuite(Block& block, const LayerSpec& layer) {
    std::string& suite = block.layer.suite;
    if (layer.suite.empty() || layer.suite == suite) return;
    if (!suite.empty()) {
      throw UnsupportedError(fmt::format(
          "layer {}: sign and max_pool2d of a block run in one suite, but the network names "
          "{} and {}",
          layer.name, suite, layer.suite));
    }
    suite = layer.suite;
  }

  std::size_t index_ = 0;
  bool flattened_ =
      false;  // a flatten that changed the shape came after the open block's last layer
  std::vector<Block> blocks_;
};

/// Real numbers as integers: value = alpha * q + beta.
struct Encoding {
  double alpha, beta;
  std::int64_t max;
};

Encoding InputEncoding(const InputSpec& input) {
  const auto max = (std::int64_t{1} << input.bits) - 1;
  return {255.0 / static_cast<double>(max) / input.scale / input.std, -input.mean / input.std, max};
}
constexpr Encoding kSignEncoding{2, -1, 1};  // -1 and +1 as 0 and 1

/// The calibration images in the form that the evaluation uses.
struct Sample {
  Images images;
  std::vector<std::uint8_t> labels;
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

/// An integer layer ready to be evaluated with floating-point arithmetic, which is exact up to
/// kMaxWidth bits.
template <class T>
struct FastLayer {
  const PublicLayer* layer;
  std::vector<T> weight, bias;

  FastLayer(const PublicLayer& public_layer, const LayerWeights& weights)
      : layer(&public_layer),
        weight(weights.weight.begin(), weights.weight.end()),
        bias(weights.bias.begin(), weights.bias.end()) {}

  std::vector<T> Run(const std::vector<T>& x, std::size_t batch) const {
    std::vector<T> z = Convolve(layer->linear, weight, bias, x, batch);
    if (layer->activation == ActivationKind::kNone) return z;
    for (T& v : z) v = v >= 0 ? T{1} : T{0};
    if (!layer->pool) return z;
    return Pool(layer->linear.Out(), *layer->pool, z, batch,
                [](T a, T b) { return std::max(a, b); });
  }
};

/// Activations of the sample entering one layer, a chunk of images after the other; all are bytes.
struct Activations {
  std::size_t layer = 0;
  std::vector<std::vector<std::uint8_t>> chunks;
};

/// Evaluates integer networks on the sample.
class Evaluator {
 public:
  Evaluator(const std::vector<PublicLayer>& layers, const InputSpec& input, const Sample& sample,
            unsigned max_bits)
      : layers_(layers), sample_(sample), single_(max_bits <= 24) {
    const std::size_t count = sample.images.count;
    for (std::size_t first = 0; first < count; first += kBatch) {
      const std::size_t batch = std::min(kBatch, count - first);
      const std::vector<std::int64_t> q = QuantiseInput(input, sample.images, first, batch);
      input_.chunks.emplace_back(q.begin(), q.end());
    }
  }

  const Activations& Input() const { return input_; }

  /// Percent of the sample classified correctly, continuing from `from`.
  double Accuracy(const std::vector<QuantisedLayer>& network, const Activations& from) const {
    return single_ ? AccuracyWith<float>(network, from) : AccuracyWith<double>(network, from);
  }

  /// What enters layer `to`.
  Activations Advance(const std::vector<QuantisedLayer>& network, const Activations& from,
                      std::size_t to) const {
    return single_ ? AdvanceWith<float>(network, from, to) : AdvanceWith<double>(network, from, to);
  }

 private:
  std::size_t BatchOf(std::size_t chunk) const {
    return std::min(kBatch, sample_.images.count - chunk * kBatch);
  }

  // Every partial sum lies in the layer's interval, as each starts from the bias and inputs are not
  // negative.
  template <class T>
  std::vector<FastLayer<T>> Prepare(const std::vector<QuantisedLayer>& network, std::size_t from,
                                    std::size_t to) const {
    std::vector<FastLayer<T>> fast;
    for (std::size_t l = from; l < to; ++l) fast.emplace_back(layers_[l], network[l].weights);
    return fast;
  }

  template <class T>
  double AccuracyWith(const std::vector<QuantisedLayer>& network, const Activations& from) const {
    const std::vector<FastLayer<T>> fast = Prepare<T>(network, from.layer, layers_.size());
    const std::size_t classes = layers_.back().linear.Out().Size();
    std::size_t correct = 0;
    for (std::size_t chunk = 0; chunk < from.chunks.size(); ++chunk) {
      const std::size_t batch = BatchOf(chunk);
      std::vector<T> x(from.chunks[chunk].begin(), from.chunks[chunk].end());
      for (const FastLayer<T>& layer : fast) x = layer.Run(x, batch);
      for (std::size_t b = 0; b < batch; ++b) {
        std::size_t best = 0;
        for (std::size_t c = 1; c < classes; ++c)
          if (x[c * batch + b] > x[best * batch + b]) best = c;
        correct += best == sample_.labels[chunk * kBatch + b] ? 1 : 0;
      }
    }
    return 100.0 * static_cast<double>(correct) / static_cast<double>(sample_.images.count);
  }

  template <class T>
  Activations AdvanceWith(const std::vector<QuantisedLayer>& network, const Activations& from,
                          std::size_t to) const {
    const std::vector<FastLayer<T>> fast = Prepare<T>(network, from.layer, to);
    Activations result{to, {}};
    for (std::size_t chunk = 0; chunk < from.chunks.size(); ++chunk) {
      std::vector<T> x(from.chunks[chunk].begin(), from.chunks[chunk].end());
      for (const FastLayer<T>& layer : fast) x = layer.Run(x, BatchOf(chunk));
      result.chunks.emplace_back(x.begin(), x.end());
    }
    return result;
  }

  const std::vector<PublicLayer>& layers_;
  const Sample& sample_;
  bool single_;  // single precision holds all values
  Activations input_;
};

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

std::vector<std::uint8_t> FloatPredictions(const FloatNetwork& network, const Images& images) {
  const std::size_t classes = network.Spec().Classes();
  const std::vector<float> logits = network.Run(images, 0, images.count);
  std::vector<std::uint8_t> predictions(images.count);
  for (std::size_t i = 0; i < images.count; ++i) {
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
    blocks_ = BlockReader(spec).Take();
    Encoding encoding = InputEncoding(spec.input);
    for (Block& block : blocks_) {
      real_.push_back(Fold(block, encoding));
      layers_.push_back(block.layer);
      encoding = kSignEncoding;
    }
    widths_.assign(layers_.size(),
                   options_.calibration ? options_.max_bits : options_.default_bits);
    for (std::size_t l = 0; l < layers_.size(); ++l) quantised_.push_back(Quantise(l, widths_[l]));
    Sample sample;
    if (options_.calibration != nullptr) {
      sample = TakeSample(*options_.calibration, *options_.labels, Macs());
      ChooseWidths(sample);
    } else {
      for (std::size_t l = 0; l < layers_.size(); ++l) ReportLayer(l, "");
      Report(fmt::format("no calibration images: every layer has {} bits", options_.default_bits));
    }
    IntegerNetwork result = Assemble();
    ProveWidths(result, spec.name);
    if (options_.calibration != nullptr) Confirm(result, sample);
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
    const Interval& values = quantised_[l].values;
    Report(fmt::format("{}: {} bits, values from {} to {}{}", layers_[l].name, widths_[l],
                       IntegerText(values.low), IntegerText(values.high), more));
  }

  std::size_t Macs() const {
    return std::accumulate(
        layers_.begin(), layers_.end(), std::size_t{0},
        [](std::size_t sum, const PublicLayer& layer) { return sum + layer.linear.Macs(); });
  }

  /// Folds batch_norm and the encoding of the input into weights and bias on the input's integers.
  /// Before Sign, a positive factor of a channel changes nothing, so those of batch_norm and of the
  /// encoding are divided out.
  RealLayer Fold(Block& block, const Encoding& encoding) const {
    const FloatNetwork::State& state = *network_.state_;
    const FloatLayer& linear = state.layers[block.linear];
    const FloatLayer* norm = block.norm == nullptr ? nullptr : &state.layers[block.norm_index];
    mpc::LinearShape& shape = block.layer.linear;
    // Padding is the real number 0, which no integer stands for unless beta is 0: those weights
    // must not contribute beta.
    shape.bias_per_element = shape.padding > 0 && encoding.beta != 0;

    RealLayer real{
        shape, std::vector<double>(linear.weight.begin(), linear.weight.end()), {}, encoding.max};
    const std::size_t depth = shape.Depth();
    const std::size_t area = shape.Out().height * shape.Out().width;
    const WindowPatterns patterns(shape);
    for (std::size_t c = 0; c < shape.out_channels; ++c) {
      // value = gain * (w x + bias) + shift
      double gain = 1, shift = 0;
      double bias = linear.bias.empty() ? 0 : linear.bias[c];
      if (norm != nullptr) {
        // gamma = 0 makes the gain 0, also when it comes with the sign of minus zero.
        gain = norm->weight[c] / std::sqrt(norm->variance[c] + block.norm->eps);
        shift = norm->bias[c];
        bias -= norm->mean[c];
      }
      if (block.sign != nullptr) {
        const double size = std::abs(gain);
        if (size > 0) {
          gain /= size * encoding.alpha;
          shift /= size * encoding.alpha;
        }
      }
      double* w = real.weight.data() + c * depth;
      const std::vector<double> beta_sums =
          patterns.Sums<double>([&](std::size_t i) { return encoding.beta * w[i]; });
      const auto bias_of = [&](std::size_t pattern) {
        return gain * (bias + beta_sums[pattern]) + shift;
      };
      if (shape.bias_per_element) {
        for (std::size_t position = 0; position < area; ++position)
          real.bias.push_back(bias_of(patterns.Of(position)));
      } else {
        real.bias.push_back(bias_of(0));
      }
      for (std::size_t i = 0; i < depth; ++i) w[i] *= gain * encoding.alpha;
    }
    return real;
  }

  QuantisedLayer Quantise(std::size_t l, unsigned bits) const {
    return l + 1 < real_.size() ? QuantiseForSign(real_[l], bits) : QuantiseLogits(real_[l], bits);
  }

  /// The layers before Sign, those with most activations first: their widths cost most, so they may
  /// lose most.
  std::vector<std::size_t> SearchOrder() const {
    std::vector<std::size_t> order(layers_.size() - 1);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [this](std::size_t a, std::size_t b) {
      return layers_[a].linear.Out().Size() > layers_[b].linear.Out().Size();
    });
    return order;
  }

  void ChooseWidths(const Sample& sample) {
    const Evaluator evaluator(layers_, network_.Spec().input, sample, options_.max_bits);
    report_.float_accuracy = Percent(FloatPredictions(network_, sample.images), sample.labels);
    Report(fmt::format("float network: {:.2f} % of {} calibration images", report_.float_accuracy,
                       sample.images.count));
    const double widest = evaluator.Accuracy(quantised_, evaluator.Input());
    Report(fmt::format("{} bits in every layer: {:.2f} %", options_.max_bits, widest));

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

    for (std::size_t l = 0; l < layers_.size(); ++l)
      ReportLayer(l, fmt::format(", {:.2f} % when chosen", chosen_accuracy_[l]));
    report_.integer_accuracy = accuracy;
    Report(fmt::format(
        "chosen widths: {:.2f} %, a loss of {:.2f} points against {} bits and of {:.2f} "
        "against the float network",
        accuracy, widest - accuracy, options_.max_bits, report_.float_accuracy - accuracy));
  }

  // Comparing with `floor`, sums of doubles must not decide: one image weighs far more than this.
  static bool Reaches(double accuracy, double floor) { return accuracy >= floor - 1e-9; }

  /// Finds a small width of layer l, the others fixed, with at least the accuracy `floor`, which
  /// the present one has. The accuracy then.
  double ChooseWidth(const Evaluator& evaluator, std::size_t l, double floor, double accuracy) {
    const Activations before = evaluator.Advance(quantised_, evaluator.Input(), l);
    std::vector<QuantisedLayer> trial = quantised_;
    unsigned low = options_.min_bits;  // widths below are not asked for; widths_[l] is known to do
    while (low < widths_[l]) {
      const unsigned middle = (low + widths_[l]) / 2;
      trial[l] = Quantise(l, middle);
      const double found = evaluator.Accuracy(trial, before);
      Progress(fmt::format("{}: {} bits would give {:.2f} %", layers_[l].name, middle, found));
      if (Reaches(found, floor)) {
        widths_[l] = middle;
        quantised_[l] = trial[l];
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
    const unsigned bits = std::min(widths_[l] + more, options_.max_bits);
    std::vector<QuantisedLayer> trial = quantised_;
    trial[l] = Quantise(l, bits);
    const double found =
        evaluator.Accuracy(trial, evaluator.Advance(quantised_, evaluator.Input(), l));
    if (!Reaches(found, floor)) return accuracy;
    widths_[l] = bits;
    quantised_[l] = std::move(trial[l]);
    chosen_accuracy_[l] = found;
    return found;
  }

  IntegerNetwork Assemble() const {
    const NetworkSpec& spec = network_.Spec();
    IntegerNetwork result;
    result.net.name = spec.name;
    result.net.input = spec.input;
    result.net.layers = layers_;
    result.net.logit_scale = 1 / quantised_.back().scale;
    result.net.spec_digest = spec.Digest();
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      result.net.layers[l].value_bits = widths_[l];
      result.weights.push_back(quantised_[l].weights);
    }
    return result;
  }

  /// The calibration computed with floating point; the oracle must agree.
  void Confirm(const IntegerNetwork& result, const Sample& sample) const {
    const std::size_t count = std::min(kConfirmed, sample.images.count);
    Sample part{{sample.images.shape, count, {}}, {}};
    part.images.pixels.assign(sample.images.pixels.begin(),
                              sample.images.pixels.begin() +
                                  static_cast<std::ptrdiff_t>(count * sample.images.shape.Size()));
    // Taking the oracle's predictions as labels, all must be found again.
    part.labels =
        Predictions(RunPlain(result, oracle_, part.images, 0, count), result.net.Classes());
    const Evaluator evaluator(layers_, network_.Spec().input, part, options_.max_bits);
    const double agreement = evaluator.Accuracy(quantised_, evaluator.Input());
    TERCET_CHECK(agreement == 100, "calibration and oracle agree on {} % of {} images only",
                 agreement, count);
  }

  const FloatNetwork& network_;
  const mpc::Oracle& oracle_;
  const CompileOptions& options_;
  CompileReport& report_;
  std::vector<Block> blocks_;
  std::vector<RealLayer> real_;
  std::vector<PublicLayer> layers_;
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
