// SPDX-License-Identifier: Apache-2.0
#include "tercet/nn/network.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/json.h"
#include "files/schema_check.h"
#include "nn/activation_type.h"
#include "nn/axes_json.h"
#include "nn/network_schema.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/crypto/certificates.h"
#include "tercet/mpc/windows.h"
#include "tercet/nn/integer_network.h"

namespace tercet::nn {
namespace {

using nlohmann::json;

constexpr FileKind kNetworkFile{"a network's JSON", 16 << 20};

/// Activations and weights of one layer stay below this, so that products of sizes with batches,
/// kernels and element widths fit 64 bits.
constexpr std::size_t kMaxElements = std::size_t{1} << 31;

/// What "from" calls the network's input.
constexpr char kInputName[] = "input";

constexpr std::array<const char*, 12> kTypeNames = {
    "conv2d", "linear", "batch_norm", "sign",       "relu",    "square",
    "table",  "clip",   "max_pool2d", "avg_pool2d", "flatten", "add"};

LayerType TypeByName(const std::string& name) {
  for (std::size_t i = 0; i < kTypeNames.size(); ++i)
    if (name == kTypeNames[i]) return static_cast<LayerType>(i);
  throw InternalError(fmt::format("layer type {} is in the schema only", Printable(name)));
}

std::string PointerOf(const files::Path& path) {
  std::string pointer;
  for (const std::string& step : path) pointer += PointerStep(step);
  return pointer;
}

[[noreturn]] void Refuse(const std::string& name, const std::string& pointer,
                         const std::string& problem) {
  throw ConfigError(pointer.empty() ? name : name + " " + pointer, problem);
}

const json& FollowRef(const json& schema, const json* node) {
  while (node->contains("$ref")) {
    const std::string target = node->at("$ref").get<std::string>().substr(1);  // without '#'
    node = &schema.at(json::json_pointer(target));
  }
  return *node;
}

/// The part of the schema that describes `value`, given the part named for its place: references
/// followed, and for a layer the branch of its type.
const json& SchemaFor(const json& schema, const json* node, const json& value) {
  const json& plain = FollowRef(schema, node);
  if (plain.contains("allOf") && value.is_object() && value.contains("type")) {
    for (const json& branch : plain.at("allOf")) {
      if (branch.at("if").at("properties").at("type").at("const") == value.at("type"))
        return FollowRef(schema, &branch.at("then"));
    }
  }
  return plain;
}

/// Says in words what is wrong with the value at `path`, of which the validator knows only that it
/// fails.
std::string SchemaProblem(const json& schema, const json& document, const files::Path& path) {
  const json* general = &schema;
  const json* value = &document;
  for (const std::string& step : path) {
    const json& node = SchemaFor(schema, general, *value);
    if (value->is_array()) {
      const std::size_t index = std::stoul(step);
      const json& items = node.at("items");
      general = items.is_array() ? &items.at(index) : &items;
      value = &value->at(index);
    } else {
      general = &node.at("properties").at(step);
      value = &value->at(step);
    }
  }

  const json& node = SchemaFor(schema, general, *value);
  if (value->is_object() && node.contains("properties")) {
    const auto title = node.at("title").get<std::string>();
    if (node.contains("additionalProperties")) {
      for (const auto& [key, unused] : value->items()) {
        if (node.at("properties").contains(key)) continue;
        // In the order of the schema's list of required keys first, then the optional ones.
        auto keys = node.at("required").get<std::vector<std::string>>();
        for (const auto& [allowed, unused2] : node.at("properties").items())
          if (std::find(keys.begin(), keys.end(), allowed) == keys.end()) keys.push_back(allowed);
        return fmt::format("unknown key '{}'; allowed keys of {}: {}", Printable(key), title,
                           fmt::join(keys, ", "));
      }
    }
    for (const json& key : node.at("required")) {
      if (!value->contains(key.get<std::string>())) {
        return fmt::format("missing key '{}'; {} needs {}", key.get<std::string>(), title,
                           fmt::join(node.at("required").get<std::vector<std::string>>(), ", "));
      }
    }
  }
  return fmt::format("found {}, expected {}", ValueText(*value),
                     FollowRef(schema, general).at("description").get<std::string>());
}

void CheckSchema(const json& document, const std::string& name) {
  static const files::Schema schema(kNetworkSchema);
  const std::optional<files::Path> path = schema.FindViolation(document);
  if (path) Refuse(name, PointerOf(*path), SchemaProblem(schema.Document(), document, *path));
}

InputSpec ReadInput(const json& value) {
  InputSpec input;
  const json& shape = value.at("shape");
  input.shape = {shape.at(0).get<std::size_t>(), shape.at(1).get<std::size_t>(),
                 shape.at(2).get<std::size_t>()};
  input.scale = value.value("scale", input.scale);
  input.mean = value.value("mean", input.mean);
  input.std = value.value("std", input.std);
  input.bits = value.value("bits", input.bits);
  return input;
}

/// One number, or those of rows and columns.
void ReadAxes(const json& layer, const char* key, mpc::PerAxis& axes) {
  const auto found = layer.find(key);
  if (found == layer.end()) return;
  if (found->is_number()) {
    axes = found->get<std::size_t>();
  } else {
    axes = {found->at(0).get<std::size_t>(), found->at(1).get<std::size_t>()};
  }
}

/// One number, or those of rows and columns, or of top, left, bottom and right.
void ReadSides(const json& layer, const char* key, mpc::Sides& sides) {
  const auto found = layer.find(key);
  if (found == layer.end() || found->is_number() || found->size() != 4) {
    mpc::PerAxis axes = 0;
    ReadAxes(layer, key, axes);
    sides = {axes.h, axes.w, axes.h, axes.w};
  } else {
    sides = {found->at(0).get<std::size_t>(), found->at(1).get<std::size_t>(),
             found->at(2).get<std::size_t>(), found->at(3).get<std::size_t>()};
  }
}

LayerSpec ReadLayer(const json& value) {
  LayerSpec layer;
  layer.name = value.at("name").get<std::string>();
  layer.type = TypeByName(value.at("type").get<std::string>());
  layer.out_channels = value.value(
      layer.type == LayerType::kLinear ? "out_features" : "out_channels", layer.out_channels);
  ReadAxes(value, "kernel", layer.kernel);
  const bool pools = layer.type == LayerType::kMaxPool2d || layer.type == LayerType::kAvgPool2d;
  if (pools) layer.stride = layer.kernel;
  ReadAxes(value, "stride", layer.stride);
  ReadAxes(value, "dilation", layer.dilation);
  ReadSides(value, "padding", layer.padding);
  layer.pad_value = value.value("pad_value", layer.pad_value);
  layer.count_include_pad = value.value("count_include_pad", layer.count_include_pad);
  layer.groups = value.value("groups", layer.groups);
  layer.bias = value.value("bias", layer.bias);
  layer.eps = value.value("eps", layer.eps);
  layer.from = value.value("from", layer.from);
  layer.suite = value.value("suite", layer.suite);
  if (const ActivationType* activation = FindActivation(layer.type))
    activation->ReadOptions(value, layer);
  return layer;
}

/// Gives the layers of one network their shapes, front to back.
class ShapeWalk {
 public:
  ShapeWalk(std::string name, const Shape3& input)
      : name_(std::move(name)), input_(input), shape_(input) {
    if (input.Size() >= kMaxElements) {
      Refuse(name_, "/input/shape",
             fmt::format("{} are {} values, expected fewer than {}", mpc::ShapeText(input),
                         input.Size(), kMaxElements));
    }
  }

