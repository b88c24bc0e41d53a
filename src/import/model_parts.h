// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/sizes_text.h"

namespace onnx {
class AttributeProto;
class NodeProto;
class TensorProto;
}  // namespace onnx

/// Tensors and nodes of an ONNX model, which are checked as they are read. They refer to the model;
/// reading them is thread safe.
namespace tercet::importer {

using Sizes = std::vector<std::int64_t>;
inline std::int64_t ToSigned(std::size_t value) { return static_cast<std::int64_t>(value); }
inline std::size_t ToSize(std::int64_t value) { return static_cast<std::size_t>(value); }

/// The number of images, among the sizes of a tensor.
inline constexpr std::int64_t kImages = std::numeric_limits<std::int64_t>::min();

/// As nets/network.schema.json and its parser bound them, so that sizes multiply without overflow.
inline constexpr std::int64_t kMaxChannels = 65536, kMaxSide = 4096;
inline constexpr std::size_t kMaxElements = std::size_t{1} << 31;

/// Numbers that are known when a model is read. Among integers NaN stands for the number of images.
struct Array {
  Sizes shape;
  std::vector<double> values;
  bool whole = false;  ///< integers or flags, of which a division is rounded towards 0
};

/// An initialiser, or what is computed of constants alone. ConfigError (place: "FILE tensor NAME")
/// where its data is not as long as its shape says, is not to be had or is of another type.
class Constant {
 public:
  Constant(const onnx::TensorProto& tensor, const std::string& name,
           const std::filesystem::path& file);
  Constant(Array array, const std::string& name, const std::filesystem::path& file);

  const Sizes& Shape() const { return shape_; }
  std::size_t Count() const;  ///< product of the shape

  /// Of a tensor of real numbers.
  std::vector<float> Weights() const;
  /// Of any type that numbers and flags among a node's inputs have.
  std::vector<double> Numbers() const;
  /// Of 64-bit integers, or of any that were computed; those beyond 2^53 may be rounded.
  std::vector<std::int64_t> Integers() const;
  /// The same where the number of images, kImages, may be among them.
  std::vector<std::int64_t> SizesOrImages() const;
  /// The same as Numbers(), with all that is known about them.
  Array ToArray() const { return {shape_, Numbers(), IsWhole()}; }

 private:
  [[noreturn]] void Fail(const std::string& problem) const;
  std::string TypeText() const;
  bool IsWhole() const;
  std::string ExternalData(std::size_t bytes) const;
  template <class T>
  std::vector<T> Values() const;
  template <class T, class Stored, class Typed>
  std::vector<T> Decode(const Typed& typed) const;

  const onnx::TensorProto* tensor_ = nullptr;  // or
  std::shared_ptr<const Array> array_;
  std::filesystem::path file_;
  std::string place_;
  Sizes shape_;
};

/// A node and its attributes, of which none may be left unread. Its errors are ConfigErrors (place:
/// "FILE node OPERATOR 'NAME'").
class Node {
 public:
  /// A node without a name is called by its index, "#3".
  Node(const onnx::NodeProto& proto, int index, const std::string& file);

  const std::string& Op() const;
  const std::string& Name() const;    ///< may be empty
  const std::string& Output() const;  ///< the first one; an error when there is none
  /// In ONNX's own domain.
  bool IsStandard() const;
  const std::string& Domain() const;
  /// Outputs after the first one that have a name.
  bool HasFurtherOutput() const;
  const std::string& Text() const { return text_; }  ///< "Conv '/conv1/Conv'"
  const std::string& Place() const { return place_; }
  [[noreturn]] void Fail(const std::string& problem) const;

  int InputCount() const;
  bool HasInput(int i) const;
  const std::string& Input(int i) const;  ///< an error when there is none

  /// Attributes; `otherwise` stands for an absent one. An error when one has another type.
  std::int64_t Int(const std::string& name, std::int64_t otherwise);
  float Float(const std::string& name, float otherwise);
  std::string String(const std::string& name, const std::string& otherwise);
  std::optional<Sizes> Ints(const std::string& name);
  std::optional<std::vector<float>> Floats(const std::string& name);
  /// Null when it is absent.
  const onnx::TensorProto* Tensor(const std::string& name);
  bool Has(const std::string& name) const;

  void ExpectInt(const std::string& name, std::int64_t expected, std::int64_t otherwise);
  void ExpectFloat(const std::string& name, float expected);
  /// The `count` integers of an attribute, each from `min` to kMaxSide.
  Sizes Bounded(const std::string& name, std::size_t count, std::int64_t otherwise,
                std::int64_t min);
  /// An axis, counted from the end where it is negative, of `rank`.
  std::size_t Axis(std::int64_t axis, std::size_t rank) const;
  /// Counts as read: it makes no difference to the inference.
  void Ignore(const std::string& name) { read_.insert(name); }
  void CheckAllRead() const;

 private:
  const onnx::AttributeProto* Find(const std::string& name, int type);

  const onnx::NodeProto& proto_;
  std::string text_, place_;
  std::set<std::string> read_;
};

}  // namespace tercet::importer
