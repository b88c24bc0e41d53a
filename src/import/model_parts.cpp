// SPDX-License-Identifier: Apache-2.0
#include "import/model_parts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/json.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::importer {

static_assert(std::endian::native == std::endian::little, "raw_data is little endian");

Constant::Constant(const onnx::TensorProto& tensor, const std::string& name,
                   const std::string& file)
    : tensor_(tensor),
      place_(file + " tensor " + Printable(name)),
      shape_(tensor.dims().begin(), tensor.dims().end()) {}

void Constant::Fail(const std::string& problem) const { throw ConfigError(place_, problem); }

std::size_t Constant::Count() const {
  std::size_t count = 1;
  for (const std::int64_t size : shape_) {
    if (size < 0 || ToSize(size) >= kMaxElements || (count *= ToSize(size)) >= kMaxElements) {
      Fail(fmt::format("found shape {}, expected fewer than {} values", SizesText(shape_),
                       kMaxElements));
    }
  }
  return count;
}

std::string Constant::TypeText() const {
  if (!onnx::TensorProto::DataType_IsValid(tensor_.data_type()))
    return std::to_string(tensor_.data_type());
  return onnx::TensorProto::DataType_Name(
      static_cast<onnx::TensorProto::DataType>(tensor_.data_type()));
}

std::vector<float> Constant::Weights() const {
  if (tensor_.data_type() != onnx::TensorProto::FLOAT &&
      tensor_.data_type() != onnx::TensorProto::DOUBLE)
    Fail(fmt::format("found type {}, expected FLOAT or DOUBLE", TypeText()));
  return Values<float>();
}

std::vector<double> Constant::Numbers() const { return Values<double>(); }

std::vector<std::int64_t> Constant::Integers() const {
  if (tensor_.data_type() != onnx::TensorProto::INT64)
    Fail(fmt::format("found type {}, expected INT64", TypeText()));
  return Values<std::int64_t>();
}

template <class T>
std::vector<T> Constant::Values() const {
  if (tensor_.data_location() == onnx::TensorProto::EXTERNAL || tensor_.external_data_size() > 0)
    Fail("has its data in another file, expected a model in one file");
  if (tensor_.has_segment()) Fail("is a segment, expected a whole tensor");
  switch (tensor_.data_type()) {
    case onnx::TensorProto::FLOAT:
      return Decode<T, float>(tensor_.float_data());
    case onnx::TensorProto::DOUBLE:
      return Decode<T, double>(tensor_.double_data());
    case onnx::TensorProto::INT64:
      return Decode<T, std::int64_t>(tensor_.int64_data());
    case onnx::TensorProto::INT32:
      return Decode<T, std::int32_t>(tensor_.int32_data());
    case onnx::TensorProto::BOOL:
      return Decode<T, std::uint8_t>(tensor_.int32_data());
    default:
      Fail(fmt::format("found type {}, expected FLOAT, DOUBLE, INT64, INT32 or BOOL", TypeText()));
  }
}

/// `Stored` is an element of raw_data; `typed` holds the values where there is none.
template <class T, class Stored, class Typed>
std::vector<T> Constant::Decode(const Typed& typed) const {
  const std::size_t count = Count();
  if (!tensor_.has_raw_data()) {
    if (ToSize(typed.size()) != count) {
      Fail(fmt::format("found {} values, expected {} for shape {}", typed.size(), count,
                       SizesText(shape_)));
    }
    std::vector<T> values(count);
    std::transform(typed.begin(), typed.end(), values.begin(),
                   [](auto value) { return static_cast<T>(value); });
    return values;
  }
  const std::string& raw = tensor_.raw_data();
  if (raw.size() != count * sizeof(Stored)) {
    Fail(fmt::format("found {} bytes, expected {} for shape {} of {}", raw.size(),
                     count * sizeof(Stored), SizesText(shape_), TypeText()));
  }
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, raw.data() + i * sizeof(Stored), sizeof(Stored));
    values[i] = static_cast<T>(value);
  }
  return values;
}

Node::Node(const onnx::NodeProto& proto, int index, const std::string& file)
    : proto_(proto),
      text_(
          fmt::format("{} '{}'", Printable(proto.op_type()),
                      proto.name().empty() ? fmt::format("#{}", index) : Printable(proto.name()))),
      place_(file + " node " + text_) {}

