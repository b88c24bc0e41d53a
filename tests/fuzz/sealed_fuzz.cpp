// SPDX-License-Identifier: Apache-2.0
#include <sodium.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "tercet/service/query.h"

namespace {

using tercet::Bytes;
using tercet::ByteSpan;
namespace crypto = tercet::crypto;
namespace service = tercet::service;

constexpr std::size_t kTag = crypto_secretstream_xchacha20poly1305_ABYTES;

const crypto::SealingKey& Key() {
  static const std::uint8_t secret[crypto::SealingKey::kBytes] = {1};
  static const crypto::SealingKey key{std::span(secret)};
  return key;
}

// What whoever may seal to a server can make of chunks: of any length, in any order of tags.
struct Part {
  Bytes sealed, text;
  bool whole = false;  // full chunks, and the final one at the end
};

Part Compose(ByteSpan program, ByteSpan context) {
  static const Bytes box = [] {
    const Bytes stream_key(crypto_secretstream_xchacha20poly1305_KEYBYTES, 7);
    Bytes sealed(stream_key.size() + crypto_box_SEALBYTES);
    crypto_box_seal(sealed.data(), stream_key.data(), stream_key.size(), Key().Public().data());
    return sealed;
  }();
  const Bytes stream_key(crypto_secretstream_xchacha20poly1305_KEYBYTES, 7);
  Part part;
  part.sealed = box;
  crypto_secretstream_xchacha20poly1305_state state;
  part.sealed.resize(box.size() + crypto_secretstream_xchacha20poly1305_HEADERBYTES);
  crypto_secretstream_xchacha20poly1305_init_push(&state, part.sealed.data() + box.size(),
                                                  stream_key.data());
  bool fits = true, ended = false;
  while (program.size() >= 3) {
    const std::uint8_t tag = program[0] % 4;
    // Of both a few bytes and whole chunks.
    const std::size_t length = program[2] % 8 == 0
                                   ? crypto::kSealedChunkBytes - program[1] % 2
                                   : std::min<std::size_t>(program[1], program.size() - 3);
    program = program.subspan(3);
    Bytes chunk(length, 9);
    std::copy_n(program.begin(), std::min(program.size(), length), chunk.begin());
    program = program.subspan(std::min(program.size(), length));
    const std::size_t at = part.sealed.size();
    part.sealed.resize(at + length + kTag);
    crypto_secretstream_xchacha20poly1305_push(&state, part.sealed.data() + at, nullptr,
                                               chunk.data(), length, context.data(), context.size(),
                                               tag);
    const bool final = tag == crypto_secretstream_xchacha20poly1305_TAG_FINAL;
    fits = fits && !ended && (final || length == crypto::kSealedChunkBytes);
    ended = ended || final;
    part.text.insert(part.text.end(), chunk.begin(), chunk.end());
    if (part.text.size() > 4 * crypto::kSealedChunkBytes) break;
  }
  part.whole = fits && ended;
  return part;
}

}  // namespace

/// Any bytes open to a text or to none; what is composed of chunks opens exactly where all but a
/// final one at the end are full, to its text, and not with any bit changed, cut off or put on.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4) return 0;
  static const service::Deployment deployment;
  static const service::Gate gate(deployment, 1, crypto::SealingKey(Key().Secret()),
                                  [](const service::QueryId&, std::uint64_t) { return true; });
  service::QueryHead head;  // of lane 0, whose helper is server 0
  head.images = 1;
  head.reply = Key().Public();
  const Bytes context = service::QueryContext(head, 1);
  crypto::Unseal(Key(), context, {data, size});

  const ByteSpan program(data + 4, size - 4);
  Part part = Compose(program, context);
  auto why = service::Refusal::kNone;
  const auto text = gate.Open(head, part.sealed, part.text.size(), 8, 0, why);
  if (text.has_value() != part.whole || (text && *text != part.text)) std::abort();

  const std::size_t at = (data[0] + 256U * data[1] + 65536U * (data[2] % 8)) % part.sealed.size();
  switch (data[3] % 3) {
    case 0:
      part.sealed[at] ^= static_cast<std::uint8_t>(1U << (data[3] / 3 % 8));
      break;
    case 1:
      part.sealed.resize(at);
      break;
    default:
      part.sealed.push_back(data[0]);
  }
  const auto changed = crypto::Unseal(Key(), context, part.sealed);
  // A stream that is cut between chunks has lost its end.
  if (changed && part.whole) std::abort();
  return 0;
}
