// SPDX-License-Identifier: Apache-2.0
#include "import/import_onnx.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "base/json.h"
#include "import/model_parts.h"
#include "import/schedule.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/compile/compile.h"
#include "tercet/compile/customise.h"

namespace tercet::importer {
namespace {

using files::TensorData;
using mpc::Shape3;
using nn::LayerSpec;
using nn::LayerType;

/// protobuf counts the bytes of a message in an int.
constexpr FileKind kOnnxFile{"an ONNX model", std::numeric_limits<int>::max()};
constexpr std::int64_t kOldestOperators = 7;
constexpr std::size_t kMaxLayers = 4096, kMaxName = 128;  // as nets/network.schema.json says

/// What a node computes for one image: [N, channels, height, width], or [N, features].
struct Value {
  int layer = kNetworkInput;
  Shape3 shape;
  bool flat = false;
  std::size_t padding = 0;  ///< zeros around each map, which are not in the shape
};

std::string ValueText(const Value& value) {
  return value.flat ? fmt::format("[N, {}]", value.shape.Size())
                    : fmt::format("[N, {}, {}, {}]", value.shape.channels, value.shape.height,
                                  value.shape.width);
}

struct Layer {
  LayerSpec spec;
  std::string wanted_name;  ///< empty: none
  std::string operation;    ///< "Conv": its name is made of this if it cannot have the other
  std::string place;        ///< of its node, for messages
  GraphLayer graph;
  std::map<std::string, TensorData> tensors;  ///< by the end of their names, "weight"
};

/// A layer's name from that of a node, which exporters make of modules: "/block/block.0/conv/Conv"
/// is the convolution that a PyTorch state_dict calls "block.0.conv".
std::string LayerName(const std::string& node, const std::string& operation) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= node.size();) {
    const std::size_t end = std::min(node.find('/', begin), node.size());
    const std::string part = node.substr(begin, end - begin);
    // A module's name may begin with its parent's.
    if (!parts.empty() && part.starts_with(parts.back() + '.')) parts.pop_back();
    if (!part.empty()) parts.push_back(part);
    begin = end + 1;
  }
  if (parts.size() > 1 && parts.back() == operation) parts.pop_back();
  std::string name = fmt::format("{}", fmt::join(parts, ".")).substr(0, kMaxName - 1);
  for (char& c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 127 || (std::isalnum(byte) == 0 && c != '_' && c != '.' && c != '-')) c = '_';
  }
  const bool starts_well =
      name.empty() || std::isalpha(static_cast<unsigned char>(name[0])) != 0 || name[0] == '_';
  return starts_well ? name : "_" + name;
}

std::string NetworkName(const std::filesystem::path& file) {
  std::string name = file.stem().string().substr(0, kMaxName);
  for (char& c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 127 || (std::isalnum(byte) == 0 && std::strchr(" _.+-", c) == nullptr)) c = '_';
  }
  while (!name.empty() && std::isalnum(static_cast<unsigned char>(name[0])) == 0) name.erase(0, 1);
  return name.empty() ? "imported" : name;
}

class Importer {
 public:
  Importer(const onnx::ModelProto& model, const std::filesystem::path& file,
           const ImportOptions& options)
      : graph_(model.graph()), file_(file.string()), options_(options) {
    CheckModel(model);
  }

  ImportedNetwork Run() {
    ReadNames();
    CutEnd();
    FindNeeded();
    ReadInput();
    for (const int i : needed_) Convert(i);
    CheckEnd();
    NameLayers();
    return Assemble();
  }

 private:
  [[noreturn]] void Fail(const std::string& problem) const { throw ConfigError(file_, problem); }

  void CheckModel(const onnx::ModelProto& model) const {
    if (!model.has_graph() || graph_.node_size() == 0)
      Fail("holds no graph, expected an ONNX model");
    if (graph_.sparse_initializer_size() > 0)
      Fail("holds sparse initialisers, expected dense ones");
    std::optional<std::int64_t> version;
    for (const auto& set : model.opset_import())
      if (set.domain().empty() || set.domain() == "ai.onnx") version = set.version();
    if (!version || *version < kOldestOperators) {
      Fail(fmt::format("found operator set {}, expected {} or newer",
                       version ? std::to_string(*version) : "of no version", kOldestOperators));
    }
    if (graph_.output_size() != 1)
      Fail(fmt::format("found {} outputs, expected one", graph_.output_size()));
  }

  Node NodeAt(int index) const { return {graph_.node(index), index, file_}; }

