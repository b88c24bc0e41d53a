// SPDX-License-Identifier: Apache-2.0
#include "programs/check_layers.h"

#include <gmock/gmock.h>

#include <limits>
#include <string>
#include <vector>

#include "tercet/base/error.h"

namespace tercet::programs {
namespace {

using testing::HasSubstr;

constexpr double kTolerance = 1e-4;

// fc = (x0 + x1, x0 - x1), r = max(fc, 0), for the images (1, 2) and (5, 4).
class CheckLayersTest : public testing::Test {
 protected:
  CheckLayersTest() {
    reference_.tensors["fc"] = files::TensorData::FromFloats({2, 2}, {3, -1, 9, 1});
    reference_.tensors["r"] = files::TensorData::FromFloats({2, 2, 1, 1}, {3, 0, 9, 1});
  }
  static nn::FloatNetwork Network() {
    files::TensorFile weights;
    weights.tensors["fc.weight"] = files::TensorData::FromFloats({2, 2}, {1, 1, 1, -1});
    return {nn::ParseNetwork(R"({"name": "n", "input": {"shape": [1, 1, 2], "scale": 1}, "layers": [
              {"name": "fc", "type": "linear", "out_features": 2, "bias": false},
              {"name": "r", "type": "relu"}], "output": "logits"})",
                             "n.json"),
            weights, "weights"};
  }
  std::vector<LayerDifference> Compare() const {
    return CompareLayers(Network(), {{1, 1, 2}, 2, {1, 2, 5, 4}}, reference_, "ref", kTolerance);
  }
  void ExpectRefused(const std::string& place, const std::string& text) const {
    try {
      Compare();
      FAIL() << "expected: " << text;
    } catch (const ConfigError& e) {
      EXPECT_EQ(e.Place(), place);
      EXPECT_THAT(e.what(), HasSubstr(text));
    }
  }
  files::TensorFile reference_;
};

TEST_F(CheckLayersTest, EqualLayersHaveNoDifference) {
  for (const auto& d : Compare()) {
    EXPECT_TRUE(d.compared);
    EXPECT_EQ(d.largest, 0);
    EXPECT_EQ(d.beyond, 0U);
    EXPECT_EQ(d.values, 4U);
  }
}

TEST_F(CheckLayersTest, MeasuresAgainstTheLargestValue) {
  reference_.tensors["r"] = files::TensorData::FromFloats({2, 2}, {3, 0.0005F, 8, 1});
  const auto d = Compare().at(1);
  EXPECT_EQ(d.largest, 1);
  EXPECT_EQ(d.relative, 0.125);
  EXPECT_EQ(d.beyond, 1U) << "0.0005 is within 1e-4 of 8";
}

TEST_F(CheckLayersTest, ImagesAreNotMixedUp) {
  reference_.tensors["fc"] = files::TensorData::FromFloats({2, 2}, {9, 1, 3, -1});
  EXPECT_EQ(Compare().at(0).beyond, 4U);
}

TEST_F(CheckLayersTest, ZerosAreComparedAbsolutely) {
  reference_.tensors["r"] = files::TensorData::FromFloats({2, 2}, {0, 0, 0, 0});
  const auto d = Compare().at(1);
  EXPECT_EQ(d.relative, 9);
  EXPECT_EQ(d.beyond, 3U);
}

TEST_F(CheckLayersTest, OutputIsTheLastLayers) {
  reference_.tensors["output"] = reference_.tensors.at("r");
  reference_.tensors.erase("r");
  reference_.tensors.erase("fc");
  const auto differences = Compare();
  EXPECT_FALSE(differences[0].compared);
  EXPECT_TRUE(differences[1].compared);
}

TEST_F(CheckLayersTest, RefusesWhatDoesNotFit) {
  reference_.tensors["fc"] = files::TensorData::FromFloats({1, 4}, {3, -1, 9, 1});
  ExpectRefused("ref tensor fc", "found shape [1, 4], expected 2 images (see --limit) of 2 values");
  reference_.tensors["fc"] = files::TensorData::FromFloats({}, {3});
  ExpectRefused("ref tensor fc", "found shape []");
  reference_.tensors["fc"] =
      files::TensorData::FromFloats({2, 2}, {3, -1, 9, std::numeric_limits<float>::quiet_NaN()});
  ExpectRefused("ref tensor fc", "NaN");
  reference_.tensors.clear();
  reference_.tensors["other"] = files::TensorData::FromFloats({1}, {3});
  ExpectRefused("ref", "none of the 1 tensors has the name of a layer of n");
}

}  // namespace
}  // namespace tercet::programs