  void Visit(LayerSpec& layer) {
    pointer_ = fmt::format("/layers/{}", outputs_.size());
    layer.in = shape_;
    if (layer.type == LayerType::kConv2d && !layer.from.empty()) shape_ = layer.in = Source(layer);
    switch (layer.type) {
      case LayerType::kConv2d:
        layer.out = Convolve(layer);
        computes_ = true;
        break;
      case LayerType::kLinear:
        CheckSize("weights", layer.in.Size(), layer.out_channels);
        layer.out = {layer.out_channels, 1, 1};
        computes_ = true;
        break;
      case LayerType::kBatchNorm:
        layer.out = layer.in;
        computes_ = true;
        break;
      case LayerType::kMaxPool2d:
      case LayerType::kAvgPool2d:
        CheckWindow(layer);
        CheckPoolPadding(layer);
        CheckDivisor(layer);
        layer.out = mpc::Windows{layer.in, layer.kernel, layer.stride, layer.padding}.Out();
        computes_ = true;
        break;
      case LayerType::kFlatten:
        layer.out = {layer.in.Size(), 1, 1};
        break;
      case LayerType::kAdd:
        CheckAdd(layer);
        layer.out = layer.in;
        computes_ = true;
        break;
      default:
        CheckActivation(layer);
        layer.out = layer.in;
        break;
    }
    if (layer.name == kInputName) {
      Fail("/name", fmt::format("found '{}', which stands for the network's input; expected "
                                "another name",
                                layer.name));
    }
    const auto [earlier, is_new] = outputs_.emplace(layer.name, Output{outputs_.size(), layer.out});
    if (!is_new) {
      Fail("/name", fmt::format("found '{}', the name of layer {} too; expected unique names",
                                layer.name, earlier->second.index));
    }
    shape_ = layer.out;
  }

