// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "compile/float_weights.h"
#include "import/expect_same.h"
#include "infer/run_securely.h"
#include "tercet/compile/compile.h"
#include "tercet/nn/run_plain.h"

/// Whole models, from their ONNX graph to logits that are computed securely.
namespace tercet::importer {

/// A graph that grows at its end, `at`.
class Builder {
 public:
  Builder(const Dims& input, std::int64_t inputs) : m(input), channels(inputs) {}

  Builder& Then(const std::string& op, std::vector<std::string> more = {}) {
    more.insert(more.begin(), at);
    node = &m.Node(op, more, at = Name(op));
    return *this;
  }
  std::string Weights(const Dims& dims) {
    std::string name = Name("w");
    m.Weights(name, dims, counter_);
    return name;
  }
  std::string Numbers(const Dims& dims, const std::vector<float>& values) {
    std::string name = Name("n");
    m.Floats(name, dims, values);
    return name;
  }
  Builder& Conv(std::int64_t out, std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                std::int64_t groups = 1, const std::string& weights_by = "") {
    std::string w = Weights({out, channels / groups, kernel, kernel});
    if (!weights_by.empty()) {
      const std::string signs = Name("signs");
      auto& made = m.Node(weights_by, {w}, signs);
      if (weights_by == "BipolarQuant") {
        made.add_input(Numbers({}, {1}));
        made.set_domain("qonnx.custom_op.general");
      }
      w = signs;
    }
    Then("Conv", {w});
    SetInts(*node, "strides", {stride, stride});
    SetInts(*node, "pads", Dims(4, padding));
    SetInt(*node, "group", groups);
    channels = out;
    return *this;
  }
  /// Maps side by side, of so many channels in all.
  Builder& Concat(const std::vector<std::string>& parts, std::int64_t all) {
    node = &m.Node("Concat", parts, at = Name("Concat"));
    SetInt(*node, "axis", 1);
    channels = all;
    return *this;
  }
  Builder& Norm() {
    const Dims dims = {channels};
    const auto count = static_cast<std::size_t>(channels);
    std::vector<float> gamma(count, 0.5), variance(count, 2);
    gamma[0] = -0.25;
    variance[count - 1] = 0;
    return Then("BatchNormalization",
                {Numbers(dims, gamma), Weights(dims), Weights(dims), Numbers(dims, variance)});
  }
  Builder& Pool(const std::string& op, std::int64_t kernel) {
    Then(op);
    SetInts(*node, "kernel_shape", {kernel, kernel});
    SetInts(*node, "strides", {kernel, kernel});
    return *this;
  }
  Builder& Fc(std::int64_t in, std::int64_t out) {
    Then("Gemm", {Weights({out, in}), Weights({out})});
    SetInt(*node, "transB", 1);
    return *this;
  }
  Builder& Transpose(const Dims& perm) {
    Then("Transpose");
    SetInts(*node, "perm", perm);
    return *this;
  }
  Builder& Relu6() { return Then("Clip", {Numbers({}, {0}), Numbers({}, {6})}); }

  Model m;
  std::string at = "x";
  onnx::NodeProto* node = nullptr;
  std::int64_t channels;  ///< of what is at its end

 private:
  std::string Name(const std::string& what) { return fmt::format("{}_{}", what, ++counter_); }
  int counter_ = 0;
};

/// That the float network computes what the model does, and the suites what the integers do.
inline void ExpectWorks(const Builder& b, bool channels_last = false, float tolerance = 1e-5F,
                        const std::vector<const char*>& suites = {"lut", "fss", "aby3"}) {
  const ImportedNetwork network = ExpectSame(b.m, channels_last, Scaled(), tolerance);
  const auto spec = nn::ParseNetwork(network.architecture, "imported");
  compile::CompileOptions options;
  options.default_fixed_bits = 28;
  const auto compiled = compile::Compile(nn::FloatNetwork(spec, network.weights, "weights"),
                                         compile::Oracle(), options, nullptr);
  const auto images = compile::RandomImages(spec.input.shape, 2, 11);
  const auto plain = nn::RunPlain(compiled, compile::Oracle(), images, 0, 2);
  const mpc::Registry registry = BuiltinProtocols();
  for (const char* suite : suites) {
    SCOPED_TRACE(suite);
    const auto plan = infer::MakePlan(compiled.net, registry, mpc::ParseSuiteChoice(suite, "test"),
                                      {0, 1, 2, 1}, 2);
    EXPECT_EQ(infer::RunSecurely(compiled, plan, registry, images), plain);
  }
}

}  // namespace tercet::importer
