// SPDX-License-Identifier: Apache-2.0
#include "import/import_onnx.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <set>
#include <utility>

#include "base/json.h"
#include "import/fold.h"
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

constexpr int kNone = -1;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// What x becomes: min(max(x, low), high).
struct Bounds {
  double low = -kInfinity, high = kInfinity;
};

/// What a node computes, as it is made of a layer's output: the tensor's element i (of one image,
/// row-major) is the output's element order[i], times its scale, plus its shift, then clipped.
struct Value {
  int layer = kNetworkInput;
  Sizes sizes;                       ///< kImages among them
  std::vector<std::size_t> order;    ///< empty: as it is
  std::vector<double> scale, shift;  ///< empty: 1 and 0; else one for all elements, or one for each
  std::optional<Bounds> clip;
  Sizes before, after;  ///< numbers around it in each axis, which `sizes` does not count
  double padding = 0;   ///< those numbers
  /// Stands for 1 where what is above is 0 or more (or, if opposite, is not), and for 0 elsewhere.
  bool is_flag = false, opposite = false;
  int flattened_by = kNone;  ///< the node that a flatten layer is to be made for
  int made_by = kNone;       ///< the last node that scale, shift, clip or flag stand for
  bool settled = false;      ///< of the model's input: `order` is that of the images here
};

std::string ValueText(const Value& value) {
  std::vector<std::string> sizes;
  for (const std::int64_t size : value.sizes)
    sizes.push_back(size == kImages ? "N" : std::to_string(size));
  return fmt::format("[{}]", fmt::join(sizes, ", "));
}

bool HasPadding(const Value& value) {
  const auto some = [](std::int64_t count) { return count != 0; };
  return std::any_of(value.before.begin(), value.before.end(), some) ||
         std::any_of(value.after.begin(), value.after.end(), some);
}

/// Elements of one image.
std::size_t CountOf(const Value& value) {
  std::size_t count = 1;
  for (const std::int64_t size : value.sizes) count *= size == kImages ? 1 : ToSize(size);
  return count;
}

void Multiply(Value& value, const std::vector<double>& factor) {
  const auto at = [](const std::vector<double>& v, std::size_t i, double otherwise) {
    return v.empty() ? otherwise : v[v.size() == 1 ? 0 : i];
  };
  const std::vector<double> scale = value.scale, shift = value.shift;
  value.scale.resize(std::max({scale.size(), factor.size(), std::size_t{1}}));
  for (std::size_t i = 0; i < value.scale.size(); ++i)
    value.scale[i] = at(scale, i, 1) * at(factor, i, 1);
  if (shift.empty()) return;
  value.shift.resize(std::max(shift.size(), factor.size()));
  for (std::size_t i = 0; i < value.shift.size(); ++i)
    value.shift[i] = at(shift, i, 0) * at(factor, i, 1);
}

void Add(Value& value, const std::vector<double>& summand) {
  const std::vector<double> shift = value.shift;
  value.shift.resize(std::max(shift.size(), summand.size()));
  for (std::size_t i = 0; i < value.shift.size(); ++i) {
    value.shift[i] = (shift.empty() ? 0 : shift[shift.size() == 1 ? 0 : i]) +
                     summand[summand.size() == 1 ? 0 : i];
  }
}

struct Layer {
  LayerSpec spec;
  std::string wanted_name;  ///< empty: none
  std::string operation;    ///< "Conv": its name is made of this if it cannot have the other
  std::string place;        ///< of its node, for messages
  GraphLayer graph;
  Shape3 out;
  bool arithmetic = false;  ///< a batch_norm that stands for sums and products with constants
  std::vector<double> scale, shift;           ///< of such a one
  std::map<std::string, TensorData> tensors;  ///< by the end of their names, "weight"
};

/// One axis of a window that slides over a map.
struct Axis {
  std::size_t in = 1, kernel = 1, stride = 1, dilation = 1, before = 0, after = 0;
  std::size_t Reach() const { return (kernel - 1) * dilation + 1; }
  std::size_t Out() const { return (in + before + after - Reach()) / stride + 1; }
};
struct Window {
  Axis rows, columns;
  Shape3 Out(std::size_t channels) const { return {channels, rows.Out(), columns.Out()}; }
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
      : graph_(model.graph()), path_(file), file_(file.string()), options_(options) {
    CheckModel(model);
  }