  /// Where each name of the graph comes from.
  void ReadNames() {
    for (const auto& tensor : graph_.initializer()) AddConstantOf(tensor, tensor.name());
    for (const auto& input : graph_.input()) {
      // Old models list initialisers among the inputs.
      if (constants_.contains(input.name())) continue;
      if (input_ != nullptr) {
        Fail(fmt::format("found inputs {} and {}, expected one", Printable(input_->name()),
                         Printable(input.name())));
      }
      input_ = &input;
    }
    if (input_ == nullptr) Fail("found no input, expected one");
    for (int i = 0; i < graph_.node_size(); ++i) {
      for (const std::string& output : graph_.node(i).output()) {
        if (output.empty()) continue;
        if (output == input_->name() || constants_.contains(output) ||
            !producers_.emplace(output, i).second)
          FailTwice(output);
      }
      Node node = NodeAt(i);
      if (node.Op() == "Constant" && node.IsStandard())
        AddConstantOf(node.Tensor("value"), node.Output());
    }
  }
  void AddConstantOf(const onnx::TensorProto& tensor, const std::string& name) {
    if (!constants_.emplace(name, Constant(tensor, name, file_)).second) FailTwice(name);
  }
  [[noreturn]] void FailTwice(const std::string& value) const {
    Fail(fmt::format("found {} twice, expected different names", Printable(value)));
  }

  /// Goes back from the output over what leaves the order of the logits as it is.
  void CutEnd() {
    result_ = graph_.output(0).name();
    for (int steps = 0; steps < graph_.node_size(); ++steps) {
      const auto producer = producers_.find(result_);
      if (producer == producers_.end()) return;
      const Node node = NodeAt(producer->second);
      const bool softmax = node.Op() == "Softmax" || node.Op() == "LogSoftmax";
      if (IsPassing(node) && node.Output() == result_) {
        CheckPasses(node);
      } else if (node.IsStandard() && (softmax || (node.Op() == "ArgMax" && end_.empty()))) {
        end_.push_back(producer->second);
      } else {
        return;
      }
      result_ = node.Input(0);
    }
  }

  /// The nodes that the result depends on, in the order of the file, and how often what they
  /// compute is read.
  void FindNeeded() {
    std::vector<bool> needed(ToSize(graph_.node_size()), false);
    std::vector<std::string> open = {result_};
    while (!open.empty()) {
      const auto producer = producers_.find(open.back());
      open.pop_back();
      if (producer == producers_.end() || needed[ToSize(producer->second)]) continue;
      needed[ToSize(producer->second)] = true;
      for (const std::string& input : graph_.node(producer->second).input()) open.push_back(input);
    }
    for (int i = 0; i < graph_.node_size(); ++i) {
      if (!needed[ToSize(i)]) continue;
      const Node node = NodeAt(i);
      if (IsPassing(node)) {
        CheckPasses(node);
        originals_[node.Output()] = Original(node.Input(0));
        continue;
      }
      needed_.push_back(i);
      for (const std::string& input : graph_.node(i).input()) ++readers_[Original(input)];
    }
    ++readers_[Original(result_)];
  }

  /// The name of what Identity and Dropout passed on under this one.
  const std::string& Original(const std::string& name) const {
    const auto found = originals_.find(name);
    return found == originals_.end() ? name : found->second;
  }

  static bool IsPassing(const Node& node) {
    return node.IsStandard() && (node.Op() == "Identity" || node.Op() == "Dropout");
  }

  void CheckPasses(Node node) const {
    if (node.Op() == "Dropout") {
      node.Ignore("ratio");
      node.Ignore("seed");
      if (const Constant* training = FindConstant(node, 2); training != nullptr) {
        if (training->Numbers() != std::vector<double>{0})
          node.Fail("found training_mode true, expected a model for inference");
      } else if (node.HasInput(2)) {
        node.Fail("found a computed training_mode, expected a model for inference");
      }
    }
    node.CheckAllRead();
  }

  // --- Values

  /// Null when the input is absent or computed.
  const Constant* FindConstant(const Node& node, int i) const {
    if (!node.HasInput(i)) return nullptr;
    const auto found = constants_.find(Original(node.Input(i)));
    return found == constants_.end() ? nullptr : &found->second;
  }

  const Constant& NeedConstant(const Node& node, int i) const {
    const Constant* constant = FindConstant(node, i);
    if (constant == nullptr) {
      node.Fail(
          fmt::format("found '{}' as input {}, expected a constant", Printable(node.Input(i)), i));
    }
    return *constant;
  }

