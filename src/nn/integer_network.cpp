#include "tercet/nn/integer_network.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "nn/bounds.h"
#include "nn/input.h"
#include "tercet/base/error.h"
#include "tercet/nn/tensor_file.h"

namespace tercet::nn {
namespace {

using mpc::ActivationKind;
using mpc::LinearShape;
using nlohmann::json;

constexpr char kNetworkKey[] = "tercet.network";
constexpr char kFormatKey[] = "tercet.format";
constexpr char kFormat[] = "1";

constexpr std::int64_t kMaxLayers = 1000;
constexpr std::size_t kMaxTextLength = 256;
/// Activations and weights of one layer stay below this, so that products of sizes with batches and
/// element widths fit 64 bits; sides and kernels too, so that checking it cannot wrap.
constexpr std::int64_t kMaxElements = std::int64_t{1} << 31;
constexpr std::int64_t kMaxSide = 4096;

json ShapeToJson(const Shape3& shape) { return {shape.channels, shape.height, shape.width}; }

json LinearToJson(const LinearShape& linear) {
  return {{"in", ShapeToJson(linear.in)},
          {"out_channels", linear.out_channels},
          {"kernel", {linear.kernel_h, linear.kernel_w}},
          {"stride", linear.stride},
          {"padding", linear.padding},
          {"groups", linear.groups},
          {"bias_per_element", linear.bias_per_element}};
}

/// A value of the document with the way to it; every access checks.
class Node {
 public:
  Node(const json& value, std::string place, std::string pointer)
      : value_(value), place_(std::move(place)), pointer_(std::move(pointer)) {}

  [[noreturn]] void Fail(const std::string& problem) const {
    throw ConfigError(pointer_.empty() ? place_ : place_ + " " + pointer_, problem);
  }

  /// Checks that this is an object with these keys, and no others than these and the optional.
  void CheckKeys(const std::vector<std::string>& keys,
                 const std::vector<std::string>& optional = {}) const {
    if (!value_.is_object()) Unexpected("an object");
    for (const std::string& key : keys)
      if (!value_.contains(key)) Fail(fmt::format("missing key '{}'", key));
    std::vector<std::string> known = keys;
    known.insert(known.end(), optional.begin(), optional.end());
    for (const auto& [key, unused] : value_.items()) {
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        Fail(fmt::format("unknown key '{}'; expected {}", Printable(key), fmt::join(known, ", ")));
      }
    }
  }
  bool Has(const std::string& key) const { return value_.contains(key); }
  Node At(const std::string& key) const {
    return {value_.at(key), place_, pointer_ + PointerStep(key)};
  }
  /// The elements of an array of `low` to `high` of them.
  std::vector<Node> Elements(std::int64_t low, std::int64_t high) const {
    if (!value_.is_array() || std::cmp_less(value_.size(), low) ||
        std::cmp_greater(value_.size(), high)) {
      const std::string found =
          value_.is_array() ? fmt::format("{} elements", value_.size()) : ValueText(value_);
      Fail(fmt::format("found {}, expected an array of {} to {}", found, low, high));
    }
    std::vector<Node> nodes;
    for (std::size_t i = 0; i < value_.size(); ++i)
      nodes.emplace_back(value_.at(i), place_, fmt::format("{}/{}", pointer_, i));
    return nodes;
  }
  std::int64_t Integer(std::int64_t low, std::int64_t high) const {
    if (!value_.is_number_integer() || value_.get<std::int64_t>() < low ||
        value_.get<std::int64_t>() > high) {
      Unexpected(fmt::format("an integer from {} to {}", low, high));
    }
    return value_.get<std::int64_t>();
  }
  std::size_t Size(std::int64_t low, std::int64_t high) const {
    return static_cast<std::size_t>(Integer(low, high));
  }
  double Number(double low, double high) const {
    if (!value_.is_number() || !(value_.get<double>() >= low && value_.get<double>() <= high))
      Unexpected(fmt::format("a number from {} to {}", low, high));
    return value_.get<double>();
  }
  bool Boolean() const {
    if (!value_.is_boolean()) Unexpected("true or false");
    return value_.get<bool>();
  }
  /// At most kMaxTextLength printable characters.
  std::string Text() const {
    if (!value_.is_string()) Unexpected("a string");
    auto text = value_.get<std::string>();
    const bool printable =
        std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; });
    if (!printable || text.size() > kMaxTextLength)
      Unexpected(fmt::format("at most {} printable characters", kMaxTextLength));
    return text;
  }
  bool IsNull() const { return value_.is_null(); }
  [[noreturn]] void Unexpected(const std::string& expected) const {
    Fail(fmt::format("found {}, expected {}", ValueText(value_), expected));
  }

 private:
  const json& value_;
  std::string place_, pointer_;
};

