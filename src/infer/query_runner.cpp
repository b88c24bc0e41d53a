// SPDX-License-Identifier: Apache-2.0
#include "infer/query_runner.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "tercet/base/error.h"
#include "tercet/compile/announcement.h"
#include "tercet/infer/material.h"

namespace tercet::infer {
namespace {

using net::Phase;
using Query = SecureNetwork::Query;

// What parties tell each other about how far they are: setup messages without payload, which are
// not counted, since nothing depends on what they say.
constexpr std::uint32_t kFinishedTag = 0xfffe'1000;   // another query has been run
constexpr std::uint32_t kDeliveredTag = 0xfffe'1001;  // the material of all queries is here
constexpr std::uint32_t kEndTag = 0xfffe'1002;        // all queries have been run

MaterialFile* FileOf(const Schedule& schedule) {
  const auto* use = std::get_if<UseMaterial>(&schedule);
  return use != nullptr ? use->file : nullptr;
}

// Features x images, row-major, with the last image repeated up to `batch` images: material is for
// whole batches.
std::vector<std::int64_t> Padded(const std::vector<std::int64_t>& input, std::size_t count,
                                 std::size_t batch) {
  std::vector<std::int64_t> padded;
  padded.reserve(input.size() / count * batch);
  for (std::size_t row = 0; row < input.size(); row += count)
    for (std::size_t b = 0; b < batch; ++b) padded.push_back(input[row + std::min(b, count - 1)]);
  return padded;
}

}  // namespace

// Between the thread that prepares queries and the one that runs them.
class QueryRunner::Handover {
 public:
  void Put(Query query) {
    const std::lock_guard lock(mutex_);
    ready_.push_back(std::move(query));
    changed_.notify_all();
  }
  // The next query, or nothing when a thread has failed.
  std::optional<Query> Take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !ready_.empty() || error_; });
    if (error_) return std::nullopt;
    Query query = std::move(ready_.front());
    ready_.pop_front();
    return query;
  }
  void Finished() {
    const std::lock_guard lock(mutex_);
    ++finished_;
    changed_.notify_all();
  }
  // Until so many queries have been run; false when a thread has failed.
  bool AwaitFinished(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return finished_ >= count || error_; });
    return !error_;
  }
  // The first error is the cause; what comes after it follows from it.
  bool Fail(std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    if (error_) return false;
    error_ = std::move(error);
    changed_.notify_all();
    return true;
  }
  void ThrowIfFailed() {
    const std::lock_guard lock(mutex_);
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Query> ready_;
  std::size_t finished_ = 0;
  std::exception_ptr error_;
};

QueryRunner::QueryRunner(mpc::Party& party, SecureNetwork& secure, const Plan& plan,
                         const SessionSettings& settings,
                         std::function<void(const std::string& reason)> abort)
    : party_(party),
      secure_(secure),
      plan_(plan),
      settings_(settings),
      abort_(std::move(abort)),
      file_(FileOf(settings.schedule)),
      helper_acts_(plan.HelperActsOnline()) {
  for (const int peer : {party.Next(), party.Prev()})
    if (helper_acts_ || peer != plan.roles.helper) online_.push_back(peer);
}

std::size_t QueryRunner::ImagesOf(std::size_t query) const {
  return std::min(plan_.batch, images_ - query * plan_.batch);
}

QueryRunner::Outcome QueryRunner::Run(std::size_t images, std::size_t first) {
  images_ = images;
  ahead_ = QueriesAhead(settings_.schedule, Queries());
  if (file_ == nullptr) mpc::Meet(party_);  // all have their shares of the model
  const auto start = Clock::now();
  if (std::holds_alternative<InTurn>(settings_.schedule)) {
    RunInTurn();
    outcome_.wall_s = SecondsSince(start);
    mpc::Meet(party_);  // nobody leaves before all have everything
  } else {
    RunOverlapped(first);
    outcome_.wall_s = SecondsSince(start);
    PartCompany();
  }
  return std::move(outcome_);
}

