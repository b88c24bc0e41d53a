// SPDX-License-Identifier: Apache-2.0
#include "tercet/service/lane.h"

#include <algorithm>
#include <exception>
#include <map>
#include <set>
#include <utility>

#include "service/lane_session.h"
#include "service/words.h"
#include "tercet/base/error.h"
#include "tercet/net/wrappers.h"
#include "tercet/ring/pack.h"

namespace tercet::service {
namespace {

constexpr std::size_t kMaxModels = 1000;

}  // namespace

void Unexpected(const net::Link& from, const net::Message& message, const char* what) {
  throw ProtocolError(fmt::format("server {} sent tag {:#x} with {} bytes where {} was expected",
                                  from.Peer(), message.tag, message.payload.size(), what));
}

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
    // E1 sees it within kPoll (lane_lead.cpp), and after what waits; the others may wait for E1 as
    // long as it likes.
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
