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
  if (type.Type() == LayerType::kClip) {
    layer.low = -1.5;
    layer.high = 6;
    layer.input_scale = 0.25;
  } else if (type.Kind() == mpc::ActivationKind::kTable) {
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
    mpc::ActivationSpec spec{.kind = type->Kind(), .table = encoding.table};
    const auto half = static_cast<std::int64_t>(std::max<std::size_t>(8, spec.table.size()) / 2);
    for (std::int64_t z = -half; z < half; ++z) {
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

TEST(ActivationTypeTest, ClipIsAnIntervalWithinItsSteps) {
  const ActivationType& clip = *FindActivation(LayerType::kClip);
  const LayerSpec layer = LayerOf(clip);
  for (const auto& [low, high] :
       {std::pair(6.0, 6.0), std::pair(7.0, 6.0), std::pair(-32.1, 6.0), std::pair(0.0, 31.8)}) {
    LayerSpec wrong = layer;
    wrong.low = low;
    wrong.high = high;
    EXPECT_STREQ(clip.Check(wrong).key, "/high") << low << " to " << high;
  }
}

TEST(ActivationTypeTest, ClipWithoutAScaleIsAnyInterval) {
  const ActivationType& clip = *FindActivation(LayerType::kClip);
  LayerSpec layer;
  layer.type = LayerType::kClip;
  clip.ReadOptions({{"low", -1000}, {"high", 2000}}, layer);
  EXPECT_EQ(layer.input_scale, 0);
  EXPECT_EQ(clip.Check(layer).key, nullptr);
  EXPECT_EQ(clip.Options(layer).dump(), R"({"low":-1000.0,"high":2000.0})");
  layer.high = layer.low;
  EXPECT_EQ(clip.Check(layer).text, "found -1000, expected more than low, -1000");
}

TEST(ActivationTypeTest, IsFoundByItsLayerTypeAlone) {
  for (const ActivationType* type : ActivationTypes())
    EXPECT_EQ(FindActivation(type->Type()), type);
  EXPECT_EQ(FindActivation(LayerType::kConv2d), nullptr);
  EXPECT_EQ(ActivationNames([](const ActivationType&) { return true; }),
            "sign, relu, square, table or clip");
}

}  // namespace
}  // namespace tercet::nn