 private:
  struct Output {
    std::size_t index;
    Shape3 shape;
  };

  [[noreturn]] void Fail(const std::string& key, const std::string& problem) const {
    Refuse(name_, pointer_ + key, problem);
  }

  /// Each factor is below 2^32, so the product does not wrap.
  void CheckSize(const char* what, std::size_t a, std::size_t b) const {
    if (a * b >= kMaxElements) {
      Fail("", fmt::format("{} {} from an input of {}, expected fewer than {}", a * b, what,
                           mpc::ShapeText(shape_), kMaxElements));
    }
  }

  /// What a kernel of `size` weights reaches over.
  static std::size_t Reach(std::size_t size, std::size_t dilation) {
    return (size - 1) * dilation + 1;
  }

  void CheckWindow(const LayerSpec& layer) const {
    const std::size_t height = layer.in.height + layer.padding.Rows();
    const std::size_t width = layer.in.width + layer.padding.Columns();
    const mpc::PerAxis kernel = {Reach(layer.kernel.h, layer.dilation.h),
                                 Reach(layer.kernel.w, layer.dilation.w)};
    if (kernel.h <= height && kernel.w <= width) return;
    Fail("/kernel",
         fmt::format("found {}, expected at most the sides of the padded input, {} x {}",
                     kernel.h == kernel.w ? std::to_string(kernel.h) : mpc::PerAxisText(kernel),
                     height, width));
  }

  /// So that each window has a member inside the map, and an average that counts the others half of
  /// them.
  void CheckPoolPadding(const LayerSpec& layer) const {
    const bool half = layer.type == LayerType::kAvgPool2d && layer.count_include_pad;
    const auto check = [&](std::size_t padding, std::size_t kernel) {
      const std::size_t most = half ? kernel / 2 : kernel - 1;
      if (padding > most)
        Fail("/padding", fmt::format("found {}, expected at most {}, {}", padding,
                                     half ? "half the kernel" : "the kernel less 1", most));
    };
    check(std::max(layer.padding.top, layer.padding.bottom), layer.kernel.h);
    check(std::max(layer.padding.left, layer.padding.right), layer.kernel.w);
  }

