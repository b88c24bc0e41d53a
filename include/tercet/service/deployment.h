// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <filesystem>
#include <string>
#include <vector>

#include "tercet/crypto/sealing.h"
#include "tercet/mpc/cost.h"
#include "tercet/net/tcp_link.h"

/// The prediction service: three servers answer clients who are none of them. docs/service.md has
/// the formats of all files and messages.
namespace tercet::service {

/// Lanes in ascending order, each once.
using Lanes = std::vector<std::size_t>;
/// Of a deployment with so many `lanes`, from "0-3" or "0,2,5-7". ConfigError (at `place`) for what
/// is no such list, a lane that is not there, and one that is named twice.
Lanes ParseLanes(const std::string& text, std::size_t lanes, const std::string& place);
/// The shortest such text.
std::string LanesText(const Lanes& lanes);

/// One process of a server, which runs some of its lanes.
struct Worker {
  std::string url;        ///< "https://HOST:PORT" for clients
  std::string authority;  ///< PEM that clients check its certificate against; empty: the system's
  net::Endpoint party;    ///< of lane 0 for the other servers; lane k has the k-th port after it
  std::string listen;     ///< what it listens on where that is not party.host, else empty
  Lanes lanes;
};

/// One of the three servers as everybody sees it.
struct Server {
  /// One, which has all lanes, unless the server has several machines.
  std::vector<Worker> workers;
  crypto::SealingPublicKey sealing_key{};
};

/// deployment.json: what servers, publishers and clients agree on. Nothing in it is secret, but who
/// can change it can read what is sealed afterwards.
struct Deployment {
  std::array<Server, 3> servers;  ///< with the same lanes at the i-th worker of each
  net::Pins pins;                 ///< of the keys by which the servers know each other
  std::size_t lanes = 3;
  std::size_t max_images = 64;  ///< in one query
  /// By how much the time of a query may differ from a server's clock.
  std::chrono::seconds max_age{120};
  std::string text;  ///< of the file

  /// SHA-256 of what makes it this deployment, its three sealing keys: what is sealed for one
  /// cannot be read in another. Addresses and limits may change.
  crypto::Digest Id() const;
  /// Which worker of each server has a lane.
  std::size_t WorkerOf(std::size_t lane) const;
};

/// The roles of lane k: the helper is k mod 3, images come from clients and results go to them.
mpc::Roles RolesOf(std::size_t lane);

/// ConfigError "FILE POINTER: found, expected" for whatever configs/deployment.schema.json (built
/// in) forbids, two servers with one sealing key or fingerprint, a lane that no worker has or two
/// have, and servers that divide the lanes in different ways.
Deployment LoadDeployment(const std::filesystem::path& file);
/// The same from text; `name` stands for the file in messages.
Deployment ParseDeployment(const std::string& text, const std::string& name);

/// Files of a server's store (--store) that keygen makes; all but certificates are mode 0600.
inline constexpr const char* kSealingKeyFile = "sealing.key";
inline constexpr const char* kHttpsName = "https";  ///< https.pem, https-key.pem

/// Reads store/sealing.key. ConfigError when it is no key, others may read it, or it is not the one
/// that the deployment has for server `id`.
crypto::SealingKey LoadSealingKey(const std::filesystem::path& store, const Deployment& deployment,
                                  int id);

/// Where MakeDeployment puts the servers.
struct Addresses {
  std::array<std::string, 3> urls;
  std::array<net::Endpoint, 3> parties;
  std::size_t lanes = 3;
};
/// Three servers on this machine: ports 8440 to 8442 for clients, from 8500, 8600 and 8700 on for
/// each other.
Addresses LoopbackAddresses();

/// Makes the keys and certificates of all three servers and the file that joins them: in
/// `directory` deployment.json, and server0, server1 and server2, the stores, each with
/// partyI.pem, partyI-key.pem (for the other servers), https.pem, https-key.pem (for clients,
/// signed by itself) and sealing.key. Whoever runs this holds the keys of all three. ConfigError as
/// crypto::MakePartyCertificate, for a URL that the schema forbids, and for a `directory` that
/// others may write to; nothing is overwritten unless `overwrite`.
void MakeDeployment(const std::filesystem::path& directory, const Addresses& addresses, int days,
                    bool overwrite);

}  // namespace tercet::service
