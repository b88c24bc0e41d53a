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
constexpr std::size_t kMaxModels = 1000;
constexpr std::size_t kMaxOutstanding = 1024;  // batches whose material waits, whoever orders it
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

std::vector<Waiting> WaitingQueries::Take(std::size_t max_images,
                                          std::chrono::microseconds max_wait,
                                          std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [&] { return !queries_.empty() || closed_; });
  if (queries_.empty()) return {};
  const auto model = queries_.front().head.model;
  const auto until = queries_.front().since + max_wait;
  const auto waiting = [&] {
    std::size_t images = 0;
    for (const auto& query : queries_)
      if (query.head.model == model) images += query.head.images;
    return images;
  };
  changed_.wait_until(lock, until, [&] { return closed_ || waiting() >= max_images; });
  std::vector<Waiting> batch;
  std::size_t images = 0;
  for (auto query = queries_.begin(); query != queries_.end();) {
    const std::size_t more = query->head.images;
    if (query->head.model != model || images + more > max_images) {
      ++query;
      continue;
    }
    images += more;
    batch.push_back(std::move(*query));
    query = queries_.erase(query);
  }
  images_ -= images;
  return batch;
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
  }
  std::size_t Features() const { return plan.network.input.shape.Size(); }

  crypto::Digest digest;
  infer::Plan plan;
  mpc::Party party;
  infer::SecureNetwork secure;
};

// Makes material in a thread of its own, in the order in which E1 asks for it.
class LaneSession::Preparer {
 public:
  using Key = std::pair<std::uint32_t, std::uint32_t>;  // model, size
  Preparer(std::atomic<std::size_t>& made, std::function<void(const std::string&)> abort)
      : made_(made), abort_(std::move(abort)), thread_([this] { Work(); }) {}
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
    if (++outstanding_ > kMaxOutstanding)
      throw ProtocolError(fmt::format("material for more than {} batches is ordered and not used",
                                      kMaxOutstanding));
    orders_.push_back({key, std::move(model)});
    changed_.notify_all();
  }
  // Of a model that has gone. What is ordered is made all the same: the others make it too.
  void Forget(std::uint32_t model) {
    const std::lock_guard lock(mutex_);
    gone_.insert(model);
    outstanding_ -=
        std::erase_if(stock_, [&](const auto& made) { return made.first.first == model; });
    made_ = stock_.size();
  }
  infer::SecureNetwork::Query Take(Key key) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return stock_.contains(key) || error_; });
    if (error_) std::rethrow_exception(error_);
    --outstanding_;
    auto made = stock_.extract(stock_.lower_bound(key));
    made_ = stock_.size();
    return std::move(made.mapped());
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
        if (gone_.contains(order.key.first)) {
          --outstanding_;
          continue;
        }
        stock_.emplace(order.key, std::move(query));
        made_ = stock_.size();
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

  std::atomic<std::size_t>& made_;  // how many are in stock, for whoever counts
  std::function<void(const std::string&)> abort_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Ordered> orders_;
  std::size_t outstanding_ = 0;
  std::multimap<Key, infer::SecureNetwork::Query> stock_;  // of equal ones the first is the oldest
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
    preparer_ = std::make_unique<Preparer>(material_,
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
    std::erase_if(ordered_, [&](const auto& entry) { return entry.first.first == m; });
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
  if (settings_.id == roles_.Evaluator1())
    for (std::size_t m = before; m < models_.size(); ++m)
      OrderMaterial(static_cast<std::uint32_t>(m), 1);
  if (on_models) on_models(common);
}

net::Link& LaneSession::LinkTo(int party) const { return *links_[static_cast<std::size_t>(party)]; }

LaneSession::Model* LaneSession::ModelOf(std::uint32_t m) const {
  return m < models_.size() ? models_[m].get() : nullptr;
}

// --- E1.

void LaneSession::OrderMaterial(std::uint32_t model, std::uint32_t size) {
  Writer writer;
  writer.Word32(model);
  writer.Word32(size);
  const Bytes payload = writer.Take();
  for (const auto& link : links_)
    if (link) link->Send({Phase::kSetup, kPrepareTag, 0, payload});
  preparer_->Order({model, size}, models_[model]);
  ++ordered_[{model, size}];
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
    auto batch = queries_.Take(settings_.max_batch, settings_.max_wait, kPoll);
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
    std::vector<Waiting>& batch;
    std::vector<Outcome> outcomes;
    ~Tell() {
      for (std::size_t q = 0; q < batch.size(); ++q) batch[q].done(std::move(outcomes[q]));
    }
  } tell{batch, std::vector<Outcome>(batch.size())};
  std::uint32_t m = 0;
  while (m < models_.size() && !(models_[m] && models_[m]->digest == batch.front().head.model)) ++m;
  if (ModelOf(m) == nullptr) return;  // gone since the query came
  std::size_t images = 0;
  for (const auto& query : batch) images += query.head.images;
  const auto size =
      static_cast<std::uint32_t>(std::min<std::size_t>(std::bit_ceil(images), settings_.max_batch));
  const std::pair key{m, size};
  if (ordered_[key] == 0) OrderMaterial(m, size);
  AnyMatrix share = SendBatch(m, size, batch);
  auto material = preparer_->Take(key);
  --ordered_[key];
  while (ordered_[key] < settings_.ahead) OrderMaterial(m, size);
  const AnyMatrix result = models_[m]->secure.RunForClients(std::move(material), std::move(share));
  tell.outcomes = ReceiveAnswers(batch, result);
  if (!on_batch) return;
  BatchDone done{batch.size(), images, size, SecondsSince(start), {}};
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
