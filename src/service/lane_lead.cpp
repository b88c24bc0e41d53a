// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <exception>
#include <optional>
#include <utility>

#include "base/clock.h"
#include "service/lane_session.h"
#include "service/words.h"

// What E1 does, which leads a lane: queries wait, become batches, and have material in stock.
namespace tercet::service {
namespace {

constexpr double kFading = 0.95;  // by which a size that was wanted counts less with each batch
// A batch may use material for so many times its size, rather than wait for its own.
constexpr std::uint32_t kMostPadding = 4;
// Of the images that wait a batch may be such a part, rather than wait for material for all.
constexpr std::size_t kLeastPart = 4;
// How often E1 asks: whoever is gone is noticed then.
constexpr std::chrono::milliseconds kPoll{200};

Bytes Copy(ByteSpan bytes) { return {bytes.begin(), bytes.end()}; }

}  // namespace

// --- Queries that wait.

bool WaitingQueries::Put(Waiting waiting) {
  const std::lock_guard lock(mutex_);
  if (closed_ || images_ + waiting.head.images > max_images_) return false;
  images_ += waiting.head.images;
  waiting.since = Clock::now();
  queries_.push_back(std::move(waiting));
  changed_.notify_all();
  return true;
}

std::vector<Waiting> WaitingQueries::Take(
    std::size_t max_images, std::chrono::microseconds max_wait, std::chrono::milliseconds patience,
    const std::function<std::size_t(const crypto::Digest&, std::size_t)>& part) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [&] { return !queries_.empty() || closed_; });
  if (queries_.empty()) return {};
  const auto waiting = [&] {
    std::size_t images = 0;
    for (const auto& query : queries_)
      if (query.head.model == queries_.front().head.model) images += query.head.images;
    return images;
  };
  // Another session may take them meanwhile.
  while (!queries_.empty() && !closed_ && waiting() < max_images) {
    const auto next = NextBatch(max_wait);
    if (Clock::now() >= next) break;
    changed_.wait_until(lock, next);
  }
  if (queries_.empty()) return {};
  const auto model = queries_.front().head.model;
  const std::size_t most = std::max<std::size_t>(part(model, std::min(waiting(), max_images)),
                                                 queries_.front().head.images);
  std::vector<Waiting> batch;
  std::size_t images = 0;
  for (auto query = queries_.begin(); query != queries_.end();) {
    const std::size_t more = query->head.images;
    if (query->head.model != model || images + more > most) {
      ++query;
      continue;
    }
    images += more;
    batch.push_back(std::move(*query));
    query = queries_.erase(query);
  }
  images_ -= images;
  ++busy_;
  last_ = Clock::now();
  return batch;
}

// When the queries that wait are to be a batch, full or not.
Clock::time_point WaitingQueries::NextBatch(std::chrono::microseconds max_wait) const {
  const auto first = queries_.front().since + max_wait;
  if (sessions_ == 1) return first;
  const double busy = static_cast<double>(busy_) / static_cast<double>(sessions_);
  const std::chrono::duration<double> apart(seconds_ / static_cast<double>(sessions_) * busy *
                                            busy);
  return std::max(first, last_ + std::chrono::duration_cast<Clock::duration>(apart));
}

void WaitingQueries::Ended(double seconds) {
  constexpr double kWeight = 0.2;  // of the last one
  const std::lock_guard lock(mutex_);
  --busy_;
  if (seconds == 0) return;
  seconds_ = seconds_ == 0 ? seconds : (1 - kWeight) * seconds_ + kWeight * seconds;
}

void WaitingQueries::FailAll() {
  std::deque<Waiting> failed;
  {
    const std::lock_guard lock(mutex_);
    failed.swap(queries_);
    images_ = 0;
  }
  for (auto& query : failed) query.done({});
}

void WaitingQueries::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  changed_.notify_all();
}

bool WaitingQueries::Closed() {
  const std::lock_guard lock(mutex_);
  return closed_;
}

// --- Batches and their material.

void LaneSession::Tell(std::uint32_t tag, Key key) {
  Writer writer;
  writer.Word32(key.first);
  writer.Word32(key.second);
  const Bytes payload = writer.Take();
  for (const auto& link : links_)
    if (link) link->Send({Phase::kSetup, tag, 0, payload});
}

void LaneSession::OrderMaterial(Key key) {
  Tell(kPrepareTag, key);
  preparer_->Order(key, models_[key.first]);
  ++ordered_[key];
}

// Of batches: powers of two, and the largest.
std::vector<std::uint32_t> LaneSession::Sizes() const {
  std::vector<std::uint32_t> sizes;
  for (std::size_t size = 1; size < settings_.max_batch; size *= 2)
    sizes.push_back(static_cast<std::uint32_t>(size));
  sizes.push_back(static_cast<std::uint32_t>(settings_.max_batch));
  return sizes;
}

