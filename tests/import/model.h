// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "import/import_onnx.h"
#include "tercet/base/error.h"

/// ONNX models that tests build.
namespace tercet::importer {

using Dims = std::vector<std::int64_t>;

/// Small numbers with both signs, each multiple of 1/16, so that sums of float products are exact.
inline std::vector<float> Numbers(std::size_t count, int seed) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = static_cast<float>((static_cast<int>(i) * 37 + seed * 11) % 23 - 11) / 16;
  return values;
}

inline std::size_t CountOf(const Dims& dims) {
  std::size_t count = 1;
  for (const std::int64_t dim : dims) count *= static_cast<std::size_t>(dim);
  return count;
}

/// A model under construction; nodes are called as their output.
class Model {
 public:
  /// -1: any.
  explicit Model(const Dims& input, std::int64_t operators = 13) {
    proto.set_ir_version(7);
    proto.add_opset_import()->set_version(operators);
    auto* value = proto.mutable_graph()->add_input();
    value->set_name("x");
    auto* type = value->mutable_type()->mutable_tensor_type();
    type->set_elem_type(onnx::TensorProto::FLOAT);
    for (const std::int64_t dim : input) {
      auto* to = type->mutable_shape()->add_dim();
      if (dim < 0) {
        to->set_dim_param("N");
      } else {
        to->set_dim_value(dim);
      }
    }
  }

  onnx::TensorProto& Tensor(const std::string& name, const Dims& dims) {
    auto* tensor = proto.mutable_graph()->add_initializer();
    tensor->set_name(name);
    for (const std::int64_t dim : dims) tensor->add_dims(dim);
    return *tensor;
  }
  std::vector<float> Floats(const std::string& name, const Dims& dims,
                            const std::vector<float>& values) {
    auto& tensor = Tensor(name, dims);
    tensor.set_data_type(onnx::TensorProto::FLOAT);
    for (const float value : values) tensor.add_float_data(value);
    return values;
  }
  std::vector<float> Weights(const std::string& name, const Dims& dims, int seed) {
    return Floats(name, dims, Numbers(CountOf(dims), seed));
  }
  void Ints(const std::string& name, const Dims& values) {
    auto& tensor = Tensor(name, {static_cast<std::int64_t>(values.size())});
    tensor.set_data_type(onnx::TensorProto::INT64);
    for (const std::int64_t value : values) tensor.add_int64_data(value);
  }

  /// The last node's output is the model's.
  onnx::NodeProto& Node(const std::string& op, const std::vector<std::string>& inputs,
                        const std::string& output) {
    auto* node = proto.mutable_graph()->add_node();
    node->set_op_type(op);
    node->set_name(output);
    for (const std::string& input : inputs) node->add_input(input);
    node->add_output(output);
    proto.mutable_graph()->clear_output();
    proto.mutable_graph()->add_output()->set_name(output);
    return *node;
  }

  std::vector<std::uint8_t> Bytes() const {
    const std::string text = proto.SerializeAsString();
    return {text.begin(), text.end()};
  }
  ImportedNetwork Import(const ImportOptions& options = {}) const {
    return ParseOnnx(Bytes(), "m.onnx", options);
  }

  onnx::ModelProto proto;
};

inline void SetInt(onnx::NodeProto& node, const std::string& name, std::int64_t value) {
  auto* attribute = node.add_attribute();
  attribute->set_name(name);
  attribute->set_type(onnx::AttributeProto::INT);
  attribute->set_i(value);
}
inline void SetInts(onnx::NodeProto& node, const std::string& name, const Dims& values) {
  auto* attribute = node.add_attribute();
  attribute->set_name(name);
  attribute->set_type(onnx::AttributeProto::INTS);
  for (const std::int64_t value : values) attribute->add_ints(value);
}
inline void SetFloat(onnx::NodeProto& node, const std::string& name, float value) {
  auto* attribute = node.add_attribute();
  attribute->set_name(name);
  attribute->set_type(onnx::AttributeProto::FLOAT);
  attribute->set_f(value);
}
inline void SetString(onnx::NodeProto& node, const std::string& name, const std::string& value) {
  auto* attribute = node.add_attribute();
  attribute->set_name(name);
  attribute->set_type(onnx::AttributeProto::STRING);
  attribute->set_s(value);
}

/// Pixels enter as p / 64 - 2.
inline ImportOptions Scaled() {
  ImportOptions options;
  options.input.scale = 64;
  options.input.mean = 2;
  return options;
}

inline std::vector<std::string> LayersOf(const ImportedNetwork& network) {
  std::vector<std::string> layers;
  for (const auto& layer : nn::ParseNetwork(network.architecture, "imported").layers)
    layers.push_back(layer.name + " " + nn::LayerTypeName(layer.type) +
                     (layer.from.empty() ? "" : " from " + layer.from));
  return layers;
}

inline void ExpectRefused(const std::function<void()>& import, const std::string& place,
                          const std::string& text) {
  try {
    import();
    ADD_FAILURE() << "imported, expected " << place << ": " << text;
  } catch (const ConfigError& e) {
    EXPECT_EQ(e.Place(), place);
    EXPECT_THAT(e.what(), testing::HasSubstr(text));
  }
}

}  // namespace tercet::importer