void QueryRunner::RunInTurn() {
  for (std::size_t q = 0; q < Queries(); ++q) {
    if (q > 0) mpc::Meet(party_);
    const auto start = Clock::now();
    auto query = secure_.Prepare(ImagesOf(q));
    outcome_.offline_s += SecondsSince(start);
    mpc::Meet(party_);
    RunOne(std::move(query), q);
  }
}

void QueryRunner::RunOne(Query query, std::size_t number) {
  const std::size_t count = ImagesOf(number), batch = query.batch;
  std::vector<std::int64_t> input;
  if (settings_.images != nullptr) {
    input = nn::QuantiseInput(plan_.network.input, *settings_.images, number * plan_.batch, count);
    if (count < batch) input = Padded(input, count, batch);
  }
  const auto start = Clock::now();
  const auto logits = secure_.Run(std::move(query), settings_.images != nullptr ? &input : nullptr);
  outcome_.online_s += SecondsSince(start);
  outcome_.online_hops = std::max(outcome_.online_hops, secure_.OnlineHops());
  const auto wanted = std::min(logits.size(), count * plan_.network.Classes());
  outcome_.logits.insert(outcome_.logits.end(), logits.begin(),
                         logits.begin() + static_cast<std::ptrdiff_t>(wanted));
  if (settings_.on_progress) settings_.on_progress(number * plan_.batch + count, images_);
}

void QueryRunner::RunOverlapped(std::size_t first) {
  Handover handover;
  const auto guarded = [&](const std::function<void()>& body) {
    try {
      body();
    } catch (const std::exception& e) {
      if (handover.Fail(std::current_exception())) abort_(ErrorText(e));
    }
  };
  std::thread preparer([&] { guarded([&] { PrepareAll(handover, first); }); });
  guarded([&] {
    for (std::size_t q = 0; q < Queries(); ++q) {
      auto query = handover.Take();
      if (!query) return;
      RunOne(std::move(*query), q);
      handover.Finished();
      TellProgress(q + 1);
    }
  });
  preparer.join();
  handover.ThrowIfFailed();
}

// Of the queries that are prepared, one runs and at most `ahead_` wait.
void QueryRunner::PrepareAll(Handover& handover, std::size_t first) {
  for (std::size_t q = 0; q < Queries(); ++q) {
    if (q > ahead_) {
      if (!handover.AwaitFinished(q - ahead_)) return;
      AwaitProgress(q - ahead_);
    }
    const auto start = Clock::now();
    Query query;
    if (file_ != nullptr) {
      const Bytes bytes = file_->Take(first + q);
      mpc::Archive archive(bytes, fmt::format("{} query {}", file_->File().string(), first + q));
      secure_.Visit(archive, query);
    } else {
      query = secure_.Prepare(ImagesOf(q));
    }
    outcome_.offline_s += SecondsSince(start);
    handover.Put(std::move(query));
  }
  if (file_ == nullptr) Deliver();
}

// A helper without a part online has no use for its part of a query, but it would tell the input to
// whoever has it and a message of that query: it keeps nothing, and has no file.
QueryRunner::Outcome QueryRunner::MakeFile(const SecureNetwork::ModelShares& model,
                                           const std::string& session) {
  const auto& make = std::get<MakeMaterial>(settings_.schedule);
  MaterialHeader header;
  header.network = compile::AnnouncementToJson(
      compile::AnnouncementOf(plan_.network, settings_.spec, settings_.suite));
  header.suite = settings_.suite.Text();
  header.roles = plan_.roles;
  header.batch = plan_.batch;
  header.queries = make.queries;
  header.party = party_.Id();
  header.plan_digest = plan_.Digest();
  header.session = session;
  std::optional<MaterialWriter> writer;
  if (helper_acts_ || !IsHelper()) {
    writer.emplace(make.file, header);
    mpc::Archive archive;
    auto shares = model;
    archive(shares);
    writer->AddModel(archive.Written());
  }
  mpc::Meet(party_);
  const auto start = Clock::now();
  for (std::size_t q = 0; q < make.queries; ++q) {
    const auto begin = Clock::now();
    auto query = secure_.Prepare(plan_.batch);
    outcome_.offline_s += SecondsSince(begin);
    if (writer) {
      mpc::Archive archive;
      secure_.Visit(archive, query);
      writer->AddQuery(archive.Written());
    }
    if (settings_.on_progress)
      settings_.on_progress((q + 1) * plan_.batch, make.queries * plan_.batch);
  }
  // No file is finished before all are on the disks, and none is kept before all are finished.
  if (writer) writer->Flush();
  mpc::Meet(party_);
  if (writer) writer->Finish();
  outcome_.wall_s = SecondsSince(start);
  mpc::Meet(party_);
  if (writer) writer->Keep();
  return std::move(outcome_);
}