Shape3 ReadShape(const Node& node) {
  const std::vector<Node> sides = node.Elements(3, 3);
  const Shape3 shape{sides[0].Size(1, kMaxElements - 1), sides[1].Size(1, kMaxSide),
                     sides[2].Size(1, kMaxSide)};
  if (std::cmp_greater_equal(shape.Size(), kMaxElements))
    node.Fail(fmt::format("{} are too many values, expected fewer than {}", ShapeText(shape),
                          kMaxElements));
  return shape;
}

InputSpec ReadInput(const Node& node) {
  node.CheckKeys({"bits", "mean", "scale", "shape", "std"});
  InputSpec input;
  input.shape = ReadShape(node.At("shape"));
  input.scale = node.At("scale").Number(1e-6, 1e6);
  input.mean = node.At("mean").Number(-1e6, 1e6);
  input.std = node.At("std").Number(1e-6, 1e6);
  input.bits = static_cast<unsigned>(node.At("bits").Integer(1, 8));
  return input;
}

LinearShape ReadLinear(const Node& node) {
  node.CheckKeys(
      {"bias_per_element", "groups", "in", "kernel", "out_channels", "padding", "stride"});
  LinearShape shape;
  shape.in = ReadShape(node.At("in"));
  shape.out_channels = node.At("out_channels").Size(1, kMaxElements - 1);
  const std::vector<Node> kernel = node.At("kernel").Elements(2, 2);
  shape.kernel_h = kernel[0].Size(1, kMaxSide);
  shape.kernel_w = kernel[1].Size(1, kMaxSide);
  shape.stride = node.At("stride").Size(1, kMaxSide);
  shape.padding = node.At("padding").Size(0, kMaxSide);
  shape.groups = node.At("groups").Size(1, kMaxElements - 1);
  shape.bias_per_element = node.At("bias_per_element").Boolean();
  if (shape.kernel_h > shape.in.height + 2 * shape.padding ||
      shape.kernel_w > shape.in.width + 2 * shape.padding) {
    node.At("kernel").Fail(fmt::format("found {} x {}, larger than the input {} with padding {}",
                                       shape.kernel_h, shape.kernel_w, ShapeText(shape.in),
                                       shape.padding));
  }
  if (shape.in.channels % shape.groups != 0 || shape.out_channels % shape.groups != 0) {
    node.At("groups").Fail(
        fmt::format("found {}, expected a divisor of the {} input and the {} output channels",
                    shape.groups, shape.in.channels, shape.out_channels));
  }
  // Depth is below 2^31 * 2^24, outputs per channel below 2^28.
  const Shape3 out = shape.Out();
  const auto product_is_large = [](std::size_t a, std::size_t b) {
    return Int128{static_cast<std::int64_t>(a)} * static_cast<std::int64_t>(b) >= kMaxElements;
  };
  if (product_is_large(out.channels, out.height * out.width) ||
      product_is_large(shape.out_channels, shape.Depth())) {
    node.Fail(fmt::format("outputs {} and {} weights each are too many, expected fewer than {}",
                          ShapeText(out), shape.Depth(), kMaxElements));
  }
  return shape;
}

Shortcut ReadShortcut(const Node& node) {
  node.CheckKeys({"factor", "from"}, {"linear"});
  Shortcut shortcut;
  shortcut.from = node.At("from").Size(0, kMaxLayers);
  shortcut.factor = node.At("factor").Integer(-kMaxElements, kMaxElements);
  if (node.Has("linear")) shortcut.linear = ReadLinear(node.At("linear"));
  return shortcut;
}

