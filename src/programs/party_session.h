#pragma once

#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tercet/files/images.h"
#include "tercet/infer/material.h"
#include "tercet/infer/plan.h"
#include "tercet/mpc/suite.h"
#include "tercet/net/memory_link.h"
#include "tercet/net/wrappers.h"
#include "tercet/nn/integer_network.h"
#include "tercet/nn/network.h"
#include "tercet/report/run_report.h"

namespace tercet::programs {

/// What one party brings to a run.
struct PartySettings {
  int id = 0;
  nn::NetworkSpec spec;
  mpc::SuiteChoice suite;
  mpc::Roles roles;
  std::size_t batch = 1;  ///< at most this many images a query
  net::LinkProfile link;
  const nn::IntegerNetwork* model = nullptr;  ///< at the model's owner only; not with `material`
  const files::Images* images =
      nullptr;  ///< at the owner of the images only; not with `material_out`
  /// How many labels the receiver has, if any: as many images are expected before any is queried.
  std::optional<std::size_t> labels;
  /// For how many queries material is made beside the one that runs. 0: each query's offline and
  /// online phase in turn, with a meeting before each, so that they are timed apart.
  std::size_t ahead = 0;
  /// Material is made for all queries as fast as it goes, and the helper's session ends when the
  /// others have it. Refused where the helper has a part in the online phase.
  bool dealer_leaves = false;
  /// The helper's role goes round within each batch (rotation.h). Not with `ahead`, `dealer_leaves`
  /// or material in files.
  bool rotate_dealer = false;
  std::chrono::milliseconds stall_timeout{600'000};  ///< TcpOptions::stall_timeout
  /// Where not empty: makes material for `queries` queries, writes it there (but at a helper
  /// without a part in the online phase), and runs none.
  std::filesystem::path material_out;
  std::size_t queries = 0;
  /// Material made before, for the same suite, roles and batch. Where the helper has no part in the
  /// online phase, it is not there: links[helper] is null.
  infer::MaterialFile* material = nullptr;
  /// The material of all queries is here, and the helper, without a part online, is not needed any
  /// more.
  std::function<void(std::size_t queries)> on_delivered;
  /// Once the parties agree, before the first query; with rotate_dealer once for each group, with
  /// its plan and the images of all groups.
  std::function<void(const infer::Plan& plan, std::size_t images)> on_plan;
  /// What probably goes wrong, or soon will.
  std::function<void(const std::string& text)> on_warning;
  /// After each batch.
  std::function<void(std::size_t done, std::size_t total)> on_progress;
};

/// What the parties must agree on, by name, for TcpOptions::agreement.
std::vector<std::pair<std::string, std::string>> Agreement(const PartySettings& settings);

/// Throws ConfigError (place: the file) that names what differs, unless settings.material was made
/// for this party, network, suite, roles and batch.
void CheckMaterial(const PartySettings& settings);

/// One party's part of a run, over whatever links it is given: the model's owner tells the others
/// its model's widths (compile::Announcement), which each applies to its own architecture, the
/// images' owner how many images there are; all make the same plan and compare it, share the model,
/// and run batch after batch. With material from a file, network and shares of the model are in it,
/// and the parties compare which session made it and which query is the next that none of them has
/// used. With rotate_dealer the groups share the model each for itself, and the report's bytes are
/// sums over them, its hops and times the largest.
///
///     PartySession session(settings, registry);
///     const auto report = session.Run([&] { return net::ConnectTcp(options); });
class PartySession {
 public:
  /// Throws InternalError unless model and images are given to their owners and to nobody else, and
  /// where settings exclude each other.
  PartySession(PartySettings settings, const mpc::Registry& registry);

  /// Once. Throws what `connect` throws, and NetworkError, AbortError or ProtocolError of the run;
  /// ConfigError or UnsupportedError only for what this party brought itself. The other parties
  /// have been told then.
  report::PartyReport Run(const std::function<net::Links()>& connect);

  /// Stops a run from another thread: the peers are told `reason`, and Run throws NetworkError with
  /// it.
  void Stop(const std::string& reason) noexcept;
  /// The reason of Stop, once it was called; for TcpOptions::interrupted.
  std::optional<std::string> Stopped();

 private:
  struct Task;
  Task Agree(net::Links& links) const;
  net::Links Hold(net::Links links);
  void AbortAll(const std::string& reason) noexcept;
  void CheckMemory(const Task& task) const;
  report::PartyReport RunOver(net::Links links, double connect_s);
  report::PartyReport RunRotated(net::Links links, const Task& task, double connect_s,
                                 std::chrono::steady_clock::time_point start);

  PartySettings settings_;
  const mpc::Registry& registry_;
  std::mutex mutex_;
  std::array<std::shared_ptr<net::Link>, 3> held_;
  std::string stopped_;
};

}  // namespace tercet::programs
