// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "mpc/activation_function.h"
#include "tercet/nn/network.h"

namespace tercet::nn {

/// How the integers that an activation gives stand for real numbers: 0 for `low`, and 1 adds `unit`
/// where the layer's scale does not say what it adds.
struct ActivationEncoding {
  double low = 0, unit = 1;
  /// Of what is computed as a table: its entries, 0 or more, and what a step of its index stands
  /// for.
  std::vector<std::int64_t> table;
  double input_scale = 1;

  /// Whether x is one of two numbers and -x the other: bits that are turned stand for that.
  bool IsSymmetric() const { return table.empty() && low != 0 && low + unit == -low; }
};

/// A layer type of networks that is an activation: its options, its function of real numbers, and
/// what it becomes in an integer network. One object a type, all in activation_type.cpp. Stateless;
/// thread safe.
class ActivationType {
 public:
  /// An option: its key in JSON, and the field that has it.
  struct Option {
    const char* key;
    std::variant<double LayerSpec::*, std::vector<std::int64_t> LayerSpec::*> field;
    bool optional = false;  ///< a number that is 0 where the key is absent
  };
  /// `options` in the order in which a reader expects them.
  ActivationType(LayerType type, mpc::ActivationKind kind, std::vector<Option> options = {})
      : type_(type), kind_(kind), options_(std::move(options)) {}
  ActivationType(const ActivationType&) = delete;
  ActivationType& operator=(const ActivationType&) = delete;
  virtual ~ActivationType() = default;

  LayerType Type() const { return type_; }
  const char* Name() const { return LayerTypeName(type_); }
  /// What computes it on integers.
  mpc::ActivationKind Kind() const { return kind_; }
  const mpc::ActivationFunction& Function() const { return mpc::FunctionOf(kind_); }

  /// Takes its options from a layer of the JSON, which fits the schema.
  void ReadOptions(const nlohmann::json& value, LayerSpec& layer) const;
  /// Those options again.
  nlohmann::ordered_json Options(const LayerSpec& layer) const;
  /// What is wrong with options that fit the schema: nothing, or key and problem.
  struct Problem {
    const char* key = nullptr;
    std::string text;
  };
  virtual Problem Check(const LayerSpec& /*layer*/) const { return {}; }

  /// Replaces real numbers by their results.
  virtual void Apply(const LayerSpec& layer, std::span<float> x) const = 0;
  virtual ActivationEncoding Encoding(const LayerSpec& /*layer*/) const { return {}; }

 private:
  LayerType type_;
  mpc::ActivationKind kind_;
  std::vector<Option> options_;
};

/// All of them, in the order of LayerType.
std::span<const ActivationType* const> ActivationTypes();
/// Null for the types of other layers.
const ActivationType* FindActivation(LayerType type);
/// The names of all for which `holds`: "sign, relu or square".
template <class Condition>
std::string ActivationNames(Condition holds) {
  std::vector<std::string> names;
  for (const ActivationType* type : ActivationTypes())
    if (holds(*type)) names.emplace_back(type->Name());
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i)
    text += (i == 0 ? "" : i + 1 == names.size() ? " or " : ", ") + names[i];
  return text;
}

}  // namespace tercet::nn