  /// Of an average that does not count its padding.
  void CheckDivisor(const LayerSpec& layer) const {
    if (layer.count_include_pad) return;
    const SumPool pool{layer.kernel, layer.stride, layer.padding, false};
    if (pool.Divisor(layer.in) == 0)
      Fail("/count_include_pad",
           fmt::format("found false with windows of so many different sizes inside the map that "
                       "their least common multiple is over {}, expected a smaller kernel or true",
                       SumPool::kMostDivisor));
  }

  Shape3 Convolve(const LayerSpec& layer) const {
    CheckWindow(layer);
    if (layer.in.channels % layer.groups != 0 || layer.out_channels % layer.groups != 0) {
      Fail("/groups", fmt::format("found {}, expected a divisor of the {} input channels and of "
                                  "the {} output channels",
                                  layer.groups, layer.in.channels, layer.out_channels));
    }
    const mpc::LinearShape shape = LinearShapeOf(layer);
    const Shape3 out = shape.Out();
    CheckSize("outputs", out.channels, out.height * out.width);
    // A flattened map has up to 2^31 channels, and a kernel 2^12 positions: below 2^43 in all, and
    // 2^59 with the output channels.
    if (shape.WeightCount() >= kMaxElements) {
      Fail("", fmt::format("{} weights from an input of {}, expected fewer than {}",
                           shape.WeightCount(), mpc::ShapeText(layer.in), kMaxElements));
    }
    return out;
  }

  void CheckActivation(const LayerSpec& layer) const {
    const ActivationType::Problem problem = FindActivation(layer.type)->Check(layer);
    if (problem.key != nullptr) Fail(problem.key, problem.text);
    if (!computes_)
      Fail("/type", fmt::format("found {} with nothing before it that computes, expected an "
                                "earlier conv2d, linear, batch_norm, pool or add",
                                LayerTypeName(layer.type)));
  }

  /// The shape of what `from` names.
  Shape3 Source(const LayerSpec& layer) const {
    if (layer.from == kInputName) return input_;
    const auto from = outputs_.find(layer.from);
    if (from == outputs_.end())
      Fail("/from", fmt::format("found '{}', expected the name of an earlier layer", layer.from));
    return from->second.shape;
  }

  void CheckAdd(const LayerSpec& layer) const {
    const Shape3 source = Source(layer);
    if (source != layer.in) {
      Fail("/from", fmt::format("found '{}' with an output of {}, expected one of {} as the layer "
                                "before",
                                layer.from, mpc::ShapeText(source), mpc::ShapeText(layer.in)));
    }
  }

