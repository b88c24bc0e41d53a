// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tercet/net/memory_link.h"
#include "tercet/service/package.h"
#include "tercet/service/query.h"

namespace tercet::service {

using Models = std::vector<std::shared_ptr<const ServedModel>>;

/// How a query ended at E1.
struct Outcome {
  enum class Kind : std::uint8_t {
    kAnswered,    ///< e1 and e2 are sealed to the client
    kRefused,     ///< by E2, `refusal` says why
    kUnavailable  ///< the lane broke, or is not there; nobody has an answer
  };
  Kind kind = Kind::kUnavailable;
  Refusal refusal = Refusal::kNone;
  Bytes e1, e2;
};

/// A query that waits at E1.
struct Waiting {
  QueryHead head;
  Bytes share;   ///< E1's, as Gate::Open gives it
  Bytes sealed;  ///< E2's part
  /// Called once, in any thread; does not throw and does not wait.
  std::function<void(Outcome)> done;
  std::chrono::steady_clock::time_point since{};
};

/// The queries that wait for one lane at E1. Thread safe.
class WaitingQueries {
 public:
  /// At most `max_images` images wait; so many sessions take batches.
  explicit WaitingQueries(std::size_t max_images, std::size_t sessions = 1)
      : max_images_(max_images), sessions_(sessions) {}
  /// False when it is full or closed; `waiting.done` is not called then.
  bool Put(Waiting waiting);
  /// Queries of one model, the one that has waited longest: at most `max_images` images, and as
  /// soon as there are as many, or the first has waited for `max_wait`. The more of several
  /// sessions have a batch, the longer it waits besides, up to the part of a batch's time that
  /// comes to each: the queries of that time would otherwise wait for the next session that is
  /// free. Empty after `patience` without any, or when closed. Of the model's images that wait
  /// then, at most max_images, it takes as many as `part` says, and one query at least.
  std::vector<Waiting> Take(
      std::size_t max_images, std::chrono::microseconds max_wait,
      std::chrono::milliseconds patience,
      const std::function<std::size_t(const crypto::Digest& model, std::size_t images)>& part =
          [](const crypto::Digest&, std::size_t images) { return images; });
  /// A batch that Take gave has ended; `seconds`: how long it took, 0 where it failed.
  void Ended(double seconds);
  /// Whoever waits is told that the lane is not available.
  void FailAll();
  /// No more are taken in, those that wait go on.
  void Close();
  bool Closed();

 private:
  std::chrono::steady_clock::time_point NextBatch(std::chrono::microseconds max_wait) const;

  const std::size_t max_images_, sessions_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Waiting> queries_;
  std::size_t images_ = 0;
  std::size_t busy_ = 0;                          // sessions with a batch
  double seconds_ = 0;                            // that a batch took lately
  std::chrono::steady_clock::time_point last_{};  // when the last one was taken
  bool closed_ = false;
};

struct LaneSettings {
  int id = 0;            ///< this server
  std::size_t lane = 0;  ///< whose helper is server lane mod 3
  /// Images a batch; the same at all servers. Batches are filled up to a power of two.
  std::size_t max_batch = 64;
  /// How long E1 waits for more queries. One that comes while a batch runs waits for it anyway.
  std::chrono::microseconds max_wait{500};
  /// Of each batch size that occurs, material for so many batches is made ahead, as far as `stock`
  /// allows.
  std::size_t ahead = 2;
  /// Bytes of material that wait to be used, about; the same at all servers. Of sizes that do not
  /// fit, material is made when a batch needs it.
  std::uint64_t stock = std::uint64_t{32} << 20;
  std::function<std::uint64_t()> now_ms = NowMs;  ///< this server's clock
};

/// What a lane has done, for whoever counts.
struct BatchDone {
  std::size_t queries = 0, images = 0, size = 0;
  double seconds = 0;
  double material_s = 0;       ///< of these, for which E1 waited for material
  std::vector<double> waited;  ///< of each query, seconds before the batch began
};

/// One session of the three servers for many queries, over whatever links it is given: keys, the
/// models that all three have, then batch after batch as E1 decides, until it is stopped or
/// anything fails. Nothing of it, keys or material, is used after that. E1 and E2 learn nothing but
/// what Gate tells of a query; the helper, the models and sizes of batches.
class LaneSession {
 public:
  /// `models` says which are here now; it is called in the thread of Run. `registry`, `gate` and
  /// `queries` outlive the session; only E1 uses `queries`.
  LaneSession(const LaneSettings& settings, std::function<Models()> models,
              const mpc::Registry& registry, const Gate& gate, WaitingQueries& queries);
  ~LaneSession();

