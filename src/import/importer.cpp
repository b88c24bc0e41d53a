// SPDX-License-Identifier: Apache-2.0
#include "import/importer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "base/json.h"
#include "tercet/base/error.h"

namespace tercet::importer {
namespace {

using files::TensorData;
using mpc::Shape3;
using nn::LayerType;

constexpr std::int64_t kOldestOperators = 6;
constexpr std::size_t kMaxLayers = 4096;  // as nets/network.schema.json says

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

}  // namespace

Importer::Importer(const onnx::ModelProto& model, const std::filesystem::path& file,
                   const ImportOptions& options)
    : graph_(model.graph()), path_(file), file_(file.string()), options_(options) {
  CheckModel(model);
  operators_ = *OperatorSet(model);
}

ImportedNetwork Importer::Run() {
  ReadNames();
  CutEnd();
  FindNeeded();
  ReadInput();
  for (const int i : needed_) Convert(i);
  for (const int i : passing_) CheckPasses(NodeAt(i));
  CheckEnd();
  ReadCarriers();
  RemoveUnused();
  while (CarryBeforeBranches()) {
  }
  ReplacePools();
  MergeArithmetic();
  MakeChain();
  NameLayers();
  Binarise();
  return Assemble();
}

void Importer::Fail(const std::string& problem) const { throw ConfigError(file_, problem); }

std::optional<std::int64_t> Importer::OperatorSet(const onnx::ModelProto& model) {
  std::optional<std::int64_t> version;
  for (const auto& set : model.opset_import())
    if (set.domain().empty() || set.domain() == "ai.onnx") version = set.version();
  return version;
}

void Importer::CheckModel(const onnx::ModelProto& model) const {
  if (!model.has_graph() || graph_.node_size() == 0) Fail("holds no graph, expected an ONNX model");
  if (graph_.sparse_initializer_size() > 0) Fail("holds sparse initialisers, expected dense ones");
  const std::optional<std::int64_t> version = OperatorSet(model);
  if (!version || *version < kOldestOperators) {
    Fail(fmt::format("found operator set {}, expected {} or newer",
                     version ? std::to_string(*version) : "of no version", kOldestOperators));
  }
  if (graph_.output_size() != 1)
    Fail(fmt::format("found {} outputs, expected one", graph_.output_size()));
}

Node Importer::NodeAt(int index) const { return {graph_.node(index), index, file_}; }

void Importer::ReadNames() {
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

void Importer::FailTwice(const std::string& value) const {
  Fail(fmt::format("found {} twice, expected different names", Printable(value)));
}

void Importer::CutEnd() {
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

void Importer::FindNeeded() {
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

const std::string& Importer::Original(const std::string& name) const {
  const auto found = originals_.find(name);
  return found == originals_.end() ? name : found->second;
}

bool Importer::IsPassing(const Node& node) {
  return node.IsStandard() && (node.Op() == "Identity" || node.Op() == "Dropout");
}

void Importer::CheckPasses(Node node) const {
  if (node.Op() == "Dropout") {
    node.Ignore("ratio");
    node.Ignore("seed");
    node.ExpectInt("is_test", 1, 1);
    if (const Constant* training = FindConstant(node, 2); training != nullptr) {
      if (training->Numbers() != std::vector<double>{0})
        node.Fail("found training_mode true, expected a model for inference");
    } else if (node.HasInput(2)) {
      node.Fail("found a computed training_mode, expected a model for inference");
    }
  }
  node.CheckAllRead();
}

// --- Nodes

void Importer::Convert(int index) {
  using Method = void (Importer::*)(Node&);
  static const std::map<std::string, Method> methods = {
      {"Abs", &Importer::LeakyRelu},
      {"Add", &Importer::Arithmetic},
      {"AveragePool", &Importer::AveragePool},
      {"BatchNormalization", &Importer::BatchNormalization},
      {"BipolarQuant", &Importer::BipolarQuant},
      {"Celu", &Importer::Lookup},
      {"Cast", &Importer::Cast},
      {"Clip", &Importer::Clip},
      {"Concat", &Importer::Concat},
      {"Constant", &Importer::ConstantNode},
      {"Conv", &Importer::Conv},
      {"Div", &Importer::Arithmetic},
      {"Elu", &Importer::Lookup},
      {"Erf", &Importer::Lookup},
      {"Flatten", &Importer::Flatten},
      {"Gather", &Importer::Gather},
      {"Gelu", &Importer::Lookup},
      {"Gemm", &Importer::Gemm},
      {"GlobalAveragePool", &Importer::GlobalPool},
      {"GlobalMaxPool", &Importer::GlobalPool},
      {"Greater", &Importer::Compare},
      {"GreaterOrEqual", &Importer::Compare},
      {"HardSigmoid", &Importer::HardSigmoid},
      {"HardSwish", &Importer::Lookup},
      {"LeakyRelu", &Importer::LeakyRelu},
      {"Less", &Importer::Compare},
      {"LessOrEqual", &Importer::Compare},
      {"MatMul", &Importer::MatMul},
      {"Max", &Importer::MaxOrMin},
      {"MaxPool", &Importer::MaxPool},
      {"Min", &Importer::MaxOrMin},
      {"Mish", &Importer::Lookup},
      {"Mul", &Importer::Arithmetic},
      {"MultiThreshold", &Importer::MultiThreshold},
      {"Neg", &Importer::Neg},
      {"Not", &Importer::Not},
      {"PRelu", &Importer::LeakyRelu},
      {"Pad", &Importer::Pad},
      {"Pow", &Importer::Pow},
      {"Quant", &Importer::Quant},
      {"ReduceMax", &Importer::Reduce},
      {"ReduceMean", &Importer::Reduce},
      {"ReduceSum", &Importer::Reduce},
      {"Relu", &Importer::Relu},
      {"Reshape", &Importer::Reshape},
      {"Selu", &Importer::Lookup},
      {"Shape", &Importer::Shape},
      {"Sigmoid", &Importer::Lookup},
      {"Sign", &Importer::Sign},
      {"Slice", &Importer::Slice},
      {"Softplus", &Importer::Lookup},
      {"Split", &Importer::Split},
      {"Squeeze", &Importer::Squeeze},
      {"Sub", &Importer::Arithmetic},
      {"Sum", &Importer::Sum},
      {"Tanh", &Importer::Lookup},
      {"Transpose", &Importer::Transpose},
      {"Unsqueeze", &Importer::Unsqueeze},
      {"Where", &Importer::Where}};
  Node node = NodeAt(index);
  index_ = index;
  if (FoldsConstants(node)) return;
  const auto method = methods.find(node.Op());
  const bool quantises =
      node.Op() == "BipolarQuant" || node.Op() == "MultiThreshold" || node.Op() == "Quant";
  if (!node.IsStandard() && !quantises) {
    node.Fail(
        fmt::format("is of the domain {}, expected ONNX's own operators, and of others "
                    "BipolarQuant, MultiThreshold and Quant{}",
                    Printable(node.Domain()), Advice(node.Op())));
  }
  if (method == methods.end()) {
    std::vector<std::string> known = {"Identity", "Dropout", "and last Softmax", "LogSoftmax",
                                      "ArgMax"};
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

std::string Importer::Advice(const std::string& op) {
  static const std::vector<std::pair<std::vector<std::string>, const char*>> advice = {
      {{"Exp", "Softsign", "ThresholdedRelu", "Log", "Sqrt"},
       "; train with Relu, Clip, Sign or a square instead, or write the network's JSON with a "
       "layer of type table (docs/networks.md)"},
      {{"Softmax", "LogSoftmax"},
       "; it is left out where it is last, and there is nothing like it between layers"},
      {{"Einsum"}, "; write it as a linear layer or a convolution (MatMul, Gemm, Conv)"},
      {{"QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
        "MatMulInteger", "DynamicQuantizeLinear"},
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

Layer& Importer::AddLayer(const Node& node, LayerType type, std::vector<int> inputs,
                          const Shape3& out) {
  Layer& layer = layers_.emplace_back();
  layer.spec.type = type;
  layer.operation = node.Op();
  layer.wanted_name = LayerName(node.Name(), node.Op());
  layer.place = node.Place();
  layer.node = index_;
  layer.graph = {type == LayerType::kConv2d, std::move(inputs)};
  layer.out = out;
  return layer;
}

Value& Importer::SetOutput(const Node& node, const Sizes& sizes, std::vector<std::size_t> order) {
  Value value;
  value.layer = static_cast<int>(layers_.size()) - 1;
  value.sizes = sizes;
  value.order = std::move(order);
  return SetValue(node, std::move(value));
}

Value& Importer::SetValue(const Node& node, Value value) {
  return values_[node.Output()] = std::move(value);
}

void Importer::AddElementwise(const Node& node, LayerType type, int input) {
  Value value = NeedPlain(node, input);
  AddLayerTo(value, type, node);
  SetValue(node, std::move(value));
}

void Importer::SetVector(Layer& layer, const std::string& name, const std::vector<float>& values) {
  layer.tensors[name] = TensorData::FromFloats({values.size()}, values);
}

}  // namespace tercet::importer
