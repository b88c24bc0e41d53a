// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "net/frame.h"
#include "tercet/base/error.h"

namespace {

using tercet::net::Frame;

/// The first byte says how the stream is cut into reads.
void FuzzFrames(std::span<const std::uint8_t> in) {
  if (in.empty()) return;
  const std::size_t piece = std::size_t{in[0]} * 16 + 1;
  in = in.subspan(1);
  tercet::net::FrameReader reader;
  std::vector<Frame> frames;
  tercet::Bytes again;
  try {
    for (auto rest = in; !rest.empty();) {
      const auto space = reader.Space();
      const std::size_t n = std::min({piece, rest.size(), space.size()});
      std::copy_n(rest.begin(), n, space.begin());
      reader.Advance(n, frames);
      rest = rest.subspan(n);
    }
  } catch (const tercet::ProtocolError&) {  // NOLINT(bugprone-empty-catch): what a bad stream must
                                            // lead to
  }
  for (const Frame& frame : frames) {
    const auto header = tercet::net::EncodeFrameHeader(frame);
    again.insert(again.end(), header.begin(), header.end());
    again.insert(again.end(), frame.message.payload.begin(), frame.message.payload.end());
  }
  // What was understood must be what was written.
  if (again.size() > in.size() || !std::equal(again.begin(), again.end(), in.begin()))
    __builtin_trap();
}

void FuzzHello(std::span<const std::uint8_t> in) {
  constexpr std::size_t kHead = tercet::net::kHelloHeadBytes;
  if (in.size() < kHead) return;
  try {
    const auto head = tercet::net::ParseHelloHead(in.first<kHead>());
    if (head.refusal || in.size() - kHead != head.length) return;
    const auto agreement = tercet::net::ParseHelloBody(head, in.subspan(kHead));
    const auto again = tercet::net::EncodeHello(head.party, agreement);
    if (!std::equal(again.begin(), again.end(), in.begin(), in.end())) __builtin_trap();
    if (!tercet::net::Differences(agreement, agreement).empty()) __builtin_trap();
  } catch (const tercet::ProtocolError&) {  // NOLINT(bugprone-empty-catch): as above
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzFrames({data, size});
  FuzzHello({data, size});
  return 0;
}
