// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "tercet/service/deployment.h"

/// What clients send and get back; docs/service.md has every byte. All functions are thread safe.
namespace tercet::service {

using QueryId = std::array<std::uint8_t, 16>;

/// The public part of a query, which binds all of its sealed parts.
struct QueryHead {
  QueryId id{};
  crypto::Digest model{};  ///< PackageHeader::digest
  std::uint32_t lane = 0;
  std::uint32_t images = 0;
  std::uint64_t time_ms = 0;         ///< since 1970, UTC
  crypto::SealingPublicKey reply{};  ///< the one-time key that answers are sealed to
  bool operator==(const QueryHead&) const = default;
};

std::uint64_t NowMs();
/// The lane that a query's number says.
std::uint32_t LaneOf(const QueryId& id, std::size_t lanes);

/// The head as bytes, as it is in the contexts below and between servers.
inline constexpr std::size_t kHeadBytes = 96;
Bytes HeadBytes(const QueryHead& head);
/// Of exactly kHeadBytes.
QueryHead HeadFromBytes(ByteSpan bytes);

/// The context of a query's part for a server, and of a server's answer.
Bytes QueryContext(const QueryHead& head, int server);
Bytes AnswerContext(const QueryHead& head, int server);

/// A head with two sealed parts, of E1 and of E2: a query or its answer.
struct SealedPair {
  QueryHead head;  ///< of an answer the id alone
  Bytes e1, e2;
};

/// A message of the Open Inference Protocol with its binary tensor extension: JSON, whose length is
/// the header Inference-Header-Content-Length, and the parts.
struct Message {
  std::size_t json_bytes = 0;
  Bytes body;
};
inline constexpr const char* kJsonLengthHeader = "Inference-Header-Content-Length";

Message RequestOf(const SealedPair& query);
/// ConfigError ("body" with the JSON pointer) that says what was found and what was expected. No
/// length is used before it is compared with the body's.
SealedPair ParseRequest(ByteSpan body, std::size_t json_bytes);
Message ResponseOf(const SealedPair& answer, const std::string& model, const std::string& version);
SealedPair ParseResponse(ByteSpan body, std::size_t json_bytes);

/// Why a server refuses a query.
enum class Refusal : std::uint8_t {
  kNone = 0,
  kModel,   ///< names a model that is not served
  kLane,    ///< not the one of its number, or another server's
  kImages,  ///< none, or too many
  kTime,    ///< too old, or from the future
  kReplay,  ///< its number was seen before
  kSeal,    ///< the part was not sealed to this server for this query
  kStore,   ///< its number cannot be noted: the server's disk is full or broken
  kReply,   ///< nothing can be sealed to its one-time key
  kLength   ///< the share has another length than the model's input
};
/// What a client is told.
const char* RefusalText(Refusal refusal);

/// What each evaluator asks of a query before it takes part in it. Thread safe where `remember` is.
class Gate {
 public:
  /// `remember` notes a query's number until `forget_ms` (since 1970) and says whether it was new;
  /// Error when it cannot.
  using Remember = std::function<bool(const QueryId& id, std::uint64_t forget_ms)>;
  Gate(const Deployment& deployment, int id, crypto::SealingKey key, Remember remember);

  /// This server's share of the query's inputs as it was packed, for a model with so many `values`
  /// an image, of `bits` bits each; or why not. Whoever has passed here once never does again.
  std::optional<Bytes> Open(const QueryHead& head, ByteSpan sealed, std::size_t values,
                            unsigned bits, std::uint64_t now_ms, Refusal& why) const;

 private:
  const Deployment& deployment_;
  int id_;
  crypto::SealingKey key_;
  Remember remember_;
};

}  // namespace tercet::service
