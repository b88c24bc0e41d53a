// SPDX-License-Identifier: Apache-2.0
#include "python/module.h"
#include "tercet/base/error.h"
#ifdef TERCET_HAS_HTTPS_CLIENT
#include <mutex>

#include "predict/credentials.h"
#include "programs/options.h"
#endif

namespace tercet::python {
namespace {

#ifdef TERCET_HAS_HTTPS_CLIENT
/// One client of a deployment's servers, whose queries are asked one after the other.
class Client {
 public:
  Client(const std::filesystem::path& deployment, const Words& words)
      : deployment_(service::LoadDeployment(deployment)), service_(Connect(words)) {}

  py::array_t<std::int64_t> Logits(const std::string& name, const Source& source,
                                   const Words& words) {
    std::string version;
    std::size_t batch = 1, tries = client::kDefaultTries;
    ParseSettings("predict", words, [&](CLI::App& app) {
      app.add_option("--model-version", version);
      programs::AddNumber(app, "--batch", batch, 1, programs::kMaxBatch, "");
      programs::AddNumber(app, "--tries", tries, 1, client::kMaxTries, "");
    });
    const auto info = WithoutLock([&](Signals&) {
      const std::lock_guard lock(mutex_);
      return service_.Model(name, version, tries);
    });
    const auto images = TakeImages(source, info.input);
    const auto logits = WithoutLock([&](Signals& signals) {
      std::vector<std::int64_t> all;
      for (std::size_t first = 0; first < images.count; first += batch) {
        signals.Check();
        const std::lock_guard lock(mutex_);
        const auto part =
            service_.AskAgain(info, images, first, std::min(batch, images.count - first), tries);
        all.insert(all.end(), part.begin(), part.end());
      }
      return all;
    });
    return LogitArray(logits, info.classes);
  }

 private:
  client::Service Connect(const Words& words) const {
    client::Credentials credentials;
    ParseSettings("predict", words,
                  [&](CLI::App& app) { client::AddCredentials(app, credentials); });
    return credentials.Servers(deployment_);
  }

  const service::Deployment deployment_;
  std::mutex mutex_;  // of the service
  client::Service service_;
};
#else
class Client {
 public:
  Client(const std::filesystem::path&, const Words&) {
    throw UnsupportedError(
        "this build cannot ask a prediction service: install libcurl (Debian: "
        "libcurl4-openssl-dev), configure with -DTERCET_BUILD_SERVE=ON and build again");
  }
  py::array_t<std::int64_t> Logits(const std::string&, const py::buffer&, const Words&) {
    return {};
  }
};
#endif

}  // namespace

void BindClient(py::module_& module) {
  py::class_<Client>(module, "Client")
      .def(py::init<const std::filesystem::path&, const Words&>())
      .def("logits", &Client::Logits);
}

}  // namespace tercet::python
