// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tercet/files/images.h"
#include "tercet/infer/party_report.h"
#include "tercet/infer/plan.h"
#include "tercet/infer/schedule.h"
#include "tercet/infer/shard.h"
#include "tercet/mpc/suite.h"
#include "tercet/net/memory_link.h"
#include "tercet/net/wrappers.h"
#include "tercet/nn/integer_network.h"
#include "tercet/nn/network.h"

/// What one party does from connecting to the last result.
namespace tercet::infer {

inline constexpr std::size_t kMaxImages = 1'000'000'000;  ///< in a session

/// What one party brings to a session. All but `id`, `model`, `images`, the files in the schedule
/// and the callbacks is the same at all parties, which compare it (Agreement) before anything is
/// shared.
struct SessionSettings {
  /// This party's number, 0, 1 or 2.
  int id = 0;
  /// The architecture, public. Every party reads its own copy; the digests are compared.
  nn::NetworkSpec spec;
  /// The suite of each layer that names none itself. `auto` leaves the choice among private suites
  /// to the model's owner, whose network names them.
  mpc::SuiteChoice suite;
  /// The protocol of the linear layers; empty where the roles decide.
  std::string linear;
  /// Who deals, who owns what, and who receives the result.
  mpc::Roles roles;
  /// Images a query, at most; 1 to kMaxBatch.
  std::size_t batch = 1;
  /// How messages are delayed, for experiments; as they are by default.
  net::LinkProfile link;
  /// At the model's owner, the weights; null elsewhere, and with UseMaterial. Outlives the session.
  /// The others get shares of it, and learn widths, shifts and suites.
  const nn::IntegerNetwork* model = nullptr;
  /// At the owner of the images, the images; null elsewhere, and with MakeMaterial. Outlives the
  /// session. The others get shares of them, and learn how many there are.
  const files::Images* images = nullptr;
  /// When material is made, and when queries are run.
  Schedule schedule = InTurn{};
  /// How many queries are under way at once, one a step behind the other, 1 to kMaxInFlight: while
  /// one waits for the network the next computes. Each has keys of its own over its part of the
  /// links, and takes what follows from its number, so results and bytes are the same.
  std::size_t in_flight = 1;
  /// Where the images are one shard of a job: which, and of what job. Not with material in files.
  std::optional<ShardOfJob> shard;
  /// As TcpOptions::stall_timeout, for what waits within this process.
  std::chrono::milliseconds stall_timeout{600'000};

  /// Called in the thread of Session::Run when the owner of the images has said how many there are
  /// in all shards, before the parties agree. What it throws ends the session.
  std::function<void(std::size_t images)> on_images;
  /// Called in the thread of Session::Run once the parties agree, before anything is shared; with
  /// HelperRotates once for each group, with its plan and the images of all groups.
  std::function<void(const Plan& plan, std::size_t images)> on_plan;
  /// Called with what probably goes wrong, or soon will.
  std::function<void(const std::string& text)> on_warning;
  /// Called after each query, by one thread at a time, maybe another than Run's.
  std::function<void(std::size_t done, std::size_t total)> on_progress;
  /// Called when the material of all queries is here and the helper, without a part online, is not
  /// needed any more; maybe in another thread than Run's.
  std::function<void(std::size_t queries)> on_delivered;
};

/// What the parties must agree on, by name, for TcpOptions::agreement: peers learn no more of the
/// settings than this.
std::vector<std::pair<std::string, std::string>> Agreement(const SessionSettings& settings);

/// Throws ConfigError (place: the file) that names what differs, unless `material` was made for
/// this party, network, suite, roles and batch.
void CheckMaterial(const MaterialFile& material, const SessionSettings& settings);

/// One party's part of a run, over whatever links it is given. The model's owner tells the others
/// its model's widths (compile::Announcement), which each applies to its own architecture, and the
/// images' owner how many images there are. All make the same plan and compare it, share the model,
/// and run query after query. With UseMaterial, network and shares of the model are in the file,
/// and the parties compare which session made it and which query is the next that none of them has
/// used. With HelperRotates the groups share the model each for itself. Of groups and of queries
/// under way at once the report's bytes are sums, hops and layers' times the largest, and the times
/// of the phases are those in which at least one query was in the phase. Of one shard of a job
/// (ShardOfJob) the parties tell each other also the tags of model and images; where they resume
/// and all three have its results, nothing else happens and the report's presence is kWasDone.
///
/// The receiver learns the logits of all images, or their classes where the model gives no more.
/// Nobody learns anything else than what is public: the plan, the number of images, the times,
/// tags.
///
///     Session session(settings, registry);
///     const auto report = session.Run([&] { return net::ConnectTcp(options); });
class Session {
 public:
  /// `registry` outlives the session. Throws ConfigError for roles that are no parties, and
  /// InternalError unless model and images are given to their owners and to nobody else.
  Session(SessionSettings settings, const mpc::Registry& registry);

  /// Runs it all, once, and returns what this party has measured and, at the receiver, computed.
  /// Throws what `connect` throws; NetworkError, AbortError or ProtocolError where links or peers
  /// fail; Error without memory; ConfigError or UnsupportedError only for what this party brought
  /// itself. The other parties have been told then.
  PartyReport Run(const std::function<net::Links()>& connect);

  /// Stops a run from another thread: the peers are told `reason`, and Run throws NetworkError with
  /// it.
  void Stop(const std::string& reason) noexcept;
  /// The reason of Stop, once it was called; for TcpOptions::interrupted. Thread safe.
  std::optional<std::string> Stopped();

 private:
  struct Task;
  Task Agree(net::Links& links) const;
  net::Links Hold(net::Links links);
  void AbortAll(const std::string& reason) noexcept;
  void CheckMemory(const Task& task) const;
  PartyReport RunOver(net::Links links, double connect_s);

  SessionSettings settings_;
  const mpc::Registry& registry_;
  std::mutex mutex_;
  std::array<std::shared_ptr<net::Link>, 3> held_;
  std::string stopped_;
};

}  // namespace tercet::infer