SumPool ReadSumPool(const Node& node, const Shape3& in) {
  node.CheckKeys({"kernel", "padding", "stride"});
  SumPool pool;
  pool.padding = node.At("padding").Size(0, kMaxSide);
  const auto largest = static_cast<std::int64_t>(std::min(in.height, in.width) + 2 * pool.padding);
  pool.kernel = node.At("kernel").Size(1, largest);
  pool.stride = node.At("stride").Size(1, kMaxSide);
  if (pool.padding >= pool.kernel)
    node.At("padding").Unexpected(fmt::format("less than the kernel, {}", pool.kernel));
  return pool;
}

PublicLayer ReadLayer(const Node& node) {
  node.CheckKeys({"activation", "linear", "name", "pool", "suite", "type", "value_bits"},
                 {"compared_classes", "proven", "shift", "shortcut", "sum_pool"});
  PublicLayer layer;
  layer.name = node.At("name").Text();
  if (layer.name.empty()) node.At("name").Fail("found an empty name, expected one");
  layer.type = node.At("type").Text();
  layer.suite = node.At("suite").Text();
  layer.linear = ReadLinear(node.At("linear"));
  layer.value_bits = static_cast<unsigned>(node.At("value_bits").Integer(2, 64));

  const Node activation = node.At("activation");
  bool known = false;
  const std::string kind = activation.Text();
  for (const auto candidate : {ActivationKind::kNone, ActivationKind::kSign, ActivationKind::kRelu,
                               ActivationKind::kSquare}) {
    if (kind != mpc::ActivationName(candidate)) continue;
    layer.activation = candidate;
    known = true;
  }
  if (!known) activation.Unexpected("none, sign, relu or square");
  if (node.Has("shift")) {
    const bool divides =
        layer.activation == ActivationKind::kRelu || layer.activation == ActivationKind::kSquare;
    if (!divides) node.At("shift").Unexpected("none without relu or square");
    layer.shift = static_cast<unsigned>(node.At("shift").Integer(1, layer.value_bits - 1));
  }
  if (node.Has("proven")) layer.proven = node.At("proven").Boolean();
  if (node.Has("compared_classes")) {
    const std::size_t classes = node.At("compared_classes").Size(2, kMaxElements - 1);
    const std::size_t outputs = layer.linear.Out().Size();
    const auto window = static_cast<std::size_t>(
        std::lround(std::sqrt(static_cast<double>(outputs) / static_cast<double>(classes))));
    if (classes * window * window != outputs || window == 0)
      node.At("compared_classes")
          .Unexpected(fmt::format("{} outputs to be as many as classes times a square", outputs));
    layer.compared_classes = classes;
  }
  if (node.Has("shortcut")) layer.shortcut = ReadShortcut(node.At("shortcut"));

  const Node pool = node.At("pool");
  if (!pool.IsNull()) {
    pool.CheckKeys({"kernel", "stride"});
    const Shape3 in = layer.ActivationIn();
    const auto largest = static_cast<std::int64_t>(std::min(in.height, in.width));
    layer.pool =
        mpc::PoolShape{pool.At("kernel").Size(1, largest), pool.At("stride").Size(1, kMaxSide)};
  }
  if (node.Has("sum_pool")) layer.sum_pool = ReadSumPool(node.At("sum_pool"), layer.Out());
  return layer;
}

/// The name of the smallest signed type that holds the values.
DType SmallestType(const std::vector<std::int64_t>& values) {
  std::int64_t low = 0, high = 0;
  for (const std::int64_t v : values) low = std::min(low, v), high = std::max(high, v);
  const auto fits = [&](auto type) {
    return std::in_range<decltype(type)>(low) && std::in_range<decltype(type)>(high);
  };
  if (fits(std::int8_t{})) return DType::kI8;
  if (fits(std::int16_t{})) return DType::kI16;
  return fits(std::int32_t{}) ? DType::kI32 : DType::kI64;
}