  /// Called in the thread of Run when queries can come, and whenever models have changed, with the
  /// digests of those that all three servers have.
  std::function<void(const std::vector<crypto::Digest>&)> on_models;
  /// Called at E1 after each batch.
  std::function<void(const BatchDone&)> on_batch;

  /// Returns when it was stopped; throws what ended it otherwise. The batch that was under way is
  /// Unavailable then.
  void Run(net::Links links);
  /// From any thread: ends the session after the batch that is under way, at E1 where `queries` is
  /// closed after all that wait.
  void Stop(const std::string& reason) noexcept;
  /// From any thread: the models here have changed. The session goes on: it takes up those that are
  /// new at all three servers, and leaves those that are gone at one, between two batches.
  void Changed() noexcept { changed_ = true; }
  /// What is made and waits: batches, and about how many bytes.
  struct Stock {
    std::atomic<std::size_t> batches = 0;
    std::atomic<std::uint64_t> bytes = 0;
  };
  const Stock& Material() const { return material_; }

 private:
  using Key = std::pair<std::uint32_t, std::uint32_t>;  // model and size of a batch
  struct Model;
  class Preparer;
  void AgreeOnModels();
  void Lead();
  void Follow();
  void RunBatch(std::vector<Waiting> batch);
  mpc::AnyMatrix SendBatch(std::uint32_t m, std::uint32_t size, const std::vector<Waiting>& batch);
  std::vector<Outcome> ReceiveAnswers(const std::vector<Waiting>& batch,
                                      const mpc::AnyMatrix& result);
  bool Answer(const net::Message& command);
  std::optional<std::uint32_t> NumberOf(const crypto::Digest& model) const;
  std::vector<Key> KeysFor(std::uint32_t model, std::size_t images) const;
  Key KeyFor(std::uint32_t model, std::size_t images) const;
  std::size_t PartOf(const crypto::Digest& model, std::size_t images) const;
  std::vector<std::uint32_t> Sizes() const;
  void Tell(std::uint32_t tag, Key key);
  void OrderMaterial(Key key);
  void KeepStock();
  void Poll();
  void TakeState(const net::Link& from, const net::Message& state);
  net::Link& LinkTo(int party) const;
  Model* ModelOf(std::uint32_t m) const;
  bool Begin();
  bool End();
  void AbortAll(const std::string& reason) noexcept;

  const LaneSettings settings_;
  const std::function<Models()> offered_;
  const mpc::Registry& registry_;
  const Gate& gate_;
  WaitingQueries& queries_;
  const mpc::Roles roles_;
  std::mutex mutex_;  // of links_ as a whole, stopping_, busy_
  std::array<std::shared_ptr<net::Link>, 3> links_;
  std::string stopping_;
  bool busy_ = false;
  Stock material_;
  std::atomic<bool> changed_ = false;           // at E1 also at another server
  std::array<bool, 3> asked_{};                 // E1: who has not answered the last poll
  std::vector<std::shared_ptr<Model>> models_;  // null: gone
  std::unique_ptr<Preparer> preparer_;
  // At E1: what is ordered and not yet used, and images of batches of each size lately.
  std::map<Key, std::size_t> ordered_;
  std::map<Key, double> wanted_;
};

}  // namespace tercet::service
