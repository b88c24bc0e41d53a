// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "tercet/base/error.h"
#include "tercet/infer/memory.h"
#include "tercet/service/lane.h"

/// What the session of a lane has in common at all its servers; lane.cpp has their steps, and
/// lane_lead.cpp those of E1, which leads.
namespace tercet::service {

using mpc::AnyMatrix;
using net::Phase;

// Steps of a lane, all of the setup phase; apart from the tags of mpc.
inline constexpr std::uint32_t kModelsTag = 0xfffe'2000;   // which models a server has
inline constexpr std::uint32_t kPrepareTag = 0xfffe'2001;  // E1: make material
inline constexpr std::uint32_t kRunTag = 0xfffe'2002;      // E1: run a batch
inline constexpr std::uint32_t kPollTag = 0xfffe'2003;     // E1: have your models changed?
inline constexpr std::uint32_t kAnswerTag = 0xfffe'2004;   // E2: its part of a batch's answers
// E2, helper: whether its models have changed
inline constexpr std::uint32_t kStateTag = 0xfffe'2005;
inline constexpr std::uint32_t kAgreeTag = 0xfffe'2006;  // E1: say which models you have
inline constexpr std::uint32_t kDropTag = 0xfffe'2007;   // E1: throw material away
// That a batch's material takes beside its images'.
inline constexpr std::uint64_t kBatchBytes = 4096;

[[noreturn]] void Unexpected(const net::Link& from, const net::Message& message, const char* what);

// One query of a batch: its images are columns first, first + 1, ...
void PutColumns(ByteSpan packed, std::size_t first, std::size_t images, AnyMatrix& into);
Bytes TakeColumns(const AnyMatrix& from, std::size_t first, std::size_t images);

AnyMatrix Zeros(std::size_t rows, std::size_t cols, unsigned bits);

// A model in this session: keys of its own, since names of layers may be the same in two.
struct LaneSession::Model {
  Model(const ServedModel& served, const infer::Plan& its_plan, int id, net::Links links,
        const mpc::Registry& registry)
      : digest(served.header.digest),
        plan(its_plan),
        party(id, std::move(links), plan.layers.size()),
        secure(party, plan, registry) {
    secure.UseModel(served.shares, served.header.name);
    const auto material = infer::EstimateMaterial(plan);
    image_bytes = *std::max_element(material.begin(), material.end()) / plan.batch + 1;
  }
  std::size_t Features() const { return plan.network.input.shape.Size(); }

  crypto::Digest digest;
  infer::Plan plan;
  mpc::Party party;
  infer::SecureNetwork secure;
  std::uint64_t image_bytes = 0;  // of material, at the server that keeps most
};

// Makes material in a thread of its own, in the order in which E1 asks for it.
class LaneSession::Preparer {
 public:
  Preparer(Stock& made, std::uint64_t stock, std::function<void(const std::string&)> abort)
      : made_(made), stock_bytes_(stock), abort_(std::move(abort)), thread_([this] { Work(); }) {}
  ~Preparer() {
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      changed_.notify_all();
    }
    abort_("the lane ends");  // what waits for a message of a peer
    thread_.join();
  }
  void Order(Key key, std::shared_ptr<Model> model) {
    const std::lock_guard lock(mutex_);
    // What E1 has dropped or forgotten may not be made yet here.
    if (outstanding_ > 2 * stock_bytes_)
      throw ProtocolError(
          fmt::format("material of {} bytes is ordered and not used", outstanding_));
    outstanding_ += BytesOf(key, *model);
    ++open_[key];
    orders_.push_back({key, std::move(model)});
    changed_.notify_all();
  }
  static std::uint64_t BytesOf(Key key, const Model& model) {
    return kBatchBytes + model.image_bytes * key.second;
  }
  // Bytes that are ordered and not taken, about.
  std::uint64_t Outstanding() {
    const std::lock_guard lock(mutex_);
    return outstanding_;
  }
  bool Has(Key key) {
    const std::lock_guard lock(mutex_);
    return stock_.contains(key);
  }
  // Of a model that has gone. What is ordered is made all the same: the others make it too.
  void Forget(std::uint32_t model) {
    const std::lock_guard lock(mutex_);
    gone_.insert(model);
    for (auto made = stock_.begin(); made != stock_.end();) {
      const auto next = std::next(made);
      if (made->first.first == model) Remove(made);
      made = next;
    }
  }
  // Waits while it is being made. E1 says what is taken, so what nobody has ordered is its error.
  infer::SecureNetwork::Query Take(Key key) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stock_.contains(key) || error_ || open_[key] == 0; });
    if (error_) std::rethrow_exception(error_);
    if (!stock_.contains(key))
      throw ProtocolError(
          fmt::format("material of model {} for batches of {} is to be used or dropped, and none "
                      "is ordered",
                      key.first, key.second));
    return Remove(stock_.lower_bound(key));
  }
  // What ended it, where it has ended by itself.
  std::exception_ptr Error() {
    const std::lock_guard lock(mutex_);
    return error_;
  }

 private:
  struct Ordered {
    Key key;
    std::shared_ptr<Model> model;
  };
  struct Made {
    infer::SecureNetwork::Query query;
    std::uint64_t bytes = 0;
  };
  using Materials = std::multimap<Key, Made>;  // of equal ones the first is the oldest
  infer::SecureNetwork::Query Remove(Materials::iterator made) {
    auto query = std::move(made->second.query);
    outstanding_ -= made->second.bytes;
    made_.bytes -= made->second.bytes;
    --made_.batches;
    stock_.erase(made);
    return query;
  }
  void Work() {
    try {
      while (true) {
        Ordered order;
        {
          std::unique_lock lock(mutex_);
          changed_.wait(lock, [&] { return !orders_.empty() || ended_; });
          if (ended_) return;
          order = std::move(orders_.front());
          orders_.pop_front();
        }
        auto query = order.model->secure.Prepare(order.key.second);
        const std::lock_guard lock(mutex_);
        const std::uint64_t bytes = BytesOf(order.key, *order.model);
        --open_[order.key];
        if (gone_.contains(order.key.first)) {
          outstanding_ -= bytes;
          changed_.notify_all();
          continue;
        }
        stock_.emplace(order.key, Made{std::move(query), bytes});
        made_.bytes += bytes;
        ++made_.batches;
        changed_.notify_all();
      }
    } catch (const std::exception& e) {
      {
        const std::lock_guard lock(mutex_);
        error_ = std::current_exception();
        changed_.notify_all();
      }
      abort_(ErrorText(e));
    }
  }

  Stock& made_;  // what is in stock, for whoever counts
  const std::uint64_t stock_bytes_;
  std::function<void(const std::string&)> abort_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Ordered> orders_;
  std::map<Key, std::size_t> open_;  // orders whose material is not made yet
  std::uint64_t outstanding_ = 0;    // bytes, of orders and stock
  Materials stock_;
  std::set<std::uint32_t> gone_;
  std::exception_ptr error_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace tercet::service
