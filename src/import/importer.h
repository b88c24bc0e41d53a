// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "import/import_onnx.h"
#include "import/model_parts.h"
#include "import/schedule.h"
#include "tercet/files/tensor_file.h"
#include "tercet/mpc/spec.h"
#include "tercet/nn/network.h"

namespace onnx {
class GraphProto;
class ModelProto;
class ValueInfoProto;
}  // namespace onnx

/// How an ONNX model becomes a network. Internal to the importer.
namespace tercet::importer {

inline constexpr std::size_t kMaxName = 128;  // as nets/network.schema.json says
inline constexpr int kNone = -1;
/// Of all layers that the graph does not have, so that a small file takes no more memory than is
/// worth it.
inline constexpr std::size_t kMostWeights = std::size_t{1} << 26;
/// Of one number.
using RealFunction = std::function<double(double)>;
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

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

std::string ValueText(const Value& value);
bool HasPadding(const Value& value);
/// Elements of one image.
std::size_t CountOf(const Value& value);
/// By one number for all elements, or by one for each of those of its layer.
void Multiply(Value& value, const std::vector<double>& factor);
/// The same for a sum.
void Add(Value& value, const std::vector<double>& summand);

struct Layer {
  nn::LayerSpec spec;
  std::string wanted_name;  ///< empty: none
  std::string operation;    ///< "Conv": its name is made of this if it cannot have the other
  std::string place;        ///< of its node, for messages
  int node = kNone;         ///< its index
  std::string note;         ///< for the user, where the layer is used
  GraphLayer graph;
  mpc::Shape3 out;
  bool sums_steps = false;  ///< the sum of AddSteps, which grows with what its steps are of
  /// Gives numbers as they are, elsewhere, with zeros around, or a sum of such.
  bool moves = false;
  bool arithmetic = false;  ///< a batch_norm that stands for sums and products with constants
  std::vector<double> scale, shift;                  ///< of such a one
  std::map<std::string, files::TensorData> tensors;  ///< by the end of their names, "weight"
};

/// One axis of a window that slides over a map.
struct Axis {
  std::size_t in = 1, kernel = 1, stride = 1, dilation = 1, before = 0, after = 0;
  std::size_t Reach() const { return (kernel - 1) * dilation + 1; }
  std::size_t Out() const { return (in + before + after - Reach()) / stride + 1; }
};
struct Window {
  Axis rows, columns;
  mpc::Shape3 Out(std::size_t channels) const { return {channels, rows.Out(), columns.Out()}; }
};

/// Imports one model. Its methods are defined in importer.cpp, or in the file that a section names.
class Importer {
 public:
  Importer(const onnx::ModelProto& model, const std::filesystem::path& file,
           const ImportOptions& options);
  ImportedNetwork Run();

 private:
  [[noreturn]] void Fail(const std::string& problem) const;
  /// The version of ONNX's own operators; none where the model does not say.
  static std::optional<std::int64_t> OperatorSet(const onnx::ModelProto& model);
  void CheckModel(const onnx::ModelProto& model) const;
  Node NodeAt(int index) const;
  /// Where each name of the graph comes from.
  void ReadNames();
  [[noreturn]] void FailTwice(const std::string& value) const;
  /// Goes back from the output over what leaves the order of the logits as it is.
  void CutEnd();
  /// The nodes that the result depends on, in the order of the file.
  void FindNeeded();
  /// The name of what Identity and Dropout passed on under this one.
  const std::string& Original(const std::string& name) const;
  static bool IsPassing(const Node& node);
  void CheckPasses(Node node) const;

  // --- Constants (importer_values.cpp)

  /// Null when the input is absent or computed.
  const Constant* FindConstant(const Node& node, int i) const;
  const Constant& NeedConstant(const Node& node, int i) const;
  double NeedNumber(const Node& node, int i) const;
  void SetConstant(const Node& node, Array array);
  /// Whether all inputs of a node are constants, so that what it gives is one too.
  bool FoldsConstants(Node& node);
  void ConstantNode(Node& node);
  /// The vector of `count` values that a constant is.
  std::vector<float> NeedVector(const Node& node, int i, std::size_t count) const;