std::optional<std::uint32_t> LaneSession::NumberOf(const crypto::Digest& model) const {
  for (std::uint32_t m = 0; m < models_.size(); ++m)
    if (models_[m] && models_[m]->digest == model) return m;
  return std::nullopt;
}

// Whose material a batch of so many images may use: that of its own size first.
std::vector<LaneSession::Key> LaneSession::KeysFor(std::uint32_t model, std::size_t images) const {
  std::vector<Key> keys;
  for (const std::uint32_t size : Sizes())
    if (size >= images && (keys.empty() || size <= kMostPadding * keys.front().second))
      keys.emplace_back(model, size);
  return keys;
}

// Whose it uses: the smallest that is in stock, or that is being made.
LaneSession::Key LaneSession::KeyFor(std::uint32_t model, std::size_t images) const {
  const auto keys = KeysFor(model, images);
  for (const Key& key : keys)
    if (preparer_->Has(key)) return key;
  for (const Key& key : keys)
    if (const auto ordered = ordered_.find(key); ordered != ordered_.end() && ordered->second > 0)
      return key;
  return keys.front();
}

// How many of the images that wait are to be a batch: where material for all of them had to be
// made, but a part of them can have what is in stock, these alone.
std::size_t LaneSession::PartOf(const crypto::Digest& model, std::size_t images) const {
  const auto m = NumberOf(model);
  if (!m) return images;
  for (const Key& key : KeysFor(*m, images))
    if (preparer_->Has(key)) return images;
  for (std::size_t part = std::bit_floor(images - 1); part > 0 && kLeastPart * part >= images;
       part /= 2)
    if (preparer_->Has({*m, static_cast<std::uint32_t>(part)})) return part;
  return images;
}