  /// Also one with zeros around it, which the node has to take over.
  const Value& NeedPadded(const Node& node, int i) const {
    if (FindConstant(node, i) != nullptr) {
      node.Fail(fmt::format("found the constant '{}' as input {}, expected a computed value",
                            Printable(node.Input(i)), i));
    }
    const auto found = values_.find(Original(node.Input(i)));
    if (found == values_.end()) {
      node.Fail(fmt::format("found '{}' as input {}, expected what an earlier node computes",
                            Printable(node.Input(i)), i));
    }
    return found->second;
  }

  const Value& NeedValue(const Node& node, int i) const {
    const Value& value = NeedPadded(node, i);
    if (value.padding != 0)
      node.Fail(
          fmt::format("found '{}' with zeros around it as input {}, expected these only of "
                      "Conv and AveragePool",
                      Printable(node.Input(i)), i));
    return value;
  }

  static void CheckMap(const Node& node, const Value& value) {
    if (value.flat)
      node.Fail(fmt::format("found an input of {}, expected [N, channels, height, width]",
                            ValueText(value)));
  }

  const Value& NeedFlat(const Node& node, int i) const {
    const Value& value = NeedValue(node, i);
    if (!value.flat)
      node.Fail(fmt::format("found an input of {}, expected [N, features] (a Flatten before it?)",
                            ValueText(value)));
    return value;
  }

  /// The vector of `count` values that a constant is or, in two dimensions, broadcasts to.
  std::vector<float> NeedVector(const Node& node, int i, std::size_t count, bool broadcasts) const {
    const Constant& constant = NeedConstant(node, i);
    const Sizes& shape = constant.Shape();
    const std::size_t found = constant.Count();
    const bool is_row = !shape.empty() && shape.back() == ToSigned(count) && found == count;
    if (shape.size() > (broadcasts ? 2U : 1U) || (!is_row && !(broadcasts && found == 1))) {
      node.Fail(fmt::format("found {} of shape {} as input {}, expected [{}]",
                            Printable(node.Input(i)), SizesText(shape), i, count));
    }
    const std::vector<float> values = constant.Weights();
    return is_row ? values : std::vector<float>(count, values[0]);
  }

  // --- The input

  void ReadInput() {
    const std::string place = file_ + " input " + Printable(input_->name());
    const auto fail = [&](const std::string& problem) { throw ConfigError(place, problem); };
    if (!input_->type().has_tensor_type()) fail("is no tensor, expected one");
    const auto& type = input_->type().tensor_type();
    if (type.elem_type() != onnx::TensorProto::FLOAT &&
        type.elem_type() != onnx::TensorProto::DOUBLE &&
        type.elem_type() != onnx::TensorProto::FLOAT16)
      fail("is no tensor of real numbers, expected FLOAT, DOUBLE or FLOAT16");
    Sizes sizes;  // 0: any
    for (const auto& dim : type.shape().dim()) {
      sizes.push_back(dim.has_dim_value() ? dim.dim_value() : 0);
      if (sizes.back() < 0 || sizes.back() > ToSigned(kMaxElements))
        fail(fmt::format("found a side of {}, expected sizes", sizes.back()));
    }
    const std::string text = SizesText(sizes) + " (0: any)";
    if (sizes.size() != 4 && sizes.size() != 2)
      fail(fmt::format("found {}, expected [N, channels, height, width] or [N, features]", text));
    if (sizes[0] > 1) fail(fmt::format("found {}, expected a batch of 1 or of any size", text));
    one_image_ = sizes[0] == 1;

    input_spec_ = options_.input;
    Shape3& shape = input_spec_.shape;
    if (shape.channels == 0) {
      if (std::find(sizes.begin() + 1, sizes.end(), 0) != sizes.end())
        fail(fmt::format("found {}, expected fixed sizes but for the first; --shape gives them",
                         text));
      shape.channels = ToSize(sizes[1]);
      if (sizes.size() == 4) shape = {ToSize(sizes[1]), ToSize(sizes[2]), ToSize(sizes[3])};
    }
    if (ToSigned(shape.channels) > kMaxChannels || ToSigned(shape.height) > kMaxSide ||
        ToSigned(shape.width) > kMaxSide)
      fail(fmt::format("found {}, expected at most {} channels and sides of {}",
                       mpc::ShapeText(shape), kMaxChannels, kMaxSide));
    Sizes given = {ToSigned(shape.channels), ToSigned(shape.height), ToSigned(shape.width)};
    if (sizes.size() == 2) given = {ToSigned(shape.Size())};
    for (std::size_t i = 0; i < given.size(); ++i) {
      if (sizes[i + 1] != 0 && sizes[i + 1] != given[i])
        fail(fmt::format("found {}, expected it to fit the shape {}", text, mpc::ShapeText(shape)));
    }
    Value value{kNetworkInput, shape, false, 0};
    if (sizes.size() == 2) {
      value.flat = true;
      if (shape != Shape3{shape.Size()}) {
        Layer layer;
        layer.spec.type = LayerType::kFlatten;
        layer.operation = "Flatten";
        layer.place = place;
        layer.graph.inputs = {kNetworkInput};
        layers_.push_back(std::move(layer));
        value = {0, {shape.Size()}, true, 0};
      }
    }
    values_.emplace(input_->name(), value);
  }