  std::string name_;
  Shape3 input_;
  Shape3 shape_;  // what leaves the last layer visited
  bool computes_ = false;
  std::string pointer_;
  std::map<std::string, Output> outputs_;
};

}  // namespace

const char* LayerTypeName(LayerType type) {
  const auto index = static_cast<std::size_t>(type);
  TERCET_CHECK(index < kTypeNames.size(), "layer type {} does not exist", index);
  return kTypeNames[index];
}

std::string NetworkSpec::Digest() const {
  // Adding 0.0 makes -0.0, which compares equal, the same text.
  json canonical = {{"name", name},
                    {"output", output},
                    {"input",
                     {{"shape", {input.shape.channels, input.shape.height, input.shape.width}},
                      {"scale", input.scale + 0.0},
                      {"mean", input.mean + 0.0},
                      {"std", input.std + 0.0},
                      {"bits", input.bits}}},
                    {"layers", json::array()}};
  for (const LayerSpec& layer : layers) {
    canonical["layers"].push_back({{"name", layer.name},
                                   {"type", LayerTypeName(layer.type)},
                                   {"out_channels", layer.out_channels},
                                   {"kernel", AxesToJson(layer.kernel)},
                                   {"stride", AxesToJson(layer.stride)},
                                   {"padding", AxesToJson(layer.padding)},
                                   {"groups", layer.groups},
                                   {"bias", layer.bias},
                                   {"eps", layer.eps + 0.0},
                                   {"from", layer.from},
                                   {"suite", layer.suite}});
    json& written = canonical["layers"].back();
    if (layer.dilation != 1) written["dilation"] = AxesToJson(layer.dilation);
    if (layer.pad_value != 0) written["pad_value"] = layer.pad_value;
    if (!layer.count_include_pad) written["count_include_pad"] = false;
    const ActivationType* activation = FindActivation(layer.type);
    if (activation == nullptr) continue;
    const nlohmann::ordered_json options = activation->Options(layer);
    for (const auto& [key, option] : options.items()) written[key] = option;
  }
  return crypto::Sha256Hex(canonical.dump(-1, ' ', true, json::error_handler_t::replace));
}

mpc::LinearShape LinearShapeOf(const LayerSpec& layer) {
  if (layer.type == LayerType::kLinear)
    return {.in = {layer.in.Size(), 1, 1}, .out_channels = layer.out_channels};
  return {.in = layer.in,
          .out_channels = layer.out_channels,
          .kernel_h = (layer.kernel.h - 1) * layer.dilation.h + 1,
          .kernel_w = (layer.kernel.w - 1) * layer.dilation.w + 1,
          .stride = layer.stride,
          .padding = layer.padding,
          .groups = layer.groups};
}

std::vector<std::string> Remarks(const NetworkSpec& spec) {
  std::vector<std::string> pairs;
  const LayerSpec* before = nullptr;  // the last linear map since an activation
  for (const LayerSpec& layer : spec.layers) {
    const bool linear = layer.type == LayerType::kConv2d || layer.type == LayerType::kLinear;
    if (linear) {
      const bool separable = before != nullptr && before->type == LayerType::kConv2d &&
                             layer.type == LayerType::kConv2d && layer.kernel == 1 &&
                             before->groups == before->in.channels && before->groups > 1;
      // Steps of an activation of some bits, as `tercet import` writes them, stand by themselves.
      const bool channelwise =
          layer.kernel == 1 && layer.stride == 1 && layer.groups > 1 &&
          (layer.groups == layer.in.channels || layer.groups == layer.out_channels);
      if (channelwise) continue;
      if (before != nullptr && layer.from.empty() && !separable)
        pairs.push_back(fmt::format("{} and {}", before->name, layer.name));
      before = &layer;
    } else if (FindActivation(layer.type) != nullptr || layer.type == LayerType::kMaxPool2d ||
               layer.type == LayerType::kAdd) {
      before = nullptr;
    }
  }
  if (pairs.empty()) return {};
  return {
      fmt::format("linear layers follow each other with no activation between: {}. They are "
                  "multiplied out to one; if the network was trained with a sign or relu "
                  "there, the export has lost it",
                  fmt::join(pairs, ", "))};
}

NetworkSpec LoadNetwork(const std::filesystem::path& file) {
  return ParseNetwork(ReadTextFile(file, kNetworkFile), file.string());
}

NetworkSpec ParseNetwork(const std::string& text, const std::string& name) {
  const json document = ReadJson(text, name, JsonLimits{});
  CheckSchema(document, name);

  NetworkSpec network;
  network.name = document.at("name").get<std::string>();
  network.input = ReadInput(document.at("input"));
  network.output = document.at("output").get<std::string>();
  ShapeWalk walk(name, network.input.shape);
  for (const json& value : document.at("layers")) {
    if (const auto padding = value.find("padding");
        padding != value.end() && padding->is_array() && padding->size() == 3)
      Refuse(name, fmt::format("/layers/{}/padding", network.layers.size()),
             "found 3 numbers, expected one, two or four");
    network.layers.push_back(ReadLayer(value));
    walk.Visit(network.layers.back());
  }
  if (network.Classes() > kMaxClasses)
    throw ConfigError(name + " /layers",
                      fmt::format("found a last layer that gives {} values, expected at most {}, "
                                  "one for each class",
                                  network.Classes(), kMaxClasses));
  return network;
}

}  // namespace tercet::nn