  ImportedNetwork Run() {
    ReadNames();
    CutEnd();
    FindNeeded();
    ReadInput();
    for (const int i : needed_) Convert(i);
    for (const int i : passing_) CheckPasses(NodeAt(i));
    CheckEnd();
    MergeArithmetic();
    NameLayers();
    Binarise();
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
    for (const auto& tensor : graph_.initializer())
      if (!constants_.emplace(tensor.name(), Constant(tensor, tensor.name(), path_)).second)
        FailTwice(tensor.name());
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
    }
  }
  [[noreturn]] void FailTwice(const std::string& value) const {
    Fail(fmt::format("found {} twice, expected different names", Printable(value)));
  }

  /// Goes back from the output over what leaves the order of the logits as it is.
  void CutEnd() {
    result_ = graph_.output(0).name();
    std::string name = result_;
    for (int steps = 0; steps < graph_.node_size(); ++steps) {
      const auto producer = producers_.find(name);
      if (producer == producers_.end()) return;
      const Node node = NodeAt(producer->second);
      if (!node.IsStandard() || node.Output() != name) return;
      if (node.Op() == "Softmax" || node.Op() == "LogSoftmax" || node.Op() == "Sigmoid" ||
          (node.Op() == "ArgMax" && end_.empty())) {
        end_.push_back(producer->second);
        result_ = node.Input(0);
      } else if (!IsPassing(node) && node.Op() != "Cast" && node.Op() != "Squeeze" &&
                 node.Op() != "Unsqueeze" && node.Op() != "Flatten" && node.Op() != "Reshape") {
        return;
      }
      name = node.Input(0);
    }
  }

  /// The nodes that the result depends on, in the order of the file.
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
    std::vector<int> constants;
    for (int i = 0; i < graph_.node_size(); ++i) {
      if (!needed[ToSize(i)]) continue;
      const Node node = NodeAt(i);
      if (IsPassing(node)) {
        passing_.push_back(i);
        originals_[node.Output()] = Original(node.Input(0));
      } else {
        (node.Op() == "Constant" ? constants : needed_).push_back(i);
      }
    }
    needed_.insert(needed_.begin(), constants.begin(), constants.end());
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

  // --- Constants

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

  double NeedNumber(const Node& node, int i) const {
    const std::vector<double> numbers = NeedConstant(node, i).Numbers();
    if (numbers.size() != 1)
      node.Fail(fmt::format("found {} numbers as input {}, expected one", numbers.size(), i));
    return numbers[0];
  }

  void SetConstant(const Node& node, Array array) {
    constants_.emplace(node.Output(), Constant(std::move(array), node.Output(), path_));
  }

  /// Whether all inputs of a node are constants, so that what it gives is one too.
  bool FoldsConstants(Node& node) {
    if (!CanFold(node) || node.InputCount() == 0) return false;
    Inputs inputs;
    for (int i = 0; i < node.InputCount(); ++i) {
      const Constant* constant = FindConstant(node, i);
      if (constant == nullptr && node.HasInput(i)) return false;
      inputs.emplace_back();
      if (constant != nullptr) inputs.back() = constant->ToArray();
    }
    SetConstant(node, Fold(node, inputs));
    return true;
  }

  void ConstantNode(Node& node) {
    if (const onnx::TensorProto* tensor = node.Tensor("value")) {
      constants_.emplace(node.Output(), Constant(*tensor, node.Output(), path_));
    } else if (const auto floats = node.Floats("value_floats")) {
      SetConstant(node, {{ToSigned(floats->size())}, {floats->begin(), floats->end()}, false});
    } else if (const auto integers = node.Ints("value_ints")) {
      SetConstant(node, {{ToSigned(integers->size())}, {integers->begin(), integers->end()}, true});
    } else if (node.Has("value_int")) {
      SetConstant(node, {{}, {static_cast<double>(node.Int("value_int", 0))}, true});
    } else if (node.Has("value_float")) {
      SetConstant(node, {{}, {node.Float("value_float", 0)}, false});
    } else {
      node.Fail("has no attribute value, value_float, value_floats, value_int or value_ints");
    }
  }

  /// The vector of `count` values that a constant is.
  std::vector<float> NeedVector(const Node& node, int i, std::size_t count) const {
    const Constant& constant = NeedConstant(node, i);
    if (constant.Shape() != Sizes{ToSigned(count)}) {
      node.Fail(fmt::format("found {} of shape {} as input {}, expected [{}]",
                            Printable(node.Input(i)), SizesText(constant.Shape()), i, count));
    }
    return constant.Weights();
  }

  // --- Values

  /// Also one with numbers around it, which the node has to take over.
  Value& NeedPadded(const Node& node, int i) {
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

  Value& NeedValue(const Node& node, int i) {
    Value& value = NeedPadded(node, i);
    if (HasPadding(value))
      node.Fail(
          fmt::format("found '{}' with zeros around it as input {}, expected these only of "
                      "Conv and pools",
                      Printable(node.Input(i)), i));
    return value;
  }

  /// What a layer of its own gives: nothing is left to do with it.
  Value& NeedPlain(const Node& node, int i) {
    Value& value = NeedValue(node, i);
    MakePlain(node, value);
    return value;
  }

  void MakePlain(const Node& node, Value& value) {
    Settle(value, IsMap(value));
    MakeFlat(value);
    MakeNumber(node, value);
    MakeClip(node, value);
    MakeArithmetic(node, value);
  }

  bool IsImages(std::int64_t size) const { return size == kImages || (size == 1 && images_ == 1); }

  /// A batch of maps, or of rows: those of a one-dimensional convolution have a height of 1.
  bool IsMap(const Value& value) const {
    const std::size_t rank = value.sizes.size();
    return (rank == 3 || rank == 4) && IsImages(value.sizes[0]);
  }

  static Shape3 MapShape(const Value& value) {
    const Sizes& s = value.sizes;
    return {ToSize(s[1]), s.size() == 4 ? ToSize(s[2]) : 1, ToSize(s.back())};
  }

  /// A value in the order of a layer's map.
  Value& NeedMap(const Node& node, int i) {
    Value& value = NeedPadded(node, i);
    if (!IsMap(value))
      node.Fail(fmt::format("found an input of {}, expected [N, channels, height, width]",
                            ValueText(value)));
    Settle(value, true);
    if (!value.order.empty() || ShapeOf(value.layer) != MapShape(value)) {
      node.Fail(
          fmt::format("found an input of {} whose numbers an earlier Reshape or Transpose "
                      "has put elsewhere, expected that only before a Gemm or MatMul",
                      ValueText(value)));
    }
    return value;
  }

  Shape3 ShapeOf(int layer) const {
    return layer == kNetworkInput ? input_spec_.shape : layers_[ToSize(layer)].out;
  }

  /// Adds a layer that computes something of a value, after which it is that layer's output.
  Layer& AddLayerTo(Value& value, LayerType type, const Node& node) {
    Layer& layer = AddLayer(node, type, {value.layer}, ShapeOf(value.layer));
    value.layer = static_cast<int>(layers_.size()) - 1;
    return layer;
  }

  Node MakerOf(const Node& node, const Value& value) const {
    return value.made_by == kNone ? node : NodeAt(value.made_by);
  }

  void MakeFlat(Value& value) {
    if (value.flattened_by == kNone) return;
    const Node maker = NodeAt(value.flattened_by);
    value.flattened_by = kNone;
    AddLayerTo(value, LayerType::kFlatten, maker).out = {CountOf(value)};
  }

  /// Of a flag.
  void MakeNumber(const Node& node, Value& value) {
    if (!value.is_flag) return;
    MakeArithmetic(node, value);
    AddLayerTo(value, LayerType::kSign, MakerOf(node, value));
    value.scale = {value.opposite ? -0.5 : 0.5};
    value.shift = {0.5};
    value.is_flag = value.opposite = false;
  }

  bool IsNonNegative(int layer) const {
    if (layer == kNetworkInput) return false;
    const Layer& made = layers_[ToSize(layer)];
    switch (made.spec.type) {
      case LayerType::kRelu:
      case LayerType::kSquare:
        return true;
      case LayerType::kMaxPool2d:
      case LayerType::kAvgPool2d:
      case LayerType::kFlatten:
        return IsNonNegative(made.graph.inputs[0]);
      default:
        return false;
    }
  }

  /// max(x, low) is low + relu(x - low), and min(x, high) is high - relu(high - x).
  void MakeClip(const Node& node, Value& value) {
    if (!value.clip) return;
    const Bounds bounds = *value.clip;
    value.clip.reset();
    const Node maker = MakerOf(node, value);
    const bool as_it_is = value.scale.empty() && value.shift.empty();
    if (bounds.low > -kInfinity && !(as_it_is && bounds.low <= 0 && IsNonNegative(value.layer))) {
      if (bounds.low != 0) Add(value, {-bounds.low});
      MakeArithmetic(node, value);
      AddLayerTo(value, LayerType::kRelu, maker);
      if (bounds.low != 0) value.shift = {bounds.low};
    }
    if (bounds.high == kInfinity) return;
    Multiply(value, {-1});
    Add(value, {bounds.high});
    MakeArithmetic(node, value);
    AddLayerTo(value, LayerType::kRelu, maker);
    value.scale = {-1};
    value.shift = {bounds.high};
  }

  /// Of numbers of all elements, or none for `otherwise`, those of the channels; none when they
  /// differ within a channel.
  static std::optional<std::vector<double>> PerChannel(const std::vector<double>& all,
                                                       const Shape3& shape, double otherwise) {
    if (all.size() <= 1)
      return std::vector<double>(shape.channels, all.empty() ? otherwise : all[0]);
    const std::size_t area = shape.height * shape.width;
    std::vector<double> channels(shape.channels);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (i % area == 0) channels[i / area] = all[i];
      if (all[i] != channels[i / area]) return std::nullopt;
    }
    return channels;
  }

  static bool AreAll(const std::vector<double>& values, double expected) {
    return std::all_of(values.begin(), values.end(), [&](double v) { return v == expected; });
  }

  void MakeArithmetic(const Node& node, Value& value) {
    const std::vector<double> scale = std::move(value.scale), shift = std::move(value.shift);
    value.scale.clear();
    value.shift.clear();
    if (AreAll(scale, 1) && AreAll(shift, 0)) return;
    const Shape3 shape = ShapeOf(value.layer);
    auto factors = PerChannel(scale, shape, 1), summands = PerChannel(shift, shape, 0);
    const Node maker = MakerOf(node, value);
    if (!factors || !summands)
      maker.Fail(
          "computes with a constant that differs within a channel, expected one number for "
          "each channel (but behind a Flatten any)");
    Layer& layer = AddLayerTo(value, LayerType::kBatchNorm, maker);
    SetNorm(layer, *factors, *summands);
    layer.arithmetic = true;
    layer.scale = std::move(*factors);
    layer.shift = std::move(*summands);
  }

  static std::vector<float> Floats(const std::vector<double>& values) {
    return {values.begin(), values.end()};
  }

  /// Makes it multiply and add, exactly: variance and eps are 1 together.
  static void SetNorm(Layer& layer, const std::vector<double>& scale,
                      const std::vector<double>& shift) {
    constexpr double kEps = 0x1p-24;
    layer.spec.eps = kEps;
    SetVector(layer, "weight", Floats(scale));
    SetVector(layer, "bias", Floats(shift));
    SetVector(layer, "running_mean", std::vector<float>(scale.size(), 0));
    SetVector(layer, "running_var", std::vector<float>(scale.size(), static_cast<float>(1 - kEps)));
  }

  /// Sign's argument does not need to be clipped where that leaves its sign as it is.
  static bool KeepsSign(const Bounds& bounds) { return bounds.low < 0 && bounds.high >= 0; }

  // --- The input

  [[noreturn]] void FailInput(const std::string& problem) const {
    throw ConfigError(file_ + " input " + Printable(input_->name()), problem);
  }

  void ReadInput() {
    if (!input_->type().has_tensor_type()) FailInput("is no tensor, expected one");
    const auto& type = input_->type().tensor_type();
    if (type.elem_type() != onnx::TensorProto::FLOAT &&
        type.elem_type() != onnx::TensorProto::DOUBLE &&
        type.elem_type() != onnx::TensorProto::BFLOAT16 &&
        type.elem_type() != onnx::TensorProto::FLOAT16)
      FailInput("is no tensor of real numbers, expected FLOAT, DOUBLE, FLOAT16 or BFLOAT16");
    Sizes sizes;  // 0: any
    for (const auto& dim : type.shape().dim()) {
      // Some exporters write -1 for any.
      sizes.push_back(dim.has_dim_value() && dim.dim_value() != -1 ? dim.dim_value() : 0);
      if (sizes.back() < 0 || sizes.back() > ToSigned(kMaxElements))
        FailInput(fmt::format("found a side of {}, expected sizes", sizes.back()));
    }
    input_spec_ = options_.input;
    const Shape3& given = options_.input.shape;
    const bool is_given = given.channels != 0;
    if (sizes.empty() && is_given) sizes = Sizes(4, 0);  // without a shape, or of one number
    input_text_ = SizesText(sizes) + " (0: any)";
    if (sizes.empty() || sizes.size() > 4)
      FailInput(
          fmt::format("found {}, expected [N, channels, height, width], [N, height, width, "
                      "channels] or [N, features]{}",
                      input_text_, sizes.empty() ? "; --shape gives the images' shape" : ""));
    if (sizes.size() == 1) {  // of one image
      sizes.insert(sizes.begin(), 1);
      images_ = 1;
    } else {
      images_ = sizes[0];
    }
    const Sizes each(sizes.begin() + 1, sizes.end());
    const Sizes channels_first = {ToSigned(given.channels), ToSigned(given.height),
                                  ToSigned(given.width)};
    const Sizes channels_last = {channels_first[1], channels_first[2], channels_first[0]};
    const auto fits = [&](const Sizes& wanted) {
      return std::equal(each.begin(), each.end(), wanted.begin(), wanted.end(),
                        [](std::int64_t a, std::int64_t b) { return a == 0 || a == b; });
    };
    const bool any = std::find(each.begin(), each.end(), 0) != each.end();
    Value value;
    value.sizes = each;
    if (is_given) {
      if (each.size() == 3) {
        channels_last_ = !fits(channels_first);
        value.sizes = channels_last_ ? channels_last : channels_first;
      } else if (each.size() == 1) {
        value.sizes = {ToSigned(given.Size())};
      }
      if (!fits(value.sizes) || CountOf(value) != given.Size())
        FailInput(fmt::format("found {}, expected it to fit the shape {}", input_text_,
                              mpc::ShapeText(given)));
    } else if (any) {
      FailInput(fmt::format("found {}, expected fixed sizes but for the first; --shape gives them",
                            input_text_));
    } else if (each.size() == 3) {
      const auto few = [](std::int64_t size) { return size == 1 || size == 3 || size == 4; };
      channels_last_ = few(each[2]) && !few(each[0]);
    }
    std::size_t count = 1;
    for (const std::int64_t size : value.sizes) {
      if ((count *= ToSize(size)) >= kMaxElements)
        FailInput(
            fmt::format("found {}, expected fewer than {} numbers", input_text_, kMaxElements));
    }
    value.sizes.insert(value.sizes.begin(), kImages);
    values_.emplace(input_->name(), value);
  }

  /// Decides, when the first layer takes the input, how images lie in it: as that layer takes them
  /// where it takes maps.
  void Settle(Value& value, bool as_map) {
    if (value.layer != kNetworkInput || value.settled) return;
    const std::size_t count = CountOf(value);
    if (places_.empty()) {
      places_.resize(count);
      std::iota(places_.begin(), places_.end(), 0);
      Shape3 shape = options_.input.shape;
      if (as_map) {
        shape = MapShape(value);
        for (std::size_t i = 0; i < value.order.size(); ++i) places_[value.order[i]] = i;
      } else if (shape.channels == 0 || channels_last_) {
        shape = GuessShape();
      }
      SetInputShape(shape);
    }
    if (value.order.empty()) {
      value.order = places_;
    } else {
      for (std::size_t& element : value.order) element = places_[element];
    }
    for (std::vector<double>* numbers : {&value.scale, &value.shift}) {
      if (numbers->size() <= 1) continue;
      const std::vector<double> before = *numbers;
      for (std::size_t i = 0; i < count; ++i) (*numbers)[places_[i]] = before[i];
    }
    TidyOrder(value);
    value.settled = true;
  }

  /// Of an input that goes into a Flatten or a Gemm.
  Shape3 GuessShape() {
    const Sizes sizes = values_.at(input_->name()).sizes;
    if (sizes.size() == 4 && channels_last_) {
      const Shape3 shape{ToSize(sizes[3]), ToSize(sizes[1]), ToSize(sizes[2])};
      const std::size_t area = shape.height * shape.width;
      for (std::size_t i = 0; i < places_.size(); ++i)
        places_[i] = i % shape.channels * area + i / shape.channels;
      return shape;
    }
    if (sizes.size() == 4) return {ToSize(sizes[1]), ToSize(sizes[2]), ToSize(sizes[3])};
    if (sizes.size() == 3 && sizes[1] > 1 && sizes[2] > 1)
      return {1, ToSize(sizes[1]), ToSize(sizes[2])};
    return {places_.size()};
  }

  void SetInputShape(const Shape3& shape) {
    const Shape3& given = options_.input.shape;
    if (given.channels != 0 && shape != given)
      FailInput(
          fmt::format("found {}, of which the first layer takes {}; expected it to fit the "
                      "shape {}",
                      input_text_, mpc::ShapeText(shape), mpc::ShapeText(given)));
    if (shape.channels < 1 || ToSigned(shape.channels) > kMaxChannels || shape.height < 1 ||
        ToSigned(shape.height) > kMaxSide || shape.width < 1 || ToSigned(shape.width) > kMaxSide)
      FailInput(fmt::format("found {}, expected at most {} channels and sides of {}",
                            mpc::ShapeText(shape), kMaxChannels, kMaxSide));
    input_spec_.shape = shape;
  }

  static void TidyOrder(Value& value) {
    for (std::size_t i = 0; i < value.order.size(); ++i)
      if (value.order[i] != i) return;
    value.order.clear();
  }

  // --- Nodes

  void Convert(int index) {
    using Method = void (Importer::*)(Node&);
    static const std::map<std::string, Method> methods = {
        {"Abs", &Importer::LeakyRelu},
        {"Add", &Importer::Arithmetic},
        {"AveragePool", &Importer::AveragePool},
        {"BatchNormalization", &Importer::BatchNormalization},
        {"BipolarQuant", &Importer::BipolarQuant},
        {"Cast", &Importer::Cast},
        {"Clip", &Importer::Clip},
        {"Constant", &Importer::ConstantNode},
        {"Conv", &Importer::Conv},
        {"Div", &Importer::Arithmetic},
        {"Flatten", &Importer::Flatten},
        {"Gemm", &Importer::Gemm},
        {"GlobalAveragePool", &Importer::GlobalPool},
        {"GlobalMaxPool", &Importer::GlobalPool},
        {"Greater", &Importer::Compare},
        {"GreaterOrEqual", &Importer::Compare},
        {"HardSigmoid", &Importer::HardSigmoid},
        {"LeakyRelu", &Importer::LeakyRelu},
        {"Less", &Importer::Compare},
        {"LessOrEqual", &Importer::Compare},
        {"MatMul", &Importer::MatMul},
        {"Max", &Importer::MaxOrMin},
        {"MaxPool", &Importer::MaxPool},
        {"Min", &Importer::MaxOrMin},
        {"Mul", &Importer::Arithmetic},
        {"MultiThreshold", &Importer::MultiThreshold},
        {"Neg", &Importer::Neg},
        {"Not", &Importer::Not},
        {"PRelu", &Importer::LeakyRelu},
        {"Pad", &Importer::Pad},
        {"Pow", &Importer::Pow},
        {"ReduceMax", &Importer::Reduce},
        {"ReduceMean", &Importer::Reduce},
        {"ReduceSum", &Importer::Reduce},
        {"Relu", &Importer::Relu},
        {"Reshape", &Importer::Reshape},
        {"Shape", &Importer::Shape},
        {"Sign", &Importer::Sign},
        {"Squeeze", &Importer::Squeeze},
        {"Sub", &Importer::Arithmetic},
        {"Transpose", &Importer::Transpose},
        {"Unsqueeze", &Importer::Unsqueeze},
        {"Where", &Importer::Where}};
    Node node = NodeAt(index);
    index_ = index;
    if (FoldsConstants(node)) return;
    const auto method = methods.find(node.Op());
    const bool binarised = node.Op() == "BipolarQuant" || node.Op() == "MultiThreshold";
    if (!node.IsStandard() && !binarised) {
      node.Fail(
          fmt::format("is of the domain {}, expected ONNX's own operators, and of others "
                      "BipolarQuant and MultiThreshold{}",
                      Printable(node.Domain()), Advice(node.Op())));
    }
    if (method == methods.end()) {
      std::vector<std::string> known = {"Identity",   "Dropout", "and last Softmax",
                                        "LogSoftmax", "Sigmoid", "ArgMax"};
      for (auto it = methods.rbegin(); it != methods.rend(); ++it)
        known.insert(known.begin(), it->first);
      node.Fail(fmt::format("this operator cannot be imported here{}; those that can: {}",
                            Advice(node.Op()), fmt::join(known, ", ")));
    }
    (this->*method->second)(node);
    node.CheckAllRead();
    if (layers_.size() > kMaxLayers)
      node.Fail(fmt::format("found more than {} layers, expected no more", kMaxLayers));
  }

  /// What to do about an operator that is refused.
  static std::string Advice(const std::string& op) {
    static const std::vector<std::pair<std::vector<std::string>, const char*>> advice = {
        {{"Sigmoid", "Tanh", "Gelu", "Erf", "Exp", "Softplus", "Softsign", "Elu", "Selu", "Celu",
          "HardSwish", "Mish", "ThresholdedRelu", "Log", "Sqrt"},
         "; train with Relu, Clip, Sign or a square instead, or write the network's JSON with a "
         "layer of type table (docs/networks.md)"},
        {{"Softmax", "LogSoftmax"},
         "; it is left out where it is last, and there is nothing like it between layers"},
        {{"Concat", "Split", "Slice", "Gather"},
         "; it is computed of constants alone, as branches here end in sums: use Add"},
        {{"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
          "MatMulInteger", "DynamicQuantizeLinear", "Quant"},
         "; export the model before it is quantised, Tercet quantises the weights itself"},
        {{"LSTM", "GRU", "RNN", "If", "Loop", "Scan", "Attention"},
         "; networks here are chains of layers, without loops and conditions"},
        {{"ConvTranspose", "Resize", "Upsample", "DepthToSpace", "SpaceToDepth"},
         "; networks here classify, and no layer makes a map larger"},
        {{"LRN", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
          "LpNormalization", "MeanVarianceNormalization"},
         "; it divides by what an image gives: train with BatchNormalization instead"}};
    for (const auto& [ops, text] : advice)
      if (std::find(ops.begin(), ops.end(), op) != ops.end()) return text;
    return "";
  }

  Layer& AddLayer(const Node& node, LayerType type, std::vector<int> inputs, const Shape3& out) {
    Layer& layer = layers_.emplace_back();
    layer.spec.type = type;
    layer.operation = node.Op();
    layer.wanted_name = LayerName(node.Name(), node.Op());
    layer.place = node.Place();
    layer.graph = {type == LayerType::kConv2d, std::move(inputs)};
    layer.out = out;
    return layer;
  }

  /// What the last layer gives is what the node computes.
  Value& SetOutput(const Node& node, const Sizes& sizes, std::vector<std::size_t> order = {}) {
    Value value;
    value.layer = static_cast<int>(layers_.size()) - 1;
    value.sizes = sizes;
    value.order = std::move(order);
    return SetValue(node, std::move(value));
  }
  Value& SetValue(const Node& node, Value value) {
    return values_[node.Output()] = std::move(value);
  }

  /// A layer whose output has the shape of its input.
  void AddElementwise(const Node& node, LayerType type, int input = 0) {
    Value value = NeedPlain(node, input);
    AddLayerTo(value, type, node);
    SetValue(node, std::move(value));
  }

  static void SetVector(Layer& layer, const std::string& name, const std::vector<float>& values) {
    layer.tensors[name] = TensorData::FromFloats({values.size()}, values);
  }

  // --- Windows

  /// `kernel` stands for an absent attribute; `pools` may end beyond the map (ceil_mode).
  Window ReadWindow(Node& node, const Value& value, const Sizes& kernel, bool pools) {
    const std::size_t rank = value.sizes.size(), axes = rank - 2;
    Sizes kernels = node.Ints("kernel_shape").value_or(kernel);
    if (kernels.size() != axes ||
        std::any_of(kernels.begin(), kernels.end(), [](auto k) { return k < 1 || k > kMaxSide; }))
      node.Fail(fmt::format("found kernel_shape {}, expected {} numbers from 1 to {}",
                            SizesText(kernels), axes, kMaxSide));
    const Sizes strides = node.Bounded("strides", axes, 1, 1);
    const Sizes dilations = node.Bounded("dilations", axes, 1, 1);
    const std::string automatic = node.String("auto_pad", "NOTSET");
    const bool upper = automatic == "SAME_UPPER", same = upper || automatic == "SAME_LOWER";
    if (!same && automatic != "NOTSET" && automatic != "VALID")
      node.Fail(fmt::format("found auto_pad {}, expected NOTSET, VALID, SAME_UPPER or SAME_LOWER",
                            Printable(automatic)));
    Sizes pads = node.Bounded("pads", 2 * axes, 0, 0);
    if (automatic != "NOTSET") pads.assign(pads.size(), 0);
    const bool ceils = pools && node.Int("ceil_mode", 0) != 0;
    Window window;
    for (std::size_t i = 0; i < axes; ++i) {
      Axis& axis = i + 1 == axes ? window.columns : window.rows;
      const std::int64_t around = HasPadding(value) ? value.before[i + 2] : 0;
      const std::int64_t behind = HasPadding(value) ? value.after[i + 2] : 0;
      axis = {.in = ToSize(value.sizes[i + 2]),
              .kernel = ToSize(kernels[i]),
              .stride = ToSize(strides[i]),
              .dilation = ToSize(dilations[i]),
              .before = ToSize(pads[i] + around),
              .after = ToSize(pads[axes + i] + behind)};
      const std::size_t in = axis.in + axis.before + axis.after, stride = axis.stride;
      if (same) {
        const std::size_t needed = ((in + stride - 1) / stride - 1) * stride + axis.Reach();
        const std::size_t more = needed > in ? needed - in : 0;
        axis.before += upper ? more / 2 : more - more / 2;
        axis.after += upper ? more - more / 2 : more / 2;
      }
    }
    const auto fits = [](const Axis& axis) {
      return axis.Reach() <= axis.in + axis.before + axis.after;
    };
    if (!fits(window.rows) || !fits(window.columns)) {
      node.Fail(fmt::format(
          "found a kernel of {} x {}, expected at most the sides of the padded input, {} x {}",
          window.rows.Reach(), window.columns.Reach(),
          window.rows.in + window.rows.before + window.rows.after,
          window.columns.in + window.columns.before + window.columns.after));
    }
    if (ceils) {
      for (Axis* axis : {&window.rows, &window.columns}) {
        // One more window where some numbers are left, but none that begins behind the map.
        const std::size_t next = axis->Out() * axis->stride;
        const std::size_t end = axis->in + axis->before + axis->after;
        if (next + axis->Reach() - axis->stride < end && next < axis->in + axis->before)
          axis->after += next + axis->Reach() - end;
      }
    }
    return window;
  }

  void CheckChannelPads(const Node& node, const Value& value) const {
    if (HasPadding(value) && (value.before[1] != 0 || value.after[1] != 0))
      node.Fail("found zeros around the channels, expected them only around maps");
  }

  static void SetWindow(const Window& window, LayerSpec& spec) {
    const Axis &rows = window.rows, &columns = window.columns;
    spec.kernel = {rows.kernel, columns.kernel};
    spec.stride = {rows.stride, columns.stride};
    spec.dilation = {rows.dilation, columns.dilation};
    spec.padding = {rows.before, columns.before, rows.after, columns.after};
  }

  static Sizes SizesOf(const Value& in, const Shape3& out) {
    if (in.sizes.size() == 3) return {in.sizes[0], ToSigned(out.channels), ToSigned(out.width)};
    return {in.sizes[0], ToSigned(out.channels), ToSigned(out.height), ToSigned(out.width)};
  }

  void Conv(Node& node) {
    Value& value = NeedMap(node, 0);
    CheckChannelPads(node, value);
    // Numbers p around a map are zeros around the map less p, and p more in each window.
    const double around = HasPadding(value) ? value.padding : 0;
    if (around != 0) {
      MakeClip(node, value);
      Add(value, {-around});
    }
    MakePlain(node, value);
    const Constant& weight = NeedConstant(node, 1);
    Sizes sizes = weight.Shape();
    const std::size_t rank = value.sizes.size();
    const Window window = ReadWindow(
        node, value,
        sizes.size() == rank ? Sizes(sizes.begin() + 2, sizes.end()) : Sizes(rank - 2, 0), false);
    const std::int64_t in_channels = value.sizes[1], groups = node.Int("group", 1);
    if (groups < 1 || in_channels % groups != 0) {
      node.Fail(fmt::format("found group {}, expected a divisor of the {} input channels", groups,
                            in_channels));
    }
    Sizes expected = {in_channels / groups};
    if (rank == 4) expected.push_back(ToSigned(window.rows.kernel));
    expected.push_back(ToSigned(window.columns.kernel));
    if (sizes.size() != rank || sizes[0] < 1 || sizes[0] > kMaxChannels ||
        Sizes(sizes.begin() + 1, sizes.end()) != expected) {
      node.Fail(fmt::format("found weights of shape {}, expected [outputs, {}]", SizesText(sizes),
                            fmt::join(expected, ", ")));
    }
    const std::size_t outputs = ToSize(sizes[0]);
    Layer& layer = AddLayer(node, LayerType::kConv2d, {value.layer}, window.Out(outputs));
    layer.spec.out_channels = outputs;
    layer.spec.groups = ToSize(groups);
    SetWindow(window, layer.spec);
    const std::vector<float> weights = weight.Weights();
    layer.tensors["weight"] = TensorData::FromFloats(
        {outputs, ToSize(in_channels / groups), window.rows.kernel, window.columns.kernel},
        weights);
    std::vector<float> bias(outputs, 0);
    layer.spec.bias = node.HasInput(2) || around != 0;
    if (node.HasInput(2)) bias = NeedVector(node, 2, outputs);
    const std::size_t depth = weights.size() / outputs;
    for (std::size_t i = 0; around != 0 && i < outputs; ++i)
      bias[i] = static_cast<float>(bias[i] +
                                   around * std::accumulate(weights.data() + i * depth,
                                                            weights.data() + (i + 1) * depth, 0.0));
    if (layer.spec.bias) SetVector(layer, "bias", bias);
    SetOutput(node, SizesOf(value, layer.out));
  }

  void AddPool(const Node& node, LayerType type, const Value& value, const Window& window) {
    Layer& layer = AddLayer(node, type, {value.layer}, window.Out(ShapeOf(value.layer).channels));
    if (window.rows.dilation != 1 || window.columns.dilation != 1)
      node.Fail(fmt::format("found dilations [{}, {}], expected 1 (of a pool)",
                            window.rows.dilation, window.columns.dilation));
    SetWindow(window, layer.spec);
    SetOutput(node, SizesOf(value, layer.out));
  }

  /// Of what leaves an activation, numbers that are larger before the node's arithmetic are larger
  /// after it, too: then it may come after the max-pool.
  bool PoolsFirst(const Value& value) const {
    if (value.is_flag || value.layer == kNetworkInput) return false;
    const nn::LayerType type = layers_[ToSize(value.layer)].spec.type;
    const auto factors = PerChannel(value.scale, ShapeOf(value.layer), 1);
    return (type == LayerType::kSign || type == LayerType::kRelu) && factors &&
           PerChannel(value.shift, ShapeOf(value.layer), 0) &&
           std::all_of(factors->begin(), factors->end(), [](double f) { return f > 0; });
  }

  void MaxPool(Node& node) {
    Value& value = NeedMap(node, 0);
    node.Ignore("storage_order");  // of the indices, which nothing can read
    AddMaxPool(node, value, ReadWindow(node, value, Sizes(value.sizes.size() - 2, 0), true));
  }

  void AddMaxPool(const Node& node, Value& value, const Window& window) {
    CheckChannelPads(node, value);
    if (HasPadding(value)) {
      MakePlain(node, value);
      if (value.padding > 0 || !IsNonNegative(value.layer))
        node.Fail(
            "found numbers around its input that may be larger than it, expected zeros around "
            "what is never less");
    }
    MakeNumber(node, value);
    if (!PoolsFirst(value)) MakeArithmetic(node, value);
    const Value before = value;
    AddPool(node, LayerType::kMaxPool2d, before, window);
    Value& after = values_[node.Output()];
    const Shape3 in = ShapeOf(before.layer), out = ShapeOf(after.layer);
    after.clip = before.clip;
    after.made_by = before.made_by;
    const auto spread = [&](const std::vector<double>& all, double otherwise) {
      if (all.size() <= 1) return all;
      const std::vector<double> channels = *PerChannel(all, in, otherwise);
      std::vector<double> larger;
      for (const double number : channels)
        larger.insert(larger.end(), out.height * out.width, number);
      return larger;
    };
    after.scale = spread(before.scale, 1);
    after.shift = spread(before.shift, 0);
  }

  void AveragePool(Node& node) {
    Value& value = NeedMap(node, 0);
    CheckChannelPads(node, value);
    if (HasPadding(value) && value.padding != 0)
      node.Fail(fmt::format("found {} around its input, expected zeros", value.padding));
    MakePlain(node, value);
    const Window window = ReadWindow(node, value, Sizes(value.sizes.size() - 2, 0), false);
    const auto counts_padding = node.Int("count_include_pad", 0);
    const std::size_t own = OwnPads(window, value);
    if (own != 0 && counts_padding != 1) {
      node.Fail(
          fmt::format("found count_include_pad {} with pads of {}, expected 1 (in PyTorch "
                      "count_include_pad=True, its default), or no pads",
                      counts_padding, own));
    }
    if (node.Int("ceil_mode", 0) != 0) {
      const auto rest = [](const Axis& axis) {
        return (axis.in + axis.before + axis.after - axis.Reach()) % axis.stride;
      };
      if (rest(window.rows) != 0 || rest(window.columns) != 0)
        node.Fail(
            "found ceil_mode 1 where windows end beyond the map, expected 0: their divisor "
            "would be another");
    }
    AddPool(node, LayerType::kAvgPool2d, value, window);
  }

  /// The most that the node itself pads.
  static std::size_t OwnPads(const Window& window, const Value& value) {
    std::size_t most = 0;
    const std::size_t axes = value.sizes.size() - 2;
    for (std::size_t i = 0; i < axes; ++i) {
      const Axis& axis = i + 1 == axes ? window.columns : window.rows;
      const bool padded = HasPadding(value);
      most = std::max({most, axis.before - (padded ? ToSize(value.before[i + 2]) : 0),
                       axis.after - (padded ? ToSize(value.after[i + 2]) : 0)});
    }
    return most;
  }

  static Window WholeMap(const Shape3& shape) {
    Window window;
    window.rows = {.in = shape.height, .kernel = shape.height, .stride = shape.height};
    window.columns = {.in = shape.width, .kernel = shape.width, .stride = shape.width};
    return window;
  }

  void GlobalPool(Node& node) {
    NeedValue(node, 0);
    Value& value = NeedMap(node, 0);
    const Window window = WholeMap(MapShape(value));
    if (node.Op() == "GlobalMaxPool") {
      AddMaxPool(node, value, window);
    } else {
      MakePlain(node, value);
      AddPool(node, LayerType::kAvgPool2d, value, window);
    }
  }

  /// Over height and width, wherever these are.
  void Reduce(Node& node) {
    Value& value = NeedPlain(node, 0);
    const std::size_t rank = value.sizes.size();
    Sizes axes = node.Ints("axes").value_or(Sizes{});
    if (node.HasInput(1)) axes = NeedConstant(node, 1).Integers();
    const bool keeps = node.Int("keepdims", 1) != 0;
    node.Ignore("noop_with_empty_axes");
    std::vector<bool> reduced(rank, axes.empty());
    for (const std::int64_t axis : axes) reduced[node.Axis(axis, rank)] = true;
    Sizes kept_sizes, sizes;
    for (std::size_t i = 0; i < rank; ++i) {
      if (reduced[i] && value.sizes[i] == kImages)
        node.Fail("reduces over the images, expected that only over height and width");
      kept_sizes.push_back(reduced[i] ? 1 : value.sizes[i]);
      if (!reduced[i] || keeps) sizes.push_back(kept_sizes.back());
    }
    // The channel of each element of what comes out: all that is reduced to it is of that channel.
    const Shape3 shape = ShapeOf(value.layer);
    const std::size_t area = shape.height * shape.width, count = CountOf(value);
    std::vector<std::size_t> channel, members;
    std::vector<std::size_t> position(rank, 0);
    std::map<std::vector<std::size_t>, std::size_t> index;
    bool fits = true;
    for (std::size_t i = 0; i < count; ++i) {
      std::vector<std::size_t> kept;
      std::size_t rest = i;
      for (std::size_t a = rank; a-- > 0;) {
        const std::size_t size = value.sizes[a] == kImages ? 1 : ToSize(value.sizes[a]);
        if (!reduced[a]) kept.push_back(rest % size);
        rest /= size;
      }
      const std::size_t of = (value.order.empty() ? i : value.order[i]) / area;
      const auto [found, is_new] = index.emplace(kept, channel.size());
      if (is_new) {
        channel.push_back(of);
        members.push_back(0);
      }
      fits = fits && channel[found->second] == of;
      ++members[found->second];
    }
    for (const std::size_t number : members) fits = fits && number == area;
    if (!fits) node.Fail("reduces over other axes, expected height and width of a map (2 and 3)");
    const bool max = node.Op() == "ReduceMax";
    Layer& layer = AddLayer(node, max ? LayerType::kMaxPool2d : LayerType::kAvgPool2d,
                            {value.layer}, {shape.channels});
    SetWindow(WholeMap(shape), layer.spec);
    Value& output = SetOutput(node, sizes, channel);
    if (node.Op() == "ReduceSum") {
      Multiply(output, {static_cast<double>(area)});
      output.made_by = index_;
    }
    TidyOrder(output);
  }

  // --- Products

  /// The value times a matrix [inputs, outputs] in axis `axis` of it; [outputs, inputs] if
  /// `transposed`.
  void AddLinear(const Node& node, Value value, std::size_t axis, const Constant& weight,
                 bool transposed, double factor) {
    Sizes sizes = weight.Shape();
    while (sizes.size() > 2 && sizes.front() == 1) sizes.erase(sizes.begin());
    const std::size_t input_axis = transposed ? 1 : 0;
    const std::int64_t inputs = value.sizes[axis];
    if (sizes.size() != 2 || sizes[input_axis] != inputs || sizes[1 - input_axis] < 1 ||
        sizes[1 - input_axis] > kMaxChannels) {
      node.Fail(fmt::format("found weights of shape {}, expected {}", SizesText(sizes),
                            transposed ? fmt::format("[outputs, {}]", inputs)
                                       : fmt::format("[{}, outputs]", inputs)));
    }
    const std::size_t outputs = ToSize(sizes[1 - input_axis]), count = CountOf(value);
    const std::vector<float> weights = weight.Weights();
    const std::size_t in = ToSize(inputs);
    const auto at = [&](std::size_t o, std::size_t i) {
      const float w = transposed ? weights[o * in + i] : weights[i * outputs + o];
      return factor == 1 ? w : static_cast<float>(w * factor);
    };
    const auto place = [&](std::size_t i) { return value.order.empty() ? i : value.order[i]; };
    std::vector<float> rows(outputs * in);
    Sizes out_sizes = value.sizes;
    out_sizes[axis] = ToSigned(outputs);
    if (count == in) {
      for (std::size_t o = 0; o < outputs; ++o)
        for (std::size_t i = 0; i < in; ++i) rows[o * in + place(i)] = at(o, i);
      Layer& layer = AddLayer(node, LayerType::kLinear, {value.layer}, {outputs});
      layer.spec.out_channels = outputs;
      layer.spec.bias = false;
      layer.tensors["weight"] = TensorData::FromFloats({outputs, in}, rows);
      SetOutput(node, out_sizes);
      return;
    }
    // A matrix for each position of a map is a convolution of 1 x 1.
    const Shape3 shape = ShapeOf(value.layer);
    const std::size_t area = shape.height * shape.width;
    std::size_t behind = 1;
    for (std::size_t a = axis + 1; a < value.sizes.size(); ++a) behind *= ToSize(value.sizes[a]);
    bool fits = shape.channels == in;
    std::vector<std::size_t> order(count / in * outputs);
    for (std::size_t i = 0; i < count && fits; ++i) {
      const std::size_t channel = i / behind % in, first = i - channel * behind;
      fits = place(i) == channel * area + place(first);
      if (channel != 0) continue;
      const std::size_t to = i / (behind * in) * behind * outputs + i % behind;
      for (std::size_t o = 0; o < outputs; ++o) order[to + o * behind] = o * area + place(first);
    }
    if (!fits)
      node.Fail(fmt::format("found an input of {}, expected [N, features] (a Flatten before it?)",
                            ValueText(value)));
    for (std::size_t o = 0; o < outputs; ++o)
      for (std::size_t i = 0; i < in; ++i) rows[o * in + i] = at(o, i);
    Layer& layer =
        AddLayer(node, LayerType::kConv2d, {value.layer}, {outputs, shape.height, shape.width});
    layer.spec.out_channels = outputs;
    layer.spec.bias = false;
    layer.tensors["weight"] = TensorData::FromFloats({outputs, in, 1, 1}, rows);
    TidyOrder(SetOutput(node, out_sizes, std::move(order)));
  }

  /// Ready for a product with a matrix.
  Value NeedVectors(const Node& node, int i) {
    Settle(NeedValue(node, i), false);
    Value& value = NeedPlain(node, i);
    // Images of some shape that come as a vector.
    if (value.layer == kNetworkInput && value.sizes.size() == 2 &&
        input_spec_.shape != Shape3{CountOf(value)}) {
      Layer& layer = AddLayerTo(value, LayerType::kFlatten, node);
      layer.out = {CountOf(value)};
      layer.wanted_name.clear();
      layer.operation = "Flatten";
    }
    return value;
  }

  void Gemm(Node& node) {
    const double alpha = node.Float("alpha", 1), beta = node.Float("beta", 1);
    const std::int64_t a_transposed = node.Int("transA", 0), b_transposed = node.Int("transB", 0);
    for (const std::int64_t flag : {a_transposed, b_transposed})
      if (flag != 0 && flag != 1)
        node.Fail(fmt::format("found transA or transB {}, expected 0 or 1", flag));
    const bool weights_first = FindConstant(node, 0) != nullptr;
    Value value = NeedVectors(node, weights_first ? 1 : 0);
    if (value.sizes.size() != 2)
      node.Fail(fmt::format("found an input of {}, expected [N, features] (a Flatten before it?)",
                            ValueText(value)));
    if ((weights_first ? b_transposed : a_transposed) == 1)
      std::swap(value.sizes[0], value.sizes[1]);
    const std::size_t axis = weights_first ? 0 : 1;
    if (!IsImages(value.sizes[1 - axis]) || value.sizes[axis] == kImages) {
      node.Fail(fmt::format("found an input of {} (transposed where transA is 1), expected {}",
                            ValueText(value), weights_first ? "[features, N]" : "[N, features]"));
    }
    AddLinear(node, value, axis, NeedConstant(node, weights_first ? 0 : 1),
              weights_first ? a_transposed == 0 : b_transposed == 1, alpha);
    if (node.HasInput(2) && beta != 0) {
      Value& sum = values_[node.Output()];
      sum.made_by = index_;
      std::vector<double> bias = Spread(node, sum, NeedConstant(node, 2).ToArray());
      for (double& number : bias) number *= beta;
      Add(sum, bias);
    }
  }

  void MatMul(Node& node) {
    const bool weights_first = FindConstant(node, 0) != nullptr;
    const Value value = NeedVectors(node, weights_first ? 1 : 0);
    const std::size_t rank = value.sizes.size(), from_end = weights_first && rank > 1 ? 2 : 1;
    if (rank < from_end || value.sizes[rank - from_end] == kImages)
      node.Fail(fmt::format("found an input of {}, expected [N, features]", ValueText(value)));
    AddLinear(node, value, rank - from_end, NeedConstant(node, weights_first ? 0 : 1),
              weights_first, 1);
  }

  // --- Sums and products with constants

  /// A constant's number for each element of the value's layer, or one for all.
  static std::vector<double> Spread(const Node& node, const Value& value, const Array& array) {
    if (array.values.size() == 1 && array.shape.size() <= value.sizes.size()) return array.values;
    Sizes sizes = value.sizes;
    std::replace(sizes.begin(), sizes.end(), kImages, std::int64_t{1});
    const Array all = Broadcast(node, array, sizes);
    std::vector<double> numbers(all.values.size());
    for (std::size_t i = 0; i < numbers.size(); ++i)
      numbers[value.order.empty() ? i : value.order[i]] = all.values[i];
    return numbers;
  }

  /// What is left to do with it can take some arithmetic more.
  Value OpenValue(const Node& node, int i) {
    Value& value = NeedValue(node, i);
    MakeOpen(node, value);
    Value open = value;
    open.made_by = index_;
    return open;
  }

  void MakeOpen(const Node& node, Value& value) {
    if (!value.is_flag && !value.clip) return;
    Settle(value, IsMap(value));
    MakeFlat(value);
    MakeNumber(node, value);
    MakeClip(node, value);
  }

  void Arithmetic(Node& node) {
    const std::string& op = node.Op();
    const bool first = FindConstant(node, 0) != nullptr;
    if (!first && FindConstant(node, 1) == nullptr) {
      TwoValues(node);
      return;
    }
    Value value = OpenValue(node, first ? 1 : 0);
    std::vector<double> numbers = Spread(node, value, NeedConstant(node, first ? 0 : 1).ToArray());
    if (op == "Add") {
      Add(value, numbers);
    } else if (op == "Mul") {
      Multiply(value, numbers);
    } else if (op == "Sub") {
      if (first) {
        Multiply(value, {-1});
      } else {
        for (double& number : numbers) number = -number;
      }
      Add(value, numbers);
    } else {
      if (first) node.Fail("divides a constant by a value, expected a value by a constant");
      for (double& number : numbers) {
        if (number == 0) node.Fail("divides by 0");
        number = 1 / number;
      }
      Multiply(value, numbers);
    }
    SetValue(node, std::move(value));
  }

  void TwoValues(const Node& node) {
    const std::string& op = node.Op();
    if (op == "Mul" && Original(node.Input(0)) == Original(node.Input(1))) {
      AddElementwise(node, LayerType::kSquare);
      return;
    }
    if (op == "Mul" || op == "Div") {
      node.Fail(fmt::format(
          "{} different values, expected {}", op == "Mul" ? "multiplies" : "divides",
          op == "Mul" ? "one with itself (a square) or with a constant" : "one by a constant"));
    }
    if (op == "Sub") {
      Value negative = NeedPlain(node, 1);
      Multiply(negative, {-1});
      negative.made_by = index_;
      MakeArithmetic(node, negative);
      AddSum(node, NeedPlain(node, 0), negative);
      return;
    }
    AddSum(node, NeedPlain(node, 0), NeedPlain(node, 1));
  }

  void AddSum(const Node& node, const Value& a, const Value& b) {
    if (a.sizes != b.sizes || a.order != b.order || ShapeOf(a.layer) != ShapeOf(b.layer)) {
      node.Fail(fmt::format("found inputs of {} and {}, expected equal shapes", ValueText(a),
                            ValueText(b)));
    }
    AddLayer(node, LayerType::kAdd, {a.layer, b.layer}, ShapeOf(a.layer));
    SetOutput(node, Sizes(a.sizes), std::vector<std::size_t>(a.order));
  }

  void Neg(Node& node) {
    Value value = OpenValue(node, 0);
    Multiply(value, {-1});
    SetValue(node, std::move(value));
  }

  void BatchNormalization(Node& node) {
    NeedValue(node, 0);
    node.ExpectInt("spatial", 1, 1);
    node.ExpectInt("training_mode", 0, 0);
    node.Ignore("momentum");
    if (node.HasFurtherOutput())
      node.Fail("gives statistics as in training, expected a model for inference");
    // The shortest number that is this float: 1e-05, not 9.99999974737875e-06.
    const double eps = std::stod(fmt::format("{}", node.Float("epsilon", 1e-5F)));
    if (!(eps >= 1e-12 && eps <= 1))
      node.Fail(fmt::format("found epsilon {}, expected a number from 1e-12 to 1", eps));
    Value& value = NeedValue(node, 0);
    if (value.sizes.size() < 2)
      node.Fail(fmt::format("found an input of {}, expected [N, channels, ...]", ValueText(value)));
    const std::size_t channels = ToSize(value.sizes[1]);
    std::map<std::string, std::vector<float>> vectors;
    int input = 1;
    for (const char* name : {"weight", "bias", "running_mean", "running_var"})
      vectors[name] = NeedVector(node, input++, channels);
    MakePlain(node, value);
    if (value.order.empty() && ShapeOf(value.layer).channels == channels) {
      Value normal = value;
      Layer& layer = AddLayerTo(normal, LayerType::kBatchNorm, node);
      layer.spec.eps = eps;
      for (const auto& [name, vector] : vectors) SetVector(layer, name, vector);
      SetValue(node, std::move(normal));
      return;
    }
    // The channels are elsewhere.
    Sizes shape(value.sizes.size(), 1);
    shape[1] = value.sizes[1];
    std::vector<double> scale(channels), shift(channels);
    for (std::size_t c = 0; c < channels; ++c) {
      scale[c] = vectors["weight"][c] / std::sqrt(vectors["running_var"][c] + eps);
      shift[c] = vectors["bias"][c] - scale[c] * vectors["running_mean"][c];
    }
    Value normal = OpenValue(node, 0);
    Multiply(normal, Spread(node, normal, {shape, scale, false}));
    Add(normal, Spread(node, normal, {shape, shift, false}));
    SetValue(node, std::move(normal));
  }

  // --- Activations

  void Relu(Node& node) { AddElementwise(node, LayerType::kRelu); }

  /// Those that multiply what is negative by a: a x + (1 - a) relu(x), or a (x + (1/a - 1)
  /// relu(x)), since a sum takes the output of an earlier layer as it is.
  void LeakyRelu(Node& node) {
    const Value before = NeedPlain(node, 0);
    std::vector<double> slope = {node.Op() == "Abs"         ? -1
                                 : node.Op() == "LeakyRelu" ? node.Float("alpha", 0.01F)
                                                            : 0};
    if (node.Op() == "PRelu") slope = Spread(node, before, NeedConstant(node, 1).ToArray());
    if (AreAll(slope, 0)) {
      AddElementwise(node, LayerType::kRelu);
      return;
    }
    std::vector<double> factor;
    for (const double a : slope) {
      if (a == 0) node.Fail("found slopes that are 0 and others, expected all or none of them 0");
      factor.push_back(1 / a - 1);
    }
    Value value = before;
    value.made_by = index_;
    AddLayerTo(value, LayerType::kRelu, node);
    Multiply(value, factor);
    MakeArithmetic(node, value);
    AddLayer(node, LayerType::kAdd, {value.layer, before.layer}, ShapeOf(before.layer));
    Value& sum = SetOutput(node, before.sizes, before.order);
    sum.made_by = index_;
    Multiply(sum, slope);
  }

  void ClipTo(const Node& node, int input, const Bounds& bounds) {
    if (bounds.low > bounds.high)
      node.Fail(fmt::format("found bounds {} and {}, expected the first to be less", bounds.low,
                            bounds.high));
    if (bounds.low == 0 && bounds.high == kInfinity) {
      AddElementwise(node, LayerType::kRelu, input);
      return;
    }
    Value value = OpenValue(node, input);
    if (bounds.low > -kInfinity || bounds.high < kInfinity) value.clip = bounds;
    SetValue(node, std::move(value));
  }

  /// The largest floats stand for no bound.
  static double Bound(double value) {
    return std::abs(value) >= std::numeric_limits<float>::max() ? std::copysign(kInfinity, value)
                                                                : value;
  }

  void Clip(Node& node) {
    const double low = node.Float("min", std::numeric_limits<float>::lowest());
    const double high = node.Float("max", std::numeric_limits<float>::max());
    ClipTo(node, 0,
           {Bound(node.HasInput(1) ? NeedNumber(node, 1) : low),
            Bound(node.HasInput(2) ? NeedNumber(node, 2) : high)});
  }

  void MaxOrMin(Node& node) {
    const bool first = FindConstant(node, 0) != nullptr;
    if (node.InputCount() != 2 || (!first && FindConstant(node, 1) == nullptr))
      node.Fail("compares several values, expected one value and a constant");
    const std::vector<double> numbers = NeedConstant(node, first ? 0 : 1).Numbers();
    if (numbers.empty() || !AreAll(numbers, numbers[0]))
      node.Fail("compares with different numbers, expected one");
    Bounds bounds;
    (node.Op() == "Max" ? bounds.low : bounds.high) = numbers[0];
    ClipTo(node, first ? 1 : 0, bounds);
  }

  void HardSigmoid(Node& node) {
    Value value = OpenValue(node, 0);
    Multiply(value, {node.Float("alpha", 0.2F)});
    Add(value, {node.Float("beta", 0.5F)});
    value.clip = Bounds{0, 1};
    SetValue(node, std::move(value));
  }

  void Sign(Node& node) {
    Value value = NeedValue(node, 0);
    if (value.clip && KeepsSign(*value.clip)) value.clip.reset();
    if (!value.clip && !value.is_flag && value.layer != kNetworkInput &&
        layers_[ToSize(value.layer)].spec.type == LayerType::kSign) {
      // Sign(Sign(x) + 0.1), by which exporters make Sign(0) 1.
      bool same = true, opposite = true, positive = true;
      for (std::size_t i = 0;
           i < std::max({value.scale.size(), value.shift.size(), std::size_t{1}}); ++i) {
        const double s = value.scale.empty() ? 1 : value.scale[value.scale.size() == 1 ? 0 : i];
        const double t = value.shift.empty() ? 0 : value.shift[value.shift.size() == 1 ? 0 : i];
        same = same && s + t > 0 && t - s < 0;
        opposite = opposite && s + t < 0 && t - s > 0;
        positive = positive && t > 0;
      }
      if (same || opposite) {
        if (positive) zero_signs_.erase(value.layer);
        value.scale.clear();
        value.shift.clear();
        if (opposite) value.scale = {-1};
        value.made_by = index_;
        SetValue(node, std::move(value));
        return;
      }
    }
    MakePlain(node, value);
    AddLayerTo(value, LayerType::kSign, node);
    zero_signs_.insert(value.layer);
    SetValue(node, std::move(value));
  }

  /// As flags: x >= c is that of x - c, and x > c the opposite one of c - x.
  void Compare(Node& node) {
    const bool first = FindConstant(node, 0) != nullptr;
    if (!first && FindConstant(node, 1) == nullptr)
      node.Fail("compares two values, expected a value and a constant");
    Value value = OpenValue(node, first ? 1 : 0);
    std::vector<double> numbers = Spread(node, value, NeedConstant(node, first ? 0 : 1).ToArray());
    for (double& number : numbers) number = -number;
    Add(value, numbers);
    const bool is_greater = node.Op().starts_with("Greater") != first;
    const bool or_equal = node.Op().ends_with("OrEqual");
    if (is_greater != or_equal) Multiply(value, {-1});
    value.is_flag = true;
    value.opposite = !or_equal;
    SetValue(node, std::move(value));
  }

  Value NeedFlag(const Node& node, int i) {
    Value value = NeedValue(node, i);
    if (!value.is_flag)
      node.Fail(fmt::format("found '{}' as input {}, expected what a comparison gives",
                            Printable(node.Input(i)), i));
    return value;
  }

  void Not(Node& node) {
    Value value = NeedFlag(node, 0);
    value.opposite = !value.opposite;
    SetValue(node, std::move(value));
  }

  void Where(Node& node) {
    NeedFlag(node, 0);
    if (FindConstant(node, 1) == nullptr || FindConstant(node, 2) == nullptr)
      node.Fail("chooses between computed values, expected two constants");
    Value value = OpenValue(node, 0);
    const std::vector<double> a = Spread(node, value, NeedConstant(node, 1).ToArray());
    const std::vector<double> b = Spread(node, value, NeedConstant(node, 2).ToArray());
    std::vector<double> difference(std::max(a.size(), b.size()));
    for (std::size_t i = 0; i < difference.size(); ++i)
      difference[i] = a[a.size() == 1 ? 0 : i] - b[b.size() == 1 ? 0 : i];
    Multiply(value, difference);
    Add(value, b);
    SetValue(node, std::move(value));
  }

  /// Comparisons that give numbers; of those that give flags, what they give.
  void Cast(Node& node) {
    const std::int64_t type = node.Int("to", onnx::TensorProto::FLOAT);
    node.Ignore("saturate");
    Value value = NeedPadded(node, 0);
    const bool real = type == onnx::TensorProto::FLOAT || type == onnx::TensorProto::DOUBLE ||
                      type == onnx::TensorProto::FLOAT16 || type == onnx::TensorProto::BFLOAT16;
    if (!real && !value.is_flag)
      node.Fail("makes integers of computed numbers, expected that only at the end");
    SetValue(node, std::move(value));
  }

  void BipolarQuant(Node& node) {
    Value value = NeedValue(node, 0);
    if (value.clip && KeepsSign(*value.clip)) value.clip.reset();
    MakePlain(node, value);
    AddLayerTo(value, LayerType::kSign, node);
    value.made_by = index_;
    Multiply(value, Spread(node, value, NeedConstant(node, 1).ToArray()));
    SetValue(node, std::move(value));
  }

  /// FINN's: out_bias + out_scale times the number of thresholds that are at most x.
  void MultiThreshold(Node& node) {
    Value value = OpenValue(node, 0);
    Array thresholds = NeedConstant(node, 1).ToArray();
    const double scale = node.Float("out_scale", 1), bias = node.Float("out_bias", 0);
    const std::string layout = node.String("data_layout", "NCHW");
    node.Ignore("out_dtype");
    if (thresholds.shape.size() != 2 || thresholds.shape[1] != 1) {
      node.Fail(
          fmt::format("found thresholds of shape {}, expected [channels, 1]: activations of "
                      "more than one bit cannot be imported, train them with one",
                      SizesText(thresholds.shape)));
    }
    const std::size_t rank = value.sizes.size();
    Sizes shape(rank, 1);
    shape[layout == "NHWC" ? rank - 1 : std::min<std::size_t>(1, rank - 1)] = thresholds.shape[0];
    for (double& number : thresholds.values) number = -number;
    Add(value, Spread(node, value, {shape, thresholds.values, false}));
    value.is_flag = true;
    MakeOpen(node, value);
    value.made_by = index_;
    Multiply(value, {scale});
    Add(value, {bias});
    SetValue(node, std::move(value));
  }
  void Pow(Node& node) {
    const double exponent = NeedNumber(node, 1);
    if (exponent == 1) {
      SetValue(node, NeedPadded(node, 0));
      return;
    }
    if (exponent != 2) node.Fail("found another exponent, expected 2 (a square)");
    AddElementwise(node, LayerType::kSquare);
  }

  // --- Shapes

  /// PyTorch writes one before every average pool that counts its padding.
  void Pad(Node& node) {
    Value value = NeedPadded(node, 0);
    const std::size_t rank = value.sizes.size();
    if (const std::string mode = node.String("mode", "constant"); mode != "constant")
      node.Fail(fmt::format("found mode {}, expected constant", Printable(mode)));
    const auto attribute = node.Ints("pads");  // until operator set 10
    const Sizes given = attribute ? *attribute : NeedConstant(node, 1).Integers();
    double number = node.Float("value", 0);
    if (node.HasInput(2)) number = NeedNumber(node, 2);
    Sizes axes(rank);
    std::iota(axes.begin(), axes.end(), 0);
    if (node.HasInput(3)) axes = NeedConstant(node, 3).Integers();
    Sizes before(rank, 0), after(rank, 0);
    bool fits = given.size() == 2 * axes.size();
    for (std::size_t i = 0; i < axes.size() && fits; ++i) {
      const std::size_t axis = node.Axis(axes[i], rank);
      before[axis] = given[i];
      after[axis] = given[axes.size() + i];
      const bool some = given[i] != 0 || given[axes.size() + i] != 0;
      fits = std::min(given[i], given[axes.size() + i]) >= 0 && given[i] <= kMaxSide &&
             given[axes.size() + i] <= kMaxSide && !(some && value.sizes[axis] == kImages);
    }
    if (!fits) {
      node.Fail(
          fmt::format("found pads {}, expected numbers from 0 to {} for each axis, and 0 for "
                      "the images",
                      SizesText(given), kMaxSide));
    }
    if (HasPadding(value) && value.padding != number)
      node.Fail("pads what is padded with another number, expected the same");
    if (value.before.empty()) value.before = value.after = Sizes(rank, 0);
    for (std::size_t i = 0; i < rank; ++i) {
      value.before[i] += before[i];
      value.after[i] += after[i];
    }
    value.padding = number;
    SetValue(node, std::move(value));
  }

  /// The same numbers in another shape.
  void SetSizes(const Node& node, Value value, Sizes sizes) {
    const auto images = [](const Sizes& of) {
      return std::find(of.begin(), of.end(), kImages) - of.begin();
    };
    const auto only_ones_before = [&](const Sizes& of) {
      return std::all_of(of.begin(), of.begin() + images(of), [](auto size) { return size == 1; });
    };
    const bool moves = !only_ones_before(value.sizes) || !only_ones_before(sizes);
    if (moves && images_ != 1 && sizes != value.sizes) {
      node.Fail(fmt::format("makes {} of {}, expected the images to stay first",
                            ValueText({.sizes = sizes}), ValueText(value)));
    }
    if (sizes.size() > 2) {
      value.flattened_by = kNone;
    } else if (value.sizes.size() > 2) {
      value.flattened_by = index_;
    }
    value.sizes = std::move(sizes);
    value.before.clear();
    value.after.clear();
    SetValue(node, std::move(value));
  }

  void Flatten(Node& node) {
    const Value& value = NeedValue(node, 0);
    const std::size_t rank = value.sizes.size();
    const std::int64_t axis = node.Int("axis", 1);
    const std::size_t first = axis == ToSigned(rank) ? rank : node.Axis(axis, rank);
    std::int64_t before = 1;
    const bool has_images =
        std::find(value.sizes.begin(), value.sizes.end(), kImages) != value.sizes.end();
    bool images = !has_images;
    for (std::size_t i = 0; i < first; ++i) {
      images = images || value.sizes[i] == kImages;
      if (value.sizes[i] != kImages) before *= value.sizes[i];
    }
    if (!images || before != 1) node.Fail(fmt::format("found axis {}, expected 1", axis));
    SetSizes(node, value, {kImages, ToSigned(CountOf(value))});
  }

  void Reshape(Node& node) {
    const Value& value = NeedValue(node, 0);
    const Sizes given = NeedConstant(node, 1).SizesOrImages();
    const bool zero_copies = node.Int("allowzero", 0) == 0;
    Sizes sizes = given;
    const std::int64_t features = ToSigned(CountOf(value));
    const auto fail = [&] {
      Sizes shown = given;
      std::replace(shown.begin(), shown.end(), kImages, std::int64_t{0});
      node.Fail(
          fmt::format("found shape {}, expected [N, {}] or other sizes of each image's "
                      "numbers",
                      SizesText(shown), features));
    };
    std::int64_t known = 1;  // but for the images and an open one
    std::size_t open = sizes.size(), images = sizes.size();
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      if (sizes[i] == 0 && zero_copies) {
        if (i >= value.sizes.size()) fail();
        sizes[i] = value.sizes[i];
      }
      if (sizes[i] == kImages) {
        if (images != sizes.size()) fail();
        images = i;
      } else if (sizes[i] == -1) {
        if (open != sizes.size()) fail();
        open = i;
      } else if (sizes[i] < 1 || sizes[i] > ToSigned(kMaxElements) ||
                 (known *= sizes[i]) > ToSigned(kMaxElements)) {
        fail();
      }
    }
    if (images == sizes.size() && open != sizes.size() && known == features) {
      sizes[open] = kImages;
    } else {
      if (open != sizes.size()) {
        const std::int64_t all =
            images == sizes.size() ? features * std::max<std::int64_t>(images_, 1) : features;
        if (all % known != 0) fail();
        sizes[open] = all / known;
        known = all;
      }
      // A batch of a fixed size comes as a number.
      if (images == sizes.size() && images_ > 0 && !sizes.empty() && sizes[0] == images_ &&
          known == features * images_) {
        sizes[0] = kImages;
      } else if (known != features ||
                 (images == sizes.size() &&
                  (images_ != 1 || std::count_if(sizes.begin(), sizes.end(),
                                                 [](auto size) { return size != 1; }) > 1))) {
        fail();
      }
    }
    SetSizes(node, value, std::move(sizes));
  }

  void Squeeze(Node& node) {
    const Value& value = NeedValue(node, 0);
    const std::size_t rank = value.sizes.size();
    Sizes axes = node.Ints("axes").value_or(Sizes{});
    if (node.HasInput(1)) axes = NeedConstant(node, 1).Integers();
    std::vector<bool> gone(rank, false);
    for (std::size_t i = 0; i < rank; ++i) gone[i] = axes.empty() && value.sizes[i] == 1;
    for (const std::int64_t axis : axes) gone[node.Axis(axis, rank)] = true;
    Sizes sizes;
    for (std::size_t i = 0; i < rank; ++i) {
      if (!gone[i]) sizes.push_back(value.sizes[i]);
      if (gone[i] && value.sizes[i] != 1 && !IsOneImage(value.sizes[i]))
        node.Fail(
            fmt::format("squeezes axis {} of {}, expected one of size 1", i, ValueText(value)));
    }
    SetSizes(node, value, std::move(sizes));
  }
  bool IsOneImage(std::int64_t size) const { return size == kImages && images_ == 1; }

  void Unsqueeze(Node& node) {
    const Value& value = NeedValue(node, 0);
    Sizes axes = node.Ints("axes").value_or(Sizes{});
    if (node.HasInput(1)) axes = NeedConstant(node, 1).Integers();
    const std::size_t rank = value.sizes.size() + axes.size();
    std::vector<bool> is_new(rank, false);
    for (const std::int64_t axis : axes) is_new[node.Axis(axis, rank)] = true;
    Sizes sizes;
    std::size_t old = 0;
    for (std::size_t i = 0; i < rank; ++i) {
      if (!is_new[i] && old == value.sizes.size()) node.Fail("found an axis twice");
      sizes.push_back(is_new[i] ? 1 : value.sizes[old++]);
    }
    const bool has_images = std::find(sizes.begin(), sizes.end(), kImages) != sizes.end();
    if (!has_images && !sizes.empty() && sizes[0] == 1) sizes[0] = kImages;
    SetSizes(node, value, std::move(sizes));
  }

  void Transpose(Node& node) {
    Value value = NeedPadded(node, 0);
    const std::size_t rank = value.sizes.size();
    Sizes all(rank);
    for (std::size_t i = 0; i < rank; ++i) all[i] = ToSigned(rank - 1 - i);
    const Sizes axes = node.Ints("perm").value_or(all);
    if (!std::is_permutation(axes.begin(), axes.end(), all.begin(), all.end()))
      node.Fail(fmt::format("found perm {}, expected each of {} axes", SizesText(axes), rank));
    Sizes one = value.sizes, sizes;
    std::replace(one.begin(), one.end(), kImages, std::int64_t{1});
    std::vector<std::size_t> permutation;
    for (const std::int64_t axis : axes) {
      permutation.push_back(ToSize(axis));
      sizes.push_back(value.sizes[ToSize(axis)]);
    }
    std::vector<std::size_t> order = TransposedOrder(one, permutation);
    if (!value.order.empty())
      for (std::size_t& element : order) element = value.order[element];
    if (!value.before.empty()) {
      const Sizes before = value.before, after = value.after;
      for (std::size_t i = 0; i < rank; ++i) {
        value.before[i] = before[permutation[i]];
        value.after[i] = after[permutation[i]];
      }
    }
    value.order = std::move(order);
    value.sizes = std::move(sizes);
    TidyOrder(value);
    SetValue(node, std::move(value));
  }

  void Shape(Node& node) {
    const Value& value = NeedPadded(node, 0);
    const std::int64_t rank = ToSigned(value.sizes.size());
    const auto bound = [&](std::int64_t at) {
      return std::clamp<std::int64_t>(at < 0 ? at + rank : at, 0, rank);
    };
    const std::int64_t start = bound(node.Int("start", 0)), end = bound(node.Int("end", rank));
    Array sizes{{std::max<std::int64_t>(end - start, 0)}, {}, true};
    for (std::int64_t i = start; i < end; ++i) {
      const std::size_t axis = ToSize(i);
      const std::int64_t size = value.sizes[axis],
                         padded = value.before.empty() ? 0 : value.before[axis] + value.after[axis];
      sizes.values.push_back(size != kImages ? static_cast<double>(size + padded)
                             : images_ != 0  ? static_cast<double>(images_)
                                             : std::nan(""));
    }
    SetConstant(node, std::move(sizes));
  }

  // --- The end

  void CheckEnd() {
    if (needed_.empty()) Fail("found no layers between input and output, expected some");
    const auto result = values_.find(Original(result_));
    if (result == values_.end())
      Fail(fmt::format("found the output {}, expected what a node computes", Printable(result_)));
    Value& value = result->second;
    if (HasPadding(value))
      Fail(fmt::format("found zeros around the output {}, expected none", Printable(result_)));
    MakePlain(NodeAt(needed_.back()), value);
    if (layers_.empty()) Fail("found no layers between input and output, expected some");
    if (!value.order.empty())
      Fail(
          fmt::format("found the output {} with its numbers in another order than the layer that "
                      "computes them, expected no Transpose there",
                      Printable(result_)));
    result_layer_ = value.layer;
    for (const int i : end_) {
      Node node = NodeAt(i);
      const bool arg_max = node.Op() == "ArgMax";
      const std::size_t rank = value.sizes.size();
      // ArgMax's default is the batch.
      const std::int64_t axis = node.Int("axis", arg_max ? 0 : rank == 2 ? 1 : -1);
      if (rank < 2 || rank > 4 ||
          ToSigned(CountOf(value)) != *std::max_element(value.sizes.begin(), value.sizes.end()))
        node.Fail("found an input of another shape, expected [N, features]");
      if (CountOf(value) > 1 && value.sizes[node.Axis(axis, rank)] != ToSigned(CountOf(value)))
        node.Fail(fmt::format("found axis {}, expected 1", axis));
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
    if (!zero_signs_.empty()) notes_.insert("Sign(0) is 1 here and 0 in ONNX");
  }

  /// Of sums and products with constants, what the layer before or the input's mean and std can do.
  void MergeArithmetic() {
    std::vector<int> readers(layers_.size() + 1, 0), place(layers_.size() + 1);
    const auto slot = [](int layer) { return static_cast<std::size_t>(layer) + 1; };
    for (const Layer& layer : layers_)
      for (const int input : layer.graph.inputs) ++readers[slot(input)];
    ++readers[slot(result_layer_)];
    std::vector<Layer> kept;
    place[slot(kNetworkInput)] = kNetworkInput;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      Layer& layer = layers_[l];
      const int before = layer.graph.inputs[0];
      const bool alone = readers[slot(before)] == 1;
      for (int& input : layer.graph.inputs) input = place[slot(input)];
      const int input = layer.graph.inputs[0];
      const bool merged = layer.arithmetic && alone &&
                          (input == kNetworkInput ? MergeIntoInput(layer)
                                                  : AreAll(layer.scale, 1) &&
                                                        MergeIntoBias(layer, kept[ToSize(input)]));
      if (!merged) kept.push_back(std::move(layer));
      place[l + 1] = merged ? input : static_cast<int>(kept.size()) - 1;
    }
    layers_ = std::move(kept);
  }

  static bool MergeIntoBias(const Layer& layer, Layer& before) {
    if (before.spec.type != LayerType::kConv2d && before.spec.type != LayerType::kLinear)
      return false;
    std::vector<double> bias = layer.shift;
    if (before.spec.bias) {
      const std::vector<double> found = before.tensors.at("bias").AsDoubles();
      for (std::size_t i = 0; i < bias.size(); ++i) bias[i] += found[i];
    }
    before.spec.bias = true;
    SetVector(before, "bias", Floats(bias));
    return true;
  }

  /// (p / scale - mean) / std, times a, plus b, is (p / scale - mean + b std / a) / (std / a).
  bool MergeIntoInput(const Layer& layer) {
    const double a = layer.scale[0], b = layer.shift[0];
    if (!AreAll(layer.scale, a) || !AreAll(layer.shift, b) || !(a > 0)) return false;
    const double std = input_spec_.std / a, mean = input_spec_.mean - b * std;
    constexpr double kMost = 1e6;  // as nets/network.schema.json says
    if (!(std >= 1 / kMost && std <= kMost && std::abs(mean) <= kMost)) return false;
    input_spec_.std = std;
    input_spec_.mean = mean;
    return true;
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

  /// Latent weights, of which a framework takes the signs whenever it computes with them.
  void Binarise() {
    std::vector<std::string> names;
    for (Layer& layer : layers_) {
      if (layer.spec.type != LayerType::kConv2d && layer.spec.type != LayerType::kLinear) continue;
      names.push_back(layer.spec.name);
      if (!options_.binarise.contains(layer.spec.name)) continue;
      TensorData& weight = layer.tensors.at("weight");
      std::vector<float> signs;
      for (const double w : weight.AsDoubles()) signs.push_back(w >= 0 ? 1.0F : -1.0F);
      weight = TensorData::FromFloats(weight.shape, signs);
    }
    for (const std::string& name : options_.binarise)
      if (std::find(names.begin(), names.end(), name) == names.end())
        throw ConfigError("--binarise", fmt::format("found '{}', expected a layer with weights: {}",
                                                    Printable(name), fmt::join(names, ", ")));
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
  const std::filesystem::path path_;
  const std::string file_;
  const ImportOptions& options_;
  const onnx::ValueInfoProto* input_ = nullptr;
  std::string input_text_;  // its sizes, for messages
  nn::InputSpec input_spec_;
  bool channels_last_ = false;       // of an input of four axes, unless a layer says otherwise
  std::vector<std::size_t> places_;  // of the input's elements in the images, once it is settled
  std::int64_t images_ = 0;          // that the model takes at once; 0: any
  std::map<std::string, Constant> constants_;     // by name
  std::map<std::string, int> producers_;          // node of each computed name
  std::map<std::string, std::string> originals_;  // of what Identity and Dropout passed on
  std::vector<int> needed_, passing_;             // nodes
  int index_ = 0;                                 // of the node that is converted
  std::string result_;                            // the logits
  int result_layer_ = kNetworkInput;
  std::vector<int> end_;                 // nodes behind them, the last one first
  std::map<std::string, Value> values_;  // by name
  std::vector<Layer> layers_;            // sorted: each after its inputs
  std::set<int> zero_signs_;             // layers for which Sign(0) differs
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