// Orders what is to be in stock, and throws away what is to make room for it. Sizes that many
// images need come first, and those that can stand in for such.
void LaneSession::KeepStock() {
  std::vector<std::pair<double, Key>> ranked;
  for (std::uint32_t m = 0; m < models_.size(); ++m) {
    double worth = 0;
    for (const std::uint32_t size : Sizes()) {
      worth /= 2;
      const auto wanted = wanted_.find({m, size});
      if (wanted == wanted_.end()) continue;
      worth += wanted->second;
      ranked.push_back({worth, wanted->first});
    }
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  const auto bytes = [this](Key key) { return Preparer::BytesOf(key, *models_[key.first]); };
  std::map<Key, std::size_t> target;
  std::uint64_t left = settings_.stock;
  for (std::size_t copy = 0; copy < settings_.ahead; ++copy)
    for (const auto& [worth, key] : ranked)
      if (bytes(key) <= left) {
        left -= bytes(key);
        ++target[key];
      }
  for (auto& [key, count] : ordered_)
    // What is not made yet goes another time.
    for (; count > target[key] && preparer_->Has(key); --count) {
      Tell(kDropTag, key);
      preparer_->Take(key);
    }
  for (const auto& [worth, key] : ranked)
    while (ordered_[key] < target[key] && preparer_->Outstanding() + bytes(key) <= settings_.stock)
      OrderMaterial(key);
}

// Notes what E2 or the helper says about its models.
void LaneSession::TakeState(const net::Link& from, const net::Message& state) {
  if (state.tag != kStateTag || state.payload.size() != 1 ||
      !asked_[static_cast<std::size_t>(from.Peer())])
    Unexpected(from, state, "whether its models have changed");
  asked_[static_cast<std::size_t>(from.Peer())] = false;
  if (state.payload[0] != 0) changed_ = true;
}

// The answers to a poll are taken when they are needed, so that nobody waits for them.
void LaneSession::Poll() {
  for (std::size_t p = 0; p < 3; ++p)
    if (asked_[p]) TakeState(*links_[p], links_[p]->Receive(Phase::kSetup));
  const bool agree = changed_;
  for (std::size_t p = 0; p < 3; ++p) {
    if (!links_[p]) continue;
    links_[p]->Send({Phase::kSetup, agree ? kAgreeTag : kPollTag, 0, {}});
    asked_[p] = !agree;
  }
  if (agree) AgreeOnModels();
}

void LaneSession::Lead() {
  auto poll = Clock::now();
  const auto stopping = [this] {
    const std::lock_guard lock(mutex_);
    return !stopping_.empty();
  };
  while (!stopping() || queries_.Closed()) {
    auto batch = queries_.Take(
        settings_.max_batch, settings_.max_wait, kPoll,
        [this](const crypto::Digest& model, std::size_t images) { return PartOf(model, images); });
    if (!batch.empty()) {
      RunBatch(std::move(batch));
    } else {
      if (stopping()) return;
      if (const auto error = preparer_->Error()) std::rethrow_exception(error);
    }
    if (Clock::now() < poll) continue;
    Poll();
    poll = Clock::now() + kPoll;
  }
}

// Gives E2 and the helper their parts of a batch; returns E1's share of its images, in columns.
AnyMatrix LaneSession::SendBatch(std::uint32_t m, std::uint32_t size,
                                 const std::vector<Waiting>& batch) {
  const Model& model = *models_[m];
  Writer for_e2, for_helper;
  for (Writer* writer : {&for_e2, &for_helper}) {
    writer->Word32(m);
    writer->Word32(size);
  }
  AnyMatrix share = Zeros(model.Features(), size, model.plan.input_bits);
  std::size_t column = 0;
  for (const auto& query : batch) {
    for_e2.Raw(HeadBytes(query.head));
    for_e2.Word32(static_cast<std::uint32_t>(query.sealed.size()));
    for_e2.Raw(query.sealed);
    PutColumns(query.share, column, query.head.images, share);
    column += query.head.images;
  }
  LinkTo(roles_.Evaluator2()).Send({Phase::kSetup, kRunTag, 0, for_e2.Take()});
  LinkTo(roles_.helper).Send({Phase::kSetup, kRunTag, 0, for_helper.Take()});
  return share;
}

// What becomes of each query: E2's part of its answer or E2's refusal, and E1's part of `result`.
std::vector<Outcome> LaneSession::ReceiveAnswers(const std::vector<Waiting>& batch,
                                                 const AnyMatrix& result) {
  auto& e2 = LinkTo(roles_.Evaluator2());
  auto answers = e2.Receive(Phase::kSetup);
  if (answers.tag == kStateTag) {
    TakeState(e2, answers);
    answers = e2.Receive(Phase::kSetup);
  }
  if (answers.tag != kAnswerTag) Unexpected(e2, answers, "its part of a batch's answers");
  Reader reader(answers.payload);
  std::vector<Outcome> outcomes;
  outcomes.reserve(batch.size());
  std::size_t column = 0;
  for (const auto& query : batch) {
    const auto& head = query.head;
    const auto refusal = reader.Raw(1);
    const auto length = reader.Word32();
    const auto sealed = length ? reader.Raw(*length) : std::nullopt;
    if (!refusal || !sealed || refusal->front() > static_cast<std::uint8_t>(Refusal::kLength))
      Unexpected(e2, answers, "its part of a batch's answers");
    if (refusal->front() != 0) {
      outcomes.push_back({Outcome::Kind::kRefused, static_cast<Refusal>(refusal->front()), {}, {}});
    } else {
      outcomes.push_back({Outcome::Kind::kAnswered, Refusal::kNone,
                          crypto::Seal(head.reply, AnswerContext(head, settings_.id),
                                       TakeColumns(result, column, head.images)),
                          Copy(*sealed)});
    }
    column += head.images;
  }
  if (!reader.AtEnd()) Unexpected(e2, answers, "its part of a batch's answers");
  return outcomes;
}

void LaneSession::RunBatch(std::vector<Waiting> batch) {
  const auto start = Clock::now();
  // Whatever happens, all are told.
  struct Tell {
    WaitingQueries& queries;
    std::vector<Waiting>& batch;
    std::vector<Outcome> outcomes;
    double seconds = 0;
    ~Tell() {
      queries.Ended(seconds);
      for (std::size_t q = 0; q < batch.size(); ++q) batch[q].done(std::move(outcomes[q]));
    }
  } tell{queries_, batch, std::vector<Outcome>(batch.size())};
  const auto number = NumberOf(batch.front().head.model);
  if (!number) return;  // gone since the query came
  const std::uint32_t m = *number;
  std::size_t images = 0;
  for (const auto& query : batch) images += query.head.images;
  for (auto& [key, wanted] : wanted_) wanted *= kFading;
  const auto own = std::min<std::size_t>(std::bit_ceil(images), settings_.max_batch);
  wanted_[{m, static_cast<std::uint32_t>(own)}] += static_cast<double>(images);
  const Key key = KeyFor(m, images);
  if (ordered_[key] == 0) OrderMaterial(key);
  AnyMatrix share = SendBatch(m, key.second, batch);
  const auto ready = Clock::now();
  auto material = preparer_->Take(key);
  const double material_s = SecondsSince(ready);
  --ordered_[key];
  KeepStock();
  const AnyMatrix result = models_[m]->secure.RunForClients(std::move(material), std::move(share));
  tell.outcomes = ReceiveAnswers(batch, result);
  tell.seconds = SecondsSince(start);
  if (!on_batch) return;
  BatchDone done{batch.size(), images, key.second, tell.seconds, material_s, {}};
  done.waited.reserve(batch.size());
  for (const auto& query : batch) done.waited.push_back(Seconds(start - query.since));
  on_batch(done);
}

}  // namespace tercet::service
