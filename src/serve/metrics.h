// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tercet/service/lane.h"

namespace tercet::serve {

/// What a lane is like now.
struct LaneState {
  std::size_t lane = 0;
  bool up = false;
  std::size_t material = 0;              ///< batches whose material is made and waits
  std::uint64_t material_bytes = 0;      ///< about how many bytes these are
  std::uint64_t sent = 0, received = 0;  ///< bytes of messages to and from the other servers
};

/// What is counted of a server, for Prometheus. Nothing in it is secret: sizes, times and numbers,
/// without clients' names. Built without prometheus-cpp it counts nothing. Thread safe.
class Metrics {
 public:
  Metrics();
  ~Metrics();

  /// An answer to any request.
  void Answered(std::uint16_t status);
  /// A query's request was checked and its share opened, in so many seconds.
  void Opened(double seconds);
  void Batch(const service::BatchDone& batch);
  /// A query was answered, so many seconds after its request was there.
  void Query(std::size_t images, double seconds);

  /// Answers http://ADDRESS/metrics ("127.0.0.1:9464") from now on, until Close. ConfigError where
  /// that cannot be had, UnsupportedError where it is not built in.
  void Listen(const std::string& address, std::function<std::vector<LaneState>()> lanes);
  void Close();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tercet::serve