  // --- Values (importer_values.cpp)

  /// Also one with numbers around it, which the node has to take over.
  Value& NeedPadded(const Node& node, int i);
  Value& NeedValue(const Node& node, int i);
  /// What a layer of its own gives: nothing is left to do with it.
  Value& NeedPlain(const Node& node, int i);
  void MakePlain(const Node& node, Value& value);
  bool IsImages(std::int64_t size) const;
  /// A batch of maps, or of rows: those of a one-dimensional convolution have a height of 1.
  bool IsMap(const Value& value) const;
  static mpc::Shape3 MapShape(const Value& value);
  /// A value in the order of a layer's map.
  Value& NeedMap(const Node& node, int i);
  mpc::Shape3 ShapeOf(int layer) const;
  /// Adds a layer that computes something of a value, after which it is that layer's output.
  Layer& AddLayerTo(Value& value, nn::LayerType type, const Node& node);
  Node MakerOf(const Node& node, const Value& value) const;
  void MakeFlat(Value& value);
  /// Of a flag.
  void MakeNumber(const Node& node, Value& value);
  /// max(x, low) is low + relu(x - low), and min(x, high) is high - relu(high - x).
  void MakeClip(const Node& node, Value& value);
  /// Of numbers of all elements, or none for `otherwise`, those of the channels; none when they
  /// differ within a channel.
  static std::optional<std::vector<double>> PerChannel(const std::vector<double>& all,
                                                       const mpc::Shape3& shape, double otherwise);
  static bool AreAll(const std::vector<double>& values, double expected);
  void MakeArithmetic(const Node& node, Value& value);
  static std::vector<float> Floats(const std::vector<double>& values);
  /// Makes it multiply and add, exactly: variance and eps are 1 together.
  static void SetNorm(Layer& layer, const std::vector<double>& scale,
                      const std::vector<double>& shift);
  /// Sign's argument does not need to be clipped where that leaves its sign as it is.
  static bool KeepsSign(const Bounds& bounds);

  // --- The input (importer_views.cpp)

  [[noreturn]] void FailInput(const std::string& problem) const;
  void ReadInput();
  /// Decides, when the first layer takes the input, how images lie in it: as that layer takes them
  /// where it takes maps.
  void Settle(Value& value, bool as_map);
  /// Of an input that is taken as a map: else images would have to lie in an order of the model's.
  void CheckImageOrder(const Value& value) const;
  /// Of an input that goes into a Flatten or a Gemm.
  mpc::Shape3 GuessShape();
  void SetInputShape(const mpc::Shape3& shape);
  static void TidyOrder(Value& value);

  // --- Nodes (importer.cpp)

  void Convert(int index);
  /// What to do about an operator that is refused.
  static std::string Advice(const std::string& op);
  Layer& AddLayer(const Node& node, nn::LayerType type, std::vector<int> inputs,
                  const mpc::Shape3& out);
  /// What the last layer gives is what the node computes.
  Value& SetOutput(const Node& node, const Sizes& sizes, std::vector<std::size_t> order = {});
  Value& SetValue(const Node& node, Value value);
  /// A layer whose output has the shape of its input.
  void AddElementwise(const Node& node, nn::LayerType type, int input = 0);
  static void SetVector(Layer& layer, const std::string& name, const std::vector<float>& values);

  // --- Windows (importer_layers.cpp)

