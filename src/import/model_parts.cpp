// SPDX-License-Identifier: Apache-2.0
#include "import/model_parts.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <onnx/onnx_pb.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

#include "base/bfloat16.h"
#include "base/half.h"
#include "base/json.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::importer {

static_assert(std::endian::native == std::endian::little, "raw_data is little endian");

constexpr double kMaxExact = 0x1p53;  // integers that doubles hold

Constant::Constant(const onnx::TensorProto& tensor, const std::string& name,
                   const std::filesystem::path& file)
    : tensor_(&tensor),
      file_(file),
      place_(file.string() + " tensor " + Printable(name)),
      shape_(tensor.dims().begin(), tensor.dims().end()) {}

Constant::Constant(Array array, const std::string& name, const std::filesystem::path& file)
    : array_(std::make_shared<Array>(std::move(array))),
      file_(file),
      place_(file.string() + " tensor " + Printable(name)),
      shape_(array_->shape) {}

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
  if (tensor_ == nullptr) return IsWhole() ? "INT64" : "FLOAT";
  if (!onnx::TensorProto::DataType_IsValid(tensor_->data_type()))
    return std::to_string(tensor_->data_type());
  return onnx::TensorProto::DataType_Name(
      static_cast<onnx::TensorProto::DataType>(tensor_->data_type()));
}

bool Constant::IsWhole() const {
  if (tensor_ == nullptr) return array_->whole;
  using onnx::TensorProto;
  const auto type = tensor_->data_type();
  return type != TensorProto::FLOAT && type != TensorProto::DOUBLE &&
         type != TensorProto::FLOAT16 && type != TensorProto::BFLOAT16;
}

std::vector<float> Constant::Weights() const {
  if (IsWhole())
    Fail(fmt::format("found type {}, expected FLOAT, DOUBLE, FLOAT16 or BFLOAT16", TypeText()));
  if (tensor_ == nullptr) return {array_->values.begin(), array_->values.end()};
  return Values<float>();
}

std::vector<double> Constant::Numbers() const {
  return tensor_ == nullptr ? array_->values : Values<double>();
}

std::vector<std::int64_t> Constant::Integers() const {
  std::vector<std::int64_t> integers = SizesOrImages();
  if (std::find(integers.begin(), integers.end(), kImages) != integers.end())
    Fail("found the number of images in it, expected fixed numbers");
  return integers;
}

std::vector<std::int64_t> Constant::SizesOrImages() const {
  if (!IsWhole() || (tensor_ != nullptr && tensor_->data_type() != onnx::TensorProto::INT64 &&
                     tensor_->data_type() != onnx::TensorProto::INT32))
    Fail(fmt::format("found type {}, expected INT64", TypeText()));
  if (tensor_ != nullptr) return Values<std::int64_t>();
  std::vector<std::int64_t> integers;
  for (const double number : array_->values) {
    // The ends of slices are as large as can be.
    integers.push_back(std::isnan(number)
                           ? kImages
                           : static_cast<std::int64_t>(std::clamp(number, -kMaxExact, kMaxExact)));
  }
  return integers;
}

template <class T>
std::vector<T> Constant::Values() const {
  using onnx::TensorProto;
  if (tensor_->has_segment()) Fail("is a segment, expected a whole tensor");
  switch (tensor_->data_type()) {
    case TensorProto::FLOAT:
      return Decode<T, float>(tensor_->float_data());
    case TensorProto::DOUBLE:
      return Decode<T, double>(tensor_->double_data());
    case TensorProto::INT64:
      return Decode<T, std::int64_t>(tensor_->int64_data());
    case TensorProto::INT32:
      return Decode<T, std::int32_t>(tensor_->int32_data());
    case TensorProto::INT8: {
      std::vector<T> values;
      for (const std::uint8_t byte : Decode<std::uint8_t, std::uint8_t>(tensor_->int32_data()))
        values.push_back(static_cast<T>(byte < 128 ? int{byte} : int{byte} - 256));
      return values;
    }
    case TensorProto::UINT8:
    case TensorProto::BOOL:
      return Decode<T, std::uint8_t>(tensor_->int32_data());
    case TensorProto::FLOAT16:
    case TensorProto::BFLOAT16: {
      const bool half = tensor_->data_type() == TensorProto::FLOAT16;
      std::vector<T> values;
      for (const std::uint16_t bits : Decode<std::uint16_t, std::uint16_t>(tensor_->int32_data()))
        values.push_back(static_cast<T>(half ? FromHalf(bits) : FromBfloat16(bits)));
      return values;
    }
    default:
      Fail(
          fmt::format("found type {}, expected FLOAT, DOUBLE, FLOAT16, BFLOAT16, INT64, INT32, "
                      "INT8, UINT8 or BOOL",
                      TypeText()));
  }
}

