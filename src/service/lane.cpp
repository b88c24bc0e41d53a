// SPDX-License-Identifier: Apache-2.0
#include "tercet/service/lane.h"

#include <algorithm>
#include <bit>
#include <exception>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "service/words.h"
#include "tercet/base/error.h"
#include "tercet/infer/memory.h"
#include "tercet/net/wrappers.h"
#include "tercet/ring/pack.h"

namespace tercet::service {
namespace {

using mpc::AnyMatrix;
using net::Phase;

// Steps of a lane, all of the setup phase; apart from the tags of mpc.
constexpr std::uint32_t kModelsTag = 0xfffe'2000;   // which models a server has
constexpr std::uint32_t kPrepareTag = 0xfffe'2001;  // E1: make material
constexpr std::uint32_t kRunTag = 0xfffe'2002;      // E1: run a batch
constexpr std::uint32_t kPollTag = 0xfffe'2003;     // E1: have your models changed?
constexpr std::uint32_t kAnswerTag = 0xfffe'2004;   // E2: its part of a batch's answers
constexpr std::uint32_t kStateTag = 0xfffe'2005;    // E2, helper: whether its models have changed
constexpr std::uint32_t kAgreeTag = 0xfffe'2006;    // E1: say which models you have
constexpr std::uint32_t kDropTag = 0xfffe'2007;     // E1: throw material away
constexpr std::size_t kMaxModels = 1000;
constexpr std::uint64_t kBatchBytes = 4096;  // that a batch's material takes beside its images'
constexpr double kFading = 0.95;  // by which a size that was wanted counts less with each batch
// A batch may use material for so many times its size, rather than wait for its own.
constexpr std::uint32_t kMostPadding = 4;
// Of the images that wait a batch may be such a part, rather than wait for material for all.
constexpr std::size_t kLeastPart = 4;
// How often E1 asks: whoever is gone is noticed then.
constexpr std::chrono::milliseconds kPoll{200};

Bytes Copy(ByteSpan bytes) { return {bytes.begin(), bytes.end()}; }

[[noreturn]] void Unexpected(const net::Link& from, const net::Message& message, const char* what) {
  throw ProtocolError(fmt::format("server {} sent tag {:#x} with {} bytes where {} was expected",
                                  from.Peer(), message.tag, message.payload.size(), what));
}

// One query of a batch: its images are columns first, first + 1, ...
void PutColumns(ByteSpan packed, std::size_t first, std::size_t images, AnyMatrix& into) {
  ring::DispatchWord(into.Bits(), [&]<ring::Word W>(W) {
    auto& matrix = into.As<W>();
    Buffer<W> values(matrix.shape()[0] * images);
    ring::Unpack(packed, into.Bits(), std::span<W>(values.data(), values.size()));
    for (std::size_t image = 0, v = 0; image < images; ++image)
      for (std::size_t row = 0; row < matrix.shape()[0]; ++row)
        matrix(row, first + image) = values[v++];
  });
}

Bytes TakeColumns(const AnyMatrix& from, std::size_t first, std::size_t images) {
  return ring::DispatchWord(from.Bits(), [&]<ring::Word W>(W) {
    const auto& matrix = from.As<W>();
    Buffer<W> values;
    values.reserve(matrix.shape()[0] * images);
    for (std::size_t image = 0; image < images; ++image)
      for (std::size_t row = 0; row < matrix.shape()[0]; ++row)
        values.push_back(matrix(row, first + image));
    Bytes packed(ring::PackedBytes(values.size(), from.Bits()));
    ring::Pack(std::span<const W>(values.data(), values.size()), from.Bits(),
               std::span<std::uint8_t>(packed));
    return packed;
  });
}

AnyMatrix Zeros(std::size_t rows, std::size_t cols, unsigned bits) {
  return ring::DispatchWord(bits, [&]<ring::Word W>(W) {
    return AnyMatrix(ring::Matrix<W>(xt::zeros<W>({rows, cols})), bits);
  });
}

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

// --- A model in this session: keys of its own, since names of layers may be the same in two.

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

// --- The session.

LaneSession::LaneSession(const LaneSettings& settings, std::function<Models()> models,
                         const mpc::Registry& registry, const Gate& gate, WaitingQueries& queries)
    : settings_(settings),
      offered_(std::move(models)),
      registry_(registry),
      gate_(gate),
      queries_(queries),
      roles_(RolesOf(settings.lane)) {}

LaneSession::~LaneSession() = default;

void LaneSession::AbortAll(const std::string& reason) noexcept {
  std::array<std::shared_ptr<net::Link>, 3> links;
  {
    const std::lock_guard lock(mutex_);
    links = links_;
  }
  for (const auto& link : links)
    if (link) link->Abort(reason);
}

void LaneSession::Stop(const std::string& reason) noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = reason;
    // E1 sees it within kPoll, and after what waits; the others may wait for E1 as long as it
    // likes.
    if (busy_ || settings_.id == roles_.Evaluator1()) return;
  }
  AbortAll(reason);
}

