// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "tercet/service/lane.h"
#include "tercet/service/model_info.h"

namespace tercet::serve {

/// A model that is served, with what clients are told of it.
struct Served {
  std::shared_ptr<const service::ServedModel> model;
  service::ModelInfo info;
};

/// The packages of a server: files STORE/packages/NAME@VERSION.tercet, as they came. Thread safe.
class Packages {
 public:
  /// Reads all that are there; what cannot be read is told to `log` and left alone.
  Packages(std::filesystem::path directory, const service::Deployment& deployment, int id,
           const crypto::SealingKey& key, const mpc::Registry& registry,
           const std::function<void(const std::string&)>& log);

  /// Takes in a package, in place of one of the same name and version. ConfigError as
  /// service::ReadPackage, and when it is of another name or version; StoreError where it cannot be
  /// kept, and the one that was there is served on.
  void Put(const std::string& name, const std::string& version, ByteSpan package);
  /// False where there is none. StoreError where its file stays.
  bool Remove(const std::string& name, const std::string& version);

  service::Models All() const;
  std::vector<service::ModelInfo> Infos() const;
  /// Without a version the last one: the longest, and of equally long ones the greatest text.
  std::optional<Served> Find(const std::string& name, const std::string& version) const;

 private:
  std::filesystem::path FileOf(const std::string& name, const std::string& version) const;
  Served Read(ByteSpan package, const std::string& place) const;

  const std::filesystem::path directory_;
  const service::Deployment& deployment_;
  const int id_;
  const crypto::SealingKey& key_;
  const mpc::Registry& registry_;
  std::mutex changing_;  // held by one change with its file; taken before mutex_
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, std::string>, Served> models_;
};

}  // namespace tercet::serve