  // --- Nodes

  void Convert(int index) {
    using Method = void (Importer::*)(Node&);
    static const std::map<std::string, Method> methods = {
        {"Add", &Importer::Add},
        {"AveragePool", &Importer::AveragePool},
        {"BatchNormalization", &Importer::BatchNormalization},
        {"Constant", &Importer::CheckConstant},
        {"Conv", &Importer::Conv},
        {"Flatten", &Importer::Flatten},
        {"Gemm", &Importer::Gemm},
        {"GlobalAveragePool", &Importer::GlobalAveragePool},
        {"MatMul", &Importer::MatMul},
        {"MaxPool", &Importer::MaxPool},
        {"Mul", &Importer::Mul},
        {"Pad", &Importer::Pad},
        {"Pow", &Importer::Pow},
        {"Relu", &Importer::Relu},
        {"Reshape", &Importer::Reshape},
        {"Sign", &Importer::Sign}};
    Node node = NodeAt(index);
    if (!node.IsStandard()) {
      node.Fail(fmt::format("is of the domain {}, expected ONNX's own operators",
                            Printable(node.Domain())));
    }
    const auto method = methods.find(node.Op());
    if (method == methods.end()) {
      std::vector<std::string> known = {"Identity", "Dropout", "and last Softmax", "LogSoftmax",
                                        "ArgMax"};
      for (auto it = methods.rbegin(); it != methods.rend(); ++it)
        known.insert(known.begin(), it->first);
      node.Fail(fmt::format("this operator cannot be imported here; those that can: {}",
                            fmt::join(known, ", ")));
    }
    (this->*method->second)(node);
    node.CheckAllRead();
    if (layers_.size() > kMaxLayers)
      node.Fail(fmt::format("found more than {} layers, expected no more", kMaxLayers));
  }

  /// Appends a layer that computes the node's output.
  Layer& AddLayer(const Node& node, LayerType type, std::vector<int> inputs, const Shape3& shape,
                  bool flat) {
    Layer& layer = layers_.emplace_back();
    layer.spec.type = type;
    layer.operation = node.Op();
    layer.wanted_name = LayerName(node.Name(), node.Op());
    layer.place = node.Place();
    layer.graph = {type == LayerType::kConv2d, std::move(inputs)};
    values_[node.Output()] = {static_cast<int>(layers_.size()) - 1, shape, flat, 0};
    return layer;
  }

  /// A layer whose output has the shape of its input.
  void AddElementwise(const Node& node, LayerType type) {
    const Value value = NeedValue(node, 0);
    AddLayer(node, type, {value.layer}, value.shape, value.flat);
  }

  /// Its value is among the constants already.
  void CheckConstant(Node& node) { node.Ignore("value"); }

  struct Window {
    std::size_t kernel = 1, stride = 1, padding = 0;
  };

  /// `kernel` stands for an absent attribute.
  static Window ReadWindow(Node& node, std::int64_t kernel) {
    Window window;
    window.kernel = node.Equal("kernel_shape", 2, kernel, 1);
    window.stride = node.Equal("strides", 2, 1, 1);
    window.padding = node.Equal("pads", 4, 0, 0);
    if (const std::size_t dilation = node.Equal("dilations", 2, 1, 1); dilation != 1)
      node.Fail(fmt::format("found dilations {}, expected 1", dilation));
    const std::string automatic = node.String("auto_pad", "NOTSET");
    if (automatic != "NOTSET" && !(automatic == "VALID" && window.padding == 0)) {
      node.Fail(fmt::format("found auto_pad {}, expected NOTSET, or VALID without pads",
                            Printable(automatic)));
    }
    return window;
  }

