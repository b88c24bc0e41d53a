// SPDX-License-Identifier: Apache-2.0
#include "import/importer.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/json.h"
#include "tercet/base/error.h"
#include "tercet/compile/customise.h"
#include "tercet/nn/float_network.h"

namespace tercet::importer {
namespace {

using files::TensorData;
using nn::LayerType;

std::string NetworkName(const std::filesystem::path& file) {
  std::string name = file.stem().string().substr(0, kMaxName);
  for (char& c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte > 127 || (std::isalnum(byte) == 0 && std::strchr(" _.+-", c) == nullptr)) c = '_';
  }
  while (!name.empty() && std::isalnum(static_cast<unsigned char>(name[0])) == 0) name.erase(0, 1);
  return name.empty() ? "imported" : name;
}

}  // namespace

void Importer::CheckEnd() {
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
    // Until operator set 12 a Softmax was over all axes from its own on, the first by default.
    const bool from_there = !arg_max && operators_ < 13;
    // ArgMax's default is the batch.
    const std::int64_t axis = node.Int("axis", arg_max ? 0 : from_there ? 1 : -1);
    if (rank < 2 || rank > 4 ||
        ToSigned(CountOf(value)) != *std::max_element(value.sizes.begin(), value.sizes.end()))
      node.Fail("found an input of another shape, expected [N, features]");
    const auto first = value.sizes.begin() + ToSigned(node.Axis(axis, rank));
    const auto end = from_there ? value.sizes.end() : first + 1;
    if (*first == kImages ||
        (CountOf(value) > 1 && std::find(first, end, ToSigned(CountOf(value))) == end))
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

void Importer::RemoveUnused() {
  std::vector<bool> used(layers_.size(), false);
  const auto use = [&](int layer) {
    if (layer != kNetworkInput) used[ToSize(layer)] = true;
  };
  use(result_layer_);
  for (std::size_t l = layers_.size(); l-- > 0;)
    if (used[l]) std::for_each(layers_[l].graph.inputs.begin(), layers_[l].graph.inputs.end(), use);
  std::vector<Layer> kept;
  std::vector<int> place(layers_.size());
  const auto move = [&](int& layer) {
    if (layer != kNetworkInput) layer = place[ToSize(layer)];
  };
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    place[l] = static_cast<int>(kept.size());
    if (!used[l]) continue;
    for (int& input : layers_[l].graph.inputs) move(input);
    kept.push_back(std::move(layers_[l]));
  }
  move(result_layer_);
  layers_ = std::move(kept);
}

void Importer::MergeArithmetic() {
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
                        (input == kNetworkInput
                             ? MergeIntoInput(layer)
                             : AreAll(layer.scale, 1) && MergeIntoBias(layer, kept[ToSize(input)]));
    if (!merged) kept.push_back(std::move(layer));
    place[l + 1] = merged ? input : static_cast<int>(kept.size()) - 1;
  }
  result_layer_ = place[slot(result_layer_)];
  layers_ = std::move(kept);
}

bool Importer::MergeIntoBias(const Layer& layer, Layer& before) {
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

bool Importer::MergeIntoInput(const Layer& layer) {
  const double a = layer.scale[0], b = layer.shift[0];
  if (!AreAll(layer.scale, a) || !AreAll(layer.shift, b) || !(a > 0)) return false;
  const double std = input_spec_.std / a, mean = input_spec_.mean - b * std;
  constexpr double kMost = 1e6;  // as nets/network.schema.json says
  if (!(std >= 1 / kMost && std <= kMost && std::abs(mean) <= kMost)) return false;
  input_spec_.std = std;
  input_spec_.mean = mean;
  return true;
}

void Importer::NameLayers() {
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

void Importer::Binarise() {
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

ImportedNetwork Importer::Assemble() {
  nn::NetworkSpec spec;
  spec.name = options_.name.empty() ? NetworkName(file_) : options_.name;
  spec.input = input_spec_;
  spec.output = only_class_ ? "class" : "logits";
  ImportedNetwork network;
  int before = kNetworkInput;
  for (const int l : order_) {
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
  const nn::FloatNetwork fits(Parse(network.architecture), network.weights, file_);
  for (const Layer& layer : layers_)
    if (!layer.note.empty()) notes_.insert(layer.note);
  network.notes.assign(notes_.begin(), notes_.end());
  return network;
}

std::string Importer::NameOf(int layer) const {
  return layer == kNetworkInput ? "input" : layers_[ToSize(layer)].spec.name;
}

nn::NetworkSpec Importer::Parse(const std::string& text) const {
  try {
    return nn::ParseNetwork(text, file_);
  } catch (const ConfigError& e) {
    const std::string layers = file_ + " /layers/";
    if (!e.Place().starts_with(layers)) throw;
    std::size_t digits = 0;
    const std::size_t index = std::stoul(e.Place().substr(layers.size()), &digits);
    const std::string key = e.Place().substr(layers.size() + digits);
    const std::string problem = std::string(e.what()).substr(e.Place().size() + 2);
    throw ConfigError(layers_[ToSize(order_.at(index))].place,
                      key.empty() ? problem : key.substr(1) + ": " + problem);
  }
}

}  // namespace tercet::importer