  /// `kernel` stands for an absent attribute; `pools` may end beyond the map (ceil_mode).
  Window ReadWindow(Node& node, const Value& value, const Sizes& kernel, bool pools);
  void CheckChannelPads(const Node& node, const Value& value) const;
  static void SetWindow(const Window& window, nn::LayerSpec& spec);
  static Sizes SizesOf(const Value& in, const mpc::Shape3& out);
  void Conv(Node& node);
  void AddPool(const Node& node, nn::LayerType type, const Value& value, const Window& window);
  /// Of what leaves an activation, numbers that are larger before the node's arithmetic are larger
  /// after it, too: then it may come after the max-pool.
  bool PoolsFirst(const Value& value) const;
  void MaxPool(Node& node);
  void AddMaxPool(const Node& node, Value& value, const Window& window);
  void AveragePool(Node& node);
  /// The most that the node itself pads.
  static std::size_t OwnPads(const Window& window, const Value& value);
  static Window WholeMap(const mpc::Shape3& shape);
  void GlobalPool(Node& node);
  /// Over height and width, wherever these are.
  void Reduce(Node& node);

  // --- Products (importer_layers.cpp)

  /// The value times a matrix [inputs, outputs] in axis `axis` of it; [outputs, inputs] if
  /// `transposed`.
  void AddLinear(const Node& node, Value value, std::size_t axis, const Constant& weight,
                 bool transposed, double factor);
  /// Ready for a product with a matrix.
  Value NeedVectors(const Node& node, int i);
  void Gemm(Node& node);
  void MatMul(Node& node);

  // --- Sums and products with constants (importer_arithmetic.cpp)

  /// A constant's number for each element of the value's layer, or one for all.
  static std::vector<double> Spread(const Node& node, const Value& value, const Array& array);
  /// The constant that an elementwise node combines with the value, with axes as numpy would have
  /// them: until operator set 6 an attribute said which axis its first one is.
  Array NeedOperand(Node& node, const Value& value, int i) const;
  /// What is left to do with it can take some arithmetic more.
  Value OpenValue(const Node& node, int i);
  void MakeOpen(const Node& node, Value& value);
  void Arithmetic(Node& node);
  void TwoValues(const Node& node);
  void AddSum(const Node& node, const Value& a, const Value& b);
  /// Of any number of values.
  void Sum(Node& node);
  void Neg(Node& node);
  void BatchNormalization(Node& node);

  // --- Activations (importer_arithmetic.cpp)

  void Relu(Node& node);
  /// None of what is never less than 0.
  void AddRelu(const Node& node, int input);
  /// Those that multiply what is negative by a number.
  void LeakyRelu(Node& node);
  void ClipTo(const Node& node, int input, const Bounds& bounds);
  /// The largest floats stand for no bound.
  static double Bound(double value);
  Bounds ClipBounds(Node& node) const;
  void Clip(Node& node);
  void MaxOrMin(Node& node);
  void HardSigmoid(Node& node);
  void Sign(Node& node);
  /// Of a flag, of what is never less than 0, or never more: there Sign(0) is no rare case, and
  /// what this makes gives 0 for it. False for another value.
  bool SignOfHalf(const Node& node, Value value);
  /// As flags: x >= c is that of x - c, and x > c the opposite one of c - x.
  void Compare(Node& node);
  Value NeedFlag(const Node& node, int i);
  void Not(Node& node);
  void Where(Node& node);
  /// Comparisons that give numbers; of those that give flags, what they give.
  void Cast(Node& node);
  void BipolarQuant(Node& node);
  void Pow(Node& node);

  // --- Activations of a few bits (importer_steps.cpp)

  /// A step of a function at one number for each channel, taken from there or only beyond.
  struct Step {
    std::vector<double> at;
    bool or_equal = true;
  };
  /// A constant's number for each channel of the value's layer.
  std::vector<double> NeedPerChannel(const Node& node, const Value& value, const Array& array);
  /// shift + scale times the number of steps that are taken: a sum of signs.
  void AddSteps(const Node& node, Value value, const std::vector<Step>& steps,
                const std::vector<double>& scale, const std::vector<double>& shift);
  /// Steps above 0 need no ReLU before them.
  void SkipRelu(Value& value, const std::vector<Step>& steps) const;
  /// The largest of such sums is the sum of the largest signs, whose max-pool this makes. False for
  /// another value.
  bool PoolSteps(const Node& node, const Value& value, const Window& window);
  /// Of the layers from `first` on, all of one node.
  void LeaveNameToLast(std::size_t first);
  /// Makes it a convolution of 1 x 1.
  static void SetChannelwise(Layer& layer, std::size_t out_channels, std::size_t groups,
                             const std::vector<float>& weight, const std::vector<float>& bias);
  /// FINN's: out_bias + out_scale times the number of thresholds that are at most x.
  void MultiThreshold(Node& node);
  /// QONNX's, of an activation.
  void Quant(Node& node);

