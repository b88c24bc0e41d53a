// SPDX-License-Identifier: Apache-2.0
#include "net/failure.h"

#include <exception>
#include <new>

#include "tercet/base/error.h"

namespace tercet::net {

void Failure::Throw() const {
  switch (kind) {
    case Kind::kAbort:
      throw AbortError(text);
    case Kind::kNetwork:
      throw NetworkError(text);
    default:
      throw InternalError(text);
  }
}

Failure Failure::Current() {
  try {
    throw;
  } catch (const AbortError& e) {
    return {Kind::kAbort, e.what()};
  } catch (const NetworkError& e) {
    return {Kind::kNetwork, e.what()};
  } catch (const std::bad_alloc&) {
    return {Kind::kOther, "out of memory"};
  } catch (const std::exception& e) {
    return {Kind::kOther, e.what()};
  } catch (...) {
    return {Kind::kOther, "unknown exception"};
  }
}

std::string CleanText(std::string_view text, std::size_t limit) {
  std::string clean(text.substr(0, limit));
  for (char& c : clean) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  if (text.size() > limit) clean += "...";
  return clean;
}

}  // namespace tercet::net