/// `Stored` is an element of raw_data; `typed` holds the values where there is none.
template <class T, class Stored, class Typed>
std::vector<T> Constant::Decode(const Typed& typed) const {
  const std::size_t count = Count();
  const bool external =
      tensor_->data_location() == onnx::TensorProto::EXTERNAL || tensor_->external_data_size() > 0;
  std::vector<T> values;
  if (!external && !tensor_->has_raw_data()) {
    if (ToSize(typed.size()) != count) {
      Fail(fmt::format("found {} values, expected {} for shape {}", typed.size(), count,
                       SizesText(shape_)));
    }
    values.resize(count);
    std::transform(typed.begin(), typed.end(), values.begin(),
                   [](auto value) { return static_cast<T>(value); });
    return values;
  }
  const std::string read = external ? ExternalData(count * sizeof(Stored)) : std::string();
  const std::string& raw = external ? read : tensor_->raw_data();
  if (raw.size() != count * sizeof(Stored)) {
    Fail(fmt::format("found {} bytes, expected {} for shape {} of {}", raw.size(),
                     count * sizeof(Stored), SizesText(shape_), TypeText()));
  }
  values.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, raw.data() + i * sizeof(Stored), sizeof(Stored));
    values[i] = static_cast<T>(value);
  }
  return values;
}

/// `bytes` of a file beside the model, or in a folder there, and of no other.
std::string Constant::ExternalData(std::size_t bytes) const {
  std::map<std::string, std::string> entries;
  for (const auto& entry : tensor_->external_data()) entries[entry.key()] = entry.value();
  const std::filesystem::path location = entries["location"];
  const bool leaves =
      location.is_absolute() || std::find(location.begin(), location.end(), "..") != location.end();
  if (location.empty() || leaves) {
    Fail(fmt::format("has its data in '{}', expected a file in the model's folder",
                     Printable(location.string())));
  }
  const auto number = [&](const char* key, std::uint64_t otherwise) {
    const std::string& text = entries[key];
    std::uint64_t value = otherwise;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (!text.empty() && (error != std::errc{} || end != text.data() + text.size()))
      Fail(fmt::format("found {} '{}' of its data, expected a number", key, Printable(text)));
    return value;
  };
  // A link may leave the folder all the same.
  const std::filesystem::path folder = file_.has_parent_path() ? file_.parent_path() : ".";
  std::error_code error;
  const auto inside = std::filesystem::weakly_canonical(folder, error);
  const auto found = std::filesystem::weakly_canonical(folder / location, error);
  if (std::mismatch(inside.begin(), inside.end(), found.begin(), found.end()).first !=
      inside.end()) {
    Fail(fmt::format("has its data in '{}', a link to '{}'; expected a file in the model's folder",
                     Printable(location.string()), Printable(found.string())));
  }
  const FileReader file(folder / location, {"an ONNX model's data", std::uint64_t{1} << 40});
  const std::uint64_t offset = number("offset", 0), length = number("length", bytes);
  if (length != bytes || offset > file.Size() || bytes > file.Size() - offset) {
    Fail(fmt::format("found {} bytes from {} on of the {} in {}, expected {} for shape {} of {}",
                     length, offset, file.Size(), Printable(location.string()), bytes,
                     SizesText(shape_), TypeText()));
  }
  const std::vector<std::uint8_t> data = file.Read(offset, bytes);
  return {data.begin(), data.end()};
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

int Node::InputCount() const { return proto_.input_size(); }
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

std::optional<std::vector<float>> Node::Floats(const std::string& name) {
  const auto* attribute = Find(name, onnx::AttributeProto::FLOATS);
  if (attribute == nullptr) return std::nullopt;
  return std::vector<float>(attribute->floats().begin(), attribute->floats().end());
}

const onnx::TensorProto* Node::Tensor(const std::string& name) {
  const auto* attribute = Find(name, onnx::AttributeProto::TENSOR);
  return attribute == nullptr ? nullptr : &attribute->t();
}

bool Node::Has(const std::string& name) const {
  return std::any_of(proto_.attribute().begin(), proto_.attribute().end(),
                     [&](const auto& attribute) { return attribute.name() == name; });
}

void Node::ExpectInt(const std::string& name, std::int64_t expected, std::int64_t otherwise) {
  if (const std::int64_t found = Int(name, otherwise); found != expected)
    Fail(fmt::format("found {} {}, expected {}", name, found, expected));
}

void Node::ExpectFloat(const std::string& name, float expected) {
  if (const float found = Float(name, expected); found != expected)
    Fail(fmt::format("found {} {}, expected {}", name, found, expected));
}

Sizes Node::Bounded(const std::string& name, std::size_t count, std::int64_t otherwise,
                    std::int64_t min) {
  Sizes sizes = Ints(name).value_or(Sizes(count, otherwise));
  if (sizes.size() != count || std::any_of(sizes.begin(), sizes.end(), [&](std::int64_t size) {
        return size < min || size > kMaxSide;
      })) {
    Fail(fmt::format("found {} {}, expected {} numbers from {} to {}", name, SizesText(sizes),
                     count, min, kMaxSide));
  }
  return sizes;
}

std::size_t Node::Axis(std::int64_t axis, std::size_t rank) const {
  const std::int64_t from_begin = axis < 0 ? axis + ToSigned(rank) : axis;
  if (from_begin < 0 || from_begin >= ToSigned(rank))
    Fail(fmt::format("found axis {}, expected one of {}", axis, rank));
  return ToSize(from_begin);
}

void Node::CheckAllRead() const {
  for (const auto& attribute : proto_.attribute()) {
    if (!read_.contains(attribute.name()))
      Fail(
          fmt::format("found attribute {}, which cannot be imported", Printable(attribute.name())));
  }
}

}  // namespace tercet::importer