  // --- Tables (importer_curves.cpp)

  /// A function that is a straight line on either side.
  void Lookup(Node& node);
  /// What a value becomes by it: a table, and a ReLU where it grows.
  void AddCurve(const Node& node, Value value, const RealFunction& function);
  /// Clips the value; returns the layer of slope relu(x).
  int ClipAndGrow(const Node& node, Value& value, const Bounds& bounds, double slope);
  /// What at most so many nodes make of each number of `of`; none where they do something else.
  std::optional<RealFunction> FunctionOf(const std::string& name, const std::string& of,
                                         int nodes) const;
  /// x times a function of x, as exporters write GELU, SiLU, Mish and HardSwish. False for another
  /// product.
  bool AddGate(const Node& node);

  // --- Sums, Concat, max-pools without an activation (importer_sums.cpp)

  bool IsNonNegative(int layer) const;
  /// Whether all its numbers are 1 or -1.
  bool AreSigns(int layer) const;
  /// A layer that multiplies by a number.
  int AddScaled(const Node& node, int layer, double factor);
  /// Carries what has too many summands for a sum of both.
  void LimitSummands(const Node& node, int& a, int& b);
  int AddSumOf(const Node& node, int a, int b);
  int PutTogether(const Node& node, int a, int b);
  /// Before weights are made that the file does not have: `outputs` x `depth` x `taps` more.
  void CountWeights(const Node& node, std::size_t outputs, std::size_t depth, std::size_t taps);
  void Concat(Node& node);
  /// Whether a batch_norm multiplies by less than 0.
  static bool Falls(const Layer& norm);
  /// Of a max-pool, before or behind it and so that both are one block (src/compile/blocks.h).
  bool HasActivation(int pool, const std::vector<std::vector<int>>& readers) const;
  /// Whether something else than the pool reads what it pools: of an activation's block only what
  /// leaves its pool is left.
  bool IsShared(int pool, const std::vector<std::vector<int>>& readers) const;
  /// Of the max-pools without one, by ReLUs.
  void ReplacePools();
  /// The layer that gives its numbers; one from before where it changes none.
  int ReplacePool(Layer pool);
  /// The largest number of a window that is one row or one column.
  int AddLargest(const Node& node, int layer, const Window& window, bool by_rows);

  // --- Parts of maps and vectors (importer_parts.cpp)

  /// Convolutions pick channels, kNone standing for zeros, and of each the numbers at some rows and
  /// columns, which are evenly spaced.
  struct Parts {
    std::vector<int> channels;
    std::vector<std::size_t> rows, columns;
  };
  Value AddParts(const Node& node, const Value& value, const Parts& parts);
  static Parts WholeOf(const mpc::Shape3& shape);
  /// As a layer has them, also where a Reshape and a Transpose have put whole channels elsewhere.
  void PutChannelsInOrder(const Node& node, Value& value);
  /// Maps or vectors whose channels or features are in order.
  Value NeedChannels(const Node& node, int i);
  void Slice(Node& node);
  void Split(Node& node);
  void Gather(Node& node);
  /// Zeros before the first channels, and behind the last ones.
  void PadChannels(const Node& node, Value& value, std::size_t before, std::size_t after);

  // --- Shapes (importer_views.cpp)

