// SPDX-License-Identifier: Apache-2.0
#include "serve/models.h"

#include <system_error>
#include <utility>

#include "serve/store.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"

namespace tercet::serve {
namespace {

namespace fs = std::filesystem;

constexpr FileKind kPackageFile{"a package", service::kMaxPackageBytes};
constexpr const char* kEnd = ".tercet";

}  // namespace

Packages::Packages(fs::path directory, const service::Deployment& deployment, int id,
                   const crypto::SealingKey& key, const mpc::Registry& registry,
                   const std::function<void(const std::string&)>& log)
    : directory_(std::move(directory)),
      deployment_(deployment),
      id_(id),
      key_(key),
      registry_(registry) {
  MakePrivateDirectory(directory_);
  for (const auto& entry : fs::directory_iterator(directory_)) {
    if (entry.path().extension() != kEnd) continue;
    try {
      auto served = Read(ReadFile(entry.path(), kPackageFile), entry.path().string());
      log(fmt::format("serves {} {}", served.info.name, served.info.version));
      models_[{served.info.name, served.info.version}] = std::move(served);
    } catch (const Error& e) {
      log(fmt::format("leaves out {}", e.what()));
    }
  }
}

fs::path Packages::FileOf(const std::string& name, const std::string& version) const {
  return directory_ / (name + "@" + version + kEnd);
}

Served Packages::Read(ByteSpan package, const std::string& place) const {
  auto model = std::make_shared<service::ServedModel>(
      service::ReadPackage(package, deployment_, id_, key_, registry_, place));
  auto info = service::InfoOf(*model, registry_);
  return {std::move(model), std::move(info)};
}

void Packages::Put(const std::string& name, const std::string& version, ByteSpan package) {
  auto served = Read(package, "package");
  if (served.info.name != name || served.info.version != version)
    throw ConfigError("package", fmt::format("is of {} {}, expected {} {}", served.info.name,
                                             served.info.version, name, version));
  const std::lock_guard change(changing_);
  try {
    WriteFile(FileOf(name, version),
              {reinterpret_cast<const char*>(package.data()), package.size()});
  } catch (const Error& e) {
    throw StoreError(e.what());
  }
  const std::lock_guard lock(mutex_);
  models_[{name, version}] = std::move(served);
}

bool Packages::Remove(const std::string& name, const std::string& version) {
  const std::lock_guard change(changing_);
  {
    const std::lock_guard lock(mutex_);
    if (!models_.contains({name, version})) return false;
  }
  const auto file = FileOf(name, version);
  std::error_code problem;
  fs::remove(file, problem);
  if (problem)
    throw StoreError(fmt::format("{}: cannot be removed: {}", file.string(), problem.message()));
  const std::lock_guard lock(mutex_);
  models_.erase({name, version});
  return true;
}

service::Models Packages::All() const {
  const std::lock_guard lock(mutex_);
  service::Models all;
  for (const auto& [key, served] : models_) all.push_back(served.model);
  return all;
}

std::vector<service::ModelInfo> Packages::Infos() const {
  const std::lock_guard lock(mutex_);
  std::vector<service::ModelInfo> all;
  for (const auto& [key, served] : models_) all.push_back(served.info);
  return all;
}

std::optional<Served> Packages::Find(const std::string& name, const std::string& version) const {
  const std::lock_guard lock(mutex_);
  const Served* found = nullptr;
  for (const auto& [key, served] : models_) {
    if (key.first != name || (!version.empty() && key.second != version)) continue;
    const auto order = [](const std::string& v) { return std::pair(v.size(), v); };
    if (found == nullptr || order(found->info.version) < order(key.second)) found = &served;
  }
  if (found == nullptr) return std::nullopt;
  return *found;
}

}  // namespace tercet::serve