std::vector<std::int64_t> TakeIntegers(TensorFile& data, const std::string& file,
                                       const std::string& tensor,
                                       const std::vector<std::size_t>& shape) {
  const std::string place = TensorPlace(file, tensor);
  const auto found = data.tensors.find(tensor);
  if (found == data.tensors.end())
    throw ConfigError(place, fmt::format("missing, expected shape [{}]", fmt::join(shape, ", ")));
  const TensorData taken = std::move(found->second);
  data.tensors.erase(found);
  if (taken.shape != shape) {
    throw ConfigError(place, fmt::format("found shape [{}], expected [{}]",
                                         fmt::join(taken.shape, ", "), fmt::join(shape, ", ")));
  }
  if (taken.dtype == DType::kF32 || taken.dtype == DType::kF64)
    throw ConfigError(place, "found floating-point numbers, expected an integer type");
  return taken.AsIntegers(place);
}

std::size_t ShortcutWeights(const PublicLayer& layer) {
  return layer.shortcut && layer.shortcut->linear ? layer.shortcut->linear->WeightCount() : 0;
}

void CheckSizes(const IntegerNetwork& network) {
  TERCET_CHECK(network.weights.size() == network.net.layers.size(),
               "got weights of {} layers, expected {}", network.weights.size(),
               network.net.layers.size());
  for (std::size_t l = 0; l < network.weights.size(); ++l) {
    const PublicLayer& layer = network.net.layers[l];
    const LayerWeights& weights = network.weights[l];
    TERCET_CHECK(weights.weight.size() == layer.linear.WeightCount() &&
                     weights.bias.size() == layer.linear.BiasCount(),
                 "layer {}: got {} weights and {} biases, expected {} and {}", layer.name,
                 weights.weight.size(), weights.bias.size(), layer.linear.WeightCount(),
                 layer.linear.BiasCount());
    const std::size_t shortcut = ShortcutWeights(layer);
    TERCET_CHECK(weights.shortcut.size() == shortcut,
                 "layer {}: got {} weights of the shortcut, expected {}", layer.name,
                 weights.shortcut.size(), shortcut);
  }
}

}  // namespace

Shape3 PublicLayer::ActivationIn() const {
  const Shape3 out = linear.Out();
  if (compared_classes == 0) return out;
  const auto window = static_cast<std::size_t>(std::lround(
      std::sqrt(static_cast<double>(out.Size()) / static_cast<double>(compared_classes))));
  return {compared_classes, window, window};
}

Shape3 PublicLayer::Out() const {
  mpc::ActivationSpec spec;
  spec.in = ActivationIn();
  spec.pool = pool;
  return sum_pool ? sum_pool->Out(spec.Out()) : spec.Out();
}

std::string PublicNetworkToJson(const PublicNetwork& network) {
  // Adding 0.0 makes -0.0, which compares equal, the same text.
  json document = {{"name", network.name},
                   {"spec_digest", network.spec_digest},
                   {"logit_scale", network.logit_scale + 0.0},
                   {"input",
                    {{"shape", ShapeToJson(network.input.shape)},
                     {"scale", network.input.scale + 0.0},
                     {"mean", network.input.mean + 0.0},
                     {"std", network.input.std + 0.0},
                     {"bits", network.input.bits}}},
                   {"layers", json::array()}};
  for (const PublicLayer& layer : network.layers) {
    json pool;
    if (layer.pool) pool = {{"kernel", layer.pool->kernel}, {"stride", layer.pool->stride}};
    json written = {{"name", layer.name},
                    {"type", layer.type},
                    {"linear", LinearToJson(layer.linear)},
                    {"activation", mpc::ActivationName(layer.activation)},
                    {"pool", pool},
                    {"value_bits", layer.value_bits},
                    {"suite", layer.suite}};
    // Only where they are used, so that the form stays one for each network.
    if (layer.shift != 0) written["shift"] = layer.shift;
    if (!layer.proven) written["proven"] = false;
    if (layer.compared_classes != 0) written["compared_classes"] = layer.compared_classes;
    if (layer.shortcut) {
      written["shortcut"] = {{"from", layer.shortcut->from}, {"factor", layer.shortcut->factor}};
      if (layer.shortcut->linear)
        written["shortcut"]["linear"] = LinearToJson(*layer.shortcut->linear);
    }
    if (layer.sum_pool) {
      written["sum_pool"] = {{"kernel", layer.sum_pool->kernel},
                             {"stride", layer.sum_pool->stride},
                             {"padding", layer.sum_pool->padding}};
    }
    document["layers"].push_back(std::move(written));
  }
  return document.dump(-1, ' ', true, json::error_handler_t::replace);
}

