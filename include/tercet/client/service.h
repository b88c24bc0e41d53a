// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tercet/base/error.h"
#include "tercet/client/query.h"

namespace tercet::client {

/// A server's answer that is no success.
class ServiceError : public Error {
 public:
  ServiceError(int status, const std::string& text) : Error(text), status_(status) {}
  int Status() const { return status_; }
  /// Whether the same images may be answered a little later.
  bool MayPass() const { return status_ == 429 || status_ == 503; }

 private:
  int status_;
};

/// How long whoever was refused, or has reached nobody, waits before it tries again: 50 ms, and
/// each time twice as long, up to 2 s.
class Pauses {
 public:
  std::chrono::milliseconds Next();

 private:
  std::chrono::milliseconds next_{50};
};

/// What a client without a token shows the servers: a certificate and its key, in PEM format.
struct ClientCertificate {
  std::string certificate, key;
};

/// The three servers over HTTPS, in the library tercet::https_client, which needs libcurl.
/// Connections are kept and used again; one object for each thread.
///
///     const auto deployment = service::LoadDeployment("deployment.json");
///     Service service(deployment, token);
///     const auto info = service.Model("MnistNet3");
///     const auto logits = service.AskAgain(info, images, 0, images.count, 8);
class Service {
 public:
  /// `deployment` outlives it; `token` is the client's at all three servers.
  Service(const service::Deployment& deployment, std::string token,
          std::chrono::milliseconds timeout = std::chrono::seconds(60));
  Service(const service::Deployment& deployment, ClientCertificate certificate,
          std::chrono::milliseconds timeout = std::chrono::seconds(60));
  Service(Service&&) noexcept;
  Service& operator=(Service&&) noexcept;
  ~Service();

  /// The model's document at a server's worker; without a version of the last one.
  service::ModelInfo ModelAt(int server, std::size_t worker, const std::string& name,
                             const std::string& version);
  /// At the first one that can be reached; where none can, again, up to `tries` times.
  service::ModelInfo Model(const std::string& name, const std::string& version = {},
                           std::size_t tries = 1);
  /// Asks once about images [first, first + count), no more than the deployment's max_images.
  /// Returns their logits, image after image (what Query::Open returns). ServiceError, NetworkError
  /// where the server cannot be reached, ProtocolError for an answer that is none.
  std::vector<std::int64_t> Ask(const service::ModelInfo& model, const files::Images& images,
                                std::size_t first, std::size_t count);
  /// Asks up to `tries` times, each time with a new query, with Pauses in between: no server sees
  /// one twice.
  std::vector<std::int64_t> AskAgain(const service::ModelInfo& model, const files::Images& images,
                                     std::size_t first, std::size_t count, std::size_t tries);

  struct Response {
    int status = 0;
    std::string body;
    std::size_t json_bytes = 0;
  };
  /// Any request, for tests and operators. `headers` are whole lines.
  Response Send(int server, const char* method, const std::string& path, ByteSpan body,
                const std::vector<std::string>& headers = {}, std::size_t worker = 0);

 private:
  service::ModelInfo ModelOfAny(const std::string& name, const std::string& version);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tercet::client
