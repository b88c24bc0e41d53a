// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <utility>

#include "tercet/base/error.h"
#include "tercet/net/wrappers.h"

namespace tercet::net {

/// A link that fails instead of sending once `left` messages have been sent, over all links that
/// share the count.
class FailingLink final : public LinkWrapper {
 public:
  FailingLink(std::unique_ptr<Link> inner, std::atomic<int>& left)
      : LinkWrapper(std::move(inner)), left_(left) {}
  void Send(Message message) override {
    if (left_-- <= 0) throw NetworkError("this link was made to fail");
    inner_->Send(std::move(message));
  }

 private:
  std::atomic<int>& left_;
};

}  // namespace tercet::net