// --- Notices.

void QueryRunner::Tell(int peer, std::uint32_t notice) {
  party_.LinkTo(peer).Send({Phase::kSetup, notice, 0, {}});
}

void QueryRunner::Await(int peer, std::uint32_t notice, std::size_t times) {
  Heard& heard = heard_[static_cast<std::size_t>(peer)];
  const auto count = [&heard](std::uint32_t tag) -> std::size_t* {
    switch (tag) {
      case kFinishedTag:
        return &heard.finished;
      case kDeliveredTag:
        return &heard.delivered;
      case kEndTag:
        return &heard.ended;
      default:
        return nullptr;
    }
  };
  while (*count(notice) < times) {
    const auto message = party_.LinkTo(peer).Receive(Phase::kSetup);
    std::size_t* counted = count(message.tag);
    if (counted == nullptr || !message.payload.empty())
      throw ProtocolError(fmt::format(
          "party {} sent tag {:#x} with {} bytes where a notice of its progress was expected", peer,
          message.tag, message.payload.size()));
    if (++*counted > Queries())
      throw ProtocolError(
          fmt::format("party {} announced more than {} queries as done", peer, Queries()));
  }
}

// To those who wait for it: who prepares, as long as there is something to prepare, and afterwards
// a helper that has delivered everything, which hears that the queries go on.
void QueryRunner::TellProgress(std::size_t finished) {
  if (file_ != nullptr) return;
  if (IsHelper() && !helper_acts_) return;
  if (finished + ahead_ < Queries()) {
    for (const int peer : {party_.Next(), party_.Prev()}) Tell(peer, kFinishedTag);
  } else {
    TellIdleHelper(kFinishedTag);
  }
}

void QueryRunner::TellIdleHelper(std::uint32_t notice) {
  if (helper_acts_ || file_ != nullptr || std::holds_alternative<HelperLeaves>(settings_.schedule))
    return;
  try {
    Tell(plan_.roles.helper, notice);
  } catch (const NetworkError&) {
    // It has died since it delivered, which does not matter any more.
  }
}

void QueryRunner::AwaitProgress(std::size_t finished) {
  if (file_ != nullptr) return;  // each reads its own file
  for (const int peer : online_) Await(peer, kFinishedTag, finished);
}

// From here on a helper without a part in the online phase is not needed.
void QueryRunner::Deliver() {
  if (helper_acts_) return;
  if (IsHelper()) {
    for (const int peer : online_) Await(peer, kDeliveredTag, 1);
  } else {
    Tell(plan_.roles.helper, kDeliveredTag);
  }
  if (settings_.on_delivered) settings_.on_delivered(Queries());
}

// Nobody leaves before all who still have a part have everything.
void QueryRunner::PartCompany() {
  const bool helper_is_out = !helper_acts_;
  if (helper_is_out && IsHelper()) {
    if (std::holds_alternative<HelperLeaves>(settings_.schedule)) return;
  } else {
    for (const int peer : online_) Tell(peer, kEndTag);
    TellIdleHelper(kEndTag);
  }
  for (const int peer : online_) Await(peer, kEndTag, 1);
}

}  // namespace tercet::infer
