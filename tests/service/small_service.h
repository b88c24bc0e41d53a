// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>

#include "compile/float_weights.h"
#include "tercet/crypto/sealing.h"
#include "tercet/service/package.h"

/// Three servers and a small model, for tests.
namespace tercet::service {

inline const mpc::Registry& Protocols() {
  static const mpc::Registry registry = BuiltinProtocols();
  return registry;
}

/// Deployment and the servers' secret keys.
struct SmallDeployment {
  std::array<crypto::SealingKey, 3> keys{crypto::SealingKey::Random(), crypto::SealingKey::Random(),
                                         crypto::SealingKey::Random()};
  Deployment deployment;
  SmallDeployment() {
    for (std::size_t i = 0; i < 3; ++i) deployment.servers[i].sealing_key = keys[i].Public();
  }
};

inline constexpr char kSmallNetwork[] = R"({
  "name": "small", "input": {"shape": [1, 4, 4], "bits": 4}, "output": "logits",
  "layers": [{"name": "c1", "type": "conv2d", "out_channels": 3, "kernel": 3},
             {"name": "s1", "type": "sign"},
             {"name": "fc", "type": "linear", "out_features": 3}]})";

inline nn::IntegerNetwork SmallModel(std::uint64_t seed = 7) {
  const auto spec = nn::ParseNetwork(kSmallNetwork, "small");
  compile::CompileOptions options;
  options.accept_loss = true;  // random weights
  return compile::Compile(compile::Weights(seed).Fill(spec).Network(spec), compile::Oracle(),
                          options, nullptr);
}

inline Bytes SmallPackage(const nn::IntegerNetwork& model, const Deployment& deployment,
                          const std::string& name = "small", const std::string& suite = "lut") {
  return MakePackage(model, kSmallNetwork, mpc::ParseSuiteChoice(suite, "suite"), name, "1",
                     deployment, Protocols());
}

}  // namespace tercet::service
