// SPDX-License-Identifier: Apache-2.0
#include "serve/metrics.h"
#include "tercet/base/error.h"

namespace tercet::serve {

struct Metrics::State {};

Metrics::Metrics() = default;
Metrics::~Metrics() = default;
void Metrics::Answered(std::uint16_t) {}
void Metrics::Opened(double) {}
void Metrics::Batch(const service::BatchDone&) {}
void Metrics::Query(std::size_t, double) {}
void Metrics::Listen(const std::string&, std::function<std::vector<LaneState>()>) {
  throw UnsupportedError(
      "this tercet-party was built without metrics: install prometheus-cpp-dev and build again");
}
void Metrics::Close() {}

}  // namespace tercet::serve
