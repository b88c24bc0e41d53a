// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "tercet/files/images.h"
#include "tercet/service/model_info.h"
#include "tercet/service/query.h"

/// The client of a prediction service: draws shares, seals them, and adds the answers' up.
namespace tercet::client {

/// One query, asked once: a fresh number, fresh shares and a fresh one-time key.
///
///     const Query query(deployment, info, images, 0, 1);
///     // Request() goes to server E1() ... and its answer comes back
///     const auto logits = query.Open(answer);
class Query {
 public:
  /// Of images [first, first + count), of the model's shape. ConfigError where they are of another
  /// one, or more than the deployment allows.
  Query(const service::Deployment& deployment, const service::ModelInfo& model,
        const files::Images& images, std::size_t first, std::size_t count,
        std::uint64_t now_ms = service::NowMs());

  /// The server that it goes to.
  int E1() const { return service::RolesOf(Lane()).Evaluator1(); }
  /// Its worker there is the deployment's WorkerOf(Lane()).
  std::size_t Lane() const { return request_.head.lane; }
  const service::SealedPair& Request() const { return request_; }

  /// Logits, image after image; of a model that gives only the class 1 for it and 0 for the others.
  /// ProtocolError when the answer is not this query's, or not of both servers.
  std::vector<std::int64_t> Open(const service::SealedPair& answer) const;

 private:
  service::ModelInfo model_;
  crypto::SealingKey reply_ = crypto::SealingKey::Random();
  service::SealedPair request_;
};

}  // namespace tercet::client
