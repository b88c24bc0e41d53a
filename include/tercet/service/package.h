// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>

#include "tercet/compile/announcement.h"
#include "tercet/infer/secure_network.h"
#include "tercet/service/deployment.h"

namespace tercet::service {

/// What a package is never larger than.
inline constexpr std::size_t kMaxPackageBytes = std::size_t{1} << 30;

/// The public part of a package: whoever has it learns architecture, widths, suites, and the name.
struct PackageHeader {
  std::string name;     ///< of the model: letters, digits, '.', '_' and '-', 1 to 64 of them
  std::string version;  ///< the same
  nn::NetworkSpec spec;
  std::string network;  ///< the JSON that `spec` was read from
  compile::Announcement announcement;
  mpc::SuiteChoice suite;  ///< of layers that name none
  /// SHA-256 of each server's part before it was sealed. A part begins with random bytes that its
  /// server alone knows, so that this tells nothing about weights, not even to who has another
  /// part.
  std::array<crypto::Digest, 3> commitments{};
  /// SHA-256 of the header as it is in the file: what a query names. It stands for these very
  /// shares, since the header holds their digests.
  crypto::Digest digest{};
};

/// Makes the package (docs/service.md has its bytes) of a model for the servers of a deployment:
/// shares are drawn, and each server's are sealed to it. Nobody who has the package alone learns
/// anything about the weights, and each server only its own shares. `network_json` is what
/// `model.net` was compiled for; `suite` is no `auto`. ConfigError (place: what is wrong) for a
/// name or version that is none, UnsupportedError for a suite that is not private or not exact.
Bytes MakePackage(const nn::IntegerNetwork& model, const std::string& network_json,
                  const mpc::SuiteChoice& suite, const std::string& name,
                  const std::string& version, const Deployment& deployment,
                  const mpc::Registry& registry);

/// Reads the header of a package and checks that it is for `deployment` and that all of the file
/// is there; nothing is unsealed. ConfigError (`place`, with the JSON pointer where there is one)
/// says what was found and what was expected.
PackageHeader ReadPackageHeader(ByteSpan package, const Deployment& deployment,
                                const mpc::Registry& registry, const std::string& place);

/// A model as one server has it.
struct ServedModel {
  PackageHeader header;
  nn::PublicNetwork network;  ///< with the suites of all layers
  infer::SecureNetwork::ModelShares shares;
};

/// Reads the package at server `id`. ConfigError (`place`) as ReadPackageHeader, and when this
/// server's part was sealed to another key, belongs to another header, or has another length than
/// the network says.
ServedModel ReadPackage(ByteSpan package, const Deployment& deployment, int id,
                        const crypto::SealingKey& key, const mpc::Registry& registry,
                        const std::string& place);

/// The plan of a lane with queries of up to `batch` images.
infer::Plan PlanOf(const ServedModel& model, const mpc::Registry& registry, std::size_t lane,
                   std::size_t batch);

}  // namespace tercet::service