const std::string& Node::Op() const { return proto_.op_type(); }
const std::string& Node::Name() const { return proto_.name(); }
const std::string& Node::Domain() const { return proto_.domain(); }

bool Node::IsStandard() const { return Domain().empty() || Domain() == "ai.onnx"; }

const std::string& Node::Output() const {
  if (proto_.output_size() == 0 || proto_.output(0).empty()) Fail("has no output, expected one");
  return proto_.output(0);
}

bool Node::HasFurtherOutput() const {
  return proto_.output_size() > 1 &&
         std::any_of(proto_.output().begin() + 1, proto_.output().end(),
                     [](const std::string& output) { return !output.empty(); });
}

void Node::Fail(const std::string& problem) const { throw ConfigError(place_, problem); }

bool Node::HasInput(int i) const { return i < proto_.input_size() && !proto_.input(i).empty(); }

const std::string& Node::Input(int i) const {
  if (!HasInput(i)) Fail(fmt::format("has no input {}, expected one", i));
  return proto_.input(i);
}

const onnx::AttributeProto* Node::Find(const std::string& name, int type) {
  using onnx::AttributeProto;
  read_.insert(name);
  const auto found = std::find_if(proto_.attribute().begin(), proto_.attribute().end(),
                                  [&](const auto& a) { return a.name() == name; });
  if (found == proto_.attribute().end()) return nullptr;
  if (found->type() != type) {
    Fail(fmt::format(
        "found attribute {} of type {}, expected {}", name,
        AttributeProto::AttributeType_Name(found->type()),
        AttributeProto::AttributeType_Name(static_cast<AttributeProto::AttributeType>(type))));
  }
  return &*found;
}

std::int64_t Node::Int(const std::string& name, std::int64_t otherwise) {
  const auto* attribute = Find(name, onnx::AttributeProto::INT);
  return attribute == nullptr ? otherwise : attribute->i();
}

float Node::Float(const std::string& name, float otherwise) {
  const auto* attribute = Find(name, onnx::AttributeProto::FLOAT);
  return attribute == nullptr ? otherwise : attribute->f();
}

std::string Node::String(const std::string& name, const std::string& otherwise) {
  const auto* attribute = Find(name, onnx::AttributeProto::STRING);
  return attribute == nullptr ? otherwise : attribute->s();
}

std::optional<Sizes> Node::Ints(const std::string& name) {
  const auto* attribute = Find(name, onnx::AttributeProto::INTS);
  if (attribute == nullptr) return std::nullopt;
  return Sizes(attribute->ints().begin(), attribute->ints().end());
}

const onnx::TensorProto& Node::Tensor(const std::string& name) {
  const auto* attribute = Find(name, onnx::AttributeProto::TENSOR);
  if (attribute == nullptr) Fail(fmt::format("has no attribute {}, expected one", name));
  return attribute->t();
}

void Node::ExpectInt(const std::string& name, std::int64_t expected, std::int64_t otherwise) {
  if (const std::int64_t found = Int(name, otherwise); found != expected)
    Fail(fmt::format("found {} {}, expected {}", name, found, expected));
}

void Node::ExpectFloat(const std::string& name, float expected) {
  if (const float found = Float(name, expected); found != expected)
    Fail(fmt::format("found {} {}, expected {}", name, found, expected));
}

std::size_t Node::Equal(const std::string& name, std::size_t count, std::int64_t otherwise,
                        std::int64_t min) {
  const Sizes sizes = Ints(name).value_or(Sizes(count, otherwise));
  if (sizes.size() != count || sizes[0] < min || sizes[0] > kMaxSide ||
      std::any_of(sizes.begin(), sizes.end(), [&](auto size) { return size != sizes[0]; })) {
    Fail(fmt::format("found {} {}, expected {} equal numbers from {} to {}", name, SizesText(sizes),
                     count, min, kMaxSide));
  }
  return ToSize(sizes[0]);
}

void Node::CheckAllRead() const {
  for (const auto& attribute : proto_.attribute()) {
    if (!read_.contains(attribute.name()))
      Fail(
          fmt::format("found attribute {}, which cannot be imported", Printable(attribute.name())));
  }
}

}  // namespace tercet::importer