namespace {

/// `network` has the layers before.
void CheckShortcut(const PublicNetwork& network, const PublicLayer& layer, const Node& node) {
  const Shortcut& shortcut = *layer.shortcut;
  if (shortcut.from > network.layers.size()) {
    node.At("from").Unexpected(
        fmt::format("0 for the input or one of the {} layers before", network.layers.size()));
  }
  const Shape3 from = network.OutputOf(shortcut.from), to = layer.linear.Out();
  if (shortcut.linear && shortcut.linear->in != from) {
    node.At("linear").At("in").Fail(fmt::format("found {}, expected {}, what leaves layer {}",
                                                ShapeText(shortcut.linear->in), ShapeText(from),
                                                shortcut.from));
  }
  const Shape3 added = shortcut.linear ? shortcut.linear->Out() : from;
  if (added != to)
    node.Fail(fmt::format("found a summand of {}, expected {}", ShapeText(added), ShapeText(to)));
}

}  // namespace

PublicNetwork PublicNetworkFromJson(const std::string& text, const std::string& place) {
  const json document = ReadJson(text, place, JsonLimits{});
  const Node root(document, place, "");
  root.CheckKeys({"input", "layers", "logit_scale", "name", "spec_digest"});
  PublicNetwork network;
  network.name = root.At("name").Text();
  network.spec_digest = root.At("spec_digest").Text();
  const std::string& digest = network.spec_digest;
  if (!digest.empty() &&
      (digest.size() != 64 || digest.find_first_not_of("0123456789abcdef") != std::string::npos)) {
    root.At("spec_digest").Unexpected("64 hexadecimal digits");
  }
  network.logit_scale =
      root.At("logit_scale")
          .Number(std::numeric_limits<double>::denorm_min(), std::numeric_limits<double>::max());
  network.input = ReadInput(root.At("input"));

  std::set<std::string> names;
  Shape3 before = network.input.shape;
  const std::vector<Node> layers = root.At("layers").Elements(1, kMaxLayers);
  for (std::size_t l = 0; l < layers.size(); ++l) {
    PublicLayer layer = ReadLayer(layers[l]);
    if (!names.insert(layer.name).second)
      layers[l].At("name").Fail(
          fmt::format("found '{}', the name of another layer too", layer.name));
    const Shape3 in = layer.linear.in;
    if (in != before && in != Shape3{before.Size(), 1, 1}) {
      layers[l].At("linear").At("in").Fail(
          fmt::format("found {}, expected {} or its {} values flattened, what leaves the layer "
                      "before",
                      ShapeText(in), ShapeText(before), before.Size()));
    }
    const bool last = l + 1 == layers.size();
    const bool compares = layer.compared_classes != 0;
    if (compares && !last)
      layers[l].At("compared_classes").Unexpected("none in a layer before the last");
    if (compares && layer.activation != ActivationKind::kSign)
      layers[l].At("activation").Unexpected("sign in a layer that compares classes");
    if (!compares && last != (layer.activation == ActivationKind::kNone)) {
      layers[l]
          .At("activation")
          .Unexpected(last ? "none in the last layer"
                           : "sign, relu or square in all layers but the last");
    }
    if (last && !compares && layer.pool) layers[l].At("pool").Unexpected("null in the last layer");
    if (last && layer.sum_pool) layers[l].At("sum_pool").Unexpected("none in the last layer");
    if (compares && layer.Out() != Shape3{layer.compared_classes, 1, 1}) {
      layers[l].At("pool").Unexpected(fmt::format(
          "windows that leave one value of each of the {} classes", layer.compared_classes));
    }
    if (layer.shortcut) CheckShortcut(network, layer, layers[l].At("shortcut"));
    before = layer.Out();
    network.layers.push_back(std::move(layer));
  }
  return network;
}