  /// The shape of what a window gives that slides over `in`.
  static Shape3 Slide(const Node& node, const Window& window, const Shape3& in,
                      std::size_t channels) {
    const std::size_t height = in.height + 2 * window.padding;
    const std::size_t width = in.width + 2 * window.padding;
    if (window.kernel > height || window.kernel > width) {
      node.Fail(
          fmt::format("found a kernel of {}, expected at most the sides of the padded input, "
                      "{} x {}",
                      window.kernel, height, width));
    }
    return {channels, (height - window.kernel) / window.stride + 1,
            (width - window.kernel) / window.stride + 1};
  }

  static void SetWindow(const Window& window, LayerSpec& spec) {
    spec.kernel = window.kernel;
    spec.stride = window.stride;
    spec.padding = window.padding;
  }

  void Conv(Node& node) {
    const Value value = NeedPadded(node, 0);
    CheckMap(node, value);
    const Constant& weight = NeedConstant(node, 1);
    const Sizes& sizes = weight.Shape();
    Window window = ReadWindow(node, sizes.size() == 4 ? sizes[2] : 0);
    window.padding += value.padding;
    const auto kernel = ToSigned(window.kernel), in_channels = ToSigned(value.shape.channels);
    const std::int64_t groups = node.Int("group", 1);
    if (groups < 1 || in_channels % groups != 0) {
      node.Fail(fmt::format("found group {}, expected a divisor of the {} input channels", groups,
                            in_channels));
    }
    if (sizes.size() != 4 || sizes[0] < 1 || sizes[0] > kMaxChannels ||
        Sizes(sizes.begin() + 1, sizes.end()) != Sizes{in_channels / groups, kernel, kernel}) {
      node.Fail(fmt::format("found weights of shape {}, expected [outputs, {}, {}, {}]",
                            SizesText(sizes), in_channels / groups, kernel, kernel));
    }
    const std::size_t outputs = ToSize(sizes[0]);
    Layer& layer = AddLayer(node, LayerType::kConv2d, {value.layer},
                            Slide(node, window, value.shape, outputs), false);
    layer.spec.out_channels = outputs;
    layer.spec.groups = ToSize(groups);
    SetWindow(window, layer.spec);
    layer.tensors["weight"] = TensorData::FromFloats(
        {outputs, ToSize(sizes[1]), window.kernel, window.kernel}, weight.Weights());
    layer.spec.bias = node.HasInput(2);
    if (layer.spec.bias) SetVector(layer, "bias", NeedVector(node, 2, outputs, false));
  }

  static void SetVector(Layer& layer, const std::string& name, const std::vector<float>& values) {
    layer.tensors[name] = TensorData::FromFloats({values.size()}, values);
  }

  /// A linear layer without bias; the weights are [outputs, inputs] if `transposed`.
  Layer& AddLinear(const Node& node, bool transposed) {
    const Value value = NeedFlat(node, 0);
    const Constant& weight = NeedConstant(node, 1);
    const std::size_t inputs = value.shape.Size();
    const Sizes& sizes = weight.Shape();
    const std::size_t input_axis = transposed ? 1 : 0;
    if (sizes.size() != 2 || sizes[input_axis] != ToSigned(inputs) || sizes[1 - input_axis] < 1 ||
        sizes[1 - input_axis] > kMaxChannels) {
      node.Fail(fmt::format("found weights of shape {}, expected {}", SizesText(sizes),
                            transposed ? fmt::format("[outputs, {}]", inputs)
                                       : fmt::format("[{}, outputs]", inputs)));
    }
    const std::size_t outputs = ToSize(sizes[1 - input_axis]);
    std::vector<float> weights = weight.Weights();
    if (!transposed) {
      std::vector<float> rows(weights.size());
      for (std::size_t i = 0; i < inputs; ++i)
        for (std::size_t o = 0; o < outputs; ++o) rows[o * inputs + i] = weights[i * outputs + o];
      weights = std::move(rows);
    }
    Layer& layer = AddLayer(node, LayerType::kLinear, {value.layer}, {outputs}, true);
    layer.spec.out_channels = outputs;
    layer.spec.bias = false;
    layer.tensors["weight"] = TensorData::FromFloats({outputs, inputs}, weights);
    return layer;
  }

  static void SetBias(Layer& layer, const std::vector<float>& bias) {
    layer.spec.bias = true;
    SetVector(layer, "bias", bias);
  }

  void Gemm(Node& node) {
    node.ExpectFloat("alpha", 1);
    node.ExpectFloat("beta", 1);
    node.ExpectInt("transA", 0, 0);
    const std::int64_t transposed = node.Int("transB", 0);
    if (transposed != 0 && transposed != 1)
      node.Fail(fmt::format("found transB {}, expected 0 or 1", transposed));
    Layer& layer = AddLinear(node, transposed == 1);
    if (node.HasInput(2)) SetBias(layer, NeedVector(node, 2, layer.spec.out_channels, true));
  }

