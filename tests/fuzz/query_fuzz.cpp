// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "tercet/base/error.h"
#include "tercet/service/query.h"

/// Any body is a query that comes back from its own message, or a ConfigError; the first two bytes
/// say how long its JSON claims to be.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  namespace service = tercet::service;
  const std::size_t json_bytes = data[0] + 256U * data[1];
  try {
    const auto query = service::ParseRequest({data + 2, size - 2}, json_bytes);
    const auto message = service::RequestOf(query);
    const auto again = service::ParseRequest(message.body, message.json_bytes);
    if (!(again.head == query.head) || again.e1 != query.e1 || again.e2 != query.e2) std::abort();
  } catch (const tercet::ConfigError&) {
  }
  return 0;
}