void SaveCompiled(const IntegerNetwork& network, const std::filesystem::path& file) {
  CheckSizes(network);
  TensorFile data;
  data.metadata[kFormatKey] = kFormat;
  data.metadata[kNetworkKey] = PublicNetworkToJson(network.net);
  for (std::size_t l = 0; l < network.weights.size(); ++l) {
    const PublicLayer& layer = network.net.layers[l];
    const LayerWeights& weights = network.weights[l];
    data.tensors[layer.name + ".weight"] =
        TensorData::FromIntegers({layer.linear.out_channels, layer.linear.Depth()}, weights.weight,
                                 SmallestType(weights.weight));
    data.tensors[layer.name + ".bias"] = TensorData::FromIntegers(
        {layer.linear.BiasCount()}, weights.bias, SmallestType(weights.bias));
    if (!weights.shortcut.empty()) {
      const LinearShape& shortcut = *layer.shortcut->linear;
      data.tensors[layer.name + ".shortcut"] =
          TensorData::FromIntegers({shortcut.out_channels, shortcut.Depth()}, weights.shortcut,
                                   SmallestType(weights.shortcut));
    }
  }
  SaveTensors(data, file);
}

IntegerNetwork LoadCompiled(const std::filesystem::path& file) {
  TensorFile data = LoadTensors(file);
  const std::string name = file.string();
  const std::string header = name + " header";
  const auto network_text = data.metadata.find(kNetworkKey);
  const auto format = data.metadata.find(kFormatKey);
  if (network_text == data.metadata.end() || format == data.metadata.end()) {
    throw ConfigError(header, fmt::format("has no metadata {} and {}; expected a compiled model",
                                          kFormatKey, kNetworkKey));
  }
  if (format->second != kFormat) {
    throw ConfigError(header, fmt::format("found {} '{}', expected '{}'", kFormatKey,
                                          Printable(format->second), kFormat));
  }
  IntegerNetwork network;
  network.net =
      PublicNetworkFromJson(network_text->second, fmt::format("{} metadata {}", name, kNetworkKey));
  for (const PublicLayer& layer : network.net.layers) {
    const LinearShape& linear = layer.linear;
    LayerWeights weights;
    weights.weight =
        TakeIntegers(data, name, layer.name + ".weight", {linear.out_channels, linear.Depth()});
    weights.bias = TakeIntegers(data, name, layer.name + ".bias", {linear.BiasCount()});
    if (ShortcutWeights(layer) > 0) {
      const LinearShape& shortcut = *layer.shortcut->linear;
      weights.shortcut = TakeIntegers(data, name, layer.name + ".shortcut",
                                      {shortcut.out_channels, shortcut.Depth()});
    }
    network.weights.push_back(std::move(weights));
  }
  if (!data.tensors.empty()) {
    throw ConfigError(TensorPlace(name, Printable(data.tensors.begin()->first)),
                      fmt::format("found, but network {} has no such tensor", network.net.name));
  }
  ProveWidths(network, name);
  return network;
}

bool IsCompiled(const std::filesystem::path& file) {
  return LoadTensors(file).metadata.contains(kNetworkKey);
}

void ProveWidths(const IntegerNetwork& network, const std::string& place) {
  CheckSizes(network);
  const std::vector<Interval> intervals = ValueIntervals(network, place);
  for (std::size_t l = 0; l < intervals.size(); ++l) {
    const PublicLayer& layer = network.net.layers[l];
    if (Fits(intervals[l], layer.value_bits)) continue;
    // The bounds are functions of the secret weights, so they stay out of the message.
    throw ConfigError(
        fmt::format("{} layer {}", place, layer.name),
        fmt::format("its values do not fit {} bits, as the model says", layer.value_bits));
  }
}

std::vector<std::int64_t> QuantiseInput(const InputSpec& spec, const Images& images,
                                        std::size_t first, std::size_t count) {
  const std::size_t features = spec.shape.Size();
  TERCET_CHECK(images.shape == spec.shape, "got images of {}, expected {}", ShapeText(images.shape),
               ShapeText(spec.shape));
  TERCET_CHECK(first <= images.count && count <= images.count - first,
               "got images {} to {}, but there are {}", first, first + count, images.count);
  const std::int64_t largest = (std::int64_t{1} << spec.bits) - 1;
  std::vector<std::int64_t> q(features * count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint8_t* pixels = images.pixels.data() + (first + i) * features;
    for (std::size_t f = 0; f < features; ++f) q[f * count + i] = (pixels[f] * largest + 127) / 255;
  }
  return q;
}

}  // namespace tercet::nn