  void MatMul(Node& node) { AddLinear(node, false); }

  void Add(Node& node) {
    const bool first = FindConstant(node, 0) != nullptr;
    if (first || FindConstant(node, 1) != nullptr) {
      AddConstant(node, first ? 0 : 1);
      return;
    }
    const Value a = NeedValue(node, 0), b = NeedValue(node, 1);
    if (a.shape != b.shape || a.flat != b.flat) {
      node.Fail(fmt::format("found inputs of {} and {}, expected equal shapes", ValueText(a),
                            ValueText(b)));
    }
    AddLayer(node, LayerType::kAdd, {a.layer, b.layer}, a.shape, a.flat);
  }

  void AddConstant(const Node& node, int constant) {
    const Value value = NeedValue(node, 1 - constant);
    Layer* layer = value.layer == kNetworkInput ? nullptr : &layers_[ToSize(value.layer)];
    if (layer == nullptr || layer->spec.type != LayerType::kLinear || layer->spec.bias ||
        readers_.at(Original(node.Input(1 - constant))) != 1) {
      node.Fail(
          "adds a constant, expected that only to what a MatMul or Gemm without bias gives to "
          "nothing else");
    }
    SetBias(*layer, NeedVector(node, constant, layer->spec.out_channels, true));
    values_[node.Output()] = value;
  }

  void BatchNormalization(Node& node) {
    const Value value = NeedValue(node, 0);
    node.ExpectInt("spatial", 1, 1);
    node.ExpectInt("training_mode", 0, 0);
    node.Ignore("momentum");
    if (node.HasFurtherOutput())
      node.Fail("gives statistics as in training, expected a model for inference");
    // The shortest number that is this float: 1e-05, not 9.99999974737875e-06.
    const double eps = std::stod(fmt::format("{}", node.Float("epsilon", 1e-5F)));
    if (!(eps >= 1e-12 && eps <= 1))
      node.Fail(fmt::format("found epsilon {}, expected a number from 1e-12 to 1", eps));
    const std::size_t channels = value.shape.channels;
    Layer& layer = AddLayer(node, LayerType::kBatchNorm, {value.layer}, value.shape, value.flat);
    layer.spec.eps = eps;
    int input = 1;
    for (const char* name : {"weight", "bias", "running_mean", "running_var"})
      SetVector(layer, name, NeedVector(node, input++, channels, false));
  }

  void Relu(Node& node) { AddElementwise(node, LayerType::kRelu); }

  void Sign(Node& node) {
    AddElementwise(node, LayerType::kSign);
    notes_.insert("Sign(0) is 1 here and 0 in ONNX");
  }

  void Mul(Node& node) {
    if (Original(node.Input(0)) != Original(node.Input(1)))
      node.Fail("multiplies different inputs, expected one with itself (a square)");
    AddElementwise(node, LayerType::kSquare);
  }

  void Pow(Node& node) {
    if (NeedConstant(node, 1).Numbers() != std::vector<double>{2})
      node.Fail("found another exponent, expected 2 (a square)");
    AddElementwise(node, LayerType::kSquare);
  }

  void AddPool(const Node& node, LayerType type, const Value& value, const Window& window) {
    CheckMap(node, value);
    const Shape3 shape = Slide(node, window, value.shape, value.shape.channels);
    SetWindow(window, AddLayer(node, type, {value.layer}, shape, false).spec);
  }

  void MaxPool(Node& node) {
    const Window window = ReadWindow(node, 0);
    node.ExpectInt("ceil_mode", 0, 0);
    node.Ignore("storage_order");  // of the indices, which nothing can read
    if (window.padding != 0) node.Fail(fmt::format("found pads of {}, expected 0", window.padding));
    AddPool(node, LayerType::kMaxPool2d, Value(NeedValue(node, 0)), window);
  }

  void AveragePool(Node& node) {
    const Value value = NeedPadded(node, 0);
    Window window = ReadWindow(node, 0);
    node.ExpectInt("ceil_mode", 0, 0);
    const std::int64_t counts_padding = node.Int("count_include_pad", 0);
    if (window.padding != 0 && counts_padding != 1) {
      node.Fail(fmt::format("found count_include_pad {} with pads of {}, expected 1",
                            counts_padding, window.padding));
    }
    window.padding += value.padding;
    AddPool(node, LayerType::kAvgPool2d, value, window);
  }

