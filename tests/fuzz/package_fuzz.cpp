// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tercet/base/error.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/service/package.h"

namespace {

using tercet::Bytes;
using tercet::ByteSpan;
namespace service = tercet::service;

void Read(ByteSpan package) {
  static const tercet::mpc::Registry registry = tercet::BuiltinProtocols();
  static const std::uint8_t secret[tercet::crypto::SealingKey::kBytes] = {1};
  static const tercet::crypto::SealingKey key{std::span(secret)};
  static const service::Deployment deployment;
  try {
    service::ReadPackage(package, deployment, 1, key, registry, "fuzz");
  } catch (const tercet::ConfigError&) {
  } catch (const tercet::UnsupportedError&) {
  }
}

}  // namespace

/// Any bytes are a package or an error; as they are, and as the header of a package.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Read({data, size});
  constexpr std::string_view kBegin("TERCETPK\1\0\0\0", 12);
  Bytes framed(kBegin.begin(), kBegin.end());
  for (int i = 0; i < 4; ++i) framed.push_back(static_cast<std::uint8_t>(size >> (8 * i)));
  framed.insert(framed.end(), data, data + size);
  framed.resize(framed.size() + 4096);
  Read(framed);
  return 0;
}