// Around a batch, which a stop does not cut short. False when there is to be none.
bool LaneSession::Begin() {
  const std::lock_guard lock(mutex_);
  busy_ = stopping_.empty();
  return busy_;
}
bool LaneSession::End() {
  const std::lock_guard lock(mutex_);
  busy_ = false;
  return stopping_.empty();
}

void LaneSession::Run(net::Links links) {
  {
    const std::lock_guard lock(mutex_);
    for (std::size_t p = 0; p < 3; ++p)
      if (links[p]) links_[p] = std::move(links[p]);
  }
  try {
    preparer_ = std::make_unique<Preparer>(material_, settings_.stock,
                                           [this](const std::string& reason) { AbortAll(reason); });
    AgreeOnModels();
    settings_.id == roles_.Evaluator1() ? Lead() : Follow();
    AbortAll("the server stops");
  } catch (const std::exception& e) {
    AbortAll(ErrorText(e));
    const auto cause = preparer_ ? preparer_->Error() : nullptr;
    preparer_.reset();
    {
      const std::lock_guard lock(mutex_);
      if (!stopping_.empty()) return;
    }
    if (cause) std::rethrow_exception(cause);
    throw;
  }
  preparer_.reset();
}

// The models that all three have. What was there stays as it is; what is new comes after it in the
// order of the digests, with keys of its own; a number is never used again.
void LaneSession::AgreeOnModels() {
  changed_ = false;
  std::map<crypto::Digest, std::shared_ptr<const ServedModel>> mine;
  for (const auto& model : offered_()) mine[model->header.digest] = model;
  Writer writer;
  for (const auto& [digest, model] : mine) writer.Raw(digest);
  const Bytes digests = writer.Take();
  for (const auto& link : links_)
    if (link) link->Send({Phase::kSetup, kModelsTag, 0, digests});
  for (const auto& link : links_) {
    if (!link) continue;
    const auto message = link->Receive(Phase::kSetup);
    if (message.tag != kModelsTag || message.payload.size() % sizeof(crypto::Digest) != 0 ||
        message.payload.size() > kMaxModels * sizeof(crypto::Digest))
      Unexpected(*link, message, "a list of models");
    std::set<crypto::Digest> theirs;
    for (Reader reader(message.payload); !reader.AtEnd();) {
      const auto raw = *reader.Raw(sizeof(crypto::Digest));
      crypto::Digest digest{};
      std::copy(raw.begin(), raw.end(), digest.begin());
      theirs.insert(digest);
    }
    std::erase_if(mine, [&](const auto& model) { return !theirs.contains(model.first); });
  }
  const std::size_t before = models_.size();
  std::vector<crypto::Digest> common;
  common.reserve(mine.size());
  for (const auto& [digest, model] : mine) common.push_back(digest);
  for (std::uint32_t m = 0; m < before; ++m) {
    if (!models_[m] || mine.erase(models_[m]->digest) > 0) continue;
    preparer_->Forget(m);
    const auto of_it = [m](const auto& entry) { return entry.first.first == m; };
    std::erase_if(ordered_, of_it);
    std::erase_if(wanted_, of_it);
    models_[m].reset();
  }
  if (before + mine.size() > kMaxModels)
    throw ProtocolError(fmt::format("a session has no more than {} models", kMaxModels));
  for (const auto& [digest, model] : mine) {
    net::Links links;
    for (std::size_t p = 0; p < 3; ++p)
      if (links_[p]) links[p] = net::MakeSharedLink(links_[p]);
    models_.push_back(std::make_shared<Model>(
        *model, PlanOf(*model, registry_, settings_.lane, settings_.max_batch), settings_.id,
        std::move(links), registry_));
  }
  if (settings_.id == roles_.Evaluator1()) {
    for (std::size_t m = before; m < models_.size(); ++m)
      wanted_[{static_cast<std::uint32_t>(m), 1}] = 1;
    KeepStock();
  }
  if (on_models) on_models(common);
}