  void GlobalAveragePool(Node& node) {
    const Value value = NeedValue(node, 0);
    const Shape3& in = value.shape;
    if (in.height != in.width)
      node.Fail(fmt::format("found a map of {} x {}, expected a square", in.height, in.width));
    AddPool(node, LayerType::kAvgPool2d, value, {.kernel = in.height, .stride = in.height});
  }

  /// PyTorch writes one before every average pool that counts its padding.
  void Pad(Node& node) {
    Value value = NeedValue(node, 0);
    if (const std::string mode = node.String("mode", "constant"); mode != "constant")
      node.Fail(fmt::format("found mode {}, expected constant", Printable(mode)));
    node.ExpectFloat("value", 0);
    if (node.HasInput(2) && NeedConstant(node, 2).Numbers() != std::vector<double>{0})
      node.Fail("pads with another number, expected 0");
    if (node.HasInput(3)) node.Fail("found axes as input 3, expected pads of all axes");
    const auto attribute = node.Ints("pads");  // until operator set 10
    const Sizes pads = attribute ? *attribute : NeedConstant(node, 1).Integers();
    const std::int64_t p = !value.flat && pads.size() == 8 ? pads[2] : 0;
    const Sizes expected = value.flat ? Sizes(4, 0) : Sizes{0, 0, p, p, 0, 0, p, p};
    if (pads != expected || p < 0 || p > kMaxSide) {
      node.Fail(fmt::format("found pads {}, expected equal ones on the four sides of a map",
                            SizesText(pads)));
    }
    value.padding = ToSize(p);
    values_[node.Output()] = value;
  }

  void AddFlatten(const Node& node) {
    const Value value = NeedValue(node, 0);
    AddLayer(node, LayerType::kFlatten, {value.layer}, {value.shape.Size()}, true);
  }

  void Flatten(Node& node) {
    const std::int64_t rank = NeedValue(node, 0).flat ? 2 : 4;
    if (const std::int64_t axis = node.Int("axis", 1); axis != 1 && axis != 1 - rank)
      node.Fail(fmt::format("found axis {}, expected 1", axis));
    AddFlatten(node);
  }

  void Reshape(Node& node) {
    const auto sizes = NeedConstant(node, 1).Integers();
    const std::int64_t features = ToSigned(NeedValue(node, 0).shape.Size());
    const bool zero_copies = node.Int("allowzero", 0) == 0;
    const auto keeps_images = [&](std::int64_t count) {
      return (count == 0 && zero_copies) || (count == 1 && one_image_) ||
             (count == -1 && sizes[1] == features);
    };
    if (sizes.size() != 2 || (sizes[1] != features && sizes[1] != -1) || !keeps_images(sizes[0])) {
      node.Fail(
          fmt::format("found shape {}, expected [N, {}] (a flatten)", SizesText(sizes), features));
    }
    AddFlatten(node);
  }

  // --- The end

  void CheckEnd() {
    if (needed_.empty()) Fail("found no layers between input and output, expected some");
    const auto result = values_.find(Original(result_));
    if (result == values_.end())
      Fail(fmt::format("found the output {}, expected what a node computes", Printable(result_)));
    if (result->second.padding != 0)
      Fail(fmt::format("found zeros around the output {}, expected none", Printable(result_)));
    for (const int i : end_) {
      Node node = NodeAt(i);
      if (!result->second.flat)
        node.Fail("found an input of another shape, expected [N, features]");
      const bool arg_max = node.Op() == "ArgMax";
      // Of two axes the last one is 1 or -1; ArgMax's default is the batch.
      const std::int64_t axis = node.Int("axis", arg_max ? 0 : 1);
      if (axis != 1 && axis != -1) node.Fail(fmt::format("found axis {}, expected 1", axis));
      if (arg_max) {
        node.ExpectInt("select_last_index", 0, 0);
        node.Ignore("keepdims");
      } else {
        notes_.insert(
            fmt::format("{} is left out; the order of the logits is the same", node.Text()));
      }
      node.CheckAllRead();
      only_class_ = only_class_ || arg_max;
    }
  }

  /// A wanted name that is not another layer's too, else operator and counter.
  void NameLayers() {
    std::map<std::string, int> wanted = {{"", 2}, {"input", 2}};
    for (const Layer& layer : layers_) ++wanted[layer.wanted_name];
    std::map<std::string, int> counters;
    for (Layer& layer : layers_) {
      layer.spec.name = layer.wanted_name;
      if (wanted[layer.wanted_name] == 1) continue;
      do {
        layer.spec.name = fmt::format("{}_{}", layer.operation, ++counters[layer.operation]);
      } while (wanted.contains(layer.spec.name));
    }
  }

