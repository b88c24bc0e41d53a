#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tercet/mpc/suite.h"
#include "tercet/net/memory_link.h"
#include "tercet/net/wrappers.h"
#include "tercet/nn/images.h"
#include "tercet/nn/integer_network.h"
#include "tercet/nn/network.h"
#include "tercet/nn/plan.h"
#include "tercet/report/run_report.h"

namespace tercet::app {

/// What one party brings to a run.
struct PartySettings {
  int id = 0;
  nn::NetworkSpec spec;
  mpc::SuiteChoice suite;
  mpc::Roles roles;
  std::size_t batch = 1;  ///< at most this many images a query
  net::LinkProfile link;
  const nn::IntegerNetwork* model = nullptr;  ///< at the model's owner only
  const nn::Images* images = nullptr;         ///< at the owner of the images only
  /// Once the parties agree, before the first query.
  std::function<void(const nn::Plan& plan, std::size_t images)> on_plan;
  /// After each batch.
  std::function<void(std::size_t done, std::size_t total)> on_progress;
};

/// What the parties must agree on, by name, for TcpOptions::agreement.
std::vector<std::pair<std::string, std::string>> Agreement(const PartySettings& settings);

/// One party's part of a run, over whatever links it is given: the model's owner tells the others
/// the public network, the images' owner how many images there are; all make the same plan and
/// compare it, share the model, and run batch after batch, offline and online apart.
///
///     PartySession session(settings, registry);
///     const auto report = session.Run([&] { return net::ConnectTcp(options); });
class PartySession {
 public:
  /// Throws InternalError unless model and images are given to their owners and to nobody else.
  PartySession(PartySettings settings, const mpc::Registry& registry);

  /// Once. Throws what `connect` throws, and NetworkError, AbortError, ProtocolError, ConfigError
  /// or UnsupportedError of the run; the other parties have been told then.
  report::PartyReport Run(const std::function<net::Links()>& connect);

  /// Stops a run from another thread: the peers are told `reason`, and Run throws NetworkError with
  /// it.
  void Stop(const std::string& reason) noexcept;

 private:
  net::Links Hold(net::Links links);
  void AbortAll(const std::string& reason) noexcept;
  report::PartyReport RunOver(net::Links links, double connect_s);

  PartySettings settings_;
  const mpc::Registry& registry_;
  std::mutex mutex_;
  std::array<std::shared_ptr<net::Link>, 3> held_;
  std::string stopped_;
};

}  // namespace tercet::app
