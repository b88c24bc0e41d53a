// SPDX-License-Identifier: Apache-2.0
#include "nn/activation_type.h"

#include <gtest/gtest.h>

namespace tercet::nn {
namespace {

/// A layer of each activation.
LayerSpec LayerOf(const ActivationType& type) {
  LayerSpec layer;
  layer.name = "act";
  layer.type = type.Type();
  if (type.Kind() == mpc::ActivationKind::kTable) {
    layer.values = {-3, 5, 0, 7, 2, -1, 4, 6};
    layer.input_scale = 0.5;
    layer.output_scale = 0.25;
  }
  return layer;
}

TEST(ActivationTypeTest, IntegersStandForWhatTheRealFunctionGives) {
  for (const ActivationType* type : ActivationTypes()) {
    const LayerSpec layer = LayerOf(*type);
    const ActivationEncoding encoding = type->Encoding(layer);
    mpc::ActivationSpec spec{.kind = type->Kind(), .value_bits = 3, .table = encoding.table};
    for (std::int64_t z = -4; z < 4; ++z) {
      const double step = encoding.input_scale;
      auto real = static_cast<float>(static_cast<double>(z) * step);
      type->Apply(layer, std::span(&real, 1));
      std::int64_t result = z;
      spec.Apply(std::span(&result, 1));
      const double unit = type->Function().Unit(step, encoding.unit);
      EXPECT_FLOAT_EQ(real, static_cast<float>(encoding.low + unit * static_cast<double>(result)))
          << type->Name() << " of " << z;
    }
  }
}

TEST(ActivationTypeTest, ReadsTheOptionsThatItWrites) {
  for (const ActivationType* type : ActivationTypes()) {
    const LayerSpec layer = LayerOf(*type);
    LayerSpec read;
    type->ReadOptions(nlohmann::json(type->Options(layer)), read);
    EXPECT_EQ(type->Options(read), type->Options(layer)) << type->Name();
    EXPECT_EQ(type->Check(layer).key, nullptr) << type->Name();
  }
}

TEST(ActivationTypeTest, TableHasAPowerOfTwoOfValues) {
  LayerSpec layer = LayerOf(*FindActivation(LayerType::kTable));
  layer.values.pop_back();
  const ActivationType::Problem problem = FindActivation(LayerType::kTable)->Check(layer);
  ASSERT_NE(problem.key, nullptr);
  EXPECT_EQ(problem.text, "found 7 values, expected a power of two from 4 to 256");
}

TEST(ActivationTypeTest, IsFoundByItsLayerTypeAlone) {
  for (const ActivationType* type : ActivationTypes())
    EXPECT_EQ(FindActivation(type->Type()), type);
  EXPECT_EQ(FindActivation(LayerType::kConv2d), nullptr);
  EXPECT_EQ(ActivationNames([](const ActivationType&) { return true; }),
            "sign, relu, square or table");
}

}  // namespace
}  // namespace tercet::nn