  /// PyTorch writes one before every average pool that counts its padding.
  void Pad(Node& node);
  /// The same numbers in another shape.
  void SetSizes(const Node& node, Value value, Sizes sizes);
  void Flatten(Node& node);
  void Reshape(Node& node);
  void Squeeze(Node& node);
  bool IsOneImage(std::int64_t size) const;
  void Unsqueeze(Node& node);
  void Transpose(Node& node);
  void Shape(Node& node);

  // --- The chain (importer_chain.cpp)

  /// How many outputs of activations it is a sum of linear maps of.
  std::size_t SummandsOf(int layer) const;
  /// A layer that gives the same as this one and is one summand: an activation that changes
  /// nothing. It stands for this one everywhere, since an activation takes what the one before it
  /// gives.
  int Carry(const Node& node, int layer);
  /// relu(x) - slope relu(-x), with one slope for each channel, in one activation: 1 gives x.
  int AddBothSides(const Node& node, int layer, const std::vector<double>& slopes);
  void ReadCarriers();
  /// An activation of its own that leaves numbers that are not negative, or signs, as they are.
  int AddActivationOf(const Node& node, int layer);
  /// Each layer after its inputs.
  void Sort();
  static Axis AxisBetween(std::size_t in, std::size_t out);
  /// A convolution whose weights are zeros.
  int AddNothingOf(const Node& node, int layer, const mpc::Shape3& out);
  /// The value, and nothing of what leaves the activation before it, as a sum at the end of the
  /// order.
  int AddChained(const Node& node, int value, int before);
  /// The layers that take each layer's output.
  std::vector<std::vector<int>> Readers() const;
  /// A sum of two earlier outputs that several layers go on from becomes one summand, as only the
  /// first of them comes while one of the two is what the last activation gives. False for none.
  bool CarryBeforeBranches();
  /// Whether no linear map is between it and an activation or the input.
  bool IsActive(int layer) const;
  /// Makes a layer take the same numbers by way of a convolution that changes nothing.
  void GoRound(int reader, std::size_t input);
  /// An order in which each layer comes directly after what it takes, but for convolutions and one
  /// summand of a sum. Where there is none, layers go round, and so do activations of what is
  /// no linear map.
  std::vector<int> Order();
  /// Whether it is a linear map of `source`, or a sum of them.
  bool Reads(int value, int source) const;
  /// Whether it is a max-pool, perhaps with batch_norms, that is one block with what follows.
  bool WaitsForActivation(int value) const;
  /// Orders the layers. An activation that begins another branch takes nothing of the one before.
  void MakeChain();

  // --- The end (importer_network.cpp)

  void CheckEnd();
  /// What no layer takes any more.
  void RemoveUnused();
  /// Of sums and products with constants, what the layer before or the input's mean and std can do.
  void MergeArithmetic();
  static bool MergeIntoBias(const Layer& layer, Layer& before);
  /// (p / scale - mean) / std, times a, plus b, is (p / scale - mean + b std / a) / (std / a).
  bool MergeIntoInput(const Layer& layer);
  /// A wanted name that is not another layer's too, else operator and counter.
  void NameLayers();
  /// Latent weights, of which a framework takes the signs whenever it computes with them.
  void Binarise();
  ImportedNetwork Assemble();
  std::string NameOf(int layer) const;
  /// Parses the architecture; what the parser says about a layer is said about its node.
  nn::NetworkSpec Parse(const std::string& text) const;

  const onnx::GraphProto& graph_;
  const std::filesystem::path path_;
  const std::string file_;
  const ImportOptions& options_;
  std::int64_t operators_ = 0;  // version of their set
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
  std::vector<int> order_;               // of them in the network's list
  struct Carrier {
    int first, last;  // layers
  };
  std::map<int, Carrier> carried_;                   // of what Carry took
  std::map<std::pair<int, int>, int> put_together_;  // sums that put two layers together
  std::size_t added_weights_ = 0;                    // see CountWeights
  std::set<int> zero_signs_;                         // layers for which Sign(0) differs
  std::set<std::string> notes_;
  bool only_class_ = false;
};

}  // namespace tercet::importer