  ImportedNetwork Assemble() {
    const std::vector<int> order = Order();
    nn::NetworkSpec spec;
    spec.name = options_.name.empty() ? NetworkName(file_) : options_.name;
    spec.input = input_spec_;
    spec.output = only_class_ ? "class" : "logits";
    ImportedNetwork network;
    int before = kNetworkInput;
    for (const int l : order) {
      Layer& layer = layers_[ToSize(l)];
      const std::vector<int>& inputs = layer.graph.inputs;
      if (inputs.size() == 2) {
        layer.spec.from = NameOf(inputs[0] == before ? inputs[1] : inputs[0]);
      } else if (inputs[0] != before) {
        layer.spec.from = NameOf(inputs[0]);
      }
      spec.layers.push_back(layer.spec);
      for (auto& [name, data] : layer.tensors)
        network.weights.tensors[layer.spec.name + "." + name] = std::move(data);
      before = l;
    }
    network.architecture = compile::NetworkText(spec);
    const nn::FloatNetwork fits(Parse(network.architecture, order), network.weights, file_);
    network.notes.assign(notes_.begin(), notes_.end());
    return network;
  }

  std::string NameOf(int layer) const {
    return layer == kNetworkInput ? "input" : layers_[ToSize(layer)].spec.name;
  }

  std::vector<int> Order() const {
    std::vector<GraphLayer> layers;
    for (const Layer& layer : layers_) layers.push_back(layer.graph);
    const Schedule schedule = MakeSchedule(layers);
    if (schedule.misfit == kNetworkInput) return schedule.order;
    const Layer& misfit = layers_[ToSize(schedule.misfit)];
    if (schedule.rival == kNetworkInput) {
      throw ConfigError(misfit.place,
                        "has no place in a chain of layers in which only sums and convolutions "
                        "take what an earlier layer gives");
    }
    throw ConfigError(misfit.place,
                      fmt::format("takes the same input as {}; only sums and convolutions may take "
                                  "what an earlier layer gives",
                                  layers_[ToSize(schedule.rival)].place.substr(file_.size() + 1)));
  }

  /// Parses the architecture; what the parser says about a layer is said about its node.
  nn::NetworkSpec Parse(const std::string& text, const std::vector<int>& order) const {
    try {
      return nn::ParseNetwork(text, file_);
    } catch (const ConfigError& e) {
      const std::string layers = file_ + " /layers/";
      if (!e.Place().starts_with(layers)) throw;
      std::size_t digits = 0;
      const std::size_t index = std::stoul(e.Place().substr(layers.size()), &digits);
      const std::string key = e.Place().substr(layers.size() + digits);
      const std::string problem = std::string(e.what()).substr(e.Place().size() + 2);
      throw ConfigError(layers_[ToSize(order.at(index))].place,
                        key.empty() ? problem : key.substr(1) + ": " + problem);
    }
  }

  const onnx::GraphProto& graph_;
  const std::string file_;
  const ImportOptions& options_;
  const onnx::ValueInfoProto* input_ = nullptr;
  nn::InputSpec input_spec_;
  bool one_image_ = false;                        // the model takes a batch of 1 only
  std::map<std::string, Constant> constants_;     // by name
  std::map<std::string, int> producers_;          // node of each computed name
  std::map<std::string, std::string> originals_;  // of what Identity and Dropout passed on
  std::map<std::string, std::size_t> readers_;    // inputs of needed nodes, and the output
  std::vector<int> needed_;                       // nodes
  std::string result_;                            // the logits
  std::vector<int> end_;                          // nodes behind them, the last one first
  std::map<std::string, Value> values_;           // by name
  std::vector<Layer> layers_;                     // sorted: each after its inputs
  std::set<std::string> notes_;
  bool only_class_ = false;
};

}  // namespace

ImportedNetwork ImportOnnx(const std::filesystem::path& file, const ImportOptions& options) {
  return ParseOnnx(ReadFile(file, kOnnxFile), file, options);
}

ImportedNetwork ParseOnnx(const std::vector<std::uint8_t>& bytes, const std::filesystem::path& file,
                          const ImportOptions& options) {
  onnx::ModelProto model;
  if (bytes.size() > kOnnxFile.max_bytes ||
      !model.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    throw ConfigError(file.string(), "cannot be read as an ONNX model (truncated?)");
  }
  return Importer(model, file, options).Run();
}

}  // namespace tercet::importer