net::Link& LaneSession::LinkTo(int party) const { return *links_[static_cast<std::size_t>(party)]; }

LaneSession::Model* LaneSession::ModelOf(std::uint32_t m) const {
  return m < models_.size() ? models_[m].get() : nullptr;
}

// --- E1.

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

// --- E2 and the helper.

void LaneSession::Follow() {
  auto& e1 = LinkTo(roles_.Evaluator1());
  while (true) {
    const auto command = e1.Receive(Phase::kSetup);
    Reader reader(command.payload);
    const auto m = reader.Word32(), size = reader.Word32();
    const bool fits =
        m && size && ModelOf(*m) != nullptr && *size >= 1 && *size <= settings_.max_batch;
    if (command.tag == kPollTag && command.payload.empty()) {
      e1.Send({Phase::kSetup, kStateTag, 0, {std::uint8_t{changed_.exchange(false)}}});
    } else if (command.tag == kAgreeTag && command.payload.empty()) {
      AgreeOnModels();
    } else if (command.tag == kPrepareTag && fits && reader.AtEnd()) {
      preparer_->Order({*m, *size}, models_[*m]);
    } else if (command.tag == kDropTag && fits && reader.AtEnd()) {
      preparer_->Take({*m, *size});
    } else if (command.tag == kRunTag && fits) {
      if (!Begin() || !Answer(command)) return;
    } else {
      Unexpected(e1, command, "what to do next");
    }
  }
}

// Runs a batch and gives its part of the answers to E1; false when the session is to end.
bool LaneSession::Answer(const net::Message& command) {
  auto& e1 = LinkTo(roles_.Evaluator1());
  Reader reader(command.payload);
  const std::uint32_t m = *reader.Word32(), size = *reader.Word32();
  Model& model = *models_[m];
  if (settings_.id == roles_.helper) {
    auto material = preparer_->Take({m, size});
    if (model.plan.HelperActsOnline()) model.secure.RunForClients(std::move(material), {});
    return End();
  }
  struct Part {
    QueryHead head;
    Refusal refusal;
    std::size_t column;
  };
  std::vector<Part> parts;
  AnyMatrix share = Zeros(model.Features(), size, model.plan.input_bits);
  std::size_t column = 0;
  while (!reader.AtEnd()) {
    const auto raw = reader.Raw(kHeadBytes);
    const auto length = reader.Word32();
    const auto sealed = length ? reader.Raw(*length) : std::nullopt;
    if (!raw || !sealed) Unexpected(e1, command, "a batch of queries");
    Part part{HeadFromBytes(*raw), Refusal::kNone, column};
    if (part.head.images > size - column) Unexpected(e1, command, "a batch of queries");
    // What is refused goes through as zeros, so that E1 need not wait for a word; nobody gets its
    // answer.
    if (part.head.model != model.digest) {
      part.refusal = Refusal::kModel;
    } else if (part.head.lane != settings_.lane) {
      part.refusal = Refusal::kLane;
    } else if (const auto text =
                   gate_.Open(part.head, *sealed, model.Features(), model.plan.input_bits,
                              settings_.now_ms(), part.refusal)) {
      PutColumns(*text, column, part.head.images, share);
    }
    column += part.head.images;
    parts.push_back(part);
  }
  const AnyMatrix result = model.secure.RunForClients(preparer_->Take({m, size}), std::move(share));
  Writer writer;
  for (const auto& part : parts) {
    Bytes sealed;
    if (part.refusal == Refusal::kNone)
      sealed = crypto::Seal(part.head.reply, AnswerContext(part.head, settings_.id),
                            TakeColumns(result, part.column, part.head.images));
    writer.Word8(static_cast<std::uint8_t>(part.refusal));
    writer.Word32(static_cast<std::uint32_t>(sealed.size()));
    writer.Raw(sealed);
  }
  e1.Send({Phase::kSetup, kAnswerTag, 0, writer.Take()});
  e1.Flush();
  return End();
}

}  // namespace tercet::service
